//! Apps of four kinds on the stack of the Cloud Foundry world, each staged, reached over its port,
//! restarted, scaled, taken to a new version and back, and rolled back: a site, Python with vendored
//! wheels, Node with vendored modules, a compiled program with a Procfile. And what that stack shows a
//! buildpack.

use super::lab::{Lab, get, tool};
use std::fs;
use std::path::{Path, PathBuf};

/// The path of a new manifest of an app on `edgefs`, whose source is `src/NAME`.
fn manifest(lab: &Lab, name: &str, buildpacks: &str, more: &str) -> String {
    let path = lab.root.join("src").join(format!("{name}.toml"));
    let text = format!(
        "name = \"{name}\"\n\n[source]\npath = \"{name}\"\n\n[build]\nbuildpacks = {buildpacks}\n\
         memory = \"512MiB\"\ndisk = \"1GiB\"\n\n[run]\nmemory = \"128MiB\"\ndisk = \"128MiB\"\n\n\
         [[port]]\ncontainer = 8080\n\n{more}"
    );
    fs::write(&path, text).expect("manifest");
    path.to_str().expect("a UTF-8 path").to_owned()
}

fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
    fs::write(&path, text).expect("file");
    path
}

/// Every instance answers `text`, and there are so many of them.
fn answers(lab: &Lab, name: &str, instances: usize, text: &str) {
    lab.until(&format!("{instances} of {name} answer {text:?}"), |lab| {
        let view = lab.view(name);
        let all = view["processes"][0]["instances"].as_array()?;
        let good = all.iter().filter(|one| {
            let port = one["ports"][0]["host"].as_u64();
            one["state"] == "running"
                && port.and_then(|port| get("127.0.0.1", port)).as_deref() == Some(text)
        });
        (good.count() == instances && all.len() == instances).then_some(())
    });
}

/// Takes an app through its life; `turn` writes the source's version 1 or 2, which says so.
fn live(lab: &Lab, name: &str, manifest: &str, turn: impl Fn(u32)) {
    let text = |version: u32| format!("version {version}\n");
    turn(1);
    lab.ok(&["apply", manifest]);
    answers(lab, name, 1, &text(1));
    let handle = lab.instance(name, 0)["handle"].clone();
    lab.ok(&["restart", name]);
    answers(lab, name, 1, &text(1));
    assert_ne!(lab.instance(name, 0)["handle"], handle, "{name} was not restarted");
    lab.ok(&["scale", &format!("{name}=2")]);
    answers(lab, name, 2, &text(1));
    // So many there are of the next version, too.
    turn(2);
    lab.ok(&["apply", manifest]);
    answers(lab, name, 2, &text(2));
    lab.ok(&["scale", &format!("{name}=1")]);
    answers(lab, name, 1, &text(2));
    turn(1);
    lab.ok(&["apply", manifest]);
    answers(lab, name, 1, &text(1));
    // The same source, staged again later, has become the very same droplet.
    let staged = |times: usize| {
        let log = lab.daemon_log();
        let lines = log.lines().filter(|it| it.contains("app.staged"));
        assert_eq!(lines.count(), times, "{log}");
    };
    staged(3);
    let of = lab.ok(&["revisions", name, "--json"]).out;
    let of: serde_json::Value = serde_json::from_str(&of).expect("JSON");
    let droplets: Vec<_> = of.as_array().expect("a list").iter().map(|it| &it["droplet"]).collect();
    let [first, other, again] = droplets[..] else { panic!("{of}") };
    assert!(first.is_string() && first == again && first != other, "{of}");
    // Back to the version between, which nobody has to build again.
    let back = of[1]["revision"].to_string();
    lab.ok(&["rollback", name, "--to", &back]);
    answers(lab, name, 1, &text(2));
    staged(3);
    let of = lab.ok(&["revisions", name, "--json"]).out;
    let of: serde_json::Value = serde_json::from_str(&of).expect("JSON");
    let last = of.as_array().and_then(|all| all.last()).expect("a revision");
    assert_eq!(last["why"], format!("rollback to {back}"), "{of}");
    assert_eq!((&last["current"], &last["droplet"]), (&true.into(), other), "{of}");
}

