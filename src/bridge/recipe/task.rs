//! A one-off task as a Task.

use super::parts::{
    Archive, CERTIFICATES, ROOT, VCAP, archives, cpu_weight, docker_url, droplet, env, filled, run,
    serial, tags,
};
use super::{NoRecipe, Site};
use crate::bridge::request::RunTask;
use crate::model::desired::TASKS;
use serde_json::{Value, json};

/// Open files of its command.
const NOFILE: u64 = 1024;

/// The Task that `request` asks for.
pub fn task(site: &Site, request: &RunTask) -> Result<Value, NoRecipe> {
    let is_docker = request.lifecycle == "docker";
    let (archive, rootfs, user) = match is_docker {
        true if request.docker_path.is_empty() => {
            return Err(NoRecipe::new("desired app missing docker_image"));
        }
        true => (Archive::docker_lifecycle(site), docker_url(&request.docker_path)?, ROOT),
        false if request.droplet_uri.is_empty() => {
            return Err(NoRecipe::new("desired app missing droplet_uri"));
        }
        false => {
            let archive = Archive::buildpack_lifecycle(site, &request.rootfs);
            let archive = archive
                .ok_or_else(|| NoRecipe::new("no lifecycle binary bundle defined for stack"))?;
            (archive, format!("preloaded:{}", request.rootfs), VCAP)
        }
    };
    let (dependencies, mut steps) = archives(site.form, &[archive], user);
    if !is_docker {
        steps.push(droplet(&request.droplet_uri, &request.droplet_hash, &request.task_guid));
    }
    let metadata = if is_docker { "{}" } else { "" };
    let args = ["app", &request.command, metadata];
    let mut run = run("/tmp/lifecycle/launcher", &args, user, NOFILE);
    let source = match request.log_source.as_str() {
        "" => "APP",
        source => source,
    };
    run.insert("env".into(), env(&request.environment, &[]).into());
    run.insert("log_source".into(), source.into());
    steps.push(json!({ "run": run }));
    let mut task = json!({
        "task_guid": request.task_guid,
        "domain": TASKS,
        "rootfs": rootfs,
        "action": serial(steps),
        "env": env(&[], &[("LANG", "en_US.UTF-8")]),
        "memory_mb": request.memory_mb,
        "disk_mb": request.disk_mb,
        "cpu_weight": cpu_weight(request.memory_mb),
        "privileged": false,
        "log_guid": request.log_guid,
        "log_source": source,
        "metrics_guid": request.log_guid,
        "completion_callback_url": request.completion_callback,
        "egress_rules": request.egress_rules,
        "trusted_system_certificates_path": CERTIFICATES,
    });
    let more = json!({
        "cached_dependencies": dependencies,
        "volume_mounts": request.volume_mounts,
        "placement_tags": tags(&request.isolation_segment),
        "image_username": request.docker_user,
        "image_password": request.docker_password,
    });
    if let (Some(task), Value::Object(more)) = (task.as_object_mut(), filled(more)) {
        task.extend(more);
    }
    Ok(task)
}
