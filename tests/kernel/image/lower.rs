//! What a layer says of the layers below: hard links to their files. And owners that are too large.

use super::layout::{Layout, Packed};
use super::*;
use crate::registry::tree;
use terrarium::image::{import_layout, merge};
use terrarium::volume::Pin;

/// The layers as an image with the tag `one`.
pub fn layout(lab: &Lab, name: &str, layers: &[&[u8]]) -> Layout {
    let layout = Layout::new(lab, name);
    let plain: Vec<_> = layers.iter().map(|tar| (*tar, Packed::Plain)).collect();
    let mut image = layout.image(&plain);
    image["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "one" });
    layout.index(&[image]);
    layout
}

fn import(lab: &Lab, store: &Store, name: &str, layers: &[&[u8]]) -> (Vec<Digest>, Pin) {
    let layout = layout(lab, name, layers);
    let rootfs = import_layout(store, &layout.dir).unwrap_or_else(|err| panic!("{}", chain(&err)));
    (rootfs.layers, rootfs.pin)
}

/// A lowest layer with something of each kind.
pub fn base() -> Vec<u8> {
    Tar::default()
        .dir("bin", 0o755)
        .pax(&[("mtime", b"1234567890.25"), ("SCHILY.xattr.user.note", b"a")])
        .raw(b'0', b"bin/tool", b"the program", |block| {
            block[100..107].copy_from_slice(b"0004711");
            block[108..115].copy_from_slice(b"0001750");
        })
        .dir("deep", 0o751)
        .dir("deep/er", 0o2770)
        .file("deep/er/file", "deep")
        .file("gone", "x")
        .dir("hidden", 0o755)
        .file("hidden/file", "x")
        .symlink("link", "bin/tool")
        .raw(b'6', b"fifo", b"", |_| ())
        .end()
}

/// A layer that links files of the one below, in all ways that are fine.
pub fn links() -> Vec<u8> {
    Tar::default()
        .dir("bin", 0o755)
        .hard_link("bin/alias", "bin/tool")
        // Its directories are not in this layer.
        .hard_link("other", "./deep/er/file")
        // Several names, through one another, twice, in a directory that is mentioned too late.
        .hard_link("more/names", "other")
        .hard_link("more/again", "/deep/er/file")
        .hard_link("more/again", "deep/er/file")
        // What comes later takes the place of the name, and not of the file.
        .hard_link("replaced", "gone")
        .file("replaced", "own")
        .dir("more", 0o755)
        .end()
}

#[test]
fn a_link_to_a_file_of_a_layer_below_brings_it_up() {
    with_store("lowerlink", |lab, store| {
        let (base, links) = (base(), links());
        let layout = layout(lab, "image", &[&base, &links]);
        let rootfs = import_layout(store, &layout.dir).expect("import");
        let top = store.layer(&rootfs.layers[1]).expect("layer");
        assert_eq!(
            listing(&top),
            "d755 bin\nf4711 bin/alias\nf4711 bin/tool\nd751 deep\nd2770 deep/er\n\
             f644 deep/er/file\nd755 more\nf644 more/again\nf644 more/names\nf644 other\n\
             f644 replaced"
        );
        let alias = fs::metadata(top.join("bin/alias")).expect("stat");
        assert_eq!((alias.nlink(), alias.uid(), alias.mtime_nsec()), (2, 1000, 250_000_000));
        assert_eq!(fs::read_to_string(top.join("replaced")).expect("read"), "own");
        assert_eq!(fs::metadata(top.join("deep")).expect("stat").mtime(), 1_000_000_000);
        // What the other tool makes of it, file by file, with numbers of links.
        let bundle = lab.dir.join("bundle");
        let image = format!("{}:one", layout.dir.display());
        run("umoci", &["unpack", "--image", &image, text(&bundle)]);
        let place = lab.dir.join("union");
        fs::create_dir(&place).expect("mkdir");
        tree::same(store, &place, &rootfs.layers, &bundle.join("rootfs"));
        // And so is the tree that is put together of the two.
        let (merged, _pin) = merge(store, &rootfs.layers).expect("merge");
        tree::same(store, &place, &[merged], &bundle.join("rootfs"));
    });
}

/// The same bytes over other layers are another layer: its name says what is below.
#[test]
fn a_layer_that_links_is_made_anew_over_other_layers() {
    with_store("lowerchain", |lab, store| {
        let of = |content: &str| Tar::default().file("f", content).end();
        let top = Tar::default().hard_link("l", "f").end();
        let (one, _one) = import(lab, store, "one", &[&of("one"), &top]);
        let (two, _two) = import(lab, store, "two", &[&of("two"), &top]);
        let middle = Tar::default().file("f", "three").end();
        let (three, _three) = import(lab, store, "three", &[&of("one"), &middle, &top]);
        for (layers, content) in [(one, "one"), (two, "two"), (three, "three")] {
            let top = store.layer(layers.last().expect("layers")).expect("layer");
            assert_eq!(fs::read_to_string(top.join("l")).expect("read"), content);
            assert_eq!(fs::metadata(top.join("l")).expect("stat").nlink(), 2, "`f` came up");
        }
        assert_eq!(store.layers().expect("layers").len(), 2 + 2 + 2);
    });
}

#[test]
fn what_came_up_shares_its_data_and_counts() {
    with_store("lowershare", |lab, store| {
        let data = vec![7; 40 << 20];
        let base = Tar::default().raw(b'0', b"large", &data, |_| ()).end();
        let top = Tar::default().hard_link("l", "large").end();
        let rootfs =
            import_layout(store, &layout(lab, "image", &[&base, &top]).dir).expect("import");
        assert_eq!(rootfs.bytes, 80 << 20, "each layer's files");
        run("btrfs", &["filesystem", "sync", text(store.dir())]);
        let used = run("btrfs", &["filesystem", "df", "--raw", text(store.dir())]);
        let used = used.lines().find(|line| line.starts_with("Data")).expect("data");
        let used: u64 = used.rsplit('=').next().and_then(|n| n.parse().ok()).expect("a number");
        assert!(used < 60 << 20, "{used}");
    });
}

/// An archive that changes its mind: what happens to the name happens to it, not to the file below.
#[test]
fn the_place_of_a_file_below_is_kept_through_whatever_comes() {
    with_store("lowerorder", |lab, store| {
        let base = Tar::default().file("f", "below").dir("d", 0o755).file("d/g", "g").end();
        let top = Tar::default()
            // The file's own name is taken after the link.
            .hard_link("a", "f")
            .file("f", "new")
            // The first name goes, the second stays.
            .hard_link("b", "d/g")
            .hard_link("c", "b")
            .symlink("b", "nowhere")
            // Put there through a link, which a directory replaces.
            .dir("real", 0o755)
            .symlink("way", "real")
            .hard_link("way/e", "f")
            .file("real/f", "x")
            .hard_link("way/h", "d/g")
            .dir("way", 0o755)
            // A whiteout of the file after the link: the link stays.
            .file("d/.wh.g", "")
            .end();
        // `way/e` links what this archive has at `f` by then.
        let (layers, _pin) = import(lab, store, "image", &[&base, &top]);
        let top = store.layer(&layers[1]).expect("layer");
        let of = |name: &str| fs::read_to_string(top.join(name)).expect(name);
        assert_eq!((&*of("a"), &*of("f"), &*of("c"), &*of("real/h")), ("below", "new", "g", "g"));
        assert_eq!(
            (&*of("real/e"), fs::read_dir(top.join("way")).expect("dir").count()),
            ("new", 0)
        );
        assert_eq!(fs::metadata(top.join("a")).expect("stat").nlink(), 1);
        assert_eq!(fs::metadata(top.join("c")).expect("stat").nlink(), 2, "`c`, `real/h`");
        assert!(fs::symlink_metadata(top.join("d/g")).expect("mark").file_type().is_char_device());
    });
}

#[test]
fn a_link_to_what_is_no_file_below_is_refused_by_name() {
    with_store("lowerbad", |lab, store| {
        let canary = Canary::new(lab);
        let base = base();
        let out = text(&canary.dir);
        let missing = "is neither in the archive before it nor in a layer below";
        let hides = "is not in the archive before it";
        let t = Tar::default;
        let cases: Vec<(&str, Vec<Tar>, &str)> = vec![
            ("nothing", vec![t().hard_link("l", "nothing")], missing),
            ("in nothing", vec![t().hard_link("l", "no/thing")], missing),
            ("below a file", vec![t().hard_link("l", "gone/x")], missing),
            ("below a link", vec![t().hard_link("l", "link/x")], missing),
            ("directory", vec![t().hard_link("l", "deep")], "is no file in the layers below"),
            ("symlink", vec![t().hard_link("l", "link")], "is no file in the layers below"),
            ("fifo", vec![t().hard_link("l", "fifo")], "is no file in the layers below"),
            ("whiteout", vec![t().file(".wh.gone", ""), t().hard_link("l", "gone")], missing),
            (
                "opaque",
                vec![t().file("hidden/.wh..wh..opq", ""), t().hard_link("l", "hidden/file")],
                missing,
            ),
            ("replaced", vec![t().file("hidden", ""), t().hard_link("l", "hidden/file")], missing),
            ("own whiteout", vec![t().file(".wh.gone", "").hard_link("l", "gone")], "is no file"),
            (
                "own opaque",
                vec![t().file("hidden/.wh..wh..opq", "").hard_link("l", "hidden/file")],
                hides,
            ),
            ("own file", vec![t().file("hidden", "").hard_link("l", "hidden/file")], hides),
            ("out", vec![t().symlink("d", out).hard_link("l", "d/x")], hides),
            ("itself", vec![t().hard_link("gone", "gone")], "itself"),
            ("up", vec![t().hard_link("l", "../gone")], "`..`"),
        ];
        for (what, tars, why) in cases {
            let tars: Vec<Vec<u8>> = tars.into_iter().map(Tar::end).collect();
            let mut layers = vec![&base[..]];
            layers.extend(tars.iter().map(Vec::as_slice));
            let layout = layout(lab, "image", &layers);
            let said = chain(&import_layout(store, &layout.dir).expect_err(what));
            let blob = Digest::of(tars.last().expect("a layer")).to_string();
            let all = [text(&layout.dir), &blob, "is a hard link", why];
            assert!(all.iter().all(|part| said.contains(part)), "{what}: {said}");
            assert_eq!(fs::read_dir(store.dir().join("tmp")).expect("tmp").count(), 0, "{what}");
            canary.check(what);
        }
        // Nothing is below a stack, and a droplet does not link into its stack.
        let archive = lab.dir.join("stack.tar.gz");
        gzip(&Tar::default().file("f", "").hard_link("l", "bin/tool").end(), &archive);
        for said in [
            chain(&import_stack(store, &archive, &mut |_, _| ()).expect_err("stack")),
            chain(&import_droplet(store, &archive, &Digest::of(&base)).expect_err("droplet")),
        ] {
            assert!(said.contains("stack.tar.gz") && said.contains("`bin/tool`, which"), "{said}");
        }
        let many = (0..10_001).fold(Tar::default(), |tar, n| tar.hard_link(&format!("{n}"), "f"));
        let said = into(&empty(store, "many"), many.end()).expect_err("too many").to_string();
        assert!(said.contains("entry `10000`") && said.contains("at most 10000"), "{said}");
    });
}

/// What a layer below says is a symlink leads nowhere else.
#[test]
fn a_link_below_leads_nobody_out() {
    with_store("lowerout", |lab, store| {
        let canary = Canary::new(lab);
        let base = Tar::default().symlink("d", text(&canary.dir)).end();
        let top = Tar::default().hard_link("l", "d/x").end();
        let layout = layout(lab, "image", &[&base, &top]);
        let said = chain(&import_layout(store, &layout.dir).expect_err("leads out"));
        assert!(said.contains("`d/x`, which is neither"), "{said}");
        canary.check("a link below");
    });
}

/// As umoci and containerd do it, and never out of the image.
#[test]
fn a_link_goes_through_symlinks_of_the_layers_below_as_in_the_image() {
    with_store("lowerway", |lab, store| {
        let canary = Canary::new(lab);
        let lowest = Tar::default()
            .dir("usr", 0o755)
            .dir("usr/lib", 0o755)
            .file("usr/lib/a", "a")
            .file("usr/lib/b", "b")
            .symlink("round", "round")
            .end();
        let middle = Tar::default()
            .symlink("lib", "usr/lib")
            .dir("opt", 0o755)
            // Above the root there is nothing but the root.
            .symlink("opt/far", "../../../lib/../lib")
            .symlink("opt/whole", "/opt/far")
            .end();
        let top = Tar::default()
            .hard_link("one", "lib/a")
            .hard_link("two", "opt/whole/b")
            .hard_link("three", "usr/lib/b")
            .end();
        let (layers, _pin) = import(lab, store, "way", &[&lowest, &middle, &top]);
        let dir = store.layer(layers.last().expect("layers")).expect("there");
        let read = |name: &str| fs::read_to_string(dir.join(name)).expect(name);
        assert_eq!(["one", "two", "three"].map(read), ["a", "b", "b"]);
        // It comes up under its own name, not under that of the way.
        let inode = |name: &str| fs::symlink_metadata(dir.join(name)).expect(name).ino();
        assert_eq!(inode("one"), inode("usr/lib/a"));
        assert!(!dir.join("lib").exists() && !dir.join("opt").exists());

        let back = "leads through a symlink of a layer below to what is in this layer";
        let missing = "is neither in the archive before it nor in a layer below";
        let own = Tar::default().dir("usr", 0o755).dir("usr/lib", 0o755).file("usr/lib/a", "own");
        for (what, tar, why) in [
            ("own", own.hard_link("l", "lib/a"), back),
            ("whiteout", Tar::default().file("usr/lib/.wh.a", "").hard_link("l", "lib/a"), back),
            ("round", Tar::default().hard_link("l", "round/a"), missing),
            ("nothing", Tar::default().hard_link("l", "opt/whole/c"), missing),
        ] {
            let layout = layout(lab, "image", &[&lowest, &middle, &tar.end()]);
            let said = chain(&import_layout(store, &layout.dir).expect_err(what));
            assert!(said.contains(why), "{what}: {said}");
        }
        canary.check("symlinks below");
    });
}

/// H17: 65536 ids for each container, whatever its posture: layers are shared between them.
#[test]
fn owners_that_no_container_holds_are_refused_by_name() {
    with_store("owners", |lab, store| {
        let id = |at: usize, id: u64| {
            Tar::default().file("fine", "").raw(b'0', b"dir/f", b"x", move |block| {
                block[at] = 0x80;
                block[at + 1..at + 8].copy_from_slice(&id.to_be_bytes()[1..]);
            })
        };
        let base = Tar::default().file("base", "x").end();
        for (tar, who) in [
            (id(108, 65_536), "65536:0"),
            (id(116, 65_536), "0:65536"),
            (id(108, 4_294_967_294), "4294967294:0"),
            (id(108, 1 << 40), "1099511627776:0"),
            (Tar::default().pax(&[("uid", b"197609")]).dir("dir", 0o755), "197609:0"),
            (Tar::default().pax(&[("gid", b"197121")]).symlink("dir", "x"), "0:197121"),
        ] {
            let tar = tar.end();
            let layout = layout(lab, "image", &[&base, &tar]);
            let said = chain(&import_layout(store, &layout.dir).expect_err(who));
            let belongs = format!("belongs to {who}; a container holds ids 0 to 65535");
            let blob = Digest::of(&tar).to_string();
            for part in [text(&layout.dir), &blob, "entry `dir", &belongs, "--chown"] {
                assert!(said.contains(part), "{part}: {said}");
            }
        }
        let last = Tar::default().pax(&[("uid", b"65535"), ("gid", b"65535")]).file("f", "").end();
        let (layers, _pin) = import(lab, store, "last", &[&last]);
        let meta = fs::metadata(store.layer(&layers[0]).expect("layer").join("f")).expect("stat");
        assert_eq!((meta.uid(), meta.gid()), (65_535, 65_535));
    });
}
