//! The buildpacks and sample apps of `config/`, staged for real.

use crate::place::{Place, Said, listing, run, tool};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use terrarium::unit::xxh64_hex;

/// Stages the tree `app` of the place with the buildpacks that ship.
fn stage(place: &Place) -> Said {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/buildpacks");
    let packs = place.dir("packs");
    for key in ["procfile", "static"] {
        let link = packs.join(xxh64_hex(key));
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(shipped.join(key), link).expect("a link");
    }
    let mut builder = place.role("builder");
    for (flag, name) in [
        ("buildDir", "app"),
        ("outputDroplet", "droplet"),
        ("outputMetadata", "result.json"),
        ("outputBuildArtifactsCache", "cache.tgz"),
        ("buildpacksDir", "packs"),
        ("buildpacksDownloadDir", "downloads"),
        ("buildArtifactsCacheDir", "cache"),
    ] {
        builder.arg(format!("-{flag}={}", place.path(name).display()));
    }
    run(builder.arg("-buildpackOrder=procfile,static"))
}

fn sample(place: &Place, name: &str) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/apps/src").join(name);
    tool("cp", &[OsStr::new("-a"), from.as_os_str(), OsStr::new("app")], &place.path(""));
}

fn served(place: &Place) -> Vec<String> {
    let names = listing(&place.path("droplet"));
    names.iter().filter_map(|name| name.strip_prefix("app/public/")).map(str::to_owned).collect()
}

#[test]
fn the_samples_get_the_buildpack_they_are_made_for() {
    for (name, pack, kind, command) in [
        ("hello", "procfile", "web", "python3 hello.py"),
        ("worker", "procfile", "worker", "sh worker.sh"),
        ("site", "static", "web", "exec "),
    ] {
        let place = Place::new();
        sample(&place, name);
        let said = stage(&place).ok();
        assert!(said.out.starts_with("-----> "), "{said:#?}");
        let result = place.json("result.json");
        assert_eq!(result["lifecycle_metadata"]["detected_buildpack"], pack, "{name}");
        let found = result["process_types"][kind].as_str().unwrap_or_default();
        assert!(found.starts_with(command), "{name}: {found}");
    }
}

#[test]
fn an_app_without_a_procfile_is_taken_as_it_is_but_nothing_is_no_app() {
    let place = Place::new();
    place.write("app/run.sh", "");
    let said = stage(&place).ok();
    assert!(said.out.contains("the command comes from the manifest"), "{said:#?}");
    assert!(said.out.contains("No start command specified"), "{said:#?}");
    fs::remove_file(place.path("app/run.sh")).expect("the only file");
    stage(&place).fails(222, "None of the buildpacks detected");
}

#[test]
fn a_site_serves_what_its_staticfile_or_its_layout_says() {
    for (files, staticfile, want) in [
        (
            &["index.html", "a b.css", ".git/x", ".well-known/x"][..],
            None,
            &[".well-known", ".well-known/x", "a b.css", "index.html"][..],
        ),
        (&["index.html", "public/x"], None, &["index.html", "public", "public/x"]),
        (&["public/index.html", "build.sh"], None, &["index.html"]),
        (
            &["dist/site/index.html", "public/old", "x"],
            Some("root: \"./dist/site/\" # here\r\n"),
            &["index.html"],
        ),
        (&["public/sub/index.html"], Some("root: public/sub\n"), &["index.html"]),
        (&["index.html"], Some("root: .\npushstate: enabled\n"), &["index.html"]),
    ] {
        let place = Place::new();
        for file in files {
            place.write(&format!("app/{file}"), "");
        }
        if let Some(text) = staticfile {
            place.write("app/Staticfile", text);
        }
        let said = stage(&place).ok();
        assert_eq!(served(&place), want, "{files:?} {staticfile:?}: {said:#?}");
        let ignored = "`pushstate` is not supported";
        let odd = staticfile.is_some_and(|text| text.contains("pushstate"));
        assert_eq!(said.out.contains(ignored), odd, "{said:#?}");
    }
}

#[test]
fn a_site_that_cannot_be_served_says_why() {
    for (root, why) in [
        ("/etc", "root `/etc` is absolute"),
        ("../x", "root `../x` leads out of the app"),
        ("gone", "root `gone` is no directory of the app"),
    ] {
        let place = Place::new();
        place.write("app/Staticfile", format!("root: {root}\n"));
        stage(&place).fails(223, why);
    }
}
