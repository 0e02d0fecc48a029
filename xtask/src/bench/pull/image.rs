//! The images that are pulled, made of the stacks' own files: real ones, and the same each time.

use super::meter::bytes;
use crate::host;
use crate::rootfs::pack::hex;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How layers are packed: the name, the media type's end, and the program with its options.
pub const PACKINGS: [(&str, &str, &[&str]); 2] = [
    ("gzip", "gzip", &["gzip", "--no-name", "-6"]),
    ("zstd", "zstd", &["zstd", "--quiet", "-3", "--keep"]),
];

/// Of the image of one layer.
const LARGE: u64 = 80_000_000;
/// Of the image of many files: files, layers, and the largest file.
const FILES: usize = 30_000;
const LAYERS: usize = 12;
const FILE_MAX: u64 = 64 << 10;

/// The layers of one image, as files.
pub struct Image {
    pub name: &'static str,
    /// Plain tars.
    pub tars: Vec<PathBuf>,
    pub entries: u64,
    pub bytes: u64,
}

/// The same, packed.
pub struct Packed {
    /// What it is called in the registry.
    pub tag: String,
    pub packing: &'static str,
    pub layers: Vec<PathBuf>,
    pub bytes: u64,
}

/// Makes all images below `dir`.
pub fn make(dir: &Path, tiny: &Path, stack: &Path) -> Result<Vec<Image>> {
    let plain = |stack: &Path, name: &str| -> Result<PathBuf> {
        let to = dir.join(name);
        let mut file = File::create(&to)?;
        io::copy(&mut zstd::Decoder::new(File::open(stack)?)?, &mut file)?;
        Ok(to)
    };
    let small = plain(tiny, "small.tar")?;
    let whole = plain(stack, "whole.tar")?;
    let large = dir.join("large.tar");
    first(&whole, &large, LARGE)?;
    let many = many(&whole, dir)?;
    let images = [("small", vec![small]), ("80 MB", vec![large]), ("30,000 files", many)];
    let image = |(name, tars): (&'static str, Vec<PathBuf>)| {
        let (mut entries, mut all) = (0, 0);
        for tar in &tars {
            entries += tar::Archive::new(File::open(tar)?).entries()?.count() as u64;
            all += bytes(tar)?;
        }
        Ok(Image { name, tars, entries, bytes: all })
    };
    images.into_iter().map(image).collect()
}

/// The beginning of a tar: whole entries, as many as go into `most` bytes.
fn first(whole: &Path, to: &Path, most: u64) -> Result<()> {
    let mut archive = tar::Archive::new(File::open(whole)?);
    let mut end = 0;
    for entry in archive.entries()? {
        let entry = entry?;
        if entry.raw_file_position() + entry.size() > most {
            break;
        }
        end = (entry.raw_file_position() + entry.size()).next_multiple_of(512);
    }
    let mut file = File::create(to)?;
    io::copy(&mut File::open(whole)?.take(end), &mut file)?;
    Ok(file.write_all(&[0; 1024])?)
}

/// Small files in as many trees as it takes, cut into layers. The first byte of each tells the tree:
/// no two have the same content.
fn many(whole: &Path, dir: &Path) -> Result<Vec<PathBuf>> {
    let mut small = Vec::new();
    for entry in tar::Archive::new(File::open(whole)?).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() && (1..FILE_MAX).contains(&entry.size()) {
            let mut data = Vec::new();
            entry.read_to_end(&mut data)?;
            small.push((entry.path()?.into_owned(), data));
        }
    }
    anyhow::ensure!(!small.is_empty(), "{} has no small files", whole.display());
    let mut tars = Vec::new();
    for layer in 0..LAYERS {
        let to = dir.join(format!("many-{layer}.tar"));
        let mut tar = tar::Builder::new(BufWriter::new(File::create(&to)?));
        for at in layer * FILES / LAYERS..(layer + 1) * FILES / LAYERS {
            let (round, which) = (at / small.len(), at % small.len());
            let (path, data) = &mut small[which];
            data[0] = u8::try_from(round)?;
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_mtime(1_700_000_000);
            header.set_size(data.len() as u64);
            let path = Path::new("srv").join(round.to_string()).join(path);
            tar.append_data(&mut header, path, data.as_slice())?;
        }
        tar.into_inner()?.into_inner().context("cannot write a layer")?;
        tars.push(to);
    }
    Ok(tars)
}

