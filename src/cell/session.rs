//! A process of a person's own in a running instance: `terrarium exec`.

use super::converge;
use super::error::{CellError, Kind};
use super::shared::{Cell, now_ms};
use super::view;
use crate::container::{Container, Process, ProcessError};
use crate::init::proto::FailKind;
use crate::model::lrp::ProcessGuid;
use crate::model::process::{ProcessSpec, WindowSize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What shall be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments; at least one.
    pub argv: Vec<String>,
    /// `vcap` when `None`.
    pub user: Option<String>,
    /// Added to the app's own environment.
    pub env: Vec<(String, String)>,
    /// Its home when `None`.
    pub dir: Option<String>,
    /// On a terminal of this size.
    pub tty: Option<WindowSize>,
    /// With an open stdin.
    pub stdin: bool,
}

/// The running process. Ends with its container at the latest.
pub struct ExecSession {
    /// The process and its streams.
    pub process: Process,
    /// Kept so that the connection to pid 1 stays.
    pub container: Arc<Container>,
}

/// Numbers the sessions of this daemon, so that names in one container never repeat.
static LAST: AtomicU32 = AtomicU32::new(0);

impl Cell {
    /// Starts a process in instance `index` of `name`'s `process`.
    pub async fn exec(
        &self,
        name: &str,
        process: &str,
        index: u32,
        wish: ExecRequest,
    ) -> Result<ExecSession, CellError> {
        let view = self.glance(name)?;
        view::expect(&view, Some(process), Some(index))?;
        let app = view.name;
        let guid = ProcessGuid { app, process: process.to_owned() };
        let (container, lrp) = {
            let state = self.shared.state();
            let container = state.serving(&guid, index).and_then(|work| work.container.clone());
            (container, converge::desired(&state.apps).remove(&guid))
        };
        let (Some(container), Some(lrp)) = (container, lrp) else {
            let text =
                format!("instance {guid}/{index} does not run; `terrarium app {name}` tells why",);
            return Err(CellError::new(Kind::NotRunning, text));
        };
        let mut argv = wish.argv.into_iter();
        let path = argv.next().ok_or_else(|| {
            CellError::new(Kind::Invalid, "no command given; write it after `--`")
        })?;
        let mut env = lrp.env.clone();
        env.extend(self.shared.network_env(&container, Some(index)));
        env.extend(wish.env);
        let spec = ProcessSpec {
            id: format!("exec-{:x}-{}", now_ms(), LAST.fetch_add(1, Ordering::Relaxed)),
            path,
            args: argv.collect(),
            program: Default::default(),
            argv0: None,
            env,
            // A slip of somebody's finger is no reason to make a directory.
            dir_must_exist: wish.dir.is_some(),
            dir: wish.dir,
            user: wish.user.unwrap_or(lrp.user),
            nofile: Some(lrp.nofile),
            rlimits: Default::default(),
            tty: wish.tty,
            stdin: wish.stdin,
            keep_stdin: false,
            launches: false,
            never_waits: false,
        };
        let started = container.start(spec).await;
        started
            .map(|process| ExecSession { process, container })
            .map_err(|err| CellError::new(kind(&err), format!("{guid}: {err}")))
    }
}

fn kind(err: &ProcessError) -> Kind {
    match err {
        ProcessError::Gone(_) => Kind::NotRunning,
        ProcessError::Refused { kind: FailKind::ProgramNotFound, .. } => Kind::NoProgram,
        ProcessError::Refused { kind: FailKind::NotExecutable, .. } => Kind::NotExecutable,
        ProcessError::Refused { kind: FailKind::UserNotFound, .. } => Kind::Invalid,
        _ => Kind::Failed,
    }
}
