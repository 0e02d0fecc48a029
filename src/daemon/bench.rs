//! Measures what a container costs, for `cargo xtask bench`: make one, run in it, remove it.
//!
//! Containers are made as the cell makes them, by a host of the daemon's own parts below a root of
//! its own, and all of it is gone afterwards.

use super::floor::{self, Floor};
use super::open::{HOST, Opening};
use super::parts;
use super::{DaemonError, start};
use crate::config::machine::{Amount, Config};
use crate::container::{Container, ContainerSpec, Fault, Host, Process};
use crate::image;
use crate::init::proto::Bind;
use crate::model::limits::Limits;
use crate::model::process::ProcessSpec;
use crate::sys;
use crate::unit::{Bytes, Digest, Handle};
use async_io::Async;
use serde::Serialize;
use smol::io::AsyncReadExt;
use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rounds before the first that counts: what is made or read once is there then.
const WARM_UP: usize = 5;

/// Between one round and the next.
const CALM: Duration = Duration::from_millis(100);

/// Containers that stand side by side when their memory is measured.
const BESIDE: usize = 10;

/// What was measured, round by round.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// [`Host::create`], in microseconds.
    pub create_us: Vec<u64>,
    /// From asking for a process to the first byte that it writes, in microseconds.
    pub run_us: Vec<u64>,
    /// [`Host::destroy`], in microseconds.
    pub destroy_us: Vec<u64>,
    /// [`Host::create`] right after another container was destroyed, of which the kernel still
    /// removes links and namespaces, in microseconds.
    pub create_again_us: Vec<u64>,
    /// Proportional set size of each pid 1 of several containers that run a process each, in KiB.
    pub pid1_pss_kib: Vec<u64>,
    /// What the kernel alone takes for the dear parts of a container, in microseconds: a program
    /// started and ended; namespaces and mounts; links.
    pub floor_program_us: Vec<u64>,
    /// See there.
    pub floor_inside_us: Vec<u64>,
    /// See there.
    pub floor_links_us: Vec<u64>,
}

type Cause = Box<dyn Error + Send + Sync>;

/// Measures `rounds` containers made of the archive `stack`.
pub fn bench(stack: &Path, rounds: usize) -> Result<Figures, DaemonError> {
    if sys::process::effective_uid() != 0 {
        return Err(DaemonError::NotRoot);
    }
    let root = std::env::temp_dir().join(format!("terrarium-bench-{}", std::process::id()));
    let mut config = Config::defaults(&root, "bench");
    config.cgroup.parent = "terrarium-bench".into();
    config.store.size_max = Amount::Fixed(Bytes::mib(2048));
    let measured = with_host(&config, stack, rounds);
    let removed = fs::remove_dir_all(&root).map_err(start(format!("remove {}", root.display())));
    measured.and_then(|figures| removed.map(|()| figures))
}

fn with_host(config: &Config, stack: &Path, rounds: usize) -> Result<Figures, DaemonError> {
    let mut opening = Opening::new(config);
    opening.walk(&HOST, Fault::None)?;
    let (host, lifecycle) = opening.into_host();
    host.open_reserve();
    let bench = Bench { root: config.paths.state.clone(), host, spec: spec(&lifecycle) };
    let measured = smol::block_on(bench.measure(stack, rounds)).map_err(start("measure"));
    let swept = bench.sweep().map_err(start("remove what was measured"));
    let closed = match Arc::into_inner(bench.host) {
        Some(host) => parts::close_host(host),
        None => Ok(()),
    };
    measured.and_then(|figures| swept.and(closed).map(|()| figures))
}

/// A small app with a port, as the cell asks for it, but for its handle and its layers.
fn spec(lifecycle: &Path) -> ContainerSpec {
    let handle = "bench".parse().expect("a word is a handle");
    ContainerSpec {
        limits: Limits {
            memory: Some(Bytes::mib(64)),
            disk: Some(Bytes::mib(64)),
            cpu_weight: Some(64),
            pids: Some(1024),
            ..Default::default()
        },
        ports: vec![8080],
        binds: vec![Bind {
            from: lifecycle.to_owned(),
            origin: Default::default(),
            to: "/tmp/lifecycle".into(),
            read_only: true,
            mapped: false,
            ours: true,
        }],
        owner: "bench".into(),
        ..ContainerSpec::new(handle, Vec::new())
    }
}

struct Bench {
    root: PathBuf,
    host: Arc<Host>,
    spec: ContainerSpec,
}

