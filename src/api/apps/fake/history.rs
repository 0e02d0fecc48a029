//! Revisions and Tasks of the apps that the tests have.

use super::Fake;
use crate::api::apps::history::{HistoryService, TaskRequest};
use crate::api::apps::images::Pieces;
use crate::api::apps::source::SourceService;
use crate::api::apps::{ApplyEvent, Served};
use crate::model::view::RevisionView;
use crate::unit::AppName;
use smol::stream;
use std::path::PathBuf;

/// A revision.
pub fn revision(number: u64, current: bool) -> RevisionView {
    RevisionView {
        revision: number,
        current,
        made_ms: 1_000 * number,
        why: "apply".into(),
        health: "healthy".into(),
        failure: None,
        changed: Vec::new(),
        droplet: format!("sha256:{number:064x}"),
        image: None,
        manifest: "name = \"web\"\n".into(),
    }
}

impl SourceService for Fake {
    async fn take_source(&self, name: &AppName, pieces: Pieces) -> Served<PathBuf> {
        let mut bytes = 0;
        while let Ok(Ok(piece)) = pieces.recv().await {
            if piece.is_empty() {
                break;
            }
            bytes += piece.len();
        }
        self.note(format!("source of {name}: {}", if bytes > 0 { "some" } else { "none" }));
        Ok(PathBuf::from(format!("/sources/{name}/1")))
    }
}

impl HistoryService for Fake {
    async fn revisions(&self, name: &AppName) -> Served<Vec<RevisionView>> {
        self.find(name)?;
        Ok(vec![revision(1, false), revision(2, true)])
    }

    async fn follow(&self, name: &AppName) -> Served<stream::Boxed<ApplyEvent>> {
        Ok(Box::pin(stream::once(ApplyEvent::Done(self.find(name)?.into()))))
    }

    async fn rollback(&self, name: &AppName, to: Option<u64>) -> Served<u64> {
        self.act(&format!("rollback to {to:?} of"), name).map(|()| 3)
    }

    async fn restage(&self, name: &AppName) -> Served<()> {
        self.act("restage", name)
    }

    async fn run_task(&self, name: &AppName, request: TaskRequest) -> Served<String> {
        self.act(&format!("task `{}` {:?} of", request.command, request.memory), name)?;
        Ok(format!("{name}-1"))
    }
}
