//! What happens, as a client of the record store hears it: the stream is read by a client that shares
//! no code with the server.

use super::{PORT, lab, socket};
use crate::lab::Lab;
use crate::tasks::task;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

/// An event: its id, kind and payload.
type Told = (u64, String, Value);

const ASK: &[u8] = b"GET /receptor/v1/events HTTP/1.1\r\nHost: x\r\n\r\n";

const SMALL: &str = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n";

/// Hears events on a thread until the stream ends.
struct Listener(Arc<Mutex<(Vec<u8>, bool)>>);

impl Listener {
    fn new(mut stream: impl Read + Write + Send + 'static) -> Listener {
        stream.write_all(ASK).expect("asked");
        let heard = Arc::new(Mutex::new((Vec::new(), false)));
        let own = heard.clone();
        std::thread::spawn(move || {
            let mut piece = vec![0; 64 << 10];
            while let Ok(count @ 1..) = stream.read(&mut piece) {
                own.lock().expect("the bytes").0.extend_from_slice(&piece[..count]);
            }
            own.lock().expect("the bytes").1 = true;
        });
        Listener(heard)
    }

    /// The stream's end has come.
    fn has_ended(&self) -> bool {
        self.0.lock().expect("the bytes").1
    }

    /// Every whole event so far. `None`: the head has not come.
    fn all(&self) -> Option<Vec<Told>> {
        let bytes = self.0.lock().expect("the bytes").0.clone();
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        let text = String::from_utf8(chunks(&bytes[end + 4..])).expect("text");
        let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
        Some(whole.split("\n\n").filter(|event| !event.is_empty()).map(read).collect())
    }

    /// Status and header of the answer, but for its time.
    fn head(&self) -> String {
        let bytes = self.0.lock().expect("the bytes").0.clone();
        let text = String::from_utf8_lossy(&bytes);
        let head = text.split("\r\n\r\n").next().unwrap_or_default();
        let lines = head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("date:"));
        lines.map(|line| format!("< {line}\n")).collect()
    }

    fn kinds(&self) -> Vec<String> {
        self.all().unwrap_or_default().into_iter().map(|(_, kind, _)| kind).collect()
    }
}

/// What the chunks that are there hold.
fn chunks(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        let rest = &bytes[end + 2..];
        whole.extend_from_slice(&rest[..size.min(rest.len())]);
        bytes = rest.get(size + 2..).unwrap_or_default();
    }
    whole
}

fn read(event: &str) -> Told {
    let field = |name: &str| {
        let line = event.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {event}"))
    };
    let data = serde_json::from_str(field("data: ")).expect("JSON");
    (field("id: ").parse().expect("a number"), field("event: ").to_owned(), data)
}

fn over_socket(lab: &Lab) -> Listener {
    let path = lab.root.join("run/terrarium/terrarium.sock");
    let listener = Listener::new(UnixStream::connect(path).expect("the daemon's socket"));
    lab.until("the stream begins", |_| listener.all().map(drop));
    listener
}

/// A DesiredLRP that ends when it is told to.
fn mortal(guid: &str, instances: u32) -> Value {
    let script = "while ! test -e /tmp/die; do sleep 0.1; done; exit 3";
    json!({
        "process_guid": guid, "domain": "own-domain", "rootfs": "preloaded:tiny",
        "instances": instances, "ports": [8080], "memory_mb": 32, "disk_mb": 32, "annotation": "one",
        "action": { "run": { "path": "sh", "args": ["-c", script], "user": "vcap" } },
        "log_guid": "log", "log_source": "APP", "routes": { "cf-router": [] },
    })
}

/// What is on its way out is still listed.
fn until_gone(lab: &Lab, name: &str) {
    lab.until("it is gone", |lab| (!lab.run(&["apps", "--json"]).out.contains(name)).then_some(()));
}

