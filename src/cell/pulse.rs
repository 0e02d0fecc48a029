//! Whether the converge loop turns: who asks hears after the loop's next whole round, or never.

use super::shared::Cell;
use smol::channel::{Receiver, Sender, bounded};

/// The question and the loop's ear for it.
pub(super) struct Pulse {
    ask: Sender<Sender<()>>,
    asked: Receiver<Sender<()>>,
}

impl Default for Pulse {
    fn default() -> Pulse {
        let (ask, asked) = bounded(1);
        Pulse { ask, asked }
    }
}

impl Pulse {
    /// Asks for a round; `true` when it was made. A loop that hangs never answers.
    async fn beat(&self) -> bool {
        let (done, wait) = bounded(1);
        self.ask.send(done).await.is_ok() && wait.recv().await.is_ok()
    }

    /// For the loop: waits until somebody asks, and must be told by [`answer`] after the round.
    pub(super) async fn asked(&self) -> Option<Sender<()>> {
        self.asked.recv().await.ok()
    }
}

/// Tells who has asked that the round is done.
pub(super) fn answer(asker: Option<Sender<()>>) {
    if let Some(asker) = asker {
        // It may have stopped waiting.
        let _ = asker.try_send(());
    }
}

impl Cell {
    /// Makes the converge loop look once more; `true` when it has. As long as the loop, or what it
    /// waits for, hangs, this does too.
    pub async fn beat(&self) -> bool {
        self.shared.pulse.beat().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::future::{block_on, poll_once};

    #[test]
    fn a_beat_is_answered_by_a_whole_round_and_not_by_a_loop_that_hangs() {
        block_on(async {
            let pulse = Pulse::default();
            let mut beat = std::pin::pin!(pulse.beat());
            assert_eq!(poll_once(&mut beat).await, None, "no loop");
            let asker = pulse.asked().await;
            assert_eq!(poll_once(&mut beat).await, None, "its round is not done");
            answer(asker);
            assert_eq!(poll_once(&mut beat).await, Some(true));
        });
    }

    #[test]
    fn a_loop_that_was_taken_down_in_its_round_has_not_made_it() {
        block_on(async {
            let pulse = Pulse::default();
            let mut beat = std::pin::pin!(pulse.beat());
            assert_eq!(poll_once(&mut beat).await, None);
            drop(pulse.asked().await);
            assert_eq!(poll_once(&mut beat).await, Some(false));
        });
    }
}
