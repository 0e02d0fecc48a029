//! Files out of containers: to a place of the box, or to whoever asks for the bytes.

use super::{Place, failed, finish, helper, worded};
use crate::container::Process;
use crate::exec::cancel::{self, Cancel};
use crate::exec::run::Executor;
use crate::exec::steps::{StepError, StepResult};
use crate::exec::streams::{Sink, drain};
use crate::model::action::{CopyOutAction, UploadAction};
use crate::model::process::ExitStatus;
use smol::future::{self, FutureExt};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Exit status of `cat-file` for a file that is not there.
const MISSING: u8 = 4;

/// Does a [`CopyOutAction`].
pub async fn copy_out(exec: &Executor, copy: &CopyOutAction, cancel: &Cancel) -> StepResult {
    let failed = |why: String| failed("Copying", &copy.artifact, "out of", why);
    let args = vec![copy.from.clone()];
    let place = Place { user: &copy.user, dir: Some("/"), stdin: false };
    let started = helper(exec, ("cat-file", args), &place, cancel).await;
    let process = started.map_err(|err| worded(err, failed))?;
    let part = copy.to.with_extension("part");
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = match options.open(&part) {
        Ok(file) => file,
        Err(err) => {
            end(exec, process).await;
            return Err(failed(format!("{}: {err}", part.display())));
        }
    };
    let sink = exec.sink(super::SOURCE);
    let poured = pour(exec, process, (&sink, cancel), |bytes| file.write_all(bytes)).await;
    let done = match poured {
        Poured::Refused(err) => Err(failed(format!("{}: {err}", part.display()))),
        Poured::Ended(Err(err)) => Err(err),
        Poured::Ended(Ok(ExitStatus::Exited(MISSING))) if copy.optional => {
            let _ = fs::remove_file(&part);
            return Ok(());
        }
        Poured::Ended(Ok(ExitStatus::Exited(0))) => {
            let to = copy.to.clone();
            let from = part.clone();
            smol::unblock(move || publish(file, &from, &to))
                .await
                .map_err(|err| failed(format!("{}: {err}", copy.to.display())))
        }
        Poured::Ended(Ok(_)) => Err(failed(format!("{} cannot be read inside", copy.from))),
    };
    if done.is_err() {
        let _ = fs::remove_file(&part);
    }
    done
}

/// Makes a whole file visible under its name, durably.
fn publish(file: File, from: &Path, to: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(from, to)?;
    File::open(to.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Where a file's bytes go that comes out.
pub struct Out<'a> {
    /// Takes them.
    pub to: &'a mut (dyn Write + Send),
    /// How many it may be.
    pub most: u64,
    /// What is said of a file that has more.
    pub too_large: &'a str,
}

/// Reads the file of an upload; how many bytes it has.
pub async fn read_out(
    exec: &Executor,
    action: &UploadAction,
    sink: &Sink,
    out: Out<'_>,
    cancel: &Cancel,
) -> Result<u64, StepError> {
    let place = Place { user: &action.user, dir: None, stdin: false };
    let args = vec![action.from.clone()];
    let process = helper(exec, ("cat-file", args), &place, cancel).await?;
    let mut length = 0;
    let take = |bytes: &[u8]| {
        length += bytes.len() as u64;
        if length > out.most {
            return Err(io::Error::other(out.too_large));
        }
        out.to.write_all(bytes)
    };
    match pour(exec, process, (sink, cancel), take).await {
        Poured::Refused(err) => Err(StepError::Failed(err.to_string())),
        Poured::Ended(Err(err)) => Err(err),
        Poured::Ended(Ok(ExitStatus::Exited(0))) => Ok(length),
        Poured::Ended(Ok(_)) => {
            Err(StepError::Failed(format!("{} cannot be read inside", action.from)))
        }
    }
}

/// What became of a helper's output.
enum Poured {
    /// Whoever took it has failed; the helper was ended for that.
    Refused(io::Error),
    /// All of it was taken.
    Ended(Result<ExitStatus, StepError>),
}

/// Gives `take` all that a helper writes. What `take` refuses ends the helper: pid 1 has a copy of
/// the pipe, so nothing else would tell it that nobody reads any more.
async fn pour(
    exec: &Executor,
    mut process: Process,
    (sink, cancel): (&Sink, &Cancel),
    take: impl FnMut(&[u8]) -> io::Result<()>,
) -> Poured {
    let stdout = process.streams.stdout.take().expect("no tty was asked for");
    let (over, ended) = cancel::pair();
    let (stop, stopped) = cancel::pair();
    let life = async {
        let end = finish(exec, process, sink, &stopped).await;
        over.cancel();
        end
    };
    let taken = async { drain(stdout, ended, take).await.inspect_err(|_| stop.cancel()) };
    let forward = async {
        cancel.cancelled().await;
        stop.cancel();
        future::pending().await
    };
    match future::zip(taken, life).or(forward).await {
        (Err(err), _) => Poured::Refused(err),
        (Ok(()), end) => Poured::Ended(end),
    }
}

/// Ends a helper that nobody wants any more.
async fn end(exec: &Executor, process: Process) {
    let (stop, stopped) = cancel::pair();
    stop.cancel();
    let silent = Sink { log: None, ..exec.sink.clone() };
    let _ = finish(exec, process, &silent, &stopped).await;
}
