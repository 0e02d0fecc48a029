//! `terrarium image`, with Debian's own registry on the box's loopback.

use super::lab::{BINARY, Lab};
use super::server::{Registry, Setup, tool};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use terrarium::unit::Digest;

const NAME: &str = "127.0.0.1:5000/ops/app:1";

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// Puts an image of two layers into the registry, the second of which hides what the first has; what
/// another tool unpacks, and the digest of its manifest.
fn push(dir: &Path) -> (String, String) {
    let (layout, bundle) = (dir.join("layout"), dir.join("bundle"));
    let image = format!("{}:one", text(&layout));
    tool("umoci", &["init", "--layout", text(&layout)]);
    tool("umoci", &["new", "--image", &image]);
    tool("umoci", &["unpack", "--image", &image, text(&bundle)]);
    let root = bundle.join("rootfs");
    for dir in ["bin", "etc", "old/deep"] {
        fs::create_dir_all(root.join(dir)).expect("directory");
    }
    fs::copy("/bin/busybox", root.join("bin/sh")).expect("busybox");
    fs::hard_link(root.join("bin/sh"), root.join("bin/again")).expect("link");
    fs::write(root.join("old/deep/file"), "hidden").expect("write");
    tool("umoci", &["repack", "--refresh-bundle", "--image", &image, text(&bundle)]);
    fs::remove_dir_all(root.join("old")).expect("remove");
    fs::write(root.join("etc/issue"), "from the registry\n").expect("write");
    tool("umoci", &["repack", "--image", &image, text(&bundle)]);
    tool("umoci", &["config", "--image", &image, "--config.env", "GREETING=hello"]);
    let (from, to) = (format!("oci:{image}"), format!("docker://{NAME}"));
    let how = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"];
    tool("skopeo", &[&how[..], &[&from, &to]].concat());
    let told = tool("skopeo", &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &to]);
    (unpacked(&image, &dir.join("original")), told.trim().to_owned())
}

fn json(out: &str) -> Value {
    serde_json::from_str(out).unwrap_or_else(|err| panic!("{err}: {out}"))
}

/// What an image of an archive looks like when another tool unpacks it.
fn tree(dir: &Path, archive: &Path, name: &str) -> String {
    let (layout, bundle) = (dir.join(format!("{name}-oci")), dir.join(name));
    let to = format!("oci:{}:one", text(&layout));
    let from = format!("docker-archive:{}", text(archive));
    tool("skopeo", &["--insecure-policy", "copy", "-q", &from, &to]);
    unpacked(&to[4..], &bundle)
}

/// What is in an image of a layout.
fn unpacked(image: &str, bundle: &Path) -> String {
    tool("umoci", &["unpack", "--image", image, text(bundle)]);
    listed(&bundle.join("rootfs"))
}

/// Every name with kind, mode, owner, size, time, links and content.
fn listed(root: &Path) -> String {
    let script = "cd \"$0\" && find . -mindepth 1 -printf '%P %y %m %U:%G %n %l %T@\\n' | sort \
                  && find . -type f -exec sha256sum {} + | sort -k2";
    tool("sh", &["-c", script, text(root)])
}

