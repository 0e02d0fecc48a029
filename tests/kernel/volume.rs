//! The store on a real loop device, seen with `btrfs`, `findmnt`'s table and coreutils.

mod sealed;
mod snapshot;
mod usage;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use terrarium::unit::{Bytes, Digest, Handle, IdMap, Slot};
use terrarium::volume::{Store, StoreConfig, VolumeError};

/// A private mount table for the calling thread and a directory of its own.
pub struct Lab {
    pub dir: PathBuf,
}

impl Lab {
    pub fn new(name: &str) -> Lab {
        assert!(nix::unistd::geteuid().is_root(), "needs root: run `cargo xtask test kernel`");
        unshare(CloneFlags::CLONE_NEWNS).expect("unshare mounts");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
        let dir = std::env::temp_dir().join(format!("terrarium-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("make the test's directory");
        Lab { dir: fs::canonicalize(dir).expect("canonical") }
    }

    pub fn config(&self) -> StoreConfig {
        StoreConfig {
            dir: self.dir.join("store"),
            file: self.dir.join("store.btrfs"),
            size_max: Bytes::mib(2048),
            limited: true,
        }
    }

    pub fn open(&self) -> Store {
        Store::open(self.config()).expect("open the store")
    }

    /// Closes the store and shows that nothing of it stays behind.
    pub fn close(&self, store: Store) {
        store.close().expect("close");
        assert!(!self.mounted(), "still mounted");
        assert_eq!(self.loops(), "", "a loop device is left");
    }

    pub fn mounted(&self) -> bool {
        let table = fs::read_to_string("/proc/thread-self/mounts").expect("mount table");
        table.contains(self.dir.to_str().expect("text"))
    }

    /// What losetup(8) says about our file.
    pub fn loops(&self) -> String {
        run("losetup", &["-j", self.config().file.to_str().expect("text")])
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A failed test must not keep the machine's loop devices.
        let table = fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
        let points = table.lines().rev().filter_map(|line| line.split(' ').nth(1));
        for point in points.filter(|point| Path::new(point).starts_with(&self.dir)) {
            let _ = Command::new("umount").args(["-l", point]).output();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Runs a program of the system and returns what it prints; it must succeed.
pub fn run(program: &str, args: &[&str]) -> String {
    let out =
        Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn handle(name: &str) -> Handle {
    name.parse().expect("handle")
}

fn ids(slot: u32) -> IdMap {
    IdMap::Range(Slot::new(slot).expect("slot").ids())
}

/// Writes `mib` MiB to a new file; the error of the write or of the flush.
pub fn fill(path: &Path, mib: usize) -> io::Result<()> {
    let mut file = File::create(path)?;
    let block = vec![7u8; 1 << 20];
    for _ in 0..mib {
        file.write_all(&block)?;
    }
    file.sync_all()
}

/// The text of an error with its causes.
fn said(err: &VolumeError) -> String {
    terrarium::log::chain(err)
}

#[test]
fn a_fresh_store_is_closed_to_others_and_leaves_nothing_when_closed() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new("fresh");
    let store = lab.open();
    let config = lab.config();
    assert!(run("btrfs", &["filesystem", "show", text(&config.dir)]).contains("terrarium"));
    let mode = fs::metadata(&config.dir).expect("stat").permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
    let options = run("findmnt", &["-no", "OPTIONS", text(&config.dir)]);
    for option in ["nosuid", "nodev", "noatime"] {
        assert!(options.contains(option), "{options}");
    }
    // Preallocated: as many blocks as bytes.
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(&config.file).expect("stat");
    assert_eq!(meta.len(), 256 << 20);
    assert!(meta.blocks() * 512 >= meta.len(), "{} blocks", meta.blocks());
    assert_eq!(meta.mode() & 0o7777, 0o600);
    assert!(store.layers().expect("layers").is_empty());
    assert!(store.writables().expect("writables").is_empty());
    lab.close(store);
}

#[test]
fn quota_stops_a_writer_at_its_limit_and_counts_what_was_written() {
    let lab = Lab::new("quota");
    let store = lab.open();
    let web = handle("web-0");
    let dir = store.create_writable(&web, Some(Bytes::mib(20)), ids(3)).expect("create");
    let stat = run("stat", &["-c", "%u:%g %a", text(&dir.join("upper")), text(&dir.join("work"))]);
    let base = ids(3).root();
    assert_eq!(stat, format!("{base}:{base} 755\n{base}:{base} 700\n"));

    fill(&dir.join("upper/fits"), 12).expect("below the limit");
    let err = fill(&dir.join("upper/large"), 20).expect_err("beyond the limit");
    assert_eq!(err.raw_os_error(), Some(122), "EDQUOT, not {err}");
    run("btrfs", &["filesystem", "sync", text(&dir)]);
    let used = store.used(&web).expect("used");
    assert!((12..=20).contains(&used.as_mib()), "{used}");

    // Another container is not concerned.
    let other = store.create_writable(&handle("web-1"), None, ids(4)).expect("create");
    fill(&other.join("upper/large"), 40).expect("no limit here");
    assert_eq!(store.writables().expect("list"), [web.clone(), handle("web-1")]);
    let again = store.create_writable(&web, None, ids(3)).expect_err("is there");
    assert!(matches!(again, VolumeError::Exists { .. }), "{again}");
    lab.close(store);
}

/// The store, opened with limits off.
fn without_limits(lab: &Lab) -> Store {
    Store::open(StoreConfig { limited: false, ..lab.config() }).expect("open")
}

#[test]
fn without_limits_a_writer_goes_on_beyond_what_was_set_aside() {
    let lab = Lab::new("unlimited");
    let store = without_limits(&lab);
    let web = handle("web-0");
    let dir = store.create_writable(&web, Some(Bytes::mib(20)), ids(3)).expect("create");
    fill(&dir.join("upper/large"), 40).expect("no limit");
    store.remove_writable(&web).expect("remove");
    let err = store.create_writable(&web, Some(Bytes::mib(4096)), ids(3)).expect_err("no room");
    assert!(said(&err).contains("2GiB"), "it is still set aside: {}", said(&err));
    lab.close(store);
}

#[test]
fn removal_is_idempotent_and_takes_nested_subvolumes_along() {
    let lab = Lab::new("remove");
    let store = lab.open();
    let web = handle("web-0");
    let dir = store.create_writable(&web, Some(Bytes::mib(50)), ids(0)).expect("create");
    run("btrfs", &["subvolume", "create", text(&dir.join("upper/a"))]);
    run("btrfs", &["subvolume", "create", text(&dir.join("upper/a/b"))]);
    run("btrfs", &["subvolume", "create", text(&dir.join("upper/c"))]);
    run("btrfs", &["property", "set", text(&dir.join("upper/a/b")), "ro", "true"]);
    store.remove_writable(&web).expect("remove");
    store.remove_writable(&web).expect("remove what is gone");
    store.remove_writable(&handle("never-was")).expect("remove what never was");
    assert!(store.writables().expect("list").is_empty());
    assert!(matches!(store.used(&web), Err(VolumeError::Absent { .. })));
    let left = run("btrfs", &["subvolume", "list", text(store.dir())]);
    assert_eq!(left, "", "subvolumes left");
    lab.close(store);
}

#[test]
fn the_store_grows_when_asked_and_names_the_limit_when_it_may_not() {
    let lab = Lab::new("grow");
    let store =
        Store::open(StoreConfig { size_max: Bytes::mib(800), ..lab.config() }).expect("open");
    let file = lab.config().file;
    store.ensure_room(Bytes::mib(10)).expect("fits");
    assert_eq!(fs::metadata(&file).expect("stat").len(), 256 << 20, "grown without need");
    store.ensure_room(Bytes::mib(400)).expect("grow");
    assert!(store.free() >= Bytes::mib(400), "{}", store.free());
    let len = fs::metadata(&file).expect("stat").len();
    assert!((512 << 20..=800 << 20).contains(&len), "{len}");
    fill(&store.dir().join("tmp/large"), 400).expect("the room is real");

    let err = store.ensure_room(Bytes::mib(2000)).expect_err("over size_max");
    assert!(err.is_full());
    assert!(said(&err).contains("800MiB") && said(&err).contains("[store] size_max"), "{err}");
    lab.close(store);
}

#[test]
fn every_disk_can_be_filled_to_its_limit_whatever_the_others_do() {
    let lab = Lab::new("promise");
    let store = lab.open();
    let make = |name: &str, mib, slot| {
        let disk = store.create_writable(&handle(name), Some(Bytes::mib(mib)), ids(slot));
        disk.map(|dir| dir.join("upper/large"))
    };
    let [a, b] = [("a", 0), ("b", 1)].map(|(name, slot)| make(name, 500, slot).expect(name));
    // Neither a layer nor a third disk gets what those two have not used yet.
    let err = store.ensure_room(Bytes::mib(1000)).expect_err("promised to others");
    assert!(err.is_full());
    assert!(said(&err).contains("containers may still write "), "{}", said(&err));
    make("c", 5000, 2).expect_err("more than there can ever be");
    assert_eq!(store.writables().expect("list"), [handle("a"), handle("b")], "nothing half-made");
    store.ensure_room(Bytes::mib(300)).expect("what is left is anybody's");
    fill(&store.dir().join("tmp/layer"), 300).expect("the room is real");

    for large in [a, b] {
        let err = fill(&large, 600).expect_err("beyond the limit");
        assert_eq!(err.raw_os_error(), Some(122), "EDQUOT, not {err}");
        assert!(fs::metadata(&large).expect("stat").len() >= 490 << 20);
    }
    lab.close(store);
}

#[test]
fn promises_outlive_the_daemon_and_end_with_the_disk() {
    let lab = Lab::new("recall");
    let store = lab.open();
    store.create_writable(&handle("a"), Some(Bytes::mib(1200)), ids(0)).expect("create");
    store.create_writable(&handle("b"), None, ids(1)).expect("create");
    lab.close(store);
    let store = lab.open();
    store.ensure_room(Bytes::mib(1000)).expect_err("promised before the restart");
    let left = store.left().expect("measure");
    store.ensure_room(left).expect("what is left can be had");
    store.remove_writable(&handle("a")).expect("remove");
    store.ensure_room(Bytes::mib(1000)).expect("free again");
    lab.close(store);
}

#[test]
fn what_nobody_needs_any_more_goes_back_to_the_disk_below() {
    let lab = Lab::new("shrink");
    let store = lab.open();
    let len = || fs::metadata(lab.config().file).expect("stat").len() >> 20;
    let draft = store.draft().expect("draft");
    fill(&draft.dir().join("kept"), 30).expect("write");
    let layer = draft.commit(&Digest::of(b"kept")).expect("commit");
    store.create_writable(&handle("small"), Some(Bytes::mib(100)), ids(0)).expect("create");
    store.create_writable(&handle("staging"), Some(Bytes::mib(1400)), ids(1)).expect("create");
    assert!(len() >= 1500, "{}", len());
    assert!(!store.give_back().expect("look"), "all of it is promised");

    store.remove_writable(&handle("staging")).expect("remove");
    assert!(store.give_back().expect("shrink"));
    assert!(len() < 1024, "{}", len());
    let large = store.dir().join("containers/small/upper/large");
    let err = fill(&large, 200).expect_err("beyond the limit");
    assert_eq!(err.raw_os_error(), Some(122), "the promise holds: EDQUOT, not {err}");
    assert!(!store.give_back().expect("look"), "once is enough");
    run("btrfs", &["scrub", "start", "-B", text(store.dir())]);
    lab.close(store);
    let store = lab.open();
    assert_eq!(fs::read(layer.join("kept")).expect("read"), vec![7; 30 << 20]);
    lab.close(store);
}

#[test]
fn many_small_files_fit_too_after_the_store_was_cut() {
    let lab = Lab::new("small");
    let store = lab.open();
    // A staging that leaves something in every part that btrfs has given to data.
    store.create_writable(&handle("staging"), Some(Bytes::mib(1000)), ids(0)).expect("create");
    let keep = store.draft().expect("draft");
    for n in 0..10 {
        fill(&store.dir().join(format!("containers/staging/upper/{n}")), 60).expect("write");
        fill(&keep.dir().join(n.to_string()), 10).expect("write");
    }
    keep.commit(&Digest::of(b"kept")).expect("commit");
    store.remove_writable(&handle("staging")).expect("remove");
    store.write_down().expect("sync");
    let dir = store.create_writable(&handle("a"), Some(Bytes::mib(150)), ids(1)).expect("create");
    store.write_down().expect("sync");
    store.give_back().expect("look");
    let block = [7; 4096];
    // 100 of 150 MiB: near the limit each write would be a commit.
    for n in 0..25_000 {
        fs::write(dir.join(format!("upper/{n}")), block).unwrap_or_else(|err| panic!("{n}: {err}"));
    }
    lab.close(store);
}

#[test]
fn growth_that_a_crash_cut_short_is_finished_at_the_next_start() {
    let lab = Lab::new("cut");
    let store = lab.open();
    let before = store.free();
    lab.close(store);
    run("truncate", &["-s", "+300M", text(&lab.config().file)]);
    let store = lab.open();
    assert!(store.free().get() > before.get() + (250 << 20), "{before} {}", store.free());
    lab.close(store);
}

#[test]
fn leftovers_of_a_crash_are_gone_and_finished_things_are_not() {
    let lab = Lab::new("crash");
    let store = lab.open();
    let done = Digest::of(b"done");
    let draft = store.draft().expect("draft");
    fs::write(draft.dir().join("file"), "whole").expect("write");
    draft.commit(&done).expect("commit");
    store.create_writable(&handle("web-0"), None, ids(0)).expect("create");
    // A process that dies runs no destructors.
    let draft = store.draft().expect("draft");
    fs::write(draft.dir().join("file"), "half").expect("write");
    std::mem::forget(draft);
    fs::write(store.dir().join("tmp/stray"), "x").expect("write");
    fs::create_dir_all(store.dir().join("tmp/dir/deep")).expect("mkdir");
    // Killed between the rename and the seal.
    let layer = store.layer(&done).expect("layer");
    run("btrfs", &["property", "set", "-f", text(&layer), "ro", "false"]);
    drop(store); // not closed: the mount stays, as after SIGKILL
    assert!(lab.mounted());

    let store = lab.open();
    assert_eq!(lab.loops().lines().count(), 1, "attached twice: {}", lab.loops());
    assert_eq!(fs::read_dir(store.dir().join("tmp")).expect("list").count(), 0);
    assert_eq!(store.layers().expect("layers"), [done]);
    assert_eq!(run("btrfs", &["property", "get", text(&layer), "ro"]), "ro=true\n");
    assert_eq!(store.writables().expect("list"), [handle("web-0")]);
    lab.close(store);

    // And once more from the file alone.
    let store = lab.open();
    assert_eq!(store.layers().expect("layers"), [done]);
    assert_eq!(fs::read_to_string(layer.join("file")).expect("read"), "whole");
    lab.close(store);
}

#[test]
fn a_half_made_file_system_is_made_again() {
    let lab = Lab::new("half");
    fs::write(lab.dir.join("store.btrfs.new"), vec![0u8; 1 << 20]).expect("write");
    let store = lab.open();
    assert!(!lab.dir.join("store.btrfs.new").exists());
    lab.close(store);
}

#[test]
fn layers_are_read_only_and_the_first_of_two_importers_wins() {
    let lab = Lab::new("layers");
    let store = lab.open();
    let chain = Digest::of(b"layer");
    let (first, second) = (store.draft().expect("draft"), store.draft().expect("draft"));
    fs::write(first.dir().join("who"), "first").expect("write");
    fs::write(second.dir().join("who"), "second").expect("write");
    assert_eq!(store.layer(&chain), None);
    let path = first.commit(&chain).expect("commit");
    assert_eq!(second.commit(&chain).expect("commit"), path);
    assert_eq!(fs::read_to_string(path.join("who")).expect("read"), "first");
    let err = fs::write(path.join("new"), "").expect_err("read-only");
    assert_eq!(err.kind(), io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(fs::read_dir(store.dir().join("tmp")).expect("list").count(), 0);
    assert_eq!(store.layer(&chain), Some(path));

    store.remove_layer(&chain).expect("remove");
    store.remove_layer(&chain).expect("remove what is gone");
    assert!(store.layers().expect("layers").is_empty());
    lab.close(store);
}

#[test]
fn drafts_become_layers_together_but_for_those_that_are_there() {
    let lab = Lab::new("together");
    let store = lab.open();
    let chains = ["a", "b", "c"].map(|name| Digest::of(name.as_bytes()));
    let drafts = chains.map(|chain| {
        let draft = store.draft().expect("draft");
        fs::write(draft.dir().join("who"), "together").expect("write");
        (draft, chain)
    });
    let other = store.draft().expect("draft");
    fs::write(other.dir().join("who"), "other").expect("write");
    let of_other = other.commit(&chains[1]).expect("commit");
    store.commit_all(&drafts).expect("commit");
    drop(drafts);
    for (chain, who) in chains.iter().zip(["together", "other", "together"]) {
        let layer = store.layer(chain).expect("layer");
        assert_eq!(fs::read_to_string(layer.join("who")).expect("read"), who);
        let err = fs::write(layer.join("new"), "").expect_err("read-only");
        assert_eq!(err.kind(), io::ErrorKind::ReadOnlyFilesystem);
    }
    assert_eq!(store.layer(&chains[1]), Some(of_other));
    assert_eq!(fs::read_dir(store.dir().join("tmp")).expect("list").count(), 0);
    store.commit_all(&[]).expect("nothing to do");
    lab.close(store);
}

#[test]
fn a_store_is_widened_and_gives_that_back() {
    let lab = Lab::new("wide");
    let store = lab.open();
    let length = || fs::metadata(lab.dir.join("store.btrfs")).expect("file").len();
    let before = length();
    assert!(!store.was_widened());
    store.widen(Bytes::mib(1024)).expect("widen");
    let wide = length();
    assert!(wide >= before + (512 << 20), "{before} {wide}");
    assert!(store.was_widened() && !store.was_widened(), "it is told once");
    store.widen(Bytes::mib(1024)).expect("widen again");
    assert_eq!(length(), wide);
    assert!(!store.was_widened());
    assert!(store.give_back().expect("give back"));
    assert!(length() < wide, "{wide}");
    lab.close(store);
}

#[test]
fn many_threads_make_and_remove_disks_at_once() {
    let lab = Lab::new("threads");
    let store = lab.open();
    std::thread::scope(|scope| {
        for worker in 0..4u32 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..10 {
                    let name = handle(&format!("w{worker}-{round}"));
                    let limit = Some(Bytes::mib(5));
                    store.create_writable(&name, limit, ids(worker)).expect("create");
                    store.used(&name).expect("used");
                    store.remove_writable(&name).expect("remove");
                }
            });
        }
    });
    assert!(store.writables().expect("list").is_empty());
    lab.close(store);
}

#[test]
fn a_store_in_use_is_not_closed_and_says_so() {
    let lab = Lab::new("busy");
    let store = lab.open();
    let open = File::open(store.dir().join("version")).expect("open");
    let err = store.close().expect_err("busy");
    assert!(matches!(err, VolumeError::Busy { .. }), "{err}");
    assert!(lab.mounted());
    drop(open);
    lab.close(lab.open());
}

#[test]
fn a_store_of_a_newer_program_is_refused_and_left_as_it_is() {
    let lab = Lab::new("newer");
    let store = lab.open();
    fs::write(store.dir().join("version"), "7\n").expect("write");
    lab.close(store);
    let err = Store::open(lab.config()).expect_err("newer");
    assert!(matches!(&err, VolumeError::Newer { found, .. } if found == "7"), "{err}");
    assert!(!lab.mounted(), "a refused store is not left mounted");
}

#[test]
fn a_directory_on_btrfs_is_used_as_it_is_and_left_mounted() {
    let lab = Lab::new("partition");
    let outer = lab.open();
    let inner_dir = outer.dir().join("tmp/inner");
    let config = StoreConfig { dir: inner_dir, ..lab.config() };
    let file = lab.dir.join("unused.btrfs");
    let inner = Store::open(StoreConfig { file: file.clone(), ..config }).expect("open");
    let dir = inner.create_writable(&handle("a"), Some(Bytes::mib(5)), ids(0)).expect("create");
    assert!(fill(&dir.join("upper/x"), 9).is_err(), "quota works there too");
    let err = inner.ensure_room(Bytes::mib(100_000)).expect_err("too much");
    assert!(matches!(err, VolumeError::PartitionFull { .. }), "{err}");
    inner.remove_writable(&handle("a")).expect("remove");
    inner.close().expect("close");
    assert!(!file.exists() && lab.mounted());
    lab.close(outer);
}

/// What kernels before 6.7 have, Debian 12's own among them.
pub fn with_full_quota(config: &StoreConfig) {
    run("truncate", &["-s", "256M", text(&config.file)]);
    run("mkfs.btrfs", &["-q", text(&config.file)]);
    fs::create_dir(&config.dir).expect("mkdir");
    run("mount", &["-o", "loop", text(&config.file), text(&config.dir)]);
    run("btrfs", &["quota", "enable", text(&config.dir)]);
    run("umount", &[text(&config.dir)]);
}

#[test]
fn full_quota_does_the_same_and_its_groups_do_not_pile_up() {
    let lab = Lab::new("fullquota");
    with_full_quota(&lab.config());
    let store = lab.open();
    for round in 0..3 {
        let dir = store.create_writable(&handle("web-0"), Some(Bytes::mib(8)), ids(0));
        let dir = dir.expect("create");
        let err = fill(&dir.join("upper/large"), 12).expect_err("beyond the limit");
        assert_eq!(err.raw_os_error(), Some(122), "EDQUOT, not {err}");
        run("btrfs", &["filesystem", "sync", text(&dir)]);
        let used = store.used(&handle("web-0")).expect("used").as_mib();
        assert!((4..=8).contains(&used), "round {round}: {used} MiB");
        store.remove_writable(&handle("web-0")).expect("remove");
    }
    run("btrfs", &["filesystem", "sync", text(store.dir())]);
    run("btrfs", &["subvolume", "sync", text(store.dir())]);
    lab.close(store);
    let store = lab.open();
    let groups = run("btrfs", &["qgroup", "show", text(store.dir())]);
    let level_0 = groups.lines().filter(|line| line.starts_with("0/")).count();
    assert_eq!(level_0, 1, "only the top is left:\n{groups}");
    lab.close(store);
}

#[test]
fn a_disk_that_cannot_preallocate_gets_a_file_with_holes() {
    let lab = Lab::new("holes");
    let ram = lab.dir.join("ram");
    fs::create_dir(&ram).expect("mkdir");
    run("mount", &["-t", "ramfs", "ramfs", text(&ram)]);
    let file = ram.join("store.btrfs");
    let store = Store::open(StoreConfig { file: file.clone(), ..lab.config() }).expect("open");
    store.ensure_room(Bytes::mib(200)).expect("grow");
    assert!(fs::metadata(&file).expect("stat").len() > 256 << 20);
    store.close().expect("close");
    assert_eq!(run("losetup", &["-j", text(&file)]), "");
    run("umount", &[text(&ram)]);
}

/// The store is mounted nosuid, for the host's sake. Inside a container only the overlay's own
/// flags count.
#[test]
fn setuid_programs_of_layers_work_through_an_overlay() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let lab = Lab::new("suid");
    let store = lab.open();
    let draft = store.draft().expect("draft");
    let id = draft.dir().join("id");
    fs::copy("/usr/bin/id", &id).expect("copy");
    fs::set_permissions(&id, fs::Permissions::from_mode(0o4755)).expect("chmod");
    let layer = draft.commit(&Digest::of(b"suid")).expect("commit");
    let disk = store.create_writable(&handle("web-0"), None, ids(0)).expect("create");
    let merged = lab.dir.join("merged");
    fs::create_dir(&merged).expect("mkdir");
    let [upper, work] = ["upper", "work"].map(|name| disk.join(name));
    let options =
        format!("lowerdir={},upperdir={},workdir={}", text(&layer), text(&upper), text(&work));
    run("mount", &["-t", "overlay", "overlay", "-o", &options, text(&merged)]);
    let out = Command::new(merged.join("id")).arg("-u").uid(1000).gid(1000).output().expect("id");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "0\n");
    // Straight from the store it would not, even if somebody got there.
    let out = Command::new(layer.join("id")).arg("-u").uid(1000).gid(1000).output();
    assert_eq!(out.expect_err("closed off").kind(), io::ErrorKind::PermissionDenied);
    // An overlay keeps the file system, but not its mount: closing says who holds the file, and
    // the next start takes up the same device.
    let held = store.close().expect_err("an overlay is mounted from it");
    assert!(matches!(held, VolumeError::Held { .. }), "{held}");
    let store = lab.open();
    assert_eq!(lab.loops().lines().count(), 1, "attached twice: {}", lab.loops());
    assert_eq!(store.writables().expect("list"), [handle("web-0")]);
    run("umount", &[text(&merged)]);
    lab.close(store);
}
