//! Containers that will not go. What they have stays booked, so that nothing is given away twice;
//! they are shown with the step that refuses, and tried again for as long as it takes.

use super::shared::{Shared, now_ms};
use crate::container::ContainerError;
use crate::exec::metrics::COUNTERS;
use crate::exec::room::Resources;
use crate::log::chain;
use crate::model::view::StuckView;
use crate::unit::Handle;
use smol::channel::{Sender, bounded};
use smol::future;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a removal is waited for. Killed processes have ten seconds of these to end. What takes
/// longer goes on, and who waits does not.
const REMOVAL_MAX: Duration = Duration::from_secs(30);

/// The same at the start of the daemon, while nobody is served.
pub(super) const FIRST_MAX: Duration = Duration::from_secs(12);

/// The pauses between tries, at first and at most.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A container that does not go.
pub(super) struct Stuck {
    /// What it keeps from others.
    needs: Resources,
    /// The step that refuses, and why.
    why: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// How often it was tried.
    tries: u32,
}

impl Stuck {
    /// As people see it.
    pub fn view(&self, handle: &Handle) -> StuckView {
        StuckView {
            handle: handle.to_string(),
            reason: self.why.clone(),
            since_ms: self.since_ms,
            tries: self.tries,
            memory_bytes: self.needs.memory.get(),
            disk_bytes: self.needs.disk.get(),
        }
    }
}

/// How long to wait after so many tries.
fn pause(tries: u32) -> Duration {
    let doubled = PAUSE_MIN * 2_u32.saturating_pow(tries.saturating_sub(1)).min(1 << 10);
    doubled.min(PAUSE_MAX)
}

impl Shared {
    /// Destroys a container. One that does not go within its time is noted as stuck, with all that
    /// it has, before this returns, and tried again in the background.
    pub(super) async fn destroy(self: &Arc<Self>, handle: &Handle) {
        self.destroy_within(handle, REMOVAL_MAX).await;
    }

    /// The same, with `max` for the first try.
    pub(super) async fn destroy_within(self: &Arc<Self>, handle: &Handle, max: Duration) {
        let (told, first) = bounded(1);
        smol::spawn(self.clone().remove(handle.clone(), max, told)).detach();
        let _ = first.recv().await;
    }

    /// Tries until it is gone or the daemon ends. `told` hears when the first try has come out.
    async fn remove(self: Arc<Self>, handle: Handle, max: Duration, told: Sender<()>) {
        for tries in 1.. {
            let outcome = self.try_once(&handle, max, tries, &told).await;
            let _ = self.went.try_send(());
            match outcome {
                Ok(()) => {
                    self.unstick(&handle);
                    let _ = told.try_send(());
                    return;
                }
                Err(why) => self.stick(&handle, why, tries).await,
            }
            let _ = told.try_send(());
            async_io::Timer::after(pause(tries)).await;
            if self.state().closing {
                return;
            }
        }
    }

    /// One try. What takes longer than `max` gives up its turn and holds up nobody but itself.
    async fn try_once(
        self: &Arc<Self>,
        handle: &Handle,
        max: Duration,
        tries: u32,
        told: &Sender<()>,
    ) -> Result<(), String> {
        let turn = self.pools.delete.enter().await;
        let (sender, outcome) = bounded::<Result<(), ContainerError>>(1);
        let (shared, name) = (self.clone(), handle.clone());
        // On its own: what is dropped half way would be told to nobody.
        let work = async move {
            let begun = Instant::now();
            let removal = move || {
                let done = shared.host.destroy(&name);
                if done.is_ok() {
                    shared.remove_mounted(&name);
                }
                done
            };
            let done = smol::unblock(removal).await;
            COUNTERS.destructions.add(begun, done.is_ok());
            let _ = sender.try_send(done);
        };
        smol::spawn(work).detach();
        let in_time = future::or(async { Some(outcome.recv().await) }, async {
            async_io::Timer::after(max).await;
            None
        });
        let outcome = match in_time.await {
            Some(outcome) => outcome,
            None => {
                drop(turn);
                let why = format!("its removal has not come to an end in {} s", max.as_secs());
                self.stick(handle, why, tries).await;
                let _ = told.try_send(());
                outcome.recv().await
            }
        };
        match outcome {
            Ok(done) => done.map_err(|err| chain(&err)),
            Err(_) => Err("its removal broke off".to_owned()),
        }
    }

    /// Notes that a container does not go, and books what it has: whoever had it booked gives that
    /// back afterwards.
    async fn stick(self: &Arc<Self>, handle: &Handle, why: String, tries: u32) {
        if let Some(stuck) = self.state().node.stuck.get_mut(handle) {
            (stuck.why, stuck.tries) = (why, tries);
            return;
        }
        const CURE: &str = "its memory and disk stay booked; it is tried again by itself";
        crate::error!("container.left", handle = handle, err = why, cure = CURE);
        let (shared, name) = (self.clone(), handle.clone());
        let entry = smol::unblock(move || shared.host.entry(&name).ok().flatten()).await;
        let nothing = Resources { containers: 1, ..Resources::default() };
        let needs = entry.map_or(nothing, |entry| Resources::of(&entry.spec.limits));
        let stuck = Stuck { needs, why, since_ms: now_ms(), tries };
        let mut state = self.state();
        if state.node.stuck.insert(handle.clone(), stuck).is_none() {
            state.room.force(needs);
        }
        drop(state);
        self.tell();
    }

    /// It has gone after all: what it had is others'.
    fn unstick(&self, handle: &Handle) {
        let stuck = self.state().node.stuck.remove(handle);
        if let Some(stuck) = stuck {
            crate::info!("container.unstuck", handle = handle, tries = stuck.tries);
            self.give_back_room(stuck.needs);
            self.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let pauses: Vec<u64> = (1..9).map(|tries| pause(tries).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
    }
}
