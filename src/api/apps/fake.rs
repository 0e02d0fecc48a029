//! A service for the tests of this room and of `cli`: remembers what it was asked, and its `exec`
//! runs a shell of its own: `echo`, `cat`, `exit N`, `size`, `forever`.

mod history;
mod images;
mod records;
mod watch;

pub use images::image;
pub use watch::crash;

use super::cell::CellService;
use super::*;
use crate::model::container::LrpContainer;
use crate::model::task::TaskRecord;
use crate::model::view::{
    ContainerView, DrainView, GardenView, InstanceView, PortView, ProcessView,
};
use crate::unit::Percent;
use smol::channel::{self, Receiver};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::stream::StreamExt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The service. Clones share everything.
#[derive(Clone, Default)]
pub struct Fake(Arc<Inner>);

#[derive(Default)]
struct Inner {
    calls: Mutex<Vec<String>>,
    apps: Mutex<Vec<AppView>>,
    problems: Mutex<Vec<String>>,
    garden: Mutex<GardenView>,
    followers: Mutex<Vec<Sender<LogLine>>>,
    tasks: Mutex<BTreeMap<String, TaskRecord>>,
    lrps: Mutex<Vec<(AppName, LrpContainer)>>,
    rivals: Mutex<Vec<AppName>>,
}

/// A healthy app.
pub fn view(name: &str, state: &str) -> AppView {
    let ports = vec![PortView { container: 8080, host: 61_000, publish: Some(8080) }];
    let running = state == "running";
    AppView {
        name: name.parse().expect("name"),
        state: state.into(),
        reason: (state == "crashed").then(|| "exit status 1".into()),
        buildpack: Some("procfile".into()),
        stack: "tiny".into(),
        image: None,
        manifest: format!("/apps/{name}.toml"),
        refused: None,
        pushed: None,
        temporary: false,
        claims: Vec::new(),
        published: Vec::new(),
        ssh: None,
        processes: vec![ProcessView {
            name: "web".into(),
            desired: 1,
            running: running.into(),
            memory_bytes: 256 << 20,
            disk_bytes: 512 << 20,
            command: "serve".into(),
            added: false,
            instances: vec![InstanceView {
                index: 0,
                outdated: false,
                state: state.into(),
                since_ms: 1_000,
                crash_count: 0,
                crash_reason: None,
                death: None,
                uptime_ms: running.then_some(300_000),
                placement_error: None,
                handle: Some(format!("{name}-0-3f2a")),
                address: Some("10.254.0.2".into()),
                ports,
                memory_bytes: Some(12_900_000),
                disk_bytes: Some(4096),
                cpu_ns: Some(1_500_000_000),
                ready: None,
                unready: None,
                cpu_percent: Percent::of(25, 200),
                pids: Some(3),
            }],
        }],
    }
}

/// A box with these problems.
pub fn site(problems: &[String]) -> BoxView {
    BoxView {
        disk_free_bytes: 12_900_000_000,
        disk_total_bytes: 50 << 30,
        store_free_bytes: 800 << 20,
        problems: problems.to_vec(),
        ..BoxView::default()
    }
}

/// The container of a Garden client.
pub fn container(handle: &str) -> ContainerView {
    ContainerView {
        handle: handle.into(),
        name: "0001".into(),
        state: "active".into(),
        since_ms: 1_000,
        address: "10.254.0.6".into(),
        processes: 2,
        memory_bytes: Some(12_900_000),
        memory_limit_bytes: Some(256 << 20),
    }
}

/// A line of the app's own output.
pub fn line(text: &str) -> LogLine {
    let source = "APP/PROC/WEB".to_owned();
    LogLine { time_ms: 1_000, source, index: 0, err: false, text: text.into() }
}

impl Fake {
    /// A service with these apps: name and state.
    pub fn with(apps: &[(&str, &str)]) -> Fake {
        let fake = Fake::default();
        fake.0
            .apps
            .lock()
            .expect("apps")
            .extend(apps.iter().map(|(name, state)| view(name, state)));
        fake
    }

    /// What it was asked to do, oldest first.
    pub fn calls(&self) -> Vec<String> {
        self.0.calls.lock().expect("calls").clone()
    }

    /// Lets something be wrong with the box.
    pub fn add_problem(&self, text: &str) {
        self.0.problems.lock().expect("problems").push(text.into());
    }

    /// Lets an app of this name take the port that the next one asks for, just before that is applied.
    pub fn add_rival(&self, name: &str) {
        self.0.rivals.lock().expect("rivals").push(name.parse().expect("name"));
    }

    /// Lets Garden's clients have containers of these handles.
    pub fn add_containers(&self, handles: impl IntoIterator<Item = String>) {
        let containers: Vec<_> = handles.into_iter().map(|handle| container(&handle)).collect();
        *self.0.garden.lock().expect("garden") = GardenView { count: containers.len(), containers };
    }

    /// Adds a process to an app, like its first one.
    pub fn add_process(&self, app: &str, process: &str) {
        self.change(app, |app| {
            let mut fresh = app.processes[0].clone();
            fresh.name = process.into();
            app.processes.push(fresh);
        });
    }

