//! Which program of the box listens on a port: what is led to an app would never reach it again. Blocking.
//!
//! The kernel's tables tell it, and take nothing from anybody. Only a port that stands in none of them as one
//! that somebody listens on is bound, for a moment: by then, whoever asks wants to have it.

use crate::sys::tcp;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

/// The sockets of our network namespace, of both versions of IP.
const TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
/// Most that is read of one of them, in bytes: some 100 000 sockets.
const TABLE_MAX: u64 = 16 << 20;
/// Most descriptors of programs that are looked at.
const DESCRIPTORS_MAX: usize = 200_000;
/// `TCP_LISTEN`, as the tables write it; linux/tcp_states.h.
const LISTEN: &str = "0A";
/// `::` and the addresses of IPv4 in the form of IPv6, `::ffff:0:0/96`, as the tables write them: words of the
/// byte order of this box.
const ANY_IPV6: &str = "00000000000000000000000000000000";
const MAPPED: [&str; 2] = ["0000000000000000FFFF0000", "00000000000000000000FFFF"];
/// The first process, which holds the sockets of services that it starts with the first connection.
const INIT: u32 = 1;

/// A program of the box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// As the kernel calls it.
    pub name: String,
    /// Its process.
    pub pid: u32,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name.escape_debug(), self.pid)
    }
}

/// What a port of IPv4 is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// By nobody.
    Free,
    /// A program listens there.
    Listener,
    /// It cannot be bound, and nobody listens: it is the near end of a connection, perhaps one that has ended,
    /// or a program has bound it and does not listen yet.
    Bound,
}

/// The ports that programs of the box listened on when the tables were read.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For IPv4.
    sure: BTreeSet<u16>,
    /// For all of IPv6, and for IPv4 unless the socket is for IPv6 alone, which the tables do not tell.
    perhaps: BTreeSet<u16>,
    /// Some could not be read.
    is_partial: bool,
}

impl Listeners {
    /// Reads the tables.
    pub fn read() -> Listeners {
        let mut all = Listeners::default();
        for table in TABLES {
            match File::open(table) {
                Ok(file) => all.take(file),
                // A kernel without IPv6 has no table of it.
                Err(err) => all.is_partial |= err.kind() != io::ErrorKind::NotFound,
            }
        }
        all
    }

    fn take(&mut self, table: impl Read) {
        let mut limited = BufReader::new(table.take(TABLE_MAX));
        let lines = (&mut limited).lines().map_while(Result::ok);
        for row in lines.filter_map(|line| row(&line)) {
            match row.reach {
                Reach::Ipv4 => drop(self.sure.insert(row.port)),
                Reach::Perhaps => drop(self.perhaps.insert(row.port)),
                Reach::Ipv6 => {}
            }
        }
        self.is_partial |= limited.into_inner().limit() == 0;
    }

    /// What `port` is used for. It is bound for a moment if nobody is known to listen there.
    pub fn of(&self, port: u16) -> Use {
        self.judge(port, |port| {
            tcp::bound(port).is_err_and(|err| err.kind() == io::ErrorKind::AddrInUse)
        })
    }

    /// `is_in_use`: it cannot be bound.
    fn judge(&self, port: u16, is_in_use: impl Fn(u16) -> bool) -> Use {
        if self.sure.contains(&port) {
            return Use::Listener;
        }
        match is_in_use(port) {
            false => Use::Free,
            true if self.perhaps.contains(&port) || self.is_partial => Use::Listener,
            true => Use::Bound,
        }
    }
}

/// Which program listens on a port, the oldest of several that share it, but the first process only when it is
/// the only one; `None`: that is not to be seen from here.
pub fn who(port: u16) -> Option<Program> {
    let sockets: Vec<String> = TABLES.iter().flat_map(|table| sockets(table, port)).collect();
    if sockets.is_empty() {
        return None;
    }
    let items = fs::read_dir("/proc").ok()?.flatten();
    let mut pids: Vec<u32> =
        items.filter_map(|item| item.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    // Those of others are seen by root alone.
    let descriptors = pids.into_iter().flat_map(|pid| {
        let all = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        all.map(move |item| (pid, item.path()))
    });
    let is_one = |path: &PathBuf| {
        fs::read_link(path).is_ok_and(|to| sockets.iter().any(|socket| to.as_os_str() == &**socket))
    };
    let holders = descriptors.take(DESCRIPTORS_MAX).filter(|(_, path)| is_one(path));
    let pid = meant(holders.map(|(pid, _)| pid))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(Program { name: name.trim_end().to_owned(), pid })
}

/// Of those that hold a socket, the one that people would look for.
fn meant(mut holders: impl Iterator<Item = u32>) -> Option<u32> {
    let first = holders.next()?;
    match first {
        // It has handed the socket on: who has got it does the work.
        INIT => holders.find(|pid| *pid != INIT).or(Some(INIT)),
        pid => Some(pid),
    }
}

/// The sockets of `table` that listen on `port`, as links of descriptors name them.
fn sockets(table: &str, port: u16) -> Vec<String> {
    let Ok(file) = File::open(table) else { return Vec::new() };
    let lines = BufReader::new(file.take(TABLE_MAX)).lines().map_while(Result::ok);
    let is_it = |row: &Row| row.port == port && row.reach != Reach::Ipv6;
    let rows = lines.filter_map(|line| row(&line)).filter(is_it);
    rows.map(|row| format!("socket:[{}]", row.inode)).collect()
}

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    port: u16,
    inode: u64,
    reach: Reach,
}

