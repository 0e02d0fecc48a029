//! Connections on which no HTTP is spoken any more: the control of a process, and its outputs.

use super::Settings;
use super::sequence::{Broken, KEEP, Sequence};
use crate::api::http::server::Hijacked;
use crate::api::http::{within, write_while_taken};
use crate::model::garden::{Message, Order};
use smol::future;
use smol::io::{AsyncReadExt, AsyncWriteExt, BoxedReader, BoxedWriter};
use smol::lock::Semaphore;
use std::sync::Arc;

/// Bytes that are read at once.
const PIECE: usize = 8 * 1024;

/// How a process ended, or why that cannot be told; `None`: nobody will know while this daemon
/// lives.
pub(super) type End = Option<Result<i32, String>>;

/// The control connection of run and attach: says `first`, does what the client orders, and says
/// how the process ended. A client that goes takes nothing with it but the process's input.
pub(super) async fn control<F: Future<Output = ()>>(
    mut stream: Hijacked,
    first: Message,
    mut order: impl FnMut(Order) -> F,
    exit: impl Future<Output = End>,
    (room, settings): (Arc<Semaphore>, Settings),
) {
    let told = within(settings.patience, stream.writer.write_all(&line(&first))).await;
    if !matches!(told, Some(Ok(()))) {
        return order(Order::EndOfInput).await;
    }
    let exit = async { Some(exit.await) };
    let gone = async {
        obey(&mut stream, order, &room, settings).await;
        None
    };
    // Also while the client still writes: nothing of that is of use any more.
    let process_id = first.process_id;
    let last = match future::or(exit, gone).await {
        None => return,
        Some(None) => Vec::new(),
        Some(Some(Ok(status))) => {
            line(&Message { process_id, exit_status: Some(status), ..Message::default() })
        }
        Some(Some(Err(why))) => {
            line(&Message { process_id, error: Some(why), ..Message::default() })
        }
    };
    last_word(stream, &last, settings).await;
}

fn line(message: &Message) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("text and numbers always become JSON");
    line.push(b'\n');
    line
}

/// Passes on what the client orders until it has gone. What is no message is nonsense; then only the
/// client's end is waited for.
async fn obey<F: Future<Output = ()>>(
    stream: &mut Hijacked,
    mut order: impl FnMut(Order) -> F,
    room: &Arc<Semaphore>,
    settings: Settings,
) {
    let Hijacked { reader, has_gone, .. } = stream;
    let mut messages = Sequence::default();
    let (mut piece, mut held) = (vec![0; PIECE], Vec::new());
    while let Ok(count @ 1..) = reader.read(&mut piece).await {
        messages.push(&piece[..count]);
        while messages.len() > KEEP * (held.len() + 1) {
            let Some(more) = within(settings.patience, room.acquire_arc()).await else {
                order(Order::Nonsense("too much that others have sent is unread")).await;
                return discard(reader).await;
            };
            held.push(more);
        }
        loop {
            match messages.next() {
                Ok(Some(message)) => {
                    if !done_for_client(order(message.order()), has_gone, settings).await {
                        return order(Order::EndOfInput).await;
                    }
                }
                Ok(None) => break,
                Err(Broken(why)) => {
                    order(Order::Nonsense(why)).await;
                    return discard(reader).await;
                }
            }
        }
        held.truncate(messages.len() / KEEP);
        future::yield_now().await;
    }
    order(Order::EndOfInput).await;
}

/// Room for long messages of all control connections, on their way and until they are carried out: each
/// permit is for [`KEEP`] bytes. A short one needs none.
pub(super) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(LONG_BYTES / KEEP))
}

/// Bytes of long messages at a time.
const LONG_BYTES: usize = 64 << 20;

/// Waits until an order is carried out. Input waits for as long as the process does not read; when
/// that takes long, and the client has gone, nothing is waited for any more: `false`.
async fn done_for_client(
    order: impl Future<Output = ()>,
    has_gone: &(dyn Fn() -> bool + Send + Sync),
    settings: Settings,
) -> bool {
    let left = async {
        loop {
            smol::Timer::after(settings.patience).await;
            if has_gone() {
                return false;
            }
        }
    };
    let done = async {
        order.await;
        true
    };
    future::or(done, left).await
}

/// An output of a process: `next` until there is no more, or until the client goes or takes nothing
/// for a long time.
pub(super) async fn output<F: Future<Output = Option<Vec<u8>>>>(
    mut stream: Hijacked,
    mut next: impl FnMut() -> F,
    settings: Settings,
) {
    let Hijacked { reader, writer, .. } = &mut stream;
    let all = async {
        while let Some(piece) = next().await {
            if write_while_taken(writer, &piece, Some(settings.deaf)).await.is_err() {
                return false;
            }
        }
        true
    };
    let gone = async {
        discard(reader).await;
        false
    };
    if future::or(all, gone).await {
        last_word(stream, b"", settings).await;
    }
}

/// Says `word` and ends the connection so that it arrives: a close with bytes of the client unread
/// would make the kernel throw away what the client has not taken yet. So our side ends first, and
/// what comes is dropped until the client has seen that, or the time is up.
pub(super) async fn last_word(mut stream: Hijacked, word: &[u8], settings: Settings) {
    let said = within(settings.patience, say(&mut stream.writer, word)).await;
    if matches!(said, Some(Ok(()))) {
        within(settings.linger, discard(&mut stream.reader)).await;
    }
}

async fn say(writer: &mut BoxedWriter, word: &[u8]) -> std::io::Result<()> {
    writer.write_all(word).await?;
    writer.close().await
}

/// Drops what the client says, until it has gone.
async fn discard(reader: &mut BoxedReader) {
    let mut piece = [0; 512];
    while let Ok(1..) = reader.read(&mut piece).await {
        // A client that never stops must not hold the thread.
        future::yield_now().await;
    }
}

#[cfg(test)]
mod tests;
