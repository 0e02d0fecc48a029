//! `cargo xtask bench garden`: what a client of Garden's protocol waits for. A daemon in mounts,
//! process ids and a network of its own is asked over its unix socket to create, run `echo` and
//! destroy, while 1, 50, 100 and 250 other containers are there, each with a process that lives.
//!
//! Times are the client's: from connecting to the last byte of the answer, for `run` to the first
//! byte of output on the third connection. Peers are measured as [`super`] does it, with no other
//! container there.

mod client;
mod table;

use super::{CALM, Figures, PEERS, SETTLE};
use crate::machine::{self, State};
use crate::{demo, host, rootfs};
use anyhow::{Context, Result, ensure};
use client::Client;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Also the name of its directory below `target`, and the end of its control groups' parent.
const CHORE: &str = "gbench";
const CGROUPS: &str = "terrarium-gbench";

/// Containers that stand while others come and go.
const LEVELS: [usize; 4] = [1, 50, 100, 250];

/// Rounds of each level: a p99 of fewer is the worst.
const ROUNDS: usize = 100;

/// Containers that stand when the memory of the daemon at rest is measured.
const AT_REST: usize = 10;

/// Containers that are made and removed by several clients at once, and how many clients.
const TOGETHER: usize = 80;
const IN_FLIGHT: usize = 8;

/// Containers that stand when the daemon is killed and started again, and how often it is.
const AT_RESTART: usize = 100;
const RESTARTS: usize = 5;

/// A daemon that has been started is asked so often.
const ASK_AGAIN: Duration = Duration::from_millis(1);

/// What follows a start, or many creations, in the background has so long, as no event tells its end.
const REST: Duration = Duration::from_secs(2);

/// Where the daemon tells how long its steps have taken; only its own network sees it.
const DEBUG_PORT: u16 = 17_013;

/// What was measured while so many containers stood.
#[derive(Debug, Default)]
pub struct Level {
    present: usize,
    create_us: Vec<u64>,
    run_us: Vec<u64>,
    destroy_us: Vec<u64>,
    /// Mean of each step of a creation, in the daemon's own words, and of all of it.
    steps_us: BTreeMap<String, u64>,
    made_us: u64,
}

/// All that was measured.
#[derive(Debug, Default)]
pub struct Report {
    levels: Vec<Level>,
    /// Creations and removals a second with several in flight.
    creates_per_s: f64,
    destroys_per_s: f64,
    /// Proportional set sizes: the daemon's without containers, with [`AT_REST`], with the most;
    /// and of every pid 1 at the last two.
    empty_kib: u64,
    rest_kib: u64,
    full_kib: u64,
    rest_pid1_kib: Vec<u64>,
    full_pid1_kib: Vec<u64>,
    /// From starting a daemon beside [`AT_RESTART`] containers until it has told who is there.
    restart_us: Vec<u64>,
}

/// Prepares on the host, then runs [`inside`] apart from it. `reserve`: how many halves of containers
/// are made ahead; `None`: as many as by default.
pub fn run(reserve: Option<u32>) -> Result<()> {
    host::need_root("bench garden")?;
    host::need(host::LAB)?;
    let stack = rootfs::run("tiny", rootfs::Mode::WhenNeeded)?;
    let program = host::build(true)?;
    let root = lay_out(&stack, reserve)?;
    let mut apart = host::alone();
    apart.arg("--net").arg(std::env::current_exe()?);
    apart.args(["bench", "garden", "--inside"]).arg(&stack).arg(&program);
    let result = host::run(&mut apart);
    // The kernel ends what a broken bench had started, but leaves its empty groups.
    machine::remove_cgroups(CGROUPS);
    let place = root.parent().unwrap_or(&root).to_string_lossy().into_owned();
    let clean = State::need_none(&[CGROUPS, &place], SETTLE);
    result.and(clean.context("the bench was to leave nothing"))?;
    Ok(std::fs::remove_dir_all(&root)?)
}

fn lay_out(stack: &Path, reserve: Option<u32>) -> Result<PathBuf> {
    let root = demo::lay_out(stack, CHORE)?;
    let most = LEVELS.iter().max().unwrap_or(&0) + TOGETHER;
    let reserve = reserve.map(|number| format!("reserve = {number}\n")).unwrap_or_default();
    let settings = format!(
        "[cgroup]\nparent = \"{CGROUPS}\"\n[self_check]\ninterval = \"never\"\n\
         [cell]\ncontainers = {most}\n{reserve}\
         [garden]\nenabled = true\ndebug = \"127.0.0.1:{DEBUG_PORT}\"\n"
    );
    std::fs::write(root.join("etc/terrarium/terrarium.toml"), settings)?;
    Ok(root)
}

