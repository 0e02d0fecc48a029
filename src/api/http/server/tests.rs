//! A real socket, hostile clients. Waits are for conditions; only what must time out does.

use super::super::client::{Call, Client, ClientError};
use super::super::listen::{Socket, listen, listen_tcp};
use super::*;
use crate::api::testing::TempDir;
use smol::channel::{Receiver, Sender, bounded};
use smol::io::AsyncReadExt;
use smol::net::TcpStream;
use smol::net::unix::UnixStream;
use std::net::Shutdown;

/// Answers by path; tells `dropped` when a stream of its is dropped.
struct Fake {
    dropped: Sender<()>,
}

struct TellDrop(Sender<()>);

impl Drop for TellDrop {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

impl Handler for Fake {
    async fn handle(&self, request: &Request, body: &mut Body<'_>) -> Response {
        let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
        match path[..] {
            ["echo"] => match body.bytes(1000).await {
                Ok(bytes) => Response::new(200, Content::Full(bytes)),
                Err(err) => err.into(),
            },
            ["ignore"] => Response::text(200, "ignored"),
            ["waits"] => {
                body.interim("Waits", "for\r\nnothing").await;
                Response::text(200, "done")
            }
            ["lines"] => {
                let lines = (0..3).map(|n| Ok(format!("{n}\n").into_bytes()));
                Response::new(200, Content::Stream(stream::iter(lines).boxed()))
            }
            ["sized"] => {
                let lines = (0..3).map(|n| Ok(format!("{n}\n").into_bytes()));
                Response::new(200, Content::Sized(6, stream::iter(lines).boxed()))
            }
            ["gone"] => Response::new(503, Content::HangUp),
            ["broken"] => {
                let lines = [Ok(b"0\n".to_vec()), Err(io::ErrorKind::Other.into())];
                Response::new(200, Content::Stream(stream::iter(lines).boxed()))
            }
            ["silent"] => {
                let tell = TellDrop(self.dropped.clone());
                let first = stream::once(Ok(b"0\n".to_vec()));
                let never = stream::pending().map(move |()| {
                    let _ = &tell;
                    Ok(Vec::new())
                });
                Response::new(200, Content::Stream(first.chain(never).boxed()))
            }
            ["flood"] => {
                let tell = TellDrop(self.dropped.clone());
                let flood = stream::repeat(()).map(move |()| {
                    let _ = &tell;
                    Ok(vec![7; 64 * 1024])
                });
                Response::new(200, Content::Stream(flood.boxed()))
            }
            ["raw"] => {
                let echo = |connection: Hijacked| -> future::Boxed<()> {
                    Box::pin(async move {
                        let _ = smol::io::copy(connection.reader, connection.writer).await;
                    })
                };
                Response::new(101, Content::Hijack(Box::new(echo)))
            }
            ["taken"] => {
                let tell = self.dropped.clone();
                let run = |_| -> future::Boxed<()> {
                    Box::pin(async move { tell.send(()).await.expect("somebody waits") })
                };
                Response::new(101, Content::Hijack(Box::new(run)))
            }
            _ => Response::text(404, "no such path"),
        }
    }
}

/// A running server and its clients.
struct World {
    socket: Socket,
    dropped: Receiver<()>,
    _dir: TempDir,
}

impl World {
    fn client(&self) -> Client {
        Client::new(self.socket.path())
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket.path()).await.expect("connect")
    }

    /// Sends `bytes`, ends the sending side, and returns all that comes back.
    async fn talk(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The server may have refused already.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown(Shutdown::Write);
        rest(&mut stream).await
    }
}

/// Everything until the server closes; a reset after the answer is an end too.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let (mut out, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        out.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(out).expect("text")
}

