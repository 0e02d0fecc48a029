//! The cell as the local API wants it: wishes, views, streams.

use super::images::Images;
use super::report::Report;
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
use crate::model::view::{AppView, BoxView, DrainView, LogLine, meant};
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
        Ok(self.cell.check(&request.manifest_text, &request.file).await?)
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
            self.report(name, lines, changes, (sender, !request.temporary));
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
        self.lines(name, query).await
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
    /// Tells what happens to an app, in the background; and whether he who listens waits no longer than the
    /// app says.
    pub(super) fn report(
        &self,
        name: &AppName,
        lines: Receiver<LogLine>,
        changes: Receiver<()>,
        (sender, is_bounded): (Sender<ApplyEvent>, bool),
    ) {
        let (cell, name, heard) = (self.cell.clone(), name.clone(), sender.clone());
        let (log, declaration) = (self.cell.log(&name), self.cell.declaration(&name));
        let report = Report { cell, name, lines, changes, sender, is_bounded, declaration };
        smol::spawn(async move {
            while_heard(heard, report.tell()).await;
            log.drop_gone();
        })
        .detach();
    }
}

/// Does `work`, which sends what it finds, until it is done or its client has left: of an app that says
/// nothing there is no line by which it would notice, and it would stay for ever.
pub(super) async fn while_heard<T>(heard: Sender<T>, work: impl Future<Output = ()>) {
    future::or(work, heard.closed()).await
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