/// Measures all and prints it, as the first process of its own namespaces.
pub fn inside(stack: &Path, program: &Path) -> Result<()> {
    demo::a_small_network()?;
    let root = host::target_dir().join(CHORE).join("root");
    let log = root.with_file_name("daemon.log");
    let load = || std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let before = load();
    let mut daemon = demo::Daemon::start(program, &root, &log)?;
    let client = Client { socket: root.join("run/terrarium/garden.sock") };
    let measured = daemon.wait_for_socket(&client.socket).and_then(|()| {
        let measured = measure(&client, daemon.id()).and_then(|mut report| {
            let again = || demo::Daemon::start(program, &root, &log.with_extension("again.log"));
            report.restart_us = restarts(&client, &mut daemon, &again)?;
            several(&client, &mut report)?;
            Ok(report)
        });
        // Also what a failure has left standing.
        let swept = sweep(&client);
        let report = measured?;
        swept.and_then(|()| daemon.stop()).map(|()| report)
    });
    let report = measured.with_context(|| format!("the daemon's log is {}", log.display()))?;
    eprintln!("measuring the kernel alone, and containers without the protocol");
    let alone = super::ours(program, stack)?;
    super::one_cgroup_version();
    let (mut peers, unmeasured) = peers(stack);
    peers.insert(0, ("direct", alone.clone()));
    println!("load before: {}load after:  {}", before, load());
    println!("{}", table::latencies(&report, &peers));
    println!("{}", table::steps(&report));
    println!("{}", super::table::floor(&alone));
    println!("{}", table::sizes(&report));
    println!("{}", table::restarts(&report));
    unmeasured.iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// OCI runtimes by name with what they took, and why others took nothing.
fn peers(stack: &Path) -> (Vec<(&'static str, Figures)>, Vec<String>) {
    let (mut measured, mut unmeasured) = (Vec::new(), Vec::new());
    for peer in PEERS.into_iter().filter(|peer| host::find(peer).is_some()) {
        eprintln!("measuring {peer}");
        match super::theirs(peer, stack) {
            Ok(figures) => measured.push((peer, figures)),
            Err(err) => unmeasured.push(format!("{peer} does not run here: {err:#}")),
        }
    }
    (measured, unmeasured)
}

fn measure(client: &Client, daemon: u32) -> Result<Report> {
    let mut report = Report::default();
    // Takes the stack in, and what else is done once.
    round(client, "warm-up", &mut Level::default())?;
    std::thread::sleep(REST);
    report.empty_kib = super::rest::daemon_pss_kib(daemon)?;
    let mut standing = 0;
    for present in LEVELS {
        eprintln!("measuring {ROUNDS} rounds beside {present} containers");
        while standing < present {
            stand(client, standing)?;
            standing += 1;
            if standing == AT_REST {
                std::thread::sleep(REST);
                report.rest_kib = super::rest::daemon_pss_kib(daemon)?;
                report.rest_pid1_kib = pid1s(client, standing)?;
            }
        }
        std::thread::sleep(REST);
        report.levels.push(level(client, present)?);
    }
    report.full_kib = super::rest::daemon_pss_kib(daemon)?;
    report.full_pid1_kib = pid1s(client, standing)?;
    (AT_RESTART..standing).try_for_each(|n| client.destroy(&standing_name(n)))?;
    Ok(report)
}

/// Kills the daemon several times and starts another, beside [`AT_RESTART`] containers with a process
/// each; how long it is from there until that one tells all of them.
fn restarts(
    client: &Client,
    daemon: &mut demo::Daemon,
    again: &dyn Fn() -> Result<demo::Daemon>,
) -> Result<Vec<u64>> {
    eprintln!("measuring {RESTARTS} restarts beside {AT_RESTART} containers");
    let mut all = Vec::new();
    for _ in 0..RESTARTS {
        std::thread::sleep(REST);
        daemon.kill()?;
        let (took, told) = super::measured(|| {
            *daemon = again()?;
            loop {
                match client.list() {
                    Ok(told) => return Ok(told),
                    Err(_) => daemon.need_alive()?,
                }
                // No event: nobody tells that a socket is listened on.
                std::thread::sleep(ASK_AGAIN);
            }
        })?;
        ensure!(told.len() == AT_RESTART, "after a restart there are {} containers", told.len());
        all.push(took);
    }
    Ok(all)
}

/// Many containers by several clients at once, when the others have gone.
fn several(client: &Client, report: &mut Report) -> Result<()> {
    (1..AT_RESTART).try_for_each(|n| client.destroy(&standing_name(n)))?;
    std::thread::sleep(REST * 5);
    eprintln!("measuring {TOGETHER} containers with {IN_FLIGHT} in flight");
    report.creates_per_s = together(|n| client.create(&format!("together-{n}")))?;
    report.destroys_per_s = together(|n| client.destroy(&format!("together-{n}")))?;
    Ok(())
}

fn standing_name(n: usize) -> String {
    format!("standing-{n}")
}

/// A container that stays, with a process.
fn stand(client: &Client, n: usize) -> Result<()> {
    client.create(&standing_name(n))?;
    client.leave_running(&standing_name(n), "/bin/sleep", &["100000"])
}

/// Makes, uses and removes containers, one after the other.
fn level(client: &Client, present: usize) -> Result<Level> {
    let mut level = Level { present, ..Level::default() };
    let before = client::debug_vars(DEBUG_PORT)?;
    for n in 0..ROUNDS {
        round(client, &format!("round-{present}-{n}"), &mut level)?;
    }
    let after = client::debug_vars(DEBUG_PORT)?;
    (level.made_us, level.steps_us) = spans(&before, &after)?;
    Ok(level)
}

/// One container from its creation to its end.
fn round(client: &Client, name: &str, level: &mut Level) -> Result<()> {
    let (create, ()) = super::measured(|| client.create(name))?;
    let ran = client.run(name, "/bin/echo", &["x"])?;
    let run = ran.first_byte_us;
    ran.wait()?;
    let (destroy, ()) = super::measured(|| client.destroy(name))?;
    // Its links are removed behind everybody's back.
    std::thread::sleep(CALM);
    level.create_us.push(create);
    level.run_us.push(run);
    level.destroy_us.push(destroy);
    Ok(())
}

/// Means between two looks at what the daemon has added up: of whole creations, and of each step.
fn spans(before: &Value, after: &Value) -> Result<(u64, BTreeMap<String, u64>)> {
    let number = |vars: &Value, key: &str| vars["creates"][key].as_u64().unwrap_or_default();
    let count = number(after, "count") - number(before, "count");
    ensure!(count > 0, "the daemon has counted no creation");
    let mean = |before: u64, after: u64| (after - before) / count;
    let steps = after["creates"]["stepMicros"].as_object().context("no steps in /debug/vars")?;
    let earlier = &before["creates"]["stepMicros"];
    let steps = steps.iter().map(|(name, sum)| {
        let (before, after) = (earlier[name].as_u64(), sum.as_u64());
        (name.clone(), mean(before.unwrap_or_default(), after.unwrap_or_default()))
    });
    let made = mean(number(before, "totalMicros"), number(after, "totalMicros"));
    Ok((made, steps.collect()))
}

/// Does `act` with every number below [`TOGETHER`], several at a time; how many a second.
fn together(act: impl Fn(usize) -> Result<()> + Sync) -> Result<f64> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        loop {
            match next.fetch_add(1, Ordering::Relaxed) {
                n if n < TOGETHER => act(n)?,
                _ => return Ok(()),
            }
        }
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..IN_FLIGHT).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })?;
    Ok(TOGETHER as f64 / begun.elapsed().as_secs_f64())
}

