//! Makes the records what the controller says: fingerprints first, then what differs.

use super::Bridge;
use super::client::{Answered, Controller, NOTICE, PAGE, Unanswered};
use super::diff::{self, Known, Prints};
use super::nsync::Unwanted;
use super::request::{DesireApp, read};
use super::workers;
use crate::cell::{CellError, Kind};
use crate::model::desired::{APPS, TASKS};
use crate::unit::escape::escaped;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// From one sync to the next.
const EVERY: Duration = Duration::from_secs(30);
/// How long a sync vouches for a domain.
const FRESH: Duration = Duration::from_secs(120);
/// Entries of a page, and apps that are asked for at once.
const BATCH: usize = 500;
/// Pages of one sync.
const PAGES_MAX: usize = 200;
/// What a controller is told of a task that nobody knows.
const LOST: &str = "Unable to determine completion status";

/// What the pages of a list came to.
struct Pages {
    items: Vec<Value>,
    /// Why not all of them are there.
    broken: Option<String>,
}

impl Bridge {
    /// Syncs for ever, the first time at once; without a controller there is nobody to ask.
    pub async fn keep_in_step(&self) {
        let Some(controller) = self.0.controller.clone() else { return };
        loop {
            let begun = Instant::now();
            self.settle(APPS, self.sync_apps(&controller).await);
            self.settle(TASKS, self.sync_tasks(&controller).await);
            async_io::Timer::at(begun + EVERY).await;
        }
    }

    /// A domain is fresh when nothing failed.
    fn settle(&self, domain: &str, done: Result<(), String>) {
        match done {
            Ok(()) => {
                self.refresh(domain, Some(FRESH));
            }
            Err(why) => crate::warn!("bridge.out_of_step", domain = domain, err = why),
        }
    }

    async fn sync_apps(&self, controller: &Controller) -> Result<(), String> {
        // A box that cannot make what is wanted removes nothing either: the rest may be all there is.
        self.site().await?;
        // Before the pages: what is made meanwhile is not excess.
        let here = self.prints();
        let path = format!("/internal/bulk/apps?batch_size={BATCH}&format=fingerprint");
        let pages = pages(controller, &path, "fingerprints").await;
        let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let wanted = pages.items.iter().map(|it| (text(it, "process_guid"), text(it, "etag")));
        let diff = diff::compare(&here, &wanted.collect());
        let mut failed = pages.broken.clone();
        let differs: Vec<&String> = diff.missing.iter().chain(&diff.stale).collect();
        for batch in differs.chunks(BATCH) {
            if let Err(why) = self.want_all(controller, batch).await {
                failed = failed.or(Some(why));
            }
        }
        // Only who has read everything knows what is too much.
        if pages.broken.is_none() {
            let remove = |guid: &'_ String| {
                crate::info!("bridge.excess", lrp = guid);
                let (cell, guid) = (self.0.cell.clone(), guid.clone());
                async move { gone(cell.remove_lrp(&guid).await) }
            };
            let done = workers::all(&diff.excess, remove).await;
            failed = failed.or(done.into_iter().find_map(Result::err));
        }
        failed.map_or(Ok(()), Err)
    }

    /// Annotation of each app, by guid.
    fn prints(&self) -> Prints {
        let lrps = self.0.cell.lrps().into_iter();
        let print = |lrp: crate::cell::Lrp| {
            let facts = lrp.container.desired.filter(|facts| facts.domain == APPS)?;
            Some((lrp.container.guid, facts.annotation))
        };
        lrps.filter_map(print).collect()
    }

    /// Fetches these apps and wants them. One that will not do is no failure of the sync.
    async fn want_all(&self, controller: &Controller, guids: &[&String]) -> Result<(), String> {
        let (cc, body) = (controller.clone(), json!(guids).to_string().into_bytes());
        let asked = smol::unblock(move || cc.post("/internal/bulk/apps", &body, PAGE)).await;
        let Value::Array(apps) = json_of(asked)? else {
            return Err("/internal/bulk/apps: it is no list".into());
        };
        let (mut invalid, mut failed) = (0_usize, None);
        let want = |app: Value| async move {
            match read::<DesireApp>(app) {
                // What nobody has asked for is not taken.
                Ok(desire) if !guids.contains(&&desire.process_guid) => Ok(()),
                Ok(desire) => self.want(&desire).await,
                Err(why) => Err(Unwanted::Invalid(why)),
            }
        };
        for wanted in workers::all(apps, want).await {
            match wanted {
                Ok(()) => {}
                Err(Unwanted::Invalid(why)) => {
                    invalid += 1;
                    crate::warn!("bridge.invalid_app", err = why);
                }
                Err(why) => failed = failed.or_else(|| Some(why.text().to_owned())),
            }
        }
        if invalid > 0 {
            crate::warn!("bridge.invalid_apps", count = invalid);
        }
        failed.map_or(Ok(()), Err)
    }

    async fn sync_tasks(&self, controller: &Controller) -> Result<(), String> {
        let before = self.task_guids();
        let path = format!("/internal/v3/bulk/task_states?batch_size={BATCH}");
        let pages = pages(controller, &path, "task_states").await;
        // One that has come or gone meanwhile is not lost.
        let here: BTreeSet<String> = before.union(&self.task_guids()).cloned().collect();
        let known = |item: &Value| {
            let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
            let task = Known { state: text("state"), callback: text("completion_callback") };
            (text("task_guid"), task)
        };
        let known: BTreeMap<String, Known> = pages.items.iter().map(known).collect();
        let diff = diff::compare_tasks(&here, &known);
        let mut failed = pages.broken;
        for (guid, callback) in diff.lost {
            let body = json!({ "task_guid": guid, "failed": true, "failure_reason": LOST });
            if callback.is_empty() {
                continue;
            }
            crate::warn!("bridge.task_lost", task = guid);
            match self.tell(&callback, body.to_string().into_bytes()).await {
                Ok(Answered { status: 200..300, .. }) => {}
                Ok(answered) => {
                    failed = failed.or(Some(format!("task {guid}: status {}", answered.status)));
                }
                Err(err) => failed = failed.or(Some(err.why)),
            }
        }
        for guid in diff.cancel {
            let _ = self.end_task(&guid);
        }
        failed.map_or(Ok(()), Err)
    }

    fn task_guids(&self) -> BTreeSet<String> {
        let tasks = self.0.cell.tasks(Some(TASKS)).into_iter();
        tasks.map(|record| record.task.guid).collect()
    }
}

