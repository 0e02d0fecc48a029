//! The machine that xtask runs on: where things are, and what must be installed.

use anyhow::{Context, Result, bail};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A program of the host and the Debian package that brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    program: &'static str,
    package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

/// To compile: the C parts of crates, for musl.
pub const BUILD: &[Tool] = &[tool("cc", "gcc"), tool("musl-gcc", "musl-tools")];
/// To build a program of Debian's from its source package.
pub const SOURCE: &[Tool] = &[
    tool("make", "make"),
    tool("patch", "patch"),
    tool("dpkg-source", "dpkg-dev"),
    tool("bzip2", "bzip2"),
    tool("xz", "xz-utils"),
];
/// To run containers and look at them from outside.
pub const LAB: &[Tool] = &[
    tool("mkfs.btrfs", "btrfs-progs"),
    tool("ip", "iproute2"),
    tool("nft", "nftables"),
    tool("unshare", "util-linux"),
    tool("setpriv", "util-linux"),
];
/// What tests put into containers and look at them with, besides [`LAB`].
pub const TESTS: &[Tool] = &[
    tool(BUSYBOX, "busybox-static"),
    tool("losetup", "mount"),
    tool("findmnt", "util-linux"),
    tool("chattr", "e2fsprogs"),
    tool("zstd", "zstd"),
    tool("docker-registry", "docker-registry"),
    tool("skopeo", "skopeo"),
    tool("umoci", "umoci"),
    tool("podman", "podman"),
    tool("htpasswd", "apache2-utils"),
    tool("openssl", "openssl"),
    tool("update-ca-certificates", "ca-certificates"),
    tool("getfattr", "attr"),
    tool("zip", "zip"),
    tool("ssh", "openssh-client"),
];
/// To pull images beside us.
pub const PULL: &[Tool] = &[
    tool("docker-registry", "docker-registry"),
    tool("skopeo", "skopeo"),
    tool("umoci", "umoci"),
    tool("podman", "podman"),
    tool("gunzip", "gzip"),
    tool("pigz", "pigz"),
    tool("igzip", "isal"),
    tool("zstd", "zstd"),
    tool("btrfs", "btrfs-progs"),
];
/// It goes into roots without a loader, so the dynamic one of another package will not do.
const BUSYBOX: &str = "busybox";
/// To build the Debian stack.
pub const DEBOOTSTRAP: &[Tool] = &[
    tool("debootstrap", "debootstrap"),
    tool("unshare", "util-linux"),
    tool("setpriv", "util-linux"),
];
/// To make a guest of its own kernel and to reach it.
pub const VM: &[Tool] = &[
    tool("qemu-system-x86_64", "qemu-system-x86"),
    tool("mke2fs", "e2fsprogs"),
    tool("ssh", "openssh-client"),
    tool("ssh-keygen", "openssh-client"),
    tool("setpriv", "util-linux"),
];
/// To take a package apart.
pub const DPKG: &[Tool] = &[tool("dpkg-deb", "dpkg"), tool("apt-get", "apt")];

/// The top of the repository.
pub fn top() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent().expect("xtask is a folder of the repository").to_owned()
}

/// Where cargo builds, and we beside it.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => top().join(dir),
        None => top().join("target"),
    }
}

/// The target that ships: always musl, because the program is mounted into foreign roots.
pub fn target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// Cargo, at the top of the repository.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(top());
    cargo
}

/// We may change the machine.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Fails with the command to use when we are not root.
pub fn need_root(what: &str) -> Result<()> {
    if !is_root() {
        bail!("{what} needs root: run `sudo env \"PATH=$PATH\" cargo xtask {what}`");
    }
    Ok(())
}

/// Where a program is: in PATH, or where the administrator's programs are.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Makes sure that all `tools` are there: installs what is missing when we are root on Debian,
/// otherwise fails with the command that does.
pub fn need(tools: &[Tool]) -> Result<()> {
    let packages = missing(tools, usable);
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !is_root() || find("apt-get").is_none() || !Path::new("/etc/debian_version").exists() {
        bail!(
            "missing programs; install these Debian packages or their like: \
             `apt-get update && apt-get install --no-install-recommends {list}`"
        );
    }
    eprintln!("installing {list}");
    refresh();
    run(apt().args(["install", "--yes", "--no-install-recommends"]).args(&packages))?;
    match missing(tools, usable).as_slice() {
        [] => Ok(()),
        still => bail!("{} installed, and its programs are still not found", still.join(" ")),
    }
}

