//! Opening, measuring and closing the store.

use super::VolumeError;
use super::counters::Counters;
use super::keeper::Keeper;
use super::loopfile::LoopFile;
use super::pin::{Pins, Turns};
use super::plan;
use super::promise::Promises;
use super::usage::Counted;
use crate::sys::btrfs::{self, QuotaKind};
use crate::sys::file;
use crate::unit::{Bytes, Digest};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The layout that this program reads and writes.
const VERSION: &str = "1";
/// Read-only layers.
pub(super) const LAYERS: &str = "layers";
/// Drafts.
pub(super) const TMP: &str = "tmp";
/// Writable subvolumes.
pub(super) const CONTAINERS: &str = "containers";
/// What `image` remembers.
const IMPORTS: &str = "imports";
/// Where `sysfs` has the quota groups; there only while quota is on.
pub(super) const QGROUPS: &str = "qgroups";

/// Where the store is and how large its file may become.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Where it is mounted, or a directory on a btrfs that is there already.
    pub dir: PathBuf,
    /// The loop file, used when `dir` is not on btrfs; must not lie inside `dir`.
    pub file: PathBuf,
    /// Greatest size of the loop file.
    pub size_max: Bytes,
    /// Disks have the limits that they are made with. `false`: those that are made from here on have
    /// none. The room that was asked for is made sure of, and who writes more takes what others are
    /// not promised yet. Disks that were made with a limit keep it until they get another.
    pub limited: bool,
}

/// How often an unmount is tried, and how long we wait in between.
const UNMOUNT_TRIES: u32 = 50;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(20);

/// Unmounts `dir`. A program that is just being started holds copies of our descriptors for a
/// moment, and a container that has just ended lets go of its layers a little later than its
/// processes: `Busy` counts only when it lasts.
fn unmount(dir: &Path) -> io::Result<()> {
    for _ in 1..UNMOUNT_TRIES {
        match btrfs::unmount(dir) {
            Err(err) if err.kind() == io::ErrorKind::ResourceBusy => {
                // No event: the kernel does not tell when a mount is no longer in use.
                std::thread::sleep(UNMOUNT_PAUSE);
            }
            done => return done,
        }
    }
    btrfs::unmount(dir)
}

/// What the store is built on.
#[derive(Debug)]
enum Backing {
    /// A btrfs that somebody else made and mounted.
    Partition,
    /// Our own file.
    Loop(LoopFile),
}

/// The open store. Shared by reference; every method may be called from several threads.
#[derive(Debug)]
pub struct Store {
    pub(super) dir: PathBuf,
    /// The directory itself; all ioctls that concern the file system as a whole go to it.
    pub(super) root: File,
    pub(super) quota: QuotaKind,
    /// `/sys/fs/btrfs/<id>`, where the kernel shows its counters.
    pub(super) sysfs: PathBuf,
    pub(super) counters: Counters,
    backing: Backing,
    /// Held while the store grows.
    pub(super) promises: Mutex<Promises>,
    /// The file has grown for what nobody needs.
    pub(super) widened: AtomicBool,
    /// Names of drafts.
    pub(super) drafts: AtomicU64,
    /// Layers that stay for now.
    pub(super) pins: Arc<Mutex<Pins>>,
    /// What is being made.
    pub(super) turns: Turns,
    /// Quota groups of snapshots that are gone.
    pub(super) retired: Mutex<BTreeSet<u64>>,
    /// When everything was last counted.
    pub(super) counted: Mutex<Counted>,
    /// Who makes room.
    pub(super) keeper: Keeper,
    /// It was this opening that mounted it.
    mounted_now: bool,
}

impl Store {
    /// Opens the store; makes and mounts it when it is not there yet; removes what an
    /// interrupted import left in it.
    pub fn open(config: StoreConfig) -> Result<Store, VolumeError> {
        let refused = |doing| VolumeError::refused(doing, &config.dir);
        make_dir(&config.dir).map_err(refused("make"))?;
        let dir = fs::canonicalize(&config.dir).map_err(refused("find"))?;
        let (backing, mounted_now) = find_backing(&dir, &config)?;
        let opened = Store::set_up(&dir, backing, config.limited);
        if opened.is_err() && mounted_now {
            // The loop device lets go of the file by itself when its mount is gone.
            let _ = btrfs::unmount(&dir);
        }
        opened.map(|store| Store { mounted_now, ..store })
    }

