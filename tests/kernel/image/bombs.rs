//! Archives that are more than they seem: each is refused before it takes what is not its own, by
//! the name of the image, the layer and the entry, and nothing of it stays.

use super::layout::{Layout, Packed};
use super::*;
use terrarium::image::import_layout;

/// Imports an image whose second layer is `bad`; what is said, which names layout and layer. Nothing
/// but perhaps the layer below it is there afterwards.
fn refused(lab: &Lab, store: &Store, what: &str, bad: &[u8], how: Packed) -> String {
    let base = Tar::default().file("base", "x").end();
    let layout = Layout::new(lab, "image");
    let blobs = [layout.layer(&base, Packed::Plain), layout.layer(bad, how)];
    layout.index(&[layout.image_of(&blobs, &[Digest::of(&base), Digest::of(bad)])]);
    let err = import_layout(store, &layout.dir).expect_err(what);
    let said = chain(&err);
    let blob = blobs[1]["digest"].as_str().expect("a digest");
    assert!(said.contains(text(&layout.dir)) && said.contains(blob), "{what}: {said}");
    // It may have been given up.
    let left = store.layers().expect("layers");
    assert!(left.iter().all(|layer| *layer == Digest::of(&base)), "{what}: {left:?}");
    assert_eq!(fs::read_dir(store.dir().join("tmp")).expect("tmp").count(), 0, "{what}");
    fs::remove_dir_all(&layout.dir).expect("clean");
    said
}

/// A header that says it is so large, in octal or base 256.
fn sized(kind: u8, name: &str, size: u64) -> Tar {
    Tar::default().raw(kind, name.as_bytes(), b"", |block| {
        block[124..136].copy_from_slice(&u128::from(size).to_be_bytes()[4..]);
        block[124] |= 0x80;
    })
}

#[test]
fn lies_of_headers_are_refused_by_image_layer_and_entry() {
    with_store("lies", |lab, store| {
        let canary = Canary::new(lab);
        let out = text(&canary.dir);
        let t = Tar::default;
        let deep = "d/".repeat(10_000);
        let gnu_sparse = |map: &[(u64, u64)], real: u64, data: &[u8]| {
            t().raw(b'S', b"s", data, |block| {
                block[257..265].copy_from_slice(b"ustar  \0");
                for (at, (offset, len)) in map.iter().enumerate() {
                    let text = format!("{offset:011o}\0{len:011o}\0");
                    block[386 + 24 * at..410 + 24 * at].copy_from_slice(text.as_bytes());
                }
                block[483..494].copy_from_slice(format!("{real:011o}").as_bytes());
            })
        };
        let pax_sparse = |map: &[u8], size: &[u8]| {
            t().pax(&[("GNU.sparse.size", size), ("GNU.sparse.map", map)]).file("s", "1234")
        };
        let cases: Vec<(Tar, &str)> = vec![
            (t().file("../x", ""), "entry `../x` has `..`"),
            (t().symlink("d", out).file("d/x", ""), "entry `d/x`"),
            (t().symlink("a", "b").symlink("b", "a").file("a/x", ""), "entry `a/x`"),
            (t().hard_link("l", "/etc/shadow"), "entry `l` is a hard link to `etc/shadow`, which"),
            (t().file(".wh.a/b", ""), "entry `.wh.a/b` lies below a whiteout"),
            (t().file("a/.wh...", ""), "entry `a/.wh...` is a whiteout of nothing"),
            (t().pax(&[("path", b"a\0b")]).file("f", ""), "entry `a\\x00b` has a NUL"),
            (t().pax(&[("path", &[b'/'; 4097])]).file("f", ""), "longer than 4095"),
            (t().pax(&[("path", &[b'n'; 256])]).file("f", ""), "longer than 255"),
            (t().pax(&[("path", &b"dd/".repeat(300))]).file("f", ""), "256 directories deep"),
            (t().pax(&[("path", deep.as_bytes())]).dir("f", 0o755), "longer than 4095"),
            (sized(b'0', "huge", 1 << 62), "entry `huge` brings the files to more than 16GiB"),
            (sized(b'0', "huge", u64::MAX), "entry `huge` brings the files to more than 16GiB"),
            (sized(b'x', "pax", 2 << 30), "describes an entry in 2147483648 bytes"),
            (sized(b'L', "long", 2 << 30), "describes an entry in 2147483648 bytes"),
            (t().pax(&[("size", b"-1")]).file("f", ""), "PAX number"),
            (t().raw(b'0', b"f", b"", |block| block[124..136].fill(0xff)), "negative size"),
            (t().raw(b'0', b"f", b"", |block| block[124..136].fill(0xbf)), "over 64 bits"),
            (gnu_sparse(&[(0, 4), (2, 4)], 100, b"12345678"), "senseless map"),
            (gnu_sparse(&[(8, 4), (0, 4)], 100, b"12345678"), "senseless map"),
            (gnu_sparse(&[(0, 8)], 4, b"12345678"), "senseless map"),
            (gnu_sparse(&[(0, 4)], 100, b"12345678"), "map and data differ"),
            (pax_sparse(b"0,2,1,2", b"100"), "senseless map"),
            (pax_sparse(b"0,4", b"9223372036854775807"), "entry `s` brings the files to more"),
            (pax_sparse(b"18446744073709551615,4", b"100"), "senseless map"),
            (pax_sparse(b"0,4,8", b"100"), "cannot be read"),
        ];
        for (tar, why) in cases {
            let said = refused(lab, store, why, &tar.end(), Packed::Plain);
            assert!(said.contains(why), "{why}: {said}");
            canary.check(why);
        }
    });
}

