//! What images may take of the box, and what stays of them when the daemon ends.

use super::lab::Lab;
use super::server::{Registry, Setup, tool};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use terrarium::sys::fault::POINTS;
use terrarium::unit::Digest;
use zstd::stream::raw::CParameter;

/// Bytes of the one file in a layer.
const FILE: usize = 48 << 20;
/// What the daemon may take beside what it has at rest, in KiB.
const MEMORY_KIB: u64 = 32 << 10;

/// A tar of one file that is none other's, with little in it that repeats within a window.
fn tar(name: &str) -> Vec<u8> {
    let mut state = Digest::of(name.as_bytes())
        .hex()
        .bytes()
        .fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut data = Vec::with_capacity(FILE);
    while data.len() < FILE {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        data.extend_from_slice(&state.to_le_bytes());
    }
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(FILE as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, &data[..]).expect("a tar");
    tar.into_inner().expect("a tar")
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    to.write_all(tar).expect("packed");
    to.finish().expect("packed")
}

/// A layer of one file with five bytes, as a tar and packed.
fn small(name: &str) -> (Vec<u8>, Vec<u8>) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, &b"small"[..]).expect("a tar");
    let tar = tar.into_inner().expect("a tar");
    let packed = gzip(&tar);
    (tar, packed)
}

/// With a window of 2 to the `log` bytes.
fn zstd(tar: &[u8], log: u32) -> Vec<u8> {
    let mut to = zstd::Encoder::new(Vec::new(), 1).expect("encoder");
    to.set_parameter(CParameter::WindowLog(log)).expect("window");
    to.write_all(tar).and_then(|()| to.finish()).expect("packed")
}

/// An image of these layers, each a tar and how it is packed, as a layout with the tag `one`.
fn layout(dir: &Path, layers: &[(Vec<u8>, Vec<u8>)]) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("directory");
    let blob = |kind: &str, data: &[u8]| {
        let digest = Digest::of(data);
        fs::write(blobs.join(digest.hex()), data).expect("blob");
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": data.len()})
    };
    let diffs: Vec<Digest> = layers.iter().map(|(tar, _)| Digest::of(tar)).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diffs}});
    let packed = layers.iter().map(|(_, packed)| {
        let is_zstd = packed.starts_with(&[0x28, 0xb5]);
        blob(if is_zstd { "layer.v1.tar+zstd" } else { "layer.v1.tar+gzip" }, packed)
    });
    let manifest = json!({"schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", config.to_string().as_bytes()),
        "layers": packed.collect::<Vec<_>>()});
    let mut named = blob("manifest.v1+json", manifest.to_string().as_bytes());
    named["annotations"] = json!({"org.opencontainers.image.ref.name": "one"});
    let index = json!({"schemaVersion": 2, "manifests": [named]});
    fs::write(dir.join("index.json"), index.to_string()).expect("index");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).expect("layout");
}

/// Puts it into the registry as `name`.
fn push(dir: &Path, name: &str, layers: &[(Vec<u8>, Vec<u8>)]) {
    layout(dir, layers);
    let (from, to) = (format!("oci:{}:one", dir.display()), format!("docker://{name}"));
    let how = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"];
    tool("skopeo", &[&how[..], &[&from, &to]].concat());
}

/// A field of the daemon's status, in KiB.
fn memory(lab: &Lab, field: &str) -> u64 {
    let path = format!("/proc/{}/status", lab.daemon_pid());
    let text = fs::read_to_string(path).expect("status");
    let line = text.lines().find_map(|line| line.strip_prefix(field)).expect(field);
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("KiB")
}

