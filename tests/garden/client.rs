//! Garden's calls as its Go client makes them.

use super::lab::PATIENCE;
use super::wire::{Answer, Wire};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where to dial: a path, or an address and a port.
#[derive(Clone, Debug)]
pub struct Client {
    pub socket: PathBuf,
}

/// A process with the connections that its caller has: A, B and C of the protocol.
pub struct Process {
    pub id: String,
    pub stream: String,
    pub control: Wire,
    pub stdout: Option<Wire>,
    pub stderr: Option<Wire>,
}

/// How a process ended and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub status: i64,
    pub out: String,
    pub err: String,
}

impl Client {
    /// One plain call with a connection of its own.
    pub fn call(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        let mut wire = Wire::dial(&self.socket);
        wire.send(plain(method, path, body).as_bytes());
        wire.answer()
    }

    /// A call that succeeds with status 200 and a JSON body.
    pub fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let body = body.map(Value::to_string);
        let answer = self.call(method, path, body.as_deref());
        assert_eq!(answer.status(), 200, "{method} {path}: {}", answer.text());
        answer.json()
    }

    /// GET that succeeds.
    pub fn get(&self, path: &str) -> Value {
        self.ok("GET", path, None)
    }

    /// A call that succeeds and has nothing to say.
    pub fn does(&self, method: &str, path: &str, body: Option<&Value>) {
        assert_eq!(self.ok(method, path, body), json!({}), "{method} {path}");
    }

    /// A call that fails: its status, `Type` and `Message`.
    pub fn fails(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, String, String) {
        let body = body.map(Value::to_string);
        let answer = self.call(method, path, body.as_deref());
        let (kind, message) = answer.error();
        (answer.status(), kind, message)
    }

    /// A container.
    pub fn create(&self, spec: &Value) -> String {
        let answer = self.ok("POST", "/containers", Some(spec));
        answer["Handle"].as_str().expect("a handle").to_owned()
    }

    /// The message with which a container is not made.
    pub fn create_fails(&self, spec: &Value) -> String {
        let (status, kind, message) = self.fails("POST", "/containers", Some(spec));
        assert_eq!((status, kind.as_str()), (500, ""), "{message}");
        message
    }

    /// Destroys a container.
    pub fn destroy(&self, handle: &str) {
        self.does("DELETE", &container(handle, ""), None);
    }

    /// Facts about a container.
    pub fn info(&self, handle: &str) -> Value {
        self.get(&container(handle, "/info"))
    }

    /// Handles that match a query such as `?a=b`, sorted.
    pub fn list(&self, query: &str) -> Vec<String> {
        let answer = self.get(&format!("/containers{query}"));
        let handles = answer["Handles"].as_array().expect("a list, also when empty");
        let mut handles: Vec<String> =
            handles.iter().map(|it| it.as_str().expect("a handle").to_owned()).collect();
        handles.sort();
        handles
    }

    /// Starts a process and opens both of its outputs, in the order of Go's client.
    pub fn run(&self, handle: &str, spec: &Value) -> Process {
        let mut process = self.run_bare(handle, spec);
        process.stdout = Some(self.output(handle, &process.id, &process.stream, "stdout"));
        process.stderr = Some(self.output(handle, &process.id, &process.stream, "stderr"));
        process
    }

    /// Starts a process and opens none of its outputs.
    pub fn run_bare(&self, handle: &str, spec: &Value) -> Process {
        let mut wire = Wire::dial(&self.socket);
        let path = container(handle, "/processes");
        wire.send(hijack("POST", &path, Some(&spec.to_string())).as_bytes());
        begun(wire, 201)
    }

    /// The error with which a process does not start: `Type` and `Message`.
    pub fn run_fails(&self, handle: &str, spec: &Value) -> (u16, String, String) {
        let mut wire = Wire::dial(&self.socket);
        let path = container(handle, "/processes");
        wire.send(hijack("POST", &path, Some(&spec.to_string())).as_bytes());
        hijack_error(wire)
    }

    /// Attaches to a process with both outputs.
    pub fn attach(&self, handle: &str, id: &str) -> Process {
        let mut wire = Wire::dial(&self.socket);
        wire.send(attach_request(handle, id).as_bytes());
        let mut process = begun(wire, 200);
        process.stdout = Some(self.output(handle, id, &process.stream, "stdout"));
        process.stderr = Some(self.output(handle, id, &process.stream, "stderr"));
        process
    }

    /// The error with which nobody is attached.
    pub fn attach_fails(&self, handle: &str, id: &str) -> (u16, String, String) {
        let mut wire = Wire::dial(&self.socket);
        wire.send(attach_request(handle, id).as_bytes());
        hijack_error(wire)
    }

    /// Opens B or C.
    pub fn output(&self, handle: &str, id: &str, stream: &str, which: &str) -> Wire {
        let mut wire = Wire::dial(&self.socket);
        let (id, stream) = (escape(id), escape(stream));
        let path = container(handle, &format!("/processes/{id}/attaches/{stream}/{which}"));
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: api\r\nUser-Agent: Go-http-client/1.1\r\n\
             Content-Type: application/json\r\n\r\n"
        );
        wire.send(head.as_bytes());
        let head = wire.head();
        assert_eq!(head.status, 200, "{head:?}");
        head.assert_hijackable();
        wire
    }

    /// Runs a shell script as root to its end.
    pub fn sh(&self, handle: &str, script: &str) -> Ended {
        self.run(handle, &shell(script)).finish()
    }

    /// What a shell script prints, which must succeed, without the last line's end.
    pub fn says(&self, handle: &str, script: &str) -> String {
        let ended = self.sh(handle, script);
        assert_eq!(ended.status, 0, "{script}: {ended:?}");
        ended.out.trim_end().to_owned()
    }
}

