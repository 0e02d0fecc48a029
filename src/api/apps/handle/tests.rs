//! Client and server over a real socket, with the fake service behind it.

use crate::api::apps::fake::{Fake, view};
use crate::api::apps::*;
use crate::api::http::client::{Call, Client, Reply};
use crate::api::http::wire::{Exit, Frame};
use crate::api::http::{FrameWriter, Frames};
use crate::api::testing::with_service;

async fn send(client: &Client, call: Call) -> Reply {
    client.send(&call).await.expect("an answer")
}

async fn refused(client: &Client, call: Call) -> (u16, String, String) {
    let reply = send(client, call).await;
    let status = reply.status();
    let view: ErrorView = reply.json().await.expect("an error view");
    (status, view.kind, view.message)
}

async fn all<T: serde::de::DeserializeOwned>(mut reply: Reply) -> Vec<T> {
    assert_eq!(reply.status(), 200);
    let mut out = Vec::new();
    while let Some(item) = reply.next_line().await.expect("line") {
        out.push(item);
    }
    out
}

#[test]
fn every_verb_reaches_the_service() {
    let fake = Fake::with(&[("web", "running")]);
    with_service(fake.clone(), async |client| {
        let ping: Ping =
            send(&client, Call::new("GET", &["v1", "ping"])).await.json().await.expect("ping");
        assert_eq!(ping.pid, std::process::id());
        let apps = send(&client, Call::new("GET", &["v1", "apps"])).await;
        assert_eq!(apps.json::<Vec<AppView>>().await.expect("apps"), [view("web", "running")]);
        for verb in ["stop", "start", "restart"] {
            assert_eq!(
                send(&client, Call::new("POST", &["v1", "apps", "web", verb])).await.status(),
                200
            );
        }
        let path = ["v1", "apps", "web", "instances", "worker", "1", "restart"];
        assert_eq!(send(&client, Call::new("POST", &path)).await.status(), 200);
        let scale = ScaleRequest { process: Some("worker".into()), instances: 3 };
        let call = Call::new("POST", &["v1", "apps", "web", "scale"]).json(&scale);
        assert_eq!(send(&client, call).await.status(), 200);
        assert_eq!(send(&client, Call::new("DELETE", &["v1", "apps", "web"])).await.status(), 200);
    });
    let calls = [
        "stop web",
        "start web",
        "restart web",
        "restart worker/1 of web",
        "scale Some(\"worker\")=3 web",
        "delete web",
    ];
    assert_eq!(fake.calls(), calls);
}

