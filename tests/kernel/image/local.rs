//! Directories and archives of the box as roots of containers.

use super::*;
use std::collections::BTreeSet;
use std::os::unix::fs::{FileExt, symlink};
use terrarium::image::{ImageError, collect, import_local, layers_bytes, layers_size};

/// What find(1) says of everything below `dir`, without times of links, sorted by name.
fn state(dir: &Path) -> Vec<String> {
    let format = "%P %y %m %U:%G %T@ %l\n";
    let out = std::process::Command::new("find").arg(dir).args(["-printf", format]).output();
    let out = out.expect("find").stdout.escape_ascii().to_string();
    let mut lines: Vec<String> = out.split("\\n").map(str::to_owned).collect();
    lines.sort();
    lines
}

fn set_xattr(path: &Path, name: &std::ffi::CStr, value: &[u8]) {
    let file = fs::File::open(path).expect("open");
    terrarium::sys::file::set_xattr(std::os::fd::AsFd::as_fd(&file), name, value).expect("set");
}

/// Names of extended attributes that GNU tar finds.
fn xattrs(lab: &Lab, path: &Path) -> Vec<String> {
    let tar = lab.dir.join("xattrs.tar");
    let all = ["--format=pax", "--xattrs", "--xattrs-include=*", "--no-recursion"];
    run("tar", &[&all[..], &["-cPf", text(&tar), text(path)]].concat());
    let found = fs::read(&tar).expect("read").escape_ascii().to_string();
    let names = found.split("SCHILY.xattr.").skip(1);
    names.map(|rest| rest.split('=').next().expect("a name").to_owned()).collect()
}

/// A directory with one of everything.
fn rich(lab: &Lab) -> PathBuf {
    let dir = lab.dir.join("rootfs");
    for name in ["bin", "etc", "deep/a/b/c"] {
        fs::create_dir_all(dir.join(name)).expect("mkdir");
    }
    fs::write(dir.join("bin/sh"), "#!").expect("write");
    fs::write(dir.join("bin/ping"), "icmp").expect("write");
    fs::hard_link(dir.join("bin/sh"), dir.join("deep/a/sh")).expect("link");
    run("chown", &["12:34", text(&dir.join("bin/sh"))]);
    fs::set_permissions(dir.join("bin/sh"), fs::Permissions::from_mode(0o4751)).expect("chmod");
    fs::set_permissions(dir.join("etc"), fs::Permissions::from_mode(0o2770)).expect("chmod");
    set_xattr(&dir.join("etc"), c"user.note", b"x");
    // cap_net_raw=ep
    set_xattr(
        &dir.join("bin/ping"),
        c"security.capability",
        b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    );
    set_xattr(&dir.join("deep"), c"user.overlay.opaque", b"y");
    symlink("/etc/passwd", dir.join("out")).expect("symlink");
    run("chown", &["-h", "7:8", text(&dir.join("out"))]);
    run("mkfifo", &[text(&dir.join("fifo"))]);
    run("mknod", &[text(&dir.join("mem")), "c", "1", "1"]);
    fs::write(dir.join(std::ffi::OsStr::from_bytes(b"\xff\n\x1b")), "odd").expect("write");
    let sparse = fs::File::create(dir.join("sparse")).expect("create");
    sparse.write_all_at(b"begin", 0).expect("write");
    sparse.write_all_at(b"middle", 5 << 20).expect("write");
    sparse.set_len(9 << 20).expect("length");
    run("touch", &["-d", "@1234567890.25", text(&dir.join("deep/a")), text(&dir.join("bin/sh"))]);
    dir
}