impl Process {
    /// Sends one message.
    pub fn send(&mut self, message: &Value) {
        self.control.send(format!("{message}\n").as_bytes());
    }

    /// Sends bytes of stdin.
    pub fn stdin(&mut self, data: &str) {
        let id = self.id.clone();
        self.send(&json!({"process_id": id, "source": 0, "data": data}));
    }

    /// Closes stdin.
    pub fn end_stdin(&mut self) {
        let id = self.id.clone();
        self.send(&json!({"process_id": id, "source": 0}));
    }

    /// 0: TERM, 1: KILL.
    pub fn signal(&mut self, number: u8) {
        let id = self.id.clone();
        self.send(&json!({"process_id": id, "signal": number}));
    }

    /// One line of stdout.
    pub fn line(&mut self) -> String {
        let line = self.stdout.as_mut().expect("it was opened").until(b"\n");
        let line = line.expect("stdout ends before a line does");
        String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned()
    }

    /// The exit status: A until it says so, and closes.
    pub fn status(&mut self) -> i64 {
        let line = self.control.until(b"\n").expect("A closes without an exit line");
        let message: Value = serde_json::from_slice(&line).expect("the exit line");
        assert_eq!(message["process_id"], self.id.as_str(), "{message}");
        assert_eq!(self.control.rest(), b"", "A goes on after the exit line");
        message["exit_status"].as_i64().unwrap_or_else(|| panic!("no status: {message}"))
    }

    /// The exit status and all output; every connection must close.
    pub fn finish(mut self) -> Ended {
        let status = self.status();
        let [out, err] = [&mut self.stdout, &mut self.stderr].map(|wire| {
            let bytes = wire.as_mut().map(Wire::rest).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Ended { status, out, err }
    }
}

/// The first line of A.
fn begun(mut wire: Wire, status: u16) -> Process {
    let head = wire.head();
    if head.status != status {
        let body = wire.body(&head);
        panic!("{} {}", head.line, String::from_utf8_lossy(&body));
    }
    head.assert_hijackable();
    let line = wire.until(b"\n").expect("the first line");
    let message: Value = serde_json::from_slice(&line)
        .unwrap_or_else(|err| panic!("{err}: {:?}", String::from_utf8_lossy(&line)));
    let text = |field: &str| message[field].as_str().expect(field).to_owned();
    let (id, stream) = (text("process_id"), text("stream_id"));
    Process { id, stream, control: wire, stdout: None, stderr: None }
}

/// An error on a route whose connection Go's client wants to keep: it needs a length to see it.
fn hijack_error(mut wire: Wire) -> (u16, String, String) {
    let head = wire.head();
    head.assert_stays_open();
    assert!(head.field("content-length").is_some(), "an error without its length: {head:?}");
    let answer = Answer { body: wire.body(&head), head };
    let (kind, message) = answer.error();
    (answer.status(), kind, message)
}

/// A plain call's bytes.
pub fn plain(method: &str, path: &str, body: Option<&str>) -> String {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: api\r\nUser-Agent: Go-http-client/1.1\r\n\
         Connection: close\r\nAccept-Encoding: gzip\r\n"
    );
    head + &with_body(body)
}

/// The bytes of a call whose connection goes on raw.
pub fn hijack(method: &str, path: &str, body: Option<&str>) -> String {
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: api\r\nUser-Agent: Go-http-client/1.1\r\n");
    head + &with_body(body)
}

fn with_body(body: Option<&str>) -> String {
    let Some(body) = body else { return "\r\n".to_owned() };
    let length = body.len() + 1;
    format!("Content-Length: {length}\r\nContent-Type: application/json\r\n\r\n{body}\n")
}

fn attach_request(handle: &str, id: &str) -> String {
    let path = container(handle, &format!("/processes/{}", escape(id)));
    format!(
        "GET {path} HTTP/1.1\r\nHost: api\r\nUser-Agent: Go-http-client/1.1\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// The path of something about a container.
pub fn container(handle: &str, rest: &str) -> String {
    format!("/containers/{}{rest}", escape(handle))
}

/// One segment of a path, or a value of a query.
pub fn escape(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b':' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// A shell script as a process of root.
pub fn shell(script: &str) -> Value {
    json!({"path": "sh", "args": ["-c", script], "user": "root"})
}

/// Waits for what has no event, within a bound.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "waited too long until {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}
