//! Listeners. The socket's file: made for one group, stale ones taken away, live ones respected.
//! TCP: an address of this box that nobody else has.

use crate::sys::unix;
use smol::Async;
use smol::net::TcpListener;
use smol::net::unix::UnixListener;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Connections that may wait to be accepted: a client of a unix socket is refused at once beyond it,
/// and some come in hundreds.
const BACKLOG: u16 = 4096;

/// Longest path of a socket, in bytes: what `sun_path` of unix(7) holds besides its NUL.
const PATH_MAX: usize = 107;

/// Why there is no socket.
#[derive(Debug)]
pub enum ListenError {
    /// "the socket's path {path} has {n} bytes, more than the 107 ..."
    TooLong {
        /// The socket.
        path: PathBuf,
    },
    /// "another daemon answers on {path}; stop it, or give this one its own --root"
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// "{path} exists and is no socket; move it away"
    Foreign {
        /// What is in the way.
        path: PathBuf,
    },
    /// "cannot {doing} {path}"
    Refused {
        /// Verb.
        doing: &'static str,
        /// Object.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// "port {port} of {ip} is taken; `ss -ltnp` shows by whom; ..."
    PortTaken {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// "{ip} is no address of this box; ..."
    NotHere {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// "cannot listen on {address}"
    RefusedTcp {
        /// Where it was to listen.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenError::TooLong { path } => write!(
                f,
                "the socket's path {} has {} bytes, more than the {PATH_MAX} that a socket can \
                 have; name a shorter --root",
                path.display(),
                path.as_os_str().len()
            ),
            ListenError::Taken { path } => write!(
                f,
                "another daemon answers on {}; stop it, or give this one its own --root",
                path.display()
            ),
            ListenError::Foreign { path } => {
                write!(f, "{} exists and is no socket; move it away", path.display())
            }
            ListenError::Refused { doing, path, .. } => {
                write!(f, "cannot {doing} {}", path.display())
            }
            ListenError::PortTaken { address } => write!(
                f,
                "port {} of {} is taken; `ss -ltnp` shows by whom: stop that, or choose another",
                address.port(),
                address.ip()
            ),
            ListenError::NotHere { address } => write!(
                f,
                "{} is no address of this box; choose 127.0.0.1, or one that `ip address` shows",
                address.ip()
            ),
            ListenError::RefusedTcp { address, .. } => write!(f, "cannot listen on {address}"),
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ListenError::Refused { source, .. } | ListenError::RefusedTcp { source, .. } => {
                Some(source)
            }
            _ => None,
        }
    }
}

/// A listening socket whose file goes away with it.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file: a successor's file of the same name is not ours to remove.
    file: (u64, u64),
}

impl Socket {
    /// What to serve.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if ours {
            // A file that stays is stale, and the next daemon removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether a socket can have this path at all; touches nothing.
pub fn check(path: &Path) -> Result<(), ListenError> {
    match path.as_os_str().len() > PATH_MAX {
        true => Err(ListenError::TooLong { path: path.to_owned() }),
        false => Ok(()),
    }
}

/// Makes the socket `path` with `mode` (0660 says: root and `group`); its directory is made, mode
/// 0750, when missing. Without such a group only root may connect, and a warning says so.
///
/// Call it with the lock on the state directory: two daemons that start at once could otherwise
/// take each other's new socket for a stale one.
pub fn listen(path: &Path, mode: u32, group: Option<&str>) -> Result<Socket, ListenError> {
    let refused =
        |doing| move |source| ListenError::Refused { doing, path: path.to_owned(), source };
    check(path)?;
    let gid = match group {
        Some(name) => {
            let gid = unix::group(name).map_err(refused("look up the group for"))?;
            if gid.is_none() {
                let cure = format!("groupadd --system {name}, then restart the service");
                crate::warn!("api.group_missing", group = name, path = path.display(), cure = cure);
            }
            gid
        }
        None => None,
    };
    if let Some(dir) = path.parent() {
        make_dir(dir, gid).map_err(refused("make the directory of"))?;
    }
    remove_stale(path)?;
    let bound = unix::bind(path).map_err(refused("make the socket"))?;
    if gid.is_some() {
        chown(path, None, gid).map_err(refused("give to its group"))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(refused("set the mode of"))?;
    let file = fs::symlink_metadata(path).map_err(refused("look at"))?;
    let listener = bound.listen(BACKLOG).map_err(refused("listen on"))?;
    let listener = Async::new(listener).map_err(refused("watch"))?;
    Ok(Socket { listener: listener.into(), path: path.to_owned(), file: (file.dev(), file.ino()) })
}

/// Listens on TCP at `address`, of which port 0 means any free one. An address that ended a moment
/// ago with connections open can be had again at once.
pub fn listen_tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let bound = std::net::TcpListener::bind(address).and_then(Async::new);
    match bound {
        Ok(listener) => Ok(listener.into()),
        Err(err) if err.kind() == io::ErrorKind::AddrInUse => {
            Err(ListenError::PortTaken { address })
        }
        Err(err) if err.kind() == io::ErrorKind::AddrNotAvailable => {
            Err(ListenError::NotHere { address })
        }
        Err(source) => Err(ListenError::RefusedTcp { address, source }),
    }
}

/// The socket's directory; one that exists keeps the mode that its maker gave it.
fn make_dir(dir: &Path, gid: Option<u32>) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o750).create(dir) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other?,
    }
    match gid {
        Some(gid) => chown(dir, None, Some(gid)),
        None => Ok(()),
    }
}

