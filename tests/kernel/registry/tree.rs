//! Compares an image in the store, file by file, with what another tool has unpacked.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use terrarium::unit::Digest;
use terrarium::volume::Store;

/// Type, mode, owner, time, links, attributes and content of everything below.
fn list(root: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).expect("metadata");
        let kind = meta.file_type();
        let content = match () {
            () if kind.is_dir() => {
                let items = fs::read_dir(&path).expect("directory");
                left.extend(items.map(|item| item.expect("entry").path()));
                "directory".to_owned()
            }
            () if kind.is_symlink() => format!("link {:?}", fs::read_link(&path).expect("link")),
            () if kind.is_file() => {
                format!("{} links, {}", meta.nlink(), Digest::of(&fs::read(&path).expect("file")))
            }
            () if kind.is_fifo() => "fifo".to_owned(),
            () => format!("device {}", meta.rdev()),
        };
        let about =
            format!("{:o} {}:{} {} {content}", meta.mode(), meta.uid(), meta.gid(), meta.mtime());
        let name = path.strip_prefix(root).expect("below").display().to_string();
        all.insert(name, format!("{about} {}", attributes(&path)));
    }
    // Times of a root and of what mounting touches are nobody's.
    all.remove("");
    all
}

fn attributes(path: &Path) -> String {
    let args = [
        "-h",
        "-d",
        "--absolute-names",
        "-m",
        "^(user|security.capability)",
        path.to_str().expect("text"),
    ];
    let text = super::tool("getfattr", &args);
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect()
}

/// The layers as one tree are what is at `theirs`.
pub fn same(store: &Store, place: &Path, layers: &[Digest], theirs: &Path) {
    let lower =
        layers.iter().rev().map(|layer| store.layer(layer).expect("layer").display().to_string());
    let empty = place.with_extension("empty");
    fs::create_dir_all(&empty).expect("directory");
    // A union of one layer is none: an empty one below.
    let lower = lower.chain([empty.display().to_string()]).collect::<Vec<_>>().join(":");
    let options = format!("lowerdir={lower}");
    mount(Some("overlay"), place, Some("overlay"), MsFlags::MS_RDONLY, Some(&*options))
        .expect("overlay");
    let (ours, theirs) = (list(place), list(theirs));
    umount2(place, MntFlags::MNT_DETACH).expect("umount");
    for (name, about) in &theirs {
        assert_eq!(ours.get(name), Some(about), "{name}");
    }
    let more: Vec<&String> = ours.keys().filter(|name| !theirs.contains_key(*name)).collect();
    assert!(more.is_empty(), "only here: {more:?}");
}