/// Runs `test` against a server with these limits.
fn with_server<F: Future<Output = ()>>(limits: Limits, test: impl FnOnce(World) -> F) {
    let dir = TempDir::new();
    let (tell, dropped) = bounded(8);
    let socket = listen(&dir.path().join("s"), 0o660, None).expect("listen");
    let listener = socket.listener().clone();
    let fake = Fake { dropped: tell };
    let serving = async {
        let err = serve(&listener, &fake, limits).await;
        panic!("the listener broke: {err}");
    };
    smol::block_on(future::or(test(World { socket, dropped, _dir: dir }), serving));
}

/// The status of every answer in `answers`.
fn statuses(answers: &str) -> Vec<&str> {
    answers.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)).collect()
}

const CHUNKED: &str = "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
    5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";

#[test]
fn requests_on_one_connection_are_answered_in_order() {
    with_server(Limits::default(), async |world| {
        let text = "GET /x HTTP/1.1\r\n\r\nPOST /echo HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi\
            GET /lines HTTP/1.1\r\n\r\nPOST /ignore HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        let out = world.talk(format!("{text}{CHUNKED}").as_bytes()).await;
        assert_eq!(statuses(&out), ["404", "200", "200", "200", "200"], "{out}");
        assert!(out.ends_with("hello world"), "{out}");
    });
}

#[test]
fn a_request_cut_at_any_byte_is_refused_and_the_server_lives() {
    with_server(Limits::default(), async |world| {
        assert_eq!(world.talk(b"").await, "");
        for end in 1..CHUNKED.len() {
            let out = world.talk(&CHUNKED.as_bytes()[..end]).await;
            assert_eq!(statuses(&out), ["400"], "cut at {end}: {out}");
        }
        assert_eq!(statuses(&world.talk(CHUNKED.as_bytes()).await), ["200"]);
    });
}

#[test]
fn a_request_that_comes_byte_by_byte_is_served() {
    with_server(Limits::default(), async |world| {
        let mut stream = world.connect().await;
        for byte in CHUNKED.bytes() {
            stream.write_all(&[byte]).await.expect("send");
            future::yield_now().await;
        }
        stream.shutdown(Shutdown::Write).expect("end");
        assert!(rest(&mut stream).await.ends_with("hello world"));
    });
}

#[test]
fn what_is_too_large_is_refused() {
    with_server(Limits::default(), async |world| {
        let head = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(17_000));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
        let body =
            format!("POST /echo HTTP/1.1\r\nContent-Length: 1001\r\n\r\n{}", "x".repeat(1001));
        for (text, status) in [(head, "431"), (many, "431"), (body, "413")] {
            assert_eq!(statuses(&world.talk(text.as_bytes()).await), [status]);
        }
        // A body that nobody reads and that is too long to skip ends the connection.
        let long = "x".repeat(100_000);
        let text = format!("POST /ignore HTTP/1.1\r\nContent-Length: 100000\r\n\r\n{long}");
        let out = world.talk(format!("{text}GET /x HTTP/1.1\r\n\r\n").as_bytes()).await;
        assert_eq!(statuses(&out), ["200"], "{out}");
        assert!(out.contains("Connection: close"), "{out}");
    });
}

#[test]
fn a_client_that_stops_talking_is_told_and_cut_off() {
    let limits = Limits { patience: Duration::from_millis(20), ..Limits::default() };
    with_server(limits, async |world| {
        for (text, status) in [
            ("", None),
            ("GET / HT", Some("408")),
            ("POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nab", Some("408")),
        ] {
            let mut stream = world.connect().await;
            stream.write_all(text.as_bytes()).await.expect("send");
            let out = rest(&mut stream).await;
            assert_eq!(statuses(&out).first().copied(), status, "{text:?}: {out}");
        }
    });
}

#[test]
fn one_connection_too_many_gets_503_and_room_comes_back() {
    let limits = Limits { connections: 1, ..Limits::default() };
    with_server(limits, async |world| {
        let mut first = world.connect().await;
        first.write_all(b"GET /lines HTTP/1.1\r\n\r\n").await.expect("send");
        first.read_exact(&mut [0; 10]).await.expect("it is being served");
        let reply = world.client().send(&Call::new("GET", &["lines"])).await.expect("answer");
        assert_eq!(reply.status(), 503);
        drop(first);
        while world.client().send(&Call::new("GET", &["x"])).await.expect("answer").status() == 503
        {
            future::yield_now().await;
        }
    });
}

