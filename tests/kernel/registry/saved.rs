//! Archives of images: other tools read them, and what is loaded from one is what was saved.

use super::{Bed, image, text, tool, tree};
use serde_json::Value;
use std::fs;
use terrarium::image::catalog::{self, Keep, Known};
use terrarium::image::{Save, collect, load, load_stream};
use terrarium::log::chain;

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
    let (bytes, id) = saved(&bed, &first.image, "reg.lan/ops/app:1");
    assert!(saved(&bed, &first.image, "reg.lan/ops/app:1") == (bytes.clone(), id.clone()), "twice");
    let archive = bed.lab.dir.join("saved.tar");
    fs::write(&archive, &bytes).expect("write");

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
    let layers = &first.image.layers;
    tree::same(&bed.store, &bed.dir("ours"), layers, &theirs.join("rootfs"));
    let original = bed.lab.dir.join("original");
    tool("umoci", &["unpack", "--image", &format!("{}:one", layout.display()), text(&original)]);

    // On a box that has nothing of it, it is what it was, with the id that was told.
    let digest = first.image.digest;
    drop(first);
    let none = Keep { bytes: Some(0), ..Keep::default() };
    collect(&bed.store, &none, || Some(Default::default())).expect("collect");
    assert_eq!(bed.store.layers().expect("layers"), []);
    assert!(catalog::find(&bed.store, &digest).is_none());
    let loaded = load_stream(&bed.store, "docker.io", &archive, &bytes[..], None);
    let [second] = loaded.unwrap_or_else(|err| panic!("{}", chain(&err))).try_into().expect("one");
    assert_eq!(second.image.id.to_string(), id);
    assert_eq!(second.names[0].to_string(), "reg.lan/ops/app:1");
    let layers = &second.image.layers;
    tree::same(&bed.store, &bed.dir("second"), layers, &original.join("rootfs"));
    // What was packed here before is packed the same, and keeps its id.
    assert!(saved(&bed, &second.image, "reg.lan/ops/app:1") == (bytes.clone(), id));

    // A stream that breaks off leaves nothing.
    drop(second);
    collect(&bed.store, &none, || Some(Default::default())).expect("collect");
    let cut = load_stream(&bed.store, "docker.io", &archive, &bytes[..bytes.len() / 2], None);
    let said = chain(&cut.expect_err("cut"));
    assert!(said.contains("saved.tar"), "{said}");
    assert_eq!(bed.store.layers().expect("layers"), []);
    assert_eq!(fs::read_dir(bed.store.dir().join("tmp")).expect("tmp").count(), 0);
    bed.close();
}
