//! What was measured, as a person reads it, beside the budgets. Pure.

use super::super::Figures;
use super::super::table::{
    CREATE_US, DAEMON_KIB, DESTROY_US, PID1_KIB, RESTART_US, RUN_US, millis, quantile, shown,
    verdict,
};
use super::{AT_REST, AT_RESTART, IN_FLIGHT, Level, ROUNDS, Report, TOGETHER};

/// The worst of a hundred may take as many medians.
const P99_MEDIANS: u64 = 3;

/// What "the same at any number of containers" means: most medians of the first level.
const FLAT: f64 = 1.25;

type Of = fn(&Level) -> &[u64];
type Theirs = fn(&Figures) -> &[u64];

/// Latencies at every level, in milliseconds.
pub fn latencies(report: &Report, peers: &[(&str, Figures)]) -> String {
    let mut lines = vec![format!(
        "{:<12}{:>8}{:>8}{:>8}{:>8}{:>8}  {:<10}{:>8}  {}",
        "ms", "present", "least", "median", "p99", "budget", "", "p99 max", ""
    )];
    let rows: [(&str, Of, Theirs, u64); 3] = [
        ("create", |it| &it.create_us, |it| &it.create_us, CREATE_US),
        ("first byte", |it| &it.run_us, |it| &it.run_us, RUN_US),
        ("destroy", |it| &it.destroy_us, |it| &it.destroy_us, DESTROY_US),
    ];
    for (name, of, theirs, budget) in rows {
        for level in &report.levels {
            lines.push(line(name, level, of(level), budget));
        }
        let medians = report.levels.iter().filter_map(|level| quantile(of(level), 50));
        let medians: Vec<u64> = medians.collect();
        if let (Some(first), Some(last)) = (medians.first(), medians.last()) {
            let growth = *last as f64 / (*first).max(1) as f64;
            let flat = if growth <= FLAT { "met" } else { "NOT MET" };
            lines
                .push(format!("{name:<12}last median / first {growth:.2}, flat is {FLAT}: {flat}"));
        }
        for (peer, figures) in peers {
            let least = shown(quantile(theirs(figures), 0), millis);
            let median = shown(quantile(theirs(figures), 50), millis);
            let p99 = shown(quantile(theirs(figures), 99), millis);
            lines.push(format!("{name:<12}{peer:>8}{least:>8}{median:>8}{p99:>8}"));
        }
    }
    lines.push(format!(
        "{IN_FLIGHT} in flight, {TOGETHER} containers: {:.0} creates a second, {:.0} destroys a \
         second\n{ROUNDS} rounds a level; \"direct\" is this program without the protocol, with \
         other limits and a port; peers with no other container, network or disk limit.\n",
        report.creates_per_s, report.destroys_per_s
    ));
    lines.join("\n")
}

fn line(name: &str, level: &Level, list: &[u64], budget: u64) -> String {
    let median = quantile(list, 50);
    let p99 = quantile(list, 99);
    let p99_max = median.unwrap_or_default() * P99_MEDIANS;
    format!(
        "{name:<12}{:>8}{:>8}{:>8}{:>8}{:>8}  {:<10}{:>8}  {}",
        level.present,
        shown(quantile(list, 0), millis),
        shown(median, millis),
        shown(p99, millis),
        millis(budget),
        verdict(median, budget),
        millis(p99_max),
        verdict(p99, p99_max),
    )
}

/// Where the time of a creation goes, in milliseconds: a column for each level.
pub fn steps(report: &Report) -> String {
    let row = |name: &str, of: &dyn Fn(&Level) -> Option<u64>| {
        let cells = report.levels.iter().map(|level| format!("{:>8}", shown(of(level), millis)));
        format!("{name:<34}{}", cells.collect::<String>())
    };
    let present = report.levels.iter().map(|level| format!("{:>8}", level.present));
    let head = format!("{:<34}{}", "mean ms of create, beside", present.collect::<String>());
    let mut lines = vec![head];
    let Some(first) = report.levels.first() else { return lines.remove(0) };
    let mut steps: Vec<(&String, &u64)> = first.steps_us.iter().collect();
    steps.sort_by_key(|(_, us)| std::cmp::Reverse(**us));
    for (name, _) in steps {
        lines.push(row(&format!("  {name}"), &|level| level.steps_us.get(name).copied()));
    }
    let between = |level: &Level| Some(level.made_us.saturating_sub(level.steps_us.values().sum()));
    lines.push(row("  between steps", &between));
    let around = |level: &Level| {
        let all: u64 = level.create_us.iter().sum();
        let mean = all.checked_div(level.create_us.len() as u64)?;
        Some(mean.saturating_sub(level.made_us))
    };
    lines.push(row("  protocol, image, record, client", &around));
    lines.join("\n") + "\n"
}

