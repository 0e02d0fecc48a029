//! Every route of Garden's protocol once, on a container that lives.

use super::client::{Client, container, hijack, shell};
use super::place::Garden;
use super::wire::Wire;
use serde_json::{Value, json};

/// A call of the list, and which fields its answer has; none: it is `{}`.
type Row = (&'static str, &'static str, Option<Value>, &'static [&'static str]);

/// Plain calls in an order that makes sense; `/containers/c` stands before their paths with `~`.
fn rows() -> Vec<Row> {
    vec![
        ("GET", "/ping", None, &[]),
        (
            "GET",
            "/capacity",
            None,
            &["memory_in_bytes", "disk_in_bytes", "schedulable_disk_in_bytes", "max_containers"],
        ),
        ("GET", "/containers", None, &["Handles"]),
        ("GET", "~/info", None, &["State", "HostIP", "ContainerIP", "ExternalIP"]),
        ("GET", "/containers/bulk_info?handles=c", None, &["c"]),
        ("GET", "/containers/bulk_metrics?handles=c", None, &["c"]),
        ("GET", "~/metrics", None, &["MemoryStat", "CPUStat", "DiskStat", "PidStat", "Age"]),
        ("GET", "~/limits/bandwidth", None, &["rate", "burst"]),
        ("GET", "~/limits/cpu", None, &["limit_in_shares"]),
        ("GET", "~/limits/disk", None, &["byte_hard", "inode_hard", "scope"]),
        ("GET", "~/limits/memory", None, &["limit_in_bytes"]),
        ("PUT", "~/limits/bandwidth", Some(json!({"rate": 5 << 20, "burst": 1 << 20})), &["rate"]),
        ("PUT", "~/limits/cpu", Some(json!({"limit_in_shares": 300})), &["limit_in_shares"]),
        ("PUT", "~/limits/disk", Some(json!({"byte_hard": 40 << 20, "scope": 1})), &["byte_hard"]),
        ("PUT", "~/limits/memory", Some(json!({"limit_in_bytes": 80 << 20})), &["limit_in_bytes"]),
        (
            "POST",
            "~/net/in",
            Some(json!({"handle": "c", "container_port": 80})),
            &["host_port", "container_port"],
        ),
        ("POST", "~/net/out", Some(json!({"protocol": 1})), &[]),
        ("POST", "~/net/out/bulk", Some(json!([{"protocol": 2}, {"protocol": 3}])), &[]),
        ("PUT", "~/grace_time", Some(json!(600_000_000_000u64)), &[]),
        ("PUT", "~/properties/k", Some(json!({"value": "v"})), &[]),
        ("GET", "~/properties", None, &["k"]),
        ("GET", "~/properties/k", None, &["value"]),
        ("DELETE", "~/properties/k", None, &[]),
        ("PUT", "~/stop", Some(json!({"kill": true})), &[]),
        ("DELETE", "~", None, &[]),
    ]
}

fn limited() -> Value {
    json!({"handle": "c", "limits": {
        "bandwidth_limits": {"rate": 1 << 20, "burst": 1 << 20},
        "cpu_limits": {"limit_in_shares": 512},
        "disk_limits": {"byte_hard": 64 << 20, "inode_hard": 1000, "scope": 1},
        "memory_limits": {"limit_in_bytes": 64 << 20}}})
}

/// Calls every plain route.
fn call_all(client: &Client) {
    assert_eq!(client.create(&limited()), "c");
    for (method, path, body, fields) in rows() {
        let path = path.replace('~', "/containers/c");
        let said = client.ok(method, &path, body.as_ref());
        assert!(!fields.is_empty() || said == json!({}), "{method} {path}: {said}");
        for field in fields {
            assert!(said.get(field).is_some(), "{field}: {method} {path}: {said}");
        }
    }
    assert_eq!(client.list(""), [""; 0]);
}

