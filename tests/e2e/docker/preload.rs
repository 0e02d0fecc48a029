//! Images that come with the box, in `/usr/lib/terrarium/images`: no network, no registry.

use super::super::lab::Lab;
use super::super::server::tool;
use super::{answer, layout, manifest, text};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The directory, with one image of busybox that answers with `greeting`, as `file` in the form that
/// its end says, called `name`.
fn put(lab: &Lab, greeting: &str, file: &str, name: &str) -> PathBuf {
    let dir = lab.root.join("usr/lib/terrarium/images");
    fs::create_dir_all(&dir).expect("directory");
    let work = lab.root.join("work");
    let own = format!("NAME={greeting}");
    let from = format!("oci:{}:one", text(&layout(&work, &["--config.env", &own])));
    let to = dir.join(file);
    let copy = |to: &str| {
        tool("skopeo", &["--insecure-policy", "copy", "-q", &from, to]);
    };
    match file.split_once('.').map(|(_, end)| end) {
        None => copy(&format!("oci:{}:{name}", text(&to))),
        Some("oci.tar") => copy(&format!("oci-archive:{}:{name}", text(&to))),
        Some(end) => {
            let plain = work.join("plain.tar");
            copy(&format!("docker-archive:{}:{name}", text(&plain)));
            match end {
                "tar" => drop(fs::copy(&plain, &to).expect("copy")),
                "tar.gz" => drop(tool("sh", &["-c", "gzip -c $0 > $1", text(&plain), text(&to)])),
                "tar.zst" => drop(tool("zstd", &["-q", text(&plain), "-o", text(&to)])),
                other => panic!("{other}"),
            }
        }
    }
    fs::remove_dir_all(&work).expect("clean up");
    to
}

/// An image that nobody could fetch here.
fn name(of: &str) -> String {
    format!("192.0.2.1:5000/ops/{of}:1")
}

fn apply(lab: &Lab, app: &str, port: u16) -> String {
    let rest = format!("image.ref = \"{}\"\nport = [{{ publish = {port} }}]", name(app));
    let path = manifest(lab, app, &rest);
    lab.ok(&["apply", &path]);
    lab.until_state(app, "running");
    path
}

/// Events of the daemon so far.
fn events(lab: &Lab, what: &str) -> Vec<String> {
    lab.daemon_log().lines().filter(|line| line.contains(what)).map(str::to_owned).collect()
}

/// Names of the images that are here.
fn names(lab: &Lab) -> Vec<String> {
    let all: Value = serde_json::from_str(&lab.ok(&["image", "ls", "--json"]).out).expect("JSON");
    let names = all["images"].as_array().expect("a list").iter().flat_map(|image| {
        image["names"].as_array().expect("names").iter().filter_map(Value::as_str)
    });
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    names
}

/// Replaces what is in a file by as many zeros; nothing tells from outside.
fn spoil(path: &Path) {
    let meta = fs::metadata(path).expect("metadata");
    let file = fs::File::options().write(true).open(path).expect("open");
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; meta.len() as usize], 0)
        .expect("write");
    file.set_modified(meta.modified().expect("time")).expect("time");
}

