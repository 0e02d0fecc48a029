//! What was measured, as a person reads it, beside the budgets. Pure.

use super::meter::Cost;
use super::peer::Role;
use super::{Row, Section};
use crate::bench::table::{quantile, shown, verdict};

/// Our time to that of the fastest inflate into tar, or to that of fetching alone where that takes
/// longer (D80), in hundredths.
const INFLATE: u64 = 120;
/// Our time to podman's, in place of docker's, in hundredths.
const DOCKER: u64 = 50;
/// Ours above the daemon at rest.
const RSS_KIB: u64 = 32 << 10;

/// What is to be known of all tables.
pub const NOTES: &str = "\
cpu: user and system of all processes and the daemon; MiB: the most of one process, the daemon's
above its rest; MB/s: of unpacked bytes; ratio: terrarium to this one, the median of the rounds'.
Inflating into tar has neither network nor digests, and ends with nothing on the disk; \"tar of
plain\" is what the files alone take, \"synced\" with each layer on the disk at its end, as ours are.";

/// One image in one packing.
pub fn section(section: &Section) -> String {
    let mut lines = vec![
        format!(
            "\n{}, {}: {} layers, {} entries, {:.1} MB, packed {:.1} MB",
            section.image,
            section.packing,
            section.layers,
            section.entries,
            section.bytes as f64 / 1e6,
            section.packed_bytes as f64 / 1e6
        ),
        format!(
            "{:<22}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}",
            "ms", "least", "median", "worst", "cpu", "MiB", "MB/s", "ratio"
        ),
    ];
    let ours = section.rows.iter().find(|row| row.role == Role::Ours);
    for row in &section.rows {
        let bytes = Some(section.bytes);
        lines.push(line(row.name, &row.cold, bytes, ours.map(|ours| &ours.cold[..])));
        if !row.warm.is_empty() {
            let name = format!("{}, again", row.name);
            lines.push(line(&name, &row.warm, None, ours.map(|ours| &ours.warm[..])));
        }
    }
    lines.extend(budgets(section));
    lines.join("\n")
}

fn line(name: &str, costs: &[Cost], bytes: Option<u64>, ours: Option<&[Cost]>) -> String {
    let ms = |us: u64| format!("{:.0}", us as f64 / 1e3);
    let fine = |us: u64| if us < 100_000 { format!("{:.1}", us as f64 / 1e3) } else { ms(us) };
    let mut line = format!("{name:<22}");
    for percent in [0, 50, 100] {
        line += &format!("{:>8}", shown(wall(costs, percent), fine));
    }
    let median = wall(costs, 50);
    let rate = bytes.zip(median).map(|(bytes, us)| bytes / us.max(1));
    line += &format!("{:>8}", shown(quantile(&list(costs, |it| it.cpu_us), 50), ms));
    line += &format!("{:>8}", shown(peak_kib(costs), mib));
    line += &format!("{:>8}", shown(rate, |rate| rate.to_string()));
    let ratio = ours.and_then(|ours| ratio(ours, costs));
    line + &format!("{:>8}", shown(ratio, hundredths))
}

/// The median of the rounds' ratios, in hundredths: what else the machine does, it does to both.
fn ratio(ours: &[Cost], theirs: &[Cost]) -> Option<u64> {
    let pairs = ours.iter().zip(theirs);
    let ratios = pairs.map(|(us, them)| us.wall_us * 100 / them.wall_us.max(1));
    quantile(&ratios.collect::<Vec<_>>(), 50)
}

/// What was promised, and whether it is kept.
fn budgets(section: &Section) -> Vec<String> {
    let of = |role| section.rows.iter().filter(move |row| row.role == role);
    let fastest = of(Role::Inflate).min_by_key(|row| wall(&row.cold, 50));
    let podman = of(Role::Peer).find(|row| row.name == "podman");
    let fetch = of(Role::Fetch).min_by_key(|row| wall(&row.cold, 50));
    // Of a small image the way here is more than the files.
    let yardstick = fastest
        .map(|row| fetch.into_iter().chain([row]))
        .and_then(|rows| rows.max_by_key(|row| wall(&row.cold, 50)));
    let ours = of(Role::Ours).next();
    let to = |them: Option<&Row>| ratio(&ours?.cold, &them?.cold);
    let peak = ours.and_then(|row| peak_kib(&row.cold));
    let to_yardstick = format!("to {}", yardstick.map_or("inflate | tar", |row| row.name));
    let rest = format!("MiB above {} at rest", mib(section.rest_kib));
    vec![
        budget(&to_yardstick, to(yardstick), INFLATE, hundredths),
        budget("to podman, for docker", to(podman), DOCKER, hundredths),
        budget(&rest, peak, RSS_KIB, mib),
    ]
}

