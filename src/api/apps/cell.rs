//! What is asked about the cell as a whole: to drain it, and to end that.

use super::handle::{flag, invalid};
use super::{Served, handle};
use crate::api::http::Request;
use crate::api::http::server::Response;
use crate::model::view::DrainView;
use crate::unit::span;
use std::time::Duration;

/// What the dialect needs of the cell.
pub trait CellService: Send + Sync {
    /// Begins nothing new, lets Tasks end, for so long at most (`None`: what the box says), then
    /// tells instances to. `wait`: returns when nothing is left.
    fn drain(
        &self,
        timeout: Option<Duration>,
        wait: bool,
    ) -> impl Future<Output = Served<DrainView>> + Send;
    /// Goes on with what is desired.
    fn undrain(&self) -> impl Future<Output = Served<()>> + Send;
}

/// What is asked about the cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellVerb {
    /// POST drain.
    Drain,
    /// DELETE drain.
    Undrain,
}

/// Answers it.
pub(super) async fn about(
    service: &impl CellService,
    verb: CellVerb,
    request: &Request,
) -> Served<Response> {
    match verb {
        CellVerb::Drain => {
            let timeout = request.query("timeout").map(span::parse).transpose();
            let timeout = timeout.map_err(|err| invalid(&err))?;
            let view = service.drain(timeout, flag(request, "wait")?).await?;
            Ok(Response::json(200, &view))
        }
        CellVerb::Undrain => {
            service.undrain().await?;
            Ok(handle::nothing())
        }
    }
}
