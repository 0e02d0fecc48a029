//! One output of a process, and everybody who listens to it.
//!
//! Each listener has a buffer of his own, so that nobody waits for anybody: who is slow, or has not
//! connected yet, loses what does not fit, and the process never stops for it. That is Garden's
//! rule; a program that says little and ends is heard in full by who comes late. All buffers together
//! have a bound, of which nobody gets so much that others hear nothing.

use smol::channel::{Receiver, Sender, bounded};
use smol::lock::Mutex as Turns;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Take};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Pieces that are kept for one listener, and their bytes; Garden counts pieces only.
const PIECES_MAX: usize = 4000;
const BYTES_MAX: usize = 4 << 20;

/// Bytes that each listener may have before him whatever others have: what a pipe holds.
const FLOOR_BYTES: usize = 64 << 10;

/// Bytes that all listeners of a daemon may have before them together, beyond that.
const BUDGET_BYTES: usize = 64 << 20;

/// What all listeners of a daemon together have before them, or all processes that do not read.
#[derive(Default)]
pub struct Budget(AtomicUsize);

/// The speaking end. Dropping it ends the output for all listeners, once they have heard the rest.
#[derive(Default)]
pub struct Fan {
    listeners: Mutex<Vec<Weak<Buffer>>>,
    budget: Arc<Budget>,
}

/// One listening end. Clones share one buffer: whoever reads first has it.
#[derive(Clone)]
pub struct Listener {
    buffer: Arc<Buffer>,
    news: Receiver<()>,
}

struct Buffer {
    budget: Arc<Budget>,
    /// Heard before the pieces; not of the budget. Held while it is read.
    first: Arc<Turns<First>>,
    state: Mutex<State>,
    /// One message stands for any number of changes.
    tell: Sender<()>,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Vec<u8>>,
    bytes: usize,
    over: bool,
}

/// A file that is read when it is asked for, and what was read of it and heard by nobody yet.
#[derive(Default)]
struct First {
    file: Option<Take<File>>,
    piece: Option<Vec<u8>>,
}

