//! Buffer sizes of sockets.

use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::os::fd::AsFd;

/// Sets how many bytes a socket holds on their way out, above the system's limit too.
/// `EPERM`: needs `CAP_NET_ADMIN` in the first user namespace. Linux 2.6.14, socket(7).
pub fn force_send_buffer(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::SndBufForce, &bytes)?)
}
