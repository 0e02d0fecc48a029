//! The JSON documents of an image: index, manifest, configuration; OCI image specification 1.1.
//! Text in, checked values out; each error completes "image layout X: ...".

use super::bounded::{self, ENTRIES_MAX};
use super::config::ImageConfig;
use super::platform::{Platform, Runs};
use super::registry::failure;
use crate::unit::Digest;
use serde::{Deserialize, Deserializer};

/// Most layers of one image: an overlay of more cannot be mounted everywhere.
pub const LAYERS_MAX: usize = 127;
/// Media types of lists of images.
const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Media types of configurations of containers' images.
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// A blob, named by what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// An image that an index names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its manifest, or an index of its own.
    pub choice: Choice,
    /// What it is called: a whole name, or a tag; `None`: nothing.
    pub name: Option<String>,
}

/// What an index leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Another index.
    Index(Blob),
    /// An image's manifest.
    Manifest(Blob),
}

/// What a document of a registry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A list of images.
    Index,
    /// One image.
    Manifest,
    /// One image, as registries wrote them before 2015.
    First,
}

/// An image's manifest and configuration together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Each layer's blob and the digest of what is in it unpacked, lowest first.
    pub layers: Vec<(Blob, Digest)>,
    /// How its processes are run.
    pub config: ImageConfig,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default, deserialize_with = "manifests")]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<PlatformText>,
    annotations: Option<Annotations>,
}

/// What counts of an image's annotations, of which there may be any number.
#[derive(Deserialize)]
struct Annotations {
    /// Its tag.
    #[serde(rename = "org.opencontainers.image.ref.name")]
    ref_name: Option<String>,
    /// Its whole name, of containerd and docker.
    #[serde(rename = "io.containerd.image.name")]
    whole_name: Option<String>,
}

#[derive(Deserialize)]
struct PlatformText {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default, deserialize_with = "layers")]
    layers: Vec<Descriptor>,
}

fn manifests<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Descriptor>, D::Error> {
    bounded::list(from, "manifests", ENTRIES_MAX)
}

fn layers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Descriptor>, D::Error> {
    bounded::list(from, "layers", ENTRIES_MAX)
}

/// What tells documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<String>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// What a document is; `told` is what its sender calls it. One that can be read in two ways is
/// refused: two programs would see two images under one digest.
pub fn kind(json: &[u8], told: &str) -> Result<Kind, String> {
    let shape: Shape = read(json, "a manifest")?;
    let (media, told) = (shape.media_type.as_deref().unwrap_or_default(), clean(told));
    if !media.is_empty() && media != told && is_manifest_type(&told) {
        return Err(format!("a manifest was sent as `{told}` and calls itself `{}`", clean(media)));
    }
    let has = (shape.layers.is_some(), shape.manifests.is_some(), shape.fs_layers.is_some());
    let kind = match has {
        (true, false, false) => Kind::Manifest,
        (false, true, false) => Kind::Index,
        (false, false, true) => Kind::First,
        (false, false, false) => return Err("a manifest has neither layers nor images".into()),
        _ => return Err("a manifest has two kinds of content, and could be read as either".into()),
    };
    let media = if media.is_empty() { &told } else { media };
    match (INDEXES.contains(&media), kind) {
        (true, Kind::Manifest | Kind::First) => Err("an index has layers of its own".into()),
        (false, Kind::Index) if is_manifest_type(media) => Err("a manifest lists images".into()),
        _ => Ok(kind),
    }
}

fn is_manifest_type(text: &str) -> bool {
    text.starts_with("application/vnd.oci.image.")
        || text.starts_with("application/vnd.docker.distribution.manifest.")
}

/// The image of an index that has this tag, if one is asked for, and runs best on this box or does
/// not say where; the first of equals.
pub fn choose(json: &[u8], tag: Option<&str>, runs: &Runs) -> Result<Choice, String> {
    let index: Index = read(json, "its index")?;
    let tagged: Vec<&Descriptor> =
        index.manifests.iter().filter(|one| tag.is_none_or(|tag| has_tag(one, tag))).collect();
    if let (Some(tag), true) = (tag, tagged.is_empty()) {
        let tags = index.manifests.iter().filter_map(tag_of);
        return Err(format!("no image has the tag `{}`; it has {}", clean(tag), list(tags)));
    }
    let rank = |one: &Descriptor| match &one.platform {
        None => Some(usize::MAX),
        Some(platform) => runs.rank(&platform.read()),
    };
    let ranked = tagged.iter().enumerate().filter_map(|(at, one)| Some((rank(one)?, at)));
    let Some((_, best)) = ranked.min() else {
        let platforms = tagged.iter().filter_map(|one| one.platform.as_ref());
        let platforms: Vec<_> = platforms.map(|platform| platform.read().to_string()).collect();
        let has = list(platforms.iter().map(String::as_str));
        let cure = "ask for one that was built for it";
        return Err(format!("no image runs on {}; it has {has}; {cure}", runs.name()));
    };
    let blob = blob(tagged[best], "an image")?;
    match INDEXES.contains(&tagged[best].media_type.as_str()) {
        true => Ok(Choice::Index(blob)),
        false => Ok(Choice::Manifest(blob)),
    }
}

