//! Health checks, sidecars and stops of real instances. Numbers are rows of the table of Diego's features.

use super::lab::{Lab, get};
use super::{PORT, WEB};
use nix::sys::signal::Signal;

/// Small and without a port.
const SMALL: &str = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n";

/// Checked ten times a second.
const OFTEN: &str = "interval = { unhealthy = \"100ms\", healthy = \"100ms\" }\n";

fn reason(lab: &Lab, name: &str) -> String {
    lab.instance(name, 0)["crash_reason"].as_str().unwrap_or_default().to_owned()
}

/// Until the instance has crashed; why.
fn crash(lab: &Lab, name: &str) -> String {
    lab.until(&format!("{name} has crashed"), |lab| {
        let why = reason(lab, name);
        (!why.is_empty()).then_some(why)
    })
}

/// Row 44: any command decides, and what it prints is the reason.
#[test]
fn row_44_a_command_inside_decides_and_its_output_is_the_reason() {
    let lab = Lab::start("execcheck");
    let manifest = format!(
        "{SMALL}[restart]\npolicy = \"never\"\n\n[health]\ntype = \"exec\"\nfailures = 2\n{OFTEN}\
         command = \"test ! -e /tmp/stuck || {{ id -un; echo it is stuck >&2; exit 3; }}\"\n"
    );
    lab.ok(&["apply", &lab.app("it", "exec sleep 1000\n", &manifest)]);
    lab.until_state("it", "running");
    assert_eq!(lab.logged("it", "Container became healthy").len(), 1);
    lab.ok(&["exec", "it", "--", "touch", "/tmp/stuck"]);
    let why = crash(&lab, "it");
    assert!(why.starts_with("Instance became unhealthy: "), "{why}");
    assert!(why.contains("vcap") && why.contains("it is stuck"), "{why}");
    assert_eq!(lab.logged("it", "Container became unhealthy").len(), 1);
    lab.finish();
}

/// Row 45: the text of an answer that is not 200. Row 17: and that of the start timeout.
#[test]
fn row_45_and_17_an_answer_of_404_is_no_health_and_told_with_its_number() {
    let lab = Lab::start("httpcheck");
    let manifest = format!(
        "{SMALL}{PORT}[restart]\npolicy = \"never\"\n\n[health]\ntype = \"http\"\n\
         path = \"/none\"\nstart_timeout = \"1s\"\n{OFTEN}"
    );
    assert_eq!(lab.run(&["apply", &lab.app("it", WEB, &manifest)]).code, 3);
    let why = crash(&lab, "it");
    let text = "Instance never healthy after 1s: failed to make HTTP request to '/none' on port \
                8080: received status code 404 in ";
    assert!(why.starts_with(text), "{why}");
    let told = lab.logged("it", "Failed after 1s: startup health check never passed.");
    assert_eq!(told.len(), 1, "{told:?}");
    lab.finish();
}

/// Row 46: readiness leads connections to an instance or away from it, and never ends it.
#[test]
fn row_46_readiness_opens_and_closes_the_published_port() {
    let mut lab = Lab::start("readiness");
    let manifest = format!(
        "{SMALL}[[port]]\ncontainer = 8080\npublish = 8000\n\n[readiness]\ntype = \"exec\"\n\
         command = \"test -e /tmp/ready\"\n{OFTEN}"
    );
    lab.ok(&["apply", "--no-wait", &lab.app("web", WEB, &manifest)]);
    lab.until_state("web", "running");
    assert!(get("127.0.0.1", 8000).is_none(), "healthy, but not ready");
    assert_eq!(lab.instance("web", 0)["ready"], false);
    assert!(lab.ok(&["app", "web"]).out.contains("not ready"));
    lab.ok(&["exec", "web", "--", "touch", "/tmp/ready"]);
    lab.until("it is ready", |_| get("127.0.0.1", 8000));
    let passed = "Container passed the readiness health check. Container marked ready and added to \
                  route pool.";
    assert_eq!(lab.logged("web", passed).len(), 1);
    let before = lab.instance("web", 0)["handle"].clone();

    lab.end_daemon(Signal::SIGKILL);
    lab.serve();
    assert!(get("127.0.0.1", 8000).is_some(), "it was ready before, and is");

    lab.ok(&["exec", "web", "--", "rm", "/tmp/ready"]);
    lab.until("it is not ready", |_| get("127.0.0.1", 8000).is_none().then_some(()));
    let failed = "Container failed the readiness health check. Container marked not ready and \
                  removed from route pool.";
    assert_eq!(lab.logged("web", failed).len(), 1);
    let one = lab.instance("web", 0);
    assert_eq!((&one["handle"], &one["state"]), (&before, &"running".into()), "it lives on");
    lab.finish();
}

