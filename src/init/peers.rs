//! The connections to pid 1, and what waits for each of them.

use super::message;
use super::proto::Reply;
use super::table::PeerId;
use crate::sys::socket;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Connections at once.
const PEERS_MAX: usize = 16;
/// Messages that wait for one connection; a peer that lets more pile up is cut off.
const QUEUE_MAX: usize = 1024;
/// How a user without an id in this container looks from inside, unless the box says otherwise.
const UNMAPPED: u32 = 65_534;

/// A connection.
struct Peer {
    socket: OwnedFd,
    /// Messages that it did not take yet, each with its descriptors.
    queue: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

/// The other end is gone, or does not read: the caller forgets it.
pub struct Lost;

/// All connections.
pub struct Peers {
    all: BTreeMap<PeerId, Peer>,
    next: PeerId,
    /// What the host's root is here.
    outside: u32,
}

impl Peers {
    /// None yet. Call it before anything runs inside that could answer for the kernel.
    /// Privileged, the host's root is that of the container: then only the pid tells.
    pub fn new(privileged: bool) -> Peers {
        let text = std::fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
        let unmapped = text.trim().parse().unwrap_or(UNMAPPED);
        let outside = if privileged { 0 } else { unmapped };
        Peers { all: BTreeMap::new(), next: 1, outside }
    }

    /// Takes a connection. It must come from outside: a process of this container would have a
    /// pid here and, unless it is nobody, an id too. Which outsiders may come is decided by the
    /// permissions of the depot, which only the host's root can enter.
    /// An error is the kernel's; who may not come is no error.
    pub fn accept(&mut self, listener: &OwnedFd) -> io::Result<()> {
        let socket = socket::accept(listener)?;
        let may_come = matches!(socket::peer(&socket),
            Ok(peer) if peer.pid == 0 && peer.uid == self.outside);
        if may_come && self.all.len() < PEERS_MAX {
            self.all.insert(self.next, Peer { socket, queue: VecDeque::new() });
            self.next += 1;
        }
        Ok(())
    }

    /// Whether it is still connected, as far as we know.
    pub fn has(&self, id: PeerId) -> bool {
        self.all.contains_key(&id)
    }

    /// Its socket.
    pub fn socket(&self, id: PeerId) -> Option<&OwnedFd> {
        self.all.get(&id).map(|peer| &peer.socket)
    }

    /// Every connection: its socket, and whether something waits for it.
    pub fn iter(&self) -> impl Iterator<Item = (PeerId, &OwnedFd, bool)> {
        self.all.iter().map(|(id, peer)| (*id, &peer.socket, !peer.queue.is_empty()))
    }

    /// Forgets it.
    pub fn remove(&mut self, id: PeerId) {
        self.all.remove(&id);
    }

    /// Sends a message, or lets it wait until the peer reads.
    pub fn say(&mut self, id: PeerId, reply: &Reply, fds: Vec<OwnedFd>) -> Result<(), Lost> {
        let Some(peer) = self.all.get_mut(&id) else { return Ok(()) };
        // Our own answers are shorter than the limit: 256 processes of some 150 bytes.
        let bytes = message::encode(reply).map_err(|_| Lost)?;
        if peer.queue.len() >= QUEUE_MAX {
            return Err(Lost);
        }
        peer.queue.push_back((bytes, fds));
        self.flush(id)
    }

    /// Sends what waits, as far as the peer takes it.
    pub fn flush(&mut self, id: PeerId) -> Result<(), Lost> {
        let Some(peer) = self.all.get_mut(&id) else { return Ok(()) };
        while let Some((bytes, fds)) = peer.queue.front() {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match socket::send_with_fds(&peer.socket, bytes, &fds) {
                Ok(()) => drop(peer.queue.pop_front()),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Lost),
            }
        }
        Ok(())
    }
}
