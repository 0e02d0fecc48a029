use super::*;
use crate::model::death::Stopper;
use crate::model::lrp::{ProcessGuid, Side};
use crate::unit::Slot;
use std::collections::BTreeSet;
use std::path::Path;

fn key() -> Key {
    let app = "web".parse().expect("name");
    (ProcessGuid { app, process: "web".into() }, 0, Side::Left)
}

fn handle(name: &str) -> Handle {
    name.parse().expect("handle")
}

fn place(name: &str) -> Place {
    Place { handle: handle(name), slot: Slot::new(1).expect("slot"), ports: Vec::new() }
}

fn end(succeeded: bool, restart: Restart) -> End {
    End { reason: "it fell".into(), cause: fell(), succeeded, restart }
}

fn fell() -> Cause {
    Cause::Failed { text: "it fell".into() }
}

fn stopped(handle: Option<Handle>) -> LrpEvent {
    LrpEvent::Stop { handle, cause: Cause::Stopped { by: Stopper::Stop, killed: false } }
}

fn crash(name: &str) -> LrpEvent {
    LrpEvent::Crash { handle: handle(name), end: end(false, Restart::Always) }
}

fn states() -> Vec<(&'static str, Option<ActualLrp>)> {
    let in_state = |state, crash_count| {
        let reason = (crash_count > 0).then(|| "earlier".to_owned());
        let record = fresh(&key(), "a".into(), 1_000);
        Some(ActualLrp { state, crash_count, crash_reason: reason, ..record })
    };
    let failed = Some("insufficient resources: memory".to_owned());
    let waiting = in_state(LrpState::Unclaimed, 0);
    vec![
        ("none", None),
        ("unclaimed", in_state(LrpState::Unclaimed, 0)),
        ("waiting", waiting.map(|record| ActualLrp { placement_error: failed, ..record })),
        ("claimed by x", in_state(LrpState::Claimed(place("x")), 1)),
        ("running in x", in_state(LrpState::Running(place("x")), 2)),
        ("crashed", in_state(LrpState::Crashed { succeeded: false }, 3)),
    ]
}

fn events() -> Vec<(&'static str, LrpEvent)> {
    let desire = |version: &str| LrpEvent::Desire { version: version.into() };
    let start = |name| LrpEvent::Start { version: "a".into(), place: place(name) };
    let ended = |restart| LrpEvent::Crash { handle: handle("x"), end: end(true, restart) };
    vec![
        ("desire a", desire("a")),
        ("desire b", desire("b")),
        ("claim x", LrpEvent::Claim(place("x"))),
        ("claim y", LrpEvent::Claim(place("y"))),
        ("start x", start("x")),
        ("start y", start("y")),
        ("crash x", crash("x")),
        ("crash y", crash("y")),
        ("exit 0 of x, restart always", ended(Restart::Always)),
        ("exit 0 of x, restart on-failure", ended(Restart::OnFailure)),
        ("unmade", LrpEvent::Unmade(end(false, Restart::Always))),
        ("ready x", LrpEvent::Ready { handle: handle("x"), ready: true }),
        ("stop x", stopped(Some(handle("x")))),
        ("stop none", stopped(None)),
        ("lose", LrpEvent::Lose(Cause::Unseen { rebooted: true })),
        ("unclaim", LrpEvent::Unclaim),
        ("fail", LrpEvent::Fail("no room".into())),
        ("remove x", LrpEvent::Remove(Some(handle("x")))),
        ("remove none", LrpEvent::Remove(None)),
    ]
}

/// One record on one line.
fn line(record: Option<&ActualLrp>) -> String {
    let Some(record) = record else { return "none".into() };
    let (name, place) = match &record.state {
        LrpState::Unclaimed => ("UNCLAIMED", None),
        LrpState::Claimed(place) => ("CLAIMED", Some(place)),
        LrpState::Running(place) => ("RUNNING", Some(place)),
        LrpState::Crashed { succeeded: false } => ("CRASHED", None),
        LrpState::Crashed { succeeded: true } => ("CRASHED(0)", None),
    };
    let mut text = format!("{name} {}", record.version);
    place.iter().for_each(|place| text += &format!(" in {}", place.handle));
    text += &format!(" crashes={} since={}", record.crash_count, record.since_ms);
    record.crash_reason.iter().for_each(|why| text += &format!(" why='{why}'"));
    record.placement_error.iter().for_each(|why| text += &format!(" waits='{why}'"));
    record.routable.iter().for_each(|ready| text += &format!(" ready={ready}"));
    if let Some(Death { at_ms, counted, cause }) = &record.death {
        let counted = if *counted { "a crash" } else { "no crash" };
        text += &format!(" died at {at_ms} ({counted}): {}", cause.text());
    }
    text += if record.ran { " ran" } else { "" };
    text + if record.was_ready { " was ready" } else { "" }
}

