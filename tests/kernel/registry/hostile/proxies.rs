//! Registries behind a proxy that the environment names. The program is asked, as each has an environment
//! of its own: the part of it that stages images for a controller.

use super::*;
use crate::registry::server::{certificates, tool};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Where the registry and the proxy are: no proxy is asked for what is on loopback.
const REGISTRY: &str = "192.0.2.2";
const PROXY: &str = "192.0.2.3:3128";

/// A proxy that leads to whatever is asked for; what it was asked, and by whom, and what it lives as long as.
fn proxy() -> (Arc<Mutex<Vec<String>>>, Accepting) {
    let listener = TcpListener::bind(PROXY).expect("bind");
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let list = asked.clone();
    let accepting = Accepting::start(listener, move |stream| {
        let list = list.clone();
        std::thread::spawn(move || lead(stream, &list));
    });
    (asked, accepting)
}

/// One connection: a head, and then bytes of somebody else.
fn lead(stream: TcpStream, list: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let login = head.iter().find(|line| line.to_ascii_lowercase().starts_with("proxy-auth"));
    let login = login.and_then(|line| line.split_once(": ")).map_or("-", |(_, login)| login);
    let mut words = head[0].split(' ');
    let (how, to) = (words.next()?, words.next()?);
    list.lock().expect("lock").push(format!("{how} {to} {login}"));
    let server = TcpStream::connect(to).ok()?;
    (&stream).write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let (mut from, mut there) = (server.try_clone().ok()?, server);
    let mut back = stream;
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut back);
        let _ = back.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut reader, &mut there);
    there.shutdown(std::net::Shutdown::Write).ok()
}

#[test]
fn a_registry_is_asked_by_the_proxy_with_its_login_or_around_it() {
    let bed = Bed::new("proxies");
    for address in [REGISTRY, "192.0.2.3"] {
        tool("ip", &["address", "add", &format!("{address}/32"), "dev", "lo"]);
    }
    let dir = bed.dir("server");
    certificates(&dir);
    let server = Server::secure(5000, &dir, |_, _| None);
    let (asked, _proxy) = proxy();
    let result = dir.join("result.json");
    let look = |around: &str| {
        let mut program = Command::new(crate::lab::BINARY);
        program.arg0("docker-builder").args(["-dockerRef", &format!("{REGISTRY}:5000/a/b:1")]);
        program.args(["-insecureDockerRegistries", &format!("{REGISTRY}:5000")]);
        program.arg("-outputMetadataJSONFilename").arg(&result);
        program.env("HTTPS_PROXY", format!("http://user:pass@{PROXY}")).env("NO_PROXY", around);
        let said = program.output().expect("the program");
        let text = [said.stdout, said.stderr].concat();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&text));
        assert!(std::fs::remove_file(&result).is_ok(), "it has no result");
    };
    look("");
    let by_proxy = asked.lock().expect("lock").clone();
    let expected = format!("CONNECT {REGISTRY}:5000 Basic dXNlcjpwYXNz");
    assert!(!by_proxy.is_empty() && by_proxy.iter().all(|it| *it == expected), "{by_proxy:?}");
    // What goes through it is the registry's affair alone.
    assert_eq!((server.count("/manifests/"), server.count("Basic")), (1, 0));
    look("192.0.2.0/24");
    assert_eq!(asked.lock().expect("lock").len(), by_proxy.len(), "it was asked all the same");
    assert_eq!(server.count("/manifests/"), 2);
    bed.close();
}
