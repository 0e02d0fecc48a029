//! Tars that go in and come out, as one of the container's users.

use super::backend::Backend;
use super::run::not_started;
use super::{Done, GardenError};
use crate::container::{self, ProcessError};

/// A tar that goes in. Dropping it instead of finishing: the tar broke off.
pub struct Inflow {
    inner: container::Inflow,
    user: String,
}

/// A tar that comes out.
pub struct Outflow {
    inner: container::Outflow,
    user: String,
}

impl Backend {
    /// Begins to unpack a tar in a container, as one of its users; none: root. `destination` is made
    /// when it is missing; a relative one begins at the user's home.
    pub async fn stream_in(&self, handle: &str, user: &str, destination: &str) -> Done<Inflow> {
        let member = self.shared.member(handle)?;
        let user = user_or_root(user);
        let begun = member.container.stream_in(&user, destination).await;
        let inner = begun.map_err(|err| failed("in", &user, &err))?;
        Ok(Inflow { inner, user })
    }

    /// Begins to pack a file or directory of a container, as one of its users; none: root.
    pub async fn stream_out(&self, handle: &str, user: &str, source: &str) -> Done<Outflow> {
        let member = self.shared.member(handle)?;
        let user = user_or_root(user);
        let begun = member.container.stream_out(&user, source).await;
        let inner = begun.map_err(|err| failed("out", &user, &err))?;
        Ok(Outflow { inner, user })
    }
}

fn user_or_root(user: &str) -> String {
    if user.is_empty() { "root".into() } else { user.to_owned() }
}

/// Garden's words for a stream that failed, and the tar program's own.
fn failed(way: &str, user: &str, err: &ProcessError) -> GardenError {
    GardenError::Failed(format!("error streaming {way}: {}", not_started(err, "tar", user, "")))
}

impl Inflow {
    /// More of the tar.
    pub async fn write(&mut self, piece: &[u8]) -> Done<()> {
        let written = self.inner.write(piece).await;
        written.map_err(|err| failed("in", &self.user, &err))
    }

    /// That was all; returns when everything is written.
    pub async fn finish(self) -> Done<()> {
        let Inflow { inner, user } = self;
        inner.finish().await.map_err(|err| failed("in", &user, &err))
    }
}

impl Outflow {
    /// The next piece; `None`: it is whole. The first one comes when the source is known to be there.
    pub async fn next(&mut self) -> Option<Done<Vec<u8>>> {
        let piece = self.inner.next().await?;
        Some(piece.map_err(|err| failed("out", &self.user, &err)))
    }
}
