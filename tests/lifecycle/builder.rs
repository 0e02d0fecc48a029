//! Staging with buildpacks of a few lines each.

use crate::place::{Place, Said, listing, run, tool};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use terrarium::unit::xxh64_hex;

/// A builder in `place` with all its directories inside of it.
pub fn builder(place: &Place, order: &str) -> Command {
    place.dir("app");
    let mut command = place.role("builder");
    for (flag, name) in [
        ("buildDir", "app"),
        ("outputDroplet", "out/droplet"),
        ("outputMetadata", "out/result.json"),
        ("outputBuildArtifactsCache", "out/cache.tgz"),
        ("buildpacksDir", "packs"),
        ("buildpacksDownloadDir", "downloads"),
        ("buildArtifactsCacheDir", "cache"),
    ] {
        command.arg(format!("-{flag}={}", place.path(name).display()));
    }
    command.args(["-buildpackOrder", order]);
    command
}

fn stage(place: &Place, order: &str) -> Said {
    run(&mut builder(place, order))
}

/// A buildpack `key` with the scripts given.
pub fn pack(place: &Place, key: &str, scripts: &[(&str, &str)]) {
    place.dir(&format!("packs/{}/bin", xxh64_hex(key)));
    for (name, body) in scripts {
        place.script(&format!("packs/{}/bin/{name}", xxh64_hex(key)), body);
    }
}

const RELEASE: &str = "printf -- '---\\ndefault_process_types:\\n  web: run web\\n'";

