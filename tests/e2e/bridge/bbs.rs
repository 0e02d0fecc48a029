//! Today's record store, by a client that has its own protobuf: field numbers as the BBS's definitions
//! have them, and nothing of the server's tables.

use super::{Answer, socket, talk};
use crate::docker::text;
use crate::lab::{Lab, tool};
use crate::server::certificates;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const AT: &str = "127.0.0.1:8889";

fn number(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 127 {
        out.push((value & 127) as u8 + 128);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A field that is a number.
fn n(field: u64, value: u64) -> Vec<u8> {
    [number(field * 8), number(value)].concat()
}

/// A field that is a text or a message.
fn b(field: u64, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [number(field * 8 + 2), number(bytes.len() as u64), bytes.to_vec()].concat()
}

/// What a field holds: a number, or bytes.
#[derive(Clone, Debug, PartialEq)]
enum Is {
    Number(u64),
    Bytes(Vec<u8>),
}

/// A message as its fields.
#[derive(Clone, Debug, Default)]
struct Message(Vec<(u64, Is)>);

impl Message {
    fn read(mut bytes: &[u8]) -> Message {
        fn take(bytes: &mut &[u8]) -> u64 {
            let end = bytes.iter().position(|byte| *byte < 128).expect("a number");
            let value =
                bytes[..=end].iter().rev().fold(0, |sum, byte| sum << 7 | u64::from(byte & 127));
            *bytes = &bytes[end + 1..];
            value
        }
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = take(&mut bytes);
            let is = take(&mut bytes);
            fields.push((
                tag / 8,
                match tag % 8 {
                    0 => Is::Number(is),
                    2 => {
                        let (taken, rest) = bytes.split_at(is as usize);
                        bytes = rest;
                        Is::Bytes(taken.to_vec())
                    }
                    other => panic!("wire type {other}"),
                },
            ));
        }
        Message(fields)
    }

    fn number(&self, field: u64) -> u64 {
        let found = self.0.iter().find(|(number, _)| *number == field);
        found.map_or(0, |(_, is)| match is {
            Is::Number(number) => *number,
            Is::Bytes(bytes) => panic!("{bytes:?}"),
        })
    }

    fn all(&self, field: u64) -> Vec<Message> {
        self.raw(field).iter().map(|bytes| Message::read(bytes)).collect()
    }

    fn one(&self, field: u64) -> Message {
        self.all(field).into_iter().next().unwrap_or_default()
    }

    fn raw(&self, field: u64) -> Vec<Vec<u8>> {
        let mine = self.0.iter().filter(|(number, _)| *number == field);
        let bytes = mine.filter_map(|(_, is)| match is {
            Is::Bytes(bytes) => Some(bytes.clone()),
            Is::Number(_) => None,
        });
        bytes.collect()
    }

    fn text(&self, field: u64) -> String {
        let bytes = self.raw(field).into_iter().next().unwrap_or_default();
        String::from_utf8(bytes).expect("a text")
    }

    /// Type and text of the error, field 1.
    fn error(&self) -> Option<(u64, String)> {
        let error = self.all(1).into_iter().next()?;
        Some((error.number(1), error.text(2)))
    }
}

fn post(lab: &Lab, path: &str, body: &[u8]) -> Answer {
    let stream = TcpStream::connect(AT).expect("the BBS's port");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    let length = if body.is_empty() { &["Content-Length: 0"][..] } else { &[] };
    let answer = talk(stream, &format!("POST /v1/{path}"), length, body);
    answer.unwrap_or_else(|| panic!("no answer to {path}\n{}", lab.daemon_log()))
}

/// Status 200 and a message, whatever comes of it.
fn ask(lab: &Lab, path: &str, body: &[u8]) -> Message {
    let answer = post(lab, path, body);
    assert_eq!(answer.status, 200, "{path}: {}", answer.head);
    assert_eq!(answer.header("content-type"), Some("application/x-protobuf"), "{path}");
    Message::read(&answer.body)
}

/// The same, and nothing was wrong.
fn did(lab: &Lab, path: &str, body: &[u8]) -> Message {
    let answer = ask(lab, path, body);
    assert_eq!(answer.error(), None, "{path}\n{}", lab.daemon_log());
    answer
}

type Heard = Arc<Mutex<Vec<(String, Message)>>>;

/// Listens until the daemon ends; returns when it is heard.
fn listen(path: &str) -> Heard {
    let mut stream = TcpStream::connect(AT).expect("the BBS's port");
    let head = format!("POST /v1/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("ask");
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("HTTP/1.1 200 OK"));
    let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    assert!(head.iter().any(|line| line.contains("text/event-stream")), "{head:?}");
    let heard = Heard::default();
    let told = heard.clone();
    std::thread::spawn(move || {
        let mut name = String::new();
        for line in lines {
            if let Some(event) = line.strip_prefix("event: ") {
                name = event.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                let bytes = STANDARD.decode(data).expect("base64");
                told.lock().expect("a lock").push((name.clone(), Message::read(&bytes)));
            }
        }
    });
    heard
}

/// The first event of this name that will do.
fn heard(lab: &Lab, events: &Heard, name: &str, wanted: impl Fn(&Message) -> bool) -> Message {
    lab.until(&format!("{name} is told"), |_| {
        let events = events.lock().expect("a lock");
        let is_it = |it: &&(String, Message)| it.0 == name && wanted(&it.1);
        events.iter().find(is_it).map(|(_, message)| message.clone())
    })
}

/// `run` of `sh -c script`.
fn sh(script: &str) -> Vec<u8> {
    b(3, [b(1, "sh"), b(2, "-c"), b(2, script), b(6, "vcap")].concat())
}

/// A DesiredLRP that serves until /tmp/die is there.
fn lrp(guid: &str) -> Vec<u8> {
    let route = [b(1, "other"), b(2, r#"{"a":1}"#)].concat();
    [
        b(1, guid),
        b(2, "mine"),
        b(3, "preloaded:tiny"),
        n(4, 1),
        b(5, [b(1, "A"), b(2, "b")].concat()),
        b(7, sh("until [ -e /tmp/die ]; do sleep 0.1; done; exit 7")),
        n(10, 32),
        n(11, 32),
        n(12, 1),
        n(14, 8080),
        b(15, b(1, route)),
        b(16, "APP"),
        b(17, "log"),
        b(19, "etag"),
    ]
    .concat()
}

/// Those of one LRP that run, by index.
fn running(lab: &Lab, guid: &str, count: usize) -> Vec<Message> {
    lab.until(&format!("{count} of {guid} run"), |lab| {
        let all = did(lab, "actual_lrps/list", &b(3, guid)).all(2);
        let run = all.iter().filter(|one| one.text(6) == "RUNNING").count();
        (all.len() == count && run == count).then_some(all)
    })
}

fn handle(one: &Message) -> String {
    one.one(2).text(1)
}

/// Row 8, row 16, row 21, row 34: an LRP from its wish to its end, as the Go client asks for it.
#[test]
fn row_34_the_bbs_of_today_desires_scales_tells_and_removes_lrps() {
    let mut lab = Lab::new("bbs-lrps");
    lab.configure("bbs", &format!("[bbs]\nlisten = \"{AT}\"\n"));
    lab.serve();
    assert_eq!(ask(&lab, "ping", &[]).number(1), 1);
    assert_eq!(socket(&lab, "POST /bbs/v1/ping", "").body, [8, 1]);
    let events = listen("events/lrp_instances.r1");
    let in_groups = listen("events");
    let guid = "App_1";

    did(&lab, "desired_lrp/desire.r2", &b(1, lrp(guid)));
    let again = ask(&lab, "desired_lrp/desire.r2", &b(1, lrp(guid))).error();
    assert_eq!(again, Some((12, "the requested resource already exists".into())));
    let one = running(&lab, guid, 1).remove(0);
    let (key, net) = (one.one(1), one.one(3));
    assert_eq!((key.text(1), key.number(2), key.text(3)), (guid.into(), 0, "mine".into()));
    let port = net.one(2);
    assert_eq!(port.number(1), 8080);
    assert!(port.number(2) >= 1024 && !net.text(1).is_empty(), "{one:?}");
    assert!(net.text(3).starts_with("10."), "where it is inside: {one:?}");
    assert_eq!(one.number(13), 1, "it is routable");
    let made = heard(&lab, &events, "desired_lrp_created", |_| true).one(1);
    assert_eq!((made.text(1), made.text(19)), (guid.to_owned(), "etag".to_owned()));
    let first =
        heard(&lab, &events, "actual_lrp_instance_changed", |it| it.one(4).text(6) == "RUNNING");
    assert_eq!((first.one(1).text(1), first.one(2).text(1)), (guid.into(), handle(&one)));

    // Each word about an instance comes after the one before, by its tag.
    let told = events.lock().expect("a lock").clone();
    let changes = told.iter().filter(|it| it.0 == "actual_lrp_instance_changed");
    let tags: Vec<[Message; 2]> =
        changes.map(|(_, it)| [3, 4].map(|field| it.one(field).one(9))).collect();
    assert!(!tags.is_empty() && tags.iter().flatten().all(|tag| tag.text(1) == one.one(9).text(1)));
    assert!(tags.iter().all(|[before, after]| before.number(2) + 1 == after.number(2)), "{tags:?}");
    assert_eq!(tags.last().map(|tags| tags[1].number(2)), Some(one.one(9).number(2)));
    // Until 2019 an instance stood in a group of its own.
    let group =
        heard(&lab, &in_groups, "actual_lrp_changed", |it| it.one(2).one(1).text(6) == "RUNNING");
    assert_eq!(handle(&group.one(2).one(1)), handle(&one));

    let update = [b(1, guid), b(2, [n(1, 2), b(3, "next")].concat())].concat();
    did(&lab, "desired_lrp/update", &update);
    let two = running(&lab, guid, 2);
    assert_eq!(handle(&two[0]), handle(&one), "what runs goes on");
    let shown = did(&lab, "desired_lrps/get_by_process_guid.r3", &b(1, guid)).one(2);
    assert_eq!((shown.number(4), shown.text(19)), (2, "next".into()));
    assert_eq!(shown.one(7).one(3).raw(2)[0], b"-c");
    assert_eq!(shown.one(15).one(1).text(2), r#"{"a":1}"#);
    let words = [b(1, guid), b(2, b(3, "words"))].concat();
    did(&lab, "desired_lrp/update", &words);
    let told = heard(&lab, &events, "desired_lrp_changed", |it| it.one(2).text(19) == "words");
    assert_eq!(told.one(1).text(19), "next");

    let apps = lab.run(&["apps", "--json"]).out;
    let apps: serde_json::Value = serde_json::from_str(&apps).expect("JSON");
    let name = apps[0]["name"].as_str().expect("an app").to_owned();
    assert_eq!(lab.inside(&name, "touch /tmp/die").code, 0);
    let crash = heard(&lab, &events, "actual_lrp_crashed", |it| it.one(1).number(2) == 0);
    assert_eq!((crash.number(3), crash.one(2).text(1)), (1, handle(&one)));
    assert!(crash.text(4).contains("Exited with status 7"), "{crash:?}");
    let fresh = running(&lab, guid, 2);
    assert_ne!(handle(&fresh[0]), handle(&one));

    let retire = b(1, [b(1, guid), n(2, 1), b(3, "mine")].concat());
    did(&lab, "actual_lrps/retire", &retire);
    lab.until("a fresh one has its index", |lab| {
        let one = b(3, guid).into_iter().chain(n(4, 1)).collect::<Vec<u8>>();
        let all = did(lab, "actual_lrps/list", &one).all(2);
        let is_new = all.len() == 1 && handle(&all[0]) != handle(&fresh[1]);
        (is_new && all[0].text(6) == "RUNNING").then_some(())
    });
    let info = did(&lab, "desired_lrp_scheduling_infos/list", &b(1, "mine")).one(2);
    assert_eq!((info.one(1).text(1), info.number(3)), (guid.into(), 2));
    assert_eq!((info.one(4).number(1), info.one(4).text(3)), (32, "preloaded:tiny".into()));
    groups(&lab, guid);
    every_path(&lab, guid);
    assert!(did(&lab, "desired_lrps/list.r3", &b(1, "other")).all(2).is_empty());
    let cell = did(&lab, "cells/list.r1", &[]).one(2);
    assert_eq!(cell.one(4).number(1), 8192, "{cell:?}");
    did(&lab, "domains/upsert", &[b(1, "mine"), n(2, 120)].concat());
    assert_eq!(did(&lab, "domains/list", &[]).text(2), "mine");

    did(&lab, "desired_lrp/remove", &b(1, guid));
    let gone = heard(&lab, &events, "desired_lrp_removed", |it| it.one(1).text(1) == guid);
    assert_eq!(gone.one(1).text(19), "words");
    heard(&lab, &events, "actual_lrp_instance_removed", |it| it.one(1).one(1).text(1) == guid);
    assert!(did(&lab, "desired_lrps/list.r3", &[]).all(2).is_empty());
    lab.finish();
}

/// The two instances of an LRP, each in a group of its own, by all three ways of asking.
fn groups(lab: &Lab, guid: &str) {
    for (path, body) in
        [("list", b(1, "mine")), ("list_by_process_guid", b(1, guid)), ("list", Vec::new())]
    {
        let groups = did(lab, &format!("actual_lrp_groups/{path}"), &body).all(2);
        let keys: Vec<(String, u64)> = groups
            .iter()
            .map(|group| group.one(1).one(1))
            .map(|key| (key.text(1), key.number(2)))
            .collect();
        assert_eq!(keys, [(guid.to_owned(), 0), (guid.to_owned(), 1)], "{path}");
        assert!(groups.iter().all(|group| group.raw(2).is_empty()), "nothing is evacuating");
    }
    assert!(did(lab, "actual_lrp_groups/list", &b(1, "other")).all(2).is_empty());
    let get = "actual_lrp_groups/get_by_process_guid_and_index";
    let one = did(lab, get, &[b(1, guid), n(2, 1)].concat()).one(2).one(1);
    assert_eq!((one.one(1).number(2), one.text(6)), (1, "RUNNING".into()));
    let none = ask(lab, get, &[b(1, guid), n(2, 7)].concat()).error();
    assert_eq!(none.map(|it| it.0), Some(13));
}

/// What is to be answered.
enum Says {
    /// No error; so many messages in field 2, which name this.
    Names(usize, &'static str),
    /// No error.
    Done,
    /// An error of this type.
    Error(u64),
}

/// Every path that the server has an answer for, as its table says: each is asked something sensible, and
/// answered with a message that can be read.
fn every_path(lab: &Lab, guid: &'static str) {
    use Says::{Done, Error, Names};
    // A root that nobody has: it is there and does not begin.
    let none =
        [b(1, "App_2"), b(2, "mine"), b(3, "docker://127.0.0.1:9/none"), n(4, 1), b(7, sh(":"))];
    let job = [b(1, "preloaded:tiny"), b(3, sh("exec sleep 100000")), n(5, 32)].concat();
    let job = [b(1, job), b(2, "T_2"), b(3, "mine")].concat();
    let (lrp, task, both) = (b(1, guid), b(1, "T_2"), [b(1, guid), b(1, "none")].concat());
    let index = |guid: &str, index: u64| [b(1, guid), n(2, index), b(3, "mine")].concat();
    let change = [b(1, "App_2"), b(2, b(3, "next"))].concat();
    let mut asked = ask_each(
        lab,
        vec![
            ("ping", Vec::new(), Done),
            ("domains/upsert", [b(1, "some"), n(2, 120)].concat(), Done),
            ("domains/list", Vec::new(), Names(1, "some")),
            ("cells/list.r1", Vec::new(), Names(1, "preloaded")),
            ("actual_lrps/list", b(1, "mine"), Names(2, guid)),
            ("actual_lrps/list_by_process_guids", both, Names(2, guid)),
            ("actual_lrp_groups/list", b(1, "mine"), Names(2, guid)),
            ("actual_lrp_groups/list_by_process_guid", lrp.clone(), Names(2, guid)),
            ("actual_lrp_groups/get_by_process_guid_and_index", index(guid, 1), Names(1, guid)),
            ("desired_lrps/list.r3", [b(1, "mine"), b(2, guid)].concat(), Names(1, guid)),
            ("desired_lrps/list.r2", b(1, "mine"), Names(1, guid)),
            ("desired_lrp_routing_infos/list", b(2, guid), Names(1, "other")),
            ("desired_lrps/get_by_process_guid.r3", lrp.clone(), Names(1, guid)),
            ("desired_lrps/get_by_process_guid.r2", lrp.clone(), Names(1, guid)),
            ("desired_lrp_scheduling_infos/list", b(1, "mine"), Names(1, guid)),
            ("desired_lrp_scheduling_infos/get_by_process_guid", lrp, Names(1, guid)),
            ("desired_lrp/desire.r2", b(1, none.concat()), Done),
            ("desired_lrp/update", change, Done),
            ("actual_lrps/retire", b(1, index("App_2", 0)), Done),
            ("actual_lrps/retire", b(1, index("App_2", 1)), Error(13)),
            ("desired_lrp/remove", b(1, "App_2"), Done),
            ("tasks/desire.r2", job, Done),
            ("tasks/list.r3", b(1, "mine"), Names(1, "T_2")),
            ("tasks/list.r2", b(1, "mine"), Names(1, "T_2")),
            ("tasks/get_by_task_guid.r3", task.clone(), Names(1, "T_2")),
            ("tasks/get_by_task_guid.r2", task.clone(), Names(1, "T_2")),
            ("tasks/cancel", task.clone(), Done),
        ],
    );
    lab.until("it has ended", |lab| {
        let found = did(lab, "tasks/get_by_task_guid.r3", &task).one(2);
        (found.number(7) == 3).then_some(())
    });
    let end = vec![("tasks/resolving", task.clone(), Done), ("tasks/delete", task, Done)];
    asked.extend(ask_each(lab, end));
    let table = include_str!("../../../src/api/bbs/route.rs").split_once("static UNARY");
    let table = table.and_then(|(_, rest)| rest.split_once("];")).expect("its table").0;
    let served: BTreeSet<&str> = table.split('"').skip(1).step_by(2).collect();
    // The rest is what another cell would say of its own.
    let others: Vec<&'static str> = served.difference(&asked).copied().collect();
    assert!(
        others.iter().all(|path| path.starts_with("tasks/") || path.starts_with("actual_lrps/"))
    );
    assert_eq!((asked.len(), others.len()), (28, 16), "{others:?}");
    ask_each(lab, others.into_iter().map(|path| (path, Vec::new(), Error(4))).collect());
}

/// Asks, and gives what was asked.
fn ask_each(lab: &Lab, all: Vec<(&'static str, Vec<u8>, Says)>) -> BTreeSet<&'static str> {
    for (path, body, says) in &all {
        let answer = ask(lab, path, body);
        let error = answer.error();
        match says {
            Says::Names(count, name) => {
                let found = answer.raw(2);
                let is_named = |it: &Vec<u8>| String::from_utf8_lossy(it).contains(name);
                assert!(error.is_none() && found.len() == *count, "{path}: {answer:?}");
                assert!(found.iter().all(is_named), "{path}: {answer:?}");
            }
            Says::Done => assert_eq!(error, None, "{path}"),
            Says::Error(kind) => assert_eq!(error.map(|it| it.0), Some(*kind), "{path}"),
        }
    }
    all.into_iter().map(|(path, ..)| path).collect()
}

/// Row 1, row 34: a Task with a result, and what is refused.
#[test]
fn row_1_the_bbs_of_today_runs_tasks_and_names_what_is_wrong() {
    let mut lab = Lab::new("bbs-tasks");
    lab.configure("bbs", &format!("[bbs]\nlisten = \"{AT}\"\n"));
    lab.serve();
    let events = listen("events/tasks.r1");
    let definition =
        [b(1, "preloaded:tiny"), b(3, sh("echo -n 42 > /tmp/r")), n(5, 32), b(11, "/tmp/r")]
            .concat();
    let desire = [b(1, &definition), b(2, "T_1"), b(3, "mine")].concat();
    did(&lab, "tasks/desire.r2", &desire);
    assert_eq!(ask(&lab, "tasks/desire.r2", &desire).error().map(|it| it.0), Some(12));
    let done = lab.until("it has completed", |lab| {
        let task = did(lab, "tasks/get_by_task_guid.r3", &b(1, "T_1")).one(2);
        (task.number(7) == 3).then_some(task)
    });
    assert_eq!((done.text(9), done.number(10)), ("42".into(), 0), "{}", done.text(11));
    assert_eq!(done.one(1).text(1), "preloaded:tiny");
    let early = ask(&lab, "tasks/delete", &b(1, "T_1")).error();
    assert_eq!(early.map(|it| it.0), Some(9), "it is not resolved");
    did(&lab, "tasks/resolving", &b(1, "T_1"));
    did(&lab, "tasks/delete", &b(1, "T_1"));
    assert!(did(&lab, "tasks/list.r3", &[]).all(2).is_empty());
    for name in ["task_created", "task_changed", "task_removed"] {
        let told = heard(&lab, &events, name, |_| true);
        assert_eq!(told.one(1).text(2), "T_1", "{name}");
    }
    let end = heard(&lab, &events, "task_changed", |it| it.one(2).number(7) == 3);
    assert_eq!(end.one(2).text(9), "42");

    for (path, body, kind, says) in [
        ("tasks/get_by_task_guid.r3", b(1, "none"), 13, "could not be found"),
        ("tasks/cancel", b(1, "none"), 13, "could not be found"),
        ("tasks/desire.r2", b(2, "a b"), 4, "Invalid field: task_guid"),
        ("tasks/start", b(1, "T_1"), 4, "begins, ends and evacuates by itself"),
        ("actual_lrps/claim", b(1, "x"), 4, "begins, ends and evacuates by itself"),
        ("desired_lrp/desire.r2", vec![0xff], 4, "the request received is invalid"),
        ("desired_lrp/desire.r2", b(1, b(1, "g")), 4, "Invalid field: domain"),
        ("desired_lrp/remove", b(1, "none"), 13, "could not be found"),
        ("desired_lrps/get_by_process_guid.r3", b(1, "none"), 13, "could not be found"),
        ("actual_lrps/retire", b(1, b(1, "none")), 13, "could not be found"),
        ("domains/upsert", n(2, 1), 4, "Invalid field: domain"),
    ] {
        let (found, message) = ask(&lab, path, &body).error().expect(path);
        assert_eq!(found, kind, "{path}: {message}");
        assert!(message.contains(says), "{path}: {message}");
    }
    assert_eq!(post(&lab, "tasks/list.r9", &[]).status, 404);
    lab.finish();
}

/// Row 34: with certificates, only their holders are heard.
#[test]
fn row_34_the_bbs_behind_tls_hears_the_holders_of_certificates_alone() {
    let mut lab = Lab::new("bbs-tls");
    let dir = lab.root.join("tls");
    certificates(&dir);
    let issuer = dir.join("client/ca.crt");
    let files = format!(
        "cert_file = \"{0}/server.crt\"\nkey_file = \"{0}/server.key\"\nca_file = \"{0}/client/ca.crt\"\n",
        dir.display()
    );
    lab.configure("bbs", &format!("[bbs]\n{files}listen = \"{AT}\"\n"));
    lab.serve();
    let (crt, key) = (dir.join("client/client.cert"), dir.join("client/client.key"));
    let own = ["-cert", text(&crt), "-key", text(&key)];
    let say = |own: &[&str]| {
        let mut client = Command::new("openssl")
            .args(["s_client", "-quiet", "-ign_eof", "-verify_return_error", "-connect", AT])
            .args(["-CAfile", text(&issuer)])
            .args(own)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl");
        let ask =
            "POST /v1/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        // Who is not heard may find the door closed already.
        let _ = client.stdin.take().expect("its input").write_all(ask.as_bytes());
        client.wait_with_output().expect("its end").stdout
    };
    let heard = say(&own);
    assert!(
        heard.starts_with(b"HTTP/1.1 200 ") && heard.ends_with(&[13, 10, 13, 10, 8, 1]),
        "{heard:?}"
    );
    assert_eq!(say(&[]), b"", "without a certificate");
    // One that nobody vouches for.
    let (other, secret) = (dir.join("other.crt"), dir.join("other.key"));
    let make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let to = ["-subj", "/CN=other", "-keyout", text(&secret), "-out", text(&other)];
    tool("openssl", &[&make[..], &to].concat());
    assert_eq!(say(&["-cert", text(&other), "-key", text(&secret)]), b"", "with a foreign one");
    // When all connections are somebody's, the next one is told so, as without TLS.
    let crowd: Vec<TcpStream> =
        (0..512).map(|_| TcpStream::connect(AT).expect("a connection")).collect();
    let heard = say(&own);
    assert!(heard.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&heard));
    drop(crowd);
    lab.until("there is room again", |_| say(&own).starts_with(b"HTTP/1.1 200 ").then_some(()));
    fs::write(dir.join("server.crt"), "nothing").expect("write");
    lab.end_daemon(nix::sys::signal::Signal::SIGTERM);
    let refused = lab.run(&["serve"]);
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("server.crt holds no certificate"), "{}", refused.err);
    certificates(&dir);
    lab.serve();
    lab.finish();
}
