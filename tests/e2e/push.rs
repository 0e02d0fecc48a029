//! What people do by file and by hand: the manifest directories, revisions, tasks of apps, push.

use super::lab::Lab;
use std::fs;

/// Sizes for small apps, and a check that needs no port.
const SMALL: &str = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n";

/// Row 81: of several files only the one that has changed touches its app, drop-ins count, a
/// vendor's file gives way to the owner's, and a restart of the daemon changes nothing.
#[test]
fn row_81_only_what_has_changed_in_apps_d_is_touched() {
    let mut lab = Lab::start("row81");
    let app = |lab: &Lab, name: &str| lab.app(name, "exec sleep 1000\n", SMALL);
    let one = lab.declare("one", &app(&lab, "one"));
    let two = lab.declare("two", &app(&lab, "two"));
    let handle = |lab: &Lab, name: &str| {
        lab.until_state(name, "running");
        lab.instance(name, 0)["handle"].clone()
    };
    let (first, second) = (handle(&lab, "one"), handle(&lab, "two"));
    // A drop-in changes one of them.
    let drop_ins = lab.root.join("etc/terrarium/apps.d/two.toml.d");
    fs::create_dir(&drop_ins).expect("directory");
    fs::write(drop_ins.join("10-env.toml"), "[env]\nWHO = \"drop-in\"\n").expect("drop-in");
    let says = |lab: &Lab, name: &str| lab.inside(name, "echo $WHO").out;
    lab.until("the drop-in counts", |lab| (says(lab, "two") == "drop-in\n").then_some(()));
    lab.until("the old one is gone", |lab| {
        let view = lab.view("two");
        let all = view["processes"][0]["instances"].as_array()?.clone();
        (all.len() == 1 && all[0]["handle"] != second).then_some(())
    });
    assert_eq!(lab.instance("one", 0)["handle"], first, "the other never noticed");
    // A mistake in it is told with its name, and nothing is deleted meanwhile, not even what has
    // lost its file.
    fs::write(drop_ins.join("20.toml"), "[run]\ninstanses = 3\n").expect("drop-in");
    lab.until("the box is not healthy", |lab| {
        let ran = lab.run(&["status"]);
        let named = ran.out.contains("two.toml.d/20.toml: unknown key `instanses`");
        (ran.code == 3 && named).then_some(())
    });
    // Who looks at the app itself hears of it too, and that what runs is what was said before.
    let broken = fs::read_to_string(&one).expect("manifest") + "\n[run]\nmemry = 3\n";
    let good = fs::read_to_string(&one).expect("manifest");
    fs::write(&one, &broken).expect("manifest");
    let explained = lab.until("it is explained", |lab| {
        let ran = lab.run(&["explain", "one"]);
        ran.out.contains("refused as it is now").then_some(ran.out)
    });
    let line = broken.lines().position(|line| line.contains("memry")).expect("the mistake");
    let at = format!("{}:", one.display());
    assert!(explained.contains(&at) && explained.contains("one is running"), "{explained}");
    assert!(explained.contains("stays as the manifest said before"), "{explained}");
    let shown = lab.ok(&["app", "one"]).out;
    assert!(shown.contains("is not followed as it is now: ") && shown.contains(&at), "{shown}");
    let refused = lab.view("one")["refused"].as_str().expect("a reason").to_owned();
    let place = refused.strip_prefix(&at).expect("the file first");
    let number: usize = place.split(':').next().and_then(|it| it.parse().ok()).expect("a line");
    assert!((line..=line + 1).contains(&number), "{refused}");
    fs::write(&one, good).expect("manifest");
    lab.until("it is followed again", |lab| lab.view("one")["refused"].is_null().then_some(()));
    assert_eq!(lab.instance("one", 0)["handle"], first, "it never noticed");
    fs::remove_file(&one).expect("remove");
    lab.until("it is kept", |lab| lab.daemon_log().contains("app.kept app=one").then_some(()));
    assert_eq!(lab.instance("one", 0)["handle"], first, "it was kept");
    fs::remove_file(drop_ins.join("20.toml")).expect("mend");
    lab.until("it goes now", |lab| (lab.run(&["app", "one"]).code == 4).then_some(()));
    // The next daemon reads the same and changes nothing, after a kill too.
    let before = handle(&lab, "two");
    lab.end_daemon(nix::sys::signal::Signal::SIGKILL);
    lab.serve();
    lab.until("it has looked", |lab| lab.run(&["status"]).out.contains("two").then_some(()));
    assert_eq!(handle(&lab, "two"), before, "a restart is none of its business");
    // A package's file comes, gives way to the owner's, and is masked.
    let vendor = lab.root.join("usr/lib/terrarium/apps.d");
    fs::create_dir_all(&vendor).expect("vendor");
    let text = fs::read_to_string(&two).expect("manifest").replace("\"two\"", "\"vendor\"");
    fs::write(vendor.join("vendor.toml"), text).expect("vendor");
    lab.until_state("vendor", "running");
    let mask = lab.root.join("etc/terrarium/apps.d/vendor.toml");
    std::os::unix::fs::symlink("/dev/null", &mask).expect("mask");
    lab.until("it is masked", |lab| (lab.run(&["app", "vendor"]).code == 4).then_some(()));
    lab.finish();
}

