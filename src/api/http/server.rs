//! Serves connections: reads heads, asks the handler, writes answers; all limits are here.

use super::accept::{Caller, Listener, Stream, is_passing};
use super::body::{Body, BodyError, Inlet, within, write_while_taken};
use super::proto::{self, HEAD_MAX, LAST_CHUNK, Malformed, Request};
use crate::log::Level;
use smol::future;
use smol::io::{AsyncReadExt, AsyncWriteExt, BoxedReader, BoxedWriter};
use smol::stream::{self, StreamExt};
use smol::{Executor, Timer};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a peer may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; more get 503 and are closed.
    pub connections: usize,
    /// For a whole head, for each piece of a body, for writing a whole answer. An idle connection
    /// is closed after it. Streams and hijacked connections have no such limit.
    pub patience: Duration,
    /// Bytes of the longest head; room for it is taken as it comes.
    pub head: usize,
    /// Bytes of an unread body that are read and dropped to keep the connection.
    pub drain: usize,
    /// How long the client of a stream may take nothing although there is something; `None`: for
    /// ever, as one who reads page by page does.
    pub stall: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Limits {
        let patience = Duration::from_secs(30);
        Limits { connections: 256, patience, head: HEAD_MAX, drain: 64 * 1024, stall: None }
    }
}

/// A dialect, or several.
pub trait Handler: Send + Sync {
    /// Answers one request. Runs to its end even when the client goes away meanwhile; only a
    /// [`Content::Stream`] is dropped then.
    fn handle(
        &self,
        request: &Request,
        body: &mut Body<'_>,
    ) -> impl Future<Output = Response> + Send;
}

/// An answer.
pub struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    content: Content,
    /// Why it was refused, for the daemon's log.
    why: Option<String>,
    /// It changed nothing, whatever the method says.
    only_read: bool,
}

/// What follows an answer's head.
pub enum Content {
    /// These bytes.
    Full(Vec<u8>),
    /// So many bytes, piece by piece. `Err` breaks the connection.
    Sized(u64, stream::Boxed<io::Result<Vec<u8>>>),
    /// Nothing, not even a head: the connection ends as if nobody were there.
    HangUp,
    /// Pieces as they come, chunked; to a client of HTTP/1.0 the end of the connection is theirs. `Err` breaks the connection, so that the client can see that
    /// the answer is not whole. Dropped when the client goes away.
    Stream(stream::Boxed<io::Result<Vec<u8>>>),
    /// The connection itself: HTTP ends after the head.
    Hijack(Box<dyn FnOnce(Hijacked) -> future::Boxed<()> + Send>),
}

