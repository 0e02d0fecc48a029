//! `run FILE`: an app in the foreground, with a daemon of its own when there is none.

use super::change;
use super::error::{CliError, code};
use super::manifests::Loaded;
use super::remote::Remote;
use super::show::{self, Health};
use super::signals::Signals;
use super::text::clean;
use super::ui::Ui;
use crate::api::apps::{ApplyRequest, LogQuery};
use crate::api::http::client::{ClientError, Reply};
use crate::config::machine::Config;
use crate::daemon::{self, Embedded};
use crate::model::view::LogLine;
use crate::unit::AppName;
use smol::future;
use smol::stream::StreamExt;
use std::io;
use std::path::PathBuf;

/// Lines that were shown while the app started, remembered so that they are not shown again.
const SEEN_MAX: usize = 1000;

/// Where the app may run.
pub enum Place {
    /// Only in the daemon on this socket.
    There(PathBuf),
    /// In the daemon on this socket, or in one of our own.
    Anywhere(PathBuf, Box<Config>),
}

/// The verb. `signals` must be taken already.
pub fn run(
    ui: &mut Ui,
    place: Place,
    manifest: &Loaded,
    mut signals: Signals,
) -> Result<u8, CliError> {
    let (remote, own) = find_daemon(ui, place)?;
    let result = smol::block_on(async {
        if own.is_some() {
            remove_leftover(ui, &remote, manifest, &mut signals).await?;
        }
        foreground(ui, &remote, manifest, &mut signals).await
    });
    let Some(own) = own else { return result };
    smol::block_on(leave_others(ui, &remote, &mut signals));
    let stopping = smol::unblock(|| own.stop());
    let stopped = smol::block_on(patiently(ui, "the daemon to stop", &mut signals, stopping));
    match (result, stopped) {
        (Ok(_), Err(err)) => Err(CliError::Daemon(err)),
        (result, Ok(())) => result,
        (Err(err), Err(second)) => {
            ui.complain(&format!("terrarium: {}\n", crate::log::chain(&second)));
            Err(err)
        }
    }
}

/// The daemon that answers, or a new one in this process.
fn find_daemon(ui: &mut Ui, place: Place) -> Result<(Remote, Option<Embedded>), CliError> {
    let (socket, config) = match place {
        Place::There(socket) => (socket, None),
        Place::Anywhere(socket, config) => (socket, Some(config)),
    };
    let remote = Remote::new(&socket);
    match (smol::block_on(remote.ping()), config) {
        (Ok(ping), _) => {
            ui.note(&format!("using the daemon {} on {}", ping.pid, socket.display()));
            Ok((remote, None))
        }
        (Err(CliError::Client(ClientError::Unreachable { source, .. })), Some(config))
            if source.kind() != io::ErrorKind::PermissionDenied =>
        {
            let own = daemon::start_embedded(*config).map_err(CliError::Daemon)?;
            Ok((Remote::new(own.socket()), Some(own)))
        }
        (Err(err), _) => Err(err),
    }
}

/// Why the app no longer runs in the foreground.
enum Ended {
    /// A signal.
    Interrupted,
    /// By itself, with this exit code.
    Over(u8),
    /// It never ran, or the daemon went away.
    Failed(CliError),
}

/// Applies, follows, and removes the app again.
pub async fn foreground(
    ui: &mut Ui,
    remote: &Remote,
    manifest: &Loaded,
    signals: &mut Signals,
) -> Result<u8, CliError> {
    let name = &manifest.name;
    // Who holds the answer holds the app: should we be killed, the daemon removes it.
    let request = ApplyRequest { temporary: true, ..change::request(manifest, true) };
    let applied = remote.apply(name, &request);
    let applied = patiently(ui, "the daemon to accept it", signals, applied).await;
    // Nothing is there that were ours to remove: an app that somebody else applied stays.
    let lease = applied.map_err(|err| change::invalid(ui, err))?;
    let interrupted = async {
        signals.next().await;
        Ended::Interrupted
    };
    let ended = future::or(up(ui, remote, name, lease), interrupted).await;
    let reachable = !matches!(&ended, Ended::Failed(CliError::Client(_)));
    if reachable && is_taken_over(remote, name).await {
        ui.note(&format!("{name}: somebody has applied it meanwhile; it stays"));
    } else if reachable {
        ui.note(&format!("{name}: removing it"));
        let what = format!("`{name}` to be removed");
        match patiently(ui, &what, signals, remote.delete(name)).await {
            Ok(()) => ui.note(&format!("{name}: removed")),
            // The daemon was faster: nobody holds it any more.
            Err(err) if err.code() == code::NOT_FOUND => ui.note(&format!("{name}: removed")),
            Err(err) => match ended {
                Ended::Failed(_) => {
                    ui.complain(&format!("terrarium: {}\n", crate::log::chain(&err)));
                }
                _ => return Err(err),
            },
        }
    }
    match ended {
        Ended::Interrupted => Ok(0),
        Ended::Over(code) => Ok(code),
        Ended::Failed(err) => Err(err),
    }
}

