//! The verbs that watch: events and explain.

use super::error::{CliError, code};
use super::look;
use super::parse::{EventsSince, Target};
use super::remote::Remote;
use super::show;
use super::ui::{Ui, now_ms};
use crate::api::http::client::{ClientError, Reply};
use crate::api::sse::{Decoder, Read};
use crate::model::event::Event;
use serde_json::Value;

/// `terrarium events`.
pub async fn events(
    ui: &mut Ui,
    remote: &Remote,
    since: Option<EventsSince>,
    follow: bool,
) -> Result<u8, CliError> {
    let since = match since {
        None if follow => None,
        None => Some("oldest".to_owned()),
        Some(EventsSince::Id(id)) => Some(id.to_string()),
        Some(EventsSince::Time(since)) => Some(look::since_ms(since, now_ms()).to_string()),
    };
    let mut reply = remote.events(since.as_deref(), follow).await?;
    show_all(ui, &mut reply).await?;
    if follow {
        ui.note("the daemon has ended the stream: it ends itself, or this was read too slowly");
    }
    Ok(u8::from(follow))
}

async fn show_all(ui: &mut Ui, reply: &mut Reply) -> Result<(), CliError> {
    let mut decoder = Decoder::default();
    while let Some(bytes) = reply.next_piece().await? {
        for read in decoder.push(&bytes).map_err(nonsense)? {
            show(ui, read)?;
        }
    }
    Ok(())
}

/// The daemon says what nobody understands.
fn nonsense(what: String) -> CliError {
    CliError::Client(ClientError::Nonsense(what))
}

fn show(ui: &mut Ui, read: Read) -> Result<(), CliError> {
    let mut data: Value =
        serde_json::from_str(&read.data).map_err(|err| nonsense(err.to_string()))?;
    let Some(id) = read.id.and_then(|id| id.parse().ok()) else {
        // A gap has no place in the order.
        if ui.json {
            return ui.item(&serde_json::json!({ "event": read.event, "data": data }));
        }
        ui.note(&format!("{}; look at all of it again", show::watch::gap(&data)));
        return Ok(());
    };
    let time = data.as_object_mut().and_then(|members| members.remove("time_ms"));
    let time_ms = time.and_then(|time| time.as_u64()).unwrap_or(0);
    let event = Event { id, time_ms, event: read.event, data, lrp: None };
    match ui.json {
        true => ui.item(&event),
        false => ui.print(&show::watch::event(&event, ui.color)),
    }
}

/// `terrarium explain`.
pub async fn explain(ui: &mut Ui, remote: &Remote, target: &Target) -> Result<u8, CliError> {
    let view = remote.explain(target).await?;
    match ui.json {
        true => ui.document(&view)?,
        false => ui.print(&show::watch::explanation(&view, now_ms(), ui.color))?,
    }
    let fine = |state: &str| matches!(state, "running" | "finished");
    Ok(if view.parts.iter().all(|part| fine(&part.state)) { 0 } else { code::NOT_RUNNING })
}
