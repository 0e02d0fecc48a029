//! Links that break and drip, servers that want to be left alone, and those that lead astray.

use super::bounds::until;
use super::*;
use std::fs;
use terrarium::image::pull;
use terrarium::image::work::Wish;

fn is_layer(asked: &Asked, image: &Image) -> bool {
    asked.path.ends_with(&Digest::of(&image.layer).to_string())
}

/// Never silent, and never done: only who counts what comes finds that out.
#[test]
fn a_server_that_drips_is_left() {
    let bed = Bed::new("drips");
    let left = Arc::new(AtomicBool::new(false));
    let told = left.clone();
    let server = Server::start(5000, 100_000, move |asked, image| {
        (is_layer(asked, image) && asked.before == 0)
            .then(|| Answer { drips: Some(told.clone()), ..image.part(asked) })
    });
    let settings = Settings { idle: Duration::from_millis(300), ..settings(&bed) };
    bed.pull(&settings, &server.name()).expect("pulled");
    until("the server knows", || left.load(Ordering::SeqCst));
    assert_eq!(server.count(&server.layer()), 2);
    bed.close();
}

/// After so many bytes, at whatever is asked for.
#[test]
fn a_connection_that_is_reset_is_made_again() {
    let bed = Bed::new("resets");
    for (at, bytes) in [0, 1, 7, 100].into_iter().enumerate() {
        let port = 5000 + 10 * at as u16;
        let realm = format!(r#"Bearer realm="http://127.0.0.1:{port}/token",service="x""#);
        let reset = move |asked: &Asked, answer: Answer| match asked.before {
            0 | 1 => Answer { cut: Some(bytes), resets: true, ..answer },
            _ => answer,
        };
        let server = Server::start(port, 10_000, move |asked, image| {
            if asked.path.starts_with("/token") {
                return Some(reset(asked, Answer::ok(r#"{"token":"t"}"#)));
            }
            let is_in = asked.headers.get("authorization").is_some_and(|it| it == "Bearer t");
            match is_in {
                true => Some(reset(asked, image.honest(asked))),
                false => Some(Answer::status(401).header("WWW-Authenticate", &realm)),
            }
        });
        let pulled = bed.pull(&settings(&bed), &server.name()).expect("pulled");
        let config = Digest::of(&server.image.config).to_string();
        for what in ["/token", "/manifests/", &config, &server.layer()] {
            assert_eq!(server.count(what), 3, "{what} after {bytes} bytes");
        }
        drop(pulled);
        let name = server.name().parse().expect("name");
        terrarium::image::catalog::forget(&bed.store, &name).expect("forget");
        let none = terrarium::image::catalog::Keep { bytes: Some(0), ..Default::default() };
        terrarium::image::collect(&bed.store, &none, || Some(Default::default())).expect("collect");
        assert_eq!(bed.store.layers().expect("layers"), []);
    }
    bed.close();
}

#[test]
fn a_server_that_fails_is_asked_five_times() {
    let bed = Bed::new("tries");
    for (port, what) in [(5000, "/manifests/"), (5001, "/blobs/")] {
        let server = Server::start(port, 10_000, move |asked, _| {
            asked.path.contains(what).then(|| Answer::status(502))
        });
        let text = bed.refused(&settings(&bed), &server.name());
        assert!(text.contains("answered 502"), "{text}");
        assert_eq!(server.count(what), 5);
    }
    let server = Server::start(5002, 10_000, |asked, image| {
        is_layer(asked, image).then(|| Answer::status(502))
    });
    bed.refused(&settings(&bed), &server.name());
    assert_eq!(server.count(&server.layer()), 5);
    bed.close();
}

/// Refuses until its own clock says that the pause is over; who comes sooner never gets anything.
fn busy(pause: Duration) -> impl Fn(Answer) -> Answer + Send + Sync {
    let state: Mutex<(Option<Instant>, bool)> = Mutex::default();
    move |answer| {
        let mut state = state.lock().expect("lock");
        let (until, was_early) = *state;
        match until {
            None => *state = (Some(Instant::now() + pause), false),
            Some(until) => state.1 = was_early || Instant::now() < until,
        }
        match (until.is_some(), state.1) {
            (false, _) => Answer::status(429).header("Retry-After", pause.as_secs()),
            (true, true) => Answer::status(410),
            (true, false) => answer,
        }
    }
}

#[test]
fn a_pause_that_is_asked_for_is_kept_for_blobs_and_tokens_too() {
    let bed = Bed::new("pauses");
    let [tokens, manifests, blobs] = [(); 3].map(|()| busy(Duration::from_secs(2)));
    let server = Server::start(5000, 10_000, move |asked, image| {
        if asked.path.starts_with("/token") {
            return Some(tokens(Answer::ok(r#"{"token":"t"}"#)));
        }
        if !asked.headers.contains_key("authorization") {
            let realm = r#"Bearer realm="http://127.0.0.1:5000/token",service="x""#;
            return Some(Answer::status(401).header("WWW-Authenticate", realm));
        }
        let honest = image.honest(asked);
        Some(match asked.path.contains("/manifests/") {
            true => manifests(honest),
            false if is_layer(asked, image) => blobs(honest),
            false => honest,
        })
    });
    bed.pull(&settings(&bed), &server.name()).expect("nobody came too early");
    for what in ["/token", "/manifests/", &server.layer()] {
        assert_eq!(server.count(what), 2, "{what}");
    }
    bed.close();
}

#[test]
fn what_was_encrypted_stays_so() {
    let bed = Bed::new("downgrade");
    let dir = bed.dir("server");
    crate::registry::server::certificates(&dir);
    let plain = Server::start(5002, 10_000, |_, _| Some(Answer::ok(r#"{"token":"t"}"#)));
    let redirects = Server::secure(5000, &dir, |asked, image| {
        let to = format!("http://127.0.0.1:5002{}", asked.path);
        is_layer(asked, image).then(|| Answer::status(307).header("Location", to))
    });
    let realm = Server::secure(5001, &dir, |asked, _| {
        let realm = r#"Bearer realm="http://127.0.0.1:5002/token",service="x""#;
        (asked.path == "/v2/").then(|| Answer::status(401).header("WWW-Authenticate", realm))
    });
    // Without TLS the other one may be asked, but not in its stead.
    let settings = bed.insecure("127.0.0.1:5002");
    for server in [&redirects, &realm] {
        let own = settings.certs.join(&server.authority);
        fs::create_dir_all(&own).expect("directory");
        fs::copy(dir.join("client/ca.crt"), own.join("ca.crt")).expect("copy");
    }
    let text = bed.refused(&settings, &redirects.name());
    assert!(text.contains("http://127.0.0.1:5002/v2/a/b/blobs/"), "{text}");
    assert!(text.contains(", which is not encrypted"), "{text}");
    let text = bed.refused(&settings, &realm.name());
    assert!(text.contains("which is not encrypted, as the registry is"), "{text}");
    assert_eq!(plain.count(""), 0);
    bed.close();
}

/// A new name for each piece, and for each of them memory.
#[test]
fn a_registry_that_leads_to_ever_more_servers_is_left() {
    let bed = Bed::new("leads");
    let server = Server::start(5000, 1 << 20, |asked, image| {
        let is_first = asked.headers.get("host").is_some_and(|it| it == "127.0.0.1:5000");
        match (is_layer(asked, image), is_first) {
            (false, _) => None,
            (true, false) => Some(Answer { cut: Some(8 << 10), ..image.part(asked) }),
            (true, true) => {
                let to = format!("http://127.0.1.{}:5000{}", asked.before / 2 + 1, asked.path);
                Some(Answer::status(307).header("Location", to))
            }
        }
    });
    let text = bed.refused(&settings(&bed), &server.name());
    assert!(text.contains("one server more than the 32 that are asked for one image"), "{text}");
    bed.close();
}

/// Others are asked after it.
#[test]
fn a_mirror_that_is_down_is_asked_once() {
    let bed = Bed::new("down");
    let server = Server::start(5000, 10_000, |_, _| None);
    let down = Server::start(5001, 10, |_, _| Some(Answer::status(503)));
    let fails = Server::start(5002, 10, |asked, _| {
        (asked.path != "/v2/").then(|| Answer { resets: true, ..Answer::default() })
    });
    let mirrors = [&down, &fails].map(|it| it.authority.clone());
    // Nobody listens there at all.
    let mirrors = [&mirrors[..], &["127.0.0.1:5999".into()]].concat();
    let mirrors = BTreeMap::from([(server.authority.clone(), mirrors)]);
    let settings = Settings { mirrors, mirrors_tell_tags: true, ..settings(&bed) };
    bed.pull(&settings, &server.name()).expect("pulled");
    assert_eq!((down.count(""), fails.count("/manifests/")), (1, 1));
    bed.close();
}

/// As long as it should be, and wrong from its first bytes: nothing of it can be unpacked.
#[test]
fn what_a_mirror_has_damaged_is_asked_for_elsewhere() {
    let bed = Bed::new("damaged");
    for (at, image) in [Image::packed, Image::new].into_iter().enumerate() {
        let ports = [5000, 5100].map(|port| port + at as u16);
        let server = Server::with(ports[0], image(200_000 + at), |_, _| None);
        let mirror = Server::with(ports[1], image(200_000 + at), |asked, image| {
            is_layer(asked, image).then(|| {
                let mut layer = image.layer.clone();
                layer[2] ^= 0xff;
                Answer::ok(layer)
            })
        });
        let mirrors = vec![mirror.authority.clone()];
        let mirrors = BTreeMap::from([(server.authority.clone(), mirrors)]);
        let settings = Settings { mirrors, mirrors_tell_tags: true, ..settings(&bed) };
        bed.pull(&settings, &server.name()).expect("pulled");
        assert_eq!([&mirror, &server].map(|it| it.count(&server.layer())), [1, 1]);
    }
    bed.close();
}

/// The server falls silent in the middle; what came before that is a file already.
#[test]
fn a_layer_is_unpacked_while_it_comes() {
    let bed = Bed::new("overlap");
    let data = noise(1 << 20);
    let server = Server::with(5000, Image::packed(1 << 20), |asked, image| {
        is_layer(asked, image).then(|| Answer {
            cut: Some(700_000),
            stalls: true,
            ..image.part(asked)
        })
    });
    let begun = || {
        let drafts = fs::read_dir(bed.store.dir().join("tmp")).expect("tmp").flatten();
        drafts.map(|draft| draft.path().join("file")).find_map(|file| fs::read(file).ok())
    };
    std::thread::scope(|scope| {
        let wish = Wish::new(&bed.store);
        let name = server.name().parse().expect("name");
        let settings = Settings { idle: Duration::from_secs(300), ..settings(&bed) };
        let (store, own) = (&bed.store, wish.clone());
        let pulls = scope
            .spawn(move || pull(store, &settings, &name, None, &own, &|_, _| ()).map(drop).is_ok());
        let has_begun =
            || begun().is_some_and(|file| file.len() > 64 << 10 && data.starts_with(&file));
        until("it is unpacked", || pulls.is_finished() || has_begun());
        assert!(!pulls.is_finished(), "it cannot be here");
        wish.end();
        assert!(!pulls.join().expect("no panic"));
    });
    bed.close();
}

/// Together they are more than can be counted.
#[test]
fn layers_that_no_disk_could_hold_are_refused() {
    let bed = Bed::new("huge");
    let more = noise(77);
    let image = Image::of_two(crate::image::one_file("file", b"x"), &more);
    let server = Server::with(5000, image, |asked, image| {
        let text = String::from_utf8(image.manifest.clone()).expect("text");
        let huge = |text: String, size: usize| {
            text.replace(&format!("\"size\":{size}}}"), &format!("\"size\":{}}}", 1u64 << 63))
        };
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let huge = huge(huge(text, image.layer.len()), 77);
        let is_manifest = asked.path.contains("/manifests/");
        is_manifest.then(|| Answer::ok(huge).header("Content-Type", kind))
    });
    let text = bed.refused(&settings(&bed), &server.name());
    assert!(text.contains("9223372036854775808"), "{text}");
    bed.close();
}

/// Where each request for the layer wanted it from, and as it was before with what.
type Wanted = Arc<Mutex<Vec<(String, String)>>>;

/// A server that tells the layer by a validator, cuts it off once, and then gives the rest, if it is still
/// the same, from `off` bytes too far.
fn telling(port: u16, off: usize) -> (Server, Wanted) {
    let wanted = Wanted::default();
    let list = wanted.clone();
    let server = Server::start(port, 300_000, move |asked, image| {
        if !is_layer(asked, image) {
            return None;
        }
        let header = |name: &str| asked.headers.get(name).cloned().unwrap_or_default();
        list.lock().expect("lock").push((header("range"), header("if-range")));
        let part = match (header("if-range").as_str(), off) {
            ("\"a\"", 0) => image.part(asked),
            ("\"a\"", off) => {
                let (from, all) = (100_000 + off, image.layer.len());
                let part = Answer { status: 206, ..Answer::ok(&image.layer[from..]) };
                part.header("Content-Range", format!("bytes {from}-{}/{all}", all - 1))
            }
            _ => Answer::ok(image.layer.clone()),
        };
        let cut = (asked.before == 0).then_some(100_000);
        Some(Answer { cut, ..part }.header("ETag", "\"a\""))
    });
    (server, wanted)
}

#[test]
fn the_rest_of_a_blob_is_asked_for_as_it_was_before_and_no_other_part_is_taken() {
    let bed = Bed::new("ifrange");
    let (good, wanted) = telling(5000, 0);
    bed.pull(&settings(&bed), &good.name()).expect("pulled");
    let rest = ("bytes=100000-".to_owned(), "\"a\"".to_owned());
    assert_eq!(*wanted.lock().expect("lock"), [Default::default(), rest.clone()]);
    bed.close();
    let bed = Bed::new("ifrange-off");
    let (bad, wanted) = telling(5001, 7);
    let text = bed.refused(&settings(&bed), &bad.name());
    assert!(text.contains("answered with another part than the one asked for"), "{text}");
    assert_eq!(*wanted.lock().expect("lock"), [Default::default(), rest]);
    bed.close();
}

/// No read of it takes long: only who looks at all of it finds out.
#[test]
fn heads_and_documents_that_drip_are_left() {
    let bed = Bed::new("dripheads");
    let left = [(); 4].map(|()| Arc::new(AtomicBool::new(false)));
    let told = left.clone();
    let server = Server::start(5000, 10_000, move |asked, image| {
        let is_token = asked.path.starts_with("/token");
        if !is_token && !asked.headers.contains_key("authorization") {
            let realm = r#"Bearer realm="http://127.0.0.1:5000/token",service="x""#;
            return Some(Answer::status(401).header("WWW-Authenticate", realm));
        }
        // Each is long enough to go on for a minute.
        let answer = match is_token {
            true => Answer::ok(format!("{:600}", r#"{"token":"t"}"#)),
            false => image.honest(asked),
        };
        let (drips, is_slow) = match (is_token, asked.path.contains("/manifests/"), asked.before) {
            (true, _, 0) => (&told[0], true),
            (true, _, 1) => (&told[1], false),
            (_, true, 0) => (&told[2], true),
            (_, true, 1) => (&told[3], false),
            _ => return Some(answer),
        };
        let answer = if is_slow { answer.header("X-Padding", "x".repeat(600)) } else { answer };
        Some(Answer { drips: Some(drips.clone()), is_slow, ..answer })
    });
    let short = Duration::from_secs(3);
    let settings = Settings { answer: short, document: short, ..settings(&bed) };
    bed.pull(&settings, &server.name()).expect("pulled");
    // On a busy box an honest answer may be left, too.
    assert!(server.count("/token") >= 3 && server.count("/manifests/") >= 3);
    until("the server knows", || left.iter().all(|left| left.load(Ordering::SeqCst)));
    bed.close();
}
