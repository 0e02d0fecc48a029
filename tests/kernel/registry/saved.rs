//! Archives of images: other tools read them, and what is loaded from one is what was saved.

use super::{Bed, image, text, tool, tree};
use serde_json::Value;
use std::fs;
use std::path::Path;
use terrarium::image::catalog::{self, Keep, Known};
use terrarium::image::work::Wish;
use terrarium::image::{Save, collect, load, load_stream};
use terrarium::log::chain;
use terrarium::unit::Digest;

/// Saves an image under a name; the archive, and the id that it has there.
fn saved(bed: &Bed, image: &Known, name: &str) -> (Vec<u8>, String) {
    let (known, pin) = catalog::find(&bed.store, &image.digest).expect("known");
    let save = Save::new(&bed.store, &known, &[name.to_owned()], pin);
    let save = save.unwrap_or_else(|err| panic!("{}", chain(&err)));
    let mut out = Vec::new();
    save.write(&bed.store, &mut out).unwrap_or_else(|err| panic!("{}", chain(&err)));
    (out, save.id.to_string())
}

#[test]
fn what_is_saved_is_read_by_other_tools_and_is_the_same_again() {
    let bed = Bed::new("save");
    let layout = image(&bed);
    let loaded = load(&bed.store, "docker.io", &layout, Some(&"ops/app".parse().expect("name")));
    let [first] = loaded.expect("loaded").try_into().expect("one image");
    let (known, pin) = catalog::find(&bed.store, &first.digest).expect("known");
    let (bytes, id) = saved(&bed, &known, "reg.lan/ops/app:1");
    assert!(saved(&bed, &known, "reg.lan/ops/app:1") == (bytes.clone(), id.clone()), "twice");
    let archive = bed.lab.dir.join("saved.tar");
    fs::write(&archive, &bytes).expect("write");
    // Under another name, too. What is no file is not read.
    let link = bed.lab.dir.join("link.tar");
    std::os::unix::fs::symlink("saved.tar", &link).expect("link");
    assert_eq!(load(&bed.store, "docker.io", &link, None).expect("loaded").len(), 1);
    let fifo = load(&bed.store, "docker.io", Path::new("/dev/null"), None);
    let said = chain(&fifo.expect_err("a device"));
    assert!(said.contains("neither a directory nor a file"), "{said}");

    // Other tools find the image, and the tree that they make of it is the one that was loaded.
    let from = format!("docker-archive:{}", archive.display());
    let told: Value =
        serde_json::from_str(&tool("skopeo", &["inspect", &from])).expect("JSON of skopeo");
    assert_eq!(told["Layers"].as_array().map(Vec::len), Some(2), "{told}");
    assert_eq!(told["Env"].as_array().and_then(|env| env.last()), Some(&"GREETING=hello".into()));
    let raw = tool("skopeo", &["inspect", "--config", "--raw", &from]);
    let raw: Value = serde_json::from_str(&raw).expect("a configuration");
    assert_eq!(raw["config"]["User"], "app", "{raw}");
    let theirs = bed.lab.dir.join("theirs");
    let again = bed.lab.dir.join("again");
    let to = format!("oci:{}:one", again.display());
    tool("skopeo", &["--insecure-policy", "copy", "-q", &from, &to]);
    tool("umoci", &["unpack", "--image", &to[4..], text(&theirs)]);
    let layers = &known.layers;
    tree::same(&bed.store, &bed.dir("ours"), layers, &theirs.join("rootfs"));
    let original = bed.lab.dir.join("original");
    tool("umoci", &["unpack", "--image", &format!("{}:one", layout.display()), text(&original)]);

    // On a box that has nothing of it, it is what it was, with the id that was told.
    let digest = first.digest;
    drop((first, pin));
    let none = Keep { bytes: Some(0), ..Keep::default() };
    collect(&bed.store, &none, || Some(Default::default())).expect("collect");
    assert_eq!(bed.store.layers().expect("layers"), []);
    assert!(catalog::find(&bed.store, &digest).is_none());
    let loaded = load_stream(
        (&bed.store, &Wish::new(&bed.store)),
        "docker.io",
        &archive,
        &bytes[..],
        None,
        &|_, _| Ok(()),
    );
    let [second] = loaded.unwrap_or_else(|err| panic!("{}", chain(&err))).try_into().expect("one");
    let (known, pin) = catalog::find(&bed.store, &second.digest).expect("known");
    assert_eq!(known.id.to_string(), id);
    assert_eq!(second.names[0].to_string(), "reg.lan/ops/app:1");
    let layers = &known.layers;
    tree::same(&bed.store, &bed.dir("second"), layers, &original.join("rootfs"));
    // What was packed here before is packed the same, and keeps its id.
    assert!(saved(&bed, &known, "reg.lan/ops/app:1") == (bytes.clone(), id));

    // A stream that breaks off leaves nothing.
    drop((second, pin));
    collect(&bed.store, &none, || Some(Default::default())).expect("collect");
    let cut = load_stream(
        (&bed.store, &Wish::new(&bed.store)),
        "docker.io",
        &archive,
        &bytes[..bytes.len() / 2],
        None,
        &|_, _| Ok(()),
    );
    let said = chain(&cut.expect_err("cut"));
    assert!(said.contains("saved.tar"), "{said}");
    assert_eq!(bed.store.layers().expect("layers"), []);
    assert_eq!(fs::read_dir(bed.store.dir().join("tmp")).expect("tmp").count(), 0);
    bed.close();
}

