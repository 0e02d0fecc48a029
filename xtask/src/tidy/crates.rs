//! Rules over the crates that are linked in: how many, which never, and a reason for each.

use super::Finding;

/// The most crates that the shipped program may be built from.
pub const CAP: usize = 90;

/// Never in the tree, by the beginning of their names: a second runtime, a C TLS library.
const BANNED: [&str; 5] = ["tokio", "openssl", "native-tls", "async-std", "aws-lc"];

/// `Cargo.lock` names no banned crate.
pub fn banned(lock: &str) -> Vec<Finding> {
    let named = lock.lines().enumerate().filter_map(|(at, line)| {
        let name = line.strip_prefix("name = \"")?.strip_suffix('"')?;
        BANNED.iter().any(|bad| name.starts_with(bad)).then_some((at + 1, name))
    });
    named
        .map(|(line, name)| Finding {
            file: "Cargo.lock".to_owned(),
            line,
            rule: "crates",
            what: format!("`{name}` is in the tree"),
            cure: format!("`cargo tree -i {name}` shows who brings it; leave that feature out"),
            fatal: true,
        })
        .collect()
}

/// The shipped program stays below the cap.
pub fn cap(names: &[String]) -> Option<Finding> {
    (names.len() > CAP).then(|| Finding {
        file: "Cargo.toml".to_owned(),
        line: 1,
        rule: "crates",
        what: format!("the program is built from {} crates, the cap is {CAP}", names.len()),
        cure: "drop a dependency or a feature; `cargo tree` shows the heavy branch".to_owned(),
        fatal: true,
    })
}

/// Every direct dependency has its row in `DECISIONS.md`.
pub fn reasons(manifest: &str, decisions: &str) -> Vec<Finding> {
    let mut section = "";
    let mut found = Vec::new();
    for (at, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            section = line.trim();
        } else if section == "[dependencies]" {
            let Some((name, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) else {
                continue;
            };
            let name = name.trim();
            if !decisions.lines().any(|row| row.starts_with(&format!("| `{name}` |"))) {
                found.push(Finding {
                    file: "Cargo.toml".to_owned(),
                    line: at + 1,
                    rule: "crates",
                    what: format!("`{name}` has no row in DECISIONS.md"),
                    cure: format!("say why and at what price: \"| `{name}` | why | price |\""),
                    fatal: true,
                });
            }
        }
    }
    found
}
