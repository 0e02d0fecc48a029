//! What was measured, as a person reads it, beside the budgets. Pure.

use super::Figures;
use super::rest::Rest;

/// Median until a container is made, while no prepared namespaces are kept in stock.
pub const CREATE_US: u64 = 6_000;
/// Median until the first byte of a process.
pub const RUN_US: u64 = 2_000;
/// Median until a container is gone for who asked.
pub const DESTROY_US: u64 = 3_000;
/// Until a daemon that was started again tells who is there.
pub const RESTART_US: u64 = 100_000;
/// A daemon with ten apps.
pub const DAEMON_KIB: u64 = 6 << 10;
/// Of each container, outside the app.
pub const PID1_KIB: u64 = 350;
/// The program.
const PROGRAM_KIB: u64 = 5 << 10;

/// Latencies in milliseconds, and how they stand to the peers' medians.
pub fn latencies(ours: &Figures, peers: &[(&str, Figures)]) -> String {
    let mut head =
        format!("{:<14}{:>8}{:>8}{:>8}{:>8}", "milliseconds", "least", "median", "p95", "worst");
    for (name, _) in peers {
        head += &format!("{name:>9}{:>7}", "ratio");
    }
    let mut lines = vec![format!("{head}{:>9}", "budget")];
    type Of = fn(&Figures) -> &[u64];
    let rows: [(&str, Of, u64); 4] = [
        ("create", |it| &it.create_us, CREATE_US),
        ("create again", |it| &it.create_again_us, CREATE_US),
        ("first byte", |it| &it.run_us, RUN_US),
        ("destroy", |it| &it.destroy_us, DESTROY_US),
    ];
    for (name, of, budget) in rows {
        let list = of(ours);
        let median = quantile(list, 50);
        let mut line = format!("{name:<14}");
        for percent in [0, 50, 95, 100] {
            line += &format!("{:>8}", shown(quantile(list, percent), millis));
        }
        for (_, peer) in peers {
            let theirs = quantile(of(peer), 50);
            let ratio = median.zip(theirs).map(|(us, them)| us as f64 / them.max(1) as f64);
            let ratio = ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"));
            line += &format!("{:>9}{ratio:>7}", shown(theirs, millis));
        }
        lines.push(format!("{line}{:>9}  {}", millis(budget), verdict(median, budget)));
    }
    let rounds = ours.create_us.len();
    lines.push(format!(
        "medians of {rounds} rounds count; peers' columns are medians, ratio is ours to theirs.\n\
         The budget of create is the one without a stock of prepared namespaces; \"again\" is right\n\
         after another was destroyed, while the kernel still removes that one's links.\n"
    ));
    lines.join("\n")
}

/// What the kernel alone takes for the dear parts of a container on this machine.
pub fn floor(ours: &Figures) -> String {
    let rows = [
        ("a static program, start to end", &ours.floor_program_us),
        ("namespaces, tmpfs, layer, union", &ours.floor_inside_us),
        ("bridge, address, veth into it", &ours.floor_links_us),
    ];
    let line = |name: &str, least: Option<u64>, median: Option<u64>| {
        format!("{name:<34}{:>8}{:>8}", shown(least, millis), shown(median, millis))
    };
    let mut lines = vec![format!("{:<34}{:>8}{:>8}", "ms of the kernel alone", "least", "median")];
    let (mut least, mut median) = (Some(0), Some(0));
    for (name, list) in rows {
        let (low, middle) = (quantile(list, 0), quantile(list, 50));
        lines.push(line(name, low, middle));
        least = least.zip(low).map(|(sum, us)| sum + us);
        median = median.zip(middle).map(|(sum, us)| sum + us);
    }
    lines.push(line("the floor of create, without groups", least, median));
    lines.join("\n") + "\n"
}

