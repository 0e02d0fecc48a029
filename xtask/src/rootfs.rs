//! `cargo xtask rootfs NAME`: builds a stack from `rootfs/NAME` into `target/rootfs`.
//!
//! Leaves `NAME.tar.zst`, `NAME.digest` (two lines: `archive sha256:...`, `diff_id sha256:...`),
//! for Debian stacks `NAME.packages`, and `NAME.key`, which says what it was built from: the same
//! recipe is not built again.

mod busybox;
pub mod debian;
pub mod pack;
mod packages;
mod recipe;
pub mod sources;
mod tree;

use crate::host;
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use pack::Packed;
use recipe::{Recipe, Source};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::{Path, PathBuf};
use tree::{Content, Kind, Tree};

/// Raised when this code writes other bytes for the same recipe.
const FORMAT: u32 = 1;

/// Real software that tests make images of: roots of Debian packages, in a folder of their own, as
/// they are no stacks.
pub const SOFTWARE: [&str; 5] = [
    "software/mosquitto",
    "software/nginx",
    "software/nodejs",
    "software/postgres",
    "software/redis",
];

/// How eagerly to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only when the recipe has changed.
    WhenNeeded,
    /// Again, to take in newer packages.
    Rebuild,
    /// Twice, and compare.
    Check,
}

/// Builds the stack; returns its archive.
pub fn run(name: &str, mode: Mode) -> Result<PathBuf> {
    let stack = Stack::open(name)?;
    // Two builds of one stack at a time would tread on each other's work directory.
    let lock = File::create(stack.out("lock"))?;
    lock.lock().context("cannot lock the stack's output")?;
    if mode == Mode::WhenNeeded && stack.is_built() {
        eprintln!("rootfs {name}: built already, {}", stack.out("tar.zst").display());
        return Ok(stack.out("tar.zst"));
    }
    let first = stack.build()?;
    if mode == Mode::Check {
        let second = stack.build()?;
        if first != second {
            bail!("two builds of {name} differ: {} and {}", first.diff_id, second.diff_id);
        }
        eprintln!("rootfs {name}: two builds, the same bytes");
    }
    Ok(stack.out("tar.zst"))
}

struct Stack {
    name: String,
    folder: PathBuf,
    text: String,
    recipe: Recipe,
}

impl Stack {
    fn open(name: &str) -> Result<Stack> {
        let folder = host::top().join("rootfs").join(name);
        let file = folder.join("rootfs.toml");
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("no stack `{name}`: cannot read {}", file.display()))?;
        let recipe =
            Recipe::parse(&text).map_err(|why| anyhow::anyhow!("{}: {why}", file.display()))?;
        let out = output().join(name);
        std::fs::create_dir_all(out.parent().unwrap_or(&out))?;
        Ok(Stack { name: name.to_owned(), folder, text, recipe })
    }

    fn out(&self, end: &str) -> PathBuf {
        output().join(format!("{}.{end}", self.name))
    }

    fn is_built(&self) -> bool {
        let key = std::fs::read_to_string(self.out("key")).unwrap_or_default();
        let there = ["tar.zst", "digest"].iter().all(|end| self.out(end).is_file());
        there && self.key().is_ok_and(|now| now == key)
    }

    /// Stands for everything in the repository that the stack is made from.
    fn key(&self) -> Result<String> {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(&FORMAT.to_le_bytes());
        part(std::env::consts::ARCH.as_bytes());
        part(self.text.as_bytes());
        let mut overlay = Tree::default();
        overlay.overlay(&self.folder.join("overlay"))?;
        for (path, node) in &overlay.0 {
            part(path.as_bytes());
            part(&node.mode.to_le_bytes());
            match &node.kind {
                Kind::File(Content::OnDisk(disk)) => part(&std::fs::read(disk)?),
                other => part(format!("{other:?}").as_bytes()),
            }
        }
        Ok(pack::hex(&hash.finalize()))
    }

    fn build(&self) -> Result<Packed> {
        let mut progress = Progress::new(&format!("rootfs {}", self.name));
        let work = Work::new(output().join(format!("{}.build", self.name)))?;
        let mut tree = match &self.recipe.source {
            Source::Busybox { package } => busybox::build(package, &work.0, &mut progress)?,
            Source::Debootstrap { suite, packages, locales } => {
                let cache = output().join("cache").join(suite);
                let recipe = &self.recipe;
                debian::build(recipe, suite, packages, locales, &work.0, &cache, &mut progress)?
            }
            Source::Packages { packages, follow, without } => {
                let skip = |path: &str| self.recipe.drops(path);
                packages::build(packages, follow, without, skip, &work.0, &mut progress)?
            }
        };
        tree.overlay(&self.folder.join("overlay"))?;
        tree.finish(&self.recipe)?;

        progress.stage("packing");
        let draft = work.0.join("tar.zst");
        let packed =
            pack::write(&tree, self.recipe.epoch, self.recipe.level, &draft, |done, of| {
                progress.detail(&format!("{} %", done * 100 / of));
            })?;
        if let Ok(status) = std::fs::read_to_string(work.0.join("root/var/lib/dpkg/status")) {
            std::fs::write(self.out("packages"), debian::packages(&status))?;
        }
        let Packed { archive, diff_id, archive_bytes, tar_bytes } = &packed;
        // The key goes first and comes last: it never vouches for a half-made stack.
        let _ = std::fs::remove_file(self.out("key"));
        std::fs::rename(&draft, self.out("tar.zst"))?;
        std::fs::write(self.out("digest"), format!("archive {archive}\ndiff_id {diff_id}\n"))?;
        std::fs::write(self.out("key"), self.key()?)?;
        drop(work);
        let took = progress.done().as_secs_f32();
        let mib = |bytes: &u64| *bytes as f64 / f64::from(1 << 20);
        eprintln!(
            "rootfs {}: {} ({:.1} MiB, {:.1} MiB unpacked) {diff_id}, {took:.0} s",
            self.name,
            self.out("tar.zst").display(),
            mib(archive_bytes),
            mib(tar_bytes),
        );
        Ok(packed)
    }
}

/// Digest of some bytes, as hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    pack::hex(&Sha256::digest(bytes))
}

/// Where stacks are left.
pub fn output() -> PathBuf {
    host::target_dir().join("rootfs")
}

/// A directory that is empty before and gone after.
pub struct Work(pub PathBuf);

impl Work {
    /// Makes it; what an earlier build has left there goes.
    pub fn new(dir: PathBuf) -> Result<Work> {
        remove(&dir)?;
        std::fs::create_dir_all(&dir)?;
        Ok(Work(dir))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(err) = remove(&self.0) {
            eprintln!("warning: {err:#}");
        }
    }
}

fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            Err(err).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
