//! What the records of a cell say after a death, held against Diego's rules and against the depot.

use crate::lab::Lab;
use std::fs;
use terrarium::cell::owner::{self, Owner};
use terrarium::cell::store::{RecordStore, Records, StoreError};
use terrarium::model::lrp::{ActualLrp, LrpState};
use terrarium::model::task::{TaskRecord, TaskState};

/// Bytes of a reason, as in the BBS.
const REASON_MAX: usize = 1024;

/// What is recorded now, read from a copy: a daemon may be at work on the file.
pub fn records(lab: &Lab) -> Result<Records, StoreError> {
    let copy = lab.root.join("records.redb");
    fs::copy(lab.root.join("var/lib/terrarium/state.redb"), &copy).expect("copy");
    let all = RecordStore::open(&copy).and_then(|store| store.load());
    fs::remove_file(copy).expect("the copy goes");
    all
}

/// Records that break the BBS's rules; none is as it shall be.
pub fn illegal(records: &Records) -> Vec<String> {
    let unread = records.set_aside.iter().map(|it| format!("{it:?}"));
    let lrps = records.actual.values().filter(|record| !is_legal(record));
    let tasks = records.tasks.values().filter(|record| !is_legal_task(record));
    lrps.map(|it| format!("{it:?}"))
        .chain(tasks.map(|it| format!("{it:?}")))
        .chain(unread)
        .collect()
}

/// What each state may have beside it. That UNCLAIMED and CRASHED live nowhere and the others
/// somewhere, the type says already.
fn is_legal(record: &ActualLrp) -> bool {
    let waits = record.placement_error.is_some();
    let lives = record.place().is_some();
    let short = record.crash_reason.as_ref().is_none_or(|why| why.len() <= REASON_MAX);
    let fits = match &record.state {
        LrpState::Unclaimed => true,
        LrpState::Claimed(_) => !waits,
        LrpState::Running(_) => !waits && record.ran,
        LrpState::Crashed { .. } => !waits && record.crash_reason.is_some(),
    };
    short && fits && (lives || record.routable.is_none())
}

fn is_legal_task(record: &TaskRecord) -> bool {
    let has_ended = matches!(record.state, TaskState::Completed | TaskState::Resolving);
    (record.state == TaskState::Running) != record.cell_id.is_empty()
        && has_ended == (record.first_completed_at != 0)
        && (has_ended || (!record.failed && record.result.is_empty()))
        && record.failed != record.failure_reason.is_empty()
        && record.failure_reason.len() <= REASON_MAX
}

/// Containers that are not those of their owners' records, and records of containers that are not
/// there. For a box at rest.
pub fn unowned(lab: &Lab, records: &Records) -> Vec<String> {
    let depot = lab.root.join("var/lib/terrarium/depot");
    let mut wrong = Vec::new();
    for dir in fs::read_dir(&depot).expect("the depot").flatten() {
        let handle = dir.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(dir.path().join("container.json")).unwrap_or_default();
        let entry: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let its = owner::read(entry["spec"]["owner"].as_str().unwrap_or_default());
        if !its.as_ref().is_some_and(|owner| is_known(records, owner, &handle)) {
            wrong.push(format!("container {handle} of {its:?}"));
        }
    }
    let places = records.actual.values().filter_map(ActualLrp::place);
    let gone = places.filter(|place| !depot.join(place.handle.as_str()).exists());
    wrong.extend(gone.map(|place| format!("record of {}, which is not there", place.handle)));
    wrong
}

/// Whether the owner's own record says so.
fn is_known(records: &Records, owner: &Owner, handle: &str) -> bool {
    match owner {
        Owner::Lrp { guid, index } => records.actual.values().any(|record| {
            let is_there = record.place().is_some_and(|place| place.handle.as_str() == handle);
            is_there && record.guid == *guid && record.index == *index
        }),
        Owner::Task(guid) => {
            records.tasks.get(guid).is_some_and(|task| task.state == TaskState::Running)
        }
        Owner::Staging(app) => records.apps.contains_key(app),
        Owner::Check => false,
    }
}
