//! What a test could leave on the machine, and whether it did.

use crate::host;
use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Kinds of which every namespace has its own.
const APART: [&str; 4] = ["mount ", "link ", "packet rule ", "process "];

/// Everything of the kinds that containers are made of, one line each: mounts, links, cgroups,
/// loop devices, packet rules, processes, named network namespaces, files of the program's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State(BTreeSet<String>);

impl State {
    /// Looks at the machine from our own namespaces.
    pub fn read() -> State {
        let mut state = State::default();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for mount in mounts.lines().filter_map(Mount::parse) {
            state.add("mount", format!("{} {} {}", mount.at, mount.kind, mount.source));
            if mount.kind.starts_with("cgroup") {
                state.cgroups(Path::new(mount.at), 0);
            }
        }
        state.links();
        state.loops();
        state.rules();
        state.processes();
        state.names("netns", Path::new("/run/netns"), "");
        state.names("temporary file", &std::env::temp_dir(), "terrarium");
        for dir in
            ["/run/terrarium", "/etc/terrarium", "/var/lib/terrarium", "/var/cache/terrarium"]
        {
            if Path::new(dir).exists() {
                state.add("directory", dir.to_owned());
            }
        }
        state
    }

    /// Waits until nothing is there that was not; for what the kernel finishes in the background it
    /// has `limit`. Otherwise an error that lists what is left. What is gone was there before, so that
    /// it was somebody else's: it is told, and no leak.
    pub fn need_same(&self, limit: Duration) -> Result<()> {
        let now = settle(limit, State::read, |now| self.left(now))?;
        for line in self.0.difference(&now.0) {
            println!("gone meanwhile, and never ours: {line}");
        }
        Ok(())
    }

    /// The same in namespaces of one's own: of what all the machine has in common, only what is called
    /// by one of `names` counts.
    pub fn need_own_same(&self, names: &[&str], limit: Duration) -> Result<()> {
        settle(limit, State::read, |now| self.left_of_own(now, names)).map(drop)
    }

    /// Waits until nothing is there that is called by one of `names`, whatever else the machine
    /// does meanwhile; for what the kernel finishes in the background it has `limit`.
    pub fn need_none(names: &[&str], limit: Duration) -> Result<()> {
        settle(limit, State::read, |now| now.called(names).cloned().collect()).map(drop)
    }

    /// Lines in which one of `names` occurs.
    fn called<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = &'a String> {
        self.0.iter().filter(|line| names.iter().any(|name| line.contains(name)))
    }

    /// What `later` has and this has not.
    fn left(&self, later: &State) -> Vec<String> {
        later.0.difference(&self.0).cloned().collect()
    }

    /// Of that, what is in one's own namespaces, or is called by one of `names`.
    fn left_of_own(&self, later: &State, names: &[&str]) -> Vec<String> {
        let is_apart = |line: &String| APART.iter().any(|kind| line.starts_with(kind));
        let is_named = |line: &String| names.iter().any(|name| line.contains(name));
        self.left(later).into_iter().filter(|line| is_apart(line) || is_named(line)).collect()
    }

    fn add(&mut self, kind: &str, line: String) {
        self.0.insert(format!("{kind} {line}"));
    }

    fn names(&mut self, kind: &str, dir: &Path, prefix: &str) {
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(prefix) {
                self.add(kind, dir.join(name).display().to_string());
            }
        }
    }

    fn cgroups(&mut self, dir: &Path, depth: usize) {
        const DEEP: usize = 4;
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            // Plain `terrarium` is a service that this machine may have in earnest.
            if path.to_string_lossy().contains("terrarium-") {
                self.add("cgroup", path.display().to_string());
            }
            if depth < DEEP {
                self.cgroups(&path, depth + 1);
            }
        }
    }

    fn links(&mut self) {
        let table = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
        for line in table.lines().skip(2) {
            if let Some((name, _)) = line.split_once(':') {
                self.add("link", name.trim().to_owned());
            }
        }
    }

    fn loops(&mut self) {
        let Ok(entries) = std::fs::read_dir("/sys/block") else { return };
        for entry in entries.flatten() {
            if let Ok(file) = std::fs::read_to_string(entry.path().join("loop/backing_file")) {
                let name = entry.file_name().to_string_lossy().into_owned();
                self.add("loop device", format!("{name} {}", file.trim()));
            }
        }
    }

    /// Without counters, which change by themselves.
    fn rules(&mut self) {
        if host::find("nft").is_none() || !host::is_root() {
            return;
        }
        let rules = host::capture(Command::new("nft").args(["--stateless", "list", "ruleset"]));
        for line in rules.unwrap_or_default().lines() {
            self.add("packet rule", line.to_owned());
        }
    }

    /// Living processes that run a program that cargo has built here, or are called `terrarium…` and
    /// run none that can be told.
    fn processes(&mut self) {
        let target = host::target_dir();
        let Ok(entries) = std::fs::read_dir("/proc") else { return };
        for entry in entries.flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some(process) = Process::parse(&stat) else { continue };
            let program = std::fs::read_link(entry.path().join("exe")).unwrap_or_default();
            let unknown = program.as_os_str().is_empty();
            let ours = unknown && process.name.starts_with("terrarium")
                || program.starts_with(&target) && !program.ends_with("xtask");
            if ours && !matches!(process.state, 'Z' | 'X') && pid != std::process::id() {
                self.add("process", format!("{pid} {} since {}", process.name, process.begun));
            }
        }
    }
}

