//! The client of the daemon's socket: one connection for each request.

use super::body::{BodyError, Inlet, piece};
use super::proto::{self, Answer, Decoder, Headers};
use super::server::Hijacked;
use crate::config::machine::Paths;
use crate::unit::escape::escaped;
use smol::channel::Receiver;
use smol::future;
use smol::io::{AsyncWriteExt, BoxedWriter};
use smol::net::unix::UnixStream;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Longest answer that is read whole, in bytes.
const ANSWER_MAX: usize = 64 * 1024 * 1024;
/// Longest line of a streamed answer, in bytes.
const LINE_MAX: usize = 4 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody answers on the socket.
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// "the daemon broke off the connection"
    Broken(io::Error),
    /// "the daemon's answer makes no sense: {0}"
    Nonsense(String),
    /// "what is to be sent cannot be read"
    Source(io::Error),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Unreachable { socket, source } => {
                write!(
                    f,
                    "no daemon to be reached on {}; {}",
                    socket.display(),
                    cure(socket, source)
                )
            }
            ClientError::Broken(_) => f.write_str("the daemon broke off the connection"),
            ClientError::Source(_) => f.write_str("what is to be sent cannot be read"),
            ClientError::Nonsense(what) => write!(f, "the daemon's answer makes no sense: {what}"),
        }
    }
}

/// What to type so that somebody answers on `socket`.
fn cure(socket: &Path, source: &io::Error) -> String {
    if source.kind() == io::ErrorKind::PermissionDenied {
        return "become root, or: `sudo groupadd --system --force terrarium && sudo usermod -aG \
                terrarium USER`, then restart the service and log in again"
            .to_owned();
    }
    // ROOT/run/terrarium/terrarium.sock
    let root = socket.ancestors().nth(3).filter(|root| Paths::under(root).socket() == socket);
    match root {
        Some(root) if root == "/" => {
            "start it with `systemctl start terrarium` or `terrarium run FILE`".to_owned()
        }
        Some(root) => {
            let root = root.display();
            format!(
                "start it with `terrarium serve --root {root}` or `terrarium run --root {root} FILE`"
            )
        }
        None => "start the daemon that serves it, or name another one's socket".to_owned(),
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ClientError::Unreachable { source, .. }
            | ClientError::Broken(source)
            | ClientError::Source(source) => Some(source),
            ClientError::Nonsense(_) => None,
        }
    }
}

impl From<BodyError> for ClientError {
    fn from(err: BodyError) -> ClientError {
        match err {
            BodyError::Lost(err) => ClientError::Broken(err),
            BodyError::Malformed(err) if err.status == 400 => {
                ClientError::Broken(io::Error::new(io::ErrorKind::UnexpectedEof, err.why))
            }
            err => ClientError::Nonsense(err.to_string()),
        }
    }
}

/// A daemon's socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Call {
    method: &'static str,
    target: String,
    body: Option<Vec<u8>>,
    chunked: bool,
    upgrade: Option<&'static str>,
}

impl Call {
    /// `method` on the path of these segments, which are escaped.
    pub fn new(method: &'static str, path: &[&str]) -> Call {
        let target = path.iter().map(|part| format!("/{}", escaped(part))).collect();
        Call { method, target, ..Call::default() }
    }

    /// With a query pair.
    pub fn query(mut self, key: &str, value: impl fmt::Display) -> Call {
        let mark = if self.target.contains('?') { '&' } else { '?' };
        let value = escaped(&value.to_string());
        self.target.push_str(&format!("{mark}{}={value}", escaped(key)));
        self
    }

    /// With a JSON body.
    pub fn json(mut self, value: &impl serde::Serialize) -> Call {
        self.body = Some(serde_json::to_vec(value).expect("our own types always become JSON"));
        self
    }

    /// Asks for the connection itself, to speak `protocol` on it.
    pub fn upgrade(mut self, protocol: &'static str) -> Call {
        self.upgrade = Some(protocol);
        self
    }

    /// The bytes of the request.
    fn encode(&self) -> Vec<u8> {
        let length = self.body.as_ref().map(|body| body.len().to_string());
        let mut fields = vec![("Host", "terrarium")];
        match self.upgrade {
            Some(protocol) => fields.extend([("Connection", "Upgrade"), ("Upgrade", protocol)]),
            None => fields.push(("Connection", "close")),
        }
        if let Some(length) = &length {
            fields.extend([("Content-Type", "application/json"), ("Content-Length", length)]);
        }
        if self.chunked {
            fields.push(("Transfer-Encoding", "chunked"));
        }
        let mut bytes = proto::head(&format!("{} {} HTTP/1.1", self.method, self.target), fields);
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

impl Client {
    /// The daemon that listens on `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Client {
        Client { socket: socket.into() }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends `call` with a body that comes in pieces, an empty one last, and reads the head of its
    /// answer. A server that answers earlier gets no more of them. `early` hears the header fields of
    /// answers that come before the last one.
    pub async fn send_pieces(
        &self,
        call: Call,
        pieces: Receiver<io::Result<Vec<u8>>>,
        early: &mut dyn FnMut(&Headers),
    ) -> Result<Reply, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Unreachable { socket: self.socket.clone(), source })?;
        let mut writer: BoxedWriter = Box::pin(stream.clone());
        let mut inlet = Inlet::new(Box::pin(stream));
        let call = Call { chunked: true, ..call };
        let sending = async {
            match write_pieces(&mut writer, &call.encode(), pieces).await {
                Err(err @ ClientError::Source(_)) => Err(err),
                // Why the server takes no more, its answer says.
                _ => future::pending().await,
            }
        };
        let answer = future::or(head(&mut inlet, early), sending).await?;
        Ok(Reply::new(answer, inlet, writer))
    }

