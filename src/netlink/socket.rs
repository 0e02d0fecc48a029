//! Sends requests and collects their answers.
//!
//! rtnetlink and nf_tables work a request off inside `send`: when it returns, every answer is
//! queued. So nothing here waits; an answer that is not there is lost and reported as such.

use super::{nft, wire};
use netlink_sys::SocketAddr;
use std::{fmt, io};
use wire::{Message, Request, TooLong, Verdict};

/// `MSG_DONTWAIT | MSG_TRUNC`: do not wait, and tell the true length of a message.
const RECV_FLAGS: i32 = 0x40 | 0x20;
/// The kernel cuts a dump into chunks of at most 32 KiB.
const BUFFER: usize = 64 << 10;
/// Objects accepted in one answer.
const REPLIES_MAX: usize = 1 << 16;
/// How often a dump is repeated when the objects change meanwhile.
const DUMP_TRIES_MAX: usize = 8;
/// Room for one batch, in bytes; the default of 208 KiB holds about 500 rules.
const SEND_BUFFER: usize = 4 << 20;

/// Whom a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes.
    Route,
    /// Packet rules.
    Netfilter,
}

/// Why a request had no success.
#[derive(Debug)]
pub enum NetlinkError {
    /// The request is too large for its format; nothing was sent.
    TooLong(TooLong),
    /// The socket itself failed.
    Socket {
        /// The verb: open, write to, read from.
        doing: &'static str,
        /// Which one.
        protocol: Protocol,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused.
    Refused {
        /// The kernel's own explanation, when it gave one.
        text: Option<String>,
        /// Which message of a batch, counted from 0; `None`: the batch as a whole.
        message: Option<usize>,
        /// The error number.
        source: io::Error,
    },
    /// The answer did not come or cannot be read; what was asked may have been done.
    Lost,
}

/// `ENOENT`, `ESRCH`, `ENXIO`, `ENODEV`, `EADDRNOTAVAIL`: what was named is not there.
const MISSING: [i32; 5] = [2, 3, 6, 19, 99];
/// `EEXIST`.
const EXISTS: i32 = 17;
/// `EAFNOSUPPORT`, `EOPNOTSUPP`: the kernel was built without it.
const UNSUPPORTED: [i32; 2] = [97, 95];

impl NetlinkError {
    /// The error number when the kernel refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Which message of a batch was refused.
    pub fn message(&self) -> Option<usize> {
        match self {
            NetlinkError::Refused { message, .. } => *message,
            _ => None,
        }
    }

    /// The object is there already.
    pub fn exists(&self) -> bool {
        self.errno() == Some(EXISTS)
    }

    /// The object is not there: for a removal, success.
    pub fn missing(&self) -> bool {
        self.errno().is_some_and(|errno| MISSING.contains(&errno))
    }

    /// This kernel does not have it.
    pub fn unsupported(&self) -> bool {
        self.errno().is_some_and(|errno| UNSUPPORTED.contains(&errno))
    }
}

impl fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetlinkError::TooLong(_) => f.write_str("the request is too large"),
            NetlinkError::Socket { doing, protocol, .. } => {
                write!(f, "cannot {doing} the kernel's {protocol:?} socket")
            }
            NetlinkError::Refused { text: Some(text), .. } => write!(f, "kernel: {text}"),
            // EPERM.
            NetlinkError::Refused { text: None, .. } if self.errno() == Some(1) => {
                f.write_str("the kernel lets only root do this")
            }
            NetlinkError::Refused { text: None, .. } => f.write_str("the kernel refuses"),
            NetlinkError::Lost => f.write_str("the kernel's answer was lost"),
        }
    }
}

impl std::error::Error for NetlinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            NetlinkError::TooLong(source) => Some(source),
            NetlinkError::Socket { source, .. } | NetlinkError::Refused { source, .. } => {
                Some(source)
            }
            NetlinkError::Lost => None,
        }
    }
}

/// One object in an answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The message type.
    pub kind: u16,
    /// Family header and attributes.
    pub body: Vec<u8>,
}

/// One conversation with the kernel, in the network namespace of the thread that opened it.
pub struct Socket {
    inner: netlink_sys::Socket,
    protocol: Protocol,
    seq: u32,
    /// Where answers are read into. Kept from one request to the next: to map and unmap it each time
    /// costs more than a request, and holds up all other threads.
    buffer: Vec<u8>,
}

/// How much of what is queued is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Nothing comes after the verdict on a single request.
    Verdict,
    /// All of it.
    Empty,
}

/// Everything that was queued for a request, sorted.
#[derive(Default)]
struct Answers {
    replies: Vec<Reply>,
    verdicts: Vec<(u32, Verdict)>,
    interrupted: bool,
    lost: bool,
}

impl Socket {
    /// Opens a socket that reports the kernel's explanations and checks dump filters.
    pub fn open(protocol: Protocol) -> Result<Socket, NetlinkError> {
        let number = match protocol {
            Protocol::Route => netlink_sys::protocols::NETLINK_ROUTE,
            Protocol::Netfilter => netlink_sys::protocols::NETLINK_NETFILTER,
        };
        let open = || {
            let socket = netlink_sys::Socket::new(number)?;
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            if protocol == Protocol::Route {
                socket.set_netlink_get_strict_chk(true)?;
            }
            // Without the right to do it (a user namespace), the default size stays.
            let _ = crate::sys::sockbuf::force_send_buffer(&socket, SEND_BUFFER);
            Ok(socket)
        };
        let inner =
            open().map_err(|source| NetlinkError::Socket { doing: "open", protocol, source })?;
        Ok(Socket { inner, protocol, seq: 0, buffer: Vec::new() })
    }

