//! Archives as the world makes them.

use super::*;

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

/// As `umoci insert` writes them: without padding after the last file, and without end blocks.
#[test]
fn an_archive_may_end_where_its_last_file_is_whole() {
    with_store("bare", |lab, store| {
        let data = "x".repeat(700);
        let whole = Tar::default().dir("d", 0o755).file("d/a", &data).0;
        let end = 2 * 512 + data.len();
        for keep in [end, end + 1, whole.len() - 1, whole.len()] {
            let dir = empty(store, "bare");
            into(&dir, whole[..keep].to_vec()).unwrap_or_else(|err| panic!("{keep}: {err}"));
            assert_eq!(fs::read_to_string(dir.join("d/a")).expect("read"), data);
        }
        for keep in [end - 1, 2 * 512] {
            let err = into(&empty(store, "cut"), whole[..keep].to_vec()).expect_err("cut");
            assert!(err.to_string().contains("ends in the middle of a file"), "{keep}: {err}");
        }
        // What is said of a file that does not come.
        let about = Tar::default().pax(&[("path", b"a")]).0;
        let err = into(&empty(store, "none"), about[..512 + 10].to_vec()).expect_err("nothing");
        assert!(err.to_string().contains("ends where an entry is announced"), "{err}");
        // Packed, too.
        let archive = lab.dir.join("bare.tar.gz");
        gzip(&whole[..end], &archive);
        let chain = import_stack(store, &archive, &mut |_, _| ()).expect("imported");
        assert_eq!(chain, Digest::of(&whole[..end]));
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
        let formats: [&[&str]; 6] = [
            &["--format=gnu", "-S"],
            &["--format=pax"],
            &["--format=gnu"],
            &["--format=pax", "-S", "--sparse-version=0.0"],
            &["--format=pax", "-S", "--sparse-version=0.1"],
            &["--format=pax", "-S", "--sparse-version=1.0"],
        ];
        for format in formats {
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
fn names_come_in_every_form() {
    with_store("names", |_, store| {
        let long = format!("{}/{}", "p".repeat(200), "q".repeat(90));
        let pax = format!("{}/f", ["z".repeat(200), "y".repeat(200)].join("/"));
        let target = "t".repeat(1500);
        let v7 = |block: &mut [u8; 512]| block[257..265].fill(0);
        let gnu = |block: &mut [u8; 512]| block[257..265].copy_from_slice(b"ustar  \0");
        let tar = Tar::default()
            // V7: a name that fills its field, a directory by its slash, no prefix.
            .raw(b'\0', &[b'v'; 100], b"7", v7)
            .raw(b'\0', b"v7dir/", b"", v7)
            .raw(b'0', b"v7", b"", |block| {
                v7(block);
                block[345..348].copy_from_slice(b"no/");
            })
            .raw(b'7', b"contiguous", b"c", |_| ())
            // POSIX: the prefix comes first.
            .raw(b'0', "q".repeat(90).as_bytes(), b"u", |block| {
                block[345..500].copy_from_slice("p".repeat(155).as_bytes());
            })
            // GNU: long names, with and without the NUL; in its headers the prefix is something else.
            .raw(b'L', b"././@LongLink", format!("{long}\0").as_bytes(), gnu)
            .raw(b'0', b"short", b"g", |block| {
                gnu(block);
                block[345..348].copy_from_slice(b"012");
            })
            .raw(b'K', b"././@LongLink", target.as_bytes(), gnu)
            .raw(b'2', b"gnu-link", b"", |block| {
                gnu(block);
                block[157] = b'x';
            })
            .raw(b'L', b"././@LongLink", b"gnu-hard\0", gnu)
            .raw(b'K', b"././@LongLink", format!("{long}\0").as_bytes(), gnu)
            .raw(b'1', b"h", b"", gnu)
            // PAX: longer than any header, and a directory by its slash alone.
            .pax(&[("path", pax.as_bytes())])
            .file("PaxHeaders/f", "x")
            .pax(&[("path", b"pax-link"), ("linkpath", target.as_bytes())])
            .symlink("PaxHeaders/l", "short")
            .pax(&[("path", b"pax-dir/")])
            .file("PaxHeaders/d", "")
            .pax(&[("path", b"pax-file")])
            .file("PaxHeaders/f/", "data")
            // What says nothing: the root, slashes, dots.
            .dir("./", 0o755)
            .dir(".", 0o755)
            .dir("/", 0o755)
            .dir("dots/./a//b/", 0o700)
            .file("///abs/./f", "")
            .symlink("slash/", "x");
        let dir = empty(store, "h");
        into(&dir, tar.end()).expect("unpack");
        let shown = listing(&dir);
        let mut found: Vec<&str> = shown.lines().collect();
        found.sort_unstable();
        let (p, q) = ("p".repeat(155), "q".repeat(90));
        let (y, z) = ("y".repeat(200), "z".repeat(200));
        let mut wanted = vec![
            format!("f644 {}", "v".repeat(100)),
            "d644 v7dir".into(),
            "f644 v7".into(),
            "f644 contiguous".into(),
            format!("d755 {p}"),
            format!("f644 {p}/{q}"),
            format!("d755 {}", "p".repeat(200)),
            format!("f644 {long}"),
            "l777 gnu-link".into(),
            "f644 gnu-hard".into(),
            format!("d755 {z}"),
            format!("d755 {z}/{y}"),
            format!("f644 {pax}"),
            "l777 pax-link".into(),
            "d644 pax-dir".into(),
            "f644 pax-file".into(),
            "d755 dots".into(),
            "d755 dots/a".into(),
            "d700 dots/a/b".into(),
            "d755 abs".into(),
            "f644 abs/f".into(),
            "l777 slash".into(),
        ];
        wanted.sort_unstable();
        assert_eq!(found, wanted);
        for name in ["gnu-link", "pax-link"] {
            assert_eq!(fs::read_link(dir.join(name)).expect("link"), Path::new(&target), "{name}");
        }
        assert_eq!(fs::read_to_string(dir.join("gnu-hard")).expect("read"), "g");
        let err =
            into(&empty(store, "i"), Tar::default().file("", "x").end()).expect_err("no name");
        assert!(err.to_string().contains("has no name"), "{err}");
    });
}

#[test]
fn numbers_modes_and_times_are_kept() {
    with_store("numbers", |_, store| {
        let base256 = |block: &mut [u8; 512], from: usize, to: usize, n: i128| {
            block[from..to].copy_from_slice(&n.to_be_bytes()[16 - (to - from)..]);
            block[from] |= 0x80;
        };
        let mode = |tar: Tar, kind: u8, name: &str, mode: u32| {
            tar.raw(kind, name.as_bytes(), b"", |block| {
                block[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
            })
        };
        let time = |tar: Tar, name: &str, text: &[u8]| tar.pax(&[("mtime", text)]).file(name, "");
        let tar = Tar::default().raw(b'0', b"base256", b"123", |block| {
            base256(block, 100, 108, 0o640);
            base256(block, 108, 116, 65_535);
            base256(block, 116, 124, 1000);
            base256(block, 124, 136, 3);
            base256(block, 136, 148, 1 << 34);
        });
        // Blanks before, after, and nothing else: as old programs wrote numbers.
        let tar = tar.raw(b'0', b"blanks", b"12", |block| {
            block[100..108].copy_from_slice(b"   644 \0");
            block[108..116].copy_from_slice(b"        ");
            block[116..124].copy_from_slice(b"\0\0\0\0\0\0\0\0");
            block[124..136].copy_from_slice(b"          2 ");
        });
        let tar = tar.raw(b'0', b"before-1970", b"", |block| base256(block, 136, 148, -1));
        let modes = [0, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777, 0o222, 0o100_644];
        let tar = modes.iter().fold(tar, |tar, bits| {
            let tar = mode(tar, b'0', &format!("f{bits:o}"), *bits);
            mode(tar, b'5', &format!("d{bits:o}"), *bits)
        });
        let times: [(&str, &[u8], (i64, i64)); 7] = [
            ("epoch", b"0", (0, 0)),
            ("nanos", b"1700000000.123456789", (1_700_000_000, 123_456_789)),
            ("more", b"1700000000.1234567899", (1_700_000_000, 123_456_789)),
            ("signed32", b"2147483648.5", (1 << 31, 500_000_000)),
            ("y2106", b"4294967296.000000001", (1 << 32, 1)),
            ("negative", b"-1.5", (0, 0)),
            ("far", b"99999999999999", (253_402_300_799, 0)),
        ];
        let tar = times.iter().fold(tar, |tar, (name, text, _)| time(tar, name, text));
        let dir = empty(store, "h");
        into(&dir, tar.end()).expect("unpack");
        let of = |name: &str| fs::symlink_metadata(dir.join(name)).expect(name);
        let it = of("base256");
        assert_eq!((it.mode() & 0o7777, it.uid(), it.gid()), (0o640, 65_535, 1000));
        assert_eq!((it.len(), it.mtime()), (3, 1 << 34));
        let it = of("blanks");
        assert_eq!((it.mode() & 0o7777, it.uid(), it.gid(), it.len()), (0o644, 0, 0, 2));
        assert_eq!(of("before-1970").mtime(), 0);
        for bits in modes {
            for kind in ["f", "d"] {
                let name = format!("{kind}{bits:o}");
                assert_eq!(of(&name).mode() & 0o7777, bits & 0o7777, "{name}");
            }
        }
        for (name, _, wanted) in times {
            assert_eq!((of(name).mtime(), of(name).mtime_nsec()), wanted, "{name}");
        }
        // A directory keeps its time though it is filled later, by turns with another.
        let tar = Tar::default().dir("a", 0o755).dir("b", 0o755);
        let tar = (0..6).fold(tar, |tar, n| tar.file(&format!("{}/{n}", ["a", "b"][n % 2]), ""));
        let dir = empty(store, "i");
        into(&dir, tar.end()).expect("unpack");
        for name in ["a", "b"] {
            assert_eq!(fs::metadata(dir.join(name)).expect(name).mtime(), 1_000_000_000);
        }
    });
}

#[test]
fn what_is_said_of_all_entries_holds_until_it_is_said_anew() {
    with_store("global", |_, store| {
        let global = |tar: Tar, text: &[u8]| tar.raw(b'g', b"pax_global_header", text, |_| ());
        // As git archives begin.
        let git = format!("52 comment={}\n", "0123456789abcdef".repeat(2) + "01234567");
        let tar = global(Tar::default(), git.as_bytes()).file("plain", "");
        let tar = global(tar, b"12 uid=1000\n17 mtime=1000.25\n").file("all", "");
        let tar = tar.pax(&[("uid", b"7")]).file("own", "");
        let tar = global(tar, b"12 gid=2000\n26 SCHILY.xattr.user.a=gl\n").file("more", "");
        let tar = tar.pax(&[("SCHILY.xattr.user.a", b"own")]).file("attribute", "");
        let tar = tar.pax(&[("SCHILY.xattr.user.a", &[b'l'; 1000])]).file("long", "");
        let dir = empty(store, "h");
        into(&dir, tar.end()).expect("unpack");
        let of = |name: &str| {
            let meta = fs::metadata(dir.join(name)).expect(name);
            (meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec())
        };
        assert_eq!(of("plain"), (0, 0, 1_000_000_000, 0));
        assert_eq!(of("all"), (1000, 0, 1000, 250_000_000));
        assert_eq!(of("own"), (7, 0, 1000, 250_000_000));
        assert_eq!(of("more"), (1000, 2000, 1000, 250_000_000));
        let attribute = |name: &str| {
            let file = fs::File::open(dir.join(name)).expect(name);
            terrarium::sys::file::xattr(std::os::fd::AsFd::as_fd(&file), c"user.a").expect("read")
        };
        assert_eq!(attribute("all"), None);
        assert_eq!(attribute("more").as_deref(), Some(&b"gl"[..]));
        assert_eq!(attribute("attribute").as_deref(), Some(&b"own"[..]));
        assert_eq!(attribute("long").as_deref(), Some(&[b'l'; 1000][..]));
    });
}

#[test]
fn attributes_come_in_two_forms_and_capabilities_in_two_versions() {
    with_store("xattrs", |_, store| {
        // vfs_cap_data: magic, permitted, inheritable, twice; of version 3 the root's id, too.
        let two = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let three = |root: u32| [&b"\x01\0\0\x03"[..], &two[4..], &root.to_le_bytes()].concat();
        let (of_root, of_other) = (three(0), three(100_000));
        let key = "SCHILY.xattr.security.capability";
        let tar = Tar::default()
            .pax(&[("SCHILY.xattr.user.a", b"1\n2"), ("LIBARCHIVE.xattr.user.a", b"MQoy")])
            .file("both", "")
            .pax(&[("LIBARCHIVE.xattr.user.%2B%3d", b"AAE")])
            .file("coded", "")
            .pax(&[("LIBARCHIVE.xattr.trusted.overlay.opaque", b"eQ")])
            .dir("sly", 0o755)
            .pax(&[(key, two)])
            .file("two", "")
            .pax(&[(key, &of_root)])
            .file("three", "")
            .pax(&[(key, &of_other)])
            .file("other", "")
            .pax(&[(key, b"\x01\0\0\x02")])
            .file("short", "")
            .pax(&[("SCHILY.xattr.user.d", b"on a directory")])
            .dir("d", 0o755)
            .pax(&[("SCHILY.xattr.user.empty", b"")])
            .file("empty", "");
        let dir = empty(store, "h");
        let summary = into(&dir, tar.end()).expect("unpack");
        assert_eq!(summary.attributes_dropped, 3);
        let dump = |name: &str| {
            let path = dir.join(name);
            let args = ["-h", "-d", "-m", "-", "-e", "hex", "--absolute-names", text(&path)];
            let out = run("getfattr", &args);
            out.lines().filter(|line| line.contains('=')).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(dump("both"), "user.a=0x310a32");
        assert_eq!(dump("coded"), "user.+\\075=0x0001");
        assert_eq!(dump("d"), "user.d=0x6f6e2061206469726563746f7279");
        assert_eq!(dump("empty"), "user.empty=0x");
        for name in ["sly", "other", "short"] {
            assert_eq!(dump(name), "", "{name}");
        }
        let capability = "security.capability=0x0100000200040000000000000000000000000000";
        assert_eq!((dump("two"), dump("three")), (capability.into(), capability.into()));
    });
}

#[test]
fn hard_links_are_names_of_what_came_before() {
    with_store("hardlinks", |lab, store| {
        let canary = Canary::new(lab);
        let tar = Tar::default()
            .file("a/f", "same")
            .hard_link("b/c/f", "a/f")
            .hard_link("again", "./b/c/f")
            // A size here says nothing, and nothing follows.
            .raw(b'1', b"sized", b"", |block| {
                block[124..135].copy_from_slice(b"00000000004");
                block[157..160].copy_from_slice(b"a/f");
            })
            .raw(b'6', b"fifo", b"", |_| ())
            .hard_link("fifo2", "fifo")
            // A symlink is linked itself, as GNU tar has them when it has two names.
            .symlink("out", text(&canary.dir))
            .hard_link("out2", "out")
            .hard_link("out2", "out")
            .symlink("dangling", "nowhere")
            .hard_link("dangling2", "dangling")
            // And the other name goes its own way.
            .file("out", "file");
        let dir = empty(store, "h");
        into(&dir, tar.end()).expect("unpack");
        canary.check("links to links");
        let of = |name: &str| fs::symlink_metadata(dir.join(name)).expect(name);
        for name in ["b/c/f", "again", "sized"] {
            assert_eq!(of(name).ino(), of("a/f").ino(), "{name}");
        }
        assert_eq!(of("a/f").nlink(), 4);
        assert!(of("fifo2").file_type().is_fifo() && of("fifo").nlink() == 2);
        assert_eq!(of("dangling2").ino(), of("dangling").ino());
        assert_eq!(fs::read_link(dir.join("out2")).expect("link"), canary.dir);
        assert!(of("out").is_file() && of("out2").nlink() == 1);
        for (what, tar) in [
            ("below a link", Tar::default().symlink("s", text(&canary.dir)).hard_link("l", "s")),
            ("through one", Tar::default().symlink("l", text(&canary.dir))),
        ] {
            let err = into(&empty(store, "i"), tar.file("l/x", "dead").end()).expect_err(what);
            assert!(chain(&err).contains("leads nowhere"), "{what}: {}", chain(&err));
            canary.check(what);
        }
    });
}

/// H12: a name that was any kind becomes any other.
#[test]
fn each_kind_takes_the_place_of_each() {
    with_store("kinds", |lab, store| {
        let canary = Canary::new(lab);
        let add = |tar: Tar, kind: &str| match kind {
            "directory" => tar.dir("x", 0o711).file("x/in", "in"),
            "file" => tar.file("x", "file"),
            "link" => tar.symlink("x", text(&canary.dir)),
            "fifo" => tar.raw(b'6', b"x", b"", |_| ()),
            "hard" => tar.hard_link("x", "first"),
            "whiteout" => tar.file(".wh.x", ""),
            _ => unreachable!("no such kind"),
        };
        let kinds = ["directory", "file", "link", "fifo", "hard", "whiteout"];
        for first in kinds {
            for then in kinds {
                let what = format!("{first}, then {then}");
                let tar = add(add(Tar::default().file("first", "1"), first), then);
                let dir = empty(store, "h");
                into(&dir, tar.end()).unwrap_or_else(|err| panic!("{what}: {}", chain(&err)));
                canary.check(&what);
                // A whiteout hides what is below, never what is in the layer itself.
                let is = if then == "whiteout" { first } else { then };
                let meta = fs::symlink_metadata(dir.join("x")).expect("x");
                let kind = meta.file_type();
                let right = match is {
                    "directory" => kind.is_dir() && dir.join("x/in").exists(),
                    "file" => kind.is_file() && meta.nlink() == 1,
                    "link" => kind.is_symlink(),
                    "fifo" => kind.is_fifo(),
                    "hard" => kind.is_file() && meta.nlink() == 2,
                    _ => kind.is_char_device() && meta.rdev() == 0,
                };
                assert!(right, "{what}: {kind:?}");
            }
        }
    });
}

/// Packers that work on several processors write several members or frames, one after the other.
#[test]
fn packed_streams_may_have_several_parts() {
    with_store("parts", |lab, store| {
        let tar = Tar::default().file("a", &"x".repeat(3000)).file("b", "y").end();
        let (first, second) = tar.split_at(1000);
        let file = lab.dir.join("part");
        let packed = |pack: fn(&[u8], &Path), data: &[u8]| {
            pack(data, &file);
            fs::read(&file).expect("read")
        };
        // A frame that says nothing, as eStargz' cousin for zstd has one for its table.
        let skipped = b"\x5e\x2a\x4d\x18\x04\0\0\0toc!";
        let streams = [
            ("gzip", [packed(gzip, first), packed(gzip, second)].concat()),
            (
                "empty member",
                [packed(gzip, first), packed(gzip, b""), packed(gzip, second)].concat(),
            ),
            ("zstd", [packed(zstd, first), packed(zstd, second)].concat()),
            (
                "skipped",
                [&skipped[..], &packed(zstd, first), skipped, &packed(zstd, second), skipped]
                    .concat(),
            ),
        ];
        for (what, stream) in streams {
            let archive = lab.dir.join(what);
            fs::write(&archive, stream).expect("write");
            let chain_id = import_stack(store, &archive, &mut |_, _| ());
            let chain_id = chain_id.unwrap_or_else(|err| panic!("{what}: {}", chain(&err)));
            assert_eq!(chain_id, Digest::of(&tar), "{what}");
            let layer = store.layer(&chain_id).expect("layer");
            assert_eq!(listing(&layer), "f644 a\nf644 b", "{what}");
            store.remove_layer(&chain_id).expect("remove");
        }
        for (what, pack) in [("cut.gz", gzip as fn(&[u8], &Path)), ("cut.zst", zstd)] {
            let archive = lab.dir.join(what);
            let second = packed(pack, second);
            fs::write(&archive, [&packed(pack, first)[..], &second[..second.len() - 5]].concat())
                .expect("write");
            let said = chain(&import_stack(store, &archive, &mut |_, _| ()).expect_err(what));
            assert!(said.contains(what) && said.contains("to its end"), "{said}");
        }
        // Go's reader, and so containerd, refuses what follows a member and is none; gzip(1) warns.
        let archive = lab.dir.join("padded.gz");
        fs::write(&archive, [&packed(gzip, &tar)[..], &[0; 512]].concat()).expect("write");
        let said = chain(&import_stack(store, &archive, &mut |_, _| ()).expect_err("padded"));
        assert!(said.contains("padded.gz") && said.contains("gzip"), "{said}");
    });
}
