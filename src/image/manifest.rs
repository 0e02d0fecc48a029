//! The JSON documents of an image: index, manifest, configuration; OCI image specification 1.1.
//! Text in, checked values out; each error completes "image layout X: ...".

use crate::unit::Digest;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Most layers of one image: an overlay of more cannot be mounted everywhere.
pub const LAYERS_MAX: usize = 127;
/// Most images that one index names.
const IMAGES_MAX: usize = 10_000;

/// The annotation with an image's tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Media types of lists of images.
const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// A blob, named by what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// What an index leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Another index.
    Index(Blob),
    /// An image's manifest.
    Manifest(Blob),
}

/// An image's manifest and configuration together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Each layer's blob and the digest of what is in it unpacked, lowest first.
    pub layers: Vec<(Blob, Digest)>,
    /// Environment of its processes.
    pub env: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Config {
    architecture: Option<String>,
    os: Option<String>,
    config: Option<Inner>,
    rootfs: Rootfs,
}

#[derive(Deserialize)]
struct Inner {
    #[serde(rename = "Env")]
    env: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Rootfs {
    diff_ids: Vec<String>,
}

/// The first image of an index that has this tag, if one is asked for, and runs on
/// linux/`architecture` or does not say where.
pub fn choose(json: &[u8], tag: Option<&str>, architecture: &str) -> Result<Choice, String> {
    let index: Index = read(json, "its index")?;
    if index.manifests.len() > IMAGES_MAX {
        return Err(format!("its index names more than {IMAGES_MAX} images"));
    }
    let tagged: Vec<&Descriptor> =
        index.manifests.iter().filter(|one| tag.is_none_or(|tag| has_tag(one, tag))).collect();
    if let (Some(tag), true) = (tag, tagged.is_empty()) {
        let tags = index.manifests.iter().filter_map(tag_of);
        return Err(format!("no image has the tag `{}`; it has {}", clean(tag), list(tags)));
    }
    let fits = |one: &&&Descriptor| {
        let runs = |p: &Platform| p.os == "linux" && p.architecture == architecture;
        one.platform.as_ref().is_none_or(runs)
    };
    let Some(chosen) = tagged.iter().find(fits) else {
        let platforms = tagged.iter().filter_map(|one| one.platform.as_ref());
        let platforms: Vec<_> = platforms.map(|p| format!("{}/{}", p.os, p.architecture)).collect();
        let has = list(platforms.iter().map(String::as_str));
        return Err(format!("no image runs on linux/{architecture}; it has {has}"));
    };
    let blob = blob(chosen, "an image")?;
    match INDEXES.contains(&chosen.media_type.as_str()) {
        true => Ok(Choice::Index(blob)),
        false => Ok(Choice::Manifest(blob)),
    }
}

/// The configuration that a manifest names.
pub fn config(manifest: &[u8]) -> Result<Blob, String> {
    let manifest: Manifest = read(manifest, "a manifest")?;
    blob(&manifest.config, "the configuration")
}

/// Puts a manifest and its configuration together.
pub fn image(manifest: &[u8], config: &[u8], architecture: &str) -> Result<Image, String> {
    let manifest: Manifest = read(manifest, "a manifest")?;
    let config: Config = read(config, "a configuration")?;
    let runs = config.os.as_deref().is_none_or(|os| os == "linux")
        && config.architecture.as_deref().is_none_or(|its| its == architecture);
    if !runs {
        let [os, its] = [&config.os, &config.architecture].map(|it| it.as_deref().unwrap_or("any"));
        let (os, its) = (clean(os), clean(its));
        return Err(format!("the image is for {os}/{its}; this box is linux/{architecture}"));
    }
    let (layers, diffs) = (&manifest.layers, &config.rootfs.diff_ids);
    if layers.len() != diffs.len() {
        let (layers, diffs) = (layers.len(), diffs.len());
        return Err(format!("the manifest names {layers} layers, the configuration {diffs}"));
    }
    if layers.is_empty() || layers.len() > LAYERS_MAX {
        let has = layers.len();
        return Err(format!("the image has {has} layers; 1 to {LAYERS_MAX} can be used"));
    }
    let pair = |(layer, diff): (&Descriptor, &String)| {
        Ok((blob(layer, "a layer")?, digest(diff, "a layer's content")?))
    };
    let layers = layers.iter().zip(diffs).map(pair).collect::<Result<_, String>>()?;
    let env = config.config.and_then(|inner| inner.env).unwrap_or_default();
    Ok(Image { layers, env })
}

fn read<'a, T: Deserialize<'a>>(json: &'a [u8], what: &str) -> Result<T, String> {
    serde_json::from_slice(json).map_err(|err| format!("{what} cannot be read: {err}"))
}

fn blob(of: &Descriptor, what: &str) -> Result<Blob, String> {
    Ok(Blob { digest: digest(&of.digest, what)?, size: of.size })
}

fn digest(text: &str, what: &str) -> Result<Digest, String> {
    text.parse().map_err(|err| format!("the digest of {what}: {err}"))
}

fn tag_of(one: &Descriptor) -> Option<&str> {
    one.annotations.as_ref()?.get(REF_NAME).map(String::as_str)
}

/// Some programs write `name:tag` there.
fn has_tag(one: &Descriptor, tag: &str) -> bool {
    tag_of(one)
        .is_some_and(|name| name == tag || name.rsplit_once(':').is_some_and(|it| it.1 == tag))
}

/// A few of somebody else's words.
fn list<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.take(8).map(|word| format!("`{}`", clean(word))).collect();
    if words.is_empty() { "none that says so".into() } else { words.join(", ") }
}