/// Packs an image and puts it into the registry at `registry`.
pub fn push(
    image: &Image,
    packing: &(&'static str, &str, &[&str]),
    dir: &Path,
    registry: &str,
) -> Result<Packed> {
    let (name, media, program) = *packing;
    let layout = dir.join("layout");
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let (mut layers, mut descriptors, mut diffs) = (Vec::new(), Vec::new(), Vec::new());
    for tar in &image.tars {
        let packed = tar.with_extension(format!("tar.{name}"));
        let (with, options) = program.split_first().context("no program")?;
        let mut pack = Command::new(with);
        host::run(pack.args(options).arg("--stdout").arg(tar).stdout(File::create(&packed)?))?;
        let digest = digest(&packed)?;
        std::fs::hard_link(&packed, blobs.join(&digest))?;
        descriptors.push(json!({
            "mediaType": format!("application/vnd.oci.image.layer.v1.tar+{media}"),
            "digest": format!("sha256:{digest}"), "size": bytes(&packed)?,
        }));
        diffs.push(format!("sha256:{}", self::digest(tar)?));
        layers.push(packed);
    }
    write_layout(&layout, &blobs, &descriptors, &diffs)?;
    let tag = format!("{registry}/bench:{}-{name}", image.name.replace([' ', ','], ""));
    let (from, to) = (format!("oci:{}:a", layout.display()), format!("docker://{tag}"));
    let mut copy = Command::new("skopeo");
    copy.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]);
    // Else it names another packing of the same layer, which the registry has from before.
    copy.args(["--preserve-digests", &from, &to]);
    host::run(&mut copy)?;
    std::fs::remove_dir_all(&layout)?;
    let all = layers.iter().map(|layer| bytes(layer)).sum::<Result<u64>>()?;
    Ok(Packed { tag, packing: name, layers, bytes: all })
}

/// The documents of an OCI layout.
fn write_layout(layout: &Path, blobs: &Path, layers: &[Value], diffs: &[String]) -> Result<()> {
    let write = |document: Value| -> Result<(String, usize)> {
        let text = document.to_string();
        let digest = hex(&Sha256::digest(&text));
        std::fs::write(blobs.join(&digest), &text)?;
        Ok((format!("sha256:{digest}"), text.len()))
    };
    let (config, size) = write(json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux", "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diffs},
    }))?;
    let (manifest, length) = write(json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config, "size": size,
        },
        "layers": layers,
    }))?;
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": manifest, "size": length,
        "annotations": {"org.opencontainers.image.ref.name": "a"},
    }]});
    std::fs::write(layout.join("index.json"), index.to_string())?;
    Ok(std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?)
}

fn digest(file: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(file)?;
    let mut piece = vec![0; 256 << 10];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&piece[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_tar_has_whole_entries() {
        let dir = std::env::temp_dir().join(format!("xtask-first-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("directory");
        let (whole, part) = (dir.join("whole"), dir.join("part"));
        let mut tar = tar::Builder::new(File::create(&whole).expect("file"));
        for (name, size) in [("a", 100), ("b", 1000), ("c", 10)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(size);
            tar.append_data(&mut header, name, vec![7; size as usize].as_slice()).expect("entry");
        }
        tar.into_inner().expect("end");
        let names = |most| {
            first(&whole, &part, most).expect("cut");
            let mut tar = tar::Archive::new(File::open(&part).expect("file"));
            let entries = tar.entries().expect("entries").map(|entry| {
                let mut entry = entry.expect("entry");
                let read = io::copy(&mut entry, &mut io::sink()).expect("whole");
                (entry.path().expect("path").display().to_string(), read)
            });
            entries.collect::<Vec<_>>()
        };
        let (a, b) = (("a".to_owned(), 100), ("b".to_owned(), 1000));
        assert_eq!(names(1024 + 512 + 1000), [a.clone(), b]);
        assert_eq!(names(1024 + 512 + 999), [a]);
        std::fs::remove_dir_all(&dir).expect("clean");
    }
}
