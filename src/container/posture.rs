//! What every app's container may do: capabilities, masked paths, files, as plain lists.

use crate::init::proto::InsideNet;
use crate::net::Addresses;
use crate::unit::Slot;

/// Capabilities in the bounding set, by number of linux/capability.h: Garden's list without
/// AUDIT_WRITE 29, MKNOD 27, NET_RAW 13 and SETFCAP 31, which no app needs unless it asks.
pub const CAPABILITIES: [u8; 10] = [
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

/// Hidden: guardian's list joined with docker's.
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
