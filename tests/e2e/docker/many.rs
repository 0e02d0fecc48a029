//! An image of as many layers as an image may have.

use super::super::lab::get;
use super::super::lab::tool;
use super::{lab, manifest};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use terrarium::unit::Digest;

const LAYERS: usize = 127;

/// A tar of files; directories are made by what is in them.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if path.starts_with("tmp/") { 0o644 } else { 0o755 });
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, path, *data).expect("append");
    }
    tar.into_inner().expect("a tar")
}

/// Busybox, and above it a file for each layer more, all in one directory.
fn layout(dir: &Path) -> PathBuf {
    let layout = dir.join("many");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("directory");
    let put = |kind: &str, bytes: &[u8]| -> Value {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).expect("write");
        let kind = format!("application/vnd.oci.image.{kind}");
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    };
    let busybox = fs::read("/bin/busybox").expect("busybox");
    let base = tar(&[("bin/busybox", &busybox), ("bin/sh", &busybox), ("tmp/.keep", b"")]);
    let more = (1..LAYERS).map(|at| tar(&[(&format!("n/{at}"), at.to_string().as_bytes())]));
    let tars: Vec<Vec<u8>> = [base].into_iter().chain(more).collect();
    let diffs: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
    let layers: Vec<Value> = tars.iter().map(|tar| put("layer.v1.tar", tar)).collect();
    let architecture = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let config = json!({ "os": "linux", "architecture": architecture,
        "config": { "Cmd": ["/bin/busybox", "httpd", "-f", "-p", "9000", "-h", "/n"],
            "ExposedPorts": { "9000/tcp": {} } },
        "rootfs": { "type": "layers", "diff_ids": diffs } });
    let config = put("config.v1+json", config.to_string().as_bytes());
    let text = json!({ "schemaVersion": 2, "config": config, "layers": layers }).to_string();
    let manifest = put("manifest.v1+json", text.as_bytes());
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), index.to_string()).expect("write");
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write");
    layout
}

#[test]
fn an_image_of_127_layers_runs_with_all_of_them() {
    let (lab, dir) = lab("layers");
    let layout = layout(&dir);
    assert!(tool("skopeo", &["inspect", &format!("oci:{}", layout.display())]).contains("Layers"));
    let archive =
        format!("image.archive = \"{}\"\nport = [{{ publish = 8000 }}]", layout.display());
    lab.ok(&["apply", &manifest(&lab, "many", &archive)]);
    lab.until_state("many", "running");
    assert!(lab.logged("many", "127 layers").len() == 1);
    let files = lab.inside("many", "/bin/busybox ls /n | /bin/busybox wc -l").out;
    assert_eq!(files.trim(), (LAYERS - 1).to_string());
    let all = "for at in 1 64 126; do /bin/busybox cat /n/$at; echo; done";
    assert_eq!(lab.inside("many", all).out, "1\n64\n126\n");
    lab.until("it answers", |_| get("127.0.0.1", 8000));
    lab.finish();
}
