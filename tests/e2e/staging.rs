//! Staging: buildpacks, their output, their failures, the droplet.

use super::lab::{Lab, get};
use super::{PORT, WEB};
use std::fs;

#[test]
fn a_failing_buildpack_shows_its_own_output_and_the_container_is_gone() {
    let lab = Lab::start("failing");
    let pack = lab.root.join("packs/broken/bin");
    fs::create_dir_all(&pack).expect("buildpack");
    for (name, text) in [
        ("detect", "#!/bin/sh\necho broken\n"),
        (
            "compile",
            "#!/bin/sh\necho '-----> looking for a gizmo'\necho 'no gizmo here' >&2\nexit 3\n",
        ),
        ("release", "#!/bin/sh\necho '--- {}'\n"),
    ] {
        write_script(&pack.join(name), text);
    }
    let packs = lab.root.join("usr/lib/terrarium/buildpacks");
    fs::remove_file(&packs).expect("unlink");
    std::os::unix::fs::symlink(lab.root.join("packs"), &packs).expect("link");
    let manifest = lab.app("bad", WEB, PORT).replace("procfile", "broken");
    let text = fs::read_to_string(&manifest).expect("manifest").replace("procfile", "broken");
    fs::write(&manifest, text).expect("manifest");
    let ran = lab.run(&["apply", &manifest]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let all = format!("{}{}", ran.out, ran.err);
    assert!(all.contains("looking for a gizmo") && all.contains("no gizmo here"), "{all}");
    assert!(all.contains("failed to compile the droplet"), "{all}");
    assert!(lab.logged("bad", "[STG/0] ERR no gizmo here").len() == 1);
    let view = lab.view("bad");
    assert_eq!(view["state"], "failed");
    assert!(view["reason"].as_str().expect("a reason").contains("status 223"), "{view}");
    lab.assert_empty();
    lab.finish();
}

#[test]
fn any_buildpack_of_the_protocol_works_and_its_cache_is_kept() {
    let lab = Lab::start("protocol");
    let pack = lab.root.join("packs/mine/bin");
    fs::create_dir_all(&pack).expect("buildpack");
    for (name, text) in [
        ("detect", "#!/bin/sh\ntest -f \"$1/app.sh\" && echo Mine\n"),
        (
            "compile",
            "#!/bin/sh\nset -e\nn=$(cat \"$2/count\" 2>/dev/null || echo 0)\n\
             echo $((n+1)) > \"$2/count\"\necho \"-----> build $((n+1))\"\n\
             mkdir -p \"$1/www\"\necho compiled > \"$1/www/index.html\"\n",
        ),
        (
            "release",
            "#!/bin/sh\nprintf -- '---\\ndefault_process_types:\\n  web: busybox httpd -f -p $PORT -h www\\n'\n",
        ),
    ] {
        write_script(&pack.join(name), text);
    }
    let packs = lab.root.join("usr/lib/terrarium/buildpacks");
    fs::remove_file(&packs).expect("unlink");
    std::os::unix::fs::symlink(lab.root.join("packs"), &packs).expect("link");
    let path = lab.app("web", "true\n", PORT);
    fs::remove_file(lab.root.join("src/web/Procfile")).expect("no Procfile");
    let text = fs::read_to_string(&path).expect("manifest").replace("procfile", "mine");
    fs::write(&path, text).expect("manifest");
    let first = lab.ok(&["apply", &path]);
    assert!(first.out.contains("-----> build 1"), "{}", first.out);
    let view = lab.until_state("web", "running");
    assert_eq!(view["buildpack"], "mine");
    let port = view["processes"][0]["instances"][0]["ports"][0]["host"].as_u64().expect("port");
    assert_eq!(get("127.0.0.1", port).as_deref(), Some("compiled\n"));
    fs::write(lab.root.join("src/web/app.sh"), "echo changed\n").expect("change");
    let second = lab.ok(&["apply", &path]);
    assert!(second.out.contains("-----> build 2"), "{}", second.out);
    let third = lab.ok(&["apply", &path]);
    assert!(third.out.contains("unchanged"), "{}", third.out);
    lab.finish();
}

#[test]
fn a_static_site_is_served() {
    let lab = Lab::start("static");
    let dir = lab.root.join("src/site");
    fs::create_dir_all(&dir).expect("site");
    fs::write(dir.join("index.html"), "<h1>hello</h1>\n").expect("page");
    let path = lab.root.join("src/site.toml");
    let text = "name = \"site\"\n\n[source]\npath = \"site\"\n\n[build]\nstack = \"tiny\"\n\n\
                [run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[[port]]\ncontainer = 8080\n";
    fs::write(&path, text).expect("manifest");
    lab.ok(&["apply", path.to_str().expect("UTF-8")]);
    let view = lab.until_state("site", "running");
    let port = view["processes"][0]["instances"][0]["ports"][0]["host"].as_u64().expect("port");
    assert_eq!(get("127.0.0.1", port).as_deref(), Some("<h1>hello</h1>\n"));
    lab.finish();
}

#[test]
fn a_new_version_that_cannot_be_staged_leaves_the_old_one_running() {
    let lab = Lab::start("old");
    let manifest = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    let path = lab.app("web", WEB, &manifest);
    lab.ok(&["apply", &path]);
    lab.until_state("web", "running");
    let before = lab.instance("web", 0)["handle"].clone();
    fs::write(lab.root.join("src/web/Procfile"), "web: a\nno line\n").expect("Procfile");
    let ran = lab.run(&["apply", &path]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("Failed to read command from Procfile"), "{}", ran.out);
    let one = lab.instance("web", 0);
    assert_eq!((&one["handle"], &one["state"]), (&before, &"running".into()));
    lab.finish();
}

#[test]
fn a_source_that_cannot_be_staged_is_refused_by_the_name_of_what_is_wrong_in_it() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::start("source");
    let path = lab.app("web", WEB, PORT);
    let source = lab.root.join("src/web");
    let key = source.join("conf/key");
    fs::create_dir(source.join("conf")).expect("directory");
    fs::write(&key, "secret").expect("key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o000)).expect("mode");
    let ran = lab.run(&["apply", &path]);
    let said = format!("`conf/key` of the source {} has mode 0000", source.display());
    assert!(ran.code == 1 && ran.out.contains(&said) && ran.out.contains("chmod"), "{}", ran.out);

    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("mode");
    fs::File::options().write(true).open(&key).expect("key").set_len(3 << 30).expect("a hole");
    let ran = lab.run(&["apply", &path]);
    let said = "is 3073MiB, staging has 64MiB: set `disk` in [build]";
    assert!(ran.code == 1 && ran.out.contains(said), "{}", ran.out);

    fs::write(&key, "secret").expect("key");
    let _socket = std::os::unix::net::UnixListener::bind(source.join("conf/sock")).expect("bind");
    lab.ok(&["apply", &path]);
    lab.until_state("web", "running");
    let told = lab.logged("web", "Left out, being sockets, fifos or devices: `conf/sock`");
    assert_eq!(told.len(), 1, "{told:?}");
    lab.finish();
}

fn write_script(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).expect("script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("mode");
}
