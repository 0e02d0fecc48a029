//! Layers put together: the same as an overlay shows.

use super::*;
use terrarium::image::{collect, import_local, merge};

/// What GNU tar packs of everything below `dir`: names, kinds, modes, owners, times, content, links.
fn packed(lab: &Lab, dir: &Path) -> Vec<String> {
    let tar = lab.dir.join("packed.tar");
    let form = ["--sort=name", "--format=pax", "--xattrs", "--xattrs-include=user.*"];
    let form = [&form[..], &["--xattrs-include=security.*", "-cf", text(&tar)]].concat();
    run("tar", &[&form[..], &["-C", text(dir), "."]].concat());
    let list = run("tar", &["--full-time", "--numeric-owner", "-tvf", text(&tar)]);
    let sums =
        run("sh", &["-c", "cd \"$0\" && find . -type f -exec sha256sum {} + | sort", text(dir)]);
    list.lines().chain(sums.lines()).map(str::to_owned).collect()
}

/// Makes the tar a layer.
fn layer(lab: &Lab, store: &Store, name: &str, tar: Tar) -> Digest {
    let file = lab.dir.join(name);
    fs::write(&file, tar.end()).expect("write");
    import_local(store, &file).expect("import").layers[0]
}

#[test]
fn a_tree_is_what_the_union_of_its_layers_shows() {
    with_store("merge", |lab, store| {
        let base = Tar::default()
            .dir("d", 0o755)
            .dir("d/e", 0o700)
            .file("d/e/f", "deep")
            .file("d/hidden", "x")
            .dir("opaque", 0o755)
            .file("opaque/below", "x")
            .file("file-then-dir", "x")
            .dir("dir-then-file", 0o755)
            .file("dir-then-file/x", "x")
            .dir("dir-then-link", 0o755)
            .file("dir-then-link/x", "x")
            .symlink("link-then-dir", "d")
            .file("linked", "same")
            .hard_link("again", "linked")
            .file("kept", "kept")
            .node(b'6', "fifo", 0, 0);
        let next = Tar::default()
            .dir("d", 0o711)
            .file("d/.wh.hidden", "")
            .file("d/new", "new")
            .dir("opaque", 0o750)
            .file("opaque/.wh..wh..opq", "")
            .file("opaque/own", "own")
            .dir("file-then-dir", 0o755)
            .file("file-then-dir/in", "in")
            .file("dir-then-file", "file")
            .symlink("dir-then-link", "/etc")
            .dir("link-then-dir", 0o755)
            .file("link-then-dir/in", "in")
            .pax(&[("SCHILY.xattr.user.note", b"a")])
            .file("linked", "other")
            .file(".wh.fifo", "")
            .file("one", "1")
            .hard_link("d/two", "one");
        let third = Tar::default().file("d/.wh.e", "").dir("d/e", 0o755).file("d/e/last", "last");
        let layers = [("a", base), ("b", next), ("c", third)];
        let layers = layers.map(|(name, tar)| layer(lab, store, name, tar));
        let (tree, pin) = merge(store, &layers).expect("merge");
        let tree = store.layer(&tree).expect("tree");
        assert_eq!(run("btrfs", &["property", "get", text(&tree), "ro"]), "ro=true\n");

        let union = lab.dir.join("union");
        fs::create_dir(&union).expect("mkdir");
        let lowers = layers.map(|layer| store.layer(&layer).expect("layer").display().to_string());
        let [a, b, c] = lowers;
        run("mount", &["-t", "overlay", "o", "-o", &format!("lowerdir={c}:{b}:{a}"), text(&union)]);
        let (wanted, found) = (packed(lab, &union), packed(lab, &tree));
        run("umount", &[text(&union)]);
        assert_eq!(found, wanted);
        assert!(wanted.len() > 28, "{wanted:?}");
        let one = fs::metadata(tree.join("one")).expect("stat").ino();
        assert_eq!(fs::metadata(tree.join("d/two")).expect("stat").ino(), one);

        // The next one begins with what there is, and asking again costs nothing.
        assert_eq!(store.layers().expect("layers").len(), 3 + 2, "the lowest alone, and all");
        let (again, _) = merge(store, &layers).expect("known");
        assert_eq!(store.layer(&again), Some(tree));
        merge(store, &layers[..2]).expect("another");
        assert_eq!(store.layers().expect("layers").len(), 3 + 3);
        // They stay and go with their layers.
        collect(store, &Default::default(), || Some(layers.into())).expect("collect");
        assert_eq!(store.layers().expect("layers").len(), 3 + 3);
        collect(store, &Default::default(), || Some([layers[0]].into())).expect("collect");
        assert_eq!(store.layers().expect("layers").len(), 1 + 2, "one is pinned");
        drop(pin);
        collect(store, &Default::default(), || Some([layers[0]].into())).expect("collect");
        assert_eq!(store.layers().expect("layers").len(), 1 + 1);
    });
}

#[test]
fn a_tree_shares_the_data_of_its_layers() {
    with_store("shares", |lab, store| {
        let dir = lab.dir.join("rootfs");
        fs::create_dir(&dir).expect("mkdir");
        fill(&dir.join("large"), 40).expect("fill");
        let layer = import_local(store, &dir).expect("import").layers[0];
        let used = |store: &Store| {
            run("btrfs", &["filesystem", "sync", text(store.dir())]);
            let text = run("btrfs", &["filesystem", "df", "--raw", text(store.dir())]);
            let data = text.lines().find(|line| line.starts_with("Data")).expect("data");
            data.rsplit('=').next().and_then(|n| n.parse::<u64>().ok()).expect("a number")
        };
        let before = used(store);
        assert!(before >= 40 << 20);
        merge(store, &[layer]).expect("merge");
        assert!(used(store) - before < 1 << 20, "{before} {}", used(store));
    });
}

#[test]
fn calls_for_one_tree_at_once_make_one_and_a_failure_leaves_nothing() {
    with_store("mergeonce", |lab, store| {
        let tars = (0..300).fold(Tar::default(), |tar, n| tar.file(&format!("f{n}"), "x"));
        let base = layer(lab, store, "a", tars);
        let top = layer(lab, store, "b", Tar::default().file(".wh.f7", ""));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| merge(store, &[base, top]).expect("merge"));
            }
        });
        assert_eq!(store.layers().expect("layers").len(), 4);
        let missing = Digest::of(b"missing");
        let err = merge(store, &[base, missing]).expect_err("no such layer");
        assert!(chain(&err).contains(&missing.hex()), "{}", chain(&err));
        assert_eq!(store.layers().expect("layers").len(), 4);
        assert_eq!(fs::read_dir(store.dir().join("tmp")).expect("tmp").count(), 0);
        let canary = Canary::new(lab);
        let out = layer(lab, store, "c", Tar::default().symlink("d", text(&canary.dir)));
        let into = layer(lab, store, "d", Tar::default().dir("d", 0o777).file("d/x", "dead"));
        let (tree, _pin) = merge(store, &[out, into]).expect("merge");
        canary.check("a link below a directory");
        assert!(
            store.layer(&tree).expect("tree").join("d").symlink_metadata().expect("stat").is_dir()
        );
    });
}
