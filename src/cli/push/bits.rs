//! What is in an app's directory, or in an archive of one, as a tar on its way to the daemon.

use super::ignore::Ignore;
use crate::cli::images::archive::stream;
use crate::lifecycle::form::Zip;
use crate::model::manifest::SOURCE_MAX;
use crate::unit::Bytes;
use smol::channel::Receiver;
use std::fs::{self, File, FileType};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Most entries of one app.
const ENTRIES_MAX: usize = 200_000;
/// Longest `.cfignore` that is read, in bytes.
const IGNORE_MAX: u64 = 64 << 10;
/// Longest tar: what may be in it, and the names.
const TAR_MAX: u64 = SOURCE_MAX + ENTRIES_MAX as u64 * 1024;
/// The bits that everything in an archive has at least, as cf gives them: many of them know of none.
const MODE_LEAST: u32 = 0o744;
/// Its name.
const IGNORE: &str = ".cfignore";

/// What is at `path` in pieces, an empty one last.
///
/// Errors: it is larger than may be sent, by what its files say of their length.
pub fn read(path: &Path) -> io::Result<Receiver<io::Result<Vec<u8>>>> {
    match path.is_dir() {
        true => read_dir(path),
        false => read_zip(path),
    }
}

/// Looks whether what is at `path` can be sent, as far as that is seen before it is.
pub fn check(path: &Path) -> io::Result<()> {
    match path.is_dir() {
        true => open_dir(path).map(drop),
        false => open_zip(path).map(drop),
    }
}

fn read_dir(dir: &Path) -> io::Result<Receiver<io::Result<Vec<u8>>>> {
    let (dir, ignore) = (dir.to_owned(), open_dir(dir)?);
    Ok(stream(move |out| tree(&dir, &ignore, out)))
}

/// What of a directory is not sent; the rest is as large as it may be.
fn open_dir(dir: &Path) -> io::Result<Ignore> {
    fs::read_dir(dir)?;
    let mut text = String::new();
    match File::open(dir.join(IGNORE)) {
        Ok(file) => drop(file.take(IGNORE_MAX).read_to_string(&mut text)?),
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(err) => return Err(err),
    }
    let ignore = Ignore::new(&text);
    let mut bytes = 0u64;
    walk(dir, &ignore, &mut |path, kind| {
        if kind.is_file() {
            bytes = bytes.saturating_add(fs::symlink_metadata(dir.join(path))?.len());
        }
        Ok(())
    })?;
    fits(bytes)?;
    Ok(ignore)
}

/// The archive, which is as large as it may be.
fn open_zip(file: &Path) -> io::Result<Zip> {
    let no_zip = |err: io::Error| {
        io::Error::new(err.kind(), format!("it cannot be read as a zip ({err}); name a directory"))
    };
    let zip = Zip::open(File::open(file)?).map_err(no_zip)?;
    let (bytes, count) = zip.survey().map_err(no_zip)?;
    fits(bytes)?;
    if count > ENTRIES_MAX as u64 {
        return Err(too_many());
    }
    Ok(zip)
}

fn read_zip(file: &Path) -> io::Result<Receiver<io::Result<Vec<u8>>>> {
    let zip = open_zip(file)?;
    let text = zip.read(IGNORE, IGNORE_MAX)?.unwrap_or_default();
    let ignore = Ignore::new(&String::from_utf8_lossy(&text));
    let wanted = move |path: &[u8], is_dir: bool| {
        let path = String::from_utf8_lossy(path);
        let path = path.trim_end_matches('/');
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        let mut above = above.filter(|it| !it.is_empty());
        !above.any(|it| ignore.leaves_out(it, true)) && !ignore.leaves_out(path, is_dir)
    };
    Ok(stream(move |out| zip.to_tar(out, TAR_MAX, MODE_LEAST, &wanted)))
}

fn fits(bytes: u64) -> io::Result<()> {
    if bytes <= SOURCE_MAX {
        return Ok(());
    }
    let (size, most) = (Bytes::mib(bytes.div_ceil(1 << 20)), Bytes::new(SOURCE_MAX));
    let text = format!(
        "it is {size}, and {most} at most may be sent: name what the app does not need in {IGNORE} (a \
         file with holes counts in full)"
    );
    Err(io::Error::new(io::ErrorKind::FileTooLarge, text))
}

