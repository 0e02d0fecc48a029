//! Who waits for something of which there is so much, and whose turn it is. It knows nothing of what that
//! is, or of images but their numbers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often somebody who waits looks whether he still has to.
const LOOK: Duration = Duration::from_millis(100);

/// Something of which there is so much, given out in the order of asking.
///
/// Some of it may be kept for images that have none: one that has some gets more only beyond that, and
/// while it cannot, those behind it in the row go first.
pub struct Gate {
    row: Mutex<Row>,
    changed: Condvar,
    waiting_max: usize,
}

#[derive(Default)]
struct Row {
    free: u64,
    /// What of it is for images that have none.
    kept: u64,
    next: u64,
    waiting: VecDeque<Ticket>,
    /// What images have.
    held: BTreeMap<u64, u64>,
}

/// Somebody in the row.
#[derive(Clone, Copy)]
struct Ticket {
    number: u64,
    image: Option<u64>,
    units: u64,
}

impl Row {
    /// Whether only what its own image has stands in its way.
    fn is_held_back(&self, ticket: &Ticket) -> bool {
        let has_some = ticket.image.is_some_and(|image| self.held.contains_key(&image));
        has_some && self.free < ticket.units.saturating_add(self.kept)
    }

    /// Whether it is the turn of this one, and there is enough.
    fn is_served(&self, number: u64) -> bool {
        let first = self.waiting.iter().find(|ticket| !self.is_held_back(ticket));
        first.is_some_and(|first| first.number == number && first.units <= self.free)
    }

    /// Gives it what it asks for, if it is its turn.
    fn serve(&mut self, own: &Ticket) -> bool {
        let is_served = self.is_served(own.number);
        if is_served {
            self.leave(own.number);
            self.free -= own.units;
            if let Some(image) = own.image {
                *self.held.entry(image).or_default() += own.units;
            }
        }
        is_served
    }

    fn leave(&mut self, number: u64) {
        self.waiting.retain(|ticket| ticket.number != number);
    }
}

/// A part of it, given back when it is dropped.
pub struct Pass<'a> {
    gate: &'a Gate,
    image: Option<u64>,
    units: u64,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many wait already.
    Full,
    /// Who asked does not want it any more.
    Over,
}

impl Gate {
    /// So much of it, and so many who may wait for it.
    pub fn new(free: u64, waiting_max: usize) -> Gate {
        let row = Row { free, ..Row::default() };
        Gate { row: Mutex::new(row), changed: Condvar::new(), waiting_max }
    }

    /// The same; so much of it is for images that have none.
    pub fn keeping(self, kept: u64) -> Gate {
        self.row().kept = kept;
        self
    }