/// Somebody has applied the same app, for good.
async fn is_taken_over(remote: &Remote, name: &AppName) -> bool {
    remote.app(name).await.is_ok_and(|app| !app.temporary)
}

/// Whoever else used our daemon loses it now: what belongs to another `run` ends with it.
async fn leave_others(ui: &mut Ui, remote: &Remote, signals: &mut Signals) {
    let apps = remote.apps().await.unwrap_or_default();
    let (temporary, kept): (Vec<_>, Vec<_>) = apps.iter().partition(|app| app.temporary);
    for app in temporary {
        let what = format!("`{}` of another `run` to be removed", app.name);
        // What is left of it, the next daemon removes.
        if patiently(ui, &what, signals, remote.delete(&app.name)).await.is_ok() {
            ui.note(&format!("{}: removed, for its `run` has used this one's daemon", app.name));
        }
    }
    if !kept.is_empty() {
        let names: Vec<&str> = kept.iter().map(|app| app.name.as_str()).collect();
        ui.complain(&format!(
            "terrarium: {} go on without a daemon now; `terrarium serve` looks after them again\n",
            names.join(", ")
        ));
    }
}

/// What an earlier `run` has left that could not end as it should, a daemon of our own removes
/// by itself; an app of our name must be gone before ours can come.
async fn remove_leftover(
    ui: &mut Ui,
    remote: &Remote,
    manifest: &Loaded,
    signals: &mut Signals,
) -> Result<(), CliError> {
    let name = &manifest.name;
    match remote.app(name).await {
        Ok(app) if app.state == "deleting" => {
            ui.note(&format!("{name}: removing what an earlier `run` has left"));
            let what = format!("the old `{name}` to be removed");
            match patiently(ui, &what, signals, remote.delete(name)).await {
                // The daemon was done with it between the two questions.
                Err(err) if err.code() == code::NOT_FOUND => Ok(()),
                removed => removed,
            }
        }
        // What else there is, `foreground` judges.
        _ => Ok(()),
    }
}

/// Follows an app that was accepted until it is over. `lease` is held as long.
async fn up(ui: &mut Ui, remote: &Remote, name: &AppName, lease: Reply) -> Ended {
    let result = async {
        let mut seen = Vec::new();
        let mut remember = |line| {
            if seen.len() < SEEN_MAX {
                seen.push(line);
            }
        };
        let (app, _lease) = change::follow(ui, name, lease, &mut remember).await?;
        if app.state == "running" && show::health(&app) == Health::Good {
            let at = show::addresses(&app).join(" ");
            let at = if at.is_empty() { at } else { format!(" at {at}") };
            ui.note(&format!("{}: runs{at}; Ctrl-C removes it", app.name));
        }
        follow(ui, remote, name, seen).await?;
        match remote.app(name).await {
            Ok(app) if show::health(&app) == Health::Bad => {
                ui.note(&format!("{}: {}", app.name, clean(&show::reason(&app))));
                Ok(code::NOT_RUNNING)
            }
            // It has finished, or somebody else stopped or deleted it.
            Ok(app) => {
                ui.note(&format!("{}: {}", app.name, app.state));
                Ok(0)
            }
            Err(err) if err.code() == code::NOT_FOUND => Ok(0),
            Err(err) => Err(err),
        }
    };
    result.await.map_or_else(Ended::Failed, Ended::Over)
}

/// Shows the log until it ends, without the lines that were `seen`.
async fn follow(
    ui: &mut Ui,
    remote: &Remote,
    name: &AppName,
    mut seen: Vec<LogLine>,
) -> Result<(), CliError> {
    let query = LogQuery { lines: SEEN_MAX, follow: true, ..LogQuery::default() };
    let mut reply = remote.logs(name, &query).await?;
    while let Some(line) = reply.next_line::<LogLine>().await? {
        match seen.iter().position(|old| *old == line) {
            Some(at) => drop(seen.remove(at)),
            None => ui.log(&line)?,
        }
    }
    Ok(())
}

/// Runs `work` to its end; a signal meanwhile is answered with what it waits for.
async fn patiently<T>(
    ui: &mut Ui,
    what: &str,
    signals: &mut Signals,
    work: impl Future<Output = T>,
) -> T {
    let answer = async {
        while signals.next().await.is_some() {
            ui.note(&format!("still waiting for {what}"));
        }
        future::pending().await
    };
    future::or(work, answer).await
}
