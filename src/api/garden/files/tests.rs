//! Bodies and answers through a real server; the container is a list of pieces.

use super::*;
use crate::api::garden::Settings;
use crate::api::http::Request;
use crate::api::http::client::{Call, Client, ClientError};
use crate::api::http::listen::listen;
use crate::api::http::server::{Handler, Limits, serve};
use crate::api::testing::TempDir;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::unix::UnixStream;

struct Fake;

fn failed(text: &str) -> GardenError {
    GardenError::Failed(text.into())
}

impl Handler for Fake {
    async fn handle(&self, request: &Request, body: &mut Body<'_>) -> Response {
        let pieces = match request.path[0].as_str() {
            "whole" => vec![Ok(b"one".to_vec()), Ok(b"two".to_vec())],
            "none" => vec![],
            "missing" => vec![Err(failed("no such file"))],
            "cut" => vec![Ok(b"one".to_vec()), Err(failed("it broke"))],
            "refuse" => return refused(body, failed("error streaming in: no")).await.answer(),
            "raw" => return Refusal::from(failed("not now")).raw_answer(Settings::default()),
            _ => {
                swallow(body, 10_000).await;
                return Response::text(200, "");
            }
        };
        tar(stream::iter(pieces).boxed()).await.unwrap_or_else(|refusal| refusal.answer())
    }
}

fn with_server<F: Future<Output = ()>>(test: impl FnOnce(Client) -> F) {
    let dir = TempDir::new();
    let socket = listen(&dir.path().join("s"), 0o600, None).expect("listen");
    let serving = async {
        // Nothing here may end only because time is up.
        let limits = Limits { patience: Duration::from_secs(600), ..Limits::default() };
        let err = serve(socket.listener(), &Fake, limits).await;
        panic!("the listener broke: {err}");
    };
    let client = Client::new(socket.path());
    smol::block_on(future::or(test(client), serving));
}

/// All that comes back for these bytes.
async fn talk(client: &Client, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(client.socket()).await.expect("connect");
    stream.write_all(bytes).await.expect("all of it is read");
    let mut out = String::new();
    stream.read_to_string(&mut out).await.expect("an answer, not a reset");
    out
}

#[test]
fn a_tar_comes_out_whole_or_as_an_error_or_cut_in_a_way_that_shows() {
    with_server(async |client| {
        let get = async |path: &str| client.send(&Call::new("GET", &[path])).await.expect("head");
        assert_eq!(get("whole").await.bytes().await.expect("whole"), b"onetwo");
        assert_eq!(get("none").await.bytes().await.expect("whole"), b"");
        let missing = get("missing").await;
        assert_eq!(
            (missing.status(), missing.header("content-type")),
            (500, Some("application/json"))
        );
        let cut = get("cut").await;
        assert_eq!(cut.status(), 200);
        assert!(matches!(cut.bytes().await, Err(ClientError::Broken(_))));
    });
}

#[test]
fn a_refusal_comes_after_the_whole_body_has_been_read() {
    with_server(async |client| {
        let length = 8 << 20;
        let mut bytes = format!(
            "PUT /refuse HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        bytes.push_str(&"x".repeat(length));
        let out = talk(&client, bytes.as_bytes()).await;
        assert!(out.starts_with("HTTP/1.1 500 "), "{out}");
        assert!(
            out.contains(r#"{"Type":"","Message":"error streaming in: no","Handle":"""#),
            "{out}"
        );
    });
}

#[test]
fn what_nobody_wants_is_read_up_to_a_bound() {
    with_server(async |client| {
        let call = "PUT /some HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n";
        let mut stream = UnixStream::connect(client.socket()).await.expect("connect");
        stream.write_all(call.as_bytes()).await.expect("send");
        let (mut reader, mut writer) = (stream.clone(), stream);
        let write = async {
            let _ = writer.write_all(&[b'x'; 1_000_000]).await;
            future::pending::<()>().await;
        };
        let read = async {
            let mut head = [0; 12];
            reader.read_exact(&mut head).await.expect("an answer before the end of the body");
            assert_eq!(&head, b"HTTP/1.1 200");
        };
        future::or(read, write).await;
    });
}

#[test]
fn an_error_on_a_raw_route_has_a_length_and_says_nothing_of_closing() {
    with_server(async |client| {
        for extra in ["", "Connection: close\r\n"] {
            let mut stream = UnixStream::connect(client.socket()).await.expect("connect");
            let call = format!("GET /raw HTTP/1.1\r\n{extra}\r\n");
            stream.write_all(call.as_bytes()).await.expect("send");
            stream.shutdown(std::net::Shutdown::Write).expect("the client ends");
            let mut out = String::new();
            stream.read_to_string(&mut out).await.expect("an answer");
            let body = r#"{"Type":"","Message":"not now","Handle":"","ProcessID":"","Binary":""}"#;
            let length = body.len() + 1;
            let expected = format!(
                "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n{body}\n"
            );
            assert_eq!(out, expected);
        }
    });
}

#[test]
fn a_program_that_does_nothing_is_given_up_and_one_that_works_is_not() {
    let short = Duration::from_millis(20);
    let stuck = unless_stuck::<()>(short, "in", "c", future::pending());
    let text = smol::block_on(stuck).expect_err("given up").to_string();
    assert!(
        text.starts_with("error streaming in: container c: the program that was at it"),
        "{text}"
    );
    let works = unless_stuck(Duration::from_secs(600), "in", "c", future::ready(Ok(1)));
    assert_eq!(smol::block_on(works).expect("done"), 1);
}
