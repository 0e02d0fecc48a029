//! Images that apps start from: after a reboot too, and not to be removed.

use super::super::lab::{Lab, Ran};
use super::super::server::{Registry, Setup, tool};
use super::{answer, lab, layout, manifest, push, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

const NAME: &str = "127.0.0.1:5000/ops/app:1";

/// The power goes: the daemon and every process of a container are gone at once, and so is what lies
/// in memory.
fn power_cut(lab: &mut Lab) {
    lab.end_daemon(Signal::SIGKILL);
    // The lab calls its control groups as its root.
    let group = lab.root.file_name().expect("a name").to_string_lossy().into_owned();
    let inside = || -> Vec<i32> {
        let pids = fs::read_dir("/proc").expect("proc").flatten();
        let pids = pids.filter_map(|item| item.file_name().to_str()?.parse().ok());
        let is_inside = |pid: &i32| {
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            groups.contains(&format!("{group}/"))
        };
        pids.filter(is_inside).collect()
    };
    assert!(!inside().is_empty(), "nothing runs");
    for pid in inside() {
        // It may have gone with another one.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    lab.until("all are gone", |_| inside().is_empty().then_some(()));
    tool("umount", &[text(&lab.root.join("var/lib/terrarium/store"))]);
    fs::remove_dir_all(lab.root.join("run/terrarium")).expect("remove");
}

#[test]
fn an_app_of_a_digest_starts_after_a_reboot_without_its_registry() {
    let (mut lab, dir) = lab("reboot");
    let registry = Registry::start(&dir, Setup::Plain);
    push(&layout(&dir, &[]), "1");
    let digest = tool(
        "skopeo",
        &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{NAME}")],
    );
    let pinned = format!("127.0.0.1:5000/ops/app@{}", digest.trim());
    let rest = format!("image.ref = \"{pinned}\"\nport = [{{ publish = 8000 }}]");
    lab.ok(&["apply", &manifest(&lab, "app", &rest)]);
    lab.until_state("app", "running");
    let before = lab.instance("app", 0)["handle"].clone();
    registry.stop();
    power_cut(&mut lab);
    lab.serve();
    lab.until("another instance runs", |lab| {
        let now = lab.instance("app", 0);
        (now["state"] == "running" && now["handle"] != before).then_some(())
    });
    assert!(answer(&lab, 8000).contains("hello image 9000"));
    lab.finish();
}

#[test]
fn an_app_whose_store_was_lost_gets_the_very_image_again_that_it_had() {
    let (mut lab, dir) = lab("lost");
    let registry = Registry::start(&dir, Setup::Plain);
    let made = layout(&dir, &[]);
    push(&made, "1");
    let rest = format!("image.ref = \"{NAME}\"\nport = [{{ publish = 8000 }}]");
    lab.ok(&["apply", &manifest(&lab, "app", &rest)]);
    lab.until_state("app", "running");
    let shown = lab.view("app")["image"].clone();
    lab.ok(&["stop", "app"]);
    let depot = lab.root.join("var/lib/terrarium/depot");
    lab.until("nothing of it is left", |_| {
        fs::read_dir(&depot).ok()?.next().is_none().then_some(())
    });
    lab.end_daemon(Signal::SIGTERM);
    // Nothing is mounted now. Meanwhile the tag has come to mean another image.
    fs::remove_file(lab.root.join("var/lib/terrarium/store.img")).expect("remove");
    let one = format!("{}:one", text(&made));
    tool("umoci", &["config", "--image", &one, "--config.env", "NAME=another"]);
    push(&made, "1");
    lab.serve();
    lab.ok(&["start", "app"]);
    lab.until_state("app", "running");
    assert!(answer(&lab, 8000).contains("hello image 9000"));
    assert_eq!(lab.view("app")["image"], shown);
    registry.stop();
    lab.finish();
}

#[test]
fn an_image_that_an_app_starts_from_is_not_removed() {
    let (mut lab, dir) = lab("held");
    let registry = Registry::start(&dir, Setup::Plain);
    push(&layout(&dir, &[]), "1");
    lab.ok(&["apply", &manifest(&lab, "app", &format!("image.ref = \"{NAME}\""))]);
    lab.until_state("app", "running");
    registry.stop();
    let refused = |lab: &Lab, why: &str| {
        let Ran { code, err, .. } = lab.run(&["image", "rm", NAME]);
        assert_eq!(code, 9, "{err}");
        assert!(err.contains(why), "{err}");
    };
    // Whether it runs or not: it is the app that people know.
    let held = format!("app `app` is made of image {NAME}; `terrarium delete app` first");
    refused(&lab, &held);
    lab.ok(&["stop", "app"]);
    lab.assert_empty();
    refused(&lab, &held);
    assert!(lab.ok(&["image", "ls"]).out.contains("1 idle app"));
    // What is recorded counts, not what this daemon has seen.
    lab.end_daemon(Signal::SIGTERM);
    lab.serve();
    refused(&lab, &held);
    lab.ok(&["start", "app"]);
    lab.until_state("app", "running");
    lab.ok(&["delete", "app"]);
    lab.ok(&["image", "rm", NAME]);
    lab.finish();
}

#[test]
fn an_unchanged_app_is_applied_without_its_registry_and_its_name_stays() {
    let (mut lab, dir) = lab("unchanged");
    let registry = Registry::start(&dir, Setup::Plain);
    let made = layout(&dir, &[]);
    push(&made, "1");
    push(&made, "2");
    let file = manifest(&lab, "app", &format!("image.ref = \"{NAME}\""));
    lab.ok(&["apply", &file]);
    lab.until_state("app", "running");
    lab.ok(&["image", "pull", "127.0.0.1:5000/ops/app:2"]);
    registry.stop();
    // Another name leads there too; this one is the app's.
    let Ran { code, err, .. } = lab.run(&["image", "rm", NAME]);
    let why = format!("the manifest of app `app` has the image {NAME}; delete it");
    assert!(code == 9 && err.contains(&why), "{code}: {err}");
    lab.ok(&["image", "rm", "127.0.0.1:5000/ops/app:2"]);
    // However the name went: what is recorded does.
    lab.end_daemon(Signal::SIGTERM);
    lab.serve();
    let names = lab.root.join("var/lib/terrarium/store/images/names");
    for name in fs::read_dir(names).expect("names").flatten() {
        fs::remove_file(name.path()).expect("remove");
    }
    let shown = lab.view("app")["image"].clone();
    lab.ok(&["apply", &file]);
    assert_eq!(lab.view("app")["image"], shown);
    lab.until_state("app", "running");
    lab.finish();
}

#[test]
fn an_unchanged_app_of_an_archive_is_applied_without_reading_that_again() {
    let (mut lab, dir) = lab("same-archive");
    let made = layout(&dir, &[]);
    fs::create_dir_all(lab.root.join("src")).expect("directory");
    let archive = lab.root.join("src/app.tar");
    let save = |to: &std::path::Path| {
        let _ = fs::remove_file(to);
        let (from, to) =
            (format!("oci:{}:one", text(&made)), format!("docker-archive:{}", text(to)));
        tool("skopeo", &["--insecure-policy", "copy", "-q", &from, &to]);
    };
    save(&archive);
    let file = manifest(&lab, "app", "image.archive = \"app.tar\"\nport = [{ publish = 8000 }]");
    lab.ok(&["apply", &file]);
    lab.until_state("app", "running");
    let (shown, handle) =
        (lab.view("app")["image"].clone(), lab.instance("app", 0)["handle"].clone());
    let fetched = |lab: &Lab| lab.logged("app", "Fetching image").len();
    assert_eq!(fetched(&lab), 1);
    // Nothing tells from outside that there are only zeros in it now: so it is not read, as it would fail.
    let meta = fs::metadata(&archive).expect("metadata");
    let zeros = vec![0; usize::try_from(meta.len()).expect("small")];
    let inside = fs::File::options().write(true).open(&archive).expect("open");
    std::os::unix::fs::FileExt::write_all_at(&inside, &zeros, 0).expect("write");
    inside.set_modified(meta.modified().expect("time")).expect("time");
    let same = |lab: &Lab| {
        lab.ok(&["apply", &file]);
        lab.until_state("app", "running");
        assert_eq!(lab.view("app")["image"], shown);
        assert_eq!(lab.instance("app", 0)["handle"], handle);
    };
    same(&lab);
    assert_eq!(fetched(&lab), 1);
    // What is recorded counts when the file is gone, and that is told.
    lab.end_daemon(Signal::SIGTERM);
    lab.serve();
    fs::remove_file(&archive).expect("remove");
    same(&lab);
    let told =
        lab.logged("app", "No such file or directory (os error 2); it stays the image that it is");
    assert_eq!(told.len(), 1);
    // Another file is another image.
    tool(
        "umoci",
        &["config", "--image", &format!("{}:one", text(&made)), "--config.env", "NAME=new"],
    );
    save(&archive);
    lab.ok(&["apply", &file]);
    lab.until("the other image answers", |lab| {
        answer(lab, 8000).contains("hello new 9000").then_some(())
    });
    assert_ne!(lab.view("app")["image"], shown);
    // What is broken is no file that is gone.
    fs::write(&archive, "no archive").expect("write");
    assert_ne!(lab.run(&["apply", &file]).code, 0);
    lab.finish();
}
