//! `drain` and `undrain`.

use super::error::CliError;
use super::remote::Remote;
use super::ui::Ui;
use serde_json::json;
use std::time::Duration;

/// `terrarium drain`.
pub async fn drain(
    ui: &mut Ui,
    remote: &Remote,
    wait: bool,
    timeout: Option<Duration>,
) -> Result<u8, CliError> {
    let view = remote.drain(wait, timeout).await?;
    match ui.json {
        true => ui.document(&view)?,
        false if view.left.is_empty() => ui.note("the cell is drained"),
        false => ui.note(&format!("the cell is being drained, left are: {}", view.left.join(", "))),
    }
    Ok(0)
}

/// `terrarium undrain`.
pub async fn undrain(ui: &mut Ui, remote: &Remote) -> Result<u8, CliError> {
    remote.undrain().await?;
    match ui.json {
        true => ui.document(&json!({ "done": "undrained" }))?,
        false => ui.note("the cell serves again"),
    }
    Ok(0)
}