#[test]
fn large_layers_take_little_memory_and_a_window_that_would_take_more_is_refused() {
    let mut lab = Lab::new("memory");
    lab.configure("registry", "[registry]\ninsecure = [\"127.0.0.0/8\"]\n");
    let dir = lab.root.join("registry");
    fs::create_dir_all(&dir).expect("directory");
    let registry = Registry::start(&dir, Setup::Plain);
    let other = tar("f");
    let large = zstd(&other, 25);
    let layer = Digest::of(&large).to_string();
    let layers = ["a", "b", "c", "d", "e"].map(tar);
    let [a, b, c, d, e] = &layers;
    let packed = [gzip(a), zstd(b, 23), gzip(c), zstd(d, 24), zstd(e, 23)];
    let all: Vec<_> = layers.iter().cloned().zip(packed).collect();
    push(&dir.join("good"), "127.0.0.1:5000/ops/large:1", &all);
    push(&dir.join("bad"), "127.0.0.1:5000/ops/window:1", &[(other, large)]);
    lab.serve();
    let before = memory(&lab, "VmRSS:");
    fs::write(format!("/proc/{}/clear_refs", lab.daemon_pid()), "5").expect("forget the peak");
    lab.ok(&["image", "pull", "127.0.0.1:5000/ops/large:1"]);
    let grown = memory(&lab, "VmHWM:").saturating_sub(before);
    eprintln!("{grown} KiB for {} MiB", 5 * (FILE >> 20));
    assert!(grown < MEMORY_KIB, "{grown} KiB beside {before} KiB at rest");
    // The same from a file, whose layers go beside one another as well.
    lab.ok(&["image", "rm", "127.0.0.1:5000/ops/large:1"]);
    lab.ok(&["image", "gc"]);
    let before = memory(&lab, "VmRSS:");
    fs::write(format!("/proc/{}/clear_refs", lab.daemon_pid()), "5").expect("forget the peak");
    let good = dir.join("good");
    lab.ok(&["image", "load", good.to_str().expect("text"), "--name", "ops/large"]);
    let grown = memory(&lab, "VmHWM:").saturating_sub(before);
    eprintln!("{grown} KiB from a file");
    assert!(grown < MEMORY_KIB, "{grown} KiB beside {before} KiB at rest, from a file");
    let refused = lab.run(&["image", "pull", "127.0.0.1:5000/ops/window:1"]);
    for text in ["image 127.0.0.1:5000/ops/window:1", &layer, "window of 32 MiB", "without --long"]
    {
        assert!(refused.code == 1 && refused.err.contains(text), "{text}: {}", refused.err);
    }
    registry.stop();
    lab.finish();
}

/// A server that takes connections and says nothing; how many there were.
fn silent() -> Arc<AtomicUsize> {
    let listener = TcpListener::bind("127.0.0.1:5000").expect("bind");
    let count: Arc<AtomicUsize> = Arc::default();
    let seen = count.clone();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            held.push(stream);
            seen.store(held.len(), Ordering::SeqCst);
        }
    });
    count
}

/// It would wait a minute for the answer.
#[test]
fn a_pull_ends_with_its_client_and_with_the_daemon() {
    let mut lab = Lab::new("leaves");
    lab.configure("registry", "[registry]\ninsecure = [\"127.0.0.0/8\"]\n");
    lab.serve();
    let connections = silent();
    let ask = |name: &str| {
        let before = connections.load(Ordering::SeqCst);
        let socket = lab.root.join("run/terrarium/terrarium.sock");
        let mut client = UnixStream::connect(socket).expect("connect");
        let path = format!("127.0.0.1:5000%2F{name}");
        write!(client, "POST /v1/images/{path}/pull HTTP/1.1\r\nHost: x\r\n\r\n").expect("ask");
        // An earlier one may ask once more before it sees that it is over.
        lab.until("the registry is asked", |lab| {
            let is_heard = lab.daemon_log().contains(&format!("{name}/pull"));
            (is_heard && connections.load(Ordering::SeqCst) > before).then_some(())
        });
        client
    };
    let over = "nobody wants it any more";
    drop(ask("one"));
    lab.until("it is over", |lab| lab.daemon_log().contains(over).then_some(()));
    let _waits = ask("two");
    lab.end_daemon(Signal::SIGTERM);
    let log = lab.daemon_log();
    assert_eq!(log.matches(over).count(), 2, "{log}");
    assert!(!log.contains("daemon.unclosed"), "{log}");
    lab.assert_nothing_left();
    lab.remove();
}

