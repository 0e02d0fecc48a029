//! Staging: buildpacks, their output, their failures, the droplet.

use super::lab::{Lab, get, tool};
use super::{PORT, WEB};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

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

/// Row 65 and row 68: a counter in the cache grows.
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
    assert!(third.out.contains("Nothing changed"), "{}", third.out);
    lab.finish();
}

/// Whatever is wrong with the build cache is a line of the log: a disk that is full, a cache that is larger
/// than what staging has, a cache of another chain.
#[test]
fn nothing_that_is_wrong_with_the_build_cache_fails_a_staging() {
    let mut lab = Lab::new("cache");
    let caches = lab.root.join("var/cache/terrarium/staging");
    fs::create_dir_all(&caches).expect("caches");
    let none = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("none"), &caches, Some("tmpfs"), none, Some("size=128k"))
        .expect("tmpfs");
    let count = "n=$(cat \"$2/count\" 2>/dev/null || echo 0)\necho $((n+1)) > \"$2/count\"\n\
                 head -c 30000 /dev/urandom > \"$2/fat\"\necho \"-----> build $((n+1))\"\n";
    lab.buildpack("one", count);
    lab.buildpack("two", count);
    lab.serve();
    let path = lab.app("web", WEB, PORT);
    let text = fs::read_to_string(&path).expect("manifest");
    let stage = |pack: &str| {
        let is_new = fs::read_to_string(&path).expect("manifest") != text.replace("procfile", pack);
        fs::write(&path, text.replace("procfile", pack)).expect("manifest");
        match is_new {
            true => lab.ok(&["apply", &path]),
            false => lab.ok(&["restage", "web"]),
        };
        lab.until_state("web", "running");
    };
    let said = |text: &str| lab.logged("web", text).len();
    stage("one");
    stage("one");
    assert_eq!((said("-----> build 1"), said("-----> build 2")), (1, 1), "it is kept");
    stage("two");
    assert_eq!(
        (said("-----> build 1"), said("-----> build 3")),
        (2, 0),
        "another one's is not used"
    );
    // A file of holes, which is larger than all that the staging has.
    let kinds: Vec<_> = fs::read_dir(caches.join("web")).expect("kinds").flatten().collect();
    assert_eq!(kinds.len(), 1, "{kinds:?}");
    let cache = kinds[0].path().join("cache.tgz");
    let file = fs::File::options().write(true).open(&cache).expect("the cache");
    file.set_len(1 << 30).expect("longer");
    stage("two");
    assert_eq!((said("Staging without the build cache"), said("-----> build 1")), (1, 3));
    // There is no room for the next one.
    fs::write(kinds[0].path().join("cache.part"), vec![1; 8])
        .expect("as a killed daemon leaves it");
    let fill = fs::write(caches.join("full"), vec![1; 1 << 20]);
    assert!(fill.is_err(), "it is full");
    stage("two");
    assert_eq!(said("The build cache is not kept"), 1);
    assert!(!kinds[0].path().join("cache.part").exists());
    nix::mount::umount2(&caches, nix::mount::MntFlags::MNT_DETACH).expect("unmount");
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

/// A buildpack in `dir` of the box that compiles by `script` and starts what it has made.
fn small_pack(dir: &Path, script: &str) {
    let release = "printf 'default_process_types:\\n  web: busybox httpd -f -p $PORT -h www\\n'";
    fs::create_dir_all(dir.join("bin")).expect("buildpack");
    for (name, text) in [("detect", "echo yes"), ("compile", script), ("release", release)] {
        write_script(&dir.join("bin").join(name), &format!("#!/bin/sh\n{text}\n"));
    }
}

/// The app `web` of a chain of buildpacks, written as in the manifest.
fn chained(lab: &Lab, packs: &str) -> String {
    let path = lab.app("web", "true\n", PORT);
    fs::remove_file(lab.root.join("src/web/Procfile")).expect("no Procfile");
    let text = fs::read_to_string(&path).expect("manifest").replace("[\"procfile\"]", packs);
    fs::write(&path, text).expect("manifest");
    path
}

fn served(lab: &Lab) -> Option<String> {
    let view = lab.until_state("web", "running");
    let port = view["processes"][0]["instances"][0]["ports"][0]["host"].as_u64().expect("port");
    get("127.0.0.1", port)
}

#[test]
fn row_67_a_buildpack_is_an_archive_of_the_box_or_of_a_url_that_is_kept() {
    let lab = Lab::start("archives");
    let made = lab.root.join("made");
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let etc = lab.root.join("etc/terrarium/buildpacks");
    fs::create_dir_all(&etc).expect("buildpacks");
    small_pack(&made.join("one"), "mkdir $1/www; echo from the zip > $1/www/index.html");
    tool(
        "python3",
        &["-m", "zipfile", "-c", &text(&etc.join("boxed.zip")), &text(&made.join("one"))],
    );
    lab.ok(&["apply", &chained(&lab, "[\"boxed\"]")]);
    assert_eq!(served(&lab).as_deref(), Some("from the zip\n"));

    small_pack(&made.join("two"), "mkdir $1/www; echo from the url > $1/www/index.html");
    let archive = made.join("two.tgz");
    tool("tar", &["-C", &text(&made), "-czf", &text(&archive), "two"]);
    let bytes = fs::read(&archive).expect("archive");
    let sum = terrarium::unit::Digest::of(&bytes).hex();
    let (url, server) = serve_once(bytes);
    let path = chained(&lab, &format!("[{{ url = \"{url}\", sha256 = \"{sum}\" }}]"));
    lab.ok(&["apply", &path]);
    assert_eq!(served(&lab).as_deref(), Some("from the url\n"));
    server.join().expect("it was asked once");
    // Nobody is there any more, and another staging does not mind.
    fs::write(lab.root.join("src/web/more"), "changed").expect("change");
    lab.ok(&["apply", &path]);
    assert_eq!(served(&lab).as_deref(), Some("from the url\n"));

    let wrong = "0".repeat(64);
    let path = chained(&lab, &format!("[{{ url = \"{url}\", sha256 = \"{wrong}\" }}]"));
    let ran = lab.run(&["apply", &path]);
    assert!(ran.code == 1 && ran.out.contains("Downloading buildpack failed"), "{}", ran.out);
    assert_eq!(served(&lab).as_deref(), Some("from the url\n"));
    lab.finish();
}