/// Row 65 and row 69: the protocol, and what is in a droplet.
#[test]
fn the_first_buildpack_that_detects_builds_a_droplet() {
    let place = Place::new();
    place.write("app/main.py", "print()");
    place.write("app/.hidden", "");
    pack(&place, "no", &[("detect", "echo never; exit 1")]);
    pack(
        &place,
        "yes",
        &[
            ("detect", "echo Yes; echo; [ \"$1\" -ef app ]"),
            (
                "compile",
                "echo out; echo err >&2; echo built > $1/built; echo c > $2/c; cat; ls -A $3; echo $#",
            ),
            ("release", RELEASE),
        ],
    );
    pack(&place, "later", &[("detect", "echo too late > tried")]);

    let said = stage(&place, "gone,no,yes,later").ok();
    let lines: Vec<_> = said.out.lines().collect();
    assert_eq!(lines.len(), 3, "{said:#?}");
    assert!(lines[0].starts_with("Skipped: buildpack gone is not in "), "{said:#?}");
    assert_eq!(&lines[1..], ["out", "3"]);
    assert_eq!(said.err, "err\n");
    assert!(!place.path("tried").exists(), "detection went on after the first success");

    let result = place.json("out/result.json");
    assert_eq!(result["lifecycle_metadata"]["buildpack_key"], "yes");
    assert_eq!(result["lifecycle_metadata"]["detected_buildpack"], "Yes");
    assert_eq!(result["process_types"], serde_json::json!({"web": "run web"}));
    assert_eq!(result["processes"], serde_json::json!([{"type": "web", "command": "run web"}]));
    assert_eq!(result["lifecycle_type"], "buildpack");

    let names = [
        "app",
        "app/.hidden",
        "app/built",
        "app/main.py",
        "deps",
        "logs",
        "profile.d",
        "tmp",
        "staging_info.yml",
    ];
    assert_eq!(listing(&place.path("out/droplet")), names);
    let droplet = place.path("out/droplet");
    let args = ["-xzOf", "DROPLET", "staging_info.yml"].map(OsStr::new);
    let info = tool("tar", &[args[0], droplet.as_os_str(), args[2]], &place.path("out"));
    assert_eq!(info, r#"{"detected_buildpack":"Yes","start_command":"run web"}"#);
    let owners = ["--numeric-owner", "-tvzf"].map(OsStr::new);
    let owners = tool("tar", &[owners[0], owners[1], droplet.as_os_str()], &place.path("out"));
    assert!(owners.lines().all(|line| line.contains(" 2000/2000 ")), "{owners}");
    assert_eq!(listing(&place.path("out/cache.tgz")), ["final", "final/c"]);
    assert_eq!(fs::read_dir(place.path("tmp")).expect("tmp").count(), 0, "something is left");
}

/// Written in another order, at another time and by a script that makes files of its own, it is the
/// same droplet.
#[test]
fn the_same_source_gives_the_same_droplet_byte_for_byte() {
    let droplet = |names: &[&str], when: &str| {
        let place = Place::new();
        for name in names {
            let path = place.write(&format!("app/{name}"), name);
            tool(
                "touch",
                &["-d", when]
                    .map(OsStr::new)
                    .iter()
                    .copied()
                    .chain([path.as_os_str()])
                    .collect::<Vec<_>>(),
                Path::new("/"),
            );
        }
        let compile = "echo made > $1/made; echo $SOURCE_DATE_EPOCH > $1/epoch; ln -s made $1/link";
        pack(&place, "p", &[("detect", ""), ("compile", compile), ("release", "echo '--- {}'")]);
        let made = place.path("app/made").display().to_string();
        let release = format!("touch -d '{when}' {made}; echo '--- {{}}'");
        pack(&place, "p", &[("release", &release)]);
        stage(&place, "p").ok();
        let droplet = place.path("out/droplet");
        let args = [OsStr::new("-xzOf"), droplet.as_os_str(), OsStr::new("app/epoch")];
        assert_eq!(tool("tar", &args, &place.path("out")), "315532801\n");
        fs::read(droplet).expect("a droplet")
    };
    let first = droplet(&["b/x", "a", "c"], "2001-02-03");
    assert!(first == droplet(&["c", "a", "b/x"], "2020-12-31 23:59:59"), "they differ");
}

/// Row 66 and row 70: a chain, and everything that its result tells.
#[test]
fn a_chain_supplies_and_then_finalizes() {
    let place = Place::new();
    let one = "echo supply-one $4; echo d > $3/$4/dep; echo k > $2/kept
printf 'name: one\\nversion: 1.10\\n' > $3/$4/config.yml
printf 'processes:\\n- {type: web, command: from one}\\n- {type: job, command: j}\\n- {type: side, command: s, limits: {memory: 16}, platforms: {cloudfoundry: {sidecar_for: [web]}}}\\n' > $3/$4/launch.yml";
    pack(&place, "one", &[("supply", one)]);
    let finalize = "echo finalize $4; ls $3; echo 'export X=1' > $5/x.sh; cat $3/0/dep
printf 'name: two\\nconfig:\\n  entrypoint_prefix: with-prefix\\n' > $3/$4/config.yml";
    let two = [("supply", "echo supply-two $4"), ("finalize", finalize), ("release", RELEASE)];
    pack(&place, "two", &two);
    place.write("app/Procfile", "job: from Procfile\nextra: 'e: 1'\n");

    let said = run(builder(&place, "one,two").arg("-skipDetect")).ok();
    assert_eq!(said.out, "supply-one 0\nsupply-two 1\nfinalize 1\n0\n1\nd\n");
    let result = place.json("out/result.json");
    assert_eq!(
        result["process_types"],
        serde_json::json!({"web": "run web", "job": "from Procfile", "extra": "e: 1"})
    );
    assert_eq!(
        result["sidecars"],
        serde_json::json!([
            {"name": "side", "process_types": ["web"], "command": "s", "memory": 16}
        ])
    );
    let members: Vec<_> = result.as_object().expect("a map").keys().cloned().collect();
    let all =
        "execution_metadata lifecycle_metadata lifecycle_type process_types processes sidecars";
    assert_eq!(members.join(" "), all);
    assert_eq!(result["lifecycle_metadata"]["detected_buildpack"], "two");
    assert_eq!(
        result["lifecycle_metadata"]["buildpacks"],
        serde_json::json!([
            {"key": "one", "name": "one", "version": "1.10"},
            {"key": "two", "name": "two", "config": {"entrypoint_prefix": "with-prefix"}},
        ])
    );
    let names = listing(&place.path("out/droplet"));
    for name in ["deps/0/dep", "deps/1/config.yml", "profile.d/x.sh"] {
        assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
    }
    let cache = listing(&place.path("out/cache.tgz"));
    assert!(cache.contains(&format!("{}/kept", xxh64_hex("one"))), "{cache:?}");
}

#[test]
fn a_chain_of_ten_has_indices_of_two_digits() {
    let place = Place::new();
    let keys: Vec<String> = (0..10).map(|n| format!("p{n}")).collect();
    for key in &keys {
        pack(&place, key, &[("supply", "echo $4"), ("finalize", "echo last $4"), ("release", "")]);
    }
    let said = run(builder(&place, &keys.join(",")).arg("--skipDetect=true")).ok();
    assert!(said.out.starts_with("00\n01\n"), "{said:#?}");
    assert!(said.out.contains("09\nlast 09\n"), "{said:#?}");
}

#[test]
fn a_last_buildpack_of_the_old_kind_compiles_after_a_warning() {
    let place = Place::new();
    pack(&place, "one", &[("supply", "")]);
    pack(&place, "old", &[("compile", "echo compiled"), ("release", RELEASE)]);
    let said = run(builder(&place, "one,old").arg("-skipDetect")).ok();
    assert!(said.out.starts_with("Warning: buildpack old has no bin/finalize"), "{said:#?}");
    let names = listing(&place.path("out/droplet"));
    assert!(names.contains(&"deps/0".into()) && !names.contains(&"deps/1".into()), "{names:?}");
}

#[test]
fn a_buildpack_without_release_leaves_the_processes_to_the_procfile() {
    let place = Place::new();
    pack(
        &place,
        "p",
        &[("detect", ""), ("compile", "echo 'web: from the Procfile' > $1/Procfile")],
    );
    stage(&place, "p").ok();
    let types = serde_json::json!({"web": "from the Procfile"});
    assert_eq!(place.json("out/result.json")["process_types"], types);
}

/// Row 65: exit codes and texts.
#[test]
fn every_failure_has_its_own_exit_code_and_text() {
    let place = Place::new();
    let none = "None of the buildpacks detected a compatible application";
    pack(&place, "no", &[("detect", "exit 1")]);
    pack(&place, "nothing", &[]);
    stage(&place, "no,nothing,gone").fails(222, none);

    pack(&place, "c", &[("detect", ""), ("compile", "echo because >&2; exit 7")]);
    stage(&place, "c").fails(223, "because\nFailed to compile droplet: exit status 7");
    assert_eq!(place.json("out/result.json")["process_types"], serde_json::json!({}));
    pack(&place, "k", &[("detect", ""), ("compile", "kill -9 $$")]);
    stage(&place, "k").fails(223, "Failed to compile droplet: signal 9");
    pack(&place, "x", &[("detect", "")]);
    stage(&place, "x").fails(223, "cannot run bin/compile: buildpack x has no such script");

    for (release, why) in [
        ("exit 3", "exit status 3"),
        ("echo 'a: b: c'", "the output of bin/release is invalid: line 1: "),
        ("echo 'default_process_types: [a]'", "a list, not a map"),
        ("printf '\\377'", "not UTF-8"),
        ("head -c 2000000 /dev/zero", "more than 1048576 bytes"),
    ] {
        pack(&place, "r", &[("detect", ""), ("compile", ""), ("release", release)]);
        let said = stage(&place, "r").fails(224, "Failed to build droplet release: ");
        assert!(said.err.contains(why), "{why}: {said:#?}");
    }

    pack(&place, "s", &[("supply", "exit 9"), ("finalize", ""), ("release", "")]);
    run(builder(&place, "s").arg("-skipDetect"))
        .fails(225, "Failed to run all supply scripts: exit status 9");
    let said = run(builder(&place, "no,s").arg("-skipDetect"));
    said.fails(225, "does not support multi-buildpack apps: no has no bin/supply");

    pack(&place, "f", &[("finalize", "exit 2"), ("release", "")]);
    run(builder(&place, "f").arg("-skipDetect"))
        .fails(226, "Failed to run finalize script: exit status 2");
    run(builder(&place, "gone").arg("-skipDetect")).fails(1, "buildpack gone is not in ");
}

#[test]
fn a_script_that_cannot_start_says_what_is_missing() {
    let place = Place::new();
    pack(&place, "i", &[("detect", ""), ("release", "")]);
    let compile = place.script(&format!("packs/{}/bin/compile", xxh64_hex("i")), "");
    fs::write(&compile, "#!/no/such/bash -e\n").expect("a script");
    stage(&place, "i").fails(223, "cannot run bin/compile: this stack has no /no/such/bash");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&compile, mode).expect("its mode");
    stage(&place, "i").fails(223, "it is not executable; chmod +x it");
}

