//! The countdown that destroys a container which nobody asks for.

use super::Done;
use super::backend::{Backend, Place, Shared};
use super::member::Member;
use async_io::Timer;
use smol::Task;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Stands still while anybody visits, and begins anew when the last one leaves.
pub(super) struct Countdown(Mutex<State>);

struct State {
    nanos: u64,
    visits: usize,
    /// Runs only while there is no visit. Dropping it stops it.
    runs: Option<Task<()>>,
}

/// A request on a container that is in progress: it is not destroyed by its grace time meanwhile.
pub struct Visit {
    shared: Arc<Shared>,
    member: Arc<Member>,
}

impl Countdown {
    /// One of `nanos` nanoseconds that does not run yet; 0: it never runs.
    pub(super) fn new(nanos: u64) -> Countdown {
        Countdown(Mutex::new(State { nanos, visits: 0, runs: None }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// Nobody visits: the countdown runs, from its full length.
    pub(super) fn rest(self: &Arc<Self>, shared: &Arc<Shared>) {
        let mut state = self.countdown.state();
        if state.visits == 0 && state.nanos > 0 && !shared.ended.is_cancelled() {
            let span = Duration::from_nanos(state.nanos);
            let (shared, member) = (Arc::downgrade(shared), Arc::downgrade(self));
            state.runs = Some(smol::spawn(fire(span, shared, member)));
        }
    }

    /// The countdown is over for good, or for as long as somebody works on the container.
    pub(super) fn stop_countdown(&self) {
        let runs = self.countdown.state().runs.take();
        drop(runs);
    }
}

/// Destroys the container when the time has passed.
async fn fire(span: Duration, shared: Weak<Shared>, member: Weak<Member>) {
    Timer::after(span).await;
    let (Some(shared), Some(member)) = (shared.upgrade(), member.upgrade()) else { return };
    let Some(place) = take_place(&shared, &member) else { return };
    let (name, handle) = (&member.name, &member.handle);
    crate::info!("container.grace_over", handle = name, garden = handle);
    if let Err(err) = shared.remove(&member.handle, member.name.clone(), place).await {
        crate::warn!("container.grace_failed", handle = name, garden = handle, err = err);
    }
}

/// Marks a container as leaving, unless somebody visits it, destroys it or has another one of its
/// handle by now: all of it seen in one hold, so that none of this comes in between. Gives what was
/// there.
fn take_place(shared: &Shared, member: &Arc<Member>) -> Option<Place> {
    let mut places = shared.places();
    let place = places.get_mut(&member.handle)?;
    if !matches!(place, Place::Stands(now) if Arc::ptr_eq(now, member)) {
        return None;
    }
    let mut state = member.countdown.state();
    if state.visits > 0 {
        return None;
    }
    // Nobody is to drop this task while it does its work.
    if let Some(itself) = state.runs.take() {
        itself.detach();
    }
    Some(std::mem::replace(place, Place::Leaves))
}

impl Backend {
    /// Every request on a container holds one of these while it is in progress, an open run or
    /// attach connection for its whole life; but not `destroy`, the bulk calls and `set_grace`.
    pub fn visit(&self, handle: &str) -> Done<Visit> {
        let places = self.shared.places();
        let member = self.shared.standing(&places, handle)?;
        let mut state = member.countdown.state();
        state.visits += 1;
        state.runs = None;
        drop(state);
        Ok(Visit { shared: self.shared.clone(), member: member.clone() })
    }

    /// Sets how long a container stays without a request, in nanoseconds, and lets the countdown
    /// begin anew unless a request holds it; 0 or less: for ever.
    pub async fn set_grace(&self, handle: &str, nanos: i64) -> Done<()> {
        let member = self.shared.member(handle)?;
        let nanos = u64::try_from(nanos).unwrap_or_default();
        member.change(&self.shared, |record| record.grace_ns = nanos).await?;
        {
            let mut state = member.countdown.state();
            state.nanos = nanos;
            state.runs = None;
        }
        member.rest(&self.shared);
        Ok(())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let last = {
            let mut state = self.member.countdown.state();
            state.visits -= 1;
            state.visits == 0
        };
        if last {
            self.member.rest(&self.shared);
        }
    }
}
