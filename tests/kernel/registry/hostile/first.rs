//! Registries of the first version, and images of the first schema.

use super::bounds::until;
use super::*;
use std::fs;
use terrarium::image::work::Wish;
use terrarium::image::{Pulled, pull};

/// A registry of the first version: index and endpoint in one, for `a/b`, two layers.
pub fn first_version(asked: &Asked, _: &Image) -> Option<Answer> {
    let ids = ["1".repeat(64), "2".repeat(64)];
    let token = asked.headers.get("authorization").map(String::as_str) == Some("Token t");
    let json = |value: serde_json::Value| Answer::ok(value.to_string());
    let path = asked.path.strip_prefix("/v1/").unwrap_or_default();
    let answer = match path.split('/').collect::<Vec<_>>()[..] {
        ["repositories", "a", "b", "images"] => json(serde_json::json!([]))
            .header("X-Docker-Token", "t")
            .header("X-Docker-Endpoints", "127.0.0.1:5000"),
        _ if !token => Answer::status(401),
        ["repositories", "a", "b", "tags"] => json(serde_json::json!({"1": ids[1]})),
        ["images", id, "ancestry"] if id == ids[1] => json(serde_json::json!([ids[1], ids[0]])),
        ["images", id, "json"] => {
            let env = if id == ids[0] { ["A=1", "B=1"] } else { ["B=2", "C=2"] };
            json(serde_json::json!({"id": id, "config": {"Env": env, "Cmd": ["/bin/sh"]}}))
        }
        ["images", id, "layer"] => {
            let name = if id == ids[0] { "lower" } else { "upper" };
            Answer::ok(crate::image::one_file(name, &noise(200_000)))
        }
        _ => Answer::status(404),
    };
    Some(answer)
}

#[test]
fn a_registry_of_the_first_version_is_asked_when_it_is_named() {
    let bed = Bed::new("first");
    let server = Server::start(5000, 10, first_version);
    let text = bed.refused(&settings(&bed), &server.name());
    assert!(text.contains("name 127.0.0.1:5000 in [registry] v1"), "{text}");
    let settings = Settings { v1: vec![server.authority.clone()], ..settings(&bed) };
    let pulled = bed.pull(&settings, &server.name()).expect("pulled");
    assert_eq!(pulled.image.config.env, ["A=1", "B=2", "C=2"]);
    let files = ["lower", "upper"];
    for (layer, file) in pulled.image.layers.iter().zip(files) {
        let found = std::fs::read(bed.store.layer(layer).expect("layer").join(file)).expect("file");
        assert!(found == noise(200_000));
    }
    assert_eq!(pulled.image.layers.len(), 2);
    bed.pull(&settings, &server.name()).expect("here");
    assert_eq!(server.count("/layer"), 2);
    drop(pulled);
    bed.close();
}

/// What a registry of the first version answers whoever logs in, and nobody else: not even what it speaks.
fn guarded(asked: &Asked, image: &Image, is_standalone: bool) -> Option<Answer> {
    if asked.headers.get("authorization").map(String::as_str) != Some("Basic YW5uOnNlY3JldA==") {
        return Some(Answer::status(401).header("WWW-Authenticate", "Basic realm=x"));
    }
    let standalone = if is_standalone { "True" } else { "False" };
    if asked.path == "/v1/_ping" {
        return Some(Answer::ok("true").header("X-Docker-Registry-Standalone", standalone));
    }
    // It gives no tokens: the login is good for layers as well.
    let mut own = asked.clone();
    own.headers.insert("authorization".into(), "Token t".into());
    let mut answer = first_version(&own, image)?;
    answer.headers.retain(|(name, _)| name != "X-Docker-Token");
    Some(answer)
}

