//! Which images go when there is no room, and who waits for whom.

use super::bounds::{COMES, WHOLE, length, until};
use super::*;
use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use terrarium::image::catalog::{self, Keep, Known};
use terrarium::image::preload::preload;
use terrarium::image::work::Wish;
use terrarium::image::{Pulled, collect, import_stack, make_room, pull};
use terrarium::unit::Bytes;
use terrarium::volume::{Store, StoreConfig};

fn small(bed: &Bed, port: u16) -> Pulled {
    let server = Server::start(port, usize::from(port) * 100, |_, _| None);
    bed.pull(&settings(bed), &server.name()).expect("pulled")
}

fn is_here(bed: &Bed, digest: &Digest) -> bool {
    catalog::find(&bed.store, digest).is_some()
}

/// Without a network nobody would bring it again.
#[test]
fn an_image_of_a_file_that_is_there_makes_no_room() {
    let bed = Bed::new("brought");
    let layout = crate::image::lower::layout(&bed.lab, "image", &[&crate::image::lower::base()]);
    preload(&bed.store, "docker.io", &layout.dir).expect("loaded");
    let [(image, _)] = catalog::list(&bed.store).expect("list").try_into().expect("one image");
    let other = small(&bed, 5000).image;
    let made = || {
        make_room(&bed.store, &Keep::default(), Bytes::new(1), || Some(BTreeSet::new()))
            .expect("room")
    };
    assert!(made() > 0);
    assert_eq!((is_here(&bed, &image.digest), is_here(&bed, &other.digest)), (true, false));
    fs::remove_dir_all(&layout.dir).expect("remove");
    assert!(made() > 0);
    assert!(!is_here(&bed, &image.digest));
    bed.close();
}

/// Boxes without a battery begin in 1970; others have been in the future.
#[test]
fn who_was_asked_for_last_stays_whatever_the_clock_says() {
    const FUTURE: u64 = 4_000_000_000_000;
    let cases: [(&str, Option<u64>, Option<u64>, bool); 4] = [
        ("the clock is right", None, None, false),
        ("it went back", None, Some(1), false),
        ("it was in the future", Some(FUTURE), None, false),
        ("the first one is asked for again", None, None, true),
    ];
    for (at, (what, first_ms, second_ms, again)) in cases.into_iter().enumerate() {
        let bed = Bed::new(&format!("clock{at}"));
        let said = |pulled: Pulled, ms: Option<u64>| {
            let image = pulled.image;
            let used_ms = ms.unwrap_or(image.used_ms);
            catalog::add(&bed.store, &Known { used_ms, ..image.clone() }).expect("add");
            image.digest
        };
        let server = Server::start(5000, 500_000, |_, _| None);
        let ask = || bed.pull(&settings(&bed), &server.name()).expect("here");
        let first = said(ask(), first_ms);
        let second = said(small(&bed, 5001), second_ms);
        if again {
            ask();
        }
        // One of the two.
        let keep = Keep { bytes: Some(700_000), ..Keep::default() };
        collect(&bed.store, &keep, || Some(BTreeSet::new())).expect("collect");
        let here = (is_here(&bed, &first), is_here(&bed, &second));
        assert_eq!(here, (again, !again), "{what}");
        bed.close();
    }
}

/// The layer before is in the middle, and no more of it comes.
#[test]
fn when_one_layer_fails_the_others_are_given_up_at_once() {
    let bed = Bed::new("siblings");
    let (stalls, fails) = (crate::image::one_file("a", &noise(WHOLE)), Vec::from([7; 100]));
    let [stalling, failing] = [&stalls, &fails].map(|layer| Digest::of(layer).to_string());
    let comes = bed.store.dir().join("downloads").join(Digest::of(&stalls).hex());
    let server = Server::with(5000, Image::of_two(stalls, &fails), move |asked, image| {
        if asked.path.ends_with(&stalling) {
            return Some(Answer { cut: Some(COMES), stalls: true, ..image.part(asked) });
        }
        asked.path.ends_with(&failing).then(|| {
            until("the other one comes", || length(&comes) == COMES as u64);
            Answer::status(404)
        })
    });
    std::thread::scope(|scope| {
        let (wish, _wisher) = Wish::held(&bed.store);
        let pulls = scope.spawn({
            let (bed, server) = (&bed, &server);
            move || patient(bed, server, &wish).map(drop)
        });
        until("it ends", || pulls.is_finished());
        let said = pulls.join().expect("no panic").expect_err("refused");
        assert!(said.contains("404"), "{said}");
    });
    assert_eq!(fs::read_dir(bed.store.dir().join("tmp")).expect("tmp").count(), 0);
    bed.close();
}

