//! Events and explanations as a person reads them. Pure.

use crate::cli::text::{Ink, ago, clean, utc};
use crate::model::event::{Event, EventId};
use crate::model::explain::{ExplainView, Explanation};
use crate::unit::span;
use serde_json::Value;
use std::time::Duration;

/// Characters of a reason that a line shows.
const REASON_MAX: usize = 160;

/// `2026-11-21T02:00:00.123Z 3-17 actual_lrp_crashed web/0 crash 2: exit status 1` and a newline.
pub fn event(event: &Event, color: bool) -> String {
    let head = Ink::Dim.paint(&format!("{} {}", utc(event.time_ms), event.id), color);
    let ink = match event.event.as_str() {
        "actual_lrp_crashed" | "cell_unhealthy" | "desired_lrp_rolled_back" => Ink::Bad,
        _ => Ink::Plain,
    };
    let told = clean(&told(&event.event, &event.data)).replace('\t', " ");
    let text = format!("{head} {} {told}", ink.paint(&clean(&event.event), color));
    format!("{}\n", text.trim_end())
}

/// What a gap says: after which event the next one that is known comes. The first of a daemon is its
/// number 1: what comes before is what happened while none ran, or what an earlier one has said.
pub fn gap(data: &Value) -> String {
    let id = |key: &str| data[key].as_str().and_then(|id| id.parse::<EventId>().ok());
    match (id("after"), id("missed")) {
        (Some(after), Some(missed)) if after.epoch != missed.epoch && missed.sequence == 0 => {
            format!("the daemon was started anew, and what happened since {after} is not known")
        }
        (Some(after), Some(missed)) => {
            format!("what happened from {after} to {missed} is not known any more")
        }
        _ => "something that happened is not known any more".to_owned(),
    }
}

/// The payload in short.
fn told(kind: &str, data: &Value) -> String {
    let one = ["actual_lrp", "after", "desired_lrp", "task"];
    let record = one.iter().find_map(|key| data.get(key)).unwrap_or(data);
    let text = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
    let guid = |of: &Value| match of["index"].as_u64() {
        Some(index) => format!("{}/{index}", text(of, "process_guid")),
        None => [text(of, "process_guid"), text(of, "task_guid"), text(of, "app")].concat(),
    };
    let name = guid(record);
    match kind {
        "actual_lrp_crashed" => {
            let reason: String = text(data, "crash_reason").chars().take(REASON_MAX).collect();
            format!("{name} crash {}: {reason}", data["crash_count"])
        }
        "actual_lrp_changed" => {
            let (before, after) = (text(&data["before"], "state"), text(&data["after"], "state"));
            match text(&data["after"], "placement_error") {
                why if !why.is_empty() => format!("{name} {before} -> {after}: {why}"),
                _ => format!("{name} {before} -> {after}"),
            }
        }
        "desired_lrp_changed" => {
            let count = |key: &str| data[key]["instances"].as_u64().unwrap_or(0);
            format!("{name} {} -> {} instances", count("before"), count("after"))
        }
        "desired_lrp_rolled_back" => {
            let why: String = text(data, "reason").chars().take(REASON_MAX).collect();
            format!("{name} {why}")
        }
        "staging_completed" if data["failed"] == true => {
            let why: String = text(data, "failure_reason").chars().take(REASON_MAX).collect();
            format!("{name} failed: {why}")
        }
        "cell_unhealthy" => {
            let problems = data["problems"].as_array().cloned().unwrap_or_default();
            let problems = problems.iter().filter_map(Value::as_str);
            problems.collect::<Vec<_>>().join("; ")
        }
        _ => match record["state"].as_str() {
            Some(state) => format!("{name} {state}"),
            None => name,
        },
    }
}

/// `terrarium explain`.
pub fn explanation(view: &ExplainView, now_ms: u64, color: bool) -> String {
    let parts = view.parts.iter().map(|part| one(part, now_ms, color));
    parts.collect::<Vec<_>>().join("\n")
}

