//! What no good client sends: an error or a closed connection within a bound, and the daemon goes on.

use super::client::{eventually, hijack, shell};
use super::place::Garden;
use super::wire::Wire;
use serde_json::json;
use std::io::Write;
use std::os::unix::net::UnixStream;

/// What the daemon may grow by under attack, in KiB. Garden's documents say 16 KiB a connection,
/// 2048 of them; the rest is room for the allocator.
const GROWTH_KIB: u64 = 128 << 10;

fn resident_kib(garden: &Garden) -> u64 {
    let path = format!("/proc/{}/status", garden.lab().daemon_pid());
    let text = std::fs::read_to_string(path).expect("status");
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).expect("a number").parse().expect("KiB")
}

/// The status with which the server answers, 0 when it closes without a word.
fn status(garden: &Garden, bytes: &[u8]) -> u16 {
    let mut wire = Wire::dial(&garden.socket);
    wire.offer(bytes);
    wire.try_answer().map_or(0, |answer| answer.status())
}

fn assert_well(garden: &Garden) {
    assert_eq!(garden.get("/ping"), json!({}), "{}", garden.lab().daemon_log());
}

#[test]
fn broken_json_is_an_ordinary_error() {
    let garden = Garden::start("badjson");
    garden.make("c");
    for (method, path) in [
        ("POST", "/containers"),
        ("PUT", "/containers/c/stop"),
        ("POST", "/containers/c/net/in"),
        ("POST", "/containers/c/net/out"),
        ("POST", "/containers/c/net/out/bulk"),
        ("PUT", "/containers/c/grace_time"),
        ("PUT", "/containers/c/properties/k"),
        ("PUT", "/containers/c/limits/memory"),
        ("POST", "/containers/c/processes"),
    ] {
        let deep = "[".repeat(100_000);
        for body in ["{\"handle\":", "{]", "\"text\"", "\u{1}", "", &deep] {
            let mut wire = Wire::dial(&garden.socket);
            wire.send(hijack(method, path, Some(body)).as_bytes());
            let answer = wire.answer();
            assert_eq!(answer.status(), 500, "{method} {path} {:.20}", body);
            let (kind, message) = answer.error();
            assert!(kind.is_empty() && !message.is_empty(), "{method} {path}: {message}");
        }
    }
    assert_eq!(garden.list(""), ["c"]);
    assert_eq!(garden.info("c")["State"], "active");
    garden.finish();
}

