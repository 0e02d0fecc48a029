//! What clients send to a process's standard input, on its way there.
//!
//! A process that does not read holds up nobody at first: some of it is kept, so that a signal
//! behind it is heard. Then those who send wait, until it reads or ends. All that is kept together has
//! a bound, of which nobody gets so much that others get nothing.

use super::fan::{Budget, beyond_floor};
use async_io::Async;
use smol::channel::{Receiver, Sender, bounded};
use smol::lock::Mutex as Turns;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that are kept for one process.
const BYTES_MAX: usize = 4 << 20;

/// Bytes of the longest piece; short ones are joined.
const PIECE_BYTES: usize = 64 << 10;

/// The clients' end; clones feed the same process.
#[derive(Clone)]
pub(super) struct Input(Arc<Shared>);

/// The process's end, for [`carry`]. Dropping it lets go who waits for room.
pub(super) struct Pieces {
    shared: Arc<Shared>,
    news: Receiver<()>,
}

struct Shared {
    state: Mutex<State>,
    budget: Arc<Budget>,
    /// There is a piece, or the end. One message stands for any number.
    tell: Sender<()>,
    /// Who waits for room, one at a time.
    turn: Turns<()>,
    /// There is room, or nobody reads any more.
    room: (Sender<()>, Receiver<()>),
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Vec<u8>>,
    /// Of all pieces, with that which is being written.
    bytes: usize,
    /// No more comes, or nobody takes it.
    over: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Input {
    /// An input without a way yet, and the other end for [`carry`].
    pub(super) fn new(budget: Arc<Budget>) -> (Input, Pieces) {
        let (tell, news) = bounded(1);
        let state = Mutex::default();
        let shared =
            Arc::new(Shared { state, budget, tell, turn: Turns::new(()), room: bounded(1) });
        (Input(shared.clone()), Pieces { shared, news })
    }

    /// Sends some bytes. Waits while there is no room for them; returns at once when the process reads
    /// no more.
    pub(super) async fn send(&self, bytes: &[u8]) {
        let Input(shared) = self;
        let _turn = shared.turn.lock().await;
        let mut rest = bytes;
        loop {
            let added = shared.state().add(rest, &shared.budget);
            rest = &rest[added..];
            let _ = shared.tell.try_send(());
            if rest.is_empty() {
                return;
            }
            // Both ends of it live in what we hold. Its own reader makes room for a piece, whatever
            // others have: nobody waits for them.
            let _ = shared.room.1.recv().await;
        }
    }

    /// No more input comes: the process sees the end after what was sent before.
    pub(super) fn end(&self) {
        self.0.state().over = true;
        let _ = self.0.tell.try_send(());
        let _ = self.0.room.0.try_send(());
    }
}

impl State {
    /// Adds to what is unread, or to nothing when all is over; how much there was room for.
    fn add(&mut self, bytes: &[u8], budget: &Budget) -> usize {
        if self.over {
            return bytes.len();
        }
        let mut added = 0;
        for piece in bytes.chunks(PIECE_BYTES) {
            let (held, after) = (beyond_floor(self.bytes), self.bytes + piece.len());
            if after > BYTES_MAX || !budget.take(held, beyond_floor(after) - held) {
                break;
            }
            self.bytes = after;
            added += piece.len();
            match self.pieces.back_mut() {
                Some(last) if last.len() + piece.len() <= PIECE_BYTES => last.extend(piece),
                _ => self.pieces.push_back(piece.to_vec()),
            }
        }
        added
    }

    /// So many bytes are not there any more.
    fn remove(&mut self, bytes: usize, budget: &Budget) {
        let held = beyond_floor(self.bytes);
        self.bytes -= bytes;
        budget.give_back(held - beyond_floor(self.bytes));
    }
}

impl Pieces {
    /// The next piece; `None`: the end.
    async fn next(&self) -> Option<Vec<u8>> {
        loop {
            {
                let mut state = self.shared.state();
                match state.pieces.pop_front() {
                    Some(piece) => return Some(piece),
                    None if state.over => return None,
                    None => {}
                }
            }
            // The sender lives in what we hold.
            let _ = self.news.recv().await;
        }
    }

