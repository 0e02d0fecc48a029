//! What a watcher of the fake service sees.

use super::Fake;
use crate::api::apps::Served;
use crate::api::apps::watch::WatchService;
use crate::model::event::{Event, EventId, From, Heard};
use crate::model::explain::{ExplainView, Explanation};
use crate::model::metrics::CellFigures;
use crate::unit::AppName;
use smol::stream::{self, StreamExt};
use std::sync::Arc;

/// A crash of `web`.
pub fn crash() -> Event {
    Event {
        id: EventId { epoch: 3, sequence: 17 },
        time_ms: 1_795_226_400_123,
        event: "actual_lrp_crashed".into(),
        data: serde_json::json!({
            "process_guid": "web", "index": 0, "crash_count": 2, "crash_reason": "exit\u{1b}[2J",
        }),
        lrp: None,
    }
}

impl WatchService for Fake {
    async fn events(&self, from: From, follow: bool) -> Served<stream::Boxed<Heard>> {
        self.note(format!("events {from:?} {follow}"));
        let gap = match from {
            From::After(after) => {
                Some(Heard::Gap { after, missed: EventId { epoch: 3, sequence: 0 } })
            }
            _ => None,
        };
        let heard = gap.into_iter().chain([Heard::Event(Arc::new(crash()))]);
        Ok(stream::iter(heard).boxed())
    }

    async fn explain(
        &self,
        name: &AppName,
        process: Option<&str>,
        index: Option<u32>,
    ) -> Served<ExplainView> {
        let app = self.find(name)?;
        self.note(format!("explain {name} {process:?} {index:?}"));
        let part = Explanation {
            subject: format!("{name}/0"),
            state: app.state.clone(),
            happened: "its process ended by itself with exit status 1".into(),
            happened_ms: Some(1_000),
            next: "it starts again by itself".into(),
            next_ms: Some(31_000),
            cure: "look".into(),
            crash_count: 3,
            ..Explanation::default()
        };
        Ok(ExplainView { app: name.clone(), state: app.state, parts: vec![part] })
    }

    async fn figures(&self) -> Served<CellFigures> {
        Ok(CellFigures { cell_id: "box".into(), ..CellFigures::default() })
    }
}
