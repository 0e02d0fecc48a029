//! `GET /debug/vars`: figures of the daemon as JSON, in the form and under the names of Go's expvar,
//! so that what watches a Garden server can watch this one.

use super::http::server::{Handler, Response};
use super::http::{Body, Request};
use crate::container::CreateSpans;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// What is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Memory of the daemon.
    pub memory: Memory,
    /// Threads of the daemon.
    pub threads: u64,
    /// Containers that there are, an app's and Garden's.
    pub containers: u64,
    /// Directories in the depot: containers, and what is left of some.
    pub depot_dirs: u64,
    /// Writable disks in the store.
    pub backing_stores: u64,
    /// Halves of containers that are made ahead and ready.
    pub reserve: u64,
    /// Loop devices of the box in use, by whomever.
    pub loop_devices: u64,
    /// How long making containers has taken, added up.
    pub creates: CreateSpans,
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Addresses that lead somewhere.
    #[serde(rename = "virtual")]
    pub mapped: u64,
    /// Of these, data, other threads' stacks included.
    pub data: u64,
    /// Of these, the first thread's stack.
    pub stack: u64,
    /// In memory at this moment.
    pub resident: u64,
    /// Of that, its share: what n processes have together counts as an n-th.
    pub proportional: u64,
    /// Of that, what no file holds: heap and stacks.
    pub anonymous: u64,
    /// Swapped out.
    pub swapped: u64,
}

impl Figures {
    /// Memory and threads of this process; the rest is 0. Linux 4.14, proc(5).
    pub fn of_this_process() -> io::Result<Figures> {
        let status = fs::read_to_string("/proc/self/status")?;
        let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
        parse(&status, &rollup).ok_or_else(|| {
            io::Error::other("/proc/self/status or smaps_rollup is not as proc(5) has it")
        })
    }
}

/// From the texts of `status` and `smaps_rollup`, which count KiB.
fn parse(status: &str, rollup: &str) -> Option<Figures> {
    let field = |text: &str, name: &str| -> Option<String> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().to_owned())
    };
    let bytes = |text: &str, name: &str| {
        let kib: u64 = field(text, name)?.strip_suffix(" kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    let memory = Memory {
        mapped: bytes(status, "VmSize")?,
        data: bytes(status, "VmData")?,
        stack: bytes(status, "VmStk")?,
        resident: bytes(rollup, "Rss")?,
        proportional: bytes(rollup, "Pss")?,
        anonymous: bytes(rollup, "Anonymous")?,
        swapped: bytes(rollup, "Swap")?,
    };
    let threads = field(status, "Threads")?.parse().ok()?;
    Some(Figures { memory, threads, ..Figures::default() })
}

/// The document.
#[derive(Serialize)]
struct Vars<'a> {
    cmdline: &'a [String],
    memstats: MemStats,
    memory: Memory,
    #[serde(rename = "numCPUS")]
    cpus: u64,
    #[serde(rename = "numGoRoutines")]
    threads: u64,
    #[serde(rename = "numContainers")]
    containers: u64,
    #[serde(rename = "depotDirs")]
    depot_dirs: u64,
    #[serde(rename = "backingStores")]
    backing_stores: u64,
    reserve: u64,
    #[serde(rename = "loopDevices")]
    loop_devices: u64,
    creates: Creates<'a>,
}

/// What making containers has taken, in microseconds, of all that succeeded.
#[derive(Serialize)]
struct Creates<'a> {
    count: u64,
    #[serde(rename = "ofReserve")]
    of_reserve: u64,
    #[serde(rename = "totalMicros")]
    total_us: u64,
    #[serde(rename = "stepMicros")]
    steps_us: BTreeMap<&'a str, u64>,
}

impl From<&CreateSpans> for Creates<'_> {
    fn from(spans: &CreateSpans) -> Self {
        let us = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Creates {
            count: spans.count,
            of_reserve: spans.of_reserve,
            total_us: us(spans.total),
            steps_us: spans.steps.iter().map(|(name, span)| (*name, us(*span))).collect(),
        }
    }
}

/// Those of Go's `runtime.MemStats` that mean something without a garbage collector, in bytes.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct MemStats {
    alloc: u64,
    sys: u64,
    heap_alloc: u64,
    heap_sys: u64,
    heap_inuse: u64,
    stack_sys: u64,
}

impl From<Memory> for MemStats {
    fn from(memory: Memory) -> MemStats {
        MemStats {
            alloc: memory.anonymous,
            sys: memory.mapped,
            heap_alloc: memory.anonymous,
            heap_sys: memory.data,
            heap_inuse: memory.anonymous,
            stack_sys: memory.stack,
        }
    }
}

/// Answers with what `figures` finds; it may block for moments.
pub struct Debug<F> {
    cmdline: Vec<String>,
    figures: Arc<F>,
}

impl<F: Fn() -> io::Result<Figures> + Send + Sync + 'static> Debug<F> {
    /// `cmdline`: program and arguments, as they are told.
    pub fn new(cmdline: Vec<String>, figures: F) -> Debug<F> {
        Debug { cmdline, figures: Arc::new(figures) }
    }

    async fn vars(&self) -> Response {
        let ask = self.figures.clone();
        match smol::unblock(move || ask()).await {
            Ok(figures) => Response::json(200, &self.document(&figures)),
            Err(err) => Response::text(500, &format!("cannot read the figures: {err}")),
        }
    }

    fn document(&self, figures: &Figures) -> Vars<'_> {
        Vars {
            cmdline: &self.cmdline,
            memstats: figures.memory.into(),
            memory: figures.memory,
            cpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u64),
            threads: figures.threads,
            containers: figures.containers,
            depot_dirs: figures.depot_dirs,
            backing_stores: figures.backing_stores,
            reserve: figures.reserve,
            loop_devices: figures.loop_devices,
            creates: Creates::from(&figures.creates),
        }
    }
}

