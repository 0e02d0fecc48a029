//! The log of an app or of a Task, for who looks at it or follows it.

use super::service::{BEHIND_MAX, Service, while_heard};
use crate::api::apps::{LogQuery, Served};
use crate::cell::Cell;
use crate::cell::traces::{Asked, Heard};
use crate::exec::logs::AppLog;
use crate::model::task::{inner_name, task_name};
use crate::model::view::LogLine;
use crate::unit::AppName;
use smol::channel::{Receiver, bounded};
use smol::{future, stream};
use std::sync::Arc;

impl Service {
    /// The lines that `query` wants. Nothing that is there has to have said anything; what was never there
    /// is an error, with what is.
    pub(super) async fn lines(
        &self,
        name: &AppName,
        query: LogQuery,
    ) -> Served<stream::Boxed<LogLine>> {
        // By the guid that its client has for it, too.
        let guid = name.as_str();
        let inner = [name.clone(), inner_name(guid), task_name(guid)];
        let known = |name: &&AppName| {
            self.cell.is_task_log(name) || self.cell.glance(name.as_str()).is_ok()
        };
        let name = inner.iter().find(known).unwrap_or(name);
        let traces = self.cell.traces(name)?;
        let log = self.cell.log(name);
        let asked = Asked {
            process: query.process.clone(),
            index: query.index,
            source: query.source.clone(),
        };
        if !traces.has(&asked) {
            traces.refuse(&asked, &heard(log.clone(), asked.clone()).await)?;
        }
        let wanted = {
            let query = query.clone();
            move |line: &LogLine| query.wants(line)
        };
        if !query.follow {
            let past = smol::unblock(move || log.last(query.lines, wanted)).await;
            return Ok(Box::pin(stream::iter(past)));
        }
        let changes = self.cell.watch();
        let first = wanted.clone();
        let (past, lines) = smol::unblock(move || log.follow(query.lines, first)).await;
        let (sender, receiver) = bounded(BEHIND_MAX);
        let (cell, name) = (self.cell.clone(), name.clone());
        let (log, heard) = (self.cell.log(&name), sender.clone());
        let work = async move {
            for line in past {
                if sender.send(line).await.is_err() {
                    return;
                }
            }
            while let Some(line) = next_line(&cell, &name, &lines, &changes).await {
                if wanted(&line) && sender.send(line).await.is_err() {
                    return;
                }
            }
        };
        smol::spawn(async move {
            while_heard(heard, work).await;
            log.drop_gone();
        })
        .detach();
        Ok(Box::pin(receiver))
    }
}

/// What a log has of what was asked for: one look at all of it, which has a bound, and none of it stays in
/// memory.
async fn heard(log: Arc<AppLog>, asked: Asked) -> Heard {
    smol::unblock(move || {
        let mut heard = Heard::default();
        log.each(|line| heard.hear(&asked, line));
        heard
    })
    .await
}

/// The next line of a followed log; `None` when the app is deleted or nothing of it will run.
async fn next_line(
    cell: &Cell,
    name: &AppName,
    lines: &Receiver<LogLine>,
    changes: &Receiver<()>,
) -> Option<LogLine> {
    loop {
        if let Ok(line) = lines.try_recv() {
            return Some(line);
        }
        if cell.is_over(name) {
            return lines.try_recv().ok();
        }
        let next = future::or(async { lines.recv().await.map(Some) }, async {
            changes.recv().await.map(|()| None)
        });
        match next.await {
            Ok(Some(line)) => return Some(line),
            Ok(None) => {}
            // The app is gone, or the daemon ends.
            Err(_) => return None,
        }
    }
}
