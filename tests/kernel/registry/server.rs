//! Debian's registry server on loopback, and a server of tokens for it.

use crate::accepting::Accepting;
pub use crate::tool::tool;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How the registry is reached.
pub enum Setup {
    Plain,
    /// ann, secret.
    Basic,
    /// With [`certificates`] made before; clients must have one, too.
    Tls,
    /// With the certificate `server.crt` made before; clients need none.
    #[allow(dead_code, reason = "the e2e floor does not use it")]
    Own,
    /// As `Tls`, and ann, secret.
    #[allow(dead_code, reason = "the e2e floor uses it")]
    Guarded,
    /// With [`Tokens`] started before.
    Token,
}

/// A registry at port 5000 of the calling thread's network.
pub struct Registry(Child);

impl Registry {
    pub fn start(dir: &Path, setup: Setup) -> Registry {
        let dir_text = dir.display();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: \
             {dir_text}/data}}}}\nhttp:\n  addr: 0.0.0.0:5000\n"
        );
        if matches!(setup, Setup::Tls | Setup::Guarded) {
            config += &format!(
                "  tls: {{certificate: {dir_text}/server.crt, key: {dir_text}/server.key, \
                 clientcas: [{dir_text}/client/ca.crt]}}\n"
            );
        }
        if matches!(setup, Setup::Own) {
            config += &format!(
                "  tls: {{certificate: {dir_text}/server.crt, key: {dir_text}/server.key}}\n"
            );
        }
        match setup {
            Setup::Plain | Setup::Tls | Setup::Own => {}
            Setup::Basic | Setup::Guarded => {
                let users = tool("htpasswd", &["-Bbn", "ann", "secret"]);
                fs::write(dir.join("users"), users).expect("write");
                config += &format!("auth: {{htpasswd: {{realm: test, path: {dir_text}/users}}}}\n");
            }
            Setup::Token => {
                config += &format!(
                    "auth: {{token: {{realm: \"http://127.0.0.1:5001/token\", service: registry, \
                     issuer: test, rootcertbundle: {dir_text}/tokens.crt}}}}\n"
                );
            }
        }
        let path = dir.join("config.yml");
        fs::write(&path, config).expect("write");
        let log = fs::File::create(dir.join("log")).expect("log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker-registry; `cargo xtask test kernel` installs it");
        let begin = Instant::now();
        while TcpStream::connect("127.0.0.1:5000").is_err() {
            let said = || fs::read_to_string(dir.join("log")).unwrap_or_default();
            assert!(begin.elapsed() < Duration::from_secs(60), "no registry: {}", said());
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Registry(child)
    }

    pub fn stop(self) {}
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A certificate for 127.0.0.1 and 192.0.2.2, one for a client, and who vouches for both, which is in `client/`.
pub fn certificates(dir: &Path) {
    certificates_for(dir, "3650");
}

/// The same for so many days; fewer than none: they are too old.
pub fn certificates_for(dir: &Path, days: &str) {
    let client = dir.join("client");
    fs::create_dir_all(&client).expect("directory");
    let at = |path: PathBuf| path.to_str().expect("text").to_owned();
    let ca = (at(client.join("ca.crt")), at(dir.join("ca.key")));
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let whole =
        ["req", "-x509", "-days", "3650", "-subj", "/CN=test", "-keyout", &ca.1, "-out", &ca.0];
    tool("openssl", &[&whole[..], &key].concat());
    let names = at(dir.join("names"));
    fs::write(&names, "subjectAltName=IP:127.0.0.1,IP:192.0.2.2\n").expect("write");
    let ends = [
        (dir.join("server.crt"), dir.join("server.key")),
        (client.join("client.cert"), client.join("client.key")),
    ];
    for (crt, secret) in ends {
        let (request, crt, secret) = (at(dir.join("request")), at(crt), at(secret));
        let ask = ["req", "-subj", "/CN=end", "-keyout", &secret, "-out", &request];
        tool("openssl", &[&ask[..], &key].concat());
        tool(
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                &ca.0,
                "-CAkey",
                &ca.1,
                "-CAcreateserial",
                "-days",
                days,
                "-extfile",
                &names,
                "-out",
                &crt,
            ],
        );
    }
}

/// A server at 127.0.0.1:5001 that gives anybody tokens for `ops/app`, as real ones do: signed.
pub struct Tokens {
    asked: Arc<Mutex<Vec<String>>>,
    _accepting: Accepting,
}

impl Tokens {
    pub fn start(dir: &Path) -> Tokens {
        let key = dir.join("tokens.key");
        let crt = dir.join("tokens.crt");
        let text = |path: &Path| path.to_str().expect("text").to_owned();
        tool(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "3650",
                "-subj",
                "/CN=tokens",
                "-keyout",
                &text(&key),
                "-out",
                &text(&crt),
            ],
        );
        let listener = TcpListener::bind("127.0.0.1:5001").expect("bind");
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (list, dir) = (asked.clone(), dir.to_owned());
        let _accepting = Accepting::start(listener, move |stream| {
            let line = request_line(&stream);
            list.lock().expect("lock").push(line.clone());
            let body = format!(r#"{{"token":"{}","expires_in":300}}"#, token(&dir, &line));
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = (&stream).write_all(answer.as_bytes());
        });
        Tokens { asked, _accepting }
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("lock").clone()
    }
}

/// The first line; the rest of the head is read and forgotten.
fn request_line(stream: &TcpStream) -> String {
    let mut lines = BufReader::new(stream.take(16 << 10)).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    first
}

/// A token for what is asked, if it is in `ops/app`.
fn token(dir: &Path, line: &str) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("clock")
        .as_secs();
    let access = match line.contains("ops%2Fapp") {
        true => {
            serde_json::json!([{"type": "repository", "name": "ops/app", "actions": ["pull", "push"]}])
        }
        false => serde_json::json!([]),
    };
    let claims = serde_json::json!({"iss": "test", "sub": "", "aud": "registry", "exp": now + 300, "nbf": now - 10, "iat": now, "jti": "1", "access": access});
    let pem = fs::read_to_string(dir.join("tokens.crt")).expect("certificate");
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let head = serde_json::json!({"typ": "JWT", "alg": "RS256", "x5c": [der]});
    let signed =
        format!("{}.{}", coded(head.to_string().as_bytes()), coded(claims.to_string().as_bytes()));
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(dir.join("tokens.key"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl");
    child.stdin.take().expect("stdin").write_all(signed.as_bytes()).expect("write");
    let mut signature = Vec::new();
    child.stdout.take().expect("stdout").read_to_end(&mut signature).expect("read");
    assert!(child.wait().expect("wait").success());
    format!("{signed}.{}", coded(&signature))
}

/// Base64 for URLs.
fn coded(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        (0..=group.len())
            .for_each(|at| text.push(char::from(DIGITS[(word >> (18 - 6 * at)) as usize & 63])));
    }
    text
}
