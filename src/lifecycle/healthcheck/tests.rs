//! Checks against listeners on loopback, one scripted answer each.

use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::thread::JoinHandle;

const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn check(uri: &str, port: u16, timeout_ms: u64) -> Check {
    Check { uri: uri.into(), port, timeout: Duration::from_millis(timeout_ms) }
}

/// Answers one connection after the other with `answers`; returns the requests it got.
fn serve(answers: &[&str]) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind((HOME, 0)).expect("a port on loopback");
    let port = listener.local_addr().expect("bound").port();
    let answers: Vec<_> =
        answers.iter().map(|text| text.replace("PORT", &port.to_string())).collect();
    let server = std::thread::spawn(move || {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                request.push(byte[0]);
            }
            let _ = stream.write_all(answer.as_bytes());
            requests.push(String::from_utf8_lossy(&request).into_owned());
        }
        requests
    });
    (port, server)
}

/// A redirect to another server's name is bounded by the check's own time, whatever the resolver takes; and so
/// is how many of them go on after it.
#[test]
fn a_name_that_is_not_found_in_time_is_a_timeout_and_few_are_looked_up_at_a_time() {
    /// Where it tells that it was called, and what it waits for: the end of the other side.
    static RESOLVER: OnceLock<(Sender<()>, Mutex<Receiver<()>>)> = OnceLock::new();
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    fn never(named: &str) -> io::Result<Option<SocketAddr>> {
        assert_eq!(named, "elsewhere.example:80");
        let (called, end) = RESOLVER.get().expect("set before");
        if CALLS.fetch_add(1, Ordering::Relaxed) < http::LOOKUPS_MAX {
            called.send(()).expect("the test lives");
            let _ = end.lock().expect("nobody panics with it").recv();
        }
        Ok(None)
    }
    let (called, calls) = channel();
    let (end, ends) = channel();
    RESOLVER.set((called, Mutex::new(ends))).expect("this test alone");
    let ask = |most: Duration| {
        // Not joined: on a very slow machine nobody came to it in time.
        let (port, _server) =
            serve(&["HTTP/1.1 301 Moved\r\nLocation: http://elsewhere.example/\r\n\r\n"]);
        let deadline = Instant::now() + most;
        http::status_by(SocketAddr::from((HOME, port)), "/", deadline, never)
            .expect_err("nobody knows that name")
    };
    // Each round begins one, unless the machine is so slow that the time is over before.
    while http::LOOKUPS.load(Ordering::Relaxed) < http::LOOKUPS_MAX {
        let err = ask(Duration::from_millis(100));
        assert!(is_timeout(&err), "{err}");
    }
    let long = Duration::from_secs(3600);
    for _ in 0..http::LOOKUPS_MAX {
        calls.recv_timeout(long).expect("the look-ups that have begun");
    }
    let err = ask(long);
    assert!(!is_timeout(&err), "it has not waited: {err}");
    let text = "elsewhere.example:80 is not looked up: 4 look-ups before it go on still";
    assert!(err.to_string().starts_with(text), "{err}");
    assert_eq!(CALLS.load(Ordering::Relaxed), http::LOOKUPS_MAX);
    drop(end);
    while http::LOOKUPS.load(Ordering::Relaxed) > 0 {
        std::thread::yield_now();
    }
    // There is room again.
    assert_eq!(ask(long).to_string(), "no address for elsewhere.example");
    assert_eq!(CALLS.load(Ordering::Relaxed), http::LOOKUPS_MAX + 1);
}

/// A port that nobody listens on.
fn closed_port() -> u16 {
    let listener = TcpListener::bind((HOME, 0)).expect("a port on loopback");
    listener.local_addr().expect("bound").port()
}

