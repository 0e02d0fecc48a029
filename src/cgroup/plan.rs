//! Which hierarchy carries which controller, and where our groups go: read from three texts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// A controller that a container needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// Limits and counts memory.
    Memory,
    /// Divides the processor.
    Cpu,
    /// Counts processor time; part of every v2 group.
    Cpuacct,
    /// Limits processes and threads.
    Pids,
    /// Decides which device nodes work; on v2 a program does.
    Devices,
    /// Stops all processes of a group; part of every v2 group.
    Freezer,
}

/// Every controller, in the order in which groups are made.
const ALL: [Controller; 6] = [
    Controller::Memory,
    Controller::Cpu,
    Controller::Cpuacct,
    Controller::Pids,
    Controller::Devices,
    Controller::Freezer,
];

impl Controller {
    /// The kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Cpuacct => "cpuacct",
            Controller::Pids => "pids",
            Controller::Devices => "devices",
            Controller::Freezer => "freezer",
        }
    }

    /// Whether a v2 hierarchy lists it in `cgroup.controllers`; the others are always there.
    fn is_listed_on_v2(self) -> bool {
        matches!(self, Controller::Memory | Controller::Cpu | Controller::Pids)
    }
}

/// A controller that no mounted hierarchy has, and what the machine's owner can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The controller.
    pub controller: Controller,
    /// The kernel has it and was told to keep it off.
    pub disabled: bool,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.controller.name();
        match self.disabled {
            true => write!(
                f,
                "the {name} cgroup controller is switched off; boot with cgroup_enable={name}"
            ),
            false => write!(
                f,
                "no mounted cgroup hierarchy has the {name} controller; it must be in the kernel \
                 and mounted under /sys/fs/cgroup. Who starts this with `ip netns exec` sees no \
                 cgroups, as that mounts /sys anew: use `nsenter --net=/run/netns/NAME`"
            ),
        }
    }
}

/// What is mounted, before anybody has looked into the unified hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// Our own directory in the v1 hierarchy of each controller that has one.
    v1: BTreeMap<Controller, PathBuf>,
    /// Mount point of the unified hierarchy (v2).
    pub unified: Option<PathBuf>,
    /// Controllers that the kernel was told to keep off.
    disabled: BTreeSet<Controller>,
}

impl Mounts {
    /// Reads `/proc/<pid>/cgroup`, `/proc/<pid>/mountinfo` and `/proc/cgroups`.
    pub fn parse(own: &str, mountinfo: &str, cgroups: &str) -> Mounts {
        let mut mounts = Mounts { disabled: disabled(cgroups), ..Mounts::default() };
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            if mount.kind == "cgroup2" {
                mounts.unified.get_or_insert(mount.point);
                continue;
            }
            for controller in ALL.into_iter().filter(|c| mount.has(c.name())) {
                let dir = mount.point.join(mount.inside(own_path(own, controller)));
                mounts.v1.entry(controller).or_insert(dir);
            }
        }
        mounts
    }
}

/// Where our groups go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `<mount>/<own cgroup>/<parent>` of each controller that has a v1 hierarchy.
    v1: BTreeMap<Controller, PathBuf>,
    /// The unified hierarchy, when one is mounted.
    unified: Option<Unified>,
}

/// Our place in the unified hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unified {
    /// Its mount point.
    pub root: PathBuf,
    /// `<mount>/<parent>`.
    pub parent: PathBuf,
    /// Controllers that must be handed down to the groups.
    pub controllers: BTreeSet<Controller>,
}

/// The directory in which one controller of one group is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dir {
    /// In a hierarchy of cgroup v1.
    V1(PathBuf),
    /// In the unified hierarchy.
    V2(PathBuf),
}

impl Layout {
    /// Gives each controller its hierarchy. `available` is the text of `cgroup.controllers` at the
    /// unified mount, or empty; `parent` is a plain name.
    pub fn new(mounts: &Mounts, available: &str, parent: &str) -> Result<Layout, Missing> {
        let mut handed_down = BTreeSet::new();
        for controller in ALL {
            let on_v2 = mounts.unified.is_some()
                && (!controller.is_listed_on_v2()
                    || available.split_ascii_whitespace().any(|name| name == controller.name()));
            match mounts.v1.contains_key(&controller) {
                true => {}
                // Only the last resort of `Group::kill`, which does without it.
                false if !on_v2 && controller == Controller::Freezer => {}
                false if !on_v2 => {
                    let disabled = mounts.disabled.contains(&controller);
                    return Err(Missing { controller, disabled });
                }
                false if controller.is_listed_on_v2() => {
                    handed_down.insert(controller);
                }
                false => {}
            }
        }
        let v1 = mounts.v1.iter().map(|(c, dir)| (*c, dir.join(parent))).collect();
        let unified = mounts.unified.as_ref().map(|root| Unified {
            root: root.clone(),
            parent: root.join(parent),
            controllers: handed_down,
        });
        Ok(Layout { v1, unified })
    }