#[test]
fn a_directory_becomes_a_layer_as_it_is() {
    with_store("local", |lab, store| {
        let dir = rich(lab);
        let link = lab.dir.join("link");
        symlink(&dir, &link).expect("symlink");
        let rootfs = import_local(store, &link).expect("import");
        let layer = store.layer(&rootfs.layers[0]).expect("layer");
        let mut wanted = state(&dir);
        wanted.retain(|line| !line.starts_with("mem "));
        assert_eq!(state(&layer), wanted);
        assert_eq!(fs::read(layer.join("bin/sh")).expect("read"), b"#!");
        assert_eq!(xattrs(lab, &layer.join("etc")), ["user.note"]);
        assert_eq!(xattrs(lab, &layer.join("bin/ping")), ["security.capability"]);
        assert_eq!(xattrs(lab, &layer.join("deep")), [""; 0]);
        let inode = |path: &str| fs::metadata(layer.join(path)).expect("stat").ino();
        assert_eq!(inode("bin/sh"), inode("deep/a/sh"));
        let sparse = fs::metadata(layer.join("sparse")).expect("stat");
        assert!(sparse.len() == 9 << 20 && sparse.blocks() * 512 < 1 << 20, "{sparse:?}");
        run("cmp", &[text(&layer.join("sparse")), text(&dir.join("sparse"))]);
        assert_eq!(rootfs.bytes, 2 + 4 + 3 + (9 << 20));
        assert_eq!(rootfs.env, Vec::<String>::new());

        // The same directory is the same layer, changed or not in what is in it, until its own
        // time changes.
        let again = import_local(store, &dir).expect("again");
        assert_eq!(again.layers, rootfs.layers);
        fs::write(dir.join("new"), "x").expect("write");
        let changed = import_local(store, &dir).expect("changed");
        assert_ne!(changed.layers, rootfs.layers);
        assert_eq!(changed.bytes, rootfs.bytes + 1);
        let all = [rootfs.layers[0], changed.layers[0], rootfs.layers[0]];
        let noted = layers_size(store, &all).expect("size");
        assert_eq!((noted.bytes, noted.names), (rootfs.bytes + changed.bytes, 13 + 14));
        // Without its note, it is added up.
        fs::remove_file(store.dir().join(format!("imports/{}.layer", all[0].hex()))).expect("rm");
        assert_eq!(layers_size(store, &all).expect("size"), noted);
        assert_eq!(layers_bytes(store, &all).expect("bytes"), noted.bytes);
    });
}

#[test]
fn what_is_mounted_in_a_directory_stays_out() {
    with_store("mounted", |lab, store| {
        let dir = lab.dir.join("rootfs");
        fs::create_dir_all(dir.join("proc")).expect("mkdir");
        fs::write(dir.join("x"), "x").expect("write");
        run("mount", &["-t", "tmpfs", "tmpfs", text(&dir.join("proc"))]);
        fs::write(dir.join("proc/secret"), "s").expect("write");
        let rootfs = import_local(store, &dir).expect("import");
        let layer = store.layer(&rootfs.layers[0]).expect("layer");
        assert_eq!(listing(&layer), "d755 proc\nf644 x");
        run("umount", &[text(&dir.join("proc"))]);
    });
}

#[test]
fn what_cannot_be_a_root_is_refused_by_name_and_leaves_nothing() {
    with_store("unfit", |lab, store| {
        let refused = |path: &Path, why: &str| {
            let err = import_local(store, path).expect_err(why);
            let said = chain(&err);
            assert!(said.contains(text(path)) && said.contains(why), "{said}");
        };
        let dir = |name: &str| {
            let dir = lab.dir.join(name);
            fs::create_dir(&dir).expect("mkdir");
            dir
        };
        refused(&lab.dir.join("nowhere"), "is not there; name a root directory or a tar archive");
        refused(&dir("empty"), "holds no files");
        let fifo = lab.dir.join("fifo");
        run("mkfifo", &[text(&fifo)]);
        refused(&fifo, "neither a directory nor a file");
        refused(Path::new("/dev/null"), "neither a directory nor a file");
        let foreign = dir("foreign");
        fs::write(foreign.join("f"), "").expect("write");
        run("chown", &["4294967294:0", text(&foreign.join("f"))]);
        refused(&foreign, "entry `f` belongs to 4294967294:0");
        let deep = dir("deep");
        let mut at = fs::File::open(&deep).expect("open");
        for _ in 0..300 {
            terrarium::sys::at::make_dir(&at, "d", 0o755).expect("mkdir");
            let below = terrarium::sys::file::open_dir(std::os::fd::AsFd::as_fd(&at), b"d");
            at = below.expect("open").into();
        }
        refused(&deep, "more than 256 directories deep");
        let large = dir("large");
        let file = fs::File::create(large.join("hole")).expect("create");
        file.set_len(17 << 30).expect("length");
        refused(&large, "entry `hole` brings the files to more than");
        assert!(store.layers().expect("layers").is_empty());
        assert_eq!(fs::read_dir(store.dir().join("tmp")).expect("tmp").count(), 0);
        assert_eq!(fs::read_dir(store.dir().join("imports")).expect("notes").count(), 0);
    });
}

