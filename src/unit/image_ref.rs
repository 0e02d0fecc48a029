//! Names of images in registries: `[host[:port]/]path[:tag][@sha256:<hex>]`, and Garden's URL form
//! `docker://[host[:port]]/path[#tag]`, with a digest as cloud controllers write it:
//! `path#tag@sha256:<hex>`, `path@sha256#<hex>`.

use super::digest::Digest;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest host and path together, in bytes.
const NAME_MAX: usize = 255;
/// Longest tag, in bytes.
const TAG_MAX: usize = 128;
/// What a name without tag and digest means.
const LATEST: &str = "latest";
/// The registry that everybody calls by another name, and those names.
const HUB: &str = "docker.io";
const HUB_ALIASES: [&str; 3] = [HUB, "index.docker.io", "registry-1.docker.io"];

/// The one name of a registry that is known by several.
pub fn registry_name(host: &str) -> &str {
    if HUB_ALIASES.contains(&host) { HUB } else { host }
}

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef {
    /// `host` or `host:port`; `None`: the box's default registry.
    host: Option<String>,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Text that names no image: why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadImageRef {
    text: String,
    why: String,
}

impl fmt::Display for BadImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` names no image: {}; write [host[:port]/]path[:tag][@sha256:...]",
            self.text.escape_default(),
            self.why
        )
    }
}

impl std::error::Error for BadImageRef {}

impl ImageRef {
    /// The registry as it was written, Docker Hub under its one name; `None`: the default one.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The same, at the registry `host` when it names none.
    pub fn at(&self, host: &str) -> ImageRef {
        let host = self.host.clone().unwrap_or_else(|| host.to_owned());
        ImageRef { host: Some(host), ..self.clone() }
    }

    /// The repository in the registry `host`: on Docker Hub, a name of one part is an official
    /// image.
    pub fn repository(&self, host: &str) -> String {
        match host == HUB && !self.path.contains('/') {
            true => format!("library/{}", self.path),
            false => self.path.clone(),
        }
    }

    /// The tag; `latest` when there is none. With a digest it only tells people something.
    pub fn tag(&self) -> &str {
        self.tag.as_deref().unwrap_or(LATEST)
    }

    /// Whether it says which tag.
    pub fn has_tag(&self) -> bool {
        self.tag.is_some()
    }

    /// What exactly it must be.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same repository's image of another tag; `None`: it is no tag.
    pub fn tagged(&self, tag: &str) -> Option<ImageRef> {
        let tag = Some(read_tag(tag).ok()?);
        Some(ImageRef { tag, digest: None, ..self.clone() })
    }

    /// The same image, and nothing else that may get its tag.
    pub fn pinned(&self, digest: Digest) -> ImageRef {
        ImageRef { digest: Some(digest), ..self.clone() }
    }

    /// Reads what follows `docker://`: `[host[:port]]/path`, then `#tag`, `#sha256:...`,
    /// `#tag@sha256:...`, `@sha256#...`, or what the short form has.
    fn from_url(rest: &str) -> Result<ImageRef, String> {
        // Whoever cuts at the last `:` cuts a digest in two, as nsync and the controller do.
        let joined = rest.contains("@sha256#").then(|| rest.replacen("@sha256#", "@sha256:", 1));
        let rest = joined.as_deref().unwrap_or(rest);
        let (rest, fragment) = match rest.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment)),
            None => (rest, None),
        };
        if rest.contains(['?', '%']) {
            return Err("it has a query or an escaped character".into());
        }
        let (host, path) = rest.split_once('/').ok_or("it has no path")?;
        if host.contains('@') {
            return Err("it has a user in it: give user and password beside it".into());
        }
        let mut image = match host {
            "" => ImageRef::from_short(path)?,
            host => ImageRef { host: Some(read_host(host)?), ..ImageRef::from_path(path)? },
        };
        match fragment {
            None | Some("") => {}
            Some(_) if image.tag.is_some() || image.digest.is_some() => {
                return Err("it has a tag before and behind the `#`".into());
            }
            Some(text) => match text.split_once('@') {
                Some((tag, digest)) => {
                    image.tag = Some(read_tag(tag)?);
                    image.digest = Some(read_digest(digest)?);
                }
                None if text.contains(':') => image.digest = Some(read_digest(text)?),
                None => image.tag = Some(read_tag(text)?),
            },
        }
        image.checked()
    }

    /// Reads `[host[:port]/]path[:tag][@digest]`.
    fn from_short(text: &str) -> Result<ImageRef, String> {
        match text.split_once('/') {
            Some((first, rest)) if is_host(first) => {
                let host = Some(read_host(first)?);
                Ok(ImageRef { host, ..ImageRef::from_path(rest)? })
            }
            _ => ImageRef::from_path(text),
        }
    }

    /// Reads `path[:tag][@digest]`.
    fn from_path(text: &str) -> Result<ImageRef, String> {
        let (text, digest) = match text.rsplit_once('@') {
            Some((text, digest)) => (text, Some(read_digest(digest)?)),
            None => (text, None),
        };
        let (path, tag) = match text.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(read_tag(tag)?)),
            _ => (text, None),
        };
        for part in path.split('/') {
            check_part(part)?;
        }
        if path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("64 hex digits alone are an id, and ids are not asked for".into());
        }
        Ok(ImageRef { host: None, path: path.to_owned(), tag, digest })
    }

    fn checked(self) -> Result<ImageRef, String> {
        let length = self.host.as_ref().map_or(0, |host| host.len() + 1) + self.path.len();
        match length > NAME_MAX {
            true => Err(format!("it has {length} bytes; at most {NAME_MAX} are allowed")),
            false => Ok(self),
        }
    }
}

