//! Hears that somebody has changed the box's packet rules.

use super::socket::{NetlinkError, Protocol};
use netlink_sys::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// `NFNLGRP_NFTABLES`, linux/netfilter/nfnetlink.h: every committed transaction, whoever made it.
const GROUP: u32 = 7;

/// Readable once the rules have changed since the last [`RuleWatch::drain`], by us or others.
#[derive(Debug)]
pub struct RuleWatch(netlink_sys::Socket);

impl RuleWatch {
    /// Listens in the network namespace of the calling thread. Non-blocking.
    pub fn open() -> Result<RuleWatch, NetlinkError> {
        let open = || {
            let mut socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_NETFILTER)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.add_membership(GROUP)?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        let failed = |source| {
            let protocol = Protocol::Netfilter;
            NetlinkError::Socket { doing: "listen on", protocol, source }
        };
        open().map(RuleWatch).map_err(failed)
    }

    /// Forgets what has been heard. Messages that were lost for lack of room are no loss: that
    /// something changed is all that counts.
    pub fn drain(&self) {
        let mut buffer = Vec::with_capacity(4096);
        loop {
            buffer.clear();
            match self.0.recv(&mut buffer, 0) {
                Ok(_) => {}
                Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => return,
                // ENOBUFS: read on; anything else will show again at the next wait.
                Err(err) if err.raw_os_error() == Some(105) => {}
                Err(_) => return,
            }
        }
    }
}

impl AsFd for RuleWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
