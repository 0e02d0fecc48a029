//! What is said of each state, by the records and views of one app.

use super::*;
use crate::cell::record::Wish;
use crate::cell::rollout;
use crate::config::manifest;
use crate::model::lrp::{Place, ProcessGuid, Side};
use crate::model::view::Pushed;
use crate::unit::Slot;
use std::path::Path;

const NOW: u64 = 1_000_000;

fn lrp() -> DesiredLrp {
    let golden = include_str!("../../../tests/golden/desired-lrps.json");
    let all: Vec<DesiredLrp> = serde_json::from_str(golden).expect("LRPs");
    let guid = ProcessGuid { app: "web".parse().expect("name"), process: "web".into() };
    DesiredLrp { guid, ..all.into_iter().next().expect("one") }
}

fn app() -> AppRecord {
    let text = "name = \"web\"\n\n[source]\npath = \"x\"\n";
    let manifest = manifest::parse(text, "web.toml", Path::new("/")).expect("a manifest");
    AppRecord {
        staged: Some(1),
        wish: Wish::new("apply", 500),
        ..AppRecord::new(manifest, "/web.toml".into(), 1)
    }
}

fn death(counted: bool, cause: Cause) -> Option<Death> {
    Some(Death { at_ms: NOW - 10_000, counted, cause })
}

fn exited() -> Cause {
    Cause::Exited { source: "APP/PROC/WEB".into(), code: 7 }
}

/// One instance in `state`, with what its record says.
fn one(
    state: &str,
    lrp_state: LrpState,
    count: u32,
    death: Option<Death>,
) -> (InstanceView, ActualLrp) {
    let record = ActualLrp {
        guid: lrp().guid,
        index: 0,
        side: Side::Left,
        routable: None,
        ran: false,
        was_ready: false,
        tag: Default::default(),
        version: lrp().version,
        state: lrp_state,
        crash_count: count,
        crash_reason: death.as_ref().map(|death| death.cause.text()),
        death,
        placement_error: None,
        since_ms: NOW - 10_000,
    };
    let view = InstanceView {
        index: 0,
        state: state.into(),
        since_ms: record.since_ms,
        crash_count: count,
        crash_reason: record.crash_reason.clone(),
        death: record.death.clone(),
        uptime_ms: None,
        placement_error: None,
        handle: None,
        address: None,
        ports: Vec::new(),
        memory_bytes: None,
        disk_bytes: None,
        cpu_ns: None,
        unready: None,
        cpu_percent: None,
        pids: None,
        ready: None,
        outdated: false,
    };
    (view, record)
}

/// The parts for an app in `state` with these instances.
fn parts(
    app: &AppRecord,
    state: &str,
    reason: Option<&str>,
    all: Vec<(InstanceView, ActualLrp)>,
) -> Vec<Explanation> {
    parts_while(false, app, state, reason, all)
}

/// The same while the cell is drained, or not.
fn parts_while(
    drained: bool,
    app: &AppRecord,
    state: &str,
    reason: Option<&str>,
    all: Vec<(InstanceView, ActualLrp)>,
) -> Vec<Explanation> {
    explained(drained, app, (state, reason, None), all)
}

/// The same while its manifest is refused.
fn parts_of(
    app: &AppRecord,
    state: &str,
    refused: Option<&str>,
    all: Vec<(InstanceView, ActualLrp)>,
) -> Vec<Explanation> {
    explained(false, app, (state, None, refused), all)
}

fn explained(
    drained: bool,
    app: &AppRecord,
    told: (&str, Option<&str>, Option<&str>),
    all: Vec<(InstanceView, ActualLrp)>,
) -> Vec<Explanation> {
    let wanted = all.len() as u32;
    while_wanted(wanted, drained, app, told, all)
}

/// The same when so many instances are wanted.
fn while_wanted(
    wanted: u32,
    drained: bool,
    app: &AppRecord,
    (state, reason, refused): (&str, Option<&str>, Option<&str>),
    all: Vec<(InstanceView, ActualLrp)>,
) -> Vec<Explanation> {
    let (views, records): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let view = AppView {
        name: app.manifest.name.clone(),
        state: state.into(),
        reason: reason.map(str::to_owned),
        buildpack: None,
        stack: String::new(),
        image: None,
        manifest: "/web.toml".into(),
        refused: refused.map(str::to_owned),
        pushed: None,
        temporary: false,
        claims: Vec::new(),
        published: Vec::new(),
        ssh: None,
        processes: vec![ProcessView {
            name: "web".into(),
            desired: wanted,
            running: 0,
            memory_bytes: 0,
            disk_bytes: 0,
            command: String::new(),
            instances: views,
            added: false,
        }],
    };
    let actual = records.into_iter().map(|it| ((it.guid.clone(), it.index, it.side), it)).collect();
    let lrps = [lrp()];
    let again_ms = app.away.then_some(NOW + 10_000);
    let actual = &actual;
    let facts = Facts { app, view: &view, lrps: &lrps, actual, drained, again_ms, now_ms: NOW };
    explain(&facts, None, None).parts
}

