//! `cargo xtask tidy`: the rules of the house that the compiler does not hold.
//!
//! Rooms and arrows come from the table in `ARCHITECTURE.md`; the rest is in `rules` and `crates`.
//! The same function runs as a test of this crate.

mod crates;
mod features;
mod rooms;
mod rules;
mod source;

use crate::host;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

/// One broken rule, at its place, with the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    file: String,
    line: usize,
    rule: &'static str,
    what: String,
    cure: String,
    fatal: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.fatal { "error" } else { "warning" };
        let Finding { file, line, rule, what, cure, .. } = self;
        write!(f, "{file}:{line}: {kind}[{rule}]: {what}; {cure}")
    }
}

/// All that the rules look at.
#[derive(Clone, Default)]
struct Tree {
    /// Name from the top of the repository, and text.
    files: Vec<(String, String)>,
    architecture: String,
    decisions: String,
    manifest: String,
    lock: String,
    rows: String,
    /// Crates that the shipped program is built from.
    crates: Vec<String>,
}

/// Prints what is found; an error when any of it is fatal.
pub fn run() -> Result<()> {
    let tree = load(&host::top())?;
    let found = check(&tree);
    found.iter().for_each(|finding| eprintln!("{finding}"));
    let fatal = found.iter().filter(|finding| finding.fatal).count();
    if fatal > 0 {
        bail!("tidy: {fatal} rules are broken");
    }
    eprintln!("tidy: {} files, {} crates, all in order", tree.files.len(), tree.crates.len());
    Ok(())
}

fn check(tree: &Tree) -> Vec<Finding> {
    let table = |what: String| Finding {
        file: "ARCHITECTURE.md".to_owned(),
        line: 1,
        rule: "arrows",
        what,
        cure: "mend the table of rooms".to_owned(),
        fatal: true,
    };
    let all = match rooms::parse(&tree.architecture) {
        Ok(all) => all,
        Err(why) => return vec![table(why)],
    };
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, text) in &tree.files {
        let file = rules::File::new(name, text);
        seen.extend(file.room.map(str::to_owned));
        found.extend(rules::arrows(&file, &all));
        found.extend(rules::cards(&file));
        found.extend(rules::no_unsafe(&file));
        found.extend(rules::purity(&file));
        found.extend(rules::places(&file, &all));
        found.extend(rules::leftovers(&file));
        found.extend(rules::length(&file));
    }
    let missing = all.keys().filter(|room| !seen.contains(*room));
    found.extend(missing.map(|room| table(format!("there is no src/{room}"))));
    let unlisted = seen.iter().filter(|room| *room != "lib" && !all.contains_key(*room));
    found.extend(unlisted.map(|room| table(format!("src/{room} has no row"))));
    found.extend(features::untested(&tree.rows, &tree.files));
    found.extend(crates::banned(&tree.lock));
    found.extend(crates::cap(&tree.crates));
    found.extend(crates::reasons(&tree.manifest, &tree.decisions));
    // A group of imports on one line is one mistake.
    found.dedup();
    found
}

fn load(top: &Path) -> Result<Tree> {
    let read = |name: &str| {
        std::fs::read_to_string(top.join(name)).with_context(|| format!("cannot read {name}"))
    };
    let mut files = Vec::new();
    for folder in ["src", "tests", "xtask/src"] {
        walk(top, &top.join(folder), &mut files)?;
    }
    files.sort();
    Ok(Tree {
        files,
        architecture: read("ARCHITECTURE.md")?,
        decisions: read("DECISIONS.md")?,
        manifest: read("Cargo.toml")?,
        lock: read("Cargo.lock")?,
        rows: read(features::LIST)?,
        crates: linked()?,
    })
}

fn walk(top: &Path, folder: &Path, out: &mut Vec<(String, String)>) -> Result<()> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            walk(top, &path, out)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let name = path.strip_prefix(top).expect("the walk began at the top");
            out.push((name.display().to_string(), text));
        }
    }
    Ok(())
}

