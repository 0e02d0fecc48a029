//! What is given up, what is kept for the next time, and what makes room.

mod stalled;

use super::*;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::{Instant, SystemTime};
use terrarium::image::catalog::{self, Keep, Sweep};
use terrarium::image::work::Wish;
use terrarium::image::{Pulled, make_room, pull};
use terrarium::unit::Bytes;
use terrarium::volume::{Store, StoreConfig};

/// Bytes of the layer, and how many come before the server falls silent.
pub const WHOLE: usize = 1 << 20;
pub const COMES: usize = 700_000;

/// Polls, with a bound.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Where each request for the layer wanted it from.
type Ranges = Arc<Mutex<Vec<String>>>;

/// A server that falls silent in the middle of the layer, the first time.
fn silent(port: u16) -> (Server, Ranges) {
    let ranges = Ranges::default();
    let list = ranges.clone();
    let server = Server::start(port, WHOLE, move |asked, image| {
        if !asked.path.ends_with(&Digest::of(&image.layer).to_string()) {
            return None;
        }
        list.lock().expect("lock").push(asked.headers.get("range").cloned().unwrap_or_default());
        let part = image.part(asked);
        (asked.before == 0).then_some(Answer { cut: Some(COMES), stalls: true, ..part })
    });
    (server, ranges)
}

fn part(store: &Store, server: &Server) -> PathBuf {
    store.dir().join("downloads").join(server.layer().trim_start_matches("sha256:"))
}

pub fn length(path: &std::path::Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

fn drafts(store: &Store) -> usize {
    fs::read_dir(store.dir().join("tmp")).expect("tmp").count()
}

fn wanted(bed: &Bed, server: &Server, wish: &Wish) -> Result<Pulled, String> {
    let name = server.name().parse().expect("name");
    // By itself it would not end before a test gives up.
    let settings = Settings { idle: Duration::from_secs(300), ..settings(bed) };
    pull(&bed.store, &settings, &name, None, wish, &|_, _| ())
        .map_err(|err| terrarium::log::chain(&err))
}

#[test]
fn a_pull_that_nobody_wants_ends_and_what_came_is_gone_on_with() {
    let bed = Bed::new("unwanted");
    let (server, ranges) = silent(5000);
    for ends in [Wish::end as fn(&Wish), |_| ()] {
        let wish = Wish::new(&bed.store);
        let text = std::thread::scope(|scope| {
            let pulls = scope.spawn(|| wanted(&bed, &server, &wish).map(drop));
            let path = part(&bed.store, &server);
            until("it comes", || pulls.is_finished() || length(&path) == COMES as u64);
            ends(&wish);
            until("it ends", || pulls.is_finished());
            pulls.join().expect("no panic")
        });
        if wish.is_over() {
            let text = text.expect_err("not wanted");
            assert!(text.contains("nobody wants it any more"), "{text}");
            assert_eq!((drafts(&bed.store), length(&part(&bed.store, &server))), (0, COMES as u64));
        } else {
            text.expect("pulled");
        }
    }
    assert_eq!(*ranges.lock().expect("lock"), ["".to_owned(), format!("bytes={COMES}-")]);
    bed.close();
}

#[test]
fn when_one_of_two_leaves_the_other_gets_the_image_and_nothing_comes_twice() {
    let bed = Bed::new("two");
    let (server, ranges) = silent(5000);
    let (one, other) = (Wish::new(&bed.store), Wish::new(&bed.store));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| wanted(&bed, &server, &one).map(drop));
        let path = part(&bed.store, &server);
        until("it comes", || length(&path) == COMES as u64);
        let second = scope.spawn(|| wanted(&bed, &server, &other).map(drop));
        until("both know what they want", || server.count("/manifests/") == 2);
        one.end();
        until("it ends", || first.is_finished());
        assert!(first.join().expect("no panic").is_err());
        second.join().expect("no panic").expect("pulled");
    });
    assert_eq!(*ranges.lock().expect("lock"), ["".to_owned(), format!("bytes={COMES}-")]);
    bed.close();
}

