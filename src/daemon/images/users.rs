//! What is made of which image: containers, peas in them, and apps.

use super::{All, failed};
use crate::api::apps::{ErrorKind, Served, ServiceError};
use crate::container::Host;
use crate::unit::{AppName, Digest};

/// Users that a refusal names.
const NAMED_MAX: usize = 5;
/// How a user begins that is an app; no container's name on the box has a blank.
const APP: &str = "app ";

/// Users of each image, in the order of `all`: containers by their name on the box, also for the peas
/// in them, and `app NAME` for each of `apps`, which have none. Blocking.
pub fn of(host: &Host, apps: &[(AppName, Digest)], all: &All) -> Served<Vec<Vec<String>>> {
    let mut used = vec![Vec::new(); all.len()];
    let images: Vec<&[Digest]> = all.iter().map(|(known, _)| &known.layers[..]).collect();
    let of_digest = |digest| all.iter().position(|(known, _)| known.digest == digest);
    for handle in host.list().map_err(|err| failed(&err))? {
        // One that is gone by now, or cannot be read, is not known to be made of anything: its layers
        // stay all the same.
        let Ok(Some(entry)) = host.entry(&handle) else { continue };
        let peas = host.pea_layers(&handle).unwrap_or_default();
        let own = entry.spec.image.and_then(of_digest);
        for at in peas.iter().flat_map(|layers| made_of(&images, layers)).chain(own) {
            used[at].push(handle.to_string());
        }
    }
    for (app, digest) in apps {
        if let Some(at) = of_digest(*digest) {
            used[at].push(format!("{APP}{app}"));
        }
    }
    for names in &mut used {
        names.sort();
        names.dedup();
    }
    Ok(used)
}

/// The images that a pea of `layers` may be of: which it is, is not written down. Those with the same
/// layers; several when they differ in nothing else.
fn made_of(images: &[&[Digest]], layers: &[Digest]) -> Vec<usize> {
    let same = |image: &[Digest]| !image.is_empty() && image == layers;
    images.iter().enumerate().filter(|(_, image)| same(image)).map(|(at, _)| at).collect()
}

/// Why the name of an image cannot be removed.
pub fn refusal_of_name(app: &AppName, name: &str) -> ServiceError {
    let text = format!(
        "the manifest of app `{app}` has the image {name}; delete it, or apply it with another image, \
         first"
    );
    ServiceError::new(ErrorKind::Conflict, text)
}

/// Why an image cannot be removed. `called`: what a container's client calls it.
pub fn refusal(image: &str, users: &[String], called: impl Fn(&String) -> String) -> ServiceError {
    let app = |user: &String| user.strip_prefix(APP).map(str::to_owned);
    let (apps, count) = (users.iter().filter_map(app).count(), users.len());
    let (what, cure) = match (apps, count) {
        (0, 1) => ("container ", "destroy it"),
        (0, _) => ("containers ", "destroy them"),
        (1, 1) => ("app ", "delete it"),
        (apps, count) if apps == count => ("apps ", "delete them"),
        _ => ("", "delete apps and destroy containers"),
    };
    let shown = |user: &String| match (app(user), what) {
        (Some(app), "") => format!("app `{app}`"),
        (None, "") => format!("container `{}`", called(user).escape_default()),
        (app, _) => format!("`{}`", app.unwrap_or_else(|| called(user)).escape_default()),
    };
    let list = users.iter().take(NAMED_MAX).map(shown).collect::<Vec<_>>().join(", ");
    let more = match count.saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let are = if count == 1 { "is" } else { "are" };
    let image = image.escape_default();
    let text = format!("{what}{list}{more} {are} made of image {image}; {cure} first");
    ServiceError::new(ErrorKind::Conflict, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pea_is_of_the_images_with_the_same_layers() {
        let [a, b, c] = ["a", "b", "c"].map(|text| Digest::of(text.as_bytes()));
        let (base, app, other) = ([a], [a, b], [c]);
        let images: [&[Digest]; 5] = [&base, &app, &other, &app, &[]];
        assert_eq!(made_of(&images, &[a, b]), [1, 3]);
        assert_eq!(made_of(&images, &[a, b, c]), [0; 0], "shared layers are no use of an image");
        assert_eq!(made_of(&images, &[a]), [0]);
        assert_eq!(made_of(&images, &[b]), [0; 0]);
        assert_eq!(made_of(&images, &[]), [0; 0]);
    }

    #[test]
    fn a_refusal_names_a_few() {
        let names: Vec<String> = (1..=7).map(|n| format!("c{n}")).collect();
        let text = refusal("app", &names, String::clone).message;
        assert!(text.starts_with("containers `c1`, `c2`, "), "{text}");
        assert!(text.contains("`c5` and 2 more are made of image app;"), "{text}");
        let text = |users: &[&str]| {
            let users: Vec<String> = users.iter().map(|user| user.to_string()).collect();
            refusal("x", &users, String::clone).message
        };
        assert_eq!(text(&["c1"]), "container `c1` is made of image x; destroy it first");
        assert_eq!(text(&["app a"]), "app `a` is made of image x; delete it first");
        assert_eq!(
            text(&["app a", "app b"]),
            "apps `a`, `b` are made of image x; delete them first"
        );
        let mixed = "app `a`, container `c` are made of image x; delete apps and destroy containers \
                     first";
        assert_eq!(text(&["app a", "c"]), mixed);
    }
}
