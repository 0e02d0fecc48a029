//! The bulk of a Debian stack: debootstrap from the host's own mirror, security updates, locales,
//! and what must go so that two builds of the same packages are the same bytes.

use super::recipe::Recipe;
use super::sources::{self, Source};
use super::tree::Tree;
use crate::host;
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Builds the system in `work` and takes it in. `cache` keeps downloaded packages.
pub fn build(
    recipe: &Recipe,
    suite: &str,
    packages: &[String],
    locales: &[String],
    work: &Path,
    cache: &Path,
    progress: &mut Progress,
) -> Result<Tree> {
    host::need_root("rootfs edgefs")?;
    let root = work.join("root");
    bootstrap(suite, packages, &root, cache, progress)?;
    for locale in locales {
        progress.stage("compiling locales");
        let (language, charset) = locale
            .split_once('.')
            .with_context(|| format!("`{locale}` is no locale such as en_US.UTF-8"))?;
        inside(&root, progress, &["localedef", "-i", language, "-f", charset, locale])?;
    }

    progress.stage("reading the tree");
    let mut tree = Tree::load(&root, |path| leaves_with_the_build(path) || recipe.drops(path))?;
    let day = recipe.epoch / 86_400;
    tree.edit("etc/shadow", |text| same_day(&text, day))?;
    Ok(tree)
}

/// Makes a Debian system in `root`, which is not there yet: the minimal one with `packages`, and all
/// updates that the mirrors have. `cache` keeps downloaded packages.
pub fn bootstrap(
    suite: &str,
    packages: &[impl AsRef<str>],
    root: &Path,
    cache: &Path,
    progress: &mut Progress,
) -> Result<()> {
    host::need(host::DEBOOTSTRAP)?;
    let sources = sources::of_host()?;
    let main = sources::mirror(&sources, suite).with_context(|| {
        format!("no apt source of this host is a Debian mirror; add one for {suite} to /etc/apt")
    })?;
    std::fs::create_dir_all(cache)?;
    let packages: Vec<&str> = packages.iter().map(AsRef::as_ref).collect();

    let mut bootstrap = host::alone();
    bootstrap.args(["debootstrap", "--variant=minbase", "--force-check-gpg"]);
    bootstrap.arg(format!("--keyring={}", main.keyring()));
    bootstrap.arg(format!("--cache-dir={}", cache.display()));
    bootstrap.arg(format!("--include={}", packages.join(",")));
    bootstrap.arg(suite).arg(root).arg(&main.uri);
    progress.stage("reading the package lists");
    watched(&mut bootstrap, progress, debootstrap_stage)?;

    progress.stage("installing security updates");
    std::fs::write(root.join("etc/apt/sources.list"), sources::list(&sources, main, suite))?;
    inside(root, progress, &["apt-get", "--quiet=2", "update"])?;
    let conservative = ["-o", "Dpkg::Options::=--force-confold"];
    let upgrade =
        ["apt-get", "--quiet=2", "--yes", conservative[0], conservative[1], "dist-upgrade"];
    inside(root, progress, &upgrade)
}

/// Runs a program with the new system as its root.
pub fn inside(root: &Path, progress: &mut Progress, args: &[&str]) -> Result<()> {
    let mut command = host::alone();
    command.arg(format!("--root={}", root.display())).args(args);
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    watched(&mut command, progress, |_| None)
}

/// Runs a command and follows its output; a failure shows the end of it.
fn watched(
    command: &mut Command,
    progress: &mut Progress,
    stage: fn(&str) -> Option<(&'static str, &str)>,
) -> Result<()> {
    const KEPT: usize = 30;
    let name = host::shown(command);
    // One pipe for both streams keeps their order.
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
    // The command holds the write ends; without this the reader never sees their end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut last = VecDeque::with_capacity(KEPT);
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        match stage(&line) {
            Some((stage, detail)) => {
                progress.stage(stage);
                progress.detail(detail);
            }
            None => progress.detail(&line),
        }
        if last.len() == KEPT {
            last.pop_front();
        }
        last.push_back(line);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{name} failed: {status}\n{}", Vec::from(last).join("\n"));
    }
    Ok(())
}

