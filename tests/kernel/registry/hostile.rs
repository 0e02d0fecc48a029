//! A server of ours that holds one image and misbehaves in the way that is asked for.

mod bounds;
mod broken;
mod endpoints;
mod first;
mod going;
mod here;
mod leaks;
mod links;
mod look;
mod proxies;
mod tokens;

use super::Bed;
use crate::accepting::Accepting;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use terrarium::image::registry::settings::Settings;
use terrarium::unit::Digest;

/// One request.
#[derive(Clone)]
struct Asked {
    path: String,
    headers: BTreeMap<String, String>,
    /// How often this path was asked for before.
    before: usize,
    /// What was sent: a form.
    body: String,
}

/// One answer.
#[derive(Default)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Bytes of the body that are sent before the connection is cut.
    cut: Option<usize>,
    /// The body is never sent to its end, nor is the connection closed.
    stalls: bool,
    /// What is not sent is not ended either: the connection is reset. Without a body there is no head.
    resets: bool,
    /// The head drips, too.
    is_slow: bool,
    /// A byte at a time; told whether the client left before it had enough of them for a minute.
    drips: Option<Arc<AtomicBool>>,
}

impl Answer {
    fn ok(body: impl Into<Vec<u8>>) -> Answer {
        Answer { status: 200, body: body.into(), ..Answer::default() }
    }

    fn status(status: u16) -> Answer {
        Answer { status, ..Answer::default() }
    }

    fn header(mut self, name: &str, value: impl ToString) -> Answer {
        self.headers.push((name.into(), value.to_string()));
        self
    }
}

type Mind = dyn Fn(&Asked, &Image) -> Option<Answer> + Send + Sync;

/// An image of a layer with one file.
struct Image {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Image {
    fn new(bytes: usize) -> Image {
        let tar = crate::image::one_file("file", &noise(bytes));
        Image::of(&tar, tar.clone())
    }

    /// Its layer is packed by gzip.
    fn packed(bytes: usize) -> Image {
        let tar = crate::image::one_file("file", &noise(bytes));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).expect("packed");
        Image::of(&tar, gzip.finish().expect("packed"))
    }

    fn of(tar: &[u8], layer: Vec<u8>) -> Image {
        Image::with(layer, &[Digest::of(tar)], &[])
    }

    /// A second layer, which is not served.
    fn of_two(layer: Vec<u8>, more: &[u8]) -> Image {
        let diffs = [Digest::of(&layer), Digest::of(more)];
        Image::with(layer, &diffs, &[more])
    }

    fn with(layer: Vec<u8>, diffs: &[Digest], more: &[&[u8]]) -> Image {
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": diffs},
        });
        let config = config.to_string().into_bytes();
        let one = |kind: &str, data: &[u8]| serde_json::json!({"mediaType": kind, "digest": Digest::of(data), "size": data.len()});
        let layers = [&[&layer[..]], more].concat();
        let layers = layers.iter().map(|data| one("application/vnd.oci.image.layer.v1.tar", data));
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": one("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.collect::<Vec<_>>(),
        });
        Image { layer, config, manifest: manifest.to_string().into_bytes() }
    }

    /// What an honest server says.
    fn honest(&self, asked: &Asked) -> Answer {
        let last = asked.path.rsplit('/').next().unwrap_or_default();
        let named = |data: &[u8]| Digest::of(data).to_string() == last;
        match () {
            () if asked.path == "/v2/" => Answer::ok("{}"),
            () if asked.path.contains("/manifests/") => Answer::ok(self.manifest.clone())
                .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
                .header("Docker-Content-Digest", Digest::of(&self.manifest)),
            () if named(&self.config) => Answer::ok(self.config.clone()),
            () if named(&self.layer) => self.part(asked),
            () => Answer::status(404),
        }
    }

    /// The layer, from where it is asked for.
    fn part(&self, asked: &Asked) -> Answer {
        let Some(from) = asked.headers.get("range").and_then(|it| it.strip_prefix("bytes=")) else {
            return Answer::ok(self.layer.clone());
        };
        let from: usize = from.trim_end_matches('-').parse().expect("a range");
        let range = format!("bytes {from}-{}/{}", self.layer.len() - 1, self.layer.len());
        let part = Answer { status: 206, ..Answer::ok(&self.layer[from..]) };
        part.header("Content-Range", range)
    }
}

