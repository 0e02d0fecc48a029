//! TLS for registries: whom we trust, who we are, and what time it is.
//!
//! Trust comes from the box's own bundle of certificates and from `certs.d/<host[:port]>/*.crt`, as
//! docker has it; there is none in the program, so that operators have the last word. A box without
//! a battery for its clock boots in 1970: no certificate is judged by a time before this program
//! was written.

use super::failure::{Failure, Kind};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore};
use rustls::{SignatureScheme, StreamOwned};
use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};

/// Where distributions keep the certificates that they trust.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Names the bundle instead, as for OpenSSL's programs.
const BUNDLE_VAR: &str = "SSL_CERT_FILE";
/// In a container: the directory with the bundle of its box, and the bundle's name there.
const SYSTEM_VAR: &str = "CF_SYSTEM_CERT_PATH";
const SYSTEM_BUNDLE: &str = "trusted-ca-1.crt";
/// Longest file of certificates or keys.
const PEM_MAX: u64 = 4 << 20;
/// 2026-11-01: no box is older than this program.
const NOT_BEFORE: Duration = Duration::from_secs(1_793_491_200);

/// The part of a connection that makes it TLS when its URL says so.
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// For the server `authority`. With `unchecked` any certificate will do.
    pub fn new(authority: &str, certs: &Path, unchecked: bool) -> Result<Tls, Failure> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(Clock));
        let here = |err: rustls::Error| Failure::new(Kind::Here, format!("TLS: {err}"));
        let builder = builder.with_safe_default_protocol_versions().map_err(here)?;
        let own = certs.join(authority);
        let builder = match unchecked {
            true => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked(provider)))
            }
            false => builder.with_root_certificates(roots(&own)?),
        };
        let config = match identity(&own)? {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|err| {
                let text = format!("the client certificate in {}: {err}", own.display());
                Failure::new(Kind::Here, text)
            })?,
            None => builder.with_no_client_auth(),
        };
        Ok(Tls(Arc::new(config)))
    }
}

/// Everybody whom the box trusts to vouch for the server.
fn roots(own: &Path) -> Result<RootCertStore, Failure> {
    let mut store = RootCertStore::empty();
    let named = std::env::var_os(BUNDLE_VAR).map(PathBuf::from);
    let of_box = std::env::var_os(SYSTEM_VAR).map(|dir| Path::new(&dir).join(SYSTEM_BUNDLE));
    let usual = of_box.into_iter().chain(BUNDLES.map(PathBuf::from));
    let bundle = named.or_else(|| usual.into_iter().find(|path| path.exists()));
    let extra = fs::read_dir(own).into_iter().flatten().flatten().map(|item| item.path());
    let extra = extra.filter(|path| path.extension().is_some_and(|end| end == "crt"));
    if let Some(path) = bundle {
        add(&mut store, &path)?;
    }
    let (mut found, mut empty) = (0, Vec::new());
    for path in extra {
        match add(&mut store, &path)? {
            0 => empty.push(path),
            count => found += count,
        }
    }
    if let (0, Some(path)) = (found, empty.first()) {
        let text = format!(
            "{} holds no certificate: put the registry's issuer there as PEM (it begins with \
             -----BEGIN CERTIFICATE-----), or remove the file",
            path.display()
        );
        return Err(Failure::new(Kind::Untrusted, text));
    }
    for path in empty {
        crate::warn!("registry.no_certificate", path = path.display());
    }
    match store.is_empty() {
        true => Err(Failure::new(
            Kind::Untrusted,
            format!(
                "this box trusts no certificates: install the package ca-certificates, or put the \
                 registry's own as {}/ca.crt",
                own.display()
            ),
        )),
        false => Ok(store),
    }
}

/// Adds the certificates of a file; how many it holds that can be used.
fn add(store: &mut RootCertStore, path: &Path) -> Result<usize, Failure> {
    let text = read(path)?;
    let found = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok);
    Ok(store.add_parsable_certificates(found).0)
}

/// Who we are for servers that ask: `client.cert` and `client.key`.
fn identity(
    own: &Path,
) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, Failure> {
    let (cert, key) = (own.join("client.cert"), own.join("client.key"));
    if !cert.exists() {
        return Ok(None);
    }
    let broken = |path: &Path, why: &dyn fmt::Display| {
        Failure::new(Kind::Here, format!("{}: {why}", path.display()))
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(&cert)?).collect();
    let chain = chain.map_err(|err| broken(&cert, &err))?;
    let key_der = PrivateKeyDer::from_pem_slice(&read(&key)?).map_err(|err| broken(&key, &err))?;
    Ok(Some((chain, key_der)))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(PEM_MAX).read_to_end(&mut text));
    read.map_err(|err| Failure::new(Kind::Here, format!("cannot read {}: {err}", path.display())))?;
    Ok(text)
}

/// The box's clock, but never before this program.
#[derive(Debug)]
struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(UnixTime::since_unix_epoch(now.max(NOT_BEFORE)))
    }
}

/// For registries that the operator has named insecure: takes any certificate, but the server must
/// hold its key.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, Session>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(below) = chained else { return Ok(None) };
        if !details.needs_tls() || below.is_tls() {
            return Ok(Some(Either::A(below)));
        }
        let host = details.uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare).map_err(|err| ureq::Error::Other(Box::new(err)))?;
        let mut conn = ClientConnection::new(self.0.clone(), name)
            .map_err(|err| ureq::Error::Other(Box::new(err)))?;
        let mut sock = TransportAdapter::new(below.boxed(), details.current_time.clone());
        sock.set_timeout(details.timeout);
        conn.complete_io(&mut sock)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Either::B(Session { buffers, stream: StreamOwned { conn, sock } })))
    }
}

/// An encrypted connection.
pub struct Session {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

impl Transport for Session {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let read = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
