//! The files of a root before they are written: a map from path to node, so that order, owners
//! and contents are settled by values and not by what a disk happens to say.

use super::recipe::{Recipe, User};
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One file, link or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub kind: Kind,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File(Content),
    /// Points anywhere, as text.
    Symlink(PathBuf),
    /// The same file as an earlier path.
    HardLink(String),
}

/// The bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Bytes(Vec<u8>),
    OnDisk(PathBuf),
}

/// Paths from the root, without a leading slash, in byte order: a directory before its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<String, Node>);

impl Tree {
    /// Makes a directory and its parents; one that is there gets the mode.
    pub fn directory(&mut self, path: &str, mode: u32, owner: u32) {
        for (at, _) in path.match_indices('/') {
            let parent = Node { mode: 0o755, uid: 0, gid: 0, kind: Kind::Directory };
            self.0.entry(path[..at].to_owned()).or_insert(parent);
        }
        let node = Node { mode, uid: owner, gid: owner, kind: Kind::Directory };
        self.0.insert(path.to_owned(), node);
    }

    /// Makes a file of root's, and the directories above it.
    pub fn file(&mut self, path: &str, mode: u32, content: Content) {
        self.put(path, Node { mode, uid: 0, gid: 0, kind: Kind::File(content) });
    }

    /// Makes a link that points to `to`.
    pub fn link(&mut self, path: &str, to: &str) {
        let kind = Kind::Symlink(PathBuf::from(to));
        self.put(path, Node { mode: 0o777, uid: 0, gid: 0, kind });
    }

    fn put(&mut self, path: &str, node: Node) {
        if let Some((parent, _)) = path.rsplit_once('/')
            && !self.0.contains_key(parent)
        {
            self.directory(parent, 0o755, 0);
        }
        self.0.insert(path.to_owned(), node);
    }

    /// Takes in what is on disk below `dir`, except what `skip` names. Devices, pipes and sockets
    /// have no place in a stack. Of several names of one file the first in order holds it.
    pub fn load(dir: &Path, skip: impl Fn(&str) -> bool) -> Result<Tree> {
        let mut found = BTreeMap::new();
        walk(dir, "", &skip, &mut found)?;
        let mut first: HashMap<(u64, u64), String> = HashMap::new();
        let mut tree = Tree::default();
        for (path, (disk, meta)) in found {
            let kind = if meta.is_dir() {
                Kind::Directory
            } else if meta.is_symlink() {
                Kind::Symlink(std::fs::read_link(&disk).with_context(|| path.clone())?)
            } else if !meta.is_file() {
                continue;
            } else if meta.nlink() > 1
                && let Some(first) = first.get(&(meta.dev(), meta.ino()))
            {
                Kind::HardLink(first.clone())
            } else {
                first.insert((meta.dev(), meta.ino()), path.clone());
                Kind::File(Content::OnDisk(disk))
            };
            let mode = meta.mode() & 0o7777;
            tree.0.insert(path, Node { mode, uid: meta.uid(), gid: meta.gid(), kind });
        }
        Ok(tree)
    }

    /// Lays the files of a recipe's `overlay` folder over the tree: root's, 0755 or 0644.
    pub fn overlay(&mut self, dir: &Path) -> Result<()> {
        if !dir.is_dir() {
            return Ok(());
        }
        for (path, node) in Tree::load(dir, |_| false)?.0 {
            let mode = if node.mode & 0o100 != 0 { 0o755 } else { 0o644 };
            let kind = match node.kind {
                Kind::Directory if self.0.contains_key(&path) => continue,
                // Names of one file in the repository are no promise of one file in the stack.
                Kind::HardLink(_) => Kind::File(Content::OnDisk(dir.join(&path))),
                kind => kind,
            };
            self.put(&path, Node { mode, uid: 0, gid: 0, kind });
        }
        Ok(())
    }

    /// Directories and users of the recipe.
    pub fn finish(&mut self, recipe: &Recipe) -> Result<()> {
        for dir in &recipe.directories {
            self.directory(&dir.path, dir.mode, 0);
        }
        for user in &recipe.users {
            self.user(user, recipe.epoch)?;
        }
        Ok(())
    }