    /// So much of a piece is written.
    fn give_back(&self, bytes: usize) {
        self.shared.state().remove(bytes, &self.shared.budget);
        let _ = self.shared.room.0.try_send(());
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let left = state.bytes;
        state.remove(left, &self.shared.budget);
        *state = State { over: true, ..State::default() };
        drop(state);
        let _ = self.shared.room.0.try_send(());
    }
}

/// Writes what is sent to `fd` until its end, or the process reads no more.
pub(super) async fn carry(fd: OwnedFd, pieces: Pieces) -> io::Result<()> {
    let pipe = Async::new(File::from(fd))?;
    while let Some(piece) = pieces.next().await {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let written = pipe.write_with(|mut pipe| pipe.write(rest)).await?;
            rest = &rest[written..];
            pieces.give_back(written);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::future;
    use std::io::Read;

    /// Sends without waiting; `false`: it would have to wait.
    fn send_now(input: &Input, bytes: &[u8]) -> bool {
        smol::block_on(future::poll_once(input.send(bytes))).is_some()
    }

    #[test]
    fn bytes_are_counted_and_not_how_they_came() {
        let (input, pieces) = Input::new(Arc::default());
        assert!((0..100_000).all(|_| send_now(&input, b"x")));
        assert!(pieces.shared.state().pieces.len() <= 100_000 / PIECE_BYTES + 1);
        assert!(send_now(&input, &vec![b'y'; BYTES_MAX - 100_000]), "up to the bound");
        assert!(!send_now(&input, b"z"));
        // The end waits for nothing, and whoever waits is let go.
        smol::block_on(future::zip(input.send(b"z"), async { input.end() }));
        assert!(send_now(&input, b"z"), "dropped");
        let all = smol::block_on(async {
            let mut all = Vec::new();
            while let Some(piece) = pieces.next().await {
                all.extend(piece);
            }
            all
        });
        assert_eq!(all.len(), BYTES_MAX);
        assert!(all.starts_with(b"xx") && all.ends_with(b"yy"));
    }

    #[test]
    fn what_a_process_reads_makes_room_for_all_who_wait() {
        let (input, pieces) = Input::new(Arc::default());
        let (reader, writer) = crate::sys::fd::pipe().expect("pipe");
        let piece = vec![7; 1 << 20];
        let send = async {
            let one = async {
                for _ in 0..8 {
                    input.send(&piece).await;
                }
            };
            let other = async {
                for _ in 0..8 {
                    input.send(&piece).await;
                }
            };
            future::zip(one, other).await;
            input.end();
        };
        let read = smol::unblock(move || {
            let mut all = Vec::new();
            File::from(reader).read_to_end(&mut all).map(|_| all.len())
        });
        let carried = future::zip(carry(writer, pieces), send);
        let (carried, read) = smol::block_on(future::zip(carried, read));
        carried.0.expect("carried");
        assert_eq!(read.expect("read"), 16 << 20);
    }

    #[test]
    fn who_waits_is_let_go_when_nobody_reads_any_more() {
        let (input, pieces) = Input::new(Arc::default());
        assert!(send_now(&input, &vec![0; BYTES_MAX]) && !send_now(&input, b"x"));
        let (one, two) = (input.send(b"x"), input.send(b"y"));
        smol::block_on(future::zip(future::zip(one, two), async { drop(pieces) }));
    }

    #[test]
    fn those_who_do_not_read_have_no_more_than_the_budget_together() {
        let budget = Arc::<Budget>::default();
        let inputs: Vec<_> = (0..1000).map(|_| Input::new(budget.clone())).collect();
        let much = vec![b'x'; BYTES_MAX];
        let taken = inputs.iter().filter(|(input, _)| send_now(input, &much)).count();
        assert!((1..16).contains(&taken), "there is a bound: {taken}");
        let held = |pieces: &Pieces| pieces.shared.state().bytes;
        let all: usize = inputs.iter().map(|(_, pieces)| held(pieces)).sum();
        let floors = 1000 * PIECE_BYTES;
        assert!(all <= floors + (64 << 20), "{all}");
        assert!(inputs.iter().all(|(_, pieces)| held(pieces) >= PIECE_BYTES), "nobody has nothing");
        drop(inputs);
        let (input, _pieces) = Input::new(budget);
        assert!(send_now(&input, &much), "all of it is given back");
    }
}
