//! The box's clock, which may be set at any time, and what this run of the box is called.

use nix::time::{ClockId, clock_gettime};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// When this program was written, since 1970: a box whose clock says less has a clock that is wrong.
/// `build.rs` says it.
pub const WRITTEN: Duration = match u64::from_str_radix(env!("TERRARIUM_WRITTEN"), 10) {
    Ok(seconds) => Duration::from_secs(seconds),
    Err(_) => panic!("build.rs gives a number"),
};
/// The latest time that somebody else vouched for, in seconds since 1970.
static VOUCHED: AtomicU64 = AtomicU64::new(0);

/// Nobody has looked yet.
const UNSEEN: i64 = i64::MIN;

/// By how much the box's clock was ahead of the steady one when it was looked at last.
static AHEAD_MS: AtomicI64 = AtomicI64::new(UNSEEN);

/// Two readings at one moment: of the box's clock, and of one that nobody sets; in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Since 1970.
    pub wall_ms: u64,
    /// Since the box started, its sleep included.
    pub steady_ms: u64,
}

impl Reading {
    /// Both as they are at this moment.
    pub fn now() -> Self {
        Self { wall_ms: wall_ms(), steady_ms: steady_ms() }
    }

    /// From here on [`now_ms`] goes by this reading.
    pub fn adopt(self) {
        let ahead = self.wall_ms as i64 - self.steady_ms as i64;
        AHEAD_MS.store(ahead, Ordering::Relaxed);
    }
}

/// Milliseconds since 1970, by the box's clock as it was when it was last looked at, and by the steady
/// one since: whoever moves its times along with a clock that was set does both at one moment, and
/// compares no time of the old clock with one of the new. Who never looks reads the box's clock.
pub fn now_ms() -> u64 {
    match AHEAD_MS.load(Ordering::Relaxed) {
        UNSEEN => wall_ms(),
        ahead => steady_ms().saturating_add_signed(ahead),
    }
}

/// Time since 1970 by the box's clock, whatever it is.
pub fn wall() -> Duration {
    Duration::from_millis(wall_ms())
}

/// The box's clock said this, and somebody else vouches for it: it cannot be earlier any more.
pub fn vouch(at: Duration) {
    VOUCHED.fetch_max(at.as_secs(), Ordering::Relaxed);
}

/// The latest time that somebody vouched for; zero: nobody has.
pub fn vouched() -> Duration {
    Duration::from_secs(VOUCHED.load(Ordering::Relaxed))
}

fn steady_ms() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |now| now.tv_sec() as u64 * 1_000 + now.tv_nsec() as u64 / 1_000_000)
}

/// In a debug build whose environment names a file (`TERRARIUM_CLOCK_FILE`), the number of
/// milliseconds that stands in it is added: so a test sets the clock of one daemon, and of no other.
fn wall_ms() -> u64 {
    let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    real.saturating_add_signed(set_by_ms())
}

#[cfg(debug_assertions)]
fn set_by_ms() -> i64 {
    let file = std::env::var_os("TERRARIUM_CLOCK_FILE");
    let text = file.and_then(|file| std::fs::read_to_string(file).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(not(debug_assertions))]
fn set_by_ms() -> i64 {
    0
}

/// What the kernel calls this run of the box; random(4). Empty: it cannot be read.
pub fn boot_id() -> String {
    // Read once: later there may be no descriptor for it, and then all that lives would look dead.
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = ID.get() {
        return id.clone();
    }
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(text) => ID.get_or_init(|| text.trim().to_owned()).clone(),
        Err(_) => String::new(),
    }
}