/// Puts what is in an archive of `TERRARIUM_STACKS` below `prefix` into `dir`.
fn unpack(archive: &str, prefix: &str, dir: &Path) {
    let built = std::env::var_os("TERRARIUM_STACKS").expect("built stacks");
    let path = Path::new(&built).join(archive);
    let file = fs::File::open(&path).unwrap_or_else(|err| {
        panic!("{}: {err}; make it with `cargo xtask test e2e`", path.display())
    });
    let stream = zstd::Decoder::new(file).expect("zstd");
    fs::create_dir_all(dir).expect("directory");
    let mut found = false;
    for entry in tar::Archive::new(stream).entries().expect("tar") {
        let mut entry = entry.expect("entry");
        let is_wanted = entry.path().expect("name").starts_with(prefix);
        found |= is_wanted;
        if is_wanted {
            entry.unpack_in(dir).expect("unpacked");
        }
    }
    assert!(found, "there is no {prefix} in {archive}");
}

#[test]
fn a_site_lives() {
    let lab = Lab::start("kinds-site");
    let dir = lab.root.join("src/site");
    fs::create_dir_all(&dir).expect("source");
    let path = manifest(&lab, "site", "[\"static\"]", "");
    live(&lab, "site", &path, |version| {
        write(&dir, "index.html", format!("version {version}\n"));
    });
    lab.finish();
}

/// A wheel in `dir` of one module.
fn wheel(lab: &Lab, dir: &Path, module: &str, needs: &str, body: &str) {
    let work = lab.root.join("wheel").join(module);
    let info = format!("{module}-1.0.dist-info");
    write(&work, &format!("{module}.py"), body);
    let meta = format!("Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n{needs}");
    write(&work, &format!("{info}/METADATA"), meta);
    let tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    write(&work, &format!("{info}/WHEEL"), tag);
    let names = [format!("{module}.py"), format!("{info}/METADATA"), format!("{info}/WHEEL")];
    let record: String = names.iter().map(|name| format!("{name},,\n")).collect();
    write(&work, &format!("{info}/RECORD"), format!("{record}{info}/RECORD,,\n"));
    fs::create_dir_all(dir).expect("vendor");
    let to = dir.join(format!("{module}-1.0-py3-none-any.whl"));
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (to, module) = (text(&to), text(&work.join(format!("{module}.py"))));
    tool("python3", &["-m", "zipfile", "-c", &to, &module, &text(&work.join(&info))]);
}

/// Row 66 and row 68 too: a chain of a supplier and a finalizer, and its cache.
#[test]
fn python_with_vendored_wheels_lives() {
    let lab = Lab::start("kinds-python");
    let dir = lab.root.join("src/py");
    let vendor = dir.join("vendor");
    wheel(
        &lab,
        &vendor,
        "greeter",
        "Requires-Dist: helper\n",
        "import helper\nword = helper.word\n",
    );
    wheel(&lab, &vendor, "helper", "", "word = 'version'\n");
    write(&dir, "requirements.txt", "greeter==1.0\n");
    write(&dir, "Procfile", "web: python app.py\n");
    let path = manifest(&lab, "py", "[\"python\", \"procfile\"]", "");
    live(&lab, "py", &path, |version| {
        let app = format!(
            "import greeter, os\nfrom http.server import *\nclass App(BaseHTTPRequestHandler):\n  \
             def do_GET(self):\n    self.send_response(200)\n    self.end_headers()\n    \
             self.wfile.write(f'{{greeter.word}} {version}\\n'.encode())\n\
             ThreadingHTTPServer(('0.0.0.0', int(os.environ['PORT'])), App).serve_forever()\n"
        );
        write(&dir, "app.py", app);
    });
    let fresh = lab.logged("py", "Packages: pip install from vendor/");
    let kept = lab.logged("py", "Packages: as at the last staging");
    assert_eq!((fresh.len(), kept.len()), (1, 2), "{fresh:?} {kept:?}");
    lab.finish();
}