/// All images of an index that run on this box or do not say where, in its order.
/// Each that cannot be followed is the reason instead.
pub fn all(json: &[u8], runs: &Runs) -> Result<Vec<Result<Named, String>>, String> {
    let index: Index = read(json, "its index")?;
    let fits = |one: &&Descriptor| {
        one.platform.as_ref().is_none_or(|platform| runs.rank(&platform.read()).is_some())
    };
    let read = |one: &Descriptor| {
        let blob = blob(one, "an image")?;
        let choice = match INDEXES.contains(&one.media_type.as_str()) {
            true => Choice::Index(blob),
            false => Choice::Manifest(blob),
        };
        let name = one.annotations.as_ref();
        let name = name.and_then(|all| all.whole_name.clone().or_else(|| all.ref_name.clone()));
        Ok(Named { choice, name })
    };
    Ok(index.manifests.iter().filter(fits).map(read).collect())
}

impl PlatformText {
    fn read(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
        }
    }
}

/// The configuration that a manifest names.
pub fn config(manifest: &[u8]) -> Result<Blob, String> {
    let manifest: Manifest = read(manifest, "a manifest")?;
    let kind = &manifest.config.media_type;
    match kind.is_empty() || CONFIGS.contains(&kind.as_str()) {
        true => blob(&manifest.config, "the configuration"),
        false => {
            Err(format!("it is no image of a container: its configuration is `{}`", clean(kind)))
        }
    }
}

/// Puts a manifest and its configuration together.
pub fn image(manifest: &[u8], config: &[u8], runs: &Runs) -> Result<Image, String> {
    let manifest: Manifest = read(manifest, "a manifest")?;
    let (config, platform, diffs) = ImageConfig::read(config)?;
    let is_told = !platform.architecture.is_empty();
    // The variant of a single image is often wrong, and it was named by the operator.
    let platform = Platform { variant: String::new(), ..platform };
    if is_told && runs.rank(&platform).is_none() {
        let (its, name) = (clean(&platform.to_string()), runs.name());
        let cure = "ask for one that was built for it";
        return Err(format!("the image is for {its}; this box is {name}; {cure}"));
    }
    let layers = &manifest.layers;
    if layers.len() != diffs.len() {
        let (layers, diffs) = (layers.len(), diffs.len());
        return Err(format!("the manifest names {layers} layers, the configuration {diffs}"));
    }
    if layers.is_empty() || layers.len() > LAYERS_MAX {
        let has = layers.len();
        return Err(format!("the image has {has} layers; 1 to {LAYERS_MAX} can be used"));
    }
    let pair = |(layer, diff): (&Descriptor, Digest)| {
        let (blob, kind) = (blob(layer, "a layer")?, &layer.media_type);
        let digest = &blob.digest;
        if kind.contains("foreign") || kind.contains("nondistributable") {
            let kind = clean(kind);
            return Err(format!(
                "layer {digest} is a foreign one ({kind}), which no registry gives out"
            ));
        }
        if is_no_tar(kind) {
            let kind = clean(kind);
            return Err(format!("layer {digest} is no file system but `{kind}`"));
        }
        Ok((blob, diff))
    };
    let layers = layers.iter().zip(diffs).map(pair).collect::<Result<_, String>>()?;
    Ok(Image { layers, config })
}

/// Whether a layer's media type says that it is something else than files: signatures and other papers
/// about images come in the form of images. What says nothing is believed to be one.
fn is_no_tar(kind: &str) -> bool {
    kind.ends_with("json") || (kind.starts_with("application/vnd.") && !kind.contains("tar"))
}

pub(super) fn read<'a, T: Deserialize<'a>>(json: &'a [u8], what: &str) -> Result<T, String> {
    // serde repeats words of the document.
    let told = |err: serde_json::Error| failure::clean(&err.to_string());
    serde_json::from_slice(json).map_err(|err| format!("{what} cannot be read: {}", told(err)))
}

fn blob(of: &Descriptor, what: &str) -> Result<Blob, String> {
    Ok(Blob { digest: digest(&of.digest, what)?, size: of.size })
}

pub(super) fn digest(text: &str, what: &str) -> Result<Digest, String> {
    text.parse().map_err(|err| format!("the digest of {what}: {err}"))
}

fn tag_of(one: &Descriptor) -> Option<&str> {
    one.annotations.as_ref()?.ref_name.as_deref()
}

/// Some programs write `name:tag` there.
fn has_tag(one: &Descriptor, tag: &str) -> bool {
    tag_of(one)
        .is_some_and(|name| name == tag || name.rsplit_once(':').is_some_and(|it| it.1 == tag))
}

