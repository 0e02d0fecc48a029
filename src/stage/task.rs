//! The recipe of a Task of an app: one command, where and as the app's own process would run.

use crate::model::action::Action;
use crate::model::extras::Extras;
use crate::model::lrp::DesiredLrp;
use crate::model::task::{Rootfs, Task};
use crate::unit::{Bytes, Digest};

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
    if let Some(memory) = wish.memory {
        run.process.env.push(("MEMORY_LIMIT".into(), format!("{}m", memory.as_mib())));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lrp::{FileMount, Holds, ImageFacts, Volume};

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
        assert_eq!(run.process.env.last().map(|it| &*it.1), Some("16m"), "the last one wins");
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
