//! The accepting half of servers that tests have, with an end.

use nix::sys::socket::{Shutdown, shutdown};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// Gives every connection away until it is dropped: then nobody listens, and the thread that accepted is
/// gone. Connections that were given away end with their clients.
pub struct Accepting(Arc<TcpListener>, Option<JoinHandle<()>>);

impl Accepting {
    /// Who talks has a thread of its own, if it wants one: the next connection waits for it.
    pub fn start(
        listener: TcpListener,
        mut talk: impl FnMut(TcpStream) + Send + 'static,
    ) -> Accepting {
        let listener = Arc::new(listener);
        let own = listener.clone();
        let accept = move || own.incoming().map_while(Result::ok).for_each(&mut talk);
        Accepting(listener, Some(thread::spawn(accept)))
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        // Who waits in accept is told that there is nothing to wait for.
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Both);
        let _ = self.1.take().map(JoinHandle::join);
    }
}