#[test]
fn the_end_of_the_daemon_ends_all() {
    let bed = Bed::new("ends");
    let (server, _) = silent(5000);
    std::thread::scope(|scope| {
        let pulls = scope.spawn(|| wanted(&bed, &server, &Wish::new(&bed.store)).map(drop));
        let path = part(&bed.store, &server);
        until("it comes", || length(&path) == COMES as u64);
        bed.store.end();
        until("it ends", || pulls.is_finished());
        let text = pulls.join().expect("no panic").expect_err("ended");
        assert!(text.contains("nobody wants it any more"), "{text}");
    });
    assert_eq!(drafts(&bed.store), 0);
    bed.close();
}

/// A daemon that ends, and a box that does: the store is opened anew, or mounted anew.
#[test]
fn half_a_layer_outlives_a_restart_and_a_reboot() {
    for is_reboot in [false, true] {
        let bed = Bed::new(if is_reboot { "reboot" } else { "restart" });
        let (server, ranges) = silent(5000);
        std::thread::scope(|scope| {
            let pulls = scope.spawn(|| wanted(&bed, &server, &Wish::new(&bed.store)).map(drop));
            let path = part(&bed.store, &server);
            until("it comes", || length(&path) == COMES as u64);
            bed.store.end();
            assert!(pulls.join().expect("no panic").is_err());
        });
        let Bed { lab, store } = bed;
        match is_reboot {
            true => lab.close(store),
            false => drop(store),
        }
        let bed = Bed { store: lab.open(), lab };
        bed.pull(&settings(&bed), &server.name()).expect("pulled");
        assert_eq!(*ranges.lock().expect("lock"), ["".to_owned(), format!("bytes={COMES}-")]);
        assert!(!part(&bed.store, &server).exists());
        bed.close();
    }
}

#[test]
fn of_half_layers_only_some_are_kept_and_not_for_ever() {
    let bed = Bed::new("parts");
    let downloads = bed.store.dir().join("downloads");
    fs::create_dir_all(&downloads).expect("directory");
    let make = |name: &str, bytes: usize, age: i64| {
        let path = downloads.join(name);
        fs::write(&path, vec![0; bytes]).expect("write");
        let now = SystemTime::now();
        let span = Duration::from_secs(age.unsigned_abs());
        let time = if age < 0 { now + span } else { now - span };
        File::options()
            .write(true)
            .open(path)
            .and_then(|file| file.set_modified(time))
            .expect("age");
    };
    let hex = |n: u32| Digest::of(&n.to_le_bytes()).hex();
    const DAY: i64 = 24 * 3600;
    make("stray", 1, 0);
    make(&format!("v1-{}", hex(1)), 1, 0);
    make(&hex(2), 1, 8 * DAY);
    // Of times when the clock was wrong: in the future, and before it was set.
    make(&hex(3), 1, -3650 * DAY);
    make(&hex(9), 1, 0);
    File::options()
        .write(true)
        .open(downloads.join(hex(9)))
        .and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(60)))
        .expect("age");
    let server = Server::start(5000, 10, |_, _| None);
    bed.pull(&settings(&bed), &server.name()).expect("pulled");
    let left = || -> Vec<String> {
        let items = fs::read_dir(&downloads).expect("downloads");
        items.map(|item| item.expect("item").file_name().into_string().expect("text")).collect()
    };
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(left()), sorted(vec![hex(3), hex(9)]));
    fs::remove_file(downloads.join(hex(9))).expect("remove");
    // Half of what images may have; the oldest goes.
    (4..8).for_each(|n| make(&hex(n), 300 << 10, i64::from(n) * 60));
    fs::remove_file(downloads.join(hex(3))).expect("remove");
    let keep = Keep { bytes: Some(2 << 20), ..Keep::default() };
    terrarium::image::collect(&bed.store, &keep, || Some(Default::default())).expect("collect");
    let mut left = left();
    left.sort();
    let mut young = [4, 5, 6].map(hex);
    young.sort();
    assert_eq!(left, young);
    bed.close();
}

