//! `ssh-session [-c COMMAND]`: what a session of the SSH server runs.
//!
//! The server calls it as it would call a login shell. A shell, a command in a shell, one side of
//! `scp`, or the server's side of `sftp`: the last needs no shell in the container.

use super::scp;
use crate::lifecycle::sftp;
use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// Shells in the order in which they are tried, as Diego's server does it.
const SHELLS: [&str; 3] = ["/bin/bash", "/usr/local/bin/bash", "/bin/sh"];
/// What the server calls the subsystem `sftp`.
const SFTP: &[u8] = b"sftp-server";
/// Exit code of what could not even begin, Diego's.
const NOT_BEGUN: u8 = 255;

/// The role: returns when the session ends, or cannot begin.
pub(in crate::lifecycle) fn run(args: &[OsString]) -> Result<(), u8> {
    let command = match args {
        [] => None,
        [flag, command] if flag == "-c" => Some(command),
        _ => {
            complain!("usage: ssh-session [-c COMMAND]");
            return Err(NOT_BEGUN);
        }
    };
    if command.is_some_and(|command| command.as_bytes() == SFTP) {
        return sftp::serve();
    }
    let shell = shell();
    if let Some(words) = command.and_then(|command| scp::words(command, shell.is_some())) {
        return become_it(&mut scp::program(&words, shell));
    }
    let Some(shell) = shell else {
        complain!("ssh: this container has no shell; sftp and scp work without one");
        return Err(NOT_BEGUN);
    };
    let mut child = Command::new(&shell);
    child.env("SHELL", &shell);
    if let Some(command) = command {
        child.arg("-c").arg(command);
    }
    become_it(&mut child)
}

/// Without what was between the server and us.
fn become_it(child: &mut Command) -> Result<(), u8> {
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"SSHD_")) {
        child.env_remove(name);
    }
    let err = child.exec();
    complain!("ssh: cannot execute {}: {err}", child.get_program().display());
    Err(NOT_BEGUN)
}

/// The best shell that the container has.
fn shell() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let more = ["bash", "sh"].into_iter().flat_map(|name| {
        env::split_paths(&path).map(move |dir| dir.join(OsStr::new(name))).collect::<Vec<_>>()
    });
    SHELLS.into_iter().map(PathBuf::from).chain(more).find(|shell| shell.is_file())
}