    /// Asks for one thing and waits for the verdict; objects that come before it are returned.
    pub fn request(&mut self, request: Request) -> Result<Vec<Reply>, NetlinkError> {
        let first = self.seq.wrapping_add(1);
        self.send(vec![request.flag(wire::ACK)])?;
        let answers = self.collect(first, Until::Verdict)?;
        answers.judge(first, None)?;
        match answers.lost || answers.verdicts.is_empty() {
            true => Err(NetlinkError::Lost),
            false => Ok(answers.replies),
        }
    }

    /// Asks for every object that matches. Repeats when they change while they are listed.
    pub fn dump(&mut self, request: Request) -> Result<Vec<Reply>, NetlinkError> {
        let request = request.flag(wire::DUMP);
        for _ in 0..DUMP_TRIES_MAX {
            let first = self.seq.wrapping_add(1);
            self.send(vec![request.clone()])?;
            let answers = self.collect(first, Until::Empty)?;
            // What a long list has touched of it is not kept.
            self.buffer = Vec::new();
            answers.judge(first, None)?;
            if answers.lost || answers.verdicts.is_empty() {
                return Err(NetlinkError::Lost);
            }
            if !answers.interrupted {
                return Ok(answers.replies);
            }
        }
        Err(NetlinkError::Lost)
    }

    /// Does all of these packet-rule requests or none of them.
    pub fn transaction(&mut self, mut requests: Vec<Request>) -> Result<(), NetlinkError> {
        let Some(last) = requests.pop() else { return Ok(()) };
        requests.push(last.flag(wire::ACK));
        requests.insert(0, nft::batch_begin());
        requests.push(nft::batch_end());
        let first = self.seq.wrapping_add(1);
        self.send(requests)?;
        let answers = self.collect(first, Until::Empty)?;
        answers.judge(first, Some(first))?;
        match answers.lost || answers.verdicts.is_empty() {
            true => Err(NetlinkError::Lost),
            false => Ok(()),
        }
    }

    /// Numbers the messages and hands them over as one datagram.
    fn send(&mut self, requests: Vec<Request>) -> Result<(), NetlinkError> {
        let mut datagram = Vec::new();
        for request in requests {
            self.seq = self.seq.wrapping_add(1);
            datagram.extend(request.finish(self.seq).map_err(NetlinkError::TooLong)?);
        }
        let kernel = SocketAddr::new(0, 0);
        let sent = self.inner.send_to(&datagram, &kernel, 0);
        match sent {
            Ok(_) => Ok(()),
            Err(source) => {
                Err(NetlinkError::Socket { doing: "write to", protocol: self.protocol, source })
            }
        }
    }

    /// Reads what is queued; answers to requests before `first` are stale and dropped.
    fn collect(&mut self, first: u32, until: Until) -> Result<Answers, NetlinkError> {
        let mut answers = Answers::default();
        self.buffer.reserve(BUFFER);
        loop {
            self.buffer.clear();
            match self.inner.recv_from(&mut self.buffer, RECV_FLAGS) {
                Ok((len, from)) if from.port_number() == 0 => {
                    answers.lost |= len > self.buffer.len();
                    for message in wire::messages(&self.buffer) {
                        let offset = message.seq.wrapping_sub(first);
                        if offset <= self.seq.wrapping_sub(first) {
                            answers.sort(&message);
                        }
                    }
                    if until == Until::Verdict && !answers.verdicts.is_empty() {
                        return Ok(answers);
                    }
                }
                // Only the kernel is believed.
                Ok(_) => {}
                Err(err) => match (err.kind(), err.raw_os_error()) {
                    (io::ErrorKind::WouldBlock, _) => return Ok(answers),
                    (io::ErrorKind::Interrupted, _) => {}
                    // ENOBUFS: some answer found no room; go on with what is there.
                    (_, Some(105)) => answers.lost = true,
                    _ => {
                        let (doing, protocol) = ("read from", self.protocol);
                        return Err(NetlinkError::Socket { doing, protocol, source: err });
                    }
                },
            }
        }
    }
}

impl Answers {
    fn sort(&mut self, message: &Message<'_>) {
        self.interrupted |= message.flags & wire::DUMP_INTR != 0;
        match message.kind {
            wire::ERROR | wire::DONE => match wire::verdict(message) {
                Some(verdict) => self.verdicts.push((message.seq, verdict)),
                None => self.lost = true,
            },
            _ if self.replies.len() >= REPLIES_MAX => self.lost = true,
            kind => self.replies.push(Reply { kind, body: message.body.to_vec() }),
        }
    }

    /// The first refusal, if there is one. In a batch, message 0 follows the opening one.
    fn judge(&self, first: u32, batch: Option<u32>) -> Result<(), NetlinkError> {
        let refusals = self.verdicts.iter().filter(|(_, verdict)| verdict.errno != 0);
        let Some((seq, verdict)) = refusals.min_by_key(|(seq, _)| seq.wrapping_sub(first)) else {
            return Ok(());
        };
        Err(NetlinkError::Refused {
            text: verdict.text.clone(),
            message: batch.and_then(|begin| (seq.wrapping_sub(begin) as usize).checked_sub(1)),
            source: io::Error::from_raw_os_error(verdict.errno),
        })
    }
}
