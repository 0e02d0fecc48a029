//! What a person types and sees; a client of the daemon's socket.
//!
//! Owns: verbs, flags, help, exit codes, tables, the operator's terminal.
//! Must not: touch containers, records or the store; know more of an app than its views.
//! Called by: `main`. Calls: `daemon` (run, serve), `api` (client), `config`, `net` (who has a port), `model`,
//! `unit`, `sys`.
//! Entry points: [`parse::parse`] (pure: what was typed), [`main`] (what it means here).
//! Ancestor: cf.

pub mod parse;
pub mod verbs;

pub mod help;
pub mod show;
pub mod text;

mod change;
mod drain;
mod error;
mod exec;
mod history;
mod images;
mod import;
mod look;
mod manifests;
mod push;
mod remote;
mod run;
mod signals;
mod tasks;
mod top;
mod ui;
mod watch;

#[cfg(test)]
mod tests;

pub use error::CliError;

use crate::api::apps::LogQuery;
use crate::config::machine::{self, Config};
use crate::config::site::Site;
use crate::log::{Level, set_limit, speak_to_person};
use crate::sys::signal::Signal;
use parse::{Command, Global, Invocation};
use remote::Remote;
use std::path::PathBuf;
use ui::Ui;

/// Does what was typed; the exit code, or the error that `main` prints.
pub fn main(invocation: Invocation) -> Result<u8, CliError> {
    let Invocation { global, command } = invocation;
    let mut ui = Ui::new(&global);
    let host = std::env::var("TERRARIUM_HOST").ok();
    match command {
        Command::Serve => {
            let config = config(&mut ui, &global)?;
            set_limit(config.log.level);
            crate::daemon::serve(config).map_err(CliError::Daemon)?;
            Ok(0)
        }
        Command::Bench { stack, rounds } => {
            set_limit(Level::Warn);
            let figures = crate::daemon::bench(&stack, rounds).map_err(CliError::Daemon)?;
            ui.document(&figures).map(|()| 0)
        }
        Command::Run { file } => {
            // Before anything that may start a thread: signals are blocked for each thread.
            let wanted = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
            let signals = signals::signals(&wanted)?;
            let manifest = manifests::load(&mut ui, &[file])?.remove(0);
            let place = place(&mut ui, &global, host.as_deref())?;
            run::run(&mut ui, place, &manifest, signals)
        }
        command => dispatch(&mut ui, &global, host.as_deref(), command),
    }
}

/// Where `run` may run: a daemon that somebody named must answer.
fn place(ui: &mut Ui, global: &Global, host: Option<&str>) -> Result<run::Place, CliError> {
    match remote::socket(global, host)? {
        (socket, true) => Ok(run::Place::There(socket)),
        (socket, false) => {
            let config = config(ui, global)?;
            // The app's own lines are what one wants to see here; `serve` has the warnings.
            set_limit(Level::Error);
            speak_to_person();
            Ok(run::Place::Anywhere(socket, config.into()))
        }
    }
}

/// The box's configuration; its mistakes are shown here.
fn config(ui: &mut Ui, global: &Global) -> Result<Config, CliError> {
    let file = std::env::var_os("TERRARIUM_CONFIG").map(PathBuf::from);
    machine::load(&remote::root(global)?, file.as_deref()).map_err(|err| {
        let machine::ConfigError::Invalid(files) = &err else { return CliError::Config(err) };
        for mistakes in files {
            ui.complain(&mistakes.render(ui.color_err));
        }
        CliError::ConfigInvalid { files: files.len() }
    })
}

