//! What connections come from: unix sockets and TCP.

use crate::sys::sockbuf;
use crate::sys::socket::{Peer, peer};
use smol::io::{AsyncRead, AsyncWrite};
use smol::net::unix::{UnixListener, UnixStream};
use smol::net::{TcpListener, TcpStream};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// A connection; clones are the same one.
pub trait Stream: AsyncRead + AsyncWrite + AsFd + Clone + Send + Sync + Unpin + 'static {}

impl Stream for UnixStream {}
impl Stream for TcpStream {}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A process of this box; `None`: the kernel does not tell which.
    Process(Option<Peer>),
    /// Somebody at this address and port.
    Remote(SocketAddr),
}

impl Caller {
    /// The process, when it is of this box and came by a unix socket.
    pub fn peer(&self) -> Option<Peer> {
        match self {
            Caller::Process(peer) => *peer,
            Caller::Remote(_) => None,
        }
    }
}

/// Something that connections come from.
pub trait Listener: Sync {
    /// They are all of this kind.
    type Stream: Stream;

    /// The next connection. An error may be about this one only.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Caller)>> + Send;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, Caller)> {
        let (stream, _) = self.accept().await?;
        let caller = Caller::Process(peer(&stream).ok());
        Ok((stream, caller))
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, Caller)> {
        let (stream, from) = self.accept().await?;
        // An answer goes out at once; a client that is gone without a word is noticed. Without
        // either the connection works all the same.
        let _ = stream.set_nodelay(true);
        let _ = sockbuf::keep_alive(&stream);
        Ok((stream, Caller::Remote(from)))
    }
}

/// Whether [`Listener::next`] may succeed later.
pub(super) fn is_passing(err: &io::Error) -> bool {
    /// ENOMEM, ENFILE, EMFILE, ECONNABORTED, ENOBUFS; of TCP also what was wrong with the one
    /// connection: EPERM, EPROTO, ENOPROTOOPT, ENETDOWN, ENETUNREACH, EHOSTDOWN, EHOSTUNREACH.
    const PASSING: [i32; 12] = [12, 23, 24, 103, 105, 1, 71, 92, 100, 101, 112, 113];
    matches!(err.raw_os_error(), Some(number) if PASSING.contains(&number))
}