impl FromStr for ImageRef {
    type Err = BadImageRef;

    fn from_str(text: &str) -> Result<ImageRef, BadImageRef> {
        let read = match text.strip_prefix("docker://") {
            Some(rest) => ImageRef::from_url(rest),
            None => ImageRef::from_short(text).and_then(ImageRef::checked),
        };
        read.map_err(|why| BadImageRef { text: text.chars().take(NAME_MAX).collect(), why })
    }
}

impl TryFrom<String> for ImageRef {
    type Error = BadImageRef;
    fn try_from(text: String) -> Result<ImageRef, BadImageRef> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(image: ImageRef) -> String {
        image.to_string()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}/")?;
        }
        f.write_str(&self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Whether the first part of a name is a registry rather than a path.
fn is_host(first: &str) -> bool {
    first.contains(['.', ':'])
        || first == "localhost"
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn read_host(text: &str) -> Result<String, String> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inner, after) = rest.split_once(']').ok_or("`[` without `]` in its host")?;
            let inside = inner.parse::<std::net::Ipv6Addr>();
            inside.map_err(|_| format!("`{inner}` is no IPv6 address"))?;
            let port = match after {
                "" => None,
                after => Some(after.strip_prefix(':').ok_or("text after `]` in its host")?),
            };
            (None, port)
        }
        None => match text.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(text), None),
        },
    };
    if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err(format!("`{}` is no port", port.unwrap_or_default()));
    }
    let plain = |part: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !part.is_empty()
            && part.bytes().all(inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    if name.is_some_and(|name| !name.split('.').all(plain)) {
        return Err(format!("`{}` is no host", name.unwrap_or_default()));
    }
    let host = text.to_ascii_lowercase();
    Ok(registry_name(&host).to_owned())
}

/// Lower-case letters and digits, joined by one `.`, one or two `_`, or any number of `-`.
fn check_part(part: &str) -> Result<(), String> {
    let why = match part {
        "" => "an empty part in its path".to_owned(),
        part => format!(
            "`{part}` in its path; lower-case letters, digits and single `.`, `_`, `-` are allowed"
        ),
    };
    let is_word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().is_some_and(&is_word) || !bytes.last().is_some_and(&is_word) {
        return Err(why);
    }
    let mut joints = bytes.split(is_word).filter(|joint| !joint.is_empty());
    match joints
        .all(|joint| matches!(joint, b"." | b"_" | b"__") || joint.iter().all(|b| *b == b'-'))
    {
        true => Ok(()),
        false => Err(why),
    }
}

fn read_tag(text: &str) -> Result<String, String> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let plain = text.bytes().all(inner) && !text.starts_with(['.', '-']) && !text.is_empty();
    match plain && text.len() <= TAG_MAX {
        true => Ok(text.to_owned()),
        false => Err(format!("`{text}` is no tag")),
    }
}

