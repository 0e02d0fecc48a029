//! `cargo xtask demo`: one app from its manifest to its HTTP answers, and nothing left after.
//!
//! Everything happens in mounts, process ids and a network of its own, below a root directory of
//! its own: the machine's network is never touched, and when the demo is interrupted the kernel
//! ends all that it had started.

use crate::machine::{self, State};
use crate::{host, rootfs, ssh};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const APP: &str = "hello";
/// Parent of its control groups, as [`lay_out`] names it.
const CGROUPS: &str = "terrarium-demo";
const MANIFEST: &str = "config/apps/hello.toml";
/// The first start makes the store and takes the stack in.
const DAEMON_STARTS: Duration = Duration::from_secs(120);
/// Staging and starting, on a slow box.
const APP_RUNS: Duration = Duration::from_secs(300);
const DAEMON_STOPS: Duration = Duration::from_secs(30);
/// What is torn down in the background.
const SETTLE: Duration = Duration::from_secs(20);

/// Prepares on the host, then runs [`inside`] apart from it.
pub fn run() -> Result<()> {
    host::need_root("demo")?;
    host::need(host::LAB)?;
    let stack = rootfs::run("edgefs", rootfs::Mode::WhenNeeded)?;
    ssh::run()?;
    let program = host::build(false)?;
    let root = lay_out(&stack, "demo")?;

    let mut apart = host::alone();
    apart.arg("--net");
    apart.arg(std::env::current_exe()?).args(["demo", "--inside"]).arg(&root).arg(&program);
    let result = host::run(&mut apart);
    // The kernel ends what a broken demo had started, but leaves its empty groups.
    machine::remove_cgroups(CGROUPS);
    // Whatever else the machine does meanwhile. The demo's processes ended with their first one.
    let clean = State::need_none(&[CGROUPS, &root.to_string_lossy()], SETTLE);
    let clean = clean.context("the demo was to leave nothing");
    result.and(clean)?;
    std::fs::remove_dir_all(&root)?;
    println!("demo: done, nothing is left");
    Ok(())
}

/// The files of a box, below `target/<chore>/root`: a stack, buildpacks, an empty rest.
pub fn lay_out(stack: &Path, chore: &str) -> Result<PathBuf> {
    let root = host::target_dir().join(chore).join("root");
    if root.exists() {
        std::fs::remove_dir_all(&root).with_context(|| {
            format!("cannot remove {}, left by an earlier {chore}", root.display())
        })?;
    }
    // The address of a unix socket holds 108 bytes.
    let socket = socket(&root);
    if socket.as_os_str().len() > 100 {
        bail!(
            "{} is too long for a socket: set CARGO_TARGET_DIR to a shorter path",
            socket.display()
        );
    }
    let share = root.join("usr/lib/terrarium");
    std::fs::create_dir_all(share.join("stacks"))?;
    std::fs::create_dir_all(root.join("etc/terrarium/apps.d"))?;
    let name = stack.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let digest = name.replace(".tar.zst", ".digest");
    for file in [name, &digest] {
        let (from, to) = (stack.with_file_name(file), share.join("stacks").join(file));
        std::fs::hard_link(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(drop))?;
    }
    copy(&host::top().join("config/buildpacks"), &share.join("buildpacks"))?;
    if ssh::directory().join("dropbearmulti").is_file() {
        copy(&ssh::directory(), &share.join("ssh"))?;
    }
    // A daemon that this machine may have in earnest keeps its control groups to itself.
    let parent = format!("terrarium-{chore}");
    machine::remove_cgroups(&parent);
    let own = format!("[cgroup]\nparent = \"{parent}\"\n\n[self_check]\ninterval = \"never\"\n");
    std::fs::write(root.join("etc/terrarium/terrarium.toml"), own)?;
    Ok(root)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let entries =
        std::fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => drop(std::fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}

pub fn socket(root: &Path) -> PathBuf {
    root.join("run/terrarium/terrarium.sock")
}

/// The demo itself, as the first process of its own namespaces.
pub fn inside(root: &Path, program: &Path) -> Result<()> {
    a_small_network()?;
    let before = State::read();
    let log = root.with_file_name("daemon.log");
    let mut daemon = Daemon::start(program, root, &log)?;
    let shown = show(root, program, &mut daemon).and_then(|()| daemon.stop());
    if shown.is_err() {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(40)..].join("\n  ");
        eprintln!("the daemon's last words, of {}:\n  {last}", log.display());
    }
    shown?;
    before.need_own_same(&[CGROUPS, &root.to_string_lossy()], SETTLE)
}

