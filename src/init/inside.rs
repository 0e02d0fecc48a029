//! The mounts that every container has: /proc, /sys, /dev and what is below them.
//!
//! They can be made in an empty directory before anybody knows which root they will be in, and moved
//! there later, each as a whole.

use super::root::{Kept, PLAIN, Root};
use super::{Doing, InitError, bind};
use crate::sys::at::{self, Kind, Open};
use crate::sys::mount::{self, Attr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// What none of these mounts allows, but for devices in /dev.
const LOCKED: Attr = Attr::NO_SUID.and(Attr::NO_DEV).and(Attr::NO_EXEC);

/// Name, major and minor number of every device in /dev; Linux Documentation/admin-guide/devices.
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Links in /dev.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Group `tty` of nearly every distribution; it owns terminals.
pub const TTY_GROUP: u32 = 5;

/// /proc, /sys and /dev with all that is mounted below them. Descriptors of the mounts.
pub struct Trees {
    proc: OwnedFd,
    sys: OwnedFd,
    dev: OwnedFd,
}

/// What is closed in a container, as [`super::proto::Plan`] has it.
#[derive(Clone, Copy)]
pub struct Closed<'a> {
    pub masked: &'a [String],
    pub read_only: &'a [String],
}

impl Closed<'_> {
    /// Closes those paths of `root` that `which` names and that are there.
    pub fn close(&self, root: &Root<'_>, which: impl Fn(&str) -> bool) -> Result<(), InitError> {
        for path in self.read_only.iter().filter(|path| which(path)) {
            bind::make_read_only(root, path)?;
        }
        for path in self.masked.iter().filter(|path| which(path)) {
            bind::mask(root, path)?;
        }
        Ok(())
    }
}

/// Whether a path of the inside is in one of the trees.
pub fn is_in_trees(path: &str) -> bool {
    ["/proc/", "/sys/", "/dev/"].iter().any(|top| path.starts_with(top))
}

impl Trees {
    /// Mounts them in `stage`: the root, or an empty directory that has its ids. The caller is in the
    /// container's pid and network namespaces, which are what /proc and /sys show.
    pub fn make(stage: &Root<'_>, closed: Closed<'_>, shm_bytes: u64) -> Result<Trees, InitError> {
        let proc = mount::new("proc", &[], LOCKED).doing(|| "make the container's /proc".into())?;
        mount::attach(&proc, stage.own_dir("proc")?).doing(|| "mount /proc".into())?;
        let sys = mount::new("sysfs", &[], LOCKED.and(Attr::READ_ONLY))
            .doing(|| "make the container's /sys".into())?;
        mount::attach(&sys, stage.own_dir("sys")?).doing(|| "mount /sys".into())?;
        let trees = Trees { proc, sys, dev: dev(stage, shm_bytes)? };
        closed.close(stage, is_in_trees)?;
        Ok(trees)
    }

    /// The same mounts, attached nowhere: they outlive the mount namespace in which they were made.
    pub fn detached(self) -> Result<Trees, InitError> {
        let detach = |name: &str, tree: OwnedFd| {
            mount::copy(tree.as_fd(), Path::new(""), true).doing(|| format!("detach /{name}"))
        };
        Ok(Trees {
            proc: detach("proc", self.proc)?,
            sys: detach("sys", self.sys)?,
            dev: detach("dev", self.dev)?,
        })
    }

    /// Moves them into `root`, and gives /dev/shm the size that it is to have.
    pub fn attach(&self, root: &Root<'_>, shm_bytes: u64) -> Result<(), InitError> {
        for (name, tree) in [("proc", &self.proc), ("sys", &self.sys), ("dev", &self.dev)] {
            mount::attach(tree, root.own_dir(name)?).doing(|| format!("mount /{name}"))?;
        }
        let shm = open_dir(&self.dev, "shm")?;
        mount::change_option(shm, "size", &shm_size(shm_bytes))
            .doing(|| "change the size of /dev/shm".into())
    }

    /// What pid 1 keeps of them; sees to it that `root` has a /tmp.
    pub fn keep(self, root: &Root<'_>) -> Result<Kept, InitError> {
        if let Err(err) = at::stat_entry(&root.dir, "tmp")
            && err.kind() == io::ErrorKind::NotFound
        {
            root.new_dir("tmp", 0o1777).doing(|| "make /tmp in the container".into())?;
        }
        Ok(Kept { null: null(&self.dev)?, pts: open_dir(&self.dev, "pts")?, proc: self.proc })
    }
}

