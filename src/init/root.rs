//! Puts the container's root together and moves into it.
//!
//! Pid 1 still has every capability of the host here, so nothing in the root is believed: layers
//! may hold symbolic links, files or devices where directories belong. Every name is resolved
//! within the new root without leaving it, every mount goes to an open descriptor, and nothing of
//! the container runs before the old root is gone.
//!
//! ```text
//! scratch/          a tmpfs of our own, on the plan's empty directory
//!   l0 .. lN        the layers, lowest first, read-only, owners through the id map
//!   w/upper w/work  the writable directory, plain: it belongs to the mapped root already
//!   empty           what hides masked directories
//!   root            the overlay of it all; becomes /
//! ```
//!
//! Without layers, the writable directory is the root itself, through the id map: a snapshot. Then
//! the host's root has no place in it, and what is made there is made as the one who is to own it.

use super::inside::{Closed, Trees, is_in_trees};
use super::proto::Plan;
use super::{Doing, InitError, bind};
use crate::sys::at::{self, Kind, Open, Resolve};
use crate::sys::caps;
use crate::sys::mount::{self, Attr};
use crate::sys::ns::{self, Spaces};
use crate::unit::IdMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// The root under construction.
pub struct Root<'a> {
    /// Its directory: the overlay's mount.
    pub dir: OwnedFd,
    /// The tmpfs beside it.
    pub scratch: OwnedFd,
    /// Host ids of what is made in it.
    pub ids: IdMap,
    /// The user namespace whose map is used; `None`: privileged, ids are the host's.
    pub user: Option<BorrowedFd<'a>>,
}

/// Descriptors that pid 1 goes on using: they cannot be replaced by what runs inside.
pub struct Kept {
    /// `/dev/null`, read and write.
    pub null: OwnedFd,
    /// `/dev/pts`.
    pub pts: OwnedFd,
    /// `/proc`.
    pub proc: OwnedFd,
}

/// How names in the new root are resolved: `/` and `..` stay within it, and links of /proc, which
/// lead anywhere, are an error.
pub const WITHIN: Resolve = Resolve::RESOLVE_IN_ROOT.union(Resolve::RESOLVE_NO_MAGICLINKS);
/// As [`WITHIN`], without any link at all.
pub const PLAIN: Resolve = WITHIN.union(Resolve::RESOLVE_NO_SYMLINKS);

/// Builds the root of `plan` in a new mount namespace and makes it the caller's `/`. Nothing of
/// the host's is mounted afterwards, but for the plan's binds. `ready`: what [`trees_ahead`] made for
/// such a plan.
pub fn build(plan: &Plan, user: &OwnedFd, ready: Option<Trees>) -> Result<Kept, InitError> {
    fresh_mounts()?;
    let user = (!plan.privileged).then_some(user.as_fd());
    let closed = Closed { masked: &plan.masked, read_only: &plan.read_only };
    let root = if plan.lowers.is_empty() { snapshot(plan, user)? } else { union(plan, user)? };
    let trees = match ready {
        Some(trees) => trees.attach(&root, plan.shm_bytes).map(|()| trees)?,
        None => Trees::make(&root, closed, plan.shm_bytes)?,
    };
    let kept = trees.keep(&root)?;
    for volume in &plan.volumes {
        bind::make_volume(&root, volume)?;
    }
    for wanted in &plan.binds {
        bind::bind(&root, wanted)?;
    }
    closed.close(&root, |path| !is_in_trees(path))?;
    mount::pivot(&root.dir).doing(|| "change to the new root".into())?;
    Ok(kept)
}

/// Size of /dev/shm, in bytes, until it is known which it is to have.
const SHM_AHEAD: u64 = 64 << 10;

/// Makes what [`build`] takes as `ready`, for a container with these ids. `place` is an empty directory
/// of the box. The caller keeps its mount namespace.
pub fn trees_ahead(
    place: &Path,
    ids: IdMap,
    user: &OwnedFd,
    closed: Closed<'_>,
) -> Result<Trees, InitError> {
    let own = || "open the own mount namespace".into();
    let before = std::fs::File::open("/proc/self/ns/mnt").doing(own)?;
    fresh_mounts()?;
    let scratch = scratch(place, ids)?;
    at::make_dir(&scratch, "stage", 0o755).doing(|| "make a directory".into())?;
    let dir = at::open(&scratch, "stage", Open::O_PATH | Open::O_DIRECTORY, 0, PLAIN)
        .doing(|| "open a directory".into())?;
    let stage = Root { dir, scratch, ids, user: Some(user.as_fd()) };
    let trees = Trees::make(&stage, closed, SHM_AHEAD)?;
    let trees = trees.detached()?;
    ns::enter(before, Spaces::CLONE_NEWNS).doing(|| "go back to the box's mounts".into())?;
    Ok(trees)
}

