//! Archives of images as the tools of the field write them, and what is in them that is no image.

use super::layout::{Layout, Packed};
use super::*;
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use terrarium::image::catalog;
use terrarium::image::work::Wish;
use terrarium::image::{ImageError, Loaded, load, load_wanted};

/// A tar of one file, a configuration of it, and the hex of that one's digest.
fn parts(text: &str) -> (Vec<u8>, Vec<u8>, String) {
    let layer = Tar::default().file("file", text).end();
    let config = json!({ "os": "linux", "rootfs": { "diff_ids": [Digest::of(&layer)] } });
    let config = config.to_string().into_bytes();
    let hex = Digest::of(&config).hex();
    (layer, config, hex)
}

/// What `docker save` has in it, with one image.
fn manifest(config: &str, layer: &str) -> Vec<u8> {
    json!([{ "Config": config, "RepoTags": ["ops/app:1"], "Layers": [layer] }])
        .to_string()
        .into_bytes()
}

fn archive(files: &[(&str, &[u8])]) -> Tar {
    let add = |tar: Tar, (name, data): &(&str, &[u8])| tar.raw(b'0', name.as_bytes(), data, |_| ());
    files.iter().fold(Tar::default(), add)
}

/// Loads an archive of these bytes.
fn loaded(lab: &Lab, store: &Store, tar: Tar) -> Result<Vec<Loaded>, ImageError> {
    let path = lab.dir.join("image.tar");
    fs::write(&path, tar.end()).expect("write");
    load(store, "docker.io", &path, None)
}

fn refused(lab: &Lab, store: &Store, tar: Tar) -> String {
    let said = chain(&loaded(lab, store, tar).expect_err("refused"));
    assert_eq!(fs::read_dir(store.dir().join("tmp")).expect("tmp").count(), 0, "{said}");
    said
}

/// crane, ko and kaniko write `sha256:<hex>`, jib `config.json`.
#[test]
fn a_configuration_has_the_name_that_its_writer_gives_it() {
    with_store("configs", |lab, store| {
        let forms = [
            ("docker", "{}.json"),
            ("docker 25", "blobs/sha256/{}"),
            ("crane", "sha256:{}"),
            ("jib", "config.json"),
        ];
        for (tool, form) in forms {
            let (layer, config, hex) = parts(tool);
            let name = form.replace("{}", &hex);
            let manifest = manifest(&name, "layer.tar.gz");
            let packed = lab.dir.join("layer.tar.gz");
            gzip(&layer, &packed);
            let packed = fs::read(&packed).expect("read");
            let files: [(&str, &[u8]); 3] =
                [(&name, &config), ("layer.tar.gz", &packed), ("manifest.json", &manifest)];
            let [one] = loaded(lab, store, archive(&files))
                .unwrap_or_else(|err| panic!("{tool}: {}", chain(&err)))
                .try_into()
                .expect("one image");
            let (known, _pin) = catalog::find(store, &one.digest).expect("known");
            let top = store.layer(&known.layers[0]).expect("a layer");
            assert_eq!(fs::read_to_string(top.join("file")).expect("read"), tool);
            // Where the name is a digest it counts.
            if form.contains("{}") {
                let other = Digest::of(b"other").hex();
                let name = form.replace("{}", &other);
                let manifest = self::manifest(&name, "layer.tar");
                let files: [(&str, &[u8]); 3] =
                    [(&name, &config), ("layer.tar", &layer), ("manifest.json", &manifest)];
                let said = refused(lab, store, archive(&files));
                assert!(said.contains("is damaged: it holds something else"), "{tool}: {said}");
            }
        }
    });
}