fn running() -> LrpState {
    let handle = "web-0-00000001".parse().expect("handle");
    LrpState::Running(Place { handle, slot: Slot::new(1).expect("slot"), ports: Vec::new() })
}

const CRASHED: LrpState = LrpState::Crashed { succeeded: false };

#[test]
fn a_crash_is_told_with_its_count_and_its_next_start() {
    let third = one("crashed", CRASHED, 3, death(true, exited()));
    let part = parts(&app(), "crashed", None, vec![third]).remove(0);
    assert_eq!(part.subject, "web/0");
    assert_eq!(
        part.happened,
        "its process ended by itself with exit status 7, its crash 3 in a row"
    );
    assert_eq!(
        (part.next.as_str(), part.next_ms),
        ("it starts again by itself", Some(NOW + 20_000))
    );
    assert_eq!(part.happened_ms, Some(NOW - 10_000));
    let first = one("crashed", CRASHED, 1, death(true, exited()));
    let part = parts(&app(), "crashed", None, vec![first]).remove(0);
    assert_eq!((part.next.as_str(), part.next_ms), ("it starts again at once", Some(NOW)));
    let last = one("crashed", CRASHED, 200, death(true, exited()));
    let part = parts(&app(), "crashed", None, vec![last]).remove(0);
    assert!(part.next.starts_with("nothing: it has crashed 200 times in a row; `terrarium start"));
}

#[test]
fn a_drained_cell_starts_nothing_and_says_so() {
    let third = one("crashed", CRASHED, 3, death(true, exited()));
    let part = parts_while(true, &app(), "crashed", None, vec![third]).remove(0);
    assert!(part.next.contains("`terrarium undrain`"), "{}", part.next);
    assert_eq!(part.next_ms, None);

    // One that it has ended was started before, and says who ended it; once the cell is drained no
    // more, what it waits for is the reason.
    let ended = || {
        let drained = Cause::Stopped { by: Stopper::Drain, killed: false };
        let (view, record) = one("waiting", LrpState::Unclaimed, 0, death(false, drained));
        (InstanceView { placement_error: Some("no room".into()), ..view }, record)
    };
    let part = parts_while(true, &app(), "waiting", None, vec![ended()]).remove(0);
    assert!(part.why.contains("`terrarium drain`"), "{part:?}");
    assert!(part.next.contains("`terrarium undrain`"), "{part:?}");
    let part = parts(&app(), "waiting", None, vec![ended()]).remove(0);
    assert_eq!((part.happened.as_str(), part.why.as_str()), ("it could not be placed", "no room"));
}

#[test]
fn what_it_waits_for_decides_what_comes_next() {
    for (why, happened, next) in [
        ("needs app db, which is not there; apply db", "it was not started yet", "that app runs"),
        ("insufficient resources: memory", "it could not be placed", "the box has room for it"),
        (
            "insufficient resources: memory (asked: x; the whole box has: memory 1)",
            "it can never be placed",
            "it asks for more than the whole box has",
        ),
        ("unable to communicate to compatible cells: x", "it was not started yet", "things again"),
    ] {
        let (view, record) = one("waiting", LrpState::Unclaimed, 0, None);
        let view = InstanceView { placement_error: Some(why.into()), ..view };
        let part = parts(&app(), "waiting", None, vec![(view, record)]).remove(0);
        assert_eq!((part.happened.as_str(), part.why.as_str()), (happened, why));
        assert!(part.next.ends_with(next), "{}", part.next);
    }
}

#[test]
fn one_that_is_not_ready_is_not_among_those_that_are_well() {
    let (view, record) = one("running", running(), 0, None);
    let view = InstanceView { ready: Some(false), ..view };
    let part = parts(&app(), "running", None, vec![(view, record)]).remove(0);
    assert_eq!(part.subject, "web/0");
    assert!(part.next.contains("[readiness]"), "{}", part.next);
    let (view, record) = one("running", running(), 0, None);
    let unready = Some("connection refused".into());
    let view = InstanceView { ready: Some(false), unready, ..view };
    let part = parts(&app(), "running", None, vec![(view, record)]).remove(0);
    assert_eq!(part.why, "the probe said: connection refused");
}

