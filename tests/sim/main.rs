//! The cell on virtual time, in a world that a seed writes the script of.
//!
//! The records change by the cell's own pure functions; what its asynchronous code does around them
//! is mirrored here as small explicit steps, and the daemon can die between any two. `check` and
//! `ledger` say what must never be true. `cargo xtask sim` runs it.

mod apps;
mod cell;
mod check;
mod deaths;
mod hearing;
mod instance;
mod kernel;
mod ledger;
mod memory;
mod mutant;
mod records;
mod rng;
mod round;
mod script;
mod settled;
mod staging;
mod tasks;
mod upkeep;
mod world;

use deaths::{Aim, Deaths};
use mutant::Mutant;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use world::World;

/// After the script: so long may it take until all is as it shall be, in milliseconds.
const SETTLE_MS: u64 = 2 * 3600 * 1000;
/// Steps of one seed: more is a loop that does not end.
const STEPS_MAX: u64 = 200_000;
/// So many seeds are played twice, to the same letter.
const SAME_SEEDS: u64 = 20;
/// A planted mistake has to be found among so many seeds.
const MUTANT_SEEDS: u64 = 1000;
/// Among so many it is seen that one of the world's scripts is missing.
const SCRIPT_SEEDS: u64 = 300;
/// Among so many seeds the daemon has died at every place where it can.
const DEATHS_SEEDS: u64 = 10_000;

/// What a seed came to.
struct Outcome {
    broken: Option<String>,
    trace: Vec<String>,
    steps: u64,
    deaths: Deaths,
}

/// In how many changes of a record the daemon dies at one, by the seed; 0: never.
const CHANGES: [u64; 4] = [0, 8, 0, 30];

/// Whether the daemon dies at changes of records, too: `--deaths`.
static DEATHS: AtomicBool = AtomicBool::new(false);

fn play(seed: u64, mutant: Mutant, traced: bool) -> Outcome {
    let mut world = World::new(seed, mutant, traced);
    if DEATHS.load(Ordering::Relaxed) {
        world.nature.changes_in = CHANGES[(seed % 4) as usize];
        world.aim = Aim::of(seed / 2).filter(|_| world.nature.changes_in > 0);
        if let Some(aim) = world.aim {
            aim.lead(&mut world.nature);
        }
    }
    let script_ends = world.nature.length_ms;
    while world.broken.is_none() && world.steps < STEPS_MAX && world.step(script_ends) {
        world.check();
    }
    world.becomes_kind();
    let end = world.now + SETTLE_MS;
    while world.broken.is_none() && world.steps < STEPS_MAX && world.step(end) {
        world.check();
    }
    if world.steps >= STEPS_MAX {
        world.breaks(|| format!("it does not come to rest in {STEPS_MAX} steps"));
    }
    world.check_settled();
    let World { broken, trace, steps, deaths, .. } = world;
    Outcome { broken, trace: trace.unwrap_or_default(), steps, deaths }
}

/// What many seeds came to.
struct Found {
    /// The lowest seed that breaks something.
    worst: Option<u64>,
    steps: u64,
    deaths: Deaths,
}

