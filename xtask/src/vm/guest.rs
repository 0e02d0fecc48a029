//! One running guest: qemu, and ssh on the forwarded port.
//!
//! The disk is never written: what the guest changes goes to a file without a name that ends with
//! qemu, so each boot finds the disk as it was built, and killing qemu breaks nothing.

use super::run;
use crate::vm;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// From power-on to an answer of ssh; about 30 s on an idle machine.
const BOOTS: Duration = Duration::from_secs(300);
/// From the request to power off to the end of qemu.
const STOPS: Duration = Duration::from_secs(150);
/// One short command.
const ANSWERS: Duration = Duration::from_secs(60);
/// Of memory, in MiB.
const MEMORY: u32 = 4096;

/// A guest that answers.
pub struct Guest {
    record: Record,
    /// Here when it was started by us and ends with us.
    child: Option<Child>,
}

/// A qemu process and the port of this machine that leads to the guest's ssh.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    pid: u32,
    /// Clock ticks after boot: with the pid it names one process for ever.
    begun: String,
    port: u16,
}

/// Who a guest belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Ends with this process, however that comes about.
    Ours,
    /// Goes on until `vm down`.
    Own,
}

impl Guest {
    /// The guest that `vm up` has started, if it is still there.
    pub fn running() -> Option<Guest> {
        let record = Record::parse(&fs::read_to_string(record_file()).ok()?)?;
        (begun(record.pid).as_deref() == Some(&record.begun))
            .then_some(Guest { record, child: None })
    }

    /// Boots a guest and waits until it answers.
    pub fn boot(life: Life) -> Result<Guest> {
        let dir = vm::dir();
        let port = free_port()?;
        eprintln!("vm: booting, console in {}", dir.join("console.log").display());
        let log = File::create(dir.join("qemu.log"))?;
        let mut command = qemu(&dir, port, life);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("cannot start qemu")?;
        let pid = child.id();
        let begun = begun(pid).context("qemu has no entry in /proc")?;
        let record = Record { pid, begun, port };
        let mut guest = Guest { record, child: Some(child) };
        if life == Life::Own {
            // First of all, so that `vm down` finds it whatever becomes of us.
            fs::write(record_file(), guest.record.line())?;
        }
        guest.until_it_answers()?;
        if life == Life::Own {
            guest.child = None;
        }
        Ok(guest)
    }