#[test]
fn what_is_well_is_one_part_and_what_was_not_says_what_it_was() {
    let well = one("running", running(), 0, None);
    let part = parts(&app(), "running", None, vec![well.clone()]).remove(0);
    assert_eq!((part.subject.as_str(), part.cure.as_str()), ("web", ""));
    assert_eq!(part.happened, "it started, and has not ended since");
    let stopped = Cause::Stopped { by: Stopper::Update, killed: false };
    let (mut view, mut record) = one("running", running(), 0, death(false, stopped));
    (view.index, record.index) = (1, 1);
    let all = parts(&app(), "running", None, vec![well, (view, record)]);
    let subjects: Vec<&str> = all.iter().map(|part| part.subject.as_str()).collect();
    assert_eq!(subjects, ["web/1", "web"]);
    assert_eq!(all[0].why, "a newer version of the app takes its place");
    assert_eq!(all[0].cure, "", "nothing has to be done");
}

/// Somebody has scaled it down, and up again before all had ended.
#[test]
fn what_is_wanted_now_decides_what_is_told_of_those_that_were_one_too_many() {
    let at = |index, death| {
        let (mut view, mut record) = one("running", running(), 0, death);
        (view.index, record.index) = (index, index);
        (view, record)
    };
    let scaled = || death(false, Cause::Stopped { by: Stopper::Scale, killed: false });
    let told = ("running", None, None);
    let three = || vec![at(0, None), at(1, None), at(2, scaled())];
    let all = while_wanted(1, false, &app(), told, three());
    let shape: Vec<_> = all.iter().map(|it| (&*it.subject, &*it.next)).collect();
    let ends = "it ends, as fewer instances are wanted";
    let runs = running_of(&all, "web");
    assert_eq!(shape, [("web/2", ends), ("web", runs), ("web", ends)]);
    assert_eq!(all[0].why, "fewer instances are wanted");
    let all = while_wanted(3, false, &app(), told, three());
    assert_eq!((all.len(), &*all[0].subject), (2, "web/2"));
    assert_eq!(all[0].why, "fewer instances were wanted for a while; now it is wanted again");
    assert_eq!(all[0].next, runs);
    // None of those that are left is one of the first.
    let all = while_wanted(1, false, &app(), told, vec![at(3, scaled())]);
    assert!(all.iter().all(|it| it.next == ends), "{all:?}");
    let stopped = AppRecord { stopped: true, ..app() };
    let all = while_wanted(0, false, &stopped, ("stopping", None, None), vec![at(0, None)]);
    assert_eq!(all[1].next, "it ends, as its app was stopped");
}

/// What comes next to those that run on.
fn running_of<'a>(all: &'a [Explanation], subject: &str) -> &'a str {
    let mut next = all.iter().filter(|it| it.subject == subject).map(|it| it.next.as_str());
    next.find(|next| next.starts_with("nothing: it runs on")).expect("one that runs on")
}

#[test]
fn an_app_that_is_not_to_run_or_cannot_is_told_as_a_whole() {
    let stopped = AppRecord { stopped: true, wish: Wish::new("stop", 700), ..app() };
    let part = parts(&stopped, "stopped", None, Vec::new()).remove(0);
    assert_eq!(part.happened, "somebody has stopped it (`terrarium stop`)");
    assert_eq!(part.happened_ms, Some(700));
    let unstaged = AppRecord { failure: Some("no buildpack".into()), ..app() };
    let part = parts(&unstaged, "failed", Some("no buildpack"), Vec::new()).remove(0);
    assert_eq!(
        (part.happened.as_str(), part.why.as_str()),
        ("it could not be staged", "no buildpack")
    );
    assert_eq!((part.next.as_str(), part.next_ms), ("nothing: it does not start", None));
    assert!(part.cure.starts_with("mend that, then `terrarium start web` tries"), "{}", part.cure);
    // The daemon has a copy of what was pushed: that is not what is mended.
    let what = Some(Pushed { what: "/src/web".into(), is_bare: true });
    let pushed = AppRecord { pushed: what, ..unstaged.clone() };
    let part = parts(&pushed, "failed", Some("no buildpack"), Vec::new()).remove(0);
    assert!(part.cure.starts_with("mend that and `terrarium push` it again"), "{}", part.cure);
    let away = AppRecord { away: true, ..unstaged };
    let part = parts(&away, "failed", Some("no registry"), Vec::new()).remove(0);
    assert_eq!(part.next, "it is tried again by itself, for as long as it takes");
    assert_eq!(part.next_ms, Some(NOW + 10_000));
    let turn = "waits for its turn: 2 apps are staged at a time";
    let part = parts(&app(), "staging", Some(turn), Vec::new()).remove(0);
    assert_eq!((part.happened.as_str(), part.why.as_str()), ("it waits to be staged", turn));
    // Nothing new is begun at all.
    let refused = "this cell is drained and starts nothing; `terrarium undrain` ends that";
    let new = AppRecord { release: None, staged: None, ..app() };
    let part = parts_while(true, &new, "waiting", Some(refused), Vec::new()).remove(0);
    assert_eq!((part.happened.as_str(), part.why.as_str()), ("it waits to be staged", refused));
    let part = parts(&app(), "running", None, Vec::new()).remove(0);
    assert_eq!(part.why, "no instance is wanted");
}

