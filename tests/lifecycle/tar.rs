//! What Garden's clients stream in and out: `tar-in`, `tar-out`, with the system's tar at the other
//! end.

use crate::place::{Place, Said, run, tool};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

/// Feeds `archive` to `tar-in DEST`.
fn tar_in(place: &Place, archive: &str, dest: &str) -> Said {
    let stdin = File::open(place.path(archive)).expect("the archive");
    run(place.role("tar-in").arg(dest).stdin(stdin))
}

/// `tar-out SOURCE` into the file `archive`.
fn tar_out(place: &Place, source: &str, archive: &str) -> Said {
    let stdout = File::create(place.path(archive)).expect("the archive");
    run(place.role("tar-out").arg(source).stdout(Stdio::from(stdout)))
}

/// Runs the system's tar in the place.
fn tar(place: &Place, args: &[&str]) -> String {
    let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
    tool("tar", &args, &place.path(""))
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("a file").mode() & 0o7777
}

/// Changes every header of a GNU tar of small files by `edit`, and its checksum after it.
fn edit(place: &Place, archive: &str, edit: impl Fn(&mut [u8])) {
    let mut bytes = fs::read(place.path(archive)).expect("the archive");
    for block in bytes.chunks_mut(512).filter(|block| block[257..262] == *b"ustar") {
        edit(block);
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    place.write(archive, bytes);
}

#[test]
fn what_gnu_tar_writes_in_any_form_is_unpacked() {
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(200));
    for form in ["gnu", "pax", "ustar", "v7"] {
        let place = Place::new();
        place.write("src/a/file", "content");
        fs::hard_link(place.path("src/a/file"), place.path("src/a/again")).expect("a name");
        symlink("../gone", place.path("src/a/link")).expect("a link");
        symlink("/etc", place.path("src/a/out")).expect("a link");
        place.dir("src/empty");
        if form == "gnu" || form == "pax" {
            place.write(&format!("src/{long}"), "deep");
            symlink("t".repeat(150), place.path("src/far")).expect("a link");
        }
        let format = format!("--format={form}");
        tar(&place, &[&format, "-cf", "t.tar", "-C", "src", "."]);
        tar_in(&place, "t.tar", "to/deep/er").ok();
        // Again: what is there is replaced.
        tar_in(&place, "t.tar", "to/deep/er").ok();
        tar(&place, &["-df", "t.tar", "-C", "to/deep/er"]);
        let inode =
            |name: &str| fs::metadata(place.path("to/deep/er/a").join(name)).expect("a").ino();
        assert_eq!(inode("file"), inode("again"));
    }
}

#[test]
fn a_destination_is_in_the_working_directory_unless_it_is_absolute() {
    let place = Place::new();
    place.write("src/a", "1");
    tar(&place, &["-cf", "t.tar", "-C", "src", "a"]);
    for (dest, lands) in [("", "a"), (".", "a"), ("x/y", "x/y/a"), ("x/../z", "z/a")] {
        tar_in(&place, "t.tar", dest).ok();
        assert_eq!(place.read(lands), "1", "{dest}");
    }
    let absolute = place.path("abs");
    tar_in(&place, "t.tar", absolute.to_str().expect("UTF-8")).ok();
    assert_eq!(place.read("abs/a"), "1");
    assert_eq!(mode(&place.path("x/y")), 0o755);
    tar_in(&place, "t.tar", "a/below").fails(1, "a/below: Not a directory");
    run(&mut place.role("tar-in")).fails(1, "usage: tar-in DIR");
}

#[test]
fn modes_are_cut_by_the_umask_and_owners_are_whose_process_it_is() {
    let place = Place::new();
    let set = place.write("src/set", "");
    fs::set_permissions(&set, PermissionsExt::from_mode(0o6777)).expect("a mode");
    fs::set_permissions(place.dir("src/dir"), PermissionsExt::from_mode(0o1777)).expect("a mode");
    tool("mkfifo", &[OsStr::new("src/fifo")], &place.path(""));
    tar(&place, &["--owner=4000", "--group=4000", "-cf", "t.tar", "-C", "src", "."]);
    tar_in(&place, "t.tar", "to").ok();
    assert_eq!((mode(&place.path("to/set")), mode(&place.path("to/dir"))), (0o755, 0o755));
    let me = fs::metadata(place.path("")).expect("the place").uid();
    assert_eq!(fs::metadata(place.path("to/set")).expect("set").uid(), me);
    assert!(fs::symlink_metadata(place.path("to/fifo")).expect("fifo").file_type().is_fifo());
}

