//! Much of the same at once, but not all of it.

use crate::exec::steps::join_all;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Apps that are made, changed or removed at a time, as by Diego's nsync.
pub const WORKERS: usize = 50;

/// Does `work` with each item, [`WORKERS`] at a time; what came of them, in no order.
pub async fn all<I: Send, T: Send, F: Future<Output = T> + Send>(
    items: impl IntoIterator<Item = I, IntoIter: Send>,
    work: impl Fn(I) -> F + Sync,
) -> Vec<T> {
    let (left, done) = (Mutex::new(items.into_iter()), Mutex::new(Vec::new()));
    let (left, done, work) = (&left, &done, &work);
    let worker = |_| {
        let going = async move {
            loop {
                let next = held(left).next();
                let Some(item) = next else { return };
                let result = work(item).await;
                held(done).push(result);
            }
        };
        Box::pin(going) as Pin<Box<dyn Future<Output = ()> + Send + '_>>
    };
    join_all((0..WORKERS).map(worker).collect()).await;
    std::mem::take(&mut *held(done))
}

fn held<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::future;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Row 81: nothing is left out, and no more than fifty are under way.
    #[test]
    fn row_81_fifty_work_at_a_time() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (now, most) = (&now, &most);
        let work = |item: usize| async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            future::yield_now().await;
            now.fetch_sub(1, Ordering::SeqCst);
            item
        };
        let mut done = smol::block_on(all(0..1000, work));
        done.sort_unstable();
        assert_eq!(done, (0..1000).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), WORKERS);
        assert!(smol::block_on(all(Vec::new(), work)).is_empty());
    }
}