/// Its layers end right after their last file.
#[test]
fn what_umoci_inserts_is_loaded() {
    let bed = Bed::new("insert");
    let (layout, file) = (image(&bed), bed.lab.dir.join("inserted"));
    fs::write(&file, "hello\n").expect("write");
    let name = format!("{}:one", layout.display());
    tool("umoci", &["insert", "--image", &name, text(&file), "/srv/inserted"]);
    let bundle = bed.lab.dir.join("theirs");
    tool("umoci", &["unpack", "--image", &name, text(&bundle)]);
    let loaded = load(&bed.store, "docker.io", &layout, Some(&"ops/app".parse().expect("name")));
    let loaded = loaded.unwrap_or_else(|err| panic!("{}", chain(&err)));
    let (known, pin) = catalog::find(&bed.store, &loaded[0].digest).expect("known");
    assert_eq!(known.diffs.len(), 3);
    tree::same(&bed.store, &bed.dir("ours"), &known.layers, &bundle.join("rootfs"));
    drop((loaded, pin));
    bed.close();
}

/// A tar of nothing.
const EMPTY: [u8; 1024] = [0; 1024];

/// An archive as `docker save` writes it: what `manifest.json` says, and one file.
fn archive(manifest: &Value, file: (&str, &[u8])) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let text = manifest.to_string();
    for (name, data) in [("manifest.json", text.as_bytes()), file] {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, data).expect("append");
    }
    tar.into_inner().expect("archive")
}

/// A configuration of one layer, with so much to say, and the name of its file.
fn config(words: usize, layer: &[u8]) -> (Vec<u8>, String) {
    let text = serde_json::json!({
        "os": "linux",
        "config": { "Labels": { "words": "x".repeat(words) } },
        "rootfs": { "diff_ids": [Digest::of(layer)] },
    });
    let text = text.to_string().into_bytes();
    let name = format!("{}.json", Digest::of(&text).hex());
    (text, name)
}

fn load_error(bed: &Bed, bytes: &[u8]) -> String {
    let loaded = load_stream(
        (&bed.store, &Wish::new(&bed.store)),
        "docker.io",
        Path::new("x.tar"),
        bytes,
        None,
        &|_, _| Ok(()),
    );
    chain(&loaded.expect_err("must be refused"))
}

#[test]
fn an_archive_says_what_is_wrong_with_it_in_harmless_words() {
    let bed = Bed::new("wrong-archives");
    let (text, name) = config(1, b"");
    let one = |config: &str| serde_json::json!([{ "Config": config, "Layers": [] }]);
    let said = load_error(&bed, &archive(&one("\u{1b}[31mred\u{9b}2J\u{202e}"), (&name, &text)));
    assert!(said.contains("[31mred") && !said.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{said}");
    let other = format!("\u{9b}/{}.json", Digest::of(b"other").hex());
    let said = load_error(&bed, &archive(&one(&other), (&other, &text)));
    assert!(said.contains("is damaged") && !said.contains('\u{9b}'), "{said}");
    let said = load_error(&bed, &archive(&one("../../etc/passwd"), (&name, &text)));
    assert!(said.contains("it leads out of the directory or archive"), "{said}");
    let said = load_error(&bed, &archive(&serde_json::json!([]), (&name, &text)));
    assert!(said.contains("names no image"), "{said}");
    let alien = br#"{"os":"linux","architecture":"vax","rootfs":{"diff_ids":[]}}"#;
    let called = format!("{}.json", Digest::of(alien).hex());
    let said = load_error(&bed, &archive(&one(&called), (&called, alien)));
    assert!(said.contains("it has `linux/vax`"), "{said}");
    bed.close();
}

/// One file may be named as often as somebody likes.
#[test]
fn the_configurations_of_an_archive_are_bounded_together() {
    let bed = Bed::new("wordy-archives");
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, name, data).expect("append");
    };
    add("layer.tar", &EMPTY);
    let mut images = Vec::new();
    for more in 0..6 {
        let (text, name) = config((3 << 20) + more, &EMPTY);
        images.push(serde_json::json!({ "Config": name, "Layers": ["layer.tar"] }));
        add(&name, &text);
    }
    add("manifest.json", serde_json::json!(images).to_string().as_bytes());
    let said = load_error(&bed, &tar.into_inner().expect("archive"));
    assert!(said.contains("longer than 16 MiB together; write them to several files"), "{said}");
    bed.close();
}

