//! System call filters: a list of programs as bytes, and installing them.
//!
//! The list travels from the daemon to pid 1 in a sealed memory file. Integers are in the
//! machine's own order, since both ends run on it:
//!
//! | bytes | field | value                                                            |
//! |-------|-------|------------------------------------------------------------------|
//! | 4     | count | instructions of the next program, 1 to 4096 (`BPF_MAXINSNS`)     |
//! | 8 × n | code  | each: code u16, jump-if-true u8, jump-if-false u8, operand k u32 |
//! | ...   |       | the next program, until the bytes end                            |

use super::fd::check;
use std::io;

/// Numbers of system calls on this architecture, as `SYS_name`.
pub mod nr {
    pub use libc::*;

    // Numbers above 423 are the same on every architecture; the C library's table lags behind.
    /// cachestat(2), Linux 6.5.
    pub const CACHESTAT: c_long = 451;
    /// fchmodat2(2), Linux 6.6.
    pub const FCHMODAT2: c_long = 452;
    /// futex_wake(2), Linux 6.7.
    pub const FUTEX_WAKE2: c_long = 454;
    /// futex_wait(2), Linux 6.7.
    pub const FUTEX_WAIT2: c_long = 455;
    /// futex_requeue(2), Linux 6.7.
    pub const FUTEX_REQUEUE2: c_long = 456;
    /// mseal(2), Linux 6.10.
    pub const MSEAL: c_long = 462;
    /// io_pgetevents(2), which libc has for musl only.
    #[cfg(target_arch = "x86_64")]
    pub const IO_PGETEVENTS: c_long = 333;
    /// io_pgetevents(2): the number that younger architectures share.
    #[cfg(not(target_arch = "x86_64"))]
    pub const IO_PGETEVENTS: c_long = 292;
}

/// One instruction of classic BPF: `struct sock_filter`, linux/filter.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to skip when true.
    pub jt: u8,
    /// Instructions to skip when false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());
const _: () = assert!(align_of::<Instruction>() == align_of::<libc::sock_filter>());

/// One filter program.
pub type Program = Vec<Instruction>;

/// The longest program that the kernel takes.
const PROGRAM_MAX: usize = 4096;

/// Writes a list of programs as bytes.
pub fn pack(programs: &[Program]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for program in programs {
        bytes.extend((program.len() as u32).to_ne_bytes());
        for step in program {
            bytes.extend(step.code.to_ne_bytes());
            bytes.extend([step.jt, step.jf]);
            bytes.extend(step.k.to_ne_bytes());
        }
    }
    bytes
}

/// Reads what [`pack`] wrote; `None` when it is cut off or a program is empty or too long.
pub fn unpack(mut bytes: &[u8]) -> Option<Vec<Program>> {
    let mut programs = Vec::new();
    while !bytes.is_empty() {
        let (count, rest) = bytes.split_first_chunk::<4>()?;
        let count = u32::from_ne_bytes(*count) as usize;
        if count == 0 || count > PROGRAM_MAX {
            return None;
        }
        let (code, rest) = rest.split_at_checked(count * 8)?;
        let step = |b: &[u8; 8]| Instruction {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        };
        programs.push(code.as_chunks().0.iter().map(step).collect());
        bytes = rest;
    }
    Some(programs)
}

/// Puts a filter on the calling thread and all that it starts; never undone. The caller has
/// no-new-privs set. `EINVAL`: the program is malformed. seccomp(2).
pub fn install(program: &Program) -> io::Result<()> {
    let length = u16::try_from(program.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "filter program too long"))?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `filter` describes `length` instructions with the layout of sock_filter (asserted
    // above), which the kernel copies during the call.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &filter) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_come_back_as_they_were_and_cut_ones_do_not() {
        let step = |k| Instruction { code: 6, jt: 1, jf: 2, k };
        let programs = vec![vec![step(1), step(0x7fff_0000)], vec![step(3)]];
        let bytes = pack(&programs);
        assert_eq!(unpack(&bytes).expect("whole"), programs);
        assert_eq!(unpack(&[]).expect("none"), Vec::<Program>::new());
        assert!((1..bytes.len()).filter(|n| *n != 20).all(|n| unpack(&bytes[..n]).is_none()));
        assert!(unpack(&[0; 4]).is_none());
    }
}
