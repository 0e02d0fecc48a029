//! Tasks and containers as Diego shows them: what was asked for, as it was written, and what became
//! of it.

use super::LrpRecord;
use super::action;
use crate::exec::state::ContainerState;
use crate::model::task::TaskRecord;
use crate::model::view::InstanceView;
use serde_json::{Map, Value, json};

/// A Task of the receptor.
pub fn task(record: &TaskRecord) -> Value {
    let task = &record.task;
    let mut out = own_words(&task.source);
    // One that was asked for as a container, or by this box itself.
    if !out.contains_key("task_guid") {
        out = Map::new();
        let limits = &task.limits;
        let mib = |bytes: Option<crate::unit::Bytes>| bytes.map_or(0, |bytes| bytes.as_mib());
        let shown = json!({
            "domain": task.domain,
            "rootfs": task.rootfs.to_string(),
            "memory_mb": mib(limits.memory),
            "disk_mb": mib(limits.disk),
            "cpu_weight": limits.cpu_weight.unwrap_or_default(),
            "log_guid": if task.silent { "" } else { task.app.as_str() },
            "log_source": task.log_source,
            "result_file": task.result_file,
            "annotation": task.annotation,
            "action": action::encode(&task.action),
        });
        out.extend(shown.as_object().cloned().unwrap_or_default());
    }
    let state = json!({
        "task_guid": task.guid,
        "state": record.state,
        "cell_id": record.cell_id,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "first_completed_at": record.first_completed_at,
        "failed": record.failed,
        "failure_reason": record.failure_reason,
        "result": record.result,
        "rejection_count": record.rejection_count,
        "rejection_reason": record.rejection_reason,
        // What `terrarium logs` calls its log.
        "log_name": if task.silent { "" } else { task.app.as_str() },
    });
    out.extend(state.as_object().cloned().unwrap_or_default());
    Value::Object(out)
}

/// It was asked for as a container.
pub fn is_container(record: &TaskRecord) -> bool {
    own_words(&record.task.source).contains_key("guid")
}

/// A Task that was asked for as a container, which is so far.
pub fn task_container(record: &TaskRecord, state: ContainerState) -> Value {
    let mut out = own_words(&record.task.source);
    let stopped = record.failure_reason == crate::cell::task::state::CANCELLED;
    complete(&mut out, state, record.created_at, (record.failed, &record.failure_reason, stopped));
    Value::Object(out)
}

/// An LRP as a container.
pub fn lrp(record: &LrpRecord, external_ip: &str) -> Value {
    let mut out = own_words(&record.container.source);
    let instance = record.app.processes.first().and_then(|process| process.instances.first());
    let reason = instance.and_then(|one| one.crash_reason.clone()).unwrap_or_default();
    // From the moment that it was told to; only what crashed by itself has failed.
    let stopped = matches!(record.app.state.as_str(), "stopping" | "stopped" | "deleting");
    let crashed = instance.is_some_and(|one| one.state == "crashed");
    let failed = record.state == ContainerState::Completed && crashed && !stopped;
    let since_ns = instance.map_or(0, |one| one.since_ms.saturating_mul(1_000_000));
    complete(&mut out, record.state, since_ns, (failed, &reason, stopped));
    if let Some(InstanceView { ports, .. }) = instance.filter(|one| !one.ports.is_empty()) {
        let ports = ports
            .iter()
            .map(|port| json!({ "container_port": port.container, "host_port": port.host }));
        out.insert("ports".into(), ports.collect());
        out.insert("external_ip".into(), external_ip.into());
    }
    out.insert("log_name".into(), record.app.name.as_str().into());
    Value::Object(out)
}

fn complete(
    out: &mut Map<String, Value>,
    state: ContainerState,
    allocated_at: u64,
    (failed, reason, stopped): (bool, &str, bool),
) {
    out.insert("state".into(), state.to_string().into());
    out.insert("allocated_at".into(), allocated_at.into());
    let result = json!({ "failed": failed, "failure_reason": reason, "stopped": stopped });
    out.insert("run_result".into(), result);
}

fn own_words(source: &str) -> Map<String, Value> {
    serde_json::from_str(source).unwrap_or_default()
}
