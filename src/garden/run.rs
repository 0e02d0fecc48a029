//! Starts processes and joins clients to them.

use super::backend::{Backend, Shared};
use super::fan::Listener;
use super::member::Member;
use super::process::{Running, Session};
use super::record::{self, Record};
use super::subject::Subject;
use super::{Done, GardenError, Which, plan};
use crate::container::ProcessError;
use crate::init::proto::FailKind;
use crate::model::garden::ProcessSpec;
use std::sync::Arc;
use std::time::Duration;

/// How long a new process waits for what the last one of its name has left on the box.
const CLEAR_MAX: Duration = Duration::from_secs(20);

impl Backend {
    /// Starts a process; it runs when this returns.
    pub async fn run(&self, handle: &str, spec: ProcessSpec) -> Done<Session> {
        let member = self.shared.member(handle)?;
        let id = match &*spec.id {
            "" => self.shared.fresh_id().to_string(),
            chosen => chosen.to_owned(),
        };
        let _claim = member.claim(&id).ok_or_else(|| in_use(&id))?;
        let last = member.processes().get(&id).cloned();
        if let Some(last) = last
            && !last.is_cleared_within(CLEAR_MAX).await
        {
            return Err(in_use(&id));
        }
        let inner = plan::process_name(&id);
        // Whatever may be refused, before anything is made.
        let files = match spec.image.uri.is_empty() {
            true => None,
            false => Some(self.shared.pea_files(&spec).await?),
        };
        let wanted = match &files {
            None => plan::process(&spec, &inner, &member.record().env)?,
            Some(files) => plan::process(&spec, &inner, files.env())?,
        };
        member.keep_name(&self.shared, &inner, &id).await?;
        let (user, is_pea) = (wanted.user.clone(), files.is_some());
        let started = match files {
            None => member.container.start(wanted).await,
            Some(files) => match self.shared.make_pea(&member, &inner, files).await {
                Ok(pea) => pea.start(&member, wanted).await,
                Err(err) => {
                    member.drop_name(&self.shared, &inner, &id).await;
                    return Err(err);
                }
            },
        };
        let process = match started {
            Ok(process) => process,
            Err(err) => {
                if is_pea {
                    self.shared.clone().remove_pea(&member, &inner).await;
                }
                let refused = not_started(&member.subject(), &err, &spec.path, &user, &id);
                if refused != in_use(&id) {
                    member.drop_name(&self.shared, &inner, &id).await;
                }
                return Err(refused);
            }
        };
        if !process.lowered.is_empty() {
            let (name, handle, limits) = (&member.name, &member.handle, &process.lowered);
            crate::warn!(
                "process.limits_lowered",
                handle = name,
                garden = handle,
                process = id,
                to = limits
            );
        }
        let running = Running::begin(&member, &id, (process, None), is_pea, &self.shared);
        member.processes().insert(id.clone(), running.clone());
        // Who forgot an earlier process of this name may have dropped it meanwhile.
        if let Err(err) = member.keep_name(&self.shared, &inner, &id).await {
            crate::warn!("process.name_lost", handle = member.name, id = id, err = err);
        }
        Ok(self.shared.join(&running).await)
    }

    /// Joins a process that runs, or has ended a short time ago.
    pub async fn attach(&self, handle: &str, process: &str) -> Done<Session> {
        let member = self.shared.member(handle)?;
        let running = member.processes().get(process).cloned();
        let unknown = || GardenError::UnknownProcess(process.to_owned());
        Ok(self.shared.join(&running.ok_or_else(unknown)?).await)
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
    async fn join(&self, running: &Arc<Running>) -> Session {
        running.join(self.fresh_stream(), self.ended.clone()).await
    }
}

impl Member {
    /// Writes down what clients call a process whose name pid 1 cannot be told as it is.
    async fn keep_name(self: &Arc<Self>, shared: &Arc<Shared>, inner: &str, id: &str) -> Done<()> {
        if plan::is_plain(inner) {
            return Ok(());
        }
        let names = self.record().names;
        if names.len() >= record::NAMES_MAX && !names.contains_key(inner) {
            let max = record::NAMES_MAX;
            let text =
                format!("over {max} processes have chosen names; wait until some have ended");
            return Err(GardenError::Failed(text));
        }
        let insert = |record: &mut Record| drop(record.names.insert(inner.into(), id.into()));
        self.change(shared, insert).await
    }

    /// Forgets it again, unless a process has this name by now.
    async fn drop_name(self: &Arc<Self>, shared: &Arc<Shared>, inner: &str, id: &str) {
        let remove = |record: &mut Record| {
            if !self.processes().contains_key(id) {
                record.names.remove(inner);
            }
        };
        // Gone with its container, or forgotten after the next start.
        let _ = self.change(shared, remove).await;
    }

    /// Forgets an ended process, unless another one has its name by now.
    pub(super) async fn forget(self: &Arc<Self>, shared: &Arc<Shared>, ended: &Arc<Running>) {
        {
            let mut processes = self.processes();
            match processes.get(&ended.id) {
                Some(known) if Arc::ptr_eq(known, ended) => processes.remove(&ended.id),
                _ => return,
            };
        }
        // Gone with its container, or replaced: fine.
        let _ = self.container.forget(ended.inner_id()).await;
        self.drop_name(shared, ended.inner_id(), &ended.id).await;
    }
}

fn in_use(id: &str) -> GardenError {
    GardenError::Failed(format!("process id '{id}' already in use"))
}

/// Garden's words for a process that was not started in a container.
pub(super) fn not_started(
    subject: &Subject,
    err: &ProcessError,
    path: &str,
    user: &str,
    id: &str,
) -> GardenError {
    let ProcessError::Refused { kind, text } = err else {
        return subject.refused(err);
    };
    let text = subject.translated(text);
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