/// What is gone already need not go.
fn gone(done: Result<(), CellError>) -> Result<(), String> {
    match done {
        Err(err) if err.kind != Kind::NotFound => Err(err.text),
        _ => Ok(()),
    }
}

/// Every page of a list: each names the next one, and one that is not full is the last.
async fn pages(controller: &Controller, path: &str, name: &str) -> Pages {
    let mut pages = Pages { items: Vec::new(), broken: None };
    let mut token = json!({});
    for _ in 0..PAGES_MAX {
        let url = format!("{path}&token={}", escaped(&token.to_string()));
        let cc = controller.clone();
        let page = json_of(smol::unblock(move || cc.get(&url)).await);
        let broken = |why: String| Some(format!("{}: {why}", path.split('?').next().unwrap_or("")));
        let mut page = match page {
            Ok(page) => page,
            Err(why) => {
                pages.broken = broken(why);
                return pages;
            }
        };
        let Value::Array(items) = page[name].take() else {
            pages.broken = broken(format!("it has no list `{name}`"));
            return pages;
        };
        let is_last = items.len() < BATCH;
        pages.items.extend(items);
        if is_last {
            return pages;
        }
        token = page["token"].take();
        if token.is_null() {
            pages.broken = broken("a full page has no token".into());
            return pages;
        }
    }
    pages.broken = Some(format!("more than {PAGES_MAX} pages"));
    pages
}

/// The JSON of an answer with status 200.
fn json_of(asked: Result<Answered, Unanswered>) -> Result<Value, String> {
    match asked {
        Ok(Answered { status: 200, body }) => {
            serde_json::from_slice(&body).map_err(|err| err.to_string())
        }
        Ok(answered) => Err(format!("it answered with status {}", answered.status)),
        Err(err) => Err(err.why),
    }
}

/// A notice must not hold up a sync for longer than one page may.
const _: () = assert!(NOTICE.as_secs() <= PAGE.as_secs());
