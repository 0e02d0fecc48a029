//! What processes in containers print, to their last line.

use crate::container::{shell, spec};
use crate::lab::Lab;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use terrarium::container::{Fault, Host};
use terrarium::exec::cancel;
use terrarium::exec::fetch::Fetcher;
use terrarium::exec::lines::LINE_MAX;
use terrarium::exec::logs::{AppLog, Keep, Logs};
use terrarium::exec::run::Executor;
use terrarium::exec::steps::StepError;
use terrarium::exec::streams::Sink;
use terrarium::model::action::{Action, RunAction};
use terrarium::model::death::Cause;
use terrarium::unit::{Bytes, Rate};

/// One container whose processes are logged.
struct Logged {
    lab: Lab,
    host: Host,
    exec: Executor,
    log: Arc<AppLog>,
}

impl Logged {
    fn new(name: &str) -> Logged {
        let lab = Lab::new(name);
        let host = lab.host();
        let container = Arc::new(host.create(spec(&lab, "c"), Fault::None).expect("create"));
        let (file_bytes, rate) = (Bytes::mib(4), Rate::Unlimited);
        let keep = Keep { file_bytes, files: 2, rate, lines: None, journal: false };
        let logs = Logs::open(&lab.state.join("logs"), keep).expect("logs");
        let log = logs.app(&"app".parse().expect("name"));
        let sink = Sink { log: Some(log.clone()), source: "CELL".into(), index: 3, heard: None };
        let (env, last_id) = (Vec::new(), AtomicU32::new(0));
        let (dir, limit) = (lab.state.join("downloads"), logs.limit(None));
        let fetcher = Fetcher::open(&dir, &lab.state, Bytes::mib(1)).expect("cache");
        let (stop, found, begun) = Default::default();
        let exec = Executor { container, sink, fetcher, limit, env, last_id, stop, found, begun };
        Logged { lab, host, exec, log }
    }

    /// Runs a script that ends with status 1.
    fn fail(&self, script: &str) {
        let run = Action::Run(RunAction {
            process: shell("", script),
            log_source: "APP/PROC/WEB".into(),
            suppress_log_output: false,
        });
        let (_stop, cancel) = cancel::pair();
        let end = smol::block_on(self.exec.perform(&run, &cancel));
        let cause = Cause::Exited { source: "APP/PROC/WEB".into(), code: 1 };
        assert_eq!(end, Err(StepError::died(cause)), "{script}");
    }

    /// Texts of one stream, in their order, without what the executor says.
    fn texts(&self, err: bool) -> Vec<String> {
        let said = |text: &str| text.starts_with("Exit status");
        let lines = self.log.last(usize::MAX, |line| line.err == err && !said(&line.text));
        for line in &lines {
            assert_eq!((line.source.as_str(), line.index), ("APP/PROC/WEB", 3), "{line:?}");
        }
        lines.into_iter().map(|line| line.text).collect()
    }

    fn close(self) {
        let Logged { lab, host, exec, .. } = self;
        drop(exec);
        host.destroy(&"c".parse().expect("handle")).expect("destroy");
        lab.close(host);
    }
}

#[test]
fn row_54_a_thousand_processes_that_print_and_end_leave_a_thousand_lines() {
    let logged = Logged::new("words");
    for number in 0..1000 {
        logged.fail(&format!("echo out {number}; echo err {number} >&2; exit 1"));
    }
    let numbered = |word: &str| (0..1000).map(|n| format!("{word} {n}")).collect::<Vec<_>>();
    assert_eq!(logged.texts(false), numbered("out"));
    assert_eq!(logged.texts(true), numbered("err"));
    logged.close();
}

#[test]
fn row_54_all_that_a_pipe_holds_at_the_end_is_read() {
    let logged = Logged::new("full");
    // As much as a pipe takes, and the last line without its end.
    let lines = "busybox seq -w 1 10000";
    logged.fail(&format!("{lines}; {lines} >&2; printf last; exit 1"));
    let numbers = (1..=10_000).map(|n| format!("{n:05}"));
    let expected: Vec<String> = numbers.clone().chain(["last".to_owned()]).collect();
    assert_eq!(logged.texts(false), expected);
    assert_eq!(logged.texts(true), numbers.collect::<Vec<_>>());
    logged.close();
}

#[test]
fn row_52_long_lines_are_cut_beside_a_character() {
    let logged = Logged::new("cut");
    let long = LINE_MAX - 2;
    logged.fail(&format!(
        "busybox head -c {long} /dev/zero | busybox tr '\\0' x; printf '🦀\\r\\n\\nnext\\n'; exit 1"
    ));
    assert_eq!(logged.texts(false), [&"x".repeat(long), "🦀", "next"]);
    logged.close();
}