/// What a line of debootstrap says about how far it is.
fn debootstrap_stage(line: &str) -> Option<(&'static str, &str)> {
    let (verb, rest) = line.strip_prefix("I: ")?.split_once(' ')?;
    let stage = match verb {
        "Retrieving" | "Validating" => "fetching packages",
        "Extracting" | "Chosen" => "extracting the essential packages",
        "Installing" | "Unpacking" | "Configuring" | "Base" => "installing packages",
        _ => return None,
    };
    Some((stage, rest))
}

/// What a build leaves behind of itself: lists, caches, logs, backups, compiled Python, names of
/// the host, and everything that a container mounts over.
fn leaves_with_the_build(path: &str) -> bool {
    const EMPTIED: [&str; 10] = [
        "dev/",
        "proc/",
        "sys/",
        "run/",
        "tmp/",
        "var/cache/",
        "var/log/",
        "var/backups/",
        "var/lib/apt/",
        "var/tmp/",
    ];
    const GONE: [&str; 12] = [
        "etc/machine-id",
        "var/lib/dbus/machine-id",
        "etc/resolv.conf",
        "etc/hostname",
        "etc/.pwd.lock",
        "etc/apt/sources.list",
        "var/lib/dpkg/lock",
        "var/lib/dpkg/lock-frontend",
        "var/lib/dpkg/triggers/Lock",
        "var/lib/systemd/random-seed",
        "debootstrap",
        ".dockerenv",
    ];
    let name = path.rsplit('/').next().unwrap_or(path);
    let account_backup = path.starts_with("etc/") && name.ends_with('-');
    let old = path.starts_with("var/lib/dpkg/") && name.ends_with("-old");
    EMPTIED.iter().any(|dir| path.starts_with(dir))
        || GONE.contains(&path)
        || name == "__pycache__"
        || account_backup
        || old
}

/// The third field of `/etc/shadow`, the day of the last change, made the same for all.
fn same_day(shadow: &str, day: u64) -> String {
    let mut out = String::with_capacity(shadow.len());
    for line in shadow.lines() {
        let mut fields: Vec<&str> = line.split(':').collect();
        let day = day.to_string();
        if fields.len() > 2 && !fields[2].is_empty() {
            fields[2] = &day;
        }
        out.push_str(&fields.join(":"));
        out.push('\n');
    }
    out
}

/// Names and versions of the installed packages, one a line, from dpkg's own records.
pub fn packages(status: &str) -> String {
    let field = |block: &str, key: &str| {
        block.lines().find_map(|line| Some(line.strip_prefix(key)?.trim().to_owned()))
    };
    let mut lines: Vec<String> = status
        .split("\n\n")
        .filter_map(|block| {
            Some(format!("{} {}\n", field(block, "Package:")?, field(block, "Version:")?))
        })
        .collect();
    lines.sort();
    lines.concat()
}

/// The mirror's keyring, when its source names one.
impl Source {
    fn keyring(&self) -> &str {
        const DEBIAN: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
        self.signed_by.as_deref().filter(|file| file.starts_with('/')).unwrap_or(DEBIAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_of_the_build_are_left_out() {
        for path in [
            "dev/null",
            "etc/passwd-",
            "etc/machine-id",
            "var/lib/dpkg/status-old",
            "usr/lib/python3/__pycache__",
            "var/cache/ldconfig/aux-cache",
            "var/log/dpkg.log",
        ] {
            assert!(leaves_with_the_build(path), "{path}");
        }
        for path in ["dev", "etc/passwd", "var/lib/dpkg/status", "usr/bin/gpg-", "var/cache"] {
            assert!(!leaves_with_the_build(path), "{path}");
        }
    }

    #[test]
    fn every_account_changed_on_the_same_day() {
        assert_eq!(
            same_day("root:*:19876:0:99999:7:::\nx:!::\n", 20089),
            "root:*:20089:0:99999:7:::\nx:!::\n"
        );
    }

    #[test]
    fn packages_are_listed_by_name() {
        let status = "Package: zlib1g\nStatus: ok\nVersion: 1.2\n\nPackage: bash\nVersion: 5\n\n";
        assert_eq!(packages(status), "bash 5\nzlib1g 1.2\n");
    }

    #[test]
    fn progress_follows_debootstrap() {
        assert_eq!(debootstrap_stage("I: Unpacking libc6"), Some(("installing packages", "libc6")));
        assert_eq!(debootstrap_stage("W: odd"), None);
    }
}
