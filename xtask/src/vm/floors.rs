//! Which tests run in the guest, and how they get there.

use super::guest::Guest;
use super::parcel;
use crate::test::Count;
use crate::{host, rootfs};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// All tests of one floor.
const TESTS: Duration = Duration::from_secs(60 * 60);

/// One test target of the program and what it needs in the guest.
#[derive(Debug, PartialEq, Eq)]
pub struct Floor {
    /// Of the target, `tests/<name>`.
    pub name: &'static str,
    /// For a person.
    pub what: &'static str,
    /// Built by `cargo xtask rootfs`.
    stacks: &'static [&'static str],
    /// What runs when nobody asks for something else: parts of tests' names; empty for all.
    smoke: &'static [&'static str],
}

/// From below. A new floor is one more entry.
pub const ALL: [Floor; 3] = [
    Floor {
        name: "kernel",
        what: "rooms against the guest's kernel, all of it",
        stacks: &["tiny"],
        smoke: &[],
    },
    Floor {
        name: "e2e",
        what: "the whole program, a smoke run",
        stacks: &["tiny"],
        smoke: &[
            "cli::exec_gives_the_commands_own_exit_code_and_streams",
            "isolation::even_root_inside_cannot_reach_the_box",
            "isolation::undeclared_egress_is_refused",
            "limits::disk_quota_stops_at_the_limit",
            "limits::fork_bomb_is_contained",
            "limits::memory_limit_kills_only_the_app",
            "running::apps_survive_a_restart_of_the_daemon",
            "running::two_instances_answer_on_their_ports",
        ],
    },
    Floor {
        name: "garden",
        what: "Garden's wire protocol, a smoke run",
        stacks: &["tiny"],
        smoke: &[
            "api::the_box_says_what_it_has",
            "attach::everything_is_there_after_the_daemon_was_killed",
            "files::what_goes_in_belongs_to_the_user_and_comes_out_the_same",
            "life::a_stop_gives_term_and_then_kill",
            "limits::",
            "net::a_mapped_port_is_reached_at_the_external_address",
            "net::rules_open_what_the_box_denies",
            "process::exit_statuses_are_those_of_the_process",
            "process::resource_limits_are_soft_and_hard_alike",
            "streams::a_run_is_as_in_the_transcripts",
        ],
    },
];

/// The floors that a word of the command line stands for.
///
/// Errors: there is no such floor, or it has no tests in this checkout.
pub fn chosen(name: &str) -> Result<Vec<&'static Floor>> {
    let exists = |floor: &Floor| host::top().join("tests").join(floor.name).is_dir();
    if name == "all" {
        return Ok(ALL.iter().filter(|floor| exists(floor)).collect());
    }
    let names = ALL.map(|floor| floor.name).join(", ");
    let floor = ALL
        .iter()
        .find(|floor| floor.name == name)
        .with_context(|| format!("no such floor of tests: {name}; there are {names}, all"))?;
    if !exists(floor) {
        bail!("there is no tests/{name} yet");
    }
    Ok(vec![floor])
}

/// A floor and its compiled tests.
pub struct Suite {
    floor: &'static Floor,
    stacks: Vec<String>,
    tests: PathBuf,
    program: PathBuf,
}

/// Compiles the tests of the floors, static, and builds what they need.
pub fn compile(floors: &[&'static Floor]) -> Result<Vec<Suite>> {
    let program = host::build(false)?;
    // The same word as for `cargo xtask test e2e`, for who wants more than the smoke run.
    let more = std::env::var("TERRARIUM_E2E_STACKS").unwrap_or_default();
    let suite = |floor: &&'static Floor| {
        let stacks = floor.stacks.iter().copied().chain(more.split_whitespace());
        let stacks: Vec<String> = stacks.map(str::to_owned).collect();
        for stack in &stacks {
            rootfs::run(stack, rootfs::Mode::WhenNeeded)?;
        }
        let mut cargo = host::cargo();
        cargo.args(["test", "--package", "terrarium", "--no-run", "--target", &host::target()]);
        cargo.args(["--test", floor.name, "--message-format=json-render-diagnostics"]);
        let messages = host::capture(cargo.stderr(Stdio::inherit()))?;
        let tests = executable(&messages, floor.name)
            .with_context(|| format!("cargo has built no tests/{}", floor.name))?;
        crate::elf::need_static(&tests)?;
        Ok(Suite { floor, stacks, tests, program: program.clone() })
    };
    floors.iter().map(suite).collect()
}

/// The program of a test target, as cargo's messages name it: one JSON document a line.
fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
    let mut built = messages.filter(|message: &serde_json::Value| {
        let kinds = message["target"]["kind"].as_array();
        let is_test = kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "test"));
        is_test && message["target"]["name"] == target
    });
    built.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// Runs the suites in the guest, all of them, and fails when any did.
