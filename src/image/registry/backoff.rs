//! When to ask again. Pure.

use super::failure::Kind;
use crate::unit::date;
use std::time::Duration;

/// How often in a row without any progress.
pub const TRIES: u32 = 5;
/// The first pause; each further one is twice as long, up to the longest.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(8);
/// Longest pause that a server may ask for; beyond that it is better to tell.
const ASKED_MAX: Duration = Duration::from_secs(60);

/// How long to wait after `failed` failures in a row, the last of this kind; `None`: give up.
/// `asked` is what the server wants; `jitter`, any number, moves the pause by up to a quarter, so
/// that boxes which failed together do not come back together.
pub fn pause(failed: u32, kind: Kind, asked: Option<Duration>, jitter: u64) -> Option<Duration> {
    if kind != Kind::Passing || failed >= TRIES {
        return None;
    }
    let own = FIRST.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(LONGEST);
    let own = own + own.mul_f64((jitter % 1024) as f64 / 4096.0);
    match asked {
        Some(asked) if asked > ASKED_MAX => None,
        Some(asked) => Some(own.max(asked)),
        None => Some(own),
    }
}

/// Reads `Retry-After`: seconds, or a date. `sent`: that of the answer, as its clock and not the box's says
/// how long it is until then; without that a date says nothing.
pub fn retry_after(value: &str, sent: Option<&str>) -> Option<Duration> {
    let value = value.trim();
    let until = || {
        let until = date::read_http(value)?;
        Some(until.saturating_sub(date::read_http(sent?.trim())?))
    };
    value.parse().ok().or_else(until).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let after = |failed| pause(failed, Kind::Passing, None, 0).map(|it| it.as_millis());
        let pauses: Vec<_> = (1..=6).map(after).collect();
        assert_eq!(pauses, [Some(250), Some(500), Some(1000), Some(2000), None, None]);
        assert_eq!(pause(1, Kind::Missing, None, 0), None);
        let most = pause(1, Kind::Passing, None, u64::MAX).expect("a pause");
        assert!(most > FIRST && most < FIRST.mul_f64(1.26), "{most:?}");
    }

    #[test]
    fn a_server_that_asks_for_a_pause_gets_it_within_reason() {
        let asked = |secs| pause(1, Kind::Passing, Some(Duration::from_secs(secs)), 0);
        assert_eq!(asked(3), Some(Duration::from_secs(3)));
        assert_eq!(asked(0), Some(FIRST));
        assert_eq!(asked(3600), None);
    }

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_until_a_date_of_the_servers_clock() {
        let secs = |text: &str, sent: Option<&str>| retry_after(text, sent).map(|it| it.as_secs());
        let (until, sent) = ("Wed, 21 Oct 1998 07:29:00 GMT", "Wed, 21 Oct 1998 07:28:50 GMT");
        assert_eq!(secs(" 7 ", None), Some(7));
        assert_eq!(secs(until, Some(sent)), Some(10));
        // It is over by now.
        assert_eq!(secs(sent, Some(until)), Some(0));
        for (text, sent) in
            [(until, None), (until, Some("now")), ("soon", Some(sent)), ("-1", None)]
        {
            assert_eq!(secs(text, sent), None, "{text} {sent:?}");
        }
    }
}
