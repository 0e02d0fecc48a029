use super::super::releases::tests::app as declared;
use super::super::releases::{desired, judged};
use super::super::revisions::replace;
use super::super::rollout::Verdict;
use super::*;
use crate::unit::Digest;

/// Nothing of how many are wanted.
fn silent() -> Said {
    Said::default()
}

/// The release of an app whose droplet has these process types.
fn built(app: &AppRecord, types: &[&str]) -> Release {
    let mut release = app.release.clone().expect("a release");
    let types = types.iter().map(|name| (name.to_string(), format!("./{name}")));
    release.result.process_types = types.collect();
    release.droplet = Digest::of(format!("{:?}", release.result).as_bytes());
    release
}

/// How many are wanted of each process.
fn counts(app: &AppRecord) -> Vec<(String, u32)> {
    let all = desired(app).into_iter();
    all.map(|lrp| (lrp.guid.process, lrp.instances)).collect()
}

/// The same, as it should be.
fn of(web: u32, worker: u32) -> Vec<(String, u32)> {
    vec![("web".to_owned(), web), ("worker".to_owned(), worker)]
}

fn read(text: &str) -> Manifest {
    let read = crate::config::manifest::parse(text, "web.toml", "/x".as_ref());
    read.unwrap_or_else(|bad| panic!("{}", bad.render(false)))
}

/// Row 72: as in Cloud Foundry such a process and how many of it are wanted stay, whatever is pushed.
#[test]
fn row_72_a_process_of_the_droplet_alone_keeps_the_instances_that_it_was_given() {
    let mut app = declared("memory = \"32MiB\"");
    let both = built(&app, &["web", "worker"]);
    replace(&mut app, both.clone(), 1);
    assert_eq!(counts(&app), of(1, 0));
    assert!(app.process_types().contains("worker"));
    app.scale("worker".into(), 2);
    app.scale("web".into(), 3);
    // Of the one the manifest says another count, and of the other one nothing.
    let text = "name = \"web\"\nsource.path = \".\"\nrun.instances = 4\n";
    let mut next = app.clone().declared(read(text), app.file.clone(), &Said::of(text, false));
    let both = Release { manifest: next.manifest.clone(), ..both };
    replace(&mut next, both.clone(), 2);
    assert_eq!(counts(&next), of(4, 2));
    // With a droplet without it they run what `web` does, and with the next one that has it their own.
    let commands = |app: &AppRecord| -> Vec<String> {
        desired(app).into_iter().map(|lrp| lrp.command).collect()
    };
    let less = built(&next, &["web"]);
    replace(&mut next, less, 3);
    assert_eq!((counts(&next), next.gone()), (of(4, 2), vec![&"worker".into()]));
    assert_eq!(commands(&next), ["./web", "./web"]);
    assert!(next.process_types().contains("worker"), "it can be scaled to 0");
    let mut mute = next.clone();
    let other = built(&mute, &["clock"]);
    replace(&mut mute, other, 4);
    assert!(mute.gone() == [&"worker".to_owned()] && !commands(&mute).contains(&"./web".into()));
    let mut forgotten = next.clone();
    replace(&mut next, both.clone(), 4);
    assert_eq!((counts(&next), next.gone().len()), (of(4, 2), 0));
    assert_eq!(commands(&next), ["./web", "./worker"]);
    forgotten.scale("worker".into(), 0);
    assert_eq!(counts(&forgotten), [("web".to_owned(), 4)]);
    assert!(forgotten.gone().is_empty() && !forgotten.process_types().contains("worker"));
    // Who writes it into the manifest means what stands there.
    let text =
        "name = \"web\"\nsource.path = \".\"\n[process.web]\n[process.worker]\ninstances = 5\n";
    let said = Said::of(text, false);
    let mut named = next.clone().declared(read(text), "/x/web.toml".into(), &said);
    let release = Release { manifest: named.manifest.clone(), ..both.clone() };
    replace(&mut named, release, 5);
    assert_eq!(counts(&named), of(1, 5));
    // Who writes it without a count has said nothing of that.
    let text = "name = \"web\"\nsource.path = \".\"\n[process.web]\n[process.worker]\n";
    let said = Said::of(text, false);
    let mut mute = next.clone().declared(read(text), "/x/web.toml".into(), &said);
    let release = Release { manifest: mute.manifest.clone(), ..both.clone() };
    replace(&mut mute, release, 5);
    assert_eq!(counts(&mute), of(1, 2));
    // What lapses when it is left out of the manifest does so too when the first try of that failed.
    named.scale("worker".into(), 3);
    let less = app.manifest.clone();
    let failed = named.clone().declared(less.clone(), app.file.clone(), &silent());
    let mut mended = failed.declared(less, app.file.clone(), &silent());
    let both = built(&mended, &["web", "worker"]);
    let both = Release { manifest: mended.manifest.clone(), ..both };
    replace(&mut mended, both, 6);
    assert_eq!(counts(&mended), of(1, 0));
}

