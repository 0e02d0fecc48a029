//! What disks hold, other limits for them, and disks without one; with either kind of quota.

use super::*;
use std::time::{Duration, Instant};

/// Runs `test` with a store of each kind of quota.
fn with_both(name: &str, test: impl Fn(&Lab, Store)) {
    let lab = Lab::new(name);
    test(&lab, lab.open());
    drop(lab);
    let lab = Lab::new(&format!("{name}-full"));
    with_full_quota(&lab.config());
    test(&lab, lab.open());
}

#[test]
fn usage_follows_what_is_written_in_time_and_counts_only_what_is_the_containers() {
    with_both("usage", |lab, store| {
        let (a, b) = (handle("a"), handle("b"));
        let dir = store.create_writable(&a, Some(Bytes::mib(50)), ids(0)).expect("create");
        store.create_writable(&b, None, ids(1)).expect("create");
        let fresh = store.usage(&a).expect("usage");
        assert!(fresh.bytes < Bytes::mib(1) && fresh.inodes == 0, "{fresh:?}");
        let begin = Instant::now();
        fs::write(dir.join("upper/large"), vec![7; 10 << 20]).expect("write");
        fs::create_dir_all(dir.join("upper/d/e")).expect("mkdir");
        std::os::unix::fs::symlink("x", dir.join("upper/d/s")).expect("symlink");
        fs::hard_link(dir.join("upper/large"), dir.join("upper/d/again")).expect("link");
        // Nobody syncs but who asks.
        let mut usage = fresh;
        while usage.inodes != 4 || usage.bytes < Bytes::mib(10) {
            assert!(begin.elapsed() < Duration::from_secs(15), "{usage:?}");
            std::thread::park_timeout(Duration::from_millis(100));
            usage = store.usage(&a).expect("usage");
        }
        assert!(usage.bytes < Bytes::mib(11), "{usage:?}");
        let other = store.usage(&b).expect("usage");
        assert!(other.bytes < Bytes::mib(1) && other.inodes == 0, "{other:?}");
        store.remove_writable(&a).expect("remove");
        assert!(matches!(store.usage(&a), Err(VolumeError::Absent { .. })));
        store.close().expect("close");
        assert!(!lab.mounted());
    });
}

#[test]
fn many_inodes_are_counted_across_all_pieces_of_the_tree() {
    let lab = Lab::new("inodes");
    let store = lab.open();
    let dir = store.create_writable(&handle("a"), None, ids(0)).expect("create");
    for n in 0..3000 {
        // Small ones lie in the tree itself.
        fs::write(dir.join(format!("upper/{n}")), vec![7; n % 1500]).expect("write");
    }
    assert_eq!(store.usage(&handle("a")).expect("usage").inodes, 3000);
    lab.close(store);
}

#[test]
fn another_limit_holds_at_once_and_keeps_the_promises() {
    with_both("relimit", |lab, store| {
        let a = handle("a");
        let dir = store.create_writable(&a, Some(Bytes::mib(20)), ids(0)).expect("create");
        let full = |name: &str, mib| fill(&dir.join("upper").join(name), mib);
        full("1", 30).expect_err("beyond the first limit");
        store.set_limit(&a, Some(Bytes::mib(60))).expect("raise");
        full("2", 30).expect("below the second");
        store.set_limit(&a, Some(Bytes::mib(5000))).expect_err("more than there can be");
        full("3", 30).expect_err("beyond the second, which stays");
        store.set_limit(&a, Some(Bytes::mib(10))).expect("below what is used");
        full("4", 1).expect_err("nothing more");
        store.set_limit(&a, None).expect("lift");
        full("5", 80).expect("no limit");
        store.ensure_room(Bytes::mib(1000)).expect("nobody has it yet");
        store.set_limit(&a, Some(Bytes::mib(1200))).expect("a limit again");
        store.ensure_room(Bytes::mib(1000)).expect_err("promised");
        // As the next daemon finds it.
        store.close().expect("close");
        let store = lab.open();
        store.ensure_room(Bytes::mib(1000)).expect_err("still promised");
        full("6", 300).expect("below the limit");
        assert!(matches!(store.set_limit(&handle("b"), None), Err(VolumeError::Absent { .. })));
        lab.close(store);
    });
}

