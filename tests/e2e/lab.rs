//! A box of its own for one test: network and mounts of the calling thread, a root directory, the
//! real binary. Everything is checked to be gone at the end.

pub use crate::tool::tool;
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up; far above what it takes, for busy machines.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The binary under test: static, because containers run it too.
pub const BINARY: &str = env!("CARGO_BIN_EXE_terrarium");

/// One box.
pub struct Lab {
    pub root: PathBuf,
    /// The program that serves.
    pub binary: PathBuf,
    /// What its environment has more.
    pub env: Vec<(&'static str, String)>,
    daemon: Option<Child>,
    cgroup: String,
}

/// What a command printed and how it ended.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Lab {
    /// A box without a daemon. `name` must be unique among the tests.
    pub fn new(name: &str) -> Lab {
        assert!(nix::unistd::geteuid().is_root(), "needs root: run `cargo xtask test e2e`");
        let both = nix::sched::CloneFlags::CLONE_NEWNET | nix::sched::CloneFlags::CLONE_NEWNS;
        nix::sched::unshare(both).expect("own network and mounts");
        let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .expect("private mounts");
        tool("ip", &["link", "set", "lo", "up"]);
        let root =
            std::env::temp_dir().join(format!("terrarium-e2e-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let cgroup = format!("terrarium-e2e-{}-{name}", std::process::id());
        let lab = Lab { root, binary: BINARY.into(), env: Vec::new(), daemon: None, cgroup };
        lab.lay_out();
        lab
    }

    /// A box with a daemon that serves.
    pub fn start(name: &str) -> Lab {
        let mut lab = Lab::new(name);
        lab.serve();
        lab
    }

    /// The tree that a package would install.
    fn lay_out(&self) {
        // As Debian has it: nothing that is kept there can be run there.
        let run = self.root.join("run");
        fs::create_dir_all(&run).expect("run");
        let options = "mode=755,nosuid,nodev,noexec";
        tool("mount", &["-t", "tmpfs", "-o", options, "run", run.to_str().expect("a UTF-8 path")]);
        let lib = self.root.join("usr/lib/terrarium");
        let stacks = lib.join("stacks");
        fs::create_dir_all(&stacks).expect("stacks");
        let built = std::env::var_os("TERRARIUM_STACKS").expect(
            "TERRARIUM_STACKS names the directory of built stacks: run `cargo xtask test e2e`",
        );
        for item in fs::read_dir(&built).expect("built stacks").flatten() {
            if item.file_name().to_string_lossy().ends_with(".tar.zst") {
                std::os::unix::fs::symlink(item.path(), stacks.join(item.file_name()))
                    .expect("link stack");
            }
        }
        let top = Path::new(env!("CARGO_MANIFEST_DIR"));
        let ssh = [Path::new(&built).join("ssh"), top.join("target/rootfs/ssh")];
        if let Some(ssh) = ssh.iter().find(|dir| dir.join("dropbearmulti").is_file()) {
            std::os::unix::fs::symlink(ssh, lib.join("ssh")).expect("link the SSH server");
        }
        let buildpacks = top.join("config/buildpacks");
        std::os::unix::fs::symlink(buildpacks, lib.join("buildpacks")).expect("link buildpacks");
        let etc = self.root.join("etc/terrarium");
        fs::create_dir_all(&etc).expect("etc");
        let config = format!(
            "[cgroup]\nparent = \"{}\"\n\n[store]\nsize_max = \"4GiB\"\n\n[cell]\nmemory = \
             \"8GiB\"\ndisk = \"16GiB\"\n\n[self_check]\ninterval = \"never\"\n\n[log]\njournal = \
             false\n",
            self.cgroup
        );
        fs::write(etc.join("terrarium.toml"), config).expect("terrarium.toml");
    }

    /// Adds settings of this box, in a drop-in.
    pub fn configure(&self, name: &str, text: &str) {
        let dir = self.root.join("etc/terrarium/terrarium.toml.d");
        fs::create_dir_all(&dir).expect("drop-ins");
        fs::write(dir.join(format!("{name}.toml")), text).expect("drop-in");
    }

    /// Starts the daemon and waits until it answers.
    pub fn serve(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.root.join("daemon.log"))
            .expect("log");
        let child = self
            .command_of(&self.binary, &["serve"])
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .expect("start the daemon");
        self.daemon = Some(child);
        self.until("the daemon answers", |lab| {
            if let Some(status) = lab.daemon_status() {
                panic!("the daemon ended with {status}:\n{}", lab.daemon_log());
            }
            (lab.run(&["apps"]).code == 0).then_some(())
        });
    }

    fn daemon_status(&self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(self.daemon.as_ref()?.id() as i32);
        let flags = nix::sys::wait::WaitPidFlag::WNOHANG
            | nix::sys::wait::WaitPidFlag::WEXITED
            | nix::sys::wait::WaitPidFlag::WNOWAIT;
        match nix::sys::wait::waitid(nix::sys::wait::Id::Pid(pid), flags) {
            Ok(nix::sys::wait::WaitStatus::Exited(_, code)) => Some(code),
            Ok(nix::sys::wait::WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
            _ => None,
        }
    }

    /// Pid of the daemon.
    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().expect("a daemon runs").id()
    }

    /// What the daemon has said.
    pub fn daemon_log(&self) -> String {
        fs::read_to_string(self.root.join("daemon.log")).unwrap_or_default()
    }

    /// Ends the daemon by `signal` and waits for its end.
    pub fn end_daemon(&mut self, signal: nix::sys::signal::Signal) {
        let mut child = self.daemon.take().expect("a daemon runs");
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, signal).expect("signal the daemon");
        child.wait().expect("wait for the daemon");
    }