/// A connection on which no more HTTP is spoken.
pub struct Hijacked {
    /// From the client, beginning with what it sent early.
    pub reader: BoxedReader,
    /// To the client.
    pub writer: BoxedWriter,
    /// Whether the client has ended its side, also while what it sent is not read yet.
    pub has_gone: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Response {
    /// An answer with `content`.
    pub fn new(status: u16, content: Content) -> Response {
        Response { status, headers: Vec::new(), content, why: None, only_read: false }
    }

    /// A JSON document.
    pub fn json(status: u16, value: &impl serde::Serialize) -> Response {
        let mut body = serde_json::to_vec(value).expect("our own types always become JSON");
        body.push(b'\n');
        Response::new(status, Content::Full(body)).with("Content-Type", "application/json")
    }

    /// Plain text.
    pub fn text(status: u16, text: &str) -> Response {
        let body = format!("{text}\n").into_bytes();
        Response::new(status, Content::Full(body)).with("Content-Type", "text/plain")
    }

    /// With one more header field.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }

    /// With the reason of a refusal, which the daemon's log tells.
    pub fn because(mut self, why: impl Into<String>) -> Response {
        self.why = Some(why.into());
        self
    }

    /// To a question that changes nothing, though its method is not GET: the log is silent about it.
    pub fn only_read(mut self) -> Response {
        self.only_read = true;
        self
    }

    /// Its status.
    pub fn status(&self) -> u16 {
        self.status
    }
}

/// Serves `listener` until the returned future is dropped, which also drops every connection.
/// Returns only when the listener itself breaks. The limits are this listener's own.
pub async fn serve<L: Listener, H: Handler>(
    listener: &L,
    handler: &H,
    limits: Limits,
) -> io::Error {
    let open = Arc::new(AtomicUsize::new(0));
    let heard = Arc::new(AtomicUsize::new(0));
    let mut crowd = Crowd::default();
    // An executor of our own: connections live exactly as long as this future.
    let connections = Executor::new();
    let accept = async {
        loop {
            let (stream, caller) = match listener.next().await {
                Ok(next) => next,
                Err(err) if is_passing(&err) => {
                    crate::warn!("api.accept_refused", err = err);
                    // No descriptors left: only time brings some back.
                    Timer::after(Duration::from_millis(100)).await;
                    continue;
                }
                Err(err) => return err,
            };
            let guard = Guard::take(&open, limits.connections);
            if let Some(refused) = crowd.count(guard.is_none(), Instant::now()) {
                crate::warn!("api.full", connections = limits.connections, refused = refused);
            }
            let Some(guard) = guard else {
                match Guard::take(&heard, HEARD_MAX) {
                    Some(guard) => connections.spawn(refuse(stream, Some(guard))).detach(),
                    // At least what is there already is read.
                    None => drop(future::poll_once(refuse(stream, None)).await),
                }
                continue;
            };
            connections.spawn(connection(stream, caller, handler, limits, guard)).detach();
        }
    };
    connections.run(accept).await
}

/// One of the allowed connections, given back when dropped.
pub(super) struct Guard(Arc<AtomicUsize>);

impl Guard {
    pub(super) fn take(open: &Arc<AtomicUsize>, max: usize) -> Option<Guard> {
        let more = |count: usize| (count < max).then_some(count + 1);
        let taken = open.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.is_ok().then(|| Guard(open.clone()))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Connections that were refused and are still heard, how long each is, and how much of it: closed
/// with something of the client unread or on its way, it would break and not end.
pub(super) const HEARD_MAX: usize = 64;
pub(super) const HEARD_TIME: Duration = Duration::from_secs(1);
pub(super) const HEARD_BYTES: usize = 64 * 1024;

/// Says that there is no room, and hears the client out. A fresh socket takes these few bytes without
/// waiting.
async fn refuse(mut stream: impl Stream, _heard: Option<Guard>) {
    let fields = [("Content-Length", "0"), ("Connection", "close"), ("Retry-After", "1")];
    let head = proto::head(&proto::status_line(503), fields);
    let hear = async {
        if stream.write_all(&head).await.is_err() || stream.close().await.is_err() {
            return;
        }
        let (mut left, mut piece) = (HEARD_BYTES, [0; 1024]);
        while let Ok(count @ 1..) = stream.read(&mut piece).await {
            left = left.saturating_sub(count);
            if left == 0 {
                return;
            }
        }
    };
    within(HEARD_TIME, hear).await;
}

/// Those who were refused and of whom the log says nothing yet.
#[derive(Default)]
pub(super) struct Crowd {
    refused: usize,
    told: Option<Instant>,
}

/// The log tells of them no more often.
const CROWD_EVERY: Duration = Duration::from_secs(10);

impl Crowd {
    /// One more has come. How many were refused since the last word about it, when it is time for the
    /// next one: the first is told at once.
    pub(super) fn count(&mut self, is_refused: bool, now: Instant) -> Option<usize> {
        self.refused += usize::from(is_refused);
        let is_time = self.told.is_none_or(|told| now.duration_since(told) >= CROWD_EVERY);
        if self.refused == 0 || !is_time {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.refused))
    }
}

/// One connection from its first request to its end. Errors end it; the client sees that.
async fn connection<S: Stream, H: Handler>(
    stream: S,
    caller: Caller,
    handler: &H,
    limits: Limits,
    _guard: Guard,
) {
    let mut inlet = Inlet::new(Box::pin(stream.clone()));
    let mut outlet: BoxedWriter = Box::pin(stream.clone());
    loop {
        let request = match within(limits.patience, head(&mut inlet, limits.head)).await {
            Some(Ok(Some(request))) => request,
            Some(Ok(None)) => return,
            None if inlet.data().is_empty() => return,
            None => {
                let late = Malformed { status: 408, why: "the head did not arrive in time" };
                return reject(&mut outlet, limits, late).await;
            }
            Some(Err(err)) => return reject(&mut outlet, limits, err).await,
        };
        let began = Instant::now();
        let mut body = Body::new(
            &mut inlet,
            &mut outlet,
            request.framing,
            (request.expects_continue, request.is_11),
            limits.patience,
        );
        // On the heap, so that a connection takes this room only while it asks for something.
        let response = Box::pin(handler.handle(&request, &mut body)).await;
        let keep = body.drain(limits.drain).await && request.keep_alive;
        record(&request, &response, &caller, began);
        match answer(response, &request, keep, &mut inlet, &mut outlet, limits).await {
            Ok(Next::Request) if keep => {}
            Ok(Next::Hijack(run)) => {
                let has_gone = Box::new(move || crate::sys::fd::has_hung_up(&stream));
                return run(Hijacked { reader: inlet.into_reader(), writer: outlet, has_gone })
                    .await;
            }
            Ok(Next::Request) | Err(_) => return,
        }
    }
}

/// The next head; `None`: the client has ended the connection between two requests.
async fn head(inlet: &mut Inlet, max: usize) -> Result<Option<Request>, Malformed> {
    let mut watch = proto::Watch::default();
    loop {
        if watch.is_worth(inlet.data(), max)
            && let Some((request, used)) = Request::parse_within(inlet.data(), max)?
        {
            inlet.consume(used);
            inlet.shrink();
            return Ok(Some(request));
        }
        // A client that never stops must not hold the thread.
        future::yield_now().await;
        match inlet.more_within(max).await {
            Ok(true) => {}
            Ok(false) if !inlet.data().is_empty() => {
                return Err(Malformed { status: 400, why: "the connection ended inside the head" });
            }
            Ok(false) | Err(_) => return Ok(None),
        }
    }
}

/// Answers what is no request; the connection ends after it.
async fn reject(outlet: &mut BoxedWriter, limits: Limits, err: Malformed) {
    let body = format!("{}\n", err.why);
    let length = body.len().to_string();
    let fields =
        [("Content-Type", "text/plain"), ("Content-Length", &length), ("Connection", "close")];
    let mut bytes = proto::head(&proto::status_line(err.status), fields);
    bytes.extend_from_slice(body.as_bytes());
    // The client may be gone or deaf; there is nothing more to do for it.
    let _ = within(limits.patience, outlet.write_all(&bytes)).await;
}

/// Characters of the reason of a refusal that the daemon's log tells: some of it is the client's own text.
const WHY_MAX: usize = 1024;

/// One event for every request that may change something.
fn record(request: &Request, response: &Response, caller: &Caller, began: Instant) {
    if matches!(request.method.as_str(), "GET" | "HEAD") || response.only_read {
        return;
    }
    let (method, status) = (&request.method, response.status);
    let (path, took_ms) = (request.path.join("/"), began.elapsed().as_millis());
    let told = |number: Option<String>| number.unwrap_or_else(|| "?".into());
    let (uid, pid) = match caller {
        Caller::Process(peer) => (
            told(peer.map(|peer| peer.uid.to_string())),
            told(peer.map(|peer| peer.pid.to_string())),
        ),
        Caller::Remote(_) => Default::default(),
    };
    let why = response.why.as_deref().map(shortened);
    let mut pairs: Vec<(&str, &dyn fmt::Display)> =
        vec![("method", method), ("path", &path), ("status", &status)];
    match caller {
        Caller::Process(_) => pairs.extend([("uid", &uid as _), ("pid", &pid as _)]),
        Caller::Remote(from) => pairs.push(("from", from)),
    }
    pairs.push(("took_ms", &took_ms));
    if let Some(why) = &why {
        pairs.push(("err", why));
    }
    crate::log::event(Level::Info, "api.called", &pairs);
}

/// As much of a reason as is told.
fn shortened(why: &str) -> &str {
    match why.char_indices().nth(WHY_MAX) {
        Some((end, _)) => &why[..end],
        None => why,
    }
}

/// What becomes of the connection after an answer.
enum Next {
    Request,
    Hijack(Box<dyn FnOnce(Hijacked) -> future::Boxed<()> + Send>),
}

/// Writes the answer, all but what a hijacker writes itself.
async fn answer(
    response: Response,
    request: &Request,
    keep: bool,
    inlet: &mut Inlet,
    outlet: &mut BoxedWriter,
    limits: Limits,
) -> io::Result<Next> {
    let late = || Err(io::ErrorKind::TimedOut.into());
    let first = proto::status_line(response.status);
    let mut fields: Vec<(&str, &str)> =
        response.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    if !keep && !matches!(response.content, Content::Hijack(_)) {
        fields.push(("Connection", "close"));
    }
    match response.content {
        Content::Full(body) => {
            let length = body.len().to_string();
            // Neither has a body, so neither has a length (RFC 9110, 8.6).
            if !matches!(response.status, 204 | 304) {
                fields.push(("Content-Length", &length));
            }
            let mut bytes = proto::head(&first, fields);
            if request.method != "HEAD" {
                bytes.extend_from_slice(&body);
            }
            within(limits.patience, outlet.write_all(&bytes)).await.unwrap_or_else(late)?;
            Ok(Next::Request)
        }
        Content::Sized(length, pieces) => {
            let length = length.to_string();
            fields.push(("Content-Length", &length));
            let head = proto::head(&first, fields);
            within(limits.patience, outlet.write_all(&head)).await.unwrap_or_else(late)?;
            if request.method != "HEAD" {
                stream_out((pieces, false), inlet, outlet, limits).await?;
            }
            Ok(Next::Request)
        }
        Content::Stream(pieces) => {
            // HTTP/1.0 knows no chunks (RFC 9112, 6.1): its connection is never kept.
            if request.is_11 {
                fields.push(("Transfer-Encoding", "chunked"));
            }
            let head = proto::head(&first, fields);
            within(limits.patience, outlet.write_all(&head)).await.unwrap_or_else(late)?;
            if request.method != "HEAD" {
                stream_out((pieces, request.is_11), inlet, outlet, limits).await?;
            }
            Ok(Next::Request)
        }
        Content::HangUp => Err(io::ErrorKind::ConnectionAborted.into()),
        Content::Hijack(run) => {
            let head = proto::head(&first, fields);
            // A client that has gone already is the new owner's matter too: something may have
            // been started for it.
            let _ = within(limits.patience, outlet.write_all(&head)).await;
            Ok(Next::Hijack(run))
        }
    }
}

type Pieces = stream::Boxed<io::Result<Vec<u8>>>;

/// Writes pieces for as long as their client is there.
async fn stream_out(
    pieces: (Pieces, bool),
    inlet: &mut Inlet,
    outlet: &mut BoxedWriter,
    limits: Limits,
) -> io::Result<()> {
    let gone = async {
        inlet.gone().await;
        Err(io::ErrorKind::ConnectionReset.into())
    };
    future::or(pump(pieces, outlet, limits.stall), gone).await
}

/// Writes pieces as they come, in chunks or as they are; those that are there together go out together.
async fn pump(
    (mut pieces, in_chunks): (Pieces, bool),
    outlet: &mut BoxedWriter,
    stall: Option<Duration>,
) -> io::Result<()> {
    /// A batch is written when it has this many bytes.
    const BATCH: usize = 64 * 1024;
    let framed = |piece: Vec<u8>| if in_chunks { proto::chunk(&piece) } else { piece };
    let mut next = pieces.next().await;
    while let Some(piece) = next {
        let mut batch = framed(piece?);
        next = loop {
            match future::poll_once(pieces.next()).await {
                Some(Some(Ok(piece))) if batch.len() < BATCH => {
                    batch.extend_from_slice(&framed(piece));
                }
                Some(ready) => break ready,
                None => {
                    write_while_taken(outlet, &batch, stall).await?;
                    batch.clear();
                    break pieces.next().await;
                }
            }
        };
        write_while_taken(outlet, &batch, stall).await?;
    }
    write_while_taken(outlet, if in_chunks { LAST_CHUNK } else { &[] }, stall).await
}

impl From<BodyError> for Response {
    fn from(err: BodyError) -> Response {
        Response::text(err.status(), &err.to_string())
    }
}

#[cfg(test)]
mod tests;
