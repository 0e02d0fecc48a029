//! TLS for registries: the part of a connection that encrypts it. Whom we trust is told in
//! [`super::trust`], who we are in [`super::identity`].

use super::failure::{Failure, Kind};
use super::identity::Identity;
use super::trust::{Checked, Clock, Trusted, Unchecked};
use crate::sys::clock;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::fmt;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};

/// The part of a connection that makes it TLS when its URL says so.
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// For the server `authority`. With `unchecked` any certificate will do.
    pub fn new(authority: &str, certs: &Path, unchecked: bool) -> Result<Tls, Failure> {
        made(&certs.join(authority), unchecked, clock::wall).map(|config| Tls(Arc::new(config)))
    }
}

/// What servers without a directory of their own have in common, which is most of it: however many a
/// registry sends us to, whom the box trusts is in memory once.
#[derive(Default)]
pub struct Common(Mutex<[Option<Arc<ClientConfig>>; 2]>);

impl Common {
    /// As [`Tls::new`], by this clock.
    pub fn tls(
        &self,
        authority: &str,
        certs: &Path,
        unchecked: bool,
        clock: Clock,
    ) -> Result<Tls, Failure> {
        let own = certs.join(authority);
        if own.exists() {
            return made(&own, unchecked, clock).map(|config| Tls(Arc::new(config)));
        }
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let one = &mut both[usize::from(unchecked)];
        if let Some(config) = one {
            return Ok(Tls(config.clone()));
        }
        let config = Arc::new(made(&own, unchecked, clock)?);
        *one = Some(config.clone());
        Ok(Tls(config))
    }
}

/// For the server whose own directory is `own`.
fn made(own: &Path, unchecked: bool, clock: Clock) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(ring::default_provider());
    let here = |err: rustls::Error| Failure::new(Kind::Here, format!("TLS: {err}"));
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(here)?.dangerous();
    let identity = Identity::read(own, &provider)?;
    let builder = match unchecked {
        true => builder.with_custom_certificate_verifier(Arc::new(Unchecked(provider))),
        false => {
            let checked = Checked::new(Trusted::read(own)?, provider, clock)?;
            builder.with_custom_certificate_verifier(Arc::new(checked))
        }
    };
    Ok(match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(identity)),
        None => builder.with_no_client_auth(),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A hostile registry may send us to a new name with every answer.
    #[test]
    fn servers_without_a_directory_share_what_is_large() {
        let dir = std::env::temp_dir().join(format!("terrarium-tls-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("own.lan")).expect("directory");
        let common = Common::default();
        let tls = |name: &str| common.tls(name, &dir, true, clock::wall).expect("tls").0;
        let (one, other, own) = (tls("one.lan"), tls("other.lan:1"), tls("own.lan"));
        assert!(Arc::ptr_eq(&one, &other) && !Arc::ptr_eq(&one, &own));
        std::fs::remove_dir_all(dir).expect("remove");
    }
}
