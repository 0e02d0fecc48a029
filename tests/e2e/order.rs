//! Apps that wait for others before they start.

use super::lab::{Lab, get};
use super::{PORT, WEB};
use nix::sys::signal::Signal;

const SMALL: &str = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n";

/// Writes an app that waits for others: `after = [...]` or `needs = [...]`.
fn waiting(lab: &Lab, name: &str, script: &str, waits: &str, rest: &str) -> String {
    let path = lab.app(name, script, &format!("{SMALL}\n{rest}"));
    let text = std::fs::read_to_string(&path).expect("manifest");
    std::fs::write(&path, format!("{waits}\n{text}")).expect("manifest");
    path
}

#[test]
fn an_app_waits_for_the_one_that_it_needs_and_says_so() {
    let lab = Lab::start("needs");
    let web = waiting(&lab, "web", WEB, "needs = [\"db\"]", PORT);
    let ran = lab.run(&["apply", &web]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    let why = "needs app db, which is not there; apply db";
    assert!(ran.err.contains(why), "{}", ran.err);
    let shown = lab.run(&["app", "web"]).out;
    assert!(shown.contains("waiting") && shown.contains(why), "{shown}");
    assert_eq!(lab.logged("web", why).len(), 1);
    lab.ok(&["apply", &lab.app("db", WEB, &format!("{SMALL}\n{PORT}"))]);
    lab.until_state("web", "running");
    // What happens to the other one later stops nobody.
    lab.ok(&["stop", "db"]);
    assert_eq!(lab.view("web")["state"], "running");
    lab.ok(&["restart", "web"]);
    lab.until_state("web", "running");
    // From nothing, it waits again.
    lab.ok(&["stop", "web"]);
    lab.ok(&["start", "web"]);
    lab.until_state("web", "waiting");
    assert!(lab.run(&["app", "web"]).out.contains("which is stopped; `terrarium start db`"));
    lab.ok(&["start", "db"]);
    lab.until_state("web", "running");
    lab.finish();
}

/// At the box's start: nothing lives any more, and the apps come up in their order.
#[test]
fn after_a_reboot_apps_start_in_their_order() {
    let mut lab = Lab::start("boot");
    let slow = format!("sleep 2\n{WEB}");
    let rest =
        format!("[health]\ninterval = {{ unhealthy = \"100ms\", healthy = \"30s\" }}\n\n{PORT}");
    let apps = [
        waiting(&lab, "a", WEB, "after = [\"b\"]", &rest),
        waiting(&lab, "b", &slow, "needs = [\"c\"]", &rest),
        waiting(&lab, "c", &slow, "after = [\"not-there\"]", &rest),
    ];
    // All at once: who is waited for is applied first.
    lab.ok(&["apply", &apps[0], &apps[1], &apps[2]]);
    lab.end_daemon(Signal::SIGKILL);
    lab.kill_all();
    lab.serve();
    for app in ["a", "b", "c"] {
        lab.until_state(app, "running");
    }
    let begun = |app: &str| lab.instance(app, 0)["since_ms"].as_u64().expect("a time");
    assert!(begun("c") < begun("b") && begun("b") < begun("a"));
    // Not only their health: the later one was not made before the earlier one was healthy.
    let made = |app: &str| {
        let lines = lab.logged(app, "Cell creating container for instance");
        lines.last().and_then(|line| line.split(' ').next().map(str::to_owned)).expect("a line")
    };
    let healthy = |app: &str| {
        let lines = lab.logged(app, "became healthy");
        lines.last().and_then(|line| line.split(' ').next().map(str::to_owned)).expect("a line")
    };
    assert!(healthy("c") <= made("b"), "{} {}", healthy("c"), made("b"));
    assert!(healthy("b") <= made("a"), "{} {}", healthy("b"), made("a"));
    lab.finish();
}

/// That it had crashed is no way past what it needs: when it is due and nothing of it runs, it waits.
#[test]
fn an_app_that_has_crashed_waits_for_what_it_needs_like_any_other() {
    let lab = Lab::start("crashneeds");
    lab.ok(&["apply", &lab.app("db", WEB, &format!("{SMALL}\n{PORT}"))]);
    let script = "while test ! -e /tmp/end; do sleep 0.1; done; exit 7\n";
    let web = waiting(&lab, "web", script, "needs = [\"db\"]", "[health]\ntype = \"process\"\n");
    lab.ok(&["apply", &web]);
    lab.ok(&["stop", "db"]);
    // Its first crash: it is due at once.
    lab.ok(&["exec", "web", "--", "touch", "/tmp/end"]);
    lab.until_state("web", "waiting");
    assert_eq!(lab.instance("web", 0)["crash_count"], 1);
    let begun = lab.logged("web", "Cell creating container").len();
    assert!(lab.run(&["app", "web"]).out.contains("which is stopped; `terrarium start db`"));
    lab.ok(&["start", "db"]);
    lab.until("it is tried again", |lab| {
        (lab.logged("web", "Cell creating container").len() > begun).then_some(())
    });
    lab.finish();
}

#[test]
fn apps_that_need_each_other_are_refused_with_file_and_line() {
    let lab = Lab::start("circle");
    let a = waiting(&lab, "a", WEB, "needs = [\"b\"]", PORT);
    let b = waiting(&lab, "b", WEB, "after = [\"a\"]", PORT);
    let ran = lab.run(&["apply", &a, &b]);
    let why = "these apps wait for each other: a -> b -> a";
    assert!(ran.code == 5 && ran.err.contains(why), "{} {}", ran.code, ran.err);
    assert!(ran.err.contains("a.toml:1:10"), "{}", ran.err);
    // One after the other, the second is refused.
    lab.ok(&["apply", "--no-wait", &a]);
    let ran = lab.run(&["apply", &b]);
    assert!(ran.err.contains("b -> a -> b") && ran.err.contains("b.toml:1:10"), "{}", ran.err);
    // As a file of the box's own, too; and the others are followed.
    lab.declare("b", &b);
    let ok = lab.app("good", WEB, &format!("{SMALL}\n{PORT}"));
    lab.declare("good", &ok);
    lab.until_state("good", "running");
    assert!(lab.run(&["status"]).out.contains("b -> a -> b"));
    assert!(get("127.0.0.1", 1).is_none());
    lab.finish();
}
