//! Signals as a stream.

use super::error::CliError;
use crate::sys::signal::{Signal, take, watch};
use smol::Async;
use smol::stream::{self, StreamExt};

/// Signal numbers, one after the other.
pub type Signals = stream::Boxed<i32>;

/// Takes `signals` from now on, instead of their default action. Call it before anything else
/// that may start a thread.
pub fn signals(signals: &[Signal]) -> Result<Signals, CliError> {
    let failed = |source| CliError::Terminal { doing: "take signals of", source };
    let watched = watch(signals).and_then(Async::new).map_err(failed)?;
    let next = async |watched: Async<std::os::fd::OwnedFd>| loop {
        match take(watched.get_ref()) {
            Ok(Some(taken)) => return Some((taken.number, watched)),
            Ok(None) => watched.readable().await.ok()?,
            Err(_) => return None,
        }
    };
    Ok(stream::unfold(watched, next).boxed())
}
