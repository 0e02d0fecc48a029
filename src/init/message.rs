//! One message of the protocol as one packet: JSON, with descriptors beside it.

use super::proto::MAX_MESSAGE;
use crate::sys::socket;
use serde::{Serialize, de::DeserializeOwned};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Sends `message`. `InvalidInput`: longer than [`MAX_MESSAGE`]; else as
/// [`socket::send_with_fds`].
pub fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    socket::send_with_fds(socket, &encode(message)?, fds)
}

/// The bytes of one message. `InvalidInput`: longer than [`MAX_MESSAGE`].
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_MESSAGE {
        let why = format!("message of {} bytes; at most {MAX_MESSAGE} are taken", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(bytes)
}

/// Receives one message into `buffer` ([`MAX_MESSAGE`] bytes); `None` when the other end has
/// closed. `InvalidData`: it is cut off or not such a message.
pub fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    buffer: &mut [u8],
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    match socket::recv_with_fds(socket, buffer) {
        Ok((0, _)) => Ok(None),
        Ok((length, fds)) => {
            let message = serde_json::from_slice(&buffer[..length])
                .map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))?;
            Ok(Some((message, fds)))
        }
        Err(err) if err.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(err) => Err(err),
    }
}