/// Memory of the pid 1 of every container that stands.
fn pid1s(client: &Client, standing: usize) -> Result<Vec<u64>> {
    let of = |n: usize| -> Result<u64> {
        let entry = client.depot_dir(&standing_name(n))?.join("container.json");
        let entry: Value = serde_json::from_slice(&std::fs::read(&entry)?)?;
        let pid = entry["pid"][0].as_u64().context("a depot entry names no pid")?;
        super::rest::pss_kib(u32::try_from(pid)?)
    };
    (0..standing).map(of).collect()
}

/// Removes every container.
fn sweep(client: &Client) -> Result<()> {
    client.list()?.iter().try_for_each(|handle| client.destroy(handle))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn spans_are_means_of_what_came_between_two_looks() {
        let vars = |count, total, links| json!({"creates": {"count": count, "totalMicros": total, "stepMicros": {"links": links}}});
        let (made, steps) = spans(&vars(2, 100, 10), &vars(4, 300, 50)).expect("means");
        assert_eq!((made, steps["links"]), (100, 20));
        assert!(spans(&vars(2, 100, 10), &vars(2, 100, 10)).is_err());
    }

    #[test]
    fn every_number_is_done_once() {
        let sum = AtomicUsize::new(0);
        let add = |n| {
            sum.fetch_add(n, Ordering::Relaxed);
            Ok(())
        };
        assert!(together(add).expect("done") > 0.0);
        assert_eq!(sum.into_inner(), TOGETHER * (TOGETHER - 1) / 2);
    }
}
