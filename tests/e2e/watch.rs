//! Events and figures, as programs that watch the box get them.

mod figures;
mod slow;

use super::lab::{Lab, fetch};
use super::openmetrics::Metrics;
use super::{PORT, WEB};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Connects to the daemon and asks.
fn ask(lab: &Lab, path: &str, fields: &str) -> BufReader<UnixStream> {
    let socket = lab.root.join("run/terrarium/terrarium.sock");
    let mut stream = UnixStream::connect(socket).expect("connect");
    stream.set_read_timeout(Some(super::lab::PATIENCE)).expect("a bound");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).expect("ask");
    BufReader::new(stream)
}

/// Head and body of a whole answer.
fn answer(lab: &Lab, path: &str) -> (String, String) {
    let mut text = String::new();
    ask(lab, path, "").read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

/// One event as it was read, by this file's own reading of the standard.
#[derive(Debug, Default)]
struct Told {
    id: String,
    event: String,
    data: Value,
}

/// A stream of events.
struct Stream(BufReader<UnixStream>);

impl Stream {
    fn open(lab: &Lab, path: &str, fields: &str) -> Stream {
        let mut stream = Stream(ask(lab, path, fields));
        let head = stream.line();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let mut is_stream = false;
        loop {
            let line = stream.line();
            is_stream |= line.eq_ignore_ascii_case("content-type: text/event-stream");
            if line.is_empty() {
                break;
            }
        }
        assert!(is_stream);
        stream
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line in time");
        line.trim_end_matches(['\r', '\n']).to_owned()
    }

    /// The next event; `None`: the stream has ended. Lengths of chunks are no fields.
    fn next(&mut self) -> Option<Told> {
        let mut told = Told::default();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).expect("a line in time") == 0 {
                return None;
            }
            let line = line.trim_end();
            match line.split_once(": ") {
                Some(("id", value)) => told.id = value.into(),
                Some(("event", value)) => told.event = value.into(),
                Some(("data", value)) => told.data = serde_json::from_str(value).expect("JSON"),
                Some(_) => panic!("no field: {line}"),
                None if line.is_empty() && !told.event.is_empty() => return Some(told),
                None if line == "0" => return None,
                None => {}
            }
        }
    }

    /// Events up to the first that `is` one.
    fn until(&mut self, is: impl Fn(&Told) -> bool) -> Vec<Told> {
        let mut all = Vec::new();
        loop {
            all.push(self.next().unwrap_or_else(|| panic!("the stream ended after {all:?}")));
            if all.last().is_some_and(&is) {
                return all;
            }
        }
    }
}

fn place(told: &Told) -> (u64, u64) {
    let (epoch, sequence) = told.id.split_once('-').expect("EPOCH-SEQUENCE");
    (epoch.parse().expect("a number"), sequence.parse().expect("a number"))
}

const PLAIN: &str = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n";

/// Row 21: created, changed, crashed with its count, removed, in an order that survives the daemon.
#[test]
fn row_21_events_are_told_and_resumed_also_by_the_next_daemon() {
    let mut lab = Lab::start("events");
    let mut stream = Stream::open(&lab, "/v1/events", "");
    lab.run(&["apply", &lab.app("bad", "exit 7\n", PLAIN)]);
    let third = |told: &Told| told.event == "actual_lrp_crashed" && told.data["crash_count"] == 3;
    let all = stream.until(third);
    let kinds: Vec<&str> = all.iter().map(|told| told.event.as_str()).collect();
    let at =
        |kind: &str| kinds.iter().position(|it| *it == kind).unwrap_or_else(|| panic!("{kinds:?}"));
    // A staging is a Task.
    assert!(at("task_created") < at("task_changed"), "{kinds:?}");
    assert!(at("task_changed") < at("staging_completed"), "{kinds:?}");
    assert!(at("staging_completed") < at("desired_lrp_created"), "{kinds:?}");
    assert!(at("desired_lrp_created") < at("actual_lrp_created"), "{kinds:?}");
    assert!(at("actual_lrp_created") < at("actual_lrp_changed"), "{kinds:?}");
    let crashes: Vec<_> = all.iter().filter(|told| told.event == "actual_lrp_crashed").collect();
    for (n, crash) in crashes.iter().enumerate() {
        assert_eq!(crash.data["crash_count"], n + 1);
        assert_eq!(crash.data["crash_reason"], "APP/PROC/WEB: Exited with status 7");
        assert_eq!(crash.data["process_guid"], "bad");
        assert!(crash.data["since"].as_u64() > Some(1 << 60), "nanoseconds");
    }
    assert_eq!(crashes.len(), 3);
    assert!(all.windows(2).all(|two| place(&two[0]) < place(&two[1])), "{all:?}");

    // From the middle on, by either name.
    let middle = &all[all.len() / 2];
    let expected: Vec<&str> =
        all[all.len() / 2 + 1..].iter().map(|told| told.id.as_str()).collect();
    let since = format!("/v1/events?since={}", middle.id);
    let field = format!("Last-Event-ID: {}\r\n", middle.id);
    for (path, fields) in [(since.as_str(), ""), ("/v1/events", field.as_str())] {
        let again = Stream::open(&lab, path, fields).until(third);
        let ids: Vec<&str> = again.iter().map(|told| told.id.as_str()).collect();
        assert_eq!(ids, expected);
    }
    let (head, _) = answer(&lab, "/v1/events?since=nonsense");
    assert!(head.starts_with("HTTP/1.1 422"), "{head}");

    // The daemon's end ends the stream; the next one says that there is a gap, and counts on.
    let last = all.last().expect("a crash");
    lab.end_daemon(Signal::SIGTERM);
    while stream.next().is_some() {}
    lab.serve();
    let field = format!("Last-Event-ID: {}\r\n", last.id);
    let mut stream = Stream::open(&lab, "/v1/events", &field);
    let gap = stream.next().expect("an event");
    assert_eq!((gap.event.as_str(), &gap.data["after"]), ("gap", &json!(last.id)));
    lab.ok(&["delete", "bad"]);
    let all = stream.until(|told| told.event == "actual_lrp_removed");
    assert!(all.iter().all(|told| place(told).0 == place(last).0 + 1), "{all:?}");
    assert!(all.iter().any(|told| told.event == "desired_lrp_removed"), "{all:?}");

    let ran = lab.ok(&["events"]);
    assert!(ran.out.contains(" actual_lrp_removed bad/0"), "{}", ran.out);
    let ran = lab.ok(&["events", "--json", "--since", &last.id]);
    let lines: Vec<Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0]["event"], "gap");
    assert!(lines.len() > 2 && lines[1]["id"].is_string(), "{}", ran.out);
    lab.finish();
}

