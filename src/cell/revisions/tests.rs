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
