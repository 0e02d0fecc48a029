//! The recipe of what has to succeed before a new version starts: `[hook.release]`.

use super::{StageError, docker, recipe};
use crate::model::action::Action;
use crate::model::extras::Extras;
use crate::model::image::StagedImage;
use crate::model::manifest::{Check, Health, Manifest, Process, ReleaseHook};
use crate::model::task::{Rootfs, STAGING, StagingResult, Task};
use crate::unit::Digest;
use std::collections::BTreeMap;
use std::time::Duration;

/// What its process type and its log are called.
const NAME: &str = "release";

/// What was staged, and is to run if the hook has no objection.
pub struct Staged<'a> {
    /// What the builder or the image says.
    pub result: &'a StagingResult,
    /// Its layer.
    pub droplet: Digest,
    /// The image, if it is one.
    pub image: Option<&'a StagedImage>,
}

/// The Task that runs the hook as an instance of the app would run, with its volumes and files, without
/// ports, checks and sidecars.
pub fn release_task(
    manifest: &Manifest,
    hook: &ReleaseHook,
    staged: &Staged<'_>,
    guid: String,
) -> Result<Task, StageError> {
    let alone = Manifest {
        processes: BTreeMap::from([(NAME.to_owned(), process(hook))]),
        sidecars: BTreeMap::new(),
        ..manifest.clone()
    };
    let result = StagingResult {
        sidecars: Vec::new(),
        process_types: BTreeMap::new(),
        ..staged.result.clone()
    };
    let lrps = match staged.image {
        Some(image) => docker::desired_lrps(&alone, &result, image, 0)?,
        None => recipe::desired_lrps(&alone, &result, staged.droplet, 0)?,
    };
    let mut lrp = lrps.into_iter().next().expect("one process makes one LRP");
    let log_source = format!("APP/TASK/{}", NAME.to_uppercase());
    if let Action::Run(run) = &mut lrp.work.action {
        run.log_source.clone_from(&log_source);
    }
    let extras = Extras::of(&lrp);
    Ok(Task {
        guid,
        app: manifest.name.clone(),
        domain: STAGING.into(),
        rootfs: Rootfs::Stack(manifest.build.stack.clone()),
        limits: lrp.limits,
        egress: lrp.egress,
        env: Vec::new(),
        action: Action::Timeout { action: Box::new(lrp.work.action), timeout: hook.timeout },
        log_source,
        silent: false,
        internal: true,
        result_file: String::new(),
        completion_callback_url: String::new(),
        annotation: String::new(),
        extras,
        source: String::new(),
    })
}

fn process(hook: &ReleaseHook) -> Process {
    Process {
        command: Some(hook.command.clone()),
        instances: 1,
        memory: hook.memory,
        disk: hook.disk,
        ports: Vec::new(),
        health: Health {
            check: Check::Process,
            start_timeout: Duration::ZERO,
            interval_unhealthy: Duration::ZERO,
            interval_healthy: Duration::ZERO,
            timeout: Duration::ZERO,
            failures: 1,
            also: Vec::new(),
        },
        readiness: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_hook_runs_as_the_app_would() {
        let text = "name = \"a\"\nsource.path = \"/a\"\n[run]\nmemory = \"64MiB\"\n[env]\nA = \"b\"\n\
                    [[port]]\ncontainer = 80\n[sidecar.s]\ncommand = \"s\"\n[process.web]\n\
                    [hook.release]\ncommand = \"./migrate\"\ntimeout = \"2m\"\ndisk = \"9MiB\"\n\
                    [[volume]]\nfrom = \"/srv/a\"\nto = \"/mnt\"\n\
                    [[file]]\npath = \"/run/secret\"\ncontent = \"horse\"\n\
                    [[service]]\nname = \"db\"\nlabel = \"pg\"\ncredentials.uri = \"pg://x\"";
        let manifest = crate::config::manifest::parse(text, "a.toml", Path::new("/"))
            .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let hook = manifest.release_hook.as_ref().expect("a hook");
        let result = StagingResult::default();
        let staged = Staged { result: &result, droplet: Digest::of(b"d"), image: None };
        let task = release_task(&manifest, hook, &staged, "release-a-1".into()).expect("a task");
        let Action::Timeout { action, timeout } = &task.action else { panic!("no timeout") };
        assert_eq!(*timeout, Duration::from_secs(120));
        let Action::Run(run) = action.as_ref() else { panic!("it runs nothing") };
        assert_eq!(run.log_source, "APP/TASK/RELEASE");
        assert_eq!(run.process.args[..2], ["app", "./migrate"]);
        assert!(run.process.env.contains(&("A".into(), "b".into())));
        let has = |name: &str, text: &str| {
            run.process.env.iter().any(|(it, value)| it == name && value.contains(text))
        };
        assert!(has("VCAP_SERVICES", "pg://x"), "{:?}", run.process.env);
        assert_eq!(task.extras.volumes[0].to, "/mnt");
        assert_eq!(task.extras.files[0].path, "/run/secret");
        assert_eq!(task.limits.memory, Some(crate::unit::Bytes::mib(64)));
        assert_eq!(task.limits.disk, Some(crate::unit::Bytes::mib(9)));
    }
}
