//! The kernel's counters of what the parts of the file system have, kept open: all of them are asked
//! before each disk that is made, and to open one costs ten times what it costs to read it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The parts; `mixed` stands for the first two where a file system does not keep them apart.
const KINDS: [&str; 4] = ["data", "metadata", "system", "mixed"];

/// What there is of each, all in bytes: btrfs(5), `/sys/fs/btrfs/<id>/allocation`.
const NAMES: [&str; 6] = [
    "disk_total",
    "total_bytes",
    "bytes_used",
    "bytes_reserved",
    "bytes_may_use",
    "bytes_readonly",
];

/// Longest number with its line end.
const DIGITS_MAX: usize = 32;

/// The open files, each with its part and its name. Some 20.
#[derive(Debug)]
pub(super) struct Counters(Vec<(&'static str, &'static str, File)>);

impl Counters {
    /// Opens those that the mounted file system with this directory in sysfs has.
    pub(super) fn open(sysfs: &Path) -> Counters {
        let dir = sysfs.join("allocation");
        let all = KINDS.iter().flat_map(|kind| NAMES.iter().map(move |name| (*kind, *name)));
        let open = |(kind, name)| Some((kind, name, File::open(dir.join(kind).join(name)).ok()?));
        Counters(all.filter_map(open).collect())
    }

    /// One counter at this moment; 0: there is none.
    pub(super) fn get(&self, kind: &str, name: &str) -> u64 {
        let read = |(_, _, file): &(&str, &str, File)| {
            let mut text = [0; DIGITS_MAX];
            // From the beginning: then the kernel writes it anew.
            let length = file.read_at(&mut text, 0).ok()?;
            std::str::from_utf8(&text[..length]).ok()?.trim().parse().ok()
        };
        let found = self.0.iter().find(|(of, its, _)| (*of, *its) == (kind, name));
        found.and_then(read).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_counter_is_what_it_is_now_and_one_that_is_not_there_is_0() {
        let sysfs = std::env::temp_dir().join(format!("counters-{}", std::process::id()));
        let data = sysfs.join("allocation/data");
        fs::create_dir_all(&data).expect("mkdir");
        fs::write(data.join("bytes_used"), "8388608\n").expect("write");
        fs::write(data.join("bytes_readonly"), "many\n").expect("write");
        let counters = Counters::open(&sysfs);
        assert_eq!(counters.get("data", "bytes_used"), 8_388_608);
        fs::write(data.join("bytes_used"), "7\n").expect("write");
        assert_eq!(counters.get("data", "bytes_used"), 7);
        assert_eq!(counters.get("data", "bytes_readonly"), 0);
        assert_eq!(counters.get("mixed", "bytes_used"), 0);
        fs::remove_dir_all(&sysfs).expect("clean");
    }
}
