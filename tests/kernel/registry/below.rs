//! Layers that link files of the layers below, which come at the same time.

use super::{Bed, Registry, Setup, push, text, tool, tree};
use crate::image::Tar;
use crate::image::lower::{base, layout, links};
use std::os::unix::fs::MetadataExt;
use terrarium::log::chain;

#[test]
fn layers_that_link_files_below_wait_for_them() {
    let bed = Bed::new("below");
    let more = crate::image::one_file("another", b"x");
    let image = layout(&bed.lab, "image", &[&base(), &links(), &more, &links()]);
    let registry = Registry::start(&bed.dir("server"), Setup::Plain);
    let name = "127.0.0.1:5000/ops/links:1";
    push(&image.dir, name, &[]);
    let settings = bed.insecure("127.0.0.1:5000");
    let pulled = bed.pull(&settings, name).unwrap_or_else(|err| panic!("{}", chain(&err)));
    let theirs = bed.lab.dir.join("theirs");
    let from = format!("{}:one", image.dir.display());
    tool("umoci", &["unpack", "--image", &from, text(&theirs)]);
    tree::same(&bed.store, &bed.dir("ours"), &pulled.image.layers, &theirs.join("rootfs"));
    // Without what they link, they are refused by image, layer and entry.
    let image = layout(&bed.lab, "lacking", &[&more, &links()]);
    push(&image.dir, "127.0.0.1:5000/ops/links:2", &[]);
    let said = bed.pull(&settings, "127.0.0.1:5000/ops/links:2").expect_err("nothing to link");
    let said = chain(&said);
    for part in ["ops/links:2", "cannot unpack layer sha256:", "entry `bin/alias` is a hard link"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(bed.store.layers().expect("layers").len(), 4 + 1, "the one that lacks nothing");
    registry.stop();
    drop(pulled);
    bed.close();
}

/// What is unpacked is shown as soon as it is much, in whatever order it comes.
#[test]
fn layers_that_are_much_are_shown_before_the_rest_and_are_what_they_are_above_those_below() {
    let bed = Bed::new("much");
    // 300 MiB that take no room, in directories of which only the lowest layer says something.
    let much = |path: &str| {
        let records: [(&str, &[u8]); 2] =
            [("GNU.sparse.size", b"314572800"), ("GNU.sparse.map", b"0,4")];
        Tar::default().pax(&records).file(path, "1234").end()
    };
    let (one, other) = (much("deep/one"), much("deep/er/other"));
    let more = crate::image::one_file("another", b"x");
    let image = layout(&bed.lab, "image", &[&base(), &one, &links(), &other, &more]);
    let registry = Registry::start(&bed.dir("server"), Setup::Plain);
    let name = "127.0.0.1:5000/ops/much:1";
    push(&image.dir, name, &[]);
    let pulled = bed.pull(&bed.insecure("127.0.0.1:5000"), name);
    let pulled = pulled.unwrap_or_else(|err| panic!("{}", chain(&err)));
    let layers = pulled.image.layers.iter().map(|it| bed.store.layer(it).expect("layer"));
    let layers: Vec<_> = layers.collect();
    let mode = |path: std::path::PathBuf| {
        std::fs::metadata(&path).unwrap_or_else(|err| panic!("{path:?}: {err}")).mode() & 0o7777
    };
    assert_eq!(mode(layers[1].join("deep")), 0o751);
    assert_eq!(mode(layers[3].join("deep")), 0o751);
    assert_eq!(mode(layers[3].join("deep/er")), 0o2770);
    assert_eq!(std::fs::metadata(layers[3].join("deep/er/other")).expect("file").len(), 300 << 20);
    assert_eq!(std::fs::read(layers[2].join("bin/alias")).expect("linked"), b"the program");
    for dir in ["tmp", "downloads"] {
        let left = std::fs::read_dir(bed.store.dir().join(dir)).expect(dir).count();
        assert_eq!(left, 0, "{dir}");
    }
    registry.stop();
    drop(pulled);
    bed.close();
}