    /// The unified hierarchy, when one is mounted.
    pub fn unified(&self) -> Option<&Unified> {
        self.unified.as_ref()
    }

    /// The same without the unified hierarchy, for when it may not be written.
    pub fn without_unified(self) -> Layout {
        Layout { unified: None, ..self }
    }

    /// Whether a program, not a v1 hierarchy, decides about devices.
    pub fn devices_by_program(&self) -> bool {
        !self.v1.contains_key(&Controller::Devices)
    }

    /// Whether every controller is on the unified hierarchy.
    pub fn is_unified(&self) -> bool {
        self.v1.is_empty()
    }

    /// Parent directory of one controller's v1 groups.
    pub fn v1_parent(&self, controller: Controller) -> Option<&Path> {
        self.v1.get(&controller).map(PathBuf::as_path)
    }

    /// Parent directories of all groups, each once (v1 often has two controllers in one
    /// hierarchy), the unified one first: what is in it can be killed at one stroke.
    pub fn parents(&self) -> Vec<&Path> {
        let mut dirs: Vec<&Path> = Vec::new();
        for dir in self.unified.iter().map(|u| &u.parent).chain(self.v1.values()) {
            if !dirs.contains(&dir.as_path()) {
                dirs.push(dir);
            }
        }
        dirs
    }

    /// The same without the unified one.
    pub fn v1_parents(&self) -> Vec<&Path> {
        let mut dirs = self.parents();
        dirs.retain(|dir| self.unified.as_ref().is_none_or(|unified| unified.parent != *dir));
        dirs
    }

    /// Where group `name` keeps `controller`. `None` only for the freezer.
    pub fn dir(&self, controller: Controller, name: &str) -> Option<Dir> {
        match (self.v1.get(&controller), &self.unified) {
            (Some(parent), _) => Some(Dir::V1(parent.join(name))),
            (None, Some(unified)) => Some(Dir::V2(unified.parent.join(name))),
            (None, None) => None,
        }
    }
}

/// One line of mountinfo that mounts a cgroup hierarchy. See proc_pid_mountinfo(5).
struct Mount<'a> {
    kind: &'a str,
    /// Directory of the hierarchy that is visible at `point`.
    root: String,
    point: PathBuf,
    options: &'a str,
}

impl Mount<'_> {
    /// `31 23 0:28 ROOT POINT rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct`
    fn parse(line: &str) -> Option<Mount<'_>> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, point) = (unescape(before.next()?), unescape(before.next()?));
        let mut after = after.split(' ');
        let (kind, _source, options) = (after.next()?, after.next()?, after.next().unwrap_or(""));
        matches!(kind, "cgroup" | "cgroup2").then(|| Mount {
            kind,
            root,
            point: point.into(),
            options,
        })
    }

    fn has(&self, controller: &str) -> bool {
        self.options.split(',').any(|option| option == controller)
    }

    /// Path of cgroup `own` below the mount point. A container may see only its own part of the
    /// hierarchy (`root`), or be told a path above its namespace (`/../..`): then the mount point.
    fn inside<'p>(&self, own: &'p str) -> &'p str {
        let root = self.root.trim_end_matches('/');
        match own.strip_prefix(root) {
            Some(rest) if rest.starts_with('/') && !rest.contains("/..") => &rest[1..],
            _ => "",
        }
    }
}

/// Our path in the hierarchy of `controller`: lines of `/proc/<pid>/cgroup` are
/// `id:controller,controller:path`.
fn own_path(own: &str, controller: Controller) -> &str {
    own.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?, parts.next()?))
        })
        .find(|(list, _)| list.split(',').any(|name| name == controller.name()))
        .map_or("/", |(_, path)| path)
}

/// Controllers with `enabled` 0 in `/proc/cgroups`: name, hierarchy, groups, enabled.
fn disabled(cgroups: &str) -> BTreeSet<Controller> {
    let off = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next()?;
        let controller = ALL.into_iter().find(|c| c.name() == name)?;
        (fields.nth(2)? == "0").then_some(controller)
    };
    cgroups.lines().filter_map(off).collect()
}

