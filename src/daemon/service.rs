//! The cell as the local API wants it: wishes, views, streams.

use super::images::Images;
use super::session;
use crate::api::apps::cell::CellService;
use crate::api::apps::{
    AppService, ApplyEvent, ApplyRequest, ErrorKind, ExecRequest, ExecSession, LogQuery,
    ScaleRequest, Served, ServiceError,
};
use crate::api::bridge::Bridged;
use crate::bridge::Bridge;
use crate::cell::{self, Cell, CellError, Declaration, How, Kind};
use crate::garden::Backend;
use crate::model::task::{inner_name, task_name};
use crate::model::view::{AppView, BoxView, DrainView, InstanceView, LogLine, ROLLED_BACK, meant};
use crate::unit::AppName;
use smol::channel::{Receiver, Sender, bounded};
use smol::lock::Semaphore;
use smol::stream::StreamExt;
use smol::{future, stream};
use std::io;
use std::time::Duration;

/// Events that a slow client may be behind.
pub(super) const BEHIND_MAX: usize = 256;

/// Sources that come in side by side; further ones wait.
const UPLOADS_MAX: usize = 2;

/// Serves one cell, and tells of what is beside it.
pub struct Service {
    pub(super) cell: Cell,
    pub(super) garden: Backend,
    pub(super) images: Images,
    pub(super) bridge: Bridge,
    /// Sources that come in side by side.
    pub(super) uploads: Semaphore,
}