#[test]
fn who_is_refused_can_say_all_that_he_wants_and_reads_503() {
    let limits = Limits { connections: 1, ..Limits::default() };
    with_server(limits, async |world| {
        let mut first = world.connect().await;
        first.write_all(b"GET /lines HTTP/1.1\r\n\r\n").await.expect("send");
        first.read_exact(&mut [0; 10]).await.expect("it is being served");
        let mut late = world.connect().await;
        // The answer is there before anything is asked.
        late.read_exact(&mut [0; 12]).await.expect("the answer");
        late.write_all(b"POST /lines HTTP/1.1\r\nContent-Length: 2\r\n\r\n").await.expect("head");
        late.write_all(b"{}").await.expect("body");
        let mut out = String::new();
        late.read_to_string(&mut out).await.expect("an end, and no reset");
    });
}

#[test]
fn a_crowd_is_told_once_and_then_counted() {
    let (mut crowd, begin) = (Crowd::default(), Instant::now());
    let at = |seconds| begin + Duration::from_secs(seconds);
    assert_eq!(crowd.count(false, at(0)), None);
    assert_eq!(crowd.count(true, at(0)), Some(1));
    assert!((0..1000).all(|_| crowd.count(true, at(9)).is_none()));
    assert_eq!(crowd.count(true, at(10)), Some(1001));
    assert_eq!(crowd.count(true, at(11)), None);
    assert_eq!(crowd.count(false, at(30)), Some(1), "the last of them is told, too");
    assert_eq!(crowd.count(false, at(60)), None);
}

#[test]
fn a_stream_is_dropped_when_its_client_leaves() {
    with_server(Limits::default(), async |world| {
        let call = Call::new("GET", &["silent"]);
        let mut reply = world.client().send(&call).await.expect("answer");
        assert_eq!(reply.next_line::<u32>().await.expect("line"), Some(0));
        assert!(world.dropped.is_empty());
        drop(reply);
        world.dropped.recv().await.expect("told");
    });
}

#[test]
fn a_stream_is_dropped_when_its_client_takes_nothing_of_it() {
    let limits = Limits { stall: Some(Duration::from_millis(20)), ..Limits::default() };
    with_server(limits, async |world| {
        let mut stream = world.connect().await;
        stream.write_all(b"GET /flood HTTP/1.1\r\n\r\n").await.expect("send");
        world.dropped.recv().await.expect("told");
        drop(stream);
    });
}

#[test]
fn a_stream_that_breaks_does_not_look_whole() {
    with_server(Limits::default(), async |world| {
        let mut reply = world.client().send(&Call::new("GET", &["lines"])).await.expect("answer");
        let mut lines = Vec::new();
        while let Some(line) = reply.next_line::<u32>().await.expect("line") {
            lines.push(line);
        }
        assert_eq!(lines, [0, 1, 2]);
        let mut reply = world.client().send(&Call::new("GET", &["broken"])).await.expect("answer");
        assert_eq!(reply.next_line::<u32>().await.expect("line"), Some(0));
        assert!(matches!(reply.next_line::<u32>().await, Err(ClientError::Broken(_))));
    });
}