fn budget(name: &str, is: Option<u64>, most: u64, how: fn(u64) -> String) -> String {
    let (is_text, most_text) = (shown(is, how), how(most));
    format!("  {name:<28}{is_text:>8}, budget {most_text:>6}  {}", verdict(is, most))
}

fn list(costs: &[Cost], of: fn(&Cost) -> u64) -> Vec<u64> {
    costs.iter().map(of).collect()
}

fn wall(costs: &[Cost], percent: usize) -> Option<u64> {
    quantile(&list(costs, |it| it.wall_us), percent)
}

/// Of all rounds: a bound holds in each.
fn peak_kib(costs: &[Cost]) -> Option<u64> {
    costs.iter().map(|it| it.rss_kib).max()
}

fn mib(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}

fn hundredths(ratio: u64) -> String {
    format!("{:.2}", ratio as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &'static str, role: Role, ms: [u64; 3]) -> Row {
        let cost = |ms: u64| Cost { wall_us: ms * 1000, cpu_us: 5_000, rss_kib: ms << 6 };
        Row { name, role, cold: ms.map(cost).into(), warm: Vec::new() }
    }

    fn text(rows: Vec<Row>) -> Vec<String> {
        let section = Section {
            image: "a",
            packing: "gzip",
            layers: 1,
            entries: 2,
            bytes: 80_000_000,
            packed_bytes: 1,
            rest_kib: 2048,
            rows,
        };
        let text = super::section(&section);
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn a_budget_is_held_against_the_fastest_way_to_inflate() {
        let lines = text(vec![
            row("terrarium", Role::Ours, [390, 400, 512]),
            row("podman", Role::Peer, [800, 900, 1100]),
            row("slow | tar", Role::Inflate, [1, 500, 2000]),
            row("fast | tar", Role::Inflate, [300, 320, 330]),
            row("a part", Role::Part, [1, 2, 3]),
        ]);
        assert_eq!(lines[3], "terrarium 390 400 512 5 32.0 200 1.00");
        assert_eq!(lines[4], "podman 800 900 1100 5 68.8 88 0.46");
        assert_eq!(lines[8], "to fast | tar 1.30, budget 1.20 NOT MET");
        assert_eq!(lines[9], "to podman, for docker 0.46, budget 0.50 met");
        assert_eq!(lines[10], "MiB above 2.0 at rest 32.0, budget 32.0 met");
    }

    #[test]
    fn where_fetching_takes_longer_than_inflating_it_is_what_counts() {
        let small = |fetch| {
            text(vec![
                row("terrarium", Role::Ours, [52, 54, 56]),
                row("fetched", Role::Fetch, fetch),
                row("fast | tar", Role::Inflate, [29, 30, 31]),
            ])
        };
        assert_eq!(small([50, 54, 58])[6], "to fetched 1.00, budget 1.20 met");
        assert_eq!(small([10, 12, 14])[6], "to fast | tar 1.80, budget 1.20 NOT MET");
        // Without the inflating there is no budget at all.
        let lines = text(vec![row("fetched", Role::Fetch, [1, 2, 3])]);
        assert_eq!(lines[4], "to inflate | tar -, budget 1.20 not measured");
    }

    #[test]
    fn who_was_not_there_is_no_verdict() {
        let mut ours = row("terrarium", Role::Ours, [1, 2, 3]);
        ours.warm = ours.cold.clone();
        let lines = text(vec![ours]);
        assert_eq!(lines[4], "terrarium, again 1.0 2.0 3.0 5 0.2 - 1.00");
        assert_eq!(lines[5], "to inflate | tar -, budget 1.20 not measured");
        assert_eq!(lines[6], "to podman, for docker -, budget 0.50 not measured");
    }
}