/// Bytes that do not repeat.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A running server at 127.0.0.1 and a port, until it is dropped.
struct Server {
    authority: String,
    asked: Arc<Mutex<Vec<String>>>,
    image: Arc<Image>,
    _accepting: Accepting,
}

impl Server {
    /// `mind` says what is different from an honest server.
    fn start(
        port: u16,
        bytes: usize,
        mind: impl Fn(&Asked, &Image) -> Option<Answer> + Send + Sync + 'static,
    ) -> Server {
        Server::with(port, Image::new(bytes), mind)
    }

    fn with(
        port: u16,
        image: Image,
        mind: impl Fn(&Asked, &Image) -> Option<Answer> + Send + Sync + 'static,
    ) -> Server {
        Server::over(port, image, None, mind)
    }

    /// With TLS, by what `certificates` has made in `dir`.
    fn secure(
        port: u16,
        dir: &Path,
        mind: impl Fn(&Asked, &Image) -> Option<Answer> + Send + Sync + 'static,
    ) -> Server {
        Server::over(port, Image::new(10_000), Some(tls(dir)), mind)
    }

    fn over(
        port: u16,
        image: Image,
        tls: Option<Arc<rustls::ServerConfig>>,
        mind: impl Fn(&Asked, &Image) -> Option<Answer> + Send + Sync + 'static,
    ) -> Server {
        // All of the loopback network is here.
        let listener = TcpListener::bind(("0.0.0.0", port)).expect("bind");
        let image = Arc::new(image);
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (own, list, mind) =
            (image.clone(), asked.clone(), Arc::<Mind>::from(Box::new(mind) as Box<Mind>));
        let _accepting = Accepting::start(listener, move |stream| {
            let (image, list, mind) = (own.clone(), list.clone(), mind.clone());
            let tls = tls.clone();
            std::thread::spawn(move || {
                let conn = tls.map(|tls| rustls::ServerConnection::new(tls).expect("tls"));
                let mut stream: Box<dyn Stream> = match conn {
                    Some(conn) => Box::new(rustls::StreamOwned::new(conn, stream)),
                    None => Box::new(stream),
                };
                while serve(&mut *stream, &image, &list, &*mind) {}
            });
        });
        Server { authority: format!("127.0.0.1:{port}"), asked, image, _accepting }
    }

    fn name(&self) -> String {
        format!("{}/a/b:1", self.authority)
    }

    /// How often something with this text was asked for.
    fn count(&self, text: &str) -> usize {
        self.asked.lock().expect("lock").iter().filter(|line| line.contains(text)).count()
    }

    fn layer(&self) -> String {
        Digest::of(&self.image.layer).to_string()
    }
}

/// A connection, with TLS or without.
trait Stream: Read + Write {
    fn socket(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Stream for rustls::StreamOwned<rustls::ServerConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref()
    }
}

/// A server's side of TLS, whoever asks.
fn tls(dir: &Path) -> Arc<rustls::ServerConfig> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_file_iter(dir.join("server.crt")).expect("certificate");
    let chain = chain.collect::<Result<_, _>>().expect("certificate");
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).expect("key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().expect("versions");
    Arc::new(config.with_no_client_auth().with_single_cert(chain, key).expect("a pair"))
}

/// A body of a byte at a time, until nobody takes it any more; whether that came to be in a minute.
fn drip(stream: &mut dyn Stream, body: &[u8]) -> bool {
    let begin = Instant::now();
    let gone = |byte| stream.write_all(&[byte]).and_then(|()| stream.flush()).is_err();
    let mut bytes = body.iter().copied().map(gone);
    while begin.elapsed() < Duration::from_secs(60) {
        match bytes.next() {
            Some(false) => std::thread::park_timeout(Duration::from_millis(100)),
            Some(true) => return true,
            None => return false,
        }
    }
    false
}