/// Attributes that would tell the union what to do, in whatever form.
#[test]
fn no_attribute_of_an_archive_reaches_the_union() {
    with_store("instructions", |_, store| {
        let names = [
            "trusted.overlay.opaque",
            "trusted.overlay.redirect",
            "trusted.overlay.metacopy",
            "trusted.overlay.whiteout",
            "trusted.overlay.overlay.opaque",
            "trusted.foo",
            "user.overlay.opaque",
            "user.overlay.whiteout",
            "security.selinux",
            "security.ima",
            "security.evm",
            "system.posix_acl_access",
            "btrfs.compression",
            "user",
            "",
        ];
        let tar = names.iter().enumerate().fold(Tar::default(), |tar, (at, name)| {
            let schily = format!("SCHILY.xattr.{name}");
            let libarchive = format!("LIBARCHIVE.xattr.{name}");
            tar.pax(&[(&schily, b"y")])
                .file(&format!("f{at}"), "")
                .pax(&[(&libarchive, b"eQ")])
                .dir(&format!("d{at}"), 0o755)
        });
        let tar = tar.pax(&[("SCHILY.xattr.user.a\0b", b"y")]).file("nul", "");
        let dir = empty(store, "h");
        let summary = into(&dir, tar.end()).expect("unpack");
        assert_eq!(summary.attributes_dropped, 2 * names.len() as u64 + 1);
        let found = run("getfattr", &["-R", "-h", "-d", "-m", "-", "--absolute-names", text(&dir)]);
        assert_eq!(found, "");
        let many = (0..65).map(|n| format!("SCHILY.xattr.user.{n}")).collect::<Vec<_>>();
        let many: Vec<(&str, &[u8])> = many.iter().map(|key| (&**key, &b"x"[..])).collect();
        let err = into(&empty(store, "i"), Tar::default().pax(&many).file("f", "").end());
        let said = err.expect_err("many").to_string();
        assert!(said.contains("`f` has more than 64 extended attributes"), "{said}");
    });
}

/// H21: as many headers as are allowed, and one more.
#[test]
fn a_million_entries_are_the_most() {
    with_store("million", |lab, store| {
        let mut tar = Vec::with_capacity(1_000_002 * 512);
        // Nothing is made of it, so that only headers are counted.
        let one = Tar::default().file(".wh..wh.aufs", "").0;
        while tar.len() < 1_000_000 * 512 {
            tar.extend(&one);
        }
        tar.extend(Tar::default().file("last", "").end());
        let said = refused(lab, store, "entries", &tar, Packed::Zstd);
        assert!(said.contains("has more than 1000000 entries"), "{said}");
    });
}

