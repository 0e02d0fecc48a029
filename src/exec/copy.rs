//! Copies trees into containers and files out of them.
//!
//! Archives are unpacked and files are opened by our own program *inside* the container, as its
//! user: nothing of the container's tree is ever resolved by the daemon.

mod out;

pub(super) use out::{Out, copy_out, read_out};

use super::cancel::{self, Cancel};
use super::run::{DEATH_MAX, Executor, within};
use super::steps::{StepError, StepResult};
use super::streams::{Sink, log_lines};
use crate::container::Process;
use crate::lifecycle::{LifecycleError, form};
use crate::model::action::CopyInAction;
use crate::model::process::{ExitStatus, ProcessSpec, Program};
use crate::sys;
use crate::sys::signal::KILL;
use smol::future;
use std::fs::File;
use std::io;

/// Log source of what copying has to say.
const SOURCE: &str = "STG";

/// Does a [`CopyInAction`].
pub async fn copy_in(exec: &Executor, copy: &CopyInAction, cancel: &Cancel) -> StepResult {
    let failed = |why: String| failed("Copying", &copy.artifact, "into", why);
    let args = vec!["-C".to_owned(), copy.to.clone()];
    let place = Place { user: &copy.user, dir: Some("/"), stdin: true };
    let started = helper(exec, ("untar", args), &place, cancel).await;
    let mut process = started.map_err(|err| worded(err, failed))?;
    let stdin = process.streams.stdin.take().expect("it was asked for");
    sys::fd::set_nonblocking(&stdin, false).map_err(|err| failed(err.to_string()))?;
    let (from, exclude) = (copy.from.clone(), copy.exclude.clone());
    let pack = smol::unblock(move || form::pack(&from, &exclude, File::from(stdin)));
    let sink = exec.sink(SOURCE);
    let (packed, end) = future::zip(pack, finish(exec, process, &sink, cancel)).await;
    match (packed, end) {
        (_, Err(StepError::Cancelled)) => Err(StepError::Cancelled),
        (packed, end) => why_not(packed.err(), end, copy).map_or(Ok(()), |why| Err(failed(why))),
    }
}

/// Why a copy failed, when it did. What stops the packer makes the unpacker fail too, with nothing
/// to say but that its archive is short; a broken pipe is told by the unpacker.
fn why_not(
    packed: Option<LifecycleError>,
    end: Result<ExitStatus, StepError>,
    copy: &CopyInAction,
) -> Option<String> {
    match (packed, end) {
        (Some(err), _) if !matches!(err, LifecycleError::Stream { .. }) => {
            Some(err.within("its source", &copy.from))
        }
        (_, Err(err)) => Some(err.to_string()),
        (None, Ok(ExitStatus::Exited(0))) => None,
        (Some(err), Ok(ExitStatus::Exited(0))) => Some(crate::log::chain(&err)),
        (_, Ok(ExitStatus::Exited(_))) => {
            Some("the unpacker stopped; its message is above".to_owned())
        }
        (_, Ok(ExitStatus::Signaled(signal))) => Some(format!(
            "the unpacker was ended by signal {signal}; is there enough memory ([build] memory)?"
        )),
    }
}

/// Where a tar goes.
pub(super) struct Into<'a> {
    /// Directory, made when missing; what is not absolute lies in the user's home.
    pub to: &'a str,
    /// Owner of everything.
    pub user: &'a str,
    /// Who hears what the unpacker says.
    pub sink: &'a Sink,
}

/// Unpacks the tar that `write` gives, inside the container.
pub(super) async fn stream_in(
    exec: &Executor,
    into: &Into<'_>,
    cancel: &Cancel,
    write: impl FnOnce(File) -> io::Result<()> + Send + 'static,
) -> StepResult {
    let failed = StepError::Failed;
    let args = vec!["-C".to_owned(), into.to.to_owned()];
    let place = Place { user: into.user, dir: None, stdin: true };
    let mut process = helper(exec, ("untar", args), &place, cancel).await?;
    let stdin = process.streams.stdin.take().expect("it was asked for");
    sys::fd::set_nonblocking(&stdin, false).map_err(|err| failed(err.to_string()))?;
    let write = smol::unblock(move || write(File::from(stdin)));
    let (written, end) = future::zip(write, finish(exec, process, into.sink, cancel)).await;
    match (written, end?) {
        (Ok(()), ExitStatus::Exited(0)) => Ok(()),
        (Err(err), ExitStatus::Exited(0)) => Err(failed(err.to_string())),
        (_, ExitStatus::Exited(_)) => {
            Err(failed("the unpacker stopped; its message is above".to_owned()))
        }
        (_, ExitStatus::Signaled(signal)) => {
            Err(failed(format!("the unpacker was ended by signal {signal}")))
        }
    }
}

