//! Tars that go in and come out.

use super::backend::Backend;
use super::{Done, GardenError};

/// A tar that goes in. Dropping it instead of finishing: the tar broke off.
pub struct Inflow(());

/// A tar that comes out.
pub struct Outflow(());

impl Backend {
    /// Begins to unpack a tar in a container, as one of its users.
    pub async fn stream_in(&self, handle: &str, _user: &str, _destination: &str) -> Done<Inflow> {
        let _ = self.shared.member(handle)?;
        Err(GardenError::Failed("error streaming in: not there yet".into()))
    }

    /// Begins to pack a file or directory of a container, as one of its users.
    pub async fn stream_out(&self, handle: &str, _user: &str, _source: &str) -> Done<Outflow> {
        let _ = self.shared.member(handle)?;
        Err(GardenError::Failed("error streaming out: not there yet".into()))
    }
}

impl Inflow {
    /// More of the tar.
    pub async fn write(&mut self, _piece: &[u8]) -> Done<()> {
        Ok(())
    }

    /// That was all; returns when everything is written.
    pub async fn finish(self) -> Done<()> {
        Ok(())
    }
}

impl Outflow {
    /// The next piece; `None`: it is whole.
    pub async fn next(&mut self) -> Option<Done<Vec<u8>>> {
        None
    }
}