/// Answers one request; whether the connection goes on.
fn serve(stream: &mut dyn Stream, image: &Image, list: &Mutex<Vec<String>>, mind: &Mind) -> bool {
    let mut reader = BufReader::new(stream.take(64 << 10));
    let mut lines = reader.by_ref().lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return false };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers = lines.take_while(|line| !line.is_empty());
    let headers = headers.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    let headers: BTreeMap<String, String> = headers.collect();
    let length = headers.get("content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return false;
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    let before = {
        let mut list = list.lock().expect("lock");
        let before = list.iter().filter(|line| line.split(' ').next() == Some(&*path)).count();
        let secret = headers.get("authorization").map(String::as_str).unwrap_or("-");
        list.push(format!("{path} {secret}"));
        before
    };
    let asked = Asked { path, headers, before, body };
    let answer = mind(&asked, image).unwrap_or_else(|| image.honest(&asked));
    let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
    if !answer.headers.iter().any(|(name, _)| name == "Content-Length") {
        head += &format!("Content-Length: {}\r\n", answer.body.len());
    }
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let body = &answer.body[..answer.cut.unwrap_or(answer.body.len()).min(answer.body.len())];
    if answer.resets {
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(stream.socket(), nix::sys::socket::sockopt::Linger, &linger)
            .expect("linger");
    }
    if answer.resets && body.is_empty() {
        return false;
    }
    head += "\r\n";
    if let (Some(left), true) = (&answer.drips, answer.is_slow) {
        left.store(drip(stream, &[head.as_bytes(), body].concat()), Ordering::SeqCst);
        return false;
    }
    if stream.write_all(head.as_bytes()).is_err() {
        return false;
    }
    if let Some(left) = &answer.drips {
        left.store(drip(stream, body), Ordering::SeqCst);
        return false;
    }
    if stream.write_all(body).and_then(|()| stream.flush()).is_err() {
        return false;
    }
    if answer.stalls {
        // Until the client has enough of it.
        let _ = stream.read(&mut [0]);
    }
    answer.cut.is_none() && !answer.stalls && !answer.resets
}

fn settings(bed: &Bed) -> Settings {
    bed.insecure("127.0.0.0/8")
}

#[test]
fn a_connection_that_is_cut_again_and_again_is_gone_on_with() {
    let bed = Bed::new("cut");
    // A reset takes with it what is on its way.
    let rows = [(10_007, 200_000), (100_003, 1 << 20), (262_144, 1 << 20)];
    let rows = rows.map(|(every, bytes)| (every, bytes, false)).into_iter();
    let rows = rows.chain([(10_007, 100_000, true), (100_003, 1 << 20, true)]);
    for (at, (every, bytes, resets)) in rows.enumerate() {
        let server = Server::start(5000 + at as u16, bytes, move |asked, image| {
            let is_layer = asked.path.ends_with(&Digest::of(&image.layer).to_string());
            is_layer.then(|| Answer { cut: Some(every), resets, ..image.part(asked) })
        });
        let pulled = bed.pull(&settings(&bed), &server.name()).expect("pulled");
        let asked = server.count(&server.layer());
        assert!(asked > bytes / every, "asked {asked} times");
        let image = pulled.image.clone();
        drop(pulled);
        // The next round fetches it again.
        let name = server.name().parse().expect("name");
        terrarium::image::catalog::forget(&bed.store, &name).expect("forget");
        terrarium::image::catalog::remove(&bed.store, &image.digest).expect("remove");
        terrarium::image::collect(&bed.store, &Default::default(), || Some(Default::default()))
            .expect("collect");
        assert_eq!(bed.store.layers().expect("layers"), []);
    }
    bed.close();
}

