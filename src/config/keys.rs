//! A file of the box with public keys of SSH, in the form of OpenSSH's authorized_keys without options.

use crate::unit::public_line;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Longest file, in bytes: its keys are an argument of the server in a container.
const FILE_MAX: u64 = 64 << 10;
/// Opening waits for nobody, and no terminal becomes ours: asm-generic/fcntl.h, the same on every
/// architecture that this program runs on.
const O_NONBLOCK: i32 = 0o4000;
const O_NOCTTY: i32 = 0o400;
/// Keys of one file.
const KEYS_MAX: usize = 256;

/// What such a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Good lines, in their order.
    pub lines: Vec<String>,
    /// What is wrong with the others: `line 3: ...`.
    pub wrong: Vec<String>,
}

/// Reads the file at `path`, links followed. `Err`: why nobody comes in by it, and what to do. Blocking.
pub fn read(path: &Path) -> Result<Keys, (String, String)> {
    let shown = path.display();
    let unread = |err: std::io::Error| (format!("{shown} cannot be read"), err.to_string());
    // What is looked at is what was opened: whoever can write there may put a fifo in its place between
    // the two, and who opens that waits for its other end.
    let mut options = File::options();
    let file = options.read(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path).map_err(unread)?;
    let meta = file.metadata().map_err(unread)?;
    if !meta.is_file() {
        return Err((format!("{shown} is not a file"), "name one".into()));
    }
    if meta.mode() & 0o022 != 0 {
        let what = format!("{shown} may be written by others than its owner");
        return Err((what, format!("chmod go-w {shown}")));
    }
    let mut text = Vec::new();
    // Some of the kernel's own files have no length and no end.
    file.take(meta.len().min(FILE_MAX + 1)).read_to_end(&mut text).map_err(unread)?;
    if text.len() as u64 > FILE_MAX {
        let what = format!("{shown} has more than {} KiB", FILE_MAX >> 10);
        return Err((what, "give the app a file of its own".into()));
    }
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// The keys of a text; empty lines and those that begin with `#` are none.
pub fn parse(text: &str) -> Keys {
    let mut keys = Keys::default();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match public_line(line) {
            Ok(_) if keys.lines.len() >= KEYS_MAX => {
                keys.wrong.push(format!("line {number}: more than {KEYS_MAX} keys"));
                break;
            }
            Ok(line) => keys.lines.push(line.to_owned()),
            Err(why) => keys.wrong.push(format!("line {number}: {why}")),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea me";

    #[test]
    fn good_lines_are_taken_and_the_others_named_by_their_number() {
        let text = format!("# ops\n\n{KEY}\nno-pty {KEY}\n  {KEY} \r\n");
        let keys = parse(&text);
        assert_eq!(keys.lines, [KEY, KEY]);
        assert_eq!(keys.wrong.len(), 1);
        assert!(keys.wrong[0].starts_with("line 4: the key begins with none"), "{:?}", keys.wrong);
        let many = parse(&format!("{KEY}\n").repeat(KEYS_MAX + 2));
        assert_eq!(many.lines.len(), KEYS_MAX);
        assert_eq!(many.wrong, ["line 257: more than 256 keys"]);
    }

    #[test]
    fn a_file_that_others_write_or_that_is_none_lets_nobody_in() {
        let dir = std::env::temp_dir().join(format!("terrarium-keys-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("directory");
        let file = dir.join("keys");
        fs::write(&file, KEY).expect("file");
        let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode));
        mode(0o644).expect("mode");
        assert_eq!(read(&file).expect("good").lines, [KEY]);
        mode(0o664).expect("mode");
        let told = read(&file).expect_err("others write it");
        assert!(told.0.contains("others than its owner") && told.1.contains("chmod"), "{told:?}");
        mode(0o644).expect("mode");
        fs::write(&file, "#".repeat(FILE_MAX as usize + 1)).expect("file");
        assert!(read(&file).expect_err("too long").0.contains("64 KiB"));
        assert!(read(&dir).expect_err("a directory").0.contains("not a file"));
        // Opened first and looked at then: an open that waited would wait here, for ever.
        let fifo = dir.join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
        assert!(made.success());
        assert!(read(&fifo).expect_err("a fifo").0.contains("not a file"));
        assert!(read(&dir.join("none")).expect_err("missing").0.contains("cannot be read"));
        fs::remove_dir_all(dir).expect("clean up");
    }
}