/// A store that is soon full.
fn small(lab: &Lab) -> Store {
    Store::open(StoreConfig { size_max: Bytes::mib(1000), ..lab.config() }).expect("open")
}

#[test]
fn disks_without_a_limit_get_what_is_left_and_never_what_is_promised() {
    with_both("unlimited", |lab, store| {
        store.close().expect("close");
        let store = small(lab);
        let make = |name: &str, limit: Option<u64>, slot| {
            store.create_writable(&handle(name), limit.map(Bytes::mib), ids(slot))
        };
        let free = make("free", None, 0).expect("create");
        // Ready before it is written: a writer cannot wait.
        fill(&free.join("upper/1"), 200).expect("there is room");
        let promised = make("promised", Some(250), 1).expect("create");
        let also = make("also", None, 2).expect("create");
        let err = fill(&free.join("upper/2"), 900).expect_err("that is not there");
        assert_eq!(err.raw_os_error(), Some(122), "EDQUOT, not {err}");
        let err = fill(&also.join("upper/1"), 900).expect_err("for nobody");
        assert_eq!(err.raw_os_error(), Some(122), "EDQUOT, not {err}");
        fill(&promised.join("upper/large"), 220).expect("promised");
        // The next daemon knows.
        store.close().expect("close");
        let store = small(lab);
        store.keep_ahead();
        fill(&also.join("upper/2"), 900).expect_err("still not there");
        fill(&promised.join("upper/rest"), 20).expect("promised");
        for name in ["1", "2"] {
            fs::remove_file(free.join("upper").join(name)).expect("remove");
        }
        store.write_down().expect("sync");
        fill(&also.join("upper/3"), 100).expect("what others gave back is there again");
        // Who gets a limit takes part of it away from the others, up to all of it.
        store.remove_writable(&handle("promised")).expect("remove");
        // The first wakes the cleaner.
        store.write_down().expect("sync");
        run("btrfs", &["subvolume", "sync", text(store.dir())]);
        store.write_down().expect("sync");
        // What btrfs takes for its trees between the look and the promise is not there any more.
        let all = (0..10).find_map(|_| {
            let left = store.left().expect("measure");
            store.create_writable(&handle("large"), Some(left), ids(3)).ok()
        });
        all.expect("all that is left");
        fill(&free.join("upper/3"), 400).expect_err("it is somebody's");
        lab.close(store);
    });
}

