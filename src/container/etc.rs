//! Files that tell a container who it is and whom to ask: /etc/hosts, resolv.conf and hostname.
//!
//! An app sees those of its depot entry and cannot change them. Root of a Garden client's container
//! may, as its clients expect; then they lie on the container's own disk, within its limit: on the
//! box's they could grow until it is full. Peas see the very same files.

use super::depot::{self, Entry};
use super::host::Host;
use super::posture::Posture;
use super::spec::RootDriver;
use crate::init::proto::Bind;
use crate::sys::at;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// The files.
const NAMES: [&str; 3] = ["hosts", "resolv.conf", "hostname"];

/// Where they are on a container's own disk, beside its upper directory.
const ON_DISK: &str = "etc";

impl Host {
    /// Writes them. The disk is there already.
    pub(super) fn write_etc(&self, entry: &Entry) -> io::Result<()> {
        let (names, addresses) = (&self.resolvers, self.net.addresses(entry.slot));
        let name = entry.spec.host_name();
        let texts = [
            names.hosts(name, addresses.container),
            names.resolv_conf(addresses.gateway),
            format!("{name}\n"),
        ];
        let dir = self.etc_dir(entry);
        if is_its_own(entry) {
            fs::create_dir(&dir)?;
        }
        for (name, text) in NAMES.into_iter().zip(texts) {
            // It may have been made ahead.
            let mut file = depot::empty_file(&dir.join(name), 0o644)?;
            file.write_all(text.as_bytes())?;
            file.set_permissions(PermissionsExt::from_mode(0o644))?;
            if is_its_own(entry) {
                let root = entry.ids().root();
                at::set_owner(&file, root, root)?;
            }
        }
        Ok(())
    }

    /// How they show up inside.
    pub(super) fn etc_binds(&self, entry: &Entry) -> Vec<Bind> {
        let dir = self.etc_dir(entry);
        let bind = |name: &str| Bind {
            from: dir.join(name),
            origin: Default::default(),
            to: format!("/etc/{name}"),
            read_only: !is_its_own(entry),
            mapped: false,
            ours: false,
        };
        NAMES.map(bind).into()
    }

    fn etc_dir(&self, entry: &Entry) -> PathBuf {
        let handle = &entry.spec.handle;
        match is_its_own(entry) {
            true => self.store.writable_path(handle).join(ON_DISK),
            false => self.depot.dir(handle),
        }
    }
}

/// Root inside may change them. A snapshot is a root as a whole: there is no place beside it.
fn is_its_own(entry: &Entry) -> bool {
    entry.spec.posture != Posture::App && entry.spec.root == RootDriver::Union
}