#[test]
fn a_bad_procfile_names_its_line() {
    let place = Place::new();
    pack(&place, "p", &[("detect", ""), ("compile", ""), ("release", "echo '--- {}'")]);
    let text = "Failed to read command from Procfile: invalid YAML: line 2: ";
    place.write("app/Procfile", "web: a\nbad line\n");
    stage(&place, "p").fails(1, text);
    place.write("app/Procfile", "# nothing\n");
    let said = stage(&place, "p").ok();
    assert_eq!(
        said.out,
        "No start command specified by buildpack or via Procfile.\n\
         App will not start unless a command is provided at runtime.\n"
    );
    let said = run(builder(&place, "p").arg("-startCommandGiven=true")).ok();
    assert_eq!(said.out, "", "the manifest has one");
}

#[test]
fn arguments_that_do_not_fit_are_explained() {
    let place = Place::new();
    run(&mut place.role("builder")).fails(1, "missing flag: -buildpackOrder\nUsage of builder:");
    run(place.role("builder").args(["-buildDir=", "-buildpackOrder=a"]))
        .fails(1, "missing flag: -buildDir\n");
    run(place.role("builder").arg("-nope")).fails(1, "flag provided but not defined: -nope\n");
}

#[test]
fn a_buildpack_is_found_by_either_hash_and_one_level_down() {
    let place = Place::new();
    // md5 of "old", as releases before 2017 name the directory.
    for (name, file) in [("detect", ""), ("compile", "echo by md5"), ("release", "")] {
        place.script(&format!("packs/149603e6c03516362a8da23f624db945/bin/{name}"), file);
    }
    assert!(stage(&place, "old").ok().out.starts_with("by md5\n"));
    for (name, file) in [("detect", ""), ("compile", "echo deep"), ("release", "")] {
        place.script(&format!("packs/{}/pack-1.0/bin/{name}", xxh64_hex("deep")), file);
    }
    assert!(stage(&place, "deep").ok().out.starts_with("deep\n"));
    place.dir(&format!("packs/{}/second", xxh64_hex("deep")));
    let said = stage(&place, "deep").fails(222, "");
    assert!(
        said.out.contains("malformed buildpack does not contain a /bin dir: deep"),
        "{said:#?}"
    );
}

