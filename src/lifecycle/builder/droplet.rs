//! The two archives that staging leaves: the droplet and the build cache.
//!
//! ```text
//! app/                the build directory as the buildpacks left it
//! deps/<index>/       what each buildpack supplied
//! profile.d/          scripts that the launcher sources before the app's own
//! logs/  tmp/         empty
//! staging_info.yml
//! ```

use crate::lifecycle::error::LifecycleError;
use crate::lifecycle::pack::{Packer, Times};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::File;
use std::path::Path;

/// The time of everything in a droplet, in seconds since 1970: 1980-01-01 00:00:01, which every format
/// of archives can say; Cloud Native Buildpacks have it too.
pub(super) const TIME_S: u64 = 315_532_801;

/// User and group of everything in a droplet: `vcap` in every stack.
const OWNER: u32 = 2000;

type Archive = Packer<GzEncoder<File>>;

/// Writes the droplet: the same bytes for the same names, contents and modes, whenever and by whomever
/// they were made.
pub(super) fn write(
    file: &Path,
    app: &Path,
    contents: &Path,
    info: &str,
) -> Result<(), LifecycleError> {
    let mut archive = begin(file, Times::All(TIME_S))?;
    for (name, from) in [
        ("app", Some(app.to_owned())),
        ("deps", Some(contents.join("deps"))),
        ("logs", None),
        ("profile.d", Some(contents.join("profile.d"))),
        ("tmp", None),
    ] {
        archive.dir(Path::new(name))?;
        if let Some(from) = from {
            archive.tree(&from, Path::new(name), &[])?;
        }
    }
    archive.file(Path::new("staging_info.yml"), info.as_bytes())?;
    end(file, archive)
}

/// Writes the build cache for the next staging.
pub(super) fn write_cache(file: &Path, cache: &Path) -> Result<(), LifecycleError> {
    let mut archive = begin(file, Times::Kept)?;
    archive.tree(cache, Path::new(""), &[])?;
    end(file, archive)
}

fn begin(file: &Path, times: Times) -> Result<Archive, LifecycleError> {
    let out = File::create(file).map_err(LifecycleError::file("make", file))?;
    // The header's time stays 0.
    Ok(Packer::new(GzEncoder::new(out, Compression::fast()), OWNER, times))
}

fn end(file: &Path, archive: Archive) -> Result<(), LifecycleError> {
    let (gzip, _) = archive.finish()?;
    gzip.finish().map(drop).map_err(LifecycleError::file("write", file))
}
