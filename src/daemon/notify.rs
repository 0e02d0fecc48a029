//! Tells systemd how it stands. Protocol: sd_notify(3), one datagram per message.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The daemon serves.
pub fn ready() {
    send("READY=1");
}

/// The daemon is about to end.
pub fn stopping() {
    send("STOPPING=1");
}

/// Says in half the time that systemd allows that the loop still turns; never ends.
pub async fn watchdog() {
    let us = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
    let Some(us) = us.filter(|us| *us > 0) else { return };
    loop {
        async_io::Timer::after(Duration::from_micros(us / 2)).await;
        send("WATCHDOG=1");
    }
}

/// Without systemd there is no address, and nobody to tell.
fn send(message: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent = (|| {
        let text = path.to_string_lossy();
        let address = match text.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&path)?,
        };
        UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)
    })();
    if let Err(err) = sent {
        crate::warn!("notify.refused", err = err);
    }
}