/// An image with so many MiB, asked for so many hours ago.
fn old_image(bed: &Bed, port: u16, mib: usize, hours: u64) -> Pulled {
    let server = Server::start(port, mib << 20, |_, _| None);
    let pulled = bed.pull(&settings(bed), &server.name()).expect("pulled");
    let used_ms = pulled.image.used_ms - hours * 3_600_000;
    catalog::add(&bed.store, &catalog::Known { used_ms, ..pulled.image.clone() }).expect("add");
    pulled
}

#[test]
fn a_pull_that_does_not_fit_ends_before_its_layers_come_and_the_name_means_what_it_did() {
    let bed = Bed::new("pull-room");
    let small = Server::start(5000, 1 << 20, |_, _| None);
    let first = bed.pull(&settings(&bed), &small.name()).expect("pulled").image.digest;
    let large = Server::start(5001, 8 << 20, |_, _| None);
    let large_name: terrarium::unit::ImageRef = large.name().parse().expect("name");
    catalog::name(&bed.store, &large_name, &first, catalog::Origin::Registry).expect("a name");
    let wish = Wish::new(&bed.store);
    let try_with = |most: u64| {
        let keep = Keep { bytes: Some(most), ..Keep::default() };
        let fits = |layers: &[Digest], coming| {
            terrarium::image::check_room(&bed.store, &keep, ("it", layers, coming), None)
        };
        let asked = (&large_name, None);
        terrarium::image::pull_for_later(
            &bed.store,
            &settings(&bed),
            asked,
            &wish,
            &|_, _| (),
            &fits,
        )
    };
    // Before anything comes, and when only what has come shows it.
    for most in [1 << 10, (8 << 20) - 1] {
        let said = terrarium::log::chain(&try_with(most).expect_err("too large"));
        assert!(said.starts_with("it needs ") && said.contains("`images_max`"), "{said}");
        assert_eq!(catalog::meaning(&bed.store, &large_name), Some(first), "{most}");
        let came = large.count(&large.layer());
        assert_eq!(came, usize::from(most > 1 << 10), "{said}");
    }
    let pulled = try_with(8 << 20).expect("it fits");
    assert_eq!(catalog::meaning(&bed.store, &large_name), Some(pulled.image.digest));
    drop(pulled);
    bed.close();
}

#[test]
fn what_nobody_can_ask_for_goes_at_once_when_that_is_asked_for() {
    let bed = Bed::new("sweep");
    let server = Server::start(5000, 1 << 20, |_, _| None);
    let name: terrarium::unit::ImageRef = server.name().parse().expect("name");
    let digest = bed.pull(&settings(&bed), &server.name()).expect("pulled").image.digest;
    let part = bed.store.dir().join("downloads").join(Digest::of(b"another").hex());
    fs::write(&part, [0; 1000]).expect("write");
    let left = |sweep: Sweep| {
        let keep = Keep { sweep, ..Keep::default() };
        let gone = terrarium::image::collect(&bed.store, &keep, || Some(Default::default()));
        let gone = gone.expect("collect").expect("not kept");
        (gone.bytes, part.exists(), catalog::has(&bed.store, &digest))
    };
    assert_eq!(left(Sweep::Quiet), (0, true, true));
    assert_eq!(left(Sweep::Now), (1000, false, true), "it has a name");
    catalog::forget(&bed.store, &name).expect("forget");
    assert_eq!(left(Sweep::Quiet), (0, false, true), "it may be about to get one");
    assert_eq!(left(Sweep::Now), (1 << 20, false, false));
    bed.pull(&settings(&bed), &server.name()).expect("pulled");
    assert_eq!(left(Sweep::Now), (0, false, true));
    assert_eq!(left(Sweep::All), (1 << 20, false, false));
    bed.close();
}