    /// Gives a process of an app another name.
    pub fn rename_process(&self, app: &str, from: &str, to: &str) {
        self.change(app, |app| {
            let found = app.processes.iter_mut().find(|process| process.name == from);
            found.expect("process").name = to.into();
        });
    }

    /// Somebody has applied an app of a `run` for good.
    pub fn take_over(&self, app: &str) {
        self.change(app, |app| app.temporary = false);
    }

    fn change(&self, app: &str, change: impl FnOnce(&mut AppView)) {
        let mut apps = self.0.apps.lock().expect("apps");
        change(apps.iter_mut().find(|it| it.name.as_str() == app).expect("app"));
    }

    fn note(&self, call: impl Into<String>) {
        self.0.calls.lock().expect("calls").push(call.into());
    }

    fn find(&self, name: &AppName) -> Served<AppView> {
        let apps = self.0.apps.lock().expect("apps");
        let app = apps.iter().find(|app| app.name == *name).cloned();
        app.ok_or_else(|| ServiceError::new(ErrorKind::NotFound, format!("no app `{name}`")))
    }

    fn act(&self, what: &str, name: &AppName) -> Served<()> {
        self.find(name)?;
        self.note(format!("{what} {name}"));
        Ok(())
    }
}

impl crate::api::bridge::Bridged for Fake {
    fn bridge(&self) -> Option<&crate::bridge::Bridge> {
        None
    }
}

impl CellService for Fake {
    async fn drain(&self, timeout: Option<Duration>, wait: bool) -> Served<DrainView> {
        self.note(format!("drain {timeout:?} {wait}"));
        Ok(DrainView { state: "drained".into(), since_ms: 7, left: Vec::new() })
    }

    async fn undrain(&self) -> Served<()> {
        self.note("undrain");
        Ok(())
    }
}

impl AppService for Fake {
    async fn examine_box(&self, containers: usize) -> Served<BoxView> {
        let mut site = site(&self.0.problems.lock().expect("problems"));
        site.garden = self.0.garden.lock().expect("garden").clone();
        site.garden.containers.truncate(containers);
        site.tasks.running = self.0.tasks.lock().expect("tasks").len();
        Ok(site)
    }

    async fn apps(&self) -> Served<Vec<AppView>> {
        Ok(self.0.apps.lock().expect("apps").clone())
    }

    async fn app(&self, name: &AppName) -> Served<AppView> {
        self.find(name)
    }

    async fn check(&self, request: ApplyRequest) -> Served<()> {
        let text = "error: stack `x` is not on this box\n --> web.toml:3:9\n";
        match request.manifest_text.contains("# unfit") {
            true => Err(ServiceError::new(ErrorKind::Invalid, text)),
            false => Ok(()),
        }
    }

    async fn apply(
        &self,
        name: &AppName,
        request: ApplyRequest,
    ) -> Served<stream::Boxed<ApplyEvent>> {
        if request.temporary && self.find(name).is_ok() {
            return Err(ServiceError::new(ErrorKind::Conflict, format!("`{name}` is there")));
        }
        self.check(request.clone()).await?;
        self.note(format!("apply {name} {} wait={}", request.file.display(), request.wait));
        let published = publishes(&request.manifest_text);
        if let Some(rival) = self.0.rivals.lock().expect("rivals").pop() {
            let text = format!("port {published:?} is published by app {rival}");
            let claims = published.clone();
            let app = AppView { claims, published, ..view(rival.as_str(), "running") };
            self.0.apps.lock().expect("apps").push(app);
            return Err(ServiceError::new(ErrorKind::Conflict, text));
        }
        if request.manifest_text.contains("# conflict") {
            return Err(ServiceError::new(ErrorKind::Conflict, "port 8080 is taken by `other`"));
        }
        let staging = LogLine { source: "STG".into(), ..line("-----> procfile") };
        let mut events = vec![ApplyEvent::State("staging".into()), ApplyEvent::Log(staging)];
        if request.manifest_text.contains("# broken") {
            let said =
                LogLine { source: "STG".into(), err: true, ..line("Staging failed: why not") };
            let err = ServiceError::new(ErrorKind::Failed, "cannot stage app web: why not");
            events.extend([ApplyEvent::Log(said), ApplyEvent::Error(err.view())]);
        } else if request.manifest_text.contains("# unready") {
            let text = format!("app {name} runs and is not ready");
            let err = ServiceError::new(ErrorKind::NotRunning, text);
            events.push(ApplyEvent::Error(err.view()));
        } else {
            let state = match request.manifest_text.contains("# crash") {
                true => "crashed",
                false => "running",
            };
            let (temporary, claims) = (request.temporary, published.clone());
            let app = AppView { temporary, claims, published, ..view(name.as_str(), state) };
            self.0.apps.lock().expect("apps").push(app.clone());
            events.extend([ApplyEvent::State("starting".into()), ApplyEvent::Done(app.into())]);
        }
        Ok(stream::iter(events).boxed())
    }

    async fn scale(&self, name: &AppName, request: ScaleRequest) -> Served<()> {
        self.act(&format!("scale {:?}={}", request.process, request.instances), name)
    }