#[test]
fn an_answer_is_framed_as_its_client_can_read_it() {
    with_server(Limits::default(), async |world| {
        let ask = async |line: &str| {
            let out = world.talk(format!("{line}\r\n\r\n").as_bytes()).await;
            let (head, body) = out.split_once("\r\n\r\n").expect("a head");
            let fields = head.lines().skip(1).map(str::to_owned);
            (fields.collect::<Vec<_>>().join(", "), body.to_owned())
        };
        let is = |fields: &str, body: &str| (fields.to_owned(), body.to_owned());
        let chunks = "2\r\n0\n\r\n2\r\n1\n\r\n2\r\n2\n\r\n0\r\n\r\n";
        let (chunked, close) = ("Transfer-Encoding: chunked", "Connection: close");
        assert_eq!(ask("GET /lines HTTP/1.1").await, is(chunked, chunks));
        assert_eq!(ask("GET /lines HTTP/1.0").await, is(close, "0\n1\n2\n"));
        assert_eq!(ask("HEAD /lines HTTP/1.1").await, is(chunked, ""));
        assert_eq!(ask("GET /sized HTTP/1.1").await, is("Content-Length: 6", "0\n1\n2\n"));
        let sized = format!("{close}, Content-Length: 6");
        assert_eq!(ask("GET /sized HTTP/1.0").await, is(&sized, "0\n1\n2\n"));
        assert_eq!(ask("HEAD /sized HTTP/1.1").await, is("Content-Length: 6", ""));
        // What comes next on the connection is not lost.
        let out = world.talk(
            b"HEAD /sized HTTP/1.1\r\n\r\nGET /sized HTTP/1.1\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
        );
        assert_eq!(statuses(&out.await), ["200", "200", "404"]);
    });
}

#[test]
fn nobody_answers_where_the_connection_is_hung_up() {
    with_server(Limits::default(), async |world| {
        assert_eq!(world.talk(b"GET /gone HTTP/1.1\r\n\r\n").await, "");
        assert_eq!(statuses(&world.talk(b"GET /x HTTP/1.1\r\n\r\n").await), ["404"]);
    });
}

#[test]
fn a_hijacked_connection_carries_what_was_sent_early() {
    with_server(Limits::default(), async |world| {
        let out = world.talk(b"POST /raw HTTP/1.1\r\n\r\nearly").await;
        assert_eq!(out, "HTTP/1.1 101 Switching Protocols\r\n\r\nearly");
        let call = Call::new("POST", &["raw"]).upgrade("x");
        let mut stream = world.client().send(&call).await.expect("answer").into_stream();
        for word in [b"one", b"two"] {
            stream.writer.write_all(word).await.expect("send");
            let mut back = [0; 3];
            stream.reader.read_exact(&mut back).await.expect("echo");
            assert_eq!(&back, word);
        }
    });
}

#[test]
fn a_connection_is_taken_over_although_its_client_has_gone() {
    with_server(Limits::default(), async |world| {
        let mut stream = world.connect().await;
        stream.write_all(b"POST /taken HTTP/1.1\r\n\r\n").await.expect("send");
        drop(stream);
        world.dropped.recv().await.expect("told");
    });
}

#[test]
fn a_client_that_waits_for_continue_gets_it() {
    with_server(Limits::default(), async |world| {
        let head = b"POST /echo HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
        let mut stream = world.connect().await;
        stream.write_all(head).await.expect("send");
        let mut line = [0; 25];
        stream.read_exact(&mut line).await.expect("continue");
        assert_eq!(line, proto::CONTINUE);
        stream.write_all(b"ok").await.expect("send");
        stream.shutdown(Shutdown::Write).expect("end");
        assert!(rest(&mut stream).await.ends_with("ok"));
    });
}

#[test]
fn a_client_of_today_hears_something_before_the_answer() {
    with_server(Limits::default(), async |world| {
        let early = "HTTP/1.1 102 Processing\r\nWaits: for  nothing\r\n\r\nHTTP/1.1 200 OK\r\n";
        let out = world.talk(b"GET /waits HTTP/1.1\r\n\r\n").await;
        assert!(out.starts_with(early) && out.trim_end().ends_with("done"), "{out}");
        let out = world.talk(b"GET /waits HTTP/1.0\r\n\r\n").await;
        assert!(out.starts_with("HTTP/1.1 200") && out.trim_end().ends_with("done"), "{out}");
        // Ours passes over it, unless it listens.
        let reply = world.client().send(&Call::new("GET", &["waits"])).await.expect("answer");
        assert_eq!(reply.status(), 200);
    });
}

