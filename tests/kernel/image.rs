//! Archives that mean harm, and archives that do not, unpacked on the real file system.
//!
//! Numbers such as H03 are those of the project's catalogue of hostile archives.

mod layout;
mod local;
mod merge;

use crate::volume::{Lab, fill, run, text};
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use terrarium::image::unpack::{Options, Summary, UnpackError, unpack};
use terrarium::image::{import_droplet, import_stack};
use terrarium::unit::{Bytes, Digest};
use terrarium::volume::{Store, StoreConfig};

/// A tar stream made byte by byte, so that it can say anything.
#[derive(Default)]
struct Tar(Vec<u8>);

/// A whole archive with one file in it.
pub fn one_file(path: &str, data: &[u8]) -> Vec<u8> {
    Tar::default().raw(b'0', path.as_bytes(), data, |_| ()).end()
}

impl Tar {
    /// An entry of type `kind`; `set` has the last word about its header.
    fn raw(mut self, kind: u8, path: &[u8], data: &[u8], set: impl Fn(&mut [u8; 512])) -> Tar {
        let mut block = [0u8; 512];
        block[..path.len()].copy_from_slice(path);
        block[100..107].copy_from_slice(b"0000644");
        block[108..115].copy_from_slice(b"0000000");
        block[116..123].copy_from_slice(b"0000000");
        block[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        block[136..147].copy_from_slice(format!("{:011o}", 1_000_000_000).as_bytes());
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        set(&mut block);
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(block);
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, data: &str) -> Tar {
        self.raw(b'0', path.as_bytes(), data.as_bytes(), |_| ())
    }

    fn dir(self, path: &str, mode: u32) -> Tar {
        self.raw(b'5', path.as_bytes(), b"", |block| {
            block[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
        })
    }

    fn link(self, kind: u8, path: &str, target: &str) -> Tar {
        self.raw(kind, path.as_bytes(), b"", |block| {
            block[157..157 + target.len()].copy_from_slice(target.as_bytes());
        })
    }

    fn symlink(self, path: &str, target: &str) -> Tar {
        self.link(b'2', path, target)
    }

    fn hard_link(self, path: &str, target: &str) -> Tar {
        self.link(b'1', path, target)
    }

    fn node(self, kind: u8, path: &str, major: u8, minor: u8) -> Tar {
        self.raw(kind, path.as_bytes(), b"", |block| {
            block[329..336].copy_from_slice(format!("{major:07o}").as_bytes());
            block[337..344].copy_from_slice(format!("{minor:07o}").as_bytes());
        })
    }

    /// PAX records about the next entry, with true lengths.
    fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut len = rest + 1;
            while len != rest + len.to_string().len() {
                len = rest + len.to_string().len();
            }
            data.extend(format!("{len} {key}=").as_bytes());
            data.extend(*value);
            data.push(b'\n');
        }
        self.raw(b'x', b"pax", &data, |_| ())
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// A place outside the layer that archives try to reach, as it was before.
struct Canary {
    dir: PathBuf,
    before: String,
}

impl Canary {
    fn new(lab: &Lab) -> Canary {
        let dir = lab.dir.join("canary");
        fs::create_dir(&dir).expect("mkdir");
        fs::write(dir.join("x"), "alive").expect("write");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).expect("chmod");
        let before = Canary::state(&dir);
        Canary { dir, before }
    }

    fn state(dir: &Path) -> String {
        let find = ["-printf", "%p %m %u %g %T@ %C@ %n %s\n"];
        run("find", &[&[text(dir)], &find[..]].concat())
    }

    fn check(&self, what: &str) {
        assert_eq!(Canary::state(&self.dir), self.before, "{what}: the canary was touched");
        assert_eq!(fs::read_to_string(self.dir.join("x")).expect("read"), "alive");
    }
}

/// An empty directory on the store's file system.
fn empty(store: &Store, name: &str) -> PathBuf {
    let dir = store.dir().join("tmp").join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).expect("mkdir");
    dir
}

fn into(dir: &Path, tar: Vec<u8>) -> Result<Summary, UnpackError> {
    unpack(&mut tar.as_slice(), dir, &Options::default())
}

/// Names below `dir`, sorted, with type and mode.
fn listing(dir: &Path) -> String {
    let out = run("find", &[text(dir), "-mindepth", "1", "-printf", "%y%m %P\n"]);
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_by_key(|line| line.split_once(' ').map(|(_, name)| name));
    lines.join("\n")
}