/// The points of one kind, as the source has them.
fn points(kind: &str) -> Vec<&'static str> {
    let all: Vec<_> = POINTS.into_iter().filter(|point| point.starts_with(kind)).collect();
    assert!(all.len() > 1, "{kind} {all:?}");
    all
}

/// Every image goes that nothing is made of, and the daemon dies over it.
#[test]
fn a_daemon_that_is_killed_while_it_removes_an_image_leaves_nothing_half_removed() {
    let mut lab = Lab::new("gckill");
    let settings = "[registry]\ninsecure = [\"127.0.0.0/8\"]\n";
    lab.configure("registry", settings);
    lab.serve();
    let dir = lab.root.join("registry");
    fs::create_dir_all(&dir).expect("directory");
    let registry = Registry::start(&dir, Setup::Plain);
    let name = "127.0.0.1:5000/ops/small:1";
    push(&dir.join("small"), name, &[small("file")]);
    let store = lab.root.join("var/lib/terrarium/store");
    for point in points("collect:") {
        lab.ok(&["image", "pull", name]);
        let file = lab.root.join("die-at");
        fs::write(&file, point).expect("point");
        // It dies before it answers.
        lab.run(&["image", "gc", "--all"]);
        lab.until(point, |_| (!file.exists()).then_some(()));
        lab.end_daemon(Signal::SIGKILL);
        lab.serve();
        // What is left of it goes, whatever that is.
        lab.ok(&["image", "gc", "--all"]);
        lab.until("nothing is left", |_| {
            let names = ["layers", "images/names", "tmp", "downloads"]
                .map(|dir| fs::read_dir(store.join(dir)).map_or(0, Iterator::count));
            (names == [0; 4]).then_some(())
        });
        assert!(lab.ok(&["image", "ls"]).out.starts_with("no images"));
    }
    registry.stop();
    lab.finish();
}

