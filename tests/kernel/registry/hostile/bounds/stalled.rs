//! What goes on while registries say nothing.

use super::*;
use std::num::NonZero;
use std::path::Path;
use std::sync::PoisonError;
use terrarium::image::work::Wish;
use terrarium::image::{import_stack, load, load_stream};

/// Images that are fetched at a time, and how many of their layers find memory for their windows.
const PULLS: u16 = 4;
const WINDOWS: usize = 2;

/// Held by who takes all of something that tests of this process share.
static ALONE: Mutex<()> = Mutex::new(());

/// A tar in zstd, with a window of 8 MiB.
fn packed(tar: &[u8]) -> Vec<u8> {
    let mut zstd = zstd::Encoder::new(Vec::new(), 1).expect("zstd");
    zstd.window_log(23).expect("window");
    zstd.write_all(tar).expect("packed");
    zstd.finish().expect("packed")
}

/// A server that falls silent in the middle of a layer of its own, for ever.
fn stalled(port: u16) -> Server {
    let tar = crate::image::one_file("file", &noise(WHOLE + usize::from(port)));
    let image = Image::of(&tar, packed(&tar));
    Server::with(port, image, |asked, image| {
        let is_layer = asked.path.ends_with(&Digest::of(&image.layer).to_string());
        is_layer.then(|| Answer { cut: Some(COMES), stalls: true, ..image.part(asked) })
    })
}

