//! An app's directory on its way in: `push` sends what the daemon need not be able to read by path.

use super::images::Pieces;
use super::{AppName, Served};
use crate::api::http::Body;
use crate::api::http::server::Response;
use crate::model::manifest::SOURCE_MAX;
use crate::unit::Bytes;
use serde::{Deserialize, Serialize};
use smol::channel::{Sender, bounded};
use smol::future;
use std::io;
use std::path::PathBuf;

/// Longest archive, in bytes: what may be in it, and room for the names.
const ARCHIVE_MAX: u64 = SOURCE_MAX + (256 << 20);
/// Pieces of an archive between the connection and who unpacks it.
const PIECES: usize = 16;

/// Where a source is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceView {
    /// The directory, for `path` in `[source]` of the manifest that is applied next.
    pub path: PathBuf,
}

/// What the dialect needs for it.
pub trait SourceService: Send + Sync {
    /// Unpacks the tar of an app's directory; it stays until another one of the app is here and no
    /// revision needs it any more.
    fn take_source(
        &self,
        name: &AppName,
        pieces: Pieces,
    ) -> impl Future<Output = Served<PathBuf>> + Send;
}

/// Takes a source from the body.
pub(super) async fn take(
    service: &impl SourceService,
    name: &AppName,
    body: &mut Body<'_>,
) -> Served<Response> {
    let (sender, pieces) = bounded(PIECES);
    let taking = service.take_source(name, pieces);
    let (taken, ()) = future::zip(taking, pump(body, sender)).await;
    Ok(Response::json(201, &SourceView { path: taken? }))
}

/// Hands the body on, until it ends, is too long, or nobody wants it any more. An empty piece is the end.
async fn pump(body: &mut Body<'_>, to: Sender<io::Result<Vec<u8>>>) {
    let mut left = ARCHIVE_MAX;
    loop {
        let piece = body.next().await.map(Option::unwrap_or_default).map_err(io::Error::other);
        let len = piece.as_ref().map_or(0, |piece| piece.len() as u64);
        let piece = match left.checked_sub(len) {
            Some(rest) => {
                left = rest;
                piece
            }
            None => {
                let text = format!("its archive is longer than {}", Bytes::new(ARCHIVE_MAX));
                Err(io::Error::other(format!(
                    "{text}; name what the app does not need in .cfignore"
                )))
            }
        };
        if to.send(piece).await.is_err() || len == 0 {
            return;
        }
    }
}