#[test]
fn files_with_holes_come_back_from_every_form_that_gnu_tar_has() {
    let place = Place::new();
    let file = File::create(place.dir("src").join("sparse")).expect("a file");
    for (at, byte) in [(0, b'a'), (1 << 20, b'b'), ((3 << 20) - 1, b'c')] {
        std::os::unix::fs::FileExt::write_all_at(&file, &[byte], at).expect("written");
    }
    drop(file);
    tar(&place, &["--sparse", "--format=gnu", "-cf", "gnu.tar", "-C", "src", "sparse"]);
    let size = fs::metadata(place.path("gnu.tar")).expect("archive").len();
    assert!(size < 1 << 20, "it has holes: {size}");
    tar_in(&place, "gnu.tar", "to").ok();
    let (from, to) = (fs::read(place.path("src/sparse")), fs::read(place.path("to/sparse")));
    assert!(from.expect("from") == to.expect("to"));
    for version in ["0.0", "0.1", "1.0"] {
        let form = format!("--sparse-version={version}");
        let args = ["--sparse", "--format=pax", &form, "-cf", "pax.tar", "-C", "src", "sparse"];
        tar(&place, &args);
        let to = format!("to-{version}");
        tar_in(&place, "pax.tar", &to).ok();
        let (from, to) = (place.path("src/sparse"), place.path(&format!("{to}/sparse")));
        let kept = fs::metadata(&to).expect("the file");
        assert!(std::os::unix::fs::MetadataExt::blocks(&kept) * 512 < 1 << 20, "{version}");
        assert!(fs::read(from).expect("from") == fs::read(to).expect("to"), "{version}");
    }
    let pax = fs::read(place.path("pax.tar")).expect("archive");
    fs::write(place.path("cut.tar"), &pax[..2560]).expect("archive");
    tar_in(&place, "cut.tar", "cut").fails(1, "the archive ends too early");
}

#[test]
fn an_archive_may_end_at_the_border_of_an_entry_and_nowhere_else() {
    let place = Place::new();
    place.write("src/a", "1");
    tar(&place, &["-cf", "whole.tar", "-C", "src", "a"]);
    let whole = fs::read(place.path("whole.tar")).expect("archive");
    for (length, fine) in [(1024, true), (1536, true), (700, false), (513, false), (300, false)] {
        fs::write(place.path("cut.tar"), &whole[..length]).expect("archive");
        let to = format!("to-{length}");
        let ran = tar_in(&place, "cut.tar", &to);
        match fine {
            true => drop(ran.ok()),
            false => drop(ran.fails(1, "")),
        }
        assert!(!fine || place.path(&to).join("a").exists(), "{length}");
    }
}

#[test]
fn attributes_come_along_when_the_user_may_set_them() {
    let place = Place::new();
    let file = place.write("src/a", "1");
    let set = terrarium::sys::file::set_xattr;
    let open = File::open(&file).expect("a");
    if set(std::os::fd::AsFd::as_fd(&open), c"user.colour", b"green").is_err() {
        // This file system has none; then neither has what is unpacked to it.
        return;
    }
    tar(&place, &["--xattrs", "--format=pax", "-cf", "t.tar", "-C", "src", "a"]);
    tar_in(&place, "t.tar", "to").ok();
    tar(&place, &["--xattrs", "--format=pax", "-cf", "again.tar", "-C", "to", "a"]);
    let again = fs::read(place.path("again.tar")).expect("archive");
    let found = again.windows(30).any(|part| part.starts_with(b"SCHILY.xattr.user.colour=green"));
    assert!(found, "the attribute is gone");
}

#[test]
fn no_name_leads_out_of_the_destination() {
    let place = Place::new();
    place.write("outside/secret", "secret");
    place.write("src/x", "evil");
    for (transform, why) in [("s,^,../outside/,", "`..`"), ("s,^,a/../../outside/,", "`..`")] {
        let args = ["-P", "--transform", transform, "-cf", "t.tar", "-C", "src", "x"];
        tar(&place, &args);
        tar_in(&place, "t.tar", "to").fails(1, why);
    }
    // A leading slash says nothing.
    tar(&place, &["-P", "--transform", "s,^,/under/,", "-cf", "t.tar", "-C", "src", "x"]);
    tar_in(&place, "t.tar", "to").ok();
    assert_eq!(place.read("to/under/x"), "evil");
    // Links that are there already, relative and absolute.
    for target in ["../outside".into(), place.path("outside")] {
        symlink(&target, place.path("to/link")).expect("a link");
        tar(&place, &["--transform", "s,^,link/,", "-cf", "t.tar", "-C", "src", "x"]);
        tar_in(&place, "t.tar", "to").fails(1, "`link/x`: a link on its way leads out");
        fs::remove_file(place.path("to/link")).expect("removed");
    }
    // A file replaces a link and leaves alone what that led to.
    symlink("../outside/secret", place.path("to/x")).expect("a link");
    tar(&place, &["-cf", "t.tar", "-C", "src", "x"]);
    tar_in(&place, "t.tar", "to").ok();
    assert_eq!(
        (place.read("outside/secret"), place.read("to/x")),
        ("secret".into(), "evil".into())
    );
    assert_eq!(fs::read_dir(place.path("outside")).expect("outside").count(), 1);
    // A device is told, not left out.
    edit(&place, "t.tar", |header| header[156] = b'3');
    tar_in(&place, "t.tar", "to").fails(1, "`x`: it is a device");
}

