//! The cell as the local API wants it: wishes, views, streams.

use super::images::Images;
use super::session;
use crate::api::apps::{
    AppService, ApplyEvent, ApplyRequest, ErrorKind, ExecRequest, ExecSession, LogQuery,
    ScaleRequest, Served, ServiceError,
};
use crate::cell::{self, Cell, CellError, Kind};
use crate::garden::Backend;
use crate::model::view::{AppView, BoxView, LogLine, meant};
use crate::unit::AppName;
use smol::channel::{Receiver, Sender, bounded};
use smol::stream::StreamExt;
use smol::{future, stream};
use std::io;

/// Events that a slow client may be behind.
const BEHIND_MAX: usize = 256;

/// Serves one cell, and tells of what is beside it.
pub struct Service {
    pub(super) cell: Cell,
    pub(super) garden: Backend,
    pub(super) images: Images,
}

impl Service {
    /// Serves `cell` and `images`; `garden` is only looked at.
    pub fn new(cell: Cell, garden: Backend, images: Images) -> Service {
        Service { cell, garden, images }
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
    async fn examine_box(&self, containers: usize) -> Served<BoxView> {
        let garden = self.garden.view(containers).await;
        Ok(BoxView { garden, ..self.cell.examine_box().await })
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
        let (_, lines) = self.cell.log(name).follow(0, |_| true);
        let changes = self.cell.watch();
        let ApplyRequest { manifest_text, file, temporary, .. } = &request;
        self.cell.apply(manifest_text, file, Some(name), *temporary).await?;
        let lease = self.cell.hold(name);
        let (sender, receiver) = bounded(BEHIND_MAX);
        if request.wait {
            smol::spawn(report(self.cell.clone(), name.clone(), lines, changes, sender)).detach();
        } else {
            let _ = sender.try_send(ApplyEvent::Done(self.cell.app(name.as_str()).await?));
        }
        match lease {
            None => Ok(Box::pin(receiver)),
            // Dropped with the stream, when the client has gone.
            Some(lease) => Ok(Box::pin(receiver.chain(stream::pending()).map(move |event| {
                let _ = &lease;
                event
            }))),
        }
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
            move |line: &LogLine| query.wants(line)
        };
        let known = self.cell.expect(name.as_str(), query.process.as_deref(), query.index);
        // What is gone has left lines all the same.
        let there = |past: &[LogLine]| if past.is_empty() { known } else { Ok(()) };
        if !query.follow {
            let past = smol::unblock(move || log.last(query.lines, wanted)).await;
            there(&past)?;
            return Ok(Box::pin(stream::iter(past)));
        }
        let changes = self.cell.watch();
        let first = wanted.clone();
        let (past, lines) = smol::unblock(move || log.follow(query.lines, first)).await;
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
        session::connect(session).map_err(failed)
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
        // What was logged before the outcome is told before it. No more: an app may print faster
        // than anybody reads.
        for _ in 0..lines.len() {
            let Ok(line) = lines.try_recv() else { break };
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
    let waits = || {
        let instances = view.processes.iter().flat_map(|process| &process.instances);
        let why = instances.filter_map(|one| one.placement_error.as_deref()).next();
        let why = why.unwrap_or("the box has none");
        format!("app {} waits for room and starts by itself when there is some: {why}", view.name)
    };
    let error = |kind, text| Some(ApplyEvent::Error(ServiceError::new(kind, text).view()));
    match (view.state.as_str(), &view.reason) {
        ("staging", _) => None,
        // A new version that could not be staged leaves the old one running.
        (_, Some(reason)) => {
            error(ErrorKind::Failed, format!("cannot stage app {}: {reason}", view.name))
        }
        ("running" | "stopped" | "finished", None) => Some(ApplyEvent::Done(view)),
        ("waiting", None) => error(ErrorKind::NotRunning, waits()),
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
        if cell.is_over(name) {
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