/// mountinfo writes blanks and backslashes of paths as three octal digits: `\040`.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_OWN: &str = "11:name=systemd:/system.slice/t.service\n\
        4:cpu,cpuacct:/system.slice/t.service\n6:memory:/system.slice/t.service\n\
        5:pids:/system.slice/t.service\n3:devices:/\n2:freezer:/\n0::/system.slice/t.service\n";
    const V1_MOUNTS: &str = "24 30 0:22 / /sys rw - sysfs sysfs rw\n\
        31 24 0:28 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/systemd rw shared:10 - cgroup cgroup rw,xattr,name=systemd\n\
        33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct\n\
        34 31 0:31 / /sys/fs/cgroup/memory rw shared:12 - cgroup cgroup rw,memory\n\
        35 31 0:32 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
        36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
        37 31 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n";
    const UNIFIED: &str = "38 31 0:35 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn v1(path: &str) -> Option<Dir> {
        Some(Dir::V1(path.into()))
    }

    #[test]
    fn a_v1_host_has_each_controller_below_its_own_cgroup() {
        let layout = Layout::new(&Mounts::parse(V1_OWN, V1_MOUNTS, ""), "", "t").expect("layout");
        let unit = "system.slice/t.service";
        for (controller, path) in [
            (Controller::Cpu, format!("/sys/fs/cgroup/cpu,cpuacct/{unit}/t/a-0")),
            (Controller::Cpuacct, format!("/sys/fs/cgroup/cpu,cpuacct/{unit}/t/a-0")),
            (Controller::Memory, format!("/sys/fs/cgroup/memory/{unit}/t/a-0")),
            (Controller::Devices, "/sys/fs/cgroup/devices/t/a-0".into()),
        ] {
            assert_eq!(layout.dir(controller, "a-0"), v1(&path));
        }
        assert_eq!(layout.parents().len(), 5, "cpu and cpuacct share one directory");
        assert!(layout.unified().is_none() && !layout.devices_by_program());
    }

    #[test]
    fn a_hybrid_host_adds_the_unified_directory_and_hands_nothing_down() {
        let mounts = Mounts::parse(V1_OWN, &format!("{V1_MOUNTS}{UNIFIED}"), "");
        let layout = Layout::new(&mounts, "hugetlb", "t").expect("layout");
        let unified = layout.unified().expect("unified");
        assert_eq!(unified.parent, Path::new("/sys/fs/cgroup/unified/t"));
        assert!(unified.controllers.is_empty());
        assert_eq!(layout.parents()[0], unified.parent, "first, so that kill reaches all");
        assert!(matches!(layout.dir(Controller::Memory, "a"), Some(Dir::V1(_))));
    }

    #[test]
    fn a_v2_host_has_everything_at_the_top_of_the_unified_hierarchy() {
        let mounts = Mounts::parse(
            "0::/system.slice/terrarium.service\n",
            "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t90\t1\n",
        );
        let layout = Layout::new(&mounts, "cpuset cpu io memory pids\n", "t").expect("layout");
        assert!(layout.is_unified() && layout.devices_by_program());
        let dir = Dir::V2("/sys/fs/cgroup/t/a".into());
        for controller in ALL {
            assert_eq!(layout.dir(controller, "a"), Some(dir.clone()));
        }
        let names: Vec<_> = layout.unified().expect("v2").controllers.iter().collect();
        assert_eq!(names, [&Controller::Memory, &Controller::Cpu, &Controller::Pids]);
    }

    #[test]
    fn controllers_may_be_split_between_the_versions() {
        let no_pids: String =
            V1_MOUNTS.lines().filter(|l| !l.ends_with("pids")).map(|l| format!("{l}\n")).collect();
        let mounts = Mounts::parse(V1_OWN, &format!("{no_pids}{UNIFIED}"), "");
        let layout = Layout::new(&mounts, "pids", "t").expect("layout");
        assert!(matches!(layout.dir(Controller::Pids, "a"), Some(Dir::V2(_))));
        assert_eq!(layout.unified().expect("v2").controllers, [Controller::Pids].into());
    }

    #[test]
    fn a_missing_controller_is_named_with_its_cure() {
        let mounts = Mounts::parse(
            "0::/\n",
            "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t0\n",
        );
        let err = Layout::new(&mounts, "cpu pids", "t").expect_err("no memory");
        assert_eq!(err, Missing { controller: Controller::Memory, disabled: true });
        assert!(err.to_string().contains("cgroup_enable=memory"));
        let err = Layout::new(&Mounts::default(), "", "t").expect_err("nothing mounted");
        assert!(err.to_string().contains("/sys/fs/cgroup"), "{err}");
    }

    #[test]
    fn odd_mounts_and_paths_end_at_the_mount_point() {
        let memory = |own: &str, root: &str, point: &str| {
            let line = format!("1 1 0:1 {root} {point} rw - cgroup cgroup rw,memory\n");
            let mounts = Mounts::parse(&format!("4:memory:{own}\n"), &line, "");
            mounts.v1[&Controller::Memory].clone()
        };
        assert_eq!(memory("/docker/ab", "/docker/ab", "/m"), Path::new("/m/"));
        assert_eq!(memory("/docker/ab/x", "/docker/ab", "/m"), Path::new("/m/x"));
        assert_eq!(memory("/docker/abc", "/docker/ab", "/m"), Path::new("/m"));
        assert_eq!(memory("/../..", "/", "/m"), Path::new("/m"));
        assert_eq!(memory("/", "/", "/a\\040b"), Path::new("/a b"));
    }

    #[test]
    fn garbage_is_no_mount() {
        for text in ["", "x", " - ", "1 2 3 - cgroup", "1 2 3 4 5 6 - cgroup", "\\0 - cgroup2 a b"]
        {
            assert_eq!(Mounts::parse(text, text, text), Mounts::default(), "{text}");
        }
    }
}
