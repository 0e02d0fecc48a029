//! Room in the store for containers that write without a limit.

use super::backend::{Backend, Place};
use async_io::Timer;
use std::time::Duration;

/// How often the store is looked at while there is such a container: what a disk of this kind can
/// write in that time is there before it.
const PERIOD: Duration = Duration::from_secs(5);

impl Backend {
    /// Keeps the store ahead of those who write, for as long as this is polled. Sleeps while every
    /// container has a limit.
    pub async fn tend_store(&self) {
        loop {
            // No event: the kernel does not tell how much of a group without a limit is written.
            while self.has_unlimited() {
                let shared = self.shared.clone();
                smol::unblock(move || shared.host.store().keep_ahead()).await;
                Timer::after(PERIOD).await;
            }
            if self.shared.changes.recv().await.is_err() {
                return;
            }
        }
    }

    fn has_unlimited(&self) -> bool {
        self.shared.places().values().any(|place| match place {
            Place::Stands(member) => member.container.entry().spec.limits.disk.is_none(),
            Place::Busy | Place::Leaves => false,
        })
    }
}