pub fn run(guest: &Guest, suites: &[Suite], filters: &[&str]) -> Result<()> {
    send(guest, suites)?;
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for suite in suites {
        let begun = Instant::now();
        let mut count = Count::default();
        let result = one(guest, suite, filters, &mut count);
        let (name, seconds) = (suite.floor.name, begun.elapsed().as_secs());
        let Count { passed, failed: broken } = count;
        lines.push(format!("vm {name}: {passed} passed, {broken} failed, {seconds} s"));
        if let Err(err) = result {
            lines.push(format!("vm {name}: {err:#}"));
            failed.push(name);
        }
    }
    println!("{}", lines.join("\n"));
    if !failed.is_empty() {
        bail!("{} failed in the guest", failed.join(", "));
    }
    Ok(())
}

/// Brings the program, its tests and what they compare with, the stacks and the samples.
fn send(guest: &Guest, suites: &[Suite]) -> Result<()> {
    let begun = Instant::now();
    let mut paths = ["config", "tests/golden"].map(|dir| host::top().join(dir)).to_vec();
    for suite in suites {
        paths.extend([suite.program.clone(), suite.tests.clone()]);
        for stack in &suite.stacks {
            let file = |end: &str| rootfs::output().join(format!("{stack}.{end}"));
            paths.extend([file("tar.zst"), file("digest")]);
        }
    }
    paths.sort();
    paths.dedup();
    // A round before this one, in the same guest, may have lost its connection; and tests may take
    // every stack that is there, so it must leave none.
    let stop = "systemctl --quiet stop terrarium-test.service 2>/dev/null";
    guest.ok(&format!("{stop}; rm -rf {}", quoted(&rootfs::output())))?;
    parcel::send(guest, &paths)?;
    eprintln!("vm: files brought in {:.1} s", begun.elapsed().as_secs_f32());
    Ok(())
}

fn one(guest: &Guest, suite: &Suite, filters: &[&str], count: &mut Count) -> Result<()> {
    let filters = if filters.is_empty() { suite.floor.smoke } else { filters };
    let script = script(suite, filters);
    let status = guest.follow(&script, TESTS + Duration::from_secs(60), |line| {
        println!("{line}");
        // The last one counts: a failed test may show the closing line of a run of its own.
        if line.starts_with("test result: ") {
            *count = Count::default();
        }
        count.add(line);
    })?;
    if !status.success() {
        bail!("tests/{} ended with {status}", suite.floor.name);
    }
    if *count == Count::default() {
        bail!("no test of tests/{} has run: {}", suite.floor.name, filters.join(" "));
    }
    Ok(())
}

/// The line that runs a suite: as a service with the rights of the shipped unit, so that systemd
/// ends what it leaves, also when the connection breaks.
fn script(suite: &Suite, filters: &[&str]) -> String {
    let mut line = String::from("systemd-run --quiet --pipe --wait --collect");
    line += " --unit=terrarium-test --working-directory=/";
    let limit = TESTS.as_secs();
    line += " --property=Delegate=yes --property=TasksMax=infinity";
    line += " --property=LimitNOFILE=1048576 --property=TimeoutStopSec=10";
    line += &format!(" --property=RuntimeMaxSec={limit}");
    let variables = [("TERRARIUM_BIN", &suite.program), ("TERRARIUM_STACKS", &rootfs::output())];
    for (name, value) in variables {
        line += &format!(" --setenv={name}={}", quoted(value));
    }
    line += &format!(" {} --test-threads=2", quoted(&suite.tests));
    for filter in filters {
        line += &format!(" {}", quoted(Path::new(filter)));
    }
    line
}

/// A word of a shell line.
fn quoted(word: &Path) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_program_is_picked_from_cargos_messages() {
        let message = |kind: &str, name: &str, file: &str| {
            format!(
                "{{\"target\":{{\"kind\":[\"{kind}\"],\"name\":\"{name}\"}},\"executable\":{file}}}\n"
            )
        };
        let text = message("lib", "kernel", "null")
            + "no JSON\n"
            + &message("test", "e2e", "\"/x/e2e-1\"")
            + &message("test", "kernel", "\"/x/kernel-1\"");
        assert_eq!(executable(&text, "kernel"), Some(PathBuf::from("/x/kernel-1")));
        assert_eq!(executable(&text, "garden"), None);
    }

    #[test]
    fn every_word_of_a_persons_filter_stays_one_word() {
        assert_eq!(quoted(Path::new("a b; c'd")), r"'a b; c'\''d'");
    }

    #[test]
    fn a_floor_is_named_or_refused() {
        assert_eq!(chosen("kernel").expect("it exists"), [&ALL[0]]);
        assert!(chosen("all").expect("some exist").len() >= 2);
        let err = chosen("x").expect_err("there is none");
        assert_eq!(
            err.to_string(),
            "no such floor of tests: x; there are kernel, e2e, garden, all"
        );
    }
}