/// The directory of a container's group that tells its processor time.
fn group(handle: &str) -> PathBuf {
    let (mut left, mut found) = (vec![PathBuf::from("/sys/fs/cgroup")], Vec::new());
    while let Some(dir) = left.pop() {
        for item in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if item.file_type().is_ok_and(|kind| kind.is_dir()) {
                if item.file_name() == handle {
                    found.push(item.path());
                }
                left.push(item.path());
            }
        }
    }
    // On v1 it is one hierarchy of many; on v2 there is only one.
    let own = found.iter().find(|dir| dir.join("cpuacct.usage").exists());
    own.or(found.first()).unwrap_or_else(|| panic!("no group of {handle}")).clone()
}

/// Processor time of a group, in nanoseconds.
fn used(group: &Path) -> u64 {
    match std::fs::read_to_string(group.join("cpuacct.usage")) {
        Ok(text) => text.trim().parse().expect("a number"),
        Err(_) => {
            let text = std::fs::read_to_string(group.join("cpu.stat")).expect("cpu.stat");
            let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
            line.and_then(|us| us.parse::<u64>().ok()).expect("a number") * 1000
        }
    }
}

/// Row 55: what burns one core has that share of it which the kernel counts, 100 % on a box that is
/// idle otherwise; and the first look says 0.
#[test]
fn row_55_what_burns_a_core_is_told_by_the_kernels_own_count() {
    let lab = Lab::start("burn");
    lab.ok(&["apply", "--no-wait", &lab.app("burn", "while :; do :; done\n", PLAIN)]);
    let handle = lab.until("it burns", |lab| {
        let events = lab.run(&["events", "--json"]).out;
        let is_running =
            |line: &&str| line.contains("\"actual_lrp_changed\"") && line.contains("\"RUNNING\"");
        let line: Value = serde_json::from_str(events.lines().find(is_running)?).ok()?;
        line["data"]["after"]["instance_guid"].as_str().map(str::to_owned)
    });
    let group = group(&handle);
    let metrics = || -> Value {
        serde_json::from_str(&answer(&lab, "/v1/container_metrics").1).expect("JSON")
    };
    let begun = Instant::now();
    let first = metrics();
    let (early, before) = (Instant::now(), used(&group));
    let one = &first["lrps"][0];
    assert_eq!(one["process_guid"], "burn");
    assert_eq!(one["instance_guid"], handle.as_str());
    assert_eq!(one["metrics"]["cpu_usage_fraction"], 0.0, "the first look");
    assert_eq!(one["metrics"]["memory_quota_bytes"], 32 << 20);
    assert!(one["metrics"]["memory_usage_bytes"].as_u64() > Some(0), "{one}");
    lab.until("it has burnt a second of processor time", |_| {
        (used(&group) - before > 1_000_000_000).then_some(())
    });
    let (late, after) = (Instant::now(), used(&group));
    let second = metrics();
    let (ended, last) = (Instant::now(), used(&group));
    let share = second["lrps"][0]["metrics"]["cpu_usage_fraction"].as_f64().expect("a share");
    // Both looks lie between what was measured around them.
    let seconds = |ns: u64| ns as f64 / 1e9;
    let least = seconds(after - before) / (ended - begun).as_secs_f64();
    let most = seconds(last.saturating_sub(before) + (early - begun).as_nanos() as u64)
        / (late - early).as_secs_f64();
    assert!(least - 0.01 <= share && share <= most + 0.01, "{least} <= {share} <= {most}");
    assert!(share > 0.2 && share < 1.05, "one core: {share}");
    let shown = lab.instance("burn", 0);
    assert!(shown["cpu_percent"].as_f64() > Some(20.0), "{shown}");
    assert!(shown["uptime_ms"].as_u64() > Some(0), "{shown}");
    assert!(lab.run(&["app", "burn"]).out.contains('%'));
    let top = lab.ok(&["top"]).out;
    let line = top.lines().nth(1).expect("a line for it");
    assert!(line.starts_with("burn/0") && line.contains('%') && line.contains("/32M"), "{top}");
    let top: Value = serde_json::from_str(&lab.ok(&["top", "burn", "--json"]).out).expect("JSON");
    let pids = &top[0]["processes"][0]["instances"][0]["pids"];
    assert!(pids.as_u64() >= Some(1), "{top}");
    lab.finish();
}

