//! `cargo xtask ssh`: builds the SSH server that containers carry, into `target/rootfs/ssh`.
//!
//! It is Debian's dropbear with `xtask/ssh/dropbear.patch`, as one static program; `DECISIONS.md` says
//! why. Leaves `dropbearmulti`, `dropbear.licence`, and `dropbear.key`, which says what it was built from:
//! the same source and patch are not built again. Nothing of the host's package lists is changed.

use crate::progress::Progress;
use crate::rootfs::{self, Work};
use crate::{elf, host};
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's package, as it is in the release that the mirrors have.
const VERSION: &str = "2022.83-1+deb12u3";
const SUITE: &str = "bookworm";
/// Its two source archives with their SHA-256.
const SOURCES: [(&str, &str); 2] = [
    (
        "dropbear_2022.83.orig.tar.bz2",
        "bc5a121ffbc94b5171ad5ebe01be42746d50aa797c9549a4639894a16749443b",
    ),
    (
        "dropbear_2022.83-1+deb12u3.debian.tar.xz",
        "74fb171a630f450430b771b2f781c420a4542881ae75fd2f75ca04c53a3eea93",
    ),
];
/// Raised when this code builds another program of the same source and patch.
const FORMAT: u32 = 1;

/// What it is built without: the container has no place for any of it.
const WITHOUT: [&str; 13] = [
    "--disable-zlib",
    "--disable-syslog",
    "--disable-shadow",
    "--disable-pam",
    "--disable-lastlog",
    "--disable-utmp",
    "--disable-utmpx",
    "--disable-wtmp",
    "--disable-wtmpx",
    "--disable-loginfunc",
    "--disable-pututline",
    "--disable-pututxline",
    "--enable-static",
];

/// Builds it unless it is there; returns the program.
pub fn run() -> Result<PathBuf> {
    let dir = directory();
    fs::create_dir_all(&dir)?;
    // Two builds at a time would tread on each other's work directory.
    let lock = File::create(dir.join("lock"))?;
    lock.lock().context("cannot lock the SSH server's output")?;
    let program = dir.join("dropbearmulti");
    let patch = host::top().join("xtask/ssh/dropbear.patch");
    let key = key(&patch)?;
    let known = fs::read_to_string(dir.join("dropbear.key")).unwrap_or_default();
    if known == key && program.is_file() {
        eprintln!("ssh: built already, {}", program.display());
        return Ok(program);
    }
    build(&dir, &patch)?;
    fs::write(dir.join("dropbear.key"), key)?;
    Ok(program)
}

/// Where it is left: beside the stacks.
pub fn directory() -> PathBuf {
    rootfs::output().join("ssh")
}

/// Stands for all that the program is made from.
fn key(patch: &Path) -> Result<String> {
    let patch =
        fs::read(patch).with_context(|| format!("cannot read the patch {}", patch.display()))?;
    let parts = format!(
        "{FORMAT} {} {VERSION} {SOURCES:?} {WITHOUT:?} {}",
        std::env::consts::ARCH,
        rootfs::sha256(&patch)
    );
    Ok(rootfs::sha256(parts.as_bytes()))
}

fn build(dir: &Path, patch: &Path) -> Result<()> {
    host::need(host::BUILD)?;
    host::need(host::SOURCE)?;
    let mut progress = Progress::new("ssh");
    let work = Work::new(dir.join("build"))?;
    progress.stage("fetching the source");
    fetch(&work.0)?;
    progress.stage("unpacking");
    let tree = work.0.join("tree");
    let dsc = format!("dropbear_{VERSION}.dsc");
    // Its archives were checked by their digests: whose signature the list of them bears is not asked.
    let unpack = ["--no-check", "-x", &dsc, "tree"];
    host::capture(Command::new("dpkg-source").args(unpack).current_dir(&work.0))?;
    let mut change = Command::new("patch");
    change.args(["--strip=1", "--forward", "--batch", "--input"]).arg(patch);
    host::capture(change.current_dir(&tree))?;
    progress.stage("configuring");
    let flags =
        format!("-Os -ffunction-sections -fdata-sections -ffile-prefix-map={}=.", tree.display());
    let mut configure = Command::new("./configure");
    configure.args(WITHOUT).arg("--enable-bundled-libtom").current_dir(&tree);
    configure.env("CC", "musl-gcc").env("CFLAGS", &flags).env("LDFLAGS", "-Wl,--gc-sections -s");
    host::capture(&mut configure)?;
    progress.stage("compiling");
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut make = Command::new("make");
    make.arg(format!("--jobs={jobs}")).args(["PROGRAMS=dropbear scp", "MULTI=1"]);
    host::capture(make.current_dir(&tree))?;
    let built = tree.join("dropbearmulti");
    elf::need_static(&built)?;
    // The key goes first and comes last: it never vouches for another program.
    let _ = fs::remove_file(dir.join("dropbear.key"));
    fs::rename(&built, dir.join("dropbearmulti"))?;
    fs::copy(tree.join("LICENSE"), dir.join("dropbear.licence"))?;
    let bytes = fs::metadata(dir.join("dropbearmulti"))?.len();
    drop(work);
    let took = progress.done().as_secs_f32();
    eprintln!("ssh: {} ({bytes} bytes, static), {took:.0} s", dir.join("dropbearmulti").display());
    Ok(())
}

/// Debian's source package, by lists of our own, and checked.
fn fetch(work: &Path) -> Result<()> {
    let all = rootfs::sources::of_host()?;
    let mirror = rootfs::sources::mirror(&all, SUITE)
        .context("apt has no mirror of Debian: add one to /etc/apt/sources.list")?;
    let signed = mirror.signed_by.as_deref();
    let signed = signed.map(|file| format!("[signed-by={file}] ")).unwrap_or_default();
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(work.join(part))?;
    }
    let list = work.join("sources.list");
    fs::write(&list, format!("deb-src {signed}{} {SUITE} main\n", mirror.uri))?;
    let apt = || {
        let mut apt = host::apt();
        let own = [
            ("Dir::Etc::SourceList", list.as_path()),
            ("Dir::Etc::SourceParts", Path::new("/dev/null")),
            ("Dir::State::Lists", &work.join("lists")),
            ("Dir::Cache", &work.join("cache")),
        ];
        for (key, value) in own {
            apt.arg("-o").arg(format!("{key}={}", value.display()));
        }
        // The sandbox user of apt cannot write here, and what comes is checked by its digest.
        apt.args(["-o", "APT::Sandbox::User=root"]).current_dir(work);
        apt
    };
    host::capture(apt().arg("update"))?;
    host::capture(apt().args(["source", "--download-only", &format!("dropbear={VERSION}")]))
        .with_context(|| {
            format!("the mirror has no dropbear {VERSION}: see VERSION in xtask/src/ssh.rs")
        })?;
    for (name, digest) in SOURCES {
        let bytes = fs::read(work.join(name)).with_context(|| format!("apt-get left no {name}"))?;
        let got = rootfs::sha256(&bytes);
        if got != digest {
            bail!("{name} is sha256:{got}, not sha256:{digest}: another file has its name");
        }
    }
    Ok(())
}
