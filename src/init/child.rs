//! The process that pid 1 has forked, until it is its program; and what it says when it cannot be.

use super::limits::Limits;
use super::profile;
use super::proto::FailKind;
use super::start::{Failure, Workshop};
use super::users::User;
use crate::model::process::{LAUNCH_FAILED, LAUNCH_NO_INTERPRETER};
use crate::sys::at::{self, Open, Resolve};
use crate::sys::caps::{self, Caps};
use crate::sys::fd::{self, Standard};
use crate::sys::{process, pty, signal};
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// What the child becomes.
pub(super) enum Program {
    /// The first of these files that can be executed.
    Of(Vec<CString>),
    /// What the daemon has sent. The file is sealed, so that root of a privileged container, who
    /// finds it in /proc/PID/exe, can write neither to it nor to the box's own program; and only
    /// the box's root may read it, which makes the process untraceable for everybody in a user
    /// namespace of its own: the kernel then counts it as the box's. It has nothing to steal all
    /// the same: it runs as any process of the container, with its user, filter and limits, and
    /// but for its three streams every descriptor closes when it is executed.
    Sent(OwnedFd),
}

/// Everything that the child needs.
pub(super) struct Ready {
    pub(super) program: Program,
    pub(super) doors: Vec<OwnedFd>,
    pub(super) argv: Vec<CString>,
    pub(super) env: Vec<CString>,
    pub(super) user: User,
    pub(super) dir: OwnedFd,
    pub(super) limits: Limits,
    pub(super) streams: [OwnedFd; 3],
    pub(super) tty: bool,
    /// Of a launcher: it says itself what becomes of it.
    pub(super) told_by: Option<OwnedFd>,
}

/// Where a child failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Doors = 1,
    Terminal,
    Streams,
    Limits,
    User,
    Directory,
    Capabilities,
    Profile,
    Descriptors,
    NotFound,
    NoInterpreter,
    NotExecutable,
    Exec,
}

/// The child between fork and exec; returns only with its failure. It is untraceable until exec,
/// so nobody inside can use it as a door to what pid 1 has open.
pub(super) fn child(workshop: &Workshop, ready: &Ready) -> (Step, io::Error) {
    match become_it(workshop, ready) {
        Ok(()) => exec(ready),
        Err(failure) => failure,
    }
}

/// Everything before exec.
fn become_it(workshop: &Workshop, ready: &Ready) -> Result<(), (Step, io::Error)> {
    let at_step = |step: Step| move |err: io::Error| (step, err);
    for door in &ready.doors {
        fd::write(door, b"0").map_err(at_step(Step::Doors))?;
    }
    process::new_session().map_err(at_step(Step::Terminal))?;
    let [input, output, error] = &ready.streams;
    if ready.tty {
        pty::take_control(input).map_err(at_step(Step::Terminal))?;
    }
    fd::become_standard(input, Standard::Input)
        .and_then(|()| fd::become_standard(output, Standard::Output))
        .and_then(|()| fd::become_standard(error, Standard::Error))
        .map_err(at_step(Step::Streams))?;
    let User { uid, gid, ref groups, .. } = ready.user;
    if uid != 0 && workshop.granted.and(workshop.for_users) != workshop.for_users {
        caps::limit_bounding(workshop.for_users).map_err(at_step(Step::Capabilities))?;
    }
    process::become_user(uid, gid, groups)
        // A change of ids may have made us visible.
        .and_then(|()| process::set_dumpable(false))
        .map_err(at_step(Step::User))?;
    // As the user, who may lack the right to be there; and it must be inside.
    at::change_dir(&ready.dir)
        .and_then(|()| at::working_dir())
        .map_err(at_step(Step::Directory))?;
    let caps = if uid == 0 { workshop.granted } else { Caps::default() };
    caps::set(caps, caps).map_err(at_step(Step::Capabilities))?;
    if let Some(wanted) = &workshop.profile {
        profile::take_at_exec(&workshop.kept.proc, wanted).map_err(at_step(Step::Profile))?;
    }
    process::set_umask(0o022);
    signal::reset_all()
        .and_then(|()| fd::close_all_on_exec())
        .and_then(|()| ready.told_by.as_ref().map_or(Ok(()), fd::keep_on_exec))
        .map_err(at_step(Step::Descriptors))?;
    // Last: what is left to do is exec, and that shall be all that they can hinder.
    ready.limits.apply().map_err(at_step(Step::Limits))
}

