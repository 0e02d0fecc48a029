//! The verbs that change what runs: apply, scale, start, stop, restart, delete.

use super::error::{CliError, code};
use super::manifests::Loaded;
use super::parse::{Act, Target, UsageError};
use super::remote::Remote;
use super::show::{self, Health};
use super::text::clean;
use super::ui::{Ui, now_ms};
use crate::api::apps::{ApplyEvent, ApplyRequest, ErrorKind, ScaleRequest};
use crate::api::http::client::{ClientError, Reply};
use crate::api::http::within;
use crate::model::view::{AppView, LogLine, meant};
use crate::unit::AppName;
use serde_json::json;
use std::io;
use std::time::Duration;

/// `apply`: one manifest after the other. The first failure ends it, but not one that is there and does not
/// run as it should.
pub async fn apply(
    ui: &mut Ui,
    remote: &Remote,
    manifests: &[Loaded],
    wait: bool,
    timeout: Option<Duration>,
) -> Result<u8, CliError> {
    let work = async {
        check(ui, remote, manifests).await?;
        let mut code = 0;
        for manifest in manifests {
            let its = apply_one(ui, remote, manifest, wait).await;
            code = code.max(goes_on(ui, its)?);
        }
        Ok(code)
    };
    match timeout {
        Some(limit) => within(limit, work).await.unwrap_or(Err(CliError::TimedOut(limit))),
        None => work.await,
    }
}

async fn apply_one(
    ui: &mut Ui,
    remote: &Remote,
    manifest: &Loaded,
    wait: bool,
) -> Result<u8, CliError> {
    let reply = remote.apply(&manifest.name, &request(manifest, wait)).await;
    let reply = reply.map_err(|err| invalid(ui, err))?;
    let (app, _) = follow(ui, &manifest.name, reply, &mut |_| {}).await?;
    if !wait {
        ui.note(&format!("{}: accepted", manifest.name));
        return Ok(0);
    }
    if !ui.json && !ui.quiet {
        ui.print(&show::app(&app, now_ms(), ui.color))?;
    }
    Ok(if show::health(&app) == Health::Bad { code::NOT_RUNNING } else { 0 })
}

/// What came of one of several apps: one that is there and does not run as it should keeps no other one from
/// its turn; that is told, and in the end by the exit code.
pub fn goes_on(ui: &mut Ui, result: Result<u8, CliError>) -> Result<u8, CliError> {
    match result {
        Err(err) if err.code() == code::NOT_RUNNING => {
            ui.complain(&format!("terrarium: {}\n", crate::log::chain(&err)));
            Ok(code::NOT_RUNNING)
        }
        result => result,
    }
}

/// Lets the daemon look at all manifests before any of them is applied.
pub async fn check(ui: &mut Ui, remote: &Remote, manifests: &[Loaded]) -> Result<(), CliError> {
    let mut bad = 0;
    for manifest in manifests {
        match remote.check(&request(manifest, false)).await.map_err(|err| invalid(ui, err)) {
            Ok(()) => {}
            Err(CliError::Invalid { .. }) => bad += 1,
            Err(err) => return Err(err),
        }
    }
    if bad == 0 { Ok(()) } else { Err(CliError::Invalid { bad, all: manifests.len() }) }
}

/// How the line of the log begins that says why an app could not be staged.
pub const STAGING_FAILED: &str = "Staging failed: ";

/// What is asked for a manifest that is to stay.
pub fn request(manifest: &Loaded, wait: bool) -> ApplyRequest {
    let (manifest_text, file) = (manifest.text.clone(), manifest.file.clone());
    ApplyRequest { manifest_text, file, wait, ..ApplyRequest::default() }
}

/// Shows what happens to a manifest that was accepted; the app as it is in the end, and the answer,
/// which a temporary app lives as long as. `seen` gets every line that was shown.
pub async fn follow(
    ui: &mut Ui,
    name: &AppName,
    mut reply: Reply,
    seen: &mut dyn FnMut(LogLine),
) -> Result<(AppView, Reply), CliError> {
    let mut failure = None;
    while let Some(event) = reply.next_line::<ApplyEvent>().await.map_err(ended)? {
        if ui.json {
            ui.item(&event)?;
        }
        match event {
            ApplyEvent::Log(line) => {
                if !ui.json && !ui.quiet {
                    ui.log(&line)?;
                    let why = line.text.strip_prefix(STAGING_FAILED).map(str::to_owned);
                    failure = why.or(failure);
                }
                seen(line);
            }
            ApplyEvent::State(state) => ui.note(&format!("{name}: {state}")),
            ApplyEvent::Waits(what) => ui.note(&format!("{name}: waits {}", clean(&what))),
            ApplyEvent::Error(mut view) => {
                // Not the same words twice.
                if failure.is_some_and(|why| view.message.ends_with(&format!(": {why}"))) {
                    view.message = format!("cannot stage app {name}; the log above says why");
                }
                return Err(CliError::Refused(view));
            }
            ApplyEvent::Done(app) => return Ok((*app, reply)),
        }
    }
    // It was told to end, and has let go of who waited in good order.
    Err(CliError::Ended(io::ErrorKind::UnexpectedEof.into()))
}

/// Whoever is let go of without a last word waits for a daemon that has ended.
fn ended(err: ClientError) -> CliError {
    match err {
        ClientError::Broken(source) => CliError::Ended(source),
        err => err.into(),
    }
}

