//! What of a program is mapped into its process.

use std::ffi::{c_int, c_void};

/// Lets go of the pages of this program's file that the process has touched: code and constants, not
/// what was written. They stay in the box's page cache and come back when they are needed, sixteen at
/// a time; until then they do not count for this process, and go first when memory is short.
/// For a process that has come to rest after work that it does seldom. madvise(2), `MADV_DONTNEED`.
pub fn let_go_of_program() {
    // SAFETY: the function pointer has the type that is asked for, and its data is not used.
    unsafe { libc::dl_iterate_phdr(Some(let_go_of_object), std::ptr::null_mut()) };
}

/// The same for one object of the program; a static one has but one (the vdso may be told as another).
///
/// # Safety
/// `info` is what dl_iterate_phdr(3) hands out.
unsafe extern "C" fn let_go_of_object(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: `info` and its table of headers are valid during the call (the caller's promise).
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()))
    };
    let is_own = headers.iter().any(|header| {
        let here = let_go_of_program as *const () as u64;
        let start = base + header.p_vaddr;
        header.p_type == libc::PT_LOAD && (start..start + header.p_memsz).contains(&here)
    });
    if !is_own {
        return 0;
    }
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = (base + header.p_vaddr) & !(PAGE - 1);
        let length = (base + header.p_vaddr + header.p_memsz - start).next_multiple_of(PAGE);
        // SAFETY: these are whole pages of a private mapping, and nobody can have written to them:
        // that takes a debugger. So each shows the page cache's, now and when it is read next; the
        // file's bytes cannot change in between any more than while they are mapped. The kernel lets
        // nobody write to a file that is executed, and who replaces it by another leaves us this one.
        // A refusal leaves everything as it is.
        unsafe { libc::madvise(start as *mut c_void, length as usize, libc::MADV_DONTNEED) };
    }
    // Not zero: no other object is of interest.
    1
}

/// The smallest page of the supported machines; segments of a program begin and end on larger ones
/// where those are larger.
const PAGE: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// KiB of this program's file that are mapped and not written to.
    fn mapped_kib() -> u64 {
        let own = std::env::current_exe().expect("own file");
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
        let mut is_own = false;
        let mut sum = 0;
        for line in smaps.lines() {
            let first = line.split_ascii_whitespace().next().unwrap_or_default();
            if !first.ends_with(':') {
                let read_only = line.split(' ').nth(1).is_some_and(|rights| !rights.contains('w'));
                is_own = line.ends_with(&*own.to_string_lossy()) && read_only;
            } else if is_own && first == "Rss:" {
                let number = line.split_ascii_whitespace().nth(1).expect("a number");
                sum += number.parse::<u64>().expect("a number");
            }
        }
        sum
    }

    #[test]
    fn code_that_was_let_go_of_is_not_mapped_and_runs_again() {
        const SIZE: usize = 4 << 20;
        /// More than other tests of this process can touch meanwhile.
        static TABLE: [u8; SIZE] = [7; SIZE];
        let read = || std::hint::black_box(&TABLE).iter().map(|byte| u64::from(*byte)).sum::<u64>();
        assert_eq!(read(), 7 * SIZE as u64);
        let before = mapped_kib();
        let_go_of_program();
        let after = mapped_kib();
        assert!(after + 2048 <= before, "{before} KiB, then {after}");
        assert_eq!(read(), 7 * SIZE as u64);
    }
}
