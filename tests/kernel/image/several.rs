//! Layers of one image, made several at a time.

use super::layout::{Layout, Packed};
use super::lower::{base, links};
use super::*;
use std::time::{Duration, Instant};
use terrarium::image::work::Wish;
use terrarium::image::{catalog, import_layout, load, load_wanted};

/// The layers as an image in a directory; its layers in the store.
fn layout(lab: &Lab, name: &str, layers: &[Vec<u8>]) -> (Layout, Vec<Digest>) {
    let layout = Layout::new(lab, name);
    let packed: Vec<_> = layers.iter().map(|tar| (&tar[..], Packed::Gzip)).collect();
    let mut image = layout.image(&packed);
    let name = "reg.lan/ops/app:1";
    image["annotations"] = serde_json::json!({ "io.containerd.image.name": name });
    layout.index(&[image]);
    let mut chains: Vec<Digest> = Vec::new();
    for tar in layers {
        let diff = Digest::of(tar);
        chains.push(chains.last().map_or(diff, |below| below.chain(&diff)));
    }
    (layout, chains)
}

/// Everything that a layer holds.
fn content(store: &Store, chain: &Digest) -> String {
    let dir = store.layer(chain).expect("layer");
    let all = "cd \"$0\" && find . -printf '%P %y %m %U:%G %n %l\n' | sort && getfattr -R -h -d -m - . && \
               find . -type f | sort | xargs -r sha256sum";
    run("sh", &["-c", all, text(&dir)])
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(120), "never: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn drafts(store: &Store) -> usize {
    fs::read_dir(store.dir().join("tmp")).expect("tmp").count()
}

#[test]
fn layers_are_made_beside_one_another_and_are_what_they_are_one_by_one() {
    with_store("several", |lab, store| {
        let own = Tar::default().dir("own", 0o755).file("own/file", "x").end();
        // It says nothing of two directories that it has something in.
        let implies = Tar::default().file("deep/er/new", "y").file("bin/.wh.tool", "").end();
        let layers = [base(), own, links(), implies];
        let (all, chains) = layout(lab, "all", &layers);
        for count in 1..=layers.len() {
            let (one_more, _) = layout(lab, &format!("first-{count}"), &layers[..count]);
            import_layout(store, &one_more.dir).expect("import");
        }
        let expected: Vec<String> = chains.iter().map(|chain| content(store, chain)).collect();
        chains.iter().for_each(|chain| store.remove_layer(chain).expect("remove"));
        std::thread::scope(|scope| {
            // Somebody else makes the lowest one, and takes his time.
            let turn = store.turn(&chains[0]);
            let loads = scope.spawn(|| load(store, "docker.io", &all.dir, None));
            until("the second layer", || loads.is_finished() || store.layer(&chains[1]).is_some());
            assert!(store.layer(&chains[0]).is_none() && !loads.is_finished());
            // What says something of those below is not shown before them.
            assert!(store.layer(&chains[2]).is_none() && store.layer(&chains[3]).is_none());
            drop(turn);
            let loaded = loads.join().expect("no panic");
            assert_eq!(loaded.unwrap_or_else(|err| panic!("{}", chain(&err))).len(), 1);
        });
        for (chain, expected) in chains.iter().zip(expected) {
            assert_eq!(content(store, chain), expected);
        }
        assert_eq!(drafts(store), 0);
    });
}

#[test]
fn a_bad_layer_among_good_ones_is_named_and_leaves_nothing_half_made() {
    with_store("severalbad", |lab, store| {
        let good = |n: usize| one_file(&format!("file-{n}"), &vec![n as u8; 300_000]);
        let bad = Tar::default().file("fine", "x").file("up/../../bad", "x").end();
        let layers = [good(0), good(1), bad.clone(), good(3), good(4)];
        let (all, chains) = layout(lab, "all", &layers);
        let blob = all.layer(&bad, Packed::Gzip)["digest"].as_str().expect("text").to_owned();
        let err = load(store, "docker.io", &all.dir, None).expect_err("refused");
        let said = chain(&err);
        let named =
            format!("cannot unpack layer {blob} of reg.lan/ops/app:1: entry `up/../../bad`");
        assert!(said.contains(text(&all.dir)) && said.contains(&named), "{said}");
        for (at, layer) in chains.iter().enumerate() {
            let Some(dir) = store.layer(layer) else { continue };
            let found = fs::read(dir.join(format!("file-{at}"))).expect("a whole layer");
            assert!(at != 2 && found == vec![at as u8; 300_000], "{at}");
        }
        assert_eq!((drafts(store), catalog::list(store).expect("list").len()), (0, 0));
    });
}

/// A layer for which much is to be remembered: two of them at a time have no memory for that.
fn large(n: usize) -> Vec<u8> {
    let name = |at: usize| format!("{n}-{at}-{}/f", "n".repeat(230));
    let tar = (0..4400)
        .fold(Tar::default(), |tar, at| tar.pax(&[("path", name(at).as_bytes())]).file("f", ""));
    tar.end()
}

/// Each of them is fine. What cannot be shown before the layers below does not keep the memory that others
/// need meanwhile.
#[test]
fn layers_for_which_much_is_remembered_do_not_wait_with_it_for_those_below() {
    with_store("severallarge", |lab, store| {
        let layers = [large(0), large(1), large(2)];
        let (all, chains) = layout(lab, "all", &layers);
        let others = [3, 4, 5].map(|n| layout(lab, &format!("other-{n}"), &[large(n)]).0);
        std::thread::scope(|scope| {
            let turn = store.turn(&chains[0]);
            let loads = scope.spawn(|| load(store, "docker.io", &all.dir, None));
            // Those that are above it are begun meanwhile, or were already.
            for other in &others {
                let made = import_layout(store, &other.dir);
                made.unwrap_or_else(|err| panic!("{}", chain(&err)));
            }
            until("no draft", || drafts(store) == 0);
            assert!(!loads.is_finished());
            drop(turn);
            let loaded = loads.join().expect("no panic");
            assert_eq!(loaded.unwrap_or_else(|err| panic!("{}", chain(&err))).len(), 1);
        });
        assert!(chains.iter().all(|chain| store.layer(chain).is_some()));
    });
}

/// The file comes up whole: in the image it is there once more.
#[test]
fn a_file_of_a_layer_below_that_is_linked_counts_as_the_image_s() {
    with_store("severallinks", |lab, store| {
        let base = one_file("file", &vec![7; 1 << 20]);
        let links = Tar::default().hard_link("alias", "file").end();
        let (all, _) = layout(lab, "all", &[base, links]);
        let load = |bytes: u64| {
            let wish = Wish::new(store).at_most(Bytes::new(bytes));
            load_wanted((store, &wish), "docker.io", &all.dir, None, &|_, _| Ok(()))
        };
        let said = chain(&load(3 << 19).expect_err("too large"));
        assert!(said.contains("entry `alias` does not fit: the image has more than"), "{said}");
        assert_eq!(load(2 << 20).unwrap_or_else(|err| panic!("{}", chain(&err))).len(), 1);
    });
}