#[test]
fn a_store_without_limits_stays_so_and_keeps_its_promises_through_a_restart() {
    with_both("nolimit", |lab, store| {
        // From a time with limits: one in the pool, one beside it.
        let ids = ids(0);
        store.create_writable(&handle("pooled"), None, ids).expect("create");
        let kept = store.create_writable(&handle("kept"), Some(Bytes::mib(20)), ids);
        let kept = kept.expect("create");
        store.close().expect("close");
        let open = || {
            let config = StoreConfig { size_max: Bytes::mib(1000), ..lab.config() };
            Store::open(StoreConfig { limited: false, ..config }).expect("open")
        };
        let mut store = open();
        let asked = store.create_writable(&handle("asked"), Some(Bytes::mib(300)), ids);
        let asked = asked.expect("create");
        let free = store.create_writable(&handle("free"), None, ids).expect("create");
        let limits = || run("btrfs", &["qgroup", "show", "--raw", "-e", text(&lab.config().dir)]);
        for _ in 0..2 {
            assert!(!store.keep_ahead(), "nobody takes from a pool");
            let left = store.left().expect("measure");
            store.ensure_room(left.saturating_add(Bytes::mib(100))).expect_err("promised");
            // `kept` alone.
            let armed = limits().lines().filter(|line| line.contains("20971520")).count();
            let none = limits().lines().filter(|line| line.contains("none")).count();
            assert_eq!((armed, none), (1, limits().lines().count() - 3), "{}", limits());
            fill(&asked.join("upper/1"), 50).expect("below what was asked");
            store.close().expect("close");
            store = open();
        }
        let left = store.left().expect("measure");
        assert!(left < Bytes::mib(600), "300 MiB are promised: {left}");
        fill(&asked.join("upper/1"), 400).expect("beyond what was asked");
        fs::remove_file(asked.join("upper/1")).expect("remove");
        fill(&free.join("upper/1"), 100).expect("no limit");
        fill(&kept.join("upper/1"), 30).expect_err("it was made with a limit");
        // Another limit limits nothing here, and is promised.
        store.set_limit(&handle("kept"), Some(Bytes::mib(10))).expect("promise");
        store.set_limit(&handle("asked"), None).expect("promise nothing");
        fill(&kept.join("upper/1"), 30).expect("no limit any more");
        // btrfs closes parts that are empty now for a moment, to take them back.
        let freed = (0..100).any(|_| {
            store.write_down().expect("sync");
            let freed = store.left().expect("measure") > left;
            if !freed {
                std::thread::park_timeout(Duration::from_millis(50));
            }
            freed
        });
        assert!(freed, "it is free again");
        store.close().expect("close");
        lab.close(open());
        // With limits again, what was made without takes from the pool.
        let store = small(lab);
        assert!(store.keep_ahead());
        let err = fill(&asked.join("upper/2"), 900).expect_err("not without end");
        assert_eq!(err.raw_os_error(), Some(122), "EDQUOT, not {err}");
        lab.close(store);
    });
}

#[test]
fn a_pool_that_is_empty_has_nothing_for_who_comes_after_a_restart() {
    with_both("emptypool", |lab, store| {
        store.create_writable(&handle("first"), None, ids(0)).expect("create");
        store.remove_writable(&handle("first")).expect("remove");
        store.close().expect("close");
        let store = small(lab);
        let left = store.left().expect("measure");
        let most = Bytes::new(left.get() / 2);
        store.create_writable(&handle("promised"), Some(most), ids(1)).expect("create");
        store.create_writable(&handle("free"), None, ids(2)).expect("create");
        let groups = run("btrfs", &["qgroup", "show", "--raw", "-e", text(store.dir())]);
        let pool = groups.lines().find(|line| line.starts_with("2/")).expect("a pool");
        let limit: u64 = pool.split_whitespace().nth(3).expect("limit").parse().expect("number");
        assert!(limit < left.get() / 4 * 3, "{limit} of {left}: {groups}");
        lab.close(store);
    });
}

#[test]
fn a_limit_that_cannot_be_set_leaves_the_disk_as_it_was() {
    with_both("undo", |lab, store| {
        let (a, dir) = (handle("a"), text(store.dir()).to_owned());
        let disk = store.create_writable(&a, None, ids(0)).expect("create");
        // The pool's group disappears below it.
        let shown = run("btrfs", &["qgroup", "show", "-p", &dir]);
        let pool = shown.lines().find(|line| line.starts_with("2/")).expect("a pool");
        let pool = pool.split(' ').next().expect("id").to_owned();
        let own = shown.lines().find(|line| line.contains(&format!(" {pool} ")));
        let own = own.and_then(|line| line.split(' ').next()).expect("its member").to_owned();
        run("btrfs", &["qgroup", "remove", "--no-rescan", &own, &pool, &dir]);
        run("btrfs", &["qgroup", "destroy", &pool, &dir]);
        store.set_limit(&a, Some(Bytes::mib(20))).expect_err("it cannot leave the pool");
        assert!(store.keep_ahead(), "it is in the pool");
        fill(&disk.join("upper/1"), 40).expect("it has no limit of its own");
        let shown = run("btrfs", &["qgroup", "show", "-p", &dir]);
        let line = shown.lines().find(|line| line.starts_with(&format!("{own} "))).expect("its");
        assert!(line.contains(&pool), "{shown}");
        store.set_limit(&a, Some(Bytes::mib(60))).expect("again");
        fill(&disk.join("upper/2"), 40).expect_err("beyond it");
        lab.close(store);
    });
}