impl<F: Fn() -> io::Result<Figures> + Send + Sync + 'static> Handler for Debug<F> {
    async fn handle(&self, request: &Request, _body: &mut Body<'_>) -> Response {
        let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
        match (path.as_slice(), request.method.as_str()) {
            (["debug", "vars"], "GET" | "HEAD") => self.vars().await,
            (["debug", "vars"], _) => {
                Response::text(405, "only GET is answered here").with("Allow", "GET, HEAD")
            }
            _ => Response::text(404, "nothing is here but /debug/vars"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::http::client::{Call, Client};
    use crate::api::http::listen::listen;
    use crate::api::http::server::{Limits, serve};
    use crate::api::testing::TempDir;
    use serde_json::{Value, json};
    use smol::future;

    const STATUS: &str = "Name:\tterrarium\nVmPeak:\t   900 kB\nVmSize:\t   800 kB\n\
        VmData:\t   300 kB\nVmStk:\t   132 kB\nThreads:\t3\n";
    const ROLLUP: &str = "5500-7fff ---p 00000000 00:00 0    [rollup]\nRss:      500 kB\n\
        Pss:      400 kB\nPss_Dirty:   200 kB\nAnonymous:   250 kB\nSwapPss:   1 kB\n\
        Swap:      8 kB\n";

    /// Status and body of one request.
    fn ask<F>(method: &'static str, path: &[&str], figures: F) -> (u16, String)
    where
        F: Fn() -> io::Result<Figures> + Send + Sync + 'static,
    {
        let dir = TempDir::new();
        let socket = listen(&dir.path().join("s"), 0o600, None).expect("listen");
        let debug = Debug::new(vec!["terrarium".into(), "serve".into()], figures);
        let serving = async {
            let err = serve(socket.listener(), &debug, Limits::default()).await;
            panic!("the listener broke: {err}");
        };
        let asking = async {
            let reply = Client::new(socket.path()).send(&Call::new(method, path)).await;
            let reply = reply.expect("an answer");
            let status = reply.status();
            (status, String::from_utf8(reply.bytes().await.expect("a body")).expect("text"))
        };
        smol::block_on(future::or(asking, serving))
    }

    fn figures() -> io::Result<Figures> {
        let own = parse(STATUS, ROLLUP).expect("as proc(5) has it");
        let creates = CreateSpans {
            count: 2,
            of_reserve: 1,
            total: Duration::from_millis(9),
            steps: vec![("links", Duration::from_micros(700))],
        };
        let counts = Figures { containers: 4, depot_dirs: 5, backing_stores: 6, ..own };
        Ok(Figures { loop_devices: 7, reserve: 8, creates, ..counts })
    }

    #[test]
    fn the_figures_have_the_names_that_gos_do() {
        let (status, body) = ask("GET", &["debug", "vars"], figures);
        let mut vars: Value = serde_json::from_str(&body).expect("JSON");
        let cpus = vars.as_object_mut().expect("an object").remove("numCPUS");
        assert!(cpus.is_some_and(|cpus| cpus.as_u64() >= Some(1)));
        let kib = |n: u64| n * 1024;
        let want = json!({
            "cmdline": ["terrarium", "serve"],
            "memstats": {
                "Alloc": kib(250), "Sys": kib(800), "HeapAlloc": kib(250), "HeapSys": kib(300),
                "HeapInuse": kib(250), "StackSys": kib(132),
            },
            "memory": {
                "virtual": kib(800), "data": kib(300), "stack": kib(132), "resident": kib(500),
                "proportional": kib(400), "anonymous": kib(250), "swapped": kib(8),
            },
            "numGoRoutines": 3, "numContainers": 4, "depotDirs": 5, "backingStores": 6,
            "loopDevices": 7, "reserve": 8,
            "creates": {"count": 2, "ofReserve": 1, "totalMicros": 9000, "stepMicros": {"links": 700}},
        });
        assert_eq!((status, vars), (200, want));
    }

    #[test]
    fn nothing_else_is_there_and_a_failure_is_told() {
        assert_eq!(ask("POST", &["debug", "vars"], figures).0, 405);
        assert_eq!(ask("GET", &["debug", "pprof"], figures).0, 404);
        let (status, body) = ask("GET", &["debug", "vars"], || Err(io::Error::other("no /proc")));
        assert_eq!((status, body.as_str()), (500, "cannot read the figures: no /proc\n"));
    }

    #[test]
    fn a_text_that_lacks_a_figure_is_none() {
        assert_eq!(parse(&STATUS.replace("VmData", "Vm"), ROLLUP), None);
        assert_eq!(parse(STATUS, &ROLLUP.replace("Pss:      400 kB", "Pss: 400")), None);
        assert_eq!(parse("", ""), None);
    }

    #[test]
    fn this_process_has_memory_and_threads() {
        let own = Figures::of_this_process().expect("/proc");
        let memory = own.memory;
        assert!(memory.mapped >= memory.resident && memory.resident >= memory.anonymous);
        assert!(memory.anonymous > 0 && memory.data > 0 && own.threads >= 1, "{own:?}");
    }
}
