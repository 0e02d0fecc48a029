//! tasks, task, cancel, against the small service.

use super::World;
use crate::api::records::RecordService;
use crate::api::records::record::task;
use serde_json::{Value, json};

fn world() -> World {
    let world = World::new(&[]);
    let text = json!({ "task_guid": "G_1", "domain": "d", "rootfs": "preloaded:tiny",
        "action": { "run": { "path": "true", "user": "vcap" } } });
    let task = task(text.as_object().expect("an object"), &|_| None).expect("a task");
    smol::block_on(world.fake.desire_task(task)).expect("desired");
    world
}

#[test]
fn tasks_are_listed_shown_and_cancelled() {
    let world = world();
    let (code, out, _) = world.run("tasks");
    assert_eq!(code, 0);
    assert!(out.contains("G_1") && out.contains("pending"), "{out}");
    let (code, out, _) = world.run("task G_1");
    assert_eq!(code, 0);
    assert!(out.contains("state      pending\n") && out.contains("preloaded:tiny"), "{out}");
    assert!(world.run("status").1.contains("tasks: 1 running\n"));
    let (code, out, err) = world.run("cancel G_1");
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", "G_1: cancelled\n"));
    // It has failed now, and is not cancelled twice.
    let (code, out, _) = world.run("task G_1 --json");
    let shown: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &shown["failure_reason"]), (3, &"task was cancelled".into()));
    let (code, _, err) = world.run("cancel G_1");
    assert_eq!(code, 9, "{err}");
    assert!(err.contains("Cannot transition from COMPLETED to COMPLETED"), "{err}");
    let (code, out, _) = world.run("tasks --json");
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<Value>(&out).expect("JSON")[0]["state"], "COMPLETED");
}

#[test]
fn a_task_that_nobody_knows_is_not_found() {
    let world = world();
    for line in ["task nobody", "cancel nobody"] {
        let (code, out, err) = world.run(line);
        assert_eq!((code, out.as_str()), (4, ""), "{line}");
        assert!(err.contains("there is no task `nobody`; `terrarium tasks` lists"), "{err}");
    }
    assert_eq!(world.run("task").0, 2);
    assert_eq!(world.run("cancel").0, 2);
}
