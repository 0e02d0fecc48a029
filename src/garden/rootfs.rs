//! Where a container's root comes from, as layers of the store.

use super::backend::Shared;
use super::plan::Image;
use super::{Done, GardenError};
use crate::image::{self, Rootfs};
use std::path::PathBuf;
use std::sync::Arc;

impl Shared {
    /// The layers of an image, imported when the store has them not yet. They stay in the store for as
    /// long as the answer is held.
    pub(super) async fn rootfs(self: &Arc<Self>, image: &Image) -> Done<Rootfs> {
        let (path, is_layout) = match image {
            Image::Default => (self.default_root()?, false),
            Image::Stack(name) => (self.stack(name)?, false),
            Image::Local(path) => (path.clone(), false),
            Image::Layout(path) => (path.clone(), true),
            Image::Registry(reference) => {
                return Err(GardenError::Failed(format!(
                    "docker://{reference}: this version fetches nothing from registries; name a \
                     directory, a tar file or an OCI layout of this box"
                )));
            }
        };
        let shared = self.clone();
        let imported = smol::unblock(move || match is_layout {
            true => image::import_layout(shared.host.store(), &path),
            false => image::import_local(shared.host.store(), &path),
        });
        imported.await.map_err(|err| GardenError::Failed(crate::log::chain(&err)))
    }

    /// The archive of a stack.
    fn stack(&self, name: &str) -> Done<PathBuf> {
        let plain = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
        let path = self.settings.stacks.join(format!("{name}.tar.zst"));
        match plain && path.exists() {
            true => Ok(path),
            false => Err(GardenError::Failed(format!(
                "there is no stack `{name}` in {}; `cargo xtask rootfs` makes stacks",
                self.settings.stacks.display()
            ))),
        }
    }

    /// What a container starts from that names nothing.
    fn default_root(&self) -> Done<PathBuf> {
        const SUFFIX: &str = ".tar.zst";
        match &self.settings.default_rootfs {
            Some(path) if path.starts_with('/') => return Ok(path.into()),
            Some(name) => return self.stack(name),
            None => {}
        }
        let dir = &self.settings.stacks;
        let items = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let paths = items.map(|item| item.path());
        let stacks = paths.filter(|path| path.to_string_lossy().ends_with(SUFFIX));
        stacks.min().ok_or_else(|| {
            GardenError::Failed(format!(
                "no image was named, and there is no stack in {}; name one, or put a stack there",
                dir.display()
            ))
        })
    }
}
