//! One output of a process, and everybody who listens to it.
//!
//! Each listener has a buffer of his own, so that nobody waits for anybody: who is slow, or has not
//! connected yet, loses what does not fit, and the process never stops for it. That is Garden's
//! rule; a program that says little and ends is heard in full by who comes late.

use smol::channel::{Receiver, Sender, bounded};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Pieces that are kept for one listener, and their bytes; Garden counts pieces only.
const PIECES_MAX: usize = 4000;
const BYTES_MAX: usize = 4 << 20;

/// Bytes that all listeners of a daemon may have before them together.
const BUDGET_BYTES: usize = 64 << 20;

/// What all listeners of a daemon together have before them.
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

impl Budget {
    /// Takes this much; `false`: there is not so much left.
    fn take(&self, bytes: usize) -> bool {
        let more = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= BUDGET_BYTES);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, bytes: usize) {
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
        let buffer = Buffer { budget: self.budget.clone(), state: Mutex::default(), tell };
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
        let full = state.pieces.len() >= PIECES_MAX || state.bytes + piece.len() > BYTES_MAX;
        if !full && !piece.is_empty() && self.budget.take(piece.len()) {
            state.bytes += piece.len();
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
        self.budget.give_back(left);
    }
}

impl Default for Listener {
    /// Of an output that is over.
    fn default() -> Listener {
        Fan::default().listen()
    }
}

impl Listener {
    /// The next piece; `None`: the output is over.
    pub async fn next(&self) -> Option<Vec<u8>> {
        loop {
            {
                let mut state = self.buffer.state();
                if let Some(piece) = state.pieces.pop_front() {
                    state.bytes -= piece.len();
                    self.buffer.budget.give_back(piece.len());
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
        let listeners: Vec<_> = (0..20).map(|_| fan.listen()).collect();
        let piece = vec![7; 1 << 20];
        (0..4).for_each(|_| fan.say(&piece));
        assert_eq!(budget.0.load(Ordering::Relaxed), BUDGET_BYTES);
        drop(fan);
        assert_eq!(all(&listeners[0]).len(), BYTES_MAX);
        assert!(all(&listeners[19]).len() < BYTES_MAX);
        drop(listeners);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
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