#[test]
fn paths_of_any_legal_length_are_made_and_go_again() {
    with_store("longpaths", |lab, store| {
        let path = "d/".repeat(255) + "f";
        let wide = format!("{}/", "w".repeat(255)).repeat(15) + &"x".repeat(254);
        assert_eq!(wide.len(), 4094);
        let tar = Tar::default()
            .pax(&[("path", path.as_bytes())])
            .file("f", "deep")
            .pax(&[("path", wide.as_bytes())])
            .file("f", "wide")
            .end();
        let archive = lab.dir.join("long.tar.gz");
        gzip(&tar, &archive);
        let chain = import_stack(store, &archive, &mut |_, _| ()).expect("import");
        let layer = store.layer(&chain).expect("layer");
        assert_eq!(fs::read_to_string(layer.join(&path)).expect("read"), "deep");
        let found = run("find", &[text(&layer), "-type", "f", "-printf", "%d %f\n"]);
        assert_eq!(found.lines().count(), 2, "{found}");
        store.remove_layer(&chain).expect("remove");
        // What takes a deep tree's place removes it.
        let tar = Tar::default().pax(&[("path", path.as_bytes())]).file("f", "").file("d", "now");
        let dir = empty(store, "h");
        into(&dir, tar.end()).expect("unpack");
        assert_eq!(listing(&dir), "f644 d");
    });
}

/// H20: a thousand bytes for one. What is not zeros stops at the store's size.
#[test]
fn a_small_file_that_grows_is_stopped_by_the_store() {
    let lab = Lab::new("packedbomb");
    let store = Store::open(StoreConfig { size_max: Bytes::mib(256), ..lab.config() });
    let store = store.expect("open");
    let data = vec![b'A'; 100 << 20];
    let tar = (0..4)
        .fold(Tar::default(), |tar, n| tar.raw(b'0', format!("bomb{n}").as_bytes(), &data, |_| ()));
    let tar = tar.end();
    let free = store.free();
    for how in [Packed::Gzip, Packed::Zstd] {
        let said = refused(&lab, &store, "bomb", &tar, how);
        assert!(said.contains("[store] size_max") && said.contains("entry `bomb"), "{said}");
        // What was removed is free again once the kernel has come to it.
        store.write_down().expect("write down");
        run("timeout", &["120", "btrfs", "subvolume", "sync", text(store.dir())]);
        store.write_down().expect("write down");
        assert!(store.free().as_mib() + 32 > free.as_mib(), "{} of {free}", store.free());
    }
    lab.close(store);
}

/// Each says a little about all entries to come, which is kept.
#[test]
fn what_is_said_of_all_entries_is_bounded_together() {
    with_store("said", |lab, store| {
        let global = |tar: Tar, name: &str, length: usize| {
            let record = Tar::default().pax(&[(name, &vec![b'v'; length])]).end();
            let data = record[512..].split(|byte| *byte == 0).next().unwrap_or_default();
            tar.raw(b'g', b"pax_global_header", data, |_| ())
        };
        let all = |count: usize, length: usize| {
            (0..count).fold(Tar::default().file("f", ""), |tar, at| {
                global(tar, &format!("SCHILY.xattr.user.{at}"), length)
            })
        };
        for (what, tar) in [("many", all(65, 1)), ("long", all(3, 50 << 10))] {
            let said = refused(lab, store, what, &tar.end(), Packed::Plain);
            assert!(said.contains("64 extended attributes or 128 KiB"), "{what}: {said}");
        }
        let dir = empty(store, "h");
        into(&dir, all(64, 1).end()).expect("just enough");
    });
}

/// A block of records that would be compared each with each.
#[test]
fn attributes_of_one_entry_are_counted() {
    with_store("counted", |lab, store| {
        let names: Vec<String> = (0..1001).map(|at| format!("SCHILY.xattr.user.{at}")).collect();
        let records: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, &b"v"[..])).collect();
        for (count, why) in [(65, "entry `f` has more than 64"), (1001, "has more than 1000")] {
            let tar = Tar::default().pax(&records[..count]).file("f", "").end();
            let said = refused(lab, store, why, &tar, Packed::Plain);
            assert!(said.contains(why), "{said}");
        }
    });
}