/// Memory.
pub fn sizes(report: &Report) -> String {
    let most = report.levels.last().map_or(0, |level| level.present);
    let daemon = "daemon, PSS, containers:";
    let pid1 = "pid 1, PSS, median of";
    let rows = [
        (format!("{daemon} 0"), Some(report.empty_kib), None),
        (format!("{daemon} {AT_REST}"), Some(report.rest_kib), Some(DAEMON_KIB)),
        (format!("{daemon} {most}"), Some(report.full_kib), None),
        (format!("{pid1} {AT_REST}"), quantile(&report.rest_pid1_kib, 50), Some(PID1_KIB)),
        (format!("{pid1} {most}"), quantile(&report.full_pid1_kib, 50), Some(PID1_KIB)),
    ];
    let mut lines = vec![format!("{:<34}{:>8}{:>9}", "KiB", "", "budget")];
    for (name, kib, budget) in rows {
        let end = budget.map_or(String::new(), |max| format!("{max:>9}  {}", verdict(kib, max)));
        lines.push(format!("{name:<34}{:>8}{end}", shown(kib, |kib| kib.to_string())));
    }
    lines.join("\n")
}

/// How long the daemon is away when it was killed, in milliseconds.
pub fn restarts(report: &Report) -> String {
    let list = &report.restart_us;
    let median = quantile(list, 50);
    format!(
        "daemon killed and started again beside {AT_RESTART} containers, ms until it tells them: \
         least {}, median {}, most {}; budget {}  {}",
        shown(quantile(list, 0), millis),
        shown(median, millis),
        shown(quantile(list, 100), millis),
        millis(RESTART_US),
        verdict(median, RESTART_US)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let level = |present, create_us: u64| Level {
            present,
            create_us: vec![create_us; 10],
            run_us: vec![1_000, 1_000, 9_000],
            destroy_us: Vec::new(),
            steps_us: [("init".into(), 1_000), ("links".into(), 2_000)].into(),
            made_us: 3_500,
        };
        Report { levels: vec![level(1, 4_000), level(250, 6_500)], ..Report::default() }
    }

    fn cells(text: &str, n: usize) -> Vec<&str> {
        text.lines().nth(n).expect("a line").split_whitespace().collect()
    }

    #[test]
    fn budgets_are_met_or_not_at_every_level() {
        let peer = Figures { create_us: vec![5_000], ..Figures::default() };
        let text = latencies(&report(), &[("crun", peer)]);
        let first = ["create", "1", "4.00", "4.00", "4.00", "6.00", "met", "12.00", "met"];
        assert_eq!(cells(&text, 1), first);
        assert_eq!(cells(&text, 2)[5..], ["6.00", "NOT", "MET", "19.50", "met"]);
        assert!(
            text.lines().nth(3).is_some_and(|line| line.ends_with("1.62, flat is 1.25: NOT MET"))
        );
        assert_eq!(cells(&text, 4), ["create", "crun", "5.00", "5.00", "5.00"]);
        assert_eq!(cells(&text, 5)[7..], ["met", "3.00", "NOT", "MET"], "p99 of first byte");
        assert_eq!(cells(&text, 9)[2..5], ["-", "-", "-"], "{text}");
    }

    #[test]
    fn a_restart_is_judged_by_its_median() {
        let told = |restart_us| restarts(&Report { restart_us, ..Report::default() });
        let met = told(vec![70_000, 90_000, 900_000]);
        assert!(
            met.ends_with("least 70.00, median 90.00, most 900.00; budget 100.00  met"),
            "{met}"
        );
        assert!(told(vec![70_000, 101_000, 102_000]).ends_with("NOT MET"));
    }

    #[test]
    fn steps_come_longest_first_and_the_rest_is_told() {
        let text = steps(&report());
        let names: Vec<&str> =
            text.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(names, ["mean", "links", "init", "between", "protocol,"]);
        assert_eq!(cells(&text, 1), ["links", "2.00", "2.00"]);
        assert_eq!(cells(&text, 3)[2..], ["0.50", "0.50"]);
        assert_eq!(cells(&text, 4)[4..], ["0.50", "3.00"]);
    }
}
