//! Archives that mean harm, and archives that do not, unpacked on the real file system.
//!
//! Numbers such as H03 are those of the project's catalogue of hostile archives.
//!
//! | rule | tests |
//! |---|---|
//! | names: V7, ustar prefix, GNU long, PAX, `.`, `/x`, slashes | `wild::names_come_in_every_form` |
//! | numbers: octal, base 256, PAX; modes; times from 1970 on, with nanoseconds | `wild::numbers_modes_and_times_are_kept` |
//! | PAX records for all entries, and for one | `wild::what_is_said_of_all_entries_holds_until_it_is_said_anew` |
//! | extended attributes, two forms; file capabilities 2 and 3 | `wild::attributes_come_in_two_forms_and_capabilities_in_two_versions` |
//! | holes: old GNU, PAX 0.0, 0.1, 1.0; long runs of zeros | `wild::archives_of_gnu_tar_come_out_as_gnu_tar_puts_them`, `large` |
//! | hard links: other directories, symlinks, fifos, themselves | `wild::hard_links_are_names_of_what_came_before` |
//! | hard links to layers below | `lower` |
//! | the last entry of a name wins, each kind after each | `wild::each_kind_takes_the_place_of_each` |
//! | whiteouts and opaque directories, in every order | `marks::marks_mean_the_same_in_every_order`, `marks::whiteouts_hide_lower_layers_and_nothing_of_their_own` |
//! | devices, sockets, unknown kinds | `hostile::devices_are_left_out_and_fifos_are_not` |
//! | ends: no end blocks, garbage after them; several gzip members, zstd frames | `hostile::archives_that_read_two_ways_or_break_off_are_refused`, `wild::packed_streams_may_have_several_parts` |
//! | owners over 65535 | `lower::owners_that_no_container_holds_are_refused_by_name` |
//! | many files, one large file | `large` |
//! | paths that lead out | `hostile` |
//! | bombs | `bombs`; beyond the disk of what is made of an image: `forms` |
//! | layers of one image at once | `several` |
//! | archives of crane, jib, docker; signatures beside images; layers that are links | `forms` |

mod bombs;
mod forms;
mod hostile;
mod lab;
mod large;
mod layout;
mod local;
pub mod lower;
mod marks;
mod merge;
mod several;
mod wild;

use crate::volume::{Lab, fill, run, text};
use lab::{Canary, chain, empty, gzip, into, listing, with_store, zstd};
pub use lab::{Tar, one_file};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use terrarium::image::unpack::{Options, unpack};
use terrarium::image::{import_droplet, import_stack};
use terrarium::unit::{Bytes, Digest};
use terrarium::volume::{Store, StoreConfig};

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
