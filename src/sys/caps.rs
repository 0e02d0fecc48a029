//! Capabilities of the calling thread, as sets of bits (bit n is capability n, capability.h).

use super::fd::check;
use std::io;

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps(pub u64);

/// Capability numbers that pid 1 of a container needs, linux/capability.h.
pub mod number {
    /// Change owners of files.
    pub const CHOWN: u8 = 0;
    /// Pass file permissions.
    pub const DAC_OVERRIDE: u8 = 1;
    /// Act as the owner of any file.
    pub const FOWNER: u8 = 3;
    /// Signal processes of other users.
    pub const KILL: u8 = 5;
    /// Set group ids.
    pub const SETGID: u8 = 6;
    /// Set user ids.
    pub const SETUID: u8 = 7;
    /// Drop from the bounding set.
    pub const SETPCAP: u8 = 8;
}

impl Caps {
    /// The set of these numbers; those above 63 do not exist and are left out.
    pub fn of(numbers: &[u8]) -> Caps {
        Caps(numbers.iter().filter(|n| **n < 64).fold(0, |set, n| set | 1 << n))
    }

    /// Both sets together.
    pub fn and(self, other: Caps) -> Caps {
        Caps(self.0 | other.0)
    }

    /// Whether `number` is in the set.
    pub fn has(self, number: u8) -> bool {
        number < 64 && self.0 >> number & 1 == 1
    }
}

/// `struct __user_cap_header_struct`, linux/capability.h.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`: 32 capabilities; version 3 passes two of them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION_3: u32 = 0x2008_0522;

/// Sets permitted and effective; inheritable becomes empty, and with it ambient. `EPERM`: more
/// permitted than now. capset(2).
pub fn set(permitted: Caps, effective: Caps) -> io::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Data {
        effective: (effective.0 >> shift) as u32,
        permitted: (permitted.0 >> shift) as u32,
        inheritable: 0,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads one header and two data structs, which live on our stack.
    check(unsafe { libc::syscall(libc::SYS_capset, &header, data.as_ptr()) })?;
    Ok(())
}

/// The permitted set. capget(2).
pub fn permitted() -> io::Result<Caps> {
    get().map(|(permitted, _)| permitted)
}

/// The permitted and the effective set. capget(2).
fn get() -> io::Result<(Caps, Caps)> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 reads one header and fills two data structs, which live on our stack; it
    // writes to the header when it does not know the version.
    check(unsafe { libc::syscall(libc::SYS_capget, &mut header, data.as_mut_ptr()) })?;
    let set = |low: u32, high: u32| Caps(u64::from(low) | u64::from(high) << 32);
    let [low, high] = data;
    Ok((set(low.permitted, high.permitted), set(low.effective, high.effective)))
}

/// Makes something in a file system as `uid` and `gid`, without losing a capability: for mounts
/// through an id map in which root has no place. `EPERM`: not without `CAP_SETUID` and
/// `CAP_SETGID`. setfsuid(2), setfsgid(2), of the calling thread.
pub fn as_owner<T>(uid: u32, gid: u32, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
    let (permitted, effective) = get()?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let (old_gid, old_uid) = (setfsgid(gid), setfsuid(uid));
    // Neither call tells of a failure, but the next one what was set.
    let done = if setfsuid(uid) == uid && setfsgid(gid) == gid {
        // The change from root has taken those away that are about files.
        set(permitted, effective).and_then(|()| act())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    };
    setfsuid(old_uid);
    setfsgid(old_gid);
    set(permitted, effective)?;
    done
}

/// Takes from the bounding set everything that is not in `keep`; never undone. Needs
/// `CAP_SETPCAP`. prctl(2), `PR_CAPBSET_READ` and `PR_CAPBSET_DROP`.
pub fn limit_bounding(keep: Caps) -> io::Result<()> {
    for number in 0..64u8 {
        // SAFETY: plain integers go in.
        match unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0) } {
            0 => {}
            1 if keep.has(number) => {}
            1 => {
                let number = libc::c_ulong::from(number);
                // SAFETY: plain integers go in.
                check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) }.into())?;
            }
            // EINVAL: the first number that this kernel does not know.
            _ => break,
        }
    }
    Ok(())
}
