//! Readers of events that are slower than what happens, and the command line that follows.

use super::super::tasks;
use super::*;
use std::process::Stdio;

/// Tasks that come and go while somebody does not read; each is three events at least.
const TASKS: usize = 600;
/// Events that may wait for a reader, and as many more as the sockets hold.
const BEHIND: usize = 1024;

/// A Task that is too large for the box comes and goes: nothing is made for it.
fn come_and_go(lab: &Lab, guid: &str) {
    let task = tasks::task(guid, "true", json!({ "memory_mb": 1 << 20 }));
    let (status, err) = tasks::ask(lab, "POST", "/v1/tasks", &task.to_string());
    assert_eq!(status, 201, "{err}");
    tasks::ask(lab, "POST", &format!("/v1/tasks/{guid}/cancel"), "");
    lab.until("it is gone", |lab| {
        let (status, _) = tasks::ask(lab, "DELETE", &format!("/v1/tasks/{guid}"), "");
        (status == 200).then_some(())
    });
}

/// Row 21: who does not read is cut, and neither the daemon nor another reader waits for him.
#[test]
fn row_21_a_reader_that_does_not_read_is_cut_and_nobody_waits_for_it() {
    let lab = Lab::start("slowreader");
    let mut slow = Stream::open(&lab, "/v1/events", "");
    let mut quick = Stream::open(&lab, "/v1/events", "");
    let all = std::thread::scope(|scope| {
        let is_last =
            |told: &Told| told.event == "task_removed" && told.data["task"]["task_guid"] == "last";
        let heard = scope.spawn(move || quick.until(is_last));
        for n in 0..TASKS {
            come_and_go(&lab, &format!("t{n}"));
        }
        lab.ok(&["apps"]);
        come_and_go(&lab, "last");
        heard.join().expect("the one who reads")
    });
    assert!(all.len() > BEHIND + BEHIND / 2, "{} events", all.len());
    for two in all.windows(2) {
        let ((epoch, number), next) = (place(&two[0]), place(&two[1]));
        assert_eq!(next, (epoch, number + 1), "none is missed");
    }
    // What it was sent before, and then the end.
    let mut sent = Vec::new();
    slow.0.read_to_end(&mut sent).expect("the stream ends");
    let sent = String::from_utf8_lossy(&sent);
    let id = |told: &Told| format!("id: {}\n", told.id);
    assert!(sent.contains(&id(&all[0])), "it was a reader like the other");
    assert!(!sent.contains(&id(all.last().expect("the last"))), "it was waited for");
    lab.finish();
}

/// Row 21: `events -f --since` tells what was missed and what comes, until the daemon ends.
#[test]
fn row_21_the_command_line_follows_from_an_event_on() {
    let mut lab = Lab::start("follow");
    come_and_go(&lab, "one");
    let told: Vec<Value> = lab
        .ok(&["events", "--json"])
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let since = told[0]["id"].as_str().expect("an id");
    let mut follower = lab
        .command(&["events", "-f", "--json", "--since", since])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("events -f");
    let mut lines = BufReader::new(follower.stdout.take().expect("piped")).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("an event").expect("UTF-8");
        serde_json::from_str(&line).expect("JSON")
    };
    for missed in &told[1..] {
        assert_eq!(next()["id"], missed["id"]);
    }
    come_and_go(&lab, "two");
    let fresh = next();
    assert_eq!(
        (&fresh["event"], &fresh["data"]["task"]["task_guid"]),
        (&"task_created".into(), &"two".into())
    );
    lab.end_daemon(Signal::SIGTERM);
    for line in lines {
        line.expect("UTF-8");
    }
    follower.wait().expect("it ends with the daemon");
    lab.serve();
    lab.finish();
}
