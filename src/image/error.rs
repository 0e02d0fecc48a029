//! What can go wrong between an archive and a layer.

use super::held::NO_MEMORY;
use super::refusal;
use super::registry::failure::Failure;
use crate::unit::{Bytes, Digest};
use crate::volume::VolumeError;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An import that failed; nothing of it is left in the store.
#[derive(Debug)]
pub enum ImageError {
    /// The archive's content cannot or must not be unpacked; the cause names the entry.
    Unpack {
        /// The archive.
        archive: PathBuf,
        /// Which entry, and why.
        source: UnpackError,
    },
    /// The archive file cannot be read.
    Read {
        /// The archive.
        archive: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive file was written to while it was read.
    Changed {
        /// The archive.
        archive: PathBuf,
    },
    /// There is nothing in the archive.
    Empty {
        /// The archive.
        archive: PathBuf,
    },
    /// What is named as a root is not there.
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// What is named as a root is nothing that can be one.
    Kind {
        /// The path.
        path: PathBuf,
    },
    /// A directory's content cannot or must not be imported; the cause names the entry.
    Copy {
        /// The directory.
        directory: PathBuf,
        /// Which entry, and why.
        source: UnpackError,
    },
    /// An image layout is no such thing, broken, or not for this box.
    Layout {
        /// The layout's directory.
        layout: PathBuf,
        /// What of it, and why; completes "image layout X: ...".
        why: String,
    },
    /// One layer of an image layout cannot or must not be unpacked.
    Blob {
        /// The layout's directory.
        layout: PathBuf,
        /// The layer's blob, or its file.
        blob: String,
        /// Why.
        source: UnpackError,
    },
    /// A registry did not give an image.
    Pull {
        /// The image's name.
        image: String,
        /// Why.
        source: Failure,
    },
    /// One layer of an image from a registry cannot or must not be unpacked.
    Layer {
        /// The image's name.
        image: String,
        /// The layer's blob, or its id.
        layer: String,
        /// Why.
        source: UnpackError,
    },
    /// The layers cannot be put together to a tree.
    Tree {
        /// The topmost layer.
        layer: Digest,
        /// Which entry, and why.
        source: UnpackError,
    },
    /// A layer cannot be packed into an archive.
    Pack {
        /// The layer.
        layer: Digest,
        /// Which entry, and why.
        source: UnpackError,
    },
    /// Images would be removed as soon as they are here; sizes in bytes.
    NoRoom {
        /// The image's name, or the file that they are from.
        images: String,
        /// What they have, as far as it is known.
        bytes: u64,
        /// What is needed beside them.
        beside: u64,
        /// What all images may have.
        most: u64,
    },
    /// An image has more than the disk of what is to be made of it; sizes in bytes.
    TooLarge {
        /// The image's name, or the file that it is from.
        image: String,
        /// What it has, as far as it is known.
        bytes: u64,
        /// What it may have.
        disk: Bytes,
    },
    /// The store refused.
    Store {
        /// The archive.
        archive: PathBuf,
        /// Why.
        source: VolumeError,
    },
}

/// An archive that is broken, hostile or too large: "entry `a/b` why".
#[derive(Debug)]
pub struct UnpackError {
    entry: Option<Vec<u8>>,
    why: String,
    cause: Cause,
}

/// What is behind it.
#[derive(Debug)]
enum Cause {
    /// What was read: the text says all of it.
    Said,
    /// There is no memory for what is to be remembered.
    Memory,
    /// A step of one entry was refused, as a rule by the kernel.
    Refused(io::Error),
    /// What it comes from broke off.
    Stream(io::Error),
}

impl UnpackError {
    /// About the archive as a whole.
    pub(super) fn archive(why: impl Into<String>) -> UnpackError {
        UnpackError { entry: None, why: why.into(), cause: Cause::Said }
    }

    /// About one entry.
    pub(super) fn entry(path: &[u8], why: impl Into<String>) -> UnpackError {
        UnpackError { entry: Some(path.to_vec()), ..UnpackError::archive(why) }
    }