impl Bench {
    async fn measure(&self, stack: &Path, rounds: usize) -> Result<Figures, Cause> {
        let layer = image::import_stack(self.host.store(), stack, &mut |_, _| {})?;
        let mut figures = Figures::default();
        for round in 0..WARM_UP + rounds {
            let counts = round >= WARM_UP;
            let name = format!("bench-{round}");
            let (create, container) = self.create(&name, layer).await?;
            let begun = Instant::now();
            let mut process = container.start(shell("echo x")).await?;
            first_byte(&mut process).await?;
            let run = micros(begun);
            process.wait().await?;
            drop((process, container));
            let destroy = self.destroy(&name).await?;

            let name = format!("again-{round}");
            let (create_again, container) = self.create(&name, layer).await?;
            drop(container);
            self.destroy(&name).await?;
            self.calm().await;
            if counts {
                figures.create_us.push(create);
                figures.run_us.push(run);
                figures.destroy_us.push(destroy);
                figures.create_again_us.push(create_again);
            }
        }
        figures.pid1_pss_kib = self.memory(layer).await?;
        for _ in 0..rounds {
            let floor = self.floor(layer)?;
            figures.floor_program_us.push(span_us(floor.program));
            figures.floor_inside_us.push(span_us(floor.inside));
            figures.floor_links_us.push(span_us(floor.links));
            self.calm().await;
        }
        Ok(figures)
    }

    /// One round of the kernel alone.
    fn floor(&self, layer: Digest) -> Result<Floor, Cause> {
        let lower = self.host.store().layer(&layer).ok_or("the layer is gone")?;
        let scratch = self.root.join("floor");
        fs::create_dir_all(&scratch)?;
        floor::measure(&std::env::current_exe()?, &lower, &scratch)
    }

    /// The memory of every pid 1 of [`BESIDE`] containers.
    async fn memory(&self, layer: Digest) -> Result<Vec<u64>, Cause> {
        let mut stand = Vec::with_capacity(BESIDE);
        for n in 0..BESIDE {
            let (_, container) = self.create(&format!("beside-{n}"), layer).await?;
            let mut process = container.start(shell("echo x; exec sleep 1000")).await?;
            first_byte(&mut process).await?;
            stand.push((container, process));
        }
        let pids = stand.iter().filter_map(|(container, _)| container.entry().pid);
        let sizes: Vec<u64> = pids.map(|(pid, _)| pss_kib(pid)).collect::<io::Result<_>>()?;
        drop(stand);
        for n in 0..BESIDE {
            self.destroy(&format!("beside-{n}")).await?;
        }
        Ok(sizes)
    }

    async fn create(&self, name: &str, layer: Digest) -> Result<(u64, Container), Cause> {
        let (host, handle) = (self.host.clone(), name.parse()?);
        let spec = ContainerSpec { handle, layers: vec![layer], ..self.spec.clone() };
        let begun = Instant::now();
        let container = smol::unblock(move || host.create(spec, Fault::None)).await?;
        Ok((micros(begun), container))
    }

    async fn destroy(&self, name: &str) -> Result<u64, Cause> {
        let (host, handle): (_, Handle) = (self.host.clone(), name.parse()?);
        let begun = Instant::now();
        smol::unblock(move || host.destroy(&handle)).await?;
        Ok(micros(begun))
    }

    /// Lets the kernel finish what destroying has begun.
    async fn calm(&self) {
        let host = self.host.clone();
        smol::unblock(move || host.finish()).await;
        // A dead network namespace is taken apart later, and nothing tells when that is done.
        async_io::Timer::after(CALM).await;
    }

    /// Removes what a failure has left standing.
    fn sweep(&self) -> Result<(), Cause> {
        for handle in self.host.list()? {
            self.host.destroy(&handle)?;
        }
        Ok(())
    }
}

fn shell(script: &str) -> ProcessSpec {
    ProcessSpec {
        id: "bench".into(),
        path: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        program: Default::default(),
        argv0: None,
        env: Vec::new(),
        dir: Some("/".into()),
        dir_must_exist: false,
        user: "vcap".into(),
        nofile: None,
        rlimits: Default::default(),
        tty: None,
        stdin: false,
        keep_stdin: false,
        launches: false,
        never_waits: false,
    }
}

async fn first_byte(process: &mut Process) -> Result<(), Cause> {
    let stdout = process.streams.stdout.take().ok_or("a process has no stdout")?;
    let mut stdout = Async::new(File::from(stdout))?;
    Ok(stdout.read_exact(&mut [0]).await?)
}

fn pss_kib(pid: i32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix("kB"));
    line.and_then(|number| number.trim().parse().ok())
        .ok_or_else(|| io::Error::other(format!("no Pss in the memory map of {pid}")))
}

fn micros(begun: Instant) -> u64 {
    span_us(begun.elapsed())
}

fn span_us(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
