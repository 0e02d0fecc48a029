//! A tiny daemon side: one container on a busybox root, in a world of the test's own.

use serde_json::from_slice;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use terrarium::init::proto::*;
use terrarium::init::{filter, message};
use terrarium::model::process::{ExitStatus, ProcessSpec, WindowSize};
use terrarium::sys::ns::{self, Spaces};
use terrarium::sys::{fd, mount, process, socket};
use terrarium::unit::{IdMap, IdRange};

/// Host id of the containers' root.
pub const BASE: u32 = 0x1000_0000;
/// No step of a test takes longer, unless it hangs.
const PATIENCE_MS: u16 = 30_000;
/// What the daemon grants: chown, dac_override, fsetid, fowner, setgid, setuid, setpcap,
/// net_bind_service, sys_chroot, kill.
pub const CAPABILITIES: [u8; 10] = [0, 1, 4, 3, 6, 7, 8, 10, 18, 5];

/// Files of one test, and a network and mounts of its thread's own.
pub struct Lab {
    pub dir: PathBuf,
}

impl Lab {
    pub fn new() -> Lab {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert_eq!(process::effective_uid(), 0, "needs root: run `cargo xtask test kernel`");
        ns::unshare(Spaces::CLONE_NEWNET | Spaces::CLONE_NEWNS).expect("unshare");
        mount::make_all_private().expect("make mounts private");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("terrarium-init-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        for sub in ["", "lower", "w", "scratch", "depot", "depot/init"] {
            fs::create_dir(dir.join(sub)).expect("make a directory");
        }
        for sub in ["w/upper", "w/work"] {
            fs::create_dir(dir.join(sub)).expect("make a directory");
        }
        for sub in ["w", "w/upper", "w/work", "depot/init"] {
            chown(dir.join(sub), Some(BASE), Some(BASE)).expect("chown");
        }
        let lab = Lab { dir };
        lab.fill_lower();
        lab
    }

