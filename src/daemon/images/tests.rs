//! Finding images by what a person types.

use super::*;
use crate::image::ImageConfig;

fn known(text: &str, names: &[&str]) -> (Known, Vec<String>) {
    let digest: Digest = text.parse().expect("a digest");
    let known = Known::new(digest, digest, ImageConfig::default(), String::new());
    (known, names.iter().map(|name| name.to_string()).collect())
}

fn digest(begin: &str) -> String {
    format!("sha256:{begin:0<64}")
}

#[test]
fn an_image_is_found_by_name_by_digest_and_by_how_that_begins() {
    let all = vec![
        known(&digest("abcdef01"), &["docker.io/library/busybox:latest"]),
        known(&digest("abcdef02"), &["reg.lan:5000/ops/app:1", "reg.lan:5000/ops/app:2"]),
        known(&digest("c0ffee"), &[]),
    ];
    // The digest of an index leads to one of its images.
    let index: Digest = digest("1de").parse().expect("a digest");
    let led = |asked: &Digest| if *asked == index { all[0].0.digest } else { *asked };
    let of = |text: &str| find(&all, text, "docker.io", led);
    let name = |text: &str| Some(text.to_owned());
    let busybox = (0, name("docker.io/library/busybox:latest"));
    for text in ["busybox", "busybox:latest", "docker.io/busybox", "docker:///busybox"] {
        assert_eq!(of(text), Ok(busybox.clone()), "{text}");
    }
    assert_eq!(of("reg.lan:5000/ops/app:2"), Ok((1, name("reg.lan:5000/ops/app:2"))));
    assert_eq!(of(&digest("c0ffee")), Ok((2, None)));
    assert_eq!(of("c0ffee"), Ok((2, None)));
    assert_eq!(of("sha256:abcdef02"), Ok((1, None)));
    let pinned = format!("reg.lan:5000/ops/app@{}", digest("abcdef02"));
    assert_eq!(of(&pinned), Ok((1, None)));
    for text in [format!("busybox@{index}"), index.to_string()] {
        assert_eq!(of(&text), Ok((0, None)), "{text}");
    }
    let short = of("c0f").expect_err("too short");
    assert_eq!(short.kind, ErrorKind::NotFound);
    assert!(short.message.contains("write 6 digits"), "{short}");
    assert_eq!(of("abcdef0").expect_err("two").kind, ErrorKind::Invalid);
    for text in ["abd", "c0ffee1", "busybox:1", "reg.lan/ops/app:1", "", "../x", "a b"] {
        let err = of(text).expect_err(text);
        assert_eq!(err.kind, ErrorKind::NotFound, "{text}");
        assert!(err.message.contains("`terrarium image ls`"), "{err}");
    }
}