    /// There is no memory for what is to be remembered of it ([`super::held`]); `what` comes before that.
    pub(super) fn no_memory(what: &str) -> UnpackError {
        let why = format!("{what}{NO_MEMORY}");
        UnpackError { cause: Cause::Memory, ..UnpackError::archive(why) }
    }

    /// Whether only that was missing: when others have given theirs back, it may be there.
    pub fn lacks_memory(&self) -> bool {
        matches!(self.cause, Cause::Memory)
    }

    /// Whether the kernel has refused an entry for what it is.
    pub(super) fn is_refused_for_good(&self) -> bool {
        let number = match &self.cause {
            Cause::Refused(err) => err.raw_os_error(),
            Cause::Said | Cause::Memory | Cause::Stream(_) => None,
        };
        number.is_some_and(refusal::is_of_content)
    }

    /// For `map_err`: the kernel refused a step of one entry.
    pub(super) fn refused(
        path: &[u8],
        why: &'static str,
    ) -> impl FnOnce(io::Error) -> UnpackError + use<> {
        let entry = Some(path.to_vec());
        move |err| UnpackError { entry, cause: Cause::Refused(err), ..UnpackError::archive(why) }
    }

    /// For `map_err`: the stream broke off.
    pub(super) fn stream(source: io::Error) -> UnpackError {
        let why = "cannot be read to its end";
        UnpackError { cause: Cause::Stream(source), ..UnpackError::archive(why) }
    }

    /// The same, with the entry that was being read when it has none yet.
    pub(super) fn at(mut self, path: &[u8]) -> UnpackError {
        self.entry.get_or_insert_with(|| path.to_vec());
        self
    }
}

/// A name from an archive, safe for a terminal and not longer than a line or two.
pub(super) fn shown(name: &[u8]) -> String {
    const SHOWN_MAX: usize = 160;
    let text = name[..name.len().min(SHOWN_MAX)].escape_ascii().to_string();
    if name.len() > SHOWN_MAX { format!("{text}... ({} bytes)", name.len()) } else { text }
}

impl fmt::Display for UnpackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.entry {
            Some(path) => write!(f, "entry `{}` {}", shown(path), self.why),
            None => write!(f, "the archive {}", self.why),
        }
    }
}

impl Error for UnpackError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            Cause::Said | Cause::Memory => None,
            Cause::Refused(err) | Cause::Stream(err) => Some(err),
        }
    }
}

impl ImageError {
    /// Whether all that was missing is memory for what is to be remembered of layers: later there may be
    /// some.
    pub fn lacks_memory(&self) -> bool {
        match self {
            ImageError::Unpack { source, .. }
            | ImageError::Copy { source, .. }
            | ImageError::Blob { source, .. }
            | ImageError::Layer { source, .. }
            | ImageError::Tree { source, .. }
            | ImageError::Pack { source, .. } => source.lacks_memory(),
            _ => false,
        }
    }
}

/// A path as a person reads it. Some are of an archive's own words: nothing in them moves a cursor.
fn place(path: &Path) -> String {
    let text = path.to_string_lossy();
    let show = |c: char| match c {
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            c.escape_unicode().to_string()
        }
        c if c.is_control() => c.escape_unicode().to_string(),
        c => c.to_string(),
    };
    text.chars().map(show).collect()
}