/// Tries every candidate; returns the failure that tells most.
fn exec(ready: &Ready) -> (Step, io::Error) {
    let programs = match &ready.program {
        Program::Of(programs) => programs,
        Program::Sent(program) => {
            return (Step::Exec, process::exec_open(program, &ready.argv, &ready.env));
        }
    };
    let mut worst = (Step::NotFound, io::Error::from(io::ErrorKind::NotFound));
    for program in programs {
        let err = process::exec(program, &ready.argv, &ready.env);
        match err.kind() {
            io::ErrorKind::NotFound => {
                let path = Path::new(std::ffi::OsStr::new(program.to_str().unwrap_or("")));
                if at::open(at::HERE, path, Open::O_PATH, 0, Resolve::empty()).is_ok() {
                    return (Step::NoInterpreter, err);
                }
            }
            io::ErrorKind::NotADirectory => {}
            // As a shell does, go on: a later directory may have one that can be executed.
            io::ErrorKind::PermissionDenied => worst = (Step::NotExecutable, err),
            _ => return (Step::Exec, err),
        }
    }
    worst
}

/// Bytes of a program's name that a launcher may tell.
const PROGRAM_MAX: usize = 256;

/// What the pipe of a starting process says: `None` when exec has worked.
pub(super) fn outcome(errors: &OwnedFd, program: &str) -> Option<Failure> {
    let mut word = [0; 5 + PROGRAM_MAX];
    let length = fd::read(errors, &mut word).ok().filter(|length| *length >= 5)?;
    let launched = String::from_utf8_lossy(&word[5..length]);
    let launched: String = launched.chars().filter(|it| !it.is_control()).collect();
    let program = if word[0] == LAUNCH_FAILED { &launched } else { program };
    let number = i32::from_ne_bytes([word[1], word[2], word[3], word[4]]);
    let err = io::Error::from_raw_os_error(number);
    let system = |what: &str| (FailKind::System, format!("cannot {what}: {err}"));
    let step = match (word[0], err.kind()) {
        (LAUNCH_FAILED, io::ErrorKind::NotFound) => Step::NotFound as u8,
        (LAUNCH_FAILED, _) if number == LAUNCH_NO_INTERPRETER => Step::NoInterpreter as u8,
        (LAUNCH_FAILED, io::ErrorKind::PermissionDenied) => Step::NotExecutable as u8,
        (LAUNCH_FAILED, _) => Step::Exec as u8,
        (step, _) => step,
    };
    let is = |known: Step| step == known as u8;
    Some(match () {
        () if is(Step::NotFound) => {
            (FailKind::ProgramNotFound, format!("program `{program}` is not in the container"))
        }
        () if is(Step::NoInterpreter) => (
            FailKind::NotExecutable,
            format!("program `{program}` needs an interpreter or loader that is not there"),
        ),
        () if is(Step::NotExecutable) => {
            (FailKind::NotExecutable, format!("program `{program}` may not be executed: {err}"))
        }
        () if is(Step::Exec) => match err.kind() {
            io::ErrorKind::ArgumentListTooLong => {
                (FailKind::Refused, format!("arguments and environment of `{program}`: {err}"))
            }
            _ => (FailKind::NotExecutable, format!("program `{program}` cannot be run: {err}")),
        },
        () if is(Step::Doors) => system("put the process into its cgroup"),
        () if is(Step::Terminal) => system("give the process its terminal"),
        () if is(Step::Streams) => system("give the process its streams"),
        () if is(Step::Limits) => system("set the process's limits"),
        () if is(Step::User) => system("become the process's user"),
        () if is(Step::Directory) => {
            system("enter the working directory as the process's user, who may have no right to it")
        }
        () if is(Step::Capabilities) => system("set the process's capabilities"),
        () if is(Step::Profile) => system("put the process under its AppArmor profile"),
        () => system("prepare the process"),
    })
}