    /// Adds a user, its group and its home.
    fn user(&mut self, user: &User, epoch: u64) -> Result<()> {
        let User { name, id, home, shell } = user;
        self.append("etc/passwd", &format!("{name}:x:{id}:{id}:{name}:{home}:{shell}\n"))?;
        self.append("etc/group", &format!("{name}:x:{id}:\n"))?;
        if self.0.contains_key("etc/shadow") {
            let day = epoch / 86_400;
            self.append("etc/shadow", &format!("{name}:!:{day}:0:99999:7:::\n"))?;
        }
        if self.0.contains_key("etc/gshadow") {
            self.append("etc/gshadow", &format!("{name}:!::\n"))?;
        }
        self.directory(home.trim_start_matches('/'), 0o755, *id);
        Ok(())
    }

    fn append(&mut self, path: &str, line: &str) -> Result<()> {
        self.edit(path, |text| text + line)
    }

    /// Replaces a text file by what `change` makes of it.
    pub fn edit(&mut self, path: &str, change: impl FnOnce(String) -> String) -> Result<()> {
        let Some(Node { kind: Kind::File(content), .. }) = self.0.get_mut(path) else {
            bail!("the stack has no file /{path}");
        };
        let bytes = match content {
            Content::Bytes(bytes) => std::mem::take(bytes),
            Content::OnDisk(disk) => {
                std::fs::read(&*disk).with_context(|| format!("cannot read {}", disk.display()))?
            }
        };
        let text = String::from_utf8(bytes).with_context(|| format!("/{path} is no text"))?;
        *content = Content::Bytes(change(text).into_bytes());
        Ok(())
    }
}

type Found = BTreeMap<String, (PathBuf, std::fs::Metadata)>;

fn walk(dir: &Path, base: &str, skip: &dyn Fn(&str) -> bool, out: &mut Found) -> Result<()> {
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            bail!("{} has a name that is no text", entry.path().display());
        };
        let path = if base.is_empty() { name } else { format!("{base}/{name}") };
        if skip(&path) {
            continue;
        }
        let meta = std::fs::symlink_metadata(entry.path())?;
        if meta.is_dir() {
            walk(&entry.path(), &path, skip, out)?;
        }
        out.insert(path, (entry.path(), meta));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_users_get_all_their_lines() {
        let mut tree = Tree::default();
        tree.file("etc/passwd", 0o644, Content::Bytes(b"root:x:0:0::/:/bin/sh\n".to_vec()));
        tree.file("etc/group", 0o644, Content::Bytes(Vec::new()));
        tree.file("etc/shadow", 0o640, Content::Bytes(Vec::new()));
        let (name, home) = ("vcap".to_owned(), "/home/vcap".to_owned());
        let user = User { name, id: 2000, home, shell: "/bin/sh".to_owned() };
        tree.user(&user, 20_000 * 86_400).expect("all files are there");
        let paths: Vec<&str> = tree.0.keys().map(String::as_str).collect();
        assert_eq!(paths, ["etc", "etc/group", "etc/passwd", "etc/shadow", "home", "home/vcap"]);
        let text = |path: &str| match &tree.0[path].kind {
            Kind::File(Content::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("{other:?}"),
        };
        assert!(text("etc/passwd").ends_with("vcap:x:2000:2000:vcap:/home/vcap:/bin/sh\n"));
        assert_eq!(text("etc/group"), "vcap:x:2000:\n");
        assert_eq!(text("etc/shadow"), "vcap:!:20000:0:99999:7:::\n");
        assert_eq!((tree.0["home/vcap"].uid, tree.0["home"].uid), (2000, 0));
    }

    #[test]
    fn the_second_name_of_a_file_is_a_hard_link() {
        let dir = std::env::temp_dir().join(format!("xtask-tree-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("a")).expect("temporary directory");
        std::fs::write(dir.join("b"), "x").expect("write");
        std::fs::hard_link(dir.join("b"), dir.join("a/z")).expect("link");
        std::fs::write(dir.join("skipped"), "x").expect("write");
        let tree = Tree::load(&dir, |path| path == "skipped");
        std::fs::remove_dir_all(&dir).expect("remove");
        let tree = tree.expect("load").0;
        assert_eq!(tree.keys().collect::<Vec<_>>(), ["a", "a/z", "b"]);
        assert_eq!(tree["b"].kind, Kind::HardLink("a/z".to_owned()));
    }
}