#[test]
fn a_tar_that_is_cut_or_broken_is_an_error_that_names_the_entry() {
    let place = Place::new();
    place.write("src/first", "1");
    place.write("src/second", vec![b'2'; 4000]);
    tar(&place, &["-cf", "t.tar", "-C", "src", "first", "second"]);
    let whole = fs::read(place.path("t.tar")).expect("archive");
    for (cut, why) in [
        (0, "too early"),
        (100, "cannot read the archive"),
        (1300, "cannot read the archive"),
        (1536 + 700, "`second`"),
        (1536 + 4010, "cannot read the archive"),
    ] {
        place.write("cut.tar", &whole[..cut]);
        let said = tar_in(&place, "cut.tar", "to");
        assert_eq!(said.code, Some(1), "cut at {cut}: {said:#?}");
        assert!(said.err.contains(why) || said.err.contains("too early"), "{cut}: {said:#?}");
    }
    let mut bad = whole.clone();
    bad[0] ^= 1;
    place.write("bad.tar", &bad);
    tar_in(&place, "bad.tar", "to").fails(1, "checksum");
    // A name of 3 MiB would have to be kept in memory.
    edit(&place, "t.tar", |header| {
        header[124..136].copy_from_slice(b"00014000000\0");
        header[156] = b'L';
    });
    let mut endless = fs::read(place.path("t.tar")).expect("archive");
    endless.truncate(512);
    endless.resize(4 << 20, b'x');
    place.write("endless.tar", endless);
    tar_in(&place, "endless.tar", "to").fails(1, "described in more than");
}

#[test]
fn what_goes_out_is_named_as_it_was_asked_for() {
    let place = Place::new();
    place.write("a/b/file", "1");
    place.dir("a/b/sub");
    symlink("b", place.path("a/link")).expect("a link");
    let absolute = |name: &str| place.path(name).to_str().expect("UTF-8").to_owned();
    for (source, names) in [
        (absolute("a/b"), "b/\nb/file\nb/sub/\n"),
        (absolute("a/b/"), "./\n./file\n./sub/\n"),
        ("a/b".into(), "b/\nb/file\nb/sub/\n"),
        ("a/b/".into(), "./\n./file\n./sub/\n"),
        ("a/link/".into(), "./\n./file\n./sub/\n"),
        ("a/link".into(), "link\n"),
        ("a/b/file".into(), "file\n"),
        ("a/b/.".into(), "./\n./file\n./sub/\n"),
    ] {
        tar_out(&place, &source, "out.tar").ok();
        assert_eq!(tar(&place, &["-tf", "out.tar"]), names, "{source}");
    }
    for (source, why) in [
        ("gone", "cannot open gone: No such file"),
        ("gone/", "cannot open gone/: No such file"),
        ("a/b/file/", "Not a directory"),
        ("a/b/file/below", "cannot open"),
    ] {
        tar_out(&place, source, "out.tar").fails(1, why);
        assert_eq!(fs::metadata(place.path("out.tar")).expect("archive").len(), 0, "{source}");
    }
    run(&mut place.role("tar-out")).fails(1, "usage: tar-out PATH");
}

#[test]
fn what_goes_out_is_what_is_there() {
    let place = Place::new();
    let long = format!("src/{}/{}", "d".repeat(150), "f".repeat(200));
    place.write(&long, "deep");
    let set = place.write("src/set", "x");
    fs::set_permissions(&set, PermissionsExt::from_mode(0o4751)).expect("a mode");
    fs::hard_link(&set, place.path("src/again")).expect("a name");
    symlink("t".repeat(150), place.path("src/far")).expect("a link");
    tool("mkfifo", &[OsStr::new("src/fifo")], &place.path(""));
    place.write("src/big", vec![7; 3 << 20]);
    tar_out(&place, "src", "out.tar").ok();
    // Compares contents, modes, owners, times and links with what is there.
    tar(&place, &["-df", "out.tar"]);
    let listed = tar(&place, &["-tvf", "out.tar"]);
    assert!(listed.contains("-rwsr-x--x") && listed.contains("link to src/again"), "{listed}");
    assert_eq!(listed.lines().count(), 8, "{listed}");
    // And back.
    tar_in(&place, "out.tar", "to").ok();
    assert_eq!(place.read(&format!("to/{long}")), "deep");
}