#[test]
fn what_is_no_http_is_refused() {
    let garden = Garden::start("nohttp");
    let before = resident_kib(&garden);
    let huge = format!("GET /ping HTTP/1.1\r\nHost: api\r\nX: {}\r\n\r\n", "x".repeat(8 << 20));
    let many = format!("GET /ping HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100_000));
    let long = format!("GET /{} HTTP/1.1\r\nHost: api\r\n\r\n", "x".repeat(8 << 20));
    let post = "POST /containers HTTP/1.1\r\nHost: api\r\n";
    for (bytes, what) in [
        (huge.as_str(), "a huge header"),
        (&many, "many headers"),
        (&long, "a long path"),
        ("nonsense\r\n\r\n", "no request"),
        ("GET /ping SMTP/1.0\r\n\r\n", "another protocol"),
        (&format!("{post}Content-Length: nonsense\r\n\r\n"), "a length that is none"),
        (&format!("{post}Content-Length: -1\r\n\r\n"), "a negative length"),
        (&format!("{post}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}"), "two lengths"),
        (&format!("{post}Content-Length: 99999999999999999999\r\n\r\n"), "an endless length"),
        (&format!("{post}Content-Length: 9999999999\r\n\r\n"), "ten gigabytes"),
        (&format!("{post}Transfer-Encoding: chunked\r\n\r\nzz\r\n"), "a chunk of no size"),
        (&format!("{post}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}xx0\r\n\r\n"), "a long chunk"),
        (&format!("{post}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n"), "overflow"),
    ] {
        let status = status(&garden, bytes.as_bytes());
        assert!(status == 0 || (400..600).contains(&status), "{what}: {status}");
        assert_well(&garden);
    }
    assert!(resident_kib(&garden) < before + GROWTH_KIB);
    assert_eq!(garden.list(""), [""; 0]);
    garden.finish();
}

#[test]
fn json_is_taken_as_go_takes_it() {
    let garden = Garden::start("gojson");
    garden.make("c");
    for (method, path) in [
        ("POST", "/containers"),
        ("PUT", "/containers/c/stop"),
        ("POST", "/containers/c/net/in"),
        ("PUT", "/containers/c/grace_time"),
        ("PUT", "/containers/c/properties/k"),
        ("PUT", "/containers/c/limits/memory"),
        ("POST", "/containers/c/processes"),
    ] {
        let (status, _, message) = garden.fails(method, path, Some(&json!([])));
        assert!(status == 500 && message.contains("is a list, not "), "{method} {path}: {message}");
    }
    // Nothing but `null` is what an empty object is.
    garden.does("PUT", "/containers/c/properties/k", Some(&json!(null)));
    assert_eq!(garden.get("/containers/c/properties/k"), json!({"value": ""}));
    garden.does("PUT", "/containers/c/grace_time", Some(&json!(null)));
    garden.does("POST", "/containers/c/net/out", Some(&json!(null)));
    let ports = garden.ok("POST", "/containers/c/net/in", Some(&json!(null)));
    assert_eq!(ports["host_port"], ports["container_port"]);
    let rule = json!({"networks": [{"start": "", "end": null}]});
    garden.does("POST", "/containers/c/net/out", Some(&rule));
    // What is no scope is no error of JSON; like Garden, we take it for the total one.
    let disk = |scope: u32| json!({"limits": {"disk_limits": {"byte_hard": 1000, "scope": scope}}});
    assert!(garden.create_fails(&disk(7)).contains("is smaller than the image"), "total");
    assert!(
        garden.create_fails(&disk(300)).contains("`limits.disk_limits.scope` is the number 300")
    );
    // Fields that nobody knows are not looked at.
    let known =
        json!({"path": "sh", "args": ["-c", "ulimit -n"], "rlimits": {"nofiles": 7, "nofile": 99}});
    assert_eq!(garden.run("c", &known).finish().out, "99\n");
    garden.finish();
}

#[test]
fn nul_is_for_names_and_nothing_that_the_kernel_reads() {
    let garden = Garden::start("nul");
    let c = garden.create(&json!({"handle": "a\u{0}b"}));
    assert_eq!(garden.says(&c, "echo here"), "here");
    for wrong in [
        json!({"path": "tr\u{0}ue"}),
        json!({"path": "true", "args": ["a\u{0}b"]}),
        json!({"path": "true", "env": ["A=a\u{0}b"]}),
        json!({"path": "true", "dir": "/a\u{0}b"}),
        json!({"path": "true", "user": "ro\u{0}ot"}),
    ] {
        let (status, _, message) = garden.run_fails(&c, &wrong);
        assert!((400..600).contains(&status) && message.contains("NUL"), "{wrong}: {message}");
    }
    for wrong in [
        json!({"rootfs": "/a\u{0}b"}),
        json!({"image": {"uri": "oci:///a\u{0}b"}}),
        json!({"env": ["A=a\u{0}b"]}),
        json!({"bind_mounts": [{"src_path": "/a\u{0}b", "dst_path": "/mnt"}]}),
    ] {
        let message = garden.create_fails(&wrong);
        assert!(message.contains("NUL"), "{wrong}: {message}");
    }
    let files = super::client::container(&c, "/files?user=root&destination=/a%00b");
    let (_, _, message) = garden.fails("PUT", &files, None);
    assert!(message.contains("error streaming in") && message.contains("NUL"), "{message}");
    garden.finish();
}

#[test]
fn chunked_bodies_are_read_as_well() {
    let garden = Garden::start("chunked");
    let request = b"POST /containers HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n\
                    5;ext=1\r\n{\"han\r\n9\r\ndle\":\"c\"}\r\n0\r\nTrailer: x\r\n\r\n";
    assert_eq!(status(&garden, request), 200);
    assert_eq!(garden.list(""), ["c"]);
    garden.finish();
}

#[test]
fn a_slow_writer_is_served_and_hinders_nobody() {
    let garden = Garden::start("slow");
    let mut wire = Wire::dial(&garden.socket);
    let request = hijack("POST", "/containers", Some("{\"handle\":\"slow\"}"));
    for byte in request.as_bytes() {
        wire.send(&[*byte]);
    }
    assert_eq!(wire.answer().status(), 200);
    let mut stuck = Wire::dial(&garden.socket);
    stuck.send(b"POST /containers HTTP/1.1\r\nContent-Le");
    assert_well(&garden);
    garden.finish();
}

#[test]
fn half_closed_sockets_get_their_answer() {
    let garden = Garden::start("halfclosed");
    let c = garden.make("c");
    let mut wire = Wire::dial(&garden.socket);
    wire.send(b"GET /ping HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n");
    wire.half_close();
    assert_eq!(wire.answer().json(), json!({}));
    for part in [
        "",
        "GET",
        "GET /ping HTTP/1.1\r\n",
        "POST /containers HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
    ] {
        let mut wire = Wire::dial(&garden.socket);
        wire.send(part.as_bytes());
        wire.half_close();
        let answer = wire.try_answer().map_or(400, |answer| answer.status());
        assert!((400..600).contains(&answer), "{part:?}: {answer}");
    }
    // A caller that will write no more still hears how its process ends.
    let process = garden.run(&c, &shell("cat; echo ended"));
    process.control.half_close();
    let id = process.id.clone();
    drop(process);
    assert_eq!(garden.attach(&c, &id).finish().status, 0);
    assert_eq!(garden.list(""), ["c"]);
    garden.finish();
}

#[test]
fn paths_lead_nowhere_but_to_their_routes() {
    let garden = Garden::start("paths");
    let victim = garden.lab().root.join("victim");
    std::fs::write(&victim, "untouched").expect("victim");
    for handle in ["..", ".", "../../..", "%00", "a\u{0}b", &"x".repeat(4096)] {
        // One that cannot be asked for again goes by itself.
        let body = json!({"handle": handle, "grace_time": 1_000_000_000}).to_string();
        let answer = garden.call("POST", "/containers", Some(&body));
        if answer.status() == 200 {
            assert_eq!(garden.info(handle)["State"], "active", "{handle:?}");
            garden.destroy(handle);
        }
        let (status, ..) = garden.fails("GET", &super::client::container(handle, "/info"), None);
        assert_eq!(status, 404, "{handle:?}");
    }
    for path in [
        "/containers/%zz/info",
        "/containers/%/info",
        "/containers//info",
        "//ping",
        "/../ping",
        "/containers/../ping",
        "/ping/",
        "*",
        "http://api/nope",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n");
        let status = status(&garden, request.as_bytes());
        assert!(status == 0 || (400..600).contains(&status), "{path}: {status}");
    }
    let depot = garden.lab().root.join("var/lib/terrarium/depot");
    let left = || std::fs::read_dir(&depot).map(Iterator::count).unwrap_or(0);
    // A destroyed container's entry goes with its last link.
    eventually("the depot is empty", || (left() == 0).then_some(()));
    assert_eq!(std::fs::read_to_string(&victim).expect("victim"), "untouched");
    garden.finish();
}

#[test]
fn messages_that_make_no_sense_end_stdin_and_no_more() {
    let garden = Garden::start("nonsense");
    let c = garden.make("c");
    for bytes in
        ["nonsense\n", "{}\n", "[1,2]\n", "{\"signal\":\"x\"}\n", "{\"source\":7,\"data\":1}\n"]
    {
        let process = {
            let mut process = garden.run(&c, &shell("cat; echo stdin is over; exec sleep 1000"));
            process.control.offer(bytes.as_bytes());
            assert_eq!(process.line(), "stdin is over", "{bytes:?}");
            process
        };
        let mut other = garden.attach(&c, &process.id);
        other.signal(1);
        assert_eq!(other.finish().status, 137, "{bytes:?}");
        let log = garden.lab().daemon_log();
        let told = log.lines().filter(|line| line.contains("process.nonsense")).collect::<Vec<_>>();
        let last = told.last().unwrap_or_else(|| panic!("{bytes:?}: {log}"));
        assert!(last.contains(&format!("garden=c process={} err=", process.id)), "{last}");
    }
    let mut process = garden.run(&c, &shell("cat >/dev/null; exec sleep 1000"));
    // A message without an end has one.
    let piece = vec![b'x'; 1 << 20];
    process.control.offer(b"{\"source\":0,\"data\":\"");
    let before = resident_kib(&garden);
    for _ in 0..64 {
        if !process.control.offer(&piece) {
            break;
        }
    }
    assert!(resident_kib(&garden) < before + GROWTH_KIB);
    let mut other = garden.attach(&c, &process.id);
    other.signal(1);
    other.finish();
    garden.finish();
}

#[test]
fn ten_thousand_connections_are_survived() {
    let garden = Garden::start("thousands");
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .expect("limit of files");
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard)
        .expect("more files");
    assert!(hard > 10_100, "this test holds 10,000 files open: ulimit -Hn 20000");
    let before = resident_kib(&garden);
    let mut held = Vec::new();
    for n in 0..10_000 {
        let address = nix::sys::socket::UnixAddr::new(&garden.socket).expect("an address");
        let kind = nix::sys::socket::SockType::Stream;
        let flags =
            nix::sys::socket::SockFlag::SOCK_NONBLOCK | nix::sys::socket::SockFlag::SOCK_CLOEXEC;
        let family = nix::sys::socket::AddressFamily::Unix;
        let fd = nix::sys::socket::socket(family, kind, flags, None).expect("a socket");
        // A full queue refuses: that is a bound as well.
        let connected = eventually_connected(&fd, &address);
        let mut stream = UnixStream::from(fd);
        if connected {
            let _ = stream.write_all(match n % 3 {
                0 => b"",
                1 => b"GET /ping HTTP/1.1\r\nHos",
                _ => b"POST /containers HTTP/1.1\r\nContent-Length: 100\r\n\r\n{",
            });
        }
        held.push(stream);
    }
    let grown = resident_kib(&garden).saturating_sub(before);
    assert!(grown < GROWTH_KIB, "grown by {grown} KiB");
    drop(held);
    eventually("it answers again", || {
        let mut wire = Wire::dial(&garden.socket);
        wire.offer(b"GET /ping HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n");
        wire.try_answer().filter(|answer| answer.status() == 200).map(drop)
    });
    garden.make("after");
    assert_eq!(garden.says("after", "echo alive"), "alive");
    garden.finish();
}

/// Whether the server's queue took the connection.
fn eventually_connected(
    fd: &impl std::os::fd::AsRawFd,
    address: &nix::sys::socket::UnixAddr,
) -> bool {
    for _ in 0..100 {
        match nix::sys::socket::connect(fd.as_raw_fd(), address) {
            Ok(()) => return true,
            Err(nix::errno::Errno::EAGAIN) => std::thread::yield_now(),
            Err(_) => return false,
        }
    }
    false
}
