//! Tars that go in and come out, as one of the container's users.

use super::backend::{Backend, Shared};
use super::member::Member;
use super::run::not_started;
use super::{Done, GardenError};
use crate::container::{self, ProcessError};
use std::sync::Arc;

/// A tar that goes in. Dropping it instead of finishing: the tar broke off.
pub struct Inflow {
    inner: container::Inflow,
    whose: Whose,
}

/// A tar that comes out.
pub struct Outflow {
    inner: container::Outflow,
    whose: Whose,
}

impl Backend {
    /// Begins to unpack a tar in a container, as one of its users; none: root. `destination` is made
    /// when it is missing; a relative one begins at the user's home.
    pub async fn stream_in(&self, handle: &str, user: &str, destination: &str) -> Done<Inflow> {
        let member = self.shared.member(handle)?;
        without_nul("in", [user, destination])?;
        let whose = Whose::new(&self.shared, &member, user);
        let begun = member.container.stream_in(&whose.user, destination).await;
        let inner = begun.map_err(|err| whose.failed("in", &err))?;
        Ok(Inflow { inner, whose })
    }

    /// Begins to pack a file or directory of a container, as one of its users; none: root.
    pub async fn stream_out(&self, handle: &str, user: &str, source: &str) -> Done<Outflow> {
        let member = self.shared.member(handle)?;
        without_nul("out", [user, source])?;
        let whose = Whose::new(&self.shared, &member, user);
        let begun = member.container.stream_out(&whose.user, source).await;
        let inner = begun.map_err(|err| whose.failed("out", &err))?;
        Ok(Outflow { inner, whose })
    }
}

/// Refuses a user or path that no program can be told.
fn without_nul(way: &str, texts: [&str; 2]) -> Done<()> {
    match texts.into_iter().find(|text| text.contains('\0')) {
        Some(text) => {
            let text = text.escape_default();
            Err(GardenError::Failed(format!("error streaming {way}: `{text}` holds a NUL")))
        }
        None => Ok(()),
    }
}

/// Whose files they are, for the texts.
struct Whose {
    shared: Arc<Shared>,
    member: Arc<Member>,
    user: String,
}

impl Whose {
    fn new(shared: &Arc<Shared>, member: &Arc<Member>, user: &str) -> Whose {
        let user = if user.is_empty() { "root".into() } else { user.to_owned() };
        Whose { shared: shared.clone(), member: member.clone(), user }
    }

    /// Garden's words for a stream that failed, and the tar program's own; of a container that was
    /// destroyed meanwhile, that it is not there.
    fn failed(&self, way: &str, err: &ProcessError) -> GardenError {
        if let Err(gone @ GardenError::UnknownHandle(_)) = self.shared.member(&self.member.handle) {
            return gone;
        }
        let why = not_started(&self.member.subject(), err, "tar", &self.user, "");
        GardenError::Failed(format!("error streaming {way}: {why}"))
    }
}

impl Inflow {
    /// More of the tar.
    pub async fn write(&mut self, piece: &[u8]) -> Done<()> {
        let written = self.inner.write(piece).await;
        written.map_err(|err| self.whose.failed("in", &err))
    }

    /// Returns when no more of it is taken, with the reason.
    pub async fn over(&mut self) -> GardenError {
        let why = self.inner.over().await;
        self.whose.failed("in", &why)
    }

    /// That was all; returns when everything is written.
    pub async fn finish(self) -> Done<()> {
        let Inflow { inner, whose } = self;
        inner.finish().await.map_err(|err| whose.failed("in", &err))
    }
}

impl Outflow {
    /// The next piece; `None`: it is whole. The first one comes when the source is known to be there.
    pub async fn next(&mut self) -> Option<Done<Vec<u8>>> {
        let piece = self.inner.next().await?;
        Some(piece.map_err(|err| self.whose.failed("out", &err)))
    }
}
