//! What the daemon gives back when it comes to rest.

use crate::sys;
use async_io::Timer;
use smol::channel::Receiver;
use std::time::Duration;

/// Without a word for this long it rests.
const CALM: Duration = Duration::from_secs(1);

/// Lets go of the program's pages after the start, and whenever containers have come or gone: what
/// that needs, and what a start or a pull needs, is most of the program, and to serve those that
/// stand is little. Sleeps while nothing changes.
pub(super) async fn follow(stirred: Receiver<()>) {
    loop {
        while is_stirred(&stirred).await {}
        sys::memory::let_go_of_program();
        if stirred.recv().await.is_err() {
            return;
        }
    }
}

/// `false`: nothing came for a while.
async fn is_stirred(stirred: &Receiver<()>) -> bool {
    let calm = async {
        Timer::after(CALM).await;
        false
    };
    smol::future::or(async { stirred.recv().await.is_ok() }, calm).await
}