fn chain(err: &dyn std::error::Error) -> String {
    terrarium::log::chain(err)
}

/// Runs `test` with a fresh store and closes it.
fn with_store(name: &str, test: impl FnOnce(&Lab, &Store)) {
    let lab = Lab::new(name);
    let store = lab.open();
    test(&lab, &store);
    lab.close(store);
}

#[test]
fn hostile_paths_never_touch_what_is_outside() {
    with_store("hostile", |lab, store| {
        let canary = Canary::new(lab);
        let out = text(&canary.dir);
        let up = format!("../../../../../../../../..{out}");
        let refused: Vec<(&str, Tar, &str)> = vec![
            ("H01", Tar::default().file("../canary/x", "dead"), "`..`"),
            ("H01", Tar::default().file("a/../../canary/x", "dead"), "`..`"),
            ("H03", Tar::default().symlink("d", out).file("d/x", "dead"), "leads nowhere"),
            ("H04", Tar::default().symlink("d", &up).file("d/x", "dead"), "leads nowhere"),
            ("H06", Tar::default().hard_link("l", "/etc/shadow"), "not in the archive"),
            ("H06", Tar::default().hard_link("l", "../../x"), "`..`"),
            ("H06", Tar::default().symlink("s", out).hard_link("l", "s"), "no file"),
            ("H06", Tar::default().symlink("s", out).hard_link("l", "s/x"), "not in the archive"),
            ("H06", Tar::default().dir("d", 0o755).hard_link("l", "d"), "no file"),
            ("H06", Tar::default().file("f", "").hard_link("f", "f"), "itself"),
            ("H06", Tar::default().hard_link("l", "late").file("late", ""), "not in the archive"),
            ("H08", Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", ""), "loop"),
            ("H09", Tar::default().file(".wh.", ""), "whiteout of nothing"),
            ("H09", Tar::default().file(".wh..", ""), "whiteout of nothing"),
            ("H09", Tar::default().file(".wh...", ""), "whiteout of nothing"),
            ("H09", Tar::default().file(".wh.a/b", ""), "below a whiteout"),
            ("H09", Tar::default().symlink("d", out).file("d/.wh..wh..opq", ""), "leads nowhere"),
            ("H09", Tar::default().symlink("d", out).file("d/.wh.x", ""), "leads nowhere"),
        ];
        for (row, tar, why) in refused {
            let err = into(&empty(store, "h"), tar.end()).expect_err(row);
            assert!(chain(&err).contains(why), "{row}: {}", chain(&err));
            assert!(chain(&err).starts_with("entry `"), "{row} names no entry: {err}");
            canary.check(row);
        }
    });
}

#[test]
fn absolute_names_and_links_stay_inside() {
    with_store("inside", |lab, store| {
        let canary = Canary::new(lab);
        let out = text(&canary.dir);
        let dir = empty(store, "h");
        let tar = Tar::default()
            // H02
            .file("/etc/canary", "inside")
            // H05 and H07: a directory entry takes the place of a link, it does not go through it
            .symlink("d", "/")
            .dir("d/", 0o777)
            .symlink("foo", out)
            .dir("foo", 0o700)
            // A link that leads somewhere inside is followed there.
            .dir("usr/lib", 0o755)
            .symlink("lib", "/usr/lib")
            .file("lib/libc", "c")
            .symlink("usr/up", "../../../../usr/lib")
            .file("usr/up/libm", "m")
            .hard_link("libc2", "/lib/libc")
            // A file takes the place of a link and does not write through it.
            .symlink("passwd", &format!("{out}/x"))
            .file("passwd", "mine");
        into(&dir, tar.end()).expect("unpack");
        canary.check("inside");
        assert_eq!(
            listing(&dir),
            "d777 d\nd755 etc\nf644 etc/canary\nd700 foo\nl777 lib\nf644 libc2\nf644 passwd\n\
             d755 usr\nd755 usr/lib\nf644 usr/lib/libc\nf644 usr/lib/libm\nl777 usr/up"
        );
        assert_eq!(fs::metadata(dir.join("libc2")).expect("stat").nlink(), 2);
        assert_eq!(fs::read_link(dir.join("lib")).expect("link"), Path::new("/usr/lib"));
    });
}

#[test]
fn the_last_entry_of_a_name_wins() {
    with_store("last", |_, store| {
        let dir = empty(store, "h");
        let many = (0..2000).fold(Tar::default().dir("was", 0o755), |tar, n| {
            tar.file(&format!("was/sub{}/f{n}", n % 7), "x")
        });
        // H12
        let tar = many
            .file("was", "now a file")
            .file("a", "file")
            .dir("a", 0o711)
            .file("a/below", "1")
            .dir("a", 0o755)
            .symlink("b", "a")
            .file("b", "f")
            .raw(b'6', b"c", b"", |_| ())
            .symlink("c", "b")
            .file("f1", "one")
            .hard_link("f2", "f1")
            .hard_link("f2", "f1")
            .file("f1", "two");
        into(&dir, tar.end()).expect("unpack");
        assert_eq!(
            listing(&dir),
            "d755 a\nf644 a/below\nf644 b\nl777 c\nf644 f1\nf644 f2\nf644 was"
        );
        assert_eq!(fs::read_to_string(dir.join("f2")).expect("read"), "one");
        assert_eq!(fs::read_to_string(dir.join("f1")).expect("read"), "two");

        let below = Tar::default().file("f", "").symlink("f", "nowhere").file("f/x", "");
        assert!(into(&empty(store, "i"), below.end()).is_err());
        let below = Tar::default().file("f", "").file("f/x", "");
        let err = into(&empty(store, "i"), below.end()).expect_err("below a file");
        assert!(err.to_string().contains("no directory"), "{err}");
    });
}

#[test]
fn devices_are_left_out_and_fifos_are_not() {
    with_store("devices", |_, store| {
        let dir = empty(store, "h");
        // H13
        let tar = Tar::default()
            .node(b'3', "mem", 1, 1)
            .node(b'4', "sda", 8, 0)
            .node(b'3', "whiteout", 0, 0)
            .raw(b'6', b"fifo", b"", |_| ())
            .raw(b's', b"unknown", b"data that belongs to it", |_| ())
            .file("after", "ok");
        let summary = into(&dir, tar.end()).expect("unpack");
        assert_eq!((summary.made, summary.skipped), (2, 4));
        assert_eq!(listing(&dir), "f644 after\np644 fifo");
    });
}

#[test]
fn modes_owners_times_and_attributes_are_kept_within_bounds() {
    with_store("meta", |lab, store| {
        let dir = empty(store, "h");
        let octal = |block: &mut [u8; 512], at: usize, n: u64| {
            block[at..at + 7].copy_from_slice(format!("{n:07o}").as_bytes());
        };
        let tar = Tar::default()
            .dir("d", 0o2775)
            .raw(b'0', b"d/su", b"x", |block| {
                octal(block, 100, 0o4755);
                octal(block, 108, 1000);
                octal(block, 116, 100);
            })
            .pax(&[
                ("mtime", b"1234567890.25"),
                ("uid", b"65535"),
                ("SCHILY.xattr.user.note", b"a\0b"),
                ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\0\x20\0"),
                ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                ("SCHILY.xattr.user.overlay.opaque", b"y"),
                ("SCHILY.xattr.security.selinux", b"x"),
            ])
            .file("d/attr", "x")
            // H24
            .raw(b'0', b"d/\xff\\\n\x1b[2J", b"", |_| ())
            // H25
            .raw(b'5', b"./", b"", |block| {
                octal(block, 100, 0);
                octal(block, 108, 1);
            });
        let summary = into(&dir, tar.end()).expect("unpack");
        assert_eq!(summary.attributes_dropped, 5);
        let su = fs::metadata(dir.join("d/su")).expect("stat");
        assert_eq!((su.mode() & 0o7777, su.uid(), su.gid()), (0o4755, 1000, 100));
        let attr = fs::metadata(dir.join("d/attr")).expect("stat");
        assert_eq!(
            (attr.uid(), attr.mtime(), attr.mtime_nsec()),
            (65535, 1_234_567_890, 250_000_000)
        );
        // What GNU tar finds on it.
        let tar = lab.dir.join("attr.tar");
        let all = ["--format=pax", "--xattrs", "--xattrs-include=*"];
        run("tar", &[&all[..], &["-cf", text(&tar), "-C", text(&dir), "d/attr"]].concat());
        let found = fs::read(&tar).expect("read").escape_ascii().to_string();
        assert!(found.contains("SCHILY.xattr.user.note=a\\x00b"), "{found}");
        assert_eq!(found.matches("SCHILY.xattr.").count(), 1, "{found}");
        let d = fs::metadata(dir.join("d")).expect("stat");
        assert_eq!((d.mode() & 0o7777, d.mtime()), (0o2775, 1_000_000_000), "time of a directory");
        let root = fs::metadata(&dir).expect("stat");
        assert_eq!((root.mode() & 0o7777, root.uid(), root.mtime()), (0o755, 0, 1_000_000_000));
        let odd = fs::read_dir(dir.join("d")).expect("list").filter_map(Result::ok);
        assert!(odd.into_iter().any(|e| e.file_name().as_bytes() == b"\xff\\\n\x1b[2J"));

        // H17: ids that no container holds are refused by name, and shown without tricks.
        for (at, what) in [(108, "70000:0"), (116, "0:70000")] {
            let tar = Tar::default().raw(b'0', b"a\x1bb", b"", |block| octal(block, at, 70_000));
            let err = into(&empty(store, "i"), tar.end()).expect_err("large id").to_string();
            assert!(err.contains(what) && err.contains("`a\\x1bb`"), "{err}");
        }
        let tar = Tar::default().pax(&[("SCHILY.xattr.user.big", &[b'x'; 60_000])]).file("f", "");
        let err = into(&empty(store, "i"), tar.end()).expect_err("large attribute");
        assert!(err.to_string().contains("does not fit"), "{err}");
    });
}

#[test]
fn archives_that_read_two_ways_or_break_off_are_refused() {
    with_store("broken", |_, store| {
        let whole = Tar::default().file("a", &"x".repeat(700)).file("b", "y").end();
        // H22: what is tolerated.
        for (keep, what) in
            [(whole.len() - 512, "one end block"), (whole.len() - 1024, "no end block")]
        {
            into(&empty(store, "h"), whole[..keep].to_vec()).expect(what);
        }
        let garbage = [&whole[..], b"garbage after the end"].concat();
        into(&empty(store, "h"), garbage).expect("garbage after the end");
        // H14: the size in PAX counts, and what looks like an entry inside the data is data.
        let inner = Tar::default().file("smuggled", "boo").0;
        let tar = Tar::default().pax(&[("size", inner.len().to_string().as_bytes())]);
        let tar = tar.raw(b'0', b"real", &inner, |b| b[124..135].copy_from_slice(b"00000000000"));
        let dir = empty(store, "h");
        into(&dir, tar.file("after", "").end()).expect("PAX size");
        assert_eq!(listing(&dir), "f644 after\nf644 real");

        let long =
            |kind: u8, len: usize| Tar::default().raw(kind, b"long", &vec![b'n'; len], |_| ());
        let lie = |kind: u8| {
            // H16: two GiB of name announced.
            Tar::default().raw(kind, b"long", b"", |b| b[124..135].copy_from_slice(b"20000000000"))
        };
        let bad: Vec<(&str, Vec<u8>)> = vec![
            ("truncated data", whole[..600].to_vec()),
            ("truncated header", whole[..whole.len() - 1024 - 100].to_vec()),
            ("lone zero block", [&[0u8; 512][..], &whole].concat()),
            ("checksum", [&[b'z'; 512][..], &whole].concat()),
            ("name of 2 GiB", lie(b'L').file("f", "").end()),
            ("link of 2 GiB", lie(b'K').file("f", "").end()),
            ("records of 2 GiB", lie(b'x').file("f", "").end()),
            ("global records of 2 GiB", lie(b'g').file("f", "").end()),
            ("name of 5000", long(b'L', 5000).file("f", "").end()),
            ("component of 300", long(b'L', 300).file("f", "").end()),
            ("two long names", long(b'L', 9).raw(b'L', b"l", b"m", |_| ()).file("f", "").end()),
            ("long name and PAX name", long(b'L', 9).pax(&[("path", b"p")]).file("f", "").end()),
            ("name for nothing", long(b'L', 9).end()),
            ("PAX name with NUL", Tar::default().pax(&[("path", b"a\0b")]).file("f", "").end()),
            ("PAX name leading out", Tar::default().pax(&[("path", b"../b")]).file("f", "").end()),
            (
                "PAX name twice",
                Tar::default().pax(&[("path", b"a"), ("path", b"b")]).file("f", "").end(),
            ),
            ("PAX size below zero", Tar::default().pax(&[("size", b"-1")]).file("f", "").end()),
            (
                "PAX sparse without size",
                Tar::default().pax(&[("GNU.sparse.major", b"1")]).file("f", "").end(),
            ),
            (
                "global name",
                Tar::default().raw(b'g', b"g", b"10 path=a\n", |_| ()).file("f", "").end(),
            ),
            ("symlink with data", Tar::default().raw(b'2', b"s", b"data", |b| b[157] = b'x').end()),
            ("symlink to nothing", Tar::default().symlink("s", "").end()),
            ("root as a file", Tar::default().file(".", "x").end()),
        ];
        for (what, tar) in bad {
            assert!(into(&empty(store, "h"), tar).is_err(), "{what} was taken");
        }
        let few = Options { max_entries: 2, ..Options::default() };
        let tar = Tar::default().file("a", "").file("b", "").file("c", "").end();
        let err = unpack(&mut tar.as_slice(), &empty(store, "h"), &few).expect_err("entries");
        assert!(err.to_string().contains("more than 2 entries"), "{err}");
        let small = Options { max_bytes: Bytes::new(3), ..Options::default() };
        let tar = Tar::default().file("a", "12").file("b", "34").end();
        let err = unpack(&mut tar.as_slice(), &empty(store, "h"), &small).expect_err("bytes");
        assert!(err.to_string().contains("`b` brings the files to more than 3B"), "{err}");
    });
}

/// One short entry brings hundreds of directories, and each of their paths is remembered.
#[test]
fn directories_that_an_archive_leaves_out_are_counted() {
    with_store("implied-many", |_, store| {
        let below = "a-directory-of-many/".repeat(200);
        let deep = |tar: Tar, at: usize| {
            tar.pax(&[("path", format!("{at}/{below}f").as_bytes())]).file("f", "")
        };
        let few = (0..10).fold(Tar::default(), deep);
        let summary = into(&empty(store, "few"), few.end()).expect("unpacked");
        assert_eq!(summary.implied.len(), 10 * 201);
        let many = (0..40).fold(Tar::default(), deep);
        let err = into(&empty(store, "many"), many.end()).expect_err("refused");
        assert!(err.to_string().contains("more parent directories"), "{err}");
    });
}

#[test]
fn archives_of_gnu_tar_come_out_as_gnu_tar_puts_them() {
    with_store("gnu", |lab, store| {
        let from = lab.dir.join("from");
        let deep = from.join("d".repeat(120)).join("e".repeat(120));
        fs::create_dir_all(&deep).expect("mkdir");
        fs::write(deep.join("f".repeat(200)), "deep").expect("write");
        std::os::unix::fs::symlink("t".repeat(300), from.join("long")).expect("symlink");
        fs::hard_link(deep.join("f".repeat(200)), from.join("hard")).expect("link");
        run("mkfifo", &[text(&from.join("fifo"))]);
        run("truncate", &["-s", "50M", text(&from.join("holes"))]);
        for at in 0..40 {
            let seek = format!("seek={}", at * 1200);
            let of = format!("of={}", text(&from.join("holes")));
            run(
                "dd",
                &[
                    "if=/dev/urandom",
                    &of,
                    "bs=1024",
                    "count=5",
                    &seek,
                    "conv=notrunc",
                    "status=none",
                ],
            );
        }
        run("chown", &["-R", "-h", "12:34", text(&from)]);
        for format in [&["--format=gnu", "-S"][..], &["--format=pax"], &["--format=gnu"]] {
            let tar = lab.dir.join("gnu.tar");
            run("tar", &[format, &["-cf", text(&tar), "-C", text(&from), "."]].concat());
            let dir = empty(store, "gnu");
            into(&dir, fs::read(&tar).expect("read")).expect("unpack");
            let find = |dir: &Path| {
                let out = run(
                    "find",
                    &[text(dir), "-mindepth", "1", "-printf", "%P %y %m %U %G %Ts %s %n %l\n"],
                );
                let mut lines: Vec<String> = out
                    .lines()
                    // The size of a directory is the file system's own matter.
                    .map(|line| match line.split(' ').nth(1) {
                        Some("d") => line.split(' ').take(6).collect::<Vec<_>>().join(" "),
                        _ => line.to_owned(),
                    })
                    .collect();
                lines.sort();
                lines
            };
            assert_eq!(find(&dir), find(&from), "{format:?}");
            run("cmp", &[text(&from.join("holes")), text(&dir.join("holes"))]);
            if format[1..].contains(&"-S") {
                let blocks = fs::metadata(dir.join("holes")).expect("stat").blocks();
                assert!(blocks * 512 < 5 << 20, "holes were filled: {blocks} blocks");
            }
        }
    });
}

#[test]
fn whiteouts_hide_lower_layers_and_nothing_of_their_own() {
    with_store("whiteout", |lab, store| {
        let lower = empty(store, "lower");
        let names =
            ["gone", "stays", "both/old", "dir/old", "again/old", "opq/old", "new/old", "imp/old"];
        let tar = names.iter().fold(Tar::default(), |tar, name| tar.file(name, "lower"));
        into(&lower, tar.end()).expect("lower");

        let upper = empty(store, "upper");
        let tar = Tar::default()
            .file(".wh.gone", "")
            // H10, both orders
            .file("stays", "upper")
            .file(".wh.stays", "")
            .file(".wh.both", "")
            .file("both", "upper")
            .dir("dir", 0o755)
            .file("dir/new", "upper")
            .file(".wh.dir", "")
            .file(".wh.again", "")
            .dir("again", 0o755)
            .file("again/new", "upper")
            .file(".wh.imp", "")
            .file("imp/new", "upper")
            // H11
            .file("opq/before", "upper")
            .file("opq/.wh..wh..opq", "")
            .file("opq/after", "upper")
            .file("new/.wh.old", "")
            .file(".wh..wh.plnk/1.2", "")
            .file(".wh..wh.aufs", "");
        let summary = into(&upper, tar.end()).expect("upper");
        assert!(!summary.hides_all);
        let mark = fs::symlink_metadata(upper.join("gone")).expect("stat");
        assert!(mark.file_type().is_char_device() && mark.rdev() == 0);

        let merged = lab.dir.join("merged");
        fs::create_dir(&merged).expect("mkdir");
        let options = format!("lowerdir={}:{}", text(&upper), text(&lower));
        run("mount", &["-t", "overlay", "overlay", "-o", &options, text(&merged)]);
        let seen = listing(&merged);
        run("umount", &[text(&merged)]);
        assert_eq!(
            seen,
            "d755 again\nf644 again/new\nf644 both\nd755 dir\nf644 dir/new\nd755 imp\n\
             f644 imp/new\nd755 new\nd755 opq\nf644 opq/after\nf644 opq/before\nf644 stays"
        );

        // Overlay does not mind the mark on a root: it has to be told apart.
        let root = empty(store, "all");
        let all = Tar::default().file(".wh..wh..opq", "").file("own", "").end();
        assert!(into(&root, all).expect("unpack").hides_all);
        let options = format!("lowerdir={}:{}", text(&root), text(&lower));
        run("mount", &["-t", "overlay", "overlay", "-o", &options, text(&merged)]);
        let seen = listing(&merged);
        run("umount", &[text(&merged)]);
        assert!(seen.contains("f644 gone") && seen.contains("f644 own"), "{seen}");
        let plain = Options { whiteouts: false, ..Options::default() };
        let tar = Tar::default().file(".wh.x", "a file like any other").end();
        let dir = empty(store, "plain");
        unpack(&mut tar.as_slice(), &dir, &plain).expect("unpack");
        assert_eq!(listing(&dir), "f644 .wh.x");
    });
}

/// H26: a root whose usual places are something else is unpacked as it is.
#[test]
fn odd_roots_are_kept_as_they_are() {
    with_store("odd", |lab, store| {
        let canary = Canary::new(lab);
        let dir = empty(store, "h");
        let tar = Tar::default()
            .symlink("etc", text(&canary.dir))
            .file("bin", "a file")
            .raw(b'6', b"dev", b"", |_| ())
            .symlink("proc", "/")
            .symlink("sys", "proc/self/root")
            .file("proc/inside", "x");
        into(&dir, tar.end()).expect("unpack");
        canary.check("odd root");
        assert_eq!(listing(&dir), "f644 bin\np644 dev\nl777 etc\nf644 inside\nl777 proc\nl777 sys");
    });
}

fn zstd(tar: &[u8], to: &Path) {
    let packed = zstd::stream::encode_all(tar, 3).expect("zstd");
    fs::write(to, packed).expect("write");
}

fn gzip(tar: &[u8], to: &Path) {
    let file = fs::File::create(to).expect("create");
    let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    gzip.write_all(tar).and_then(|()| gzip.try_finish()).expect("gzip");
}

#[test]
fn a_stack_is_imported_once_and_named_by_its_content() {
    with_store("stack", |lab, store| {
        let tar = Tar::default().dir("etc", 0o755).file("etc/hostname", "box").end();
        let archive = lab.dir.join("tiny.tar.zst");
        zstd(&tar, &archive);
        let mut told = Vec::new();
        let chain =
            import_stack(store, &archive, &mut |done, all| told.push((done, all))).expect("import");
        assert_eq!(chain, Digest::of(&tar), "{}", run("sha256sum", &[text(&archive)]));
        let size = fs::metadata(&archive).expect("stat").len();
        assert_eq!(told.last(), Some(&(size, size)));
        let layer = store.layer(&chain).expect("layer");
        assert_eq!(listing(&layer), "d755 etc\nf644 etc/hostname");
        assert_eq!(run("btrfs", &["property", "get", text(&layer), "ro"]), "ro=true\n");

        // Known by its state: the content is not even looked at. Same length, same time.
        let time = fs::metadata(&archive).expect("stat").modified().expect("time");
        let file = fs::File::options().write(true).open(&archive).expect("open");
        io::Write::write_all(&mut &file, &vec![0; size as usize]).expect("overwrite");
        file.set_modified(time).expect("touch");
        assert_eq!(import_stack(store, &archive, &mut |_, _| ()).expect("known"), chain);
        // A new state is looked at again, and so is one whose layer was removed.
        zstd(&tar, &archive);
        assert_eq!(import_stack(store, &archive, &mut |_, _| ()).expect("again"), chain);
        store.remove_layer(&chain).expect("remove");
        assert_eq!(import_stack(store, &archive, &mut |_, _| ()).expect("anew"), chain);
        assert_eq!(store.layers().expect("layers"), [chain]);
        assert_eq!(fs::read_dir(store.dir().join("tmp")).expect("tmp").count(), 0);
    });
}

#[test]
fn two_imports_at_once_give_one_layer() {
    with_store("twice", |lab, store| {
        let tar = (0..500).fold(Tar::default(), |tar, n| tar.file(&format!("f{n}"), "x")).end();
        let archive = lab.dir.join("tiny.tar.zst");
        zstd(&tar, &archive);
        let chains: Vec<Digest> = std::thread::scope(|scope| {
            let import = || import_stack(store, &archive, &mut |_, _| ()).expect("import");
            let running: Vec<_> = (0..4).map(|_| scope.spawn(import)).collect();
            running.into_iter().map(|thread| thread.join().expect("join")).collect()
        });
        assert_eq!(chains, [Digest::of(&tar); 4]);
        assert_eq!(store.layers().expect("layers"), [Digest::of(&tar)]);
        assert_eq!(fs::read_dir(store.dir().join("tmp")).expect("tmp").count(), 0);
    });
}

#[test]
fn a_refused_archive_leaves_nothing_and_is_named() {
    with_store("refused", |lab, store| {
        let archive = lab.dir.join("bad.tar.zst");
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (Tar::default().file("fine", "x").file("../bad", "x").end(), "entry `../bad` has `..`"),
            (vec![0; 1024], "holds no files"),
            (b"no archive at all".repeat(60), "no tar archive"),
        ];
        for (tar, why) in cases {
            zstd(&tar, &archive);
            let err = import_stack(store, &archive, &mut |_, _| ()).expect_err(why);
            let said = chain(&err);
            assert!(said.contains("bad.tar.zst") && said.contains(why), "{said}");
        }
        zstd(&Tar::default().file("f", &"x".repeat(100_000)).end(), &archive);
        let whole = fs::read(&archive).expect("read");
        fs::write(&archive, &whole[..whole.len() - 4]).expect("cut");
        let err = import_stack(store, &archive, &mut |_, _| ()).expect_err("truncated");
        assert!(chain(&err).contains("bad.tar.zst"), "{}", chain(&err));
        let err =
            import_stack(store, Path::new("/nowhere.tar.zst"), &mut |_, _| ()).expect_err("x");
        assert!(chain(&err).contains("/nowhere.tar.zst"), "{}", chain(&err));
        assert!(store.layers().expect("layers").is_empty());
        assert_eq!(fs::read_dir(store.dir().join("tmp")).expect("tmp").count(), 0);
        assert_eq!(fs::read_dir(store.dir().join("imports")).expect("notes").count(), 0);
    });
}

