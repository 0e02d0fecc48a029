use super::super::releases::judged;
use super::super::releases::tests::app as declared;
use super::super::rollout::Verdict;
use super::super::scaled::Said;
use super::*;

fn release(app: &AppRecord, run: &str) -> Release {
    Release { droplet: Digest::of(run.as_bytes()), ..app.release.clone().expect("a release") }
}

/// An app that has run these, one after the other.
fn ran(all: &[&str]) -> AppRecord {
    let mut app = AppRecord { proven: true, ..declared("") };
    note(&mut app, "apply", 1);
    for (at, run) in all.iter().enumerate() {
        let release = release(&app, run);
        releases::replace(&mut app, release);
        app.proven = true;
        note(&mut app, "apply", at as u64 + 2);
        note(&mut app, "scale", 99);
    }
    app
}

fn shape(app: &AppRecord) -> Vec<(u64, bool, String)> {
    view(app).into_iter().map(|it| (it.revision, it.current, it.why)).collect()
}

#[test]
fn what_takes_over_is_a_revision_and_the_oldest_go() {
    let app = ran(&["b", "c", "d", "e", "f"]);
    let numbers: Vec<u64> = app.revisions.iter().map(|it| it.number).collect();
    assert_eq!(numbers, [2, 3, 4, 5, 6]);
    assert_eq!(shape(&app).last().map(|it| (it.0, it.1)), Some((6, true)));
}

#[test]
fn instances_by_scale_hold_until_the_next_declaration_takes_over() {
    let mut app = ran(&[]);
    app.scale("web".into(), 3);
    let said = Said::of("run.instances = 2", false);
    let two = declared("instances = 2").manifest;
    let mut app = app.clone().declared(two, app.file.clone(), &said);
    assert_eq!(app.scale.get("web"), Some(&3), "what runs goes on as it is");
    let mut late = app.clone();
    late.scale("web".into(), 5);
    for (app, left) in [(&mut app, None), (&mut late, Some(&5))] {
        let next = release(app, "b");
        replace(app, next, 7);
        assert_eq!(app.scale.get("web"), left);
        // Not by what somebody merely stages again.
        let again = release(app, "c");
        replace(app, again, 8);
        assert_eq!(app.scale.get("web"), left);
    }
}

#[test]
fn web_does_not_run_in_place_of_a_process_that_the_older_manifest_does_not_name() {
    let mut app = ran(&["b"]);
    let next = declared("memory = \"32MiB\"\n[process.web]\n[process.worker]\n");
    app = app.clone().declared(next.manifest.clone(), app.file.clone(), &Said::default());
    replace(&mut app, next.release.expect("a release"), 7);
    app.scale("worker".into(), 3);
    app.scale("web".into(), 2);
    // No manifest has named it: as in Cloud Foundry it stays wanted.
    app.scale.insert("clock".into(), 1);
    let counts = |app: &AppRecord| -> Vec<(String, u32)> {
        let all = releases::desired(app).into_iter();
        all.map(|lrp| (lrp.guid.process, lrp.instances)).collect()
    };
    let of = |all: &[(&str, u32)]| -> Vec<(String, u32)> {
        all.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
    };
    assert_eq!(counts(&app), of(&[("web", 2), ("worker", 3), ("clock", 1)]));
    let (back, _) = rolled_back(&app, target(&app, None).expect("the one before"), 8);
    assert_eq!(counts(&back), of(&[("web", 2), ("clock", 1)]));
    assert!(!back.process_types().contains("worker"));
    // Should that give way again, so does what is wanted of it.
    let trial = AppRecord { last_good: app.release.clone(), ..back };
    let (again, _) = judged(&trial, Verdict::Bad("it fell".into())).expect("it goes back");
    assert_eq!(again.scale, app.scale);
    // A revision that has it keeps what is wanted of it.
    let (again, _) = rolled_back(&app, app.revisions.last().expect("kept"), 8);
    assert_eq!(again.scale, app.scale);
}

#[test]
fn what_has_changed_is_told_in_the_words_of_a_manifest() {
    let of = |run: &str| declared(run).release.expect("a release");
    let old = of("memory = \"32MiB\"\n[env]\nSECRET = \"a\"\n");
    assert_eq!(changed(&old, &old), [""; 0]);
    let new = of("memory = \"48MiB\"\n[env]\nSECRET = \"b\"\n[process.web]\n[process.worker]\n");
    let droplet = Release { droplet: old.droplet, ..new.clone() };
    assert_eq!(changed(&old, &droplet), ["env.SECRET", "process.worker", "run.memory"]);
    let mut moved = new.clone();
    moved.manifest.source = "/elsewhere".into();
    assert_eq!(changed(&droplet, &moved), ["droplet"]);
    let more = of("memory = \"48MiB\"\n[process.web]\n[process.worker]\ninstances = 3\n");
    assert_eq!(changed(&new, &more), ["droplet", "env.SECRET", "process.worker.instances"]);
}

