//! The cell as the local API wants it: wishes, views, streams.

use crate::api::apps::{
    AppService, ApplyEvent, ApplyRequest, ErrorKind, ExecControl, ExecRequest, ExecSession,
    LogQuery, ScaleRequest, Served, ServiceError,
};
use crate::cell::{self, Cell, CellError, Kind};
use crate::container::Process;
use crate::exec::cancel::{self, Cancel};
use crate::exec::streams::Reader;
use crate::model::process::ExitStatus;
use crate::model::view::{AppView, BoxView, LogLine, meant};
use crate::sys::signal::{HUP, KILL};
use crate::unit::AppName;
use async_io::{Async, Timer};
use smol::channel::{Receiver, Sender, bounded};
use smol::io::{AsyncRead, BoxedReader, BoxedWriter};
use smol::{future, stream};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Events that a slow client may be behind.
const BEHIND_MAX: usize = 256;

/// From hanging up on a command whose client has left to killing it.
const HANG_UP: Duration = Duration::from_secs(10);

/// Serves one cell.
pub struct Service {
    cell: Cell,
}

impl Service {
    /// Serves `cell`.
    pub fn new(cell: Cell) -> Service {
        Service { cell }
    }
}

impl From<CellError> for ServiceError {
    fn from(err: CellError) -> ServiceError {
        let kind = match err.kind {
            Kind::NotFound => ErrorKind::NotFound,
            Kind::Invalid => ErrorKind::Invalid,
            Kind::NotRunning => ErrorKind::NotRunning,
            Kind::Conflict => ErrorKind::Conflict,
            Kind::NoProgram => ErrorKind::NoProgram,
            Kind::NotExecutable => ErrorKind::NotExecutable,
            Kind::Failed => ErrorKind::Failed,
        };
        ServiceError::new(kind, err.text)
    }
}

impl AppService for Service {
    async fn examine_box(&self) -> Served<BoxView> {
        Ok(self.cell.examine_box().await)
    }

    async fn apps(&self) -> Served<Vec<AppView>> {
        Ok(self.cell.apps().await)
    }

    async fn app(&self, name: &AppName) -> Served<AppView> {
        Ok(self.cell.app(name.as_str()).await?)
    }

    async fn check(&self, request: ApplyRequest) -> Served<()> {
        self.cell.examine(&request.manifest_text, &request.file).await?;
        Ok(())
    }

    async fn apply(
        &self,
        name: &AppName,
        request: ApplyRequest,
    ) -> Served<stream::Boxed<ApplyEvent>> {
        // Both before the wish, so that nothing of what it starts is missed.
        let (_, lines) = self.cell.log(name).follow(0);
        let changes = self.cell.watch();
        self.cell.apply(&request.manifest_text, &request.file, Some(name)).await?;
        let (sender, receiver) = bounded(BEHIND_MAX);
        if request.wait {
            smol::spawn(report(self.cell.clone(), name.clone(), lines, changes, sender)).detach();
        } else {
            let _ = sender.try_send(ApplyEvent::Done(self.cell.app(name.as_str()).await?));
        }
        Ok(Box::pin(receiver))
    }

    async fn scale(&self, name: &AppName, request: ScaleRequest) -> Served<()> {
        let process = match request.process {
            Some(process) => process,
            None => {
                let view = self.cell.glance(name.as_str())?;
                meant(&view).map_err(|text| ServiceError::new(ErrorKind::Invalid, text))?
            }
        };
        Ok(self.cell.scale(name.as_str(), &process, request.instances).await?)
    }

    async fn stop(&self, name: &AppName, wait: bool) -> Served<()> {
        Ok(self.cell.stop(name.as_str(), wait).await?)
    }

    async fn start(&self, name: &AppName) -> Served<()> {
        Ok(self.cell.start(name.as_str()).await?)
    }

    async fn restart(&self, name: &AppName) -> Served<()> {
        Ok(self.cell.restart(name.as_str()).await?)
    }

    async fn delete(&self, name: &AppName) -> Served<()> {
        Ok(self.cell.delete(name.as_str()).await?)
    }

    async fn logs(&self, name: &AppName, query: LogQuery) -> Served<stream::Boxed<LogLine>> {
        self.cell.glance(name.as_str())?;
        let log = self.cell.log(name);
        let wanted = {
            let query = query.clone();
            move |line: &LogLine| {
                query.index.is_none_or(|index| line.index == index)
                    && query.process.as_ref().is_none_or(|process| {
                        line.source.rsplit('/').next() == Some(&process.to_uppercase())
                    })
            }
        };
        let known = self.cell.expect(name.as_str(), query.process.as_deref(), query.index);
        // What is gone has left lines all the same.
        let there = |past: &[LogLine]| if past.is_empty() { known } else { Ok(()) };
        if !query.follow {
            let past = smol::unblock(move || log.last(query.lines)).await;
            let past: Vec<_> = past.into_iter().filter(wanted).collect();
            there(&past)?;
            return Ok(Box::pin(stream::iter(past)));
        }
        let changes = self.cell.watch();
        let (past, lines) = smol::unblock(move || log.follow(query.lines)).await;
        let past: Vec<_> = past.into_iter().filter(&wanted).collect();
        there(&past)?;
        let (sender, receiver) = bounded(BEHIND_MAX);
        let (cell, name) = (self.cell.clone(), name.clone());
        let work = async move {
            for line in past {
                if sender.send(line).await.is_err() {
                    return;
                }
            }
            while let Some(line) = next_line(&cell, &name, &lines, &changes).await {
                if wanted(&line) && sender.send(line).await.is_err() {
                    return;
                }
            }
        };
        smol::spawn(work).detach();
        Ok(Box::pin(receiver))
    }