/// Row 21: created, changed, crashed and removed of desired and actual LRPs and of Tasks, in the order in
/// which it happened, under the guids and domains that clients gave them; the same on both doors.
#[test]
fn row_21_a_client_of_the_record_store_hears_of_all_that_happens() {
    let mut lab = lab("cc-events", "");
    lab.serve();
    let heard = over_socket(&lab);
    let port = Listener::new(TcpStream::connect(PORT).expect("the bridge's port"));
    lab.until("the stream begins", |_| port.all().map(drop));
    // What no client of the record store has asked for is not told.
    lab.ok(&["apply", &lab.app("by-hand", "exec sleep 100000", SMALL)]);
    let body = mortal("Ev_1", 1).to_string();
    assert_eq!(socket(&lab, "POST /v1/desired_lrps", &body).status, 201);
    let path = "GET /receptor/v1/actual_lrps/Ev_1/index/0";
    let runs = |lab: &Lab| socket(lab, path, "").json()["state"] == "RUNNING";
    lab.until("it runs", |lab| runs(lab).then_some(()));
    let shown = socket(&lab, path, "").json();
    let change =
        r#"{"annotation":"two","routes":{"cf-router":[{"hostnames":["a.b"],"port":8080}]}}"#;
    assert_eq!(socket(&lab, "PUT /v1/desired_lrps/Ev_1", change).status, 204);
    let wanted = socket(&lab, "GET /receptor/v1/desired_lrps/Ev_1", "").json();
    let name = wanted["log_name"].as_str().expect("a name").to_owned();
    assert_eq!(lab.inside(&name, "touch /tmp/die").code, 0);
    lab.until("its crash is told", |_| {
        heard.kinds().iter().any(|kind| kind == "actual_lrp_crashed").then_some(())
    });
    lab.until("another one runs", |lab| runs(lab).then_some(()));
    let job = task("job-1", "true", json!({})).to_string();
    assert_eq!(socket(&lab, "POST /receptor/v1/tasks", &job).status, 201);
    lab.until("the task has ended", |lab| {
        let shown = socket(lab, "GET /receptor/v1/tasks/job-1", "").json();
        (shown["state"] == "COMPLETED").then_some(())
    });
    assert_eq!(socket(&lab, "DELETE /receptor/v1/tasks/job-1", "").status, 200);
    assert_eq!(socket(&lab, "DELETE /v1/desired_lrps/Ev_1", "").status, 204);
    for listener in [&heard, &port] {
        lab.until("its end is told", |_| {
            let kinds = listener.kinds();
            let has = |wanted: &str| kinds.iter().any(|kind| kind == wanted);
            (has("actual_lrp_removed") && has("desired_lrp_removed")).then_some(())
        });
    }
    let all = heard.all().expect("a head");
    assert!(all.windows(2).all(|two| two[0].0 < two[1].0), "{all:#?}");
    let theirs = port.all().expect("a head");
    assert_eq!(theirs[..], all[..theirs.len()], "both doors tell the same");

    // Everything is under the client's own names.
    for (_, kind, data) in all.iter().filter(|(_, kind, _)| kind.contains("_lrp_")) {
        let inner: Vec<&Value> = data.as_object().expect("an object").values().collect();
        let records = inner.into_iter().filter(|it| it.is_object()).collect::<Vec<_>>();
        let records = if kind.ends_with("crashed") { vec![data] } else { records };
        assert!(!records.is_empty(), "{kind} {data}");
        for record in records {
            let named = (record["process_guid"].as_str(), record["domain"].as_str());
            assert_eq!(named, (Some("Ev_1"), Some("own-domain")), "{kind} {data}");
        }
    }
    let of = |kind: &str| -> Vec<Value> {
        // The app that was applied by hand is staged by a Task, which is listed, too.
        let is_ours = |data: &&Value| !data.to_string().contains("\"cf-app-staging\"");
        let told = all.iter().filter(|it| it.1 == kind).map(|it| &it.2);
        told.filter(is_ours).cloned().collect()
    };
    for (kind, count) in [
        ("desired_lrp_created", 1),
        ("desired_lrp_removed", 1),
        ("actual_lrp_crashed", 1),
        ("task_created", 1),
        ("task_removed", 1),
    ] {
        assert_eq!(of(kind).len(), count, "{kind}: {all:#?}");
    }
    let states: Vec<Value> =
        of("task_changed").iter().map(|data| data["after"]["state"].clone()).collect();
    assert_eq!(states[..2], ["RUNNING", "COMPLETED"], "{states:?}");
    // An instance is told of as GET shows it.
    let ran = of("actual_lrp_changed").into_iter().map(|data| data["after"].clone());
    let ran = ran.into_iter().find(|lrp| lrp["state"] == "RUNNING").expect("it ran");
    for field in ["address", "ports", "cell_id", "instance_guid", "since", "modification_tag"] {
        assert_eq!(ran[field], shown[field], "{field}");
    }
    let crash = &of("actual_lrp_crashed")[0];
    assert_eq!(crash["crash_reason"], "APP: Exited with status 3", "{crash}");
    assert_eq!((&crash["crash_count"], &crash["cell_id"]), (&json!(1), &shown["cell_id"]));
    assert_eq!(crash["instance_guid"], shown["instance_guid"]);
    // Routes are what a router listens for.
    let changed = of("desired_lrp_changed");
    let changed = changed.iter().find(|data| data["after"]["annotation"] == "two");
    let changed = changed.unwrap_or_else(|| panic!("{all:#?}"));
    assert_eq!(changed["before"]["annotation"], "one");
    assert_eq!(changed["after"]["routes"], wanted["routes"]);
    assert_eq!(changed["after"]["modification_tag"], wanted["modification_tag"]);
    golden(&heard.head(), &all);
    until_gone(&lab, "ev-1-");
    lab.finish();
}