/// `docker save` has a link in the place of a layer that is there twice.
#[test]
fn a_layer_that_is_a_link_is_read_inside_the_archive_only() {
    with_store("layerlinks", |lab, store| {
        let canary = Canary::new(lab);
        let (layer, config, hex) = parts("linked");
        fs::write(canary.dir.join("layer.tar"), &layer).expect("write");
        let before = Canary::state(&canary.dir);
        let (name, manifest) =
            (format!("{hex}.json"), manifest(&format!("{hex}.json"), "b/layer.tar"));
        let files: [(&str, &[u8]); 3] =
            [(&name, &config), ("a/layer.tar", &layer), ("manifest.json", &manifest)];
        let outside = text(&canary.dir).to_owned() + "/layer.tar";
        let up = format!("../../../../../../../../../..{outside}");
        for (what, to, why) in [
            ("absolute", &*outside, "it leads out of the directory or archive"),
            ("up", &up, "it leads out of the directory or archive"),
            ("itself", "layer.tar", "ymbolic link"),
            ("nothing", "../a/none.tar", "No such file"),
        ] {
            let said = refused(lab, store, archive(&files).symlink("b/layer.tar", to));
            assert!(said.contains("b/layer.tar") && said.contains(why), "{what}: {said}");
            assert_eq!(catalog::list(store).expect("list"), [], "{what}");
        }
        // So it is with a directory of such files.
        let dir = lab.dir.join("unpacked");
        fs::create_dir_all(dir.join("b")).expect("directory");
        for (name, data) in [(&*name, &config), ("manifest.json", &manifest)] {
            fs::write(dir.join(name), data).expect("write");
        }
        symlink(&outside, dir.join("b/layer.tar")).expect("link");
        let said = chain(&load(store, "docker.io", &dir, None).expect_err("leads out"));
        assert!(said.contains("it leads out of the directory or archive"), "{said}");
        let within = archive(&files).symlink("b/layer.tar", "../a/layer.tar");
        let [one] = loaded(lab, store, within)
            .unwrap_or_else(|err| panic!("{}", chain(&err)))
            .try_into()
            .expect("one image");
        assert_eq!(one.names[0].to_string(), "docker.io/ops/app:1");
        assert_eq!(Canary::state(&canary.dir), before);
    });
}

#[test]
fn an_archive_of_the_oldest_form_is_refused_by_name() {
    with_store("oldest", |lab, store| {
        let (layer, ..) = parts("old");
        let repositories = br#"{"ops/app":{"1":"aa"}}"#;
        let files: [(&str, &[u8]); 4] = [
            ("aa/VERSION", b"1.0"),
            ("aa/json", br#"{"id":"aa"}"#),
            ("aa/layer.tar", &layer),
            ("repositories", repositories),
        ];
        let said = refused(lab, store, archive(&files));
        assert!(
            said.contains("as docker before 1.10 saved images") && said.contains("save it again")
        );
    });
}

/// What a layout may have beside images: a signature of cosign, another artifact, an image of another box
/// that says so only inside, and what is named by a digest that is not read here.
fn odd(layout: &Layout) -> Vec<(Value, &'static str)> {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let put = |config: Value, layers: Vec<Value>| {
        let text = json!({ "schemaVersion": 2, "config": config, "layers": layers }).to_string();
        layout.blob(MANIFEST, text.as_bytes())
    };
    let paper = layout.blob("application/vnd.dev.cosign.simplesigning.v1+json", b"{}");
    let config = |arch: &str, diff: &[u8]| {
        let text = json!({ "os": "linux", "architecture": arch,
            "rootfs": { "type": "layers", "diff_ids": [Digest::of(diff)] } });
        layout.blob("application/vnd.oci.image.config.v1+json", text.to_string().as_bytes())
    };
    let empty = layout.blob("application/vnd.oci.empty.v1+json", b"{}");
    let layer = Tar::default().file("file", "alien").end();
    let alien = put(config("s390x", &layer), vec![layout.layer(&layer, Packed::Plain)]);
    let long = json!({ "mediaType": MANIFEST, "digest": format!("sha512:{}", "a".repeat(128)), "size": 9 });
    vec![
        (put(config("", b"{}"), vec![paper.clone()]), "is no file system but"),
        (put(empty, vec![paper]), "it is no image of a container"),
        (alien, "the image is for linux/s390x"),
        (long, "the digest of an image"),
    ]
}

#[test]
fn what_is_no_image_of_this_box_is_passed_over_in_a_layout() {
    with_store("oddities", |lab, store| {
        let layout = Layout::new(lab, "odd");
        let odd = odd(&layout);
        let good = Tar::default().file("file", "good").end();
        let good = layout.image(&[(&good, Packed::Gzip)]);
        let digest = good["digest"].as_str().expect("text").to_owned();
        for (entry, why) in &odd {
            layout.index(&[entry.clone(), good.clone()]);
            let all =
                load(store, "docker.io", &layout.dir, Some(&"ops/app:1".parse().expect("name")));
            let [one] = all
                .unwrap_or_else(|err| panic!("{why}: {}", chain(&err)))
                .try_into()
                .expect("one image");
            assert_eq!(one.digest.to_string(), digest, "{why}");
            // With nothing else, it is an error, and that says what there was.
            layout.index(std::slice::from_ref(entry));
            let said = chain(&load(store, "docker.io", &layout.dir, None).expect_err(why));
            assert!(
                said.contains("no image that runs on this box") && said.contains(why),
                "{said}"
            );
        }
        // What is broken is not passed over: nobody knows what it was.
        fs::write(layout.path(&digest.parse().expect("digest")), "{").expect("write");
        layout.index(&[odd[0].0.clone(), good]);
        let said = chain(&load(store, "docker.io", &layout.dir, None).expect_err("broken"));
        assert!(said.contains(&digest) || said.contains("bytes long"), "{said}");
    });
}

