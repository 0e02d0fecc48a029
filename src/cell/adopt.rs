//! After a restart of the daemon: keep what lives, sweep what does not.

use super::diff::Key;
use super::instance::{Begin, MAIN};
use super::shared::{Cell, now_ms};
use super::{converge, owner};
use crate::container::{Container, Posture, Process, Sight};
use crate::log::chain;
use crate::model::lrp::{ActualLrp, LrpState};
use crate::model::process::ExitStatus;
use crate::sys::signal::KILL;
use crate::unit::Handle;
use std::sync::Arc;

/// A container that can be kept, connected, with its main process attached.
struct Found {
    key: Key,
    container: Container,
    process: Process,
    ended: Option<ExitStatus>,
}

impl Cell {
    /// Looks at every container in the depot: an instance that is still wanted is taken over where it
    /// stands, even if its main process has ended meanwhile: that is a crash like any other, and
    /// what it wrote before is logged. Everything else is destroyed, what belonged to a `run` first
    /// of all. Only then is anything new made.
    pub async fn adopt(&self) {
        self.end_leases().await;
        let inner = self.shared.clone();
        let handles = match smol::unblock(move || inner.host.list()).await {
            Ok(handles) => handles,
            Err(err) => return crate::error!("depot.unreadable", err = chain(&err)),
        };
        for handle in handles {
            match self.take_over(&handle).await {
                Some(found) => self.resume(found),
                None if self.is_anothers(&handle) => {}
                None => {
                    crate::warn!("container.swept", handle = handle);
                    self.shared.destroy(&handle).await;
                }
            }
        }
        self.forget_places().await;
        let inner = self.shared.clone();
        smol::unblock(move || {
            inner.distrust_published();
            // Of stagings that ended with the last daemon.
            let work = inner.paths.state.join("staging");
            match std::fs::remove_dir_all(&work) {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                    crate::warn!("staging.left", path = work.display(), err = err);
                }
                _ => {}
            }
        })
        .await;
    }

    /// A Garden client's container is not the cell's to judge, nor is one of a newer program.
    fn is_anothers(&self, handle: &Handle) -> bool {
        match self.shared.host.sight(handle) {
            Sight::Nothing => false,
            Sight::Entry(entry) => entry.spec.posture != Posture::App,
            Sight::Closed(_) => true,
        }
    }

    /// Instances that were not taken over live nowhere: their old addresses may soon be others'.
    async fn forget_places(&self) {
        let gone: Vec<_> = {
            let state = self.shared.state();
            let placed = state.actual.iter().filter(|(key, record)| {
                matches!(record.state, LrpState::Claimed(_) | LrpState::Running(_))
                    && !state.supervised.contains_key(*key)
            });
            placed.map(|(key, record)| (key.clone(), record.clone())).collect()
        };
        for (key, record) in gone {
            let record = ActualLrp { state: LrpState::Unclaimed, since_ms: now_ms(), ..record };
            self.shared.put_actual(&key, Some(record)).await;
        }
    }

    /// What can be kept of a container.
    async fn take_over(&self, handle: &Handle) -> Option<Found> {
        let entry = self.shared.host.entry(handle).ok()??;
        let key = owner::key(&entry.spec.owner)?;
        {
            let state = self.shared.state();
            let lives = state.actual.get(&key).and_then(|record| match &record.state {
                LrpState::Claimed(place) | LrpState::Running(place) => Some(&place.handle),
                LrpState::Unclaimed | LrpState::Crashed { .. } => None,
            });
            let wanted = converge::desired(&state.apps);
            let wanted = wanted.get(&key.0).is_some_and(|lrp| key.1 < lrp.instances);
            if lives != Some(handle) || !wanted || state.supervised.contains_key(&key) {
                return None;
            }
        }
        let inner = self.shared.clone();
        let name = handle.clone();
        let container = smol::unblock(move || inner.host.reopen(&name)).await;
        let container = match container {
            Ok(container) => container?,
            Err(err) => {
                crate::warn!("container.lost", handle = handle, err = chain(&err));
                return None;
            }
        };
        let processes = container.processes().await.ok()?;
        let main = processes.iter().find(|process| process.id == MAIN)?;
        let ended = main.ended;
        let process = container.attach(main).await.ok()?;
        // Sessions of the daemon that has ended: their people are gone, nobody reads them.
        for other in processes.iter().filter(|process| process.id != MAIN) {
            // One that ends by itself at this moment is as good.
            let _ = container.signal(&other.id, KILL).await;
        }
        Some(Found { key, container, process, ended })
    }

    /// Goes on supervising an instance.
    fn resume(&self, found: Found) {
        let Found { key, container, process, ended } = found;
        let shared = &self.shared;
        let (lrp, healthy) = {
            let state = shared.state();
            let record = state.actual.get(&key);
            let healthy = record.is_some_and(|record| matches!(record.state, LrpState::Running(_)));
            let mut wanted = converge::desired(&state.apps);
            let lrp = wanted.remove(&key.0).map(|mut lrp| {
                // It runs what it was made from; the loop replaces it if that is out of date.
                if let Some(record) = record {
                    lrp.version = record.version.clone();
                }
                lrp
            });
            (lrp, healthy)
        };
        let lrp = lrp.expect("take_over has seen it");
        crate::info!("instance.adopted", app = key.0, index = key.1);
        let container = Arc::new(container);
        shared.begin(key, lrp, Begin::Adopted { container, process, healthy, ended });
    }
}
