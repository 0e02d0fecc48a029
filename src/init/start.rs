//! Starting one process: everything that can be decided is decided before the fork.

use super::child::{Program, Ready, child};
use super::environment;
use super::inside::TTY_GROUP;
use super::limits;
use super::proto::FailKind;
use super::root::{Kept, WITHIN, make_dirs, open_again, open_dir};
use super::users::{self, User};
use super::victim::Score;
use crate::model::process::{self as model, LAUNCH_FD, ProcessSpec, Rlimit};
use crate::sys::at::{self, Kind, Open, Resolve};
use crate::sys::caps::Caps;
use crate::sys::fd;
use crate::sys::ns::Fork;
use crate::sys::process;
use crate::sys::pty;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The longest passwd or group file that is read, in bytes.
const USERS_MAX: u64 = 1 << 20;

/// A refusal: its kind, and what a person should know.
pub type Failure = (FailKind, String);

/// What every start needs.
pub struct Workshop {
    /// /dev/null and /dev/pts, as they were made.
    pub kept: Kept,
    /// By which a process is ended before pid 1.
    pub score: Score,
    /// The container's root directory.
    pub root: OwnedFd,
    /// The highest id inside.
    pub last_id: u32,
    /// Capabilities of the container's root.
    pub granted: Caps,
    /// Bounding set of everybody else.
    pub for_users: Caps,
    /// Limits that a process gets when it does not say.
    pub usual: limits::Values,
    /// AppArmor profile of every process.
    pub profile: Option<String>,
}

/// What came with the request to start a process.
#[derive(Default)]
pub struct Sent {
    /// Our program, when it is that.
    pub program: Option<OwnedFd>,
    /// Files that open the groups which it shall be in.
    pub doors: Vec<OwnedFd>,
    /// It waits for one byte here before it does anything: read end, write end.
    pub gate: Option<(OwnedFd, OwnedFd)>,
}

impl Sent {
    /// Sorts the descriptors of a request.
    pub fn sort(spec: &ProcessSpec, fds: Vec<OwnedFd>) -> Result<Sent, Failure> {
        let mut fds = fds.into_iter();
        let program = match spec.program {
            model::Program::Path => None,
            model::Program::Ours => Some(fds.next().ok_or_else(|| {
                (FailKind::Refused, format!("`{}` came without its program", spec.path))
            })?),
        };
        Ok(Sent { program, doors: fds.collect(), gate: None })
    }
}

/// A forked process.
pub struct Launched {
    /// Its number inside.
    pub pid: i32,
    /// Carries the step that failed and its errno, or ends without one when exec has worked.
    pub errors: OwnedFd,
    /// Read ends of its outputs: of a terminal the master, else standard output and error.
    pub outputs: Vec<OwnedFd>,
    /// Write end of its standard input, when asked for.
    pub stdin: Option<OwnedFd>,
    /// Limits that are lower than it asked for.
    pub lowered: BTreeMap<Rlimit, u64>,
    /// What lets it go, when it waits at its gate.
    pub gate: Option<OwnedFd>,
}

impl Launched {
    /// What travels beside [`super::proto::Answer::Forked`].
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let first = [Some(&self.errors), self.gate.as_ref()].into_iter().flatten();
        first.chain(&self.outputs).chain(&self.stdin).map(AsFd::as_fd).collect()
    }

    /// The same at the other end.
    pub fn received(
        pid: i32,
        tty: bool,
        lowered: BTreeMap<Rlimit, u64>,
        fds: Vec<OwnedFd>,
    ) -> Result<Launched, Failure> {
        let mut fds = fds.into_iter();
        let outputs_wanted = if tty { 1 } else { 2 };
        let (Some(errors), Some(gate)) = (fds.next(), fds.next()) else {
            return Err((FailKind::Refused, "a process came without its gate".into()));
        };
        let outputs: Vec<_> = fds.by_ref().take(outputs_wanted).collect();
        if outputs.len() < outputs_wanted {
            return Err((FailKind::Refused, "a process came without its streams".into()));
        }
        Ok(Launched { pid, errors, outputs, stdin: fds.next(), lowered, gate: Some(gate) })
    }
}

