//! What has come of blobs that are not here whole: kept for the next try, over restarts and power
//! cuts, and bounded.
//!
//! ```text
//! downloads/<64 hex>   the first bytes of the blob of this digest, or of a layer that only its id names;
//!                      where no checksum tells what that is, an extended attribute has the run of the box
//!                      and what its server tells it by: without that, or in another run, it is of no use
//! ```
//!
//! Whoever writes one holds the turn of its digest.

use crate::sys::clock;
use crate::unit::Digest;
use crate::volume::Store;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long one is kept that nobody goes on with.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes of all that nobody goes on with, and how many they may be.
const BYTES_MAX: u64 = 8 << 30;
const COUNT_MAX: usize = 256;
/// Of what images may hold, this part may be half a blob: one in so many.
const SHARE: u64 = 2;

/// Where the first bytes of a blob are.
pub fn of_blob(store: &Store, digest: &Digest) -> io::Result<PathBuf> {
    Ok(dir(store)?.join(digest.hex()))
}

/// Whose turn it is to write the blob. Not the blob's own name: a layer that is not packed has the same,
/// and a file that brings it must not wait for a registry.
pub fn turn_of_blob(digest: &Digest) -> Digest {
    Digest::of(format!("blob {digest}").as_bytes())
}

/// One that is there.
struct Part {
    path: PathBuf,
    bytes: u64,
    written: SystemTime,
    /// Somebody goes on with it now.
    is_busy: bool,
    /// Somebody may: it has such a name.
    is_good: bool,
}

/// Removes what nobody comes back for: what is too old, what another try cannot use, and beyond the
/// bounds what was written to the longest ago. `images`: bytes that all images may hold. The bytes
/// that stay. What somebody goes on with stays in any case.
pub fn sweep(store: &Store, images: Option<u64>) -> u64 {
    let most = images.map_or(BYTES_MAX, |images| BYTES_MAX.min(images / SHARE));
    let mut all = list(store);
    all.sort_by_key(|part| (!part.is_busy, std::cmp::Reverse(part.written)));
    let (mut bytes, mut count, mut idle) = (0u64, 0, 0u64);
    for part in all {
        // A clock that went back, or that had not been set when it was written, says nothing of the age.
        let is_told = part.written >= UNIX_EPOCH + clock::WRITTEN;
        let is_old = is_told && part.written.elapsed().is_ok_and(|age| age > KEPT);
        let fits = count < COUNT_MAX && idle.saturating_add(part.bytes) <= most;
        if part.is_busy || (part.is_good && !is_old && fits) {
            bytes = bytes.saturating_add(part.bytes);
            if !part.is_busy {
                (count, idle) = (count + 1, idle.saturating_add(part.bytes));
            }
            continue;
        }
        // Between the look and this somebody may have gone on with it: he keeps what he has open.
        match fs::remove_file(&part.path) {
            Ok(()) => crate::info!("part.removed", path = part.path.display(), bytes = part.bytes),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => crate::warn!("part.left", path = part.path.display(), err = err),
        }
    }
    bytes
}

/// Bytes of all.
pub fn bytes(store: &Store) -> u64 {
    list(store).iter().map(|part| part.bytes).sum()
}

/// Removes all that nobody goes on with, as something else has no room; the bytes.
pub fn clear(store: &Store) -> u64 {
    let idle = list(store).into_iter().filter(|part| !part.is_busy);
    idle.filter(|part| fs::remove_file(&part.path).is_ok()).map(|part| part.bytes).sum()
}

fn dir(store: &Store) -> io::Result<PathBuf> {
    let dir = store.dir().join("downloads");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn list(store: &Store) -> Vec<Part> {
    let items = dir(store).and_then(fs::read_dir).into_iter().flatten().flatten();
    let part = |item: fs::DirEntry| {
        let meta = item.metadata().ok()?;
        let name = item.file_name().into_string().unwrap_or_default();
        let digest: Option<Digest> = format!("sha256:{name}").parse().ok();
        let turn = digest.as_ref().map(turn_of_blob);
        let is_busy = turn.is_some_and(|turn| store.is_taken(&turn));
        let (path, bytes, is_good) = (item.path(), meta.len(), digest.is_some());
        Some(Part { path, bytes, written: meta.modified().ok()?, is_busy, is_good })
    };
    items.filter_map(part).collect()
}
