//! Starting an app that comes as an image.

use crate::place::{Place, Said, run};
use std::process::Command;

/// A launcher that was told `command` and `metadata`.
fn launcher(place: &Place, command: &str, metadata: &str) -> Command {
    let mut launcher = place.role("docker-launcher");
    launcher.args(["app", command, metadata]);
    launcher
}

fn launch(place: &Place, command: &str, metadata: &str) -> Said {
    run(&mut launcher(place, command, metadata))
}

/// Row 74: start command, entrypoint and arguments.
#[test]
fn a_command_is_the_shell_s_and_an_image_s_own_words_are_not() {
    let place = Place::new();
    let own = r#"{"entrypoint":["printf","<%s>"],"cmd":["a b","$HOME"]}"#;
    assert_eq!(launch(&place, "", own).ok().out, "<a b><$HOME>");
    assert_eq!(launch(&place, "echo \"$0\" | cat; exit 0", own).ok().out, "/bin/sh\n");
    assert_eq!(launch(&place, "exit 42", own).code, Some(42));
    assert_eq!(launch(&place, "", r#"{"cmd":["echo","only"]}"#).ok().out, "only\n");
    assert_eq!(launch(&place, "echo bare", "").ok().out, "bare\n");
}

#[test]
fn nothing_is_added_but_what_the_platform_tells() {
    let place = Place::new();
    let show = "pwd; echo ${HOME-none} ${TMPDIR-none} $VCAP_APPLICATION $DATABASE_URL";
    let said = run(launcher(&place, show, "{}")
        .env_remove("TMPDIR")
        .env("VCAP_APPLICATION", "{}")
        .env("VCAP_SERVICES", r#"{"db":[{"credentials":{"uri":"mysql://h/d"}}]}"#)
        .env("INSTANCE_GUID", "guid")
        .env("PORT", "80"))
    .ok();
    let facts = r#"{"host":"0.0.0.0","instance_id":"guid","port":80}"#;
    let here = place.path("").display().to_string();
    let here = here.trim_end_matches('/');
    assert_eq!(said.out, format!("{here}\nnone none {facts} mysql2://h/d\n"));
}

#[test]
fn what_cannot_start_says_why() {
    let place = Place::new();
    launch(&place, "", "{}").fails(1, "No start command found or specified");
    launch(&place, "", "[").fails(1, "Invalid metadata - ");
    let missing = r#"{"cmd":["/no/such/file"]}"#;
    launch(&place, "", missing).fails(1, "cannot execute /no/such/file: No such file");
    run(place.role("docker-launcher").args(["app", "x"])).fails(1, "usage: docker-launcher");
}

#[test]
fn directories_are_made_where_they_are_missing() {
    let place = Place::new();
    let (one, two) = (place.path("a/b"), place.dir("c"));
    run(place.role("make-dirs").args([&one, &two])).ok();
    assert!(one.is_dir() && two.is_dir());
    let file = place.write("file", "");
    run(place.role("make-dirs").arg(&file)).fails(1, "make-dirs: cannot make ");
}