/// Starts what `spec` says; `sent` came with the request. The caller is pid 1, alone in its process.
pub fn start(workshop: &Workshop, spec: &ProcessSpec, sent: Sent) -> Result<Launched, Failure> {
    let Sent { program, doors, gate } = sent;
    let root = &workshop.root;
    let user = find_user(workshop, &spec.user)?;
    let env = environment::complete(&spec.env, &user).map_err(|text| (FailKind::Refused, text))?;
    if spec.path.is_empty() {
        return Err((FailKind::Refused, "the program has no name".into()));
    }
    let name = spec.argv0.as_ref().unwrap_or(&spec.path);
    let has = limits::present()
        .map_err(|err| (FailKind::System, format!("cannot read the limits: {err}")))?;
    let limits = limits::decide(spec, &workshop.usual, &has);
    let lowered = limits.lowered.clone();
    let dir = working_dir(root, spec, &user)?;
    let (streams, outputs, stdin) = streams(&workshop.kept, spec, &user)
        .map_err(|err| (FailKind::System, format!("cannot make the streams: {err}")))?;
    let system = |err: io::Error| (FailKind::System, format!("cannot fork: {err}"));
    let (errors, tell) = fd::pipe().map_err(system)?;
    let told_by = spec.launches.then(|| tell.try_clone()).transpose().map_err(system)?;
    let number = told_by.as_ref().map(|told| format!("{LAUNCH_FD}={}", fd::number(told)));
    let ready = Ready {
        program: match program {
            Some(program) => Program::Sent(program),
            None => Program::Of(c_strings(environment::candidates(&spec.path, &env))?),
        },
        doors,
        argv: c_strings([name].into_iter().chain(&spec.args).cloned())?,
        env: c_strings(env.iter().map(|(name, value)| format!("{name}={value}")).chain(number))?,
        user,
        dir,
        limits,
        streams,
        tty: spec.tty.is_some(),
        told_by,
    };
    let (gate, open) = gate.unzip();
    match workshop.score.fork().map_err(system)? {
        Fork::Child => {
            // Ours too, and it would never close.
            drop(open);
            if let Some(gate) = gate
                && !matches!(fd::read(&gate, &mut [0]), Ok(1))
            {
                process::exit_now(127);
            }
            let (step, err) = child(workshop, &ready);
            let code = err.raw_os_error().unwrap_or(0);
            let mut word = [step as u8, 0, 0, 0, 0];
            word[1..].copy_from_slice(&code.to_ne_bytes());
            // Pid 1 may be ending; then so are we.
            let _ = fd::write(&tell, &word);
            process::exit_now(127)
        }
        Fork::Parent { pid, .. } => {
            Ok(Launched { pid, errors, outputs, stdin, lowered, gate: open })
        }
    }
}

/// Reads the own files of the root and finds the user.
fn find_user(workshop: &Workshop, wanted: &str) -> Result<User, Failure> {
    let root = &workshop.root;
    let not_found = |text: String| (FailKind::UserNotFound, text);
    let passwd = user_file(root, "/etc/passwd").map_err(not_found)?;
    let group = user_file(root, "/etc/group").map_err(not_found)?;
    users::find(wanted, &passwd, &group, workshop.last_id).map_err(not_found)
}

/// The content of a file that the container may have made anything of: a missing one is empty; a
/// device, a pipe, a huge or a leased one is an error, at once.
fn user_file(root: &OwnedFd, path: &str) -> Result<Vec<u8>, String> {
    let read = || -> io::Result<Vec<u8>> {
        let flags = Open::O_RDONLY | Open::O_NONBLOCK | Open::O_NOCTTY;
        let file = open_again(root.as_fd(), Path::new(path), flags, WITHIN)?;
        let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
        let found = at::stat(&file)?;
        if found.kind != Kind::File {
            return Err(bad("not a regular file"));
        }
        let mut bytes = Vec::new();
        File::from(file).take(USERS_MAX + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 > USERS_MAX {
            true => Err(bad("longer than 1 MiB")),
            false => Ok(bytes),
        }
    };
    match read() {
        Err(err)
            if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(Vec::new())
        }
        other => other.map_err(|err| format!("cannot read the container's {path}: {err}")),
    }
}