    /// Ends every process of every container, as a loss of power does; no daemon runs.
    pub fn kill_all(&self) {
        self.until("nothing of any container lives", |lab| {
            let files = find_cgroups(&lab.cgroup).into_iter().map(|dir| dir.join("cgroup.procs"));
            let texts = files.filter_map(|file| fs::read_to_string(file).ok()).collect::<String>();
            let pids: Vec<i32> = texts.lines().filter_map(|line| line.parse().ok()).collect();
            for pid in &pids {
                let pid = nix::unistd::Pid::from_raw(*pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            pids.is_empty().then_some(())
        });
    }

    /// The binary with this box's root.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_of(BINARY.as_ref(), args)
    }

    fn command_of(&self, binary: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(binary);
        command.arg("--root").arg(&self.root).args(args).env_remove("TERRARIUM_HOST");
        // Where a test that wants the daemon to die says at which point.
        command.env("TERRARIUM_DIE_FILE", self.root.join("die-at"));
        // Where a test that sets the daemon's clock says by how much.
        command.env("TERRARIUM_CLOCK_FILE", self.root.join("clock"));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a verb to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        let output = self
            .command(args)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|err| panic!("run {args:?}: {err}"));
        Ran::new(output)
    }

    /// Runs a verb that must succeed.
    pub fn ok(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(
            ran.code,
            0,
            "{args:?}\n{}{}\n--- daemon\n{}",
            ran.out,
            ran.err,
            self.daemon_log()
        );
        ran
    }

    /// Writes an app of one shell script and its manifest; gives the manifest's path.
    pub fn app(&self, name: &str, script: &str, manifest: &str) -> String {
        let dir = self.root.join("src").join(name);
        fs::create_dir_all(&dir).expect("app directory");
        fs::write(dir.join("app.sh"), script).expect("script");
        fs::write(dir.join("Procfile"), "web: sh app.sh\n").expect("Procfile");
        let path = self.root.join("src").join(format!("{name}.toml"));
        let text = format!(
            "name = \"{name}\"\n\n[source]\npath = \"{name}\"\n\n[build]\nstack = \"tiny\"\n\
             buildpacks = [\"procfile\"]\nmemory = \"64MiB\"\ndisk = \"64MiB\"\n\n{manifest}"
        );
        fs::write(&path, text).expect("manifest");
        path.to_str().expect("a UTF-8 path").to_owned()
    }

