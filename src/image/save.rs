//! Images as archives that `docker load` and others read. Written twice: once to know what the layers
//! hold as tars, for the table of contents says that, and once to somebody. Nothing is put on a disk
//! in between; layers do not change.
//!
//! ```text
//! manifest.json      which files, and what it is called
//! <hex>.json         the configuration
//! <hex>.tar          a layer, named by what is in it
//! ```

use super::catalog::Known;
use super::docker;
use super::error::{ImageError, UnpackError};
use super::pack;
use super::platform::Runs;
use crate::unit::Digest;
use crate::volume::{Pin, Store};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::io::{self, Write};
use tar::{EntryType, Header};

/// An image that is ready to be written.
#[derive(Debug)]
pub struct Save {
    /// What the image's id is in the archive: layers that were packed otherwise before have another
    /// digest now.
    pub id: Digest,
    config: Vec<u8>,
    manifest: Vec<u8>,
    layers: Vec<Layer>,
    /// Keeps the layers.
    _pin: Pin,
}

/// A layer as a tar.
#[derive(Clone, Copy, Debug)]
struct Layer {
    chain: Digest,
    diff: Digest,
    bytes: u64,
}

impl Save {
    /// Looks at an image that `pin` keeps, which is to have these names in the archive. Blocking.
    pub fn new(
        store: &Store,
        image: &Known,
        names: &[String],
        pin: Pin,
    ) -> Result<Save, ImageError> {
        let pack = |chain: &Digest| pack_to(store, chain, &mut io::sink());
        let layers = image.layers.iter().map(pack).collect::<Result<Vec<_>, _>>()?;
        let diffs: Vec<Digest> = layers.iter().map(|layer| layer.diff).collect();
        let here = Runs::here().name();
        let architecture = here.rsplit('/').next().unwrap_or_default();
        let config = docker::rewritten(image, &diffs, architecture);
        let id = Digest::of(&config);
        let manifest = json!([{
            "Config": format!("{}.json", id.hex()),
            "RepoTags": names,
            "Layers": layers.iter().map(Layer::name).collect::<Vec<_>>(),
        }]);
        let manifest = manifest.to_string().into_bytes();
        Ok(Save { id, config, manifest, layers, _pin: pin })
    }

    /// Writes the archive. Blocking.
    pub fn write(&self, store: &Store, to: &mut dyn Write) -> Result<(), ImageError> {
        self.document(to, "manifest.json", &self.manifest)?;
        self.document(to, &format!("{}.json", self.id.hex()), &self.config)?;
        let mut written = BTreeSet::new();
        for layer in &self.layers {
            let refused = |source| ImageError::Pack { layer: layer.chain, source };
            if !written.insert(layer.diff) {
                continue;
            }
            head(to, &layer.name(), layer.bytes).map_err(refused)?;
            let again = pack_to(store, &layer.chain, to)?;
            if (again.diff, again.bytes) != (layer.diff, layer.bytes) {
                return Err(refused(UnpackError::archive("is not what it was a moment ago")));
            }
        }
        let end = to.write_all(&[0; 1024]).and_then(|()| to.flush());
        end.map_err(|source| self.unwritten(source))
    }

    fn document(&self, to: &mut dyn Write, name: &str, text: &[u8]) -> Result<(), ImageError> {
        let unwritten = |source| ImageError::Pack { layer: self.id, source };
        head(to, name, text.len() as u64).map_err(unwritten)?;
        let padding = vec![0; text.len().next_multiple_of(512) - text.len()];
        let written = to.write_all(text).and_then(|()| to.write_all(&padding));
        written.map_err(|source| self.unwritten(source))
    }

    fn unwritten(&self, source: io::Error) -> ImageError {
        let source = UnpackError::refused(b".", "cannot be written")(source);
        ImageError::Pack { layer: self.id, source }
    }
}

impl Layer {
    fn name(&self) -> String {
        format!("{}.tar", self.diff.hex())
    }
}

/// The head of a member; its owner, mode and time are the same everywhere.
fn head(to: &mut dyn Write, name: &str, bytes: u64) -> Result<(), UnpackError> {
    let unwritten = UnpackError::refused(name.as_bytes(), "cannot be written");
    let mut header = Header::new_gnu();
    let named = header.set_path(name);
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes);
    header.set_cksum();
    named.and_then(|()| to.write_all(header.as_bytes())).map_err(unwritten)
}

/// Packs a layer; what that gave. A tar ends with whole blocks: there is nothing to fill up.
fn pack_to(store: &Store, chain: &Digest, to: &mut dyn Write) -> Result<Layer, ImageError> {
    let refused = |source| ImageError::Pack { layer: *chain, source };
    let gone = || refused(UnpackError::archive("is not in the store any more"));
    let dir = store.layer(chain).ok_or_else(gone)?;
    let mut count = Count { to, hash: Sha256::new(), bytes: 0 };
    pack::pack(&dir, &mut count).map_err(refused)?;
    Ok(Layer { chain: *chain, diff: Digest::finish(count.hash), bytes: count.bytes })
}

/// Hashes and counts what goes through it.
struct Count<'a> {
    to: &'a mut dyn Write,
    hash: Sha256,
    bytes: u64,
}

impl Write for Count<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
