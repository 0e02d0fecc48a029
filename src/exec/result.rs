//! Reads what a Task leaves as its result.

use super::cancel::Cancel;
use super::copy;
use super::run::Executor;
use super::steps::StepError;
use crate::model::action::UploadAction;
use std::io::{self, Read, Seek, SeekFrom};

/// Longest result, in bytes. Diego's.
pub const RESULT_MAX: u64 = 51_200;

impl Executor {
    /// The text of a file in the container, read as root. The error is for a person.
    pub async fn read_result(&self, path: &str, cancel: &Cancel) -> Result<String, String> {
        let fetcher = self.fetcher.clone();
        let file = smol::unblock(move || fetcher.scratch()).await.map_err(|err| err.to_string())?;
        let action = UploadAction {
            from: path.to_owned(),
            to: String::new(),
            user: "root".into(),
            artifact: String::new(),
            log_source: String::new(),
        };
        let silent = super::streams::Sink { log: None, ..self.sink.clone() };
        let read = copy::read_out(self, &action, &silent, (&file, RESULT_MAX), cancel).await;
        read.map_err(|err| match err {
            StepError::Failed(text) if text == too_large().to_string() => {
                format!("result file is too large (over {RESULT_MAX} bytes)")
            }
            err => err.to_string(),
        })?;
        smol::unblock(move || {
            let mut text = Vec::new();
            (&file).seek(SeekFrom::Start(0))?;
            (&file).take(RESULT_MAX).read_to_end(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        })
        .await
        .map_err(|err: io::Error| err.to_string())
    }
}

/// What reading more than it may be fails with.
fn too_large() -> io::Error {
    io::Error::from(io::ErrorKind::FileTooLarge)
}
