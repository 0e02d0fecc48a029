//! Connections on which no HTTP is spoken any more: the control of a process, and its outputs.

mod permits;

use super::Settings;
use super::sequence::{Broken, KEEP, Sequence};
use crate::api::http::server::Hijacked;
use crate::api::http::{within, write_while_taken};
use crate::model::garden::{Message, Order};
use permits::Hold;
pub(super) use permits::Room;
use smol::future;
use smol::io::{AsyncReadExt, AsyncWriteExt, BoxedReader, BoxedWriter};
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
    (room, settings): (Arc<Room>, Settings),
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
    room: &Arc<Room>,
    settings: Settings,
) {
    let Hijacked { reader, has_gone, .. } = stream;
    let (hold, pushed) = Hold::new(room.clone());
    let pushed = async {
        // The sender lives as long as what it is about.
        match pushed.recv().await {
            Ok(()) => Err(Broken("its room is needed for others, and it took too long")),
            Err(_) => future::pending().await,
        }
    };
    let obeyed = future::or(each(reader, &**has_gone, &mut order, hold, settings), pushed).await;
    match obeyed {
        Ok(()) => order(Order::EndOfInput).await,
        Err(Broken(why)) => {
            order(Order::Nonsense(why)).await;
            discard(reader).await;
        }
    }
}

/// The same, message by message; an error is what was wrong with one.
async fn each<F: Future<Output = ()>>(
    reader: &mut BoxedReader,
    has_gone: &(dyn Fn() -> bool + Send + Sync),
    order: &mut impl FnMut(Order) -> F,
    mut hold: Hold,
    settings: Settings,
) -> Result<(), Broken> {
    let mut messages = Sequence::default();
    let mut piece = vec![0; PIECE];
    while let Ok(count @ 1..) = reader.read(&mut piece).await {
        messages.push(&piece[..count]);
        if !hold.grow(messages.len(), settings.patience).await {
            return Err(Broken("too much that others have sent is unread"));
        }
        let mut is_done = false;
        while let Some(message) = messages.next()? {
            if !done_for_client(order(message.order()), has_gone, settings).await {
                return Ok(());
            }
            is_done = true;
        }
        if is_done {
            hold.renew(messages.len());
        }
        future::yield_now().await;
    }
    Ok(())
}

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
