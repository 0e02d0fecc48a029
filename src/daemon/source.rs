//! Directories of apps that come in over the local API.

use super::images::flow::Incoming;
use super::service::Service;
use crate::api::apps::Served;
use crate::api::apps::images::Pieces;
use crate::api::apps::source::SourceService;
use crate::unit::AppName;
use std::io::BufReader;
use std::path::PathBuf;

/// Bytes that are read of an archive at a time.
const BUFFER: usize = 64 << 10;

impl SourceService for Service {
    async fn take_source(&self, name: &AppName, pieces: Pieces) -> Served<PathBuf> {
        // The others wait: each takes a thread of the pool, which waits for its client.
        let _turn = self.uploads.acquire().await;
        let (cell, name) = (self.cell.clone(), name.clone());
        let incoming = BufReader::with_capacity(BUFFER, Incoming::new(pieces));
        Ok(smol::unblock(move || cell.take_source(&name, incoming)).await?)
    }
}
