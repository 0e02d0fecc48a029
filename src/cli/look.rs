//! The verbs that only look: status, apps, app, logs.

use super::error::{CliError, code};
use super::parse::Since;
use super::remote::Remote;
use super::show::{self, Health};
use super::ui::{Ui, now_ms};
use crate::api::apps::{LINES_MAX, LogQuery};
use crate::model::view::LogLine;
use crate::unit::AppName;
use serde_json::json;

/// Lines of the past when nobody says how many.
const LINES: usize = 100;

/// `terrarium` and `terrarium status`.
pub async fn status(ui: &mut Ui, remote: &Remote) -> Result<u8, CliError> {
    let ping = remote.ping().await?;
    let site = remote.examine_box((!ui.json).then_some(show::CONTAINERS_MAX)).await?;
    let apps = remote.apps().await?;
    let fine = apps.iter().all(|app| show::health(app) != Health::Bad);
    let healthy = fine && site.problems.is_empty();
    match ui.json {
        true => {
            ui.document(&json!({ "daemon": ping, "healthy": healthy, "box": site, "apps": apps }))?
        }
        false => ui.print(&show::status(&ping.version, &site, &apps, now_ms(), ui.color))?,
    }
    Ok(if healthy { 0 } else { code::NOT_RUNNING })
}

/// `terrarium apps`.
pub async fn apps(ui: &mut Ui, remote: &Remote) -> Result<u8, CliError> {
    let apps = remote.apps().await?;
    match ui.json {
        true => ui.document(&apps)?,
        false => ui.print(&show::apps(&apps, now_ms(), ui.color))?,
    }
    Ok(0)
}

/// `terrarium app NAME`.
pub async fn app(ui: &mut Ui, remote: &Remote, name: &AppName) -> Result<u8, CliError> {
    let app = remote.app(name).await?;
    match ui.json {
        true => ui.document(&app)?,
        false => ui.print(&show::app(&app, now_ms(), ui.color))?,
    }
    Ok(if show::health(&app) == Health::Good { 0 } else { code::NOT_RUNNING })
}

/// So many lines are shown when nobody says how many.
pub fn usual_lines(since_ms: Option<u64>) -> usize {
    if since_ms.is_some() { LINES_MAX } else { LINES }
}

/// Milliseconds since 1970.
pub fn since_ms(since: Since, now_ms: u64) -> u64 {
    match since {
        Since::At(ms) => ms,
        Since::Ago(ago) => now_ms.saturating_sub(ago.as_millis() as u64),
    }
}

/// `terrarium logs NAME`.
pub async fn logs(
    ui: &mut Ui,
    remote: &Remote,
    app: &AppName,
    query: &LogQuery,
) -> Result<u8, CliError> {
    let mut reply = remote.logs(app, query).await?;
    while let Some(line) = reply.next_line::<LogLine>().await? {
        ui.log(&line)?;
    }
    Ok(0)
}
