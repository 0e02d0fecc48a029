//! Stacks and droplets: local archive files that become layers, once each.

use super::error::ImageError;
use super::notes;
use super::stream::unpack_packed;
use super::unpack::Options;
use super::work::{self, Feed};
use crate::sys::beneath;
use crate::unit::{Bytes, Digest};
use crate::volume::{Pin, Store};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Read from the file at once.
const FILE_BUFFER: usize = 256 << 10;
/// Where a droplet's files live, and who owns them.
const DROPLET_PREFIX: &str = "home/vcap";
const VCAP: (u32, u32) = (2000, 2000);
/// Files of a droplet together.
const DROPLET_MAX: Bytes = Bytes::mib(8 << 10);

/// Is told how many bytes of a file are done, and how many there are.
pub type Progress<'a> = dyn FnMut(u64, u64) + Send + 'a;

/// Makes a stack's archive (tar, plain or as zstd or gzip) a layer and returns its chain id, which
/// for a lowest layer is the digest of the unpacked tar. A file that was imported before, by path,
/// size and time, costs a look. `progress` is told bytes of the file: done, and in all.
pub fn import_stack(
    store: &Store,
    archive: &Path,
    progress: &mut Progress<'_>,
) -> Result<Digest, ImageError> {
    import_pinned(store, archive, progress).map(|(chain, _)| chain)
}

/// As [`import_stack`]; the layer stays at least for as long as the pin does. Who asks for a file
/// that is being imported waits for that.
pub(super) fn import_pinned(
    store: &Store,
    archive: &Path,
    progress: &mut Progress<'_>,
) -> Result<(Digest, Pin), ImageError> {
    let (file, meta) = open(archive)?;
    let known = file_key("stack", archive, &meta);
    let _turn = store.turn(&known);
    if let Some((chain, pin)) = notes::recall(store, &known) {
        progress(meta.len(), meta.len());
        return Ok((chain, pin));
    }
    let source = Source { store, archive, file, meta, progress };
    // The lowest layer: nothing is below.
    let options = Options { lower_links: false, ..Options::default() };
    source.import(&options, |diff| *diff, &[known])
}

/// The layer that a stack's archive has become, if it was imported before and is still there.
pub fn known_stack(store: &Store, archive: &Path) -> Option<Digest> {
    let (_, meta) = open(archive).ok()?;
    notes::recall(store, &file_key("stack", archive, &meta)).map(|(chain, _)| chain)
}

/// Makes a droplet (a tar, as a rule with gzip) a layer to put on top of the layer `parent`, its
/// files below `/home/vcap`, owned by vcap; returns the chain id of the two.
///
/// The layer's id is not the tar's own digest but derived from it: the same tar as an image layer
/// would have other files in it.
pub fn import_droplet(
    store: &Store,
    droplet: &Path,
    parent: &Digest,
) -> Result<Digest, ImageError> {
    let (file, meta) = open(droplet)?;
    let known_file = file_key(&format!("droplet on {parent}"), droplet, &meta);
    if let Some((chain, _)) = notes::recall(store, &known_file) {
        return Ok(chain);
    }
    // The same droplet under another name or with another time, as after a copy.
    let content =
        hash(&file).map_err(|source| ImageError::Read { archive: droplet.into(), source })?;
    let known_content = Digest::of(format!("droplet on {parent}\0{content}").as_bytes());
    if let Some((chain, _)) = notes::recall(store, &known_content) {
        notes::remember(store, &known_file, &chain);
        return Ok(chain);
    }
    let options = Options {
        prefix: Some(DROPLET_PREFIX),
        owner: Some(VCAP),
        whiteouts: false,
        lower_links: false,
        file_capabilities: false,
        max_bytes: DROPLET_MAX,
        ..Options::default()
    };
    let chain = |diff: &Digest| {
        let (uid, gid) = VCAP;
        let layer = format!("terrarium droplet {DROPLET_PREFIX} {uid}:{gid} {diff}");
        parent.chain(&Digest::of(layer.as_bytes()))
    };
    let (file, meta) = open(droplet)?;
    let source = Source { store, archive: droplet, file, meta, progress: &mut |_, _| () };
    source.import(&options, chain, &[known_file, known_content]).map(|(chain, _)| chain)
}

