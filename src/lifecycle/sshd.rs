//! `diego-sshd`: an SSH server in a container, for the one user that it runs as.
//!
//! The protocol is dropbear's, which lies beside this program as one static file (D42). We take
//! the original's flags, keep keys out of the process list, turn the host key into dropbear's form,
//! and become it. What each session runs is this program again, as `ssh-session`.
//!
//! | in the environment of dropbear | is |
//! |---|---|
//! | `SSHD_SHELL` | the program of every session |
//! | `SSHD_AUTHORIZED_KEYS` | file of the keys that may come in |
//! | `SSHD_NO_AUTH` | anybody may come in |
//! | `SSHD_CIPHERS`, `SSHD_MACS`, `SSHD_KEX` | the only algorithms |
//! | `SSHD_LOG_PRIORITY` | what is not said of a connection: above this priority of syslog |

mod scp;
pub(super) mod session;

use super::flags::{Flag, Flags};
use super::ssh_key::SshKey;
use crate::sys::fd;
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The server, in the directory of this program; the name that it goes by as a server, which it also
/// is asked by what it shall be.
pub const SERVER: &str = "dropbearmulti";
const AS_SERVER: &str = "dropbear";
/// The program of every session, a name of this one.
const SESSION: &str = "ssh-session";
/// Where keys are that shall not be arguments; Diego's names. Taken out of the environment.
const HOST_KEY: &str = "SSHD_HOSTKEY";
const AUTHORIZED: &str = "SSHD_AUTHKEY";
/// What stands in dropbear's list of key exchanges beside them. It numbers packets as the second one says for
/// every client that knows it, and a client does so only when it is told: without it they fall out (CVE-2023-48795).
const KEX_SIGNS: &str = "kexguess2@matt.ucc.asn.au,kex-strict-s-v00@openssh.com";
/// From one sign of life to the next, in seconds; the client is gone after three that it missed.
const KEEPALIVE_S: &str = "15";

const FLAGS: [Flag; 11] = [
    Flag::text("address", "127.0.0.1:2222", "listen address for ssh daemon"),
    Flag::text("hostKey", "", "PEM encoded host key; a fresh one when empty"),
    Flag::text("authorizedKey", "", "public keys in the OpenSSH authorized_keys format"),
    Flag::switch("allowUnauthenticatedClients", "allow access to unauthenticated clients"),
    Flag::switch("inheritDaemonEnv", "inherit daemon's environment"),
    Flag::text("allowedCiphers", "", "limit cipher algorithms to those provided (comma separated)"),
    Flag::text("allowedMACs", "", "limit MAC algorithms to those provided (comma separated)"),
    Flag::text(
        "allowedKeyExchanges",
        "",
        "limit key exchange algorithms to those provided (comma separated)",
    ),
    Flag::text("logLevel", "info", "log level: debug, info, error or fatal"),
    // Not Diego's.
    Flag::switch("refuseForwarding", "forward no ports, in either direction"),
    Flag::span("idleTimeout", "0s", "close a connection after so long without a byte; 0s: never"),
];

/// The role: returns only when it fails.
pub(super) fn run(args: &[OsString]) -> Result<(), u8> {
    let flags = Flags::parse("diego-sshd", &FLAGS, args)?;
    let refuse = |why: String| {
        complain!("diego-sshd: {why}");
        1
    };
    let host = host_key(&given(&flags, "hostKey", HOST_KEY)).map_err(refuse)?;
    let keys = given(&flags, "authorizedKey", AUTHORIZED);
    let open = flags.is_on("allowUnauthenticatedClients");
    if keys.trim().is_empty() && !open {
        let text = "authorizedKey is required; to let anybody in, -allowUnauthenticatedClients";
        return Err(refuse(text.into()));
    }
    let (server, session) = beside().map_err(|err| refuse(format!("cannot find itself: {err}")))?;
    if !server.exists() {
        return Err(refuse(format!(
            "the SSH server {} is not there; see [ssh] in README.md",
            server.display()
        )));
    }
    let files = memory("ssh-host-key", &host.dropbear()).and_then(|host| {
        let keys = memory("ssh-authorized-keys", format!("{}\n", keys.trim_end()).as_bytes())?;
        Ok((host, keys))
    });
    let (host, keys) = files.map_err(|err| refuse(format!("cannot hand over its keys: {err}")))?;
    let mut child = command(&server, &flags, &path_of(&host));
    child.env("SSHD_SHELL", session).env("SSHD_AUTHORIZED_KEYS", path_of(&keys));
    if open {
        child.env("SSHD_NO_AUTH", "1");
    }
    let err = child.exec();
    Err(refuse(format!("cannot execute {}: {err}", server.display())))
}

/// The server with its own flags: in the foreground, without a file of its pid.
fn command(server: &Path, flags: &Flags, host_key: &str) -> Command {
    let mut child = Command::new(server);
    child.arg0(AS_SERVER);
    child.args(["-F", "-P", "", "-K", KEEPALIVE_S, "-r", host_key]);
    child.args(["-p", &flags.text("address")]);
    if flags.is_on("inheritDaemonEnv") {
        child.arg("-e");
    }
    if flags.is_on("refuseForwarding") {
        // Local and remote.
        child.args(["-j", "-k"]);
    }
    if let seconds @ 1.. = flags.span("idleTimeout").as_secs() {
        child.args(["-I", &seconds.to_string()]);
    }
    for name in [HOST_KEY, AUTHORIZED, "SSHD_NO_AUTH"] {
        child.env_remove(name);
    }
    for (flag, name) in [
        ("allowedCiphers", "SSHD_CIPHERS"),
        ("allowedMACs", "SSHD_MACS"),
        ("allowedKeyExchanges", "SSHD_KEX"),
    ] {
        match flags.text(flag) {
            list if list.is_empty() => child.env_remove(name),
            list if flag == "allowedKeyExchanges" => child.env(name, format!("{list},{KEX_SIGNS}")),
            list => child.env(name, list),
        };
    }
    child.env("SSHD_LOG_PRIORITY", priority(&flags.text("logLevel")).to_string());
    child
}

/// The value of a flag, or else of the variable that stands in for it.
fn given(flags: &Flags, flag: &str, name: &str) -> String {
    let value = flags.text(flag);
    if value.is_empty() { env::var(name).unwrap_or_default() } else { value }
}

/// The host key that was given, or one that lives as long as the server does.
fn host_key(pem: &str) -> Result<SshKey, String> {
    if !pem.trim().is_empty() {
        return SshKey::read(pem).map_err(|why| format!("cannot use -hostKey: {why}"));
    }
    SshKey::fresh()
}

/// Priorities of syslog for the levels of Diego's log.
fn priority(level: &str) -> u8 {
    match level {
        "fatal" => 3,
        "error" => 4,
        "debug" => 7,
        _ => 6,
    }
}

/// The server and the program of its sessions, both beside this one.
fn beside() -> io::Result<(PathBuf, PathBuf)> {
    let own = env::current_exe()?;
    let dir = own.parent().unwrap_or(Path::new("/"));
    Ok((dir.join(SERVER), dir.join(SESSION)))
}

/// A file without a name that the next program finds open.
fn memory(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = fd::sealed_memory(name, bytes)?;
    fd::keep_on_exec(&file)?;
    Ok(file)
}

fn path_of(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd::number(file))
}
