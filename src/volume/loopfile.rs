//! The store's own block device: a preallocated file behind a loop device.

use super::VolumeError;
use super::plan::{self, FileSize, Growth, Room};
use crate::sys::{btrfs, file, loopdev};
use crate::unit::Bytes;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How often another program may take the loop device that we were just offered.
const ATTACH_TRIES: u32 = 16;
/// How often, and how far apart, we look whether the loop device was let go. The kernel has no
/// message for it that reaches us, and does it a moment after the last close.
const RELEASE_TRIES: u32 = 100;
const RELEASE_PAUSE: Duration = Duration::from_millis(20);
/// Rounds of growth for one request: what btrfs makes of new room is not exact.
const GROW_ROUNDS: u32 = 4;

/// The file, the device before it, and the right to make both larger.
#[derive(Debug)]
pub struct LoopFile {
    path: PathBuf,
    file: File,
    device: File,
    number: u32,
    size_max: u64,
}

impl LoopFile {
    /// The file that is mounted as `device` already, or `None` when that is some other file.
    pub fn adopt(path: &Path, number: u32, size_max: Bytes) -> Result<Option<Self>, VolumeError> {
        let file = match open_file(path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(VolumeError::refused("open", path))?,
        };
        let device =
            loopdev::open(number).map_err(VolumeError::refused("open", loopdev::path(number)))?;
        let same = is_behind(&device, &file).map_err(VolumeError::refused("inspect", path))?;
        Ok(same.then(|| LoopFile::new(path, file, device, number, size_max)))
    }

    /// Opens the file, makes it first when there is none, and puts it behind a loop device.
    pub fn attach(path: &Path, size_max: Bytes) -> Result<LoopFile, VolumeError> {
        let file = match open_file(path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                make(path, size_max.get())?;
                open_file(path)
            }
            other => other,
        };
        let file = file.map_err(VolumeError::refused("open", path))?;
        // Never two devices over one file: btrfs would take them for one disk and break it.
        if let Some((number, device)) = attached(&file) {
            return Ok(LoopFile::new(path, file, device, number, size_max));
        }
        for _ in 0..ATTACH_TRIES {
            let number = loopdev::free_number().map_err(no_loop)?;
            let device = loopdev::open(number).map_err(no_loop)?;
            match loopdev::attach(device.as_fd(), file.as_fd()) {
                Ok(()) => return Ok(LoopFile::new(path, file, device, number, size_max)),
                Err(err) if err.kind() == io::ErrorKind::ResourceBusy => continue,
                Err(source) => return Err(no_loop(source)),
            }
        }
        Err(no_loop(io::ErrorKind::ResourceBusy.into()))
    }

    fn new(path: &Path, file: File, device: File, number: u32, size_max: Bytes) -> LoopFile {
        let (path, size_max) = (path.to_owned(), size_max.get());
        LoopFile { path, file, device, number, size_max }
    }

    /// The device to mount.
    pub fn device(&self) -> PathBuf {
        loopdev::path(self.number)
    }

    /// Grows until everything in `room` fits into the file system that `root` is in. One caller at
    /// a time.
    pub fn make_room(
        &self,
        root: BorrowedFd<'_>,
        room: &dyn Fn() -> Result<Room, VolumeError>,
    ) -> Result<(), VolumeError> {
        for _ in 0..GROW_ROUNDS {
            let room = room()?;
            match plan::growth(&room) {
                Growth::Enough => return Ok(()),
                Growth::To(len) => self.grow(root, room.file.len, len)?,
                Growth::StoreFull => return Err(VolumeError::Full { room: room.into() }),
                Growth::HostFull => return Err(self.host_full(room)),
            }
        }
        Err(VolumeError::Full { room: room()?.into() })
    }

    /// Makes the file so long.
    pub fn widen(&self, root: BorrowedFd<'_>, len: u64) -> Result<(), VolumeError> {
        let old = self.size()?.len;
        if len > old { self.grow(root, old, len) } else { Ok(()) }
    }

    /// Cuts the file to `len` bytes, if everything `still_fits` into what btrfs has then. A crash
    /// on the way leaves a file that is too long, and `settle` uses that. `false`: it is as it was.
    pub fn shrink(
        &self,
        root: BorrowedFd<'_>,
        len: u64,
        still_fits: &dyn Fn() -> Result<bool, VolumeError>,
    ) -> Result<bool, VolumeError> {
        let refused = || VolumeError::refused("make smaller", &self.path);
        btrfs::resize(root, len).map_err(refused())?;
        if !matches!(still_fits(), Ok(true)) {
            self.settle(root)?;
            return Ok(false);
        }
        // Before the tail is gone, the disk must know that btrfs ends before it.
        btrfs::sync(root).map_err(refused())?;
        self.file.set_len(len).map_err(refused())?;
        loopdev::refresh_size(self.device.as_fd())
            .map_err(VolumeError::refused("resize", self.device()))?;
        crate::info!("volume.shrunk", file = self.path.display(), size = Bytes::new(len));
        Ok(true)
    }

    /// Lets the device see the whole file, and btrfs the whole device: a crash may have come
    /// between these steps of an earlier growth.
    pub fn settle(&self, root: BorrowedFd<'_>) -> Result<(), VolumeError> {
        loopdev::refresh_size(self.device.as_fd())
            .map_err(VolumeError::refused("resize", self.device()))?;
        btrfs::resize_to_device(root).map_err(VolumeError::refused("resize", &self.path))
    }

    /// Waits until the kernel has let go of the file, once nothing is mounted any more.
    pub fn release(self) -> Result<(), VolumeError> {
        let LoopFile { path, file, device, number, .. } = self;
        drop(device);
        // The kernel's own view, without opening the device: opening would keep it attached.
        let bound = PathBuf::from(format!("/sys/block/loop{number}/loop/backing_file"));
        for _ in 0..RELEASE_TRIES {
            if !bound.exists() {
                return Ok(());
            }
            // No event: a loop device does not tell that it was released.
            std::thread::sleep(RELEASE_PAUSE);
        }
        // Somebody else may have got the same device for another file meanwhile.
        match loopdev::open(number).and_then(|device| is_behind(&device, &file)) {
            Ok(true) => Err(VolumeError::Held { device: loopdev::path(number), file: path }),
            _ => Ok(()),
        }
    }

    fn grow(&self, root: BorrowedFd<'_>, old: u64, new: u64) -> Result<(), VolumeError> {
        extend(&self.file, old, new).map_err(VolumeError::refused("enlarge", &self.path))?;
        self.settle(root)?;
        crate::info!("volume.grown", file = self.path.display(), size = Bytes::new(new));
        Ok(())
    }

    /// How long the file is and may become.
    pub fn size(&self) -> Result<FileSize, VolumeError> {
        let refused = || VolumeError::refused("measure", &self.path);
        let host = file::space(self.file.as_fd()).map_err(refused())?;
        Ok(FileSize {
            len: self.file.metadata().map_err(refused())?.len(),
            max: self.size_max,
            host_free: host.free_bytes,
            host_total: host.total_bytes,
        })
    }

    fn host_full(&self, room: Room) -> VolumeError {
        VolumeError::HostFull { file: self.path.clone(), room: room.into() }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn no_loop(source: io::Error) -> VolumeError {
    VolumeError::NoLoop { source }
}

/// Whether `file` is what `device` shows.
fn is_behind(device: &File, file: &File) -> io::Result<bool> {
    let meta = file.metadata()?;
    match loopdev::backing(device.as_fd()) {
        Ok(behind) => Ok(behind == (meta.dev(), meta.ino())),
        // ENXIO: nothing behind it.
        Err(_) => Ok(false),
    }
}

/// The loop device that has `file` already: another mount namespace kept it, or we were killed
/// between attaching and mounting.
fn attached(file: &File) -> Option<(u32, File)> {
    let entries = fs::read_dir("/sys/block").ok()?;
    entries.filter_map(Result::ok).find_map(|entry| {
        let number = entry.file_name().to_str()?.strip_prefix("loop")?.parse().ok()?;
        if !entry.path().join("loop/backing_file").exists() {
            return None;
        }
        let device = loopdev::open(number).ok()?;
        is_behind(&device, file).ok()?.then_some((number, device))
    })
}

/// Makes a formatted file under a working name and renames it when it is whole.
fn make(path: &Path, size_max: u64) -> Result<(), VolumeError> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let made = make_draft(&draft, plan::STEP.min(size_max)).and_then(|()| {
        let parent = path.parent().unwrap_or(Path::new("/"));
        fs::rename(&draft, path)
            .and_then(|()| File::open(parent)?.sync_all())
            .map_err(VolumeError::refused("make", path))
    });
    if made.is_err() {
        let _ = fs::remove_file(&draft);
    }
    made
}

