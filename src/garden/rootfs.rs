//! Where a container's root comes from, as layers of the store.

use super::backend::Shared;
use super::plan::Image;
use super::{Done, GardenError};
use crate::unit::Digest;
use std::path::PathBuf;
use std::sync::Arc;

/// What a container starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Root {
    /// Chain ids, lowest first.
    pub layers: Vec<Digest>,
    /// `K=V` of the image.
    pub env: Vec<String>,
    /// What the layers hold.
    pub bytes: u64,
}

impl Shared {
    /// The layers of an image, imported when the store has them not yet.
    pub(super) async fn rootfs(self: &Arc<Self>, image: &Image) -> Done<Root> {
        let path = match image {
            Image::Default => self.default_root()?,
            Image::Stack(name) => self.stack(name)?,
            Image::Local(path) => path.clone(),
            Image::Registry(reference) => {
                return Err(GardenError::Failed(format!(
                    "docker://{reference}: this version fetches nothing from registries; name a \
                     directory, a tar file or an OCI layout of this box"
                )));
            }
            Image::Layout(path) => path.clone(),
        };
        let shared = self.clone();
        let imported = smol::unblock(move || {
            crate::image::import_stack(shared.host.store(), &path, &mut |_, _| {})
        });
        let layer = imported.await.map_err(|err| GardenError::Failed(crate::log::chain(&err)))?;
        Ok(Root { layers: vec![layer], ..Root::default() })
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
