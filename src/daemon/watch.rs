//! The cell as a watcher wants it, and the listener for figures.

use super::service::Service;
use crate::api::apps::watch::{MetricsOnly, WatchService};
use crate::api::apps::{ErrorKind, Served, ServiceError};
use crate::api::http::server::{self, Limits};
use crate::cell::Cell;
use crate::model::event::{From, Heard};
use crate::model::explain::ExplainView;
use crate::model::metrics::CellFigures;
use crate::unit::AppName;
use smol::net::TcpListener;
use smol::stream::{self, StreamExt};

/// Connections at a time to where figures are told: a few that watch.
const CONNECTIONS: usize = 16;

/// Tells of one cell.
pub struct Watched(pub Cell);

impl WatchService for Watched {
    async fn events(&self, from: From, follow: bool) -> Served<stream::Boxed<Heard>> {
        let listening = self.0.listen(from).ok_or_else(|| {
            let text = "as many listen to events as may; end one of them, such as a \
                        `terrarium events -f` that nobody looks at";
            ServiceError::new(ErrorKind::Conflict, text)
        })?;
        let past = stream::iter(listening.past);
        Ok(match follow {
            true => past.chain(listening.rest.map(Heard::Event)).boxed(),
            false => past.boxed(),
        })
    }

    async fn explain(
        &self,
        name: &AppName,
        process: Option<&str>,
        index: Option<u32>,
    ) -> Served<ExplainView> {
        Ok(self.0.explain(name.as_str(), process, index)?)
    }

    async fn figures(&self) -> Served<CellFigures> {
        Ok(self.0.figures().await)
    }
}

impl WatchService for Service {
    async fn events(&self, from: From, follow: bool) -> Served<stream::Boxed<Heard>> {
        Watched(self.cell.clone()).events(from, follow).await
    }

    async fn explain(
        &self,
        name: &AppName,
        process: Option<&str>,
        index: Option<u32>,
    ) -> Served<ExplainView> {
        Watched(self.cell.clone()).explain(name, process, index).await
    }

    async fn figures(&self) -> Served<CellFigures> {
        Watched(self.cell.clone()).figures().await
    }
}

/// Tells the figures of `cell` to whoever connects, until the returned future is dropped.
pub async fn serve_metrics(listener: TcpListener, cell: Cell) {
    let limits = Limits { connections: CONNECTIONS, ..Limits::default() };
    let err = server::serve(&listener, &MetricsOnly(Watched(cell)), limits).await;
    crate::error!("metrics.broken", err = err);
}