/// Row 82: who has made an app owns it: neither the directory nor a hand takes it from the other.
#[test]
fn an_app_belongs_to_whoever_made_it_until_he_hands_it_over() {
    let lab = Lab::start("owner");
    let by_hand = lab.app("web", "exec sleep 1000\n", SMALL);
    lab.ok(&["apply", &by_hand]);
    let file = lab.declare("web", &by_hand);
    let status = lab.until("the clash is told", |lab| {
        let ran = lab.run(&["status"]);
        (ran.code == 3).then_some(ran.out)
    });
    let said = format!("app web was applied from {by_hand}");
    assert!(status.contains("apps.d/web.toml") && status.contains(&said), "{status}");
    assert_eq!(lab.view("web")["manifest"], *by_hand);
    // Handed over: from now on it is the file's.
    let path = file.to_str().expect("UTF-8").to_owned();
    lab.ok(&["apply", &path]);
    let ran = lab.run(&["apply", &by_hand]);
    assert_eq!(ran.code, 9, "{}", ran.err);
    assert!(ran.err.contains(&path) && ran.err.contains(&by_hand), "{}", ran.err);
    fs::remove_file(&file).expect("remove");
    lab.until("it goes with its file", |lab| (lab.run(&["app", "web"]).code == 4).then_some(()));
    lab.finish();
}

/// The script that instance 0 has been started with.
fn script(lab: &Lab) -> String {
    lab.inside("web", "cat /home/vcap/app/app.sh").out
}

/// Waits until only one instance is left and it runs this script.
fn runs(lab: &Lab, text: &str) {
    lab.until(&format!("it runs {text}"), |lab| {
        let view = lab.view("web");
        let all = view["processes"][0]["instances"].as_array()?.clone();
        let alone = all.len() == 1 && all[0]["state"] == "running";
        (alone && script(lab).contains(text)).then_some(())
    });
}

#[test]
fn an_app_goes_back_to_what_it_was_and_stays_there_over_a_restart() {
    let mut lab = Lab::start("rollback");
    let version = |lab: &Lab, number: u32| {
        let script = format!("# version {number}\nexec sleep 1000\n");
        lab.app("web", &script, SMALL)
    };
    let file = lab.declare("web", &version(&lab, 1));
    lab.until_state("web", "running");
    let path = file.to_str().expect("UTF-8").to_owned();
    for number in [2, 3] {
        version(&lab, number);
        lab.ok(&["apply", &path]);
        runs(&lab, &format!("# version {number}"));
    }
    let revisions = |lab: &Lab| -> serde_json::Value {
        serde_json::from_str(&lab.ok(&["revisions", "web", "--json"]).out).expect("JSON")
    };
    let all = revisions(&lab);
    assert_eq!(all.as_array().map(Vec::len), Some(3), "{all}");
    assert!(all[2]["current"] == true && all[0]["current"] == false, "{all}");
    assert!(all[0]["manifest"].as_str().expect("text").contains("name = \"web\""), "{all}");
    // To the one before, without a staging.
    let ran = lab.ok(&["rollback", "web"]);
    assert!(ran.err.contains("web: revision 4"), "{}", ran.err);
    runs(&lab, "# version 2");
    let handle = lab.instance("web", 0)["handle"].clone();
    // Its file still says what it said, and no daemon takes that for a change.
    lab.end_daemon(nix::sys::signal::Signal::SIGKILL);
    lab.serve();
    lab.until("it has looked", |lab| (lab.view("web")["state"] == "running").then_some(()));
    assert_eq!(lab.instance("web", 0)["handle"], handle, "it stays");
    assert_eq!(revisions(&lab)[3]["why"], "rollback to 2");
    // Further back, by number; what is not kept is told.
    lab.ok(&["rollback", "web", "--to", "1"]);
    runs(&lab, "# version 1");
    let ran = lab.run(&["rollback", "web", "--to", "77"]);
    assert!(
        ran.code == 4 && ran.err.contains("no revision 77; it has 1, 2, 3, 4, 5"),
        "{}",
        ran.err
    );
    // The file counts again as soon as somebody applies it.
    lab.ok(&["apply", &path]);
    runs(&lab, "# version 3");
    assert_eq!(lab.run(&["revisions", "nobody"]).code, 4);
    // Staged again though nothing has changed: a fresh instance.
    let before = lab.instance("web", 0)["handle"].clone();
    let ran = lab.ok(&["restage", "web"]);
    assert!(ran.out.contains("Staging complete"), "{}{}", ran.out, ran.err);
    lab.until("a fresh one runs", |lab| {
        let view = lab.view("web");
        let all = view["processes"][0]["instances"].as_array()?.clone();
        (all.len() == 1 && all[0]["state"] == "running" && all[0]["handle"] != before).then_some(())
    });
    lab.finish();
}