#[test]
fn images_are_pulled_saved_removed_loaded_and_collected() {
    let mut lab = Lab::new("images");
    lab.configure("registry", "[registry]\ninsecure = [\"127.0.0.0/8\"]\n");
    lab.serve();
    let dir = lab.root.join("registry");
    fs::create_dir_all(&dir).expect("directory");
    let registry = Registry::start(&dir, Setup::Plain);
    let (original, digest) = push(&dir);
    let none = lab.ok(&["image", "ls"]).out;
    assert!(none.starts_with("no images; `terrarium image pull NAME`"), "{none}");

    // By tag it gets that name, by digest none; both tell what can be pinned.
    let pinned = format!("127.0.0.1:5000/ops/app@{digest}");
    assert_eq!(lab.ok(&["image", "pull", &pinned]).out, format!("{pinned}\n"));
    let nameless = json(&lab.ok(&["image", "ls", "--json"]).out);
    assert_eq!(nameless["images"][0]["names"], Value::Array(vec![]), "{nameless}");
    let pulled = lab.ok(&["image", "pull", NAME]);
    assert_eq!((pulled.out, pulled.err), (format!("{NAME}@{digest}\n"), String::new()));
    let missing = lab.run(&["image", "pull", "127.0.0.1:5000/ops/none:1"]);
    assert_eq!((missing.code, missing.out.as_str()), (1, ""));
    assert!(
        missing.err.starts_with("terrarium: cannot fetch the image 127.0.0.1:5000/ops/none:1: "),
        "{}",
        missing.err
    );
    let list = lab.ok(&["image", "ls"]).out;
    let line = list.lines().nth(1).expect("a line");
    assert!(line.starts_with(NAME) && line.contains(&digest[7..19]), "{list}");
    assert!(list.contains("\n1 image, "), "{list}");
    let all = json(&lab.ok(&["image", "inspect", NAME]).out);
    assert_eq!(all["Digest"].as_str(), Some(digest.as_str()), "{all}");
    assert_eq!(all["RepoDigests"][0].as_str(), Some(pinned.as_str()), "{all}");
    let env = all["Config"]["Env"].as_array().expect("an environment");
    assert_eq!(env.last(), Some(&"GREETING=hello".into()), "{all}");

    lab.ok(&["image", "rm", &digest]);
    lab.ok(&["image", "pull", NAME]);

    // The registry is gone from here on.
    registry.stop();
    let archive = lab.root.join("saved.tar");
    let saved = json(&lab.ok(&["image", "save", NAME, text(&archive), "--json"]).out);
    let told = json(&tool("skopeo", &["inspect", &format!("docker-archive:{}", text(&archive))]));
    assert_eq!(told["Layers"].as_array().map(Vec::len), Some(2), "{told}");
    assert_eq!(tree(&dir, &archive, "first"), original);

    let gone = lab.ok(&["image", "rm", &digest[7..17]]).err;
    assert!(gone.starts_with(&format!("{NAME}: forgotten\n{digest}: removed")), "{gone}");
    assert_eq!(lab.run(&["image", "inspect", NAME]).code, 4);
    let gone = lab.ok(&["image", "gc", "--json"]).out;
    let gone = json(&gone);
    assert!(gone["layers"] == 2 && gone["bytes"].as_u64() > Some(100_000), "{gone}");
    assert_eq!(json(&lab.ok(&["image", "gc", "--json"]).out)["layers"], 0);
    let layers = lab.root.join("var/lib/terrarium/store/layers");
    assert_eq!(fs::read_dir(&layers).expect("layers").count(), 0);

    // An archive that is cut leaves nothing; the whole one is the same image again.
    let bytes = fs::read(&archive).expect("read");
    let cut = lab.root.join("cut.tar");
    fs::write(&cut, &bytes[..bytes.len() / 2]).expect("write");
    let refused = lab.run(&["image", "load", text(&cut)]);
    assert!(refused.code == 1 && refused.err.contains("cut.tar"), "{}", refused.err);
    assert_eq!(fs::read_dir(&layers).expect("layers").count(), 0);
    let tmp = lab.root.join("var/lib/terrarium/store/tmp");
    assert_eq!(fs::read_dir(tmp).expect("tmp").count(), 0);
    let loaded = lab.ok(&["image", "load", text(&archive)]).out;
    let id = saved["id"].as_str().expect("an id");
    assert_eq!(loaded, format!("{NAME}@{id}\n"));
    let second = lab.root.join("second.tar");
    lab.ok(&["image", "save", id, text(&second)]);
    assert!(fs::read(&second).expect("read") == bytes, "packed the same again");
    assert_eq!(tree(&dir, &second, "second"), original);

    // A directory is packed by the client.
    let layout = dir.join("layout");
    let loaded = lab.ok(&["image", "load", text(&layout), "--name", "mine/app"]).out;
    assert_eq!(loaded, format!("docker.io/mine/app:one@{digest}\n"));
    assert_eq!(
        json(&lab.ok(&["image", "ls", "--json"]).out)["images"].as_array().map(Vec::len),
        Some(2)
    );
    lab.ok(&["image", "rm", NAME, "mine/app:one"]);
    lab.ok(&["image", "gc"]);
    assert_eq!(fs::read_dir(&layers).expect("layers").count(), 0);
    lab.finish();
}