/// Row 76, as all of this file.
#[test]
fn a_tcp_check_needs_only_a_listener() {
    let listener = TcpListener::bind((HOME, 0)).expect("a port on loopback");
    let port = listener.local_addr().expect("bound").port();
    assert_eq!(check("", port, 1000).once(HOME), Ok(()));
    drop(listener);
    let failure = check("", port, 1000).once(HOME).expect_err("nobody listens");
    assert_eq!(failure.code(), 4);
    assert_eq!(
        failure.text(),
        format!("failed to make TCP connection to 127.0.0.1:{port}: connection refused")
    );
}

#[test]
fn an_http_check_says_who_it_is_and_passes_with_200() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nok\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nanything until the end",
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 Fine\r\nContent-Length: 0\r\n\r\n",
    ] {
        let (port, server) = serve(&[answer]);
        assert_eq!(check("/health?a=b", port, 5000).once(HOME), Ok(()), "{answer}");
        let request = server.join().expect("served").remove(0);
        assert!(request.starts_with("GET /health?a=b HTTP/1.1\r\n"), "{request}");
        for field in ["User-Agent: diego-healthcheck", "X-Forwarded-Proto: https"] {
            assert!(request.contains(&format!("\r\n{field}\r\n")), "{request}");
        }
        assert!(request.contains(&format!("\r\nHost: 127.0.0.1:{port}\r\n")), "{request}");
    }
}

#[test]
fn redirects_are_followed_to_the_end() {
    let end = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for (location, then) in [
        ("/b", "GET /b "),
        ("b?x", "GET /a/b?x "),
        ("http://127.0.0.1:PORT", "GET / "),
        ("http://127.0.0.1:PORT?q", "GET /?q "),
        ("//127.0.0.1:PORT/c#d", "GET /c "),
    ] {
        let first =
            format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        let (port, server) = serve(&[&first, end]);
        assert_eq!(check("/a/x", port, 5000).once(HOME), Ok(()), "{location}");
        let requests = server.join().expect("served");
        assert!(requests[1].starts_with(then), "{location}: {}", requests[1]);
    }
    let round = "HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n";
    let (port, server) = serve(&[round; 11]);
    let failure = check("/", port, 5000).once(HOME).expect_err("a circle");
    assert_eq!(failure.code(), 5);
    assert!(failure.text().ends_with("stopped after 10 redirects"), "{}", failure.text());
    assert_eq!(server.join().expect("served").len(), 11);
}

