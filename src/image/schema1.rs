//! Manifests of the first schema, as registries gave them out until 2017: a JSON document that is
//! signed in a form of its own. Pure.
//!
//! The digest of such a manifest is that of what was signed: the first `formatLength` bytes and
//! `formatTail`, both told in the protected part of a signature. Nobody vouches for the key, so the
//! signature itself proves nothing that the digest does not. What is signed is put together first,
//! and nothing but that is ever read: the rest of the document has no digest.

use super::bounded::{self, ENTRIES_MAX};
use super::manifest::{self, LAYERS_MAX, clean};
use super::registry::credentials::from_base64;
use crate::unit::Digest;
use serde::{Deserialize, Deserializer};

/// The layer that changes nothing: a packed tar without entries.
const EMPTY: &str = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d663cb16422d00e8a7c22955b46d4";

/// An image.
#[derive(Debug, PartialEq, Eq)]
pub struct First {
    /// Digests of its layers' blobs, lowest first, without those that change nothing.
    pub layers: Vec<Digest>,
    /// What is said of the newest layer: its configuration counts.
    pub newest: String,
    /// What it was made for; empty: it does not say.
    pub architecture: String,
    /// The repository and the tag that it was made for.
    name: String,
    tag: String,
}

impl First {
    /// Whether it is what somebody asked for by a name only, as nothing else tells it from another one of
    /// the same maker.
    pub fn check_name(&self, repository: &str, tag: &str) -> Result<(), String> {
        if (&*self.name, &*self.tag) == (repository, tag) {
            return Ok(());
        }
        let (name, own) = (clean(&self.name), clean(&self.tag));
        Err(format!("the manifest that came for {repository}:{tag} is that of `{name}:{own}`"))
    }
}

/// Most signatures that are looked at.
const SIGNATURES_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    name: String,
    #[serde(default)]
    tag: String,
    #[serde(default)]
    architecture: String,
    #[serde(deserialize_with = "fs_layers")]
    fs_layers: Vec<FsLayer>,
    #[serde(deserialize_with = "history")]
    history: Vec<Entry>,
}

/// What is known of a document before it is known what of it was signed.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default, deserialize_with = "signatures")]
    signatures: Vec<Signature>,
}

fn fs_layers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<FsLayer>, D::Error> {
    bounded::list(from, "fsLayers", ENTRIES_MAX)
}

fn history<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Entry>, D::Error> {
    bounded::list(from, "history", ENTRIES_MAX)
}

fn signatures<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Signature>, D::Error> {
    bounded::list(from, "signatures", SIGNATURES_MAX)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FsLayer {
    blob_sum: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(rename = "v1Compatibility")]
    text: String,
}

#[derive(Deserialize)]
struct Signature {
    protected: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Protected {
    format_length: usize,
    format_tail: String,
}

#[derive(Deserialize)]
struct About {
    id: String,
    #[serde(default)]
    parent: String,
}

/// Reads what [`signed`] has made of a manifest. Each layer must be the next one's parent.
pub fn read(json: &[u8]) -> Result<First, String> {
    let document: Document = manifest::read(json, "a manifest of the first schema")?;
    let Document { name, tag, architecture, fs_layers: layers, history } = document;
    if layers.len() != history.len() {
        return Err(format!(
            "the manifest names {} layers and tells of {}",
            layers.len(),
            history.len()
        ));
    }
    if layers.is_empty() || layers.len() > LAYERS_MAX {
        return Err(format!(
            "the image has {} layers; 1 to {LAYERS_MAX} can be used",
            layers.len()
        ));
    }
    let mut about = Vec::with_capacity(history.len());
    for entry in &history {
        let one: About = manifest::read(entry.text.as_bytes(), "what is said of a layer")?;
        about.push(one);
    }
    let is_chain = about.windows(2).all(|pair| pair[0].parent == pair[1].id);
    let ends = about.last().is_some_and(|lowest| lowest.parent.is_empty());
    let mut ids: Vec<&str> = about.iter().map(|one| one.id.as_str()).collect();
    ids.sort_unstable();
    if !is_chain || !ends || ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(
            "its layers are not each other's parents, from the newest to one without".into()
        );
    }
    let blobs = layers.iter().rev().map(|layer| manifest::digest(&layer.blob_sum, "a layer"));
    let blobs: Vec<Digest> = blobs.collect::<Result<_, String>>()?;
    let layers: Vec<Digest> = blobs.into_iter().filter(|blob| blob.to_string() != EMPTY).collect();
    if layers.is_empty() {
        return Err("none of its layers holds anything".into());
    }
    let newest = history.into_iter().next().map(|entry| entry.text).unwrap_or_default();
    Ok(First { layers, newest, architecture, name, tag })
}