#[test]
fn every_plain_route_succeeds_with_a_body_of_json() {
    let garden = Garden::start("rows");
    call_all(&garden);
    garden.finish();
}

#[test]
fn the_same_is_spoken_over_tcp() {
    let garden = Garden::with("tcp", "listen = \"127.0.0.1:7777\"");
    let client = Client { socket: "127.0.0.1:7777".into() };
    call_all(&client);
    client.create(&limited());
    let mut process = client.run("c", &shell("read line; echo got $line; echo low >&2; exit 7"));
    process.stdin("it\n");
    let ended = process.finish();
    assert_eq!((ended.status, &*ended.out, &*ended.err), (7, "got it\n", "low\n"));
    assert_eq!(garden.list(""), ["c"], "it is one server");
    garden.finish();
}

#[test]
fn a_body_is_json_whatever_its_type_is_called() {
    let garden = Garden::start("anytype");
    for (n, kind) in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-tar\r\n"]
        .into_iter()
        .enumerate()
    {
        let body = format!("{{\"handle\":\"c{n}\"}}");
        let length = body.len();
        let mut wire = Wire::dial(&garden.socket);
        let head = "POST /containers HTTP/1.1\r\nHost: api\r\nConnection: close\r\n";
        wire.send(format!("{head}{kind}Content-Length: {length}\r\n\r\n{body}").as_bytes());
        let answer = wire.answer();
        assert_eq!((answer.status(), answer.json()), (200, json!({"Handle": format!("c{n}")})));
    }
    garden.finish();
}

#[test]
fn an_unknown_handle_is_told_on_the_routes_of_files_and_old_limits_and_has_no_outputs() {
    let garden = Garden::start("unknownto");
    for which in ["bandwidth", "cpu", "disk", "memory"] {
        let path = container("nope", &format!("/limits/{which}"));
        let body = json!({"rate": 1, "limit_in_shares": 1, "byte_hard": 1, "limit_in_bytes": 1});
        let (status, kind, _) = garden.fails("PUT", &path, Some(&body));
        assert_eq!((status, kind.as_str()), (404, "ContainerNotFoundError"), "{which}");
    }
    let answer = super::files::stream_into(&garden, "nope", "root", "/tmp", &[0; 1024]);
    assert_eq!((answer.status(), answer.error().0.as_str()), (404, "ContainerNotFoundError"));
    // As an unknown stream: there is nothing, and that is no error.
    for which in ["stdout", "stderr"] {
        let path = container("nope", &format!("/processes/p/attaches/1/{which}"));
        let mut wire = Wire::dial(&garden.socket);
        wire.send(hijack("GET", &path, None).as_bytes());
        let head = wire.head();
        head.assert_hijackable();
        assert_eq!((head.status, wire.rest()), (200, Vec::new()));
    }
    garden.finish();
}

#[test]
fn half_made_containers_are_not_listed_and_their_handle_is_taken() {
    let garden = Garden::start("halfseen");
    // One whose request is not whole yet is nobody's.
    let mut wire = Wire::dial(&garden.socket);
    let request = hijack("POST", "/containers", Some("{\"handle\":\"c\"}"));
    let (begin, end) = request.split_at(request.len() - 3);
    wire.send(begin.as_bytes());
    assert_eq!(garden.list("?garden.state=all"), [""; 0]);
    wire.send(end.as_bytes());
    // From here on every list has it whole, or not at all.
    let answered = std::thread::scope(|scope| {
        let answer = scope.spawn(|| wire.answer());
        while !answer.is_finished() {
            for handle in garden.list("") {
                assert_eq!(garden.info(&handle)["State"], "active");
            }
        }
        answer.join().expect("no panic")
    });
    assert_eq!(answered.status(), 200, "{}", answered.text());
    assert_eq!(garden.list(""), ["c"]);
    assert_eq!(garden.list("?garden.state=created"), ["c"]);
    garden.finish();
}
