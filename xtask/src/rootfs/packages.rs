//! The bulk of an image of real software: Debian packages and the libraries that they need, unpacked.
//! None of their scripts is run, and nothing is installed on the host.
//!
//! apt checks what it fetches against the signed lists of the host's own mirrors.

use super::tree::{Content, Kind, Node, Tree};
use crate::host;
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

/// Most packages of one image.
const PACKAGES_MAX: usize = 200;
/// Directories of the root that are links into `usr`.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];
/// What the host itself has installed says nothing about what an image is made of.
const ANY_HOST: [&str; 2] = ["-o", "Dir::State::status=/dev/null"];
/// Who is there in any case.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n";
const GROUP: &str = "root:x:0:\n";

/// Fetches `packages`, with what they depend on as far as its name begins with one of `follow`, but
/// not with one of `without`, and takes their files in, except what `skip` names.
pub fn build(
    packages: &[String],
    follow: &[String],
    without: &[String],
    skip: impl Fn(&str) -> bool,
    work: &Path,
    progress: &mut Progress,
) -> Result<Tree> {
    host::need(host::DPKG)?;
    progress.stage("looking up dependencies");
    let wanted = |name: &str| {
        let begins = |list: &[String]| list.iter().any(|begin| name.starts_with(begin.as_str()));
        begins(follow) && !begins(without)
    };
    let all = closure(packages, wanted)?;
    progress.stage("fetching packages");
    fetch(&all.iter().map(String::as_str).collect::<Vec<_>>(), work)?;
    let mut tree = Tree::default();
    for dir in MERGED {
        tree.directory(&format!("usr/{dir}"), 0o755, 0);
        tree.link(dir, &format!("usr/{dir}"));
    }
    tree.file("etc/passwd", 0o644, Content::Bytes(PASSWD.into()));
    tree.file("etc/group", 0o644, Content::Bytes(GROUP.into()));
    progress.stage("unpacking packages");
    let mut files = debs(work)?;
    files.sort();
    for file in files {
        progress.detail(&file.file_name().unwrap_or_default().to_string_lossy());
        unpack(&file, &mut tree, &skip)?;
    }
    Ok(tree)
}

/// Package files in a directory.
pub fn debs(work: &Path) -> Result<Vec<PathBuf>> {
    let all = std::fs::read_dir(work)?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(all.filter(|path| path.extension().is_some_and(|end| end == "deb")).collect())
}

/// Asks apt for the package files; renews the lists when they do not know one and we may.
pub fn fetch(packages: &[&str], work: &Path) -> Result<()> {
    let download = || {
        let mut apt = host::apt();
        // The sandbox user of apt cannot write here, and what comes is checked by its digest.
        apt.args(["-o", "APT::Sandbox::User=root"]).args(ANY_HOST).arg("download").args(packages);
        host::capture(apt.current_dir(work))
    };
    let Err(err) = download() else { return Ok(()) };
    if !host::is_root() {
        let list = packages.join(" ");
        bail!("apt-get cannot fetch {list}: run `sudo apt-get update` and try again ({err:#})");
    }
    host::refresh();
    download().map(|_| ())
}

/// The packages with all that `wanted` takes of what they depend on.
fn closure(packages: &[String], wanted: impl Fn(&str) -> bool) -> Result<BTreeSet<String>> {
    let mut all: BTreeSet<String> = packages.iter().cloned().collect();
    let mut new: Vec<String> = packages.to_vec();
    while !new.is_empty() {
        if all.len() > PACKAGES_MAX {
            bail!("{} need more than {PACKAGES_MAX} packages", packages.join(" "));
        }
        let said = depends(&new)?;
        new = dependencies(&said).filter(|name| wanted(name)).map(str::to_owned).collect();
        new.retain(|name| all.insert(name.clone()));
    }
    Ok(all)
}

/// What apt knows of what they depend on.
fn depends(packages: &[String]) -> Result<String> {
    let ask = || {
        let mut apt = Command::new("apt-cache");
        apt.args(ANY_HOST).args(["depends", "--important"]).args(packages).env("LC_ALL", "C");
        host::capture(&mut apt)
    };
    ask().or_else(|err| match host::is_root() {
        true => {
            host::refresh();
            ask()
        }
        false => Err(err),
    })
}