    /// Closes a store that came to no use: it is as it was before [`Store::open`]. What was
    /// mounted then may serve containers, and stays.
    pub fn take_back(self) -> Result<(), VolumeError> {
        match self.mounted_now {
            true => self.close(),
            false => Ok(()),
        }
    }

    /// Makes the inside ready.
    fn set_up(dir: &Path, backing: Backing, limited: bool) -> Result<Store, VolumeError> {
        let refused = |doing| VolumeError::refused(doing, dir);
        let root = File::open(dir).map_err(refused("open"))?;
        // Before anything is in it: nobody on the host may reach setuid programs of images.
        root.set_permissions(fs::Permissions::from_mode(0o700)).map_err(refused("close off"))?;
        if let Backing::Loop(file) = &backing {
            file.settle(root.as_fd())?;
        }
        check_version(dir)?;
        for name in [LAYERS, TMP, CONTAINERS, IMPORTS] {
            let path = dir.join(name);
            make_dir(&path).map_err(VolumeError::refused("make", path))?;
        }
        let id = btrfs::filesystem_id(root.as_fd()).map_err(refused("identify"))?;
        let sysfs = PathBuf::from(format!("/sys/fs/btrfs/{id}"));
        let quota =
            ensure_quota(&root, &sysfs.join(QGROUPS)).map_err(refused("switch on quota in"))?;
        let promises = Mutex::new(Promises::new(limited));
        let (widened, drafts, pins, turns, retired, counted, keeper) = Default::default();
        let (dir, mounted_now) = (dir.to_owned(), false);
        let store = Store {
            dir,
            root,
            quota,
            counters: Counters::open(&sysfs),
            sysfs,
            backing,
            promises,
            widened,
            drafts,
            pins,
            turns,
            retired,
            counted,
            keeper,
            mounted_now,
        };
        store.remove_leftovers()?;
        store.seal_layers()?;
        store.sweep_qgroups();
        store.recall_promises()?;
        crate::info!("volume.opened", dir = store.dir.display(), free = store.free());
        Ok(store)
    }

    /// Where the store is. Only root can enter it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What may still be written before the store has to grow.
    pub fn free(&self) -> Bytes {
        let free = file::space(self.root.as_fd()).map_or(0, |space| space.free_bytes);
        // statfs does not know of data that is written but not yet on the device, which can be
        // more than the store is large; the allocator does.
        let pending = |counter: &str| {
            let text = fs::read_to_string(self.sysfs.join("allocation/data").join(counter));
            text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0u64)
        };
        let pending = pending("bytes_may_use").saturating_add(pending("bytes_reserved"));
        Bytes::new(free.saturating_sub(pending))
    }

    /// The loop file, when the store is in one.
    pub(super) fn loop_file(&self) -> Option<&LoopFile> {
        match &self.backing {
            Backing::Loop(file) => Some(file),
            Backing::Partition => None,
        }
    }

    /// Unmounts the store and waits until its loop device is free again. A store on somebody
    /// else's btrfs stays as it is. `Busy`: something in it is in use; it stays mounted.
    pub fn close(self) -> Result<(), VolumeError> {
        let Store { dir, root, backing, .. } = self;
        drop(root);
        let Backing::Loop(file) = backing else { return Ok(()) };
        match unmount(&dir) {
            Ok(()) => {}
            // EINVAL: somebody unmounted it before us.
            Err(err) if err.kind() == io::ErrorKind::InvalidInput => {}
            Err(err) if err.kind() == io::ErrorKind::ResourceBusy => {
                return Err(VolumeError::Busy { dir });
            }
            Err(source) => {
                return Err(VolumeError::Refused { doing: "unmount", path: dir, source });
            }
        }
        file.release()
    }

    /// Empties `tmp`.
    fn remove_leftovers(&self) -> Result<(), VolumeError> {
        for name in names(&self.dir.join(TMP))? {
            let path = self.dir.join(TMP).join(&name);
            self.destroy(TMP, &name).map_err(VolumeError::refused("remove", &path))?;
            crate::warn!("volume.leftover_removed", path = path.display());
        }
        Ok(())
    }

    /// Makes layers read-only whose import was interrupted between its last two steps.
    fn seal_layers(&self) -> Result<(), VolumeError> {
        for name in names(&self.dir.join(LAYERS))? {
            let path = self.dir.join(LAYERS).join(&name);
            if format!("sha256:{name}").parse::<Digest>().is_ok() {
                let sealed = File::open(&path).and_then(|layer| {
                    if btrfs::is_read_only(layer.as_fd())? {
                        return Ok(());
                    }
                    btrfs::set_read_only(layer.as_fd())
                });
                sealed.map_err(VolumeError::refused("seal", &path))?;
            }
        }
        Ok(())
    }
}