fn clean(word: &str) -> String {
    word.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    fn one(digit: char, more: &str) -> String {
        format!(r#"{{"digest":"{}","size":7{more}}}"#, named(digit))
    }

    fn index(all: &[String]) -> Vec<u8> {
        format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, all.join(",")).into_bytes()
    }

    fn digit_of(choice: Result<Choice, String>) -> char {
        match choice.expect("a choice") {
            Choice::Manifest(blob) => blob.digest.hex().chars().next().expect("hex"),
            Choice::Index(_) => 'i',
        }
    }

    #[test]
    fn the_first_image_that_fits_is_chosen() {
        let on = |os: &str, arch: &str| {
            format!(r#","platform":{{"os":"{os}","architecture":"{arch}"}}"#)
        };
        let tag = |tag: &str| format!(r#","annotations":{{"{REF_NAME}":"{tag}"}}"#);
        let all = index(&[
            one('1', &on("unknown", "unknown")),
            one('2', &on("linux", "arm64")),
            one('3', &on("linux", "amd64")),
            one('4', &tag("v1")),
            one('5', &tag("example.com/a:v2")),
            one('6', &format!(r#","mediaType":"{}"{}"#, INDEXES[0], tag("all"))),
        ]);
        assert_eq!(digit_of(choose(&all, None, "amd64")), '3');
        assert_eq!(digit_of(choose(&all, None, "arm64")), '2');
        assert_eq!(digit_of(choose(&all, Some("v1"), "amd64")), '4');
        assert_eq!(digit_of(choose(&all, Some("v2"), "amd64")), '5');
        assert_eq!(digit_of(choose(&all, Some("all"), "amd64")), 'i');
        let err = choose(&all, Some("v\n3"), "amd64").expect_err("no such tag");
        assert_eq!(err, r"no image has the tag `v\n3`; it has `v1`, `example.com/a:v2`, `all`");
        let other = index(&[one('2', &on("linux", "arm64"))]);
        let err = choose(&other, None, "amd64").expect_err("not for this box");
        assert_eq!(err, "no image runs on linux/amd64; it has `linux/arm64`");
        assert!(choose(&index(&[]), None, "amd64").is_err());
    }

    #[test]
    fn documents_that_lie_are_refused() {
        let manifest = |layers: &[String]| {
            format!(r#"{{"config":{},"layers":[{}]}}"#, one('c', ""), layers.join(",")).into_bytes()
        };
        let config = |arch: &str, diffs: &[String]| {
            let env = r#""config":{"Env":["A=b"]}"#;
            let diffs: Vec<_> = diffs.iter().map(|diff| format!("\"{diff}\"")).collect();
            let diffs = diffs.join(",");
            format!(
                r#"{{"os":"linux","architecture":"{arch}",{env},"rootfs":{{"diff_ids":[{diffs}]}}}}"#
            )
            .into_bytes()
        };
        let good = image(&manifest(&[one('1', "")]), &config("amd64", &[named('a')]), "amd64");
        let good = good.expect("an image");
        assert_eq!((good.layers.len(), good.env), (1, vec!["A=b".to_owned()]));
        let said = |manifest: &[u8], config: &[u8]| {
            image(manifest, config, "amd64").expect_err("must be refused")
        };
        let none = manifest(&[]);
        assert!(said(&none, &config("amd64", &[])).contains("has 0 layers"));
        assert!(said(&none, &config("amd64", &[named('a')])).contains("names 0 layers"));
        assert!(said(&none, &config("s390x", &[])).contains("is for linux/s390x"));
        assert!(said(b"[]", b"{}").contains("a manifest cannot be read"));
        let many: Vec<_> = (0..200).map(|_| one('1', "")).collect();
        let diffs: Vec<_> = (0..200).map(|_| named('a')).collect();
        assert!(said(&manifest(&many), &config("amd64", &diffs)).contains("has 200 layers"));
        let bad = [one('1', "").replace("sha256:", "sha256:../")];
        let text = said(&manifest(&bad), &config("amd64", &[named('a')]));
        assert!(text.contains("the digest of a layer"), "{text}");
    }
}
