//! The mounts that every container has: /proc, /sys, /dev and what is below it.

use super::root::{Kept, PLAIN, Root};
use super::{Doing, InitError};
use crate::sys::at::{self, Kind, Open};
use crate::sys::mount::{self, Attr};
use std::io;
use std::os::fd::OwnedFd;

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

/// Mounts them all and sees to it that /tmp exists.
pub fn mount_all(root: &Root<'_>, shm_bytes: u64) -> Result<Kept, InitError> {
    let proc = mount::new("proc", &[], LOCKED).doing(|| "make the container's /proc".into())?;
    mount::attach(&proc, root.own_dir("proc")?).doing(|| "mount /proc".into())?;
    let sys = mount::new("sysfs", &[], LOCKED.and(Attr::READ_ONLY))
        .doing(|| "make the container's /sys".into())?;
    mount::attach(sys, root.own_dir("sys")?).doing(|| "mount /sys".into())?;
    let kept = dev(root, shm_bytes, proc)?;
    if let Err(err) = at::stat_entry(&root.dir, "tmp")
        && err.kind() == io::ErrorKind::NotFound
    {
        root.new_dir("tmp", 0o1777).doing(|| "make /tmp in the container".into())?;
    }
    Ok(kept)
}

/// /dev: a small tmpfs. It is the host's in the kernel's eyes (we are still in the host's user
/// namespace), so its devices can be opened; its owner is the container's root.
fn dev(root: &Root<'_>, shm_bytes: u64, proc: OwnedFd) -> Result<Kept, InitError> {
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
    let pts = below(root, &dev, "pts", pts)?;
    let size = shm_bytes.to_string();
    let mut options = vec![("mode", "1777"), ("uid", &*owner), ("gid", &*owner)];
    if shm_bytes > 0 {
        options.push(("size", &*size));
    }
    let shm =
        mount::new("tmpfs", &options, LOCKED).doing(|| "make the container's /dev/shm".into())?;
    below(root, &dev, "shm", shm)?;
    // Kernels without message queues exist; an app that needs them will say so.
    if let Ok(mqueue) = mount::new("mqueue", &[], LOCKED) {
        below(root, &dev, "mqueue", mqueue)?;
    }
    let null = at::open(&dev, "null", Open::O_RDWR, 0, PLAIN).doing(|| "open /dev/null".into())?;
    match at::stat(&null).doing(|| "look at /dev/null".into())?.kind {
        Kind::Characters(1, 3) => Ok(Kept { null, pts, proc }),
        other => Err(InitError::refuse("use /dev/null", format!("it is {other:?}"))),
    }
}

/// Mounts on a new directory of /dev and returns its descriptor.
fn below(
    root: &Root<'_>,
    dev: &OwnedFd,
    name: &str,
    mounted: OwnedFd,
) -> Result<OwnedFd, InitError> {
    let doing = || format!("mount /dev/{name}");
    at::make_dir(dev, name, 0o755).doing(doing)?;
    let base = root.ids.root();
    at::adopt(dev, name, base, base, 0o755).doing(doing)?;
    let flags = Open::O_PATH | Open::O_DIRECTORY;
    let target = at::open(dev, name, flags, 0, PLAIN).doing(doing)?;
    mount::attach(&mounted, target).doing(doing)?;
    Ok(mounted)
}
