//! Process types that a droplet has and the manifest does not name: as in Cloud Foundry they are processes
//! without an instance, until somebody scales them (D88); and what is said of those that nothing says how to
//! start (D94). Pure.

use super::recipe::{borrowed_command, built, own_memory};
use super::work::{BUILT_MAX, is_beside};
use crate::model::manifest::{
    Check, Health, HealthTimes, Manifest, PROCESS_NAME_MAX, PROCESSES_MAX, Process,
};
use crate::model::task::StagingResult;
use crate::unit::{AppName, Bytes};
use std::collections::BTreeMap;
use std::time::Duration;

/// The processes that the droplet adds to the manifest's, by name.
pub fn added(manifest: &Manifest, result: &StagingResult) -> BTreeMap<String, Process> {
    let most = PROCESSES_MAX.saturating_sub(manifest.processes.len());
    let good = others(manifest, result).filter(|name| obstacle(manifest, result, name).is_none());
    good.take(most).map(|name| (name.to_owned(), idle(manifest))).collect()
}

/// Lines for who watches the staging: what is there and does not run, and what cannot be there.
pub fn told(manifest: &Manifest, result: &StagingResult) -> Vec<String> {
    let added = added(manifest, result);
    let names: Vec<&str> = added.keys().map(String::as_str).collect();
    let idle = names.first().map(|first| {
        format!(
            "The manifest does not name the process types {}, so they have 0 instances; `terrarium scale \
             {}:{first}=1` runs one",
            names.join(", "),
            manifest.name,
        )
    });
    let lost = others(manifest, result).filter(|name| !added.contains_key(*name)).map(|name| {
        let many = || format!("an app has at most {PROCESSES_MAX} processes");
        let why = obstacle(manifest, result, name).unwrap_or_else(many);
        format!("Not a process of the app: process type `{}`, as {why}", name.escape_debug())
    });
    // Whoever has thousands of them need not read of all.
    let lost = lost.take(PROCESSES_MAX);
    idle.into_iter().chain(lost).chain(borrowed(manifest, result)).collect()
}

/// Lines about processes of the manifest of which neither it nor what was staged says how they start.
pub fn borrowed(manifest: &Manifest, result: &StagingResult) -> Vec<String> {
    let says = |text: &String| !text.trim().is_empty();
    let is_silent = |name: &str, process: &Process| {
        name != "web" && !process.command.as_ref().is_some_and(says)
    };
    let all = manifest.processes.iter().filter(|(name, process)| {
        is_silent(name, process) && built(result, name).is_none() && built(result, "web").is_some()
    });
    all.map(|(name, _)| {
        format!(
            "Nothing says how process `{name}` starts, so it runs what `web` does; write command = \"...\" \
             below [process.{name}]"
        )
    })
    .collect()
}

/// Lines about processes that somebody has scaled and that a droplet has no more: the wish stays, as in Cloud
/// Foundry, and so do the instances, which run what `web` does until a droplet has them again.
pub fn missed(
    manifest: &Manifest,
    result: &StagingResult,
    scale: &BTreeMap<String, u32>,
) -> Vec<String> {
    let added = added(manifest, result);
    let is_there =
        |name: &String| manifest.processes.contains_key(name) || added.contains_key(name);
    let mut room = PROCESSES_MAX.saturating_sub(manifest.processes.len() + added.len());
    let mut lines = Vec::new();
    for (name, count) in scale.iter().filter(|(name, _)| !is_there(name)) {
        let runs = room > 0 && borrowed_command(manifest, result, name).is_some();
        room -= usize::from(runs);
        let meanwhile = if runs { "they run what `web` does" } else { "none runs" };
        if *count > 0 {
            lines.push(format!(
                "The droplet has no process type `{name}` any more, of which {count} are wanted: {meanwhile} \
                 until one has it again; `terrarium scale {}:{name}=0` ends that",
                manifest.name
            ));
        }
    }
    lines
}

