//! Work pools: how many of one kind of work go on side by side. What is more waits its turn.
//!
//! A start of fifty apps must not become fifty containers in the making: each of them would take all
//! the longer, and time out. Diego's pools, with sizes that follow the processors of the box.

use smol::lock::{Semaphore, SemaphoreGuardArc};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How many of each kind of work at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Containers in the making.
    pub create: u32,
    /// Containers in their removal.
    pub delete: u32,
    /// Files that are read out of containers.
    pub read: u32,
    /// Looks at what containers use.
    pub metrics: u32,
    /// Health probes.
    pub health: u32,
}

impl Sizes {
    /// What a box with so many processors does: never more than a Diego cell (32, 32, 64, 8, 64),
    /// and two of each kind at least, so that one that hangs holds up nobody.
    pub fn for_cores(cores: usize) -> Sizes {
        let scaled = |of_each: usize, most: u32| {
            u32::try_from(cores.saturating_mul(of_each)).unwrap_or(most).clamp(2, most)
        };
        Sizes {
            create: scaled(2, 32),
            delete: scaled(4, 32),
            read: scaled(8, 64),
            metrics: scaled(2, 8),
            health: scaled(16, 64),
        }
    }
}

/// One kind of work.
pub struct Pool {
    size: u32,
    turns: Arc<Semaphore>,
    count: Arc<Count>,
}

#[derive(Default)]
struct Count {
    busy: AtomicU32,
    peak: AtomicU32,
}

/// A turn in a pool; the next one's when it is dropped.
pub struct Turn {
    count: Arc<Count>,
    _turn: SemaphoreGuardArc,
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Before the semaphore's own: the count never exceeds the size.
        self.count.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Pool {
    /// At most `size` at a time; 0 counts as 1.
    pub fn new(size: u32) -> Pool {
        let size = size.max(1);
        Pool { size, turns: Arc::new(Semaphore::new(size as usize)), count: Arc::default() }
    }

    /// Waits for a turn. Whoever stops waiting takes none.
    pub async fn enter(&self) -> Turn {
        let turn = self.turns.acquire_arc().await;
        let busy = self.count.busy.fetch_add(1, Ordering::SeqCst) + 1;
        self.count.peak.fetch_max(busy, Ordering::SeqCst);
        Turn { count: self.count.clone(), _turn: turn }
    }

    /// The same, for so long at most.
    pub async fn enter_within(&self, most: Duration) -> Option<Turn> {
        let late = async {
            async_io::Timer::after(most).await;
            None
        };
        smol::future::or(async { Some(self.enter().await) }, late).await
    }

    /// At most so many at a time.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// How many there are now.
    pub fn busy(&self) -> u32 {
        self.count.busy.load(Ordering::SeqCst)
    }

    /// How many there were at most since the daemon began.
    pub fn peak(&self) -> u32 {
        self.count.peak.load(Ordering::SeqCst)
    }
}

/// All pools of a cell.
pub struct Pools {
    /// Containers in the making.
    pub create: Pool,
    /// Containers in their removal.
    pub delete: Pool,
    /// Files that are read out of containers.
    pub read: Pool,
    /// Looks at what containers use.
    pub metrics: Pool,
    /// Health probes.
    pub health: Arc<Pool>,
    /// Health checks that run a program: as many again.
    pub programs: Arc<Pool>,
}

impl Pools {
    /// Pools of these sizes.
    pub fn new(sizes: Sizes) -> Pools {
        Pools {
            create: Pool::new(sizes.create),
            delete: Pool::new(sizes.delete),
            read: Pool::new(sizes.read),
            metrics: Pool::new(sizes.metrics),
            health: Arc::new(Pool::new(sizes.health)),
            programs: Arc::new(Pool::new(sizes.health)),
        }
    }

    /// Each with its name in `[pools]`, where the last one is part of `health`.
    pub fn all(&self) -> [(&'static str, &Pool); 6] {
        [
            ("create", &self.create),
            ("delete", &self.delete),
            ("read", &self.read),
            ("metrics", &self.metrics),
            ("health", &self.health),
            ("health_programs", &self.programs),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::future::{block_on, poll_once, yield_now};

    #[test]
    fn row_91_fifty_come_at_once_and_never_more_than_the_size_are_in() {
        let pool = Arc::new(Pool::new(4));
        let executor = smol::Executor::new();
        let all: Vec<_> = (0..50)
            .map(|n| {
                let pool = pool.clone();
                executor.spawn(async move {
                    let _turn = pool.enter().await;
                    assert!(pool.busy() <= 4);
                    for _ in 0..n % 7 {
                        yield_now().await;
                    }
                })
            })
            .collect();
        block_on(executor.run(async {
            for one in all {
                one.await;
            }
        }));
        assert_eq!((pool.peak(), pool.busy(), pool.size()), (4, 0, 4));
    }

    #[test]
    fn who_stops_waiting_takes_no_turn() {
        block_on(async {
            let pool = Pool::new(0);
            let first = pool.enter().await;
            {
                let mut second = std::pin::pin!(pool.enter());
                assert!(poll_once(&mut second).await.is_none(), "one at a time");
            }
            drop(first);
            assert!(poll_once(pool.enter()).await.is_some());
            assert_eq!((pool.size(), pool.peak(), pool.busy()), (1, 1, 0));
        });
    }

    #[test]
    fn row_28_who_has_no_turn_in_time_gives_up_and_leaves_the_others_theirs() {
        block_on(async {
            let pool = Pool::new(1);
            let hangs = pool.enter().await;
            assert!(pool.enter_within(Duration::from_millis(5)).await.is_none());
            assert_eq!((pool.busy(), pool.peak()), (1, 1));
            drop(hangs);
            assert!(pool.enter_within(Duration::from_secs(600)).await.is_some());
        });
    }

    #[test]
    fn row_91_sizes_follow_the_processors_up_to_diegos() {
        let two = Sizes { create: 4, delete: 8, read: 16, metrics: 4, health: 32 };
        assert_eq!(Sizes::for_cores(2), two);
        let diego = Sizes { create: 32, delete: 32, read: 64, metrics: 8, health: 64 };
        assert_eq!(Sizes::for_cores(64), diego);
        assert_eq!(Sizes::for_cores(usize::MAX), diego);
        let least = Sizes { create: 2, delete: 2, read: 2, metrics: 2, health: 2 };
        assert_eq!(Sizes::for_cores(0), least);
    }
}
