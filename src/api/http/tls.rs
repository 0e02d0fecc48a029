//! TLS before a listener: what comes in is decrypted and handed on, so that everything behind it sees
//! a connection as any other.
//!
//! Each connection has a pair of sockets within the program: one end is the server's, the other is
//! pumped here. The server's bounds hold for all of it: who takes too long over a handshake has sent no
//! head in time. What the server says before a client has shaken hands, as to one too many, waits for that
//! as long as few do.

use super::accept::{Caller, Listener};
use super::body::within;
use super::server::{Crowd, Guard, HEARD_BYTES, HEARD_MAX, HEARD_TIME};
use crate::sys::sockbuf;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use smol::channel::{Receiver, Sender, bounded};
use smol::future;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::unix::UnixStream;
use smol::net::{TcpListener, TcpStream};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a client may take nothing of what is there for it.
const STALL: Duration = Duration::from_secs(60);

/// How long the last words of a server wait for a handshake.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Bytes that are moved at once: the longest record of TLS.
const PIECE: usize = 16 << 10;
/// Longest file of certificates or keys.
const PEM_MAX: u64 = 4 << 20;

/// A listener whose clients speak TLS.
pub struct TlsListener {
    inner: TcpListener,
    config: Arc<ServerConfig>,
    /// Connections whose server has ended.
    parting: Arc<AtomicUsize>,
    /// Who was not admitted.
    refused: Arc<Mutex<Crowd>>,
}