/// Loopback, and an uplink that leads nowhere (addresses for documentation, RFC 5737), so that the
/// box looks like one.
pub fn a_small_network() -> Result<()> {
    for line in [
        "link set lo up",
        "link add uplink type veth peer name nowhere",
        "link set nowhere up",
        "address add 192.0.2.2/24 dev uplink",
        "link set uplink up",
        "route add default via 192.0.2.1",
    ] {
        host::run(Command::new("ip").args(line.split(' ')))?;
    }
    Ok(())
}

fn show(root: &Path, program: &Path, daemon: &mut Daemon) -> Result<()> {
    daemon.wait_for_socket(&socket(root))?;
    let terrarium = |args: &[&str]| {
        println!("\n$ terrarium {}", args.join(" "));
        let mut command = Command::new(program);
        host::run(command.current_dir(host::top()).arg("--root").arg(root).args(args))
    };
    terrarium(&["apply", MANIFEST])?;
    let app = wait_until_running(APP, root, program, daemon)?;
    let instances = ports(&app);
    anyhow::ensure!(instances.len() >= 2, "two instances have {} ports", instances.len());
    for Port { index, host, publish } in instances {
        fetch(host, &format!("{APP}/{index}"))?;
        if let Some(port) = publish.filter(|_| index == 0) {
            fetch(port, "whichever instance is next")?;
        }
    }
    terrarium(&["apps"])?;
    terrarium(&["status"])?;
    terrarium(&["delete", APP])
}

/// Asks for the app until all instances run; fails as soon as it cannot come to that.
pub fn wait_until_running(
    name: &str,
    root: &Path,
    program: &Path,
    daemon: &mut Daemon,
) -> Result<Value> {
    let ask = || -> Result<Value> {
        let mut command = Command::new(program);
        let out = command.arg("--root").arg(root).args(["app", name, "--json"]).output()?;
        // The exit code says whether it runs; the document says all.
        serde_json::from_slice(&out.stdout).with_context(|| {
            format!(
                "`terrarium app {name} --json`: {}",
                String::from_utf8_lossy(&out.stderr).trim()
            )
        })
    };
    let begun = Instant::now();
    loop {
        daemon.need_alive()?;
        let app = ask()?;
        if app["state"] == "running" && all_instances_run(&app) {
            return Ok(app);
        }
        let failed = app["state"] == "failed";
        if failed || begun.elapsed() > APP_RUNS {
            let _ = host::run(Command::new(program).arg("--root").arg(root).args(["logs", name]));
            bail!("{name} is {} and not running: {}", app["state"], app["reason"]);
        }
        pause();
    }
}

fn all_instances_run(app: &Value) -> bool {
    let processes = app["processes"].as_array().map_or(&[][..], Vec::as_slice);
    !processes.is_empty()
        && processes.iter().all(|process| process["running"] == process["desired"])
}

/// One port of one instance.
#[derive(Debug, PartialEq, Eq)]
pub struct Port {
    pub index: u64,
    /// Of this instance alone, on the box.
    pub host: u16,
    /// Of all instances together, on the box.
    publish: Option<u16>,
}

