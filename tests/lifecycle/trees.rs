//! Trees to and from tar streams: `pack`, `untar`, `cat-file`.

use crate::place::{Place, Said, run, tool};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use tar::{Builder, EntryType, Header};
use terrarium::lifecycle::LifecycleError;
use terrarium::lifecycle::pack::{pack_dir, tree_digest};
use terrarium::lifecycle::survey;

/// Feeds `archive` to `untar -C into`.
fn untar(place: &Place, archive: &[u8], into: &str) -> Said {
    let file = place.write("archive.tar", archive);
    let stdin = File::open(file).expect("the archive");
    run(place.role("untar").arg("-C").arg(place.path(into)).stdin(stdin))
}

/// An archive of entries written byte for byte as given, whatever their names are.
fn archive(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (kind, name, content) in entries {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o7777);
        header.set_mtime(1_000_000_000);
        let data = match kind {
            EntryType::Symlink | EntryType::Link => {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
                &[]
            }
            _ => content.as_bytes(),
        };
        header.set_size(data.len() as u64);
        header.set_cksum();
        tar.append(&header, data).expect("memory");
    }
    tar.into_inner().expect("memory")
}

/// A tree with everything that is awkward; returns its root's name.
fn awkward(place: &Place) -> &'static str {
    let long = format!("src/{}/{}", "d".repeat(120), "f".repeat(200));
    place.write(&long, "long");
    place.write("src/.hidden/.x", "");
    place.write("src/script", "#!/bin/sh\n");
    place.write("src/set", "");
    place.write("src/sub/one", "same");
    place.write("src/node_modules/x", "left out");
    place.write("src/sub/node_modules/x", "stays");
    place.dir("src/empty");
    place.dir("src/closed/inner");
    fs::write(place.path("src").join(OsStr::new("sp ace\n\u{e9}")), "odd").expect("a file");
    let mode = |name: &str, mode| {
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).expect("a mode");
    };
    mode("src/script", 0o755);
    mode("src/set", 0o6711);
    fs::hard_link(place.path("src/sub/one"), place.path("src/sub/two")).expect("a hard link");
    symlink("../../etc/passwd", place.path("src/out")).expect("a link");
    symlink("/etc", place.path("src/abs")).expect("a link");
    symlink("x".repeat(150), place.path("src/longlink")).expect("a link");
    tool("mkfifo", &[OsStr::new("src/fifo")], &place.path(""));
    mode("src/closed", 0o555);
    "src"
}

/// Names, kinds, modes, times, link targets and contents, by the system's own programs.
fn picture(dir: &Path) -> String {
    let script =
        "find . ! -type d -printf '%P %y %m %T@ %l\\n' | sed 's/\\.0*[0-9]* / /' | LC_ALL=C sort
        find . -type d ! -name . -printf '%P %y %m\\n' | LC_ALL=C sort
        find . -type f -exec sha256sum {} + | LC_ALL=C sort -k 2";
    tool("sh", &[OsStr::new("-c"), OsStr::new(script)], dir)
}

#[test]
fn a_tree_comes_out_as_it_went_in() {
    let place = Place::new();
    let from = place.path(awkward(&place));
    let mut stream = Vec::new();
    let exclude = ["node_modules".to_owned()];
    let bytes = pack_dir(&from, &exclude, &mut stream).expect("packed");
    assert_eq!(bytes, stream.len() as u64);
    untar(&place, &stream, "to/deep").ok();
    // Twice: what is there is replaced.
    untar(&place, &stream, "to/deep").ok();

    let to = place.path("to/deep");
    let one = fs::metadata(to.join("sub/one")).expect("one");
    assert_eq!(one.ino(), fs::metadata(to.join("sub/two")).expect("two").ino());
    // What is left out and what is lost on purpose.
    fs::remove_file(from.join("fifo")).expect("the fifo");
    fs::remove_dir_all(from.join("node_modules")).expect("the excluded directory");
    fs::set_permissions(from.join("set"), fs::Permissions::from_mode(0o711)).expect("a mode");
    assert_eq!(picture(&to), picture(&from));

    // The system's tar reads the same from it.
    let file = place.path("archive.tar");
    place.dir("gnu");
    let args = [OsStr::new("-xf"), file.as_os_str()];
    tool("tar", &args, &place.path("gnu"));
    assert_eq!(picture(&place.path("gnu")), picture(&from));
    for dir in ["src/closed", "to/deep/closed", "gnu/closed"] {
        fs::set_permissions(place.path(dir), fs::Permissions::from_mode(0o755)).expect("a mode");
    }
}