#[test]
fn what_stands_in_goes_on_until_the_manifest_that_names_it_has_taken_over() {
    let mut app = declared("memory = \"32MiB\"");
    let both = built(&app, &["web", "worker"]);
    replace(&mut app, both, 1);
    app.scale("worker".into(), 2);
    let less = built(&app, &["web"]);
    replace(&mut app, less, 2);
    assert_eq!(counts(&app), of(1, 2), "it stands in");
    let text = "memory = \"32MiB\"\n[process.web]\n[process.worker]\ninstances = 5\n";
    let (named, said) = (declared(text), Said::of(text, false));
    let declare = |app: &AppRecord, manifest: &Manifest| {
        app.clone().declared(manifest.clone(), app.file.clone(), &said)
    };
    let mut next = declare(&app, &named.manifest);
    let is_as_before = |next: &AppRecord| {
        assert_eq!((counts(next), next.gone()), (of(1, 2), vec![&"worker".to_owned()]));
    };
    is_as_before(&next);
    next.failure = Some("it cannot be staged".into());
    is_as_before(&next);
    is_as_before(&declare(&next, &named.manifest));
    // So it does when it is scaled again meanwhile, which then holds over what is declared.
    let mut again = next.clone();
    again.scale("worker".into(), 3);
    assert_eq!((counts(&again), again.gone()), (of(1, 3), vec![&"worker".to_owned()]));
    let release = Release { manifest: named.manifest.clone(), ..built(&app, &["web"]) };
    replace(&mut again, release.clone(), 3);
    assert_eq!((counts(&again), again.gone().len()), (of(1, 3), 0));
    assert!(declare(&again, &named.manifest).lapses.is_empty(), "it is the same manifest");
    replace(&mut next, release, 3);
    assert_eq!(counts(&next), of(1, 5), "the manifest counts");
    // Who scales what only the manifest names waits for that, and lets nothing else run instead of it.
    let alone = declared("memory = \"32MiB\"");
    let mut late = declare(&alone, &named.manifest);
    late.scale("worker".into(), 4);
    assert_eq!(late.wanted_then().get("worker"), Some(&4));
    let web = [("web".to_owned(), 1)];
    assert_eq!((counts(&late), late.gone().len()), (web.to_vec(), 0));
    for (manifest, then) in [(&named.manifest, Some(&4)), (&alone.manifest, None)] {
        let again = declare(&late, manifest);
        assert_eq!((counts(&again), again.gone().len()), (web.to_vec(), 0));
        assert_eq!(again.wanted_then().get("worker"), then, "as long as it is named");
    }
}

/// An app that runs well, of which three are wanted where the manifest writes two, and that manifest.
fn scaled() -> (AppRecord, Manifest) {
    let first = declared("instances = 2");
    let mut app = AppRecord { proven: true, ..first.clone() };
    app.scale("web".into(), 3);
    (app, first.manifest)
}

/// What is declared with this in `[run]` takes over.
fn takes_over(app: &AppRecord, run: &str, typed: bool) -> AppRecord {
    let release = declared(run).release.expect("a release");
    let said = Said::of(&format!("[run]\n{run}"), typed);
    let mut app = app.clone().declared(release.manifest.clone(), app.file.clone(), &said);
    assert_eq!(app.scale.get("web"), Some(&3), "what runs goes on as it is");
    replace(&mut app, release, 7);
    app
}

#[test]
fn a_wish_holds_until_a_manifest_writes_another_count_or_somebody_types_one() {
    let (app, _) = scaled();
    let web = |run: &str, typed| takes_over(&app, run, typed).scale.get("web").copied();
    for (run, typed, left) in [
        ("instances = 2", false, Some(3)),
        ("instances = 2\nmemory = \"33MiB\"", false, Some(3)),
        // That nothing is written any more is no count.
        ("memory = \"33MiB\"", false, Some(3)),
        ("instances = 4", false, None),
        ("instances = 1", false, None),
        ("instances = 2", true, None),
    ] {
        assert_eq!(web(run, typed), left, "{run} {typed}");
    }
    // It is what was written when the wish was given that counts, not what came between.
    let between = takes_over(&app, "memory = \"33MiB\"", false);
    let back = takes_over(&between, "instances = 2", false);
    assert_eq!(back.scale.get("web"), Some(&3));
    assert_eq!(takes_over(&back, "instances = 1", false).scale.get("web"), None);
}

