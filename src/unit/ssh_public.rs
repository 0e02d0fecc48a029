//! Public keys of SSH, in the one line that OpenSSH writes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Types of keys that the server in containers takes.
const KINDS: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];
/// Longest line, in bytes: the server's own limit.
const LINE_MAX: usize = 4200;

/// The line without spaces around it, if it is `TYPE BASE64 [COMMENT]` of a type that the server in
/// containers takes; else what is wrong with it, and the cure. Options before the type are not taken.
pub fn public_line(line: &str) -> Result<&str, String> {
    let line = line.trim();
    if line.len() > LINE_MAX || line.contains(char::is_control) {
        return Err(format!("the key is not one line of at most {LINE_MAX} bytes"));
    }
    if line.contains("PRIVATE KEY") {
        return Err("the key is a private one; write the line of its .pub file".into());
    }
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    let kind = words.next().unwrap_or_default();
    if !KINDS.contains(&kind) {
        let kinds = KINDS[..2].join(", ");
        return Err(format!("the key begins with none of its types, such as {kinds}"));
    }
    let blob = words.next().and_then(|word| STANDARD.decode(word).ok()).unwrap_or_default();
    let mut named = (kind.len() as u32).to_be_bytes().to_vec();
    named.extend(kind.as_bytes());
    match blob.starts_with(&named) && blob.len() > named.len() + 32 {
        true => Ok(line),
        false => Err(format!("what follows {kind} is not such a key; copy the whole line")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_are_taken_and_others_say_why_not() {
        let blob = "AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea";
        let good = format!("ssh-ed25519 {blob} me@desk");
        assert_eq!(public_line(&format!(" {good}\n")), Ok(good.as_str()));
        for (line, why) in [
            ("", "none of its types"),
            ("ssh-dss AAAA", "none of its types"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", "a private one"),
            ("ssh-ed25519", "copy the whole line"),
            (&format!("ssh-ed25519 {}", &blob[..40]), "copy the whole line"),
            (&format!("ssh-rsa {blob}"), "copy the whole line"),
            (&format!("{good}\n{good}"), "one line"),
        ] {
            let err = public_line(line).expect_err(line);
            assert!(err.contains(why), "{line}: {err}");
        }
    }
}
