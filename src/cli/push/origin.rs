//! What is meant by the word that is pushed: a directory, an archive or an image.

use crate::cli::error::CliError;
use crate::cli::parse::{Push, UsageError, What};
use crate::unit::{AppName, ImageRef};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// How the names of archives end that cf pushes the contents of.
const ARCHIVES: [&str; 4] = ["zip", "jar", "war", "ear"];

/// Most images that are told of.
const TAGGED_MAX: usize = 3;

/// What is pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Absolute.
    Dir(PathBuf),
    /// A zip with what a directory would hold, absolute.
    Archive(PathBuf),
    Image(ImageRef),
    /// A word that is an image when the box has one of that name, and else most likely a path that is not there.
    Perhaps(ImageRef),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Dir(path) | Origin::Archive(path) => path.display().fmt(f),
            Origin::Image(image) | Origin::Perhaps(image) => image.fmt(f),
        }
    }
}

/// The directory, the archive or the image that is meant.
pub fn origin(push: &Push) -> Result<Origin, CliError> {
    let what = push.what.as_deref().unwrap_or(".");
    let path = Path::new(what);
    let looks_like_path = what.starts_with(['.', '/', '~']);
    let may_be_image = match push.kind {
        What::Any => !path.exists() && !looks_like_path,
        What::Image => true,
        What::Path => false,
    };
    match what.parse::<ImageRef>() {
        Ok(image) if may_be_image && (push.kind == What::Image || is_image(what, &image)) => {
            return Ok(Origin::Image(image));
        }
        Ok(image) if may_be_image => return Ok(Origin::Perhaps(image)),
        Err(_) if push.kind == What::Any && may_be_image => return Err(nothing(what, &[]).into()),
        Err(err) if push.kind == What::Image => {
            return Err(UsageError::new(format!("-o {what}: {err}"), "write its name").into());
        }
        _ => {}
    }
    let failed = |source| CliError::File { doing: "push", path: path.to_owned(), source };
    let whole = std::fs::canonicalize(path).map_err(failed)?;
    let ends = |end: &&str| whole.extension().is_some_and(|it| it.eq_ignore_ascii_case(end));
    match whole.is_dir() {
        true => Ok(Origin::Dir(whole)),
        false if whole.is_file() && ARCHIVES.iter().any(ends) => Ok(Origin::Archive(whole)),
        false => {
            let why = "it is neither a directory nor a zip, jar or war; unpack it, and push that; an image's \
                       archive is for `terrarium image load`, and then its name can be pushed";
            Err(failed(io::Error::new(io::ErrorKind::NotADirectory, why)))
        }
    }
}

/// Whether a word that is nothing here names an image beyond doubt: by its tag, its digest or its registry. The
/// latter looks like a directory with a dot in its name, of which there may be one.
fn is_image(what: &str, image: &ImageRef) -> bool {
    let first = what.split('/').next().unwrap_or_default();
    let by_registry = image.host().is_some() && !Path::new(first).is_dir();
    what.contains("://") || image.has_tag() || image.digest().is_some() || by_registry
}

/// What somebody may have meant by a word that is neither here nor an image of the box. `tagged`: the names of
/// those of the box that are called so, and have another tag.
pub fn nothing(what: &str, tagged: &[String]) -> UsageError {
    let mut told = format!("there is no directory or archive `{what}` here");
    let mut cures = Vec::new();
    match (what.parse::<ImageRef>(), tagged) {
        (Ok(image), []) => {
            told.push_str(&format!(", nor an image {image}:{} on this box", image.tag()));
            cures.push(format!("write {image}:latest or -o {image} for an image of a registry"));
        }
        (Ok(image), _) => {
            told.push_str(&format!(", nor an image {image}:{} on this box", image.tag()));
            let which = if tagged.len() == 1 { "that" } else { "one of them" };
            cures.push(format!("the box has {}; write {which}", tagged.join(" and ")));
        }
        // It is none's name.
        (Err(_), _) => {}
    }
    let name = what.to_lowercase().replace('_', "-");
    if name.parse::<AppName>().is_ok() {
        cures.push(format!("-n {name} to push this directory by that name"));
    }
    if cures.is_empty() {
        cures.push("write the path of one, or NAME:TAG for an image".to_owned());
    }
    UsageError::new(told, cures.join(", or "))
}

/// Those of the `names` of the box's images, which are whole, that are of the repository of `image`.
pub fn tagged<'a>(image: &ImageRef, names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let is_of = |name: &&String| {
        let Ok(it) = name.parse::<ImageRef>() else { return false };
        let host = it.host().unwrap_or_default();
        // Which registry is meant by none, the daemon knows alone.
        let same_host = image.host().is_none_or(|own| own == host);
        same_host && it.repository(host) == image.repository(host)
    };
    names.filter(is_of).take(TAGGED_MAX).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_an_image_by_tag_digest_or_registry_and_else_only_perhaps() {
        let digest = format!("ops/cache@sha256:{}", "0".repeat(64));
        // `src` is a directory here, as for whoever mistypes what is below one.
        for (what, sure) in [
            ("redis:7", true),
            ("ops/cache:7", true),
            (&*digest, true),
            ("registry.lan/ops/cache", true),
            ("localhost/cache", true),
            ("docker:///redis", true),
            ("redis", false),
            ("nodir", false),
            ("shop.jar", false),
            ("target/shop.jar", false),
            ("src/nodir", false),
        ] {
            let image: ImageRef = what.parse().unwrap_or_else(|err| panic!("{what}: {err}"));
            assert_eq!(is_image(what, &image), sure, "{what}");
            let push = |kind| Push { what: Some(what.into()), kind, ..Push::default() };
            let meant =
                if sure { Origin::Image(image.clone()) } else { Origin::Perhaps(image.clone()) };
            assert_eq!(origin(&push(What::Any)).ok(), Some(meant), "{what}");
            assert_eq!(origin(&push(What::Image)).ok(), Some(Origin::Image(image)), "{what}");
        }
    }

    #[test]
    fn what_is_nothing_is_told_with_what_else_may_have_been_meant() {
        let of = |what: &str| nothing(what, &[]).to_string();
        let said = of("nodir");
        for part in [
            "`nodir` here, nor an image nodir:latest on this box",
            "nodir:latest or -o nodir for an image",
            "-n nodir to push this",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!of("src/nodir").contains("-n "), "{}", of("src/nodir"));
        // What can be no image is told of none.
        for (what, cure) in [("MyApp", "-n myapp to"), ("target/Shop.jar", "the path of one")] {
            let push = Push { what: Some(what.into()), ..Push::default() };
            let said = origin(&push).expect_err("nothing").to_string();
            assert!(said.contains(&format!("archive `{what}` here")), "{said}");
            assert!(said.contains(cure) && !said.contains("-o "), "{said}");
        }
        // One of another tag is.
        let said = nothing("redis", &["docker.io/library/redis:7".into()]).to_string();
        assert!(said.contains("nor an image redis:latest on this box"), "{said}");
        assert!(said.contains("the box has docker.io/library/redis:7; write that"), "{said}");
    }

    #[test]
    fn images_of_one_repository_are_found_by_their_whole_names() {
        let names = ["docker.io/library/redis:7", "reg.lan/redis:6", "reg.lan/ops/redis:5"];
        let names = names.map(str::to_owned);
        let of = |image: &str| tagged(&image.parse().expect("an image"), names.iter());
        assert_eq!(of("redis"), names[..2]);
        assert_eq!(of("ops/redis"), names[2..]);
        assert_eq!(of("reg.lan/redis"), names[1..2]);
        assert!(of("nginx").is_empty());
    }
}