/// Bytes as a person reads them, up to the next KiB or MiB.
fn rounded(bytes: u64) -> Bytes {
    let unit = if bytes < 1 << 20 { 1 << 10 } else { 1 << 20 };
    Bytes::new(bytes.div_ceil(unit).saturating_mul(unit))
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use ImageError as E;
        match self {
            E::Unpack { archive, .. } => write!(f, "cannot unpack {}", place(archive)),
            E::Read { archive, .. } => write!(f, "cannot read {}", place(archive)),
            E::Changed { archive } => {
                write!(f, "{} changed while it was read; try again", place(archive))
            }
            E::Empty { archive } => write!(
                f,
                "{} holds no files; name one that holds a root filesystem",
                place(archive)
            ),
            E::Missing { path } => write!(
                f,
                "{} is not there; name a root directory or a tar archive of this box",
                place(path)
            ),
            E::Kind { path } => {
                write!(f, "{} is neither a directory nor a file; name one of these", place(path))
            }
            E::Copy { directory, .. } => write!(f, "cannot import {}", place(directory)),
            E::Layout { layout, why } => write!(f, "image layout {}: {why}", place(layout)),
            E::Blob { layout, blob, .. } => {
                write!(f, "image layout {}: cannot unpack layer {blob}", place(layout))
            }
            E::Pull { image, .. } => write!(f, "cannot fetch the image {image}"),
            E::Layer { image, layer, .. } => {
                write!(f, "image {image}: cannot unpack layer {layer}")
            }
            E::Tree { layer, .. } => write!(f, "cannot put together the layers up to {layer}"),
            E::Pack { layer, .. } => write!(f, "cannot pack layer {layer}"),
            E::NoRoom { images, bytes, beside, most } => {
                let images = place(Path::new(images));
                let [bytes, beside, most] = [bytes, beside, most].map(|bytes| rounded(*bytes));
                write!(
                    f,
                    "{images} needs {bytes} in the store; all images may have {most}, and {beside} are \
                     of what is needed here; raise `images_max` in [store] (and `cleanup_threshold` in \
                     [garden], where it is set)"
                )
            }
            E::TooLarge { image, bytes, disk } => write!(
                f,
                "{} has {} and counts as part of `disk`, which is {disk}; write a larger `disk` below \
                 [run]",
                place(Path::new(image)),
                rounded(*bytes)
            ),
            E::Store { archive, .. } => write!(f, "cannot store {}", place(archive)),
        }
    }
}

impl Error for ImageError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ImageError::Unpack { source, .. }
            | ImageError::Copy { source, .. }
            | ImageError::Blob { source, .. }
            | ImageError::Layer { source, .. }
            | ImageError::Tree { source, .. }
            | ImageError::Pack { source, .. } => Some(source),
            ImageError::Pull { source, .. } => Some(source),
            ImageError::Read { source, .. } => Some(source),
            ImageError::Store { source, .. } => Some(source),
            ImageError::Changed { .. }
            | ImageError::Empty { .. }
            | ImageError::Missing { .. }
            | ImageError::NoRoom { .. }
            | ImageError::TooLarge { .. }
            | ImageError::Kind { .. }
            | ImageError::Layout { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_names_the_setting() {
        let images = "image a/b:1".to_owned();
        let room = ImageError::NoRoom { images, bytes: 3 << 20, beside: 1, most: 2 << 20 };
        let (image, disk) = ("a/b:1".to_owned(), Bytes::mib(1));
        let large = ImageError::TooLarge { image, bytes: 3 << 20, disk };
        for (err, parts) in [
            (room, ["image a/b:1 needs 3MiB", "may have 2MiB", "raise `images_max` in [store]"]),
            (large, ["a/b:1 has 3MiB", "`disk`, which is 1MiB", "write a larger `disk`"]),
        ] {
            let text = err.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{parts:?}: {text}");
        }
    }

    #[test]
    fn want_of_memory_is_told_from_other_failures() {
        let (layer, image) = ("sha256:1".to_owned(), "a/b".to_owned());
        let of = |source: UnpackError| ImageError::Layer {
            image: image.clone(),
            layer: layer.clone(),
            source,
        };
        let lacks = of(UnpackError::no_memory("is a hard link, and ").at(b"x"));
        let text = crate::log::chain(&lacks);
        assert!(
            lacks.lacks_memory() && text.contains("entry `x` is a hard link, and needs more"),
            "{text}"
        );
        // Whatever it says.
        assert!(!of(UnpackError::entry(b"x", NO_MEMORY)).lacks_memory());
        assert!(!ImageError::Empty { archive: "x".into() }.lacks_memory());
    }
}
