//! Disks that are snapshots of layers.

use super::*;
use std::os::fd::AsFd;

/// A layer with 30 MiB in 40 files.
fn layer(store: &Store) -> Digest {
    let draft = store.draft().expect("draft");
    fs::create_dir(draft.dir().join("d")).expect("mkdir");
    for n in 0..30 {
        fill(&draft.dir().join(format!("d/{n}")), 1).expect("write");
    }
    let chain = Digest::of(b"image");
    draft.commit(&chain).expect("commit");
    chain
}

/// The quota groups of one level, without those of plain subvolumes.
/// Whether the kernel has simple quota (6.7), with which a subvolume counts where it was made. Before,
/// what is made inside a snapshot is outside of its limit: containers are kept from making any.
fn has_simple_quota() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("release");
    let mut parts = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next(), parts.next()) >= (Some(6), Some(7))
}

fn groups(store: &Store, level: &str) -> usize {
    let text = run("btrfs", &["qgroup", "show", "--raw", text(store.dir())]);
    text.lines().filter(|line| line.starts_with(level)).count()
}

fn check_numbers(lab: &Lab, store: Store) {
    let image = layer(&store);
    let (a, b) = (handle("a"), handle("b"));
    let dir = store.create_snapshot(&a, &image, Some(Bytes::mib(20))).expect("create");
    store.create_snapshot(&b, &image, Some(Bytes::mib(20))).expect("create");
    let again = store.create_snapshot(&a, &image, None).expect_err("is there");
    assert!(matches!(again, VolumeError::Exists { .. }), "{again}");
    let fresh = store.usage(&a).expect("usage");
    assert!(fresh.bytes < Bytes::mib(1) && fresh.inodes == 0, "{fresh:?}");
    lab_reopens(lab, store, |store| {
        fill(&dir.join("d/3"), 12).expect("below the limit");
        fs::write(dir.join("new"), "x").expect("write");
        fs::remove_file(dir.join("d/4")).expect("remove");
        let usage = store.usage(&a).expect("usage");
        assert!(usage.bytes >= Bytes::mib(12) && usage.bytes < Bytes::mib(13), "{usage:?}");
        assert_eq!(usage.inodes, 1, "what came with the image does not count");
        let err = fill(&dir.join("large"), 12).expect_err("beyond the limit");
        assert_eq!(err.raw_os_error(), Some(122), "EDQUOT, not {err}");
        store.set_limit(&a, Some(Bytes::mib(40))).expect("raise");
        fill(&dir.join("large"), 12).expect("below the new one");
        let other = store.usage(&b).expect("usage");
        assert!(other.bytes < Bytes::mib(1), "{other:?}");
        // The layer may go first.
        store.remove_layer(&image).expect("remove");
        assert_eq!(fs::metadata(dir.join("d/5")).expect("still there").len(), 1 << 20);
        for one in [&a, &b] {
            store.remove_writable(one).expect("remove");
            store.remove_writable(one).expect("remove what is gone");
        }
    });
}

/// Runs `test` with what the next daemon finds.
fn lab_reopens(lab: &Lab, store: Store, test: impl FnOnce(&Store)) {
    store.close().expect("close");
    let store = lab.open();
    test(&store);
    lab.close(store);
}

#[test]
fn a_snapshot_counts_and_limits_what_differs_from_its_layer() {
    let lab = Lab::new("snapshot");
    check_numbers(&lab, lab.open());
}

#[test]
fn a_snapshot_counts_the_same_with_full_quota() {
    let lab = Lab::new("snapshotfull");
    with_full_quota(&lab.config());
    check_numbers(&lab, lab.open());
}

#[test]
fn a_snapshot_cannot_leave_its_limit_by_subvolumes_and_goes_with_them() {
    let lab = Lab::new("nested");
    let store = lab.open();
    let image = layer(&store);
    let (a, free) = (handle("a"), handle("free"));
    let dir = store.create_snapshot(&a, &image, Some(Bytes::mib(20))).expect("create");
    // As anybody inside could, who is not kept from the request.
    let nested = dir.join("nested");
    run("btrfs", &["subvolume", "create", text(&nested)]);
    run("btrfs", &["subvolume", "snapshot", text(&nested), text(&nested.join("deeper"))]);
    fill(&nested.join("1"), 8).expect("below the limit");
    let beyond = fill(&nested.join("deeper/2"), 20).map_err(|err| err.raw_os_error());
    let fits = if has_simple_quota() { Err(Some(122)) } else { Ok(()) };
    assert_eq!(beyond, fits, "EDQUOT, where subvolumes count where they were made");
    fs::remove_file(nested.join("deeper/2")).expect("remove");
    if !has_simple_quota() {
        // They go with their snapshot all the same.
        store.remove_writable(&a).expect("remove");
        assert_eq!(store.writables().expect("list"), []);
        return lab.close(store);
    }
    assert!(store.usage(&a).expect("usage").bytes >= Bytes::mib(8));
    assert_eq!(groups(&store, "1/"), 1);

    let other = store.create_snapshot(&free, &image, None).expect("create");
    run("btrfs", &["subvolume", "create", text(&other.join("nested"))]);
    let promised = store.create_writable(&handle("promised"), Some(Bytes::mib(500)), ids(1));
    let promised = promised.expect("create").join("upper/large");
    let err = fill(&other.join("nested/large"), 1900).expect_err("some of it is promised");
    assert_eq!(err.raw_os_error(), Some(122), "EDQUOT, not {err}");
    fill(&promised, 450).expect("promised");

    for one in [&a, &free] {
        store.remove_writable(one).expect("remove");
    }
    assert_eq!(store.writables().expect("list"), [handle("promised")]);
    // The first wakes the cleaner.
    store.write_down().expect("sync");
    run("btrfs", &["subvolume", "sync", text(store.dir())]);
    store.write_down().expect("sync");
    assert_eq!(groups(&store, "1/"), 0, "groups go with their disks");
    let missing = store.create_snapshot(&a, &Digest::of(b"missing"), None).expect_err("no layer");
    assert!(said(&missing).contains(&Digest::of(b"missing").hex()), "{}", said(&missing));
    assert_eq!(store.writables().expect("list"), [handle("promised")]);
    lab.close(store);
}

#[test]
fn groups_that_a_killed_daemon_has_left_are_removed_at_the_start() {
    let lab = Lab::new("leftgroups");
    let store = lab.open();
    let image = layer(&store);
    for n in 0..3 {
        store.create_snapshot(&handle(&format!("a{n}")), &image, None).expect("create");
    }
    // Before simple quota a disk is a member of no other group.
    let each = usize::from(has_simple_quota());
    assert_eq!(groups(&store, "1/"), 3 * each);
    for n in 0..2 {
        let dir = store.dir().join("containers").join(format!("a{n}"));
        run("btrfs", &["subvolume", "delete", "--commit-each", text(&dir)]);
    }
    store.write_down().expect("sync");
    run("btrfs", &["subvolume", "sync", text(store.dir())]);
    // Half a disk: made, but not yet counted.
    let place = File::open(store.dir().join("containers")).expect("open");
    let source = File::open(store.layer(&image).expect("layer")).expect("open");
    terrarium::sys::btrfs::create_snapshot(place.as_fd(), "half", source.as_fd()).expect("make");
    drop((place, source));
    lab_reopens(&lab, store, |store| {
        assert_eq!(groups(store, "1/"), each);
        store.remove_writable(&handle("half")).expect("remove");
        store.remove_writable(&handle("a2")).expect("remove");
    });
}
