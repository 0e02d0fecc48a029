//! Layers that link files of the layers below, which come at the same time.

use super::{Bed, Registry, Setup, push, text, tool, tree};
use crate::image::lower::{base, layout, links};
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
