//! Images that podman builds, file by file as podman itself unpacks them.

use super::server::{Registry, Setup};
use super::{Bed, text, tool, tree};
use crate::podman::Podman;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use terrarium::image::load;
use terrarium::log::chain;

/// `cap_net_bind_service=ep`, as linux/capability.h has version 2 of it.
const CAPABILITY: &str = "0x0100000200040000000000000000000000000000";

/// Three layers by instructions, one by hand above them.
const CONTAINERFILE: &str = "FROM scratch\nADD base.tar /\nCOPY tree /opt/tree\n\
    COPY --chown=1000:50 --chmod=6750 single /srv/single\nENV GREETING=hello\nUSER app\n\
    WORKDIR /srv\nEXPOSE 8080/tcp\nSTOPSIGNAL SIGQUIT\nCMD [\"/bin/sh\"]\n";

/// Something of each kind that a layer of files may have.
fn base(root: &Path) {
    let long = "l".repeat(120);
    let dirs = ["bin", "etc", "deep/er/est", "gone/in", "mixed", "shared", "tmp", "srv"];
    for dir in dirs.map(str::to_owned).into_iter().chain([format!("{long}/{long}")]) {
        fs::create_dir_all(root.join(dir)).expect("directory");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox");
    let files = [
        ("etc/passwd", "root:x:0:0::/:/bin/sh\napp:x:1000:50::/srv:/bin/sh\n".to_owned()),
        ("etc/empty", String::new()),
        ("deep/er/est/a file with spaces, ünd mehr", "x".to_owned()),
        ("gone/in/file", "x".to_owned()),
        ("gone/file", "x".to_owned()),
        ("mixed/becomes-directory", "x".to_owned()),
        ("mixed/becomes-link", "x".to_owned()),
        ("mixed/grows", "short".to_owned()),
        ("mixed/mode", "as it is".to_owned()),
        ("zeros", format!("{}end", "\0".repeat(300_000))),
    ];
    let long_file = format!("{long}/{long}/{long}");
    for (name, content) in
        files.iter().map(|(name, text)| (*name, text)).chain([(&*long_file, &"long\n".to_owned())])
    {
        fs::write(root.join(name), content).expect(name);
    }
    fs::create_dir(root.join("mixed/becomes-file")).expect("directory");
    fs::write(root.join("mixed/becomes-file/x"), "x").expect("write");
    for at in 0..200 {
        fs::write(root.join(format!("shared/{at}")), format!("{at}\n").repeat(at)).expect("write");
    }
    for (target, name) in [("busybox", "bin/sh"), ("/no/where", "etc/dangling"), ("er", "deep/way")]
    {
        symlink(target, root.join(name)).expect("link");
    }
    // In the same directory, and in others. Of a symlink podman makes none.
    for (file, name) in
        [("bin/busybox", "bin/bb"), ("shared/7", "deep/er/seven"), ("shared/7", "zz-seven")]
    {
        fs::hard_link(root.join(file), root.join(name)).expect("link");
    }
    let at = |name: &str| root.join(name).display().to_string();
    tool("mkfifo", &[&at("etc/pipe")]);
    for (owner, name) in [("1000:50", "srv"), ("65535:65535", "etc/empty"), ("7:8", "etc/pipe")] {
        tool("chown", &["-R", owner, &at(name)]);
    }
    for (mode, name) in [("4711", "bin/busybox"), ("1777", "tmp"), ("2770", "deep/er")] {
        tool("chmod", &[mode, &at(name)]);
    }
    for (name, value, file) in [
        ("user.note", "kept", "etc/passwd"),
        ("user.of-directory", "kept, too", "shared"),
        ("security.capability", CAPABILITY, "deep/er/est/a file with spaces, ünd mehr"),
    ] {
        tool("setfattr", &["-n", name, "-v", value, &at(file)]);
    }
    for (time, name) in [("@1", "etc/empty"), ("@4102444800", "zeros"), ("@1234567890", "deep")] {
        tool("touch", &["-d", time, &at(name)]);
    }
}

/// What a person does to a container before he commits it: all kinds of changes.
fn change(root: &Path) {
    let within = |name: &str| root.join(name);
    fs::remove_dir_all(within("gone")).expect("remove");
    fs::remove_file(within("shared/8")).expect("remove");
    fs::write(within("shared/9"), "replaced").expect("write");
    fs::write(within("mixed/grows"), "longer than it was").expect("write");
    tool("chmod", &["600", text(&within("mixed/mode"))]);
    fs::remove_file(within("mixed/becomes-directory")).expect("remove");
    fs::create_dir(within("mixed/becomes-directory")).expect("directory");
    fs::write(within("mixed/becomes-directory/x"), "x").expect("write");
    fs::remove_file(within("mixed/becomes-link")).expect("remove");
    symlink("grows", within("mixed/becomes-link")).expect("link");
    fs::remove_dir_all(within("mixed/becomes-file")).expect("remove");
    fs::write(within("mixed/becomes-file"), "x").expect("write");
    fs::create_dir_all(within("new/er")).expect("directory");
    fs::write(within("new/er/one"), "1").expect("write");
    fs::hard_link(within("new/er/one"), within("new/two")).expect("link");
    tool("setfattr", &["-n", "user.later", "-v", "set", text(&within("etc/passwd"))]);
}

/// Builds the image in four layers, commits it under `name`.
fn build(bed: &Bed, podman: &Podman, name: &str) {
    let (context, tree) = (bed.dir("context"), bed.dir("base"));
    base(&tree);
    let archive = context.join("base.tar");
    let whole = ["--xattrs", "--xattrs-include=*", "-C", text(&tree), "-cf", text(&archive), "."];
    tool("tar", &whole);
    base(&bed.dir("context/tree"));
    fs::write(context.join("single"), "one file").expect("write");
    fs::write(context.join("Containerfile"), CONTAINERFILE).expect("write");
    podman.build(&context, "localhost/built:1");
    let container = podman.run(&["create", "--network", "none", "localhost/built:1"]);
    change(Path::new(&podman.run(&["mount", &container])));
    podman.run(&["umount", &container]);
    podman.run(&["commit", "--quiet", &container, name]);
    podman.run(&["rm", &container]);
}

/// Another unpacker than umoci's: that of podman, buildah and CRI-O.
#[test]
fn an_image_that_podman_has_built_is_what_podman_makes_of_it() {
    let bed = Bed::new("podman");
    let registry = Registry::start(&bed.dir("server"), Setup::Plain);
    let name = "127.0.0.1:5000/ops/built:1";
    let builder = Podman::new(bed.dir("builder"));
    build(&bed, &builder, name);
    builder.push(name, "oci", name);
    let docker = "127.0.0.1:5000/ops/built:docker";
    builder.push(name, "v2s2", docker);
    // Nobody who knows how it was made: another podman, of the registry.
    let other = Podman::new(bed.dir("other"));
    other.run(&["pull", "--quiet", "--tls-verify=false", name]);
    let theirs = other.run(&["image", "mount", name]);
    let theirs = Path::new(&theirs);
    let attribute = |name: &str, file: &str| {
        let file = theirs.join(file);
        tool("getfattr", &["--absolute-names", "--only-values", "-n", name, text(&file)])
    };
    // What is compared is there.
    assert_eq!(attribute("user.note", "etc/passwd"), "kept");
    assert_eq!(attribute("user.later", "etc/passwd"), "set");
    attribute("security.capability", "deep/er/est/a file with spaces, ünd mehr");
    assert!(!theirs.join("gone").exists() && theirs.join("mixed/becomes-file").is_file());

    let settings = bed.insecure("127.0.0.1:5000");
    let pulled = bed.pull(&settings, name).unwrap_or_else(|err| panic!("{}", chain(&err)));
    assert_eq!(pulled.image.layers.len(), 4, "{:?}", pulled.image.layers);
    tree::same(&bed.store, &bed.dir("ours"), &pulled.image.layers, theirs);
    let config = &pulled.image.config;
    assert_eq!(
        (&*config.user, &*config.workdir, &*config.stop_signal, &*config.cmd),
        ("app", "/srv", "SIGQUIT", &["/bin/sh".to_owned()][..])
    );
    assert!(config.env.contains(&"GREETING=hello".to_owned()), "{:?}", config.env);
    let again = bed.pull(&settings, docker).unwrap_or_else(|err| panic!("{}", chain(&err)));
    assert_eq!(again.image.layers, pulled.image.layers);
    registry.stop();

    // Its archives, both kinds, are the same image without a registry.
    for format in ["docker-archive", "oci-archive"] {
        let archive = bed.lab.dir.join(format);
        let to = text(&archive);
        builder.run(&["save", "--quiet", "--format", format, "--output", to, name]);
        let loaded = load(&bed.store, "docker.io", &archive, None);
        let loaded = loaded.unwrap_or_else(|err| panic!("{format}: {}", chain(&err)));
        assert_eq!(loaded[0].names[0].to_string(), name, "{format}");
        let (known, _) = terrarium::image::catalog::find(&bed.store, &loaded[0].digest)
            .unwrap_or_else(|| panic!("{format}: in the catalogue"));
        assert_eq!(known.layers, pulled.image.layers, "{format}");
    }
    other.run(&["image", "unmount", name]);
    drop((pulled, again));
    bed.close();
}