#[test]
fn a_directory_that_is_larger_than_the_room_grows_the_store_or_is_refused() {
    let lab = Lab::new("localroom");
    let dir = lab.dir.join("rootfs");
    fs::create_dir(&dir).expect("mkdir");
    fill(&dir.join("large"), 300).expect("fill");
    let fixed = StoreConfig { size_max: Bytes::mib(256), ..lab.config() };
    let store = Store::open(fixed).expect("open");
    let err = import_local(&store, &dir).expect_err("too large");
    assert!(chain(&err).contains("[store] size_max"), "{}", chain(&err));
    assert!(store.layers().expect("layers").is_empty());
    lab.close(store);
    let store = lab.open();
    let rootfs = import_local(&store, &dir).expect("grows");
    assert_eq!(rootfs.bytes, 300 << 20);
    lab.close(store);
}

#[test]
fn calls_for_one_directory_at_once_are_one_import() {
    with_store("once", |lab, store| {
        let dir = lab.dir.join("rootfs");
        fs::create_dir(&dir).expect("mkdir");
        for n in 0..300 {
            fs::write(dir.join(format!("f{n}")), "x").expect("write");
        }
        let layers: BTreeSet<Vec<Digest>> = std::thread::scope(|scope| {
            let import = || import_local(store, &dir).expect("import").layers;
            let running: Vec<_> = (0..6).map(|_| scope.spawn(import)).collect();
            running.into_iter().map(|thread| thread.join().expect("join")).collect()
        });
        assert_eq!(layers.len(), 1);
        // Names of drafts are counted: one was made.
        let draft = store.draft().expect("draft");
        assert!(draft.dir().ends_with("tmp/1"), "{}", draft.dir().display());
    });
}

#[test]
fn archives_are_imported_by_their_form_and_share_with_stacks() {
    with_store("archives", |lab, store| {
        let tar = Tar::default().dir("etc", 0o755).file("etc/hostname", "box").end();
        let [plain, gz, zst] = ["a.tar", "a.tgz", "a.tar.zst"].map(|name| lab.dir.join(name));
        fs::write(&plain, &tar).expect("write");
        gzip(&tar, &gz);
        zstd(&tar, &zst);
        for archive in [&plain, &gz, &zst] {
            let rootfs = import_local(store, archive).expect("import");
            assert_eq!((rootfs.layers, rootfs.bytes), (vec![Digest::of(&tar)], 3));
        }
        assert_eq!(import_stack(store, &gz, &mut |_, _| ()).expect("stack"), Digest::of(&tar));
        fs::write(&plain, "no archive").expect("write");
        let err = import_local(store, &plain).expect_err("no archive");
        assert!(matches!(err, ImageError::Unpack { .. }), "{err}");
    });
}

