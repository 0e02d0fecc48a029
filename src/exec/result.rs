//! Reads what a Task leaves as its result.

use super::cancel::Cancel;
use super::copy::{self, Out};
use super::run::Executor;
use super::streams::Sink;
use crate::model::action::UploadAction;

/// Longest result, in bytes. Diego's.
pub const RESULT_MAX: u64 = 51_200;

impl Executor {
    /// The text of a file in the container, read as root. The error is for a person.
    pub async fn read_result(&self, path: &str, cancel: &Cancel) -> Result<String, String> {
        let action = UploadAction {
            from: path.to_owned(),
            to: String::new(),
            user: "root".into(),
            artifact: String::new(),
            log_source: String::new(),
        };
        let silent = Sink { log: None, ..self.sink.clone() };
        let too_large = format!("result file is too large (over {RESULT_MAX} bytes)");
        let mut text = Vec::new();
        let out = Out { to: &mut text, most: RESULT_MAX, too_large: &too_large };
        let read = copy::read_out(self, &action, &silent, out, cancel).await;
        read.map_err(|err| err.to_string())?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
