//! When a transfer is too slow to go on with.

use super::failure::Failure;
use std::time::{Duration, Instant};
use ureq::http::Uri;

/// How fast it has to be.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Looked at this often.
    pub window: Duration,
    /// Bytes that must have come in it.
    pub least: u64,
}

/// Who looks, over one connection.
pub struct Watch {
    pace: Pace,
    since: Instant,
    came: u64,
}

impl Watch {
    /// From now on.
    pub fn new(pace: Pace) -> Watch {
        Watch { pace, since: Instant::now(), came: 0 }
    }

    /// So many bytes more have come from `uri`; an error when the window is over and they were too few.
    pub fn came(&mut self, bytes: usize, uri: &Uri) -> Result<(), Failure> {
        self.came += bytes as u64;
        if self.since.elapsed() < self.pace.window {
            return Ok(());
        }
        let came = std::mem::take(&mut self.came);
        self.since = Instant::now();
        if came >= self.pace.least {
            return Ok(());
        }
        let seconds = self.pace.window.as_secs();
        let text = format!("{uri} gave {came} bytes in {seconds} s");
        Err(Failure::passing(format!(
            "{text}, which is too slow; try again when the way there is free"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_in_a_window_is_an_error_and_each_window_counts_for_itself() {
        let uri = "https://a.lan/b".parse().expect("uri");
        // Each look is the end of a window.
        let mut watch = Watch::new(Pace { window: Duration::ZERO, least: 10 });
        assert_eq!(watch.came(10, &uri), Ok(()));
        let slow = watch.came(9, &uri).expect_err("too slow");
        assert!(slow.text.starts_with("https://a.lan/b gave 9 bytes in 0 s, which"), "{slow}");
        assert_eq!(slow, Failure::passing(slow.text.clone()));
        assert_eq!(watch.came(11, &uri), Ok(()));
        // No look is.
        let mut watch = Watch::new(Pace { window: Duration::MAX, least: 10 });
        assert_eq!(watch.came(0, &uri), Ok(()));
    }
}
