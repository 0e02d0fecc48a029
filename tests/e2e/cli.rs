//! What a person sees.

use super::lab::{Lab, Ran, get, tool};
use super::{PORT, WEB};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

#[test]
fn bad_manifest_names_line_and_column() {
    let lab = Lab::new("manifest");
    let path = lab.app("web", WEB, "[run]\nmemory = 256\ninstanses = 2\n");
    let ran = lab.run(&["check", &path]);
    assert_eq!(ran.code, 5);
    assert!(ran.err.contains("web.toml:13:10"), "{}", ran.err);
    assert!(ran.err.contains("256MiB"), "{}", ran.err);
    assert!(ran.err.contains("web.toml:14:1") && ran.err.contains("instances"), "{}", ran.err);
    fs::write(
        &path,
        fs::read_to_string(&path).expect("read").replace("memory = 256\ninstanses = 2", ""),
    )
    .expect("mend");
    assert_eq!(lab.run(&["check", &path]).code, 0);
    lab.remove();
}

#[test]
fn a_bad_manifest_changes_nothing() {
    let lab = Lab::start("unchanged");
    let path = lab.app("web", WEB, "[run]\nmemory = 256\n");
    let ran = lab.run(&["apply", &path]);
    assert_eq!(ran.code, 5);
    assert!(ran.err.contains("web.toml:13:10"), "{}", ran.err);
    assert_eq!(lab.run(&["app", "web"]).code, 4);
    lab.finish();
}

#[test]
fn an_unreachable_daemon_is_told_with_its_cure() {
    let lab = Lab::new("unreachable");
    let ran = lab.run(&["apps"]);
    assert_eq!(ran.code, 6);
    let cure = format!("`terrarium serve --root {}`", lab.root.display());
    assert!(ran.err.contains("terrarium.sock") && ran.err.contains(&cure), "{}", ran.err);
    lab.remove();
}

