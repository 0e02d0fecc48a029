//! Diego's crash policy: how crashes are counted and when a crashed instance starts again.

use crate::model::manifest::Restart;

/// Running this long forgives earlier crashes, in milliseconds.
const FORGIVEN_MS: u64 = 5 * 60_000;
/// Crashes after which the next start waits.
const IMMEDIATE: u32 = 3;
/// Crashes after which there is no next start.
const GIVE_UP: u32 = 200;
/// The first wait, in milliseconds.
const FIRST_MS: u64 = 30_000;
/// The longest wait, in milliseconds.
const LONGEST_MS: u64 = 16 * 60_000;

/// When a crashed instance starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once.
    Now,
    /// At this time, in milliseconds since 1970.
    At(u64),
    /// Not by itself.
    Never,
}

/// The crash count after one more crash. `running_since_ms`: since when it had been running, if it
/// had been.
pub fn count(before: u32, running_since_ms: Option<u64>, now_ms: u64) -> u32 {
    match running_since_ms {
        Some(since) if now_ms.saturating_sub(since) > FORGIVEN_MS => 1,
        _ => before.saturating_add(1),
    }
}

/// When an instance that crashed at `since_ms` for the `count`-th time starts again.
pub fn next(count: u32, since_ms: u64) -> Next {
    if count < IMMEDIATE {
        return Next::Now;
    }
    if count >= GIVE_UP {
        return Next::Never;
    }
    let wait_ms = (FIRST_MS << (count - IMMEDIATE).min(5)).min(LONGEST_MS);
    Next::At(since_ms + wait_ms)
}

/// When an instance starts again that ended like this, if the manifest wants it to.
pub fn after(policy: Restart, succeeded: bool, count: u32, since_ms: u64) -> Next {
    match wanted(policy, succeeded) {
        true => next(count, since_ms),
        false => Next::Never,
    }
}

/// Whether `at` is too far away to be meant: the clock has been set back, as it is by a box that
/// starts without one.
pub fn is_due(at_ms: u64, now_ms: u64) -> bool {
    at_ms <= now_ms || at_ms - now_ms > LONGEST_MS
}

/// Whether the manifest wants a process started again that ended like this.
pub fn wanted(policy: Restart, succeeded: bool) -> bool {
    match policy {
        Restart::Always => true,
        Restart::OnFailure => !succeeded,
        Restart::Never => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_those_of_the_bbs() {
        let minute = 60_000;
        for (crashes, wait) in [
            (1, Some(0)),
            (2, Some(0)),
            (3, Some(minute / 2)),
            (4, Some(minute)),
            (5, Some(2 * minute)),
            (6, Some(4 * minute)),
            (7, Some(8 * minute)),
            (8, Some(16 * minute)),
            (199, Some(16 * minute)),
            (200, None),
        ] {
            let expected = match wait {
                Some(0) => Next::Now,
                Some(wait) => Next::At(1_000 + wait),
                None => Next::Never,
            };
            assert_eq!(next(crashes, 1_000), expected, "{crashes}");
        }
    }

    #[test]
    fn five_minutes_of_running_forgive() {
        assert_eq!(count(7, Some(0), FORGIVEN_MS + 1), 1);
        assert_eq!(count(7, Some(0), FORGIVEN_MS), 8);
        assert_eq!(count(7, None, u64::MAX), 8);
        assert_eq!(count(u32::MAX, None, 0), u32::MAX);
    }

    #[test]
    fn the_manifest_has_the_last_word() {
        assert!(wanted(Restart::Always, true));
        assert!(!wanted(Restart::OnFailure, true));
        assert!(wanted(Restart::OnFailure, false));
        assert!(!wanted(Restart::Never, false));
        assert_eq!(after(Restart::Never, false, 1, 0), Next::Never);
        assert_eq!(after(Restart::OnFailure, false, 1, 0), Next::Now);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_put_off_a_start_for_years() {
        let since = 1_800_000_000_000;
        assert!(!is_due(since + LONGEST_MS, since));
        assert!(is_due(since, since));
        assert!(is_due(since + FIRST_MS, since - 365 * 86_400_000));
    }
}
