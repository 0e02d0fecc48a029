//! What is pushed, and what is refused.

use super::*;
use crate::config::manifest;

fn typed(line: &str) -> Push {
    use crate::cli::parse::{Command, parse};
    let words = ["push"].into_iter().chain(line.split_whitespace());
    match parse(words.map(Into::into)).expect("a command line").command {
        Command::Push(push) => push,
        other => panic!("{other:?}"),
    }
}

fn image(name: &str) -> Origin {
    Origin::Image(name.parse().expect("image"))
}

#[test]
fn flags_of_one_app_are_not_taken_for_several() {
    let one = |name: &str| Imported {
        name: name.parse().expect("name"),
        text: String::new(),
        notes: Vec::new(),
        has_port: true,
        named: None,
        line: 1,
    };
    let count = |line: &str, all| chosen(&typed(line), all, false).map(|all| all.len()).ok();
    assert_eq!(count("-c x", vec![one("a"), one("b")]), None);
    assert_eq!(count("-c x", vec![one("a")]), Some(1));
    assert_eq!(count("", vec![one("a"), one("b")]), Some(2));
    assert_eq!(count("-c x -n b", vec![one("a"), one("b")]), Some(1));
    assert!(chosen(&typed(""), vec![one("a"), one("b")], true).is_err(), "one archive for two");
}

#[test]
fn without_a_manifest_what_is_pushed_names_the_app() {
    let read = |line: &str, origin: &Origin| {
        let push = typed(line);
        let name = name_of(&push, origin).expect("a name");
        let text = overlaid(&bare(&name, origin), &Flags::of_one(&push));
        manifest::parse(&text, "x", Path::new("/")).expect("a manifest")
    };
    let it = read("--port 8000", &Origin::Dir("/srv/My_App".into()));
    let port = (it.ports[0].container, it.ports[0].publish);
    assert_eq!((it.name.as_str(), port), ("my-app", (8080, Some(8000))));
    let it = read("", &Origin::Archive("/srv/shop-1.2.jar".into()));
    assert_eq!((it.name.as_str(), &*it.source), ("shop-1-2", Path::new("/srv/shop-1.2.jar")));
    let it = read("--port 6379", &image("registry.lan/ops/cache:7"));
    let port = (it.ports[0].container, it.ports[0].publish);
    assert_eq!((it.name.as_str(), port), ("cache", (0, Some(6379))));
    assert!(name_of(&Push::default(), &Origin::Dir("/".into())).is_err());
}

#[test]
fn a_flag_that_would_do_nothing_is_refused_by_its_name() {
    let dir = Origin::Dir("/srv/x".into());
    let cf = || Found::OfCf("/srv/x/manifest.yml".into());
    let own = || Found::Own("/srv/x/terrarium.toml".into());
    for (line, origin, found, why) in [
        (
            "--vars-file nosuch",
            &dir,
            Found::None,
            "--vars-file has no effect: there is no manifest.yml",
        ),
        ("--var a=b", &dir, own(), "--var has no effect: terrarium.toml says"),
        ("--services s", &image("a:1"), Found::None, "--services has no effect"),
        ("--port 80 --no-route", &dir, cf(), "--port has no effect: --no-route"),
        ("--random-route --no-route", &dir, cf(), "--random-route has no effect"),
        ("--endpoint /up", &dir, cf(), "--endpoint has no effect"),
        ("-b ruby", &image("a:1"), Found::None, "-b has no effect: an image is not built"),
        ("-s tiny", &image("a:1"), Found::None, "-s has no effect: an image is not built"),
        ("-f m.yml", &image("a:1"), cf(), "-f has no effect"),
        ("-f m.yml --no-manifest", &dir, cf(), "--no-manifest has no effect"),
    ] {
        let err = idle(&typed(line), origin, &found).expect_err(line).to_string();
        assert!(err.contains(why), "{line}: {err}");
    }
    for (line, origin, found) in [
        ("--vars-file v --var a=b --services s --port 80", &dir, cf()),
        ("--port 80 -b ruby -s tiny --random-route", &dir, Found::None),
        ("--port 80", &dir, own()),
        ("-u http --endpoint /up --no-route", &dir, own()),
    ] {
        assert!(idle(&typed(line), origin, &found).is_ok(), "{line}");
    }
}

#[test]
fn what_is_pushed_is_a_directory_an_archive_or_an_image() {
    let dir = std::env::temp_dir().join(format!("terrarium-origin-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("directory");
    for name in ["app.WAR", "notes.txt"] {
        std::fs::write(dir.join(name), "").expect("file");
    }
    let whole = std::fs::canonicalize(&dir).expect("a path");
    let of = |name: &str| origin(&typed(&whole.join(name).display().to_string()));
    assert_eq!(of("").ok(), Some(Origin::Dir(whole.clone())));
    assert_eq!(of("app.WAR").ok(), Some(Origin::Archive(whole.join("app.WAR"))));
    let err = crate::log::chain(&of("notes.txt").expect_err("no app"));
    assert!(err.contains("neither a directory nor a zip"), "{err}");
    assert!(of("nosuch").is_err());
    assert_eq!(origin(&typed("registry.lan/a:1")).ok(), Some(image("registry.lan/a:1")));
    assert_eq!(origin(&typed("-o a")).ok(), Some(image("a")));
    assert!(origin(&typed("-p nosuch-directory")).is_err(), "a path is no image");
    std::fs::remove_dir_all(&dir).expect("clean up");
}
