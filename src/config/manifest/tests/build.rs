//! `[build]`.

use super::each_is_named;

#[test]
fn every_mistake_is_named_with_its_place_and_its_cure() {
    each_is_named(&[
        ("[build]\ntimeout = 900", "4:11 time `900` has no unit | write \"900s\""),
        ("[build]\ntimeout = \"900\"", "4:11 time `900` has no unit | write \"900s\""),
        ("[build]\ntimeout = \"2 days\"", "4:11 `2 days` is not a time"),
        ("[build]\ntimeout = \"0s\"", "4:11 `build.timeout` is 0s, out of range | 1s to 1d"),
        (
            "[build]\nlifecycle = \"docker\"",
            "4:13 an app that comes as an image has no [build] | write [image] with `ref`",
        ),
        (
            "[build]\nlifecycle = \"buidpack\"",
            "4:13 `build.lifecycle` cannot be \"buidpack\" | did you mean",
        ),
        (
            "[build]\nbuildpacks = \"static\"",
            "4:14 `build.buildpacks` must be a list, not a string | write [\"static\"]",
        ),
        ("[build]\nbuildpacks = [\"a\", \"../b\"]", "4:20 buildpack `../b` is not good"),
        ("[build]\nbuildpacks = [\"a\", \"a\"]", "4:20 buildpack `a` is named twice"),
        ("[build]\nbuildpacks = [\"file:///x/y\"]", "4:15 `file:///x/y` is no URL of a buildpack"),
        (
            "[build]\nbuildpacks = [\"https://x/y,z\"]",
            "4:15 `https://x/y,z` is no URL of a buildpack",
        ),
        ("[build]\nbuildpacks = [{ url = \"https://x/y\" }]", "4:15 `sha256` is missing in ["),
        (
            "[build]\nbuildpacks = [{ url = \"https://x/y\", sha256 = \"abc\" }]",
            "4:47 `abc` is no digest | 64 hex digits, as of sha256sum",
        ),
        (
            "[build]\nbuildpacks = [{ url = \"git://x/y\", sha256 = \"d7a8fbb307d7809469ca9abcb0082e4f8d5651e46bd3cdb762d02d0bf37c9e59\" }]",
            "4:23 `git://x/y` is not fetched by the box | http or https",
        ),
        ("[hook.release]\ntimeout = \"1s\"", "3:1 `command` is missing in [hook.release]"),
        ("[hook.start]\ncommand = \"x\"", "3:7 unknown key `start` in [hook]"),
        ("[build]\nstack = \"a/b\"", "4:9 stack `a/b` is not good"),
    ]);
}