impl Budget {
    /// Takes `bytes` more for a listener who has `held` of it; `false`: there is not so much for him.
    /// Nobody gets more than is left for all others after it, so there is some for whoever comes.
    pub(super) fn take(&self, held: usize, bytes: usize) -> bool {
        let more = |taken: usize| {
            let taken = taken.checked_add(bytes)?;
            let left = BUDGET_BYTES.checked_sub(taken)?;
            (bytes == 0 || held + bytes <= left).then_some(taken)
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Fan {
    /// An output whose listeners share `budget` with those of all others.
    pub fn new(budget: Arc<Budget>) -> Fan {
        Fan { listeners: Mutex::default(), budget }
    }

    /// Listens from now on.
    pub fn listen(&self) -> Listener {
        let (tell, news) = bounded(1);
        let (budget, first, state) = (self.budget.clone(), Arc::default(), Mutex::default());
        let buffer = Buffer { budget, first, state, tell };
        let buffer = Arc::new(buffer);
        self.listeners().push(Arc::downgrade(&buffer));
        Listener { buffer, news }
    }

    /// Tells everybody. Who has gone is forgotten.
    pub fn say(&self, piece: &[u8]) {
        self.listeners().retain(|listener| {
            let Some(buffer) = listener.upgrade() else { return false };
            buffer.add(piece);
            true
        });
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Weak<Buffer>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Fan {
    fn drop(&mut self) {
        for listener in self.listeners().iter().filter_map(Weak::upgrade) {
            listener.state().over = true;
            let _ = listener.tell.try_send(());
        }
    }
}

impl Buffer {
    fn add(&self, piece: &[u8]) {
        let mut state = self.state();
        let bytes = state.bytes + piece.len();
        let full = state.pieces.len() >= PIECES_MAX || bytes > BYTES_MAX;
        let held = beyond_floor(state.bytes);
        if !full && !piece.is_empty() && self.budget.take(held, beyond_floor(bytes) - held) {
            state.bytes = bytes;
            state.pieces.push_back(piece.to_vec());
            let _ = self.tell.try_send(());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let left = self.state().bytes;
        self.budget.give_back(beyond_floor(left));
    }
}

/// What of one's bytes is of the budget.
pub(super) fn beyond_floor(bytes: usize) -> usize {
    bytes.saturating_sub(FLOOR_BYTES)
}

impl Default for Listener {
    /// Of an output that is over.
    fn default() -> Listener {
        Fan::default().listen()
    }
}

impl Listener {
    /// Has a file heard before everything else. It is not in memory: whoever does not read takes none.
    pub(super) fn hear_first(&self, file: Option<Take<File>>) {
        if file.is_some() {
            self.buffer.first.lock_blocking().file = file;
            let _ = self.buffer.tell.try_send(());
        }
    }

    /// The next piece; `None`: the output is over.
    pub async fn next(&self) -> Option<Vec<u8>> {
        loop {
            if let Some(piece) = self.next_of_first().await {
                return Some(piece);
            }
            {
                let mut state = self.buffer.state();
                if let Some(piece) = state.pieces.pop_front() {
                    let held = beyond_floor(state.bytes);
                    state.bytes -= piece.len();
                    self.buffer.budget.give_back(held - beyond_floor(state.bytes));
                    return Some(piece);
                }
                if state.over {
                    // Whoever shares this end is to see it too.
                    let _ = self.buffer.tell.try_send(());
                    return None;
                }
            }
            // The sender lives in the buffer, which we hold.
            let _ = self.news.recv().await;
        }
    }

    /// The next piece of what is heard first; `None`: there is no more of it. Dropped before it is
    /// there, it is the next one's.
    async fn next_of_first(&self) -> Option<Vec<u8>> {
        let mut first = self.buffer.first.lock_arc().await;
        if first.file.is_some() && first.piece.is_none() {
            first = smol::unblock(move || {
                first.read();
                first
            })
            .await;
        }
        first.piece.take()
    }
}

impl First {
    /// Reads a piece, or comes to the end. Blocking.
    fn read(&mut self) {
        let Some(file) = &mut self.file else { return };
        let mut piece = vec![0; FLOOR_BYTES];
        // What was read before an error is better than nothing.
        let length = file.read(&mut piece).unwrap_or(0);
        piece.truncate(length);
        match length {
            0 => self.file = None,
            _ => self.piece = Some(piece),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::future;

    fn all(listener: &Listener) -> Vec<u8> {
        smol::block_on(async {
            let mut out = Vec::new();
            while let Some(piece) = listener.next().await {
                out.extend(piece);
            }
            out
        })
    }

    #[test]
    fn everybody_hears_all_from_the_moment_he_listens_to_the_end() {
        let fan = Fan::default();
        let first = fan.listen();
        fan.say(b"one ");
        let second = fan.listen();
        fan.say(b"two");
        drop(fan);
        assert_eq!(all(&first), b"one two");
        assert_eq!(all(&second), b"two");
        assert_eq!(all(&second), b"", "over is over");
    }

    #[test]
    fn who_does_not_read_loses_the_rest_and_holds_up_nobody() {
        let fan = Fan::default();
        let (slow, quick) = (fan.listen(), fan.listen());
        let piece = vec![7; 1 << 20];
        for _ in 0..10 {
            fan.say(&piece);
            assert_eq!(smol::block_on(quick.next()).map(|piece| piece.len()), Some(1 << 20));
        }
        for _ in 0..PIECES_MAX {
            fan.say(b"x");
        }
        drop(fan);
        assert_eq!(all(&slow).len(), BYTES_MAX);
        assert_eq!(all(&quick).len(), PIECES_MAX);
    }

    #[test]
    fn all_listeners_together_keep_no_more_than_the_budget_and_give_it_back() {
        let budget = Arc::new(Budget::default());
        let fan = Fan::new(budget.clone());
        let listeners: Vec<_> = (0..40).map(|_| fan.listen()).collect();
        let piece = vec![7; 32 << 10];
        (0..BYTES_MAX / piece.len()).for_each(|_| fan.say(&piece));
        let taken = budget.0.load(Ordering::Relaxed);
        assert!(taken > BUDGET_BYTES * 9 / 10 && taken <= BUDGET_BYTES, "{taken}");
        drop(fan);
        let heard: Vec<_> = listeners.iter().map(|listener| all(listener).len()).collect();
        let (least, most) = (heard.iter().min(), heard.iter().max());
        let fair = FLOOR_BYTES + BUDGET_BYTES / 41;
        assert!(least > Some(&(fair * 9 / 10)) && most < Some(&(fair * 11 / 10)), "{heard:?}");
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn those_who_never_read_leave_something_to_who_comes_later() {
        let budget = Arc::new(Budget::default());
        let (loud, piece) = (Fan::new(budget.clone()), vec![7; 16 << 10]);
        let deaf: Vec<_> = (0..200).map(|_| loud.listen()).collect();
        (0..BYTES_MAX / piece.len()).for_each(|_| loud.say(&piece));
        let late = Fan::new(budget.clone());
        let listener = late.listen();
        (0..1000).for_each(|_| late.say(&piece));
        drop(late);
        assert!(all(&listener).len() > FLOOR_BYTES);
        // Even without any budget, nobody is silent.
        budget.0.store(BUDGET_BYTES, Ordering::Relaxed);
        let last = Fan::new(budget.clone());
        let listener = last.listen();
        (0..1000).for_each(|_| last.say(&piece));
        drop(last);
        assert_eq!(all(&listener).len(), FLOOR_BYTES);
        drop(deaf);
    }

    #[test]
    fn what_is_heard_first_takes_nothing_of_the_budget() {
        let budget = Arc::new(Budget::default());
        let fan = Fan::new(budget.clone());
        let listener = fan.listen();
        fan.say(b"live");
        let path = std::env::temp_dir().join(format!("fan-first-{}", std::process::id()));
        std::fs::write(&path, vec![b'x'; BYTES_MAX + 7]).expect("a file");
        let file = File::open(&path).expect("open");
        std::fs::remove_file(&path).expect("remove");
        listener.hear_first(Some(file.take(BYTES_MAX as u64)));
        // Who goes while it is read takes nothing along.
        let once = || smol::block_on(future::poll_once(listener.next())).flatten();
        let soon: usize = (0..9).filter_map(|_| once()).map(|piece| piece.len()).sum();
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
        drop(fan);
        let heard = all(&listener);
        assert!(soon + heard.len() == BYTES_MAX + 4 && heard.ends_with(b"xlive"));
    }

    #[test]
    fn a_listener_that_waits_is_woken_and_one_that_left_is_forgotten() {
        let fan = Fan::default();
        drop(fan.listen());
        let listener = fan.listen();
        let heard = smol::block_on(future::zip(listener.next(), async {
            future::yield_now().await;
            fan.say(b"news");
        }));
        assert_eq!(heard.0.as_deref(), Some(&b"news"[..]));
        assert_eq!(fan.listeners().len(), 1);
    }
}