/// Makes a tar a tree of its own, to be shown as it is: nobody's upper or lower layer. The same tar
/// that was imported before costs the reading of it. The tree stays at least as long as the pin.
pub fn import_tree(store: &Store, mut file: File) -> Result<(Digest, Pin), ImageError> {
    let archive = Path::new("the archive");
    let unreadable = |source| ImageError::Read { archive: archive.into(), source };
    let content = hash(&file).map_err(unreadable)?;
    let known = Digest::of(format!("tree\0{content}").as_bytes());
    let _turn = store.turn(&known);
    if let Some((chain, pin)) = notes::recall(store, &known) {
        return Ok((chain, pin));
    }
    let meta = file.rewind().and_then(|()| file.metadata()).map_err(unreadable)?;
    let options = Options {
        whiteouts: false,
        lower_links: false,
        file_capabilities: false,
        max_bytes: DROPLET_MAX,
        ..Options::default()
    };
    let chain = |diff: &Digest| Digest::of(format!("terrarium tree {diff}").as_bytes());
    let source = Source { store, archive, file, meta, progress: &mut |_, _| () };
    source.import(&options, chain, &[known])
}

/// An archive file on its way into the store.
struct Source<'a> {
    store: &'a Store,
    archive: &'a Path,
    file: File,
    meta: Metadata,
    progress: &'a mut Progress<'a>,
}

impl Source<'_> {
    /// Unpacks into a draft, commits it under the id that `chain` makes of the tar's digest, and
    /// remembers that id under `keys`.
    fn import(
        self,
        options: &Options,
        chain: impl FnOnce(&Digest) -> Digest,
        keys: &[Digest],
    ) -> Result<(Digest, Pin), ImageError> {
        let Source { store, archive, file, meta, progress } = self;
        let in_store = |source| ImageError::Store { archive: archive.into(), source };
        let unreadable = |source| ImageError::Read { archive: archive.into(), source };
        let draft = store.draft().map_err(in_store)?;
        let total = meta.len();
        work::make_room_ahead(store, total);
        let watch = file.try_clone().map_err(unreadable)?;
        let tell = Tell { file, done: 0, total, progress };
        let unpacked = unpack_packed(store, Feed::File, tell, draft.dir(), options);
        let (summary, diff) =
            unpacked.map_err(|source| ImageError::Unpack { archive: archive.into(), source })?;
        if summary.made == 0 {
            return Err(ImageError::Empty { archive: archive.into() });
        }
        if identity(&watch.metadata().map_err(unreadable)?) != identity(&meta) {
            return Err(ImageError::Changed { archive: archive.into() });
        }
        let chain = chain(&diff);
        let pin = store.pin(&[chain]);
        draft.commit(&chain).map_err(in_store)?;
        notes::record(store, &chain, summary.size());
        for key in keys {
            notes::remember(store, key, &chain);
        }
        crate::info!(
            "image.imported",
            path = archive.display(),
            digest = chain,
            files = summary.made,
            bytes = summary.bytes,
            skipped = summary.skipped
        );
        Ok((chain, pin))
    }
}

/// Opens the file, which must be one.
fn open(archive: &Path) -> Result<(File, Metadata), ImageError> {
    let opened = beneath::open_followed(archive).and_then(|file| {
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
        }
        Ok((file, meta))
    });
    opened.map_err(|source| ImageError::Read { archive: archive.into(), source })
}

/// Tells how far the file is read.
struct Tell<'a> {
    file: File,
    done: u64,
    total: u64,
    progress: &'a mut Progress<'a>,
}

impl Read for Tell<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.done += n as u64;
        (self.progress)(self.done, self.total);
        Ok(n)
    }
}

/// The digest of a whole file.
fn hash(mut file: &File) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; FILE_BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::finish(hash)),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// What tells one state of a file from another.
pub(super) fn identity(meta: &Metadata) -> (u64, u64, u64, i64, i64) {
    (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())
}

/// The name under which we remember what the file became.
fn file_key(role: &str, path: &Path, meta: &Metadata) -> Digest {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let state = format!("{role}\0{:?}\0", identity(meta));
    Digest::of(&[state.as_bytes(), path.as_os_str().as_bytes()].concat())
}
