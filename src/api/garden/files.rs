//! Tars into a container and out of it. They have no longest time, but a peer that does nothing for
//! the server's patience is given up.

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

/// Unpacks the body. A body that breaks off is no whole tar, and the backend is not told that it
/// were.
pub(super) async fn take(
    backend: &Backend,
    handle: &str,
    (user, destination): (&str, &str),
    body: &mut Body<'_>,
) -> Result<(), Refusal> {
    let visit = backend.visit(handle);
    let filled = match &visit {
        Ok(_) => fill(backend, handle, (user, destination), body).await?,
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
) -> Result<Result<(), GardenError>, BodyError> {
    let mut inflow = match backend.stream_in(handle, user, destination).await {
        Ok(inflow) => inflow,
        Err(err) => return Ok(Err(err)),
    };
    while let Some(piece) = body.next().await? {
        if let Err(err) = inflow.write(&piece).await {
            return Ok(Err(err));
        }
        // Neither end need ever make us wait.
        future::yield_now().await;
    }
    Ok(inflow.finish().await)
}

/// The refusal, after the rest of the body.
async fn refused(body: &mut Body<'_>, err: GardenError) -> Refusal {
    within(UNWANTED_TIME, swallow(body, UNWANTED_MAX)).await;
    err.into()
}

/// Reads and drops the body to its end, or to `max` bytes of it.
async fn swallow(body: &mut Body<'_>, max: u64) {
    let mut left = max;
    while let Ok(Some(piece)) = body.next().await {
        left = left.saturating_sub(piece.len() as u64);
        if left == 0 {
            return;
        }
        future::yield_now().await;
    }
}

/// Packs what is inside. The container is visited until the client has all of it.
pub(super) async fn give(
    backend: &Backend,
    handle: &str,
    (user, source): (&str, &str),
) -> Result<Response, Refusal> {
    let visit = backend.visit(handle)?;
    let outflow = backend.stream_out(handle, user, source).await?;
    let pieces =
        stream::unfold((outflow, visit), async |(mut outflow, visit): (Outflow, Visit)| {
            let piece = outflow.next().await?;
            Some((piece, (outflow, visit)))
        });
    tar(pieces.boxed()).await
}

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