    /// Sends `call` and reads the head of its answer.
    pub async fn send(&self, call: &Call) -> Result<Reply, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Unreachable { socket: self.socket.clone(), source })?;
        let mut writer: BoxedWriter = Box::pin(stream.clone());
        // A server that refuses early closes its reading side; its answer is still to be read.
        let sent = writer.write_all(&call.encode()).await;
        let mut inlet = Inlet::new(Box::pin(stream));
        match (head(&mut inlet, &mut |_| ()).await, sent) {
            (Err(ClientError::Broken(_)), Err(err)) => Err(ClientError::Broken(err)),
            (answer, _) => Ok(Reply::new(answer?, inlet, writer)),
        }
    }
}

/// Writes a head and pieces as chunks.
async fn write_pieces(
    writer: &mut BoxedWriter,
    head: &[u8],
    pieces: Receiver<io::Result<Vec<u8>>>,
) -> Result<(), ClientError> {
    writer.write_all(head).await.map_err(ClientError::Broken)?;
    loop {
        let piece = pieces.recv().await.map_err(|_| io::ErrorKind::UnexpectedEof.into());
        let piece = piece.and_then(|piece| piece).map_err(ClientError::Source)?;
        if piece.is_empty() {
            break;
        }
        writer.write_all(&proto::chunk(&piece)).await.map_err(ClientError::Broken)?;
    }
    writer.write_all(proto::LAST_CHUNK).await.map_err(ClientError::Broken)
}

/// The head of the answer; what comes before it is told.
async fn head(inlet: &mut Inlet, early: &mut dyn FnMut(&Headers)) -> Result<Answer, ClientError> {
    loop {
        let parsed = Answer::parse(inlet.data());
        if let Some((answer, used)) = parsed.map_err(|err| ClientError::Nonsense(err.why.into()))? {
            inlet.consume(used);
            match answer.status {
                100 | 102..200 => early(&answer.headers),
                _ => return Ok(answer),
            }
        } else if !inlet.more().await.map_err(ClientError::Broken)? {
            return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// An answer whose body is still on its way.
pub struct Reply {
    answer: Answer,
    decoder: Decoder,
    inlet: Inlet,
    writer: BoxedWriter,
    line: Vec<u8>,
}

impl Reply {
    fn new(answer: Answer, inlet: Inlet, writer: BoxedWriter) -> Reply {
        let decoder = Decoder::new(answer.framing);
        Reply { answer, decoder, inlet, writer, line: Vec::new() }
    }

    /// 200 and so on.
    pub fn status(&self) -> u16 {
        self.answer.status
    }

    /// A header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.answer.headers.get(name)
    }

    /// The whole body.
    pub async fn bytes(mut self) -> Result<Vec<u8>, ClientError> {
        let mut out = Vec::new();
        while let Some(data) = piece(&mut self.inlet, &mut self.decoder).await? {
            if out.len() + data.len() > ANSWER_MAX {
                return Err(ClientError::Nonsense("it is longer than 64 MiB".into()));
            }
            out.extend_from_slice(&data);
        }
        Ok(out)
    }

    /// The next piece of the body; `None`: it is whole.
    pub async fn next_piece(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(piece(&mut self.inlet, &mut self.decoder).await?)
    }

    /// The whole body as JSON.
    pub async fn json<T: serde::de::DeserializeOwned>(self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.bytes().await?)
            .map_err(|err| ClientError::Nonsense(err.to_string()))
    }

    /// The next line of a streamed body, as JSON; `None`: it has ended as it should. Cancelling
    /// loses nothing.
    pub async fn next_line<T: serde::de::DeserializeOwned>(
        &mut self,
    ) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.line.iter().position(|&b| b == b'\n') {
                let rest = self.line.split_off(end + 1);
                let line = std::mem::replace(&mut self.line, rest);
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|err| ClientError::Nonsense(err.to_string()));
            }
            if self.line.len() > LINE_MAX {
                return Err(ClientError::Nonsense("a line is longer than 4 MiB".into()));
            }
            match piece(&mut self.inlet, &mut self.decoder).await? {
                Some(data) => self.line.extend_from_slice(&data),
                None if self.line.is_empty() => return Ok(None),
                None => return Err(ClientError::Nonsense("the last line is cut".into())),
            }
        }
    }

    /// The connection itself, after an answer that gives it away.
    pub fn into_stream(self) -> Hijacked {
        // A client waits for nothing while the daemon's words are unread.
        let has_gone = Box::new(|| false);
        Hijacked { reader: self.inlet.into_reader(), writer: self.writer, has_gone }
    }
}