#[test]
fn to_go_back_makes_a_revision_of_old_content() {
    let app = ran(&["b", "c"]);
    let first = target(&app, None).expect("the one before");
    assert_eq!(first.number, 2);
    let (back, number) = rolled_back(&app, first, 7);
    assert_eq!((number, back.release.as_ref()), (4, Some(&first.release)));
    // What was away is not asked for any more.
    let away = AppRecord { away: true, ..app.clone() };
    assert!(!rolled_back(&away, first, 7).0.away);
    assert_eq!(back.staged, Some(back.generation));
    assert_eq!(back.last_good, app.release, "what it goes back from may come back");
    let why = |at: usize| shape(&back)[at].clone();
    assert_eq!((why(2).1, why(3)), (false, (4, true, "rollback to 2".into())));
    // The file still says what it said, however often one goes back.
    let declared = Some(digest(&app.manifest));
    assert_eq!(back.overruled, declared);
    let (again, _) = rolled_back(&back, target(&back, Some(1)).expect("kept"), 8);
    assert_eq!(again.overruled, declared);
    // Once more without a number: not to itself.
    assert_eq!(target(&back, None).map(|it| it.number), Ok(3));
    let err = target(&app, Some(9)).expect_err("refused");
    assert!(err.contains("no revision 9; it has 1, 2, 3"), "{err}");
    assert!(target(&ran(&[]), None).expect_err("refused").contains("nothing to go back to"));
}

/// What is asked for and taken over, and how that ends.
fn tried(app: &AppRecord, run: &str, good: bool) -> AppRecord {
    let mut app = app.clone();
    let next = release(&app, run);
    replace(&mut app, next, 50);
    let verdict = if good { Verdict::Good } else { Verdict::Bad("it fell".into()) };
    judged(&app, verdict).expect("it is judged").0
}

fn healths(app: &AppRecord) -> Vec<(u64, String)> {
    view(app).into_iter().map(|it| (it.revision, it.health)).collect()
}

/// The same as it should be: of the first word all but one of them.
fn healthy_but(failed: u64, all: impl Iterator<Item = u64>) -> Vec<(u64, String)> {
    let word = |number| if number == failed { "failed" } else { "healthy" };
    all.map(|number| (number, word(number).to_owned())).collect()
}

#[test]
fn a_version_that_was_never_healthy_takes_the_place_of_none_that_was() {
    let app = ran(&["b", "c", "d", "e"]);
    let failed = tried(&app, "f", false);
    assert_eq!(healths(&failed), healthy_but(6, 1..=6));
    assert_eq!(view(&failed)[5].failure.as_deref(), Some("it fell"));
    // It runs again as the revision that it was, also when it is applied again.
    let mut same = failed.clone();
    let runs = failed.release.clone().expect("it runs");
    replace(&mut same, runs, 60);
    for app in [&failed, &same] {
        let current: Vec<u64> = shape(app).into_iter().filter(|it| it.1).map(|it| it.0).collect();
        assert_eq!((app.revisions.len(), current), (6, vec![5]));
    }
    // However often it is tried, one of those is kept.
    let again = tried(&tried(&same, "f", false), "g", false);
    assert_eq!(healths(&again), healthy_but(8, [1, 2, 3, 4, 5, 8].into_iter()));
    // One that is good makes the oldest go, and not before that is known.
    let mut next = again.clone();
    let release = release(&next, "h");
    replace(&mut next, release, 70);
    assert_eq!(healths(&next)[0].0, 1);
    assert_eq!(healths(&next)[5], (9, "unproven".to_owned()));
    let (next, _) = judged(&next, Verdict::Good).expect("it is good");
    assert_eq!(healths(&next), healthy_but(0, [2, 3, 4, 5, 9].into_iter()));
    // Where nobody judges, as there is no way back, the last ones are kept.
    let mut open = declared("");
    for run in ["b", "c", "d", "e", "f", "g", "h"] {
        let next = self::release(&open, run);
        replace(&mut open, next, 1);
    }
    assert_eq!(open.revisions.iter().map(|it| it.number).collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
}

#[test]
fn back_without_a_number_is_to_the_last_one_that_was_healthy() {
    let app = tried(&ran(&["b", "c"]), "d", false);
    assert_eq!(target(&app, None).map(|it| it.number), Ok(2), "3 runs, 4 has failed");
    let failed = target(&app, Some(4)).expect("it is kept");
    assert!(!failed.fate.is_good());
    // Whoever wants that one gets it, and it is judged again.
    let (back, number) = rolled_back(&app, failed, 60);
    assert_eq!((number, &back.revisions[4].fate), (5, &Fate::Unproven));
    assert_eq!(target(&back, None).map(|it| it.number), Ok(3), "what it came from");
    let alone = tried(&ran(&[]), "b", false);
    let err = target(&alone, None).expect_err("nothing was healthy");
    assert!(err.contains("nothing to go back to that was ever healthy; `--to` takes"), "{err}");
}

/// A record of before says nothing of it, and a good one says no more.
#[test]
fn what_an_older_program_has_kept_counts_as_healthy() {
    let text = |app: &AppRecord| serde_json::to_string(&app.revisions).expect("JSON");
    let app = tried(&ran(&["b"]), "c", false);
    assert!(text(&app).contains("\"fate\":{\"failed\":\"it fell\"}"), "{}", text(&app));
    let good = ran(&["b"]);
    assert!(!text(&good).contains("fate"));
    for app in [app, good] {
        let read: Vec<Revision> = serde_json::from_str(&text(&app)).expect("revisions");
        assert_eq!(read, app.revisions);
    }
}