#[test]
fn a_digest_sees_contents_modes_and_names_but_no_times() {
    let place = Place::new();
    let file = place.write("src/a", "1");
    place.write("src/.git/x", "");
    let exclude = [".git".to_owned()];
    let digest = || tree_digest(&place.path("src"), &exclude).expect("a digest");
    let first = digest();
    let old = std::time::SystemTime::UNIX_EPOCH;
    File::options().write(true).open(&file).expect("a").set_modified(old).expect("its time");
    place.write("src/.git/y", "");
    assert_eq!(digest(), first);

    let mut seen = vec![first];
    let mut differs = |what: &str| {
        let now = digest();
        assert!(!seen.contains(&now), "{what} is not seen");
        seen.push(now);
    };
    place.write("src/a", "2");
    differs("a content");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a mode");
    differs("a mode");
    place.dir("src/empty");
    differs("an empty directory");
    symlink("a", place.path("src/l")).expect("a link");
    differs("a link");
    fs::rename(&file, place.path("src/b")).expect("renamed");
    differs("a name");
}

/// Runs `meddle` once, when the first bytes of the stream have been written.
struct Meddler<F: FnMut()> {
    stream: Vec<u8>,
    meddle: Option<F>,
}

impl<F: FnMut()> Write for Meddler<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(mut meddle) = self.meddle.take() {
            meddle();
        }
        self.stream.extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_changes_under_our_hands_is_an_error_and_the_reader_fails_too() {
    for change in ["shrink", "grow", "remove the next", "swap the next for a link"] {
        let place = Place::new();
        let big = place.write("src/a", vec![7; 1 << 20]);
        let next = place.write("src/b/c", "next");
        let meddle = || match change {
            "shrink" => {
                File::options().write(true).open(&big).expect("a").set_len(100).expect("cut")
            }
            "grow" => {
                let mut file = File::options().append(true).open(&big).expect("a");
                file.write_all(b"more").expect("grown");
            }
            "remove the next" => fs::remove_dir_all(next.parent().expect("b")).expect("removed"),
            _ => {
                fs::remove_dir_all(next.parent().expect("b")).expect("removed");
                symlink("/etc", place.path("src/b")).expect("a link");
            }
        };
        let mut out = Meddler { stream: Vec::new(), meddle: Some(meddle) };
        let result = pack_dir(&place.path("src"), &[], &mut out);
        let stream = std::mem::take(&mut out.stream);
        if change.starts_with("swap") {
            // Nothing of /etc was read: the link itself is in the stream.
            result.expect("a link is packed as a link");
            untar(&place, &stream, "to").ok();
            assert_eq!(fs::read_link(place.path("to/b")).expect("a link"), Path::new("/etc"));
            continue;
        }
        assert!(matches!(result, Err(LifecycleError::Changed { .. })), "{change}: {result:?}");
        untar(&place, &stream, "to").fails(1, "");
    }
}

#[test]
fn a_tree_is_known_before_any_of_its_files_is_read() {
    let place = Place::new();
    let big = place.write("src/big", "");
    // Nothing but a hole.
    File::options().write(true).open(&big).expect("big").set_len(3 << 30).expect("a hole");
    fs::hard_link(&big, place.path("src/again")).expect("one more name");
    place.write("src/.git/objects", "not counted");
    place.write("src/sub/five", "12345");
    for n in 0..7 {
        tool("mkfifo", &[OsStr::new(&format!("src/sub/fifo-{n}"))], &place.path(""));
    }
    let exclude = [".git".to_owned()];
    let look = || survey(&place.path("src"), &exclude);
    let found = look().expect("a survey");
    assert_eq!((found.bytes, found.left_out, found.names.len()), ((3 << 30) + 5, 7, 5));
    assert_eq!(found.names[0], Path::new("sub/fifo-0"));

    // Whoever owns the copy could not use these, though root may read them.
    for (name, mode) in [("src/sub/five", 0o044), ("src/sub", 0o255)] {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(place.path(name), mode).expect("a mode");
        let err = look().expect_err("closed");
        assert!(matches!(err, LifecycleError::Closed { .. }), "{err:?}");
        let text = err.within("the source", &place.path("src"));
        let inside = name.strip_prefix("src/").expect("inside");
        assert!(text.starts_with(&format!("`{inside}` of the source /")), "{text}");
        assert!(text.contains("`chmod u+rX` it"), "{text}");
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(place.path(name), open).expect("a mode");
    }
}

#[test]
fn a_full_pipe_s_other_end_that_goes_away_is_an_error_not_a_crash() {
    let place = Place::new();
    place.write("src/a", vec![7; 1 << 20]);
    let mut child = Command::new("true").stdin(Stdio::piped()).spawn().expect("it starts");
    let stdin = child.stdin.take().expect("piped");
    child.wait().expect("it ends");
    let result = pack_dir(&place.path("src"), &[], stdin);
    assert!(matches!(result, Err(LifecycleError::Stream { .. })), "{result:?}");
    let gone = pack_dir(&place.path("gone"), &[], io::sink());
    assert!(gone.expect_err("no such tree").to_string().contains("gone"));
}

