//! Whether a start command names a program that is not there or cannot be executed, as far as that can be
//! known before its shell has begun: then the app has never run, which its health check alone would not tell.

use super::handover::Handover;
use crate::model::process::LAUNCH_NO_INTERPRETER;
use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What POSIX shells and bash do themselves; of these nothing is looked for.
const BUILTINS: [&str; 50] = [
    ".", ":", "[", "alias", "bg", "break", "builtin", "case", "cd", "command", "continue",
    "coproc", "declare", "echo", "enable", "eval", "exec", "exit", "export", "false", "fg", "for",
    "function", "getopts", "hash", "if", "jobs", "kill", "let", "local", "printf", "pwd", "read",
    "readonly", "return", "select", "set", "shift", "source", "test", "time", "trap", "true",
    "type", "ulimit", "umask", "unset", "until", "wait", "while",
];

/// ENOENT and EACCES of asm-generic/errno-base.h, by which exec would fail.
const NO_ENTRY: i32 = 2;
const NO_ACCESS: i32 = 13;

/// The program that a command of nothing but plain words begins with. `None`: a shell may make
/// anything of it.
fn program(command: &str) -> Option<&str> {
    // Whatever is none of these may be quoting, a variable, a list, a pipe, a redirection, a pattern.
    let plain = |it: char| it.is_ascii_alphanumeric() || " \t_-./:,+@%=".contains(it);
    let first = command.split_whitespace().next().filter(|_| command.chars().all(plain))?;
    (!BUILTINS.contains(&first) && !first.contains('=')).then_some(first)
}

/// Bytes of a script in which the kernel looks for its interpreter: BINPRM_BUF_SIZE of linux/binfmts.h.
const FIRST_LINE: u64 = 256;

/// Whether `program` can be executed from `dir`; the error is the errno that tells most.
fn look(program: &str, dir: &Path, path: &OsStr) -> Result<(), i32> {
    let places: Vec<PathBuf> = match program.contains('/') {
        true => vec![dir.join(program)],
        false => env::split_paths(path).map(|place| dir.join(place).join(program)).collect(),
    };
    let mut worst = NO_ENTRY;
    for place in places {
        match place.metadata() {
            Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => {
                match lacks_interpreter(&place, dir) {
                    true => worst = LAUNCH_NO_INTERPRETER,
                    false => return Ok(()),
                }
            }
            Ok(_) => worst = NO_ACCESS,
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) if err.kind() == io::ErrorKind::NotADirectory => {}
            // It cannot be known: the shell will see.
            Err(_) => return Ok(()),
        }
    }
    Err(worst)
}

/// Whether a file is a script of something that is not there. What cannot be read, the kernel may know.
fn lacks_interpreter(script: &Path, dir: &Path) -> bool {
    let mut begin = Vec::new();
    if File::open(script).and_then(|it| it.take(FIRST_LINE).read_to_end(&mut begin)).is_err() {
        return false;
    }
    let line = begin.strip_prefix(b"#!").and_then(|rest| rest.split(|it| *it == b'\n').next());
    let words = line.map(|line| line.split(|it| matches!(it, b' ' | b'\t')));
    let Some(word) = words.and_then(|mut words| words.find(|word| !word.is_empty())) else {
        return false;
    };
    let looked = dir.join(OsStr::from_bytes(word)).metadata();
    looked.is_err_and(|err| err.kind() == io::ErrorKind::NotFound)
}

/// Tells, and says, that the command's program cannot be executed. Then there is nothing to launch.
pub(super) fn tell(command: &OsStr, dir: &Path, handover: &Handover) -> Option<String> {
    let program = program(command.to_str()?)?;
    let number = look(program, dir, &env::var_os("PATH")?).err()?;
    handover.failed(number, program.as_bytes());
    Some(match number {
        LAUNCH_NO_INTERPRETER => "the interpreter that its first line names is not there".into(),
        number => io::Error::from_raw_os_error(number).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_words_name_a_program() {
        for (command, found) in [
            ("python web.py --port=80", Some("python")),
            ("  ./bin/web", Some("./bin/web")),
            ("A=b web", None),
            ("exec web", None),
            ("cd x && web", None),
            ("web | tee", None),
            ("$HOME/web", None),
            ("'web'", None),
            ("web &", None),
            ("~/web", None),
            ("", None),
        ] {
            assert_eq!(program(command), found, "{command}");
        }
    }

    #[test]
    fn what_is_there_and_executable_is_found() {
        let path = OsStr::new("/bin:/usr/bin");
        let look = |program: &str, dir: &str| look(program, Path::new(dir), path);
        assert_eq!((look("sh", "/"), look("./sh", "/bin")), (Ok(()), Ok(())));
        assert_eq!(look("surely-not-there", "/"), Err(NO_ENTRY));
        assert_eq!(look("etc/passwd", "/"), Err(NO_ACCESS));
        assert_eq!(look("etc/passwd/x", "/"), Err(NO_ENTRY));
    }

    #[test]
    fn a_script_needs_what_its_first_line_names() {
        let dir = env::temp_dir().join(format!("missing-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("directory");
        std::fs::write(dir.join("own"), "").expect("write");
        let mut looked = Vec::new();
        for first in ["#!/bin/sh -e\nx", "#! /no/such x\n", "#!own", "#!other", "#!\n", "x", ""] {
            let script = dir.join("script");
            std::fs::write(&script, first).expect("write");
            let runs = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&script, runs).expect("mode");
            looked.push((first, look("./script", &dir, OsStr::new("")).err()));
        }
        std::fs::remove_dir_all(&dir).expect("clean");
        let lacks = Some(LAUNCH_NO_INTERPRETER);
        let found: Vec<_> = looked.iter().filter(|it| it.1.is_some()).collect();
        assert_eq!(found, [&("#! /no/such x\n", lacks), &("#!other", lacks)], "{looked:?}");
    }
}
