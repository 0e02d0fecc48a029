//! Files and directories that a client has open.

use super::wire::Status;
use std::fs::{File, ReadDir};

/// Most at a time; OpenSSH's clients use a handful.
const HANDLES_MAX: usize = 256;

/// One of them.
pub(super) enum Open {
    File {
        file: File,
        /// Writes go to its end, wherever the client says.
        append: bool,
    },
    Dir {
        /// For what stands beside its names.
        path: std::path::PathBuf,
        names: ReadDir,
        /// `.` and `..` were told already.
        begun: bool,
    },
}

/// All of them; a handle is the place here, in four bytes.
#[derive(Default)]
pub(super) struct Handles(Vec<Option<Open>>);

impl Handles {
    /// Keeps one and gives its handle.
    pub(super) fn keep(&mut self, open: Open) -> Result<[u8; 4], Status> {
        let free = self.0.iter().position(Option::is_none);
        let at = free.unwrap_or(self.0.len());
        match free {
            Some(at) => self.0[at] = Some(open),
            None if at >= HANDLES_MAX => return Err(Status::Failure),
            None => self.0.push(Some(open)),
        }
        Ok((at as u32).to_be_bytes())
    }

    pub(super) fn get(&mut self, handle: &[u8]) -> Result<&mut Open, Status> {
        self.slot(handle)?.as_mut().ok_or(Status::Failure)
    }

    pub(super) fn file(&mut self, handle: &[u8]) -> Result<(&File, bool), Status> {
        match self.get(handle)? {
            Open::File { file, append } => Ok((file, *append)),
            Open::Dir { .. } => Err(Status::Failure),
        }
    }

    pub(super) fn close(&mut self, handle: &[u8]) -> Result<(), Status> {
        self.slot(handle)?.take().map(drop).ok_or(Status::Failure)
    }

    fn slot(&mut self, handle: &[u8]) -> Result<&mut Option<Open>, Status> {
        let at = <[u8; 4]>::try_from(handle).map_err(|_| Status::Failure)?;
        self.0.get_mut(u32::from_be_bytes(at) as usize).ok_or(Status::Failure)
    }
}