/// What was signed: the bytes that the manifest's digest is over, and all that may be read of it. A
/// document without signatures is itself.
pub fn signed(json: &[u8]) -> Result<Vec<u8>, String> {
    let envelope: Envelope = manifest::read(json, "a manifest of the first schema")?;
    let mut payload: Option<Vec<u8>> = None;
    for signature in &envelope.signatures {
        let one = signature.payload(json)?;
        if payload.as_ref().is_some_and(|other| *other != one) {
            return Err("its signatures are not of the same manifest".into());
        }
        payload = Some(one);
    }
    Ok(payload.unwrap_or_else(|| json.to_vec()))
}

impl Signature {
    /// What it is of.
    fn payload(&self, json: &[u8]) -> Result<Vec<u8>, String> {
        let wrong = || format!("its signature cannot be read: `{}`", clean(&self.protected));
        let protected = from_base64(&self.protected).ok_or_else(wrong)?;
        let protected: Protected = serde_json::from_slice(&protected).map_err(|_| wrong())?;
        let begin = json.get(..protected.format_length).ok_or_else(wrong)?;
        let tail = from_base64(&protected.format_tail).ok_or_else(wrong)?;
        let payload = [begin, &tail].concat();
        // The signatures come after what is signed: whoever signs them too signs something else.
        let inside: Envelope =
            manifest::read(&payload, "what is signed of a manifest of the first schema")?;
        match inside.signatures.is_empty() {
            true => Ok(payload),
            false => Err("what is signed of the manifest has signatures itself".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::registry::credentials::base64;

    fn blob(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    /// Newest first: id, parent, blob.
    fn document(rows: &[(&str, &str, &str)]) -> String {
        let layers = rows.iter().map(|(.., blob)| format!(r#"{{"blobSum":"{blob}"}}"#));
        let about = rows.iter().map(|(id, parent, _)| {
            let text = format!(r#"{{"id":"{id}","parent":"{parent}","config":{{"Env":["A=b"]}}}}"#);
            format!(r#"{{"v1Compatibility":{}}}"#, serde_json::to_string(&text).expect("text"))
        });
        let (layers, about): (Vec<_>, Vec<_>) = (layers.collect(), about.collect());
        format!(r#"{{"fsLayers":[{}],"history":[{}]"#, layers.join(","), about.join(","))
    }

    #[test]
    fn layers_come_lowest_first_and_empty_ones_not() {
        let text =
            document(&[("c", "b", &blob('3')), ("b", "a", EMPTY), ("a", "", &blob('1'))]) + "}";
        let image = read(text.as_bytes()).expect("an image");
        let digests = ['1', '3'].map(|digit| blob(digit).parse::<Digest>().expect("digest"));
        assert_eq!(image.layers, digests);
        assert!(image.newest.contains(r#""id":"c""#));
        assert_eq!(signed(text.as_bytes()).as_deref(), Ok(text.as_bytes()));
    }

    /// `begin`, then what is not signed: `more`, and a signature for each length.
    fn with_signatures(begin: &str, more: &str, lengths: &[usize]) -> String {
        let one = |length: &usize| {
            let tail = base64(b"}");
            let text = format!(r#"{{"formatLength":{length},"formatTail":"{tail}"}}"#);
            format!(r#"{{"protected":"{}"}}"#, base64(text.as_bytes()))
        };
        let all: Vec<String> = lengths.iter().map(one).collect();
        format!(r#"{begin}{more},"signatures":[{}]}}"#, all.join(","))
    }

    #[test]
    fn a_signed_manifest_is_what_was_signed() {
        let begin = document(&[("a", "", &blob('1'))]);
        let is = format!("{begin}}}").into_bytes();
        let length = begin.len();
        let text = with_signatures(&begin, "", &[length, length]);
        assert_eq!(signed(text.as_bytes()), Ok(is));
        for lengths in [&[length * 10][..], &[length - 1], &[length, 0], &[0, length]] {
            let text = with_signatures(&begin, "", lengths);
            assert!(signed(text.as_bytes()).is_err(), "{lengths:?}");
        }
    }

    /// A pin of a few bytes, and an image behind them.
    #[test]
    fn what_is_not_signed_is_not_read() {
        let whole = document(&[("a", "", &blob('1'))]);
        let begin = r#"{"schemaVersion":1"#;
        let rest = format!(",{}", &whole[1..]);
        let text = with_signatures(begin, &rest, &[begin.len()]);
        let payload = signed(text.as_bytes()).expect("signed");
        assert_eq!(payload, format!("{begin}}}").as_bytes());
        assert!(read(&payload).is_err());
    }

    #[test]
    fn a_manifest_says_what_it_is_the_manifest_of() {
        let text = document(&[("a", "", &blob('1'))]);
        let named =
            format!(r#"{{"name":"ops/app","tag":"1","architecture":"arm",{}}}"#, &text[1..]);
        let image = read(named.as_bytes()).expect("an image");
        assert_eq!((image.check_name("ops/app", "1"), &*image.architecture), (Ok(()), "arm"));
        for (repository, tag) in [("ops/app", "2"), ("ops/other", "1")] {
            let why = image.check_name(repository, tag).expect_err("another one");
            assert!(why.ends_with("is that of `ops/app:1`"), "{why}");
        }
        let silent = read(format!("{text}}}").as_bytes()).expect("an image");
        assert!(silent.check_name("ops/app", "1").is_err());
    }

    #[test]
    fn what_a_document_lists_is_counted_while_it_is_read() {
        let many = |item: &str, count: usize| vec![item; count + 1].join(",");
        let blobs = many(r#"{"blobSum":""}"#, ENTRIES_MAX);
        let about = many(r#"{"v1Compatibility":""}"#, ENTRIES_MAX);
        for (layers, history, name) in [(&*blobs, "", "fsLayers"), ("", &*about, "history")] {
            let text = format!(r#"{{"fsLayers":[{layers}],"history":[{history}]}}"#);
            let said = read(text.as_bytes()).expect_err(name);
            assert!(said.contains(&format!("`{name}` has more than 10000 entries")), "{said}");
        }
        let marks = many(r#"{"protected":""}"#, SIGNATURES_MAX);
        let said = signed(format!(r#"{{"signatures":[{marks}]}}"#).as_bytes()).expect_err("marks");
        assert!(said.contains("`signatures` has more than 64 entries"), "{said}");
    }

    #[test]
    fn families_that_are_none_are_refused() {
        let (one, two) = (blob('1'), blob('2'));
        for rows in [
            &[("b", "x", &*two), ("a", "", &*one)][..],
            &[("b", "a", &*two), ("a", "b", &*one)],
            &[("a", "a", &*two), ("a", "", &*one)],
            &[("a", "", EMPTY)],
            &[],
        ] {
            assert!(read((document(rows) + "}").as_bytes()).is_err(), "{rows:?}");
        }
    }
}
