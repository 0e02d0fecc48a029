//! A host of its own for one test: network and mounts of the calling thread, a store, one layer.

pub use crate::tool::tool;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use terrarium::cgroup::Cgroups;
use terrarium::container::{Depot, Host, HostParts};
use terrarium::net::pool::{Ports, Slots};
use terrarium::net::text::Resolvers;
use terrarium::net::{Net, NetConfig};
use terrarium::unit::{Bytes, Digest};
use terrarium::volume::{Store, StoreConfig};

/// The binary under test: static, because containers run it too.
pub const BINARY: &str = env!("CARGO_BIN_EXE_terrarium");

pub struct Lab {
    pub state: PathBuf,
    pub layer: Digest,
    cgroup: String,
}

impl Lab {
    pub fn new(name: &str) -> Lab {
        assert!(nix::unistd::geteuid().is_root(), "needs root: run `cargo xtask test kernel`");
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("own namespaces");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .expect("private mounts");
        tool("ip", &["link", "set", "lo", "up"]);
        let dir = format!("terrarium-kernel-{}-{name}", std::process::id());
        let state = std::env::temp_dir().join(dir);
        let _ = fs::remove_dir_all(&state);
        fs::create_dir_all(&state).expect("state directory");
        let layer = Digest::of(b"busybox");
        Lab { state, layer, cgroup: format!("terrarium-kernel-{}-{name}", std::process::id()) }
    }

    /// A host with a store that holds one layer: busybox.
    pub fn host(&self) -> Host {
        let store = self.store();
        self.make_layer(&store);
        let cgroups = Cgroups::open(&self.cgroup).expect("cgroups");
        let net = Net::open(NetConfig::new("terrarium", "")).expect("network");
        self.host_of((store, cgroups, net))
    }

    /// The lab's store.
    pub fn store(&self) -> Store {
        let (dir, file) = (self.state.join("store"), self.state.join("store.img"));
        let size_max = Bytes::mib(2048);
        Store::open(StoreConfig { dir, file, size_max, limited: true }).expect("store")
    }

    /// A host of parts that are open already.
    pub fn host_of(&self, (store, cgroups, net): (Store, Cgroups, Net)) -> Host {
        let programs = terrarium::init::filter::programs();
        Host::new(HostParts {
            depot: Depot::open(&self.state.join("depot")).expect("depot"),
            program: PathBuf::from(BINARY),
            store,
            cgroups,
            net,
            net_tag: String::new(),
            slots: Slots::new(),
            ports: Ports::new(61001..=61100),
            seccomp: terrarium::sys::fd::sealed_memory("seccomp", &programs).expect("memfd"),
            resolvers: Resolvers::choose(&[], "nameserver 192.0.2.53\n", None),
            garden: Default::default(),
            reserve: 2,
        })
    }

    fn make_layer(&self, store: &Store) {
        if store.layer(&self.layer).is_some() {
            return;
        }
        let draft = store.draft().expect("draft");
        let root = draft.dir();
        for dir in ["bin", "etc", "dev", "proc", "sys", "tmp", "root"] {
            fs::create_dir(root.join(dir)).expect("directory");
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("mode");
        fs::copy("/bin/busybox", root.join("bin/busybox"))
            .expect("static busybox; `cargo xtask test kernel` installs busybox-static");
        let applets =
            ["sh", "id", "test", "dd", "sleep", "mkfifo", "cat", "true", "kill", "grep", "unshare"];
        for applet in applets {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("applet");
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("passwd");
        draft.commit(&self.layer).expect("commit");
    }

    /// Waits until the kernel has taken away the links of dead namespaces.
    pub fn settle(&self) {
        let begin = Instant::now();
        while self.links() != "lo" {
            assert!(begin.elapsed() < Duration::from_secs(60), "links stay: {}", self.links());
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    pub fn links(&self) -> String {
        let text = tool("ip", &["-o", "link"]);
        let names = text.lines().filter_map(|line| line.split(": ").nth(1));
        names.collect::<Vec<_>>().join(" ")
    }

    /// Name of the group that containers' groups are made in.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// Groups of containers, in every hierarchy.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        self.groups(|path, name| path.contains(&format!("/{name}/")))
    }

    /// Groups that containers' groups are made in, of every hierarchy.
    pub fn parents(&self) -> Vec<PathBuf> {
        self.groups(|path, name| path.ends_with(&format!("/{name}")))
    }

    fn groups(&self, wanted: impl Fn(&str, &str) -> bool) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut left = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(dir) = left.pop() {
            for item in fs::read_dir(&dir).into_iter().flatten().flatten() {
                if item.file_type().is_ok_and(|kind| kind.is_dir()) {
                    if wanted(&item.path().to_string_lossy(), &self.cgroup) {
                        found.push(item.path());
                    }
                    left.push(item.path());
                }
            }
        }
        found
    }

    /// Children of this process that nobody has waited for, or that still run.
    pub fn children(&self) -> Vec<String> {
        let me = std::process::id();
        let mut found = Vec::new();
        for item in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let stat = fs::read_to_string(item.path().join("stat")).unwrap_or_default();
            let Some((head, rest)) = stat.rsplit_once(") ") else { continue };
            let parent = rest.split(' ').nth(1).and_then(|parent| parent.parse::<u32>().ok());
            // Other tests of this process run at the same time: theirs are told by their name.
            let cgroup = fs::read_to_string(item.path().join("cgroup")).unwrap_or_default();
            if parent == Some(me) && cgroup.contains(&self.cgroup) {
                found.push(head.to_owned());
            }
        }
        found
    }

    /// Takes the host apart; everything must be gone.
    pub fn close(self, host: Host) {
        let (store, cgroups, net) = host.into_parts();
        cgroups.remove_parent_if_empty();
        net.close().expect("network closes");
        store.close().expect("store closes");
        let rules = tool("nft", &["list", "ruleset"]);
        assert!(rules.trim().is_empty(), "{rules}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        assert!(!mounts.contains(self.state.to_str().expect("UTF-8")), "{mounts}");
        let loops = tool("losetup", &["-a"]);
        assert!(!loops.contains(self.state.to_str().expect("UTF-8")), "{loops}");
        fs::remove_dir_all(&self.state).expect("clean up");
    }
}

/// Whether this process runs nothing but the test `name` of `module`. If not, it is run in one that
/// does, and has passed when this returns.
pub fn alone(module: &str, name: &str) -> bool {
    const ALONE: &str = "TERRARIUM_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let module = module.split_once("::").map_or(module, |(_, rest)| rest);
    let mut test = Command::new(std::env::current_exe().expect("own file"));
    test.args(["--exact", &format!("{module}::{name}"), "--nocapture"]).env(ALONE, "1");
    let done = test.output().expect("start");
    let said = String::from_utf8_lossy(&done.stdout);
    let err = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains("1 passed"), "{said}\n{err}");
    false
}
