//! Tasks on a box whose clock is set.

use super::super::lab::Lab;
use super::{ask, post, task, try_ask, until};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::time::SystemTime;
use terrarium::sys::fault::POINTS;

/// From now back to about 1970, in milliseconds.
const TO_1970: i64 = -56 * 365 * 86_400_000;

/// It waits, and was asked for some minutes ago at most by a clock that is set by so much.
fn waits(lab: &Lab, set_by: i64, when: &str) {
    let (_, task) = ask(lab, "GET", "/v1/tasks/waits", "");
    assert_eq!(task["state"], "PENDING", "{when}: {task}");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let created_ms = task["created_at"].as_i64().expect("a time") / 1_000_000;
    let ago = now.as_millis() as i64 + set_by - created_ms;
    assert!((-60_000..1_200_000).contains(&ago), "{when}: asked for {ago} ms ago: {task}");
}

/// Row 7: one that waits is not given up because the box learns the time: neither by the daemon that sees
/// it, which may die over it, nor by the next one, nor by one that begins after it.
#[test]
fn row_7_a_task_of_1970_waits_on_when_the_box_learns_the_time() {
    let mut lab = Lab::new("unset");
    let (clock, die_at) = (lab.root.join("clock"), lab.root.join("die-at"));
    let set = |by: i64| fs::write(&clock, by.to_string()).expect("clock");
    set(TO_1970);
    lab.serve();
    lab.ok(&["drain"]);
    post(&lab, &task("waits", "echo late", json!({})));
    waits(&lab, TO_1970, "at first");
    let points: Vec<_> = POINTS.into_iter().filter(|it| it.starts_with("clock:")).collect();
    assert_eq!(points.len(), 2);
    for point in points {
        fs::write(&die_at, point).expect("point");
        set(0);
        // Anything that happens lets the loop look.
        let other = task(&format!("other-{}", &point[6..]), "true", json!({}));
        let _ = try_ask(&lab, "POST", "/v1/tasks", &other.to_string());
        lab.until(point, |_| (!die_at.exists()).then_some(()));
        lab.end_daemon(Signal::SIGKILL);
        lab.serve();
        waits(&lab, 0, point);
        lab.end_daemon(Signal::SIGTERM);
        set(TO_1970);
        lab.serve();
        waits(&lab, TO_1970, "set while there was no daemon");
    }
    lab.ok(&["undrain"]);
    let done = until(&lab, "waits", "COMPLETED");
    assert_eq!(done["failed"], false, "{done}");
    lab.assert_empty();
    lab.finish();
}
