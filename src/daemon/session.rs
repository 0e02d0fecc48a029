//! A person's command in an instance: its descriptors as streams, and what becomes of it when the
//! client leaves.

use crate::api::apps::{ErrorKind, ExecControl, ExecSession, ServiceError};
use crate::cell;
use crate::container::{Process, ProcessError};
use crate::exec::cancel::{self, Cancel};
use crate::exec::streams::Reader;
use crate::model::process::ExitStatus;
use crate::sys::signal::{HUP, KILL};
use async_io::{Async, Timer};
use smol::channel::{Receiver, bounded};
use smol::io::{AsyncRead, BoxedReader, BoxedWriter};
use smol::{future, stream};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// From hanging up on a command whose client has left to killing it.
const HANG_UP: Duration = Duration::from_secs(10);

/// Connects a command's descriptors to the client's streams.
pub fn connect(session: cell::ExecSession) -> io::Result<ExecSession> {
    let cell::ExecSession { mut process, container } = session;
    let streams = std::mem::take(&mut process.streams);
    let (end, ended) = cancel::pair();
    let writer =
        |fd: OwnedFd| -> io::Result<BoxedWriter> { Ok(Box::pin(Async::new(File::from(fd))?)) };
    let (stdin, stdout, stderr) = match streams.tty {
        Some(master) => {
            let input = writer(master.try_clone()?)?;
            (Some(input), Some(output(master, &ended)?), None)
        }
        None => (
            streams.stdin.map(writer).transpose()?,
            streams.stdout.map(|fd| output(fd, &ended)).transpose()?,
            streams.stderr.map(|fd| output(fd, &ended)).transpose()?,
        ),
    };
    let stdout = stdout.ok_or_else(|| io::Error::other("pid 1 sent no descriptor for it"))?;
    let (control, orders) = bounded(16);
    let (sender, exit) = bounded(1);
    let process = Arc::new(process);
    smol::spawn(async move {
        // The connection to pid 1 lives as long as the session.
        let container = container;
        let wait = async { process.wait().await };
        let status = future::or(wait, obey(&process, &orders)).await;
        let _ = container.forget(&process.id).await;
        let status =
            status.map_err(|err| ServiceError::new(ErrorKind::NotRunning, crate::log::chain(&err)));
        let _ = sender.send(status).await;
        end.cancel();
    })
    .detach();
    let exit = async move {
        exit.recv().await.unwrap_or_else(|_| {
            Err(ServiceError::new(ErrorKind::Failed, "the daemon lost sight of the command"))
        })
    };
    Ok(ExecSession { stdin, stdout, stderr, control, exit: Box::pin(exit) })
}

/// Does what the client says; when it leaves, hangs up, and kills what does not mind.
async fn obey(
    process: &Process,
    orders: &Receiver<ExecControl>,
) -> Result<ExitStatus, ProcessError> {
    while let Ok(order) = orders.recv().await {
        // A command that has just ended cannot obey; its end is told by the other side.
        let _ = match order {
            ExecControl::Resize(size) => process.resize(size).await,
            ExecControl::Signal(signal) => process.signal(signal).await,
        };
    }
    let _ = process.signal(HUP).await;
    Timer::after(HANG_UP).await;
    let _ = process.signal(KILL).await;
    process.wait().await
}

/// One output stream, ending after the command and its last byte.
fn output(fd: OwnedFd, ended: &Cancel) -> io::Result<BoxedReader> {
    let mut reader = Reader::new(fd, ended.clone())?;
    let (sender, chunks) = bounded::<Vec<u8>>(1);
    smol::spawn(async move {
        while let Ok(Some(bytes)) = reader.next().await {
            if sender.send(bytes.to_vec()).await.is_err() {
                break;
            }
        }
    })
    .detach();
    Ok(Box::pin(Chunks { chunks: Box::pin(chunks), current: Vec::new(), at: 0 }))
}

/// Chunks as a stream of bytes.
struct Chunks {
    chunks: Pin<Box<Receiver<Vec<u8>>>>,
    current: Vec<u8>,
    at: usize,
}

impl AsyncRead for Chunks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.at == self.current.len() {
            match ready!(stream::Stream::poll_next(self.chunks.as_mut(), context)) {
                None => return Poll::Ready(Ok(0)),
                Some(chunk) => (self.current, self.at) = (chunk, 0),
            }
        }
        let length = buffer.len().min(self.current.len() - self.at);
        buffer[..length].copy_from_slice(&self.current[self.at..self.at + length]);
        self.at += length;
        Poll::Ready(Ok(length))
    }
}
