//! Archives that mean harm.

use super::*;

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
            // With nothing below.
            let lowest = Options { lower_links: false, ..Options::default() };
            let err = unpack(&mut tar.end().as_slice(), &empty(store, "h"), &lowest);
            let err = err.expect_err(row);
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
            ("truncated header", whole[..whole.len() - 1024 - 512 - 100].to_vec()),
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
        let few = (0..2).fold(Tar::default(), deep);
        let summary = into(&empty(store, "few"), few.end()).expect("unpacked");
        assert_eq!(summary.implied.len(), 2 * 201);
        let many = (0..40).fold(Tar::default(), deep);
        let err = into(&empty(store, "many"), many.end()).expect_err("refused");
        assert!(err.to_string().contains("more memory for what is to be remembered"), "{err}");
        // What was refused has given back what it took.
        let few = (0..2).fold(Tar::default(), deep);
        into(&empty(store, "again"), few.end()).expect("unpacked");
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
