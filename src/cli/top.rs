//! The verb top: what instances use, again and again on a screen.

use super::error::CliError;
use super::remote::Remote;
use super::show;
use super::ui::{Ui, now_ms};
use crate::model::view::AppView;
use crate::unit::AppName;
use std::time::Duration;

/// From one look to the next on a screen.
const AGAIN: Duration = Duration::from_secs(2);
/// From a first look to the one that can say what was used since.
const MEASURE: Duration = Duration::from_secs(1);
/// To the upper left corner, and everything from there on is blank.
const CLEAR: &str = "\x1b[H\x1b[J";

/// `terrarium top`: until it is interrupted on a screen, else once.
pub async fn top(ui: &mut Ui, remote: &Remote, name: Option<&AppName>) -> Result<u8, CliError> {
    let mut apps = look(remote, name).await?;
    if show::top::is_first_look(&apps) {
        async_io::Timer::after(MEASURE).await;
        apps = look(remote, name).await?;
    }
    if ui.json {
        return ui.document(&apps).map(|()| 0);
    }
    if !ui.is_screen {
        return ui.print(&show::top::top(&apps, now_ms(), ui.color)).map(|()| 0);
    }
    loop {
        let text = show::top::top(&apps, now_ms(), ui.color);
        ui.print(&format!("{CLEAR}{text}"))?;
        async_io::Timer::after(AGAIN).await;
        apps = look(remote, name).await?;
    }
}

async fn look(remote: &Remote, name: Option<&AppName>) -> Result<Vec<AppView>, CliError> {
    match name {
        Some(name) => Ok(vec![remote.app(name).await?]),
        None => remote.apps().await,
    }
}