/// By itself no wait ends before a test gives up.
fn patient(bed: &Bed, server: &Server, wish: &Wish) -> Result<Pulled, String> {
    let name = server.name().parse().expect("name");
    let settings = Settings { idle: Duration::from_secs(300), ..settings(bed) };
    pull(&bed.store, &settings, &name, None, wish, &|_, _| ())
        .map_err(|err| terrarium::log::chain(&err))
}

/// A server that falls silent in the middle of a layer that no other has.
fn silent(port: u16) -> Server {
    Server::start(port, WHOLE + usize::from(port), |asked, image| {
        let is_layer = asked.path.ends_with(&Digest::of(&image.layer).to_string());
        is_layer.then(|| Answer { cut: Some(COMES), stalls: true, ..image.part(asked) })
    })
}

fn part(bed: &Bed, server: &Server) -> std::path::PathBuf {
    bed.store.dir().join("downloads").join(server.layer().trim_start_matches("sha256:"))
}

/// As many as are fetched at a time, from registries that say nothing any more.
#[test]
fn files_of_the_box_do_not_wait_for_registries() {
    let bed = Bed::new("own");
    let servers = [5000, 5001, 5002, 5003].map(silent);
    let archive = bed.lab.dir.join("stack.tar");
    fs::write(&archive, crate::image::one_file("file", b"x")).expect("write");
    std::thread::scope(|scope| {
        let wishers = servers.each_ref().map(|server| {
            let (wish, wisher) = Wish::held(&bed.store);
            let bed = &bed;
            scope.spawn(move || patient(bed, server, &wish).map(drop));
            wisher
        });
        let held = || servers.iter().filter(|it| length(&part(&bed, it)) == COMES as u64).count();
        until("two layers are held", || held() >= 2);
        let imports = scope.spawn(|| import_stack(&bed.store, &archive, &mut |_, _| ()).map(drop));
        until("it is imported", || imports.is_finished());
        imports.join().expect("no panic").expect("imported");
        drop(wishers);
    });
    bed.close();
}

/// The loop file is large enough for the whole image before a layer is unpacked; and where it cannot
/// be, nothing is removed for that.
#[test]
fn room_for_an_image_is_made_ahead_of_it_and_nothing_goes_for_that() {
    let Bed { lab, store } = Bed::new("ahead");
    let file = lab.config().file;
    let before = length(&file);
    let bed = Bed { lab, store };
    let server = Server::start(5000, 60 << 20, |asked, image| {
        let is_layer = asked.path.ends_with(&Digest::of(&image.layer).to_string());
        is_layer.then(|| Answer { cut: Some(COMES), stalls: true, ..image.part(asked) })
    });
    std::thread::scope(|scope| {
        let (wish, wisher) = Wish::held(&bed.store);
        let (all, own) = (&bed, &server);
        scope.spawn(move || patient(all, own, &wish).map(drop));
        until("it comes", || length(&part(&bed, &server)) == COMES as u64);
        assert!(length(&file) > before + (300 << 20), "{} of {before}", length(&file));
        drop(wisher);
    });
    let Bed { lab, store } = bed;
    lab.close(store);
    fs::remove_file(&file).expect("remove");
    let narrow = StoreConfig { size_max: Bytes::mib(400), ..lab.config() };
    let bed = Bed { store: Store::open(narrow).expect("open"), lab };
    let is_asked = Arc::new(AtomicBool::new(false));
    let asked = is_asked.clone();
    bed.store.keep_with(move |_| {
        asked.store(true, Ordering::SeqCst);
        false
    });
    let server = Server::start(5001, 60 << 20, |_, _| None);
    bed.pull(&settings(&bed), &server.name()).expect("it fits all the same");
    assert!(!is_asked.load(Ordering::SeqCst), "something was to go");
    bed.close();
}

/// A layer that says something of directories that it does not have, in some 300 KiB.
fn implying(number: usize) -> Vec<u8> {
    implying_in(number, 11)
}

/// The same in so many chains of them, of some 27 KiB each.
fn implying_in(number: usize, chains: usize) -> Vec<u8> {
    let long = "d".repeat(240);
    let deep = |chain: usize| {
        let levels: Vec<_> =
            (0..14).map(|level| format!("{number}-{chain}-{level}-{long}")).collect();
        format!("{}/file", levels.join("/"))
    };
    let add = |tar: crate::image::Tar, chain| {
        tar.pax(&[("path", deep(chain).as_bytes())]).file("file", "x")
    };
    (0..chains).fold(crate::image::Tar::default(), add).end()
}

