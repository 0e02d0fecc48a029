//! Writes a tree as `tar` inside `zstd`, the same bytes for the same tree.
//!
//! Sorted names, one time for all, numeric owners, no access times, one compressor thread: nothing
//! of the machine or the moment gets in.

use super::tree::{Content, Kind, Node, Tree};
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use tar::{EntryType, Header};

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// `sha256:` of the compressed file.
    pub archive: String,
    /// `sha256:` of the tar stream: the layer's identity.
    pub diff_id: String,
    pub archive_bytes: u64,
    pub tar_bytes: u64,
}

/// Writes the tree to `out`; `step` hears how many of how many entries are done.
pub fn write(
    tree: &Tree,
    epoch: u64,
    level: i32,
    out: &Path,
    mut step: impl FnMut(usize, usize),
) -> Result<Packed> {
    let file = File::create(out).with_context(|| format!("cannot create {}", out.display()))?;
    let mut zstd = zstd::Encoder::new(Tally::new(BufWriter::new(file)), level)?;
    zstd.include_checksum(true)?;
    let mut tar = tar::Builder::new(Tally::new(zstd));
    for (done, (path, node)) in tree.0.iter().enumerate() {
        entry(&mut tar, path, node, epoch).with_context(|| format!("cannot pack /{path}"))?;
        step(done + 1, tree.0.len());
    }
    let (diff_id, tar_bytes, zstd) = tar.into_inner()?.close();
    let (archive, archive_bytes, file) = zstd.finish()?.close();
    file.into_inner().context("cannot write the archive")?.sync_all()?;
    Ok(Packed { archive, diff_id, archive_bytes, tar_bytes })
}

fn entry<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &str,
    node: &Node,
    epoch: u64,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(node.mode);
    header.set_uid(node.uid.into());
    header.set_gid(node.gid.into());
    header.set_mtime(epoch);
    header.set_size(0);
    match &node.kind {
        Kind::Directory => {
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, format!("{path}/"), io::empty())
        }
        Kind::Symlink(to) => {
            header.set_entry_type(EntryType::Symlink);
            tar.append_link(&mut header, path, to)
        }
        Kind::HardLink(to) => {
            header.set_entry_type(EntryType::Link);
            tar.append_link(&mut header, path, to)
        }
        Kind::File(Content::Bytes(bytes)) => {
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, path, bytes.as_slice())
        }
        Kind::File(Content::OnDisk(disk)) => {
            let file = File::open(disk)?;
            header.set_size(file.metadata()?.len());
            tar.append_data(&mut header, path, file)
        }
    }
}

/// Hashes and counts what passes through.
struct Tally<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W> Tally<W> {
    fn new(inner: W) -> Tally<W> {
        Tally { inner, hash: Sha256::new(), bytes: 0 }
    }

    fn close(self) -> (String, u64, W) {
        (format!("sha256:{}", hex(&self.hash.finalize())), self.bytes, self.inner)
    }
}

impl<W: Write> Write for Tally<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let done = self.inner.write(data)?;
        self.hash.update(&data[..done]);
        self.bytes += done as u64;
        Ok(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_tree_gives_the_same_bytes_and_comes_back_whole() {
        let mut tree = Tree::default();
        tree.directory("tmp", 0o1777, 0);
        tree.directory("home/vcap", 0o755, 2000);
        let long = format!("d/{}", "long-name-".repeat(20));
        tree.file(&long, 0o4755, Content::Bytes(b"body".to_vec()));
        tree.link("bin/sh", "busybox");
        let hard = Node { mode: 0o4755, uid: 0, gid: 0, kind: Kind::HardLink(long.clone()) };
        tree.0.insert("e".to_owned(), hard);

        let dir = std::env::temp_dir();
        let out = |n| dir.join(format!("xtask-pack-{}-{n}", std::process::id()));
        let one = write(&tree, 1_000, 3, &out(1), |_, _| {}).expect("first");
        let two = write(&tree, 1_000, 3, &out(2), |_, _| {}).expect("second");
        let packed = std::fs::read(out(1)).expect("read");
        std::fs::remove_file(out(1)).and(std::fs::remove_file(out(2))).expect("remove");
        assert_eq!(one, two);
        assert_eq!(packed.len() as u64, one.archive_bytes);

        let bytes = zstd::decode_all(packed.as_slice()).expect("unpack");
        assert_eq!(format!("sha256:{}", hex(&Sha256::digest(&bytes))), one.diff_id);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let seen: Vec<String> = archive
            .entries()
            .expect("entries")
            .map(|entry| {
                let entry = entry.expect("entry");
                let head = entry.header();
                assert_eq!(head.mtime().expect("time"), 1_000);
                let (mode, uid) = (head.mode().expect("mode"), head.uid().expect("uid"));
                format!("{} {mode:o} {uid}", entry.path().expect("path").display())
            })
            .collect();
        assert_eq!(
            seen,
            [
                "bin/ 755 0".to_owned(),
                "bin/sh 777 0".to_owned(),
                "d/ 755 0".to_owned(),
                format!("{long} 4755 0"),
                "e 4755 0".to_owned(),
                "home/ 755 0".to_owned(),
                "home/vcap/ 755 2000".to_owned(),
                "tmp/ 1777 0".to_owned(),
            ]
        );
    }
}