/// A gzip of a thousandth of what is in it: it ends where the disk of what is made of it would be full.
#[test]
fn an_image_that_grows_beyond_its_disk_ends_there() {
    with_store("growing", |lab, store| {
        let layers = [b'a', b'b']
            .map(|byte| Tar::default().raw(b'0', &[byte], &vec![byte; 3 << 20], |_| ()).end());
        let layout = Layout::new(lab, "growing");
        layout.index(&[layout.image(&[(&layers[0], Packed::Gzip), (&layers[1], Packed::Gzip)])]);
        let always = |_: &[Digest], _: u64| Ok(());
        let load = |mib: u64| {
            let wish = Wish::new(store).at_most(Bytes::mib(mib));
            load_wanted((store, &wish), "docker.io", &layout.dir, None, &always)
        };
        let said = chain(&load(5).expect_err("too large"));
        // Both are unpacked at once: whichever comes later finds no room.
        let parts =
            ["does not fit", "more than 5MiB, which is all of `disk`", "write a larger `disk`"];
        for part in parts {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(said.contains("entry `a`") != said.contains("entry `b`"), "{said}");
        assert_eq!(fs::read_dir(store.dir().join("tmp")).expect("tmp").count(), 0);
        assert_eq!(catalog::list(store).expect("list"), []);
        assert_eq!(load(6).unwrap_or_else(|err| panic!("{}", chain(&err))).len(), 1);
    });
}

/// Sizes that the manifest tells are asked about before anything is unpacked.
#[test]
fn an_image_that_says_that_it_is_too_large_is_not_unpacked() {
    with_store("saidlarge", |lab, store| {
        let layer = Tar::default().raw(b'0', b"f", &vec![7; 3 << 20], |_| ()).end();
        let layout = Layout::new(lab, "large");
        layout.index(&[layout.image(&[(&layer, Packed::Plain)])]);
        let fits = |layers: &[Digest], coming: u64| {
            assert_eq!(layers, []);
            assert!(coming > 2 << 20 && coming < 3 << 20, "{coming}");
            let (image, disk) = ("large".to_owned(), Bytes::mib(2));
            Err(ImageError::TooLarge { image, bytes: coming, disk })
        };
        let wish = Wish::new(store);
        let loaded = load_wanted((store, &wish), "docker.io", &layout.dir, None, &fits);
        let said = chain(&loaded.expect_err("too large"));
        assert!(
            said.starts_with("large has 3MiB and counts as part of `disk`, which is 2MiB"),
            "{said}"
        );
        assert_eq!(store.layers().expect("layers"), []);
    });
}

/// Pids come again; what one of them has left is swept all the same.
#[test]
fn drafts_of_a_daemon_with_the_same_pid_are_swept() {
    with_store("stale", |lab, store| {
        let (layer, config, hex) = parts("stale");
        let (name, manifest) =
            (format!("{hex}.json"), manifest(&format!("{hex}.json"), "layer.tar"));
        let files: [(&str, &[u8]); 3] =
            [(&name, &config), ("layer.tar", &layer), ("manifest.json", &manifest)];
        let all = loaded(lab, store, archive(&files)).expect("loaded");
        let stale =
            |dir: &str| store.dir().join(dir).join(format!("x.{}-0.new", std::process::id()));
        let stale = ["images", "images/names", "images/aliases"].map(stale);
        for path in &stale {
            fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
            fs::write(path, "half").expect("write");
        }
        let keep = catalog::Keep::default();
        terrarium::image::collect(store, &keep, || Some(Default::default())).expect("collect");
        assert!(stale.iter().all(|path| !path.exists()));
        assert!(catalog::find(store, &all[0].digest).is_some());
    });
}