    /// A small root with busybox and two users.
    fn fill_lower(&self) {
        let busybox = fs::read("/bin/busybox").unwrap_or_default();
        let applets = Command::new("/bin/busybox").arg("--list").output();
        assert!(
            applets.is_ok() && is_static(&busybox),
            "needs a static /bin/busybox: apt-get install busybox-static"
        );
        let lower = self.lower();
        for dir in ["bin", "etc", "root", "home", "home/vcap", "tmp"] {
            fs::create_dir(lower.join(dir)).expect("make a directory");
        }
        chown(lower.join("home/vcap"), Some(2000), Some(2000)).expect("chown");
        fs::copy("/bin/busybox", lower.join("bin/busybox")).expect("copy busybox");
        let applets = applets.expect("checked above").stdout;
        for applet in String::from_utf8_lossy(&applets).lines().filter(|name| *name != "busybox") {
            symlink("busybox", lower.join("bin").join(applet)).expect("link an applet");
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\n1000:x:0:0::/:\n\
                      vcap:x:2000:2000:vcap:/home/vcap:/bin/sh\n";
        fs::write(lower.join("etc/passwd"), passwd).expect("passwd");
        let group = "root:x:0:\nvcap:x:2000:\naudio:x:29:vcap\nvideo:x:44:vcap\n";
        fs::write(lower.join("etc/group"), group).expect("group");
    }

    pub fn lower(&self) -> PathBuf {
        self.dir.join("lower")
    }

    pub fn upper(&self) -> PathBuf {
        self.dir.join("w/upper")
    }

    pub fn depot(&self) -> PathBuf {
        self.dir.join("depot/init")
    }

    pub fn plan(&self) -> Plan {
        Plan {
            handle: "web-0-3f2a".into(),
            ids: IdMap::Range(IdRange { base: BASE }),
            net: InsideNet {
                link: "eth0".into(),
                address: Ipv4Addr::new(10, 254, 0, 2),
                prefix: 30,
                gateway: Ipv4Addr::new(10, 254, 0, 1),
            },
            lowers: vec![self.lower()],
            writable: self.dir.join("w"),
            scratch: self.dir.join("scratch"),
            binds: Vec::new(),
            volumes: Vec::new(),
            capabilities: CAPABILITIES.to_vec(),
            user_capabilities: CAPABILITIES.to_vec(),
            privileged: false,
            no_new_privs: true,
            masked: [
                "/proc/kcore",
                "/proc/keys",
                "/proc/acpi",
                "/proc/timer_list",
                "/sys/firmware",
            ]
            .map(String::from)
            .to_vec(),
            read_only: ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"]
                .map(String::from)
                .to_vec(),
            shm_bytes: 1 << 20,
            memory_bytes: 0,
            init_name: String::new(),
            notify: false,
            apparmor: None,
        }
    }

    /// Spawns the set-up process and hands it the plan.
    pub fn spawn(&self, plan: &Plan) -> SettingUp {
        let (ours, theirs) = socket::pair().expect("pair");
        let child = Command::new(env!("CARGO_BIN_EXE_terrarium"))
            .arg("init")
            .stdin(Stdio::from(theirs))
            .spawn()
            .expect("spawn terrarium init");
        let outer = File::open(self.dir.join("depot")).expect("depot");
        let listener = socket::listen(outer.as_fd(), "sock", 8).expect("listen");
        let depot = File::open(self.depot()).expect("depot");
        let bytes = filter::programs();
        let filter = fd::sealed_memory("filter", &bytes).expect("memory");
        let fds = [listener.as_fd(), depot.as_fd(), filter.as_fd()];
        let owner = Owner { ids: plan.ids, privileged: plan.privileged };
        message::send(&ours, &Order::Container(owner), &[]).expect("send the order");
        // Which may have refused and gone.
        let _ = message::send(&ours, plan, &fds);
        SettingUp { channel: ours, child }
    }

    /// A standing container, or why not.
    pub fn launch(&self, plan: &Plan) -> Result<Container, (String, String)> {
        // The link of a container that was killed goes with its network, a little later.
        let _ = Command::new("ip").args(["link", "delete", "wt0"]).output();
        let mut setting_up = self.spawn(plan);
        let netns = match setting_up.hear() {
            Some((SetUp::Born, mut fds)) => fds.remove(0),
            Some((SetUp::Refused { doing, why, pid: None }, _)) => {
                assert!(!setting_up.child.wait().expect("wait").success());
                return Err((doing, why));
            }
            other => panic!("{:?}", other.map(|(word, _)| word)),
        };
        let netns = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
        ip(&["link", "add", "wt0", "type", "veth", "peer", "name", "eth0", "netns", &netns]);
        ip(&["address", "add", "10.254.0.1/30", "dev", "wt0"]);
        ip(&["link", "set", "wt0", "up"]);
        message::send(&setting_up.channel, &SetUp::Go, &[]).expect("send go");
        let said = setting_up.hear().expect("an answer").0;
        let ok = setting_up.child.wait().expect("wait").success();
        match said {
            SetUp::Ready { pid } => {
                assert!(ok);
                let pidfd = process::pidfd_open(pid).expect("pidfd");
                let connection = Connection::new(&self.dir);
                Ok(Container { pid, pidfd, connection })
            }
            SetUp::Refused { doing, why, pid } => {
                assert!(!ok);
                // Dead, and ours to wait for; none if the plan itself was refused.
                pid.map(|pid| process::wait(pid).expect("wait for pid 1"));
                Err((doing, why))
            }
            other => panic!("{other:?}"),
        }
    }

    /// A container that must stand.
    pub fn container(&self) -> Container {
        self.launch(&self.plan()).expect("a container")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Failing to clean must not hide why a test failed.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Whether a 64-bit ELF program has no interpreter: no program header of type `PT_INTERP`, 3.
fn is_static(elf: &[u8]) -> bool {
    let number = |at: usize, bytes: usize| {
        elf[at..at + bytes].iter().rev().fold(0usize, |all, byte| all << 8 | *byte as usize)
    };
    let (start, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    elf.starts_with(b"\x7fELF\x02") && (0..count).all(|n| number(start + n * size, 4) != 3)
}

/// Runs `ip` in the test's own network.
pub fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("run ip");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A container on its way.
pub struct SettingUp {
    pub channel: OwnedFd,
    pub child: Child,
}

impl SettingUp {
    pub fn hear(&mut self) -> Option<(SetUp, Vec<OwnedFd>)> {
        assert!(fd::wait_readable(&self.channel, PATIENCE_MS).expect("poll"), "no answer");
        message::receive(&self.channel, &mut vec![0; MAX_MESSAGE]).expect("receive")
    }
}

/// A standing container and one connection to it.
pub struct Container {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub connection: Connection,
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = process::pidfd_send_signal(&self.pidfd, 9);
        let _ = process::wait(self.pid);
    }
}

/// A connection to pid 1.
pub struct Connection {
    socket: OwnedFd,
    seq: u64,
    news: VecDeque<(String, ExitStatus)>,
}

/// What a program did.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Connection {
    pub fn new(lab: &Path) -> Connection {
        Connection::attempt(lab).expect("connect")
    }

    /// Of a pid 1 that may be gone.
    pub fn attempt(lab: &Path) -> std::io::Result<Connection> {
        let depot = File::open(lab.join("depot")).expect("depot");
        let socket = socket::connect(depot.as_fd(), "sock")?;
        Ok(Connection { socket, seq: 0, news: VecDeque::new() })
    }

    fn hear(&mut self) -> (Reply, Vec<OwnedFd>) {
        assert!(fd::wait_readable(&self.socket, PATIENCE_MS).expect("poll"), "no answer");
        message::receive(&self.socket, &mut vec![0; MAX_MESSAGE])
            .expect("receive")
            .expect("pid 1 is there")
    }

    /// Asks and returns the answer; news that come first are kept.
    pub fn ask(&mut self, ask: Ask) -> (Answer, Vec<OwnedFd>) {
        self.ask_with(ask, &[])
    }

    /// The same, with descriptors beside the request.
    pub fn ask_with(&mut self, ask: Ask, fds: &[BorrowedFd<'_>]) -> (Answer, Vec<OwnedFd>) {
        self.seq += 1;
        message::send(&self.socket, &Request { seq: self.seq, ask }, fds).expect("send");
        loop {
            match self.hear() {
                (Reply { seq: 0, answer: Answer::Ended { id, status } }, _) => {
                    self.news.push_back((id, status));
                }
                (Reply { seq, answer }, fds) => {
                    assert_eq!(seq, self.seq);
                    return (answer, fds);
                }
            }
        }
    }

    /// Asks and does not wait for the answer.
    pub fn tell(&mut self, ask: Ask) {
        self.try_tell(ask).expect("send");
    }

    /// The same, of a pid 1 that may be gone.
    pub fn try_tell(&mut self, ask: Ask) -> std::io::Result<()> {
        self.seq += 1;
        message::send(&self.socket, &Request { seq: self.seq, ask }, &[])
    }

    /// The next answer; news that come first are kept.
    pub fn answer(&mut self) -> Answer {
        loop {
            match self.hear().0 {
                Reply { seq: 0, answer: Answer::Ended { id, status } } => {
                    self.news.push_back((id, status));
                }
                Reply { answer, .. } => return answer,
            }
        }
    }

    /// Starts; returns the pid inside and the descriptors.
    pub fn start(&mut self, spec: ProcessSpec) -> (i32, Vec<OwnedFd>) {
        match self.ask(Ask::Start(spec)) {
            (Answer::Started { pid, .. }, fds) => (pid, fds),
            (other, _) => panic!("{other:?}"),
        }
    }

    /// The kind and text of a refusal.
    pub fn refused(&mut self, ask: Ask) -> (FailKind, String) {
        match self.ask(ask) {
            (Answer::Failed { kind, text }, fds) if fds.is_empty() => (kind, text),
            (other, _) => panic!("{other:?}"),
        }
    }

    /// Waits for the news of this end.
    pub fn ended(&mut self, id: &str) -> ExitStatus {
        loop {
            if let Some(at) = self.news.iter().position(|(name, _)| name == id) {
                return self.news.remove(at).expect("found").1;
            }
            match self.hear().0.answer {
                Answer::Ended { id, status } => self.news.push_back((id, status)),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Runs to the end and forgets it.
    pub fn run(&mut self, spec: ProcessSpec) -> Ran {
        let id = spec.id.clone();
        let (_, fds) = self.start(spec);
        let out = read_all(&fds[0]);
        let err = fds.get(1).map(read_all).unwrap_or_default();
        let status = self.ended(&id);
        assert_eq!(self.ask(Ask::Forget { id }).0, Answer::Done);
        Ran { status, out, err }
    }

    /// Standard output and error of a shell script that root runs.
    pub fn sh(&mut self, script: &str) -> String {
        self.sh_as("root", script)
    }

    /// The same as any user.
    pub fn sh_as(&mut self, user: &str, script: &str) -> String {
        let mut spec = sh(&format!("exec 2>&1; {script}"));
        spec.user = user.into();
        self.run(spec).out
    }

    pub fn list(&mut self) -> Vec<ProcessState> {
        match self.ask(Ask::List) {
            (Answer::Processes(list), _) => list,
            (other, _) => panic!("{other:?}"),
        }
    }
}

/// Everything up to the end of a stream, as text.
pub fn read_all(stream: &OwnedFd) -> String {
    let mut all = Vec::new();
    loop {
        let (text, end) = read_some(stream);
        all.extend(text);
        if end {
            return String::from_utf8_lossy(&all).into_owned();
        }
    }
}

/// What is there, waiting for something; and whether it is the end.
pub fn read_some(stream: &OwnedFd) -> (Vec<u8>, bool) {
    let mut buffer = vec![0; 65_536];
    assert!(fd::wait_readable(stream, PATIENCE_MS).expect("poll"), "no output");
    match fd::read(stream, &mut buffer) {
        Ok(length) => (buffer[..length].to_vec(), length == 0),
        Err(err) if err.raw_os_error() == Some(5) => (Vec::new(), true),
        Err(err) => panic!("{err}"),
    }
}

/// Reads until `text` has come.
pub fn read_until(stream: &OwnedFd, text: &str) -> String {
    let mut all = String::new();
    while !all.contains(text) {
        let (more, end) = read_some(stream);
        all.push_str(&String::from_utf8_lossy(&more));
        assert!(!end, "ended with {all:?}");
    }
    all
}

/// A program with arguments, run by root.
pub fn spec(path: &str, args: &[&str]) -> ProcessSpec {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    ProcessSpec {
        id: format!("p-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        path: path.into(),
        args: args.iter().map(|arg| (*arg).into()).collect(),
        program: Default::default(),
        argv0: None,
        env: Vec::new(),
        dir: None,
        dir_must_exist: false,
        user: "root".into(),
        nofile: None,
        rlimits: Default::default(),
        tty: None,
        stdin: false,
        keep_stdin: false,
        launches: false,
        never_waits: false,
    }
}

/// A shell script.
pub fn sh(script: &str) -> ProcessSpec {
    spec("/bin/sh", &["-c", script])
}

/// The same with a terminal.
pub fn with_tty(mut spec: ProcessSpec, rows: u16, columns: u16) -> ProcessSpec {
    spec.tty = Some(WindowSize { rows, columns });
    spec
}

/// What the exit file of a process says.
pub fn exit_file(lab: &Lab, id: &str) -> ExitStatus {
    let bytes = fs::read(lab.depot().join(format!("{id}.exit"))).expect("exit file");
    from_slice(&bytes).expect("an exit status")
}
