//! The programs that run inside containers, all from this one binary, picked by their name.
//!
//! Owns: staging with buildpacks, starting an app, health checks, SSH and SFTP, trees to and from tar
//! streams (an app's, and those of Garden's clients: D17), the archives of these programs.
//! Must not: use smol, unsafe or the daemon's state; trust archives, buildpacks or apps; write
//! anywhere but where its arguments say.
//! Called by: `main` (the roles, two of them started by `container`), `exec` and `cell` ([`pack`]). Calls: `sys`, `model`, `unit`, `log` (chains only).
//! Entry points: [`run`], [`stage_image`], [`ROLES`], [`pack::pack_dir`], [`pack::tree_digest`], [`form::to_tar`],
//! [`survey`], [`ssh_key::SshKey`], [`archive::ensure`].
//! Ancestor: buildpack_app_lifecycle, docker_app_lifecycle, and the tar that garden ran inside.

/// Prints a line on stdout; that nobody reads it is no reason to stop.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// Prints a line on stderr.
macro_rules! complain {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

pub mod archive;
mod builder;
mod cat_file;
mod docker;
mod docker_builder;
mod error;
mod flags;
pub mod form;
mod handover;
pub mod healthcheck;
mod launcher;
mod missing;
mod notify;
pub mod pack;
mod sftp;
mod shell;
pub mod ssh_key;
mod sshd;
mod tar_out;
mod unpack;
mod untar;
mod vcap;
mod walk;
pub mod yaml;

pub use docker_builder::{Wanted, stage_image};
pub use error::LifecycleError;
pub use sshd::SERVER as SSH_SERVER;
pub use unpack::unpack_source;
pub use walk::{Survey, survey};

use std::ffi::OsString;
use std::process::ExitCode;

/// The names that [`run`] knows: links of these names lie beside the binary in `/tmp/lifecycle`.
pub const ROLES: [&str; 11] = [
    "builder",
    "cat-file",
    "diego-sshd",
    "docker-launcher",
    "healthcheck",
    "launcher",
    "make-dirs",
    "notify",
    "shell",
    "ssh-session",
    "untar",
];

/// More names that [`run`] knows: those that are started without any file in the container, see
/// [`crate::model::process::Program::Ours`].
pub const INNER_ROLES: [&str; 3] = ["archive", "tar-in", "tar-out"];

/// Runs the program `role` with `args` (without its own name); `None` when there is no such role.
///
/// `launcher` and `docker-launcher` return only when they fail: otherwise the app has taken their
/// place.
pub fn run(role: &str, args: &[OsString]) -> Option<ExitCode> {
    let result = match role {
        "archive" => archive::run(args),
        "builder" => builder::run(args),
        "cat-file" => cat_file::run(args),
        "diego-sshd" => sshd::run(args),
        "docker-launcher" => docker::run(args),
        "healthcheck" => healthcheck::run(args),
        "launcher" => launcher::run(args),
        "make-dirs" => docker::make_dirs(args),
        "notify" => notify::run(args),
        "shell" => shell::run(args),
        "ssh-session" => sshd::session::run(args),
        "tar-in" => untar::tar_in(args),
        "tar-out" => tar_out::run(args),
        "untar" => untar::run(args),
        _ => return None,
    };
    Some(result.map_or_else(ExitCode::from, |()| ExitCode::SUCCESS))
}