/// An archive of one image whose only layer is this tar.
fn archive(dir: &Path, layer: &[u8], name: &str) -> std::path::PathBuf {
    let config = serde_json::json!({
        "os": "linux",
        "rootfs": { "diff_ids": [Digest::of(layer)] },
    });
    let config = config.to_string();
    let file = format!("{}.json", Digest::of(config.as_bytes()).hex());
    let manifest = serde_json::json!([
        { "Config": file, "RepoTags": [name], "Layers": ["layer.tar"] }
    ]);
    let manifest = manifest.to_string();
    let mut tar = tar::Builder::new(Vec::new());
    let files = [("manifest.json", manifest.as_bytes()), (&file, config.as_bytes())];
    for (name, data) in files.into_iter().chain([("layer.tar", layer)]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, data).expect("append");
    }
    let path = dir.join("one.tar");
    fs::write(&path, tar.into_inner().expect("archive")).expect("write");
    path
}

#[test]
fn shared_layers_are_no_use_of_an_image_and_what_is_too_large_is_told() {
    let mut lab = Lab::new("shared");
    lab.serve();
    let stack = lab.root.join("usr/lib/terrarium/stacks/tiny.tar.zst");
    let built = fs::canonicalize(&stack).expect("a stack");
    let layer = lab.root.join("layer.tar");
    tool("zstd", &["-q", "-d", text(&built), "-o", text(&layer)]);
    let layer = fs::read(layer).expect("read");
    let image = archive(&lab.root, &layer, "reg.lan/ops/same:1");
    let app = lab.app(
        "web",
        "exec sleep 1000000",
        "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n[health]\ntype = \"process\"\n",
    );
    lab.ok(&["apply", &app]);
    lab.until_state("web", "running");
    lab.ok(&["image", "load", text(&image)]);
    let layers = lab.root.join("var/lib/terrarium/store/layers");
    let count = || fs::read_dir(&layers).expect("layers").count();
    // Of the stack and the droplet: the image is the very stack.
    assert_eq!(count(), 2);
    let all = json(&lab.ok(&["image", "ls", "--json"]).out);
    assert_eq!(all["images"][0]["used_by"], Value::Array(vec![]), "{all}");
    lab.ok(&["image", "rm", "reg.lan/ops/same:1"]);
    lab.ok(&["image", "gc", "--all"]);
    assert_eq!(count(), 2);
    lab.ok(&["delete", "web"]);

    lab.end_daemon(nix::sys::signal::Signal::SIGTERM);
    lab.configure("small", "[store]\nimages_max = \"64KiB\"\n");
    fs::remove_file(&stack).expect("no stack any more");
    lab.serve();
    let refused = lab.run(&["image", "load", text(&image)]);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{}", refused.err);
    assert!(refused.err.contains("all images may have 64KiB, "), "{}", refused.err);
    assert!(refused.err.contains("raise `images_max` in [store]"), "{}", refused.err);
    assert!(lab.ok(&["image", "ls"]).out.starts_with("no images"));
    lab.finish();
}

/// A daemon that gives the beginning of an archive and no more of it.
fn stalling(socket: &Path) -> std::thread::JoinHandle<()> {
    let listener = std::os::unix::net::UnixListener::bind(socket).expect("bind");
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\narchive\r\n";
        client.write_all(head.as_bytes()).expect("answer");
        // Until the client goes.
        let _ = std::io::copy(&mut client, &mut std::io::sink());
    })
}

#[test]
fn nothing_is_left_of_a_file_when_a_signal_ends_its_saving() {
    let dir = std::env::temp_dir().join(format!("terrarium-e2e-{}-unsaved", std::process::id()));
    fs::create_dir_all(&dir).expect("directory");
    let files = || -> Vec<String> {
        let items = fs::read_dir(&dir).expect("directory").flatten();
        items.map(|item| item.file_name().to_string_lossy().into_owned()).collect()
    };
    let socket = dir.join("socket");
    let daemon = stalling(&socket);
    let mut save = Command::new(BINARY)
        .args(["image", "save", "ops/app", text(&dir.join("out.tar"))])
        .args(["--host", text(&socket)])
        .spawn()
        .expect("the program starts");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !files().iter().any(|name| name.ends_with(".part")) {
        assert!(Instant::now() < deadline, "{:?}", files());
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let pid = nix::unistd::Pid::from_raw(save.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("signal");
    let ended = save.wait().expect("it ends");
    daemon.join().expect("the daemon");
    assert_eq!((ended.code(), files()), (Some(130), vec!["socket".to_owned()]));
    fs::remove_dir_all(&dir).expect("clean up");
}