/// Whether a program is there and of the kind that is needed.
fn usable(program: &str) -> bool {
    find(program).is_some_and(|file| program != BUSYBOX || crate::elf::need_static(&file).is_ok())
}

/// Packages of the tools that are not there, each once.
fn missing(tools: &[Tool], there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<&str> =
        tools.iter().filter(|tool| !there(tool.program)).map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// apt-get, quiet and without questions.
pub fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    apt.args(["--quiet=2", "-o", "Dpkg::Use-Pty=0"]).env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// Renews the package lists, once a run. One dead source among several is no reason to give up:
/// the installation that follows says what it cannot find.
pub fn refresh() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        if let Err(err) = run(apt().arg("update")) {
            eprintln!("warning: {err:#}");
        }
    });
}

/// Makes sure that the compiler can build for [`target`].
pub fn need_target() -> Result<()> {
    need(BUILD)?;
    let target = target();
    let sysroot = capture(Command::new("rustc").current_dir(top()).args(["--print", "sysroot"]))?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(&target).join("lib").is_dir() {
        return Ok(());
    }
    if find("rustup").is_none() {
        bail!("the Rust toolchain has no {target}: install that target of its standard library");
    }
    eprintln!("installing the Rust target {target}");
    run(Command::new("rustup").current_dir(top()).args(["target", "add", &target]))
}

/// Tells builds when their source was written: <https://reproducible-builds.org/specs/source-date-epoch>.
const WRITTEN_VAR: &str = "SOURCE_DATE_EPOCH";

/// Builds the program for musl and returns it, checked to be static.
pub fn build(release: bool) -> Result<PathBuf> {
    need_target()?;
    let mut cargo = cargo();
    cargo.args(["build", "--package", "terrarium", "--bins", "--target", &target()]);
    if release {
        cargo.arg("--release");
        // When the source was written, not when it is compiled: the same source, the same program.
        if let (None, Some(at)) = (std::env::var_os(WRITTEN_VAR), committed()) {
            cargo.env(WRITTEN_VAR, at);
        }
    }
    run(&mut cargo)?;
    let profile = if release { "release" } else { "debug" };
    let program = target_dir().join(target()).join(profile).join("terrarium");
    crate::elf::need_static(&program)?;
    Ok(program)
}

/// When the source was committed, in seconds since 1970; `None`: it is of no repository.
fn committed() -> Option<String> {
    let asked = Command::new("git").args(["log", "-1", "--format=%ct"]).output().ok()?;
    let at = String::from_utf8(asked.stdout).ok()?.trim().to_owned();
    (asked.status.success() && !at.is_empty()).then_some(at)
}

/// The beginning of a command that runs in mounts and process ids of its own: when it ends, or we
/// do, however that comes about, the kernel ends all that it has started and mounted.
pub fn alone() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork"]);
    command.args(["--kill-child", "--mount-proc"]);
    command
}

/// Runs a command to its end; an error names it.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs a command to its end and returns what it printed.
pub fn capture(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("cannot run {}", shown(command)))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        bail!("{} failed: {}: {}", shown(command), out.status, said.trim());
    }
    String::from_utf8(out.stdout).with_context(|| format!("{} printed no text", shown(command)))
}

/// A command as a person would type it.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut text = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    format!("`{text}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_package_is_named_once() {
        let packages = missing(LAB, |program| program == "ip");
        assert_eq!(packages, ["btrfs-progs", "nftables", "util-linux"]);
        assert_eq!(missing(LAB, |_| true), [""; 0]);
    }

    #[test]
    fn a_command_is_shown_as_typed() {
        assert_eq!(shown(Command::new("/usr/bin/ip").args(["link", "show"])), "`ip link show`");
    }
}
