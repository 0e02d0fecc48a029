//! Which containers are made of which image.

use super::{All, failed};
use crate::api::apps::{ErrorKind, Served, ServiceError};
use crate::container::Host;
use crate::unit::Digest;

/// Containers that a refusal names.
const NAMED_MAX: usize = 5;

/// Containers of each image, by their name on the box, in the order of `all`. Blocking.
pub fn of(host: &Host, all: &All) -> Served<Vec<Vec<String>>> {
    let mut used = vec![Vec::new(); all.len()];
    let images: Vec<&[Digest]> = all.iter().map(|(known, _)| &known.layers[..]).collect();
    for handle in host.list().map_err(|err| failed(&err))? {
        // One that is gone by now, or cannot be read, is not known to be made of anything: its layers
        // stay all the same.
        let Ok(Some(entry)) = host.entry(&handle) else { continue };
        for at in made_of(&images, &entry.spec.layers) {
            used[at].push(handle.to_string());
        }
    }
    used.iter_mut().for_each(|names| names.sort());
    Ok(used)
}

/// The images that a container of `layers` may be of: those with most of its layers, from the lowest
/// up. Several when they differ in nothing else.
fn made_of(images: &[&[Digest]], layers: &[Digest]) -> Vec<usize> {
    let fits = |image: &&[Digest]| !image.is_empty() && layers.starts_with(image);
    let most = images.iter().filter(|image| fits(image)).map(|image| image.len()).max();
    let all = images.iter().enumerate().filter(|(_, image)| fits(image));
    all.filter(|(_, image)| Some(image.len()) == most).map(|(at, _)| at).collect()
}

/// Why an image cannot be removed.
pub fn refusal(image: &str, users: &[String]) -> ServiceError {
    let shown = users.iter().take(NAMED_MAX).map(|name| format!("`{}`", name.escape_default()));
    let shown = shown.collect::<Vec<_>>().join(", ");
    let (what, are) = if users.len() == 1 { ("container", "is") } else { ("containers", "are") };
    let more = match users.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let image = image.escape_default();
    let cure = if users.len() == 1 { "destroy it" } else { "destroy them" };
    let text = format!("{what} {shown}{more} {are} made of image {image}; {cure} first");
    ServiceError::new(ErrorKind::Conflict, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_of_the_image_with_most_of_its_layers() {
        let [a, b, c] = ["a", "b", "c"].map(|text| Digest::of(text.as_bytes()));
        let (base, app, other) = ([a], [a, b], [c]);
        let images: [&[Digest]; 5] = [&base, &app, &other, &app, &[]];
        assert_eq!(made_of(&images, &[a, b]), [1, 3]);
        assert_eq!(made_of(&images, &[a, b, c]), [1, 3], "with a layer of its own on top");
        assert_eq!(made_of(&images, &[a]), [0]);
        assert_eq!(made_of(&images, &[b]), [0; 0]);
    }

    #[test]
    fn a_refusal_names_a_few() {
        let names: Vec<String> = (1..=7).map(|n| format!("c{n}")).collect();
        let text = refusal("app", &names).message;
        assert!(text.starts_with("containers `c1`, `c2`, "), "{text}");
        assert!(text.contains("`c5` and 2 more are made of image app;"), "{text}");
        let text = refusal("app", &names[..1]).message;
        assert!(text.starts_with("container `c1` is made of"), "{text}");
    }
}
