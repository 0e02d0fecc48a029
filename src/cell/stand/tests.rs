use super::super::diff::tests::{CRASHED, desired, guid, key, record, running};
use super::super::releases::tests::app;
use super::*;
use crate::model::manifest::Restart;

#[test]
fn each_state_of_an_app_is_a_stand_of_its_own() {
    let lrps = desired(2, "a");
    let lrps: Vec<&DesiredLrp> = lrps.values().collect();
    let look = |app: &AppRecord, records: &[(Key, ActualLrp)], works: &[Key], full: &[Key]| {
        let actual = records.iter().cloned().collect();
        let is_worked_on = |key: &Key| works.contains(key).then_some(false);
        stand_of(app, &lrps, &actual, &is_worked_on, &|key| full.contains(key))
    };
    let good = app("");
    let run = [running(0, "a")];
    for (expected, records, works, full) in [
        (Stand::Idle, &[][..], &[][..], &[][..]),
        (Stand::Idle, &run, &[], &[]),
        (Stand::Up, &run, &[key(0)], &[]),
        (Stand::Coming, &[record(0, "a", LrpState::Unclaimed, 0)], &[key(0)], &[]),
        (Stand::Crashed, &[record(0, "a", CRASHED, 3)], &[], &[]),
        (Stand::Down("crashes"), &[record(0, "a", CRASHED, 3)], &[key(1)], &[]),
        (Stand::NoRoom, &[], &[], &[key(0)]),
    ] {
        assert_eq!(look(&good, records, works, full), expected, "{records:?} {works:?}");
    }
    let with = |change: fn(&mut AppRecord)| {
        let mut app = app("");
        change(&mut app);
        look(&app, &run, &[key(0)], &[])
    };
    assert_eq!(with(|app| app.stopped = true), Stand::Down("is stopped"));
    assert_eq!(with(|app| app.deleting = true), Stand::Down("is being deleted"));
    assert_eq!(with(|app| app.release = None), Stand::Coming);
    let failed = with(|app| (app.release, app.failure) = (None, Some("no".into())));
    assert_eq!(failed, Stand::Down("could not be staged"));
    // One whose instances are all scaled away.
    let none = desired(0, "a");
    let none: Vec<&DesiredLrp> = none.values().collect();
    let stand = stand_of(&good, &none, &BTreeMap::new(), &|_| None, &|_| false);
    assert_eq!(stand, Stand::Down("has no instance"));
    assert_eq!(guid().app.as_str(), "web");
}

/// Found by seed 3494: after a reboot the rest of it began without what it needs.
#[test]
fn where_some_have_done_their_work_the_others_still_wait() {
    let mut lrps = desired(2, "a");
    lrps.values_mut().for_each(|lrp| lrp.restart = Restart::OnFailure);
    let lrps: Vec<&DesiredLrp> = lrps.values().collect();
    let done = |index| record(index, "a", LrpState::Crashed { succeeded: true }, 0);
    for (expected, records) in [
        (Stand::Up, vec![done(0), done(1)]),
        (Stand::Idle, vec![done(0), record(1, "a", LrpState::Unclaimed, 0)]),
        (Stand::Crashed, vec![done(0), record(1, "a", CRASHED, 3)]),
    ] {
        let actual = records.iter().cloned().collect();
        assert_eq!(stand_of(&app(""), &lrps, &actual, &|_| None, &|_| false), expected);
    }
}

/// Found by seed 9304: web ran, the worker found no room, and who came after them waited for ever.
#[test]
fn an_app_with_a_process_that_finds_no_room_does_not_come_by_itself() {
    let web = desired(2, "a");
    let mut worker = web.values().next().expect("an LRP").clone();
    worker.guid.process = "worker".to_owned();
    let lrps: Vec<&DesiredLrp> = web.values().chain([&worker]).collect();
    let of_worker = |index| (worker.guid.clone(), index, Side::Left);
    let actual = BTreeMap::from([running(0, "a")]);
    let full = Stand::Down("has no room on the box");
    for (expected, works, no_room) in [
        (full.clone(), vec![key(0)], vec![of_worker(0)]),
        (full, vec![key(0)], vec![of_worker(0), of_worker(1), key(1)]),
        // One of its instances begins, and the process needs no more than one.
        (Stand::Coming, vec![key(0), of_worker(0)], vec![of_worker(1)]),
        // Web is up with one of two.
        (Stand::Coming, vec![key(0), of_worker(0)], vec![key(1)]),
        (Stand::NoRoom, vec![], vec![of_worker(0)]),
    ] {
        let works = |key: &Key| works.contains(key).then_some(false);
        let no_room = |key: &Key| no_room.contains(key);
        assert_eq!(stand_of(&app(""), &lrps, &actual, &works, &no_room), expected);
    }
}