/// Made by the host's root, it stays the host's, and nobody inside may mount in it.
fn fresh_mounts() -> Result<(), InitError> {
    ns::unshare(Spaces::CLONE_NEWNS).doing(|| "make a mount namespace".into())?;
    mount::make_all_private().doing(|| "make mounts private".into())
}

/// Mounts layers and writable directory as one root.
fn union<'a>(plan: &Plan, user: Option<BorrowedFd<'a>>) -> Result<Root<'a>, InitError> {
    let scratch = scratch(&plan.scratch, plan.ids)?;
    for (number, lower) in plan.lowers.iter().enumerate() {
        let doing = || format!("mount layer {}", lower.display());
        let layer = mount::copy(at::HERE, lower, false).doing(doing)?;
        mount::restrict(&layer, Attr::READ_ONLY.and(Attr::NO_DEV), user, false)
            .doing(|| format!("{} through the container's id map", doing()))?;
        attach_new(&scratch, &format!("l{number}"), &layer).doing(doing)?;
    }
    let doing = || format!("mount {}", plan.writable.display());
    let writable = mount::copy(at::HERE, &plan.writable, false).doing(doing)?;
    attach_new(&scratch, "w", &writable).doing(doing)?;
    at::make_dir(&scratch, "root", 0o755).doing(|| "make a directory".into())?;
    at::change_dir(&scratch).doing(|| "enter the scratch directory".into())?;
    overlay(plan.lowers.len(), root_attr(plan))
        .doing(|| format!("mount the union of {} layers", plan.lowers.len()))?;
    let dir = at::open(&scratch, "root", Open::O_PATH | Open::O_DIRECTORY, 0, PLAIN)
        .doing(|| "open the new root".into())?;
    Ok(Root { dir, scratch, ids: plan.ids, user })
}

/// Mounts the writable directory as the root.
fn snapshot<'a>(plan: &Plan, user: Option<BorrowedFd<'a>>) -> Result<Root<'a>, InitError> {
    let scratch = scratch(&plan.scratch, plan.ids)?;
    let doing = || format!("mount {}", plan.writable.display());
    let writable = mount::copy(at::HERE, &plan.writable, false).doing(doing)?;
    // The store itself is mounted nosuid.
    mount::replace(&writable, root_attr(plan), Attr::NO_SUID, user)
        .doing(|| format!("{} through the container's id map", doing()))?;
    attach_new(&scratch, "root", &writable).doing(doing)?;
    let dir = at::open(&scratch, "root", Open::O_PATH | Open::O_DIRECTORY, 0, PLAIN)
        .doing(|| "open the new root".into())?;
    Ok(Root { dir, scratch, ids: plan.ids, user })
}

/// What the root's mount forbids. Device nodes of layers are of no use: /dev is ours. Set-user-id
/// programs do nothing under no_new_privs anyway; but a program with file capabilities that the
/// container has not could not be executed at all, without the flag that lets the kernel overlook
/// them.
fn root_attr(plan: &Plan) -> Attr {
    if plan.no_new_privs { Attr::NO_DEV.and(Attr::NO_SUID) } else { Attr::NO_DEV }
}

/// A tmpfs on the empty directory `place`, with the directory `empty`.
fn scratch(place: &Path, ids: IdMap) -> Result<OwnedFd, InitError> {
    let doing = || format!("mount a tmpfs on {}", place.display());
    let attr = Attr::NO_SUID.and(Attr::NO_DEV).and(Attr::NO_EXEC);
    let scratch = mount::new("tmpfs", &[("mode", "0711"), ("size", "1m")], attr).doing(doing)?;
    let flags = Open::O_PATH | Open::O_DIRECTORY;
    let target = at::open(at::HERE, place, flags, 0, Resolve::empty()).doing(doing)?;
    mount::attach(&scratch, target).doing(doing)?;
    at::make_dir(&scratch, "empty", 0o755).doing(|| "make a directory".into())?;
    let base = ids.root();
    at::adopt(&scratch, "empty", base, base, 0o755)
        .doing(|| "give a directory to the container".into())?;
    Ok(scratch)
}

/// Attaches `mounted` to a new directory of the scratch tmpfs.
fn attach_new(scratch: &OwnedFd, name: &str, mounted: &OwnedFd) -> io::Result<()> {
    at::make_dir(scratch, name, 0o755)?;
    let flags = Open::O_PATH | Open::O_DIRECTORY;
    mount::attach(mounted, at::open(scratch, name, flags, 0, PLAIN)?)
}