/// The daemon dies between any two steps by which layers and what speaks of them become visible.
#[test]
fn a_daemon_that_is_killed_while_an_image_becomes_visible_has_all_of_it_or_fetches_it_again() {
    let mut lab = Lab::new("showkill");
    lab.configure("registry", "[registry]\ninsecure = [\"127.0.0.0/8\"]\n");
    lab.serve();
    let dir = lab.root.join("registry");
    fs::create_dir_all(&dir).expect("directory");
    let registry = Registry::start(&dir, Setup::Plain);
    let name = "127.0.0.1:5000/ops/two:1";
    push(&dir.join("two"), name, &[small("lower"), small("upper")]);
    let store = lab.root.join("var/lib/terrarium/store");
    let count = |of: &str| {
        let items = fs::read_dir(store.join(of)).into_iter().flatten().flatten();
        items.filter(|item| item.path().extension().is_none_or(|end| end != "new")).count()
    };
    for point in points("layer:") {
        // From there on.
        let is_listed = ["layer:listed", "layer:sealed"].contains(&point);
        let file = lab.root.join("die-at");
        fs::write(&file, point).expect("point");
        // It dies before it answers.
        lab.run(&["image", "pull", name]);
        lab.until(point, |_| (!file.exists()).then_some(()));
        lab.end_daemon(Signal::SIGKILL);
        lab.serve();
        assert_eq!(count("tmp"), 0, "{point}");
        assert_eq!(lab.ok(&["image", "ls"]).out.contains("ops/two:1"), is_listed, "{point}");
        lab.ok(&["image", "pull", name]);
        assert_eq!((count("layers"), count("images/names")), (2, 1), "{point}");
        for layer in fs::read_dir(store.join("layers")).expect("layers").flatten() {
            let found = ["lower", "upper"].map(|name| fs::read(layer.path().join(name)).ok());
            assert_eq!(found.into_iter().flatten().next(), Some(b"small".to_vec()), "{point}");
            let written = fs::write(layer.path().join("more"), "x").expect_err("sealed");
            assert_eq!(written.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{point}");
        }
        lab.ok(&["image", "rm", name]);
        lab.ok(&["image", "gc", "--all"]);
        assert_eq!((count("layers"), count("images/names"), count("downloads")), (0, 0, 0));
        // Nor what was not published.
        assert_eq!(fs::read_dir(store.join("images/names")).expect("names").count(), 0);
    }
    registry.stop();
    lab.finish();
}

/// The daemon dies between any two steps by which the catalogue lists what a file brought, and by which
/// somebody's image goes.
#[test]
fn a_daemon_that_is_killed_while_images_are_listed_or_forgotten_does_it_the_next_time() {
    let mut lab = Lab::new("loadkill");
    lab.serve();
    let dir = lab.root.join("image");
    layout(&dir.join("two"), &[small("lower"), small("upper")]);
    let archive = dir.join("two.tar");
    let from = format!("oci:{}:one", dir.join("two").display());
    let to = format!("docker-archive:{}:ops/two:1", archive.display());
    tool("skopeo", &["--insecure-policy", "copy", "-q", &from, &to]);
    let archive = archive.to_str().expect("text");
    let name = "docker.io/ops/two:1";
    let store = lab.root.join("var/lib/terrarium/store");
    let count = |of: &str| fs::read_dir(store.join(of)).map_or(0, Iterator::count);
    for point in points("load:").into_iter().chain(points("forget:")) {
        let is_load = point.starts_with("load:");
        let words = if is_load { ["image", "load", archive] } else { ["image", "rm", name] };
        if !is_load {
            lab.ok(&["image", "load", archive]);
        }
        let file = lab.root.join("die-at");
        fs::write(&file, point).expect("point");
        // It dies before it answers.
        lab.run(&words);
        lab.until(point, |_| (!file.exists()).then_some(()));
        lab.end_daemon(Signal::SIGKILL);
        lab.serve();
        assert_eq!(count("tmp"), 0, "{point}");
        let is_named = lab.ok(&["image", "ls"]).out.contains("ops/two:1");
        assert_eq!(is_named, ["load:names", "load:aliases"].contains(&point), "{point}");
        if is_load {
            lab.ok(&["image", "load", archive]);
            assert_eq!((count("layers"), count("images/names")), (2, 1), "{point}");
            lab.ok(&["image", "inspect", name]);
            lab.ok(&["image", "rm", name]);
        }
        lab.ok(&["image", "gc"]);
        let left = ["layers", "images/names", "images/aliases"].map(count);
        assert_eq!(left, [0; 3], "{point}");
        assert!(lab.ok(&["image", "ls"]).out.starts_with("no images"), "{point}");
    }
    lab.finish();
}

/// A tar whose few entries bring a hundred thousand directories, each of which is to be remembered.
fn wordy(name: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in 0..1250 {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        let path = format!("{name}{entry}/{}f", "a/".repeat(79));
        tar.append_data(&mut header, path, &b""[..]).expect("a tar");
    }
    tar.into_inner().expect("a tar")
}

/// Layers of a registry, of clients and of files at a time, all of which want to be remembered.
#[test]
fn layers_that_want_to_be_remembered_take_little_memory_together() {
    let mut lab = Lab::new("wordy");
    lab.configure("registry", "[registry]\ninsecure = [\"127.0.0.0/8\"]\n");
    let dir = lab.root.join("registry");
    fs::create_dir_all(&dir).expect("directory");
    let registry = Registry::start(&dir, Setup::Plain);
    let name = "127.0.0.1:5000/ops/wordy:1";
    let layers = ["a", "b", "c", "d"].map(wordy).map(|tar| {
        let packed = gzip(&tar);
        (tar, packed)
    });
    push(&dir.join("wordy"), name, &layers);
    let sent = ["e", "f"].map(|name| {
        let path = dir.join(format!("{name}.tar"));
        fs::write(&path, wordy(name)).expect("write");
        path.to_str().expect("text").to_owned()
    });
    lab.serve();
    let before = memory(&lab, "VmRSS:");
    fs::write(format!("/proc/{}/clear_refs", lab.daemon_pid()), "5").expect("forget the peak");
    let mut asked = vec![lab.command(&["image", "pull", name])];
    asked.extend(sent.iter().map(|path| lab.command(&["image", "load", path])));
    let asked: Vec<_> = asked
        .iter_mut()
        .map(|command| command.stderr(std::process::Stdio::piped()).spawn().expect("spawn"))
        .collect();
    for child in asked {
        let ended = child.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(said.contains("more memory for what is to be remembered"), "{said}");
    }
    let grown = memory(&lab, "VmHWM:").saturating_sub(before);
    eprintln!("{grown} KiB");
    assert!(grown < MEMORY_KIB, "{grown} KiB beside {before} KiB at rest");
    registry.stop();
    lab.finish();
}

/// A registry that only the proxy knows where to find.
#[test]
fn an_image_comes_through_the_proxy_of_the_environment() {
    let mut lab = Lab::new("proxy");
    lab.configure("registry", "[registry]\ninsecure = [\"registry.test:5000\"]\n");
    lab.env = vec![("ALL_PROXY", "http://127.0.0.1:3128".into())];
    lab.serve();
    let dir = lab.root.join("registry");
    fs::create_dir_all(&dir).expect("directory");
    let registry = Registry::start(&dir, Setup::Plain);
    push(&dir.join("one"), "127.0.0.1:5000/ops/one:1", &[small("file")]);
    let (tell, told) = std::sync::mpsc::channel();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 3128)).expect("bind");
    // It ends with the network of the test.
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let tell = tell.clone();
            std::thread::spawn(move || tell.send(tunnel(client)));
        }
    });
    let out = lab.ok(&["image", "pull", "registry.test:5000/ops/one:1"]).out;
    assert!(out.starts_with("registry.test:5000/ops/one:1@sha256:"), "{out}");
    lab.end_daemon(Signal::SIGTERM);
    let asked = told.recv_timeout(std::time::Duration::from_secs(60)).expect("it was asked");
    assert_eq!(asked, "CONNECT registry.test:5000 HTTP/1.1");
    registry.stop();
    lab.assert_nothing_left();
    lab.remove();
}

