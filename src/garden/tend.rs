//! Room in the store for containers and peas that write without a limit.

use super::backend::Backend;
use async_io::Timer;
use std::time::Duration;

/// How often the store is looked at while there is such a disk: what a disk of this kind can write
/// in that time is there before it, at some 500 MB in a second.
const PERIOD: Duration = Duration::from_secs(2);

impl Backend {
    /// Keeps the store ahead of those who write, for as long as this is polled. Sleeps while every
    /// container and every pea has a limit.
    pub async fn tend_store(&self) {
        loop {
            // No event: the kernel does not tell how much of a group without a limit is written.
            while self.keep_ahead().await {
                Timer::after(PERIOD).await;
            }
            if self.shared.changes.recv().await.is_err() {
                return;
            }
        }
    }

    /// Asks the store itself, which knows every disk: `false`: all have a limit.
    async fn keep_ahead(&self) -> bool {
        let shared = self.shared.clone();
        smol::unblock(move || shared.host.store().keep_ahead()).await
    }
}
