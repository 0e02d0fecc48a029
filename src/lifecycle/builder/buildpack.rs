//! One buildpack: where it is, which scripts it has, and how they are run.

use super::ScriptEnv;
use md5::Digest;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// The most output that is kept of a script whose output is an answer, in bytes.
pub(super) const OUTPUT_MAX: u64 = 1 << 20;

/// A buildpack on disk.
#[derive(Clone, Debug)]
pub(super) struct Buildpack {
    /// What the order calls it.
    pub key: String,
    dir: PathBuf,
}

/// Why a script gave no success.
#[derive(Debug)]
pub(super) enum ScriptError {
    /// It ran and said no.
    Exit(ExitStatus),
    /// It could not be run.
    Start { script: &'static str, why: String },
    /// It printed more than an answer can be, or no text.
    Output { script: &'static str, why: String },
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScriptError::Exit(status) => match (status.code(), status.signal()) {
                (Some(code), _) => write!(f, "exit status {code}"),
                (None, Some(9)) => f.write_str("signal 9 (killed; out of memory?)"),
                (None, signal) => write!(f, "signal {}", signal.unwrap_or_default()),
            },
            ScriptError::Start { script, why } => write!(f, "cannot run bin/{script}: {why}"),
            ScriptError::Output { script, why } => write!(f, "output of bin/{script}: {why}"),
        }
    }
}

impl Buildpack {
    /// Finds the buildpack `key` beneath `base`, by the hash of its key.
    pub(super) fn open(base: &Path, key: &str) -> Result<Buildpack, String> {
        let md5: String =
            md5::Md5::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let dir = [crate::unit::xxh64_hex(key), md5]
            .into_iter()
            .map(|name| base.join(name))
            .find(|dir| dir.is_dir())
            .ok_or_else(|| format!("buildpack {key} is not in {}", base.display()))?;
        let dir = with_bin(dir)
            .ok_or_else(|| format!("malformed buildpack does not contain a /bin dir: {key}"))?;
        Ok(Buildpack { key: key.to_owned(), dir })
    }

    /// Whether it has the script.
    pub(super) fn has(&self, script: &str) -> bool {
        self.script(script).is_file()
    }

    /// Runs a script to its end; its output is ours.
    pub(super) fn run(
        &self,
        script: &'static str,
        args: &[&OsStr],
        env: &ScriptEnv,
    ) -> Result<(), ScriptError> {
        let status = self.command(script, args, env).status();
        match status.map_err(|err| self.start_error(script, err))? {
            status if status.success() => Ok(()),
            status => Err(ScriptError::Exit(status)),
        }
    }

    /// Runs a script to its end; its stdout is its answer.
    pub(super) fn capture(
        &self,
        script: &'static str,
        args: &[&OsStr],
        env: &ScriptEnv,
    ) -> Result<String, ScriptError> {
        let mut child = self
            .command(script, args, env)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|err| self.start_error(script, err))?;
        let broken = |why: String| ScriptError::Output { script, why };
        let mut pipe = child.stdout.take().expect("stdout is piped");
        let mut output = Vec::new();
        let read = pipe.by_ref().take(OUTPUT_MAX).read_to_end(&mut output);
        // What is too much is read all the same, so that the script can end.
        let more = io::copy(&mut pipe, &mut io::sink());
        let status = child.wait().map_err(|err| broken(err.to_string()))?;
        if !status.success() {
            return Err(ScriptError::Exit(status));
        }
        read.map_err(|err| broken(err.to_string()))?;
        match more {
            Ok(0) => {}
            Ok(_) => return Err(broken(format!("more than {OUTPUT_MAX} bytes"))),
            Err(err) => return Err(broken(err.to_string())),
        }
        String::from_utf8(output).map_err(|_| broken("it is not UTF-8".into()))
    }

    fn script(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    fn command(&self, script: &str, args: &[&OsStr], env: &ScriptEnv) -> Command {
        let mut command = Command::new(self.script(script));
        command.args(args).stdin(Stdio::null());
        for (name, value) in env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// "No such file" for a script that is there means its interpreter: say which.
    fn start_error(&self, script: &'static str, err: io::Error) -> ScriptError {
        let path = self.script(script);
        let why = match err.kind() {
            io::ErrorKind::NotFound if path.is_file() => match interpreter(&path) {
                Some(program) => format!("this stack has no {program}"),
                None => "this stack cannot run it".into(),
            },
            io::ErrorKind::NotFound => format!("buildpack {} has no such script", self.key),
            io::ErrorKind::PermissionDenied => "it is not executable; chmod +x it".into(),
            _ => err.to_string(),
        };
        ScriptError::Start { script, why }
    }
}

/// The directory that holds `bin`: `dir`, or its only subdirectory.
fn with_bin(dir: PathBuf) -> Option<PathBuf> {
    if dir.join("bin").is_dir() {
        return Some(dir);
    }
    let subs = fs::read_dir(&dir).ok()?.flatten().map(|entry| entry.path());
    let mut subs = subs.filter(|path| path.is_dir());
    match (subs.next(), subs.next()) {
        (Some(only), None) if only.join("bin").is_dir() => Some(only),
        _ => None,
    }
}

/// The program that the script's first line names.
fn interpreter(script: &Path) -> Option<String> {
    let mut line = String::new();
    BufReader::new(File::open(script).ok()?.take(256)).read_line(&mut line).ok()?;
    line.strip_prefix("#!")?.split_whitespace().next().map(str::to_owned)
}
