//! What is made of which image: containers, peas in them, and apps.

use super::{All, failed};
use crate::api::apps::{ErrorKind, Served, ServiceError};
use crate::cell::{ImageUse, UsedFor};
use crate::container::Host;
use crate::unit::{AppName, Digest};
use std::collections::{BTreeMap, BTreeSet};

/// Users that a refusal names.
const NAMED_MAX: usize = 5;
/// How a user begins that is an app; no container's name on the box has a blank.
const APP: &str = "app ";
/// The same of an app that is an LRP of somebody's.
const LRP: &str = "LRP ";

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

/// The same users, but for containers that are instances of apps: for those the app, once. `instance`: what
/// a container is called as one, `NAME/INDEX`. `guids`: what clients call those apps that are LRPs of theirs.
pub fn with_apps(
    users: &[String],
    instance: impl Fn(&str) -> Option<String>,
    guids: &BTreeMap<AppName, String>,
) -> Vec<String> {
    let called = |app: &str| match app.parse().ok().and_then(|app: AppName| guids.get(&app)) {
        Some(guid) => format!("{LRP}{guid}"),
        None => format!("{APP}{app}"),
    };
    let name = |user: &String| match (user.strip_prefix(APP), instance(user)) {
        (Some(app), _) => called(app),
        (None, Some(instance)) => called(instance.split('/').next().unwrap_or_default()),
        (None, None) => user.clone(),
    };
    let users: BTreeSet<String> = users.iter().map(name).collect();
    users.into_iter().collect()
}

/// The images that a pea of `layers` may be of: which it is, is not written down. Those with the same
/// layers; several when they differ in nothing else.
fn made_of(images: &[&[Digest]], layers: &[Digest]) -> Vec<usize> {
    let same = |image: &[Digest]| !image.is_empty() && image == layers;
    images.iter().enumerate().filter(|(_, image)| same(image)).map(|(at, _)| at).collect()
}

/// Why an image stays: what is made of it, and what may be again. `called`: the instance of an app that a
/// container is, if it is one, and what its client calls it.
pub fn reasons<'a>(
    handles: &[String],
    uses: impl Iterator<Item = &'a ImageUse>,
    called: impl Fn(&str) -> (Option<String>, String),
) -> Vec<String> {
    let container = |handle: &String| match called(handle) {
        (Some(instance), _) => format!("instance {instance} is made of it"),
        (None, name) => format!("container `{}` is made of it", name.escape_default()),
    };
    let mut why: Vec<String> = handles.iter().take(NAMED_MAX).map(container).collect();
    if let more @ 1.. = handles.len().saturating_sub(NAMED_MAX) {
        why.push(format!("{more} more containers are made of it"));
    }
    why.extend(uses.map(|ImageUse { app, what, .. }| match what {
        UsedFor::Start => format!("app `{app}` starts from it"),
        UsedFor::Return => format!("app `{app}` goes back to it if its newest version fails"),
        UsedFor::Revision(number) => {
            format!("app `{app}` may go back to it: it is in its revision {number}")
        }
    }));
    why
}

/// Why an image stays when there is no other reason.
pub fn last_reason(names: &[String], everything: bool) -> &'static str {
    match (everything, names.is_empty()) {
        (true, _) => "something else is made of the same layers",
        (false, false) => "it has a name; `image gc --all` takes what nothing is made of",
        (false, true) => {
            "somebody asked for it by its digest; `image gc --all` takes what nothing is made of"
        }
    }
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
    let kind = |user: &str| match () {
        () if user.starts_with(APP) => APP,
        () if user.starts_with(LRP) => LRP,
        () => "container ",
    };
    let name = |user: &String| match user.strip_prefix(kind(user)) {
        Some(name) => name.to_owned(),
        None => called(user),
    };
    let kinds: BTreeSet<&str> = users.iter().map(|user| kind(user)).collect();
    let (count, mixed) = (users.len(), kinds.len() > 1);
    let shown = |user: &String| {
        let name = format!("`{}`", name(user).escape_default());
        if mixed { format!("{}{name}", kind(user)) } else { name }
    };
    let list = users.iter().take(NAMED_MAX).map(shown).collect::<Vec<_>>().join(", ");
    let more = match count.saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = match (kinds.first(), count) {
        (Some(kind), 1) => (*kind).to_owned(),
        (Some(kind), _) if !mixed => format!("{}s ", kind.trim_end()),
        _ => String::new(),
    };
    let apps: Vec<String> = users.iter().filter(|user| kind(user) == APP).map(name).collect();
    let cure = |of: &&str| cure(of, &apps, mixed, count);
    let cures = kinds.iter().map(cure).collect::<Vec<_>>().join(", and ");
    let gap = if mixed { "," } else { "" };
    let are = if count == 1 { "is" } else { "are" };
    let image = image.escape_default();
    let text = format!("{what}{list}{more} {are} made of image {image}; {cures}{gap} first");
    ServiceError::new(ErrorKind::Conflict, text)
}

