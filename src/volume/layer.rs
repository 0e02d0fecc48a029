//! Read-only layers, and the drafts they are made from.

use super::VolumeError;
use super::store::{LAYERS, Store, TMP, names};
use crate::sys::{btrfs, fault, file};
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

    /// Makes each draft the layer that goes with it: all are durable before any is visible, and of
    /// those that somebody else has made meanwhile, theirs stay. Those before one that fails are
    /// layers all the same. The disk is waited for as often as for one.
    pub fn commit_all(&self, drafts: &[(Draft<'_>, Digest)]) -> Result<(), VolumeError> {
        self.commit_with(drafts, || Ok(()))
    }

    /// The same; when the layers are visible `publish` shows files that speak of them, and that lie in
    /// the store since before. The disk has these, too, before they are visible, and is not waited for
    /// more often: a crash leaves all, or the layers without them.
    pub fn commit_with(
        &self,
        drafts: &[(Draft<'_>, Digest)],
        publish: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), VolumeError> {
        let mut open = Vec::with_capacity(drafts.len());
        for (draft, chain) in drafts.iter().filter(|(_, chain)| self.layer(chain).is_none()) {
            let root =
                File::open(&draft.dir).map_err(VolumeError::refused("commit", &draft.dir))?;
            open.push((draft, chain, root));
        }
        let write_down = || {
            btrfs::sync(self.root.as_fd()).map_err(VolumeError::refused("write down", &self.dir))
        };
        write_down()?;
        fault::point(format_args!("layer:written"));
        let (mut made, mut shown) = (Vec::with_capacity(open.len()), Ok(()));
        for (draft, chain, root) in &open {
            match draft.show(chain) {
                Ok(true) => made.push((chain, root)),
                Ok(false) => {}
                Err(err) => {
                    shown = Err(err);
                    break;
                }
            }
        }
        fault::point(format_args!("layer:placed"));
        // Renamings reach the disk in their order.
        let refused = || VolumeError::refused("write what speaks of layers in", &self.dir);
        let shown = shown.and_then(|()| publish().map_err(refused()));
        fault::point(format_args!("layer:listed"));
        // Nobody who is told of them may find them gone after a power cut. Sealing is a commit: it has
        // written down what was renamed before. What is visible is sealed, whatever came after it.
        let sealed = match made.is_empty() {
            true => write_down(),
            false => {
                let sealed = made.into_iter().map(|(chain, root)| self.seal(chain, root));
                // All of them, and then the first that failed.
                sealed.collect::<Vec<_>>().into_iter().collect()
            }
        };
        shown.and(sealed)?;
        fault::point(format_args!("layer:sealed"));
        Ok(())
    }

    /// Makes a layer read-only, which writes down everything up to now. Only when it has its place: a
    /// read-only subvolume cannot move to another directory. `Store::open` repeats it when a crash comes
    /// between.
    fn seal(&self, chain: &Digest, root: &File) -> Result<(), VolumeError> {
        let target = self.layer_path(chain);
        btrfs::set_read_only(root.as_fd()).map_err(VolumeError::refused("seal", target))
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
        let store = self.store;
        store.commit_all(&[(self, *chain)])?;
        Ok(store.layer_path(chain))
    }

    /// Gives a draft that is on the disk its place among the layers; `false`: somebody else's has it.
    fn show(&self, chain: &Digest) -> Result<bool, VolumeError> {
        let target = self.store.layer_path(chain);
        match file::rename_new(&c_path(&self.dir), &c_path(&target)) {
            Ok(()) => Ok(true),
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(source) => {
                Err(VolumeError::Refused { doing: "commit", path: self.dir.clone(), source })
            }
        }
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