/// Row 76: exit codes and texts.
#[test]
fn http_failures_have_diego_s_codes_and_texts() {
    for (answer, code, text) in [
        ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", 6, "received status code 503 in "),
        ("HTTP/1.1 204 None\r\n\r\n", 6, "received status code 204 in "),
        ("HTTP/1.1 302 Found\r\nLocation: https://x/\r\nContent-Length: 0\r\n\r\n", 5, "not HTTP"),
        ("", 5, ": EOF"),
        ("SSH-2.0-x\r\n\r\n", 5, "malformed HTTP response"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", 5, "unexpected EOF"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 5, "broken chunk"),
    ] {
        let (port, server) = serve(&[answer]);
        let failure = check("/x", port, 5000).once(HOME).expect_err(answer);
        assert_eq!(failure.code(), code, "{answer}: {}", failure.text());
        assert!(failure.text().contains(text), "{answer}: {}", failure.text());
        let begin = format!("failed to make HTTP request to '/x' on port {port}: ");
        assert!(failure.text().starts_with(&begin), "{}", failure.text());
        server.join().expect("served");
    }
    let failure = check("/x", closed_port(), 5000).once(HOME).expect_err("nobody listens");
    assert_eq!(failure.code(), 5);
    assert!(failure.text().ends_with(": connection refused"), "{}", failure.text());
    let failure = check("/a b", closed_port(), 5000).once(HOME).expect_err("no request");
    assert_eq!(failure.code(), 6);
}

#[test]
fn an_app_that_drips_or_is_silent_runs_into_the_timeout() {
    let listener = TcpListener::bind((HOME, 0)).expect("a port on loopback");
    let port = listener.local_addr().expect("bound").port();
    let failure = check("/x", port, 50).once(HOME).expect_err("silence");
    assert_eq!(failure.code(), 65);
    assert!(failure.text().ends_with("timed out after 0.05 seconds"), "{}", failure.text());

    let dripping = std::thread::spawn(move || {
        let (_silent, _) = listener.accept().expect("the first connection");
        let (mut stream, _) = listener.accept().expect("the second connection");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(b".").is_ok() {}
    });
    let failure = check("/x", port, 50).once(HOME).expect_err("no end");
    assert_eq!(failure.code(), 65);
    dripping.join().expect("it saw the connection close");
}

#[test]
fn starting_up_ends_with_the_first_success_or_with_the_last_failure() {
    let calls = AtomicU32::new(0);
    let refused = || Failure::Tcp { to: SocketAddr::from((HOME, 1)), why: "refused".into() };
    let third = || match calls.fetch_add(1, Ordering::Relaxed) {
        2 => Ok(()),
        _ => Err(refused()),
    };
    let every = Duration::from_millis(1);
    assert_eq!(until_success(every, Some(Duration::from_secs(60)), third), Ok(()));
    assert_eq!(calls.load(Ordering::Relaxed), 3);

    let (code, text) =
        until_success(Duration::from_secs(1), Some(Duration::from_millis(3)), || Err(refused()))
            .expect_err("it never succeeds");
    assert_eq!(code, 4);
    assert_eq!(
        text,
        "Timed out after 3ms (1 attempts) waiting for startup check to succeed: \
         failed to make TCP connection to 127.0.0.1:1: refused"
    );
}

/// Row 76: no answer at all, and a network that nobody has.
#[test]
fn silence_and_an_unknown_network_have_diego_s_codes_and_texts() {
    let to = SocketAddr::from((HOME, 8080));
    for err in [io::Error::from(io::ErrorKind::TimedOut), io::Error::from_raw_os_error(110)] {
        let failure = check("", 8080, 1500).unconnected(to, &err);
        assert_eq!(failure.code(), 64, "{err}");
        let text = "failed to make TCP connection to 127.0.0.1:8080: timed out after 1.50 seconds";
        assert_eq!(failure.text(), text, "{err}");
    }
    assert_eq!(run(&["-network=udp".into()]), Err(127));
    assert_eq!(run(&["-network".into(), "unix".into(), "-uri=/".into()]), Err(127));
}

/// Row 76: which flag makes which kind of check.
#[test]
fn flags_say_how_often_and_until_when_is_checked() {
    let judged = |words: &[&str], fails_from: u32| {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let flags = Flags::parse("healthcheck", FLAGS, &words).expect("flags");
        let calls = AtomicU32::new(0);
        let verdict = judge(&flags, || match calls.fetch_add(1, Ordering::Relaxed) + 1 {
            call if call < fails_from => Ok(()),
            _ => Err(Failure::NoInterface),
        });
        (verdict, calls.into_inner())
    };
    let failed = |text: &str| Err((3, format!("{text}failure to find suitable interface")));
    assert_eq!(judged(&[], 1), (failed(""), 1));
    assert_eq!(
        judged(&["-liveness-interval=1ms"], 3),
        (failed("Liveness check unsuccessful: "), 3)
    );
    let ready = judged(&["-readiness-interval=1ms"], 2);
    assert_eq!(ready, (failed("Readiness check unsuccessful: "), 2));
    for until in ["-startup-interval=1h", "-until-ready-interval=1h"] {
        assert_eq!(judged(&[until], 2), (Ok(()), 1), "{until}");
    }
}

#[test]
fn living_ends_with_the_first_failure() {
    let calls = AtomicU32::new(0);
    let third = || match calls.fetch_add(1, Ordering::Relaxed) {
        2 => Err(Failure::NoInterface),
        _ => Ok(()),
    };
    let verdict = until_failure(Duration::from_millis(1), "Liveness", third);
    let text = "Liveness check unsuccessful: failure to find suitable interface";
    assert_eq!(verdict, Err((3, text.into())));
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}
