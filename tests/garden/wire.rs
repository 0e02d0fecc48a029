//! Bytes of HTTP/1.1 as Go's client writes and reads them, on one socket at a time.

use super::lab::PATIENCE;
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A head longer than this is no answer.
const HEAD_MAX: usize = 64 << 10;

/// One connection and what was read ahead on it.
pub struct Wire {
    stream: UnixStream,
    ahead: Vec<u8>,
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    pub line: String,
    pub fields: Vec<(String, String)>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Wire {
    /// A fresh connection on which no read or write lasts for ever. `socket`: its path, or an address and
    /// a port.
    pub fn dial(socket: &Path) -> Wire {
        let stream = match socket.to_str().and_then(|text| text.parse::<SocketAddr>().ok()) {
            None => UnixStream::connect(socket),
            // A socket is a socket: what is done with it below is the same.
            Some(address) => TcpStream::connect(address).map(|it| OwnedFd::from(it).into()),
        };
        let stream = stream.expect("connect to Garden's socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("bound of reading");
        stream.set_write_timeout(Some(PATIENCE)).expect("bound of writing");
        Wire { stream, ahead: Vec::new() }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send");
    }

    /// Sends bytes to a server that may have had enough; whether all of them went.
    pub fn offer(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Says that nothing more will be sent.
    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("shut down writing");
    }

    /// Reads some more; false at the end of the stream.
    fn more(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    self.ahead.extend_from_slice(&buffer[..count]);
                    return true;
                }
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                // A server that has not read everything resets: its answer came before.
                Err(err) if err.kind() == ErrorKind::ConnectionReset => return false,
                Err(err) => panic!("the server says nothing more: {err}"),
            }
        }
    }

    /// Bytes up to and with `end`; `None` when the stream ends before.
    pub fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.ahead.windows(end.len()).position(|bytes| bytes == end);
            if let Some(at) = found {
                return Some(self.ahead.drain(..at + end.len()).collect());
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Exactly this many bytes.
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count {
            assert!(self.more(), "the stream ends after {} of {count} bytes", self.ahead.len());
        }
        self.ahead.drain(..count).collect()
    }

    /// Everything up to the end of the stream.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.ahead)
    }

    /// The head of an answer; `None` when the server closes without one.
    pub fn try_head(&mut self) -> Option<Head> {
        let text = self.until(b"\r\n\r\n")?;
        assert!(text.len() < HEAD_MAX, "a head of {} bytes", text.len());
        let text = String::from_utf8(text).expect("a head is text");
        let (line, fields) = text.trim_end().split_once("\r\n").unwrap_or((text.trim_end(), ""));
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let fields = fields.split("\r\n").filter(|field| !field.is_empty()).map(|field| {
            let (name, value) = field.split_once(':').unwrap_or_else(|| panic!("{field:?}"));
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        let status = status.unwrap_or_else(|| panic!("no status line of HTTP/1.1: {line:?}"));
        Some(Head { status, line: line.to_owned(), fields: fields.collect() })
    }

    /// The head of an answer.
    pub fn head(&mut self) -> Head {
        self.try_head().expect("the server closed without an answer")
    }

    /// The body that belongs to a head.
    pub fn body(&mut self, head: &Head) -> Vec<u8> {
        if head.field("transfer-encoding") == Some("chunked") {
            return self.chunks();
        }
        match head.field("content-length") {
            Some(length) => self.exactly(length.parse().expect("a length")),
            None => self.rest(),
        }
    }

    /// A chunked body that must end cleanly.
    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n").expect("the body breaks off between chunks");
            let line = String::from_utf8(line).expect("the size of a chunk");
            let size = usize::from_str_radix(line.trim(), 16).expect("the size of a chunk");
            body.extend(self.exactly(size));
            assert_eq!(self.exactly(2), b"\r\n", "the end of a chunk");
            if size == 0 {
                return body;
            }
        }
    }

    /// A whole answer.
    pub fn answer(&mut self) -> Answer {
        self.try_answer().expect("the server closed without an answer")
    }

    /// A whole answer; `None` when the server closes without one.
    pub fn try_answer(&mut self) -> Option<Answer> {
        let head = self.try_head()?;
        let body = self.body(&head);
        Some(Answer { head, body })
    }
}

impl Head {
    /// Value of a field, by its name in small letters.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// Panics unless Go's client goes on with the raw connection after this head.
    pub fn assert_hijackable(&self) {
        let length = self.field("content-length");
        let framed = self.field("transfer-encoding") == Some("chunked") || length == Some("0");
        assert!(framed, "neither chunked nor of length 0: {self:?}");
        self.assert_stays_open();
    }

    /// Panics when Go's client would take the connection for closed.
    pub fn assert_stays_open(&self) {
        let says = self.field("connection").unwrap_or_default().to_ascii_lowercase();
        assert!(!says.contains("close") && !says.contains("upgrade"), "{self:?}");
    }
}

impl Answer {
    /// Status.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        assert_eq!(self.head.field("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|err| panic!("{err}: {} {:?}", self.head.line, self.text()))
    }

    /// The error object, whole, with its `Type` and `Message`.
    pub fn error(&self) -> (String, String) {
        assert!(
            !(200..300).contains(&self.status()),
            "no error: {} {}",
            self.status(),
            self.text()
        );
        let object = self.json();
        for field in ["Type", "Message", "Handle", "ProcessID", "Binary"] {
            assert!(object[field].is_string(), "{field} of {object}");
        }
        let text = |field: &str| object[field].as_str().expect("a string").to_owned();
        (text("Type"), text("Message"))
    }
}
