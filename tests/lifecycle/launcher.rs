//! Starting an app in the home directory of its droplet.

use crate::place::{Place, Said, run};
use std::process::Command;

/// A launcher in a place that looks like an unpacked droplet.
fn launcher(place: &Place, command: &str) -> Command {
    place.dir("app");
    let mut launcher = place.role("launcher");
    launcher.args(["app", command, ""]);
    launcher
}

fn launch(place: &Place, command: &str) -> Said {
    run(&mut launcher(place, command))
}

const MESSAGES: &str = "Invoking pre-start scripts.\nInvoking start command.\n";

/// Row 71, as all of this file.
#[test]
fn an_app_finds_its_place_and_environment() {
    let place = Place::new();
    let show = "pwd; echo $HOME; echo $TMPDIR; echo $DEPS_DIR; echo $A";
    let said = run(launcher(&place, show).env("A", "inherited")).ok();
    let path = |name| place.path(name).display().to_string();
    let want = [path("app"), path("app"), path("tmp"), path("deps"), "inherited".into()];
    assert_eq!(said.out, format!("{MESSAGES}{}\n", want.join("\n")));
    assert_eq!(said.err, "");
}

#[test]
fn profile_scripts_run_in_order_in_the_app_s_own_shell() {
    let place = Place::new();
    // `set --`, a changed directory and strict modes in one script must not hurt the others.
    place.write("profile.d/1.sh", "export LIST=\"1\"; set -- lost; cd /");
    place.write("profile.d/2.sh", "export LIST=\"$LIST 2\"");
    place.dir("profile.d/directory.sh");
    place.write("app/.profile.d/a b.sh", "export LIST=\"$LIST 3\"");
    place.write("app/.profile.d/c.sh", "set -eu; export LIST=\"$LIST 4\"; cd \"$HOME\"");
    place.write("app/.profile", "export LIST=\"$LIST 5\"; echo from .profile");
    let said = launch(&place, "echo $LIST; pwd").ok();
    let app = place.path("app");
    assert_eq!(
        said.out,
        format!(
            "Invoking pre-start scripts.\nfrom .profile\nInvoking start command.\n1 2 3 4 5\n{}\n",
            app.display()
        )
    );
}

#[test]
fn the_app_takes_the_launcher_s_place() {
    let place = Place::new();
    let mut command = launcher(&place, "exec sh -c 'echo $$'");
    let child = command.stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    let pid = child.id();
    let out = child.wait_with_output().expect("it ends");
    let out = String::from_utf8(out.stdout).expect("UTF-8");
    assert_eq!(out, format!("{MESSAGES}{pid}\n"));
    let said = launch(&place, "exit 42");
    assert_eq!(said.code, Some(42));
}

#[test]
fn the_command_comes_from_the_argument_or_from_staging() {
    let place = Place::new();
    let text = "no start command specified or detected in droplet";
    launch(&place, "").fails(1, text);
    place.write("staging_info.yml", r#"{"detected_buildpack":"x","start_command":"echo staged"}"#);
    assert_eq!(launch(&place, "").ok().out, format!("{MESSAGES}staged\n"));
    assert_eq!(launch(&place, "echo asked").ok().out, format!("{MESSAGES}asked\n"));

    let info = "start_command: \"a 'b c'\"\nconfig:\n  entrypoint_prefix: printf <%s>";
    place.write("staging_info.yml", info);
    assert_eq!(launch(&place, "").ok().out, format!("{MESSAGES}<a 'b c'>"));
    for bad in ["[1", "- a", "a: b: c"] {
        place.write("staging_info.yml", bad);
        launch(&place, "echo x").fails(1, "Invalid staging info - ");
    }
    run(place.role("launcher").args(["app", "x"])).fails(1, "usage: launcher");
}

#[test]
fn the_platform_s_variables_are_completed() {
    let place = Place::new();
    let show = "echo $VCAP_APPLICATION; echo $DATABASE_URL; echo ${VCAP_PLATFORM_OPTIONS-none}";
    let said = run(launcher(&place, show)
        .env("VCAP_APPLICATION", r#"{"name":"a b"}"#)
        .env("VCAP_SERVICES", r#"{"db":[{"credentials":{"uri":"postgresql://h/d"}}]}"#)
        .env("VCAP_PLATFORM_OPTIONS", "{}")
        .env("INSTANCE_GUID", "guid")
        .env("CF_INSTANCE_INDEX", "3")
        .env("PORT", "8080"))
    .ok();
    let lines: Vec<_> = said.out.lines().skip(2).collect();
    let application: serde_json::Value = serde_json::from_str(lines[0]).expect("JSON");
    assert_eq!(
        application,
        serde_json::json!({"name":"a b","host":"0.0.0.0","instance_id":"guid","instance_index":3,"port":8080})
    );
    assert_eq!(&lines[1..], ["postgres://h/d", "none"]);
    run(launcher(&place, "echo").env("VCAP_SERVICES", "[]")).fails(3, "VCAP_SERVICES is not valid");
}

#[test]
fn a_person_s_shell_finds_what_the_app_finds_without_its_own_profile() {
    let place = Place::new();
    place.write("profile.d/1.sh", "export LIST=\"1\"");
    place.write("app/.profile.d/2.sh", "export LIST=\"$LIST 2\"");
    place.write("app/.profile", "export LIST=\"$LIST 3\"");
    let shell = |args: &[&str]| {
        let mut shell = place.role("shell");
        shell.args(args);
        shell
    };
    let said = run(&mut shell(&["app", "echo $LIST; pwd; echo $HOME; exit 7"]));
    let app = place.path("app").display().to_string();
    assert_eq!((said.code, said.out.as_str()), (Some(7), &*format!("1 2\n{app}\n{app}\n")));
    // Without a command it is a shell that reads what is typed.
    let mut typed = shell(&["app"]);
    let script = place.write("typed", "echo $LIST\n");
    let said = run(typed.stdin(std::fs::File::open(script).expect("script"))).ok();
    assert_eq!(said.out, "1 2\n");
}

#[test]
fn the_platform_s_options_are_taken_away_or_refused() {
    let place = Place::new();
    let said =
        run(launcher(&place, "echo ${VCAP_PLATFORM_OPTIONS-none}")
            .env("VCAP_PLATFORM_OPTIONS", "{}"))
        .ok();
    assert_eq!(said.out, format!("{MESSAGES}none\n"));
    run(launcher(&place, "true").env("VCAP_PLATFORM_OPTIONS", "{")).fails(3, "platform options");
    run(launcher(&place, "true")
        .env("VCAP_PLATFORM_OPTIONS", r#"{"credhub-uri":"u"}"#)
        .env("VCAP_SERVICES", r#"{"a":[{"credentials":{"credhub-ref":"/c"}}]}"#))
    .fails(4, "Unable to interpolate credhub references");
}
