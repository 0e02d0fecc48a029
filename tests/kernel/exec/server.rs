//! A server of files for tests, on loopback of the calling thread's network.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What a client has sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET /x`.
    pub line: String,
    /// Lower-case names.
    pub fields: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// Status, fields, body.
pub type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

pub struct Server {
    pub url: String,
    seen: Arc<Mutex<Vec<Request>>>,
    address: std::net::SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers one connection after the other, as `answer` has it; `None` hangs up.
    pub fn start(answer: impl Fn(&Request) -> Option<Answer> + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its number");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let serve = move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(request) = read(&stream) else { break };
                log.lock().expect("seen").push(request.clone());
                if let Some(answer) = answer(&request) {
                    // Who does not wait for the end has a reason.
                    let _ = write(stream, &answer);
                }
            }
        };
        let thread = Some(std::thread::spawn(serve));
        Server { url: format!("http://{address}"), seen, address, thread }
    }

    /// All requests until now.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("seen").clone()
    }

    /// From here on nobody listens.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A connection that says nothing is the last one.
            drop(TcpStream::connect(self.address));
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let line = line.trim_end().strip_suffix(" HTTP/1.1")?.to_owned();
    let mut fields = BTreeMap::new();
    loop {
        let mut field = String::new();
        reader.read_line(&mut field).ok()?;
        let Some((name, value)) = field.trim_end().split_once(": ") else { break };
        fields.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = fields.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { line, fields, body })
}

fn write(mut stream: TcpStream, (status, fields, body): &Answer) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
    for (name, value) in fields {
        head += &format!("{name}: {value}\r\n");
    }
    if *status != 304 {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body)
}
