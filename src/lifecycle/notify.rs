//! `notify NAME=VALUE...`: says something to the container's pid 1, as systemd-notify(1) does: for
//! apps that are shell scripts.

use std::env;
use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The role. Without a socket there is nobody to tell, which is a mistake of the caller's.
pub(super) fn run(args: &[OsString]) -> Result<(), u8> {
    let words: Vec<String> = args.iter().map(|it| it.to_string_lossy().into_owned()).collect();
    if words.is_empty() {
        complain!("usage: notify NAME=VALUE...");
        return Err(1);
    }
    let Some(address) = env::var("NOTIFY_SOCKET").ok().filter(|text| !text.is_empty()) else {
        complain!("notify: NOTIFY_SOCKET is not set; the app's health check is no watchdog");
        return Err(1);
    };
    let told = match address.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&address),
    };
    let sent =
        told.and_then(|to| UnixDatagram::unbound()?.send_to_addr(words.join("\n").as_bytes(), &to));
    sent.map(drop).map_err(|err| {
        complain!("notify: cannot tell {address}: {err}");
        1
    })
}
