//! Containers from images of a registry: Debian's own, with an image that umoci made.

use super::place::Garden;
use super::server::{Registry, Setup, tool};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::path::Path;

const IMAGE: &str = "docker://127.0.0.1:5000/ops/app#1";

/// Puts an image with busybox into the registry, for ann.
fn push(dir: &Path) {
    let (layout, bundle) = (dir.join("layout"), dir.join("bundle"));
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let image = format!("{}:one", text(&layout));
    tool("umoci", &["init", "--layout", &text(&layout)]);
    tool("umoci", &["new", "--image", &image]);
    tool("umoci", &["unpack", "--image", &image, &text(&bundle)]);
    let root = bundle.join("rootfs");
    for dir in ["bin", "etc", "tmp", "dev", "proc", "sys"] {
        fs::create_dir_all(root.join(dir)).expect("directory");
    }
    fs::copy("/bin/busybox", root.join("bin/sh")).expect("busybox");
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").expect("write");
    fs::write(root.join("etc/issue"), "from the registry\n").expect("write");
    tool("umoci", &["repack", "--image", &image, &text(&bundle)]);
    tool("umoci", &["config", "--image", &image, "--config.env", "GREETING=hello"]);
    let from = format!("oci:{image}");
    let to = "docker://127.0.0.1:5000/ops/app:1";
    let how = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"];
    tool("skopeo", &[&how[..], &["--dest-creds", "ann:secret", &from, to]].concat());
}

#[test]
fn a_container_is_made_of_an_image_of_a_registry_and_later_without_it() {
    let more = "[registry]\ninsecure = [\"127.0.0.0/8\"]";
    let mut garden = Garden::with("registry", more);
    let dir = garden.lab().root.join("registry");
    fs::create_dir_all(&dir).expect("directory");
    let registry = Registry::start(&dir, Setup::Basic);
    push(&dir);
    let with = |password: &str| json!({"uri": IMAGE, "username": "ann", "password": password});
    let said = garden.create_fails(&json!({"handle": "no", "image": with("guessed")}));
    assert!(said.contains("cannot fetch the image 127.0.0.1:5000/ops/app:1"), "{said}");
    assert!(!said.contains("guessed"), "{said}");
    garden.create(&json!({"handle": "one", "image": with("secret")}));
    assert_eq!(garden.says("one", "cat /etc/issue; echo $GREETING"), "from the registry\nhello");
    // The registry is gone, and so is the daemon's memory.
    registry.stop();
    garden.destroy("one");
    garden.restart(Signal::SIGKILL);
    garden.create(&json!({"handle": "two", "rootfs": IMAGE}));
    assert_eq!(garden.says("two", "cat /etc/issue"), "from the registry");
    // A process with an image of its own, in a container of the stack.
    garden.make("three");
    let pea = json!({"path": "/bin/sh", "args": ["-c", "cat /etc/issue"], "image": {"uri": IMAGE}});
    assert_eq!(garden.run("three", &pea).finish().out, "from the registry\n");
    let said = garden.create_fails(&json!({"rootfs": "docker://127.0.0.1:5000/ops/other"}));
    assert!(said.contains("cannot fetch the image 127.0.0.1:5000/ops/other"), "{said}");
    garden.finish();
}

#[test]
fn an_image_of_a_container_cannot_be_removed() {
    let garden = Garden::with("imageuse", "[registry]\ninsecure = [\"127.0.0.0/8\"]");
    let dir = garden.lab().root.join("registry");
    fs::create_dir_all(&dir).expect("directory");
    let registry = Registry::start(&dir, Setup::Basic);
    push(&dir);
    let image = json!({"uri": IMAGE, "username": "ann", "password": "secret"});
    garden.create(&json!({"handle": "its user", "image": image}));
    registry.stop();
    let list = garden.lab().ok(&["image", "ls"]).out;
    assert!(list.contains("  1 container\n"), "{list}");
    let name = "127.0.0.1:5000/ops/app:1";
    let refused = garden.lab().run(&["image", "rm", name]);
    assert_eq!(refused.code, 9, "{}", refused.err);
    let said = format!("container `its user` is made of image {name}; destroy it first\n");
    assert!(refused.err.ends_with(&said), "{}", refused.err);
    garden.lab().ok(&["image", "gc"]);
    assert_eq!(garden.says("its user", "cat /etc/issue"), "from the registry");
    garden.destroy("its user");
    // A pea of it, in a container of something else.
    garden.make("host");
    let pea = json!({"path": "/bin/sh", "args": ["-c", "read line"], "image": {"uri": IMAGE}});
    let mut pea = garden.run("host", &pea);
    let refused = garden.lab().run(&["image", "rm", name]);
    assert_eq!(refused.code, 9, "{}", refused.err);
    let said = format!("container `host` is made of image {name}; destroy it first\n");
    assert!(refused.err.ends_with(&said), "{}", refused.err);
    pea.end_stdin();
    pea.finish();
    garden.lab().ok(&["image", "rm", name]);
    let left = garden.lab().ok(&["image", "gc"]).err;
    assert!(left.starts_with("removed no image and 1 layer, "), "{left}");
    garden.finish();
}