/// A proxy's work: joins a client to the registry, wherever he wants to go; his request's first line.
fn tunnel(mut client: std::net::TcpStream) -> String {
    use std::io::{Read, Write};
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match client.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return "a head that is cut".into(),
        }
    }
    let mut server = std::net::TcpStream::connect(("127.0.0.1", 5000)).expect("the registry");
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").expect("an answer");
    let (mut from, mut to) =
        (client.try_clone().expect("a copy"), server.try_clone().expect("one"));
    let there = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Both);
    there.join().expect("no panic");
    String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned()
}

/// Of a store of 700 MiB an image has 192, and an app wants 400.
#[test]
fn an_image_that_nothing_is_made_of_makes_room_for_an_app() {
    let mut lab = Lab::new("makesroom");
    lab.configure("store", "[store]\nsize_max = \"700MiB\"\nimages_max = \"never\"\n");
    lab.serve();
    let dir = lab.root.join("layout");
    let layers = ["a", "b", "c", "d"].map(|name| {
        let tar = tar(name);
        let packed = gzip(&tar);
        (tar, packed)
    });
    layout(&dir, &layers);
    drop(layers);
    lab.ok(&["image", "load", dir.to_str().expect("text"), "--name", "lab/large"]);
    let shape = "[run]\nmemory = \"32MiB\"\ndisk = \"400MiB\"\n\n[health]\ntype = \"process\"\n";
    lab.ok(&["apply", &lab.app("wide", "exec sleep 100000", shape)]);
    lab.until_state("wide", "running");
    let log = lab.daemon_log();
    assert!(log.contains("image.removed") && log.contains("store.room_made"), "{log}");
    assert!(lab.ok(&["image", "ls"]).out.starts_with("no images"));
    assert_eq!(lab.instance("wide", 0)["crash_count"], 0);
    lab.finish();
}
