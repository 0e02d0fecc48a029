//! Endpoints of registries of the first version, who gets which right to read, and families of layers
//! that are none.

use super::first::first_version;
use super::*;

/// ann:secret
const BASIC: &str = "Basic YW5uOnNlY3JldA==";

/// An index that lets ann in, gives her a token, and names who has layers; it has none.
fn index(asked: &Asked, endpoints: &str) -> Answer {
    let is_ann = asked.headers.get("authorization").map(String::as_str) == Some(BASIC);
    match asked.path.as_str() {
        "/v1/_ping" => Answer::ok("true").header("X-Docker-Registry-Standalone", "false"),
        "/v1/repositories/a/b/images" if is_ann => {
            Answer::ok("[]").header("X-Docker-Token", "t").header("X-Docker-Endpoints", endpoints)
        }
        "/v1/repositories/a/b/images" => Answer::status(401),
        _ => Answer::status(404),
    }
}

#[test]
fn endpoints_are_asked_in_their_order_and_get_the_token_only() {
    let bed = Bed::new("endpoints");
    // The first is no address, the second has nothing, and the third sends us to where layers lie.
    let index = Server::start(5000, 10, |asked, _| {
        Some(index(asked, "no address, 127.0.0.1:5001, 127.0.0.1:5002"))
    });
    let empty = Server::start(5001, 10, |_, _| Some(Answer::status(404)));
    let endpoint = Server::start(5002, 10, |asked, image| {
        let answer = first_version(asked, image)?;
        let to = format!("http://127.0.0.1:5003{}", asked.path);
        let is_layer = asked.path.ends_with("/layer") && answer.status == 200;
        Some(if is_layer { Answer::status(302).header("Location", to) } else { answer })
    });
    let storage = Server::start(5003, 10, |asked, _| {
        let name = if asked.path.contains("/1111") { "lower" } else { "upper" };
        Some(Answer::ok(crate::image::one_file(name, &noise(1000))))
    });
    let settings = Settings { v1: vec![index.authority.clone()], ..settings(&bed) };
    let auth = format!(r#"{{"auths":{{"{}":{{"auth":"YW5uOnNlY3JldA=="}}}}}}"#, index.authority);
    std::fs::write(&settings.credentials, auth).expect("write");
    let pulled = bed.pull(&settings, &index.name()).expect("pulled");
    assert_eq!(pulled.image.layers.len(), 2);
    drop(pulled);
    // Tags, ancestry, and of each layer what is said of it and itself: the second one before the third.
    assert_eq!((empty.count("Token t"), endpoint.count("Token t")), (6, 6));
    assert_eq!((storage.count("/layer"), storage.count("/layer -")), (2, 2), "no right goes there");
    assert_eq!([&empty, &endpoint, &storage].map(|it| it.count("Basic")), [0; 3]);
    assert_eq!(index.count("/tags"), 0);
    bed.close();
}

#[test]
fn an_index_that_names_no_endpoint_is_one() {
    let bed = Bed::new("noendpoint");
    let server = Server::start(5004, 10, |asked, image| {
        let mut answer = first_version(asked, image)?;
        answer.headers.retain(|(name, _)| name != "X-Docker-Endpoints");
        Some(answer)
    });
    let settings = Settings { v1: vec![server.authority.clone()], ..settings(&bed) };
    bed.pull(&settings, &server.name()).expect("pulled");
    assert_eq!(server.count("/layer Token t"), 2);
    bed.close();
}

#[test]
fn families_that_are_none_and_ids_that_lead_elsewhere_are_refused() {
    let bed = Bed::new("families");
    let ids = ["1".repeat(64), "2".repeat(64)];
    let json = |value: serde_json::Value| value.to_string();
    let twice = json(serde_json::json!([ids[1], ids[0], ids[0]]));
    let other = json(serde_json::json!([ids[0], ids[1]]));
    let many = (0..127).map(|n| format!("{n:064x}"));
    let many: Vec<String> = [ids[1].clone()].into_iter().chain(many).collect();
    let rows = [
        ("/ancestry", twice, "answered with no family"),
        ("/ancestry", other, "answered with no family"),
        ("/ancestry", json(serde_json::json!(many)), "`ancestry` has more than 127 entries"),
        ("/ancestry", r#"["../x"]"#.into(), "which is no id of 64 hex digits"),
        ("/tags", r#"{"0":[],"1":"../x"}"#.into(), "which is no id of 64 hex digits"),
        ("/tags", r#"{"2":"../x"}"#.into(), "knows no tag `1`"),
        ("/tags", "[1]".into(), "answered with nonsense"),
    ];
    for (at, (path, text, expected)) in rows.into_iter().enumerate() {
        let port = 5000 + at as u16;
        let server = Server::start(port, 10, move |asked, image| {
            let answer = first::moved(first_version(asked, image)?, port);
            let is_it = asked.path.ends_with(path) && answer.status == 200;
            Some(if is_it { Answer::ok(text.clone()) } else { answer })
        });
        let settings = Settings { v1: vec![server.authority.clone()], ..settings(&bed) };
        let said = bed.refused(&settings, &server.name());
        assert!(said.contains(expected), "{expected}: {said}");
        assert_eq!(server.count("/layer"), 0);
    }
    bed.close();
}