#[test]
fn unused_layers_go_unless_they_are_pinned_or_were_while_it_was_found_out() {
    with_store("collect", |lab, store| {
        let make = |name: &str| {
            let dir = lab.dir.join(name);
            fs::create_dir(&dir).expect("mkdir");
            fs::write(dir.join("f"), name).expect("write");
            dir
        };
        let [kept, held, touched, unused] = ["kept", "held", "touched", "unused"].map(make);
        let import = |dir: &Path| import_local(store, dir).expect("import");
        let (kept, held) = (import(&kept).layers[0], import(&held));
        let unused = import(&unused).layers[0];
        import(&touched);
        let used = || {
            // A container is made right now, and done before the rest is looked at.
            drop(import(&touched));
            Some([kept].into())
        };
        collect(store, &Default::default(), used).expect("collect");
        let mut left = vec![kept, held.layers[0], import(&touched).layers[0]];
        left.sort();
        assert_eq!(store.layers().expect("layers"), left);
        assert_eq!(layers_bytes(store, &[unused]).expect("bytes"), 0, "its note went with it");
        collect(store, &Default::default(), || None).expect("collect");
        assert_eq!(store.layers().expect("layers"), left, "who does not know keeps all");
        let copy = held.clone();
        drop(held);
        collect(store, &Default::default(), || Some([kept].into())).expect("collect");
        assert_eq!(store.layers().expect("layers").len(), 2);
        drop(copy);
        collect(store, &Default::default(), || Some([kept].into())).expect("collect");
        assert_eq!(store.layers().expect("layers"), [kept]);
    });
}

#[test]
fn who_imports_and_pins_is_never_robbed_by_who_collects() {
    use std::sync::atomic::{AtomicBool, Ordering};
    with_store("robbed", |lab, store| {
        let dirs: Vec<PathBuf> = (0..3)
            .map(|n| {
                let dir = lab.dir.join(format!("d{n}"));
                fs::create_dir(&dir).expect("mkdir");
                fs::write(dir.join("f"), n.to_string()).expect("write");
                dir
            })
            .collect();
        let done = AtomicBool::new(false);
        // What containers are made of, as the depot would tell.
        let depot = std::sync::Mutex::new(BTreeSet::new());
        std::thread::scope(|scope| {
            let collector = scope.spawn(|| {
                let mut rounds = 0;
                while !done.load(Ordering::Relaxed) || rounds == 0 {
                    let used = || Some(depot.lock().expect("lock").clone());
                    collect(store, &Default::default(), used).expect("collect");
                    rounds += 1;
                }
            });
            let makers: Vec<_> = dirs
                .iter()
                .map(|dir| {
                    let depot = &depot;
                    scope.spawn(move || {
                        for _ in 0..15 {
                            let rootfs = import_local(store, dir).expect("import");
                            let chain = rootfs.layers[0];
                            depot.lock().expect("lock").insert(chain);
                            drop(rootfs);
                            let layer = store.layer(&chain).expect("it is in use");
                            fs::read(layer.join("f")).expect("and whole");
                            depot.lock().expect("lock").remove(&chain);
                        }
                    })
                })
                .collect();
            makers.into_iter().for_each(|maker| maker.join().expect("join"));
            done.store(true, Ordering::Relaxed);
            collector.join().expect("join");
        });
        collect(store, &Default::default(), || Some(BTreeSet::new())).expect("collect");
        assert!(store.layers().expect("layers").is_empty());
    });
}

#[test]
fn tars_with_holes_come_in_as_gnu_tar_writes_them_and_keep_the_holes() {
    with_store("paxholes", |lab, store| {
        let from = lab.dir.join("from");
        fs::create_dir(&from).expect("mkdir");
        let holes = fs::File::create(from.join("holes")).expect("create");
        for n in 0..40 {
            holes.write_all_at(b"data", n * (1 << 20)).expect("write");
        }
        holes.set_len(64 << 20).expect("length");
        for version in ["0.0", "0.1", "1.0"] {
            let tar = lab.dir.join(format!("{version}.tar"));
            let form = format!("--sparse-version={version}");
            let args = ["--sparse", "--format=pax", &form, "-cf", text(&tar), "-C", text(&from)];
            run("tar", &[&args[..], &["holes"]].concat());
            assert!(fs::metadata(&tar).expect("tar").len() < 1 << 20, "{version}");
            let rootfs = import_local(store, &tar).expect("import");
            let layer = store.layer(&rootfs.layers[0]).expect("layer");
            let made = fs::metadata(layer.join("holes")).expect("stat");
            assert!(made.len() == 64 << 20 && made.blocks() * 512 < 2 << 20, "{made:?}");
            run("cmp", &[text(&layer.join("holes")), text(&from.join("holes"))]);
        }
    });
}