#[test]
fn an_archive_larger_than_the_room_grows_the_store_or_is_refused() {
    let lab = Lab::new("large");
    let data = "0123456789abcdef".repeat(65_536);
    let tar = (0..12).fold(Tar::default(), |tar, n| tar.file(&format!("f{n}"), &data)).end();
    let archive = lab.dir.join("large.tar.gz");
    gzip(&tar, &archive);
    // Room for the beginning, but not for all of it.
    let fill_up = |store: &Store| {
        let ballast = usize::try_from(store.free().as_mib()).expect("small") - 84;
        fill(&store.dir().join("tmp/ballast"), ballast).expect("ballast");
    };
    let fixed = StoreConfig { size_max: Bytes::mib(256), ..lab.config() };
    let store = Store::open(fixed).expect("open");
    fill_up(&store);
    let err = import_stack(&store, &archive, &mut |_, _| ()).expect_err("too large");
    assert!(chain(&err).contains("[store] size_max"), "{}", chain(&err));
    assert!(store.layers().expect("layers").is_empty());
    lab.close(store);

    // Anew: what an opening removes is free only some time later.
    fs::remove_file(lab.config().file).expect("remove");
    let store = lab.open();
    fill_up(&store);
    let chain_id = import_stack(&store, &archive, &mut |_, _| ()).expect("grows");
    assert_eq!(chain_id, Digest::of(&tar));
    assert!(fs::metadata(lab.config().file).expect("stat").len() > 256 << 20, "not grown");
    lab.close(store);
}