#[test]
fn a_task_of_an_app_runs_once_where_and_as_the_app_would() {
    let lab = Lab::start("run-task");
    let manifest = format!(
        "{SMALL}\n[env]\nWHO = \"the app\"\n\n[sidecar.relay]\ncommand = \"exec sleep 1000\"\nmemory = \
         \"8MiB\"\n"
    );
    lab.ok(&["apply", &lab.app("web", "exec sleep 1000\n", &manifest)]);
    let command = "echo task of $WHO with $MEMORY_LIMIT as $(id -un); ls app.sh";
    let ran = lab.ok(&["run-task", "web", "--wait", "-m", "16M", "--", command]);
    let said = ["task of the app with 16m as vcap", "app.sh"];
    assert!(said.iter().all(|it| ran.out.contains(it)), "{}", ran.out);
    let guid = ran.out.lines().next().expect("a guid").to_owned();
    assert!(lab.ok(&["task", &guid]).out.contains("completed"));
    // Its words are the app's own, and stay when it is forgotten.
    assert!(!lab.logged("web", "task of the app").is_empty());
    // Its sidecars have no part of a Task's memory, and VCAP_APPLICATION tells the same.
    let command = "echo $MEMORY_LIMIT of a task; echo $VCAP_APPLICATION";
    for (flags, limit, facts) in [
        (&[][..], "32m of a task", r#""limits":{"disk":32,"fds":16384,"mem":32}"#),
        (
            &["-m", "24M", "-k", "48M"],
            "24m of a task",
            r#""limits":{"disk":48,"fds":16384,"mem":24}"#,
        ),
    ] {
        let ran = lab.ok(&[&["run-task", "web", "-w"], flags, &["--", command]].concat());
        assert!(ran.out.contains(limit) && ran.out.contains(facts), "{flags:?}: {}", ran.out);
    }
    let ran = lab.run(&["run-task", "web", "-w", "--", "exit 7"]);
    assert!(ran.code == 3 && ran.err.contains("Exited with status 7"), "{} {}", ran.code, ran.err);
    assert_eq!(lab.run(&["run-task", "nobody", "true"]).code, 4);
    // One that goes on ends with its app.
    let ran = lab.ok(&["run-task", "web", "sleep 1000"]);
    let guid = ran.out.trim().to_owned();
    lab.until("it runs", |lab| lab.run(&["task", &guid]).out.contains("running").then_some(()));
    lab.ok(&["delete", "web"]);
    lab.until("it was ended", |lab| {
        let out = lab.run(&["task", &guid]).out;
        (out.contains("failed") && out.contains("cancelled")).then_some(())
    });
    lab.finish();
}

/// Row 88: what `import` writes is taken by `check` and runs. Row 90: and the app is told of its
/// services.
#[test]
fn row_88_an_imported_manifest_of_cf_runs_and_row_90_it_knows_its_services() {
    let lab = Lab::start("import");
    let script = "echo limit=$MEMORY_LIMIT url=$DATABASE_URL\nenv\nexec sleep 1000\n";
    lab.app("web", script, SMALL);
    let dir = lab.root.join("src");
    let manifest = "---\nsizes: &sizes\n  memory: 32M\n  disk_quota: 32M\napplications:\n- <<: *sizes\n  \
                    name: Web_App\n  path: web\n  stack: tiny\n  buildpacks: [procfile_buildpack]\n  \
                    health-check-type: process\n  env: {WHO: ((who))}\n  routes:\n  - route: \
                    web.example.org\n  services:\n  - db\n  sidecars:\n  - {name: relay, command: exec sleep 1000, memory: 8M}\n";
    fs::write(dir.join("manifest.yml"), manifest).expect("manifest");
    let services =
        "[db]\nlabel = \"postgresql\"\ncredentials.uri = \"postgresql://u:p@10.0.0.5/x\"\n";
    fs::write(dir.join("services.toml"), services).expect("services");
    let (from, known) = (dir.join("manifest.yml"), dir.join("services.toml"));
    let apps = lab.root.join("etc/terrarium/apps.d");
    let words = [from.as_path(), known.as_path(), apps.as_path()];
    let [from, known, to] = words.map(|path| path.to_str().expect("UTF-8"));
    let ran = lab.run(&["import", from, "-o", to]);
    assert_eq!(ran.code, 5, "{}", ran.out);
    assert!(ran.err.contains("manifest.yml:12: variable ((who)) has no value"), "{}", ran.err);
    let args = ["import", from, "--var", "who=me", "--services", known, "-o", to];
    let ran = lab.ok(&args);
    for note in [
        "web-app.toml: written",
        "`Web_App` is called `web-app` here",
        "buildpack procfile_buildpack: is called procfile here",
        "line 14: route web.example.org: no names are routed here; it is port 8080",
    ] {
        assert!(ran.out.contains(note), "{note}\n{}", ran.out);
    }
    let again = lab.run(&args);
    assert!(again.code == 1 && again.err.contains("--force"), "{}", again.err);
    lab.ok(&["check", apps.join("web-app.toml").to_str().expect("UTF-8")]);
    lab.until_state("web-app", "running");
    let told = "limit=24m url=postgres://u:p@10.0.0.5/x";
    lab.until("it tells", |lab| (!lab.logged("web-app", told).is_empty()).then_some(()));
    let line = lab.logged("web-app", "VCAP_APPLICATION=").remove(0);
    let json = line.split_once("VCAP_APPLICATION=").expect("a value").1;
    let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
    for key in ["uris", "application_uris"] {
        assert_eq!(json[key], serde_json::json!(["web.example.org"]), "{json}");
    }
    let line = lab.logged("web-app", "VCAP_SERVICES=").remove(0);
    let json = line.split_once("VCAP_SERVICES=").expect("a value").1;
    let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(json["postgresql"][0]["instance_name"], "db", "{json}");
    assert!(!lab.logged("web-app", "WHO=me").is_empty());
    lab.finish();
}

/// A member of the group may push what root's daemon is not told to read: it comes over the socket.
#[test]
fn a_directory_is_pushed_with_cfs_letters_and_kept_for_the_next_staging() {
    let mut lab = Lab::start("push");
    lab.app("shop", "# first\nexec sleep 1000\n", SMALL);
    let dir = lab.root.join("src/shop");
    fs::write(
        dir.join("terrarium.toml"),
        format!("name = \"other\"\n[source]\npath = \".\"\n{SMALL}"),
    )
    .expect("manifest");
    fs::write(dir.join(".cfignore"), "*.log\n").expect("ignore");
    fs::write(dir.join("big.log"), "not sent").expect("log");
    let path = dir.to_str().expect("UTF-8");
    let staged = ["push", path, "-n", "shop", "-b", "procfile", "-s", "tiny", "-m", "24M"];
    // Not started: it is there, and nothing of it is staged.
    let ran = lab.ok(&[&staged[..], &["--no-start"]].concat());
    assert!(ran.err.contains("shop: there, and not started"), "{}", ran.err);
    assert_eq!(lab.view("shop")["state"], "stopped");
    let ran = lab.ok(&[&staged[..], &["-i", "2"]].concat());
    assert!(ran.out.contains("Staging complete"), "{}{}", ran.out, ran.err);
    let view = lab.until_state("shop", "running");
    let web = &view["processes"][0];
    assert_eq!((&web["desired"], &web["memory_bytes"]), (&2.into(), &(24 << 20).into()), "{view}");
    let ls = lab.inside("shop", "ls -a /home/vcap/app").out;
    assert!(ls.contains("app.sh") && !ls.contains("big.log") && !ls.contains(".cfignore"), "{ls}");
    a_process_of_the_droplet_alone_is_scaled(&lab, &dir, &staged);
    what_was_scaled_is_kept_by_what_is_pushed(&lab, &dir, &staged);
    // What the box cannot build is refused before it is sent.
    let ran = lab.run(&["push", path, "-n", "bad", "-b", "nosuch"]);
    assert!(ran.code == 5 && !ran.err.contains("sending"), "{} {}", ran.code, ran.err);
    // What was sent is kept, apart from what is typed: it is staged again though that is gone.
    let sources = lab.root.join("var/lib/terrarium/sources/shop");
    fs::remove_dir_all(&dir).expect("remove");
    let ran = lab.ok(&["restage", "shop"]);
    assert!(ran.out.contains("Staging complete"), "{}{}", ran.out, ran.err);
    // What comes in when the daemon is killed is no source of the next one.
    fs::create_dir(sources.join("9.new")).expect("half of one");
    lab.end_daemon(nix::sys::signal::Signal::SIGKILL);
    lab.serve();
    lab.until("it is removed", |_| (!sources.join("9.new").exists()).then_some(()));
    assert!(sources.join("1").is_dir(), "the one that it runs from stays");
    lab.ok(&["restage", "shop"]);
    lab.ok(&["delete", "shop"]);
    assert!(!sources.exists(), "it goes with its app");
    let ran = lab.run(&["push", path, "-n", "shop"]);
    assert!(ran.code == 1 && ran.err.contains("cannot push"), "{} {}", ran.code, ran.err);
    lab.finish();
}

/// What runs and is never ready is told as such, with the reason and within the app's own time; the same of
/// what takes over from it, which has no version to go back to and would be waited for without an end.
#[test]
fn a_push_ends_when_its_app_is_not_ready_in_its_time() {
    let lab = Lab::start("neverready");
    lab.app("web", "exec sleep 1000\n", SMALL);
    let dir = lab.root.join("src/web");
    let manifest = |who: &str| {
        let text = format!(
            "name = \"web\"\n[source]\npath = \".\"\n[build]\nstack = \"tiny\"\nbuildpacks = \
             [\"procfile\"]\n{SMALL}start_timeout = \"2s\"\n[readiness]\ntype = \"exec\"\n\
             command = \"test -e /tmp/ready || {{ echo no flag; exit 1; }}\"\n\
             interval = {{ unhealthy = \"100ms\" }}\n[env]\nWHO = \"{who}\"\n"
        );
        fs::write(dir.join("terrarium.toml"), text).expect("manifest");
    };
    let path = dir.to_str().expect("UTF-8");
    for (who, next) in [("one", "connections are led"), ("two", "the version before serves")] {
        manifest(who);
        let ran = lab.run(&["push", path]);
        assert_eq!(ran.code, 3, "{}{}", ran.out, ran.err);
        assert!(
            ran.err.contains("web: waits until instance web/0 is ready, 2s at most"),
            "{}",
            ran.err
        );
        let why = "app web runs and is not ready: instance web/0 was not ready within 2s \
                   (`start_timeout`): ";
        let is_told = [why, next].iter().all(|text| ran.err.contains(text));
        assert!(is_told && !ran.err.contains("answers at"), "{}", ran.err);
    }
    // Its time is over: nobody is made to wait again. On a busy box the check may not have said anything yet.
    lab.until("the check has said why", |lab| {
        let ran = lab.run(&["push", path]);
        let is_told = ran.err.contains("runs and is not ready");
        assert!(ran.code == 3 && is_told, "{} {}", ran.code, ran.err);
        ["the probe said: ", "no flag"].iter().all(|text| ran.err.contains(text)).then_some(())
    });
    who_is_overtaken_is_told_so(&lab, path);
    // What was pushed and cannot be staged is mended where it was pushed from: here is a copy.
    lab.buildpack("picky", "echo it is broken; exit 1");
    let ran = lab.run(&["push", path, "-n", "broken", "-b", "picky"]);
    assert!(
        ran.code == 1 && ran.err.contains("cannot stage app broken"),
        "{} {}",
        ran.code,
        ran.err
    );
    let said = lab.run(&["explain", "broken"]).out;
    assert!(
        said.contains("`terrarium push` it again") && !said.contains("terrarium start"),
        "{said}"
    );
    lab.finish();
}

/// Row 72: a type of the Procfile that no manifest names has no instance until it is scaled; it keeps those
/// over a droplet that does not have it.
fn a_process_of_the_droplet_alone_is_scaled(lab: &Lab, dir: &std::path::Path, push: &[&str]) {
    let procfile = |worker: &str| {
        fs::write(dir.join("Procfile"), format!("web: sh app.sh\n{worker}")).expect("Procfile");
        lab.ok(push)
    };
    let worker = |lab: &Lab| {
        let view = lab.view("shop");
        let all = view["processes"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|it| it["name"] == "worker").unwrap_or_default()
    };
    let runs = |lab: &Lab| {
        lab.until("the worker runs", |lab| (worker(lab)["running"] == 1).then_some(()));
    };
    let line = "worker: echo at work; exec sleep 1000\n";
    let ran = procfile(line);
    assert!(ran.out.contains("does not name the process types worker"), "{}", ran.out);
    assert_eq!(
        (&worker(lab)["desired"], &worker(lab)["command"]),
        (&0.into(), &line[8..].trim().into())
    );
    assert!(lab.ok(&["app", "shop"]).out.contains("worker: 0 of 0 running"));
    lab.ok(&["scale", "shop:worker=1"]);
    runs(lab);
    let ran = procfile("");
    assert!(ran.out.contains("no process type `worker` any more, of which 1 are"), "{}", ran.out);
    let does = |command: &str| {
        lab.until("it runs that", |lab| {
            let worker = worker(lab);
            (worker["command"] == command && worker["running"] == 1).then_some(())
        });
    };
    does("sh app.sh");
    procfile(line);
    does(line[8..].trim());
    let revisions = lab.ok(&["revisions", "shop", "--json"]).out;
    let revisions: serde_json::Value = serde_json::from_str(&revisions).expect("JSON");
    let last = revisions.as_array().and_then(|all| all.last()).expect("one");
    assert_eq!((&last["why"], &last["changed"]), (&"push".into(), &serde_json::json!(["droplet"])));
}

/// One that changes nothing, one that cannot be staged, and one that has something new; until somebody types
/// another number.
fn what_was_scaled_is_kept_by_what_is_pushed(lab: &Lab, dir: &std::path::Path, push: &[&str]) {
    let web = |lab: &Lab| {
        let view = lab.view("shop");
        let all = view["processes"].as_array().cloned().unwrap_or_default();
        let web = all.into_iter().find(|it| it["name"] == "web").unwrap_or_default();
        let of = |one: &serde_json::Value| one["handle"].as_str().map(str::to_owned);
        let handles: Vec<_> = web["instances"].as_array().into_iter().flatten().map(of).collect();
        (web["desired"].as_u64(), web["running"].as_u64(), handles)
    };
    let runs = |count: u64| {
        lab.until(&format!("{count} run"), |lab| {
            let web = web(lab);
            let all = web.2.len() as u64 == count;
            ((web.0, web.1) == (Some(count), Some(count)) && all).then_some(web.2)
        })
    };
    lab.ok(&["scale", "shop=2"]);
    let before = runs(2);
    let ran = lab.ok(push);
    assert!(ran.err.contains("nothing changed, so nothing was done"), "{}", ran.err);
    assert_eq!(web(lab), (Some(2), Some(2), before.clone()));
    // Nothing says how `web` starts.
    let procfile = dir.join("Procfile");
    let good = fs::read_to_string(&procfile).expect("Procfile");
    fs::write(&procfile, "clock: exec sleep 1000\n").expect("Procfile");
    let ran = lab.run(push);
    assert!(ran.code != 0 && ran.out.contains("Staging failed"), "{}{}", ran.out, ran.err);
    assert_eq!(web(lab), (Some(2), Some(2), before.clone()));
    fs::write(&procfile, good).expect("Procfile");
    lab.ok(&[push, &["-k", "40M"]].concat());
    assert_ne!(runs(2), before);
    // A number that is typed counts, also when it is that which the manifest has had all the time.
    let ran = lab.ok(&[push, &["-k", "40M", "-i", "1"]].concat());
    let said = "nothing changed but the number of instances, 1 instead of 2";
    assert!(ran.err.contains(said), "{}", ran.err);
    runs(1);
}

/// It waits for what is never ready, and what comes meanwhile runs at once: that is not what was pushed.
fn who_is_overtaken_is_told_so(lab: &Lab, unready: &str) {
    lab.app("good", "exec sleep 1000\n", SMALL);
    let good = lab.root.join("src/good");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| lab.run(&["push", unready, "-n", "over", "-t", "600"]));
        lab.until("it waits", |lab| {
            let view = lab.view("over");
            let one = &view["processes"][0]["instances"][0];
            (one["ready"] == false).then_some(())
        });
        let to = good.to_str().expect("UTF-8");
        lab.ok(&["push", to, "-n", "over", "-b", "procfile", "-s", "tiny", "-u", "process"]);
        let first = first.join().expect("no panic");
        let is_told = first.err.contains("app over was declared anew before this was done");
        assert!(first.code == 9 && is_told, "{} {}", first.code, first.err);
        assert!(!first.err.contains("answers at"), "{}", first.err);
    });
    lab.ok(&["delete", "over"]);
}