/// Reads who we are (`chain`, `key`) and, when `issuers` are named, whose certificates clients must
/// have. `Err` names the file, what is wrong, and what to do.
pub fn config(chain: &Path, key: &Path, issuers: Option<&Path>) -> Result<ServerConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let here = |err: rustls::Error| format!("TLS: {err}");
    let builder = builder.with_safe_default_protocol_versions().map_err(here)?;
    let builder = match issuers {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(certificates(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(store.into(), provider);
            let verifier = verifier.build().map_err(|err| {
                format!(
                    "{}: {err}; put the issuer of the clients' certificates there",
                    path.display()
                )
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let read_key = PrivateKeyDer::from_pem_slice(&pem(key)?).map_err(|_| {
        format!("{} holds no private key; write it there as PEM, unencrypted", key.display())
    })?;
    let made = builder.with_single_cert(certificates(chain)?, read_key);
    made.map_err(|err| {
        format!("{} and {} do not go together: {err}", chain.display(), key.display())
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = pem(path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok).collect();
    match found.is_empty() {
        true => Err(format!(
            "{} holds no certificate; write it there as PEM (it begins with \
             -----BEGIN CERTIFICATE-----)",
            path.display()
        )),
        false => Ok(found),
    }
}

fn pem(path: &Path) -> Result<Vec<u8>, String> {
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(PEM_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|err: io::Error| format!("cannot read {}: {err}", path.display()))
}

impl TlsListener {
    /// Takes connections from `inner`.
    pub fn new(inner: TcpListener, config: ServerConfig) -> TlsListener {
        TlsListener {
            inner,
            config: Arc::new(config),
            parting: Arc::default(),
            refused: Arc::default(),
        }
    }
}

/// Takes note of one that was not admitted. How many the log is to tell of, when it is time for that.
fn count(refused: &Mutex<Crowd>, is_refused: bool) -> Option<usize> {
    let mut crowd = refused.lock().unwrap_or_else(PoisonError::into_inner);
    crowd.count(is_refused, Instant::now())
}

impl Listener for TlsListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, Caller)> {
        let (outer, from) = self.inner.accept().await?;
        let _ = outer.set_nodelay(true);
        let _ = sockbuf::keep_alive(&outer);
        let (ours, servers) = UnixStream::pair()?;
        // Those of whom nothing was said as others had just been told of.
        if let Some(refused) = count(&self.refused, false) {
            crate::info!("api.tls_refused", refused = refused);
        }
        let (config, parting) = (self.config.clone(), self.parting.clone());
        let refused = self.refused.clone();
        smol::spawn(async move {
            let ended = match ServerConnection::new(config) {
                Ok(connection) => Pump::new(connection, outer, parting).run(ours).await,
                Err(err) => Err(io::Error::other(err)),
            };
            // That one has gone away is nothing to tell; that one was not admitted is.
            if let Err(err) = ended
                && err.kind() == io::ErrorKind::Other
                && let Some(refused) = count(&refused, true)
            {
                crate::info!("api.tls_refused", from = from, err = err, refused = refused);
            }
        })
        .detach();
        Ok((servers, Caller::Remote(from)))
    }
}

/// One connection.
struct Pump {
    connection: Mutex<ServerConnection>,
    /// Records go out one after the other, whichever way caused them.
    out: smol::lock::Mutex<TcpStream>,
    /// Closed when both sides have shaken hands.
    shaken: (Sender<()>, Receiver<()>),
    parting: Arc<AtomicUsize>,
}

impl Pump {
    fn new(connection: ServerConnection, outer: TcpStream, parting: Arc<AtomicUsize>) -> Pump {
        let (connection, out) = (Mutex::new(connection), smol::lock::Mutex::new(outer));
        Pump { connection, out, shaken: bounded(1), parting }
    }

    /// Until the server has ended, or either side breaks.
    async fn run(&self, inner: UnixStream) -> io::Result<()> {
        let outer = self.out.lock().await.clone();
        let in_ways = async {
            self.decrypt(outer.clone(), inner.clone()).await?;
            // The client has said all; the server may still have something to say.
            future::pending::<io::Result<()>>().await
        };
        let out_way = async {
            self.encrypt(inner.clone()).await?;
            if self.connection().is_handshaking() {
                // Who has not shaken hands yet can read none of it.
                let Some(_guard) = Guard::take(&self.parting, HEARD_MAX) else { return Ok(()) };
                if within(LAST_WORDS, self.shaken.1.recv()).await.is_none() {
                    return Ok(());
                }
            }
            self.connection().send_close_notify();
            self.flush().await
        };
        future::or(in_ways, out_way).await?;
        self.hear_out(outer).await;
        Ok(())
    }

    /// Closed with something of the client unread, the connection would break, and what was said last be
    /// lost to it.
    async fn hear_out(&self, mut outer: TcpStream) {
        let Some(_guard) = Guard::take(&self.parting, HEARD_MAX) else { return };
        if outer.shutdown(std::net::Shutdown::Write).is_err() {
            return;
        }
        let hear = async {
            let (mut left, mut piece) = (HEARD_BYTES, [0; 1024]);
            while let Ok(count @ 1..) = outer.read(&mut piece).await {
                left = left.saturating_sub(count);
                if left == 0 {
                    return;
                }
            }
        };
        within(HEARD_TIME, hear).await;
    }

    fn connection(&self) -> MutexGuard<'_, ServerConnection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the client to the server.
    async fn decrypt(&self, mut outer: TcpStream, mut inner: UnixStream) -> io::Result<()> {
        let (mut coded, mut plain) = (vec![0; PIECE], vec![0; PIECE]);
        loop {
            let count = outer.read(&mut coded).await?;
            let mut rest = &coded[..count];
            loop {
                let (taken, is_over) = {
                    let mut connection = self.connection();
                    let taken = connection.read_tls(&mut rest)?;
                    let state = connection.process_new_packets();
                    (taken, state.map(|state| state.peer_has_closed()))
                };
                if !self.connection().is_handshaking() {
                    self.shaken.0.close();
                }
                // Also why a handshake was refused is told.
                self.flush().await?;
                let is_over = is_over.map_err(io::Error::other)? || count == 0;
                loop {
                    // Nothing there now is an error of its own, and no end.
                    let read = self.connection().reader().read(&mut plain);
                    match read {
                        // A server that hears no more may still have said something.
                        Ok(count @ 1..) => drop(inner.write_all(&plain[..count]).await),
                        _ => break,
                    }
                }
                if is_over {
                    let _ = inner.shutdown(std::net::Shutdown::Write);
                    return Ok(());
                }
                if rest.is_empty() || taken == 0 {
                    break;
                }
            }
        }
    }

    /// From the server to the client.
    async fn encrypt(&self, mut inner: UnixStream) -> io::Result<()> {
        let mut plain = vec![0; PIECE];
        loop {
            let count = inner.read(&mut plain).await?;
            if count == 0 {
                return Ok(());
            }
            let mut rest = &plain[..count];
            while !rest.is_empty() {
                // Takes what its buffer has room for.
                let taken = self.connection().writer().write(rest)?;
                if taken == 0 {
                    // There is no handshake yet, and more to say than is kept for after it.
                    return Err(io::ErrorKind::WriteZero.into());
                }
                rest = &rest[taken..];
                self.flush().await?;
            }
        }
    }

    /// Sends what is ready.
    async fn flush(&self) -> io::Result<()> {
        let mut out = self.out.lock().await;
        loop {
            let mut ready = Vec::new();
            {
                let mut connection = self.connection();
                while connection.wants_write() {
                    connection.write_tls(&mut ready)?;
                }
            }
            if ready.is_empty() {
                return Ok(());
            }
            let mut rest = &ready[..];
            while !rest.is_empty() {
                // One that takes nothing any more would be waited for long after its server has gone.
                let taken =
                    within(STALL, out.write(rest)).await.ok_or(io::ErrorKind::TimedOut)??;
                if taken == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                rest = &rest[taken..];
            }
        }
    }
}
