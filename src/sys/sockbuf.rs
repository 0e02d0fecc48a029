//! Settings of sockets.

use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::os::fd::AsFd;

/// Sets how many bytes a socket holds on their way out, above the system's limit too.
/// `EPERM`: needs `CAP_NET_ADMIN` in the first user namespace. Linux 2.6.14, socket(7).
pub fn force_send_buffer(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::SndBufForce, &bytes)?)
}

/// Asks the other end of a TCP connection whether it is there after 60 s of silence, then every
/// 15 s; after 4 questions without an answer the connection ends with `TimedOut`. tcp(7).
pub fn keep_alive(socket: &impl AsFd) -> io::Result<()> {
    setsockopt(socket, sockopt::TcpKeepIdle, &60)?;
    setsockopt(socket, sockopt::TcpKeepInterval, &15)?;
    setsockopt(socket, sockopt::TcpKeepCount, &4)?;
    Ok(setsockopt(socket, sockopt::KeepAlive, &true)?)
}
