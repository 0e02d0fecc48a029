//! What an instance's container has besides its layers: directories of the box, files that are made
//! for it, archives that it has unpacked, the box's certificates.
//!
//! ```text
//! <run>/files/<handle>/<n>   content of the n-th [[file]]: in memory on a box, its user's alone
//! ```

mod dirs;
mod prepare;

pub(super) use dirs::make_dirs;
pub(super) use prepare::{Asked, prepare};

use super::shared::Shared;
use crate::config::site::Site;
use crate::container::Container;
use crate::init::proto::{Bind, Origin};
use crate::init::users;
use crate::model::extras::Extras;
use crate::model::lrp::{FileMount, Holds, Volume};
use crate::sys::at::{self, Open, Resolve};
use crate::unit::{Digest, Handle};
use crate::volume::Pin;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where containers find the box's certificates.
pub const CERTIFICATES: &str = "/etc/cf-system-certificates";

/// The box's bundle in it; Diego's name for the first one.
const BUNDLE: &str = "trusted-ca-1.crt";

/// Where systems keep the bundle of all certificates that they trust.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Longest source of a `[[file]]`, and longest file of users that is read, in bytes.
const SOURCE_MAX: u64 = 1 << 20;

/// What a container gets.
#[derive(Default)]
pub(super) struct Mounts {
    pub(super) binds: Vec<Bind>,
    /// Layers of the store that are shown in it, beside those of its root.
    pub(super) layers: Vec<Digest>,
    /// They stay until the container's entry names them.
    _pins: Vec<Pin>,
}

/// The first bundle that the box has.
pub(super) fn bundle() -> Option<PathBuf> {
    BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// The bundle as a container has it in the directory `to`. Looked for with every container: the box's
/// may come and go.
pub(super) fn bundle_bind(to: &str) -> Option<Bind> {
    bundle().map(|from| read_only(from, format!("{to}/{BUNDLE}")))
}

/// The same where a record asks for it.
pub(super) fn trusted(extras: &Extras) -> Vec<Bind> {
    extras.certificates.as_deref().and_then(bundle_bind).into_iter().collect()
}

/// The directory in which a container with these has it; `None`: it has none.
pub(super) fn certificates(binds: &[Bind]) -> Option<&str> {
    binds.iter().find_map(|bind| bind.to.strip_suffix(BUNDLE)?.strip_suffix('/'))
}

fn read_only(from: PathBuf, to: String) -> Bind {
    Bind { from, origin: Default::default(), to, read_only: true, mapped: false, ours: false }
}

impl Shared {
    /// The directories of the box. Looked at again with every container: what is allowed may have
    /// changed since the app was declared, and so may what a link leads to. Blocking.
    fn volume_binds(&self, volumes: &[Volume]) -> Result<Vec<Bind>, String> {
        let site = self.site();
        let bind = |volume: &Volume| {
            // One that a record names without its directory.
            let from = match site.volumes.first() {
                Some(first) if volume.from.is_relative() => first.join(&volume.from),
                _ => volume.from.clone(),
            };
            let from = site.volume(&from).map_err(|(what, cure)| {
                format!("failed to mount volume, errors: {what}; {cure}")
            })?;
            let (to, read_only) = (volume.to.clone(), volume.read_only);
            // An app that writes beside it may put a link there after this look.
            Ok(Bind { from, origin: Origin::Real, to, read_only, mapped: true, ours: false })
        };
        volumes.iter().map(bind).collect()
    }

    /// Writes the files of one container, for root alone: whose they are is known when it stands.
    /// Blocking.
    fn write_files(&self, files: &[FileMount], handle: &Handle) -> Result<Vec<Bind>, String> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let dir = self.files_dir(handle);
        let text = |err: io::Error| format!("{}: {err}", dir.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(text)?;
        let mut binds = Vec::new();
        let site = self.site();
        for (number, file) in files.iter().enumerate() {
            let path = dir.join(number.to_string());
            let content = content(&site, &file.holds)?;
            let mut options = File::options();
            let made = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
            made.and_then(|mut made| made.write_all(&content)).map_err(text)?;
            binds.push(Bind { ours: true, ..read_only(path, file.path.clone()) });
        }
        Ok(binds)
    }

    /// Gives the files of a container to its user, before anything of the app runs. Blocking.
    pub(super) fn give_files(&self, asked: &Asked, container: &Container) -> Result<(), String> {
        if asked.files.is_empty() {
            return Ok(());
        }
        let entry = container.entry();
        let ids = entry.ids();
        let read = |path: &str| self.read_in_layers(&entry.spec.layers, path);
        let user = users::find(&asked.user, &read("etc/passwd")?, &read("etc/group")?, ids.last())?;
        let outside = |id| ids.host(id).ok_or_else(|| format!("id {id} is none of the container"));
        let (uid, gid) = (outside(user.uid)?, outside(user.gid)?);
        for (number, file) in asked.files.iter().enumerate() {
            let path = self.files_dir(container.handle()).join(number.to_string());
            let given = File::open(&path).and_then(|made| {
                at::set_owner(&made, uid, gid)?;
                made.set_permissions(PermissionsExt::from_mode(file.mode))
            });
            given.map_err(|err| format!("cannot give {} to its user: {err}", file.path))?;
        }
        Ok(())
    }

    /// A file of the highest layer that has it; empty when none has. Blocking.
    fn read_in_layers(&self, layers: &[Digest], path: &str) -> Result<Vec<u8>, String> {
        for layer in layers.iter().rev() {
            let Some(dir) = self.host.store().layer(layer) else { continue };
            let read = || -> io::Result<Vec<u8>> {
                let root = File::open(dir)?;
                let flags = Open::O_RDONLY | Open::O_NONBLOCK | Open::O_NOCTTY;
                let file = File::from(at::open(root, path, flags, 0, Resolve::RESOLVE_IN_ROOT)?);
                let mut bytes = Vec::new();
                if file.metadata()?.is_file() {
                    file.take(SOURCE_MAX).read_to_end(&mut bytes)?;
                }
                Ok(bytes)
            };
            match read() {
                Ok(bytes) => return Ok(bytes),
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => return Err(format!("cannot read /{path} of the image: {err}")),
            }
        }
        Ok(Vec::new())
    }

    /// Removes the files of a container that is gone. Blocking.
    pub(super) fn remove_mounted(&self, handle: &Handle) {
        let dir = self.files_dir(handle);
        match fs::remove_dir_all(&dir) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                crate::warn!("files.left", path = dir.display(), err = err);
            }
            _ => {}
        }
    }

    /// Our own programs inside every container, and the certificates that the box trusts.
    pub(super) fn lifecycle_binds(&self) -> Vec<Bind> {
        let lifecycle = Bind {
            from: self.paths.lifecycle.clone(),
            origin: Default::default(),
            to: "/tmp/lifecycle".into(),
            read_only: true,
            mapped: false,
            ours: true,
        };
        let bundle = bundle_bind(CERTIFICATES);
        [lifecycle].into_iter().chain(bundle).collect()
    }

    /// Removes files of containers that are not there: a daemon that was killed leaves them when it
    /// had not made their container yet. Blocking.
    pub(super) fn sweep_mounted(&self) {
        let Ok(known) = self.host.list() else { return };
        for item in fs::read_dir(self.paths.run.join("files")).into_iter().flatten().flatten() {
            let name = item.file_name();
            let handle = name.to_str().and_then(|name| name.parse::<Handle>().ok());
            if let Some(handle) = handle.filter(|handle| !known.contains(handle)) {
                self.remove_mounted(&handle);
            }
        }
    }

    fn files_dir(&self, handle: &Handle) -> PathBuf {
        self.paths.run.join("files").join(handle.as_str())
    }
}

