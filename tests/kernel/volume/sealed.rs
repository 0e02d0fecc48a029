//! Layers that somebody may have seen.

use super::{Lab, said};
use std::fs;
use std::io;
use terrarium::unit::Digest;

#[test]
fn layers_that_are_visible_are_sealed_though_nothing_can_speak_of_them() {
    let lab = Lab::new("unspoken");
    let store = lab.open();
    let chains = ["a", "b"].map(|name| Digest::of(name.as_bytes()));
    let drafts = chains.map(|chain| (store.draft().expect("draft"), chain));
    let err = store.commit_with(&drafts, || Err(io::ErrorKind::StorageFull.into()));
    assert!(said(&err.expect_err("nothing is written")).contains("write what speaks of layers"));
    drop(drafts);
    for chain in chains {
        let layer = store.layer(&chain).expect("visible");
        let err = fs::write(layer.join("new"), "").expect_err("read-only");
        assert_eq!(err.kind(), io::ErrorKind::ReadOnlyFilesystem);
    }
    lab.close(store);
}