    async fn stop(&self, name: &AppName, wait: bool) -> Served<()> {
        self.act(if wait { "stop and wait" } else { "stop" }, name)
    }

    async fn start(&self, name: &AppName) -> Served<()> {
        self.act("start", name)
    }

    async fn restart(&self, name: &AppName) -> Served<()> {
        self.act("restart", name)
    }

    async fn restart_instance(&self, name: &AppName, process: &str, index: u32) -> Served<()> {
        self.act(&format!("restart {process}/{index} of"), name)
    }

    async fn delete(&self, name: &AppName) -> Served<()> {
        self.act("delete", name)?;
        self.0.apps.lock().expect("apps").retain(|app| app.name != *name);
        self.0.followers.lock().expect("followers").clear();
        Ok(())
    }

    async fn logs(&self, name: &AppName, query: LogQuery) -> Served<stream::Boxed<LogLine>> {
        let app = self.find(name)?;
        self.note(format!("logs {name} {query:?}"));
        let past = stream::iter((0..query.lines.min(3)).map(|n| line(&format!("line {n}"))));
        if !query.follow || app.state != "running" {
            return Ok(past.boxed());
        }
        let (tell, more) = channel::bounded(8);
        self.0.followers.lock().expect("followers").push(tell);
        Ok(past.chain(more).boxed())
    }

    async fn exec(
        &self,
        name: &AppName,
        process: &str,
        index: u32,
        request: ExecRequest,
    ) -> Served<ExecSession> {
        let app = self.find(name)?;
        if app.state != "running" {
            return Err(ServiceError::new(ErrorKind::NotRunning, format!("`{name}` is stopped")));
        }
        if request.argv[0] == "missing" {
            return Err(ServiceError::new(ErrorKind::NoProgram, "no program `missing`"));
        }
        if request.argv[0] == "script" {
            return Err(ServiceError::new(ErrorKind::NotExecutable, "`script` is no program"));
        }
        self.note(format!("exec {name}:{process}/{index} {:?}", request.argv));
        Ok(shell(request, self.clone()))
    }
}

/// The ports of the box that a manifest publishes.
fn publishes(text: &str) -> Vec<u16> {
    let all: toml::Table = text.parse().unwrap_or_default();
    let ports = all.get("port").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let number = |port: &toml::Value| port.get("publish")?.as_integer()?.try_into().ok();
    ports.iter().filter_map(number).collect()
}

/// Starts the fake shell.
fn shell(request: ExecRequest, fake: Fake) -> ExecSession {
    let (stdin_read, stdin) = pipe();
    let (stdout, stdout_write) = pipe();
    let (stderr, stderr_write) = pipe();
    let (control, orders) = channel::bounded(4);
    let (tell, exit) = channel::bounded(1);
    let (tty, wants_stdin) = (request.tty.is_some(), request.stdin || request.tty.is_some());
    let work = async move {
        let status = command(request, stdin_read, stdout_write, stderr_write, &orders).await;
        // The session's end of the channel is gone when the client hung up.
        if orders.is_closed() {
            fake.note("hung up");
        }
        let _ = tell.send(status).await;
    };
    smol::spawn(work).detach();
    ExecSession {
        stdin: wants_stdin.then_some(stdin),
        stdout,
        stderr: (!tty).then_some(stderr),
        control,
        exit: Box::pin(async move {
            exit.recv().await.map_err(|_| ServiceError::new(ErrorKind::Failed, "lost"))
        }),
    }
}

async fn command(
    request: ExecRequest,
    mut stdin: BoxedReader,
    mut stdout: BoxedWriter,
    mut stderr: BoxedWriter,
    orders: &Receiver<ExecControl>,
) -> ExitStatus {
    let words: Vec<&str> = request.argv.iter().map(String::as_str).collect();
    match words[..] {
        ["echo", text] => {
            let _ = stdout.write_all(text.as_bytes()).await;
            let _ = stderr.write_all(b"oops").await;
        }
        ["cat"] => {
            let _ = smol::io::copy(&mut stdin, &mut stdout).await;
        }
        ["exit", code] => return ExitStatus::Exited(code.parse().expect("a status")),
        ["size"] => {
            let first = request.tty.map_or(0, |size| size.columns);
            if let Ok(ExecControl::Resize(size)) = orders.recv().await {
                let _ = stdout.write_all(format!("{first} {}", size.columns).as_bytes()).await;
            }
        }
        _ => loop {
            match orders.recv().await {
                Ok(ExecControl::Signal(number)) => return ExitStatus::Signaled(number),
                Ok(_) => {}
                Err(_) => break,
            }
        },
    }
    // So that a reader that got all of stdin may still be written to.
    let _ = future::poll_once(stdin.read(&mut [0; 1])).await;
    ExitStatus::Exited(0)
}

/// A pipe inside this process: reading and writing end.
fn pipe() -> (BoxedReader, BoxedWriter) {
    let (ours, theirs) = smol::net::unix::UnixStream::pair().expect("a pair of sockets");
    (Box::pin(ours), Box::pin(theirs))
}