/// Names in one of our own directories that are text; we make no others.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, VolumeError> {
    let refused = || VolumeError::refused("list", dir);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(refused())? {
        names.extend(entry.map_err(refused())?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Makes `dir` and its parents, 0700; there already is fine.
fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Finds what the store is built on, and mounts it when that is our file. The flag says that the
/// mount is new.
fn find_backing(dir: &Path, config: &StoreConfig) -> Result<(Backing, bool), VolumeError> {
    let path = lexically_absolute(&config.file)?;
    let table = Path::new("/proc/thread-self/mountinfo");
    let mounts = fs::read(table).map_err(VolumeError::refused("read", table))?;
    let mounted = plan::mounted_at(&mounts, dir).filter(|mounted| mounted.kind == "btrfs");
    if let Some(number) = mounted.and_then(|mounted| plan::loop_number(&mounted.source))
        && let Some(file) = LoopFile::adopt(&path, number, config.size_max)?
    {
        return Ok((Backing::Loop(file), false));
    }
    let here = File::open(dir).and_then(|dir| file::space(dir.as_fd()));
    if here.map_err(VolumeError::refused("inspect", dir))?.magic == btrfs::MAGIC {
        return Ok((Backing::Partition, false));
    }
    if path.starts_with(dir) {
        return Err(VolumeError::FileInside { dir: dir.into(), file: path });
    }
    if let Some(parent) = path.parent() {
        make_dir(parent).map_err(VolumeError::refused("make", parent))?;
    }
    let file = LoopFile::attach(&path, config.size_max)?;
    match btrfs::mount(&file.device(), dir) {
        Ok(()) => Ok((Backing::Loop(file), true)),
        // ENODEV is about the file system's name, not the device.
        Err(err) if err.raw_os_error() == Some(19) => Err(VolumeError::NoBtrfs { dir: dir.into() }),
        Err(source) => {
            Err(VolumeError::Refused { doing: "mount the store at", path: dir.into(), source })
        }
    }
}

/// `path` from the root, without asking the file system: the file may not exist yet.
fn lexically_absolute(path: &Path) -> Result<PathBuf, VolumeError> {
    std::path::absolute(path).map_err(VolumeError::refused("find", path))
}

/// Refuses a layout that we do not know; marks a new store with ours.
fn check_version(dir: &Path) -> Result<(), VolumeError> {
    let path = dir.join("version");
    match fs::read_to_string(&path) {
        Ok(text) if text.trim() == VERSION => Ok(()),
        Ok(text) => {
            let found = text.chars().take(20).collect::<String>().trim().to_owned();
            Err(VolumeError::Newer { dir: dir.into(), found })
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            let draft = dir.join("version.new");
            let written = fs::write(&draft, format!("{VERSION}\n"))
                .and_then(|()| File::open(&draft)?.sync_all())
                .and_then(|()| fs::rename(&draft, &path));
            written.map_err(VolumeError::refused("write", &path))
        }
        Err(source) => Err(VolumeError::Refused { doing: "read", path, source }),
    }
}

/// Switches quota on unless it is on, preferring the kind that costs nothing; says which it is.
fn ensure_quota(root: &File, qgroups: &Path) -> io::Result<QuotaKind> {
    if let Some(kind) = quota_kind(qgroups) {
        return Ok(kind);
    }
    if btrfs::enable_quota(root.as_fd(), QuotaKind::Simple).is_ok() {
        return Ok(QuotaKind::Simple);
    }
    btrfs::enable_quota(root.as_fd(), QuotaKind::Full)?;
    crate::warn!("volume.full_quota", err = "no simple quota before Linux 6.7: removals cost more");
    Ok(QuotaKind::Full)
}

/// The kind of quota that is on, `None` when it is off: the directory comes with quota, the file
/// `mode` in it with Linux 6.7.
fn quota_kind(qgroups: &Path) -> Option<QuotaKind> {
    if !qgroups.exists() {
        return None;
    }
    match fs::read_to_string(qgroups.join("mode")).as_deref().map(str::trim) {
        Ok("squota") => Some(QuotaKind::Simple),
        Ok("disabled") => None,
        _ => Some(QuotaKind::Full),
    }
}
