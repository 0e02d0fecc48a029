//! An output that pid 1 has taken over because its reader stood still, for that reader.

use super::error::ProcessError;
use super::link::Link;
use super::spool::Spool;
use crate::init::proto::Ask;
use crate::unit::Handle;
use std::sync::Arc;

/// Asks for one output back.
pub struct Relief {
    pub(super) link: Arc<Link>,
    pub(super) spool: Spool,
    pub(super) id: String,
    pub(super) err: bool,
}

impl Relief {
    /// Whose output it is: container and process.
    pub fn of(&self) -> (&Handle, &str) {
        (self.link.handle(), &self.id)
    }

    /// What was written meanwhile and not kept in the pipe, at most `SPOOL_MAX` bytes and a line about the
    /// rest; it comes before what is read next, which the caller may do from now on.
    pub async fn take_back(&self) -> Result<Vec<u8>, ProcessError> {
        self.link.ask(Ask::ReadOn { id: self.id.clone(), err: self.err }).await?;
        Ok(self.take_kept().await)
    }

    /// The same without asking, for when nobody is there to be asked.
    pub async fn take_kept(&self) -> Vec<u8> {
        let (spool, err) = (self.spool.clone(), self.err);
        smol::unblock(move || spool.take_one(err)).await
    }

    /// Pid 1 can be asked.
    pub fn is_open(&self) -> bool {
        self.link.is_open()
    }
}

#[cfg(test)]
impl Relief {
    /// That of stdout of process `one`, whose spools are in `dir`; the test is pid 1 at the other end of
    /// `socket`, and gone when `gone` is readable.
    pub(crate) fn of_one(
        socket: std::os::fd::OwnedFd,
        gone: std::os::fd::OwnedFd,
        dir: std::path::PathBuf,
    ) -> Relief {
        let link = Link::open("web-0".parse().expect("handle"), socket, gone).expect("a link");
        Relief { link, spool: Spool::new(dir, "one".into()), id: "one".into(), err: false }
    }
}