fn read_digest(text: &str) -> Result<Digest, String> {
    match text.split_once(':') {
        Some(("sha512", _)) => Err("its digest is sha512; only sha256 is supported".into()),
        _ => text.parse().map_err(|err| format!("{err}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex() -> String {
        Digest::of(b"").to_string()
    }

    /// Host, repository there, tag, whether there is a digest.
    fn parts(text: &str) -> (Option<String>, String, String, bool) {
        let image: ImageRef = text.parse().unwrap_or_else(|err| panic!("{text}: {err}"));
        let host = image.host().map(str::to_owned);
        let repository = image.repository(host.as_deref().unwrap_or(HUB));
        (host, repository, image.tag().to_owned(), image.digest().is_some())
    }

    #[test]
    fn every_form_is_read() {
        let at = |host: &str| Some(host.to_owned());
        let digest = hex();
        let rows = [
            ("tutum/tomcat", None, "tutum/tomcat", "latest", false),
            ("busybox", None, "library/busybox", "latest", false),
            ("library/busybox", None, "library/busybox", "latest", false),
            ("busybox:1.36", None, "library/busybox", "1.36", false),
            ("localhost/x", at("localhost"), "x", "latest", false),
            ("localhost:5000/x:y", at("localhost:5000"), "x", "y", false),
            ("a.b/c", at("a.b"), "c", "latest", false),
            ("A/b", at("a"), "b", "latest", false),
            ("[::1]:5000/x", at("[::1]:5000"), "x", "latest", false),
            ("index.docker.io/x", at("docker.io"), "library/x", "latest", false),
            ("a/b__c/d-e.f---g", None, "a/b__c/d-e.f---g", "latest", false),
            ("docker:///tutum/tomcat#8.0", None, "tutum/tomcat", "8.0", false),
            ("docker:///busybox", None, "library/busybox", "latest", false),
            ("docker:///busybox:1.2", None, "library/busybox", "1.2", false),
            ("docker://reg.lan:5000/ops/app#1", at("reg.lan:5000"), "ops/app", "1", false),
            ("docker:///reg.lan:5000/ops/app", at("reg.lan:5000"), "ops/app", "latest", false),
        ];
        for (text, host, repository, tag, has_digest) in rows {
            assert_eq!(parts(text), (host, repository.into(), tag.into(), has_digest), "{text}");
        }
        for text in [
            format!("x:5000/y@{digest}"),
            format!("docker://x:5000/y@{digest}"),
            format!("docker://x:5000/y#{digest}"),
            format!("docker://x:5000/y@{}", digest.replace(':', "#")),
        ] {
            assert_eq!(parts(&text), (at("x:5000"), "y".into(), "latest".into(), true), "{text}");
        }
        let both = format!("x:5000/y:1.2@{digest}");
        for text in [
            both.clone(),
            format!("docker://x:5000/y#1.2@{digest}"),
            format!("docker://x:5000/y:1.2@{}", digest.replace(':', "#")),
        ] {
            assert_eq!(parts(&text), (at("x:5000"), "y".into(), "1.2".into(), true), "{text}");
        }
        assert_eq!(both.parse::<ImageRef>().expect("ref").to_string(), both);
    }

    #[test]
    fn what_names_nothing_is_refused() {
        let long = "a/".repeat(130) + "a";
        let digest = hex();
        let bare = digest.trim_start_matches("sha256:").to_owned();
        let (short, sha512) = (&digest[..60], format!("x@sha512:{}", "0".repeat(128)));
        let twice = format!("docker:///a:1#{digest}");
        for bad in [
            "",
            "/",
            "a//b",
            "a/../b",
            "..",
            "a/",
            "/a",
            "Library/x/B",
            "a:",
            "a:.b",
            "a b",
            "a\n",
            "a___b",
            "a._b",
            "-a",
            "a-",
            "host:99999/x",
            "host:0/x",
            "host:/x",
            "ho_st.x/y",
            "[::1/x",
            "[zz]/x",
            "docker://",
            "docker://host",
            "docker:///",
            "docker://u@h/x",
            "docker:///a?b",
            "docker:///a%2fb",
            "docker:///a:1#2",
            "docker:///a#sha256:zz",
            "docker:///a@sha256#zz",
            "docker:///a#1@sha256:zz",
            "docker:///a#1@2",
            &long,
            &bare,
            &format!("x@{short}"),
            &sha512,
            &twice,
        ] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad:?} was taken");
        }
        let text = "a//b".parse::<ImageRef>().expect_err("refused").to_string();
        assert_eq!(
            text,
            "`a//b` names no image: an empty part in its path; write [host[:port]/]path[:tag][@sha256:...]"
        );
    }
}