#[test]
fn every_form_of_archive_is_loaded_once_and_its_apps_start_without_a_network() {
    let mut lab = Lab::new("preload");
    let files = ["a.tar", "b.tar.gz", "c.tar.zst", "d.oci.tar"];
    let files = files.map(|file| put(&lab, &file[..1], file, &name(&file[..1])));
    put(&lab, "e", "e", &name("e"));
    let dir = files[0].parent().expect("a directory");
    // With no more than a tag, in the manner of umoci; and a file that lies elsewhere.
    let aside = lab.root.join("aside");
    fs::create_dir_all(&aside).expect("directory");
    fs::rename(put(&lab, "f", "f.tar", &name("f")), aside.join("f.tar")).expect("move");
    std::os::unix::fs::symlink(aside.join("f.tar"), dir.join("f.tar")).expect("link");
    fs::rename(put(&lab, "g", "g", "v1"), dir.join("g.oci")).expect("move");
    fs::write(dir.join("broken.tar"), "this is no archive").expect("write");
    fs::write(dir.join(".half.tar"), "this is not whole").expect("write");
    lab.serve();
    // Applied while others are being loaded before it.
    apply(&lab, "d", 8000);
    assert!(answer(&lab, 8000).contains("hello d 9000"));
    let all = ["a", "b", "c", "d", "e"];
    let mut every = all.map(name).to_vec();
    every.extend([name("f"), "docker.io/library/g:v1".to_owned()]);
    every.sort();
    lab.until("all are here", |lab| (names(lab) == every).then_some(()));
    for one in all {
        let inspected = lab.ok(&["image", "inspect", &name(one)]).out;
        assert!(inspected.contains(&format!("\"NAME={one}\"")), "{inspected}");
    }
    let broken = events(&lab, "image.preload_failed");
    assert_eq!(broken.len(), 1, "{broken:?}");
    assert!(broken[0].contains("broken.tar") && broken[0].contains("err="), "{broken:?}");
    assert_eq!(events(&lab, "image.preloaded").len(), 7);

    // What looks the same is not read again, and what runs is not touched.
    files.iter().for_each(|file| spoil(file));
    fs::remove_file(dir.join("broken.tar")).expect("remove");
    lab.end_daemon(Signal::SIGKILL);
    lab.serve();
    apply(&lab, "a", 8001);
    assert!(answer(&lab, 8001).contains("hello a 9000"));
    assert_eq!(events(&lab, "image.preload_failed").len(), 1);
    assert_eq!(events(&lab, "image.preloaded").len(), 7);
    lab.finish();
}

#[test]
fn an_image_of_the_box_stays_until_its_file_goes() {
    let mut lab = Lab::new("pinned");
    lab.configure("cleanup", "[garden]\ncleanup_threshold = \"0B\"\n");
    let file = put(&lab, "a", "a.tar", &name("a"));
    lab.serve();
    lab.until("it is here", |lab| (names(lab) == [name("a")]).then_some(()));
    let gone = |lab: &Lab| -> Value {
        serde_json::from_str(&lab.ok(&["image", "gc", "--json"]).out).expect("JSON")
    };
    let kept = gone(&lab);
    assert_eq!(
        (&kept["images"], &kept["left"][0]["why"][0]),
        (&0.into(), &"it came with the box".into())
    );
    lab.end_daemon(Signal::SIGTERM);
    lab.serve();
    assert_eq!(gone(&lab)["images"], 0);
    assert_eq!(names(&lab), [name("a")]);
    fs::remove_file(file).expect("remove");
    assert_eq!(gone(&lab)["images"], 1);
    assert_eq!(names(&lab), [""; 0]);
    lab.finish();
}

#[test]
fn an_app_whose_layers_were_lost_with_the_store_starts_from_the_images_of_the_box() {
    let mut lab = Lab::new("storeless");
    put(&lab, "a", "a.tar", &name("a"));
    lab.serve();
    apply(&lab, "a", 8000);
    let shown = lab.view("a")["image"].clone();
    lab.ok(&["stop", "a"]);
    lab.assert_empty();
    lab.end_daemon(Signal::SIGTERM);
    // Nothing is mounted now: the store, and what is called a cache, go.
    fs::remove_file(lab.root.join("var/lib/terrarium/store.img")).expect("remove");
    fs::remove_dir_all(lab.root.join("var/cache/terrarium")).expect("remove");
    lab.serve();
    lab.ok(&["start", "a"]);
    lab.until_state("a", "running");
    assert!(answer(&lab, 8000).contains("hello a 9000"));
    assert_eq!(lab.view("a")["image"], shown);
    lab.finish();
}
