//! What instances have besides their layers. Numbers are rows of the table of Diego's features.

use super::lab::{Lab, get};
use super::{PORT, WEB};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const SMALL: &str = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n";

/// Row 63: a directory of the box, with the owners that it has there.
#[test]
fn row_63_a_directory_of_the_box_is_shared_with_an_app() {
    let lab = Lab::new("volume");
    let shared = lab.root.join("srv");
    fs::create_dir_all(shared.join("data")).expect("directory");
    fs::set_permissions(shared.join("data"), fs::Permissions::from_mode(0o777)).expect("mode");
    fs::write(shared.join("data/in"), "from the box").expect("file");
    let mut lab = lab;
    lab.configure("volumes", &format!("[cell]\nvolumes = [\"{}\"]\n", shared.display()));
    lab.serve();
    let volume = |to: &str, more: &str| {
        let from = shared.join("data");
        format!("[[volume]]\nfrom = \"{}\"\nto = \"{to}\"\n{more}\n", from.display())
    };
    let volumes = volume("/mnt/rw", "") + &volume("/mnt/ro", "read_only = true\n");
    let manifest = format!("{SMALL}[health]\ntype = \"process\"\n\n{volumes}");
    lab.ok(&["apply", &lab.app("it", "exec sleep 1000\n", &manifest)]);
    lab.until_state("it", "running");
    assert_eq!(lab.inside("it", "cat /mnt/ro/in; echo back > /mnt/rw/out").out, "from the box");
    let out = shared.join("data/out");
    assert_eq!(fs::read_to_string(&out).expect("written"), "back\n");
    assert_eq!(fs::metadata(&out).expect("metadata").uid(), 2000, "vcap's number, inside and here");
    let refused = lab.inside("it", "echo x > /mnt/ro/x");
    assert!(refused.code != 0 && refused.err.contains("Read-only"), "{}", refused.err);

    let manifest = manifest.replace(&shared.join("data").display().to_string(), "/etc");
    let refused = lab.run(&["apply", &lab.app("it", "exec sleep 1000\n", &manifest)]);
    assert_eq!(refused.code, 5, "{}", refused.err);
    assert!(refused.err.contains("/etc may not be given to an app"), "{}", refused.err);
    lab.finish();
}

/// Row 64: files in memory that the app's user alone can read, gone with their container.
#[test]
fn row_64_files_are_the_users_alone_and_nowhere_in_a_log() {
    let lab = Lab::start("files");
    fs::create_dir_all(lab.root.join("src")).expect("src");
    fs::write(lab.root.join("src/token.txt"), "from a file").expect("file");
    let manifest = format!(
        "{SMALL}[health]\ntype = \"process\"\n\n\
         [[file]]\npath = \"/run/secrets/password\"\ncontent = \"correct horse\"\n\n\
         [[file]]\npath = \"/etc/token\"\nsource = \"token.txt\"\nmode = \"0444\"\n"
    );
    lab.ok(&["apply", &lab.app("it", "exec sleep 1000\n", &manifest)]);
    lab.until_state("it", "running");
    let ran = lab.inside(
        "it",
        "cat /run/secrets/password /etc/token; stat -c ' %a %U' /run/secrets/password",
    );
    assert_eq!(ran.out, "correct horsefrom a file 400 vcap\n", "{}", ran.err);
    let refused =
        lab.inside("it", "chmod 600 /run/secrets/password; echo x > /run/secrets/password");
    assert!(refused.code != 0, "{}", refused.out);
    let left = || fs::read_dir(lab.root.join("run/terrarium/files")).map_or(0, Iterator::count);
    assert_eq!(left(), 1);
    assert!(!lab.daemon_log().contains("correct horse"));
    assert!(lab.logged("it", "correct horse").is_empty());
    lab.ok(&["stop", "it"]);
    lab.until_state("it", "stopped");
    lab.until("its files are gone", |_| (left() == 0).then_some(()));
    lab.finish();
}

/// Row 60: the certificates that the box trusts, and where they are.
#[test]
fn row_60_an_app_finds_the_certificates_of_the_box() {
    let bundles = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
    let bundle = bundles.into_iter().find_map(|path| fs::read_to_string(path).ok());
    let bundle = bundle.expect("this box has certificates, as ca-certificates brings them");
    let lab = Lab::start("certificates");
    let manifest = format!("{SMALL}[health]\ntype = \"process\"\n");
    lab.ok(&["apply", &lab.app("it", "exec sleep 1000\n", &manifest)]);
    lab.until_state("it", "running");
    let ran = lab.inside("it", "cat \"$CF_SYSTEM_CERT_PATH\"/*.crt");
    assert_eq!(ran.out, bundle, "{}", ran.err);
    let refused = lab.run(&[
        "exec",
        "it",
        "-u",
        "root",
        "--",
        "sh",
        "-c",
        "echo > $CF_SYSTEM_CERT_PATH/trusted-ca-1.crt",
    ]);
    assert_ne!(refused.code, 0);
    lab.finish();
}

