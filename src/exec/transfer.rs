//! Downloads into containers and uploads out of them.
//!
//! Archives are unpacked and files are opened by our own program *inside* the container, as in
//! [`super::copy`]. Texts are Diego's; why a server did not do is one more line, as no line of the
//! original shows it.

use super::cancel::Cancel;
use super::copy;
use super::fetch::{self, Wanted};
use super::run::Executor;
use super::steps::{StepError, StepResult};
use super::streams::Sink;
use crate::model::action::{DownloadAction, UploadAction};
use crate::unit::Bytes;
use std::fs::File;
use std::io;

/// Does a [`DownloadAction`].
pub async fn download(
    exec: &Executor,
    action: &DownloadAction,
    sink: &Sink,
    cancel: &Cancel,
) -> StepResult {
    let artifact = Artifact(&action.artifact);
    artifact.say(sink, || format!("Downloading {}...", action.artifact));
    let wanted = Wanted {
        url: action.from.clone(),
        cache_key: action.cache_key.clone(),
        checksum: action.checksum.clone(),
    };
    let fetched = match cancel.or(exec.fetcher.fetch(&wanted)).await {
        None => return Err(StepError::Cancelled),
        Some(Ok(fetched)) => fetched,
        Some(Err(err)) => {
            sink.say(true, err.to_string());
            return artifact.failed(sink, format!("Downloading{} failed", artifact.named()));
        }
    };
    let came =
        fetched.came.map(|bytes| format!(" ({})", Bytes::new(bytes).brief())).unwrap_or_default();
    artifact.say(sink, || format!("Downloaded {}{came}", action.artifact));
    let file = fetched.file.try_clone().map_err(|err| StepError::Failed(err.to_string()))?;
    let into = copy::Into { to: &action.to, user: &action.user, sink };
    let done = copy::stream_in(exec, &into, cancel, move |mut to: File| {
        io::copy(&mut &file, &mut to).map(drop)
    });
    match done.await {
        Err(StepError::Cancelled) => Err(StepError::Cancelled),
        Err(err) => artifact.failed(
            sink,
            copy::cut(format!("Copying{} into the container failed: {err}", artifact.named())),
        ),
        Ok(()) => Ok(()),
    }
}

/// Does an [`UploadAction`].
pub async fn upload(
    exec: &Executor,
    action: &UploadAction,
    sink: &Sink,
    cancel: &Cancel,
) -> StepResult {
    let artifact = Artifact(&action.artifact);
    artifact.say(sink, || format!("Uploading {}...", action.artifact));
    let end = match action.artifact.as_str() {
        "" => String::new(),
        name => format!(" for {name}"),
    };
    if !fetch::is_url(&action.to) {
        return artifact.failed(sink, format!("Failed to parse URL{end}"));
    }
    let fetcher = exec.fetcher.clone();
    let scratch = smol::unblock(move || fetcher.scratch()).await;
    let mut file = match scratch {
        Ok(file) => file,
        Err(err) => {
            sink.say(true, err.to_string());
            return artifact.failed(sink, format!("Failed to create temp file{end}"));
        }
    };
    let most = exec.fetcher.most();
    let too_large = format!(
        "{} has more bytes than this box sends, {} ([downloads] size); make it smaller, or that larger",
        action.from,
        Bytes::new(most)
    );
    let out = copy::Out { to: &mut file, most, too_large: &too_large };
    let length = match copy::read_out(exec, action, sink, out, cancel).await {
        Ok(length) => length,
        Err(StepError::Cancelled) => return Err(StepError::Cancelled),
        Err(err) => {
            sink.say(true, err.to_string());
            let text = format!("Failed to copy stream contents into temp file{end}");
            return artifact.failed(sink, text);
        }
    };
    match cancel.or(exec.fetcher.send(file, length, &action.to)).await {
        None => Err(StepError::Cancelled),
        Some(Ok(())) => {
            artifact.say(sink, || {
                format!("Uploaded {} ({})", action.artifact, Bytes::new(length).brief())
            });
            Ok(())
        }
        Some(Err(err)) => {
            sink.say(true, err.to_string());
            artifact.failed(sink, format!("Failed to upload payload{end}"))
        }
    }
}

/// What a person calls what is on its way; empty: nothing is said about it.
struct Artifact<'a>(&'a str);

impl Artifact<'_> {
    fn named(&self) -> String {
        match self.0 {
            "" => String::new(),
            name => format!(" {name}"),
        }
    }

    fn say(&self, sink: &Sink, text: impl FnOnce() -> String) {
        if !self.0.is_empty() {
            sink.say(false, text());
        }
    }

    fn failed(&self, sink: &Sink, text: String) -> StepResult {
        sink.say(true, text.clone());
        Err(StepError::Failed(text))
    }
}
