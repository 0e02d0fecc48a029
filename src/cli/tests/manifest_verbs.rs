//! apply and check: manifests, and what is wrong with them.

use super::World;

#[test]
fn apply_shows_staging_and_then_the_app() {
    let world = World::new(&[]);
    let file = world.file("web.toml", "name = \"web\"\nsource.path = \".\"\n");
    let (code, out, err) = world.run(&format!("apply {}", file.display()));
    assert_eq!(code, 0, "{err}");
    assert!(
        out.starts_with("1970-01-01T00:00:01.000Z [STG/0] OUT -----> procfile\nname "),
        "{out}"
    );
    assert_eq!(err, "web: staging\nweb: starting\n");
    assert_eq!(world.fake.calls(), [format!("apply web {} wait=true", file.display())]);
    for (text, code, message) in [
        ("# broken", 1, "terrarium: cannot stage app web; the log above says why\n"),
        ("# conflict", 9, "port 8080 is taken by `other`"),
        ("# crash", 3, ""),
    ] {
        let file =
            world.file("web.toml", &format!("name = \"web\"\nsource.path = \".\"\n{text}\n"));
        let (got, _, err) = world.run(&format!("apply {}", file.display()));
        assert_eq!(got, code, "{text}: {err}");
        assert!(err.contains(message), "{err}");
    }
}

/// One that is not ready is no reason to leave the next one out; one that cannot be staged is.
#[test]
fn one_that_does_not_run_keeps_no_other_one_from_its_turn() {
    let world = World::new(&[]);
    let write = |name: &str, rest: &str| {
        let text = format!("name = \"{name}\"\nsource.path = \".\"\n{rest}\n");
        world.file(&format!("{name}.toml"), &text).display().to_string()
    };
    let (a, b, c) = (write("a", "# unready"), write("b", ""), write("c", "# unready"));
    let (code, out, err) = world.run(&format!("apply {a} {b} {c}"));
    assert_eq!(code, 3, "{err}");
    for said in ["terrarium: app a runs and is not ready\n", "terrarium: app c runs and is not"] {
        assert_eq!(err.matches(said).count(), 1, "{err}");
    }
    assert!(out.contains("name "), "b is shown: {out}");
    let applied = |world: &World| {
        let calls = world.fake.calls();
        calls.iter().filter(|call| call.starts_with("apply ")).count()
    };
    assert_eq!(applied(&world), 3);
    let a = write("a", "# broken");
    assert_eq!(world.run(&format!("apply {a} {b}")).0, 1);
    assert_eq!(applied(&world), 4, "it ends there");
}

#[test]
fn nothing_is_applied_when_any_manifest_is_invalid() {
    let world = World::new(&[]);
    world.file("a.toml", "name = \"a\"\nsource.path = \".\"\n");
    let bad = world.file("b.toml", "nme = \"b\"\n");
    let dir = world.dir.path().display();
    let (code, out, err) = world.run(&format!("apply {dir}"));
    assert_eq!((code, out.as_str()), (5, ""));
    assert!(err.contains(&format!("{}:1:1", bad.display())), "{err}");
    assert!(err.ends_with("1 of 2 manifests are invalid; nothing was changed\n"), "{err}");
    let (code, _, err) = world.run(&format!("apply {dir}/a.toml {dir}/a.toml"));
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("`a` stands in"), "{err}");
    assert!(world.fake.calls().is_empty());
}

#[test]
fn check_looks_at_the_box_and_needs_no_daemon() {
    let world = World::new(&[]);
    let root = world.dir.path().join("box");
    for dir in ["usr/lib/terrarium/stacks", "usr/lib/terrarium/buildpacks/procfile"] {
        std::fs::create_dir_all(root.join(dir)).expect("directory");
    }
    world.file("box/usr/lib/terrarium/stacks/edgefs.tar.zst", "");
    world.file("a.toml", "name = \"a\"\nsource.path = \".\"\n");
    let bad = "name = \"b\"\nsource.path = \"none\"\nbuild.stack = \"x\"\n";
    let bad = world.file("b.toml", &format!("{bad}build.buildpacks = [\"procfile\", \"y\"]\n"));
    world.file("c.toml", "name = \"c\"\nsource.path = \".\"\nrun.instances = 1000\n");
    std::fs::create_dir_all(root.join("etc/terrarium")).expect("directory");
    world.file("box/etc/terrarium/terrarium.toml", "[cell]\nmemory = \"8GiB\"\n");
    let dir = world.dir.path().display();
    let check = |rest: &str| world.run(&format!("--root {} check {rest}", root.display()));
    let (code, out, err) = check(&format!("{dir}"));
    assert_eq!((code, out), (5, format!("{dir}/a.toml: ok\n{dir}/c.toml: ok\n")), "{err}");
    for (place, text) in [
        ("2:15", "none is not there"),
        ("3:15", "stack `x` is not on this box"),
        ("4:33", "this box has no buildpack `y`"),
    ] {
        assert!(err.contains(&format!("{}:{place}", bad.display())), "{err}");
        assert!(err.contains(text), "{err}");
    }
    assert!(err.contains("warning: all instances together need 250GiB of memory"), "{err}");
    let (code, out, _) = check(&format!("--json {dir}/b.toml {dir}/c.toml"));
    let report: serde_json::Value = serde_json::from_str(&out).expect("json");
    assert_eq!((code, &report[0]["mistakes"][0]["line"]), (5, &2.into()), "{report}");
    assert_eq!(report[1]["warnings"][0]["line"], 3, "{report}");
    assert_eq!(check(&format!("{dir}/none.toml")).0, 1);
}

