//! How much an instance may log: two token buckets, and the silence after one has run dry. Pure: the
//! time is an argument, counted from any moment.

use crate::unit::Rate;
use std::time::Duration;

/// How long nothing is logged after an overrun. Diego's.
const SILENCE: Duration = Duration::from_secs(1);

/// Tokens are counted in billionths, so that a nanosecond brings as many as a second brings whole.
const WHOLE: u128 = 1_000_000_000;

/// What becomes of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is logged.
    Pass,
    /// It is dropped, and this is logged instead.
    Overrun(String),
    /// It is dropped.
    Drop,
}

/// Both buckets of one instance.
#[derive(Debug)]
pub struct Buckets {
    bytes: Option<Bucket>,
    lines: Option<Bucket>,
    silent_until: Option<Duration>,
}

/// Holds what one second brings, and is full at the start.
#[derive(Debug)]
struct Bucket {
    rate: u64,
    tokens: u128,
    filled: Duration,
}

impl Buckets {
    /// So many bytes and so many lines in a second; `None`: any number of lines.
    pub fn new(bytes: Rate, lines: Option<u32>) -> Buckets {
        let bytes = match bytes {
            Rate::Unlimited => None,
            Rate::Bytes(bytes) => Some(Bucket::new(bytes.get())),
        };
        Buckets { bytes, lines: lines.map(|rate| Bucket::new(rate.into())), silent_until: None }
    }

    /// Whatever comes now is dropped.
    pub fn is_silent(&self, now: Duration) -> bool {
        self.silent_until.is_some_and(|until| now < until)
    }

    /// A line of so many bytes.
    pub fn take(&mut self, length: usize, now: Duration) -> Verdict {
        if self.is_silent(now) {
            return Verdict::Drop;
        }
        let bytes = self.bytes.as_mut().map(|bucket| (bucket, length as u64));
        let lines = self.lines.as_mut().map(|bucket| (bucket, 1));
        let mut both = [bytes, lines];
        let lacking = both.iter_mut().position(|side| {
            side.as_mut().is_some_and(|(bucket, wanted)| !bucket.has(*wanted, now))
        });
        let text = match (lacking, &both) {
            (Some(0), [Some((bucket, _)), _]) => {
                format!("app instance exceeded log rate limit ({} bytes/sec)", bucket.rate)
            }
            (Some(_), [_, Some((bucket, _))]) => format!(
                "app instance exceeded log rate limit ({} log-lines/sec) set by platform operator",
                bucket.rate
            ),
            _ => {
                for (bucket, wanted) in both.iter_mut().flatten() {
                    bucket.tokens -= u128::from(*wanted) * WHOLE;
                }
                return Verdict::Pass;
            }
        };
        self.silent_until = Some(now + SILENCE);
        Verdict::Overrun(text)
    }
}

impl Bucket {
    fn new(rate: u64) -> Bucket {
        Bucket { rate, tokens: u128::from(rate) * WHOLE, filled: Duration::ZERO }
    }

    /// Fills up for the time that has passed; whether so many tokens are there.
    fn has(&mut self, wanted: u64, now: Duration) -> bool {
        let passed = now.saturating_sub(self.filled).min(SILENCE).as_nanos();
        self.filled = self.filled.max(now);
        let most = u128::from(self.rate) * WHOLE;
        self.tokens = (self.tokens + passed * u128::from(self.rate)).min(most);
        self.tokens >= u128::from(wanted) * WHOLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::Bytes;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn bytes(rate: u64, lines: Option<u32>) -> Buckets {
        Buckets::new(Rate::Bytes(Bytes::new(rate)), lines)
    }

    /// Takes lines of so many bytes at these milliseconds: `+` passes, `!` overruns, `-` is dropped.
    fn run(buckets: &mut Buckets, takes: &[(u64, usize)]) -> String {
        let take = |(at, length): &(u64, usize)| match buckets.take(*length, ms(*at)) {
            Verdict::Pass => '+',
            Verdict::Overrun(_) => '!',
            Verdict::Drop => '-',
        };
        takes.iter().map(take).collect()
    }

    #[test]
    fn row_53_an_overrun_is_told_once_and_then_a_second_is_silent() {
        let mut buckets = bytes(100, None);
        for (at, length, verdict) in [
            (0, 60, Verdict::Pass),
            (0, 40, Verdict::Pass),
            (5, 1, Verdict::Overrun("app instance exceeded log rate limit (100 bytes/sec)".into())),
            (6, 1, Verdict::Drop),
            (1004, 1, Verdict::Drop),
            (1005, 100, Verdict::Pass),
            (
                1006,
                50,
                Verdict::Overrun("app instance exceeded log rate limit (100 bytes/sec)".into()),
            ),
            (2006, 1, Verdict::Pass),
        ] {
            assert_eq!(buckets.is_silent(ms(at)), verdict == Verdict::Drop, "at {at}");
            assert_eq!(buckets.take(length, ms(at)), verdict, "at {at}");
        }
        let mut buckets = Buckets::new(Rate::Unlimited, Some(2));
        assert_eq!(run(&mut buckets, &[(0, 60_000), (0, 60_000)]), "++");
        let text =
            "app instance exceeded log rate limit (2 log-lines/sec) set by platform operator";
        assert_eq!(buckets.take(1, ms(400)), Verdict::Overrun(text.into()));
    }

    #[test]
    fn row_53_buckets_hold_a_second_and_fill_evenly() {
        // 10 bytes come in 100 ms.
        let takes = [(0, 100), (100, 10), (150, 5), (650, 50), (9000, 100), (9001, 1)];
        assert_eq!(run(&mut bytes(100, None), &takes), "+++++!");
        // One byte less than is there, and one more.
        assert_eq!(run(&mut bytes(100, None), &[(0, 100), (99, 9), (109, 2)]), "++!");
        // A slow drip never overruns, however fine the steps.
        let drip: Vec<_> = (0..5000).map(|at| (at, 1)).collect();
        assert_eq!(run(&mut bytes(1000, None), &drip), "+".repeat(5000));
        assert_eq!(run(&mut bytes(u64::MAX, Some(u32::MAX)), &[(0, usize::MAX)]), "+");
    }

    #[test]
    fn row_53_whichever_bucket_is_dry_counts_and_none_is_no_limit() {
        assert_eq!(run(&mut Buckets::new(Rate::Unlimited, None), &[(0, 1 << 40); 9]), "+++++++++");
        assert_eq!(run(&mut bytes(0, None), &[(0, 1), (5, 1), (1000, 1), (1001, 1)]), "!-!-");
        assert_eq!(run(&mut bytes(10, Some(9)), &[(0, 6), (0, 6)]), "+!");
        assert_eq!(run(&mut bytes(100, Some(1)), &[(0, 6), (0, 6)]), "+!");
        // What the one refuses is not taken from the other.
        let mut both = bytes(100, Some(1));
        assert_eq!(run(&mut both, &[(0, 50), (0, 50), (1000, 100)]), "+!+");
        // A line longer than the bucket never fits.
        assert_eq!(run(&mut bytes(10, None), &[(0, 11), (1000, 10)]), "!+");
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        assert_eq!(run(&mut bytes(100, None), &[(5000, 100), (4000, 1)]), "+!");
    }
}
