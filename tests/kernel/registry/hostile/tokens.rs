//! Logins that are turned into tokens, as servers of tokens really want it.

use super::*;
use terrarium::unit::escape::escaped;

/// ann:secret
const BASIC: &str = "Basic YW5uOnNlY3JldA==";

/// Who may read: those with this token.
fn guarded(asked: &Asked, image: &Image, realm: &str, token: &str) -> Answer {
    let has = asked.headers.get("authorization").map(String::as_str);
    if has == Some(&format!("Bearer {token}")) {
        return image.honest(asked);
    }
    let challenge = format!(r#"Bearer realm="{realm}",service="the registry""#);
    Answer::status(401).header("WWW-Authenticate", challenge)
}

fn login(settings: &Settings, authority: &str, auth: &str) {
    let text = format!(r#"{{"auths":{{"{authority}":{{{auth}}}}}}}"#);
    std::fs::write(&settings.credentials, text).expect("write");
}

/// Its own server of tokens is on another network than the registry, and named for that.
#[test]
fn a_login_goes_to_the_server_of_tokens_and_a_token_to_the_registry() {
    let bed = Bed::new("tokenlogin");
    let tokens = Server::start(5001, 10, |asked, _| {
        let is_ours = asked.headers.get("authorization").map(String::as_str) == Some(BASIC);
        Some(if is_ours { Answer::ok(r#"{"token":"t"}"#) } else { Answer::status(401) })
    });
    let server = Server::start(5000, 10_000, |asked, image| {
        Some(guarded(asked, image, "http://127.0.0.2:5001/token?x=1", "t"))
    });
    let settings = Settings { realms: vec!["127.0.0.2:5001".into()], ..settings(&bed) };
    login(&settings, &server.authority, r#""auth":"YW5uOnNlY3JldA==""#);
    bed.pull(&settings, &server.name()).expect("pulled");
    let asked = tokens.asked.lock().expect("lock").clone();
    let scope = escaped("repository:a/b:pull");
    let query = format!("service=the%20registry&scope={scope}&client_id=terrarium&account=ann");
    assert_eq!(asked, [format!("/token?x=1&{query} {BASIC}")]);
    assert_eq!(server.count("Basic"), 0);
    assert_eq!(server.count("Bearer t"), 3);
    bed.close();
}

#[test]
fn an_identity_token_is_exchanged_in_a_form() {
    let bed = Bed::new("identity");
    let forms: Arc<Mutex<Vec<String>>> = Arc::default();
    let list = forms.clone();
    let server = Server::start(5000, 10_000, move |asked, image| {
        if asked.path == "/token" {
            list.lock().expect("lock").push(asked.body.clone());
            return Some(Answer::ok(r#"{"access_token":"t"}"#));
        }
        Some(guarded(asked, image, "http://127.0.0.1:5000/token", "t"))
    });
    let settings = settings(&bed);
    login(&settings, &server.authority, r#""identitytoken":"long lived""#);
    bed.pull(&settings, &server.name()).expect("pulled");
    let forms = forms.lock().expect("lock").clone();
    let [form] = forms.try_into().expect("once");
    for part in [
        "grant_type=refresh_token",
        "service=the",
        "client_id=terrarium",
        &format!("scope={}", escaped("repository:a/b:pull")),
    ] {
        assert!(form.split('&').any(|it| it.starts_with(part)), "{part}: {form}");
    }
    assert!(form.contains("refresh_token=long"), "{form}");
    assert_eq!(server.count("long"), 0, "it stands in no address and no header");
    bed.close();
}

/// Good for the manifest, and for no blob any more.
#[test]
fn a_token_that_ends_in_the_middle_is_got_anew() {
    let bed = Bed::new("tokenends");
    let server = Server::start(5000, 10_000, |asked, image| {
        if asked.path.starts_with("/token") {
            return Some(Answer::ok(format!(
                r#"{{"token":"t{}","expires_in":300}}"#,
                asked.before
            )));
        }
        let is_blob = asked.path.contains("/blobs/");
        // At the door, for the first time.
        let token = if is_blob { "t1" } else { "t0" };
        Some(guarded(asked, image, "http://127.0.0.1:5000/token", token))
    });
    bed.pull(&settings(&bed), &server.name()).expect("pulled");
    assert_eq!(server.count("/token"), 2);
    assert_eq!(server.count("/blobs/"), 3, "one was refused");
    bed.close();
}

/// It is asked for once more, not for ever.
#[test]
fn a_token_that_is_never_good_is_given_up() {
    let bed = Bed::new("tokennever");
    let server = Server::start(5000, 10_000, |asked, image| {
        if asked.path.starts_with("/token") {
            return Some(Answer::ok(r#"{"token":"t"}"#));
        }
        let token = if asked.path.contains("/blobs/") { "other" } else { "t" };
        Some(guarded(asked, image, "http://127.0.0.1:5000/token", token))
    });
    let text = bed.refused(&settings(&bed), &server.name());
    assert!(text.contains("does not let us read a/b"), "{text}");
    assert_eq!((server.count("/token"), server.count("/blobs/")), (2, 2));
    bed.close();
}

/// In two headers, the one that we like less first.
#[test]
fn of_two_ways_in_the_better_one_is_taken() {
    let bed = Bed::new("twoways");
    let server = Server::start(5000, 10_000, |asked, image| {
        if asked.path.starts_with("/token") {
            return Some(Answer::ok(r#"{"token":"t"}"#));
        }
        let mut answer = guarded(asked, image, "http://127.0.0.1:5000/token", "t");
        if answer.status == 401 {
            answer.headers.insert(0, ("WWW-Authenticate".into(), "Basic realm=\"x, y\"".into()));
        }
        Some(answer)
    });
    let settings = settings(&bed);
    login(&settings, &server.authority, r#""auth":"YW5uOnNlY3JldA==""#);
    bed.pull(&settings, &server.name()).expect("pulled");
    let asked = server.asked.lock().expect("lock").clone();
    assert!(asked.iter().all(|it| it.starts_with("/token") || !it.contains("Basic")), "{asked:?}");
    bed.close();
}
