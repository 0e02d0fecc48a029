//! Images in the form of the OCI layout, sound and otherwise.

use super::*;
use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use terrarium::image::import_layout;

/// A layout under construction.
pub struct Layout {
    pub dir: PathBuf,
}

/// How a layer's tar is kept in its blob.
#[derive(Clone, Copy)]
pub enum Packed {
    Plain,
    Gzip,
    Zstd,
}

impl Layout {
    pub fn new(lab: &Lab, name: &str) -> Layout {
        let dir = lab.dir.join(name);
        fs::create_dir_all(dir.join("blobs/sha256")).expect("mkdir");
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write");
        Layout { dir }
    }

    /// Adds a blob; its descriptor.
    pub fn blob(&self, kind: &str, data: &[u8]) -> serde_json::Value {
        let digest = Digest::of(data);
        fs::write(self.path(&digest), data).expect("write");
        serde_json::json!({ "mediaType": kind, "digest": digest, "size": data.len() })
    }

    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// Adds an image; its descriptor.
    pub fn image(&self, layers: &[(&[u8], Packed)]) -> serde_json::Value {
        let blobs: Vec<_> = layers.iter().map(|(tar, how)| self.layer(tar, *how)).collect();
        let diffs: Vec<_> = layers.iter().map(|(tar, _)| Digest::of(tar)).collect();
        self.image_of(&blobs, &diffs)
    }

    pub fn image_of(&self, blobs: &[serde_json::Value], diffs: &[Digest]) -> serde_json::Value {
        let config = serde_json::json!({
            "architecture": architecture(), "os": "linux",
            "config": { "Env": ["PATH=/bin", "LANG=C"] },
            "rootfs": { "type": "layers", "diff_ids": diffs },
        });
        let config =
            self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": blobs });
        self.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes())
    }

    pub fn layer(&self, tar: &[u8], how: Packed) -> serde_json::Value {
        let file = self.dir.join("packed");
        match how {
            Packed::Plain => fs::write(&file, tar).expect("write"),
            Packed::Gzip => gzip(tar, &file),
            Packed::Zstd => zstd(tar, &file),
        }
        self.blob("application/vnd.oci.image.layer.v1.tar", &fs::read(&file).expect("read"))
    }

    pub fn index(&self, manifests: &[serde_json::Value]) {
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": manifests });
        fs::write(self.dir.join("index.json"), index.to_string()).expect("write");
    }
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

#[test]
fn an_image_is_a_chain_of_layers_that_others_share() {
    with_store("layout", |lab, store| {
        let base = Tar::default().dir("etc", 0o755).file("etc/a", "aa").file("etc/b", "b").end();
        let next = Tar::default().file("etc/.wh.a", "").file("etc/c", "ccc").end();
        let other = Tar::default().file("etc/d", "dddd").end();
        let layout = Layout::new(lab, "image");
        let mut one = layout.image(&[(&base, Packed::Gzip), (&next, Packed::Zstd)]);
        let mut two = layout.image(&[(&base, Packed::Gzip), (&other, Packed::Plain)]);
        for (image, tag) in [(&mut one, "one"), (&mut two, "two")] {
            image["annotations"] =
                BTreeMap::from([("org.opencontainers.image.ref.name", tag)]).into_iter().collect();
        }
        // An index within the index, and images for other boxes.
        let mut foreign = one.clone();
        foreign["platform"] = serde_json::json!({ "os": "windows", "architecture": "amd64" });
        let nested = serde_json::json!({ "manifests": [foreign, one] }).to_string();
        let nested = layout.blob("application/vnd.oci.image.index.v1+json", nested.as_bytes());
        layout.index(&[nested, one.clone(), two]);

        let first = import_layout(store, &layout.dir).expect("import");
        let lowest = Digest::of(&base);
        assert_eq!(first.layers, [lowest, lowest.chain(&Digest::of(&next))]);
        assert_eq!(first.env, ["PATH=/bin", "LANG=C"]);
        assert_eq!(first.bytes, 2 + 1 + 3);
        let top = store.layer(&first.layers[1]).expect("layer");
        assert_eq!(listing(&top), "d755 etc\nc0 etc/a\nf644 etc/c");

        // The shared layer is not even opened.
        let shared = fs::read(layout.dir.join("index.json")).expect("read");
        assert!(!shared.is_empty());
        let gone = layout.layer(&base, Packed::Gzip)["digest"].as_str().expect("text").to_owned();
        fs::remove_file(layout.path(&gone.parse().expect("digest"))).expect("remove");
        let tagged = lab.dir.join("image:two");
        let second = import_layout(store, &tagged).expect("import");
        assert_eq!(second.layers, [lowest, lowest.chain(&Digest::of(&other))]);
        assert_eq!(second.bytes, 2 + 1 + 4);
        assert_eq!(
            import_layout(store, &lab.dir.join("image#one")).expect("known").layers,
            first.layers
        );
        assert_eq!(store.layers().expect("layers").len(), 3);
        let err = import_layout(store, &lab.dir.join("image:three")).expect_err("no such tag");
        assert!(chain(&err).contains("no image has the tag `three`"), "{}", chain(&err));
    });
}

