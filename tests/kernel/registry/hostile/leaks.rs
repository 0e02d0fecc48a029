//! What lets us in goes to nobody but whom it is for, wherever he sends us.

use super::*;
use crate::registry::server::certificates;

#[test]
fn neither_a_token_nor_a_login_goes_where_a_redirect_leads() {
    let bed = Bed::new("leaks");
    let dir = bed.dir("server");
    certificates(&dir);
    // The server of tokens has moved; whoever is there now asks for no login, and gets none.
    let moved = Server::start(5003, 10, |_, _| Some(Answer::ok(r#"{"token":"t"}"#)));
    let tokens = Server::start(5002, 10, |asked, _| {
        let to = format!("http://127.0.0.1:5003{}", asked.path);
        Some(Answer::status(307).header("Location", to))
    });
    // Storage at another port, and on the same address by another scheme.
    let storage = Server::start(5001, 10_000, |_, _| None);
    let secure = Server::secure(5004, &dir, |_, _| None);
    let server = Server::start(5000, 10_000, |asked, image| {
        if asked.headers.get("authorization").map(String::as_str) != Some("Bearer t") {
            let challenge = r#"Bearer realm="http://127.0.0.1:5002/token",service="x""#;
            return Some(Answer::status(401).header("WWW-Authenticate", challenge));
        }
        let named = |data: &[u8]| asked.path.ends_with(&Digest::of(data).to_string());
        let to = match () {
            () if named(&image.layer) => "http://127.0.0.1:5001",
            () if named(&image.config) => "https://127.0.0.1:5004",
            () => return None,
        };
        Some(Answer::status(307).header("Location", format!("{to}{}", asked.path)))
    });
    let settings = settings(&bed);
    let auth = format!(r#"{{"auths":{{"{}":{{"auth":"YW5uOnNlY3JldA=="}}}}}}"#, server.authority);
    std::fs::write(&settings.credentials, auth).expect("write");
    bed.pull(&settings, &server.name()).expect("pulled");
    assert_eq!((tokens.count("Basic"), server.count("Bearer t")), (1, 3));
    for (what, elsewhere) in [("tokens", &moved), ("storage", &storage), ("by TLS", &secure)] {
        let asked = elsewhere.asked.lock().expect("lock").clone();
        assert!(asked.len() == 1 && asked[0].ends_with(" -"), "{what}: {asked:?}");
    }
    bed.close();
}