#[test]
fn of_an_archive_that_is_bad_nothing_is_listed() {
    let bed = Bed::new("half-archives");
    let (good, good_name) = config(1, &EMPTY);
    let (bad, bad_name) = config(2, b"another");
    let mut tar = tar::Builder::new(Vec::new());
    let manifest = serde_json::json!([
        { "Config": good_name, "RepoTags": ["ops/good:1"], "Layers": ["layer.tar"] },
        { "Config": bad_name, "RepoTags": ["ops/bad:1"], "Layers": ["missing.tar"] },
    ]);
    let manifest = manifest.to_string().into_bytes();
    for (name, data) in [
        ("manifest.json", &manifest),
        (&*good_name, &good),
        (&*bad_name, &bad),
        ("layer.tar", &EMPTY.to_vec()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, name, &data[..]).expect("append");
    }
    let bytes = tar.into_inner().expect("archive");
    let said = load_error(&bed, &bytes);
    assert!(said.contains("missing.tar"), "{said}");
    assert_eq!(catalog::list(&bed.store).expect("list"), []);
    bed.close();
}

#[test]
fn a_name_with_a_digest_is_none_and_the_digest_of_an_index_leads_to_its_image() {
    let bed = Bed::new("index");
    let layout = image(&bed);
    // An index of the layout's own, as programs of today write one for several platforms.
    let index = fs::read(layout.join("index.json")).expect("index");
    let inner = Digest::of(&index);
    fs::write(layout.join("blobs/sha256").join(inner.hex()), &index).expect("write");
    let name = format!("reg.lan/ops/app@sha256:{}", "a".repeat(64));
    let outer = serde_json::json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": inner,
        "size": index.len(),
        "annotations": { "io.containerd.image.name": name },
    }]});
    fs::write(layout.join("index.json"), outer.to_string()).expect("write");
    let loaded = load(&bed.store, "docker.io", &layout, None).expect("loaded");
    let [one] = loaded.try_into().expect("one image");
    assert_eq!(one.names, []);
    assert_eq!(catalog::led(&bed.store, &inner), one.digest);
    // No registry is there, and none is asked.
    let pinned = format!("reg.lan/ops/app@{inner}");
    let pulled = bed.pull(&bed.settings(), &pinned).expect("here");
    assert_eq!(pulled.image.digest, one.digest);
    // What the file only says of itself leads nowhere.
    assert!(catalog::meaning(&bed.store, &name.parse().expect("a name")) != Some(one.digest));
    // It was asked for, and stays without a name; what leads to what is gone goes with it.
    let all = Keep::default();
    collect(&bed.store, &all, || Some(Default::default())).expect("collect");
    assert!(catalog::find(&bed.store, &one.digest).is_some());
    let stray: terrarium::unit::ImageRef = "reg.lan/ops/stray:1".parse().expect("a name");
    let (gone, origin) = (Digest::of(b"gone"), catalog::Origin::Registry);
    catalog::name(&bed.store, &stray, &gone, origin).expect("name");
    catalog::alias(&bed.store, &Digest::of(b"index"), &gone, true).expect("alias");
    collect(&bed.store, &all, || Some(Default::default())).expect("collect");
    let count =
        |dir: &str| fs::read_dir(bed.store.dir().join("images").join(dir)).map(Iterator::count);
    assert_eq!((count("names").ok(), count("aliases").ok()), (Some(0), Some(1)));
    bed.close();
}