/// Every verb but those that may be the daemon.
fn dispatch(
    ui: &mut Ui,
    global: &Global,
    host: Option<&str>,
    command: Command,
) -> Result<u8, CliError> {
    let remote = || remote::socket(global, host).map(|(socket, _)| Remote::new(socket));
    match command {
        Command::Help { verb } => {
            let text = verb.map_or_else(help::overview, |id| help::verb(verbs::verb(id)));
            ui.print(&text).map(|()| 0)
        }
        Command::Version => {
            let version = env!("CARGO_PKG_VERSION");
            match ui.json {
                true => ui.document(&serde_json::json!({ "version": version }))?,
                false => ui.print(&format!("terrarium {version}\n"))?,
            }
            Ok(0)
        }
        Command::Check { files } => {
            let site = Site::of(&config(ui, global)?);
            manifests::check(ui, &files, &site)
        }
        Command::Import(wanted) => {
            let site = Site::of(&config(ui, global)?);
            import::import(ui, &wanted, &site)
        }
        Command::Apply { files, wait, timeout } => {
            let manifests = manifests::load(ui, &files)?;
            smol::block_on(change::apply(ui, &remote()?, &manifests, wait, timeout))
        }
        Command::Scale { app, process, instances } => {
            smol::block_on(change::scale(ui, &remote()?, &app, process, instances))
        }
        Command::Push(wanted) => {
            let site = Site::of(&config(ui, global)?);
            smol::block_on(push::push(ui, &remote()?, &wanted, &site))
        }
        Command::Restage { name, wait, timeout } => {
            let stay = history::Stay { wait, timeout };
            smol::block_on(history::restage(ui, &remote()?, &name, stay))
        }
        Command::Revisions { name } => smol::block_on(history::revisions(ui, &remote()?, &name)),
        Command::Rollback { name, to, wait, timeout } => {
            let stay = history::Stay { wait, timeout };
            smol::block_on(history::rollback(ui, &remote()?, &name, to, stay))
        }
        Command::RunTask(task) => smol::block_on(history::run_task(ui, &remote()?, task)),
        Command::Afresh(target) => smol::block_on(change::afresh(ui, &remote()?, target)),
        Command::Act { act, names, wait } => {
            smol::block_on(change::act(ui, &remote()?, act, &names, wait))
        }
        Command::Drain { wait, timeout } => {
            smol::block_on(drain::drain(ui, &remote()?, wait, timeout))
        }
        Command::Undrain => smol::block_on(drain::undrain(ui, &remote()?)),
        Command::Events { since, follow } => {
            smol::block_on(watch::events(ui, &remote()?, since, follow))
        }
        Command::Explain { target } => smol::block_on(watch::explain(ui, &remote()?, &target)),
        Command::Exec(exec) => exec::exec(ui, remote(), exec),
        // Takes signals, which is done before anything that may start a thread.
        Command::Image(parse::Image::Save { image, file }) => {
            images::save(ui, &remote()?, &image, &file)
        }
        Command::Image(image) => smol::block_on(images::image(ui, &remote()?, image)),
        Command::Status => smol::block_on(look::status(ui, &remote()?)),
        Command::Top { name } => smol::block_on(top::top(ui, &remote()?, name.as_ref())),
        Command::Tasks => smol::block_on(tasks::tasks(ui, &remote()?)),
        Command::Task { guid } => smol::block_on(tasks::task(ui, &remote()?, &guid)),
        Command::Cancel { guids } => smol::block_on(tasks::cancel(ui, &remote()?, &guids)),
        Command::Apps => smol::block_on(look::apps(ui, &remote()?)),
        Command::App { name } => smol::block_on(look::app(ui, &remote()?, &name)),
        Command::Logs { target, follow, lines, since, source } => {
            let since_ms = since.map(|since| look::since_ms(since, ui::now_ms()));
            let query = LogQuery {
                lines: lines.unwrap_or_else(|| look::usual_lines(since_ms)),
                follow,
                process: target.process,
                index: target.index,
                since_ms,
                source,
            };
            smol::block_on(look::logs(ui, &remote()?, &target.app, &query))
        }
        Command::Bench { .. }
        | Command::Run { .. }
        | Command::Serve
        | Command::Init
        | Command::Lifecycle { .. } => unreachable!("`main` has taken these"),
    }
}
