//! What cf lets an app say and a manifest of ours cannot: it is left out, until `check` takes the rest, and
//! goes onto the list. Pure.

use super::{Imported, Mistake, Note};
use crate::config::{Diagnostic, manifest};
use std::path::Path;

/// Keys without which there is no app.
const NEEDED: [&str; 3] = ["name", "path", "ref"];

/// `one` as far as it is a manifest of ours.
pub fn fit(mut one: Imported) -> Result<Imported, Mistake> {
    // Each round takes at least a line away.
    for _ in 0..=one.text.lines().count() {
        let bad = match manifest::parse(&one.text, "x.toml", Path::new("/")) {
            Ok(_) => break,
            Err(bad) => bad,
        };
        let Some(first) = bad.iter().find(|it| !it.warning) else { break };
        let Some(rest) = without(&one.text, first.line) else {
            let cure = first.cure.clone().unwrap_or_else(|| "mend it".into());
            return Err(Mistake::new(one.line, first.message.clone(), cure));
        };
        one.notes.push(Note { line: one.line, what: format!("{}; it is left out", said(first)) });
        one.text = rest;
    }
    Ok(one)
}

/// A finding in one line.
pub fn said(found: &Diagnostic) -> String {
    let cure = found.cure.as_ref().map(|cure| format!(" ({cure})")).unwrap_or_default();
    format!("{}{cure}", found.message)
}

/// `text` without what stands in `line`, from 1: a key, or a whole table whose head it is. `None`: it has to
/// be there.
fn without(text: &str, line: usize) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let at = line.checked_sub(1).filter(|at| *at < lines.len())?;
    let is_head = |line: &&&str| line.starts_with('[');
    let end = match lines[at].split_once(" = ") {
        _ if is_head(&&lines[at]) => {
            at + 1 + lines[at + 1..].iter().take_while(|line| !is_head(line)).count()
        }
        Some((key, _)) if !NEEDED.contains(&key) || is_below_env(&lines[..at]) => at + 1,
        _ => return None,
    };
    let rest = lines[..at].iter().chain(&lines[end..]);
    Some(rest.map(|line| format!("{line}\n")).collect())
}

/// There keys are names of variables, whatever they are.
fn is_below_env(before: &[&str]) -> bool {
    before.iter().rev().find(|line| line.starts_with('[')) == Some(&"[env]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imported(text: &str) -> Imported {
        let name = "a".parse().expect("name");
        let (text, notes) = (text.to_owned(), Vec::new());
        Imported { name, text, notes, has_port: false, named: None, line: 3 }
    }

    #[test]
    fn what_check_would_refuse_is_left_out_and_told() {
        let text = "name = \"a\"\n\n[source]\npath = \"/a\"\n\n[run]\ninstances = 99999\nmemory = \"64MiB\"\n\n\
                    [[port]]\ncontainer = 8080\n\n[sidecar.relay]\ncommand = \"x\"\nmemory = \"64MiB\"\n\n\
                    [sidecar.-]\ncommand = \"y\"\n\n[env]\nname = \"b\"\n";
        let one = fit(imported(text)).expect("an app");
        let it = manifest::parse(&one.text, "x", Path::new("/")).expect("a manifest");
        assert_eq!((it.run.instances, it.run.memory.as_mib()), (1, 64));
        assert_eq!(
            (it.sidecars.len(), it.sidecars["relay"].memory, &*it.env["name"]),
            (1, None, "b")
        );
        let told: Vec<&str> = one.notes.iter().map(|note| note.what.as_str()).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        let all = told.join("\n");
        for what in [
            "`run.instances` is 99999, out of range (0 to 1000); it is left out",
            "`sidecar.relay.memory` is as much as process `web` has, 64MiB",
            "sidecar `-` is not good",
        ] {
            assert!(all.contains(what), "{what}\n{all}");
        }
        assert!(one.notes.iter().all(|note| note.line == 3));
        // What is right stays as it is, and what cannot be without something is a mistake.
        let good = "name = \"a\"\n\n[source]\npath = \"/a\"\n";
        assert_eq!(fit(imported(good)), Ok(imported(good)));
        let err = fit(imported("name = \"a\"\n\n[source]\npath = \"\"\n")).expect_err("no path");
        assert_eq!((err.line, &*err.what), (3, "`source.path` is empty"));
    }
}
