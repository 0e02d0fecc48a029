//! Read-only layers, and the drafts they are made from.

use super::VolumeError;
use super::store::{LAYERS, Store, TMP, names};
use crate::sys::{btrfs, file};
use crate::unit::Digest;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// A layer in the making: a subvolume that disappears unless it is committed.
#[derive(Debug)]
pub struct Draft<'a> {
    store: &'a Store,
    name: String,
    dir: PathBuf,
}

impl Store {
    /// The directory of the layer, if it is here; then it is complete.
    pub fn layer(&self, chain: &Digest) -> Option<PathBuf> {
        let path = self.layer_path(chain);
        path.is_dir().then_some(path)
    }

    /// All layers.
    pub fn layers(&self) -> Result<Vec<Digest>, VolumeError> {
        let names = names(&self.dir.join(LAYERS))?;
        Ok(names.iter().filter_map(|name| format!("sha256:{name}").parse().ok()).collect())
    }

    /// Removes a layer, also one that is not there. The caller knows that no container uses it.
    pub fn remove_layer(&self, chain: &Digest) -> Result<(), VolumeError> {
        self.destroy(LAYERS, &chain.hex())
            .map_err(VolumeError::refused("remove", self.layer_path(chain)))
    }

    /// Starts a layer: an empty directory, 0755, owned by root.
    pub fn draft(&self) -> Result<Draft<'_>, VolumeError> {
        let draft = self.begin(|tmp, name| btrfs::create_subvolume(tmp.as_fd(), name))?;
        fs::set_permissions(&draft.dir, fs::Permissions::from_mode(0o755))
            .map_err(VolumeError::refused("make", &draft.dir))?;
        Ok(draft)
    }

    /// Starts a layer with everything that the layer `chain` holds, sharing its data.
    pub fn draft_of(&self, chain: &Digest) -> Result<Draft<'_>, VolumeError> {
        let path = self.layer_path(chain);
        let source = File::open(&path).map_err(VolumeError::refused("open", path))?;
        self.begin(|tmp, name| btrfs::create_snapshot(tmp.as_fd(), name, source.as_fd()))
    }

    /// Makes a draft's subvolume in `tmp`.
    fn begin(
        &self,
        make: impl FnOnce(&File, &str) -> io::Result<()>,
    ) -> Result<Draft<'_>, VolumeError> {
        let tmp = self.dir.join(TMP);
        // Names are free: `tmp` was emptied when the store was opened, and only we count.
        let name = self.drafts.fetch_add(1, Ordering::Relaxed).to_string();
        let dir = tmp.join(&name);
        File::open(&tmp)
            .and_then(|tmp| make(&tmp, &name))
            .map_err(VolumeError::refused("make", &dir))?;
        Ok(Draft { store: self, name, dir })
    }

    fn layer_path(&self, chain: &Digest) -> PathBuf {
        self.dir.join(LAYERS).join(chain.hex())
    }
}

impl Draft<'_> {
    /// Where to put the layer's files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the draft the layer `chain`, durable before it is visible, and returns its place. If
    /// somebody else was faster, theirs stays and this draft goes.
    pub fn commit(self, chain: &Digest) -> Result<PathBuf, VolumeError> {
        let target = self.store.layer_path(chain);
        if target.is_dir() {
            return Ok(target);
        }
        let refused = || VolumeError::refused("commit", &self.dir);
        let root = File::open(&self.dir).map_err(refused())?;
        btrfs::sync(root.as_fd()).map_err(refused())?;
        match file::rename_new(&c_path(&self.dir), &c_path(&target)) {
            Ok(()) => {}
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => return Ok(target),
            Err(source) => return Err(refused()(source)),
        }
        // Only now: a read-only subvolume cannot move to another directory. `Store::open` repeats
        // it when a crash comes between.
        btrfs::set_read_only(root.as_fd())
            .and_then(|()| btrfs::sync(root.as_fd()))
            .map_err(VolumeError::refused("seal", &target))?;
        Ok(target)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // After a commit there is nothing of this name any more, and that is success.
        if let Err(err) = self.store.destroy(TMP, &self.name) {
            crate::warn!("volume.draft_kept", path = self.dir.display(), err = err);
        }
    }
}

/// A path of ours for the kernel.
fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a canonical path holds no NUL")
}
