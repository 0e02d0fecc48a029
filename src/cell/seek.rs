//! Instances that live, or may, and that this daemon could not take over at its start: they are tried
//! again, and neither destroyed nor made anew before it is known that they are dead.

use super::adopt::{Instance, Look, Whose};
use super::instance::supervise;
use super::shared::Shared;
use super::worked_on::Supervised;
use crate::container::Container;
use crate::exec::cancel::{self, Cancel};
use crate::exec::room::Resources;
use crate::unit::Handle;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long it takes until such a container is looked at again, at first and at most.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How long its pid 1 may take to answer then.
const LOOK_MAX: Duration = Duration::from_secs(20);

/// After this long an instance that nobody can reach is worth less than a fresh one.
const SEEK_MAX: Duration = Duration::from_secs(5 * 60);

/// What a person can do.
const CURE: &str = "it runs on and is tried again for five minutes, then made anew: look for a pid 1 \
                    that is stopped or frozen, and for a limit that is reached; `terrarium restart` \
                    makes it anew now";

/// The pauses between looks.
struct Pauses {
    begun: Instant,
    next: Duration,
}

impl Pauses {
    fn new() -> Pauses {
        Pauses { begun: Instant::now(), next: WAIT_MIN }
    }

    /// How long to wait before the next look; `None`: there is none any more.
    fn next(&mut self) -> Option<Duration> {
        let now = self.next;
        self.next = (now * 2).min(WAIT_MAX);
        (self.begun.elapsed() < SEEK_MAX).then_some(now)
    }
}

impl Shared {
    /// Goes on looking at an instance that could not be taken over. It counts as supervised, so there
    /// is no other one beside it, and its record stays as it is; who stops it has it destroyed.
    pub(super) fn seek(
        self: &Arc<Self>,
        instance: Instance,
        needs: Option<Resources>,
        container: Option<Box<Container>>,
        why: &str,
    ) {
        let place = &instance.place;
        crate::error!("container.lost", handle = place.handle, err = why, cure = CURE);
        self.host.hold_for_app(&place.handle, place.slot, &place.ports);
        let needs = needs.unwrap_or_else(|| Resources::of(&instance.lrp.limits));
        let (canceller, cancel) = cancel::pair();
        let work =
            Supervised::new(canceller, &instance.lrp.version, needs, Some(instance.healthy()));
        {
            let mut state = self.state();
            // Before anything new asks for room.
            state.room.force(needs);
            state.supervised.insert(instance.key.clone(), work);
        }
        smol::spawn(self.clone().seek_on(instance, needs, container, cancel)).detach();
    }

    async fn seek_on(
        self: Arc<Self>,
        instance: Instance,
        needs: Resources,
        mut container: Option<Box<Container>>,
        cancel: Cancel,
    ) {
        let mut pauses = Pauses::new();
        let handle = instance.place.handle.clone();
        while let Some(pause) = pauses.next()
            && cancel.sleep(pause).await
        {
            if self.state().closing {
                return;
            }
            let look = cancel.or(self.look(&instance, container.take(), LOOK_MAX)).await;
            match look {
                Some(Look::Taken(found)) => {
                    self.host.unhold(&handle);
                    let begin = instance.adopted(*found);
                    let Instance { key, lrp, .. } = instance;
                    return supervise(self, key, lrp, (begin, needs), cancel).await;
                }
                Some(Look::Unknown { container: had, .. }) => {
                    container = had;
                    self.hold_again(&instance);
                }
                Some(Look::Anothers) => return self.let_go_of(&instance, needs).await,
                Some(Look::Dead) | None => break,
            }
        }
        drop(container);
        if self.state().closing {
            return;
        }
        if pauses.next().is_none() {
            crate::error!("container.given_up", handle = handle);
        }
        if let Some(work) = self.state().supervised.get_mut(&instance.key) {
            work.stopping = true;
        }
        // Before its address can be another's.
        self.publish().await;
        self.sweep(&handle).await;
        self.let_go_of(&instance, needs).await;
    }

    /// A look that has failed may have given its numbers back.
    fn hold_again(&self, instance: &Instance) {
        let place = &instance.place;
        self.host.hold_for_app(&place.handle, place.slot, &place.ports);
    }

    /// The instance is nowhere any more: the loop decides whether it comes back.
    async fn let_go_of(self: &Arc<Self>, instance: &Instance, needs: Resources) {
        let key = &instance.key;
        self.host.unhold(&instance.place.handle);
        self.lose_instance(key).await;
        self.leave(key, needs);
    }

    /// Looks again at a container that cannot be read and that no wanted instance is recorded to live
    /// in: an app's is not wanted and goes. Whose that cannot be told of stays.
    pub(super) async fn find_out(self: Arc<Self>, handle: Handle) {
        let mut pauses = Pauses::new();
        while let Some(pause) = pauses.next() {
            async_io::Timer::after(pause).await;
            if self.state().closing {
                return;
            }
            match self.whose(&handle).await {
                Whose::Nobodys => return self.sweep(&handle).await,
                Whose::Anothers => return,
                Whose::Unknown => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_half_a_minute_and_end() {
        let mut pauses = Pauses::new();
        let first: Vec<_> = (0..7).map_while(|_| pauses.next()).map(|it| it.as_secs()).collect();
        assert_eq!(first, [1, 2, 4, 8, 16, 30, 30]);
        let Some(begun) = pauses.begun.checked_sub(SEEK_MAX) else { return };
        pauses.begun = begun;
        assert_eq!(pauses.next(), None);
    }
}
