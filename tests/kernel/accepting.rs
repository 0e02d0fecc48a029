//! The accepting half of servers that tests have, with an end.

use nix::sys::socket::{Shutdown, shutdown};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Gives every connection away until it is dropped: then nobody listens, and the thread that accepted is
/// gone. Connections that were given away end with their clients.
pub struct Accepting(Arc<TcpListener>, Arc<Mutex<Talk>>, Option<JoinHandle<()>>);

/// What the thread that accepts is at.
enum Talk {
    /// It waits for the next.
    None,
    /// It talks on this one.
    On(TcpStream),
    /// It is to talk no more.
    Over,
}

impl Accepting {
    /// Who talks has a thread of its own, if it wants one: the next connection waits for it.
    pub fn start(
        listener: TcpListener,
        mut talk: impl FnMut(TcpStream) + Send + 'static,
    ) -> Accepting {
        let (listener, now) = (Arc::new(listener), Arc::new(Mutex::new(Talk::None)));
        let (own, at) = (listener.clone(), now.clone());
        // `false`: it is over.
        let goes_on = move |next: Talk| {
            let mut at = at.lock().unwrap_or_else(PoisonError::into_inner);
            let goes_on = !matches!(*at, Talk::Over);
            if goes_on {
                *at = next;
            }
            goes_on
        };
        let accept = move || {
            for stream in own.incoming().map_while(Result::ok) {
                let Ok(same) = stream.try_clone() else { break };
                if !goes_on(Talk::On(same)) {
                    break;
                }
                talk(stream);
                if !goes_on(Talk::None) {
                    break;
                }
            }
        };
        Accepting(listener, now, Some(thread::spawn(accept)))
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        // Who waits in accept is told that there is nothing to wait for, and who waits for a client that
        // says nothing, too.
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Both);
        let was = std::mem::replace(
            &mut *self.1.lock().unwrap_or_else(PoisonError::into_inner),
            Talk::Over,
        );
        if let Talk::On(stream) = was {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        let _ = self.2.take().map(JoinHandle::join);
    }
}

/// It would be waited for as long as the client is there.
#[test]
fn a_client_that_says_nothing_keeps_no_server() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let at = listener.local_addr().expect("address");
    let (tell, told) = std::sync::mpsc::channel();
    let accepting = Accepting::start(listener, move |mut stream| {
        tell.send(()).expect("told");
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let silent = TcpStream::connect(at).expect("connect");
    told.recv().expect("it talks");
    drop(accepting);
    drop(silent);
}