/// A refusal of the daemon. What it has found in the manifest is shown as our own findings are:
/// in lines of their own, before the error.
pub fn invalid(ui: &mut Ui, err: CliError) -> CliError {
    match err {
        CliError::Refused(view)
            if ErrorKind::of(&view) == ErrorKind::Invalid && view.message.contains('\n') =>
        {
            ui.complain(&view.message);
            CliError::Invalid { bad: 1, all: 1 }
        }
        err => err,
    }
}

/// `scale`.
pub async fn scale(
    ui: &mut Ui,
    remote: &Remote,
    app: &AppName,
    process: Option<String>,
    instances: u32,
) -> Result<u8, CliError> {
    let process = match process {
        Some(process) => process,
        None => {
            choose(&remote.app(app).await?, |it| format!("terrarium scale {app}:{it}={instances}"))?
        }
    };
    remote.scale(app, &ScaleRequest { process: Some(process.clone()), instances }).await?;
    match ui.json {
        true => ui.item(&json!({ "app": app, "process": process, "instances": instances }))?,
        false => ui.note(&format!("{app}:{process}: {instances} wanted")),
    }
    Ok(0)
}

/// `restart` of one instance.
pub async fn afresh(ui: &mut Ui, remote: &Remote, target: Target) -> Result<u8, CliError> {
    let Target { app, process, index } = target;
    let index = index.unwrap_or(0);
    let process = match process {
        Some(process) => process,
        None => {
            choose(&remote.app(&app).await?, |it| format!("terrarium restart {app}:{it}/{index}"))?
        }
    };
    remote.restart_instance(&app, &process, index).await?;
    match ui.json {
        true => ui.item(&json!({ "app": app, "process": process, "index": index }))?,
        false => ui.note(&format!("{app}:{process}/{index}: restarting")),
    }
    Ok(0)
}

/// The process that is meant when none is named, or an error with all that could be `typed`.
pub fn choose(app: &AppView, typed: impl Fn(&str) -> String) -> Result<String, CliError> {
    meant(app).map_err(|message| {
        let forms = app.processes.iter().map(|it| format!("`{}`", typed(&it.name)));
        let cure = format!("write {}", forms.collect::<Vec<_>>().join(" or "));
        UsageError::new(message, cure).into()
    })
}

/// `start`, `stop`, `restart`, `delete`: all of `names`, even when one fails; the first failure is
/// returned, the others are shown.
pub async fn act(
    ui: &mut Ui,
    remote: &Remote,
    act: Act,
    names: &[AppName],
    wait: bool,
) -> Result<u8, CliError> {
    if let (Act::Stop, true, [_, others @ ..]) = (act, wait, names) {
        // All at once: each may take its ten seconds. What fails is told below.
        for name in others {
            let _ = remote.stop(name, false).await;
        }
    }
    let mut failed: Option<CliError> = None;
    for name in names {
        let kept = match act {
            Act::Delete => remote.app(name).await.ok().and_then(|view| declared_in(&view.manifest)),
            Act::Start | Act::Stop | Act::Restart => None,
        };
        let (result, done) = match act {
            Act::Start => (remote.post(name, "start").await, "starting"),
            Act::Stop if wait => (remote.stop(name, true).await, "stopped"),
            Act::Stop => (remote.stop(name, false).await, "stopping"),
            Act::Restart => (remote.post(name, "restart").await, "restarting"),
            Act::Delete => (remote.delete(name).await, "deleted"),
        };
        match (result, &failed) {
            (Ok(()), _) if ui.json => ui.item(&json!({ "app": name, "done": done }))?,
            (Ok(()), _) => {
                ui.note(&format!("{name}: {done}"));
                if let Some(file) = kept {
                    ui.complain(&format!(
                        "terrarium: {file} is still there and brings {name} back when the daemon \
                         starts next; remove it too\n"
                    ));
                }
            }
            (Err(err), None) => {
                tell_gardens(ui, remote, name, &err).await;
                failed = Some(err);
            }
            (Err(err), Some(_)) => {
                ui.complain(&format!("terrarium: {}\n", crate::log::chain(&err)));
                tell_gardens(ui, remote, name, &err).await;
            }
        }
    }
    failed.map_or(Ok(0), Err)
}

/// Where no app has a name, a container of Garden's clients may: those are not ours to change.
async fn tell_gardens(ui: &mut Ui, remote: &Remote, name: &AppName, err: &CliError) {
    let CliError::Refused(view) = err else { return };
    if ErrorKind::of(view) != ErrorKind::NotFound {
        return;
    }
    let Ok(site) = remote.examine_box(None).await else { return };
    if site.garden.containers.iter().any(|one| one.handle == name.as_str()) {
        ui.complain(&format!(
            "terrarium: {name} is a container of Garden's clients, who destroy it through their \
             socket: curl --unix-socket /run/terrarium/garden.sock -X DELETE \
             http://api/containers/{name}\n"
        ));
    }
}

/// The manifest, when it is one of those that the daemon reads by itself.
fn declared_in(manifest: &str) -> Option<String> {
    let file = std::path::Path::new(manifest);
    let dir = file.parent().and_then(|dir| dir.file_name());
    (dir == Some("apps.d".as_ref()) && file.exists()).then(|| manifest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind::UnexpectedEof;

    #[test]
    fn a_daemon_that_ends_meanwhile_is_told_as_such() {
        let lost = ended(ClientError::Broken(UnexpectedEof.into()));
        assert_eq!(lost.code(), 6);
        assert!(lost.to_string().starts_with("the daemon ended before this was done"), "{lost}");
        assert_eq!(ended(ClientError::Nonsense("?".into())).code(), 1);
    }
}