impl Service {
    /// Serves `cell`, `images` and `bridge`; `garden` is only looked at.
    pub fn new(cell: Cell, garden: Backend, images: Images, bridge: Bridge) -> Service {
        Service { cell, garden, images, bridge, uploads: Semaphore::new(UPLOADS_MAX) }
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

impl Bridged for Service {
    fn bridge(&self) -> Option<&Bridge> {
        Some(&self.bridge)
    }
}

impl CellService for Service {
    async fn drain(&self, timeout: Option<Duration>, wait: bool) -> Served<DrainView> {
        Ok(self.cell.drain(timeout, wait).await?)
    }

    async fn undrain(&self) -> Served<()> {
        Ok(self.cell.undrain().await?)
    }
}

impl AppService for Service {
    async fn examine_box(&self, containers: usize) -> Served<BoxView> {
        let garden = self.garden.view(containers).await;
        let tasks = self.cell.count_tasks();
        Ok(BoxView { garden, tasks, ..self.cell.examine_box().await })
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
        let how = match (request.temporary, request.stopped, request.force) {
            (true, ..) => How::Temporary,
            (false, true, _) => How::Stopped,
            (false, false, true) => How::Afresh,
            (false, false, false) => How::ToStay,
        };
        let (text, file) = (&*request.manifest_text, &*request.file);
        let (pushed, counted) = (request.pushed.as_ref(), request.counted);
        let wanted = Declaration { text, file, pushed, counted, how };
        self.cell.apply(wanted, Some(name)).await?;
        let lease = self.cell.hold(name);
        let (sender, receiver) = bounded(BEHIND_MAX);
        if request.wait {
            self.report(name, lines, changes, sender);
        } else {
            let _ = sender.try_send(ApplyEvent::Done(self.cell.app(name.as_str()).await?.into()));
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

    async fn restart_instance(&self, name: &AppName, process: &str, index: u32) -> Served<()> {
        Ok(self.cell.restart_instance(name.as_str(), process, index).await?)
    }

    async fn delete(&self, name: &AppName) -> Served<()> {
        Ok(self.cell.delete(name.as_str()).await?)
    }

    async fn logs(&self, name: &AppName, query: LogQuery) -> Served<stream::Boxed<LogLine>> {
        // By the guid that its client has for it, too.
        let guid = name.as_str();
        let inner = [name.clone(), inner_name(guid), task_name(guid)];
        let known = |name: &&AppName| {
            self.cell.is_task_log(name) || self.cell.glance(name.as_str()).is_ok()
        };
        let name = inner.iter().find(known).unwrap_or(name);
        let of_task = self.cell.is_task_log(name);
        if !of_task {
            self.cell.glance(name.as_str())?;
        }
        let log = self.cell.log(name);
        let wanted = {
            let query = query.clone();
            move |line: &LogLine| query.wants(line)
        };
        let known = match of_task {
            true => Ok(()),
            false => self.cell.expect(name.as_str(), query.process.as_deref(), query.index),
        };
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
        let (log, heard) = (self.cell.log(&name), sender.clone());
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
        smol::spawn(async move {
            while_heard(heard, work).await;
            log.drop_gone();
        })
        .detach();
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

impl Service {
    /// Tells what happens to an app, in the background.
    pub(super) fn report(
        &self,
        name: &AppName,
        lines: Receiver<LogLine>,
        changes: Receiver<()>,
        sender: Sender<ApplyEvent>,
    ) {
        let (cell, name, heard) = (self.cell.clone(), name.clone(), sender.clone());
        let log = self.cell.log(&name);
        smol::spawn(async move {
            while_heard(heard, report(cell, name, lines, changes, sender)).await;
            log.drop_gone();
        })
        .detach();
    }
}

/// Does `work`, which sends what it finds, until it is done or its client has left: of an app that says
/// nothing there is no line by which it would notice, and it would stay for ever.
async fn while_heard<T>(heard: Sender<T>, work: impl Future<Output = ()>) {
    future::or(work, heard.closed()).await
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
                **view = whole;
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
        let one = instances.into_iter().find(|one| one.placement_error.is_some());
        let why = one.and_then(|one| one.placement_error.as_deref()).unwrap_or("the box has none");
        if one.is_some_and(InstanceView::waits_for_app) {
            return format!("app {} waits and starts by itself then: it {why}", view.name);
        }
        if one.is_some_and(InstanceView::is_too_large) {
            return format!("app {} does not fit the box and does not start: {why}", view.name);
        }
        if one.is_some_and(|one| !one.waits_for_room()) {
            return format!("app {} waits and starts by itself then: {why}", view.name);
        }
        format!("app {} waits for room and starts by itself when there is some: {why}", view.name)
    };
    let error = |kind, text| Some(ApplyEvent::Error(ServiceError::new(kind, text).view()));
    match (view.state.as_str(), &view.reason) {
        ("staging", _) => None,
        // A new version that could not be staged leaves the old one running.
        (_, Some(reason)) if reason.starts_with(ROLLED_BACK) => {
            error(ErrorKind::Failed, format!("cannot update app {}: {reason}", view.name))
        }
        (_, Some(reason)) => {
            error(ErrorKind::Failed, format!("cannot stage app {}: {reason}", view.name))
        }
        ("running" | "stopped" | "finished", None) => Some(ApplyEvent::Done(view.into())),
        // What it waits for is on its way.
        ("waiting", None) if comes(&view) => None,
        ("waiting", None) => error(ErrorKind::NotRunning, waits()),
        ("crashed", None) => error(ErrorKind::NotRunning, crashed()),
        ("deleting", None) => {
            error(ErrorKind::Conflict, format!("app {} is being deleted", view.name))
        }
        _ => None,
    }
}

/// All that waits of it waits for an app that is about to run.
fn comes(view: &AppView) -> bool {
    let instances = view.processes.iter().flat_map(|process| &process.instances);
    let mut waiting = instances.filter(|one| one.state == "waiting");
    waiting.all(InstanceView::waits_for_start)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Work that waits for what never comes, as the log of a silent app does.
    #[test]
    fn work_for_a_client_that_has_left_ends_and_lets_go_of_what_it_had() {
        let (held, dropped) = bounded::<()>(1);
        let (sender, receiver) = bounded::<u32>(1);
        let heard = sender.clone();
        let work = async move {
            let _both = (held, sender);
            future::pending().await
        };
        let task = smol::spawn(while_heard(heard, work));
        assert!(!dropped.is_closed(), "it waits as long as somebody listens");
        drop(receiver);
        smol::block_on(task);
        assert!(dropped.is_closed());
    }

    #[test]
    fn work_that_is_done_ends_the_stream() {
        let (sender, receiver) = bounded::<u32>(1);
        let heard = sender.clone();
        smol::block_on(while_heard(heard, async move {
            sender.send(7).await.expect("somebody listens");
        }));
        assert_eq!(smol::block_on(receiver.recv()), Ok(7));
        assert!(receiver.is_closed());
    }
}