/// What `docker save` makes of an image.
fn saved(image: &Image) -> Vec<u8> {
    let config = format!("{}.json", Digest::of(&image.config).hex());
    let table = serde_json::json!([{"Config": config, "RepoTags": null, "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    let table = table.to_string();
    let files = [("manifest.json", table.as_bytes()), (&config, &image.config)];
    for (name, data) in files.into_iter().chain([("layer.tar", &*image.layer)]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, data).expect("packed");
    }
    archive.into_inner().expect("packed")
}

/// A client's load, one of a file, and a stack: what each of them takes is there.
fn all_local(bed: &Bed) -> Result<(), String> {
    let said = |err: terrarium::image::ImageError| terrarium::log::chain(&err);
    let sent = packed(&saved(&Image::new(1)));
    load_stream(
        (&bed.store, &Wish::new(&bed.store)),
        "a.lan",
        Path::new("sent"),
        &sent[..],
        None,
        &|_, _| Ok(()),
    )
    .map_err(said)?;
    let archive = bed.lab.dir.join("saved.tar");
    fs::write(&archive, saved(&Image::new(2))).expect("write");
    load(&bed.store, "a.lan", &archive, None).map_err(said)?;
    let stack = bed.lab.dir.join("stack.tar.zst");
    fs::write(&stack, packed(&crate::image::one_file("etc", b"box"))).expect("write");
    import_stack(&bed.store, &stack, &mut |_, _| ()).map(drop).map_err(said)
}

/// Polls, with a bound; whether it came to be.
fn comes(mut is_so: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while !is_so() && begin.elapsed() < Duration::from_secs(120) {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    is_so()
}

#[test]
fn files_and_clients_do_not_wait_for_registries() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let bed = Bed::new("stalled");
    let servers: Vec<Server> = (0..PULLS).map(|at| stalled(5000 + at)).collect();
    let wish = Wish::new(&bed.store);
    let silent = |server: &&Server| length(&part(&bed.store, server)) == COMES as u64;
    let (are_held, is_done, pulling) = std::thread::scope(|scope| {
        let (bed, wish) = (&bed, &wish);
        let pull = |server| scope.spawn(move || wanted(bed, server, wish).map(drop));
        let pulls: Vec<_> = servers.iter().map(pull).collect();
        // All that registries have for windows is taken; the other pulls wait for some.
        let are_held = comes(|| {
            servers.iter().filter(silent).count() == WINDOWS
                && drafts(&bed.store) == usize::from(PULLS)
        });
        let local = scope.spawn(|| all_local(bed));
        let is_done = comes(|| local.is_finished());
        let pulling = pulls.iter().filter(|pull| !pull.is_finished()).count();
        // Whatever came of it: nobody may wait for ever.
        wish.end();
        local.join().expect("no panic").expect("loaded and imported");
        (are_held, is_done, pulling)
    });
    assert!(are_held, "the registries' layers are not on their way");
    assert!(is_done, "who has all that he needs on the box waits for a registry");
    assert_eq!(pulling, usize::from(PULLS));
    assert_eq!(drafts(&bed.store), 0);
    bed.close();
}

/// A server whose image has many layers, and that falls silent in the middle of each, for ever.
fn greedy(port: u16) -> Server {
    let tars: Vec<Vec<u8>> =
        (0..6).map(|at| crate::image::one_file("file", &noise(WHOLE + 4096 * at))).collect();
    let diffs: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
    let layers: Vec<Vec<u8>> = tars.iter().map(|tar| packed(tar)).collect();
    let more: Vec<&[u8]> = layers[1..].iter().map(Vec::as_slice).collect();
    let image = Image::with(layers[0].clone(), &diffs, &more);
    Server::with(port, image, move |asked, _| {
        let is_it = |layer: &&Vec<u8>| asked.path.ends_with(&Digest::of(layer).to_string());
        let layer = layers.iter().find(is_it)?.clone();
        Some(Answer { cut: Some(COMES), stalls: true, ..Answer::ok(layer) })
    })
}

/// It has as many turns as an image may, and the memory for a window, and gives nothing back.
#[test]
fn an_image_whose_registry_is_slow_holds_up_no_other() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let bed = Bed::new("greedy");
    let slow = greedy(5000);
    // Another one than all of those: for one that is the same it would wait.
    let tar = crate::image::one_file("other", &noise(WHOLE));
    let good = Server::with(5001, Image::of(&tar, packed(&tar)), |_, _| None);
    let turns = std::thread::available_parallelism().map_or(1, NonZero::get).clamp(2, 3);
    let wish = Wish::new(&bed.store);
    let (has_turns, is_done, is_slow) = std::thread::scope(|scope| {
        let (bed, slow, good, wish) = (&bed, &slow, &good, &wish);
        let pulls = scope.spawn(move || wanted(bed, slow, wish).map(drop));
        // As many layers come as may; of one there is all that will, as it has the window.
        let parts = || {
            let parts = fs::read_dir(bed.store.dir().join("downloads")).into_iter().flatten();
            let lengths = parts.flatten().map(|part| length(&part.path()));
            lengths.filter(|bytes| *bytes > 0).collect::<Vec<_>>()
        };
        let has_turns = comes(|| parts().len() >= turns && parts().contains(&(COMES as u64)));
        let other = scope.spawn(move || wanted(bed, good, wish).map(drop));
        let is_done = comes(|| other.is_finished());
        let is_slow = !pulls.is_finished();
        wish.end();
        let other = other.join().expect("no panic");
        assert!(!is_done || other.is_ok(), "{other:?}");
        (has_turns, is_done, is_slow)
    });
    assert!(has_turns && is_slow, "the slow one is not on its way");
    assert!(is_done, "it waits for a registry that is another's");
    bed.close();
}

/// Where the layer is not packed, both call it the same.
#[test]
fn a_file_brings_the_very_layer_that_a_registry_owes() {
    let bed = Bed::new("owes");
    let server = Server::start(5000, WHOLE, |asked, image| {
        let is_layer = asked.path.ends_with(&Digest::of(&image.layer).to_string());
        is_layer.then(|| Answer { cut: Some(COMES), stalls: true, ..image.part(asked) })
    });
    let wish = Wish::new(&bed.store);
    let (is_silent, is_done) = std::thread::scope(|scope| {
        let (bed, server, wish) = (&bed, &server, &wish);
        let pull = scope.spawn(move || wanted(bed, server, wish).map(drop));
        let is_silent = comes(|| length(&part(&bed.store, server)) == COMES as u64);
        let archive = saved(&server.image);
        let load = move || {
            load_stream(
                (&bed.store, &Wish::new(&bed.store)),
                "a.lan",
                Path::new("sent"),
                &*archive,
                None,
                &|_, _| Ok(()),
            )
        };
        let load = scope.spawn(load);
        let is_done = comes(|| load.is_finished()) && !pull.is_finished();
        wish.end();
        load.join().expect("no panic").expect("loaded");
        (is_silent, is_done)
    });
    assert!(is_silent, "the layer is not on its way");
    assert!(is_done, "the load waits for the registry");
    bed.close();
}

/// Two archives are taken in at a time. Whoever is the third hears that, and goes with his client.
#[test]
fn a_load_that_waits_for_its_turn_says_so_and_ends_with_who_wants_it() {
    let bed = Bed::new("turns");
    let wishes: Vec<Wish> = (0..3).map(|_| Wish::new(&bed.store)).collect();
    let (tell, told) = std::sync::mpsc::channel();
    // Pipes into which nobody writes.
    let pipes: Vec<_> = (0..3).map(|_| std::io::pipe().expect("pipe")).collect();
    let said = std::thread::scope(|scope| {
        let load = |at: usize| {
            let (bed, pipe, tell) = (&bed, &pipes[at].0, tell.clone());
            let wish = wishes[at].clone().telling(move |why| tell.send(why.into()).expect("told"));
            scope.spawn(move || {
                let (path, fits) = (Path::new("sent"), &|_: &[Digest], _| Ok(()));
                let loaded = load_stream((&bed.store, &wish), "a.lan", path, pipe, None, fits);
                terrarium::log::chain(&loaded.expect_err("nothing comes"))
            })
        };
        let feeding: Vec<_> = (0..2).map(load).collect();
        let are_held = comes(|| drafts(&bed.store) == 2);
        let third = load(2);
        let why: String = told.recv_timeout(Duration::from_secs(120)).expect("told");
        wishes[2].end();
        let said = third.join().expect("no panic");
        let is_feeding = feeding.iter().all(|load| !load.is_finished());
        wishes.iter().for_each(Wish::end);
        // Who reads looks whether it is wanted when something comes.
        for pipe in &pipes {
            (&pipe.1).write_all(b"x").expect("somebody reads");
        }
        for load in feeding {
            load.join().expect("no panic");
        }
        assert!(are_held && is_feeding);
        (why, said)
    });
    assert_eq!(said.0, "2 archives are taken in at a time");
    assert!(said.1.contains("nobody wants it any more"), "{}", said.1);
    assert_eq!((drafts(&bed.store), told.try_iter().count()), (0, 0));
    bed.close();
}
