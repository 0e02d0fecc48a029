//! Tells systemd how it stands. Protocol: sd_notify(3), one datagram per message.

use smol::stream::{Stream, StreamExt};
use std::env;
use std::fmt::Display;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The daemon serves: the socket answers, and what lived before is looked after.
pub fn ready() {
    send("READY=1\nSTATUS=Serving; reading the manifests of apps.d");
}

/// What it does now, for `systemctl status`.
pub fn status(text: impl Display) {
    send(&format!("STATUS={text}"));
}

/// The start waits for something, so long already; it is to be let for as long again, and a little.
pub fn waits(what: &str, waited: Duration, more: Duration) {
    let (seconds, us) = (waited.as_secs(), (more * 2).as_micros());
    send(&format!("EXTEND_TIMEOUT_USEC={us}\nSTATUS=Waiting for {what} since {seconds} s"));
}

/// The daemon is about to end.
pub fn stopping() {
    send("STOPPING=1");
}

/// Says in half the time that systemd allows that the loop still turns, as long as it does:
/// `beat` must come back with `true`. Never ends when systemd wants to hear of it.
pub async fn watchdog<B: Future<Output = bool>>(beat: impl FnMut() -> B) {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let Some(us) = number("WATCHDOG_USEC").filter(|us| *us > 0 && ours) else { return };
    let half = Duration::from_micros(us / 2);
    let ticks = smol::stream::unfold((), |()| async move {
        async_io::Timer::after(half).await;
        Some(((), ()))
    });
    feed(Box::pin(ticks), beat, || send("WATCHDOG=1")).await;
}

/// One `say` for each tick whose beat came back. A beat that does not come back stops it: then
/// nothing more is said, however many ticks pass.
async fn feed<B: Future<Output = bool>>(
    mut ticks: impl Stream<Item = ()> + Unpin,
    mut beat: impl FnMut() -> B,
    mut say: impl FnMut(),
) {
    while ticks.next().await.is_some() {
        if beat().await {
            say();
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use smol::future::{block_on, pending, poll_once};
    use smol::stream;

    #[test]
    fn the_watchdog_is_fed_only_while_the_loop_answers() {
        let mut said = 0;
        let mut asked = 0;
        let beat = || {
            asked += 1;
            let now = asked;
            async move {
                match now {
                    1 | 3 => true,
                    2 => false,
                    _ => pending().await,
                }
            }
        };
        let ticks = stream::iter([(); 9]);
        let fed = block_on(poll_once(feed(ticks, beat, || said += 1)));
        assert_eq!((fed, asked, said), (None, 4, 2), "the fourth beat hangs");
    }
}