/// Row 57: the variables of an app, all of them and no others. Row 59: its ports.
#[test]
fn row_57_and_59_the_environment_is_the_table_and_its_ports_answer() {
    let lab = Lab::start("environment");
    let manifest = format!("{SMALL}{PORT}\n[env]\nGREETING = \"hi\"\n");
    let script = format!("env | sort > /tmp/environment\n{WEB}");
    lab.ok(&["apply", &lab.app("web", &script, &manifest)]);
    lab.until_state("web", "running");
    let text = lab.inside("web", "cat /tmp/environment").out;
    let all: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let value = |name: &str| all.iter().find(|(it, _)| *it == name).map_or("", |(_, value)| *value);
    let wanted = [
        "CF_INSTANCE_ADDR",
        "CF_INSTANCE_GUID",
        "CF_INSTANCE_INDEX",
        "CF_INSTANCE_INTERNAL_IP",
        "CF_INSTANCE_IP",
        "CF_INSTANCE_PORT",
        "CF_INSTANCE_PORTS",
        "CF_SYSTEM_CERT_PATH",
        "DEPS_DIR",
        "GREETING",
        "HOME",
        "INSTANCE_GUID",
        "INSTANCE_INDEX",
        "LANG",
        "MEMORY_LIMIT",
        "PATH",
        "PORT",
        "PWD",
        "SHLVL",
        "TMPDIR",
        "USER",
        "VCAP_APPLICATION",
        "VCAP_APP_HOST",
        "VCAP_APP_PORT",
        "VCAP_SERVICES",
    ];
    let plain: Vec<&str> =
        names.into_iter().filter(|name| !["_", "OLDPWD"].contains(name)).collect();
    assert_eq!(plain, wanted, "{text}");
    for (name, wanted) in [
        ("CF_INSTANCE_INDEX", "0"),
        ("GREETING", "hi"),
        ("HOME", "/home/vcap/app"),
        ("LANG", "en_US.UTF-8"),
        ("MEMORY_LIMIT", "32m"),
        ("PORT", "8080"),
        ("USER", "vcap"),
        ("VCAP_APP_HOST", "0.0.0.0"),
        ("VCAP_SERVICES", "{}"),
    ] {
        assert_eq!(value(name), wanted, "{name}");
    }
    assert_eq!(value("INSTANCE_GUID"), lab.instance("web", 0)["handle"]);
    let port: u64 = value("CF_INSTANCE_PORT").parse().expect("a port");
    let ports = format!("[{{\"external\":{port},\"internal\":8080}}]");
    assert_eq!(value("CF_INSTANCE_PORTS"), ports);
    let ip = value("CF_INSTANCE_IP");
    assert_eq!(value("CF_INSTANCE_ADDR"), format!("{ip}:{port}"));
    assert!(get("127.0.0.1", port).expect("an answer").starts_with("instance 0"));
    lab.finish();
}

/// Row 63, row 64, row 90: a Task of an app and its release hook have the directories, files and services
/// that its instances have.
#[test]
fn row_63_row_64_row_90_tasks_and_hooks_have_what_instances_have() {
    let mut lab = Lab::new("taskmounts");
    let shared = lab.root.join("srv");
    fs::create_dir_all(&shared).expect("directory");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).expect("mode");
    fs::write(shared.join("in"), "of the box").expect("file");
    lab.configure(
        "cell",
        &format!("[cell]\nvolumes = [\"{}\"]\nplacement_tags = [\"edge\"]\n", shared.display()),
    );
    lab.serve();
    let look = "cat /mnt/in /run/secrets/password; stat -c ' %a %U' /run/secrets/password;                 echo $VCAP_SERVICES | grep -o pg://own; echo $0 >> /mnt/out";
    let manifest = format!(
        "{SMALL}[health]\ntype = \"process\"\n\n[hook.release]\ncommand = \"\"\"{look}\"\"\"\n\n\
         [[volume]]\nfrom = \"{}\"\nto = \"/mnt\"\n\n[[file]]\npath = \
         \"/run/secrets/password\"\ncontent = \"correct horse\"\n\n[[service]]\nname = \"db\"\nlabel = \
         \"pg\"\ncredentials.uri = \"pg://own\"\n",
        shared.display()
    );
    let path = lab.app("it", "exec sleep 1000\n", &manifest);
    let seen = ["of the boxcorrect horse 400 vcap", "pg://own"];
    let ran = lab.ok(&["apply", &path]);
    for text in seen {
        let lines = lab.logged("it", &format!("[APP/TASK/RELEASE/0] OUT {text}"));
        assert_eq!(lines.len(), 1, "{text}: {}{}", ran.out, ran.err);
    }
    let out = || fs::read_to_string(shared.join("out")).expect("written").lines().count();
    assert_eq!(out(), 1);
    let ran = lab.ok(&["run-task", "it", "--wait", "--", look]);
    for text in seen {
        assert!(ran.out.contains(text), "{text}: {}{}", ran.out, ran.err);
    }
    assert_eq!(out(), 2);
    let left = || fs::read_dir(lab.root.join("run/terrarium/files")).map_or(0, Iterator::count);
    lab.until("only the instance has its files", |_| (left() == 1).then_some(()));
    assert!(!lab.daemon_log().contains("correct horse"));
    lab.finish();
}