/// Looks until nothing is `left`, for as long as `limit`; what was seen last.
fn settle(
    limit: Duration,
    look: impl Fn() -> State,
    left: impl Fn(&State) -> Vec<String>,
) -> Result<State> {
    let begun = Instant::now();
    loop {
        let now = look();
        let left = left(&now);
        if left.is_empty() {
            return Ok(now);
        }
        if begun.elapsed() > limit {
            bail!("something is left:\n  {}", left.join("\n  "));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Removes control groups called `name` in which nothing runs: whoever had them was killed.
pub fn remove_cgroups(name: &str) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mount in mounts.lines().filter_map(Mount::parse) {
        if mount.kind.starts_with("cgroup") {
            remove_below(Path::new(mount.at), name, false, 0);
        }
    }
}

/// Removes directories called `name`, with all that is in them; one in use stays.
fn remove_below(dir: &Path, name: &str, ours: bool, depth: usize) {
    const DEEP: usize = 6;
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let ours = ours || entry.file_name() == name;
        if depth < DEEP && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path(), name, ours, depth + 1);
            if ours {
                let _ = std::fs::remove_dir(entry.path());
            }
        }
    }
}

/// What `/proc/<pid>/stat` says.
#[derive(Debug, PartialEq, Eq)]
struct Process<'a> {
    name: &'a str,
    state: char,
    /// Clock ticks after boot: with the pid it names one process for ever.
    begun: &'a str,
}

impl Process<'_> {
    /// `pid (name) state ...`, the name may hold anything, the start is field 22.
    fn parse(stat: &str) -> Option<Process<'_>> {
        let (head, rest) = stat.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?.chars().next()?;
        Some(Process { name, state, begun: fields.nth(18)? })
    }
}

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mount<'a> {
    at: &'a str,
    kind: &'a str,
    source: &'a str,
}

impl Mount<'_> {
    fn parse(line: &str) -> Option<Mount<'_>> {
        let (front, back) = line.split_once(" - ")?;
        let mut back = back.split(' ');
        Some(Mount { at: front.split(' ').nth(4)?, kind: back.next()?, source: back.next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_a_leak_and_what_is_gone_is_not() {
        let (mut before, mut after) = (State::default(), State::default());
        before.add("link", "eth0".to_owned());
        after.add("link", "wb-1".to_owned());
        assert_eq!(before.left(&after), ["link wb-1"]);
        assert!(before.left(&before).is_empty());
        assert!(settle(Duration::ZERO, || before.clone(), |now| before.left(now)).is_ok());
        let told = settle(Duration::ZERO, || after.clone(), |now| before.left(now));
        assert_eq!(told.expect_err("a leak").to_string(), "something is left:\n  link wb-1");
    }

    #[test]
    fn others_of_the_same_machine_come_and_go() {
        let (mut before, mut after) = (State::default(), State::default());
        before.add("loop device", "loop1 /srv/other/root/store.img".to_owned());
        before.add("cgroup", "/sys/fs/cgroup/terrarium-other/a".to_owned());
        after.add("cgroup", "/sys/fs/cgroup/terrarium-other/b".to_owned());
        after.add("loop device", "loop2 /srv/other/root/store.img".to_owned());
        after.add("temporary file", "/tmp/terrarium-1".to_owned());
        after.add("directory", "/run/terrarium".to_owned());
        let names = ["terrarium-demo", "/srv/own/root"];
        assert!(before.left_of_own(&after, &names).is_empty());
        let own = [
            "cgroup /sys/fs/cgroup/terrarium-demo/a",
            "link wb-1",
            "loop device loop3 /srv/own/root/store.img",
            "mount /mnt overlay overlay",
            "packet rule table inet terrarium {",
            "process 7 terrarium since 1",
        ];
        after.0.extend(own.map(str::to_owned));
        assert_eq!(before.left_of_own(&after, &names), own);
    }

    #[test]
    fn the_kernels_tables_are_read() {
        let line = "36 35 98:0 /a /mnt rw,noatime master:1 - btrfs /dev/loop0 rw";
        assert_eq!(
            Mount::parse(line),
            Some(Mount { at: "/mnt", kind: "btrfs", source: "/dev/loop0" })
        );
        let numbers = (4..=25).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let stat = format!("7 (a) (b) S {numbers}");
        let process = Process::parse(&stat);
        assert_eq!(process, Some(Process { name: "a) (b", state: 'S', begun: "22" }));
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let state = State::read();
        assert!(state.0.contains("link lo"), "{state:?}");
    }
}
