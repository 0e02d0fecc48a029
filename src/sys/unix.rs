//! Listening stream sockets in the file system, and the group that may use them.

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::Group;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// A bound stream socket that nobody can connect to yet.
pub struct Bound(std::os::fd::OwnedFd);

/// Makes the socket file `path` with mode 0600. Connections are refused until [`Bound::listen`],
/// so that owner and mode can be put right in between. `EADDRINUSE`: the file exists.
/// `ENAMETOOLONG`: over 107 bytes. unix(7).
pub fn bind(path: &Path) -> io::Result<Bound> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // The kernel takes the file's mode from the socket's own inode (unix_bind_bsd in
    // net/unix/af_unix.c): no moment in which the umask alone protects it.
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket::bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(Bound(fd))
}

impl Bound {
    /// Begins to take connections; at most `backlog` wait to be accepted.
    pub fn listen(self, backlog: u16) -> io::Result<UnixListener> {
        // SAFETY: a descriptor that we hold and an integer go in. Not nix's, which knows a bound of
        // its own; the kernel's is net.core.somaxconn, and it cuts what is more.
        if unsafe { libc::listen(self.0.as_raw_fd(), backlog.into()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(UnixListener::from(self.0))
    }
}

/// The number of the group `name` in /etc/group; `None` when there is none.
pub fn group(name: &str) -> io::Result<Option<u32>> {
    Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_socket_is_private_and_deaf_until_it_listens() {
        let path = std::env::temp_dir().join(format!("terrarium-unix-{}", std::process::id()));
        let bound = bind(&path).expect("bind");
        let mode = std::fs::metadata(&path).expect("file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let deaf = UnixStream::connect(&path).expect_err("not listening");
        assert_eq!(deaf.kind(), io::ErrorKind::ConnectionRefused);
        let listener = bound.listen(8).expect("listen");
        UnixStream::connect(&path).expect("connect");
        drop(listener);
        std::fs::remove_file(&path).expect("clean");
    }

    #[test]
    fn groups_are_found_by_name() {
        assert_eq!(group("root").expect("read"), Some(0));
        assert_eq!(group("no-such-group-here").expect("read"), None);
    }
}