#[test]
fn node_with_vendored_modules_lives() {
    let lab = Lab::start("kinds-node");
    let packs = lab.root.join("etc/terrarium/buildpacks");
    fs::create_dir_all(&packs).expect("buildpacks");
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/buildpacks/node");
    tool("cp", &["-a", ours.to_str().expect("UTF-8"), packs.to_str().expect("UTF-8")]);
    unpack("software/nodejs.tar.zst", "usr", &packs.join("node/vendor"));
    let dir = lab.root.join("src/js");
    let package = r#"{"scripts": {"start": "node app.js"}, "dependencies": {"greeter": "1"}}"#;
    write(&dir, "package.json", package);
    write(&dir, "node_modules/greeter/package.json", r#"{"name": "greeter", "main": "main.js"}"#);
    write(&dir, "node_modules/greeter/main.js", "exports.word = 'version';\n");
    let path = manifest(&lab, "js", "[\"node\"]", "");
    live(&lab, "js", &path, |version| {
        let app = format!(
            "const {{ word }} = require('greeter');\nrequire('http').createServer((_, answer) => \
             answer.end(`${{word}} {version}\\n`)).listen(process.env.PORT);\n"
        );
        write(&dir, "app.js", app);
    });
    lab.finish();
}

#[test]
fn a_compiled_program_with_a_procfile_lives() {
    let lab = Lab::start("kinds-binary");
    let dir = lab.root.join("src/program");
    fs::create_dir_all(&dir).expect("source");
    unpack("tiny.tar.zst", "bin/busybox", &dir);
    write(&dir, "Procfile", "web: exec bin/busybox httpd -f -p $PORT -h www\n");
    let path = manifest(&lab, "program", "[\"procfile\"]", "");
    live(&lab, "program", &path, |version| {
        write(&dir, "www/index.html", format!("version {version}\n"));
    });
    lab.finish();
}

/// Row 65: what a script written for cflinuxfs finds in the real container: who and where it is, the limits of
/// its process, three arguments of which the last is an empty directory, the stack that the manifest says this
/// one is like, and the programs that the common ones call.
#[test]
fn a_buildpack_for_cflinuxfs4_finds_what_it_looks_for() {
    let lab = Lab::start("kinds-stack");
    let script = r#"
echo "on $CF_STACK: $1 $2 $# [$(ls -A "$3")]"
echo "as $USER=$(id -un) in $HOME, umask $(umask), $(ulimit -n) files"
test -d "$3" && test -w "$1" && test -w "$2" && touch "$HOME/own" "$(mktemp)" && echo writes
ruby -ryaml -e 'puts YAML.load("a: ruby")["a"]'
curl -s --output - file:///etc/hostname > /dev/null && echo curl
git init -q /tmp/repo && git -C /tmp/repo status > /dev/null && echo git
echo '{"a": "jq"}' | jq -r .a
python3 -c 'import zipfile; zipfile.ZipFile("/tmp/a.zip", "w").writestr("python3", "unzip\n")'
unzip -p /tmp/a.zip
echo xz | xz | xz -d
perl -e 'print "perl\n"'
python3 -c 'import venv, yaml; print("python3")'
echo done
"#;
    lab.buildpack("foreign", script);
    let dir = lab.root.join("src/app");
    write(&dir, "Procfile", "web: echo runs on $CF_STACK; exec sleep 1000\n");
    let more = "[health]\ntype = \"process\"\n\n[env]\nCF_STACK = \"cflinuxfs4\"\n";
    let ran = lab.ok(&["apply", &manifest(&lab, "app", "[\"foreign\"]", more)]);
    let staged: Vec<_> = lab.logged("app", "[STG/0] OUT ");
    let staged = staged.iter().filter_map(|line| line.split_once("OUT ")).map(|(_, text)| text);
    let told: Vec<_> = staged.skip_while(|text| !text.starts_with("on ")).take(12).collect();
    let expected = [
        "on cflinuxfs4: /tmp/app /tmp/cache/final 3 []",
        "as vcap=vcap in /home/vcap, umask 0022, 16384 files",
        "writes",
        "ruby",
        "curl",
        "git",
        "jq",
        "unzip",
        "xz",
        "perl",
        "python3",
        "done",
    ];
    assert_eq!(told, expected, "{}{}", ran.out, ran.err);
    lab.until("it runs", |lab| (!lab.logged("app", "runs on cflinuxfs4").is_empty()).then_some(()));
    lab.finish();
}