/// Row 47: the end of a sidecar is that of the instance. Row 39, 43: everything of it is told in order.
#[test]
fn row_47_the_end_of_a_sidecar_ends_the_instance() {
    let lab = Lab::start("sidecar");
    let manifest = format!(
        "{SMALL}[restart]\npolicy = \"never\"\n\n[health]\ntype = \"process\"\n\n\
         [sidecar.relay]\ncommand = \"while test ! -e /tmp/end; do sleep 0.1; done; exit 4\"\n"
    );
    let script = "trap 'echo good bye; exit 0' TERM\nwhile :; do sleep 0.1; done\n";
    lab.ok(&["apply", &lab.app("it", script, &manifest)]);
    lab.until_state("it", "running");
    lab.ok(&["exec", "it", "--", "touch", "/tmp/end"]);
    let why = crash(&lab, "it");
    assert_eq!(why, "APP/PROC/WEB/SIDECAR/RELAY: Exited with status 4");
    assert_eq!(lab.logged("it", "[APP/PROC/WEB/0] OUT good bye").len(), 1, "it was asked to end");
    let told = lab.logged("it", "[APP/PROC/WEB/SIDECAR/RELAY/0] OUT Exit status 4");
    assert_eq!(told.len(), 1);
    lab.finish();
}

/// Every process of an instance goes on when the daemon is killed, and is looked after by the next.
#[test]
fn app_and_sidecar_are_found_again_after_the_daemon_was_killed() {
    let mut lab = Lab::start("sidecarlives");
    let manifest = format!(
        "{SMALL}[health]\ntype = \"process\"\n\n[sidecar.relay]\n\
         command = \"while test ! -e /tmp/end; do sleep 0.1; done; echo the last word; exit 4\"\n"
    );
    lab.ok(&["apply", &lab.app("it", "exec sleep 1000\n", &manifest)]);
    lab.until_state("it", "running");
    let handle = lab.instance("it", 0)["handle"].clone();
    lab.end_daemon(Signal::SIGKILL);
    lab.serve();
    let one = lab.instance("it", 0);
    assert_eq!((&one["handle"], &one["crash_count"]), (&handle, &0.into()));
    lab.ok(&["exec", "it", "--", "touch", "/tmp/end"]);
    assert_eq!(crash(&lab, "it"), "APP/PROC/WEB/SIDECAR/RELAY: Exited with status 4");
    assert_eq!(lab.logged("it", "OUT the last word").len(), 1);
    lab.finish();
}

/// sd_notify: ready by its own word, and unhealthy when it is silent; the words outlive the daemon.
#[test]
fn a_watchdog_hears_the_app_and_ends_it_when_it_is_silent() {
    let mut lab = Lab::start("watchdog");
    let manifest = format!(
        "{SMALL}[restart]\npolicy = \"never\"\n\n[health]\ntype = \"watchdog\"\n\
         interval = {{ unhealthy = \"100ms\", healthy = \"2s\" }}\n"
    );
    let script = "echo period $WATCHDOG_USEC\nwhile test ! -e /tmp/ready; do sleep 0.1; done\n\
                  /tmp/lifecycle/notify READY=1 STATUS=serving\n\
                  while test ! -e /tmp/silent; do /tmp/lifecycle/notify WATCHDOG=1; sleep 0.2; done\n\
                  exec sleep 1000\n";
    let manifest = lab.app("it", script, &manifest);
    std::thread::scope(|scope| {
        let applied = scope.spawn(|| lab.run(&["apply", &manifest]));
        lab.until("it has begun", |lab| lab.logged("it", "OUT period 2000000").pop());
        assert_ne!(lab.instance("it", 0)["state"], "running", "it has not said so");
        lab.ok(&["exec", "it", "--", "touch", "/tmp/ready"]);
        assert_eq!(applied.join().expect("apply").code, 0);
    });
    lab.until_state("it", "running");
    let handle = lab.instance("it", 0)["handle"].clone();

    lab.end_daemon(Signal::SIGKILL);
    lab.serve();
    assert_eq!(lab.instance("it", 0)["handle"], handle, "it goes on");
    lab.ok(&["exec", "it", "--", "touch", "/tmp/silent"]);
    let why = crash(&lab, "it");
    let text = "Instance became unhealthy: the app has not sent WATCHDOG=1 for 2s; its last status: \
                serving";
    assert_eq!(why, text);
    assert!(!lab.logged("it", "[HEALTH/0] OUT Status: serving").is_empty());
    lab.finish();
}

/// Row 39: the manifest's own signal and time, then KILL.
#[test]
fn row_39_a_stop_is_by_the_manifests_signal_and_time() {
    let lab = Lab::start("stopsignal");
    let manifest = |name: &str, stop: &str, script: &str| {
        let text = format!("{SMALL}[health]\ntype = \"process\"\n\n[stop]\n{stop}\n");
        lab.ok(&["apply", &lab.app(name, script, &text)]);
        lab.until_state(name, "running");
    };
    let script = "trap 'echo by the book; exit 0' USR1\ntrap '' TERM\necho armed\n\
                  while :; do sleep 0.1; done\n";
    manifest("good", "signal = \"SIGUSR1\"", script);
    manifest(
        "late",
        "signal = \"USR1\"\ntimeout = \"300ms\"",
        "trap '' USR1\necho armed\nwhile :; do sleep 0.1; done\n",
    );
    for name in ["good", "late"] {
        lab.until("its traps are set", |lab| lab.logged(name, "OUT armed").pop());
        lab.ok(&["stop", name]);
        lab.until_state(name, "stopped");
    }
    assert_eq!(lab.logged("good", "OUT by the book").len(), 1);
    assert_eq!(lab.logged("good", "[APP/PROC/WEB/0] OUT Exit status 0").len(), 1);
    let told = lab.logged("late", "Exit status 137 (exceeded 300ms graceful shutdown interval)");
    assert_eq!(told.len(), 1);
    lab.finish();
}