#[test]
fn apply_tells_what_happens_until_it_is_done() {
    let fake = Fake::default();
    with_service(fake.clone(), async |client| {
        let put = |text: &str, file: &str| {
            let request = ApplyRequest {
                manifest_text: text.into(),
                file: file.into(),
                ..Default::default()
            };
            Call::new("PUT", &["v1", "apps", "web"]).query("wait", true).json(&request)
        };
        let events: Vec<ApplyEvent> = all(send(&client, put("", "/a.toml")).await).await;
        assert_eq!(events[0], ApplyEvent::State("staging".into()));
        assert_eq!(events.last(), Some(&ApplyEvent::Done(view("web", "running").into())));
        let json = serde_json::to_string(&events[0]).expect("json");
        assert_eq!(json, r#"{"state":"staging"}"#);
        let events: Vec<ApplyEvent> = all(send(&client, put("# broken", "/a.toml")).await).await;
        assert!(matches!(events.last(), Some(ApplyEvent::Error(_))));
        let (status, kind, _) = refused(&client, put("# conflict", "/a.toml")).await;
        assert_eq!((status, kind.as_str()), (409, "conflict"));
        let (status, kind, _) = refused(&client, put("", "a.toml")).await;
        assert_eq!((status, kind.as_str()), (422, "invalid"));
        let long = "x".repeat(APPLY_MAX);
        let (status, _, message) = refused(&client, put(&long, "/a.toml")).await;
        assert_eq!((status, message.as_str()), (422, "the body is longer than 1048576 bytes"));
    });
    assert_eq!(fake.calls()[0], "apply web /a.toml wait=true");
}

#[test]
fn logs_end_when_the_app_is_deleted() {
    let fake = Fake::with(&[("web", "running")]);
    with_service(fake, async |client| {
        let logs = || Call::new("GET", &["v1", "apps", "web", "logs"]).query("lines", 2);
        let lines: Vec<LogLine> = all(send(&client, logs()).await).await;
        assert_eq!(lines.len(), 2);
        let following = send(&client, logs().query("follow", true)).await;
        let delete = async {
            send(&client, Call::new("DELETE", &["v1", "apps", "web"])).await;
        };
        let (lines, ()) = future::zip(all::<LogLine>(following), delete).await;
        assert_eq!(lines.len(), 2);
        for query in ["lines", "follow", "index", "since"] {
            let call = Call::new("GET", &["v1", "apps", "web", "logs"]).query(query, "-1");
            assert_eq!(refused(&client, call).await.0, 422);
        }
    });
}

#[test]
fn refusals_have_a_status_and_a_kind() {
    with_service(Fake::with(&[("web", "stopped")]), async |client| {
        let exec = |argv: &[&str]| {
            let argv = argv.iter().map(|word| word.to_string()).collect();
            let request =
                ExecRequest { argv, user: None, env: vec![], dir: None, tty: None, stdin: false };
            let path = ["v1", "apps", "web", "instances", "web", "0", "exec"];
            Call::new("POST", &path).json(&request)
        };
        for (call, status, kind) in [
            (Call::new("GET", &["v1", "apps", "none"]), 404, "not_found"),
            (Call::new("GET", &["v1", "apps", "NONE"]), 422, "invalid"),
            (Call::new("GET", &["nowhere"]), 404, "not_found"),
            (Call::new("PATCH", &["v1", "apps"]), 405, "invalid"),
            (Call::new("POST", &["v1", "apps", "web", "scale"]), 422, "invalid"),
            (exec(&["true"]), 426, "invalid"),
            (exec(&[]).upgrade(EXEC_PROTOCOL), 422, "invalid"),
            (exec(&["true"]).upgrade(EXEC_PROTOCOL), 409, "not_running"),
        ] {
            let (got, is, message) = refused(&client, call).await;
            assert_eq!((got, is.as_str()), (status, kind), "{message}");
        }
    });
}

/// Starts `argv`.
async fn start(client: &Client, argv: &[&str], tty: Option<WindowSize>) -> (FrameWriter, Frames) {
    let argv = argv.iter().map(|word| word.to_string()).collect();
    let request = ExecRequest { argv, user: None, env: vec![], dir: None, tty, stdin: true };
    let path = ["v1", "apps", "web", "instances", "web", "0", "exec"];
    let reply = send(client, Call::new("POST", &path).json(&request).upgrade(EXEC_PROTOCOL)).await;
    assert_eq!((reply.status(), reply.header("upgrade")), (101, Some(EXEC_PROTOCOL)));
    let stream = reply.into_stream();
    (FrameWriter::new(stream.writer), Frames::new(stream.reader))
}

/// Starts `argv` and sends `frames`; what came back, by stream, and the exit.
async fn session(
    client: &Client,
    argv: &[&str],
    tty: Option<WindowSize>,
    frames: &[Frame],
) -> (String, String, Exit) {
    let (writer, mut reader) = start(client, argv, tty).await;
    for frame in frames {
        writer.send(frame).await.expect("send");
    }
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match reader.next().await.expect("frame").expect("an exit comes first") {
            Frame::Stdout(data) => out.extend(data),
            Frame::Stderr(data) => err.extend(data),
            Frame::Exit(exit) => {
                let text = |bytes| String::from_utf8(bytes).expect("text");
                return (text(out), text(err), exit);
            }
            frame => panic!("not for a client: {frame:?}"),
        }
    }
}