/// An image of busybox that serves, in the box's store under this name.
fn stored(lab: &Lab, name: &str) {
    let dir = lab.root.join("image");
    fs::create_dir_all(&dir).expect("directory");
    let layout = super::docker::layout(&dir, &[]);
    lab.ok(&["image", "load", layout.to_str().expect("UTF-8"), "--name", name]);
}

/// Row 88: disk and command as they were typed, and an image in the place of a directory.
#[test]
fn row_88_disk_command_and_images_are_pushed_by_cfs_letters() {
    let lab = Lab::start("push-more");
    lab.app("shop", "exec sleep 1000\n", SMALL);
    let dir = lab.root.join("src/shop");
    // Its source is where it is, and its port one that the box gives it (D107).
    fs::write(dir.join("terrarium.toml"), format!("name = \"shop\"\n{SMALL}\n[[port]]\n"))
        .expect("manifest");
    let path = dir.to_str().expect("UTF-8");
    let typed = "echo typed: $0; exec sleep 1000";
    let ran = lab.ok(&["push", path, "-b", "procfile", "-s", "tiny", "-k", "48M", "-c", typed]);
    assert!(ran.err.contains("shop: gets port 8080 of the box"), "{}", ran.err);
    let view = lab.until_state("shop", "running");
    assert_eq!(view["processes"][0]["disk_bytes"], 48 << 20, "{view}");
    lab.until("it says so", |lab| (!lab.logged("shop", "typed: ").is_empty()).then_some(()));
    lab.ok(&["delete", "shop"]);

    stored(&lab, "lab/app");
    // Without a manifest and a port it gets one of the box, and whoever has pushed it is told.
    let ran = lab.ok(&["push", "lab/app:one", "-n", "whole", "-m", "64M", "-k", "96M"]);
    for note in ["whole: gets port 8080 of the box", "whole: answers at http://127.0.0.1:8080"] {
        assert!(ran.err.contains(note), "{note}: {}", ran.err);
    }
    lab.until_state("whole", "running");
    let said = lab.until("it answers", |_| super::lab::get("127.0.0.1", 8080));
    assert_eq!(said, "0\n0\n/\nhello image 9000 1a b\n", "{}{}", ran.out, ran.err);
    // The image is part of its disk: what is too little is refused, and what is said to do does.
    let tight =
        |disk: &str| lab.run(&["push", "lab/app:one", "-n", "whole", "-m", "64M", "-k", disk]);
    let ran = tight("1M");
    let told = format!("{}{}", ran.out, ran.err);
    assert!(ran.code == 1 && told.contains("-k for `disk`"), "{told}");
    let least = told.split(" or more as `disk`").next().and_then(|it| it.rsplit(' ').next());
    let least = least.filter(|it| it.ends_with("MiB")).unwrap_or_else(|| panic!("{told}"));
    let ran = tight(least.trim_end_matches("iB"));
    assert_eq!(ran.code, 0, "{least}: {}{}", ran.out, ran.err);
    // It keeps its port, also when it is pushed again while it is stopped; by hand it gets another, or none.
    assert!(!ran.err.contains("gets port") && ran.err.contains("at http://127.0.0.1:8080\n"));
    lab.ok(&["stop", "whole"]);
    let claims = |more: &[&str]| {
        lab.ok(&[&["push", "lab/app:one", "-n", "whole", "-k", "96M", "--no-start"], more].concat());
        lab.view("whole")["claims"].as_array().cloned().unwrap_or_default()
    };
    assert_eq!(claims(&[]), [8080]);
    assert!(claims(&["--port", "8002"]).contains(&8002.into()));
    lab.ok(&["delete", "whole"]);
    // Of several who push at one moment each gets the port that it is told (D105). They need not meet: that
    // who loses tries again, `cli::tests::push` shows with rivals that always come first.
    let names = ["one", "two", "three", "four"];
    let push = |name: &'static str| {
        lab.ok(&["push", "lab/app:one", "-n", name, "-k", "96M", "--no-start"]).err
    };
    let said = std::thread::scope(|scope| {
        names.map(|name| scope.spawn(move || push(name))).map(|it| it.join().expect("a push"))
    });
    let mut given: Vec<u64> = Vec::new();
    for (name, said) in names.iter().zip(&said) {
        let port = lab.view(name)["published"][0].as_u64().expect("a port");
        assert!(said.contains(&format!("{name}: gets port {port} of the box")), "{said}");
        given.push(port);
        lab.ok(&["delete", name]);
    }
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), names.len(), "{said:?}");
    lab.finish();
}