#[test]
fn a_registry_of_the_first_version_behind_a_login_gives_its_images() {
    let bed = Bed::new("firstlogin");
    let server = Server::start(5000, 10, |asked, image| guarded(asked, image, true));
    let settings = Settings { v1: vec![server.authority.clone()], ..settings(&bed) };
    let text = bed.refused(&settings, &server.name());
    assert!(text.contains("it wants a user; put a login for it into"), "{text}");
    let login = |authority: &str, auth: &str| {
        let text = format!(r#"{{"auths":{{"{authority}":{{"auth":"{auth}"}}}}}}"#);
        fs::write(&settings.credentials, text).expect("write");
    };
    // ann:mistaken, ann:secret
    login(&server.authority, "YW5uOm1pc3Rha2Vu");
    let text = bed.refused(&settings, &server.name());
    assert!(text.contains("user `ann` or its password is wrong"), "{text}");
    login(&server.authority, "YW5uOnNlY3JldA==");
    let pulled = bed.pull(&settings, &server.name()).expect("pulled");
    assert_eq!(pulled.image.layers.len(), 2);
    drop(pulled);
    // An index that holds no layers itself says so: its login is not for whoever holds them.
    let index = Server::start(5001, 10, |asked, image| {
        guarded(asked, image, false).map(|answer| moved(answer, 5001))
    });
    let settings = Settings { v1: vec![index.authority.clone()], ..settings.clone() };
    login(&index.authority, "YW5uOnNlY3JldA==");
    let text = bed.refused(&settings, &index.name());
    assert!(text.contains("/v1/repositories/a/b/tags answered 401"), "{text}");
    bed.close();
}

/// An index that lets everybody ask what it speaks, and nobody what it has.
#[test]
fn an_index_that_refuses_us_is_told_with_the_cure() {
    let bed = Bed::new("firstindex");
    let server = Server::start(5000, 10, |asked, _| {
        Some(Answer::status(if asked.path.ends_with("/images") { 401 } else { 404 }))
    });
    let settings = Settings { v1: vec![server.authority.clone()], ..settings(&bed) };
    let text = bed.refused(&settings, &server.name());
    assert!(text.contains("/a/b/images answered 401; put a login for it into"), "{text}");
    bed.close();
}

#[test]
fn an_image_that_is_being_uploaded_is_asked_for_later() {
    let bed = Bed::new("uploaded");
    let server = Server::start(5000, 10, |asked, image| {
        let said = Answer::ok(r#"{"error":"Image is being uploaded, retry later"}"#);
        let is_first = asked.path.ends_with("/json") && asked.before == 0;
        if is_first { Some(Answer { status: 400, ..said }) } else { first_version(asked, image) }
    });
    let settings = Settings { v1: vec![server.authority.clone()], ..settings(&bed) };
    bed.pull(&settings, &server.name()).expect("pulled");
    assert_eq!(server.count("/json"), 4);
    bed.close();
}

/// The wish ends with the second layer on its way; the box starts anew.
#[test]
fn a_finished_layer_of_an_old_image_does_not_come_again() {
    for is_schema in [false, true] {
        let bed = Bed::new(if is_schema { "schema-again" } else { "first-again" });
        let tars = [("lower", 1), ("upper", 2)]
            .map(|(name, n)| crate::image::one_file(name, &noise(WHOLE + n)));
        let layers = tars.clone();
        let digests = tars.each_ref().map(|tar| Digest::of(tar).to_string());
        let served = digests.clone();
        let server = Server::start(5000, 10, move |asked, image| {
            let answer = match is_schema {
                true => of_schema(asked, image, &layers),
                false => first_version(asked, image),
            };
            let is_second = asked.path.ends_with(&served[1])
                || asked.path.contains("/2222") && asked.path.ends_with("/layer");
            match is_second && asked.before == 0 {
                true => answer.map(|answer| Answer { cut: Some(1000), stalls: true, ..answer }),
                false => answer,
            }
        });
        let settings = Settings { v1: vec![server.authority.clone()], ..settings(&bed) };
        let name: terrarium::unit::ImageRef = server.name().parse().expect("name");
        let wanted = |bed: &Bed, wish: &Wish| -> Result<Pulled, String> {
            pull(&bed.store, &settings, &name, None, wish, &|_, _| ())
                .map_err(|err| terrarium::log::chain(&err))
        };
        std::thread::scope(|scope| {
            let wish = Wish::new(&bed.store);
            let pulls = scope.spawn({
                let (bed, wish, wanted) = (&bed, wish.clone(), &wanted);
                move || wanted(bed, &wish).map(drop)
            });
            let asked = |end: &str| server.count(end) > 0;
            until("the second layer comes", || {
                pulls.is_finished()
                    || asked(&digests[1])
                    || asked(&format!("{}/layer", "2".repeat(64)))
            });
            wish.end();
            assert!(pulls.join().expect("no panic").is_err());
        });
        let Bed { lab, store } = bed;
        lab.close(store);
        let bed = Bed { store: lab.open(), lab };
        let pulled = wanted(&bed, &Wish::default()).expect("pulled");
        assert_eq!(pulled.image.layers.len(), 2);
        let lower = match is_schema {
            true => server.count(&digests[0]),
            false => server.count(&format!("{}/layer", "1".repeat(64))),
        };
        assert_eq!(lower, 1, "the first layer came again");
        drop(pulled);
        bed.close();
    }
}

const WHOLE: usize = 200_000;

/// An image of the first schema, of these layers.
fn of_schema(asked: &Asked, _: &Image, layers: &[Vec<u8>; 2]) -> Option<Answer> {
    let about = |id: &str, parent: &str| {
        let text = format!(r#"{{"id":"{id}","parent":"{parent}","config":{{}},"os":"linux"}}"#);
        serde_json::json!({"v1Compatibility": text})
    };
    let blobs = [1, 0].map(|at: usize| serde_json::json!({"blobSum": Digest::of(&layers[at])}));
    let document = serde_json::json!({
        "schemaVersion": 1, "name": "a/b", "tag": "1", "architecture": "amd64",
        "fsLayers": blobs,
        "history": [about("b", "a"), about("a", "")],
    });
    let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let is_manifest = asked.path.contains("/manifests/");
    let layer = layers.iter().find(|it| asked.path.ends_with(&Digest::of(it).to_string()));
    match is_manifest {
        true => Some(Answer::ok(document.to_string()).header("Content-Type", kind)),
        false => layer.map(|layer| Answer::ok(layer.clone())),
    }
}

/// A registry that says what its layers are; `sum` and `size` stand in the place of what is right.
fn telling(port: u16, sum: Option<Digest>, size: Option<u64>, cut: bool) -> (Server, Ranges) {
    let ranges = Ranges::default();
    let list = ranges.clone();
    let server = Server::start(port, 10, move |asked, image| {
        let mut answer = moved(first_version(asked, image)?, port);
        let layer = || {
            let id = asked.path.split('/').nth(3).unwrap_or_default();
            let name = if id.starts_with('1') { "lower" } else { "upper" };
            crate::image::one_file(name, &noise(200_000))
        };
        if asked.path.ends_with("/json") && answer.status == 200 {
            let whole = [&answer.body[..], b"\n", &layer()].concat();
            let sum = sum.unwrap_or_else(|| Digest::of(&whole));
            let size = size.unwrap_or(layer().len() as u64);
            answer =
                answer.header("X-Docker-Checksum-Payload", format!("[\"tarsum+x\", \"{sum}\"]"));
            return Some(answer.header("X-Docker-Size", size));
        }
        if !asked.path.ends_with("/layer") || answer.status != 200 {
            return Some(answer);
        }
        list.lock().expect("lock").push(asked.headers.get("range").cloned().unwrap_or_default());
        let whole = Image { layer: answer.body, config: Vec::new(), manifest: Vec::new() };
        match (cut, asked.before) {
            (true, 0) => Some(Answer { cut: Some(70_000), ..whole.part(asked) }),
            // Then nobody is at home for a while.
            (true, 1) => Some(Answer::status(404)),
            _ => Some(whole.part(asked)),
        }
    });
    (server, ranges)
}

/// What each request for a layer wanted.
type Ranges = Arc<Mutex<Vec<String>>>;

#[test]
fn a_layer_of_which_the_registry_says_what_it_is_is_gone_on_with_at_the_next_try() {
    let bed = Bed::new("firstresume");
    let (server, ranges) = telling(5000, None, None, true);
    let settings = Settings { v1: vec![server.authority.clone()], ..settings(&bed) };
    // Each of the two layers breaks off once.
    for _ in 0..2 {
        assert!(bed.pull(&settings, &server.name()).is_err());
    }
    let pulled = bed.pull(&settings, &server.name()).expect("pulled");
    for (layer, file) in pulled.image.layers.iter().zip(["lower", "upper"]) {
        let found = fs::read(bed.store.layer(layer).expect("layer").join(file)).expect("file");
        assert!(found == noise(200_000));
    }
    // All; what is missing, when nobody is at home; what is missing.
    let (all, rest) = ("".to_owned(), "bytes=70000-".to_owned());
    let one = [all, rest.clone(), rest];
    assert_eq!(*ranges.lock().expect("lock"), [&one[..], &one[..]].concat());
    assert_eq!(fs::read_dir(bed.store.dir().join("downloads")).expect("downloads").count(), 0);
    drop(pulled);
    bed.close();
}

#[test]
fn a_layer_of_another_size_is_refused_and_a_wrong_checksum_only_said() {
    let bed = Bed::new("firstsays");
    let (lies, _) = telling(5000, None, Some(1000), false);
    let (errs, _) = telling(5001, Some(Digest::of(b"another")), None, false);
    let v1 = vec![lies.authority.clone(), errs.authority.clone()];
    let settings = Settings { v1, ..settings(&bed) };
    let text = bed.refused(&settings, &lies.name());
    assert!(text.contains("its descriptor says 1000"), "{text}");
    bed.pull(&settings, &errs.name()).expect("pulled");
    bed.close();
}

/// The layers of the first version are not named by what they are: what a cut has left is gone on with
/// where the server tells that it is the same one, also by the next daemon.
#[test]
fn a_layer_of_the_first_version_is_gone_on_with_over_cuts() {
    let bed = Bed::new("firstcut");
    let cut = |port: u16, is_told: bool| {
        Server::start(port, 10, move |asked, image| {
            let answer = first_version(asked, image)?;
            if answer.status != 200 || !asked.path.ends_with("/layer") {
                return Some(match port {
                    5000 => answer,
                    _ => moved(answer, port),
                });
            }
            // Between a cut and what is missing the daemon goes.
            if is_told && asked.before % 2 == 1 {
                return Some(Answer::status(404));
            }
            let etag = Digest::of(&answer.body).hex();
            let whole = Image { layer: answer.body, config: Vec::new(), manifest: Vec::new() };
            let mut part = whole.part(asked);
            part.cut = Some(70_000);
            Some(if is_told { part.header("ETag", format!("\"{etag}\"")) } else { part })
        })
    };
    let (good, bad) = (cut(5000, true), cut(5001, false));
    let v1 = vec![good.authority.clone(), bad.authority.clone()];
    let settings = Settings { v1, ..settings(&bed) };
    // Three connections for each of the layers: 201 KiB, 70000 bytes at a time.
    let mut bed = bed;
    for _ in 0..4 {
        assert!(bed.pull(&settings, &good.name()).is_err());
        let Bed { lab, store } = bed;
        lab.close(store);
        bed = Bed { store: lab.open(), lab };
    }
    let pulled = bed.pull(&settings, &good.name()).expect("pulled");
    for (layer, file) in pulled.image.layers.iter().zip(["lower", "upper"]) {
        let found = std::fs::read(bed.store.layer(layer).expect("layer").join(file)).expect("file");
        assert!(found == noise(200_000));
    }
    assert_eq!(good.count("/layer"), 2 * 3 + 4);
    // It begins anew each time, and never comes to its end.
    let text = bed.refused(&settings, &bad.name());
    assert!(text.contains("/layer broke off") || text.contains("ended too early"), "{text}");
    let left = std::fs::read_dir(bed.store.dir().join("downloads")).expect("downloads").count();
    assert_eq!(left, 0, "of no use to anybody");
    drop(pulled);
    bed.close();
}

/// The first answer is damaged on its way, and nothing names what it should be: the next try does not begin
/// with it.
#[test]
fn a_layer_of_the_first_version_that_cannot_be_unpacked_comes_anew() {
    for (port, is_packed) in [(5000, false), (5001, true)] {
        let bed = Bed::new(&format!("firstdamaged{port}"));
        let ranges = Ranges::default();
        let list = ranges.clone();
        let server = Server::start(port, 10, move |asked, image| {
            let answer = moved(first_version(asked, image)?, port);
            if answer.status != 200 || !asked.path.ends_with("/layer") {
                return Some(answer);
            }
            let range = asked.headers.get("range").cloned().unwrap_or_default();
            list.lock().expect("lock").push(range);
            let layer = if is_packed { packed(&answer.body) } else { answer.body };
            let etag = Digest::of(&layer).hex();
            let whole = Image { layer, config: Vec::new(), manifest: Vec::new() };
            let mut part = whole.part(asked).header("ETag", format!("\"{etag}\""));
            if asked.path.contains("/1111") && asked.before == 0 {
                // The head of its file; or what is packed.
                let end = part.body.len().min(100_000);
                part.body[100..end].fill(0);
            }
            Some(part)
        });
        let settings = Settings { v1: vec![server.authority.clone()], ..settings(&bed) };
        let text = bed.refused(&settings, &server.name());
        assert!(text.contains("cannot unpack layer 1111"), "{text}");
        let pulled = bed.pull(&settings, &server.name()).expect("pulled");
        for (layer, file) in pulled.image.layers.iter().zip(["lower", "upper"]) {
            let found = fs::read(bed.store.layer(layer).expect("layer").join(file)).expect("file");
            assert!(found == noise(200_000));
        }
        let asked = ranges.lock().expect("lock").clone();
        assert_eq!(asked, [""; 3], "both of them whole, one of them twice");
        drop(pulled);
        bed.close();
    }
}

fn packed(tar: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, tar).expect("packed");
    gzip.finish().expect("packed")
}

/// The same answer with the endpoint of another port.
pub fn moved(mut answer: Answer, port: u16) -> Answer {
    for (_, value) in answer.headers.iter_mut().filter(|(name, _)| name == "X-Docker-Endpoints") {
        *value = format!("127.0.0.1:{port}");
    }
    answer
}

#[test]
fn an_image_of_the_first_schema_comes_from_registries_that_are_named() {
    let bed = Bed::new("schema1");
    let server = Server::start(5000, 100_000, |asked, image| {
        let about = r#"{"id":"a","parent":"","config":{"Env":["A=b"],"Cmd":["/x"]},"os":"linux"}"#;
        let document = serde_json::json!({
            "schemaVersion": 1, "name": "a/b", "tag": "1", "architecture": "amd64",
            "fsLayers": [{"blobSum": Digest::of(&image.layer)}],
            "history": [{"v1Compatibility": about}],
        });
        let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        let is_manifest = asked.path.contains("/manifests/");
        is_manifest.then(|| Answer::ok(document.to_string()).header("Content-Type", kind))
    });
    let text = bed.refused(&settings(&bed), &server.name());
    assert!(text.contains("its manifest is of the first schema"), "{text}");
    let settings = Settings { v1: vec![server.authority.clone()], ..settings(&bed) };
    let pulled = bed.pull(&settings, &server.name()).expect("pulled");
    assert_eq!((pulled.image.config.env.len(), pulled.image.layers.len()), (1, 1));
    assert_eq!(pulled.image.layers[0], Digest::of(&server.image.layer));
    drop(pulled);
    bed.close();
}

/// Nothing else tells whose manifest it is.
#[test]
fn an_image_of_the_first_schema_is_the_one_that_was_asked_for() {
    let bed = Bed::new("schema-other");
    let of = |port: u16, name: &'static str, tag: &'static str, architecture: &'static str| {
        Server::start(port, 100_000, move |asked, image| {
            let layers = [image.layer.clone(), image.layer.clone()];
            let mut answer = of_schema(asked, image, &layers)?;
            let text = String::from_utf8(answer.body).expect("text");
            let text = text.replace(r#""a/b""#, &format!(r#""{name}""#));
            let text = text.replace(r#""tag":"1""#, &format!(r#""tag":"{tag}""#));
            answer.body = text.replace("amd64", architecture).into_bytes();
            Some(answer)
        })
    };
    let rows = [
        (of(5000, "a/c", "1", "amd64"), "came for a/b:1 is that of `a/c:1`"),
        (of(5001, "a/b", "2", "amd64"), "came for a/b:1 is that of `a/b:2`"),
        (of(5002, "a/b", "1", "riscv64"), "the image is for linux/riscv64; this box is"),
    ];
    let v1 = rows.each_ref().map(|(server, _)| server.authority.clone()).to_vec();
    let settings = Settings { v1, ..settings(&bed) };
    for (server, expected) in &rows {
        let text = bed.refused(&settings, &server.name());
        assert!(text.contains(expected), "{expected}: {text}");
    }
    bed.close();
}

/// An id says something of its own registry only.
#[test]
fn what_a_mirror_of_the_first_version_gave_is_not_the_registry_s() {
    let bed = Bed::new("firstmirror");
    let own = Server::start(5000, 10, first_version);
    let mirror = Server::start(5001, 10, |asked, image| {
        let mut answer = moved(first_version(asked, image)?, 5001);
        if asked.path.ends_with("/layer") && answer.status == 200 {
            answer.body = crate::image::one_file("other", b"other");
        }
        Some(answer)
    });
    let settings = Settings { v1: vec![own.authority.clone()], ..settings(&bed) };
    let mirrors =
        std::collections::BTreeMap::from([(own.authority.clone(), vec![mirror.authority.clone()])]);
    let mirrored = Settings { mirrors, mirrors_tell_tags: true, ..settings.clone() };
    let first = bed.pull(&mirrored, &own.name()).expect("of the mirror");
    assert_eq!((own.count("/layer"), mirror.count("/layer")), (0, 2));
    let second = bed.pull(&settings, &own.name()).expect("of the registry");
    assert_eq!(own.count("/layer"), 2);
    assert!(first.image.digest != second.image.digest && first.image.layers != second.image.layers);
    drop((first, second));
    bed.close();
}
