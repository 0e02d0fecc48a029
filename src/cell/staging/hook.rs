//! `[hook.release]`: runs in a container of what was just staged, before anything of it starts.
//!
//! It fails the staging when it fails: what ran before runs on. It is begun at most once for what was
//! declared: that it begins is in the app's record before, that it had no objection comes into the
//! record with what was staged, in one. A daemon that finds it begun does not know its end; that fails
//! the staging as well, and a person who has looked how far it came asks for a new try.

use super::Shared;
use crate::cell::record::{AppRecord, Hooked, Release};
use crate::cell::shared::AppChange;
use crate::cell::task::due::DISAPPEARED;
use crate::cell::task::{self, Made};
use crate::exec::cancel::Cancel;
use crate::exec::room::Resources;
use crate::model::view::ROLLED_BACK;
use crate::stage::hook::{Staged, release_task};
use std::sync::Arc;

/// Why an app is not staged whose hook has begun and not passed; `None`: none has.
pub(super) fn lost(record: &AppRecord) -> Option<String> {
    record.hook().filter(|hook| !hook.passed)?;
    if let Some(why) = record.failure.as_ref().filter(|why| !why.starts_with(ROLLED_BACK)) {
        // It is known, and only what it was made of is not here any more.
        return Some(why.clone());
    }
    let rest = match record.release {
        Some(_) => "the version before runs on",
        None => "nothing is started",
    };
    Some(format!(
        "the release hook was under way when the daemon ended, or the cell was drained \
         ({DISAPPEARED}), so {rest}: whether it has done its work is not known, and it is not run a \
         second time by itself"
    ))
}

/// Records that the hook begins. The error is why it must not.
async fn begin(shared: &Arc<Shared>, record: &AppRecord, cancel: &Cancel) -> Result<(), String> {
    let (name, generation) = (&record.manifest.name, record.generation);
    let mut noted = false;
    let changed = shared.change_app(name, |state| {
        // What was cancelled meanwhile would never begin, and be taken for begun.
        let lasts = |app: &&AppRecord| {
            app.generation == generation && !app.deleting && !app.stopped && !cancel.is_cancelled()
        };
        let Some(app) = state.apps.get(name).filter(lasts) else { return Ok(AppChange::Keep) };
        noted = true;
        let hooked = Some(Hooked { generation, passed: false });
        Ok(AppChange::Put(Box::new(AppRecord { hooked, ..app.clone() })))
    });
    changed.await.map_err(|err| err.to_string())?;
    if noted { Ok(()) } else { Err("it was stopped, or declared anew".into()) }
}

/// Runs the hook of `release`, when it has one and is another one than what `record` has; not again
/// when it had no objection to what is declared.
pub(super) async fn run(
    shared: &Arc<Shared>,
    record: &AppRecord,
    release: &Release,
    cancel: &Cancel,
) -> Result<(), String> {
    let Some(hook) = &release.manifest.release_hook else { return Ok(()) };
    if record.release.as_ref() == Some(release) || record.hook().is_some_and(|hook| hook.passed) {
        return Ok(());
    }
    let app = &release.manifest.name;
    let staged =
        Staged { result: &release.result, droplet: release.droplet, image: release.image.as_ref() };
    let guid = shared.staging_guid(app);
    let task =
        release_task(&release.manifest, hook, &staged, guid).map_err(|err| err.to_string())?;
    let needs = Resources::of(&task.limits);
    shared.take_room(needs).map_err(|err| {
        format!("{err}; stop or delete an app, or set `memory` and `disk` in [hook.release]")
    })?;
    if let Err(why) = begin(shared, record, cancel).await {
        shared.give_back_room(needs);
        return Err(format!("the release hook was not begun: {why}"));
    }
    shared.say(app, "STG", false, "Running the release hook");
    let made = Made {
        layers: release.layers(),
        image: release.image.as_ref().map(|image| (image.digest, 0)),
        env: Vec::new(),
        pin: Some(shared.host.store().pin(&release.layers())),
    };
    let outcome = task::run_staging(shared, task, made, cancel).await;
    shared.give_back_room(needs);
    shared.wake();
    outcome.map_err(|why| match &record.release {
        Some(_) => format!("the release hook failed, so the version before runs on: {why}"),
        None => format!("the release hook failed, so nothing is started: {why}"),
    })
}
