//! The recipe of a Task of an app: one command, where and as the app's own process would run.

use crate::model::action::Action;
use crate::model::extras::Extras;
use crate::model::limits::Limits;
use crate::model::lrp::DesiredLrp;
use crate::model::task::{Rootfs, Task};
use crate::unit::{Bytes, Digest};
use serde_json::{Value, json};

/// Domain of such Tasks, as Cloud Foundry has it.
const DOMAIN: &str = "cf-tasks";

/// What is asked of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskWish {
    /// What a shell runs; not empty.
    pub command: String,
    /// `None`: as the app's process has.
    pub memory: Option<Bytes>,
    /// `None`: as the app's process has.
    pub disk: Option<Bytes>,
}

/// The Task that runs a command as `lrp` would be run, in a container of `layers` with the volumes,
/// files and directories of its instances. Sidecars and ports of the app are not there. `None`: the
/// LRP is started by no launcher.
pub fn of_app(
    guid: String,
    lrp: &DesiredLrp,
    layers: Vec<Digest>,
    wish: &TaskWish,
) -> Option<Task> {
    let Action::Run(mut run) = lrp.work.action.clone() else { return None };
    // The launcher's: where, what, and what staging said.
    *run.process.args.get_mut(1).filter(|_| run.process.launches)? = wish.command.clone();
    run.log_source = format!("APP/TASK/{guid}");
    let mut limits = lrp.limits.clone();
    limits.memory = wish.memory.or(limits.memory);
    limits.disk = wish.disk.or(limits.disk);
    tell_limits(&mut run.process.env, &limits);
    Some(Task {
        app: lrp.guid.app.clone(),
        domain: DOMAIN.into(),
        rootfs: Rootfs::App(lrp.guid.app.clone(), layers),
        limits,
        egress: lrp.egress.clone(),
        env: Vec::new(),
        log_source: run.log_source.clone(),
        action: Action::Run(run),
        silent: false,
        internal: false,
        result_file: String::new(),
        completion_callback_url: String::new(),
        annotation: wish.command.chars().take(1024).collect(),
        source: String::new(),
        extras: Extras::of(lrp),
        guid,
    })
}

/// Tells of the Task's own limits where the environment tells of the process's: that one's memory is
/// without that of its sidecars, of which a Task has none.
fn tell_limits(env: &mut [(String, String)], limits: &Limits) {
    for (name, value) in env {
        match (name.as_str(), limits.memory) {
            ("MEMORY_LIMIT", Some(memory)) => *value = format!("{}m", memory.as_mib()),
            ("VCAP_APPLICATION", _) => {
                // One of the app's own making that holds no limits stays as it is.
                let Ok(mut all) = serde_json::from_str::<Value>(value) else { continue };
                let Some(Value::Object(told)) = all.get_mut("limits") else { continue };
                for (key, limit) in [("mem", limits.memory), ("disk", limits.disk)] {
                    if let Some(limit) = limit {
                        told.insert(key.into(), json!(limit.as_mib()));
                    }
                }
                *value = all.to_string();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lrp::{FileMount, Holds, ImageFacts, Volume};

    /// MEMORY_LIMIT, and `mem` and `disk` of VCAP_APPLICATION, of the process that runs.
    fn told(action: &Action) -> (String, Value) {
        let Action::Run(run) = action else { panic!("{action:?}") };
        let last = |name: &str| run.process.env.iter().rfind(|(key, _)| key == name);
        let of = |name: &str| last(name).map(|(_, value)| value.clone()).expect("it is told");
        let facts: Value = serde_json::from_str(&of("VCAP_APPLICATION")).expect("JSON");
        (of("MEMORY_LIMIT"), facts["limits"].clone())
    }

    /// Row 90: a Task has the memory that its process leaves its sidecars, too, and is told of what it was
    /// asked for with.
    #[test]
    fn row_90_a_task_is_told_of_its_own_limits() {
        let golden = include_str!("../../tests/golden/desired-lrps.json");
        let lrps: Vec<DesiredLrp> = serde_json::from_str(golden).expect("LRPs");
        let (memory, disk) = (lrps[0].limits.memory, lrps[0].limits.disk);
        let (memory, disk) = (memory.expect("a limit"), disk.expect("a limit"));
        let task = |lrp: &DesiredLrp, wish: TaskWish| {
            let wish = TaskWish { command: "true".into(), ..wish };
            told(&of_app("hello-1".into(), lrp, Vec::new(), &wish).expect("a Task").action)
        };
        // A sidecar has a part of the process's.
        let mut lrp = lrps[0].clone();
        let Action::Run(run) = &mut lrp.work.action else { panic!("{:?}", lrp.work.action) };
        let less = run.process.env.iter_mut().filter(|(name, _)| name == "MEMORY_LIMIT");
        less.for_each(|(_, value)| *value = "1m".into());
        assert_eq!(told(&lrp.work.action).0, "1m");
        let (limit, facts) = task(&lrp, TaskWish::default());
        assert_eq!(limit, format!("{}m", memory.as_mib()));
        assert_eq!(
            (&facts["mem"], &facts["disk"]),
            (&json!(memory.as_mib()), &json!(disk.as_mib()))
        );
        assert!(facts["fds"].is_u64(), "{facts}");
        let (memory, disk) = (Some(Bytes::mib(16)), Some(Bytes::mib(48)));
        let (limit, facts) = task(&lrp, TaskWish { memory, disk, ..TaskWish::default() });
        assert_eq!((&*limit, &facts["mem"], &facts["disk"]), ("16m", &json!(16), &json!(48)));
    }

    #[test]
    fn a_task_runs_its_command_as_the_app_would() {
        let golden = include_str!("../../tests/golden/desired-lrps.json");
        let lrps: Vec<DesiredLrp> = serde_json::from_str(golden).expect("LRPs");
        let wish = TaskWish {
            command: "rake db:migrate".into(),
            memory: Some(Bytes::mib(16)),
            ..TaskWish::default()
        };
        let layers = vec![Digest::of(b"stack"), Digest::of(b"droplet")];
        let task = of_app("hello-1".into(), &lrps[0], layers.clone(), &wish).expect("a Task");
        let (Action::Run(run), Action::Run(own)) = (&task.action, &lrps[0].work.action) else {
            panic!("{:?}", task.action)
        };
        assert_eq!(run.process.args[1], "rake db:migrate");
        assert_eq!((&run.process.path, &run.process.user), (&own.process.path, &own.process.user));
        assert_eq!(run.log_source, "APP/TASK/hello-1");
        assert_eq!((task.limits.memory, task.limits.disk), (wish.memory, lrps[0].limits.disk));
        // As it is kept in its record.
        assert_eq!(task.rootfs.to_string().parse(), Ok(task.rootfs.clone()));
        assert_eq!(task.rootfs, Rootfs::App(lrps[0].guid.app.clone(), layers));
        // Nothing that its instances have is forgotten.
        let volume = Volume { from: "/srv".into(), to: "/mnt".into(), read_only: true };
        let holds = Holds::Content("horse".into());
        let file = FileMount { path: "/run/secret".into(), holds, mode: 0o400 };
        let lrp = DesiredLrp {
            volumes: vec![volume],
            files: vec![file],
            image: Some(ImageFacts { volumes: vec!["/data".into()] }),
            ..lrps[0].clone()
        };
        let extras = of_app("hello-2".into(), &lrp, Vec::new(), &wish).expect("a Task").extras;
        assert_eq!((extras.volumes, extras.files), (lrp.volumes, lrp.files));
        assert_eq!(extras.directories, ["/data"]);
    }
}