/// Row 68: kept between stagings, and pruned of what other chains left.
#[test]
fn the_cache_survives_to_the_next_staging_and_a_broken_one_is_forgotten() {
    let place = Place::new();
    let compile = "ls $2; echo x > $2/x";
    pack(&place, "p", &[("detect", ""), ("compile", compile), ("release", "echo '{}'")]);
    let again = |archive: &str| {
        let _ = fs::remove_dir_all(place.path("cache"));
        let flag = format!("-buildArtifactsCacheArchive={}", place.path(archive).display());
        run(builder(&place, "p").arg(flag)).ok().out
    };
    assert!(again("missing.tgz").starts_with("No start"));
    fs::rename(place.path("out/cache.tgz"), place.path("kept.tgz")).expect("the cache");
    assert!(again("kept.tgz").starts_with("x\nNo start"));

    let whole = fs::read(place.path("kept.tgz")).expect("the cache");
    place.write("broken.tgz", &whole[..whole.len() / 2]);
    let out = again("broken.tgz");
    assert!(out.starts_with("Warning: the build cache is not used: "), "{out}");
    assert_eq!(out.lines().count(), 3, "the cache was not empty: {out}");
    assert!(!place.path("broken.tgz").exists(), "the build has its room");

    place.write("cache/gone/x", "");
    place.write("cache/final/stays", "");
    stage(&place, "p").ok();
    assert!(!place.path("cache/gone").exists() && place.path("cache/final/stays").exists());
}

#[test]
fn scripts_see_the_environment_and_a_database() {
    let place = Place::new();
    let show = "echo $USER_SET $DATABASE_URL ${VCAP_PLATFORM_OPTIONS-none}";
    pack(&place, "p", &[("detect", ""), ("compile", show), ("release", "echo '{}'")]);
    let services = r#"{"db":[{"credentials":{"uri":"mysql://h/d"}}]}"#;
    let said = run(builder(&place, "p")
        .env("USER_SET", "mine")
        .env("VCAP_SERVICES", services)
        .env("VCAP_PLATFORM_OPTIONS", "{}"))
    .ok();
    assert!(said.out.starts_with("mine mysql2://h/d none\n"), "{said:#?}");
    run(builder(&place, "p").env("VCAP_SERVICES", "{")).fails(5, "VCAP_SERVICES is not valid");
    run(builder(&place, "p").env("VCAP_PLATFORM_OPTIONS", "{")).fails(3, "platform options");
    let services = r#"{"db":[{"credentials":{"credhub-ref":"/c"}}]}"#;
    run(builder(&place, "p")
        .env("VCAP_SERVICES", services)
        .env("VCAP_PLATFORM_OPTIONS", r#"{"credhub-uri":"https://hub"}"#))
    .fails(4, "Unable to interpolate credhub references: https://hub");
    let said = run(builder(&place, "p").env("VCAP_SERVICES", services)).ok();
    assert!(said.out.contains("none"), "{said:#?}");
}