/// As `push -i` writes it: of `web` alone.
#[test]
fn a_count_that_is_typed_ends_no_wish_for_another_process() {
    let both = "[process.web]\n[process.worker]\ncommand = \"w\"\n";
    let mut app = AppRecord { proven: true, ..declared(both) };
    app.scale("web".into(), 3);
    app.scale("worker".into(), 4);
    let typed = "[process.web]\ninstances = 2\n[process.worker]\ncommand = \"w\"\n";
    let release = declared(typed).release.expect("a release");
    let said = Said::of(typed, true);
    let mut next = app.clone().declared(release.manifest.clone(), app.file.clone(), &said);
    replace(&mut next, release, 7);
    assert_eq!(counts(&next), of(2, 4));
}

#[test]
fn a_declaration_that_is_never_staged_ends_no_wish() {
    let (app, manifest) = scaled();
    let other = declared("instances = 4").manifest;
    let declare = |app: AppRecord, manifest: &Manifest| {
        let said = Said::of("run.instances = 1", false);
        app.declared(manifest.clone(), "/x/web.toml".into(), &said)
    };
    let mut failed = declare(app, &other);
    failed.failure = Some("it cannot be staged".into());
    let back = declare(failed.clone(), &manifest);
    assert_eq!((back.scale.get("web"), back.lapses.len()), (Some(&3), 0));
    // Each time it is tried it would.
    assert_eq!(declare(failed, &other).wanted_then().get("web"), None);
}

#[test]
fn what_a_version_has_ended_that_gives_way_holds_again() {
    let (app, _) = scaled();
    let bad = || Verdict::Bad("it fell".into());
    let trial = takes_over(&app, "instances = 4", false);
    assert_eq!((trial.scale.len(), desired(&trial)[0].instances), (0, 4));
    let (back, _) = judged(&trial, bad()).expect("it goes back");
    assert_eq!((back.scale.get("web"), back.lapsed.len()), (Some(&3), 0));
    // The same again is the same.
    let (again, _) = judged(&takes_over(&back, "instances = 4", false), bad()).expect("back");
    assert_eq!(again.scale.get("web"), Some(&3));
    // What somebody has asked for meanwhile holds, and what is well is not gone back from.
    let mut asked = trial.clone();
    asked.scale("web".into(), 6);
    assert_eq!(judged(&asked, bad()).expect("back").0.scale.get("web"), Some(&6));
    let (good, _) = judged(&trial, Verdict::Good).expect("it is good");
    assert!(good.scale.is_empty() && good.lapsed.is_empty());
    // One that is declared while another is on trial ends it all the same, when that has given way.
    let said = Said::of("run.instances = 1", false);
    let next = declared("instances = 5").manifest;
    let waits = trial.declared(next, app.file.clone(), &said);
    let (back, _) = judged(&waits, bad()).expect("back");
    assert_eq!((back.scale.get("web"), back.wanted_then().get("web")), (Some(&3), None));
}

/// Records of before are read, and theirs end as those do that are given now.
#[test]
fn a_wish_of_which_nothing_is_noted_was_given_over_what_was_declared_then() {
    let (mut app, manifest) = scaled();
    app.over.clear();
    let mut lapses = AppRecord { lapses: ["web".to_owned()].into(), ..app.clone() };
    lapses.manifest = declared("instances = 4").manifest;
    for (app, written, ends) in [
        (&app, &manifest, false),
        (&app, &lapses.manifest, true),
        (&lapses, &lapses.manifest, true),
    ] {
        let said = Said::of("run.instances = 1", false);
        assert_eq!(app.ended_by(written, &said).contains("web"), ends);
    }
    // One that stands in goes on to do so, whatever is declared next.
    let mut stands = app.clone();
    stands.scale.insert("worker".into(), 2);
    let text = "[process.web]\n[process.worker]\n";
    let named = declared(text).manifest;
    let next = stands.declared(named, "/x/web.toml".into(), &Said::of(text, false));
    assert_eq!((next.gone(), next.lapses.len()), (vec![&"worker".to_owned()], 0));
    let text = serde_json::to_string(&app).expect("JSON");
    assert!(!text.contains("\"over\"") && !text.contains("lapse"), "{text}");
    assert_eq!(serde_json::from_str::<AppRecord>(&text).expect("a record"), app);
    let (app, _) = scaled();
    let trial = takes_over(&app, "instances = 4", false);
    for app in [app, trial] {
        let text = serde_json::to_string(&app).expect("JSON");
        assert_eq!(serde_json::from_str::<AppRecord>(&text).expect("a record"), app);
    }
}
