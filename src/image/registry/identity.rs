//! Who we are for servers that want to know: each `*.cert` of the server's own directory with the `*.key`
//! of that name, as docker has it.

use super::der;
use super::failure::{Failure, Kind};
use super::trust;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// All that we can show.
#[derive(Debug)]
pub struct Identity(Vec<Arc<CertifiedKey>>);

impl Identity {
    /// What the directory `own` holds; `None`: nothing.
    pub fn read(own: &Path, provider: &CryptoProvider) -> Result<Option<Identity>, Failure> {
        let broken = |path: &Path, why: &dyn fmt::Display| {
            Failure::new(Kind::Here, format!("{}: {why}", path.display()))
        };
        for (one, other) in [("cert", "key"), ("key", "cert")] {
            let alone = trust::files(own, one).into_iter();
            if let Some(path) = alone.into_iter().find(|it| !it.with_extension(other).exists()) {
                let beside = path.with_extension(other);
                let why = format!(
                    "there is no {} beside it: a certificate of ours is a .cert and a .key of one \
                     name, an issuer's is a .crt",
                    beside.file_name().unwrap_or_default().display()
                );
                return Err(broken(&path, &why));
            }
        }
        let mut all = Vec::new();
        for path in trust::files(own, "cert") {
            let chain: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(&trust::read(&path)?).collect();
            let chain = chain.map_err(|err| broken(&path, &err))?;
            let at = path.with_extension("key");
            let key = PrivateKeyDer::from_pem_slice(&trust::read(&at)?);
            let key = key.map_err(|err| broken(&at, &err))?;
            let one = CertifiedKey::from_der(chain, key, provider);
            all.push(Arc::new(one.map_err(|err| broken(&path, &err))?));
        }
        Ok((!all.is_empty()).then_some(Identity(all)))
    }
}

impl ResolvesClientCert for Identity {
    /// The first whose maker the server names; where it names none of them, the first: it says then
    /// what is wrong.
    fn resolve(&self, makers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let mut usable = self.0.iter().filter(|one| one.key.choose_scheme(schemes).is_some());
        let is_named = |one: &&Arc<CertifiedKey>| {
            let mut made_by = one.cert.iter().filter_map(|certificate| der::issuer(certificate));
            made_by.any(|maker| makers.contains(&maker))
        };
        let named = usable.clone().find(is_named);
        named.or_else(|| usable.next()).cloned()
    }

    fn has_certs(&self) -> bool {
        true
    }
}
