//! Room for long messages of all control connections, on their way and until they are carried out.
//!
//! It has an end, so that memory has one. Whoever has had some for one message for half of the time that
//! we wait for clients loses it when others wait, the longest of them first: what counts is how long,
//! not whether a byte comes now and then. So nobody who stands still takes what others need.

use super::KEEP;
use smol::channel::{Receiver, Sender, bounded};
use smol::future;
use smol::lock::{Semaphore, SemaphoreGuardArc};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of long messages at a time.
const LONG_BYTES: usize = 64 << 20;

/// How often somebody who waits has another one pushed out, at most.
const ROUNDS_MAX: usize = 256;

/// What there is, and who has some of it.
pub(in crate::api::garden) struct Room {
    /// Each permit is for [`KEEP`] bytes.
    permits: Arc<Semaphore>,
    holders: Mutex<Holders>,
}

#[derive(Default)]
struct Holders {
    /// By the number that each gets: the first has had its room for the longest time.
    all: BTreeMap<u64, Holder>,
    next: u64,
}

struct Holder {
    since: Instant,
    push: Sender<()>,
}

/// What one connection has of it. What is dropped is given back.
pub(super) struct Hold {
    room: Arc<Room>,
    permits: Vec<SemaphoreGuardArc>,
    /// While it has any.
    number: Option<u64>,
    push: Sender<()>,
    pushed: Receiver<()>,
}

impl Default for Room {
    fn default() -> Room {
        Room::of(LONG_BYTES / KEEP)
    }
}

impl Room {
    /// Room for so many times [`KEEP`] bytes.
    pub(super) fn of(permits: usize) -> Room {
        Room { permits: Arc::new(Semaphore::new(permits)), holders: Mutex::default() }
    }

    /// Whether there is any at the moment.
    #[cfg(test)]
    pub(super) fn has_some(&self) -> bool {
        self.permits.try_acquire().is_some()
    }

    fn holders(&self) -> MutexGuard<'_, Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One permit; `None`: nobody gave one back in `patience`, nor had any for half of that.
    async fn one(&self, patience: Duration) -> Option<SemaphoreGuardArc> {
        let (begun, half) = (Instant::now(), patience / 2);
        for _ in 0..ROUNDS_MAX {
            if let Some(permit) = self.permits.try_acquire_arc() {
                return Some(permit);
            }
            let pause = match self.push_out(half) {
                // It gives all back when it is looked at next.
                None => half / 16,
                Some(wait) => {
                    let left = patience.checked_sub(begun.elapsed()).filter(|it| !it.is_zero())?;
                    wait.min(left)
                }
            };
            let given = async { Some(self.permits.acquire_arc().await) };
            let paused = async {
                smol::Timer::after(pause).await;
                None
            };
            if let Some(permit) = future::or(given, paused).await {
                return Some(permit);
            }
        }
        None
    }

    /// Pushes out who has had room for the longest time, if that is `old`; else in what time it will be.
    fn push_out(&self, old: Duration) -> Option<Duration> {
        let mut holders = self.holders();
        let Some(first) = holders.all.first_entry() else { return Some(old) };
        match old.checked_sub(first.get().since.elapsed()).filter(|left| !left.is_zero()) {
            Some(left) => Some(left),
            None => {
                // One word is enough, and there is room for one.
                let _ = first.remove().push.try_send(());
                None
            }
        }
    }
}

impl Hold {
    /// Nothing of `room` yet. The receiver hears of it when that is to be given back.
    pub(super) fn new(room: Arc<Room>) -> (Hold, Receiver<()>) {
        let (push, pushed) = bounded(1);
        let hold = Hold { room, permits: Vec::new(), number: None, push, pushed: pushed.clone() };
        (hold, pushed)
    }

    /// Takes room for a message of which `bytes` are there; `false`: there is none for too long.
    pub(super) async fn grow(&mut self, bytes: usize, patience: Duration) -> bool {
        while bytes > KEEP * (self.permits.len() + 1) {
            let Some(permit) = self.room.one(patience).await else { return false };
            self.permits.push(permit);
            if self.number.is_none() {
                self.enter();
            }
        }
        true
    }

    /// A message is carried out: gives back what the next one, of which `bytes` are there, does not need,
    /// and what it has counts from now on.
    pub(super) fn renew(&mut self, bytes: usize) {
        self.permits.truncate(bytes / KEEP);
        self.leave();
        if !self.permits.is_empty() {
            self.enter();
        }
    }

    fn enter(&mut self) {
        let mut holders = self.room.holders();
        let number = holders.next;
        holders.next += 1;
        holders.all.insert(number, Holder { since: Instant::now(), push: self.push.clone() });
        self.number = Some(number);
    }

    fn leave(&mut self) {
        let Some(number) = self.number.take() else { return };
        if self.room.holders().all.remove(&number).is_none() {
            // It was pushed out a moment ago, and has given back what that was about.
            let _ = self.pushed.try_recv();
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(40);
    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn who_has_had_room_for_the_longest_time_is_pushed_out_first() {
        let room = Arc::new(Room::of(3));
        let (mut first, first_pushed) = Hold::new(room.clone());
        let (mut second, second_pushed) = Hold::new(room.clone());
        let (mut third, _pushed) = Hold::new(room.clone());
        smol::block_on(async {
            assert!(first.grow(2 * KEEP, SHORT).await && second.grow(3 * KEEP, SHORT).await);
            let gives_back = async {
                first_pushed.recv().await.expect("a word");
                drop(first);
                true
            };
            assert!(future::zip(third.grow(2 * KEEP, SHORT), gives_back).await.0);
        });
        assert!(second_pushed.try_recv().is_err(), "one was enough");
    }

    #[test]
    fn nobody_is_pushed_out_before_its_time_or_while_nobody_waits() {
        let room = Arc::new(Room::of(2));
        let (mut one, pushed) = Hold::new(room.clone());
        let (mut other, _pushed) = Hold::new(room.clone());
        smol::block_on(async {
            assert!(one.grow(3 * KEEP, LONG).await);
            assert!(future::poll_once(other.grow(2 * KEEP, LONG)).await.is_none(), "it waits");
        });
        assert!(pushed.try_recv().is_err());
        one.renew(0);
        assert!(smol::block_on(other.grow(2 * KEEP, LONG)), "what was given back");
    }

    #[test]
    fn a_message_that_was_carried_out_meanwhile_is_no_reason() {
        let room = Arc::new(Room::of(1));
        let (mut one, pushed) = Hold::new(room.clone());
        assert!(smol::block_on(one.grow(2 * KEEP, LONG)));
        assert_eq!(room.push_out(Duration::ZERO), None, "it is the oldest");
        one.renew(0);
        assert!(pushed.try_recv().is_err(), "taken back");
        assert!(smol::block_on(one.grow(2 * KEEP, LONG)));
        one.renew(2 * KEEP);
        assert!(room.push_out(LONG).is_some_and(|left| left <= LONG), "its next one is new");
        drop(one);
        assert_eq!(room.push_out(LONG), Some(LONG), "nobody has any");
        assert!(room.permits.try_acquire().is_some());
    }
}