#[test]
fn exec_gives_the_commands_own_exit_code_and_streams() {
    let lab = Lab::start("exec");
    let manifest = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    lab.ok(&["apply", &lab.app("web", WEB, &manifest)]);
    lab.until_state("web", "running");
    let ran = lab.run(&["exec", "web/0", "--", "sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (42, "out\n", "err\n"));
    assert_eq!(lab.run(&["exec", "web/0", "--", "no-such-program"]).code, 127);
    assert_eq!(lab.run(&["exec", "web/0", "--", "/etc/passwd"]).code, 126);
    // What it had done once is remembered for a while, with a source of its own.
    let task = lab.ok(&["run-task", "web", "-w", "--", "echo done"]);
    assert!(task.out.contains("OUT done"), "{}", task.out);
    for (target, text) in [
        ("web/7", "no instance 7 of `web`: it has 0"),
        ("web:nope", "app web has no process `nope`: it has web"),
        ("nobody", "no app `nobody`"),
    ] {
        let ran = lab.run(&["exec", target, "--", "true"]);
        assert!(ran.code == 125 && ran.err.contains(text), "{}: {}", ran.code, ran.err);
        if target != "nobody" {
            for follow in [&[][..], &["-f"]] {
                let ran = lab.run(&[&["logs", target], follow].concat());
                assert!(ran.code == 4 && ran.err.contains(text), "{}: {}", ran.code, ran.err);
            }
        }
    }
    let ran = lab.run(&["logs", "web", "--source", "NOPE", "-f"]);
    let text = "the log of app web has no source `NOPE`: it has APP/PROC/WEB, APP/TASK, APP/TASK/";
    assert!(ran.code == 4 && ran.err.contains(text), "{}: {}", ran.code, ran.err);
    // What is there and says nothing is no mistake.
    let ran = lab.ok(&["logs", "web:web/0", "--source", "app/proc", "--since", "2200-01-01"]);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
    assert_eq!(lab.run(&["exec", "web"]).code, 125, "nothing of ours looks like the command's own");
    assert_eq!(lab.run(&["exec", "web", "--", "sh", "-c", "kill -9 $$"]).code, 137);
    // Nobody's directory is made by a slip of the finger.
    let ran = lab.run(&["exec", "-w", "/nosuch/dir", "web/0", "--", "pwd"]);
    let said = "working directory /nosuch/dir is not in the container";
    assert!(ran.code == 126 && ran.err.contains(said), "{} {}", ran.code, ran.err);
    let ran = lab.run(&["exec", "-w", "/etc/passwd", "web/0", "--", "pwd"]);
    assert!(ran.code == 126 && ran.err.contains("is not a directory"), "{}", ran.err);
    assert_eq!(lab.ok(&["exec", "-w", "/tmp", "web/0", "--", "pwd"]).out, "/tmp\n");
    assert_eq!(lab.inside("web", "test -e /nosuch").code, 1);
    // Stdin is carried, and its end too.
    let mut child = lab
        .command(&["exec", "web", "--", "wc", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("exec");
    std::io::Write::write_all(&mut child.stdin.take().expect("stdin"), &[b'x'; 100_000])
        .expect("write");
    let ran = Ran::new(child.wait_with_output().expect("wait"));
    assert_eq!((ran.code, ran.out.trim()), (0, "100000"));
    lab.finish();
}

#[test]
fn run_in_the_foreground_stages_runs_and_removes_everything_at_ctrl_c() {
    let lab = Lab::new("foreground");
    let manifest = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n\
                    [[port]]\ncontainer = 8080\npublish = 8000\n";
    let path = lab.app("web", &format!("echo here I am\n{WEB}"), manifest);
    let mut child = lab
        .command(&["run", &path])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("run");
    let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let mut seen = String::new();
    for line in lines.map_while(Result::ok) {
        seen.push_str(&line);
        seen.push('\n');
        if line.contains("became healthy") {
            break;
        }
    }
    assert!(seen.contains("here I am"), "{seen}");
    assert!(lab.until("it answers", |_| get("127.0.0.1", 8000)).starts_with("instance 0"));
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("Ctrl-C");
    assert_eq!(child.wait().expect("wait").code(), Some(0));
    lab.assert_empty();
    lab.assert_nothing_left();
    lab.remove();
}

#[test]
fn manifests_in_apps_d_come_and_go_with_their_files() {
    let lab = Lab::start("appsd");
    let manifest = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    let file = lab.declare("web", &lab.app("web", WEB, &manifest));
    lab.until_state("web", "running");
    let deleted = lab.ok(&["delete", "web"]);
    assert!(deleted.err.contains("apps.d/web.toml is still there"), "{}", deleted.err);
    fs::write(&file, fs::read_to_string(&file).expect("manifest") + "\n").expect("touch");
    lab.until_state("web", "running");
    fs::remove_file(&file).expect("remove");
    lab.until("the app is gone", |lab| (lab.run(&["app", "web"]).code == 4).then_some(()));
    lab.finish();
}

#[test]
fn run_goes_on_where_a_killed_run_has_left_its_app() {
    let lab = Lab::new("leftover");
    let manifest = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n\
                    [[port]]\ncontainer = 8080\npublish = 8000\n";
    let path = lab.app("web", WEB, manifest);
    for signal in [nix::sys::signal::Signal::SIGKILL, nix::sys::signal::Signal::SIGINT] {
        let mut child = lab
            .command(&["run", &path])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let healthy = lines.map_while(Result::ok).any(|line| line.contains("became healthy"));
        if !healthy {
            let ran = Ran::new(child.wait_with_output().expect("wait"));
            panic!("{signal}: it never ran ({}): {}", ran.code, ran.err);
        }
        assert!(lab.until("it answers", |_| get("127.0.0.1", 8000)).starts_with("instance 0"));
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, signal).expect("signal");
        child.wait().expect("wait");
    }
    lab.assert_empty();
    lab.assert_nothing_left();
    lab.remove();
}

#[test]
fn an_app_of_a_run_that_was_killed_goes_with_it_or_with_the_next_daemon() {
    let slow = "sleep 1000";
    let manifest = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    let mut lab = Lab::new("orphan");
    // A buildpack that takes its time, and one that does not.
    let path = lab.app("web", WEB, &manifest);
    let staged = lab.app("slow", WEB, &manifest);
    lab.buildpack("slow", slow);
    let text = fs::read_to_string(&staged).expect("manifest").replace("procfile", "slow");
    fs::write(&staged, text).expect("manifest");
    let run = |lab: &Lab, path: &str, until: &str| {
        let mut child = lab.command(&["run", path]);
        let child = child.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = child.spawn().expect("run");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains(until)), "no `{until}`");
        child
    };
    let kill = |mut child: std::process::Child| {
        child.kill().expect("kill");
        child.wait().expect("wait");
    };
    // With a daemon of its own, while it stages and while it runs: the next one clears up, another
    // run as well as a service.
    kill(run(&lab, &staged, "successfully created container"));
    let second = run(&lab, &path, "became healthy");
    let gone = |lab: &Lab| lab.run(&["app", "slow"]).code == 4;
    lab.until("the first one's is gone", |lab| gone(lab).then_some(()));
    kill(second);
    lab.serve();
    lab.until("nothing is left", |lab| (lab.ok(&["apps"]).out.contains("no apps")).then_some(()));
    lab.assert_empty();
    // With a daemon that stays: it sees that nobody holds the app any more.
    for (path, until) in [(&path, "became healthy"), (&staged, "successfully created container")] {
        kill(run(&lab, path, until));
        lab.until("it is gone", |lab| (lab.ok(&["apps"]).out.contains("no apps")).then_some(()));
        lab.assert_empty();
    }
    lab.finish();
}

#[test]
fn a_run_takes_no_app_from_anybody_and_anybody_may_take_over_its_own() {
    let lab = Lab::start("over");
    let manifest = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    let path = lab.app("web", WEB, &manifest);
    let mut run = lab.command(&["run", &path]);
    let run = run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut run = run.spawn().expect("run");
    lab.until_state("web", "running");
    let before = lab.instance("web", 0)["handle"].clone();
    let second = lab.run(&["run", &path]);
    assert_eq!(second.code, 9, "{}", second.err);
    assert!(second.err.contains("`web` is there already"), "{}", second.err);
    assert_eq!(lab.instance("web", 0)["handle"], before, "the first never noticed");
    lab.ok(&["apply", &path]);
    let pid = nix::unistd::Pid::from_raw(run.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("Ctrl-C");
    assert_eq!(run.wait().expect("wait").code(), Some(0));
    let one = lab.instance("web", 0);
    assert_eq!((&one["handle"], &one["state"]), (&before, &"running".into()), "it stays");
    lab.finish();
}

#[test]
fn a_run_with_a_daemon_of_its_own_takes_other_runs_along_when_it_ends() {
    let lab = Lab::new("along");
    let manifest = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    let runs = ["one", "two"].map(|name| {
        let mut run = lab.command(&["run", &lab.app(name, WEB, &manifest)]);
        let run = run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let run = run.spawn().expect("run");
        lab.until_state(name, "running");
        run
    });
    let [first, second] = runs;
    let pid = nix::unistd::Pid::from_raw(first.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("Ctrl-C");
    let ran = Ran::new(first.wait_with_output().expect("wait"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("two: removed, for its `run` has used"), "{}", ran.err);
    second.wait_with_output().expect("it ends");
    lab.assert_empty();
    lab.assert_nothing_left();
    lab.remove();
}

/// Row 19: what cannot be read stops nothing.
#[test]
fn a_mistake_in_apps_d_deletes_nothing_and_a_new_name_is_a_new_app() {
    let lab = Lab::start("mistake");
    let manifest = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n";
    let app = |name: &str| lab.app(name, "exec sleep 1000\n", manifest);
    let file = lab.declare("one", &app("old"));
    let handle = lab.until("it runs", |lab| {
        let one = lab.instance("old", 0);
        (one["state"] == "running").then(|| one["handle"].clone())
    });
    let text = fs::read(&file).expect("read");
    // No manifest, not even text, and a second file of the same app.
    fs::write(&file, "name = ").expect("write");
    lab.until("it is refused", |lab| lab.daemon_log().contains("manifest.refused").then_some(()));
    let status = lab.until("the box is not healthy", |lab| {
        let ran = lab.run(&["status"]);
        (ran.code == 3).then_some(ran.out)
    });
    assert!(status.contains("apps.d/one.toml is not followed: 1:8: "), "{status}");
    fs::write(&file, b"name = \"\xff\"").expect("write");
    lab.until("it is refused", |lab| lab.daemon_log().contains("manifest.unread").then_some(()));
    fs::write(&file, text).expect("write");
    let second = lab.declare("a-second", &app("old"));
    lab.until("it is refused", |lab| lab.daemon_log().contains("another file").then_some(()));
    assert_eq!(lab.instance("old", 0)["handle"], handle, "it never noticed");
    // Without the first the second one speaks for the app.
    fs::remove_file(&file).expect("remove");
    let path = second.to_str().expect("UTF-8").to_owned();
    lab.until("the second counts", |lab| (lab.view("old")["manifest"] == path).then_some(()));
    assert_eq!(lab.instance("old", 0)["handle"], handle, "nothing of it has changed");
    lab.declare("a-second", &app("new"));
    lab.until_state("new", "running");
    lab.until("the old name is gone", |lab| (lab.run(&["app", "old"]).code == 4).then_some(()));
    lab.finish();
}

#[test]
fn a_manifest_that_does_not_fit_the_box_is_refused_at_once_and_leaves_no_app() {
    let lab = Lab::start("unfit");
    let manifest = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n";
    let path = lab.app("web", "exec sleep 1000\n", manifest);
    let right = fs::read_to_string(&path).expect("manifest");
    let faults = [
        ("path = \"web\"", "path = \"none\"", "web.toml:4:8", "src/none is not there"),
        ("stack = \"tiny\"", "stack = \"nowhere\"", "web.toml:7:9", "stack `nowhere` is not on"),
        ("[\"procfile\"]", "[\"ruby\"]", "web.toml:8:15", "no buildpack `ruby`"),
        ("[run]\nmemory = \"32MiB\"", "[run]\nmemory = \"16GiB\"", "web.toml:13:10", "has 8GiB"),
    ];
    for (from, to, place, text) in faults {
        fs::write(&path, right.replace(from, to)).expect("manifest");
        for verb in ["check", "apply"] {
            let ran = lab.run(&[verb, &path]);
            assert_eq!(ran.code, 5, "{verb}: {}", ran.err);
            assert!(ran.err.contains(place) && ran.err.contains(text), "{verb}: {}", ran.err);
        }
        assert_eq!(lab.run(&["app", "web"]).code, 4, "nothing is left of it");
    }
    // The same in apps.d, for an app that runs.
    fs::write(&path, &right).expect("manifest");
    let file = lab.declare("web", &path);
    let handle = lab.until("it runs", |lab| {
        let one = lab.instance("web", 0);
        (one["state"] == "running").then(|| one["handle"].clone())
    });
    let text = fs::read_to_string(&file).expect("manifest");
    fs::write(&file, text.replace("\"tiny\"", "\"nowhere\"")).expect("manifest");
    lab.until("it is refused", |lab| {
        let log = lab.daemon_log();
        let said = log.lines().find(|line| line.contains("manifest.refused"))?;
        said.contains("7:9: stack `nowhere` is not on this box").then_some(())
    });
    let one = lab.instance("web", 0);
    assert_eq!((&one["handle"], &one["state"]), (&handle, &"running".into()), "it never noticed");
    lab.finish();
}

#[test]
fn run_without_a_daemon_says_each_thing_once_and_in_plain_words() {
    let lab = Lab::new("plainly");
    let path = lab.app("web", "exec sleep 1000\n", "[health]\ntype = \"process\"\n");
    fs::write(lab.root.join("src/web/Procfile"), "web: a\nno line\n").expect("Procfile");
    let ran = lab.run(&["run", &path]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert_eq!(ran.out.matches("Staging failed: ").count(), 1, "{}", ran.out);
    let said = "web: staging\nweb: failed\nweb: removing it\nweb: removed\n\
                terrarium: cannot stage app web; the log above says why\n";
    assert_eq!(ran.err, said);
    lab.assert_nothing_left();
    lab.remove();
}

#[test]
fn what_is_no_file_is_no_manifest_and_keeps_no_other_from_being_looked_at() {
    let lab = Lab::new("fifo");
    let fifo = lab.root.join("src/b.toml");
    fs::create_dir_all(lab.root.join("src")).expect("directory");
    tool("mkfifo", &[fifo.to_str().expect("UTF-8")]);
    let ran = lab.run(&["check", fifo.to_str().expect("UTF-8")]);
    assert!(ran.code == 1 && ran.err.contains("b.toml: it is not a file"), "{}", ran.err);
    fs::remove_file(&fifo).expect("remove");
    fs::write(&fifo, vec![b'#'; 600 * 1024]).expect("write");
    fs::write(lab.root.join("src/c.toml"), "typo = 1\n").expect("write");
    let ran = lab.run(&["check", lab.root.join("src").to_str().expect("UTF-8")]);
    assert_eq!(ran.code, 5);
    assert!(
        ran.err.contains("longer than 512 KiB") && ran.err.contains("c.toml:1:1"),
        "{}",
        ran.err
    );
    lab.remove();
}