fn too_many() -> io::Error {
    let text = format!("it has more than {ENTRIES_MAX} files; name some in {IGNORE}");
    io::Error::other(text)
}

/// Shows everything below `dir` but what is ignored, by its path in it; a directory before what it holds.
fn walk(
    dir: &Path,
    ignore: &Ignore,
    see: &mut dyn FnMut(&Path, FileType) -> io::Result<()>,
) -> io::Result<()> {
    let mut left = vec![PathBuf::new()];
    let mut count = 0;
    while let Some(below) = left.pop() {
        let mut items: Vec<_> = fs::read_dir(dir.join(&below))?.collect::<io::Result<_>>()?;
        items.sort_by_key(fs::DirEntry::file_name);
        for item in items {
            let path = below.join(item.file_name());
            let kind = item.file_type()?;
            if ignore.leaves_out(&path.to_string_lossy(), kind.is_dir()) {
                continue;
            }
            count += 1;
            if count > ENTRIES_MAX {
                return Err(too_many());
            }
            see(&path, kind)?;
            if kind.is_dir() {
                left.push(path);
            }
        }
    }
    Ok(())
}

/// Everything but sockets, fifos and devices.
fn tree(dir: &Path, ignore: &Ignore, out: &mut dyn Write) -> io::Result<()> {
    let mut tar = tar::Builder::new(out);
    tar.follow_symlinks(false);
    tar.mode(tar::HeaderMode::Deterministic);
    walk(dir, ignore, &mut |path, kind| {
        if kind.is_dir() {
            tar.append_dir(path, dir.join(path))
        } else if kind.is_file() || kind.is_symlink() {
            tar.append_path_with_name(dir.join(path), path)
        } else {
            Ok(())
        }
    })?;
    tar.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A directory that goes with the test.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = format!("terrarium-bits-{name}-{}", std::process::id());
            let dir = std::env::temp_dir().join(dir);
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).expect("directory");
            Dir(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Everything that is sent: path, mode, link or content.
    fn sent(path: &Path) -> Vec<String> {
        let pieces = read(path).expect("read");
        let mut bytes = Vec::new();
        while let Ok(piece) = pieces.recv_blocking() {
            bytes.extend(piece.expect("a piece"));
        }
        let mut archive = tar::Archive::new(&bytes[..]);
        let one = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.expect("an entry");
            let link = entry.link_name().expect("a name").map(|it| it.display().to_string());
            let mode = entry.header().mode().expect("a mode");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("content");
            let path = entry.path().expect("a path").display().to_string();
            format!("{path} {mode:o} {}{text}", link.unwrap_or_default())
        };
        archive.entries().expect("entries").map(one).collect()
    }

    #[test]
    fn what_is_sent_is_the_tree_without_what_is_ignored() {
        let dir = Dir::new("tree");
        fs::create_dir_all(dir.0.join("sub/node_modules")).expect("directories");
        for name in
            ["Procfile", "sub/a", "sub/node_modules/b", "x.log", ".cfignore", "manifest.yml"]
        {
            fs::write(dir.0.join(name), "*.log\nnode_modules/").expect("file");
        }
        fs::set_permissions(dir.0.join("sub/a"), fs::Permissions::from_mode(0o700)).expect("mode");
        std::os::unix::fs::symlink("/etc/passwd", dir.0.join("link")).expect("link");
        let text = "*.log\nnode_modules/";
        let want = [
            format!("Procfile 644 {text}"),
            "link 777 /etc/passwd".to_owned(),
            "sub 755 ".to_owned(),
            format!("sub/a 755 {text}"),
        ];
        let got: Vec<String> =
            sent(&dir.0).iter().map(|it| it.replace("sub/ 755", "sub 755")).collect();
        assert_eq!(got[..1], want[..1]);
        assert!(got[1].starts_with("link ") && got[1].ends_with("/etc/passwd"), "{got:?}");
        assert_eq!(got[2..], want[2..]);
    }

    #[test]
    fn holes_count_in_full_and_what_is_ignored_does_not_count() {
        let dir = Dir::new("sparse");
        let sparse = File::create(dir.0.join("disk.img")).expect("file");
        sparse.set_len(1200 << 20).expect("a hole");
        let err = read(&dir.0).expect_err("too large").to_string();
        let said = ["it is 1200MiB, and 1GiB at most", ".cfignore"];
        assert!(said.iter().all(|it| err.contains(it)), "{err}");
        fs::write(dir.0.join(IGNORE), "*.img\n").expect("ignore");
        assert_eq!(sent(&dir.0), Vec::<String>::new());
    }

    /// A zip of files that are not packed, each with its mode; `claims`: what it says of each length
    /// instead of the truth.
    fn zip(files: &[(&str, u32, &str)], claims: Option<u32>) -> Vec<u8> {
        let (mut out, mut list) = (Vec::new(), Vec::new());
        for (name, mode, text) in files {
            let mut crc = flate2::Crc::new();
            crc.update(text.as_bytes());
            let length = claims.unwrap_or(text.len() as u32);
            let mut common = Vec::new();
            common.extend([20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0]);
            common.extend(crc.sum().to_le_bytes());
            common.extend((text.len() as u32).to_le_bytes());
            common.extend(length.to_le_bytes());
            common.extend((name.len() as u16).to_le_bytes());
            common.extend([0, 0]);
            let at = out.len() as u32;
            out.extend(b"PK\x03\x04");
            out.extend(&common);
            out.extend(name.as_bytes());
            out.extend(text.as_bytes());
            list.extend(b"PK\x01\x02\x14\x03");
            list.extend(&common);
            list.extend([0; 6]);
            list.extend((mode << 16).to_le_bytes());
            list.extend(at.to_le_bytes());
            list.extend(name.as_bytes());
        }
        let (start, length) = (out.len() as u32, list.len() as u32);
        out.extend(&list);
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend((files.len() as u16).to_le_bytes());
        out.extend((files.len() as u16).to_le_bytes());
        out.extend(length.to_le_bytes());
        out.extend(start.to_le_bytes());
        out.extend([0, 0]);
        out
    }

    #[test]
    fn of_an_archive_its_contents_are_sent() {
        let dir = Dir::new("zip");
        let file = dir.0.join("app.jar");
        let all = [
            ("META-INF/", 0o40755, ""),
            ("META-INF/MANIFEST.MF", 0o100644, "Main-Class: X"),
            ("run.sh", 0, "exec java"),
            ("logs/x.log", 0o100644, "no"),
            ("tmp/deep/y", 0o100644, "no"),
            ("link", 0o120777, "run.sh"),
            (".cfignore", 0o100644, "*.log\ntmp/\n"),
        ];
        fs::write(&file, zip(&all, None)).expect("zip");
        let want = [
            "META-INF/ 755 ",
            "META-INF/MANIFEST.MF 744 Main-Class: X",
            "run.sh 744 exec java",
            "link 777 run.sh",
        ];
        assert_eq!(sent(&file), want);
        // It says that it is larger than may be sent.
        fs::write(&file, zip(&all[1..2], Some(u32::MAX))).expect("zip");
        let err = read(&file).expect_err("too large").to_string();
        assert!(err.contains("it is 4GiB, and 1GiB at most"), "{err}");
        // It says less than there is.
        fs::write(&file, zip(&all[1..2], Some(1))).expect("zip");
        let pieces = read(&file).expect("it says so");
        let failed = std::iter::from_fn(|| pieces.recv_blocking().ok()).any(|it| it.is_err());
        assert!(failed, "what is longer than it says is no file");
        // It would lead out.
        fs::write(&file, zip(&[("../x", 0o100644, "x")], None)).expect("zip");
        let pieces = read(&file).expect("a zip");
        let failed = std::iter::from_fn(|| pieces.recv_blocking().ok()).any(|it| it.is_err());
        assert!(failed, "nothing leads out");
        fs::write(&file, "no zip").expect("file");
        assert!(read(&file).expect_err("no zip").to_string().contains("as a zip"));
    }
}
