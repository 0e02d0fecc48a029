//! A cloud controller on loopback, as far as its cells speak to it; it shares no code with them.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// `ann:s3cret`.
pub const LOGIN: &str = "Basic YW5uOnMzY3JldA==";
pub const USER: &str = "ann";
pub const PASSWORD: &str = "s3cret";
/// Where it listens.
pub const AT: &str = "127.0.0.1:9022";

/// One request that it got.
#[derive(Clone, Debug)]
pub struct Got {
    pub method: String,
    pub path: String,
    /// The whole head in lower case but for values.
    pub head: String,
    pub body: Vec<u8>,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// What it knows and has heard.
#[derive(Default)]
pub struct State {
    /// What it serves, by path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What it wants to run: the whole desire message, by process guid.
    pub apps: BTreeMap<String, Value>,
    /// Guids that its list has besides, of which it knows no more.
    pub listed: Vec<String>,
    /// Its full pages name no next one.
    pub loose: bool,
    /// How its jobs end, for ever; else they do as they should.
    pub job: Option<&'static str>,
    /// Where its tasks stand.
    pub tasks: Vec<Value>,
    /// It answers lists with this status.
    pub broken: Option<u16>,
    /// It answers the ends of stagings with this status.
    pub deaf: Option<u16>,
    /// All that it got.
    pub got: Vec<Got>,
    /// How often a job was looked at.
    pub looks: u32,
}

/// The controller.
#[derive(Clone)]
pub struct Cc(Arc<Mutex<State>>);

impl Cc {
    /// Serves in the calling thread's network for as long as the test runs.
    pub fn start() -> Cc {
        Cc::serve(|cc, stream| cc.answer(stream))
    }

    /// The same with TLS, by `server.crt` and `server.key` of a directory.
    pub fn start_tls(dir: &Path) -> Cc {
        let certificate = CertificateDer::from_pem_file(dir.join("server.crt"));
        let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).expect("key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.expect("certificate")], key);
        let config = Arc::new(config.expect("TLS"));
        Cc::serve(move |cc, stream| {
            let connection = ServerConnection::new(config.clone()).expect("TLS");
            let mut stream = StreamOwned::new(connection, stream);
            cc.answer(&mut stream);
            stream.conn.send_close_notify();
            let _ = stream.flush();
        })
    }

    fn serve(answer: impl Fn(&Cc, TcpStream) + Clone + Send + 'static) -> Cc {
        let cc = Cc(Arc::default());
        let listener = TcpListener::bind(AT).expect("the controller's port");
        let served = cc.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (cc, answer) = (served.clone(), answer.clone());
                std::thread::spawn(move || answer(&cc, stream));
            }
        });
        cc
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("the controller's state")
    }

    /// Requests whose path begins so.
    pub fn heard(&self, method: &str, path: &str) -> Vec<Got> {
        let state = self.state();
        let wanted = |got: &&Got| got.method == method && got.path.starts_with(path);
        state.got.iter().filter(wanted).cloned().collect()
    }

    fn answer(&self, mut stream: impl Read + Write) {
        let Some(got) = read(&mut stream) else { return };
        let (status, body) = self.act(&got);
        self.state().got.push(got);
        let head = format!(
            "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    }

    fn act(&self, got: &Got) -> (u16, Vec<u8>) {
        let text = |value: Value| value.to_string().into_bytes();
        let mut state = self.state();
        let path = got.path.split('?').next().unwrap_or_default();
        let is_internal = path.starts_with("/internal/");
        if is_internal && !got.head.contains(LOGIN) {
            return (401, Vec::new());
        }
        match (got.method.as_str(), path) {
            ("GET", "/internal/bulk/apps" | "/internal/v3/bulk/task_states")
                if state.broken.is_some() =>
            {
                (state.broken.expect("seen above"), Vec::new())
            }
            ("POST", path) if state.deaf.is_some() && path.starts_with("/internal/staging/") => {
                (state.deaf.expect("seen above"), Vec::new())
            }
            ("GET", "/internal/bulk/apps") => {
                let print = |(guid, app): (&String, &Value)| json!({ "process_guid": guid, "etag": app["etag"] });
                let listed =
                    state.listed.iter().map(|it| json!({ "process_guid": it, "etag": "1" }));
                let prints = state.apps.iter().map(print).chain(listed);
                // `{"id":N}` is N of them further, as it was handed out.
                let token = got.path.split_once("token=").map_or("", |(_, token)| token);
                let from =
                    token.strip_prefix("%7B%22id%22%3A").and_then(|it| it.strip_suffix("%7D"));
                let from: usize = from.map_or(0, |from| from.parse().expect("our own token"));
                let page: Vec<Value> = prints.skip(from).take(500).collect();
                let next = json!({ "id": from + page.len() });
                let token = if state.loose { Value::Null } else { next };
                (200, text(json!({ "fingerprints": page, "token": token })))
            }
            ("POST", "/internal/bulk/apps") => {
                let guids: Vec<String> = serde_json::from_slice(&got.body).expect("a list");
                let apps = guids.iter().filter_map(|guid| state.apps.get(guid)).cloned();
                (200, text(apps.collect()))
            }
            ("GET", "/internal/v3/bulk/task_states") => {
                (200, text(json!({ "task_states": state.tasks, "token": { "id": 1 } })))
            }
            ("GET", "/jobs/1") => {
                state.looks += 1;
                let usual = if state.looks < 2 { "running" } else { "finished" };
                let status = state.job.unwrap_or(usual);
                let job =
                    json!({ "metadata": { "url": "/jobs/1" }, "entity": { "status": status } });
                (200, text(job))
            }
            ("GET", path) => match state.files.get(path) {
                Some(file) => (200, file.clone()),
                None => (404, Vec::new()),
            },
            ("POST", "/droplet") => {
                let file = field(got);
                state.files.insert("/droplet.tgz".into(), file);
                let job = json!({
                    "metadata": { "url": format!("http://{AT}/jobs/1") },
                    "entity": { "status": "queued" },
                });
                (201, text(job))
            }
            ("POST", "/cache") => {
                let file = field(got);
                state.files.insert("/cache.tgz".into(), file);
                (200, Vec::new())
            }
            _ => (200, b"{}".to_vec()),
        }
    }
}

/// The file of a form with one field.
fn field(got: &Got) -> Vec<u8> {
    let boundary = got.head.split("boundary=").nth(1).expect("a boundary");
    let boundary = boundary.lines().next().expect("a line");
    let begin = find(&got.body, b"\r\n\r\n").expect("the field's head") + 4;
    let end = format!("\r\n--{boundary}--");
    let end = find(&got.body, end.as_bytes()).expect("the form's end");
    let head = String::from_utf8_lossy(&got.body[..begin]);
    assert!(head.contains("name=\"file\"; filename=\""), "{head}");
    got.body[begin..end].to_vec()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn read(stream: &mut impl Read) -> Option<Got> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut words = head.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let mut body = vec![0; length.and_then(Result::ok).unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Got { method, path, head, body })
}
