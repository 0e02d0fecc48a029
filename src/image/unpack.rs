//! From a tar stream to a layer directory in overlay form.
//!
//! What the archive says is taken when it is harmless, and refused, with the entry's name, when
//! it is not. The rules, by kind:
//!
//! | entry | what happens |
//! |---|---|
//! | path | leading `/` and `.` say nothing; `..` is refused; resolved as if the directory were `/` |
//! | twice the same path | the last one wins; directories merge |
//! | missing parents | made, 0755 |
//! | `.wh.x`, `.wh..wh..opq` | overlay's own marks, for lower layers only, in whatever order |
//! | hard link | to what is no directory earlier in this archive, a symlink itself; or to a file of the layers below, which comes up ([`super::lower`]); anything else is refused |
//! | symlink | kept as written; never followed out of the directory |
//! | device, socket, unknown | not made, counted |
//! | owner | numeric, 0 to 65535, or refused (D24); or the owner that the caller wants |
//! | mode | all twelve bits; the root directory stays root's and open to all (at least 0755) |
//! | extended attributes | `user.*` but overlay's, and file capabilities if the caller wants them; all others are dropped |
//! | time | kept, for directories too; outside 1970 to 9999 the nearer end |

use super::archive::{Archive, Entry};
pub use super::error::UnpackError;
use super::held::Held;
use super::lower::LowerLinks;
use super::name::{self, Mark};
use super::notes::LayerSize;
use super::tree::{self, Tree};
use super::wire::Kind;
use super::work::{Allowance, Spent};
use crate::sys::at;
use crate::sys::file;
use crate::unit::Bytes;
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Bytes that are read and written at once.
pub(super) const BUFFER: usize = 64 << 10;

/// Bytes of the stream that one entry may take beside its file: header, padding, long names,
/// attributes. Counted over all entries together.
const ENTRY_MAX: u64 = 4 << 10;

/// How to unpack.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory below the layer's root that everything goes into and nothing gets out of. Its
    /// last component belongs to `owner`, those above to root.
    pub prefix: Option<&'static str>,
    /// User and group of everything; `None`: as the archive says.
    pub owner: Option<(u32, u32)>,
    /// Whether `.wh.` names are whiteouts, as in image layers, or just names.
    pub whiteouts: bool,
    /// Whether a hard link may be to a file of a layer below, which [`super::implied`] finds later.
    pub lower_links: bool,
    /// Whether programs keep their file capabilities. They do nothing under no_new_privs, and
    /// count only as far as the container's own root has them.
    pub file_capabilities: bool,
    /// Most bytes that the files may have together, holes included.
    pub max_bytes: Bytes,
    /// What they may have together with those of the image's other layers.
    pub allowance: Option<Allowance>,
    /// Most headers in the archive.
    pub max_entries: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            prefix: None,
            owner: None,
            whiteouts: true,
            lower_links: true,
            file_capabilities: true,
            max_bytes: Bytes::mib(16 << 10),
            allowance: None,
            max_entries: 1_000_000,
        }
    }
}

/// What was unpacked.
#[derive(Debug, Default)]
pub struct Summary {
    /// Entries that were made.
    pub made: u64,
    /// Bytes in files.
    pub bytes: u64,
    /// Devices, sockets and unknown things that were not made.
    pub skipped: u64,
    /// Extended attributes that were not set.
    pub attributes_dropped: u64,
    /// The archive hides everything that lies below it. Overlay cannot say that of a root, so
    /// nothing may be put below this layer.
    pub hides_all: bool,
    /// Directories of which the archive says nothing but that something is in them: 0755, and
    /// root's, until [`super::implied`] makes them what they are in the layers below.
    pub implied: Vec<Vec<u8>>,
    /// Files of the layers below that the archive links: empty until then.
    pub links: LowerLinks,
    /// Memory for the directories.
    pub(super) held: Held,
    /// What the files have had of the image's allowance, until they are a layer.
    pub(super) spent: Spent,
}

