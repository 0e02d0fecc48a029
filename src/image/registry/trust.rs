//! Whom we believe to be the server, and what time it is meanwhile.
//!
//! Trust comes from the box's own bundle of certificates and from `certs.d/<host[:port]>/*.crt`, as
//! docker has it; there is none in the program, so that operators have the last word. A certificate
//! that stands there itself is believed whatever else it says it may do: docker's own words make one
//! that says it is an issuer.
//!
//! A box without a battery for its clock boots in 1970. Where the clock is earlier than this program, a
//! certificate is judged by the latest time that is known to have been: that of the program, the one
//! that a certificate vouched for last, or the one at which the certificate itself began.

use super::der;
use super::failure::{Failure, Kind};
use crate::sys::clock;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

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
/// Certificates of one chain that may each have begun later than what is known of the time.
const LATER_MAX: usize = 8;

/// Tells the time since 1970, as the box believes it is.
pub type Clock = fn() -> Duration;

/// Everybody whom the box trusts to vouch for a server.
pub struct Trusted {
    roots: RootCertStore,
    /// What stands in the server's own directory.
    own: Vec<CertificateDer<'static>>,
}

impl Trusted {
    /// For the server whose own directory is `own`.
    pub fn read(own: &Path) -> Result<Trusted, Failure> {
        let mut trusted = Trusted { roots: RootCertStore::empty(), own: Vec::new() };
        let named = std::env::var_os(BUNDLE_VAR).map(PathBuf::from);
        let of_box = std::env::var_os(SYSTEM_VAR).map(|dir| Path::new(&dir).join(SYSTEM_BUNDLE));
        let usual = of_box.into_iter().chain(BUNDLES.map(PathBuf::from));
        let bundle = named.or_else(|| usual.into_iter().find(|path| path.exists()));
        if let Some(path) = bundle {
            trusted.add(certificates(&path)?);
        }
        let (mut found, mut empty) = (0, Vec::new());
        for path in files(own, "crt") {
            let all = certificates(&path)?;
            match trusted.add(all.clone()) {
                0 => empty.push(path),
                count => found += count,
            }
            trusted.own.extend(all);
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
        match trusted.roots.is_empty() {
            true => Err(Failure::new(
                Kind::Untrusted,
                format!(
                    "this box trusts no certificates: install the package ca-certificates, or put \
                     the registry's own as {}/ca.crt",
                    own.display()
                ),
            )),
            false => Ok(trusted),
        }
    }

    /// How many of them can be used.
    fn add(&mut self, found: Vec<CertificateDer<'static>>) -> usize {
        self.roots.add_parsable_certificates(found).0
    }
}

/// Files of a directory whose names end so, in order.
pub fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).into_iter().flatten().flatten().map(|item| item.path());
    let mut all: Vec<PathBuf> =
        all.filter(|path| path.extension().is_some_and(|own| own == end)).collect();
    all.sort();
    all
}

/// The certificates of a file that are PEM; what else is there is passed over.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    Ok(CertificateDer::pem_slice_iter(&read(path)?).filter_map(Result::ok).collect())
}

/// A file of certificates or keys.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(PEM_MAX).read_to_end(&mut text));
    read.map_err(|err| Failure::new(Kind::Here, format!("cannot read {}: {err}", path.display())))?;
    Ok(text)
}

/// Takes a server for what somebody trusted vouches for.
#[derive(Debug)]
pub struct Checked {
    vouched: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
    clock: Clock,
}

impl Checked {
    /// By whom `trusted` has, at the time that `clock` tells.
    pub fn new(
        trusted: Trusted,
        provider: Arc<CryptoProvider>,
        clock: Clock,
    ) -> Result<Checked, Failure> {
        let Trusted { roots, own } = trusted;
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let here = |err| Failure::new(Kind::Here, format!("TLS: {err}"));
        Ok(Checked { vouched: built.map_err(here)?, own, clock })
    }

    /// At this time.
    fn judge(&self, shown: &Shown<'_>, at: Duration) -> Result<ServerCertVerified, Error> {
        let Shown { leaf, others, name, ocsp } = *shown;
        let now = UnixTime::since_unix_epoch(at);
        match self.vouched.verify_server_cert(leaf, others, name, ocsp, now) {
            Err(_) if self.own.contains(leaf) => is_itself(leaf, name, at),
            judged => judged,
        }
    }
}

/// What a server shows of itself.
struct Shown<'a> {
    leaf: &'a CertificateDer<'a>,
    others: &'a [CertificateDer<'a>],
    name: &'a ServerName<'a>,
    ocsp: &'a [u8],
}

/// Whether a certificate that the operator put there himself is for this server and this time.
fn is_itself(
    leaf: &CertificateDer<'_>,
    name: &ServerName<'_>,
    at: Duration,
) -> Result<ServerCertVerified, Error> {
    let (from, until) = der::validity(leaf).ok_or(CertificateError::BadEncoding)?;
    let [time, not_before, not_after] = [at, from, until].map(UnixTime::since_unix_epoch);
    if at < from {
        return Err(CertificateError::NotValidYetContext { time, not_before }.into());
    }
    if at > until {
        return Err(CertificateError::ExpiredContext { time, not_after }.into());
    }
    verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
    Ok(ServerCertVerified::assertion())
}

impl ServerCertVerifier for Checked {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = Shown { leaf, others, name, ocsp };
        let now = (self.clock)();
        if now >= clock::WRITTEN {
            let judged = self.judge(&shown, now);
            if judged.is_ok() {
                clock::vouch(now);
            }
            return judged;
        }
        let mut at = clock::WRITTEN.max(clock::vouched());
        let mut judged = self.judge(&shown, at);
        for _ in 0..LATER_MAX {
            let Some(later) = begins_later(&judged, at) else { break };
            at = later;
            judged = self.judge(&shown, at);
        }
        judged
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.vouched.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.vouched.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.vouched.supported_verify_schemes()
    }
}

/// When what was judged as not yet good at `at` begins to be.
fn begins_later(judged: &Result<ServerCertVerified, Error>, at: Duration) -> Option<Duration> {
    match judged {
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before, ..
        })) => Some(Duration::from_secs(not_before.as_secs())).filter(|later| *later > at),
        _ => None,
    }
}

/// For registries that the operator has named insecure: takes any certificate, but the server must
/// hold its key.
pub struct Unchecked(pub Arc<CryptoProvider>);

impl fmt::Debug for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unchecked")
    }
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
