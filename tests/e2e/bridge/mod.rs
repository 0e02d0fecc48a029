//! Cloud Foundry's dialects over the sockets, by a client and a controller that share no code with
//! the server.

mod again;
mod bbs;
mod cc;
mod custom;
mod ends;
mod events;
mod flow;
mod image;
mod login;
mod notices;
mod readme;
mod share;
mod sync;
mod tls;
mod transcripts;

use super::docker::text;
use super::lab::{BINARY, Lab, tool};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Where the box serves the bridge.
const PORT: &str = "127.0.0.1:8787";

/// An answer, as it came.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let is_it =
            |line: &&str| line.split(':').next().is_some_and(|own| own.eq_ignore_ascii_case(name));
        let line = self.head.lines().skip(1).find(is_it)?;
        line.split_once(':').map(|(_, value)| value.trim())
    }
}

/// Sends a request and reads the answer to its end; fields are whole lines.
fn talk(stream: impl Read + Write, line: &str, fields: &[&str], body: &[u8]) -> Option<Answer> {
    let mut stream = stream;
    let mut head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    fields.iter().for_each(|field| head += &format!("{field}\r\n"));
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let rest = bytes.split_off(end + 4);
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if is_chunked { joined(&rest) } else { rest };
    Some(Answer { status, head, body })
}

/// What chunks hold.
fn joined(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        whole.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 2 + size + 2..];
        if size == 0 {
            break;
        }
    }
    whole
}

/// Asks at the bridge's port.
fn port(lab: &Lab, line: &str, fields: &[&str], body: &[u8]) -> Answer {
    let stream = TcpStream::connect(PORT).expect("the bridge's port");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    let answer = talk(stream, line, fields, body);
    answer.unwrap_or_else(|| panic!("no answer to {line}\n{}", lab.daemon_log()))
}

/// Asks at the daemon's socket.
pub fn socket(lab: &Lab, line: &str, body: &str) -> Answer {
    let path = lab.root.join("run/terrarium/terrarium.sock");
    let stream = UnixStream::connect(path).expect("the daemon's socket");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    let answer = talk(stream, line, &[], body.as_bytes());
    answer.unwrap_or_else(|| panic!("no answer to {line}\n{}", lab.daemon_log()))
}

/// A box with a bridge, whose file server has a buildpack lifecycle: our own program in its roles.
fn lab(name: &str, settings: &str) -> Lab {
    let lab = Lab::new(name);
    lab.configure("bridge", &format!("[bridge]\nlisten = \"{PORT}\"\n\n{settings}"));
    let root = lab.root.join("lifecycle");
    fs::create_dir_all(&root).expect("directory");
    let program = root.join("builder");
    tool("strip", &["-o", text(&program), BINARY]);
    for role in ["launcher", "healthcheck"] {
        fs::hard_link(&program, root.join(role)).expect("link");
    }
    let dir = lab.root.join("usr/lib/terrarium/files/buildpack_app_lifecycle");
    fs::create_dir_all(&dir).expect("directory");
    let archive = dir.join("buildpack_app_lifecycle.tgz");
    tool("tar", &["-C", text(&root), "-I", "gzip -1", "-cf", text(&archive), "."]);
    lab
}

/// What the controller is told of the end of this staging, and what its log says, which goes with the Task as
/// soon as the controller has taken the end.
fn staged(lab: &Lab, cc: &cc::Cc, guid: &str, body: &Value) -> (Value, String) {
    cc.state().deaf = Some(503);
    let answer = socket(lab, &format!("PUT /v1/staging/{guid}"), &body.to_string());
    assert_eq!(answer.status, 202, "{}", lab.daemon_log());
    let path = format!("/internal/staging/{guid}/completed");
    let done =
        lab.until("the staging is told", |_| cc.heard("POST", &path).first().map(cc::Got::json));
    let log = lab.run(&["logs", guid, "-n", "1000"]).out;
    cc.state().deaf = None;
    (done, log)
}

/// A directory as tgz.
fn packed(dir: &Path) -> Vec<u8> {
    let archive = dir.with_extension("tgz");
    tool("tar", &["-C", text(dir), "-czf", text(&archive), "."]);
    fs::read(archive).expect("archive")
}

/// Two guids of 36 characters.
const GUID: &str = "c181be6b-d89c-469c-b79c-4cab1e99b8de-6eac776b-f051-4cb0-9614-5a3954d1bfd6";
