//! Images from registries: Debian's own registry server with images that other tools made, and a
//! server of ours that misbehaves.

mod below;
mod built;
mod hostile;
mod saved;
mod server;
pub mod tree;
mod trust;

use crate::volume::Lab;
use nix::sched::{CloneFlags, unshare};
use server::{Registry, Setup, tool};
use std::fs;
use std::path::{Path, PathBuf};
use terrarium::image::catalog::{Keep, Known};
use terrarium::image::registry::settings::Settings;
use terrarium::image::work::Wish;
use terrarium::image::{ImageError, Pulled, pull};
use terrarium::unit::ImageRef;
use terrarium::volume::Store;

/// A box without a network but its own loopback, with a store.
struct Bed {
    lab: Lab,
    store: Store,
}

impl Bed {
    fn new(name: &str) -> Bed {
        let lab = Lab::new(&format!("registry-{name}"));
        unshare(CloneFlags::CLONE_NEWNET).expect("own network");
        tool("ip", &["link", "set", "lo", "up"]);
        let store = lab.open();
        Bed { lab, store }
    }

    fn dir(&self, name: &str) -> PathBuf {
        let dir = self.lab.dir.join(name);
        fs::create_dir_all(&dir).expect("directory");
        dir
    }

    /// Trusts nobody and knows no logins.
    fn settings(&self) -> Settings {
        Settings {
            certs: self.lab.dir.join("certs.d"),
            credentials: self.lab.dir.join("auth.json"),
            ..Settings::default()
        }
    }

    fn insecure(&self, authority: &str) -> Settings {
        let insecure = vec![authority.parse().expect("a registry")];
        Settings { insecure, ..self.settings() }
    }

    fn pull(&self, settings: &Settings, name: &str) -> Result<Pulled, ImageError> {
        let name: ImageRef = name.parse().expect("a name");
        pull(&self.store, settings, &name, None, &Wish::default(), &|_, _| ())
    }

    /// What it says when the image does not come; nothing of it may be left.
    fn refused(&self, settings: &Settings, name: &str) -> String {
        let before = self.store.layers().expect("layers");
        let text = terrarium::log::chain(&self.pull(settings, name).expect_err("refused"));
        assert_eq!(self.store.layers().expect("layers"), before, "{text}");
        let drafts = fs::read_dir(self.store.dir().join("tmp")).expect("tmp").count();
        assert_eq!(drafts, 0, "{text}");
        text
    }

    fn close(self) {
        self.lab.close(self.store);
    }
}

/// An image of two layers by umoci, in a layout; its directory.
fn image(bed: &Bed) -> PathBuf {
    let layout = bed.lab.dir.join("layout");
    let image = format!("{}:one", layout.display());
    let bundle = bed.lab.dir.join("bundle");
    tool("umoci", &["init", "--layout", text(&layout)]);
    tool("umoci", &["new", "--image", &image]);
    for step in [first_layer as fn(&Path), second_layer] {
        let _ = fs::remove_dir_all(&bundle);
        tool("umoci", &["unpack", "--image", &image, text(&bundle)]);
        step(&bundle.join("rootfs"));
        tool("umoci", &["repack", "--image", &image, text(&bundle)]);
    }
    tool(
        "umoci",
        &[
            "config",
            "--image",
            &image,
            "--config.env",
            "GREETING=hello",
            "--config.cmd",
            "/bin/sh",
            "--config.exposedports",
            "8080/tcp",
            "--config.user",
            "app",
            "--config.workingdir",
            "/srv",
        ],
    );
    layout
}