fn one(part: &Explanation, now_ms: u64, color: bool) -> String {
    let ink = match part.state.as_str() {
        "running" | "finished" => Ink::Good,
        "staging" | "starting" | "unclaimed" | "waiting" | "stopping" | "deleting" => Ink::Busy,
        "stopped" => Ink::Dim,
        _ => Ink::Bad,
    };
    let since = part.since_ms.map(|since| format!(" for {}", ago(now_ms, since)));
    let since = since.unwrap_or_default();
    let state = ink.paint(&clean(&part.state), color);
    let mut out = format!("{} is {state}{since}\n", clean(&part.subject));
    let mut field = |key: &str, text: String| {
        if !text.is_empty() {
            out.push_str(&format!("  {key:<5} {}\n", clean(&text).replace('\t', " ")));
        }
    };
    let when = part.happened_ms.map(|ms| format!(" ({}, {} ago)", utc(ms), ago(now_ms, ms)));
    field("what", format!("{}{}", part.happened, when.unwrap_or_default()));
    field("why", part.why.clone());
    let due = part.next_ms.filter(|ms| *ms > now_ms).map(|ms| {
        let wait = Duration::from_millis((ms - now_ms).div_ceil(1000) * 1000);
        format!(" at {}, in {}", utc(ms), span::show_go(wait))
    });
    field("next", format!("{}{}", part.next, due.unwrap_or_default()));
    field("do", part.cure.clone());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::apps::fake::crash;
    use serde_json::json;

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(
            event(&crash(), false),
            "2026-11-21T02:00:00.123Z 3-17 actual_lrp_crashed web/0 crash 2: exit\\x1b[2J\n"
        );
        let of = |kind: &str, data| {
            let line = event(&Event { event: kind.into(), data, ..crash() }, false);
            line.split_once(" 3-17 ").expect("an id").1.trim_end().to_owned()
        };
        let lrp = |state: &str| json!({"process_guid": "web", "index": 1, "state": state});
        let created = json!({"actual_lrp": lrp("UNCLAIMED")});
        assert_eq!(of("actual_lrp_created", created), "actual_lrp_created web/1 UNCLAIMED");
        let changed = json!({"before": lrp("CLAIMED"), "after": lrp("RUNNING")});
        assert_eq!(
            of("actual_lrp_changed", changed),
            "actual_lrp_changed web/1 CLAIMED -> RUNNING"
        );
        let desired = |n: u32| json!({"process_guid": "web:worker", "instances": n});
        let scaled = json!({"before": desired(1), "after": desired(3)});
        assert_eq!(
            of("desired_lrp_changed", scaled),
            "desired_lrp_changed web:worker 1 -> 3 instances"
        );
        let failed = json!({"app": "web", "failed": true, "failure_reason": "why\nnot"});
        assert_eq!(of("staging_completed", failed), "staging_completed web failed: why\\nnot");
        let back = json!({"process_guid": "web", "reason": "the new version failed: x"});
        assert_eq!(
            of("desired_lrp_rolled_back", back),
            "desired_lrp_rolled_back web the new version failed: x"
        );
        let full = json!({"problems": ["the disk is full"]});
        assert_eq!(of("cell_unhealthy", full), "cell_unhealthy the disk is full");
        let task = json!({"task": {"task_guid": "t-1", "state": "PENDING"}});
        assert_eq!(of("task_created", task), "task_created t-1 PENDING");
    }

    #[test]
    fn a_gap_says_from_where_to_where_and_whether_the_daemon_is_another() {
        for (after, missed, text) in [
            ("3-4", "3-17", "what happened from 3-4 to 3-17 is not known any more"),
            ("2-9", "3-5", "what happened from 2-9 to 3-5 is not known any more"),
            ("2-9", "3-0", "the daemon was started anew, and what happened since 2-9 is not known"),
        ] {
            assert_eq!(gap(&json!({"after": after, "missed": missed})), text);
        }
    }

    #[test]
    fn an_explanation_has_a_line_for_each_question_that_has_an_answer() {
        let part = Explanation {
            subject: "web/0".into(),
            state: "crashed".into(),
            since_ms: Some(1_795_226_400_000),
            happened: "it ended".into(),
            happened_ms: Some(1_795_226_400_000),
            why: "because\u{1b}".into(),
            next: "it starts again by itself".into(),
            next_ms: Some(1_795_226_430_000),
            cure: String::new(),
            crash_count: 3,
            death: None,
        };
        let done = Explanation { next_ms: Some(1), ..part.clone() };
        let view = ExplainView {
            app: "web".parse().expect("name"),
            state: "crashed".into(),
            parts: vec![part, done],
        };
        let text = explanation(&view, 1_795_226_412_500, false);
        let first = "web/0 is crashed for 12s\n  \
             what  it ended (2026-11-21T02:00:00.000Z, 12s ago)\n  \
             why   because\\x1b\n  \
             next  it starts again by itself at 2026-11-21T02:00:30.000Z, in 18s\n";
        assert!(text.starts_with(first), "{text}");
        assert!(text.ends_with("  next  it starts again by itself\n"), "{text}");
    }
}
