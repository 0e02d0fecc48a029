//! Tells whoever asked for a Task how it ended.

use super::state::TaskOp;
use crate::cell::shared::Shared;
use crate::model::task::TaskRecord;
use serde_json::json;
use std::sync::Arc;

impl Shared {
    /// Moves a Task to RESOLVING and posts its end. Told, it is forgotten; not told, it stays for
    /// the next try.
    pub(super) async fn tell_of(self: &Arc<Self>, guid: &str) {
        let Ok(outcome) = self.change_task(guid, TaskOp::Resolve).await else { return };
        let Some(record) = outcome.record else { return };
        let url = &record.task.completion_callback_url;
        match self.fetcher.notify(url, body(&record)).await {
            Ok(()) => self.try_op(guid, TaskOp::Delete).await,
            Err(err) => crate::warn!("task.untold", task = guid, err = err),
        }
    }
}

/// The BBS's words.
fn body(record: &TaskRecord) -> Vec<u8> {
    let body = json!({
        "task_guid": record.task.guid,
        "failed": record.failed,
        "failure_reason": record.failure_reason,
        "result": record.result,
        "annotation": record.task.annotation,
        "created_at": record.created_at,
    });
    body.to_string().into_bytes()
}
