//! Finding images by what a person types, and archives in pieces.

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
    let of = |text: &str| find(&all, text, "docker.io");
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
    assert_eq!(of("abcdef0").expect_err("two").kind, ErrorKind::Invalid);
    for text in ["abc", "c0ffee1", "busybox:1", "reg.lan/ops/app:1", "", "../x", "a b"] {
        let err = of(text).expect_err(text);
        assert_eq!(err.kind, ErrorKind::NotFound, "{text}");
        assert!(err.message.contains("`terrarium image ls`"), "{err}");
    }
}

#[test]
fn an_archive_without_its_end_has_broken_off() {
    let read = |pieces: Vec<io::Result<Vec<u8>>>| {
        let (to, from) = bounded(pieces.len().max(1));
        pieces.into_iter().for_each(|piece| to.try_send(piece).expect("room"));
        drop(to);
        let mut all = Vec::new();
        let mut stream = Incoming { pieces: from, piece: Vec::new(), at: 0, is_end: false };
        stream.read_to_end(&mut all).map(|_| all)
    };
    let whole = read(vec![Ok(b"arch".to_vec()), Ok(b"ive".to_vec()), Ok(Vec::new())]);
    assert_eq!(whole.expect("whole"), b"archive");
    let cut = read(vec![Ok(b"arch".to_vec())]).expect_err("cut");
    assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    let broken = read(vec![Ok(b"arch".to_vec()), Err(io::Error::other("gone"))]);
    assert_eq!(broken.expect_err("broken").to_string(), "gone");
}