/// Two archives without names: one is an app's, one was sent by somebody.
#[test]
fn of_images_without_a_name_only_those_that_somebody_loaded_stay() {
    let bed = Bed::new("nameless");
    let [own, sent] = [5, 6].map(|words| {
        let (text, name) = config(words, &EMPTY);
        let all = serde_json::json!([{ "Config": name, "Layers": ["layer.tar"] }]).to_string();
        let mut tar = tar::Builder::new(Vec::new());
        for (name, data) in
            [("manifest.json", all.as_bytes()), (&*name, &text), ("layer.tar", &EMPTY)]
        {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            tar.append_data(&mut header, name, data).expect("append");
        }
        tar.into_inner().expect("archive")
    });
    let path = bed.lab.dir.join("app.tar");
    fs::write(&path, own).expect("write");
    let own = load(&bed.store, "docker.io", &path, None).expect("loaded");
    let sent = load_stream(
        (&bed.store, &Wish::new(&bed.store)),
        "docker.io",
        Path::new("x.tar"),
        &sent[..],
        None,
        &|_, _| Ok(()),
    );
    let [own, sent] = [own, sent.expect("loaded")].map(|all| all[0].digest);
    // Since long.
    for digest in [own, sent] {
        let (known, _pin) = catalog::find(&bed.store, &digest).expect("here");
        catalog::add(&bed.store, &Known { used_ms: 0, ..known }).expect("add");
    }
    let layers = catalog::find(&bed.store, &own).expect("here").0.layers;
    let left = |used: &[Digest]| {
        let used = used.iter().copied().collect();
        terrarium::image::collect(&bed.store, &Keep::default(), || Some(used)).expect("collect");
        [own, sent].map(|digest| catalog::find(&bed.store, &digest).is_some())
    };
    assert_eq!(left(&layers), [true, true], "the app is there");
    assert_eq!(left(&[]), [false, true]);
    bed.close();
}

#[test]
fn of_several_images_each_keeps_its_own_tag_and_none_gets_another_ones() {
    let bed = Bed::new("several-tags");
    let layout = image(&bed);
    let one = format!("{}:one", layout.display());
    tool("umoci", &["config", "--image", &one, "--tag", "two", "--config.env", "X=1"]);
    let load = |name: &str| {
        let name = name.parse().expect("a name");
        load(&bed.store, "docker.io", &layout, Some(&name))
    };
    let said = chain(&load("foo/bar:2").expect_err("of which?"));
    assert!(said.contains("it has 2 images, and foo/bar:2 can be one of them only"), "{said}");
    assert_eq!(catalog::list(&bed.store).expect("list"), []);
    let loaded = load("foo/bar").unwrap_or_else(|err| panic!("{}", chain(&err)));
    let mut names: Vec<String> = loaded.iter().map(|it| it.names[0].to_string()).collect();
    names.sort();
    assert_eq!(names, ["docker.io/foo/bar:one", "docker.io/foo/bar:two"]);
    bed.close();
}

#[test]
fn a_load_that_does_not_fit_leaves_names_what_they_meant() {
    let bed = Bed::new("load-room");
    let name = "reg.lan/ops/app:1".parse().expect("a name");
    let load = |layer: &[u8], most: u64| {
        let (text, config) = config(1, layer);
        let mut tar = tar::Builder::new(Vec::new());
        let manifest = serde_json::json!([{ "Config": config, "Layers": ["layer.tar"] }]);
        let manifest = manifest.to_string();
        let files =
            [("manifest.json", manifest.as_bytes()), (&config, &text), ("layer.tar", layer)];
        for (name, data) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, data).expect("append");
        }
        let bytes = tar.into_inner().expect("archive");
        let keep = Keep { bytes: Some(most), ..Keep::default() };
        let fits = |layers: &[Digest], coming| {
            terrarium::image::check_room(&bed.store, &keep, ("x.tar", layers, coming), None)
        };
        let path = Path::new("x.tar");
        load_stream(
            (&bed.store, &Wish::new(&bed.store)),
            "docker.io",
            path,
            &bytes[..],
            Some(&name),
            &fits,
        )
    };
    let [small, large] = [1 << 20, 3 << 20].map(|size| crate::image::one_file("f", &vec![7; size]));
    let first = load(&small, 2 << 20).unwrap_or_else(|err| panic!("{}", chain(&err)));
    let said = chain(&load(&large, 2 << 20).expect_err("too large"));
    let start =
        "x.tar needs 3MiB in the store; all images may have 2MiB, and 0B are of what is needed";
    assert!(said.starts_with(start) && said.contains("raise `images_max` in [store]"), "{said}");
    assert_eq!(catalog::meaning(&bed.store, &name), Some(first[0].digest));
    // The last that was asked for is the last to go: it fits once the other one has gone.
    let second = load(&large, 3 << 20).unwrap_or_else(|err| panic!("{}", chain(&err)));
    assert_eq!(catalog::meaning(&bed.store, &name), Some(second[0].digest));
    let digest = second[0].digest;
    drop((first, second));
    let keep = Keep { bytes: Some(3 << 20), ..Keep::default() };
    collect(&bed.store, &keep, || Some(Default::default())).expect("collect");
    let left = catalog::list(&bed.store).expect("list");
    assert_eq!(left.iter().map(|(known, _)| known.digest).collect::<Vec<_>>(), [digest]);
    bed.close();
}