#[test]
fn nobody_there_names_the_socket_and_the_cure() {
    let dir = TempDir::new();
    let client = Client::new(dir.path().join("s"));
    let err = smol::block_on(client.send(&Call::new("GET", &["x"]))).err().expect("unreachable");
    let text = err.to_string();
    assert!(text.contains("/s; start the daemon that serves it"), "{text}");
    let said = |socket: &str, kind: std::io::ErrorKind| {
        let err = ClientError::Unreachable { socket: socket.into(), source: kind.into() };
        err.to_string()
    };
    let absent = std::io::ErrorKind::NotFound;
    let text = said("/run/terrarium/terrarium.sock", absent);
    assert!(text.ends_with("`systemctl start terrarium` or `terrarium run FILE`"), "{text}");
    let text = said("/x/run/terrarium/terrarium.sock", absent);
    assert!(
        text.ends_with("`terrarium serve --root /x` or `terrarium run --root /x FILE`"),
        "{text}"
    );
    let text = said("/run/terrarium/terrarium.sock", std::io::ErrorKind::PermissionDenied);
    assert!(
        text.contains("groupadd --system --force terrarium && sudo usermod -aG terrarium USER")
    );
}

#[test]
fn tcp_is_served_alike_and_each_listener_has_its_own_limit() {
    with_server(Limits { connections: 1, ..Limits::default() }, async |world| {
        let listener = listen_tcp("127.0.0.1:0".parse().expect("an address")).expect("listen");
        let address = listener.local_addr().expect("bound");
        let fake = Fake { dropped: bounded(1).0 };
        let serving = async {
            let err = serve(&listener, &fake, Limits { connections: 2, ..Limits::default() }).await;
            panic!("the listener broke: {err}");
        };
        let test = async {
            // The one connection of the socket is in use.
            let mut first = world.connect().await;
            first.write_all(b"GET /raw HTTP/1.1\r\n\r\n").await.expect("send");
            let mut head = [0; 12];
            first.read_exact(&mut head).await.expect("answer");
            assert_eq!(statuses(&world.talk(CHUNKED.as_bytes()).await), ["503"]);

            let connect = async || TcpStream::connect(address).await.expect("connect");
            let mut raw = connect().await;
            raw.write_all(b"GET /raw HTTP/1.1\r\n\r\nearly").await.expect("send");
            let mut second = connect().await;
            second.write_all(CHUNKED.as_bytes()).await.expect("send");
            second.read_exact(&mut head).await.expect("answer");
            assert_eq!(&head, b"HTTP/1.1 200");
            let mut third = connect().await;
            assert_eq!(statuses(&rest(&mut third).await), ["503"]);
            raw.shutdown(Shutdown::Write).expect("half");
            let out = rest(&mut raw).await;
            assert!(out.starts_with("HTTP/1.1 101") && out.ends_with("\r\n\r\nearly"), "{out}");
        };
        future::or(test, serving).await;
    });
}

#[test]
fn a_caller_by_tcp_is_an_address_and_one_by_the_socket_is_a_process() {
    let dir = TempDir::new();
    let socket = listen(&dir.path().join("s"), 0o600, None).expect("listen");
    let tcp = listen_tcp("127.0.0.1:0".parse().expect("an address")).expect("listen");
    smol::block_on(async {
        let client = UnixStream::connect(socket.path()).await.expect("connect");
        let (_stream, caller) = socket.listener().next().await.expect("accept");
        assert_eq!(caller.peer().expect("known").pid, std::process::id() as i32);
        drop(client);
        let to = tcp.local_addr().expect("bound");
        let client = TcpStream::connect(to).await.expect("connect");
        let (_stream, caller) = tcp.next().await.expect("accept");
        assert_eq!(caller, Caller::Remote(client.local_addr().expect("bound")));
        assert_eq!(caller.peer(), None);
    });
}
