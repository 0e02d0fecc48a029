//! Images of real software: Debian's files, as xtask has unpacked them, and a layer of the test's own
//! above. Written by hand as OCI image layouts, which skopeo reads as well.

use super::super::server::tool;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// A file or, without a text, a directory of an image.
pub struct Entry {
    path: &'static str,
    mode: u32,
    owner: u64,
    text: Option<String>,
}

/// A file of root's.
pub fn file(path: &'static str, mode: u32, text: impl Into<String>) -> Entry {
    Entry { path, mode, owner: 0, text: Some(text.into()) }
}

/// A directory that belongs to `owner`, user and group.
pub fn directory(path: &'static str, mode: u32, owner: u64) -> Entry {
    Entry { path, mode, owner, text: None }
}

/// Makes an image of `software` with `entries` above it; `config` is how docker runs it. The layout's
/// directory; the image is its tag `one`.
pub fn layout(dir: &Path, software: &str, entries: &[Entry], config: &Value) -> PathBuf {
    let layout = dir.join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("directory");
    let (base, base_diff) = base(software, &blobs);
    let own = own_layer(entries);
    let diffs = json!([base_diff, digest(&own)]);
    let image = json!({
        "architecture": architecture(), "os": "linux", "config": config,
        "rootfs": { "type": "layers", "diff_ids": diffs },
    });
    const TYPE: &str = "application/vnd.oci.image";
    let image = put(&blobs, &format!("{TYPE}.config.v1+json"), image.to_string().as_bytes());
    let layers = [base, put(&blobs, &format!("{TYPE}.layer.v1.tar"), &own)];
    let manifest = format!("{TYPE}.manifest.v1+json");
    let text = json!({
        "schemaVersion": 2, "mediaType": manifest, "config": image, "layers": layers,
    });
    let mut manifest = put(&blobs, &manifest, text.to_string().as_bytes());
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "one" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), index.to_string()).expect("write");
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write");
    layout
}

/// Debian's files as a blob: what names it, and the digest of what it holds.
fn base(software: &str, blobs: &Path) -> (Value, String) {
    let built = std::env::var_os("TERRARIUM_STACKS").expect("set: the lab has used it");
    let archive = Path::new(&built).join("software").join(format!("{software}.tar.zst"));
    let digests = fs::read_to_string(archive.with_extension("").with_extension("digest"));
    let digests = digests.unwrap_or_else(|err| {
        panic!("{}: {err}; `cargo xtask rootfs software/{software}` builds it", archive.display())
    });
    let field = |name: &str| {
        let line = digests.lines().find_map(|line| line.strip_prefix(name));
        line.expect("what xtask writes").trim().to_owned()
    };
    let digest = field("archive ");
    let blob = blobs.join(&digest["sha256:".len()..]);
    let size = fs::copy(&archive, blob).expect("copy");
    let kind = "application/vnd.oci.image.layer.v1.tar+zstd";
    (json!({ "mediaType": kind, "digest": digest, "size": size }), field("diff_id "))
}

/// The tar of the test's own files.
fn own_layer(entries: &[Entry]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for Entry { path, mode, owner, text } in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_uid(*owner);
        header.set_gid(*owner);
        let text = text.as_deref();
        header.set_size(text.map_or(0, str::len) as u64);
        header.set_entry_type(match text {
            Some(_) => tar::EntryType::Regular,
            None => tar::EntryType::Directory,
        });
        tar.append_data(&mut header, path, text.unwrap_or_default().as_bytes()).expect("append");
    }
    tar.into_inner().expect("a tar")
}

fn put(blobs: &Path, kind: &str, bytes: &[u8]) -> Value {
    let digest = digest(bytes);
    fs::write(blobs.join(&digest["sha256:".len()..]), bytes).expect("write");
    json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// As images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Packs a layout as a tar.
pub fn packed(layout: &Path, to: &Path) {
    let (layout, to) = (layout.display().to_string(), to.display().to_string());
    tool("tar", &["-C", &layout, "-cf", &to, "."]);
}