    /// Makes a buildpack of the box's owner that takes every app and compiles it by `script`.
    pub fn buildpack(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let bin = self.root.join("etc/terrarium/buildpacks").join(name).join("bin");
        fs::create_dir_all(&bin).expect("buildpack");
        for (name, text) in [("detect", "echo yes"), ("compile", script)] {
            let path = bin.join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("script");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
        }
    }

    /// Puts the manifest of an app into apps.d, under `file`.toml; gives its path there.
    pub fn declare(&self, file: &str, manifest: &str) -> PathBuf {
        let text = fs::read_to_string(manifest).expect("manifest");
        let src = self.root.join("src");
        let text = text.replace("path = \"", &format!("path = \"{}/", src.display()));
        let to = self.root.join("etc/terrarium/apps.d").join(format!("{file}.toml"));
        fs::write(&to, text).expect("declare");
        to
    }

    /// `terrarium app NAME --json`.
    pub fn view(&self, name: &str) -> Value {
        let ran = self.run(&["app", name, "--json"]);
        serde_json::from_str(&ran.out).unwrap_or(Value::Null)
    }

    /// One instance of the web process.
    pub fn instance(&self, name: &str, index: usize) -> Value {
        self.view(name)["processes"][0]["instances"][index].clone()
    }

    /// Waits until `probe` gives something.
    pub fn until<T>(&self, what: &str, mut probe: impl FnMut(&Lab) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            if let Some(found) = probe(self) {
                return found;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "waited too long until {what}\n--- apps\n{}\n--- daemon\n{}",
                self.run(&["apps"]).out,
                self.daemon_log()
            );
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Waits until the app is in `state`.
    pub fn until_state(&self, name: &str, state: &str) -> Value {
        self.until(&format!("{name} is {state}"), |lab| {
            let view = lab.view(name);
            (view["state"] == state).then_some(view)
        })
    }

    /// Lines of the app's log that hold `text`.
    pub fn logged(&self, name: &str, text: &str) -> Vec<String> {
        let out = self.run(&["logs", name, "-n", "1000"]).out;
        out.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// Runs a shell command in instance 0.
    pub fn inside(&self, name: &str, script: &str) -> Ran {
        self.run(&["exec", name, "--", "sh", "-c", script])
    }

    /// Deletes every app, ends the daemon, and checks that the box is as it was.
    pub fn finish(mut self) {
        let apps: Value = serde_json::from_str(&self.ok(&["apps", "--json"]).out).expect("JSON");
        for app in apps.as_array().expect("a list") {
            let name = app["name"].as_str().expect("a name");
            let ran = self.run(&["delete", name]);
            // An app whose record was removed last may have ended since it was listed.
            let is_gone = ran.err.contains(&format!("there is no app `{name}`"));
            assert!(ran.code == 0 || is_gone, "{}\n--- daemon\n{}", ran.err, self.daemon_log());
        }
        self.assert_empty();
        self.end_daemon(nix::sys::signal::Signal::SIGTERM);
        self.assert_nothing_left();
        self.remove();
    }

    /// Takes its tree away: no daemon has been there, or none is any more.
    pub fn remove(&self) {
        tool("umount", &[self.root.join("run").to_str().expect("a UTF-8 path")]);
        fs::remove_dir_all(&self.root).expect("clean up");
    }

    /// Links of containers: not of those that a daemon has made ahead, whose slots have a directory.
    pub fn links(&self) -> Vec<String> {
        let ahead = self.root.join("var/lib/terrarium/depot.reserve");
        let ahead = fs::read_dir(ahead).into_iter().flatten().flatten();
        let ahead: Vec<_> = ahead.filter_map(|slot| slot.file_name().into_string().ok()).collect();
        let is_ahead = |link: &str| {
            ahead.iter().any(|slot| link == format!("wb-{slot}") || link == format!("w{slot}-0"))
        };
        let links = tool("ip", &["-o", "link"]);
        let links = links.lines().filter_map(|line| line.split(": ").nth(1));
        let links = links.map(|link| link.split('@').next().unwrap_or(link));
        links.filter(|link| link.starts_with('w') && !is_ahead(link)).map(str::to_owned).collect()
    }

    /// Nothing of any container is on the box; the daemon may run.
    pub fn assert_empty(&self) {
        self.until("the kernel has taken the links away", |lab| {
            lab.links().is_empty().then_some(())
        });
        let state = self.root.join("var/lib/terrarium");
        for dir in ["depot", "store/containers"] {
            // The entry of a container goes after its links, which nobody waits for.
            self.until(&format!("{dir} is empty"), |_| {
                let left = fs::read_dir(state.join(dir)).map(Iterator::count).unwrap_or_default();
                (left == 0).then_some(())
            });
        }
        // Those of halves, which are nobody's yet, stay as long as the daemon.
        let mut cgroups = find_cgroups(&format!("{}/", self.cgroup));
        cgroups.retain(|dir| dir.extension().is_none_or(|end| end != "reserve"));
        assert!(cgroups.is_empty(), "{cgroups:?}");
        let rules = tool("nft", &["list", "ruleset"]);
        let addresses = rules.replace("10.254.0.0/16", "the pool");
        assert!(!addresses.contains("10.254."), "addresses of containers in rules:\n{rules}");
        // What a daemon starts for itself is a copy of it until it has become what it shall be.
        let daemon = self.daemon.as_ref().map(Child::id);
        self.until("no process is left", |lab| {
            processes_below(&lab.root, daemon).is_empty().then_some(())
        });
    }

    /// Nothing at all is on the box: the daemon has ended too.
    pub fn assert_nothing_left(&self) {
        let root = self.root.to_str().expect("a UTF-8 path");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let own = format!(" {root}/run ");
        let left: Vec<&str> =
            mounts.lines().filter(|it| it.contains(root) && !it.contains(&own)).collect();
        assert!(left.is_empty(), "mounts: {left:?}");
        let loops = tool("losetup", &["-a"]);
        assert!(!loops.contains(root), "loop devices: {loops}");
        let cgroups = find_cgroups(&self.cgroup);
        assert!(cgroups.is_empty(), "{cgroups:?}");
        let rules = tool("nft", &["list", "ruleset"]);
        assert!(rules.trim().is_empty(), "rules:\n{rules}");
        let ahead = self.root.join("var/lib/terrarium/depot.reserve");
        assert!(!ahead.exists() && self.links().is_empty(), "made ahead: {:?}", self.links());
    }
}

impl Drop for Lab {
    /// A failed test ends its daemon and whatever it left, so that the next one starts clean.
    fn drop(&mut self) {
        let Some(mut child) = self.daemon.take() else { return };
        if let Ok(apps) = serde_json::from_str::<Value>(&self.run(&["apps", "--json"]).out) {
            for app in apps.as_array().into_iter().flatten() {
                self.run(&["delete", app["name"].as_str().unwrap_or_default()]);
            }
        }
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = child.wait();
        if !std::thread::panicking() {
            return;
        }
        eprintln!("--- daemon log of {}\n{}", self.root.display(), self.daemon_log());
    }
}

impl Ran {
    pub fn new(output: Output) -> Ran {
        Ran {
            code: output.status.code().or(output.status.signal().map(|n| 128 + n)).unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Body of `GET /` at `port` of this box's `address`; `None` when nobody answers.
pub fn get(address: &str, port: u64) -> Option<String> {
    fetch(address, port, "/")
}

/// Body of `GET path` at `port` of this box's `address`; `None` when nobody answers.
pub fn fetch(address: &str, port: u64, path: &str) -> Option<String> {
    let at: SocketAddr = format!("{address}:{port}").parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some(body.to_owned())
}

/// Cgroup directories whose path holds `name`.
fn find_cgroups(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = left.pop() {
        for item in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if item.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = item.path();
                if path.to_string_lossy().contains(name) {
                    found.push(path.clone());
                }
                left.push(path);
            }
        }
    }
    found
}

/// Processes of the box under test but for its daemon: those whose cgroup is one of the test's.
fn processes_below(root: &Path, daemon: Option<u32>) -> Vec<String> {
    let root = root.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for item in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = item.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if Some(pid) != daemon && line.contains(&root) && line.contains("terrarium") {
            found.push(format!("{pid} {line:?}"));
        }
    }
    found
}