impl Summary {
    /// Whether there is something that only the layers below can say.
    pub(super) fn needs_below(&self) -> bool {
        !self.implied.is_empty() || !self.links.is_empty()
    }

    /// Bytes of memory that it takes, about.
    pub(super) fn held(&self) -> usize {
        self.held.bytes() + self.links.held()
    }

    /// What the layer holds, as it is noted.
    pub(super) fn size(&self) -> LayerSize {
        LayerSize { bytes: self.bytes, names: self.made + self.implied.len() as u64 }
    }
}

/// Unpacks `stream` to its end into the directory `root`, which nobody else may write to.
pub fn unpack(
    stream: &mut dyn Read,
    root: &Path,
    options: &Options,
) -> Result<Summary, UnpackError> {
    let placed = UnpackError::refused(b".", "cannot be placed");
    let (tree, buffer) = (open_tree(root, options).map_err(placed)?, vec![0; BUFFER]);
    let most = options.max_entries.saturating_mul(ENTRY_MAX);
    let left = options.max_bytes.get().saturating_add(most);
    let mut archive = Archive::new(Bounded { stream, left }, options.max_entries);
    let spent = Spent::of(options.allowance.clone());
    let mut job = Job { tree, options, buffer, summary: Summary { spent, ..Summary::default() } };
    while let Some(entry) = archive.next_entry()? {
        job.apply(&entry, &mut archive).map_err(|err| err.at(&entry.path))?;
    }
    job.tree.leave(b".")?;
    archive.drain()?;
    let Job { tree, summary, .. } = job;
    let (implied, held) = tree.implied();
    Ok(Summary { implied, held, ..summary })
}

/// A stream that is an error after so many bytes. Files alone are not all that an archive can be
/// large by: what is skipped, attributes, and what follows its end take time and room too, and a
/// compressed file of 1 GiB can hold 1 TiB of them.
struct Bounded<'a> {
    stream: &'a mut dyn Read,
    left: u64,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(buffer)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::FileTooLarge, "it goes on for longer than is allowed")
        })?;
        Ok(n)
    }
}

/// Opens the root, or makes and opens the prefix below it.
fn open_tree(root: &Path, options: &Options) -> io::Result<Tree> {
    let mut dir = File::open(root)?;
    let parts = options.prefix.map_or(Vec::new(), |prefix| prefix.split('/').collect());
    for (at, part) in parts.iter().enumerate() {
        let name = part.as_bytes();
        match at::make_dir(&dir, name, 0o700) {
            Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(err),
            _ => {}
        }
        dir = File::from(file::open_dir(dir.as_fd(), name)?);
        let last = at + 1 == parts.len();
        let (uid, gid) = options.owner.filter(|_| last).unwrap_or((0, 0));
        at::set_owner(&dir, uid, gid)?;
        dir.set_permissions(Permissions::from_mode(0o755))?;
    }
    Ok(Tree::new(dir, options.owner.unwrap_or((0, 0))))
}

/// One unpacking.
pub(super) struct Job<'a> {
    pub(super) tree: Tree,
    pub(super) options: &'a Options,
    pub(super) buffer: Vec<u8>,
    pub(super) summary: Summary,
}

