//! `push`, with cf's letters: a directory, an archive or an image becomes an app that runs.
//!
//! What the app is, a manifest of cf in the directory says, else a `terrarium.toml` there, else nobody:
//! then the flags do. They win in any case. The directory is sent over the socket: the daemon need not
//! be able, or allowed, to read it.

mod bits;
mod ignore;
mod orders;
mod overlay;

use super::change;
use super::error::{CliError, code};
use super::parse::Push;
use super::remote::Remote;
use super::show::{self, Health};
use super::ui::{Ui, now_ms};
use crate::api::apps::ApplyRequest;
use crate::config::manifest;
use crate::config::merge::{over, quoted};
use crate::config::site::Site;
use crate::model::manifest::Manifest;
use crate::model::view::{LogLine, Pushed, UNCHANGED};
use orders::{Order, orders};
use std::path::Path;

/// `push`.
pub async fn push(ui: &mut Ui, remote: &Remote, push: &Push, site: &Site) -> Result<u8, CliError> {
    let orders = orders(ui, push, site)?;
    for order in &orders {
        check(ui, remote, order).await?;
    }
    let mut code = 0;
    for order in &orders {
        code = code.max(one(ui, remote, push, order).await?);
    }
    Ok(code)
}

/// Lets the daemon look at a manifest, before any of them is pushed and a large directory is sent.
async fn check(ui: &mut Ui, remote: &Remote, order: &Order) -> Result<(), CliError> {
    let read = read(ui, order)?;
    if read.image.is_none() {
        // What is not there, or too large, is told before anything of any app is sent.
        bits::check(&read.source).map_err(|source| unsent(&read, source))?;
    }
    let mut request = ApplyRequest {
        manifest_text: order.text.clone(),
        file: order.shown.clone(),
        ..ApplyRequest::default()
    };
    if read.image.is_none() {
        // The daemon need not be able to read the directory itself.
        let text = over(&order.text, "source.path = \"/\"\n");
        request.manifest_text = text.unwrap_or(request.manifest_text);
    }
    remote.check(&request).await.map_err(|err| change::invalid(ui, err))
}

fn unsent(read: &Manifest, source: std::io::Error) -> CliError {
    CliError::File { doing: "send", path: read.source.clone(), source }
}

/// The manifest of an order.
fn read(ui: &mut Ui, order: &Order) -> Result<Manifest, CliError> {
    let dir = order.file.parent().unwrap_or(Path::new("/"));
    manifest::parse(&order.text, &order.shown.display().to_string(), dir).map_err(|bad| {
        ui.complain(&bad.render(ui.color_err));
        CliError::Invalid { bad: 1, all: 1 }
    })
}

/// Sends one app and follows it.
async fn one(ui: &mut Ui, remote: &Remote, push: &Push, order: &Order) -> Result<u8, CliError> {
    let Order { text, file, .. } = order;
    let read = read(ui, order)?;
    let name = read.name.clone();
    let mut text = text.clone();
    let pushed = match &read.image {
        Some(image) => image.to_string(),
        None => read.source.display().to_string(),
    };
    if read.image.is_none() {
        ui.note(&format!("{name}: sending {pushed}"));
        let pieces = bits::read(&read.source).map_err(|source| unsent(&read, source))?;
        let there = remote.send_source(&name, pieces).await?;
        let path = format!("source.path = {}\n", quoted(&there.to_string_lossy()));
        text = over(&text, &path).unwrap_or(text);
    }
    let request = ApplyRequest {
        manifest_text: text,
        file: file.clone(),
        wait: !push.no_wait && !push.no_start,
        stopped: push.no_start,
        temporary: false,
        pushed: Some(Pushed { what: pushed, is_bare: order.is_bare }),
        force: push.force,
    };
    let reply = remote.apply(&name, &request).await.map_err(|err| change::invalid(ui, err))?;
    let mut unchanged = false;
    let mut see = |line: LogLine| {
        unchanged |= line.source.starts_with("STG") && line.text.starts_with(UNCHANGED);
    };
    let (app, _) = change::follow(ui, &name, reply, &mut see).await?;
    if !request.wait {
        let how = if push.no_start { "there, and not started" } else { "accepted" };
        ui.note(&format!("{name}: {how}"));
        return Ok(0);
    }
    if unchanged {
        let how = "`push --force` stages it all the same, `terrarium restart` makes it run afresh";
        ui.note(&format!("{name}: nothing changed, so nothing was done; {how}"));
    }
    if !ui.json && !ui.quiet {
        ui.print(&show::app(&app, now_ms(), ui.color))?;
    }
    Ok(if show::health(&app) == Health::Bad { code::NOT_RUNNING } else { 0 })
}