    /// Waits until it takes commands.
    ///
    /// Errors: it has ended, or is silent for too long; with the last it said.
    pub fn until_it_answers(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            if run::succeeds(self.ssh().arg("true"), Duration::from_secs(10))? {
                eprintln!("vm: answers after {} s", begun.elapsed().as_secs());
                return Ok(());
            }
            if self.has_ended() {
                bail!("qemu has ended; the last it said:\n{}", last_words());
            }
            if begun.elapsed() > BOOTS {
                let seconds = BOOTS.as_secs();
                bail!("silent for {seconds} s; the last the guest said:\n{}", last_words());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// ssh to the guest as root, ready to take a command.
    pub fn ssh(&self) -> Command {
        let dir = vm::dir();
        let mut ssh = Command::new("ssh");
        // No configuration of the person who runs us.
        ssh.args(["-F", "none", "-q", "-p", &self.record.port.to_string(), "-i"]);
        ssh.arg(dir.join("key"));
        ssh.arg("-o").arg(format!("UserKnownHostsFile={}", dir.join("known_hosts").display()));
        for option in [
            &format!("HostKeyAlias={}", vm::NAME),
            "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "ConnectTimeout=8",
            "ServerAliveInterval=20",
            "ServerAliveCountMax=9",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.arg("root@127.0.0.1");
        ssh
    }

    /// Runs a shell line in the guest and gives each line that it prints to `line`.
    ///
    /// Errors: the connection broke, or the line has not ended after `limit`.
    pub fn follow(
        &self,
        script: &str,
        limit: Duration,
        line: impl FnMut(&str),
    ) -> Result<ExitStatus> {
        let mut ssh = self.ssh();
        let status = run::follow(ssh.arg(format!("exec 2>&1; {script}")), limit, line)?;
        match status.code() {
            Some(255) | None => {
                bail!("the connection to the guest broke; the last it said:\n{}", last_words())
            }
            _ => Ok(status),
        }
    }

    /// What a shell line prints that must succeed.
    pub fn answer(&self, script: &str, limit: Duration) -> Result<String> {
        let mut said = Vec::new();
        let status = self.follow(script, limit, |line| said.push(line.to_owned()))?;
        let said = said.join("\n");
        if !status.success() {
            bail!("`{script}` in the guest failed, {status}: {said}");
        }
        Ok(said)
    }

    /// Runs a short shell line that must succeed.
    pub fn ok(&self, script: &str) -> Result<()> {
        self.answer(script, ANSWERS).map(drop)
    }

    /// Whether this process has started it and so must end it.
    pub fn is_ours(&self) -> bool {
        self.child.is_some()
    }

    /// Shuts the guest down as a person would; one that does not go is killed, and that is an error.
    pub fn stop(mut self) -> Result<()> {
        let asked = Instant::now();
        // The connection may break before its answer comes.
        let _ = run::succeeds(self.ssh().arg("systemctl poweroff"), ANSWERS);
        let gone = loop {
            if self.has_ended() {
                break true;
            }
            if asked.elapsed() > STOPS {
                break false;
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let _ = fs::remove_file(record_file());
        if !gone {
            self.kill();
            bail!("the guest had not powered off after {} s and was killed", STOPS.as_secs());
        }
        eprintln!("vm: powered off in {} s", asked.elapsed().as_secs());
        Ok(())
    }

    fn has_ended(&mut self) -> bool {
        match &mut self.child {
            Some(child) => child.try_wait().is_ok_and(|status| status.is_some()),
            None => begun(self.record.pid).as_deref() != Some(&self.record.begun),
        }
    }

    fn kill(&mut self) {
        match self.child.take() {
            Some(mut child) => run::end(&mut child),
            None if self.has_ended() => {}
            None => {
                let pid = i32::try_from(self.record.pid).expect("pids are positive and small");
                let pid = nix::unistd::Pid::from_raw(pid);
                // It was there a moment ago; if it has ended since, all is well.
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            run::end(&mut child);
        }
    }
}

impl Record {
    fn line(&self) -> String {
        format!("{} {} {}\n", self.pid, self.begun, self.port)
    }

    fn parse(line: &str) -> Option<Record> {
        let mut words = line.split_whitespace();
        let (pid, begun, port) = (words.next()?, words.next()?, words.next()?);
        Some(Record { pid: pid.parse().ok()?, begun: begun.to_owned(), port: port.parse().ok()? })
    }
}

/// The end of what qemu and the guest's console have printed.
fn last_words() -> String {
    const LINES: usize = 30;
    let said = ["qemu.log", "console.log"].map(|name| {
        let text = fs::read(vm::dir().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    });
    let lines: Vec<&str> = said.iter().flat_map(|text| text.lines()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

fn record_file() -> PathBuf {
    vm::dir().join("guest")
}

/// When a living process began, in the words of its `stat`.
fn begun(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18).map(str::to_owned))?
}

/// A port of loopback that nobody has at the moment.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

/// The machine: two processors, the disk, a drive to bring things on, and a network that leads to
/// this machine's loopback port and nowhere else.
fn qemu(dir: &Path, port: u16, life: Life) -> Command {
    // Software emulation works everywhere; who knows that their machine can more says so.
    let accel = std::env::var("TERRARIUM_VM_ACCEL").unwrap_or_else(|_| "tcg,thread=multi".into());
    let file = |name: &str| dir.join(name).display().to_string();
    let drive = |name: &str, rest: &str| {
        format!("file={},format=raw,if=none,id={name},{rest}", file(&format!("{name}.img")))
    };
    let mut command = match life {
        Life::Ours => {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "nice", "-n", "10"]);
            command
        }
        Life::Own => {
            let mut command = Command::new("nice");
            command.args(["-n", "10"]).process_group(0);
            command
        }
    };
    command.args(["qemu-system-x86_64", "-nodefaults", "-display", "none"]);
    command.args(["-accel", &accel, "-cpu", "max", "-smp", "2", "-m", &MEMORY.to_string()]);
    command.args(["-kernel", &file("vmlinuz"), "-initrd", &file("initrd.img"), "-append"]);
    command.arg("console=ttyS0 root=/dev/vda rw mitigations=off quiet systemd.show_status=1");
    // What the guest frees goes back to this machine at once; when this machine's disk is full, the
    // guest hears of it: else qemu would stop it without a word.
    let changes = "snapshot=on,cache=unsafe,discard=unmap,detect-zeroes=unmap,werror=report";
    command.args(["-drive", &drive("disk", changes)]);
    command.args(["-device", "virtio-blk-pci,drive=disk"]);
    command.args(["-drive", &drive("parcel", "readonly=on")]);
    command.args(["-device", "virtio-blk-pci,drive=parcel,serial=parcel"]);
    command.args(["-netdev", &format!("user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22")]);
    command.args(["-device", "virtio-net-pci,netdev=n,romfile=", "-device", "virtio-rng-pci"]);
    command.args(["-serial", &format!("file:{}", file("console.log"))]);
    // Where the changes of the disk go.
    command.env("TMPDIR", dir);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_written() {
        let record = Record { pid: 7, begun: "123".to_owned(), port: 4022 };
        assert_eq!(Record::parse(&record.line()), Some(record));
        assert_eq!(Record::parse("7 123"), None);
    }

    #[test]
    fn only_a_living_process_has_begun() {
        assert!(begun(std::process::id()).is_some());
        assert_eq!(begun(u32::MAX), None);
    }

    #[test]
    fn only_loopback_leads_to_the_guest() {
        let shown = crate::host::shown(&qemu(Path::new("/x"), 4022, Life::Ours));
        assert!(shown.contains("restrict=on,hostfwd=tcp:127.0.0.1:4022-:22"), "{shown}");
        assert!(shown.starts_with("`setpriv --pdeathsig KILL"), "{shown}");
    }
}