/// Names in its output: `  Depends: NAME`, all of several alternatives (`|Depends:`). One in brackets
/// is no package but what several provide.
fn dependencies(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter_map(|line| {
        let (kind, name) = line.trim_start().split_once(": ")?;
        let counts = matches!(kind.trim_start_matches('|'), "Depends" | "PreDepends");
        let name = name.trim().split(':').next().unwrap_or_default();
        (counts && !name.starts_with('<')).then_some(name)
    })
}

/// Takes the files of one package in.
fn unpack(package: &Path, tree: &mut Tree, skip: &impl Fn(&str) -> bool) -> Result<()> {
    each_entry(package, |entry| match place(&entry.path()?) {
        Some(path) if !skip(&path) => add(tree, path, entry),
        _ => Ok(()),
    })
}

/// Does `with` for each entry of a package.
pub fn each_entry(
    package: &Path,
    mut with: impl FnMut(&mut tar::Entry<'_, ChildStdout>) -> Result<()>,
) -> Result<()> {
    let mut child = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run dpkg-deb")?;
    let stdout = child.stdout.take().expect("it was asked for");
    for entry in tar::Archive::new(stdout).entries()? {
        with(&mut entry?).with_context(|| format!("in {}", package.display()))?;
    }
    if !child.wait()?.success() {
        bail!("dpkg-deb cannot read {}", package.display());
    }
    Ok(())
}

/// Puts one entry into the tree.
fn add(tree: &mut Tree, path: String, entry: &mut tar::Entry<'_, impl Read>) -> Result<()> {
    let header = entry.header();
    let (mode, uid, gid) =
        (header.mode()? & 0o7777, u32::try_from(header.uid()?)?, u32::try_from(header.gid()?)?);
    let kind = header.entry_type();
    let target = entry.link_name()?.map(|name| name.into_owned());
    let kind = match (kind, target) {
        (tar::EntryType::Directory, _) => {
            // One that several packages have is the first one's.
            tree.0.entry(path).or_insert(Node { mode, uid, gid, kind: Kind::Directory });
            return Ok(());
        }
        (tar::EntryType::Symlink, Some(to)) => Kind::Symlink(to),
        (tar::EntryType::Link, Some(to)) => {
            let first = place(&to).and_then(|to| tree.0.get(&to)).cloned();
            first.with_context(|| format!("/{path} is a name of a file that is not there"))?.kind
        }
        (tar::EntryType::Regular, _) => {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            Kind::File(Content::Bytes(bytes))
        }
        _ => return Ok(()),
    };
    tree.0.insert(path, Node { mode, uid, gid, kind });
    Ok(())
}

/// Where a file of a package goes in a root whose `/bin` and the like are links; `None`: it is the
/// root, one of those, or out of the root.
fn place(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::CurDir | Component::RootDir => {}
            Component::Normal(name) => parts.push(name.to_str()?),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    let is_merged = parts.first().is_some_and(|first| MERGED.contains(first));
    match (is_merged, parts.len()) {
        (_, 0) | (true, 1) => None,
        (true, _) => Some(format!("usr/{}", parts.join("/"))),
        (false, _) => Some(parts.join("/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read() {
        let said = "redis-tools\n PreDepends: libc6\n |Depends: adduser\n  Depends: libssl3\n  \
                    Depends: <debconf-2.0>\n    debconf\n  Depends: libz1:any\n  Conflicts: libx\n";
        let names: Vec<&str> = dependencies(said).collect();
        assert_eq!(names, ["libc6", "adduser", "libssl3", "libz1"]);
    }

    #[test]
    fn a_file_goes_where_the_links_of_a_root_lead() {
        let at = |path: &str| place(Path::new(path));
        assert_eq!(at("./bin/sh").as_deref(), Some("usr/bin/sh"));
        assert_eq!(at("./usr/bin/sh").as_deref(), Some("usr/bin/sh"));
        assert_eq!(at("./lib64/ld.so").as_deref(), Some("usr/lib64/ld.so"));
        assert_eq!(at("./etc/x").as_deref(), Some("etc/x"));
        for none in ["./", "./lib", "/", "../x"] {
            assert_eq!(at(none), None, "{none}");
        }
    }
}