/// A few of somebody else's words.
pub(super) fn list<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.take(8).map(|word| format!("`{}`", clean(word))).collect();
    if words.is_empty() { "none that says so".into() } else { words.join(", ") }
}

pub(super) fn clean(word: &str) -> String {
    word.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amd() -> Runs {
        Runs::on("x86_64", 1)
    }

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
        let key = "org.opencontainers.image.ref.name";
        let tag = |tag: &str| format!(r#","annotations":{{"a":1,"{key}":"{tag}"}}"#);
        let all = index(&[
            one('1', &on("unknown", "unknown")),
            one('2', &on("linux", "arm64")),
            one('3', &on("linux", "amd64")),
            one('4', &tag("v1")),
            one('5', &tag("example.com/a:v2")),
            one('6', &format!(r#","mediaType":"{}"{}"#, INDEXES[0], tag("all"))),
        ]);
        assert_eq!(digit_of(choose(&all, None, &amd())), '3');
        assert_eq!(digit_of(choose(&all, None, &Runs::on("aarch64", 0))), '2');
        assert_eq!(digit_of(choose(&all, Some("v1"), &amd())), '4');
        assert_eq!(digit_of(choose(&all, Some("v2"), &amd())), '5');
        assert_eq!(digit_of(choose(&all, Some("all"), &amd())), 'i');
        let err = choose(&all, Some("v\n3"), &amd()).expect_err("no such tag");
        assert_eq!(err, r"no image has the tag `v\n3`; it has `v1`, `example.com/a:v2`, `all`");
        let other = index(&[one('2', &on("linux", "arm64"))]);
        let err = choose(&other, None, &amd()).expect_err("not for this box");
        assert_eq!(
            err,
            "no image runs on linux/amd64; it has `linux/arm64`; ask for one that was built for it"
        );
        assert!(choose(&index(&[]), None, &amd()).is_err());
    }

    #[test]
    fn a_document_is_one_thing() {
        let list = "application/vnd.oci.image.index.v1+json";
        let one = "application/vnd.oci.image.manifest.v1+json";
        assert_eq!(kind(br#"{"layers":[]}"#, ""), Ok(Kind::Manifest));
        assert_eq!(kind(br#"{"manifests":[]}"#, list), Ok(Kind::Index));
        assert_eq!(kind(br#"{"fsLayers":[]}"#, "text/plain"), Ok(Kind::First));
        let named = format!(r#"{{"mediaType":"{one}","layers":[]}}"#);
        assert_eq!(kind(named.as_bytes(), "application/json"), Ok(Kind::Manifest));
        for (text, told) in [
            (r#"{"layers":[],"manifests":[]}"#, ""),
            ("{}", ""),
            ("[]", one),
            (r#"{"layers":[]}"#, list),
            (r#"{"manifests":[]}"#, one),
            (&named, list),
        ] {
            assert!(kind(text.as_bytes(), told).is_err(), "{text} {told}");
        }
    }

    #[test]
    fn what_is_no_containers_image_is_refused() {
        let with = |media: &str| one('c', &format!(r#","mediaType":"{media}""#));
        let chart = format!(
            r#"{{"config":{},"layers":[]}}"#,
            with("application/vnd.cncf.helm.config.v1+json")
        );
        assert!(config(chart.as_bytes()).expect_err("a chart").contains("no image of a container"));
        let foreign = with("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        let text = format!(r#"{{"config":{},"layers":[{foreign}]}}"#, with(CONFIGS[0]));
        let about = format!(r#"{{"rootfs":{{"diff_ids":["{}"]}}}}"#, named('a'));
        let err = image(text.as_bytes(), about.as_bytes(), &amd()).expect_err("a foreign layer");
        assert!(err.contains("is a foreign one"), "{err}");
    }

    /// A few bytes of text each, and in memory hundreds.
    #[test]
    fn what_a_manifest_names_is_counted_while_it_is_read() {
        let many = vec![r#"{"digest":"","size":0}"#; ENTRIES_MAX + 1].join(",");
        let said = choose(format!(r#"{{"manifests":[{many}]}}"#).as_bytes(), None, &amd());
        let said = said.expect_err("images");
        assert!(said.starts_with("its index cannot be read: `manifests` has more than "), "{said}");
        let text = format!(r#"{{"config":{},"layers":[{many}]}}"#, one('c', ""));
        let said = config(text.as_bytes()).expect_err("layers");
        assert!(said.starts_with("a manifest cannot be read: `layers` has more than "), "{said}");
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
        let good = image(&manifest(&[one('1', "")]), &config("amd64", &[named('a')]), &amd());
        let good = good.expect("an image");
        assert_eq!((good.layers.len(), good.config.env), (1, vec!["A=b".to_owned()]));
        let said = |manifest: &[u8], config: &[u8]| {
            image(manifest, config, &amd()).expect_err("must be refused")
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