/// Row 88: a manifest.yml with what many have: an image, an HTTP check, a worker, a route of TCP.
#[test]
fn row_88_a_manifest_of_many_kinds_is_pushed_and_runs() {
    let lab = Lab::start("push-wild");
    lab.app("shop", super::WEB, SMALL);
    stored(&lab, "lab/app");
    let dir = lab.root.join("src/shop");
    let manifest = "\
---
applications:
- name: shop
  memory: 32M
  disk_quota: 48M
  stack: tiny
  buildpacks: [binary_buildpack]
  health-check-type: http
  health-check-http-endpoint: /index.html
  routes:
  - route: tcp.example.org:8003
    protocol: tcp
  processes:
  - type: worker
    command: echo at work; exec sleep 1000
    instances: 1
    memory: 32M
    disk_quota: 48M
- name: whole
  memory: 64M
  disk_quota: 96M
  docker:
    image: lab/app:one
";
    fs::write(dir.join("manifest.yml"), manifest).expect("manifest");
    let ran = lab.ok(&["push", dir.to_str().expect("UTF-8")]);
    let told = format!("{}{}", ran.out, ran.err);
    let shop = lab.until_state("shop", "running");
    let of = |name: &str| {
        let mut all = shop["processes"].as_array().expect("a list").iter();
        let found = all.find(|it| it["name"] == name).cloned();
        found.unwrap_or_else(|| panic!("{name}: {shop:#}"))
    };
    assert_eq!((&of("worker")["desired"], &of("web")["desired"]), (&1.into(), &1.into()));
    lab.until("the worker works", |lab| (!lab.logged("shop", "at work").is_empty()).then_some(()));
    lab.until("its route answers", |_| {
        super::lab::get("127.0.0.1", 8003).filter(|said| said.starts_with("instance 0 of"))
    });
    lab.until_state("whole", "running");
    let said = lab.until("the image answers", |_| {
        super::lab::get("127.0.0.1", 8080).filter(|said| said.contains("hello image"))
    });
    assert_eq!(said, "0\n0\n/\nhello image 9000 1a b\n", "{told}");
    // Another one gets the next port; who asks for the same is told of the flag.
    let next = lab.root.join("src/next");
    fs::create_dir_all(&next).expect("directory");
    let second = "applications:\n- {name: next, memory: 64M, docker: {image: lab/app:one}}\n";
    fs::write(next.join("manifest.yml"), second).expect("manifest");
    let next = next.to_str().expect("UTF-8");
    let ran = lab.run(&["push", next, "--port", "8080"]);
    assert!(ran.code == 9 && ran.err.contains("8080 is published by app whole"), "{}", ran.err);
    assert!(ran.err.contains("that is --port (or --no-route) for `publish`"), "{}", ran.err);
    assert!(!ran.err.contains("gets port"), "{}", ran.err);
    // Nor may it have that of a program of the box, which is named with the cure.
    let program = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = program.local_addr().expect("its address").port().to_string();
    let ran = lab.run(&["push", next, "--port", &port]);
    let named = format!("(pid {}), a program of this box, listens on it", std::process::id());
    for said in
        [&*named, "stop that, or write another", "that is --port (or --no-route) for `publish`"]
    {
        assert!(ran.code == 9 && ran.err.contains(said), "{said}: {}", ran.err);
    }
    let ran = lab.ok(&["push", next]);
    assert!(ran.err.contains("next: gets port 8081 of the box"), "{}", ran.err);
    lab.until("the next one answers", |_| super::lab::get("127.0.0.1", 8081));
    lab.ok(&["delete", "next"]);
    lab.ok(&["delete", "shop"]);
    lab.ok(&["delete", "whole"]);
    lab.finish();
}
