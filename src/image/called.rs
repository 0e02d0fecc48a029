//! What the images of a file are called: by the file, and by who loads it. A name that one does not get is
//! told with the reason. Pure.

use super::catalog;
use super::manifest::clean;
use crate::unit::ImageRef;
use std::collections::BTreeSet;

/// Names of one image that are told though it does not get them; more are counted.
const TOLD_MAX: usize = 16;

/// What an image is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// So.
    pub own: Vec<ImageRef>,
    /// Not so, and why.
    left: Vec<String>,
    more: usize,
}

impl Names {
    /// Of an entry of a layout: a whole name, or a tag of `name`.
    pub fn of_layout(called: Option<&str>, name: Option<&ImageRef>) -> Names {
        let mut names = Names::default();
        match (called, name) {
            (None, _) => {}
            (Some(called), _) if called.contains(['/', ':']) => names.add(called),
            (Some(tag), Some(name)) => match name.tagged(tag) {
                Some(own) => names.own.push(own),
                None => names.leave(tag, "it is no tag"),
            },
            (Some(tag), None) => {
                names.leave(tag, "it is a tag without a name; give it one with `--name NAME`");
            }
        }
        names
    }

    /// Of an archive of `docker save`.
    pub fn of_saved(all: &[String]) -> Names {
        let mut names = Names::default();
        all.iter().for_each(|name| names.add(name));
        names
    }

    /// One whole name. One with a digest is none: whether the image has that digest is not the file's to
    /// say, and an image that has it is found by it anyway.
    fn add(&mut self, called: &str) {
        match called.parse::<ImageRef>() {
            Ok(name) if name.digest().is_none() => self.own.push(name),
            Ok(_) => {
                self.leave(called, "it has a digest, by which the image is found if it has that")
            }
            Err(err) => self.leave(called, &format!("it is no name of an image: {err}")),
        }
    }

    /// Those of the same image, named once more.
    pub fn join(&mut self, other: Names) {
        self.own.extend(other.own);
        self.more += other.more;
        for text in other.left {
            self.tell(text);
        }
    }

    fn leave(&mut self, called: &str, why: &str) {
        self.tell(format!("`{}`: {why}", clean(called)));
    }

    fn tell(&mut self, text: String) {
        if self.left.len() < TOLD_MAX {
            self.left.push(text);
        } else {
            self.more += 1;
        }
    }

    /// What it is not called, and why.
    pub fn left(&self) -> Vec<String> {
        let more = (self.more > 0).then(|| format!("{} more names", self.more));
        self.left.iter().cloned().chain(more).collect()
    }
}

/// Gives `name` to those that it is for. The error completes "image layout X: ...".
pub(super) fn call(images: &mut [&mut Names], name: &ImageRef) -> Result<(), String> {
    let count = images.len();
    match images {
        [only] if name.has_tag() => {
            for other in std::mem::replace(&mut only.own, vec![name.clone()]) {
                if other != *name {
                    only.leave(&other.to_string(), "it is called by `--name` instead");
                }
            }
        }
        _ if name.has_tag() => {
            return Err(format!(
                "it has {count} images, and {name} can be one of them only; name them without the \
                 tag, then they keep their own"
            ));
        }
        _ => {
            let mut nameless = images.iter_mut().filter(|it| it.own.is_empty());
            if let (Some(only), None) = (nameless.next(), nameless.next()) {
                only.own.push(name.clone());
            }
        }
    }
    Ok(())
}

/// Leaves each name to one image, the last that has it, in full with this registry.
pub(super) fn settle(images: &mut [&mut Names], default_host: &str) {
    let mut taken = BTreeSet::new();
    for names in images.iter_mut().rev() {
        let mut own = BTreeSet::new();
        for name in std::mem::take(&mut names.own) {
            let name = name.at(default_host);
            let key = catalog::key(&name);
            if taken.contains(&key) {
                names.leave(&key, "a later image of the file has it, too");
            } else if own.insert(key) {
                names.own.push(name);
            }
        }
        taken.extend(own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(names: &Names) -> Vec<String> {
        names.own.iter().map(ImageRef::to_string).collect()
    }

    fn name(text: &str) -> ImageRef {
        text.parse().expect("a name")
    }

    #[test]
    fn what_an_image_is_not_called_is_told() {
        let digest = format!("a/b@sha256:{}", "1".repeat(64));
        let all = ["a/b:1", "A/B:1", &digest, "a/b:2"].map(str::to_owned);
        let names = Names::of_saved(&all);
        assert_eq!(texts(&names), ["a/b:1", "a/b:2"]);
        let left = names.left();
        assert!(left[0].starts_with("`A/B:1`: it is no name of an image: "), "{left:?}");
        assert!(left[1].contains("it has a digest"), "{left:?}");
        let many = vec!["?".to_owned(); TOLD_MAX + 5];
        let left = Names::of_saved(&many).left();
        assert_eq!((left.len(), &*left[TOLD_MAX]), (TOLD_MAX + 1, "5 more names"));
    }

    #[test]
    fn a_tag_needs_a_name() {
        let own = name("a/b");
        assert_eq!(texts(&Names::of_layout(Some("v1"), Some(&own))), ["a/b:v1"]);
        assert_eq!(texts(&Names::of_layout(Some("c/d:v1"), Some(&own))), ["c/d:v1"]);
        let left = Names::of_layout(Some("v1"), None).left();
        assert!(left[0].contains("give it one with `--name NAME`"), "{left:?}");
        assert_eq!(Names::of_layout(None, None), Names::default());
        assert!(Names::of_layout(Some("v 1"), Some(&own)).left()[0].contains("no tag"));
    }

    #[test]
    fn a_name_is_one_image_s_only() {
        let of = |all: &[&str]| {
            Names::of_saved(&all.iter().map(|it| it.to_string()).collect::<Vec<_>>())
        };
        let (mut one, mut two) = (of(&["a/b:1", "a/b:2"]), of(&["a/b:2", "docker.io/a/b:2"]));
        settle(&mut [&mut one, &mut two], "docker.io");
        assert_eq!(
            (texts(&one), texts(&two)),
            (vec!["docker.io/a/b:1".to_owned()], vec!["docker.io/a/b:2".to_owned()])
        );
        assert_eq!((one.left().len(), two.left().len()), (1, 0));
        assert!(one.left()[0].contains("a later image of the file"), "{one:?}");
        let err = call(&mut [&mut one, &mut two], &name("x:1")).expect_err("of which?");
        assert!(err.contains("x:1 can be one of them only"), "{err}");
        call(&mut [&mut one], &name("x:1")).expect("the only one");
        assert_eq!((texts(&one), one.left().len()), (vec!["x:1".to_owned()], 2));
        let mut none = Names::default();
        call(&mut [&mut none, &mut two], &name("x")).expect("the only one without");
        assert_eq!(texts(&none), ["x"]);
    }
}