/// One story, from the try to its end: what runs, what is tried, why it was given up, what is next.
#[test]
fn an_update_that_fails_is_one_story() {
    use crate::cell::releases;
    let mut app = releases::tests::app("memory = \"32MiB\"");
    let good = app.release.clone();
    app.release = releases::tests::app("memory = \"33MiB\"").release;
    (app.last_good, app.proven) = (good, false);
    let old = || {
        let (mut view, mut record) = one("running", running(), 0, None);
        (view.outdated, record.version, record.side) = (true, "before".into(), Side::Right);
        view.since_ms -= 1;
        record.since_ms -= 1;
        (view, record)
    };
    let subjects = |parts: &[Explanation]| -> Vec<String> {
        parts.iter().map(|part| part.subject.clone()).collect()
    };
    // It is tried.
    let new = one("crashed", CRASHED, 2, death(true, exited()));
    let all = parts(&app, "starting", None, vec![new, old()]);
    assert_eq!(subjects(&all), ["web", "web/0", "web (of the version before)"]);
    assert_eq!(all[0].happened, "its new version takes over from the one before");
    assert_eq!(all[0].why, "0 of 2 instances of it serve, and 1 of those before");
    assert!(all[0].next.contains("crashes 3 times"), "{}", all[0].next);
    assert!(all[1].next.starts_with("it starts again"), "{}", all[1].next);
    assert_eq!(all[2].next, "it serves on, and ends when the new one in its place does");
    // It has failed; that it starts again is no part of the story any more.
    let new = one("crashed", CRASHED, 3, death(true, exited()));
    let all = parts(&app, "starting", None, vec![new, old()]);
    assert_eq!(all[1].next, "nothing: its version gives way to the one before");
    assert_eq!(all[1].next_ms, None);
    // It was given up; the version before is the newest again.
    let why = "instance web/0 crashed 3 times and was never healthy: exit status 7";
    let (app, said) = releases::judged(&app, rollout::Verdict::Bad(why.into())).expect("judged");
    let all = parts(&app, "running", said.as_deref(), vec![one("running", running(), 0, None)]);
    assert_eq!(subjects(&all), ["web", "web"]);
    assert_eq!(all[0].happened, "its new version was tried, and gave way to the one before");
    assert_eq!(all[0].why, why);
    assert!(all[0].next.starts_with("nothing: the version before runs on"), "{}", all[0].next);
    let left = parts(&app, "running", said.as_deref(), vec![old()]);
    assert_eq!(subjects(&left), ["web", "web (of the version that failed)"]);
    assert_eq!(left[1].next, "it ends at once");
    // Fresh instances of what is proven: nothing is tried.
    let all = parts(&AppRecord { failure: None, ..app }, "starting", None, vec![old()]);
    assert_eq!(all[0].happened, "fresh instances take the place of those before");
}

#[test]
fn a_manifest_that_is_refused_is_told_with_its_place_beside_what_runs() {
    let why = "/etc/terrarium/apps.d/web.toml:3:1: unknown key `memry`";
    let (view, record) = one("running", running(), 0, None);
    let all = parts_of(&app(), "running", Some(why), vec![(view, record)]);
    assert_eq!(all[0].why, why);
    assert!(all[0].next.contains("stays as the manifest said before"), "{}", all[0].next);
    assert!(all[0].cure.contains("terrarium check /web.toml"), "{}", all[0].cure);
    assert_eq!((all[1].subject.as_str(), all[1].state.as_str()), ("web", "running"));
}

#[test]
fn one_that_waits_or_starts_says_for_what() {
    let (mut view, record) = one("waiting", LrpState::Unclaimed, 0, None);
    view.placement_error = Some("insufficient resources: memory".into());
    let part = parts(&app(), "waiting", None, vec![(view, record)]).remove(0);
    assert_eq!(part.why, "insufficient resources: memory");
    assert!(part.next.starts_with("it starts as soon as"), "{part:?}");
    let LrpState::Running(place) = running() else { unreachable!() };
    let claimed = one("starting", LrpState::Claimed(place), 0, None);
    let part = parts(&app(), "starting", None, vec![claimed]).remove(0);
    let limit = lrp().health.start_timeout.as_millis() as u64;
    assert_eq!(part.next_ms, Some(NOW - 10_000 + limit));
    // Recorded by a program that knew no causes.
    let (mut view, record) = one("crashed", CRASHED, 1, None);
    view.crash_reason = Some("APP: Exited with status 1".into());
    let part = parts(&app(), "crashed", None, vec![(view, record)]).remove(0);
    assert_eq!(part.happened, "it ended: APP: Exited with status 1");
}
