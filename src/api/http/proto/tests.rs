//! Heads and bodies, whole, cut at every byte, and hostile.

use super::decoder::{CHUNK_LINE_MAX, TRAILER_MAX};
use super::*;
use crate::unit::escape::escaped;

const PUT: &[u8] = b"PUT /v1/apps/a%2Fb?wait=true&x=a+b%21 HTTP/1.1\r\nHost: t\r\n\
    Content-Length: 5\r\nConnection: keep-alive, Upgrade\r\nExpect: 100-continue\r\n\r\nhello";

fn request(bytes: &[u8]) -> Request {
    Request::parse(bytes).expect("good").expect("whole").0
}

/// The status that refuses `bytes`.
fn refused(bytes: &[u8]) -> u16 {
    match Request::parse(bytes) {
        Err(err) => err.status,
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

#[test]
fn a_request_is_decoded() {
    let (head, used) = Request::parse(PUT).expect("good").expect("whole");
    assert_eq!(used, PUT.len() - 5);
    assert_eq!(
        (head.method.as_str(), &head.path[..]),
        ("PUT", &["v1", "apps", "a/b"].map(Into::into)[..])
    );
    assert_eq!(
        (head.query("wait"), head.query("x"), head.query("y")),
        (Some("true"), Some("a b!"), None)
    );
    assert_eq!(head.framing, Framing::Length(5));
    assert!(head.keep_alive && head.expects_continue);
    assert!(head.headers.has_token("CONNECTION", "upgrade"));
    assert!(request(b"GET / HTTP/1.1\r\n\r\n").path.is_empty());
    assert_eq!(request(b"GET /a/ HTTP/1.1\r\n\r\n").path, ["a", ""]);
    assert!(!request(b"GET / HTTP/1.0\r\n\r\n").keep_alive);
    assert!(!request(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").keep_alive);
}

#[test]
fn a_head_cut_anywhere_is_unfinished_not_wrong() {
    for end in 0..PUT.len() - 5 {
        assert_eq!(Request::parse(&PUT[..end]), Ok(None), "cut at {end}");
    }
}

#[test]
fn a_head_that_can_be_read_in_two_ways_is_refused() {
    for (fields, status) in [
        ("Content-Length: 5\r\nContent-Length: 5\r\n", 400),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: \u{a0}chunked\r\n", 501),
        ("Transfer-Encoding: chunked\u{85}\r\n", 501),
        ("Content-Length: \u{a0}5\r\n", 400),
        ("Content-Length: +5\r\n", 400),
        ("Content-Length: 5, 5\r\n", 400),
        ("Content-Length:\r\n", 400),
        ("Content-Length: 99999999999999999999\r\n", 400),
        ("Content-Length : 5\r\n", 400),
        ("X: \u{0}\r\n", 400),
        (" folded: x\r\n", 400),
    ] {
        let head = format!("POST / HTTP/1.1\r\n{fields}\r\n");
        assert_eq!(refused(head.as_bytes()), status, "{fields:?}");
    }
    assert_eq!(refused(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    assert_eq!(refused(b"POST / HTTP/1.1\r\nX: \xff\r\n\r\n"), 400);
    assert_eq!(refused(b"GET / HTTP/2.0\r\n\r\n"), 505);
}

#[test]
fn spaces_and_tabs_around_a_value_are_no_part_of_it_and_nothing_else_is() {
    let fields = |fields: &str| request(format!("POST / HTTP/1.1\r\n{fields}\r\n").as_bytes());
    assert_eq!(fields("Content-Length:\t 5 \t\r\n").framing, Framing::Length(5));
    assert!(!fields("Connection: a,\t close \r\n").keep_alive);
    assert!(fields("Connection: \u{a0}close\r\n").keep_alive);
    assert_eq!(fields("X: \u{3000}a\u{a0}\r\n").headers.get("x"), Some("\u{3000}a\u{a0}"));
}

#[test]
fn a_target_that_is_no_clean_path_is_refused() {
    for target in ["http://h/", "*", "/%", "/%4", "/%zz", "/%ff"] {
        assert_eq!(refused(format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes()), 400, "{target}");
    }
}

#[test]
fn a_head_beyond_the_limits_is_refused() {
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
    assert_eq!(refused(many.as_bytes()), 431);
    let long = format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(HEAD_MAX));
    assert_eq!(refused(long.as_bytes()), 431);
    let endless = format!("GET /{}", "x".repeat(HEAD_MAX));
    assert_eq!(refused(endless.as_bytes()), 431);
}

#[test]
fn a_head_may_be_longer_where_that_is_said_but_not_its_path_or_its_parts() {
    const MAX: usize = 64 * 1024;
    let parse = |head: &str| Request::parse_within(head.as_bytes(), MAX);
    let value = "a%2C".repeat(10_000);
    let head = format!("GET /x?handles={value} HTTP/1.1\r\n\r\n");
    let (request, used) = parse(&head).expect("good").expect("whole");
    assert_eq!((used, request.query("handles").map(str::len)), (head.len(), Some(20_000)));
    let status = |head: &str| parse(head).expect_err("refused").status;
    assert_eq!(status(&format!("GET /x?{}", "x".repeat(MAX))), 431);
    assert_eq!(status(&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(HEAD_MAX + 1))), 431);
    assert_eq!(status(&format!("GET /x?{} HTTP/1.1\r\n\r\n", "a&".repeat(PARTS_MAX))), 431);
    assert_eq!(status(&format!("GET {} HTTP/1.1\r\n\r\n", "/a".repeat(PARTS_MAX + 1))), 431);
}

#[test]
fn a_long_head_is_looked_at_when_it_has_doubled_and_at_its_end() {
    let max = 1 << 20;
    for end in ["\r\n\r\n", "\n\n"] {
        let head = format!("GET /x?{} HTTP/1.1{end}", "x".repeat(600_000));
        let mut watch = Watch::default();
        let looks = (HEAD_MAX..=head.len())
            .filter(|have| watch.is_worth(&head.as_bytes()[..*have], max))
            .collect::<Vec<_>>();
        assert!(looks.len() < 10, "{looks:?}");
        assert_eq!(looks.last(), Some(&head.len()), "it is seen as soon as it is whole");
    }
    let lines = vec![b'\n'; 100_000];
    let mut watch = Watch::default();
    let looks = (HEAD_MAX..lines.len()).filter(|have| watch.is_worth(&lines[..*have], max));
    assert!(looks.count() < 10);
}

#[test]
fn any_text_survives_a_path_segment() {
    for text in ["", "a/b:c", "é %25?&+=#", "..", "日本"] {
        let head = format!("GET /x/{} HTTP/1.1\r\n\r\n", escaped(text));
        assert_eq!(request(head.as_bytes()).path, ["x", text]);
    }
}

#[test]
fn an_answer_tells_where_its_body_ends() {
    for (head, framing) in [
        ("200 OK\r\nContent-Length: 3\r\n", Framing::Length(3)),
        ("200 OK\r\nTransfer-Encoding: chunked\r\n", Framing::Chunked),
        ("200 OK\r\n", Framing::UntilClose),
        ("204 No Content\r\n", Framing::Length(0)),
        ("101 Switching Protocols\r\n", Framing::Length(0)),
    ] {
        let head = format!("HTTP/1.1 {head}\r\n");
        assert_eq!(
            Answer::parse(head.as_bytes()).expect("good").expect("whole").0.framing,
            framing
        );
    }
}

/// The body in `input`, fed `piece` bytes at a time, and how many bytes were left over.
fn body(framing: Framing, input: &[u8], piece: usize) -> Result<(Vec<u8>, usize), Malformed> {
    let (mut decoder, mut out) = (Decoder::new(framing), Vec::new());
    let (mut start, mut end) = (0, 0);
    while !decoder.is_done() {
        match decoder.step(&input[start..end])? {
            Some(step) => {
                out.extend_from_slice(&input[start..][step.data]);
                start += step.used;
            }
            None if end == input.len() => {
                decoder.finish()?;
            }
            None => end = input.len().min(end + piece),
        }
    }
    Ok((out, input.len() - start))
}

const CHUNKS: &[u8] = b"5\r\nhello\r\n1;ext=1\r\n \r\n0005\r\nworld\r\n0\r\nTrailer: x\r\n\r\n";

#[test]
fn chunks_are_joined_however_they_arrive() {
    let with_next = [CHUNKS, b"GET /".as_slice()].concat();
    for piece in 1..=with_next.len() {
        let (out, left) = body(Framing::Chunked, &with_next, piece).expect("good");
        assert_eq!(out, b"hello world");
        assert!(left <= 5, "the next request is left alone");
    }
    for end in 0..CHUNKS.len() {
        assert!(body(Framing::Chunked, &CHUNKS[..end], 1).is_err(), "cut at {end}");
    }
    assert_eq!(body(Framing::Length(3), b"abcdef", 2).expect("good").0, b"abc");
    assert!(body(Framing::Length(3), b"ab", 2).is_err());
    assert_eq!(body(Framing::UntilClose, b"abc", 2).expect("good").0, b"abc");
}

#[test]
fn bad_chunks_are_refused() {
    let long = format!("1;{}\r\n", "x".repeat(CHUNK_LINE_MAX));
    let trailer = format!("0\r\n{}\r\n", "a: b\r\n".repeat(TRAILER_MAX / 6 + 1));
    for input in [
        "\r\n",
        "-1\r\n",
        "0x5\r\n",
        "5\nhello",
        "g\r\n",
        "5 5\r\n",
        "1\r\nab\r\n",
        "1\r\na\n0\r\n\r\n",
        "ffffffffffffffff\r\n",
        ";\r\n",
        &long,
        &trailer,
    ] {
        assert!(body(Framing::Chunked, input.as_bytes(), 1).is_err(), "{input:?}");
        assert!(body(Framing::Chunked, input.as_bytes(), 9000).is_err(), "{input:?}");
    }
}

#[test]
fn what_we_write_we_can_read() {
    let mut bytes = head(&status_line(404), [("X", "a\r\nY: b"), ("Transfer-Encoding", "chunked")]);
    let (answer, used) = Answer::parse(&bytes).expect("good").expect("whole");
    assert_eq!((answer.status, used, answer.headers.get("x")), (404, bytes.len(), Some("a  Y: b")));
    bytes = [chunk(b"one"), chunk(b""), chunk(b"two"), LAST_CHUNK.to_vec()].concat();
    assert_eq!(body(answer.framing, &bytes, 1).expect("good"), (b"onetwo".to_vec(), 0));
}
