//! What the box gets back when it is quiet.

use super::shared::Cell;
use crate::log::chain;
use smol::future;
use std::time::Duration;

/// Quiet this long after the last container went, the store may be cut: a staging makes way for
/// its instances, and a crashed one for the next, sooner than that.
const QUIET: Duration = Duration::from_secs(15);

impl Cell {
    /// Gives the disk below the store what no container was promised any more; never ends. One
    /// look at the start and one after containers have gone, none in between.
    pub async fn keep_store_small(&self) {
        let shared = &self.shared;
        loop {
            while future::or(async { shared.gone.recv().await.is_ok() }, async {
                async_io::Timer::after(QUIET).await;
                false
            })
            .await
            {}
            let inner = shared.clone();
            if let Err(err) = smol::unblock(move || inner.host.store().give_back()).await {
                crate::warn!("volume.not_shrunk", err = chain(&err));
            }
            if shared.gone.recv().await.is_err() {
                return future::pending().await;
            }
        }
    }
}
