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
        // What nobody logs takes nothing from what the others may.
        if sink.log.is_none() {
            return;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::logs::{Keep, Logs};
    use crate::unit::Bytes;

    /// A sidecar whose output is suppressed may write what it likes: the app's lines are logged.
    #[test]
    fn row_53_what_is_not_logged_takes_nothing_from_the_others() {
        let dir = std::env::temp_dir().join(format!("terrarium-limit-{}", std::process::id()));
        let rate = Rate::Bytes(Bytes::new(100));
        let keep = Keep { file_bytes: Bytes::mib(1), files: 1, rate, lines: None, journal: false };
        let logs = Logs::open(&dir, keep).expect("logs");
        let log = logs.app(&"app".parse().expect("a name"));
        let limit = logs.limit(None);
        let sink = |log| Sink { log, source: "APP".into(), index: 0, heard: None };
        (0..100).for_each(|_| limit.say(&sink(None), false, "x".repeat(1000)));
        limit.say(&sink(Some(log.clone())), false, "heard".into());
        let lines: Vec<_> = log.last(10, |_| true).into_iter().map(|line| line.text).collect();
        assert_eq!((lines, limit.logged_bytes()), (vec!["heard".to_owned()], 5));
        std::fs::remove_dir_all(dir).expect("clean up");
    }
}