impl Job<'_> {
    /// Makes one entry.
    fn apply<R: Read>(
        &mut self,
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<(), UnpackError> {
        let path = entry.path.as_slice();
        let refused = |why| UnpackError::entry(path, why);
        let parts = name::components(path).map_err(refused)?;
        let mark = match self.options.whiteouts {
            true => name::mark(&parts).map_err(refused)?,
            false => Mark::None,
        };
        let Some((last, above)) = parts.split_last() else {
            return self.root(entry);
        };
        match mark {
            Mark::Ignored => return Ok(()),
            Mark::Whiteout(hidden) => return self.whiteout(above, hidden, path),
            Mark::Opaque => return self.opaque(above, path),
            Mark::None => {}
        }
        match entry.kind {
            Kind::File | Kind::Sparse => self.file(above, last, entry, archive)?,
            Kind::Directory => self.directory(above, last, entry)?,
            Kind::Symlink => self.symlink(above, last, entry)?,
            Kind::HardLink => self.hard_link(above, last, entry)?,
            Kind::Fifo => self.fifo(above, last, entry)?,
            _ => {
                self.summary.skipped += 1;
                return Ok(());
            }
        }
        self.summary.made += 1;
        Ok(())
    }

    /// The entry `.`: the container's `/`, which everybody must be able to pass through.
    fn root(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != Kind::Directory {
            return Err(UnpackError::entry(&entry.path, "is the root but no directory"));
        }
        self.tree.leave(&entry.path)?;
        let root = self.tree.root();
        root.set_permissions(Permissions::from_mode(entry.mode | 0o755))
            .and_then(|()| file::set_times(root.as_fd(), b".", entry.time))
            .map_err(UnpackError::refused(&entry.path, "cannot be placed"))
    }

    /// Hides `name` of the layers below. What this layer has there stays, whichever came first; a
    /// directory then hides the one below it.
    fn whiteout(&mut self, above: &[&[u8]], name: &[u8], path: &[u8]) -> Result<(), UnpackError> {
        let refused = || UnpackError::refused(path, "cannot be made");
        let parent = self.tree.parent(above, path)?;
        match tree::look(parent, name).map_err(refused())? {
            None => file::make_whiteout(parent.as_fd(), name).map_err(refused())?,
            Some(meta) if meta.is_dir() => {
                let dir = file::open_dir(parent.as_fd(), name).map(File::from).map_err(refused())?;
                tree::set_opaque(&dir).map_err(refused())?;
            }
            Some(_) => {}
        }
        self.summary.made += 1;
        Ok(())
    }

    /// Hides everything that the layers below have in a directory.
    fn opaque(&mut self, above: &[&[u8]], path: &[u8]) -> Result<(), UnpackError> {
        let dir = self.tree.parent(above, path)?;
        tree::set_opaque(dir).map_err(UnpackError::refused(path, "cannot be made"))?;
        self.summary.made += 1;
        self.summary.hides_all |= above.is_empty();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_no_layer_gives_back_what_it_had_of_the_images_bytes() {
        let root = std::env::temp_dir().join(format!("spent-{}", std::process::id()));
        std::fs::create_dir(&root).expect("directory");
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(600);
        header.set_mode(0o644);
        tar.append_data(&mut header, "f", &[7; 600][..]).expect("append");
        let tar = tar.into_inner().expect("archive");
        let allowance = super::super::work::Wish::default().at_most(Bytes::new(1000)).allowance();
        let own = std::fs::metadata(&root).expect("stat");
        let ids = std::os::unix::fs::MetadataExt::uid(&own);
        let owner = Some((ids, std::os::unix::fs::MetadataExt::gid(&own)));
        let options = Options { allowance, owner, ..Options::default() };
        let again = || unpack(&mut &tar[..], &root, &options);
        drop(again().expect("unpacked"));
        let mut kept = again().expect("the first one is nothing any more");
        kept.spent.keep();
        drop(kept);
        let text = crate::log::chain(&again().expect_err("no room beside the layer"));
        std::fs::remove_dir_all(&root).expect("clean");
        assert!(text.contains("the image has more than"), "{text}");
    }

    #[test]
    fn a_stream_without_end_is_given_up() {
        let root = std::env::temp_dir().join(format!("unpack-{}", std::process::id()));
        std::fs::create_dir(&root).expect("directory");
        let options = Options { max_bytes: Bytes::mib(1), max_entries: 16, ..Options::default() };
        // Zeros are the end of an archive, and then what follows it.
        let unpacked = unpack(&mut io::repeat(0), &root, &options);
        std::fs::remove_dir_all(&root).expect("clean");
        let text = crate::log::chain(&unpacked.expect_err("refused"));
        assert!(text.contains("longer than is allowed"), "{text}");
    }
}