/// Row 56, row 92: capacity, counts and how long slow work took; read by a reader of its own.
#[test]
fn row_56_row_92_the_cells_figures_are_open_metrics() {
    let lab = Lab::new("figures");
    lab.configure("metrics", "[metrics]\nlisten = \"127.0.0.1:9100\"\n");
    let mut lab = lab;
    lab.serve();
    let read = |lab: &Lab| {
        let (head, body) = answer(lab, "/metrics");
        let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert!(head.to_ascii_lowercase().contains(kind), "{head}");
        Metrics::read(&body)
    };
    let empty = read(&lab);
    assert_eq!(empty.value("terrarium_capacity_total_memory_bytes", &[]), 8_f64 * (1 << 30) as f64);
    assert_eq!(empty.value("terrarium_container_count", &[]), 0.0);
    let manifest = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    lab.ok(&["apply", &lab.app("web", WEB, &manifest)]);
    let full = read(&lab);
    let mib = |n: u64| (n << 20) as f64;
    for (name, value) in [
        ("terrarium_container_count", 1.0),
        ("terrarium_starting_container_count", 0.0),
        ("terrarium_capacity_allocated_memory_bytes", mib(32)),
        ("terrarium_capacity_allocated_disk_bytes", mib(32)),
        ("terrarium_capacity_allocated_containers", 1.0),
        ("terrarium_cell_unhealthy", 0.0),
        ("terrarium_garden_health_check_failed", 0.0),
    ] {
        assert_eq!(full.value(name, &[]), value, "{name}");
    }
    let web = [("app", "web"), ("process", "web"), ("index", "0")];
    assert_eq!(full.value("terrarium_app_memory_quota_bytes", &web), mib(32));
    assert!(full.value("terrarium_app_memory_bytes", &web) > 0.0);
    assert!(full.value("terrarium_app_cpu_seconds_total", &web) > 0.0);
    assert!(full.has("terrarium_app_network_receive_bytes_total", ("app", "web")));
    assert!(full.value("terrarium_container_usage_memory_bytes", &[]) > 0.0);
    let succeeded = [("result", "succeeded")];
    // The staging's and the app's.
    assert_eq!(full.value("terrarium_container_creation_seconds_count", &succeeded), 2.0);
    assert!(full.value("terrarium_container_creation_seconds_sum", &succeeded) > 0.0);
    assert_eq!(full.value("terrarium_container_destruction_seconds_count", &succeeded), 1.0);
    assert!(full.value("terrarium_bulk_sync_seconds_count", &[]) > 0.0);

    // A collector on this box gets the same, and nothing else.
    let body = fetch("127.0.0.1", 9100, "/metrics").expect("an answer");
    assert_eq!(Metrics::read(&body).value("terrarium_container_count", &[]), 1.0);
    let body = fetch("127.0.0.1", 9100, "/v1/apps").expect("an answer");
    assert!(body.contains("nothing is here but /metrics"), "{body}");

    // One that does not end on TERM is counted, and so is what it was.
    let rude = "trap '' TERM\necho up\nwhile :; do sleep 1; done\n";
    lab.ok(&["apply", &lab.app("rude", rude, PLAIN)]);
    lab.until("it is up", |lab| (!lab.logged("rude", "up").is_empty()).then_some(()));
    lab.ok(&["stop", "rude"]);
    let late = read(&lab);
    assert_eq!(late.value("terrarium_container_exited_on_timeout_total", &[]), 1.0);
    assert_eq!(late.value("terrarium_container_completed_total", &[]), 1.0);
    assert!(!late.has("terrarium_app_memory_bytes", ("app", "rude")));
    lab.finish();
}