/// Whether connections of IPv4 reach a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Ipv4,
    /// Unless it is for IPv6 alone.
    Perhaps,
    Ipv6,
}

/// A line of a table, if its socket listens; proc_pid_net(5).
fn row(line: &str) -> Option<Row> {
    // sl, local address and port, remote ones, state, queues, timers, retransmits, uid, timeout, inode.
    let fields: Vec<&str> = line.split_whitespace().take(10).collect();
    let [_, local, _, state, .., inode] = fields[..] else { return None };
    let (address, port) = local.rsplit_once(':')?;
    let reach = match address {
        ANY_IPV6 => Reach::Perhaps,
        it if it.len() == 8 || MAPPED.iter().any(|mapped| it.starts_with(mapped)) => Reach::Ipv4,
        _ => Reach::Ipv6,
    };
    let (port, inode) = (u16::from_str_radix(port, 16).ok()?, inode.parse().ok()?);
    let is_one = state == LISTEN && fields.len() == 10 && inode > 0;
    is_one.then_some(Row { port, inode, reach })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn line(address: &str, state: &str) -> String {
        format!(
            "   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000   101  0 4711 1\n"
        )
    }

    #[test]
    fn the_sockets_that_listen_are_found_in_the_kernels_tables() {
        let one = |reach| Some(Row { port: 8080, inode: 4711, reach });
        for (line, found) in [
            (line("0100007F:1F90", "0A"), one(Reach::Ipv4)),
            (line("00000000000000000000000000000000:1F90", "0A"), one(Reach::Perhaps)),
            (line("0000000000000000FFFF00000100007F:1F90", "0A"), one(Reach::Ipv4)),
            (line("00000000000000000000000001000000:1F90", "0A"), one(Reach::Ipv6)),
            (line("0100007F:1F90", "01"), None),
            ("  sl  local_address rem_address   st tx_queue rx_queue".into(), None),
            ("0: 0100007F:1F90 x 0A 1".into(), None),
        ] {
            assert_eq!(row(&line), found, "{line}");
        }
    }

    #[test]
    fn only_what_the_tables_do_not_tell_is_bound() {
        let mut all = Listeners::default();
        all.take(line("0100007F:1F90", "0A").as_bytes());
        all.take(line("00000000000000000000000000000000:1F91", "0A").as_bytes());
        all.take(line("0100007F:1F92", "06").as_bytes());
        assert_eq!(all.judge(0x1F90, |_| panic!("it is known")), Use::Listener);
        // It is for IPv6 alone.
        assert_eq!(all.judge(0x1F91, |_| false), Use::Free);
        assert_eq!(all.judge(0x1F91, |_| true), Use::Listener);
        // A connection that has ended keeps its port for a minute.
        assert_eq!(all.judge(0x1F92, |_| true), Use::Bound);
        assert_eq!(all.judge(0x1F92, |_| false), Use::Free);
        all.is_partial = true;
        assert_eq!(all.judge(0x1F92, |_| true), Use::Listener, "nobody knows");
    }

    #[test]
    fn the_first_process_is_meant_only_when_nobody_else_has_the_socket() {
        for (holders, one) in [
            (&[][..], None),
            (&[1, 1], Some(1)),
            (&[1, 1, 71, 72], Some(71)),
            (&[71, 72], Some(71)),
        ] {
            assert_eq!(meant(holders.iter().copied()), one, "{holders:?}");
        }
    }

    #[test]
    fn a_program_that_listens_is_named_and_a_connection_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let at = listener.local_addr().expect("its address");
        let connection = TcpStream::connect(at).expect("a connection");
        let near = connection.local_addr().expect("its address").port();
        let all = Listeners::read();
        assert_eq!((all.of(at.port()), all.of(near)), (Use::Listener, Use::Bound));
        let found = who(at.port()).expect("it is ourselves");
        assert_eq!(found.pid, std::process::id());
        assert!(found.to_string().ends_with(&format!(" (pid {})", found.pid)), "{found}");
        assert_eq!(who(near), None);
    }
}