#[test]
fn a_droplet_is_a_layer_below_home_that_belongs_to_vcap() {
    with_store("droplet", |lab, store| {
        let canary = Canary::new(lab);
        let stack =
            Tar::default().dir("home", 0o755).file("home/other", "x").file("bin/sh", "#").end();
        let archive = lab.dir.join("stack.tar.zst");
        zstd(&stack, &archive);
        let parent = import_stack(store, &archive, &mut |_, _| ()).expect("stack");

        let droplet = lab.dir.join("droplet.tgz");
        let tar = Tar::default()
            .dir("./", 0o700)
            .dir("./app/", 0o755)
            .file("./app/run", "#!")
            .file("./app/.wh.x", "just a name")
            .hard_link("./app/run2", "./app/run")
            .symlink("./app/etc", "/etc")
            .raw(b'0', b"./staging_info.yml", b"{}", |b| b[108..115].copy_from_slice(b"3777777"));
        gzip(&tar.end(), &droplet);
        let top = import_droplet(store, &droplet, &parent).expect("droplet");
        let layer = store.layer(&top).expect("layer");
        let find = run("find", &[text(&layer), "-printf", "%P %m %U:%G\n"]);
        let mut find: Vec<&str> = find.lines().collect();
        find.sort_unstable();
        assert_eq!(
            find,
            [
                " 755 0:0",
                "home 755 0:0",
                "home/vcap 755 2000:2000",
                "home/vcap/app 755 2000:2000",
                "home/vcap/app/.wh.x 644 2000:2000",
                "home/vcap/app/etc 777 2000:2000",
                "home/vcap/app/run 644 2000:2000",
                "home/vcap/app/run2 644 2000:2000",
                "home/vcap/staging_info.yml 644 2000:2000",
            ]
        );
        // A copy is known by its content, and depends on what it is put on.
        let copy = lab.dir.join("copy.tgz");
        fs::copy(&droplet, &copy).expect("copy");
        assert_eq!(import_droplet(store, &copy, &parent).expect("copy"), top);
        assert_ne!(import_droplet(store, &copy, &top).expect("other parent"), top);
        assert_eq!(store.layers().expect("layers").len(), 3);

        // The droplet cannot write over the stack's files, through no link and no name.
        for tar in [
            Tar::default().symlink("etc", "/etc").file("etc/passwd", "x"),
            Tar::default().symlink("up", "../../etc").file("up/passwd", "x"),
            Tar::default().symlink("out", text(&canary.dir)).file("out/x", "x"),
            Tar::default().file("../../etc/passwd", "x"),
        ] {
            gzip(&tar.end(), &droplet);
            import_droplet(store, &droplet, &parent).expect_err("leads out of home");
            canary.check("droplet");
        }
        assert_eq!(store.layers().expect("layers").len(), 3);
    });
}
