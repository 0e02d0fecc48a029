//! Layers that are just what they are said to be and can never be unpacked, and those that nobody gives.

use super::*;
use crate::image::Tar;

/// What is kept of blobs for another try.
fn downloads(bed: &Bed) -> usize {
    std::fs::read_dir(bed.store.dir().join("downloads")).expect("downloads").count()
}

/// A file with another name of one that is nowhere.
fn dangling() -> Vec<u8> {
    let link = |block: &mut [u8; 512]| block[157..164].copy_from_slice(b"nowhere");
    Tar::default().raw(b'1', b"link", b"", link).end()
}

#[test]
fn a_layer_that_can_never_be_unpacked_is_not_kept() {
    let bed = Bed::new("broken");
    let outside = crate::image::one_file("../outside", &noise(200_000));
    let fine = crate::image::one_file("file", &noise(200_000));
    let other = Image::with(fine, &[Digest::of(b"another")], &[]);
    // Those that nobody but the kernel refuses.
    let [long, name, value] = [vec![b'n'; 5000], vec![b'n'; 256], vec![b'v'; 20_000]];
    let name = format!("SCHILY.xattr.user.{}", String::from_utf8_lossy(&name));
    let said = |key: &str, value: &[u8]| Tar::default().pax(&[(key, value)]);
    let own = |key: &str, value: &[u8]| said(key, value).file("own", "").end();
    let round = Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", "").end();
    let refused = [
        (said("linkpath", &long).symlink("own", "x").end(), "(os error 36)"),
        (own(&name, b"x"), "(os error 34)"),
        (own("SCHILY.xattr.user.a", &value), "it has 20006 bytes with its name"),
        (round, "(os error 40)"),
    ];
    let refused = refused.into_iter().map(|(tar, why)| (Image::of(&tar, tar.clone()), why));
    let rows = [
        (Image::of(&outside, outside.clone()), "../outside"),
        (Image::of(b"noise", noise(200_000)), "cannot unpack layer"),
        (other, "the configuration says"),
        (Image::of(&dangling(), dangling()), "`link`"),
    ];
    for (at, (image, expected)) in rows.into_iter().chain(refused).enumerate() {
        let server = Server::with(5000 + at as u16, image, |_, _| None);
        let text = bed.refused(&settings(&bed), &server.name());
        assert!(text.contains(expected), "{expected}: {text}");
        assert_eq!(downloads(&bed), 0, "{text}");
        // Part of it from an earlier time: it is read to its end, where it shows that it is the right one.
        let part = bed.store.dir().join("downloads").join(Digest::of(&server.image.layer).hex());
        std::fs::write(part, &server.image.layer[..600]).expect("write");
        let text = bed.refused(&settings(&bed), &server.name());
        assert!(text.contains(expected), "{expected}: {text}");
        assert_eq!(downloads(&bed), 0, "{text}");
    }
    // Where nothing but its registry's word names it.
    let server = Server::start(5100, 10, |asked, image| {
        let answer = first::moved(first::first_version(asked, image)?, 5100);
        let is_layer = asked.path.ends_with("/layer") && answer.status == 200;
        Some(if is_layer { Answer::ok(dangling()).header("ETag", "\"a\"") } else { answer })
    });
    let settings = Settings { v1: vec![server.authority.clone()], ..settings(&bed) };
    let text = bed.refused(&settings, &server.name());
    assert!(text.contains("`link`"), "{text}");
    assert_eq!(downloads(&bed), 0, "{text}");
    bed.close();
}

/// Its address is anybody's to name.
#[test]
fn a_foreign_layer_is_refused_by_name_and_nobody_is_asked_for_it() {
    let bed = Bed::new("foreign");
    let elsewhere = Server::start(5001, 10, |_, _| None);
    let server = Server::start(5000, 10_000, |asked, image| {
        let text = String::from_utf8(image.manifest.clone()).expect("text");
        let from = "application/vnd.oci.image.layer.v1.tar\"";
        let to = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip\",\
            \"urls\":[\"http://127.0.0.1:5001/layer\"]";
        let text = text.replace(from, to);
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let is_manifest = asked.path.contains("/manifests/");
        is_manifest.then(|| Answer::ok(text).header("Content-Type", kind))
    });
    let text = bed.refused(&settings(&bed), &server.name());
    let expected = format!("layer {} is a foreign one", server.layer());
    assert!(text.contains(&expected) && text.contains(&server.name()), "{text}");
    assert_eq!((elsewhere.count(""), server.count(&server.layer())), (0, 0));
    bed.close();
}

/// Whoever waits for a connection is gone with the server: the next test may have the port.
#[test]
fn a_server_of_a_test_ends_with_it() {
    let bed = Bed::new("ended");
    let server = Server::start(5000, 10, |_, _| None);
    let authority = server.authority.clone();
    bed.pull(&settings(&bed), &server.name()).expect("it listens");
    drop(server);
    let refused = TcpStream::connect(&authority).expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    drop(TcpListener::bind(&authority).expect("the port is free"));
    bed.close();
}
