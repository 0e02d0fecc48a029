//! Row 67: buildpacks that the order names by a URL.

use crate::builder::{builder, pack};
use crate::place::{Place, run, tool};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use terrarium::unit::xxh64_hex;

/// A buildpack in the directory `from` of the place that says who it is.
fn source(place: &Place, from: &str, word: &str) {
    for (name, body) in
        [("detect", "echo found"), ("compile", &*format!("echo {word}")), ("release", "echo '{}'")]
    {
        place.script(&format!("{from}/bin/{name}"), body);
    }
}

fn words(text: &str) -> Vec<&OsStr> {
    text.split(' ').map(OsStr::new).collect()
}

/// Serves these bytes to everybody who connects, with this status; `http://ADDRESS`.
fn serve(status: &'static str, bytes: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let at = format!("http://{}", listener.local_addr().expect("address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                head.extend(byte);
            }
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                bytes.len()
            );
            // Who only wanted to see the head has gone.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&bytes));
        }
    });
    at
}

#[test]
fn row_67_an_archive_comes_by_http_or_from_a_file() {
    let place = Place::new();
    source(&place, "zip/top", "from the zip");
    tool("python3", &words("-m zipfile -c ../p.zip top"), &place.path("zip"));
    source(&place, "tar", "from the tar");
    tool("tar", &words("-czf ../p.tgz bin"), &place.path("tar"));
    let zip = fs::read(place.path("p.zip")).expect("zip");
    let length = zip.len();
    let server = serve("200 OK", zip);

    let said = run(&mut builder(&place, &format!("{server}/a/p.zip?x=1"))).ok();
    assert!(said.out.contains("from the zip"), "{said:#?}");
    let brief = terrarium::unit::Bytes::new(length as u64).brief();
    let line = format!("Downloaded buildpack `{server}/a/p.zip?x=1` ({brief})");
    assert!(said.out.lines().any(|it| it == line), "{line}: {said:#?}");
    let url = format!("file://{}", place.path("p.tgz").display());
    let said = run(builder(&place, &url).arg("-skipDetect")).ok();
    assert!(said.out.contains("from the tar"), "{said:#?}");
    assert_eq!(place.json("out/result.json")["lifecycle_metadata"]["buildpack_key"], url);

    // What is there already is not asked for again.
    fs::remove_file(place.path("p.tgz")).expect("gone");
    run(&mut builder(&place, &url)).ok();
    let left: Vec<_> =
        fs::read_dir(place.path("downloads")).expect("downloads").flatten().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn row_67_a_url_that_gives_no_buildpack_says_why_and_leaves_nothing() {
    let place = Place::new();
    let missing = serve("404 Not Found", Vec::new());
    let html = serve("200 OK", b"<html>no".to_vec());
    let secret = missing.replace("http://", "http://user:secret@");
    for (url, why) in [
        (format!("{secret}/p.zip"), "curl ended with exit status: 22: its host refuses it"),
        ("http://127.0.0.1:1/p.zip".to_owned(), "exit status: 7: its host does not answer"),
        ("file:///no/such/p.zip".to_owned(), "/etc/terrarium/buildpacks/NAME, and name it"),
        (format!("{html}/p.zip"), "the archive cannot be used: it is neither zip nor tar"),
        ("file:///no/such/pack.tgz".to_owned(), "Failed to download buildpack at file:///no/such/"),
    ] {
        let said = run(&mut builder(&place, &url)).fails(1, why);
        assert!(!said.err.contains("secret"), "{said:#?}");
        assert_eq!(fs::read_dir(place.path("downloads")).expect("downloads").count(), 0, "{url}");
    }
    let said = run(builder(&place, "https://127.0.0.1:1/p.zip").env("PATH", place.path("none")));
    said.fails(1, "this stack has no curl");
    let said = run(builder(&place, "https://127.0.0.1:1/p.git").env("PATH", place.path("none")));
    said.fails(
        1,
        "Failed to clone git repository at https://127.0.0.1:1/p.git: this stack has no git",
    );
}

#[test]
fn row_67_a_repository_is_cloned_at_its_branch() {
    let place = Place::new();
    source(&place, "repo", "from main");
    let git = |args: &str| {
        let dir = place.path("repo");
        let mut git = Command::new("git");
        git.args(["-c", "user.name=t", "-c", "user.email=t@t"]).args(args.split(' '));
        run(git.current_dir(dir).env("GIT_CONFIG_NOSYSTEM", "1")).ok()
    };
    git("init -q -b main");
    git("add .");
    git("commit -q -m one");
    git("checkout -q -b other");
    source(&place, "repo", "from other");
    git("commit -q -a -m two");
    git("checkout -q main");
    let url = format!("file://{}", place.path("repo").display());
    for (fragment, word) in [("", "from main"), ("#other", "from other")] {
        let said = run(&mut builder(&place, &format!("{url}{fragment}"))).ok();
        assert!(said.out.contains(word), "{said:#?}");
    }
    let url = format!("{url}#gone");
    let text = format!("Failed to clone git repository at {}", url.trim_end_matches("#gone"));
    run(&mut builder(&place, &url)).fails(1, &text);
    assert!(!place.path("downloads").join(xxh64_hex(&url)).exists());
}

#[test]
fn row_67_a_url_and_a_name_stand_in_one_chain() {
    let place = Place::new();
    place.script("p/bin/supply", "echo supplied > $3/$4/x");
    tool("tar", &words("-czf ../p.tgz bin"), &place.path("p"));
    pack(&place, "last", &[("finalize", "cat $3/0/x"), ("release", "echo '{}'")]);
    let order = format!("file://{},last", place.path("p.tgz").display());
    let said = run(builder(&place, &order).arg("-skipDetect")).ok();
    assert!(said.out.contains("supplied"), "{said:#?}");
}

/// Tells `curl` and `git` what to check no more; they are asked by what they are called with.
#[test]
fn row_67_certificates_are_not_checked_when_the_builder_is_told_so() {
    let place = Place::new();
    source(&place, "p", "fetched");
    tool("tar", &words("-czf ../p.tgz bin"), &place.path("p"));
    let archive = place.path("p.tgz");
    let at = |name: &str| place.path(name).display().to_string();
    // Each takes its words down and does its work: the last one is the address, or where to clone to.
    let curl = format!(
        "echo \"$@\" >> {}\nwhile [ \"$1\" != --output ]; do shift; done\ncp {} \"$2\"",
        at("curl.said"),
        archive.display()
    );
    place.script("stubs/curl", &curl);
    let git = format!(
        "echo \"$@\" >> {}\nfor last; do :; done\nmkdir -p \"$last\"\ncp -r {}/bin \"$last\"",
        at("git.said"),
        at("p")
    );
    place.script("stubs/git", &git);
    let path = format!("{}:{}", at("stubs"), std::env::var("PATH").expect("a PATH"));
    for (url, tool, unchecked) in [
        ("https://packs.example/p.tgz", "curl", "--insecure"),
        ("https://packs.example/p.git", "git", "-c http.sslVerify=false clone"),
    ] {
        for (flag, is_there) in [("-skipCertVerify=false", false), ("-skipCertVerify=true", true)] {
            let said = run(builder(&place, url).arg(flag).env("PATH", &path)).ok();
            assert!(said.out.contains("fetched"), "{said:#?}");
            let line = place.read(&format!("{tool}.said"));
            assert_eq!(line.lines().count(), 1, "{line}");
            assert!(line.contains("packs.example/p."), "{line}");
            assert_eq!(line.contains(unchecked), is_there, "{flag}: {line}");
            // So that the next one is asked again.
            fs::remove_file(place.path(&format!("{tool}.said"))).expect("forgotten");
            fs::remove_dir_all(place.path("downloads")).expect("removed");
        }
    }
}