/// Gives these bytes to the first who asks; `http://.../pack.tgz`.
fn serve_once(bytes: Vec<u8>) -> (String, std::thread::JoinHandle<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let url = format!("http://{}/pack.tgz", listener.local_addr().expect("address"));
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut head = Vec::new();
        let mut piece = [0; 1024];
        while !head.ends_with(b"\r\n\r\n") {
            let read = stream.read(&mut piece).expect("read");
            assert!(read > 0, "it broke off");
            head.extend_from_slice(&piece[..read]);
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&bytes)).expect("write");
    });
    (url, server)
}

/// Row 66: the sidecar that a supplier's launch.yml wants runs beside the app.
#[test]
fn a_chain_brings_a_sidecar_and_the_finalizer_the_app() {
    let lab = Lab::start("chain");
    let etc = lab.root.join("etc/terrarium/buildpacks");
    let launch = "processes: [{type: agent, command: \"echo beside > $HOME/www/index.html; sleep 1000\", \
                  limits: {memory: 16}, platforms: {cloudfoundry: {sidecar_for: [web]}}}]";
    for (pack, name, text) in [
        ("agent", "supply", format!("echo '{launch}' > \"$3/$4/launch.yml\"")),
        ("last", "finalize", "mkdir -p \"$1/www\"".to_owned()),
        (
            "last",
            "release",
            "printf 'default_process_types:\\n  web: busybox httpd -f -p $PORT -h www\\n'"
                .to_owned(),
        ),
    ] {
        let bin = etc.join(pack).join("bin");
        fs::create_dir_all(&bin).expect("buildpack");
        write_script(&bin.join(name), &format!("#!/bin/sh\nset -e\n{text}\n"));
    }
    lab.ok(&["apply", &chained(&lab, "[\"agent\", \"last\"]")]);
    lab.until("the sidecar has written", |lab| {
        (served(lab).as_deref() == Some("beside\n")).then_some(())
    });
    lab.finish();
}

/// Row 80: a staging that takes too long ends, and says after what time.
#[test]
fn row_80_a_staging_has_a_time_limit() {
    let lab = Lab::start("slow");
    lab.buildpack("slow", "echo begun; sleep 1000");
    let path = chained(&lab, "[\"slow\"]\ntimeout = \"2s\"");
    let ran = lab.run(&["apply", &path]);
    assert!(ran.code == 1 && ran.out.contains("begun"), "{}", ran.out);
    let reason = lab.view("web")["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.contains("exceeded 2s timeout"), "{reason}");
    lab.assert_empty();
    lab.finish();
}

#[test]
fn a_release_hook_runs_in_the_new_droplet_and_may_refuse_it() {
    let lab = Lab::start("hook");
    let hook = "[hook.release]\ncommand = \"echo hook of $(cat version); test -z \\\"$BAD\\\"\"\n";
    let manifest = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}\n{hook}");
    let path = lab.app("web", WEB, &manifest);
    let version = |text: &str| fs::write(lab.root.join("src/web/version"), text).expect("version");
    version("one");
    lab.ok(&["apply", &path]);
    lab.until_state("web", "running");
    let logged = |text: &str| lab.logged("web", text).len();
    assert_eq!(
        logged("[APP/TASK/RELEASE/0] OUT hook of one"),
        1,
        "{}",
        lab.run(&["logs", "web"]).out
    );
    // The same again is no new version, and neither are fresh instances.
    lab.ok(&["apply", &path]);
    lab.ok(&["restart", "web"]);
    lab.until_state("web", "running");
    assert_eq!(logged("hook of one"), 1);
    let before = lab.instance("web", 0)["handle"].clone();

    version("two");
    let text = fs::read_to_string(&path).expect("manifest");
    fs::write(&path, format!("{text}\n[env]\nBAD = \"yes\"\n")).expect("manifest");
    let ran = lab.run(&["apply", &path]);
    let said = "the release hook failed, so the version before runs on";
    assert!(ran.code == 1 && ran.out.contains(said), "{}{}", ran.out, ran.err);
    assert_eq!(logged("hook of two"), 1);
    let one = lab.instance("web", 0);
    assert_eq!((&one["handle"], &one["state"]), (&before, &"running".into()));

    fs::write(&path, text).expect("manifest");
    lab.ok(&["apply", &path]);
    lab.until("another instance runs", |lab| {
        let one = lab.instance("web", 0);
        (one["state"] == "running" && one["handle"] != before).then_some(())
    });
    assert_eq!(logged("hook of two"), 2);
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

fn write_script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).expect("script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("mode");
}
