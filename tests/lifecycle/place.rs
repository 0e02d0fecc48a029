//! A directory for one test, and the programs run in it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that is removed with everything in it.
pub struct Place(PathBuf);

impl Place {
    pub fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("lifecycle-{}-{number}", std::process::id()));
        fs::create_dir(&dir).expect("a fresh directory");
        fs::create_dir(dir.join("tmp")).expect("its temporary directory");
        Place(dir)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("a directory");
        path
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it lies in the place")).expect("its directory");
        fs::write(&path, text).expect("a file");
        path
    }

    pub fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.write(name, format!("#!/bin/sh\n{body}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        path
    }

    pub fn read(&self, name: &str) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
    }

    pub fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_str(&self.read(name)).expect("JSON")
    }

    /// The program `role`, to be run in this place with nothing in its environment but PATH.
    pub fn role(&self, role: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrarium"));
        command
            .args(["lifecycle", role])
            .current_dir(&self.0)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TMPDIR", self.path("tmp"))
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    #[track_caller]
    pub fn ok(self) -> Said {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    #[track_caller]
    pub fn fails(self, code: i32, text: &str) -> Said {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(self.err.contains(text), "`{text}` is missing in {self:#?}");
        self
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Said {
    let output = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// What another program prints; it has to succeed.
#[track_caller]
pub fn tool(program: &str, args: &[&OsStr], dir: &Path) -> String {
    run(Command::new(program).args(args).current_dir(dir)).ok().out
}

/// The names in an archive, by the system's own tar.
pub fn listing(archive: &Path) -> Vec<String> {
    let out = tool("tar", &[OsStr::new("-tzf"), archive.as_os_str()], Path::new("/"));
    out.lines().map(|line| line.trim_end_matches('/').to_owned()).collect()
}
