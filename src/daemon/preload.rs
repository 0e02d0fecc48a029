//! Images that came with the box are loaded beside everything else, one file after the other.

use crate::cell::Cell;
use crate::container::Host;
use crate::image::preload::{self, Preloaded};
use crate::log::chain;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Instant;

/// Loads what is in `dir`. Apps whose image is not here wait until it is, or until this is over,
/// which is when it is dropped.
pub async fn preload(dir: PathBuf, default_host: String, host: Weak<Host>, cell: Cell) {
    let end = End { cell };
    let files = match files(dir.clone(), host.clone()).await {
        Ok(files) => files,
        Err(err) => {
            return crate::warn!("image.preload_unread", path = dir.display(), err = err);
        }
    };
    for path in files {
        // The daemon ends.
        let Some(host) = host.upgrade() else { return };
        let default_host = default_host.clone();
        smol::unblock(move || one(&host, &default_host, &path)).await;
        end.cell.preloaded();
    }
}

/// What there is; what is noted of other files is forgotten.
async fn files(dir: PathBuf, host: Weak<Host>) -> Result<Vec<PathBuf>, String> {
    let look = move || {
        let files = preload::files(&dir).map_err(|err| chain(&err))?;
        let Some(host) = host.upgrade() else { return Ok(Vec::new()) };
        preload::only(host.store(), &files).map_err(|err| chain(&err))?;
        Ok(files)
    };
    smol::unblock(look).await
}

/// Loads one file. A broken one is a person's to mend, and nobody else's trouble. Blocking.
fn one(host: &Host, default_host: &str, path: &Path) {
    let begun = Instant::now();
    match preload::preload(host.store(), default_host, path) {
        Ok(Preloaded::Known) => {}
        Ok(Preloaded::Read(images)) => {
            let took = begun.elapsed().as_millis();
            crate::info!("image.preloaded", path = path.display(), images = images, took_ms = took);
        }
        // Nobody is to mend anything.
        Err(_) if host.store().is_ending() => {}
        Err(err) => {
            const CURE: &str = "replace or remove the file, then restart the service";
            let err = chain(&err);
            crate::warn!("image.preload_failed", path = path.display(), err = err, cure = CURE);
        }
    }
}

/// However it ends, nobody waits any longer.
struct End {
    cell: Cell,
}

impl Drop for End {
    fn drop(&mut self) {
        self.cell.preload_is_over();
    }
}