fn first_layer(root: &Path) {
    for dir in ["bin", "etc", "srv/deep/er", "gone", "opaque"] {
        fs::create_dir_all(root.join(dir)).expect("directory");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox");
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).expect("link");
    fs::hard_link(root.join("bin/busybox"), root.join("bin/bb")).expect("link");
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n")
        .expect("write");
    for at in 0..300 {
        fs::write(root.join(format!("srv/deep/{at}")), format!("file {at}\n").repeat(at))
            .expect("write");
    }
    fs::write(root.join("gone/file"), "x").expect("write");
    fs::write(root.join("opaque/old"), "x").expect("write");
    tool("chown", &["-R", "1000:1000", text(&root.join("srv"))]);
    tool("chmod", &["4755", text(&root.join("bin/bb"))]);
    tool("setfattr", &["-n", "user.note", "-v", "kept", text(&root.join("etc/passwd"))]);
}

fn second_layer(root: &Path) {
    fs::remove_dir_all(root.join("gone")).expect("remove");
    fs::remove_dir_all(root.join("opaque")).expect("remove");
    fs::create_dir(root.join("opaque")).expect("directory");
    fs::write(root.join("opaque/new"), "y").expect("write");
    fs::write(root.join("srv/deep/7"), "replaced").expect("write");
    fs::remove_file(root.join("srv/deep/8")).expect("remove");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// Puts the image of a layout into a registry, by skopeo.
fn push(layout: &Path, to: &str, more: &[&str]) {
    let from = format!("oci:{}:one", layout.display());
    let to = format!("docker://{to}");
    let args =
        [&["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"], more, &[&from, &to]]
            .concat();
    tool("skopeo", &args);
}

#[test]
fn an_image_comes_as_other_tools_unpack_it() {
    let bed = Bed::new("plain");
    let layout = image(&bed);
    let registry = Registry::start(&bed.dir("server"), Setup::Plain);
    push(&layout, "127.0.0.1:5000/ops/app:1", &[]);
    push(&layout, "127.0.0.1:5000/ops/app:docker", &["--format", "v2s2"]);
    let name = "127.0.0.1:5000/ops/app:1";
    let text = bed.refused(&bed.settings(), name);
    assert!(text.contains("does not speak TLS; if that is meant, name it"), "{text}");
    let settings = bed.insecure("127.0.0.1:5000");
    let pulled = bed.pull(&settings, name).expect("pulled");
    let config = &pulled.image.config;
    assert_eq!(
        (config.env.last().map(String::as_str), &*config.user, &*config.workdir),
        (Some("GREETING=hello"), "app", "/srv")
    );
    assert_eq!(config.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [8080]);
    let theirs = bed.lab.dir.join("theirs");
    tool(
        "umoci",
        &["unpack", "--image", &format!("{}:one", layout.display()), self::text(&theirs)],
    );
    tree::same(&bed.store, &bed.dir("ours"), &pulled.image.layers, &theirs.join("rootfs"));
    // The same layers under another manifest are not fetched again.
    let again = bed.pull(&settings, "127.0.0.1:5000/ops/app:docker").expect("pulled");
    assert_ne!(again.image.digest, pulled.image.digest);
    assert_eq!(again.image.layers, pulled.image.layers);
    // Present by digest: the registry is not needed; by tag, it is asked and then done without.
    registry.stop();
    let pinned = format!("{name}@{}", pulled.image.digest);
    assert_eq!(bed.pull(&settings, &pinned).expect("here").image, pulled.image);
    let last = bed.pull(&settings, name).expect("here");
    assert_eq!(last.image.layers, pulled.image.layers);
    assert!(last.unasked.is_some_and(|why| why.contains("127.0.0.1:5000")), "nobody was asked");
    let text = bed.refused(&settings, "127.0.0.1:5000/ops/other");
    assert!(text.contains("cannot fetch the image 127.0.0.1:5000/ops/other"), "{text}");
    assert!(
        text.contains("https://127.0.0.1:5000/v2/: ")
            && text.contains("; http://127.0.0.1:5000/v2/: "),
        "both ways were tried: {text}"
    );
    drop((pulled, again));
    bed.close();
}

#[test]
fn a_login_is_needed_and_told_about() {
    let bed = Bed::new("basic");
    let layout = image(&bed);
    let registry = Registry::start(&bed.dir("server"), Setup::Basic);
    push(&layout, "127.0.0.1:5000/ops/app:1", &["--dest-creds", "ann:secret"]);
    let settings = bed.insecure("127.0.0.1:5000");
    let name = "127.0.0.1:5000/ops/app:1";
    let text = bed.refused(&settings, name);
    assert!(text.contains("it wants a user; put a login for it into"), "{text}");
    let logins = |auth: &str| {
        let text = format!(r#"{{"auths":{{"127.0.0.1:5000":{{"auth":"{auth}"}}}}}}"#);
        fs::write(&settings.credentials, text).expect("write");
    };
    fs::write(&settings.credentials, r#"{"credsStore":"desktop"}"#).expect("write");
    let text = bed.refused(&settings, name);
    assert!(
        text.contains("to `docker-credential-desktop`, and helpers are not run here: write"),
        "{text}"
    );
    // ann:mistaken, ann:secret
    logins("YW5uOm1pc3Rha2Vu");
    let text = bed.refused(&settings, name);
    assert!(
        text.contains("user `ann` or its password is wrong, or lacks the right")
            && !text.contains("mistaken"),
        "{text}"
    );
    logins("YW5uOnNlY3JldA==");
    bed.pull(&settings, name).expect("pulled");
    registry.stop();
    bed.close();
}

#[test]
fn a_token_is_fetched_where_the_registry_says() {
    let bed = Bed::new("token");
    let layout = image(&bed);
    let dir = bed.dir("server");
    let tokens = server::Tokens::start(&dir);
    let registry = Registry::start(&dir, Setup::Token);
    push(&layout, "127.0.0.1:5000/ops/app:1", &["--dest-creds", "ann:secret"]);
    let settings = bed.insecure("127.0.0.1");
    bed.pull(&settings, "127.0.0.1:5000/ops/app:1").expect("pulled without a login");
    let asked = tokens.asked();
    let ours = asked.iter().find(|line| line.contains("client_id=terrarium")).expect("asked");
    assert!(
        ours.contains("scope=repository%3Aops%2Fapp%3Apull") && ours.contains("service=registry"),
        "{ours}"
    );
    let text = bed.refused(&settings, "127.0.0.1:5000/closed/app:1");
    assert!(text.contains("does not let us read closed/app"), "{text}");
    registry.stop();
    bed.close();
}

#[test]
fn tls_is_checked_with_the_operators_own_certificates() {
    let bed = Bed::new("tls");
    let layout = image(&bed);
    let dir = bed.dir("server");
    server::certificates(&dir);
    let registry = Registry::start(&dir, Setup::Tls);
    let certs = dir.join("client");
    push(&layout, "127.0.0.1:5000/ops/app:1", &["--dest-cert-dir", text(&certs)]);
    let settings = bed.settings();
    let name = "127.0.0.1:5000/ops/app:1";
    let text = bed.refused(&settings, name);
    assert!(text.contains("ca.crt"), "{text}");
    let own = settings.certs.join("127.0.0.1:5000");
    fs::create_dir_all(&own).expect("directory");
    fs::write(own.join("ca.crt"), "subject=CN = test\n").expect("write");
    let text = bed.refused(&settings, name);
    assert!(text.contains("ca.crt holds no certificate: put"), "{text}");
    fs::copy(certs.join("ca.crt"), own.join("ca.crt")).expect("copy");
    // The server wants to know who we are.
    let text = bed.refused(&settings, name);
    assert!(text.contains("wants a certificate of us"), "{text}");
    for file in ["client.cert", "client.key"] {
        fs::copy(certs.join(file), own.join(file)).expect("copy");
    }
    bed.pull(&settings, name).expect("pulled");
    // A clock that is wrong, of the box or of whoever made the certificate.
    let digest = bed.pull(&settings, name).expect("pulled").image.digest;
    let name = name.parse().expect("name");
    terrarium::image::catalog::forget(&bed.store, &name).expect("forget");
    terrarium::image::catalog::remove(&bed.store, &digest).expect("remove");
    registry.stop();
    server::certificates_for(&dir, "-1");
    for file in ["ca.crt", "client.cert", "client.key"] {
        fs::copy(certs.join(file), own.join(file)).expect("copy");
    }
    let registry = Registry::start(&dir, Setup::Tls);
    let text = bed.refused(&settings, "127.0.0.1:5000/ops/app:1");
    assert!(text.contains("is the clock of this box right?"), "{text}");
    // The certificate is for another name.
    let text = bed.refused(&settings, "localhost:5000/ops/app:1");
    assert!(text.contains("localhost:5000"), "{text}");
    registry.stop();
    bed.close();
}

#[test]
fn files_of_other_tools_are_loaded_and_run_without_a_registry() {
    let bed = Bed::new("load");
    let layout = image(&bed);
    let from = format!("oci:{}:one", layout.display());
    let [saved, archive] = ["saved.tar", "oci.tar"].map(|name| bed.lab.dir.join(name));
    let copy = |to: &str| drop(tool("skopeo", &["--insecure-policy", "copy", "-q", &from, to]));
    copy(&format!("docker-archive:{}:reg.lan/ops/app:1", saved.display()));
    copy(&format!("oci-archive:{}:reg.lan/ops/other:2", archive.display()));
    let load = |path: &Path, name: Option<&str>| {
        let name: Option<ImageRef> = name.map(|name| name.parse().expect("a name"));
        let loaded = terrarium::image::load(&bed.store, "docker.io", path, name.as_ref());
        let loaded = loaded.unwrap_or_else(|err| panic!("{}", terrarium::log::chain(&err)));
        let [one] = loaded.try_into().expect("one image");
        let known =
            terrarium::image::catalog::find(&bed.store, &one.digest).expect("in the catalogue").0;
        (known, one.names)
    };
    let first = load(&saved, None);
    let names: Vec<String> = first.1.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["reg.lan/ops/app:1"]);
    let second = load(&archive, None);
    let third = load(&layout, Some("mine/app"));
    assert_eq!(first.0.layers, second.0.layers);
    let Known { used_ms, turn, .. } = second.0;
    assert_eq!(second.0, Known { used_ms, turn, ..third.0.clone() });
    assert_eq!(third.1[0].to_string(), "docker.io/mine/app:one");
    let theirs = bed.lab.dir.join("theirs");
    tool("umoci", &["unpack", "--image", &format!("{}:one", layout.display()), text(&theirs)]);
    tree::same(&bed.store, &bed.dir("ours"), &first.0.layers, &theirs.join("rootfs"));
    // Who says a tag means it.
    assert_eq!(load(&layout, Some("foo/bar:2")).1[0].to_string(), "docker.io/foo/bar:2");
    assert_eq!(load(&saved, Some("foo/bar:3")).1[0].to_string(), "docker.io/foo/bar:3");
    // There is no registry, and none is needed.
    for name in ["reg.lan/ops/app:1", "reg.lan/ops/other:2", "mine/app:one"] {
        assert_eq!(bed.pull(&bed.settings(), name).expect(name).image.layers, first.0.layers);
    }
    let listed = terrarium::image::catalog::list(&bed.store).expect("list");
    assert_eq!(listed.iter().map(|(_, names)| names.len()).sum::<usize>(), 5);
    // What is damaged is told, and leaves nothing.
    let mut bytes = fs::read(&saved).expect("read");
    let at = bytes.windows(9).position(|window| window == b"file 299\n").expect("in a layer");
    bytes[at] ^= 1;
    let none = Keep { bytes: Some(0), ..Keep::default() };
    terrarium::image::collect(&bed.store, &none, || Some(Default::default())).expect("collect");
    assert_eq!(bed.store.layers().expect("layers"), []);
    fs::write(&saved, bytes).expect("write");
    let err = terrarium::image::load(&bed.store, "docker.io", &saved, None).expect_err("damaged");
    let text = terrarium::log::chain(&err);
    assert!(text.contains("the configuration says"), "{text}");
    bed.close();
}
