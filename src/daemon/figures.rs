//! Figures of the daemon for `GET /debug/vars`.

use crate::api::debug::{Debug, Figures};
use crate::api::http::server::{self, Limits};
use crate::config::machine::Config;
use crate::container::Host;
use smol::net::TcpListener;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Weak;

/// Connections at a time: a few that watch.
const CONNECTIONS: usize = 16;

/// Tells them to whoever connects, until the returned future is dropped.
pub fn serve(
    listener: TcpListener,
    config: &Config,
    host: Weak<Host>,
) -> impl Future<Output = ()> + use<> {
    let state = config.paths.state.clone();
    let debug = Debug::new(command_line(), move || figures(&state, &host));
    async move {
        let limits = Limits { connections: CONNECTIONS, ..Limits::default() };
        let err = server::serve(&listener, &debug, limits).await;
        crate::error!("debug.broken", err = err);
    }
}

fn command_line() -> Vec<String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()
}

fn figures(state: &Path, host: &Weak<Host>) -> io::Result<Figures> {
    // Held for a moment only: whoever closes the daemon waits to be its last owner.
    let of_host = host
        .upgrade()
        .map(|host| (host.list().ok(), host.create_spans(), host.reserved().len() as u64));
    let (containers, creates, reserve) = of_host.unwrap_or_default();
    Ok(Figures {
        containers: containers.map_or(0, |all| all.len() as u64),
        depot_dirs: entries(&state.join("depot"))?,
        backing_stores: entries(&state.join("store/containers"))?,
        loop_devices: loop_devices()?,
        creates,
        reserve,
        ..Figures::of_this_process()?
    })
}

/// How many directories a directory has.
fn entries(dir: &Path) -> io::Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        count += u64::from(entry?.file_type()?.is_dir());
    }
    Ok(count)
}

/// How many loop devices have a file behind them.
fn loop_devices() -> io::Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let is_loop = entry.file_name().to_string_lossy().starts_with("loop");
        count += u64::from(is_loop && entry.path().join("loop/backing_file").exists());
    }
    Ok(count)
}