#[test]
fn half_a_disk_that_stays_keeps_its_promise() {
    let lab = Lab::new("halfdisk");
    let store = small(&lab);
    let places = store.dir().join("containers");
    // Nothing can be put into it: the directories that it needs are refused, and it cannot go.
    let before = store.left().expect("measure");
    let layer = Digest::of(b"layer");
    store.draft().expect("draft").commit(&layer).expect("commit");
    let ids_used =
        run("btrfs", &["inspect-internal", "rootid", text(&store.layer(&layer).expect("it"))]);
    let next = ids_used.trim().parse::<u64>().expect("id") + 1;
    run("btrfs", &["qgroup", "create", &format!("1/{next}"), text(store.dir())]);
    run("chattr", &["+a", text(&places)]);
    let made = store.create_snapshot(&handle("half"), &layer, Some(Bytes::mib(300)));
    let err = made.expect_err("its group is there already");
    run("chattr", &["-a", text(&places)]);
    assert_eq!(store.writables().expect("list"), [handle("half")], "{}", said(&err));
    let left = store.left().expect("measure");
    assert!(left.saturating_add(Bytes::mib(200)) < before, "{left} of {before}");
    store.remove_writable(&handle("half")).expect("remove");
    let left = store.left().expect("measure");
    assert!(left.saturating_add(Bytes::mib(100)) > before, "{left} of {before}");
    lab.close(store);
}

#[test]
fn what_is_no_disk_is_left_out_at_the_start() {
    let lab = Lab::new("nodisk");
    let store = lab.open();
    fs::create_dir(store.dir().join("containers/plain")).expect("mkdir");
    store.close().expect("close");
    let store = lab.open();
    let groups = run("btrfs", &["qgroup", "show", "-p", text(store.dir())]);
    assert!(!groups.contains("2/"), "{groups}");
    assert!(matches!(store.usage(&handle("plain")), Err(VolumeError::Absent { .. })));
    store.remove_writable(&handle("plain")).expect("remove");
    lab.close(store);
}

#[test]
fn promises_hold_while_many_write_without_a_limit() {
    let lab = Lab::new("storm");
    let store = small(&lab);
    let make = |name: &str, limit: Option<u64>, slot| {
        let made = store.create_writable(&handle(name), limit.map(Bytes::mib), ids(slot));
        made.map(|dir| dir.join("upper/large"))
    };
    let free: Vec<_> =
        (0..3).map(|n| make(&format!("free{n}"), None, n).expect("create")).collect();
    let promised: Vec<_> = std::thread::scope(|scope| {
        for large in &free {
            // Until there is no more.
            scope.spawn(move || fill(large, 4000).expect_err("not without end"));
        }
        let made = (0..20).filter_map(|n| make(&format!("p{n}"), Some(50), 10 + n).ok());
        made.collect()
    });
    assert!(!promised.is_empty());
    for large in promised {
        let err = fill(&large, 60).expect_err("beyond the limit");
        assert_eq!(err.raw_os_error(), Some(122), "EDQUOT, not {err}");
        assert!(fs::metadata(&large).expect("stat").len() >= 45 << 20);
    }
    lab.close(store);
}

#[test]
fn what_is_ready_for_disks_without_a_limit_goes_with_them() {
    let lab = Lab::new("ahead");
    let store = lab.open();
    let len = || fs::metadata(lab.config().file).expect("stat").len() >> 20;
    store.create_writable(&handle("a"), None, ids(0)).expect("create");
    let ahead = len();
    assert!(ahead >= 768, "{ahead}");
    assert!(!store.give_back().expect("look"), "it is still there");
    assert_eq!(len(), ahead);
    store.remove_writable(&handle("a")).expect("remove");
    store.write_down().expect("sync");
    assert!(store.give_back().expect("shrink"));
    assert!(len() < 600, "{}", len());
    lab.close(store);
}
