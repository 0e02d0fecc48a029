//! Images as a person reads them. Pure.

use crate::api::apps::images::{CollectedView, ImageView, ImagesView, LeftView};
use crate::cli::text::{Ink, Table, ago, size};

/// Digits of a digest that are shown.
const DIGITS: usize = 12;

/// `terrarium image ls`: a line for each name.
pub fn list(all: &ImagesView, now_ms: u64, color: bool) -> String {
    if all.images.is_empty() {
        return "no images; `terrarium image pull NAME` fetches one, `image load FILE` reads one\n"
            .into();
    }
    let mut rows: Vec<(&str, &ImageView)> = Vec::new();
    for image in &all.images {
        match &image.names[..] {
            [] => rows.push(("-", image)),
            names => rows.extend(names.iter().map(|name| (name.as_str(), image))),
        }
    }
    rows.sort_by_key(|(name, image)| (*name == "-", *name, image.digest));
    let mut table = Table::new("", &["NAME", "DIGEST", "SIZE", "LAST USED", "IN USE"]);
    for (name, image) in rows {
        let apps = image.used_by.iter().filter(|user| user.starts_with("app ")).count();
        let used = [(image.used_by.len() - apps, "container"), (apps, "idle app")];
        let used = used.into_iter().filter(|(number, _)| *number > 0);
        let used = used.map(|(number, what)| count(number as u64, what));
        let used = match used.collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => ("-".into(), Ink::Dim),
            used => (used, Ink::Good),
        };
        table.row([
            (name.to_owned(), Ink::Plain),
            (image.digest.hex()[..DIGITS].to_owned(), Ink::Plain),
            (size(image.bytes), Ink::Plain),
            (ago(now_ms, image.used_ms), Ink::Plain),
            used,
        ]);
    }
    let many = count(all.images.len() as u64, "image");
    format!("{}{many}, {} with each layer counted once\n", table.render(color), size(all.bytes))
}

/// `terrarium image gc`.
pub fn collected(gone: &CollectedView) -> String {
    let (images, layers) = (count(gone.images, "image"), count(gone.layers, "layer"));
    format!("removed {images} and {layers}, {}", full_size(gone.bytes))
}

/// What it has left: a line for each image, with all reasons.
pub fn left(gone: &CollectedView) -> Vec<String> {
    let line = |image: &LeftView| {
        let name = match &image.names[..] {
            [] => image.digest.to_string(),
            names => names.join(", "),
        };
        format!("{name}: left: {}", image.why.join("; "))
    };
    gone.left.iter().map(line).collect()
}

/// A size with its whole unit: `640B`, `12.3MiB`.
fn full_size(bytes: u64) -> String {
    match size(bytes) {
        none if bytes == 0 => format!("{none}B"),
        small if small.ends_with('B') => small,
        large => format!("{large}iB"),
    }
}

fn count(number: u64, what: &str) -> String {
    match number {
        0 => format!("no {what}"),
        1 => format!("1 {what}"),
        more => format!("{more} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::Digest;

    #[test]
    fn every_name_has_a_line_and_layers_count_once() {
        let image = |names: &[&str], bytes, used_by: &[&str]| ImageView {
            digest: Digest::of(bytes_of(names)),
            id: Digest::of(b""),
            names: names.iter().map(|name| name.to_string()).collect(),
            layers: Vec::new(),
            bytes,
            used_ms: 0,
            used_by: used_by.iter().map(|name| name.to_string()).collect(),
        };
        let images = vec![
            image(&["reg.lan/b:2", "reg.lan/b:1"], 12_900_000, &["one", "two"]),
            image(&[], 1024, &[]),
            image(&["reg.lan/a:1"], 640, &["app a", "app b", "x"]),
        ];
        let text = list(&ImagesView { images, bytes: 12_900_000 }, 7_200_000, false);
        let b = &Digest::of(b"reg.lan/b:2").hex()[..12];
        let expected = format!(
            "NAME         DIGEST        SIZE   LAST USED  IN USE\n\
             reg.lan/a:1  {}  640B   2h         1 container, 2 idle apps\n\
             reg.lan/b:1  {b}  12.3M  2h         2 containers\n\
             reg.lan/b:2  {b}  12.3M  2h         2 containers\n\
             -            {}  1K     2h         -\n\
             3 images, 12.3M with each layer counted once\n",
            &Digest::of(b"reg.lan/a:1").hex()[..12],
            &Digest::of(b"").hex()[..12],
        );
        assert_eq!(text, expected);
        assert_eq!(list(&ImagesView::default(), 0, false).lines().count(), 1);
    }

    fn bytes_of<'a>(names: &[&'a str]) -> &'a [u8] {
        names.first().map_or(b"", |name| name.as_bytes())
    }

    #[test]
    fn what_is_gone_is_counted() {
        let digest = Digest::of(b"x");
        let left = LeftView { digest, names: Vec::new(), why: vec!["one".into(), "two".into()] };
        let gone = CollectedView { images: 1, layers: 3, bytes: 1 << 30, left: vec![left] };
        assert_eq!(super::left(&gone), [format!("{digest}: left: one; two")]);
        assert_eq!(collected(&gone), "removed 1 image and 3 layers, 1GiB");
        assert_eq!(collected(&CollectedView::default()), "removed no image and no layer, 0B");
    }
}
