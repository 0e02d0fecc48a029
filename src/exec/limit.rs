//! Keeps the output of one instance to its rate. The reckoning is in [`super::bucket`].

use super::bucket::{Buckets, Verdict};
use super::metrics::{self, COUNTERS};
use super::streams::Sink;
use crate::unit::Rate;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What the processes of one instance may log together. Clones share it.
#[derive(Clone)]
pub struct Limit {
    begin: Instant,
    rate: Rate,
    logged: Arc<AtomicU64>,
    buckets: Arc<Mutex<Buckets>>,
}

impl Limit {
    /// So many bytes and lines in a second.
    pub fn new(bytes: Rate, lines: Option<u32>) -> Limit {
        let buckets = Arc::new(Mutex::new(Buckets::new(bytes, lines)));
        Limit { begin: Instant::now(), rate: bytes, logged: Arc::default(), buckets }
    }

    /// Bytes that may be logged in a second.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Bytes of lines that have been logged.
    pub fn logged_bytes(&self) -> u64 {
        self.logged.load(Ordering::Relaxed)
    }

    /// Logs a line, unless it is too much; says so when it is the first.
    pub fn say(&self, sink: &Sink, err: bool, text: String) {
        if sink.heard.is_some() {
            return sink.say(err, text);
        }
        let verdict = self.buckets().take(text.len(), self.now());
        match verdict {
            Verdict::Pass => {
                self.logged.fetch_add(text.len() as u64, Ordering::Relaxed);
                sink.say(err, text);
            }
            Verdict::Overrun(why) => {
                metrics::count(&COUNTERS.log_overruns);
                sink.say(false, why);
            }
            Verdict::Drop => {}
        }
    }

    /// Nothing is logged now, so that nothing need be cut into lines.
    pub fn is_silent(&self) -> bool {
        self.buckets().is_silent(self.now())
    }

    fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