/// Types that have a command, and that the manifest does not name.
fn others<'a>(manifest: &'a Manifest, result: &'a StagingResult) -> impl Iterator<Item = &'a str> {
    let all = result.process_types.iter();
    let some = all.filter(|(name, command)| {
        !manifest.processes.contains_key(*name) && !command.trim().is_empty()
    });
    some.map(|(name, _)| name.as_str())
}

/// Why a type cannot be a process here.
pub(super) fn obstacle(manifest: &Manifest, result: &StagingResult, name: &str) -> Option<String> {
    if name.len() > PROCESS_NAME_MAX || name.parse::<AppName>().is_err() {
        return Some(format!("its name is not 1 to {PROCESS_NAME_MAX} of a-z, 0-9 and inner `-`"));
    }
    let beside = result.sidecars.iter().filter(|it| is_beside(it, name)).count();
    if beside > BUILT_MAX {
        return Some(format!("at most {BUILT_MAX} sidecars can be beside it, not {beside}"));
    }
    let own = own_memory(manifest, &result.sidecars, (name, manifest.run.memory));
    let starves = own == Bytes::new(0);
    starves
        .then(|| "its sidecars take all of its memory; write a larger one below [run]".to_owned())
}

/// A process of which nobody has said anything: with the limits of [run], no port, and well while it runs.
pub fn idle(manifest: &Manifest) -> Process {
    let HealthTimes { start_timeout, interval_unhealthy, interval_healthy } =
        HealthTimes::default();
    Process {
        command: None,
        instances: 0,
        memory: manifest.run.memory,
        disk: manifest.run.disk,
        ports: Vec::new(),
        health: Health {
            check: Check::Process,
            start_timeout,
            interval_unhealthy,
            interval_healthy,
            timeout: Duration::from_secs(1),
            failures: 1,
            also: Vec::new(),
        },
        readiness: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::task::StagedSidecar;
    use crate::stage::recipe::desired_lrps;
    use crate::unit::Digest;

    fn manifest(more: &str) -> Manifest {
        let text = format!(
            "name = \"orders\"\nsource.path = \"/src\"\nrun.memory = \"96MiB\"\nrun.instances = 3\n{more}"
        );
        crate::config::manifest::parse(&text, "orders.toml", "/".as_ref())
            .unwrap_or_else(|bad| panic!("{}", bad.render(false)))
    }

    fn staged(types: &[(&str, &str)]) -> StagingResult {
        let types = types.iter().map(|&(name, command)| (name.to_owned(), command.to_owned()));
        StagingResult { process_types: types.collect(), ..StagingResult::default() }
    }

    #[test]
    fn what_the_manifest_does_not_name_has_no_instance_and_the_droplet_s_command() {
        let result = staged(&[("web", "./web"), ("worker", "./work"), ("idle", " ")]);
        let lrps = desired_lrps(&manifest(""), &result, Digest::of(b"d"), 0).expect("commands");
        let shape: Vec<_> = lrps
            .iter()
            .map(|lrp| (lrp.guid.process.as_str(), lrp.instances, lrp.command.as_str()))
            .collect();
        assert_eq!(shape, [("web", 3, "./web"), ("worker", 0, "./work")]);
        assert_eq!(lrps[1].limits.memory, Some(Bytes::mib(96)));
        assert!(lrps[1].ports.is_empty() && lrps[1].health.check == Check::Process);
        // Who names it has what he says of it, and the same version when that is nothing.
        let named = manifest("[process.web]\n[process.worker]\ninstances = 2\n");
        let named = desired_lrps(&named, &result, Digest::of(b"d"), 0).expect("commands");
        assert_eq!((named[1].instances, &named[1].version), (2, &lrps[1].version));
        // A droplet that has it no more has no such process.
        let gone = staged(&[("web", "./web")]);
        let lrps = desired_lrps(&manifest(""), &gone, Digest::of(b"d"), 0).expect("commands");
        assert_eq!(lrps.len(), 1);
    }

    /// Row 72: as the launcher does that is told no command.
    #[test]
    fn row_72_what_nothing_says_how_to_start_runs_what_web_does() {
        let result = staged(&[("web", "./web"), ("clock", "./clock")]);
        let text = "[run]\ncommand = \"mine\"\n[process.web]\n[process.clock]\n[process.worker]\n";
        let text = text.replace("[run]", "").replace("command", "run.command");
        let named = manifest(&text);
        let lrps = desired_lrps(&named, &result, Digest::of(b"d"), 0).expect("commands");
        let commands: Vec<_> =
            lrps.iter().map(|lrp| (lrp.guid.process.as_str(), lrp.command.as_str())).collect();
        // The manifest's own command of `web` is no part of the droplet.
        assert_eq!(commands, [("clock", "./clock"), ("web", "mine"), ("worker", "./web")]);
        let lines = told(&named, &result);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("Nothing says how process `worker` starts"), "{lines:?}");
        // Without any there is none.
        let none = desired_lrps(&named, &staged(&[]), Digest::of(b"d"), 0).expect_err("no command");
        assert!(none.to_string().contains("process `clock`, `worker`"), "{none}");
        assert!(told(&named, &staged(&[])).is_empty());
    }

    #[test]
    fn it_is_told_that_none_stands_in_where_none_can() {
        let scale = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 2)).collect();
        let result = StagingResult {
            sidecars: vec![StagedSidecar {
                name: "proxy".into(),
                command: "./proxy".into(),
                process_types: vec!["worker".into()],
                memory: Some(96),
            }],
            ..staged(&[("web", "./web")])
        };
        let lines = missed(&manifest(""), &result, &scale(&["clock", "worker"]));
        let says = |at: usize, what: &str| assert!(lines[at].contains(what), "{lines:?}");
        assert_eq!(lines.len(), 2, "{lines:?}");
        says(0, "`clock` any more, of which 2 are wanted: they run what `web` does until");
        says(1, "`worker` any more, of which 2 are wanted: none runs until");
        // Nor beyond the processes that an app may have, of which `web` is one.
        let names: Vec<String> = (10..10 + PROCESSES_MAX).map(|n| format!("p{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let lines = missed(&manifest(""), &staged(&[("web", "./web")]), &scale(&names));
        let run = lines.iter().filter(|line| line.contains("they run what")).count();
        assert_eq!((lines.len(), run), (PROCESSES_MAX, PROCESSES_MAX - 1));
        assert!(lines[PROCESSES_MAX - 1].contains("none runs"), "{lines:?}");
    }

    #[test]
    fn it_is_told_what_does_not_run_and_what_cannot() {
        assert!(told(&manifest(""), &staged(&[("web", "x")])).is_empty());
        let some = told(&manifest(""), &staged(&[("web", "x"), ("clock", "x"), ("rake", "x")]));
        assert_eq!(some.len(), 1, "{some:?}");
        assert!(some[0].contains("types clock, rake, so they have 0 instances"), "{some:?}");
        assert!(some[0].contains("`terrarium scale orders:clock=1` runs one"), "{some:?}");
        let scale = [("worker", 2), ("clock", 1), ("rake", 0), ("web", 3)];
        let scale = scale.map(|(name, count)| (name.to_owned(), count)).into();
        let some = missed(&manifest(""), &staged(&[("web", "x"), ("clock", "x")]), &scale);
        assert_eq!(some.len(), 1, "{some:?}");
        let worker =
            "type `worker` any more, of which 2 are wanted: they run what `web` does until";
        assert!(some[0].contains(worker), "{some:?}");
        let some = missed(&manifest(""), &staged(&[("clock", "x")]), &scale);
        assert!(some[0].contains("none runs until"), "{some:?}");
        let odd = staged(&[("web", "x"), ("Bad_Name", "x")]);
        assert!(added(&manifest(""), &odd).is_empty());
        let some = told(&manifest(""), &odd);
        assert!(some[0].contains("`Bad_Name`, as its name is not 1 to 16"), "{some:?}");
        let names: Vec<String> = (0..40).map(|n| format!("p{n}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
        assert_eq!(added(&manifest(""), &staged(&many)).len(), PROCESSES_MAX - 1);
        let some = told(&manifest(""), &staged(&many));
        assert!(some.len() <= PROCESSES_MAX + 1 && some[1].contains("at most 16 processes"));
    }
}