#[test]
fn a_command_gets_input_and_gives_output_and_status() {
    with_service(Fake::with(&[("web", "running")]), async |client| {
        let ok = Exit { code: 0, error: None };
        let (out, err, exit) = session(&client, &["echo", "hi"], None, &[]).await;
        assert_eq!((out.as_str(), err.as_str(), &exit), ("hi", "oops", &ok));
        let big = "x".repeat(60_000);
        let input = [Frame::Stdin(big.clone().into()), Frame::Stdin("y".into()), Frame::StdinEof];
        let (out, _, exit) = session(&client, &["cat"], None, &input).await;
        assert_eq!((out == big + "y", &exit), (true, &ok));
        assert_eq!(session(&client, &["exit", "7"], None, &[]).await.2.code, 7);
        assert_eq!(session(&client, &["forever"], None, &[Frame::Signal(15)]).await.2.code, 143);
        let size = |columns| WindowSize { rows: 24, columns };
        let resize = [Frame::Resize(size(132))];
        let (out, err, _) = session(&client, &["size"], Some(size(80)), &resize).await;
        assert_eq!((out.as_str(), err.as_str()), ("80 132", ""));
    });
}

#[test]
fn a_command_whose_client_leaves_or_lies_is_hung_up() {
    let fake = Fake::with(&[("web", "running")]);
    let hung_up = async |times: usize| {
        while fake.calls().iter().filter(|call| *call == "hung up").count() < times {
            future::yield_now().await;
        }
    };
    with_service(fake.clone(), async |client| {
        drop(start(&client, &["forever"], None).await);
        hung_up(1).await;
        let (writer, mut reader) = start(&client, &["forever"], None).await;
        writer.send(&Frame::Stdout(vec![])).await.expect("send");
        assert!(!matches!(reader.next().await, Ok(Some(_))), "cut off");
        hung_up(2).await;
    });
}

#[test]
fn who_watches_gets_events_explanations_and_figures() {
    let fake = Fake::with(&[("web", "crashed")]);
    with_service(fake.clone(), async |client| {
        let reply = send(&client, Call::new("GET", &["v1", "events"]).query("since", "3-4")).await;
        assert_eq!(reply.header("content-type"), Some("text/event-stream"));
        let text = String::from_utf8(reply.bytes().await.expect("a body")).expect("text");
        assert!(text.starts_with("event: gap\ndata: {\"after\":\"3-4\",\"missed\":\"3-0\"}\n\n"));
        let event = "id: 3-17\nevent: actual_lrp_crashed\ndata: {\"crash_count\":2,";
        assert!(text.contains(event) && text.ends_with("\"time_ms\":1795226400123}\n\n"), "{text}");
        for (since, calls) in [("oldest", "events Oldest true"), ("17", "events Time(17) true")] {
            let call = Call::new("GET", &["v1", "events"]).query("since", since);
            assert_eq!(send(&client, call).await.status(), 200);
            assert_eq!(fake.calls().last().map(String::as_str), Some(calls));
        }
        let call = Call::new("GET", &["v1", "events"]).query("since", "x-1");
        let (status, kind, message) = refused(&client, call).await;
        assert_eq!((status, kind.as_str()), (422, "invalid"));
        assert_eq!(message, "`x-1` is no event's id, such as 3-17");
        let call = Call::new("GET", &["v1", "apps", "web", "explain"]).query("index", 2);
        assert_eq!(send(&client, call).await.status(), 200);
        assert_eq!(fake.calls().last().map(String::as_str), Some("explain web None Some(2)"));
        let reply = send(&client, Call::new("GET", &["metrics"])).await;
        assert_eq!(reply.header("content-type"), Some(crate::api::openmetrics::CONTENT_TYPE));
        let text = String::from_utf8(reply.bytes().await.expect("a body")).expect("text");
        assert!(text.ends_with("# EOF\n"), "{text}");
        let reply = send(&client, Call::new("GET", &["v1", "container_metrics"])).await;
        let metrics: serde_json::Value = reply.json().await.expect("JSON");
        assert_eq!(metrics, serde_json::json!({"cell_id": "box", "lrps": [], "tasks": []}));
    });
}