/// Row 38: an app whose command names a program that is not there has never run, whatever its check.
#[test]
fn row_38_a_command_that_is_not_there_never_counts_as_running() {
    let lab = Lab::start("notthere");
    let manifest = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\
                    command = \"surely-not-there --now\"\n\n[health]\ntype = \"process\"\n";
    lab.ok(&["apply", "--no-wait", &lab.app("it", "true\n", manifest)]);
    let one = lab.until("it has crashed", |lab| {
        let one = lab.view("it")["processes"][0]["instances"][0].clone();
        (one["crash_count"].as_u64() >= Some(1)).then_some(one)
    });
    let why = one["crash_reason"].as_str().expect("a reason");
    assert!(why.contains("program `surely-not-there` is not in the container"), "{why}");
    assert!(!lab.daemon_log().contains("instance.running"), "{}", lab.daemon_log());
    lab.finish();
}

/// Answers 500 as often as /tmp/ill says, and tells /tmp/tries how each try went.
const FICKLE: &str = r#"
mkdir -p www/cgi-bin
cat > www/cgi-bin/check <<'EOF'
#!/bin/sh
left=$(cat /tmp/ill)
if test "$left" -gt 0; then
    echo $((left - 1)) > /tmp/ill
    echo ill >> /tmp/tries
    printf 'Status: 500 Ill\r\n\r\n'
else
    echo well >> /tmp/tries
    printf 'Content-Type: text/plain\r\n\r\nwell'
fi
EOF
chmod +x www/cgi-bin/check
echo 0 > /tmp/ill
exec busybox httpd -f -p "$PORT" -h www
"#;

/// Row 45: of three failures in a row that end an instance two do not, and the third is the reason.
#[test]
fn row_45_an_answer_of_500_ends_an_instance_only_as_often_as_the_manifest_says() {
    let lab = Lab::start("fickle");
    let manifest = format!(
        "{SMALL}{PORT}[restart]\npolicy = \"never\"\n\n[health]\ntype = \"http\"\n\
         path = \"/cgi-bin/check\"\ntimeout = \"10s\"\nfailures = 3\n{OFTEN}"
    );
    lab.ok(&["apply", &lab.app("it", FICKLE, &manifest)]);
    lab.until_state("it", "running");
    assert_eq!(lab.inside("it", "echo > /tmp/tries; echo 2 > /tmp/ill").code, 0);
    lab.until("it was ill twice, and well after", |lab| {
        lab.inside("it", "cat /tmp/tries").out.contains("ill\nill\nwell\n").then_some(())
    });
    let one = lab.instance("it", 0);
    assert_eq!((&one["state"], &one["crash_count"]), (&"running".into(), &0.into()));
    assert!(lab.logged("it", "Container became unhealthy").is_empty());

    assert_eq!(lab.inside("it", "echo 1000 > /tmp/ill").code, 0);
    let why = crash(&lab, "it");
    let text = "Instance became unhealthy: failed to make HTTP request to '/cgi-bin/check' on port \
                8080: received status code 500 in ";
    assert!(why.starts_with(text), "{why}");
    assert_eq!(lab.logged("it", "Container became unhealthy").len(), 1);
    lab.finish();
}

/// Row 44, row 45: a listener that answers nobody any more is unhealthy when its time is up: to a
/// request at once, to a connection when no more of them find room before it.
#[test]
fn row_44_and_45_a_listener_that_hangs_is_unhealthy_by_the_timeout() {
    let lab = Lab::start("hangs");
    for (kind, text) in [
        ("http", "failed to make HTTP request to '/' on port 8080: timed out after 2.00 seconds"),
        ("port", "8080: timed out after 2.00 seconds"),
    ] {
        let manifest = format!(
            "{SMALL}{PORT}[restart]\npolicy = \"never\"\n\n[health]\ntype = \"{kind}\"\n\
             timeout = \"2s\"\n{OFTEN}"
        );
        let script = format!("echo $$ > /tmp/pid\n{WEB}");
        lab.ok(&["apply", &lab.app(kind, &script, &manifest)]);
        lab.until_state(kind, "running");
        assert_eq!(lab.inside(kind, "kill -STOP $(cat /tmp/pid)").code, 0);
        let why = crash(&lab, kind);
        assert!(why.starts_with("Instance became unhealthy: ") && why.ends_with(text), "{why}");
    }
    lab.finish();
}