/// One event of each kind as it stands in the stream, against a transcript that was reviewed by hand.
fn golden(head: &str, all: &[Told]) {
    let mut text = format!("> GET /receptor/v1/events\n{head}\n");
    for (kind, wanted) in [
        ("desired_lrp_created", ""),
        ("actual_lrp_created", ""),
        ("actual_lrp_changed", r#""state":"RUNNING""#),
        ("desired_lrp_changed", r#""annotation":"two""#),
        ("actual_lrp_crashed", ""),
        ("task_created", "job-1"),
        ("task_changed", r#""state":"COMPLETED""#),
        ("task_removed", "job-1"),
        ("desired_lrp_removed", ""),
        ("actual_lrp_removed", ""),
    ] {
        let is_it = |told: &&Told| {
            let data = told.2.to_string();
            told.1 == kind && data.contains(wanted) && !data.contains("\"cf-app-staging\"")
        };
        let mut told = all.iter().find(is_it).unwrap_or_else(|| panic!("{kind}")).2.clone();
        super::transcripts::plain(&mut told);
        text += &format!("id: *\nevent: {kind}\ndata: {told}\n\n");
    }
    super::transcripts::compare("events.txt", &text, "");
}

/// Row 21: who is slower than the buffer is cut off, and nobody waits for him; he may come again.
#[test]
fn row_21_a_slow_listener_is_cut_off_and_the_others_hear_everything() {
    let mut lab = lab("cc-slow", "");
    lab.serve();
    let quick = over_socket(&lab);
    let path = lab.root.join("run/terrarium/terrarium.sock");
    let mut slow = UnixStream::connect(path).expect("the daemon's socket");
    slow.write_all(ASK).expect("asked");
    // Its head has come: it listens.
    let mut first = [0; 1];
    slow.read_exact(&mut first).expect("a head");
    let body = mortal("Ev_2", 0).to_string();
    assert_eq!(socket(&lab, "POST /v1/desired_lrps", &body).status, 201);
    lab.until("it is there", |_| (!quick.kinds().is_empty()).then_some(()));
    let mut changes = 0;
    lab.until("the slow one is cut", |lab| {
        for _ in 0..50 {
            changes += 1;
            let change = json!({ "annotation": format!("{changes} {}", "x".repeat(10_000)) });
            let answer = socket(lab, "PUT /v1/desired_lrps/Ev_2", &change.to_string());
            assert_eq!(answer.status, 204, "{}", answer.json());
        }
        assert!(changes < 3000, "it is never cut");
        lab.daemon_log().contains("events.listener_cut").then_some(())
    });
    lab.until("the quick one has heard everything", |_| {
        let last = quick.all()?.pop()?.2["after"]["annotation"].as_str()?.to_owned();
        last.starts_with(&format!("{changes} ")).then_some(())
    });
    assert_eq!(quick.kinds().iter().filter(|it| *it == "desired_lrp_changed").count(), changes);
    assert!(!quick.has_ended());
    // What was kept for the slow one it gets, and then the end.
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).expect("the end");
    let text = String::from_utf8_lossy(&rest);
    let got = text.matches("event: desired_lrp_changed").count();
    assert!(got > 0 && got < changes, "{got} of {changes}");
    let again = over_socket(&lab);
    assert_eq!(socket(&lab, "DELETE /v1/desired_lrps/Ev_2", "").status, 204);
    lab.until("it hears again", |_| {
        again.kinds().iter().any(|kind| kind == "desired_lrp_removed").then_some(())
    });
    until_gone(&lab, "ev-2-");
    lab.finish();
}
