//! Where a container's root comes from, as layers of the store.

use super::backend::Shared;
use super::plan::Image;
use super::{Done, GardenError};
use crate::image::registry::credentials::Login;
use crate::image::work::Wish;
use crate::image::{self, ImageError, Rootfs};
use crate::model::garden::ImageRef as Asked;
use crate::unit::ImageRef;
use std::path::{Path, PathBuf};

/// What the file of a stack is called after its name.
const SUFFIX: &str = ".tar.zst";

/// The cure of who has named a file that is no root.
const NAME_A_TAR: &str = "name a tar archive of a root filesystem, plain or packed by gzip or zstd";

/// Stacks that an error names.
const NAMED_MAX: usize = 8;

impl Shared {
    /// The layers of an image, imported or fetched when the store has them not yet. They stay in the
    /// store for as long as the answer is held. Blocking.
    pub(super) fn rootfs(&self, image: &Image, login: &Asked) -> Done<Rootfs> {
        let imported = match image {
            Image::Default => self.local(self.default_root()?),
            Image::Stack(name) => self.local(self.stack(name)?),
            Image::Local(path) => self.local(path.clone()),
            Image::Layout(path) => image::import_layout(self.host.store(), path),
            Image::Registry(name) => self.pulled(name, login_of(login)),
        };
        if self.host.store().was_widened() {
            // No container went, but there is as much to give back.
            self.tell_gone();
        }
        imported.map_err(|err| {
            let text = crate::log::chain(&err);
            GardenError::Failed(match err {
                ImageError::Unpack { .. } => format!("{text}; {NAME_A_TAR}"),
                _ => text,
            })
        })
    }

    /// The root that a file holds.
    fn local(&self, path: PathBuf) -> Result<Rootfs, ImageError> {
        if is_layout(&path) {
            let why = "it is an image layout, and no root; name it as oci://DIR".into();
            return Err(ImageError::Layout { layout: path, why });
        }
        image::import_local(self.host.store(), &path)
    }

    /// The root that a registry has.
    fn pulled(&self, name: &ImageRef, login: Option<Login>) -> Result<Rootfs, ImageError> {
        let (store, registries) = (self.host.store(), &self.settings.registries);
        // A creation goes on without its client, as Garden's does: who asks again finds the container.
        // It ends with the daemon.
        let wish = Wish::new(store);
        image::pull(store, registries, name, login, &wish, &|_, _| ())?.rootfs(store)
    }

    /// The archive of a stack.
    fn stack(&self, name: &str) -> Done<PathBuf> {
        let plain = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
        let dir = &self.settings.stacks;
        let path = dir.join(format!("{name}{SUFFIX}"));
        if plain && path.exists() {
            return Ok(path);
        }
        let known = known(self.stacks());
        let dir = dir.display();
        Err(GardenError::Failed(format!("there is no stack `{name}` in {dir}; {known}")))
    }

    /// The archives of all stacks, by name.
    fn stacks(&self) -> Vec<PathBuf> {
        let items = std::fs::read_dir(&self.settings.stacks).into_iter().flatten().flatten();
        let paths = items.map(|item| item.path());
        let mut stacks: Vec<PathBuf> =
            paths.filter(|path| path.to_string_lossy().ends_with(SUFFIX)).collect();
        stacks.sort();
        stacks
    }

    /// What a container starts from that names nothing.
    fn default_root(&self) -> Done<PathBuf> {
        match &self.settings.default_rootfs {
            Some(path) if path.starts_with('/') => return Ok(path.into()),
            Some(name) => {
                let named = "which `default_rootfs` of [garden] names, as no image was named";
                return self.stack(name).map_err(|err| match err {
                    GardenError::Failed(why) => GardenError::Failed(format!("{why} ({named})")),
                    other => other,
                });
            }
            None => {}
        }
        let dir = &self.settings.stacks;
        self.stacks().into_iter().next().ok_or_else(|| {
            GardenError::Failed(format!(
                "no image was named, and there is no stack in {}; name one, or put NAME{SUFFIX} there",
                dir.display()
            ))
        })
    }
}

/// Whether a directory is an image layout: no root filesystem has such files at its top. Blocking.
fn is_layout(path: &Path) -> bool {
    path.join("oci-layout").is_file() && path.join("index.json").is_file()
}

/// Who fetches an image; `None`: whoever the box knows.
fn login_of(asked: &Asked) -> Option<Login> {
    let is_one = !asked.username.is_empty() || !asked.password.is_empty();
    is_one.then(|| Login::new(&*asked.username, &*asked.password))
}

/// The cure of who has named a stack that is not there.
fn known(stacks: Vec<PathBuf>) -> String {
    let name = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        format!("`{}`", file.trim_end_matches(SUFFIX))
    };
    let names: Vec<String> = stacks.iter().take(NAMED_MAX).map(name).collect();
    let more = if stacks.len() > NAMED_MAX { " and more" } else { "" };
    match names.is_empty() {
        true => format!("it has none: put NAME{SUFFIX} there"),
        false => format!("it has {}{more}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stacks_that_are_there_are_named_but_not_all_of_many() {
        let stack = |name: &str| PathBuf::from(format!("/s/{name}.tar.zst"));
        assert_eq!(known(Vec::new()), "it has none: put NAME.tar.zst there");
        assert_eq!(known(vec![stack("a.b"), stack("tiny")]), "it has `a.b`, `tiny`");
        let many = (0..9).map(|n| stack(&n.to_string())).collect();
        assert!(known(many).ends_with("`7` and more"));
    }
}
