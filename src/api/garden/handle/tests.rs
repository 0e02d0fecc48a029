//! What is decided here without the backend.

use super::*;
use crate::api::garden::Settings;
use crate::api::http::listen::listen;
use crate::api::http::server::{Limits, serve};
use crate::api::testing::TempDir;
use crate::garden::Backend;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::unix::{UnixListener, UnixStream};

struct Fake;

impl Handler for Fake {
    async fn handle(&self, request: &Request, _: &mut Body<'_>) -> Response {
        let raw = |stream| -> future::Boxed<()> {
            Box::pin(raw::last_word(stream, b"raw", Settings::default()))
        };
        match route(&request.method, &request.path) {
            Ok(Route::Ping) => done(),
            Ok(_) => raw_head(201, raw),
            Err(why) => nowhere(why),
        }
    }
}

/// What comes back for these lines of a head.
fn talk(lines: &str) -> String {
    let dir = TempDir::new();
    let socket = listen(&dir.path().join("s"), 0o600, None).expect("listen");
    let serving = async {
        let err = serve(socket.listener(), &Fake, Limits::default()).await;
        panic!("the listener broke: {err}");
    };
    let test = async {
        let mut stream = UnixStream::connect(socket.path()).await.expect("connect");
        stream.write_all(format!("{lines}\r\n\r\n").as_bytes()).await.expect("send");
        stream.shutdown(std::net::Shutdown::Write).expect("the client ends");
        let mut out = String::new();
        stream.read_to_string(&mut out).await.expect("an answer");
        out
    };
    smol::block_on(future::or(test, serving))
}

#[test]
fn the_head_of_a_raw_connection_is_what_the_go_client_takes_over() {
    for head in
        ["POST /containers/h/processes HTTP/1.1", "GET /capacity HTTP/1.1\r\nConnection: close"]
    {
        let expected = "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nraw";
        assert_eq!(talk(head), expected);
    }
}

#[test]
fn success_without_a_word_is_an_empty_object() {
    let out = talk("GET /ping HTTP/1.1\r\nConnection: close");
    let expected = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\
                    Content-Length: 3\r\n\r\n{}\n";
    assert_eq!(out, expected);
}

#[test]
fn what_is_no_request_is_answered_in_plain_text() {
    let out = talk("GET /nothing HTTP/1.1");
    assert!(out.starts_with("HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\n"), "{out}");
    assert!(out.ends_with("\r\n\r\n404 page not found\n"), "{out}");
    let out = talk("PATCH /containers/h/properties/k HTTP/1.1");
    assert!(out.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{out}");
    assert!(out.contains("\r\nAllow: GET, PUT, DELETE\r\n"), "{out}");
}

fn request(target: &str) -> Request {
    let head = format!("GET {target} HTTP/1.1\r\n\r\n");
    Request::parse(head.as_bytes()).expect("a head").expect("whole").0
}

#[test]
fn a_filter_is_every_pair_and_the_first_value_of_each_name() {
    let request = request("/containers?owner=me&a=1&owner=you&garden.state=all&a=&b");
    let pairs = [("owner", "me"), ("a", "1"), ("garden.state", "all"), ("b", "")];
    let expected = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(filter(&request.query), expected);
}

#[test]
fn a_bulk_call_is_about_the_handles_it_names() {
    for (query, expected) in [
        ("", [].as_slice()),
        ("?handles=", &[]),
        ("?handles=a", &["a"]),
        ("?handles=a%2Cb%20c,d,a&handles=e", &["a", "b c", "d"]),
    ] {
        assert_eq!(
            handles(&request(&format!("/containers/bulk_info{query}"))),
            expected,
            "{query}"
        );
    }
}

/// The daemon serves it on several threads: this must compile.
#[expect(dead_code, reason = "only its types are looked at")]
fn it_may_move_between_threads(listener: &UnixListener, backend: Backend) -> impl Send {
    let garden = Garden::new(backend, Default::default());
    async move { serve(listener, &garden, garden.limits()).await }
}