#[test]
fn images_make_room_for_what_does_not_fit_but_none_that_is_needed() {
    let bed = Bed::new("room");
    let ages = [(5000, 9), (5001, 8), (5002, 7), (5003, 6), (5004, 5)];
    let all = ages.map(|(port, hours)| old_image(&bed, port, 2 + usize::from(port % 5000), hours));
    let [used, pinned, always, old, young] = all;
    let used_layers: std::collections::BTreeSet<Digest> =
        used.image.layers.iter().copied().collect();
    let always_name = "127.0.0.1:5002/a/b:1".parse().expect("name");
    let keep = Keep { always: vec![always_name], ..Keep::default() };
    let kept = pinned.pin.clone();
    let images = [&used, &pinned, &always, &old, &young].map(|pulled| pulled.image.clone());
    drop((used, pinned, always, old, young));
    let made = || {
        let used = used_layers.clone();
        make_room(&bed.store, &keep, Bytes::new(1), || Some(used)).expect("room")
    };
    let freed = made();
    assert_eq!(freed, 11 << 20, "the two that nobody needs");
    let is_here = images.each_ref().map(|image| catalog::find(&bed.store, &image.digest).is_some());
    assert_eq!(is_here, [true, true, true, false, false]);
    // Nothing is left that may go.
    assert_eq!(made(), 0);
    drop(kept);
    assert_eq!(made(), 3 << 20);
    assert!(catalog::find(&bed.store, &images[1].digest).is_none());
    assert_eq!(bed.store.layers().expect("layers").len(), 2);
    bed.close();
}

#[test]
fn the_store_asks_for_room_when_a_disk_does_not_fit() {
    let Bed { lab, store } = Bed::new("asks");
    lab.close(store);
    let small = StoreConfig { size_max: Bytes::mib(700), ..lab.config() };
    let bed = Bed { store: Store::open(small).expect("open"), lab };
    let tar = crate::image::one_file("file", &vec![7; 300 << 20]);
    let mut layer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    layer.write_all(&tar).expect("packed");
    let image = Image::of(&tar, layer.finish().expect("packed"));
    let server = Server::with(5000, image, |_, _| None);
    let image = bed.pull(&settings(&bed), &server.name()).expect("pulled").image;
    let disk: terrarium::unit::Handle = "disk".parse().expect("handle");
    let ids = terrarium::unit::IdMap::Range(terrarium::unit::Slot::new(1).expect("slot").ids());
    let make = || bed.store.create_writable(&disk, Some(Bytes::mib(350)), ids);
    assert!(make().expect_err("no room").is_full());
    let (tell, told) = channel();
    let state = Arc::new(Mutex::new((Some(image.digest), tell)));
    let (dir, asked) = (bed.store.dir().to_owned(), state.clone());
    bed.store.keep_with(move |need| {
        let mut asked = asked.lock().expect("lock");
        asked.1.send(need).expect("told");
        // What `make_room` does, without a second hold on the store.
        let Some(digest) = asked.0.take() else { return false };
        fs::remove_file(dir.join("images").join(format!("{}.json", digest.hex()))).is_ok()
            && image.layers.iter().all(|layer| {
                let layer = dir.join("layers").join(layer.hex());
                crate::volume::run(
                    "btrfs",
                    &["-q", "subvolume", "delete", layer.to_str().expect("text")],
                );
                !layer.exists()
            })
    });
    make().expect("there is room now");
    assert_eq!(told.try_recv(), Ok(Bytes::mib(350)));
    bed.store.remove_writable(&disk).expect("remove");
    bed.close();
}

/// A creation takes an image as `garden` and `cell` do: found, pinned, and then written down.
#[test]
fn an_image_that_is_taken_while_room_is_made_is_whole() {
    let bed = Bed::new("race");
    let server = Server::start(5000, 10_000, |_, _| None);
    for _ in 0..30 {
        let digest = bed.pull(&settings(&bed), &server.name()).expect("pulled").image.digest;
        std::thread::scope(|scope| {
            let makes = scope.spawn(|| {
                make_room(&bed.store, &Keep::default(), Bytes::new(1), || Some(Default::default()))
                    .expect("room")
            });
            while !makes.is_finished() {
                if let Some((image, _pin)) = catalog::find(&bed.store, &digest) {
                    let file = bed.store.layer(&image.layers[0]).expect("a layer").join("file");
                    assert_eq!(fs::metadata(file).expect("a file").len(), 10_000);
                }
            }
        });
    }
    bed.close();
}