    async fn exec(
        &self,
        name: &AppName,
        process: &str,
        index: u32,
        request: ExecRequest,
    ) -> Served<ExecSession> {
        let wish = cell::ExecRequest {
            argv: request.argv,
            user: request.user,
            env: request.env,
            dir: request.dir,
            tty: request.tty,
            stdin: request.stdin,
        };
        let session = self.cell.exec(name.as_str(), process, index, wish).await?;
        let failed = |err: io::Error| {
            ServiceError::new(ErrorKind::Failed, format!("cannot read the command's output: {err}"))
        };
        connect(session).map_err(failed)
    }
}

/// Tells what happens to an app until it runs or has failed. A client that left ends it.
async fn report(
    cell: Cell,
    name: AppName,
    lines: Receiver<LogLine>,
    changes: Receiver<()>,
    sender: Sender<ApplyEvent>,
) {
    let mut told = String::new();
    loop {
        let outcome = match cell.glance(name.as_str()) {
            Err(err) => Some(ApplyEvent::Error(ServiceError::from(err).view())),
            Ok(view) => {
                if view.state != told {
                    told = view.state.clone();
                    if sender.send(ApplyEvent::State(told.clone())).await.is_err() {
                        return;
                    }
                }
                outcome(view)
            }
        };
        // What was logged before the outcome is told before it.
        while let Ok(line) = lines.try_recv() {
            if sender.send(ApplyEvent::Log(line)).await.is_err() {
                return;
            }
        }
        if let Some(mut outcome) = outcome {
            if let (ApplyEvent::Done(view), Ok(whole)) =
                (&mut outcome, cell.app(name.as_str()).await)
            {
                *view = whole;
            }
            let _ = sender.send(outcome).await;
            return;
        }
        let next = future::or(async { lines.recv().await.map(Some) }, async {
            changes.recv().await.map(|()| None)
        });
        // The client has left, the app is gone or the daemon ends: nobody to tell.
        let told = match next.await {
            Ok(Some(line)) => sender.send(ApplyEvent::Log(line)).await.is_ok(),
            Ok(None) => !sender.is_closed(),
            Err(_) => false,
        };
        if !told {
            return;
        }
    }
}

/// The last word about an app, if it has been spoken.
fn outcome(view: AppView) -> Option<ApplyEvent> {
    let crashed = || {
        let instances = view.processes.iter().flat_map(|process| &process.instances);
        let reasons = instances.filter(|one| one.state == "crashed");
        let reason = reasons.filter_map(|one| one.crash_reason.as_deref()).next();
        let text = reason.unwrap_or("it crashed");
        format!("app {} does not run: {text}", view.name)
    };
    let error = |kind, text| Some(ApplyEvent::Error(ServiceError::new(kind, text).view()));
    match (view.state.as_str(), &view.reason) {
        ("staging", _) => None,
        // A new version that could not be staged leaves the old one running.
        (_, Some(reason)) => {
            error(ErrorKind::Failed, format!("cannot stage app {}: {reason}", view.name))
        }
        ("running" | "stopped", None) => Some(ApplyEvent::Done(view)),
        ("crashed", None) => error(ErrorKind::NotRunning, crashed()),
        ("deleting", None) => {
            error(ErrorKind::Conflict, format!("app {} is being deleted", view.name))
        }
        _ => None,
    }
}

/// The next line of a followed log; `None` when the app is deleted or nothing of it will run.
async fn next_line(
    cell: &Cell,
    name: &AppName,
    lines: &Receiver<LogLine>,
    changes: &Receiver<()>,
) -> Option<LogLine> {
    loop {
        if let Ok(line) = lines.try_recv() {
            return Some(line);
        }
        let over = match cell.glance(name.as_str()) {
            Err(_) => true,
            Ok(view) => {
                let idle = view
                    .processes
                    .iter()
                    .all(|process| process.instances.iter().all(|one| one.handle.is_none()));
                idle && matches!(view.state.as_str(), "stopped" | "failed")
            }
        };
        if over {
            return lines.try_recv().ok();
        }
        let next = future::or(async { lines.recv().await.map(Some) }, async {
            changes.recv().await.map(|()| None)
        });
        match next.await {
            Ok(Some(line)) => return Some(line),
            Ok(None) => {}
            // The app is gone, or the daemon ends.
            Err(_) => return None,
        }
    }
}

/// Connects a command's descriptors to the session.
fn connect(session: cell::ExecSession) -> io::Result<ExecSession> {
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
) -> Result<ExitStatus, crate::container::ProcessError> {
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
