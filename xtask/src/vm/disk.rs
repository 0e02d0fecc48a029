//! The guest's disk: a small Debian with systemd and its stock cloud kernel, built without mounting
//! anything.
//!
//! Leaves in `target/vm`: `disk.img`, `vmlinuz`, `initrd.img`, the key to log in with, what the
//! guest's own key is (`known_hosts`), and `disk.key`, which says what all of it was built from.

use crate::progress::Progress;
use crate::rootfs::{self, debian};
use crate::{host, vm};
use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Raised when this code makes another disk of the same lists.
const FORMAT: u32 = 1;
const SUITE: &str = "bookworm";
/// systemd and what looks at containers from outside; no recommended packages beside them.
const PACKAGES: [&str; 26] = [
    "apache2-utils",
    "attr",
    "btrfs-progs",
    "busybox-static",
    "ca-certificates",
    "dbus",
    "docker-registry",
    "e2fsprogs",
    "initramfs-tools",
    "iproute2",
    "kmod",
    "mount",
    // What skopeo depends on under another name, which debootstrap does not resolve.
    "netavark",
    "nftables",
    "openssh-server",
    "openssl",
    "podman",
    "procps",
    "skopeo",
    "systemd",
    "systemd-sysv",
    "tar",
    "udev",
    "umoci",
    "zip",
    "zstd",
];
/// Comes last, so that its first ramdisk is made only once.
const KERNEL: &str = "linux-image-cloud-amd64";
/// Sparse: the guest finds all of it, this machine holds what is written.
const SIZE: &str = "24G";

/// Files of the guest that differ from what the packages bring.
const FILES: [(&str, &str); 8] = [
    // Only what the root disk needs: the whole set takes a software processor ten seconds more.
    ("usr/share/initramfs-tools/conf.d/guest", "MODULES=list\nCOMPRESS=gzip\n"),
    ("usr/share/initramfs-tools/modules.d/guest", "virtio_pci\nvirtio_blk\next4\n"),
    ("etc/hostname", "terrarium-vm\n"),
    ("etc/hosts", "127.0.0.1 localhost terrarium-vm\n"),
    ("etc/fstab", "/dev/vda / ext4 noatime,discard 0 1\n"),
    // The same at every boot: an empty one would make each of them a first boot.
    ("etc/machine-id", "74657272617269756d2d766d00000001\n"),
    (
        "etc/systemd/network/10-guest.network",
        "[Match]\nDriver=virtio_net\n\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n",
    ),
    (
        "etc/ssh/sshd_config.d/guest.conf",
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         PermitRootLogin prohibit-password\nUseDNS no\n",
    ),
];
/// After the last package: until then the guest's tree asks whom this machine asks.
const RESOLVERS: (&str, &str) = ("etc/resolv.conf", "nameserver 10.0.2.3\n");
const ENABLED: [&str; 2] = ["systemd-networkd.service", "ssh.service"];
/// Chores of a system that lives on: this one is new at every boot.
const MASKED: [&str; 6] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "nftables.service",
];

/// Builds the disk when what it is made of has changed, or `anew` to take in newer packages.
pub fn build(anew: bool) -> Result<()> {
    if !anew && is_built() {
        return Ok(());
    }
    if std::env::consts::ARCH != "x86_64" {
        bail!("there is a guest for x86_64 only, and this is {}", std::env::consts::ARCH);
    }
    host::need_root("vm build")?;
    host::need(host::VM)?;
    let dir = vm::dir();
    fs::create_dir_all(&dir)?;
    let mut progress = Progress::new("vm build");
    let work = rootfs::Work::new(dir.join("build"))?;
    let root = work.0.join("root");
    // The stack of the same suite shares its packages.
    let cache = rootfs::output().join("cache").join(SUITE);
    debian::bootstrap(SUITE, &PACKAGES, &root, &cache, &mut progress)?;
    settle(&root, &dir, &mut progress)?;

    progress.stage("writing the disk");
    // The key goes first and comes last: it never vouches for a half-made disk.
    let _ = fs::remove_file(dir.join("disk.key"));
    for (link, file) in [("vmlinuz", "vmlinuz"), ("initrd.img", "initrd.img")] {
        let from = booted(&root, link)?;
        fs::copy(&from, dir.join(file))
            .with_context(|| format!("cannot take {} out", from.display()))?;
    }
    let (draft, disk) = (work.0.join("disk.img"), dir.join("disk.img"));
    let mut mkfs = Command::new("mke2fs");
    mkfs.args(["-q", "-F", "-t", "ext4", "-L", "guest", "-d"]).arg(&root).arg(&draft).arg(SIZE);
    host::capture(&mut mkfs)?;
    fs::rename(&draft, &disk)?;
    fs::write(dir.join("disk.key"), recipe())?;
    drop(work);
    eprintln!("vm build: {}, {:.0} s", disk.display(), progress.done().as_secs_f32());
    Ok(())
}

/// Whether a disk of this recipe is there.
pub fn is_built() -> bool {
    let file = |name: &str| vm::dir().join(name);
    let there = ["disk.img", "vmlinuz", "initrd.img", "key", "known_hosts"];
    there.iter().all(|name| file(name).is_file())
        && fs::read_to_string(file("disk.key")).is_ok_and(|key| key == recipe())
}

/// Stands for everything that the disk is made from, except the state of the mirror.
fn recipe() -> String {
    let lists = (FORMAT, SUITE, PACKAGES, KERNEL, SIZE, FILES, RESOLVERS, ENABLED, MASKED);
    rootfs::sha256(format!("{lists:?}").as_bytes())
}

/// Makes a guest out of a fresh Debian: its files, kernel, services, and the two keys.
fn settle(root: &Path, dir: &Path, progress: &mut Progress) -> Result<()> {
    for (path, text) in FILES {
        let file = root.join(path);
        fs::create_dir_all(file.parent().expect("a file is in a directory"))?;
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    progress.stage("installing the kernel");
    let install = ["apt-get", "--quiet=2", "--yes", "--no-install-recommends", "install", KERNEL];
    debian::inside(root, progress, &install)?;
    debian::inside(root, progress, &["apt-get", "clean"])?;
    progress.stage("setting up the services");
    debian::inside(root, progress, &[&["systemctl", "enable"], &ENABLED[..]].concat())?;
    debian::inside(root, progress, &[&["systemctl", "mask"], &MASKED[..]].concat())?;

    fs::write(root.join(RESOLVERS.0), RESOLVERS.1)?;

    let key = dir.join("key");
    for old in [&key, &dir.join("key.pub")] {
        let _ = fs::remove_file(old);
    }
    let mut keygen = Command::new("ssh-keygen");
    host::capture(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "xtask", "-f"]).arg(&key))?;
    let allowed = root.join("root/.ssh");
    fs::create_dir_all(&allowed)?;
    fs::set_permissions(&allowed, fs::Permissions::from_mode(0o700))?;
    fs::copy(dir.join("key.pub"), allowed.join("authorized_keys"))?;
    let own = root.join("etc/ssh/ssh_host_ed25519_key.pub");
    let own = fs::read_to_string(&own)
        .with_context(|| format!("the guest has no key of its own: {}", own.display()))?;
    fs::write(dir.join("known_hosts"), format!("{} {own}", vm::NAME))?;
    Ok(())
}

/// What the link of that name in the root leads to: the newest kernel, or its ramdisk.
fn booted(root: &Path, link: &str) -> Result<PathBuf> {
    let target = fs::read_link(root.join(link))
        .with_context(|| format!("{KERNEL} has left no /{link} in the guest"))?;
    Ok(root.join(target.strip_prefix("/").unwrap_or(&target)))
}