#[test]
fn hostile_archives_stay_inside() {
    use EntryType::{Link, Regular as File, Symlink};
    let link = (Symlink, "l", "..");
    let up = (Symlink, "a/up", "../../outside");
    for (entries, why) in [
        (&[(File, "../x", "x")][..], "`../x`: its name holds `..`"),
        (&[(File, "a/../../x", "x")], "holds `..`"),
        (&[(File, "/tmp/x", "x")], "`/tmp/x`: its name is absolute"),
        (&[link, (File, "l/x", "x")], "`l/x`: a link on its way leads out"),
        (&[(Symlink, "l", "/"), (File, "l/x", "x")], "leads out"),
        (&[(Symlink, "l", "/proc/self/cwd"), (File, "l/x", "x")], "entry `l/x`"),
        (&[up, (File, "a/up/x", "x")], "leads out"),
        (&[(Symlink, "l", "l"), (File, "l/x", "x")], "entry `l/x`"),
        (&[(Symlink, "l", "gone"), (File, "l/x", "x")], "entry `l/x`"),
        (&[link, (EntryType::Directory, "l/x", "")], "leads out"),
        (&[link, (EntryType::Directory, "l", "")], "leads out"),
        (&[(Link, "h", "../outside/secret")], "one more name of something outside"),
        (&[(Link, "h", "/etc/passwd")], "outside"),
        (&[link, (Link, "h", "l/outside/secret")], "leads out"),
        (&[(Link, "h", "gone")], "entry `h`"),
        (&[(EntryType::Directory, "d", ""), (File, "d", "x")], "entry `d`"),
        (&[(File, "f", "x"), (File, "f/x", "x")], "entry `f/x`"),
    ] {
        let place = Place::new();
        place.write("outside/secret", "secret");
        let said = untar(&place, &archive(entries), "into").fails(1, why);
        assert_eq!(said.err.lines().count(), 1, "{said:#?}");
        assert!(said.err.starts_with("untar: "), "{said:#?}");
        assert_eq!(place.read("outside/secret"), "secret");
        assert!(!place.path("x").exists() && !place.path("outside/x").exists(), "{why}");
    }
}

#[test]
fn links_are_replaced_not_followed_and_privileges_are_dropped() {
    use EntryType::{Block, Char, Directory, Fifo, Regular, Symlink};
    let place = Place::new();
    place.write("outside/secret", "secret");
    symlink("../outside/secret", place.dir("into").join("l")).expect("a link");
    let stream = archive(&[
        (Directory, "./", ""),
        (Regular, "./l", "new"),
        (Symlink, "in", "d"),
        (Directory, "d", ""),
        (Regular, "in/through", "x"),
        (Symlink, "d/back", "../l"),
        (Block, "b", ""),
        (Char, "c", ""),
        (Fifo, "f", ""),
        (Regular, "old/", ""),
    ]);
    untar(&place, &stream, "into").ok();
    assert_eq!(place.read("outside/secret"), "secret");
    assert_eq!(place.read("into/l"), "new");
    assert_eq!(place.read("into/d/through"), "x");
    assert!(place.path("into/old").is_dir());
    let mode = |name: &str| fs::metadata(place.path(name)).expect(name).mode() & 0o7777;
    assert_eq!((mode("into/l"), mode("into/d")), (0o777, 0o1777));
    assert_eq!(fs::metadata(place.path("into/l")).expect("l").mtime(), 1_000_000_000);
    for skipped in ["b", "c", "f"] {
        assert!(!place.path("into").join(skipped).exists(), "{skipped}");
    }
}

#[test]
fn an_archive_that_ends_early_is_an_error() {
    let whole = archive(&[
        (EntryType::Regular, "zeros", &"\0".repeat(2048)),
        (EntryType::Regular, "b", "x"),
    ]);
    assert_eq!(whole.len(), 512 + 2048 + 512 + 512 + 1024);
    for (cut, fails) in [
        (0, true),
        (100, true),
        (512, true),
        (1600, true),
        (2560, true),
        (3072, true),
        (3584, true),
        (4096, false),
        (4608, false),
    ] {
        let place = Place::new();
        let said = untar(&place, &whole[..cut], "into");
        assert_eq!(said.code, Some(i32::from(fails)), "cut at {cut}: {said:#?}");
    }
    let place = Place::new();
    untar(&place, &[b'x'; 2048], "into").fails(1, "cannot read the archive");
    run(&mut place.role("untar")).fails(1, "usage: untar");
}

#[test]
fn cat_file_gives_regular_files_only() {
    let place = Place::new();
    place.write("file", "content");
    place.dir("dir");
    symlink("file", place.path("link")).expect("a link");
    tool("mkfifo", &[OsStr::new("fifo")], &place.path(""));
    let cat = |name: &str| run(place.role("cat-file").arg(place.path(name)));
    assert_eq!(cat("file").ok().out, "content");
    cat("gone").fails(4, "cat-file: cannot copy ");
    cat("file/below").fails(4, "");
    cat("dir").fails(1, "not a regular file");
    cat("fifo").fails(1, "not a regular file");
    cat("link").fails(1, "");
    run(&mut place.role("cat-file")).fails(1, "usage: cat-file PATH");
}