/// Allocates and formats `draft`.
fn make_draft(draft: &Path, len: u64) -> Result<(), VolumeError> {
    let refused = || VolumeError::refused("make", draft);
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft);
    let file = open.map_err(refused())?;
    let host = file::space(file.as_fd()).map_err(refused())?;
    let reserve = plan::reserve(host.total_bytes);
    if host.total_bytes > 0 && host.free_bytes.saturating_sub(reserve) < len {
        let (host_free, host_total) = (host.free_bytes, host.total_bytes);
        let file = FileSize { len: 0, max: len, host_free, host_total };
        let room = Room { need: len, file, ..Room::default() };
        return Err(VolumeError::HostFull { file: draft.into(), room: room.into() });
    }
    extend(&file, 0, len).map_err(refused())?;
    format(draft)?;
    file.sync_all().map_err(refused())
}

/// Makes the file `new` bytes long, in real blocks, so that a disk that others fill up later does
/// not turn into write errors inside the store. Falls back to holes where there is no choice.
fn extend(file: &File, old: u64, new: u64) -> io::Result<()> {
    match file::allocate(file.as_fd(), old, new.saturating_sub(old)) {
        Err(err) if err.kind() == io::ErrorKind::Unsupported => {
            crate::warn!(
                "volume.sparse",
                err = "this disk cannot preallocate; keep it from filling up"
            );
            file.set_len(new)
        }
        Err(err) => {
            // What it got before the disk was full would be nobody's.
            let _ = file.set_len(old);
            Err(err)
        }
        other => other,
    }
}

/// Runs mkfs.btrfs on `file`.
fn format(file: &Path) -> Result<(), VolumeError> {
    let out = Command::new("mkfs.btrfs")
        // Discards would punch the preallocated blocks out of the file again.
        .args(["--quiet", "--nodiscard", "--force", "--label", "terrarium"])
        .arg(file)
        .env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")
        .stdin(Stdio::null())
        .output();
    match out {
        Ok(out) if out.status.success() => Ok(()),
        Ok(out) => {
            let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            Err(VolumeError::Mkfs { file: file.into(), said })
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => Err(VolumeError::NoMkfs),
        Err(source) => {
            Err(VolumeError::Refused { doing: "run mkfs.btrfs on", path: file.into(), source })
        }
    }
}