#[test]
fn what_came_is_kept_for_the_next_time_and_what_is_damaged_is_not() {
    let bed = Bed::new("kept");
    let server = Server::start(5000, 1 << 20, |asked, image| {
        let is_layer = asked.path.ends_with(&Digest::of(&image.layer).to_string());
        match (is_layer, asked.before) {
            (false, _) => None,
            (true, 0) => Some(Answer { cut: Some(700_000), ..image.part(asked) }),
            // Then nobody is at home for a while.
            (true, 1..=4) => Some(Answer::status(404)),
            (true, _) => None,
        }
    });
    bed.refused(&settings(&bed), &server.name());
    let part = bed.store.dir().join("downloads").join(server.layer().trim_start_matches("sha256:"));
    let kept = std::fs::metadata(&part).expect("kept").len();
    assert!(kept > 600_000, "{kept}");
    // A power cut has damaged it: it is found out, and all is fetched.
    let mut bytes = std::fs::read(&part).expect("read");
    bytes[1000] ^= 1;
    std::fs::write(&part, bytes).expect("write");
    while server.count(&server.layer()) < 5 {
        bed.refused(&settings(&bed), &server.name());
    }
    bed.pull(&settings(&bed), &server.name()).expect("pulled");
    assert!(!part.exists());
    bed.close();
}

