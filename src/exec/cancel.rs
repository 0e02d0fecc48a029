//! A wish to stop that is passed down an action tree.

use smol::channel::{Receiver, Sender, bounded};
use smol::future;
use std::time::Duration;

/// The end that decides. Dropping it cancels too, so nothing can be left running by a forgotten
/// owner.
#[derive(Debug)]
pub struct Canceller(Sender<()>);

/// The end that obeys. Clones obey the same decision.
#[derive(Clone, Debug)]
pub struct Cancel(Receiver<()>);

/// A fresh pair.
pub fn pair() -> (Canceller, Cancel) {
    // Nothing is ever sent: closing the channel is the message, and every clone hears it.
    let (sender, receiver) = bounded(1);
    (Canceller(sender), Cancel(receiver))
}

impl Canceller {
    /// Cancels; again is fine.
    pub fn cancel(&self) {
        self.0.close();
    }
}

impl Cancel {
    /// Returns once it is cancelled.
    pub async fn cancelled(&self) {
        let _ = self.0.recv().await;
    }

    /// It is cancelled already.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits this long, or less when cancelled. `true`: the time passed.
    pub async fn sleep(&self, span: Duration) -> bool {
        future::or(
            async {
                async_io::Timer::after(span).await;
                true
            },
            async {
                self.cancelled().await;
                false
            },
        )
        .await
    }

    /// Runs `work` until it is done, or gives up on it when cancelled.
    pub async fn or<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        future::or(async { Some(work.await) }, async {
            self.cancelled().await;
            None
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clone_hears_it_and_a_dropped_owner_cancels() {
        smol::block_on(async {
            let (canceller, cancel) = pair();
            let other = cancel.clone();
            assert!(!cancel.is_cancelled());
            canceller.cancel();
            cancel.cancelled().await;
            other.cancelled().await;
            let (canceller, cancel) = pair();
            drop(canceller);
            cancel.cancelled().await;
            assert_eq!(cancel.or(future::pending::<()>()).await, None);
        });
    }
}