/// How a program of ours runs inside.
struct Place<'a> {
    user: &'a str,
    /// `None`: the user's home.
    dir: Option<&'a str>,
    stdin: bool,
}

/// Starts one of our own programs inside.
async fn helper(
    exec: &Executor,
    (name, args): (&str, Vec<String>),
    place: &Place<'_>,
    cancel: &Cancel,
) -> Result<Process, StepError> {
    let spec = ProcessSpec {
        id: exec.new_id(),
        path: name.to_owned(),
        args,
        // By descriptor: whoever brings his own programs has none of ours among his files.
        program: Program::Ours,
        argv0: None,
        env: Vec::new(),
        dir: place.dir.map(str::to_owned),
        dir_must_exist: false,
        user: place.user.to_owned(),
        nofile: None,
        rlimits: Default::default(),
        tty: None,
        stdin: place.stdin,
        keep_stdin: false,
        launches: false,
        never_waits: false,
    };
    // Given up before its answer, a start is undone when that comes after all.
    match cancel.or(exec.container.start(spec)).await {
        Some(started) => started.map_err(|err| StepError::Failed(err.to_string())),
        None => Err(StepError::Cancelled),
    }
}

/// A failure with more words around its text.
fn worded(err: StepError, words: impl Fn(String) -> StepError) -> StepError {
    match err {
        StepError::Failed(text) => words(text),
        other => other,
    }
}

/// Logs what the helper says until it ends; kills it at once when cancelled.
async fn finish(
    exec: &Executor,
    mut process: Process,
    sink: &Sink,
    cancel: &Cancel,
) -> Result<ExitStatus, StepError> {
    let (end, ended) = cancel::pair();
    let streams = std::mem::take(&mut process.streams);
    let to = (sink.clone(), exec.limit.clone());
    let output = future::zip(
        log_lines((streams.stdout, Vec::new()), false, to.clone(), ended.clone(), None),
        log_lines((streams.stderr, Vec::new()), true, to, ended, None),
    );
    let life = async {
        let status = match cancel.or(process.wait()).await {
            Some(status) => status.map_err(|err| StepError::Failed(err.to_string())),
            None => {
                let _ = process.signal(KILL).await;
                // Or what follows would find it still there; it cannot be forgotten either.
                let _ = within(DEATH_MAX, &process).await;
                Err(StepError::Cancelled)
            }
        };
        end.cancel();
        status
    };
    let (_, status) = future::zip(output, life).await;
    let _ = exec.container.forget(&process.id).await;
    status
}

/// Diego's text.
fn failed(verb: &str, artifact: &str, way: &str, why: String) -> StepError {
    StepError::Failed(cut(format!("{verb} {artifact} {way} the container failed: {why}")))
}

/// Cuts a text where Diego cuts it.
pub(super) fn cut(mut text: String) -> String {
    if text.len() > 1024 {
        let end = (0..=1024).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" (error truncated)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_of_a_failed_copy_is_told() {
        let copy = CopyInAction {
            from: "/src/web".into(),
            to: "/tmp/app".into(),
            user: "vcap".into(),
            artifact: "app bits".into(),
            exclude: Vec::new(),
        };
        let why = |packed, status| why_not(packed, Ok(status), &copy);
        let broken = |kind: io::ErrorKind| LifecycleError::File {
            doing: "read",
            path: "/src/web/conf/key".into(),
            source: kind.into(),
        };
        let torn =
            || LifecycleError::Stream { doing: "write", source: io::ErrorKind::BrokenPipe.into() };
        let short = ExitStatus::Exited(1);
        assert_eq!(why(None, ExitStatus::Exited(0)), None);
        assert_eq!(
            why(Some(broken(io::ErrorKind::PermissionDenied)), short).as_deref(),
            Some(
                "cannot read `conf/key` of its source /src/web: permission denied; mend it or move \
                 it out of there"
            )
        );
        let said = why(Some(torn()), short).expect("a reason");
        assert!(said.ends_with("its message is above"), "{said}");
        let killed = why(Some(torn()), ExitStatus::Signaled(9)).expect("a reason");
        assert!(killed.contains("signal 9"), "{killed}");
    }
}