fn content(site: &Site, holds: &Holds) -> Result<Vec<u8>, String> {
    let path = match holds {
        Holds::Content(text) => return Ok(text.clone().into_bytes()),
        Holds::Source(path) => path,
    };
    let mut bytes = Vec::new();
    let read = open(site, path).and_then(|file| match file.metadata()?.is_file() {
        true => file.take(SOURCE_MAX + 1).read_to_end(&mut bytes),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")),
    });
    match read {
        Ok(length) if length as u64 > SOURCE_MAX => {
            Err(format!("{} is longer than {} KiB", path.display(), SOURCE_MAX >> 10))
        }
        Ok(_) => Ok(bytes),
        Err(err) => Err(format!("{}: {err}", path.display())),
    }
}

/// Opens the source of a `[[file]]`; looked at again with every container, as apps may have put links
/// there meanwhile. Blocking, but for no fifo.
fn open(site: &Site, path: &Path) -> io::Result<File> {
    let flags = Open::O_RDONLY | Open::O_NONBLOCK | Open::O_NOCTTY;
    let Some((prefix, rest)) = site.where_apps_write(path) else {
        return at::open(at::HERE, path, flags, 0, Resolve::empty()).map(File::from);
    };
    beneath(&prefix, &rest, flags)
}

/// Opens what is below a directory, without following any link there.
fn beneath(prefix: &Path, rest: &Path, flags: Open) -> io::Result<File> {
    let how = Resolve::RESOLVE_BENEATH | Resolve::RESOLVE_NO_SYMLINKS;
    match at::open(File::open(prefix)?, rest, flags, 0, how) {
        Err(err) if at::is_link(&err) => {
            let why = "a link is on the way, where apps may write; name what it leads to";
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        }
        file => file.map(File::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Row 63: a link that an app has put in the place of a file's source leads nowhere.
    #[test]
    fn row_63_the_source_of_a_file_is_not_read_through_a_link() {
        let dir = std::env::temp_dir().join(format!("terrarium-mounts-{}", std::process::id()));
        fs::create_dir_all(dir.join("srv/a")).expect("directory");
        fs::write(dir.join("secret"), "secret").expect("file");
        fs::write(dir.join("srv/a/file"), "own").expect("file");
        symlink(dir.join("secret"), dir.join("srv/a/link")).expect("link");
        symlink(&dir, dir.join("srv/b")).expect("link");
        let read = |rest: &str| {
            let file = beneath(&dir.join("srv"), Path::new(rest), Open::O_RDONLY);
            file.and_then(io::read_to_string).map_err(|err| err.to_string())
        };
        let found = ["a/file", "a/link", "b/secret", "../secret"].map(read);
        fs::remove_dir_all(&dir).expect("removed");
        assert_eq!(found[0].as_deref(), Ok("own"));
        for link in &found[1..3] {
            assert!(
                link.as_ref().expect_err("a link").contains("a link is on the way"),
                "{link:?}"
            );
        }
        assert!(found[3].is_err(), "it leads out of there");
    }
}