/// Sizes at rest.
pub fn sizes(ours: &Figures, rest: &Rest, program_bytes: u64) -> String {
    let pid1 = quantile(&ours.pid1_pss_kib, 50);
    let rows = [
        ("daemon without apps, PSS", Some(rest.empty_kib), None),
        ("daemon with 10 instances, PSS", Some(rest.full_kib), Some(DAEMON_KIB)),
        ("each pid 1 of ten, PSS, median", pid1, Some(PID1_KIB)),
        ("program file", Some(program_bytes.div_ceil(1024)), Some(PROGRAM_KIB)),
    ];
    let mut lines = vec![format!("{:<34}{:>8}{:>9}", "KiB", "", "budget")];
    for (name, kib, budget) in rows {
        let end = budget
            .map_or(String::new(), |kib_max| format!("{kib_max:>9}  {}", verdict(kib, kib_max)));
        lines.push(format!("{name:<34}{:>8}{end}", shown(kib, |kib| kib.to_string())));
    }
    let idle = rest.idle_ticks == 0 && rest.idle_written_bytes == 0;
    lines.push(format!(
        "10 instances, {} s of rest: {} ticks of CPU, {} bytes written; budget 0 and 0  {}",
        rest.idle_s,
        rest.idle_ticks,
        rest.idle_written_bytes,
        if idle { "met" } else { "NOT MET" },
    ));
    lines.join("\n")
}

pub fn verdict(measured: Option<u64>, budget: u64) -> &'static str {
    match measured {
        Some(measured) if measured <= budget => "met",
        Some(_) => "NOT MET",
        None => "not measured",
    }
}

/// The value below which `percent` of the list lies; between two neighbours, their middle.
pub fn quantile(list: &[u64], percent: usize) -> Option<u64> {
    let mut sorted = list.to_vec();
    sorted.sort_unstable();
    let at = sorted.len().checked_sub(1)? * percent;
    Some(sorted[at / 100].midpoint(sorted[at.div_ceil(100)]))
}

pub fn shown(value: Option<u64>, how: impl Fn(u64) -> String) -> String {
    value.map_or("-".into(), how)
}

pub fn millis(us: u64) -> String {
    format!("{:.2}", us as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_in_the_list_or_between_neighbours() {
        assert_eq!(quantile(&[9, 1, 5], 50), Some(5));
        assert_eq!(quantile(&[4, 1, 2, 9], 50), Some(3));
        assert_eq!(quantile(&[4, 1, 2, 9], 0), Some(1));
        assert_eq!(quantile(&[4, 1, 2, 9], 100), Some(9));
        assert_eq!(quantile(&[], 50), None);
    }

    #[test]
    fn the_floor_is_the_sum_of_its_parts_when_all_were_measured() {
        let mut figures = Figures {
            floor_program_us: vec![400, 600, 500],
            floor_inside_us: vec![1_000],
            floor_links_us: vec![700],
            ..Figures::default()
        };
        assert!(floor(&figures).trim_end().ends_with("2.10    2.20"), "{}", floor(&figures));
        figures.floor_links_us.clear();
        assert!(floor(&figures).trim_end().ends_with("-       -"), "{}", floor(&figures));
    }

    #[test]
    fn a_budget_is_met_or_not_beside_the_peer() {
        let figures = |us: u64| Figures {
            create_us: vec![us],
            create_again_us: vec![us],
            run_us: vec![us],
            destroy_us: Vec::new(),
            pid1_pss_kib: vec![350],
            ..Figures::default()
        };
        let text = latencies(&figures(2_500), &[("crun", figures(5_000))]);
        let cells: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        let same = ["2.50"; 4];
        assert_eq!(cells[1], [&["create"], &same[..], &["5.00", "0.50", "6.00", "met"]].concat());
        assert_eq!(cells[3][8..], ["2.00", "NOT", "MET"]);
        assert_eq!(cells[4][1..], ["-", "-", "-", "-", "-", "-", "3.00", "not", "measured"]);

        let rest = Rest {
            empty_kib: 1,
            full_kib: 7_000,
            idle_s: 10,
            idle_ticks: 0,
            idle_written_bytes: 0,
        };
        let text = sizes(&figures(1), &rest, 5 << 20);
        let ends: Vec<&str> = text.lines().map(|line| line.rsplit("  ").next().unwrap()).collect();
        assert_eq!(ends[2..], ["NOT MET", "met", "met", "met"]);
    }
}
