//! What whoever only stages an image fetches of it: nothing but what is said of it.

use super::first::first_version;
use super::*;

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image that says something of itself.
fn saying() -> Image {
    let Image { layer, config, manifest } = Image::new(10_000);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let said = text(&config).replace(r#""config":{}"#, r#""config":{"Env":["A=b"]}"#);
    let said = said.into_bytes();
    let manifest = text(&manifest)
        .replace(&Digest::of(&config).to_string(), &Digest::of(&said).to_string())
        .replace(&format!("\"size\":{}", config.len()), &format!("\"size\":{}", said.len()));
    Image { layer, config: said, manifest: manifest.into_bytes() }
}

/// The manifest through an index, which lists another box's first.
fn of_index(asked: &Asked, image: &Image) -> Option<Answer> {
    let one = |architecture: &str, digest: Digest| {
        serde_json::json!({
            "mediaType": OCI, "digest": digest, "size": image.manifest.len(),
            "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let all = [one("s390x", Digest::of(b"")), one(own, Digest::of(&image.manifest))];
    let index = serde_json::json!({"schemaVersion": 2, "manifests": all}).to_string();
    let kind = "application/vnd.oci.image.index.v1+json";
    asked.path.ends_with("/manifests/1").then(|| Answer::ok(index).header("Content-Type", kind))
}

/// In docker's own words.
fn of_docker(asked: &Asked, image: &Image) -> Option<Answer> {
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let text = String::from_utf8(image.manifest.clone()).expect("text").replace(OCI, kind);
    let config = "application/vnd.docker.container.image.v1+json";
    let text = text.replace("application/vnd.oci.image.config.v1+json", config);
    let is_manifest = asked.path.contains("/manifests/");
    is_manifest.then(|| Answer::ok(text).header("Content-Type", kind))
}

/// Of the first schema, which has all of it in the manifest.
fn of_schema(asked: &Asked, image: &Image) -> Option<Answer> {
    let about = r#"{"id":"a","parent":"","config":{"Env":["A=b"]},"os":"linux"}"#;
    let document = serde_json::json!({
        "schemaVersion": 1, "name": "a/b", "tag": "1", "architecture": "amd64",
        "fsLayers": [{"blobSum": Digest::of(&image.layer)}],
        "history": [{"v1Compatibility": about}],
    });
    let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let is_manifest = asked.path.contains("/manifests/");
    is_manifest.then(|| Answer::ok(document.to_string()).header("Content-Type", kind))
}

#[test]
fn who_only_stages_an_image_fetches_none_of_its_layers() {
    let bed = Bed::new("look");
    let look = |server: &Server| {
        let name = server.name().parse().expect("name");
        terrarium::image::look(&name, settings(&bed), None)
    };
    type Way = fn(&Asked, &Image) -> Option<Answer>;
    let ways: [(Way, &[&str]); 4] = [
        (of_index, &["A=b"]),
        (of_docker, &["A=b"]),
        (of_schema, &["A=b"]),
        (|asked, image| Some(first::moved(first_version(asked, image)?, 5003)), &["B=2", "C=2"]),
    ];
    for (at, (way, env)) in ways.into_iter().enumerate() {
        let server = Server::with(5000 + at as u16, saying(), way);
        assert_eq!(look(&server).expect("found").env, env, "way {at}");
        assert_eq!((server.count(&server.layer()), server.count("/layer")), (0, 0), "way {at}");
    }
    // Four times in all, as Diego's builder: then it comes, or an error.
    for (port, fails) in [(5010, 3), (5011, usize::MAX)] {
        let server = Server::with(port, saying(), move |asked, _| {
            let is_manifest = asked.path.contains("/manifests/");
            (is_manifest && asked.before < fails).then(|| Answer::status(503))
        });
        match look(&server) {
            Ok(config) => assert_eq!((config.env.len(), fails), (1, 3)),
            Err(failure) => {
                assert!(fails > 3 && failure.text.contains("answered 503"), "{failure}");
            }
        }
        assert_eq!((server.count("/manifests/"), server.count(&server.layer())), (4, 0));
    }
    bed.close();
}