/// A directory of the tree `dev`, which is a mount.
fn open_dir(dev: &OwnedFd, name: &str) -> Result<OwnedFd, InitError> {
    let flags = Open::O_PATH | Open::O_DIRECTORY;
    at::open(dev, name, flags, 0, PLAIN).doing(|| format!("open /dev/{name}"))
}

/// The size of /dev/shm as the kernel is told it; 0 is its own choice.
fn shm_size(bytes: u64) -> String {
    if bytes > 0 { bytes.to_string() } else { "50%".into() }
}

/// The null device of the tree `dev`.
fn null(dev: &OwnedFd) -> Result<OwnedFd, InitError> {
    let null = at::open(dev, "null", Open::O_RDWR, 0, PLAIN).doing(|| "open /dev/null".into())?;
    match at::stat(&null).doing(|| "look at /dev/null".into())?.kind {
        Kind::Characters(1, 3) => Ok(null),
        other => Err(InitError::refuse("use /dev/null", format!("it is {other:?}"))),
    }
}

/// /dev: a small tmpfs. It is the host's in the kernel's eyes (we are still in the host's user
/// namespace), so its devices can be opened; its owner is the container's root.
fn dev(root: &Root<'_>, shm_bytes: u64) -> Result<OwnedFd, InitError> {
    let base = root.ids.root();
    let owner = base.to_string();
    let options = [("mode", "0755"), ("uid", &*owner), ("gid", &*owner), ("size", "64k")];
    let dev = mount::new("tmpfs", &options, Attr::NO_SUID.and(Attr::NO_EXEC))
        .doing(|| "make the container's /dev".into())?;
    mount::attach(&dev, root.own_dir("dev")?).doing(|| "mount /dev".into())?;
    let fuse = root.user.is_none().then_some(("fuse", 10, 229));
    for (name, major, minor) in DEVICES.into_iter().chain(fuse) {
        at::make_device(&dev, name, 0o666, major, minor)
            .and_then(|()| at::adopt(&dev, name, base, base, 0o666))
            .doing(|| format!("make device /dev/{name}"))?;
    }
    for (name, to) in LINKS {
        at::make_link(to, &dev, name)
            .and_then(|()| at::set_link_owner(&dev, name, base, base))
            .doing(|| format!("make link /dev/{name}"))?;
    }

    let tty_group = root.ids.host(TTY_GROUP).expect("every map holds small ids").to_string();
    let options =
        [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", &*tty_group)];
    let pts = mount::new("devpts", &options, Attr::NO_SUID.and(Attr::NO_EXEC))
        .doing(|| "make the container's terminals".into())?;
    at::set_link_owner(&pts, "ptmx", base, base).doing(|| "give away /dev/pts/ptmx".into())?;
    below(root, &dev, "pts", pts)?;
    let size = shm_size(shm_bytes);
    let options = [("mode", "1777"), ("uid", &*owner), ("gid", &*owner), ("size", &*size)];
    let shm =
        mount::new("tmpfs", &options, LOCKED).doing(|| "make the container's /dev/shm".into())?;
    below(root, &dev, "shm", shm)?;
    // Kernels without message queues exist; an app that needs them will say so.
    if let Ok(mqueue) = mount::new("mqueue", &[], LOCKED) {
        below(root, &dev, "mqueue", mqueue)?;
    }
    Ok(dev)
}

/// Mounts on a new directory of /dev.
fn below(root: &Root<'_>, dev: &OwnedFd, name: &str, mounted: OwnedFd) -> Result<(), InitError> {
    let doing = || format!("mount /dev/{name}");
    at::make_dir(dev, name, 0o755).doing(doing)?;
    let base = root.ids.root();
    at::adopt(dev, name, base, base, 0o755).doing(doing)?;
    let flags = Open::O_PATH | Open::O_DIRECTORY;
    let target = at::open(dev, name, flags, 0, PLAIN).doing(doing)?;
    mount::attach(&mounted, target).doing(doing)
}
