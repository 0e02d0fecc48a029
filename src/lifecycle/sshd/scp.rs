//! The side of `scp -O` that runs here: in a container that has no `scp`, and need not have a shell.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The words after `scp` of a command that a client's `scp` sends: its flags, among them `-t` (to
/// here) or `-f` (from here), and one path or several. `None`: it is another command.
///
/// A shell is left to read them, with its patterns and quotes; without one they end at spaces.
pub(super) fn words(command: &OsStr, has_shell: bool) -> Option<Vec<OsString>> {
    let rest = command.as_bytes().strip_prefix(b"scp ")?;
    let mut words = rest.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let flags = words.clone().take_while(|word| word.starts_with(b"-"));
    if !flags.clone().any(|flag| flag == b"-t" || flag == b"-f") {
        return None;
    }
    match has_shell {
        true => Some(vec![OsStr::from_bytes(rest).to_owned()]),
        false => Some(words.by_ref().map(|word| OsStr::from_bytes(word).to_owned()).collect()),
    }
}

/// The server's own `scp`, which is a name that its program goes by.
pub(super) fn program(words: &[OsString], shell: Option<PathBuf>) -> Command {
    let own = env::current_exe().unwrap_or_default();
    let server = own.parent().unwrap_or(Path::new("/")).join(super::SERVER);
    let Some(shell) = shell else {
        let mut child = Command::new(server);
        child.arg("scp").args(words);
        return child;
    };
    let mut line = OsString::from("exec \"$0\" scp ");
    line.extend(words.iter().map(OsString::as_os_str));
    let mut child = Command::new(shell);
    child.arg("-c").arg(line).arg(server);
    child
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_far_side_of_scp_is_taken() {
        let whole = |command: &str| words(OsStr::new(command), true);
        assert_eq!(whole("scp -r -p -t 'a b'"), Some(vec!["-r -p -t 'a b'".into()]));
        assert_eq!(whole("scp -f -- *.txt"), Some(vec!["-f -- *.txt".into()]));
        for other in ["scp a host:b", "scpx -t a", "scp", "ls -t", "scp a -t"] {
            assert_eq!(whole(other), None, "{other}");
        }
        let split = words(OsStr::new("scp  -t  a"), false).expect("scp");
        assert_eq!(split, ["-t", "a"]);
    }
}
