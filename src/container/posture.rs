//! What a container may do: capabilities, masked paths, files, as plain lists.

use crate::init::proto::InsideNet;
use crate::net::Addresses;
use crate::unit::Slot;
use serde::{Deserialize, Serialize};

/// How far a container is trusted. Ids are mapped, devices few and system calls filtered in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Posture {
    /// An app: the fewest capabilities, and nothing inside ever gets more than it has.
    #[default]
    App,
    /// As guardian has its unprivileged containers: its capabilities, and set-user-id programs
    /// and those with file capabilities work.
    Garden,
}

impl Posture {
    /// What [`Default`] says; such a one is not written down.
    pub fn is_default(&self) -> bool {
        *self == Posture::App
    }

    /// Capabilities in the bounding set, by number of linux/capability.h.
    pub(super) fn capabilities(self) -> Vec<u8> {
        let more: &[u8] = match self {
            Posture::App => &[],
            Posture::Garden => &GARDEN_CAPABILITIES,
        };
        CAPABILITIES.iter().chain(more).copied().collect()
    }

    /// No exec gives more privilege than its caller has.
    pub(super) fn no_new_privs(self) -> bool {
        self == Posture::App
    }
}

/// What Garden's containers have beyond [`CAPABILITIES`]: together guardian's 14.
const GARDEN_CAPABILITIES: [u8; 4] = [
    13, // NET_RAW
    27, // MKNOD
    29, // AUDIT_WRITE
    31, // SETFCAP
];

/// Capabilities of an app: Garden's list without those that no app needs unless it asks.
const CAPABILITIES: [u8; 10] = [
    0,  // CHOWN
    1,  // DAC_OVERRIDE
    3,  // FOWNER
    4,  // FSETID
    5,  // KILL
    6,  // SETGID
    7,  // SETUID
    8,  // SETPCAP
    10, // NET_BIND_SERVICE
    18, // SYS_CHROOT
];

/// Hidden in every posture: guardian's list joined with docker's.
pub const MASKED: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/devices/system/cpu/vulnerabilities",
    "/sys/firmware",
    "/sys/fs",
];

/// Read-only, as in docker.
pub const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Size of /dev/shm, docker's 64 MiB; it counts against the container's memory.
pub const SHM_BYTES: u64 = 64 << 20;

/// The inside end of the network of `slot`.
pub fn inside_net(slot: Slot, tag: &str, addresses: &Addresses) -> InsideNet {
    InsideNet {
        link: slot.veth_inside(tag),
        address: addresses.container,
        prefix: addresses.prefix,
        gateway: addresses.gateway,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garden_has_guardians_fourteen_capabilities_and_an_app_ten_of_them() {
        let sorted = |posture: Posture| {
            let mut all = posture.capabilities();
            all.sort_unstable();
            all
        };
        assert_eq!(sorted(Posture::App), [0, 1, 3, 4, 5, 6, 7, 8, 10, 18]);
        assert_eq!(sorted(Posture::Garden), [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31]);
        assert!(Posture::App.no_new_privs() && !Posture::Garden.no_new_privs());
    }

    #[test]
    fn all_that_guardian_hides_is_hidden() {
        for path in ["kcore", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats"] {
            assert!(MASKED.contains(&&*format!("/proc/{path}")), "{path}");
        }
        assert!(MASKED.contains(&"/proc/keys") && MASKED.contains(&"/sys/firmware"));
    }
}