/// Opens the working directory, made for the user when missing unless it must be there. A link of /proc, which might lead
/// out of the container, is refused wherever it is on the way.
fn working_dir(root: &OwnedFd, spec: &ProcessSpec, user: &User) -> Result<OwnedFd, Failure> {
    let path = spec.dir.as_ref().unwrap_or(&user.home);
    if !path.starts_with('/') {
        let text = format!("working directory `{}` is not absolute", path.escape_default());
        return Err((FailKind::Refused, text));
    }
    if spec.dir_must_exist {
        return open_dir(root.as_fd(), Path::new(path), WITHIN).map_err(|err| {
            let text = match err.kind() {
                io::ErrorKind::NotFound => {
                    format!("working directory {path} is not in the container; make it first")
                }
                io::ErrorKind::NotADirectory => {
                    format!("working directory {path} is not a directory; name one")
                }
                _ => format!("cannot use working directory {path}: {err}"),
            };
            (FailKind::NotExecutable, text)
        });
    }
    make_dirs(root, Path::new(path), (user.uid, user.gid), WITHIN)
        .map_err(|err| (FailKind::System, format!("cannot use working directory {path}: {err}")))
}

/// The three ends of the process, the read ends of its outputs, and the write end of its input.
type Streams = ([OwnedFd; 3], Vec<OwnedFd>, Option<OwnedFd>);

/// Makes a terminal or pipes.
fn streams(kept: &Kept, spec: &ProcessSpec, user: &User) -> io::Result<Streams> {
    if let Some(size) = spec.tty {
        // By descriptor from our own devpts, not by a path that the container could replace.
        let flags = Open::O_RDWR | Open::O_NOCTTY;
        let ptmx = at::open(&kept.pts, "ptmx", flags, 0, Resolve::RESOLVE_NO_SYMLINKS)?;
        let (master, slave) = pty::open(ptmx)?;
        at::set_owner(&slave, user.uid, TTY_GROUP)?;
        pty::set_size(&slave, size.rows, size.columns)?;
        fd::set_nonblocking(&master, true)?;
        let ends = [slave.try_clone()?, slave.try_clone()?, slave];
        return Ok((ends, vec![master], None));
    }
    let (out, out_end) = fd::pipe()?;
    let (err, err_end) = fd::pipe()?;
    fd::set_nonblocking(&out, true)?;
    fd::set_nonblocking(&err, true)?;
    // A user who is not root must be able to open /dev/stdout, which is a link to the pipe.
    let give = |end: &OwnedFd| at::set_owner(end, user.uid, user.gid);
    give(&out_end)?;
    give(&err_end)?;
    let (input, stdin) = if spec.stdin {
        let (reader, writer) = fd::pipe()?;
        give(&reader)?;
        (reader, Some(writer))
    } else {
        (kept.null.try_clone()?, None)
    };
    Ok(([input, out_end, err_end], vec![out, err], stdin))
}

/// Strings for the kernel.
fn c_strings(texts: impl IntoIterator<Item = String>) -> Result<Vec<CString>, Failure> {
    let nul = |_| (FailKind::Refused, "program or argument with a NUL byte in it".to_owned());
    texts.into_iter().map(CString::new).collect::<Result<_, _>>().map_err(nul)
}

/// The descriptor of the caller's `/`.
pub fn root_dir() -> io::Result<OwnedFd> {
    at::open(at::HERE.as_fd(), "/", Open::O_PATH | Open::O_DIRECTORY, 0, Resolve::empty())
}
