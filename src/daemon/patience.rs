//! Work that hangs where a disk does: it is told, and waited for no longer than makes sense.

use super::notify;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

/// How long somebody waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Before it is told that he waits, and again after each further one.
    pub told: Duration,
    /// How often it is told; then it is over.
    pub times: u32,
}

/// For a disk. A large store after a power cut takes minutes to mount, a sleeping disk seconds to wake.
pub const DISK: Patience = Patience { told: Duration::from_secs(15), times: 40 };

/// What `work` makes. Whoever looks at the log or at the service's status is told that it takes long:
/// `what` is waited for. `None`: it is given up, and what a thread of its own does there goes on, as
/// nobody can take a request back from the kernel: the caller's program is to end.
pub fn wait<T: Send + 'static>(
    what: &str,
    patience: Patience,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (tell, told) = sync_channel(1);
    let working = thread::Builder::new().name("patience".into());
    let working = working.spawn(move || drop(tell.send(work()))).expect("a thread can be started");
    for n in 1..=patience.times {
        match told.recv_timeout(patience.told) {
            Ok(made) => return Some(made),
            Err(RecvTimeoutError::Timeout) => {
                let waited = patience.told * n;
                crate::warn!("start.waits", what = what, took_ms = waited.as_millis());
                notify::waits(what, waited, patience.told);
            }
            Err(RecvTimeoutError::Disconnected) => {
                let panic = working.join().err().unwrap_or_else(|| Box::new("it sent nothing"));
                std::panic::resume_unwind(panic);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const SHORT: Patience = Patience { told: Duration::from_millis(1), times: 3 };

    #[test]
    fn what_hangs_is_given_up_and_what_does_not_is_waited_for() {
        let (go, hangs) = channel::<()>();
        assert_eq!(wait("a disk", SHORT, move || hangs.recv().is_ok()), None);
        // It goes on by itself.
        assert!(go.send(()).is_ok());
        let long = Patience { told: Duration::from_secs(3600), ..SHORT };
        assert_eq!(wait("a disk", long, || 7), Some(7));
    }

    #[test]
    fn a_panic_stays_one() {
        let panics = || wait("a disk", DISK, || -> u32 { panic!("as it was") });
        let said = std::panic::catch_unwind(panics).expect_err("it panics");
        assert_eq!(said.downcast_ref::<&str>(), Some(&"as it was"));
    }
}