/// The ports of every instance.
pub fn ports(app: &Value) -> Vec<Port> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    let mut found = Vec::new();
    for process in list(app, "processes") {
        for instance in list(&process, "instances") {
            for port in list(&instance, "ports") {
                let (index, host) = (instance["index"].as_u64(), number(&port["host"]));
                if let (Some(index), Some(host)) = (index, host) {
                    found.push(Port { index, host, publish: number(&port["publish"]) });
                }
            }
        }
    }
    found
}

/// Asks for `/`, and shows what comes.
pub fn fetch(port: u16, who: &str) -> Result<()> {
    println!("\n$ curl http://127.0.0.1:{port}/    # {who}");
    println!("{}", get(port)?.trim_end());
    Ok(())
}

/// The body of a 200 answer; at most 64 KiB are read.
fn get(port: u16) -> Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let limit = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&address, limit)
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut answer).with_context(|| format!("{address} hangs"))?;
    let answer = String::from_utf8_lossy(&answer);
    body(&answer).map(str::to_owned).with_context(|| format!("{address} answered: {answer}"))
}

/// The body of an answer, when it is a 200.
fn body(answer: &str) -> Option<&str> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.lines().next()?.split(' ').nth(1)?;
    (code == "200").then_some(body)
}

/// `terrarium serve`, ended with us at the latest.
pub struct Daemon(Child);

impl Daemon {
    pub fn start(program: &Path, root: &Path, log: &Path) -> Result<Daemon> {
        println!("$ terrarium --root {} serve &", root.display());
        let log = File::create(log)?;
        let mut command = Command::new(program);
        command.arg("--root").arg(root).arg("serve").stdout(log.try_clone()?).stderr(log);
        Ok(Daemon(command.spawn().context("cannot start the daemon")?))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn need_alive(&mut self) -> Result<()> {
        match self.0.try_wait()? {
            Some(status) => bail!("the daemon has ended: {status}"),
            None => Ok(()),
        }
    }

    pub fn wait_for_socket(&mut self, socket: &Path) -> Result<()> {
        let begun = Instant::now();
        while UnixStream::connect(socket).is_err() {
            self.need_alive()?;
            if begun.elapsed() > DAEMON_STARTS {
                bail!("the daemon does not listen on {}", socket.display());
            }
            pause();
        }
        Ok(())
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Asks it to end, as systemd does.
    pub fn stop(&mut self) -> Result<()> {
        let pid = i32::try_from(self.0.id()).expect("pids are positive and small");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM)?;
        let begun = Instant::now();
        loop {
            match self.0.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the daemon ended with {status} after SIGTERM"),
                None if begun.elapsed() > DAEMON_STOPS => bail!("the daemon ignores SIGTERM"),
                None => pause(),
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Ended already, or past helping: either way there is nobody to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_instance_gives_its_index_and_port() {
        let instance = |index, host| {
            let ports = json!([{"container": 8080, "host": host, "publish": 80}]);
            json!({"index": index, "ports": ports})
        };
        let mut app = json!({"state": "running", "processes": [{
            "running": 2, "desired": 2, "instances": [instance(0, 61001), instance(1, 61002)],
        }]});
        let port = |index, host| Port { index, host, publish: Some(80) };
        assert_eq!(ports(&app), [port(0, 61001), port(1, 61002)]);
        assert!(all_instances_run(&app));
        app["processes"][0]["running"] = json!(1);
        assert!(!all_instances_run(&app));
        assert!(!all_instances_run(&json!({})));
        assert_eq!(ports(&json!({})), []);
    }

    #[test]
    fn only_a_200_has_a_body() {
        assert_eq!(body("HTTP/1.0 200 OK\r\nA: b\r\n\r\nhi\r\n\r\nyou"), Some("hi\r\n\r\nyou"));
        assert_eq!(body("HTTP/1.1 502 Bad\r\n\r\nhi"), None);
        assert_eq!(body("hi"), None);
    }
}