/// Removes a socket on which nobody listens any more.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let refused =
        |doing| move |source| ListenError::Refused { doing, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => {}
        Ok(_) => return Err(ListenError::Foreign { path: path.to_owned() }),
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(refused("look at")(err)),
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ListenError::Taken { path: path.to_owned() }),
        // A full backlog answers EAGAIN: somebody lives there, only slowly.
        Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
            Err(ListenError::Taken { path: path.to_owned() })
        }
        Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => match fs::remove_file(path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                Err(refused("remove the stale socket")(err))
            }
            _ => Ok(()),
        },
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(err) => Err(refused("try the socket")(err)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::TempDir;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = TempDir::new();
        let path = dir.path().join("run/terrarium.sock");
        let first = listen(&path, 0o660, None).expect("first");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().expect("dir"))), (0o660, 0o750));
        assert!(matches!(listen(&path, 0o660, None), Err(ListenError::Taken { .. })));
        drop(first);
        assert!(!path.exists(), "the file goes with its socket");

        drop(std::os::unix::net::UnixListener::bind(&path).expect("leave a stale file"));
        let second = listen(&path, 0o660, Some("no-such-group-here")).expect("second");
        UnixStream::connect(&path).expect("it answers");
        fs::remove_file(&path).expect("somebody removes it");
        let third = listen(&path, 0o660, None).expect("a successor");
        drop(second);
        assert!(path.exists(), "the successor's file stays");
        drop(third);

        fs::write(&path, "text").expect("file");
        let err = listen(&path, 0o660, None).err().expect("refused");
        assert!(err.to_string().ends_with("no socket; move it away"), "{err}");
    }

    #[test]
    fn a_path_that_is_too_long_is_named() {
        let dir = TempDir::new();
        let fill = |len: usize| "x".repeat(len - dir.path().as_os_str().len() - 1);
        let longest = dir.path().join(fill(107));
        listen(&longest, 0o660, None).expect("107 bytes are not too long");
        let path = dir.path().join(fill(108));
        let err = listen(&path, 0o660, None).err().expect("refused");
        let cure = "has 108 bytes, more than the 107 that a socket can have; name a shorter --root";
        assert!(err.to_string().ends_with(cure), "{err}");
    }
    #[test]
    fn a_tcp_address_that_cannot_be_had_is_named_with_the_cure() {
        let any = "127.0.0.1:0".parse().expect("an address");
        let first = listen_tcp(any).expect("any port");
        let taken = first.local_addr().expect("bound");
        let err = listen_tcp(taken).expect_err("refused").to_string();
        assert!(err.starts_with(&format!("port {} of 127.0.0.1 is taken;", taken.port())), "{err}");
        // TEST-NET-1 is nobody's.
        let err = listen_tcp("192.0.2.1:0".parse().expect("an address")).expect_err("refused");
        assert!(err.to_string().starts_with("192.0.2.1 is no address of this box;"), "{err}");
        drop(first);
        listen_tcp(taken).expect("free again");
    }
}