/// The whole table. TERRARIUM_BLESS=1 rewrites the file, for review as code.
///
/// Rows 9 and 10: what may happen to the record of an instance in each of its states.
#[test]
fn the_table_of_states_and_events_is_the_golden_one() {
    let mut text = String::new();
    for (state, record) in states() {
        text += &format!("{state}: {}\n", line(record.as_ref()));
        for (event, happens) in events() {
            let outcome = match apply(&key(), record.as_ref(), happens, 2_000) {
                Ok(new) if new == record => "unchanged".to_owned(),
                Ok(new) => line(new.as_ref()),
                Err(refused) => format!("refused: {refused}"),
            };
            text += &format!("  {event} -> {outcome}\n");
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lrp-states.txt");
    if std::env::var_os("TERRARIUM_BLESS").is_some() {
        std::fs::write(&path, &text).expect("golden file");
    }
    let golden = std::fs::read_to_string(&path).expect("golden file");
    assert_eq!(text, golden, "TERRARIUM_BLESS=1 rewrites {}", path.display());
}

/// Diego's own statement of it (BBS 3.3), row: from, column: to. `s`: the same instance only, `y`:
/// any, `-`: never.
const ALLOWED: [(&str, [char; 4]); 4] = [
    ("UNCLAIMED", ['y', 'y', 'y', '-']),
    ("CLAIMED", ['y', 's', 'y', 's']),
    ("RUNNING", ['y', 's', 's', 's']),
    // An empty instance key is the same as no other: never.
    ("CRASHED", ['y', '-', '-', '-']),
];

fn column(state: &LrpState) -> usize {
    match state {
        LrpState::Unclaimed => 0,
        LrpState::Claimed(_) => 1,
        LrpState::Running(_) => 2,
        LrpState::Crashed { .. } => 3,
    }
}

/// The instance that an event speaks of.
fn subject(event: &LrpEvent) -> Option<&Handle> {
    match event {
        LrpEvent::Claim(place) | LrpEvent::Start { place, .. } => Some(&place.handle),
        LrpEvent::Crash { handle, .. } | LrpEvent::Ready { handle, .. } => Some(handle),
        LrpEvent::Stop { handle, .. } | LrpEvent::Remove(handle) => handle.as_ref(),
        _ => None,
    }
}

/// Row 10: a long random life never does what Diego's table forbids, and never leaves a record that
/// no state may look like (BBS 3.2).
#[test]
fn no_life_of_an_instance_leaves_diegos_table() {
    let all = events();
    for seed in 0..200u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut record: Option<ActualLrp> = None;
        let mut refused = 0;
        for step in 0..400u64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let (name, event) = &all[(random % all.len() as u64) as usize];
            match apply(&key(), record.as_ref(), event.clone(), step * 1_000) {
                Ok(new) => {
                    judge(record.as_ref(), new.as_ref(), event, &format!("{seed}/{step} {name}"));
                    record = new;
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 0, "seed {seed} was never refused anything");
    }
}

fn judge(old: Option<&ActualLrp>, new: Option<&ActualLrp>, event: &LrpEvent, at: &str) {
    if let (Some(old), Some(new)) = (old, new) {
        let allowed = ALLOWED[column(&old.state)].1[column(&new.state)];
        // What Diego claims before it is made and we claim after.
        let unmade = matches!(event, LrpEvent::Unmade(_));
        let same = old.place().map(|place| &place.handle) == subject(event);
        let fine = allowed == 'y' || (allowed == 's' && same) || unmade || old == new;
        assert!(fine, "{at}: {} -> {}", line(Some(old)), line(Some(new)));
    }
    let Some(new) = new else {
        let old = old.expect("what is removed was there");
        return assert_eq!(old.place().map(|place| &place.handle), subject(event), "{at}");
    };
    let waits = new.placement_error.is_some();
    assert!(!waits || new.state == LrpState::Unclaimed, "{at}: {}", line(Some(new)));
    assert!(new.crash_reason.as_ref().is_none_or(|why| why.len() <= REASON_MAX), "{at}");
    if let (Some(old), LrpState::Claimed(_)) = (old, &new.state) {
        assert_eq!(new.crash_count, old.crash_count, "{at}: a claim keeps the count");
    }
}

/// When an app that never gets healthy starts, if nothing but the clock moves: rows 11, 12 and 13.
/// The times are those of the BBS's table, in seconds from the first start.
#[test]
fn a_whole_crash_loop_starts_when_the_bbs_says() {
    let (mut record, mut now) = (None, 0u64);
    let mut starts = Vec::new();
    let minute = 60_000;
    for _ in 0..12 {
        now = start_when_due(&mut record, now).expect("it starts again");
        starts.push(now);
        step(&mut record, crash("x"), now);
    }
    let waits: Vec<u64> = starts.windows(2).map(|two| two[1] - two[0]).collect();
    let half = minute / 2;
    let last = 16 * minute;
    let table = [0, 0, half, minute, 2 * minute, 4 * minute, 8 * minute, last, last, last, last];
    assert_eq!(waits, table);
    assert_eq!(record.as_ref().map(|it| it.crash_count), Some(12));

    // Row 13: more than five minutes of running forgive, five minutes do not.
    for (ran_ms, count) in [(5 * minute, 13), (5 * minute + 1, 1)] {
        let mut record = record.clone();
        let now = start_when_due(&mut record, now).expect("it starts again");
        step(&mut record, LrpEvent::Start { version: "a".into(), place: place("x") }, now);
        step(&mut record, crash("x"), now + ran_ms);
        assert_eq!(record.map(|it| it.crash_count), Some(count));
    }
    while record.as_ref().is_some_and(|it| it.crash_count < 200) {
        now = start_when_due(&mut record, now).expect("it starts again");
        step(&mut record, crash("x"), now);
    }
    assert_eq!(start_when_due(&mut record, u64::MAX), None, "200 crashes are enough");
}

fn step(record: &mut Option<ActualLrp>, event: LrpEvent, now_ms: u64) {
    *record = apply(&key(), record.as_ref(), event, now_ms).expect("applies");
}

/// Claims it as soon as it may start; when that was.
fn start_when_due(record: &mut Option<ActualLrp>, now_ms: u64) -> Option<u64> {
    let due = match record {
        Some(ActualLrp {
            state: LrpState::Crashed { succeeded }, crash_count, since_ms, ..
        }) => crash::after(Restart::Always, *succeeded, *crash_count, *since_ms),
        _ => Next::Now,
    };
    let now = match due {
        Next::Now => now_ms,
        Next::At(at) => at.max(now_ms),
        Next::Never => return None,
    };
    if let Some(event) = before_start(record.as_ref(), "a") {
        step(record, event, now);
    }
    step(record, LrpEvent::Claim(place("x")), now);
    Some(now)
}

/// Row 14: the reason is kept, cut at a character, and outlives the next start.
#[test]
fn a_reason_is_cut_to_what_the_bbs_keeps() {
    let mut record = None;
    start_when_due(&mut record, 0);
    let reason = "ä".repeat(REASON_MAX);
    let end = End { reason, cause: fell(), succeeded: false, restart: Restart::Always };
    step(&mut record, LrpEvent::Crash { handle: handle("x"), end }, 1);
    start_when_due(&mut record, 2);
    let kept = record.and_then(|record| record.crash_reason).expect("a reason");
    assert_eq!((kept.len(), kept.chars().count()), (REASON_MAX, REASON_MAX / 2));
}

/// Row 15: exit status 0 of a long running process is a crash like any other.
#[test]
fn exit_status_0_counts_as_a_crash_unless_the_manifest_is_content_with_it() {
    for (restart, count, state) in [
        (Restart::Always, 1, LrpState::Unclaimed),
        (Restart::OnFailure, 0, LrpState::Crashed { succeeded: true }),
        (Restart::Never, 0, LrpState::Crashed { succeeded: true }),
    ] {
        let mut record = None;
        start_when_due(&mut record, 0);
        let end = end(true, restart);
        step(&mut record, LrpEvent::Crash { handle: handle("x"), end }, 1);
        let record = record.expect("a record");
        assert_eq!((record.crash_count, record.state), (count, state), "{restart:?}");
    }
}

/// Row 46: readiness that another container had is none of this one's.
#[test]
fn what_starts_elsewhere_is_not_ready_before_its_own_check_has_passed() {
    let apply = |record: Option<ActualLrp>, event| {
        apply(&key(), record.as_ref(), event, 2_000).expect("a legal step")
    };
    let begun = apply(None, LrpEvent::Desire { version: "a".into() });
    let claimed = apply(begun, LrpEvent::Claim(place("x")));
    let ready = apply(claimed, LrpEvent::Ready { handle: handle("x"), ready: true });
    let routable = |record: Option<ActualLrp>| record.expect("a record").routable;
    let start = |name: &str| LrpEvent::Start { version: "a".into(), place: place(name) };
    assert_eq!(routable(apply(ready.clone(), start("x"))), Some(true));
    assert_eq!(routable(apply(ready, start("y"))), Some(false));
}

/// What the next daemon finds out by itself, and which therefore is in memory only.
const NOTED: [&str; 3] = ["desire", "unclaim", "fail"];

/// Before and after the write of every event that is written, and at no other.
#[test]
fn the_daemon_can_die_at_every_event() {
    let of_event = |name: &&str| match NOTED.contains(name) {
        true => vec![format!("lrp:{name}:noted")],
        false => vec![format!("lrp:{name}:asked"), format!("lrp:{name}:written")],
    };
    let all: Vec<String> = LrpEvent::NAMES.iter().flat_map(of_event).collect();
    let of_source = crate::sys::fault::POINTS.iter().filter(|point| point.starts_with("lrp:"));
    assert_eq!(BTreeSet::from_iter(all), of_source.map(|point| point.to_string()).collect());
    let shown: BTreeSet<&str> = events().iter().map(|(_, event)| event.name()).collect();
    assert_eq!(shown, LrpEvent::NAMES.into(), "the golden table has every event");
}