/// What others have remembered is theirs until they are done; it is waited for, not refused.
#[test]
fn a_layer_for_which_there_is_no_memory_comes_when_others_have_given_theirs_back() {
    let bed = Bed::new("lacking");
    let base = crate::image::one_file("base", b"x");
    let heavy: Vec<Vec<u8>> = (0..8).map(implying).collect();
    let more: Vec<&[u8]> = heavy.iter().map(Vec::as_slice).collect();
    let diffs: Vec<Digest> = [&base[..]].iter().chain(&more).map(|it| Digest::of(it)).collect();
    let image = Image::with(base.clone(), &diffs, &more);
    let lowest = Digest::of(&base).to_string();
    // Its lowest layer never comes; the others wait for that, and keep what they have.
    let holds = Server::with(5000, image, move |asked, image| {
        if asked.path.ends_with(&lowest) {
            return Some(Answer { cut: Some(100), stalls: true, ..image.part(asked) });
        }
        let layer = heavy.iter().find(|it| asked.path.ends_with(&Digest::of(it).to_string()));
        layer.map(|layer| Answer::ok(layer.clone()))
    });
    let large = implying_in(9, 66);
    let lacks = Server::with(5001, Image::of(&large, large.clone()), |_, _| None);
    let drafts = bed.store.dir().join("tmp");
    let drafts = || fs::read_dir(&drafts).expect("tmp").count();
    let wish = Wish::new(&bed.store);
    std::thread::scope(|scope| {
        let (bed, holds, lacks, wish) = (&bed, &holds, &lacks, &wish);
        let first = scope.spawn(move || patient(bed, holds, wish).map(drop));
        // As in the test below.
        until("memory is taken", || first.is_finished() || drafts() == 6);
        let other = scope.spawn(move || patient(bed, lacks, &Wish::default()).map(drop));
        let is_asked = || lacks.count(&lacks.layer()) > 0;
        until("it was tried", || other.is_finished() || (is_asked() && drafts() == 6));
        wish.end();
        assert!(first.join().expect("no panic").is_err());
        other.join().expect("no panic").expect("pulled");
    });
    bed.close();
}

/// Layers that cannot be shown before those below are here take memory: no more are begun when that is
/// much, and all come when the lowest has come.
#[test]
fn what_is_kept_of_layers_that_wait_for_those_below_is_bounded() {
    let bed = Bed::new("waiting");
    let base = crate::image::one_file("base", b"x");
    let heavy: Vec<Vec<u8>> = (0..8).map(implying).collect();
    let more: Vec<&[u8]> = heavy.iter().map(Vec::as_slice).collect();
    let diffs: Vec<Digest> = [&base[..]].iter().chain(&more).map(|it| Digest::of(it)).collect();
    let image = Image::with(base.clone(), &diffs, &more);
    let drafts = bed.store.dir().join("tmp");
    let drafts = move || fs::read_dir(&drafts).expect("tmp").count();
    // Of five who work one has the lowest, each of the others one layer, and the first of them
    // another: two are much.
    const BEGUN_MAX: usize = 6;
    let are_too_many = Arc::new(AtomicBool::new(false));
    let found = are_too_many.clone();
    let lowest = Digest::of(&base).to_string();
    let server = Server::with(5000, image, move |asked, _| {
        if asked.path.ends_with(&lowest) {
            until("as many are begun as may be", || drafts() >= BEGUN_MAX);
            let begin = std::time::Instant::now();
            while begin.elapsed() < Duration::from_secs(5) && drafts() <= BEGUN_MAX {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            found.store(drafts() > BEGUN_MAX, Ordering::SeqCst);
        }
        let layer = heavy.iter().find(|it| asked.path.ends_with(&Digest::of(it).to_string()));
        layer.map(|layer| Answer::ok(layer.clone()))
    });
    let pulled = patient(&bed, &server, &Wish::default()).expect("pulled");
    assert!(!are_too_many.load(Ordering::SeqCst), "more were begun");
    assert_eq!(pulled.image.layers.len(), 9);
    assert!(pulled.image.layers.iter().all(|it| bed.store.layer(it).is_some()));
    assert_eq!(fs::read_dir(bed.store.dir().join("tmp")).expect("tmp").count(), 0);
    drop(pulled);
    bed.close();
}