/// Crates, beside our own, that are compiled for the shipped program.
fn linked() -> Result<Vec<String>> {
    let out = host::cargo()
        .args(["tree", "--package", "terrarium", "--edges", "normal,no-proc-macro"])
        .args(["--prefix", "none", "--format", "{p}", "--target", &host::target()])
        .output()
        .context("cannot run cargo tree")?;
    if !out.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    let text = String::from_utf8_lossy(&out.stdout);
    let names = text.lines().map(|line| line.split(" (").next().unwrap_or(line).trim());
    let names: BTreeSet<&str> =
        names.filter(|name| !name.is_empty() && !name.starts_with("terrarium ")).collect();
    Ok(names.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: &str = "//! A room.\n//! Owns: a. Must not: b.\n//! Called by: c. Calls: d.\n";

    /// A small tree in perfect order.
    fn good() -> Tree {
        let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        Tree {
            files: vec![
                file("src/lib.rs", "pub mod net; pub mod sys; pub mod unit; pub mod cell;"),
                file("src/unit/mod.rs", CARD),
                file("src/sys/mod.rs", &format!("{CARD}use libc::c_int; unsafe fn f() {{}}")),
                file("src/net/mod.rs", &format!("{CARD}use crate::{{sys::fd, unit}};")),
                file("src/cell/mod.rs", &format!("{CARD}use smol::Timer;")),
            ],
            architecture: "| row | room | beside |\n|---|---|---|\n| 3 | `cell` | |\n\
                           | 2 | `net` | |\n| 1 | `sys` | |\n| 0 | `unit` | |\n"
                .to_owned(),
            decisions: "| `smol` | runtime | 32 crates |\n".to_owned(),
            manifest: "[dependencies]\n# why\nsmol = \"2\"\n\n[lints]\nx = 1\n".to_owned(),
            lock: "[[package]]\nname = \"smol\"\n".to_owned(),
            rows: String::new(),
            crates: vec!["smol v2".to_owned()],
        }
    }

    /// The findings after one file is added to the good tree, as `rule@line`.
    fn with(name: &str, text: &str) -> Vec<String> {
        let mut tree = good();
        tree.files.push((name.to_owned(), text.to_owned()));
        check(&tree).iter().map(|found| format!("{}@{}", found.rule, found.line)).collect()
    }

    #[test]
    fn the_repository_is_in_order() {
        let tree = load(&host::top()).expect("the repository can be read");
        let fatal: Vec<String> =
            check(&tree).iter().filter(|found| found.fatal).map(Finding::to_string).collect();
        assert!(fatal.is_empty(), "{}", fatal.join("\n"));
    }

    #[test]
    fn a_good_tree_passes() {
        assert_eq!(check(&good()), []);
    }

    #[test]
    fn a_finding_names_place_rule_and_cure() {
        let mut tree = good();
        tree.files.push(("src/net/x.rs".to_owned(), "\nuse crate::cell;".to_owned()));
        assert_eq!(
            check(&tree)[0].to_string(),
            "src/net/x.rs:2: error[arrows]: `net` (row 2) imports `cell` (row 3); \
             move the shared part down, or pass it in as a value"
        );
    }

    #[test]
    fn an_arrow_up_fails() {
        assert_eq!(
            with("src/net/a.rs", "use crate::unit;\nuse crate::{sys, cell::Op};"),
            ["arrows@2"]
        );
        assert_eq!(with("src/net/a.rs", "fn f() { super::super::cell::go() }"), ["arrows@1"]);
    }

    #[test]
    fn a_room_without_a_row_and_a_row_without_a_room_fail() {
        assert_eq!(with("src/attic/mod.rs", CARD), ["arrows@1"]);
        let mut tree = good();
        tree.architecture.push_str("| 4 | `ghost` | |\n");
        assert_eq!(check(&tree)[0].what, "there is no src/ghost");
        tree.architecture.clear();
        assert_eq!(check(&tree)[0].rule, "arrows");
    }

    #[test]
    fn a_room_without_its_card_fails() {
        for text in
            ["", "//! Owns: a. Must not: b. Calls: c.\n", "// Owns: Must not: Called by: Calls:"]
        {
            let mut tree = good();
            tree.files[3].1 = text.to_owned();
            assert_eq!(
                check(&tree).iter().map(|f| f.rule).collect::<Vec<_>>(),
                ["cards"],
                "{text}"
            );
        }
    }

    #[test]
    fn unsafe_outside_sys_fails() {
        assert_eq!(with("src/net/a.rs", "// unsafe\nfn f() { unsafe { g() } }"), ["unsafe@2"]);
        assert_eq!(with("src/net/a.rs", "#![allow(unsafe_code)]"), ["unsafe@1"]);
        assert_eq!(with("tests/kernel/a.rs", "unsafe fn f() {}"), ["unsafe@1"]);
        assert_eq!(with("src/net/a.rs", "const S: &str = \"unsafe\"; /* unsafe */"), [""; 0]);
    }

    #[test]
    fn a_pure_file_that_reaches_the_world_fails() {
        for bad in [
            "use std::fs;",
            "use std::{io, fs::File};",
            "use std::net::{Ipv4Addr, TcpStream};",
            "fn f() { std::env::var(\"X\"); }",
            "fn f() { Instant::now(); }",
            "fn f() { std::time::SystemTime::now(); }",
            "fn f() { File::open(p); }",
            "use std::os::unix::net::UnixStream;",
            "use rand::random;",
        ] {
            assert_eq!(with("src/net/plan.rs", bad), ["pure@1"], "{bad}");
            assert_eq!(with("src/unit/any.rs", bad), ["pure@1"], "{bad}");
            assert_eq!(with("src/net/apply.rs", bad), [""; 0], "{bad}");
        }
        assert_eq!(with("src/net/recipe/deep.rs", "use std::fs;"), ["pure@1"]);
        let golden = "#[cfg(test)]\nmod tests { use std::fs; }\nuse std::net::Ipv4Addr;";
        assert_eq!(with("src/net/plan.rs", golden), [""; 0]);
        assert_eq!(with("src/net/plan/tests.rs", "use std::fs;"), [""; 0]);
    }

    #[test]
    fn a_crate_in_the_wrong_room_fails() {
        assert_eq!(with("src/net/a.rs", "use nix::mount;"), ["places@1"]);
        assert_eq!(with("src/cell/a.rs", "\nlet x: libc::c_int = 1;"), ["places@2"]);
        assert_eq!(with("src/net/a.rs", "use netlink_sys;"), ["places@1"]);
        assert_eq!(with("src/net/a.rs", "fn f() { smol::unblock(g) }"), ["places@1"]);
        assert_eq!(with("src/net/a.rs", "use async_io::Async;"), ["places@1"]);
        assert_eq!(with("src/net/a.rs", "use redb::Database;"), ["places@1"]);
        assert_eq!(with("src/net/a.rs", "let nix = 1; // libc::x"), [""; 0]);
    }

    #[test]
    fn leftovers_fail() {
        assert_eq!(with("src/net/a.rs", "fn f() { todo!() }"), ["leftovers@1"]);
        assert_eq!(with("src/net/a.rs", "fn f() { unimplemented!() }"), ["leftovers@1"]);
        assert_eq!(with("tests/kernel/a.rs", "#[test]\n#[ignore]\nfn f() {}"), ["leftovers@2"]);
        assert_eq!(
            with("tests/e2e/a.rs", "use std::thread;\nfn f() { thread::sleep(d) }"),
            ["leftovers@2"]
        );
        let excused = "fn f() {\n// No event: v1 has none.\nloop {\nstd::thread::sleep(d) } }";
        assert_eq!(with("src/net/a.rs", excused), [""; 0]);
        assert_eq!(with("src/net/a.rs", &excused.replace("No event:", "")), ["leftovers@4"]);
        assert_eq!(with("tests/e2e/a.rs", excused), ["leftovers@4"]);
        assert_eq!(with("xtask/src/a.rs", "fn f() { std::thread::sleep(d) }"), [""; 0]);
    }

    #[test]
    fn a_long_file_is_warned_of_and_a_longer_one_fails() {
        let long = |lines| "// x\n".repeat(lines);
        let fatal = |text: &str| {
            let mut tree = good();
            tree.files.push(("src/net/a.rs".to_owned(), text.to_owned()));
            check(&tree).first().map(|found| found.fatal)
        };
        assert_eq!(fatal(&long(350)), None);
        assert_eq!(fatal(&long(351)), Some(false));
        assert_eq!(fatal(&long(601)), Some(true));
        let tested = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", long(700));
        assert_eq!(fatal(&tested), None);
        assert_eq!(with("tests/e2e/a.rs", &long(700)), [""; 0]);
    }

    #[test]
    fn too_many_banned_or_unexplained_crates_fail() {
        let mut tree = good();
        tree.lock.push_str("name = \"tokio-util\"\n");
        tree.manifest = "[dependencies]\nsmol = \"2\"\nmystery = \"1\"\n".to_owned();
        tree.crates = (0..=crates::CAP).map(|n| n.to_string()).collect();
        let found: Vec<String> = check(&tree).iter().map(Finding::to_string).collect();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("Cargo.lock:3: error[crates]: `tokio-util`"), "{}", found[0]);
        assert!(found[1].contains("built from 91 crates"), "{}", found[1]);
        assert!(found[2].starts_with("Cargo.toml:3: error[crates]: `mystery`"), "{}", found[2]);
    }
}
