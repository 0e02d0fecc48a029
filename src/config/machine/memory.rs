//! How much memory the daemon itself may use, by its control groups of either version.

use crate::unit::Bytes;
use std::path::{Path, PathBuf};

/// Hierarchies of a process, and directories from one up to its root, that are looked at.
const DEPTH_MAX: usize = 32;

/// The smallest limit of the daemon's own control group and of those above it; `None`: there is none.
pub fn own_limit() -> Option<Bytes> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let files = limit_files(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
    smallest(files.iter().filter_map(|file| std::fs::read_to_string(file).ok()))
}

/// The smallest of these; `max`, and what the first version writes for it, is none.
fn smallest(texts: impl Iterator<Item = String>) -> Option<Bytes> {
    let numbers = texts.filter_map(|text| text.trim().parse::<u64>().ok());
    // The first version has no word for no limit but the largest whole number of pages.
    numbers.filter(|bytes| *bytes < 1 << 60).min().map(Bytes::new)
}

/// Where the limits stand, by the process's mounts and groups.
fn limit_files(mountinfo: &str, groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for group in groups.lines().take(DEPTH_MAX) {
        // hierarchy-ID:controller-list:path; the second version has neither of the first two.
        let mut parts = group.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (kind, file) = match controllers {
            "" => ("cgroup2", "memory.max"),
            list if list.split(',').any(|it| it == "memory") => ("cgroup", "memory.limit_in_bytes"),
            _ => continue,
        };
        let Some((root, at)) = mountinfo.lines().find_map(|line| mount(line, kind)) else {
            continue;
        };
        // What is above the mount's root is not to be seen from here.
        let below = Path::new(path).strip_prefix(&root).unwrap_or(Path::new(""));
        let dirs = at.join(below);
        let dirs = dirs.ancestors().take_while(|dir| dir.starts_with(&at)).take(DEPTH_MAX);
        files.extend(dirs.map(|dir| dir.join(file)));
    }
    files
}

/// Root and place of the hierarchy that has the limits of memory, if this is its mount.
fn mount(line: &str, kind: &str) -> Option<(PathBuf, PathBuf)> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ').skip(3);
    let (root, at) = (head.next()?, head.next()?);
    let mut tail = tail.split(' ');
    let is_meant = tail.next()? == kind
        && (kind == "cgroup2" || tail.nth(1)?.split(',').any(|option| option == "memory"));
    is_meant.then(|| (root.into(), at.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
        30 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        35 25 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n\
        36 25 0:32 /docker/x /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n";

    /// Row 26: `auto` memory is no more than the daemon's own control group may use.
    #[test]
    fn row_26_the_limits_of_both_versions_are_found_up_to_the_root_of_their_mount() {
        let groups = "4:memory:/docker/x/a/b\n3:cpu,cpuacct:/\n0::/\n";
        let files: Vec<String> =
            limit_files(V1, groups).iter().map(|file| file.display().to_string()).collect();
        assert_eq!(
            files,
            [
                "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/unified/memory.max",
            ]
        );
        let v2 = "30 25 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let files = limit_files(v2, "0::/system.slice/terrarium.service\n");
        assert_eq!(files.len(), 3);
        assert!(files[0].ends_with("terrarium.service/memory.max"));
        assert!(limit_files("", "0::/x\n").is_empty());
    }

    #[test]
    fn row_26_no_limit_is_none() {
        let of = |texts: &[&str]| smallest(texts.iter().map(|text| (*text).to_owned()));
        assert_eq!(of(&["max\n", "9223372036854771712\n"]), None);
        assert_eq!(of(&["max\n", "2097152\n", "1048576\n"]), Some(Bytes::mib(1)));
    }
}
