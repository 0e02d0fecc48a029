//! Figures as OpenMetrics text, version 1.0. Pure.
//!
//! Source: OpenMetrics 1.0, "Text format": a family is its HELP, TYPE and UNIT, then its samples; the
//! text ends with `# EOF`.

use crate::model::metrics::{Amounts, CellFigures, InstanceFigures, Span};
use crate::unit::Rate;
use std::fmt::Write;

/// Of the answer.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text under construction.
struct Text(String);

/// One family: name without `terrarium_` and unit, type, unit, what it is.
struct Family(&'static str, &'static str, &'static str, &'static str);

/// The whole text.
pub fn render(figures: &CellFigures) -> String {
    let mut text = Text(String::new());
    capacity(&mut text, figures);
    durations(&mut text, figures);
    counters(&mut text, figures);
    let tasks = figures.tasks.iter().map(|(_, one)| one);
    let all: Vec<&InstanceFigures> = figures.instances.iter().chain(tasks).collect();
    instances(&mut text, &all);
    text.0.push_str("# EOF\n");
    text.0
}

impl Text {
    /// A family's head.
    fn family(&mut self, family: &Family) -> String {
        let Family(name, kind, unit, help) = family;
        let name = match unit.is_empty() {
            true => format!("terrarium_{name}"),
            false => format!("terrarium_{name}_{unit}"),
        };
        let _ = writeln!(self.0, "# HELP {name} {help}");
        let _ = writeln!(self.0, "# TYPE {name} {kind}");
        if !unit.is_empty() {
            let _ = writeln!(self.0, "# UNIT {name} {unit}");
        }
        name
    }

    /// One sample; `labels` are pairs of name and value.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let _ = match labels.is_empty() {
            true => writeln!(self.0, "{name} {value}"),
            false => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
        };
    }

    /// A family with one sample and no labels.
    fn one(&mut self, family: &Family, value: impl std::fmt::Display) {
        let name = self.family(family);
        let name = if family.1 == "counter" { format!("{name}_total") } else { name };
        self.sample(&name, &[], value);
    }
}