#[test]
fn nothing_counts_below_a_layer_that_hides_everything() {
    with_store("layoutopaque", |lab, store| {
        let base = Tar::default().file("below", "x").end();
        let hides = Tar::default().file(".wh..wh..opq", "").file("a", "aa").end();
        let top = Tar::default().file("b", "b").end();
        let layout = Layout::new(lab, "image");
        let layers = [(&base[..], Packed::Plain), (&hides, Packed::Plain), (&top, Packed::Plain)];
        layout.index(&[layout.image(&layers)]);
        for _ in 0..2 {
            let rootfs = import_layout(store, &layout.dir).expect("import");
            assert_eq!((rootfs.layers.len(), rootfs.bytes), (2, 3));
        }
    });
}

#[test]
fn a_layout_that_lies_is_refused_and_leaves_nothing() {
    with_store("layoutbad", |lab, store| {
        let canary = Canary::new(lab);
        let good = Tar::default().file("a", "aa").end();
        let refused = |what: &str, make: &dyn Fn(&Layout), why: &str| {
            let layout = Layout::new(lab, what);
            make(&layout);
            let err = import_layout(store, &layout.dir).expect_err(what);
            let said = chain(&err);
            assert!(said.contains(what) && said.contains(why), "{what}: {said}");
            assert!(store.layers().expect("layers").is_empty(), "{what}");
            assert_eq!(fs::read_dir(store.dir().join("tmp")).expect("tmp").count(), 0, "{what}");
            canary.check(what);
        };
        let blob_of = |layer: &serde_json::Value| -> Digest {
            layer["digest"].as_str().expect("text").parse().expect("digest")
        };
        refused("nothing", &|_| (), "index.json");
        refused(
            "no-json",
            &|it| fs::write(it.dir.join("index.json"), "{").expect("write"),
            "index",
        );
        refused("no-image", &|it| it.index(&[]), "no image");
        refused(
            "escape",
            &|it| symlink(canary.dir.join("x"), it.dir.join("index.json")).expect("symlink"),
            "is a symbolic link",
        );
        refused(
            "fifo",
            &|it| drop(run("mkfifo", &[text(&it.dir.join("index.json"))])),
            "not a file",
        );
        refused(
            "no-directory",
            &|it| {
                fs::remove_dir_all(&it.dir).expect("rm");
                run("mkfifo", &[text(&it.dir)]);
            },
            "it is not a directory",
        );
        refused(
            "huge",
            &|it| {
                let index = fs::File::create(it.dir.join("index.json")).expect("create");
                index.set_len(1 << 40).expect("length");
            },
            "longer than",
        );
        refused(
            "loop",
            &|it| {
                let kind = "application/vnd.oci.image.index.v1+json";
                let mut below = it.image(&[(&good, Packed::Plain)]);
                for _ in 0..6 {
                    let index = serde_json::json!({ "manifests": [below] }).to_string();
                    below = it.blob(kind, index.as_bytes());
                }
                it.index(&[below]);
            },
            "leads to more than",
        );
        refused(
            "changed-manifest",
            &|it| {
                let image = it.image(&[(&good, Packed::Plain)]);
                let path = it.path(&blob_of(&image));
                let data = fs::read_to_string(&path).expect("read");
                fs::write(&path, data.replace("\"schemaVersion\":2", "\"schemaVersion\":3"))
                    .expect("write");
                it.index(&[image]);
            },
            "is damaged",
        );
        refused(
            "changed-layer",
            &|it| {
                let layer = it.layer(&good, Packed::Plain);
                let other = Tar::default().file("a", "bb").end();
                fs::write(it.path(&blob_of(&layer)), other).expect("write");
                it.index(&[it.image_of(&[layer], &[Digest::of(&good)])]);
            },
            "is damaged",
        );
        refused(
            "longer-layer",
            &|it| {
                let layer = it.layer(&good, Packed::Plain);
                let longer = [&good[..], &[0; 512]].concat();
                fs::write(it.path(&blob_of(&layer)), longer).expect("write");
                it.index(&[it.image_of(&[layer], &[Digest::of(&good)])]);
            },
            "is damaged",
        );
        refused(
            "other-content",
            &|it| {
                let layer = it.layer(&good, Packed::Gzip);
                it.index(&[it.image_of(&[layer], &[Digest::of(b"other")])]);
            },
            "the configuration says",
        );
        refused(
            "hostile-layer",
            &|it| {
                let out = text(&canary.dir);
                let bad = Tar::default().symlink("d", out).file("d/x", "dead").end();
                it.index(&[it.image(&[(&bad, Packed::Zstd)])]);
            },
            "entry `d/x`",
        );
        refused(
            "missing-blob",
            &|it| {
                let layer = it.layer(&good, Packed::Plain);
                fs::remove_file(it.path(&blob_of(&layer))).expect("remove");
                it.index(&[it.image_of(&[layer], &[Digest::of(&good)])]);
            },
            "No such file",
        );
    });
}
