//! Starts processes and joins clients to them.

use super::backend::{Backend, Shared};
use super::fan::Listener;
use super::member::Member;
use super::process::{Running, Session};
use super::{Done, GardenError, Which, plan};
use crate::container::ProcessError;
use crate::init::proto::FailKind;
use crate::model::garden::ProcessSpec;
use std::sync::Arc;

impl Backend {
    /// Starts a process; it runs when this returns.
    pub async fn run(&self, handle: &str, spec: ProcessSpec) -> Done<Session> {
        let member = self.shared.member(handle)?;
        let id = match &*spec.id {
            "" => self.shared.fresh_id().to_string(),
            chosen => chosen.to_owned(),
        };
        let taken = member.processes().get(&id).is_some_and(|running| !running.is_over());
        if taken {
            return Err(in_use(&id));
        }
        let inner = plan::process_name(&id);
        if !plan::is_plain(&inner) {
            let (inner, id) = (inner.clone(), id.clone());
            member.change(&self.shared, |record| drop(record.names.insert(inner, id))).await?;
        }
        let env = member.record().env;
        let is_pea = !spec.image.uri.is_empty();
        let (user, started) = match is_pea {
            false => {
                let wanted = plan::process(&spec, &inner, &env)?;
                (wanted.user.clone(), member.container.start(wanted).await)
            }
            true => {
                let pea = self.shared.make_pea(&member, &inner, &spec).await?;
                let wanted = plan::process(&spec, &inner, pea.env())?;
                (wanted.user.clone(), pea.start(&member, wanted).await)
            }
        };
        let process = match started {
            Ok(process) => process,
            Err(err) => {
                if is_pea {
                    self.shared.clone().remove_pea(&member, &inner).await;
                }
                return Err(not_started(&err, &spec.path, &user, &id));
            }
        };
        let running = Running::begin(&member, &id, process, is_pea, &self.shared);
        member.processes().insert(id, running.clone());
        Ok(self.shared.join(&running))
    }

    /// Joins a process that runs, or has ended a short time ago.
    pub async fn attach(&self, handle: &str, process: &str) -> Done<Session> {
        let member = self.shared.member(handle)?;
        let running = member.processes().get(process).cloned();
        let unknown = || GardenError::UnknownProcess(process.to_owned());
        Ok(self.shared.join(&running.ok_or_else(unknown)?))
    }

    /// An output of a session; `None`: there is no such stream, or not any more.
    pub fn output(
        &self,
        handle: &str,
        process: &str,
        stream: &str,
        which: Which,
    ) -> Option<Listener> {
        let member = self.shared.member(handle).ok()?;
        let running = member.processes().get(process).cloned();
        running?.output(stream, which)
    }
}

impl Shared {
    fn join(&self, running: &Arc<Running>) -> Session {
        running.join(self.fresh_stream(), self.ended.clone())
    }
}

impl Member {
    /// Forgets an ended process, unless another one has its name by now.
    pub(super) async fn forget(&self, ended: &Arc<Running>) {
        {
            let mut processes = self.processes();
            match processes.get(&ended.id) {
                Some(known) if Arc::ptr_eq(known, ended) => processes.remove(&ended.id),
                _ => return,
            };
        }
        // Gone with its container, or replaced: fine.
        let _ = self.container.forget(ended.inner_id()).await;
    }
}

fn in_use(id: &str) -> GardenError {
    GardenError::Failed(format!("process id '{id}' already in use"))
}

/// Garden's words for a process that was not started.
pub(super) fn not_started(err: &ProcessError, path: &str, user: &str, id: &str) -> GardenError {
    let text = crate::log::chain(err);
    let ProcessError::Refused { kind, .. } = err else { return GardenError::Failed(text) };
    match kind {
        FailKind::ProgramNotFound => GardenError::NoExecutable(format!(
            "exec: \"{path}\": executable file not found in $PATH: {text}"
        )),
        FailKind::UserNotFound => {
            let (name, group) = user.split_once(':').unwrap_or((user, ""));
            GardenError::Failed(match text {
                text if text.contains("is not in the container's /etc/group") => {
                    format!("unable to find group {group}: no matching entries in group file")
                }
                text if text.contains("is not in the container's /etc/passwd") => {
                    format!("unable to find user {name}: no matching entries in passwd file")
                }
                other => other,
            })
        }
        FailKind::Refused if text.starts_with("a process ") => in_use(id),
        _ => GardenError::Failed(text),
    }
}