#[test]
fn a_manifest_that_is_not_text_is_invalid_and_a_bad_configuration_is_shown_once() {
    let world = World::new(&[]);
    let path = world.dir.path().join("a.toml");
    std::fs::write(&path, b"name = \"a\"\n# caf\xe9\n").expect("file");
    for verb in ["check", "apply"] {
        let root = world.dir.path().display();
        let (code, _, err) = world.run(&format!("--root {root} {verb} {}", path.display()));
        assert_eq!(code, 5, "{err}");
        assert!(err.contains("this is not UTF-8 text") && err.contains("a.toml:2:6"), "{err}");
    }
    std::fs::create_dir_all(world.dir.path().join("etc/terrarium")).expect("directory");
    world.file("etc/terrarium/terrarium.toml", "colour = 1\n");
    let root = world.dir.path().display();
    let (code, _, err) = world.run(&format!("--root {root} check {}", path.display()));
    assert_eq!(code, 1);
    assert_eq!(err.matches("colour`").count(), 1, "{err}");
    assert!(
        err.ends_with("terrarium: the configuration of the box is invalid; nothing was done\n")
    );
}

#[test]
fn what_the_daemon_finds_in_a_manifest_looks_like_what_we_find() {
    let world = World::new(&[]);
    let file = world.file("web.toml", "name = \"web\"\nsource.path = \".\"\n# unfit\n");
    let (code, _, err) = world.run(&format!("apply {}", file.display()));
    assert_eq!(code, 5);
    let expected = "error: stack `x` is not on this box\n --> web.toml:3:9\n\
                    terrarium: the manifest is invalid; nothing was changed\n";
    assert_eq!(err, expected);
    let good = world.file("good.toml", "name = \"good\"\nsource.path = \".\"\n");
    let (code, _, err) = world.run(&format!("apply {} {}", good.display(), file.display()));
    assert_eq!(code, 5);
    assert!(err.ends_with("1 of 2 manifests are invalid; nothing was changed\n"), "{err}");
    assert!(world.fake.calls().is_empty(), "the good one is not applied either");
}

#[test]
fn manifests_that_ask_for_one_port_are_refused_before_any_is_applied() {
    let world = World::new(&[]);
    let app = |name: &str, port: u16| {
        let text = format!("name = \"{name}\"\nsource.path = \".\"\n[[port]]\npublish = {port}\n");
        world.file(&format!("{name}.toml"), &text).display().to_string()
    };
    let (one, two) = (app("one", 9000), app("two", 9000));
    let (code, _, err) = world.run(&format!("apply --no-wait {one} {two}"));
    assert_eq!(code, 5, "{err}");
    let said =
        format!("port 9000 of the box stands in {one}:4:11 and in {two}:4:11; write another");
    assert!(err.contains(&said), "{err}");
    assert!(world.fake.calls().is_empty(), "{:?}", world.fake.calls());
    // What `apply` refuses, `check` does, too.
    let root = world.dir.path().join("box");
    for dir in ["usr/lib/terrarium/stacks", "usr/lib/terrarium/buildpacks/procfile"] {
        std::fs::create_dir_all(root.join(dir)).expect("directory");
    }
    world.file("box/usr/lib/terrarium/stacks/edgefs.tar.zst", "");
    let check = |files: &str| world.run(&format!("--root {} check {files}", root.display()));
    let (code, _, err) = check(&format!("{one} {two}"));
    assert!(code == 5 && err.contains(&said), "{code} {err}");
    let (code, _, err) = check(&format!("{one} {one}"));
    assert!(code == 5 && err.contains("`one` stands in"), "{code} {err}");
    let two = app("two", 9001);
    let (code, _, err) = check(&format!("{one} {two}"));
    assert_eq!(code, 0, "{err}");
    assert_eq!(world.run(&format!("apply --no-wait {one} {two}")).0, 0);
}