/// A label's value: backslash, quote and line break are escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What the box has, and what is left of it.
fn capacity(text: &mut Text, figures: &CellFigures) {
    let (total, left) = (figures.total, figures.remaining);
    let taken = Amounts {
        memory_bytes: total.memory_bytes.saturating_sub(left.memory_bytes),
        disk_bytes: total.disk_bytes.saturating_sub(left.disk_bytes),
        containers: total.containers.saturating_sub(left.containers),
    };
    let of: [(&str, Amounts, [&'static str; 3]); 3] = [
        (
            "total",
            total,
            ["capacity_total_memory", "capacity_total_disk", "capacity_total_containers"],
        ),
        (
            "left",
            left,
            [
                "capacity_remaining_memory",
                "capacity_remaining_disk",
                "capacity_remaining_containers",
            ],
        ),
        (
            "taken",
            taken,
            [
                "capacity_allocated_memory",
                "capacity_allocated_disk",
                "capacity_allocated_containers",
            ],
        ),
    ];
    for (what, amounts, [memory, disk, containers]) in of {
        let help = match what {
            "total" => "What the box gives to containers.",
            "left" => "What is left for more containers.",
            _ => "What containers were promised.",
        };
        text.one(&Family(memory, "gauge", "bytes", help), amounts.memory_bytes);
        text.one(&Family(disk, "gauge", "bytes", help), amounts.disk_bytes);
        text.one(&Family(containers, "gauge", "", help), amounts.containers);
    }
    let help = "Containers of apps.";
    text.one(&Family("container_count", "gauge", "", help), figures.containers);
    let help = "Containers of apps and tasks that have their room and do not run yet.";
    text.one(&Family("starting_container_count", "gauge", "", help), figures.starting);
    let known = |used: Option<u64>| used.map_or("-1".to_owned(), |bytes| bytes.to_string());
    let help = "Memory that the containers of apps use; -1 while that of one cannot be read.";
    let used = known(figures.memory_used_bytes);
    text.one(&Family("container_usage_memory", "gauge", "bytes", help), used);
    let help = "Disk that the containers of apps use; -1 while that of one cannot be read.";
    let used = known(figures.disk_used_bytes);
    text.one(&Family("container_usage_disk", "gauge", "bytes", help), used);
    let help = "1 while something is wrong with the box.";
    text.one(&Family("cell_unhealthy", "gauge", "", help), u8::from(figures.unhealthy));
    let help = "1 when the last self-check has failed.";
    let failed = u8::from(figures.self_check_failed);
    text.one(&Family("garden_health_check_failed", "gauge", "", help), failed);
    let help = "How long the self-check that is under way has taken; 0 while none is.";
    let stalled = format!("{:.3}", figures.stalled.as_secs_f64());
    text.one(&Family("stalled_garden", "gauge", "seconds", help), stalled);
}

/// How long slow work has taken.
fn durations(text: &mut Text, figures: &CellFigures) {
    let counts = &figures.counts;
    for (name, help, outcomes) in [
        ("container_creation", "Containers made.", counts.creations),
        ("container_destruction", "Containers destroyed.", counts.destructions),
        (
            "container_setup",
            "What is done in a container before its process begins.",
            counts.setups,
        ),
    ] {
        let name = text.family(&Family(name, "summary", "seconds", help));
        for (result, span) in [("succeeded", outcomes.succeeded), ("failed", outcomes.failed)] {
            summary(text, &name, &[("result", result)], span);
        }
    }
    let help = "Comparisons of what is wanted with what there is.";
    let name = text.family(&Family("bulk_sync", "summary", "seconds", help));
    summary(text, &name, &[], counts.syncs);
}

fn summary(text: &mut Text, name: &str, labels: &[(&str, &str)], span: Span) {
    text.sample(&format!("{name}_count"), labels, span.count);
    text.sample(&format!("{name}_sum"), labels, format!("{:.9}", span.total.as_secs_f64()));
}

/// What has been counted since the daemon began.
fn counters(text: &mut Text, figures: &CellFigures) {
    let counts = &figures.counts;
    for (name, help, value) in [
        (
            "container_exited_on_timeout",
            "Processes killed for not ending on TERM.",
            counts.exited_on_timeout,
        ),
        ("container_completed", "Instances that have ended.", counts.completed),
        (
            "app_instance_exceeded_log_rate_limit",
            "Times that an instance logged too much.",
            counts.log_overruns,
        ),
        ("checks_failed", "Instances ended because of their health check.", counts.checks_failed),
    ] {
        text.one(&Family(name, "counter", "", help), value);
    }
}

/// A figure of each container.
type Of = fn(&InstanceFigures) -> Option<String>;

/// Each family with a sample for each container.
fn instances(text: &mut Text, all: &[&InstanceFigures]) {
    let families: [(Family, Of); 14] = [
        (
            Family(
                "app_cpu_percent",
                "gauge",
                "",
                "Processor time since the last look, in percent of one processor; 0 at the first look.",
            ),
            |it| Some(format!("{:.2}", it.cpu.hundredths() as f64 / 100.0)),
        ),
        (Family("app_cpu", "counter", "seconds", "Processor time used."), |it| {
            Some(format!("{:.9}", it.cpu_ns as f64 / 1e9))
        }),
        (Family("app_memory", "gauge", "bytes", "Memory that counts toward the limit."), |it| {
            Some(it.memory_bytes.to_string())
        }),
        (Family("app_memory_quota", "gauge", "bytes", "The memory limit; 0 is none."), |it| {
            Some(it.memory_quota_bytes.to_string())
        }),
        (Family("app_disk", "gauge", "bytes", "What it has written, without its image."), |it| {
            Some(it.disk_bytes.to_string())
        }),
        (Family("app_disk_quota", "gauge", "bytes", "What it may write; 0 is any amount."), |it| {
            Some(it.disk_quota_bytes.to_string())
        }),
        (Family("app_age", "gauge", "seconds", "How long it has been in its state."), |it| {
            Some(format!("{:.3}", it.age_ns as f64 / 1e9))
        }),
        (Family("app_network_receive", "counter", "bytes", "Bytes received."), |it| {
            it.traffic.map(|(received, _)| received.to_string())
        }),
        (Family("app_network_transmit", "counter", "bytes", "Bytes sent."), |it| {
            it.traffic.map(|(_, sent)| sent.to_string())
        }),
        (Family("app_logged", "counter", "bytes", "Bytes of output that were logged."), |it| {
            Some(it.logged_bytes.to_string())
        }),
        (
            Family("app_log_rate", "gauge", "", "Bytes logged in a second since the last look."),
            |it| Some(it.log_rate.to_string()),
        ),
        (
            Family(
                "app_log_rate_limit",
                "gauge",
                "",
                "Bytes that may be logged in a second; -1 is any number.",
            ),
            |it| Some(rate(it.log_rate_limit)),
        ),
        (Family("app_pids", "gauge", "", "Processes and threads."), |it| Some(it.pids.to_string())),
        (
            Family(
                "app_oom_kills",
                "counter",
                "",
                "Processes that the kernel has ended for lack of memory.",
            ),
            |it| Some(it.oom_kills.to_string()),
        ),
    ];
    for (family, of) in &families {
        let name = text.family(family);
        let name = if family.1 == "counter" { format!("{name}_total") } else { name };
        for one in all {
            let Some(value) = of(one) else { continue };
            let index = one.index.to_string();
            let own = [
                ("app", one.guid.app.as_str()),
                ("process", one.guid.process.as_str()),
                ("index", index.as_str()),
                ("instance_guid", one.handle.as_str()),
            ];
            let further = further(&one.labels, &own.map(|(name, _)| name));
            let further = further.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let labels: Vec<(&str, &str)> = own.into_iter().chain(further).collect();
            text.sample(&name, &labels, value);
        }
    }
}

/// Labels that a record asks for, under names that the format has; `own` ones go before.
fn further(labels: &[(String, String)], own: &[&str]) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for (name, value) in labels {
        let plain = |it: char| if it.is_ascii_alphanumeric() { it } else { '_' };
        let mut name: String = name.chars().map(plain).collect();
        if name.is_empty() || name.starts_with(|it: char| it.is_ascii_digit()) {
            name.insert(0, '_');
        }
        if !own.contains(&name.as_str()) && all.iter().all(|(known, _)| *known != name) {
            all.push((name, value.clone()));
        }
    }
    all
}

fn rate(rate: Rate) -> String {
    match rate {
        Rate::Unlimited => "-1".into(),
        Rate::Bytes(bytes) => bytes.get().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lrp::ProcessGuid;
    use crate::unit::Percent;
    use std::collections::{BTreeMap, BTreeSet};

    /// The figures of a box with one container.
    fn figures() -> CellFigures {
        let amounts = |n| Amounts { memory_bytes: n << 30, disk_bytes: n << 31, containers: n };
        let one = InstanceFigures {
            guid: ProcessGuid { app: "web".parse().expect("name"), process: "web".into() },
            index: 0,
            handle: "web-0-00000007".into(),
            running: true,
            cpu: Percent::of(1, 4).expect("a share"),
            cpu_ns: 1_500_000_000,
            memory_bytes: 5,
            memory_quota_bytes: 6,
            disk_bytes: 7,
            disk_quota_bytes: 8,
            age_ns: 9_000_000_000,
            traffic: None,
            logged_bytes: 10,
            log_rate: 11,
            log_rate_limit: Rate::Unlimited,
            pids: 12,
            oom_kills: 13,
            labels: Vec::new(),
        };
        let mut odd = one.clone();
        odd.guid.process = "a\"b\\c\nd".into();
        odd.traffic = Some((14, 15));
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        odd.labels = vec![label("my-tag", "x"), label("app", "no"), label("my.tag", "twice")];
        CellFigures {
            total: amounts(8),
            remaining: amounts(6),
            containers: 2,
            starting: 1,
            memory_used_bytes: Some(5),
            instances: vec![one, odd],
            ..CellFigures::default()
        }
    }

    /// Row 56, row 92: every figure of the reference is there, under its name.
    #[test]
    fn row_56_row_92_capacity_counts_and_durations_have_their_families() {
        let text = render(&figures());
        for line in [
            "terrarium_capacity_total_memory_bytes 8589934592",
            "terrarium_capacity_remaining_containers 6",
            "terrarium_capacity_allocated_disk_bytes 4294967296",
            "terrarium_container_count 2",
            "terrarium_starting_container_count 1",
            "terrarium_container_usage_memory_bytes 5",
            "terrarium_container_usage_disk_bytes -1",
            "terrarium_cell_unhealthy 0",
            "terrarium_garden_health_check_failed 0",
            "terrarium_stalled_garden_seconds 0.000",
            "terrarium_container_creation_seconds_count{result=\"succeeded\"} 0",
            "terrarium_container_destruction_seconds_sum{result=\"failed\"} 0.000000000",
            "terrarium_container_setup_seconds_count{result=\"failed\"} 0",
            "terrarium_bulk_sync_seconds_count 0",
            "terrarium_container_exited_on_timeout_total 0",
            "terrarium_container_completed_total 0",
            "terrarium_app_instance_exceeded_log_rate_limit_total 0",
            "terrarium_checks_failed_total 0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        let labels = "{app=\"web\",process=\"web\",index=\"0\",instance_guid=\"web-0-00000007\"}";
        assert!(text.contains(&format!("terrarium_app_cpu_percent{labels} 25.00\n")), "{text}");
        assert!(text.contains(&format!("terrarium_app_log_rate_limit{labels} -1\n")), "{text}");
        assert!(text.contains("process=\"a\\\"b\\\\c\\nd\""), "{text}");
        let further = "instance_guid=\"web-0-00000007\",my_tag=\"x\"}";
        assert!(text.contains(further), "what a record asks for comes last: {text}");
    }

    #[test]
    fn the_text_is_what_the_format_asks_for() {
        let text = render(&figures());
        assert!(text.ends_with("\n# EOF\n"));
        let mut families: BTreeMap<String, String> = BTreeMap::new();
        let mut current = String::new();
        let mut samples = BTreeSet::new();
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(families.insert(name.into(), kind.into()).is_none(), "{name} twice");
                current = name.into();
            } else if let Some(rest) = line.strip_prefix("# UNIT ") {
                let (name, unit) = rest.split_once(' ').expect("a unit");
                assert!(name == current && name.ends_with(unit), "{line}");
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().expect("a name");
                let end =
                    name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} of {current}"));
                let ends: &[&str] = match families[&current].as_str() {
                    "counter" => &["_total"],
                    "summary" => &["_count", "_sum"],
                    _ => &[""],
                };
                assert!(ends.contains(&end), "{line}");
                let (sample, value) = line.rsplit_once(' ').expect("a value");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(samples.insert(sample.to_owned()), "{line} twice");
            }
        }
        assert!(families.len() > 30 && samples.len() > 40);
    }
}
