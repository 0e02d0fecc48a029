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
use crate::lifecycle::pack::Packer;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::File;
use std::path::Path;

/// User and group of everything in a droplet: `vcap` in every stack.
const OWNER: u32 = 2000;

type Archive = Packer<GzEncoder<File>>;

/// Writes the droplet: the same bytes for the same trees.
pub(super) fn write(
    file: &Path,
    app: &Path,
    contents: &Path,
    info: &str,
) -> Result<(), LifecycleError> {
    let mut archive = begin(file)?;
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
    let mut archive = begin(file)?;
    archive.tree(cache, Path::new(""), &[])?;
    end(file, archive)
}

fn begin(file: &Path) -> Result<Archive, LifecycleError> {
    let out = File::create(file).map_err(LifecycleError::file("make", file))?;
    // The header's time stays 0.
    Ok(Packer::new(GzEncoder::new(out, Compression::fast()), OWNER, true))
}

fn end(file: &Path, archive: Archive) -> Result<(), LifecycleError> {
    let (gzip, _) = archive.finish()?;
    gzip.finish().map(drop).map_err(LifecycleError::file("write", file))
}