/// What ends users of this kind, of `count` in all; `mixed`: others are users, too.
fn cure(kind: &str, apps: &[String], mixed: bool, count: usize) -> String {
    let (they_are, them) = if count == 1 { ("it is", "it") } else { ("they are", "them") };
    match kind {
        APP => {
            let named = apps[..apps.len().min(NAMED_MAX)].join(" ");
            let more = if apps.len() > NAMED_MAX { " and so on" } else { "" };
            format!("`terrarium delete {named}`{more}")
        }
        LRP if mixed => "have the cloud controller stop its LRPs".to_owned(),
        LRP => format!("{they_are} a cloud controller's, have that stop {them}"),
        _ if mixed => "destroy the containers".to_owned(),
        _ => format!("destroy {them}"),
    }
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
    fn each_reason_names_who_needs_it() {
        let digest = Digest::of(b"x");
        let app: AppName = "web".parse().expect("a name");
        let of = |what| ImageUse { digest, app: app.clone(), what };
        let uses = [of(UsedFor::Start), of(UsedFor::Return), of(UsedFor::Revision(3))];
        let handles: Vec<String> = (1..=7).map(|n| format!("c{n}")).collect();
        let called = |handle: &str| match handle {
            "c1" => (Some("web/0".to_owned()), handle.to_owned()),
            _ => (None, format!("their-{handle}")),
        };
        let expected = [
            "instance web/0 is made of it",
            "container `their-c2` is made of it",
            "container `their-c3` is made of it",
            "container `their-c4` is made of it",
            "container `their-c5` is made of it",
            "2 more containers are made of it",
            "app `web` starts from it",
            "app `web` goes back to it if its newest version fails",
            "app `web` may go back to it: it is in its revision 3",
        ];
        assert_eq!(reasons(&handles, uses.iter(), called), expected);
        assert!(last_reason(&[], true).contains("the same layers"));
        assert!(last_reason(&["a:1".into()], false).starts_with("it has a name"));
        assert!(last_reason(&[], false).contains("by its digest"));
    }

    /// What people know is the app; that its instances have containers, and what those are called, is ours.
    #[test]
    fn containers_of_apps_are_named_by_their_apps() {
        let users = ["c1", "c2", "c3", "c4", "app idle"].map(str::to_owned);
        let instance = |handle: &str| match handle {
            "c1" => Some("web/0".to_owned()),
            "c3" => Some("web/1".to_owned()),
            "c4" => Some("api/0".to_owned()),
            _ => None,
        };
        let named = with_apps(&users, instance, &BTreeMap::new());
        assert_eq!(named, ["app api", "app idle", "app web", "c2"]);
        // The name that an LRP has here is made up: its client knows it by its guid.
        let guids = ["idle", "web"].map(|name| (name.parse().expect("name"), format!("{name}_1")));
        let named = with_apps(&users, instance, &guids.into());
        assert_eq!(named, ["LRP idle_1", "LRP web_1", "app api", "c2"]);
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
        assert_eq!(text(&["app a"]), "app `a` is made of image x; `terrarium delete a` first");
        assert_eq!(
            text(&["app a", "app b"]),
            "apps `a`, `b` are made of image x; `terrarium delete a b` first"
        );
        let mixed = "app `a`, container `c` are made of image x; `terrarium delete a`, and destroy the \
                     containers, first";
        assert_eq!(text(&["app a", "c"]), mixed);
        let lrp =
            "LRP `g_1` is made of image x; it is a cloud controller's, have that stop it first";
        assert_eq!(text(&["LRP g_1"]), lrp);
        let lrps = "LRPs `g`, `h` are made of image x; they are a cloud controller's, have that stop \
                    them first";
        assert_eq!(text(&["LRP g", "LRP h"]), lrps);
        let all = "LRP `g`, app `a`, container `c` are made of image x; have the cloud controller stop \
                   its LRPs, and `terrarium delete a`, and destroy the containers, first";
        assert_eq!(text(&["LRP g", "app a", "c"]), all);
    }
}
