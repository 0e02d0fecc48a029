//! `[image]`: an app that comes as an image, instead of as a source that is built.

use super::super::cursor::Section;
use super::super::sink::Place;
use super::Places;
use crate::model::manifest::Image;
use std::path::Path;

/// Sections that an image stands instead of.
const INSTEAD: [&str; 2] = ["source", "build"];

/// Reads `[image]`, if it is there: where it stands, and what it says. The inner `None`: something
/// was noted.
pub(super) fn read<'a>(
    top: &mut Section<'a>,
    dir: &Path,
    places: &mut Places,
) -> Option<(Place<'a>, Option<Image>)> {
    if !top.has("image") {
        return None;
    }
    let value = top.take("image")?;
    for key in INSTEAD {
        if top.has(key)
            && let Some(other) = top.take(key)
        {
            let text = format!("`{key}` and `image` do not go together");
            other.place.fail(text, "an app is built of its source, or comes as an image");
        }
    }
    let place = value.place.clone();
    let Some(mut section) = value.section() else { return Some((place, None)) };
    let name = section.take("ref");
    let archive = section.take("archive");
    let image = match (name, archive) {
        (Some(_), Some(archive)) => {
            archive.place.fail(
                "an image has `ref` or `archive`, not both",
                "remove one: `ref` comes from a registry, `archive` from this box",
            );
            None
        }
        (Some(name), None) => name.parsed(str::parse).map(Image::Ref),
        (None, Some(archive)) => {
            places.source = Some(archive.place.span());
            let path = archive.filled(4096);
            path.map(|path| Image::Archive(dir.join(path).components().collect()))
        }
        (None, None) => {
            let cure = "add ref = \"[HOST[:PORT]/]PATH[:TAG][@DIGEST]\", or archive = \"FILE\"";
            section.missing("ref", cure.into());
            None
        }
    };
    section.later(&["login", "platform", "policy", "pull"]);
    section.finish();
    Some((place, image))
}