#[test]
fn lies_are_refused_by_name_and_leave_nothing() {
    let bed = Bed::new("lies");
    type Lie = fn(&Asked, &Image) -> Option<Answer>;
    let rows: [(&str, Lie); 9] = [
        ("is something else", |asked, image| {
            asked
                .path
                .ends_with(&Digest::of(&image.layer).to_string())
                .then(|| Answer::ok(vec![0; image.layer.len()]))
        }),
        ("its descriptor says", |asked, image| {
            asked
                .path
                .ends_with(&Digest::of(&image.layer).to_string())
                .then(|| Answer::ok([&image.layer[..], b"more"].concat()))
        }),
        ("its descriptor says", |asked, image| {
            let is_layer = asked.path.ends_with(&Digest::of(&image.layer).to_string());
            is_layer.then(|| Answer::ok(image.layer.clone()).header("Content-Length", 1u64 << 42))
        }),
        ("the manifest that came is", |asked, _| {
            asked.path.contains("/manifests/").then(|| {
                Answer::ok(r#"{"layers":[]}"#).header("Docker-Content-Digest", Digest::of(b""))
            })
        }),
        ("answered with something else", |asked, image| {
            asked.path.ends_with(&Digest::of(&image.config).to_string()).then(|| Answer::ok("{}"))
        }),
        ("redirects more than 5 times", |asked, _| {
            asked
                .path
                .contains("/manifests/")
                .then(|| Answer::status(307).header("Location", format!("{}x", asked.path)))
        }),
        ("more than 4194304 bytes", |asked, _| {
            asked.path.contains("/manifests/").then(|| Answer::ok(vec![b' '; 5 << 20]))
        }),
        ("could be read as either", |asked, _| {
            asked
                .path
                .contains("/manifests/")
                .then(|| Answer::ok(r#"{"layers":[],"manifests":[]}"#))
        }),
        ("answered 502", |asked, _| {
            asked
                .path
                .contains("/manifests/")
                .then(|| Answer { status: 502, ..Answer::ok("<html>\x1b[31m</html>") })
        }),
    ];
    for (at, (expected, lie)) in rows.into_iter().enumerate() {
        let server = Server::start(5000 + at as u16, 10_000, lie);
        let text = bed.refused(&settings(&bed), &server.name());
        assert!(text.contains(expected) && !text.contains('\x1b'), "{expected}: {text}");
    }
    bed.close();
}

#[test]
fn a_busy_server_is_asked_again_when_it_says() {
    let bed = Bed::new("busy");
    let server = Server::start(5000, 10_000, |asked, _| {
        let is_first = asked.path.contains("/manifests/") && asked.before == 0;
        let broken = asked.path.contains("/blobs/") && asked.before == 0;
        match (is_first, broken) {
            (true, _) => Some(Answer::status(429).header("Retry-After", 1)),
            (_, true) => Some(Answer::status(503)),
            _ => None,
        }
    });
    bed.pull(&settings(&bed), &server.name()).expect("pulled");
    assert_eq!(server.count("/manifests/"), 2);
    bed.close();
}

#[test]
fn a_server_that_gives_next_to_nothing_is_left() {
    let bed = Bed::new("slow");
    let server = Server::start(5000, 100_000, |asked, image| {
        let is_layer = asked.path.ends_with(&Digest::of(&image.layer).to_string());
        (is_layer && asked.before < 2).then(|| Answer {
            cut: Some(100),
            stalls: true,
            ..image.part(asked)
        })
    });
    let settings = Settings { idle: Duration::from_millis(300), ..settings(&bed) };
    bed.pull(&settings, &server.name()).expect("pulled");
    assert_eq!(server.count(&server.layer()), 3);
    bed.close();
}

#[test]
fn a_login_goes_to_nobody_else() {
    let bed = Bed::new("leak");
    // What is redirected to is another server, and gets no login.
    let storage = Server::start(5001, 10_000, |_, _| None);
    let server = Server::start(5000, 10_000, |asked, image| {
        if asked.headers.get("authorization").map(String::as_str) != Some("Basic YW5uOnNlY3JldA==")
        {
            return Some(Answer::status(401).header("WWW-Authenticate", "Basic realm=x"));
        }
        let is_layer = asked.path.ends_with(&Digest::of(&image.layer).to_string());
        let to = format!("http://127.0.0.1:5001{}", asked.path);
        is_layer.then(|| Answer::status(307).header("Location", to))
    });
    let settings = settings(&bed);
    let auth = r#"{"auths":{"127.0.0.1:5000":{"auth":"YW5uOnNlY3JldA=="}}}"#;
    std::fs::write(&settings.credentials, auth).expect("write");
    bed.pull(&settings, &server.name()).expect("pulled");
    assert_eq!((storage.count("/blobs/"), storage.count("Basic")), (1, 0));
    // A registry that sends us to a stranger for a token.
    let stranger = Server::start(5003, 10, |_, _| Some(Answer::ok(r#"{"token":"t"}"#)));
    let greedy = Server::start(5002, 10, |asked, _| {
        let is_bare = !asked.headers.contains_key("authorization");
        let challenge = r#"Bearer realm="http://127.0.0.2:5003/token",service="x""#;
        is_bare.then(|| Answer::status(401).header("WWW-Authenticate", challenge))
    });
    std::fs::write(&settings.credentials, auth.replace("5000", "5002")).expect("write");
    let text = bed.refused(&settings, &greedy.name());
    assert!(text.contains("its login would go there") && !text.contains("secret"), "{text}");
    assert_eq!(stranger.count(""), 0);
    bed.close();
}

/// By digest a mirror cannot lie; what a tag means is the registry's to say, unless mirrors may.
#[test]
fn mirrors_are_asked_before_the_registry() {
    let bed = Bed::new("mirrors");
    let server = Server::start(5000, 200_000, |_, _| None);
    let mirror = Server::start(5001, 200_000, |_, _| None);
    let empty =
        Server::start(5002, 10, |asked, _| (asked.path != "/v2/").then(|| Answer::status(404)));
    let mirrors = vec![empty.authority.clone(), mirror.authority.clone()];
    let mirrors = BTreeMap::from([(server.authority.clone(), mirrors)]);
    let settings = Settings { mirrors, ..settings(&bed) };
    let pinned = format!("{}/a/b@{}", server.authority, Digest::of(&server.image.manifest));
    let all = || [&server, &empty, &mirror].map(|it| it.count("/manifests/"));
    let tells = Settings { mirrors_tell_tags: true, ..settings.clone() };
    for (settings, name, asked) in [
        (&settings, server.name(), [1, 0, 0]),
        (&settings, pinned, [1, 1, 1]),
        (&tells, server.name(), [1, 2, 2]),
    ] {
        let pulled = bed.pull(settings, &name).expect("pulled");
        assert_eq!(all(), asked, "{name}");
        let digest = pulled.image.digest;
        drop(pulled);
        // The next one fetches it again.
        let name = name.parse().expect("name");
        terrarium::image::catalog::forget(&bed.store, &name).expect("forget");
        terrarium::image::catalog::remove(&bed.store, &digest).expect("remove");
        terrarium::image::collect(&bed.store, &Default::default(), || Some(Default::default()))
            .expect("collect");
    }
    assert_eq!([&server, &mirror].map(|it| it.count(&server.layer())), [1, 2]);
    bed.close();
}