/// Plays `from` and those after it.
fn search(from: u64, seeds: u64, mutant: Mutant) -> Found {
    let (next, worst, steps) = (AtomicU64::new(from), AtomicU64::new(u64::MAX), AtomicU64::new(0));
    let deaths = Mutex::new(Deaths::default());
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds || seed > worst.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = play(seed, mutant, false);
                    steps.fetch_add(outcome.steps, Ordering::Relaxed);
                    deaths.lock().expect("no thread has panicked").add(&outcome.deaths);
                    if outcome.broken.is_some() {
                        worst.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let worst = worst.into_inner();
    let worst = (worst != u64::MAX).then_some(worst);
    let deaths = deaths.into_inner().expect("no thread has panicked");
    Found { worst, steps: steps.into_inner(), deaths }
}

/// Whether the daemon died wherever it can. Few seeds need not get there.
fn died_everywhere(deaths: &Deaths, seeds: u64) -> bool {
    println!("{}", deaths.summary());
    let missing = deaths.missing();
    missing.iter().for_each(|at| println!("the daemon never died at {}", deaths::text(at)));
    seeds < DEATHS_SEEDS || missing.is_empty()
}

/// Prints what a seed does; `true`: it breaks nothing.
fn replay(seed: u64, mutant: Mutant, all: bool) -> bool {
    let outcome = play(seed, mutant, true);
    let skipped = if all { 0 } else { outcome.trace.len().saturating_sub(200) };
    if skipped > 0 {
        println!("... {skipped} lines before; --trace shows them");
    }
    outcome.trace.iter().skip(skipped).for_each(|line| println!("{line}"));
    match outcome.broken {
        None => true,
        Some(why) => {
            println!("seed {seed}: {why}\nagain: cargo xtask sim --seed {seed} --trace");
            false
        }
    }
}

/// Whether seeds do the same when they are played again.
fn plays_the_same(from: u64, seeds: u64) -> bool {
    let mut all = from..from + seeds.min(SAME_SEEDS);
    all.all(|seed| {
        let [one, other] = [0, 1].map(|_| play(seed, Mutant::No, true));
        let same = one.trace == other.trace && one.steps == other.steps;
        if !same {
            let at = one.trace.iter().zip(&other.trace).take_while(|(a, b)| a == b).count();
            println!("seed {seed} does not do the same twice: line {at}");
        }
        same
    })
}

/// Each planted mistake is found.
fn prove_mutants() -> bool {
    let mut found_all = true;
    for mutant in Mutant::ALL {
        match search(0, MUTANT_SEEDS, mutant).worst {
            Some(seed) => {
                let why = play(seed, mutant, false).broken.unwrap_or_default();
                println!("mutant {mutant:?}: found by seed {seed}: {why}");
            }
            None => {
                println!("mutant {mutant:?}: NOT found by {MUTANT_SEEDS} seeds");
                found_all = false;
            }
        }
    }
    found_all
}

/// Without one of the world's scripts the daemon dies at fewer places, and that is seen.
fn prove_scripts() -> bool {
    let missing = |mutant| search(0, SCRIPT_SEEDS, mutant).deaths.missing();
    let usual = missing(Mutant::No);
    let seen = |mutant: &Mutant| {
        let more: Vec<_> = missing(*mutant).into_iter().filter(|at| !usual.contains(at)).collect();
        println!("script {mutant:?}: {} places are missed", more.len());
        more.iter().for_each(|at| println!("  {}", deaths::text(at)));
        !more.is_empty()
    };
    Mutant::SCRIPTS.iter().all(seen)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).map(String::as_str)
    };
    let number = |name: &str| value(name).and_then(|text| text.parse::<u64>().ok());
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let planted = match value("--mutant") {
        Some(name) => {
            let mut all = Mutant::ALL.into_iter().chain(Mutant::SCRIPTS);
            all.find(|it| format!("{it:?}") == name)
        }
        None => Some(Mutant::No),
    };
    let Some(mutant) = planted else {
        eprintln!("there is no such mutant; there are {:?}", Mutant::ALL);
        return ExitCode::FAILURE;
    };
    DEATHS.store(has("--deaths"), Ordering::Relaxed);
    let done = if has("--mutants") {
        prove_mutants() && (!has("--deaths") || prove_scripts())
    } else if let (Some(seed), None) = (number("--seed"), number("--seeds")) {
        replay(seed, mutant, has("--trace"))
    } else {
        let (from, seeds) = (number("--seed").unwrap_or(0), number("--seeds").unwrap_or(1000));
        let begun = Instant::now();
        let found = search(from, seeds, mutant);
        println!("{seeds} seeds from {from}, {} steps, {:.1?}", found.steps, begun.elapsed());
        found.worst.is_none_or(|seed| {
            // What broke breaks again, or the simulation is none.
            if replay(seed, mutant, has("--trace")) {
                eprintln!("seed {seed} broke, and does not when it is played again");
            }
            false
        }) && plays_the_same(from, seeds)
            && (!DEATHS.load(Ordering::Relaxed) || died_everywhere(&found.deaths, seeds))
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
