//! Which program of the box listens on a port: what is led to an app would never reach it again. Blocking.

use crate::sys::tcp;
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

/// Whether a program listens there. To ask takes the port from nobody, for no moment.
pub fn is_taken(port: u16) -> bool {
    tcp::bound(port).is_err_and(|err| err.kind() == io::ErrorKind::AddrInUse)
}

/// Which one, the oldest of several that share it; `None`: that is not to be seen from here.
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
    let (pid, _) = descriptors.take(DESCRIPTORS_MAX).find(|(_, path)| is_one(path))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(Program { name: name.trim_end().to_owned(), pid })
}

/// The sockets of `table` that listen on `port`, as links of descriptors name them.
fn sockets(table: &str, port: u16) -> Vec<String> {
    let Ok(file) = File::open(table) else { return Vec::new() };
    let lines = BufReader::new(file.take(TABLE_MAX)).lines().map_while(Result::ok);
    lines.filter_map(|line| socket(&line, port).map(|inode| format!("socket:[{inode}]"))).collect()
}

/// The inode of a line, if its socket listens on `port`; proc_pid_net(5).
fn socket(line: &str, port: u16) -> Option<u64> {
    // sl, local address and port, remote ones, state, queues, timers, retransmits, uid, timeout, inode.
    let fields: Vec<&str> = line.split_whitespace().take(10).collect();
    let [_, local, _, state, .., inode] = fields[..] else { return None };
    let (_, its) = local.rsplit_once(':')?;
    let is_it = state == LISTEN && u16::from_str_radix(its, 16) == Ok(port);
    inode.parse().ok().filter(|inode| is_it && fields.len() == 10 && *inode > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_sockets_that_listen_are_found_in_the_kernels_tables() {
        let of = |address: &str, state: &str| {
            format!(
                "   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000   101  0 4711 1"
            )
        };
        for (line, found) in [
            (of("0100007F:1F90", "0A"), Some(4711)),
            (of("00000000000000000000000000000000:1F90", "0A"), Some(4711)),
            (of("0100007F:1F90", "01"), None),
            (of("0100007F:1F91", "0A"), None),
            ("  sl  local_address rem_address   st tx_queue rx_queue".into(), None),
            ("0: 0100007F:1F90 x 0A 1".into(), None),
        ] {
            assert_eq!(socket(&line, 8080), found, "{line}");
        }
    }

    #[test]
    fn a_program_that_listens_is_named_and_who_looks_is_not_in_its_way() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        assert!(is_taken(port));
        let found = who(port).expect("it is ourselves");
        assert_eq!(found.pid, std::process::id());
        assert!(found.to_string().ends_with(&format!(" (pid {})", found.pid)), "{found}");
    }
}
