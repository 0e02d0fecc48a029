//! The power goes while an image becomes visible: of what the disk has then, all that is visible is whole.

use super::super::lab::Lab;
use super::super::server::{Registry, Setup, tool};
use super::{SERVE, lab, layout, push, text};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use terrarium::sys::fault::POINTS;

const NAME: &str = "127.0.0.1:5000/ops/app:1";

/// What the disk below has at this moment, as a file of its own.
fn disk(lab: &Lab, name: &str) -> PathBuf {
    let (from, to) = (lab.root.join("var/lib/terrarium/store.img"), lab.root.join(name));
    tool("cp", &["--sparse=always", "--reflink=auto", text(&from), text(&to)]);
    to
}

/// The power goes: what lies in memory is gone, and nothing is mounted.
fn cut(lab: &mut Lab) {
    lab.end_daemon(Signal::SIGKILL);
    tool("umount", &[text(&lab.root.join("var/lib/terrarium/store"))]);
    fs::remove_dir_all(lab.root.join("run/terrarium")).expect("remove");
}

/// Holds the daemon where it comes to `point` next.
fn hold(lab: &Lab, point: &str) {
    fs::write(lab.root.join("die-at"), format!("stop {point}")).expect("point");
}

fn until_held(lab: &Lab, point: &str) {
    let stat = format!("/proc/{}/stat", lab.daemon_pid());
    let begun = std::time::Instant::now();
    // It answers nobody, as `Lab::until` would ask it.
    loop {
        let stat = fs::read_to_string(&stat).expect("the daemon lives");
        if stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')) {
            return;
        }
        assert!(begun.elapsed().as_secs() < 120, "it never came to {point}");
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
}

/// What is visible on a disk that is mounted at `at`: names, images, layers. Each layer is whole, each
/// image has its layers, and each name its image.
fn seen(at: &Path, what: &str) -> [usize; 3] {
    let list = |dir: &str| {
        let items = fs::read_dir(at.join(dir)).into_iter().flatten().flatten();
        let items = items.map(|item| item.path()).filter(|path| {
            let is_draft = path.extension().is_some_and(|end| end == "new");
            !is_draft && (dir != "images" || path.is_file())
        });
        items.collect::<Vec<_>>()
    };
    let [names, images, layers] = ["images/names", "images", "layers"].map(list);
    for layer in &layers {
        let read = |name: &str| fs::read(layer.join(name)).unwrap_or_default();
        assert!(read("bin/busybox") == fs::read("/bin/busybox").expect("busybox"), "{what}");
        assert_eq!(read("bin/serve"), SERVE.as_bytes(), "{what}");
    }
    for image in &images {
        let image: Value = serde_json::from_slice(&fs::read(image).expect("read")).expect(what);
        for layer in image["layers"].as_array().expect(what) {
            let hex = layer.as_str().and_then(|text| text.strip_prefix("sha256:")).expect(what);
            assert!(layers.iter().any(|it| it.ends_with(hex)), "{what}: {hex} is missing");
        }
    }
    for name in &names {
        let name = fs::read_to_string(name).expect("read");
        let hex = name.split("sha256:").nth(1).and_then(|rest| rest.get(..64)).expect(what);
        let has = |it: &PathBuf| it.file_stem().is_some_and(|stem| stem == hex);
        assert!(images.iter().any(has), "{what}: {name} leads nowhere");
    }
    [names.len(), images.len(), layers.len()]
}

/// Mounts such a disk, and looks.
fn look(lab: &Lab, disk: &Path, what: &str) -> [usize; 3] {
    let at = lab.root.join("power-cut");
    fs::create_dir_all(&at).expect("directory");
    // It has the name of the one that it is a copy of, which the kernel remembers.
    tool("btrfs", &["device", "scan", "--forget"]);
    tool("mount", &["-o", "loop", text(disk), text(&at)]);
    let seen = std::panic::catch_unwind(|| seen(&at, what));
    tool("umount", &[text(&at)]);
    fs::remove_file(disk).expect("remove");
    seen.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn what_is_visible_after_a_power_cut_is_whole() {
    let (mut lab, dir) = lab("durable");
    let registry = Registry::start(&dir, Setup::Plain);
    push(&layout(&dir, &[]), "1");
    let points: Vec<_> = POINTS.into_iter().filter(|point| point.starts_with("layer:")).collect();
    assert_eq!(points.last(), Some(&"layer:sealed"));
    for point in points {
        hold(&lab, point);
        let mut client = lab.command(&["image", "pull", NAME]).spawn().expect("pull");
        until_held(&lab, point);
        let left = disk(&lab, "power-cut.img");
        cut(&mut lab);
        client.wait().expect("the client has ended");
        let seen = look(&lab, &left, point);
        match point {
            "layer:written" => assert_eq!(seen, [0; 3], "{point}"),
            // Whoever is told of it has it.
            "layer:sealed" => assert_eq!(seen, [1; 3], "{point}"),
            _ => {}
        }
        lab.serve();
        lab.ok(&["image", "pull", NAME]);
        lab.ok(&["image", "rm", NAME]);
        lab.ok(&["image", "gc", "--all"]);
    }
    // What is told to be gone is.
    lab.ok(&["image", "pull", NAME]);
    lab.ok(&["image", "rm", NAME]);
    let left = disk(&lab, "power-cut.img");
    cut(&mut lab);
    let seen = look(&lab, &left, "rm");
    assert_eq!(seen[..2], [0; 2], "what was removed is there again");
    registry.stop();
    lab.serve();
    lab.finish();
}
