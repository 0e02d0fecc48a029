//! Tars into a container and out of it. They have no longest time, but whoever does nothing for the
//! server's patience is given up: the peer, and the program inside too, which anybody who is the same
//! user there can stop.

use super::refusal::Refusal;
use crate::api::http::server::{Content, Response};
use crate::api::http::{Body, BodyError, within};
use crate::garden::GardenError;
use crate::garden::{Backend, Outflow, Visit};
use smol::future;
use smol::stream::{self, StreamExt};
use std::io;
use std::time::Duration;

/// How much of a tar that nobody wants is read, and for how long: a client that cannot get rid of
/// it may never look at the answer.
const UNWANTED_MAX: u64 = 1 << 30;
const UNWANTED_TIME: Duration = Duration::from_secs(60);

/// One that pauses for longer is not stuck with it, and is answered.
const UNWANTED_PAUSE: Duration = Duration::from_secs(1);

/// Unpacks the body. A body that breaks off is no whole tar, and the backend is not told that it
/// were.
pub(super) async fn take(
    backend: &Backend,
    handle: &str,
    (user, destination): (&str, &str),
    body: &mut Body<'_>,
    patience: Duration,
) -> Result<(), Refusal> {
    let visit = backend.visit(handle);
    let filled = match &visit {
        Ok(_) => fill(backend, handle, (user, destination), body, patience).await?,
        Err(err) => Err(err.clone()),
    };
    match filled {
        Ok(()) => Ok(()),
        Err(err) => Err(refused(body, err).await),
    }
}

async fn fill(
    backend: &Backend,
    handle: &str,
    (user, destination): (&str, &str),
    body: &mut Body<'_>,
    patience: Duration,
) -> Result<Result<(), GardenError>, BodyError> {
    let mut inflow = match backend.stream_in(handle, user, destination).await {
        Ok(inflow) => inflow,
        Err(err) => return Ok(Err(err)),
    };
    loop {
        let next = async { Ok(body.next().await) };
        // Who destroys the container ends the program: then nobody waits for the client.
        let over = async { Err(inflow.over().await) };
        let piece = match future::or(next, over).await {
            Ok(piece) => piece?,
            Err(err) => return Ok(Err(err)),
        };
        let Some(piece) = piece else { break };
        // Dropped after an error, the program is killed.
        if let Err(err) = unless_stuck(patience, "in", handle, inflow.write(&piece)).await {
            return Ok(Err(err));
        }
        // Neither end need ever make us wait.
        future::yield_now().await;
    }
    Ok(unless_stuck(patience, "in", handle, inflow.finish()).await)
}

/// The refusal, after the rest of the body.
async fn refused(body: &mut Body<'_>, err: GardenError) -> Refusal {
    within(UNWANTED_TIME, swallow(body, UNWANTED_MAX)).await;
    err.into()
}

/// Reads and drops the body to its end, or to `max` bytes of it, or until the client pauses.
async fn swallow(body: &mut Body<'_>, max: u64) {
    let mut left = max;
    loop {
        let piece = match within(UNWANTED_PAUSE, body.next()).await {
            Some(Ok(Some(piece))) => piece,
            Some(_) => return,
            None => return body.give_up(),
        };
        left = left.saturating_sub(piece.len() as u64);
        if left == 0 {
            return;
        }
        future::yield_now().await;
    }
}

/// What the program inside does next, unless it does nothing for `patience`.
async fn unless_stuck<T>(
    patience: Duration,
    way: &str,
    handle: &str,
    work: impl Future<Output = Result<T, GardenError>>,
) -> Result<T, GardenError> {
    within(patience, work).await.unwrap_or_else(|| {
        Err(GardenError::Failed(format!(
            "error streaming {way}: container {handle}: the program that was at it inside did nothing \
             for {} s; it was ended. Did somebody stop it, or is the container out of processor time?",
            patience.as_secs()
        )))
    })
}

/// Packs what is inside. The container is visited until the client has all of it, or goes.
pub(super) async fn give(
    backend: &Backend,
    handle: &str,
    (user, source): (&str, &str),
    body: &mut Body<'_>,
    patience: Duration,
) -> Result<Response, Refusal> {
    let visit = backend.visit(handle)?;
    let begin = unless_stuck(patience, "out", handle, backend.stream_out(handle, user, source));
    let gone = async {
        body.gone().await;
        Err(GardenError::Failed("error streaming out: the client has gone".into()))
    };
    let outflow = future::or(begin, gone).await?;
    let at_work = Some((outflow, visit, handle.to_owned(), patience));
    let pieces = stream::unfold(at_work, async |at_work: Option<AtWork>| {
        let (mut outflow, visit, handle, patience) = at_work?;
        let next = async { outflow.next().await.transpose() };
        match unless_stuck(patience, "out", &handle, next).await {
            Ok(piece) => piece.map(|piece| (Ok(piece), Some((outflow, visit, handle, patience)))),
            Err(err) => Some((Err(err), None)),
        }
    });
    tar(pieces.boxed()).await
}

/// A tar on its way out, with the container's handle and how long its program may do nothing.
type AtWork = (Outflow, Visit, String, Duration);

/// The answer: an error when there is no first piece because of one. A later one breaks the
/// connection, so that nobody takes what he has for the whole tar.
async fn tar(mut pieces: stream::Boxed<Result<Vec<u8>, GardenError>>) -> Result<Response, Refusal> {
    let first = stream::iter(pieces.next().await.transpose()?).map(Ok);
    let rest = pieces.map(|piece| piece.map_err(io::Error::other));
    let tar = Content::Stream(first.chain(rest).boxed());
    Ok(Response::new(200, tar).with("Content-Type", "application/x-tar"))
}

#[cfg(test)]
mod tests;