/// Mounts the overlay at `root` of the working directory.
fn overlay(layers: usize, attr: Attr) -> io::Result<()> {
    let lowers: Vec<String> = (0..layers).rev().map(|number| format!("l{number}")).collect();
    let dirs = format!("lowerdir={},upperdir=w/upper,workdir=w/work", lowers.join(":"));
    // What a container writes is worth nothing after a crash of the box, so it need not be synced
    // (volatile). No index, no metadata-only copies: both let files of the upper directory point
    // at others by handles. Older kernels lack one or the other.
    let mut last = Ok(());
    for extra in [",index=off,metacopy=off,volatile", ",index=off,metacopy=off", ""] {
        last = mount::overlay("root", &format!("{dirs}{extra}"), attr);
        match &last {
            Err(err) if err.kind() == io::ErrorKind::InvalidInput => {}
            _ => break,
        }
    }
    last
}

impl Root<'_> {
    /// A directory right below the root for one of our own mounts. What else has the name (a
    /// link, a file) is removed from the container's copy.
    pub fn own_dir(&self, name: &str) -> Result<OwnedFd, InitError> {
        let doing = || format!("make /{name} in the container");
        match at::stat_entry(&self.dir, name) {
            Ok(found) if found.kind == Kind::Directory => {}
            Ok(_) => {
                at::remove(&self.dir, name).doing(doing)?;
                self.new_dir(name, 0o755).doing(doing)?;
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                self.new_dir(name, 0o755).doing(doing)?;
            }
            Err(err) => return Err(err).doing(doing),
        }
        let flags = Open::O_PATH | Open::O_DIRECTORY | Open::O_NOFOLLOW;
        at::open(&self.dir, name, flags, 0, PLAIN).doing(doing)
    }

    /// A new directory right below the root, owned by the container's root.
    pub fn new_dir(&self, name: &str, mode: u32) -> io::Result<()> {
        let owner = (self.ids.root(), self.ids.root());
        make_for(owner, || at::make_dir(&self.dir, name, mode))?;
        at::adopt(&self.dir, name, owner.0, owner.1, mode)
    }
}

/// Opens the directory at absolute `path` below `root`, making what is missing of it for `owner`
/// (user and group id), mode 0755. How links are followed is the caller's choice; one that leads
/// nowhere is an error.
pub fn make_dirs(
    root: impl AsFd,
    path: &Path,
    owner: (u32, u32),
    how: Resolve,
) -> io::Result<OwnedFd> {
    let root = root.as_fd();
    let missing = |err: &io::Error| err.kind() == io::ErrorKind::NotFound;
    match open_dir(root, path, how) {
        Err(err) if missing(&err) => {}
        other => return other,
    }
    let bad = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    let mut so_far = PathBuf::from("/");
    let mut dir = open_dir(root, &so_far, how)?;
    for part in path.components() {
        let name = match part {
            Component::RootDir => continue,
            Component::Normal(name) => name,
            _ => return bad("the path is not absolute or has `..` in it"),
        };
        so_far.push(name);
        dir = match open_dir(root, &so_far, how) {
            Err(err) if missing(&err) => {
                let Some(name) = name.to_str() else { return bad("the path is not UTF-8") };
                make_for(owner, || at::make_dir(&dir, name, 0o755))?;
                let flags = Open::O_PATH | Open::O_DIRECTORY | Open::O_NOFOLLOW;
                let made = at::open(&dir, name, flags, 0, PLAIN)?;
                at::set_owner(&made, owner.0, owner.1)?;
                made
            }
            other => other?,
        };
    }
    Ok(dir)
}

/// Makes something that is to belong to `owner` (user and group id), as that one where it has to be:
/// a mount through an id map has no name for the host's root (`EOVERFLOW`).
pub fn make_for<T>(owner: (u32, u32), make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match make() {
        Err(err) if err.raw_os_error() == Some(75) => caps::as_owner(owner.0, owner.1, make),
        done => done,
    }
}

/// Opens the directory under the rules of `how`.
pub fn open_dir(root: BorrowedFd<'_>, path: &Path, how: Resolve) -> io::Result<OwnedFd> {
    open_again(root, path, Open::O_PATH | Open::O_DIRECTORY, how)
}

/// Opens `path` under the rules of `how`. The kernel gives up with `EAGAIN` when anything is
/// renamed or mounted anywhere while it walks a `..` within bounds; then we ask again.
pub fn open_again(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: Open,
    how: Resolve,
) -> io::Result<OwnedFd> {
    const TRIES: usize = 64;
    let mut last = at::open(root, path, flags, 0, how);
    for _ in 1..TRIES {
        match &last {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                last = at::open(root, path, flags, 0, how);
            }
            _ => break,
        }
    }
    last
}
