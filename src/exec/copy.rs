//! Copies trees into containers and files out of them.
//!
//! Archives are unpacked and files are opened by our own program *inside* the container, as its
//! user: nothing of the container's tree is ever resolved by the daemon.

use super::cancel::{self, Cancel};
use super::run::{Executor, StepError, StepResult};
use super::streams::{drain, log_lines};
use crate::container::Process;
use crate::lifecycle::{LifecycleError, pack};
use crate::model::action::{CopyInAction, CopyOutAction};
use crate::model::process::{ExitStatus, ProcessSpec};
use crate::sys;
use crate::sys::signal::KILL;
use smol::future;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Exit status of `cat-file` for a file that is not there.
const MISSING: u8 = 4;

/// Log source of what copying has to say.
const SOURCE: &str = "STG";

/// Does a [`CopyInAction`].
pub async fn copy_in(exec: &Executor, copy: &CopyInAction, cancel: &Cancel) -> StepResult {
    let failed = |why: String| failed("Copying", &copy.artifact, "into", why);
    let args = vec!["-C".to_owned(), copy.to.clone()];
    let mut process = helper(exec, "untar", args, &copy.user, true).await.map_err(failed)?;
    let stdin = process.streams.stdin.take().expect("it was asked for");
    sys::fd::set_nonblocking(&stdin, false).map_err(|err| failed(err.to_string()))?;
    let (from, exclude) = (copy.from.clone(), copy.exclude.clone());
    let pack = smol::unblock(move || pack::pack_dir(&from, &exclude, File::from(stdin)));
    let (packed, end) = future::zip(pack, finish(exec, process, cancel)).await;
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

/// Does a [`CopyOutAction`].
pub async fn copy_out(exec: &Executor, copy: &CopyOutAction, cancel: &Cancel) -> StepResult {
    let failed = |why: String| failed("Copying", &copy.artifact, "out of", why);
    let args = vec![copy.from.clone()];
    let mut process = helper(exec, "cat-file", args, &copy.user, false).await.map_err(failed)?;
    let stdout = process.streams.stdout.take().expect("no tty was asked for");
    let part = copy.to.with_extension("part");
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)
        .map_err(|err| failed(format!("{}: {err}", part.display())))?;
    let (stop, ended) = cancel::pair();
    let life = async {
        let end = finish(exec, process, cancel).await;
        stop.cancel();
        end
    };
    let (written, end) =
        future::zip(drain(stdout, ended, |bytes| file.write_all(bytes)), life).await;
    let done = match (written, end) {
        (_, Err(err)) => Err(err),
        (_, Ok(ExitStatus::Exited(MISSING))) if copy.optional => {
            let _ = fs::remove_file(&part);
            return Ok(());
        }
        (Ok(()), Ok(ExitStatus::Exited(0))) => {
            let to = copy.to.clone();
            let from = part.clone();
            smol::unblock(move || publish(file, &from, &to))
                .await
                .map_err(|err| failed(format!("{}: {err}", copy.to.display())))
        }
        (Err(err), _) => Err(failed(format!("{}: {err}", part.display()))),
        (Ok(()), Ok(_)) => Err(failed(format!("{} cannot be read inside", copy.from))),
    };
    if done.is_err() {
        let _ = fs::remove_file(&part);
    }
    done
}

/// Makes a whole file visible under its name, durably.
fn publish(file: File, from: &Path, to: &Path) -> std::io::Result<()> {
    file.sync_all()?;
    fs::rename(from, to)?;
    File::open(to.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Starts one of our own programs inside.
async fn helper(
    exec: &Executor,
    name: &str,
    args: Vec<String>,
    user: &str,
    stdin: bool,
) -> Result<Process, String> {
    let spec = ProcessSpec {
        id: exec.new_id(),
        path: format!("/tmp/lifecycle/{name}"),
        args,
        program: Default::default(),
        argv0: None,
        env: Vec::new(),
        dir: Some("/".to_owned()),
        dir_must_exist: false,
        user: user.to_owned(),
        nofile: None,
        rlimits: Default::default(),
        tty: None,
        stdin,
        keep_stdin: false,
    };
    exec.container.start(spec).await.map_err(|err| err.to_string())
}

/// Logs what the helper says until it ends; kills it at once when cancelled.
async fn finish(
    exec: &Executor,
    mut process: Process,
    cancel: &Cancel,
) -> Result<ExitStatus, StepError> {
    let (end, ended) = cancel::pair();
    let streams = std::mem::take(&mut process.streams);
    let to = (exec.sink(SOURCE), exec.limit.clone());
    let output = future::zip(
        log_lines(streams.stdout, Vec::new(), false, to.clone(), ended.clone()),
        log_lines(streams.stderr, Vec::new(), true, to, ended),
    );
    let life = async {
        let status = match cancel.or(process.wait()).await {
            Some(status) => status.map_err(|err| StepError::Failed(err.to_string())),
            None => {
                let _ = process.signal(KILL).await;
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

/// Diego's text, cut where Diego cuts it.
fn failed(verb: &str, artifact: &str, way: &str, why: String) -> StepError {
    let mut text = format!("{verb} {artifact} {way} the container failed: {why}");
    if text.len() > 1024 {
        let end = (0..=1024).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" (error truncated)");
    }
    StepError::Failed(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

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