    fn row(&self) -> MutexGuard<'_, Row> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all who came before are served and `units` are free.
    pub fn take(&self, units: u64, is_over: &dyn Fn() -> bool) -> Result<Pass<'_>, Refused> {
        self.take_told(units, is_over, &|| ())
    }

    /// The same; who has to wait is told, once, before he does.
    pub fn take_told(
        &self,
        units: u64,
        is_over: &dyn Fn() -> bool,
        waits: &dyn Fn(),
    ) -> Result<Pass<'_>, Refused> {
        self.take_for(None, units, is_over, waits)
    }

    /// The same for an image.
    pub fn take_for(
        &self,
        image: Option<u64>,
        units: u64,
        is_over: &dyn Fn() -> bool,
        waits: &dyn Fn(),
    ) -> Result<Pass<'_>, Refused> {
        let pass = || Pass { gate: self, image, units };
        let mut row = self.row();
        let own = Ticket { number: row.next, image, units };
        row.next += 1;
        row.waiting.push_back(own);
        if row.serve(&own) {
            return Ok(pass());
        }
        if row.waiting.len() > self.waiting_max {
            row.leave(own.number);
            return Err(Refused::Full);
        }
        drop(row);
        waits();
        let mut row = self.row();
        let taken = loop {
            if is_over() {
                row.leave(own.number);
                break Err(Refused::Over);
            }
            if row.serve(&own) {
                break Ok(pass());
            }
            let waited = self.changed.wait_timeout(row, LOOK);
            row = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        drop(row);
        // The next one may have room as well.
        self.changed.notify_all();
        taken
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut row = self.gate.row();
        row.free += self.units;
        if let Some(image) = self.image {
            let left = row.held.remove(&image).unwrap_or_default().saturating_sub(self.units);
            if left > 0 {
                row.held.insert(image, left);
            }
        }
        drop(row);
        self.gate.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::super::work::Wish;
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Instant;

    /// Waits until so many stand in the row.
    fn stand(gate: &Gate, waiting: usize) {
        let begin = Instant::now();
        while gate.row().waiting.len() != waiting {
            assert!(begin.elapsed() < Duration::from_secs(60), "nobody came");
            thread::yield_now();
        }
    }

    #[test]
    fn who_comes_first_is_served_first_and_too_many_are_refused() {
        let gate = Gate::new(2, 2);
        let held = gate.take(2, &|| false).expect("free");
        let (tell, told) = channel();
        thread::scope(|scope| {
            // The second would fit earlier than the first.
            for (at, units) in [2, 1].into_iter().enumerate() {
                let (gate, tell) = (&gate, tell.clone());
                scope.spawn(move || {
                    let pass = gate.take(units, &|| false).expect("in turn");
                    tell.send(units).expect("told");
                    drop(pass);
                });
                stand(gate, at + 1);
            }
            assert_eq!(gate.take(1, &|| false).err(), Some(Refused::Full));
            drop(held);
        });
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [2, 1]);
        assert_eq!(gate.row().free, 2);
    }

    /// Whatever one image has, and however long it keeps it: others that have none get some.
    #[test]
    fn one_image_never_has_all() {
        let gate = Gate::new(5, usize::MAX).keeping(3);
        let take = |image| gate.take_for(Some(image), 1, &|| false, &|| ()).expect("in turn");
        let greedy = [take(1), take(1)];
        let (tell, told) = channel();
        thread::scope(|scope| {
            let more = scope.spawn(|| {
                let waits = || tell.send("it waits").expect("told");
                gate.take_for(Some(1), 1, &|| false, &waits).map(drop)
            });
            assert_eq!(told.recv(), Ok("it waits"));
            stand(&gate, 1);
            // Behind it in the row, and before it: each image has one.
            let others = [take(2), take(3), take(4)];
            assert_eq!(gate.row().free, 0);
            drop(others);
            stand(&gate, 1);
            // What it gives back itself is its own again.
            drop(greedy);
            more.join().expect("no panic").expect("in turn");
        });
        let row = gate.row();
        assert_eq!((row.free, row.held.len(), row.waiting.len()), (5, 0, 0));
        drop(row);
        // Who is of no image has what there is.
        assert!((0..5).map(|_| gate.take(1, &|| false)).collect::<Result<Vec<_>, _>>().is_ok());
    }

    #[test]
    fn where_nobody_may_wait_who_finds_nothing_goes_on_without() {
        let gate = Gate::new(1, 0);
        let held = gate.take(1, &|| true).ok();
        assert!(held.is_some() && gate.take(1, &|| true).err() == Some(Refused::Full));
        drop(held);
        assert!(gate.take(1, &|| true).is_ok());
    }

    #[test]
    fn who_does_not_want_it_any_more_leaves_the_row() {
        let gate = Gate::new(1, 9);
        let held = gate.take(1, &|| false).expect("free");
        let wish = Wish::default();
        let (tell, told) = channel();
        thread::scope(|scope| {
            let waits = scope.spawn(|| {
                gate.take_told(1, &|| wish.is_over(), &|| tell.send(()).expect("told")).err()
            });
            stand(&gate, 1);
            assert_eq!(told.recv(), Ok(()), "who has to wait is told");
            wish.end();
            assert_eq!(waits.join().expect("no panic"), Some(Refused::Over));
        });
        assert!(gate.row().waiting.is_empty());
        drop(held);
        assert!(gate.take(1, &|| false).is_ok());
    }
}
