//! What the tests of this room and of `cli` share.

use super::apps::Apps;
use super::apps::fake::Fake;
use super::http::client::Client;
use super::http::listen::listen;
use super::http::server::{Limits, serve};
use smol::future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of its own for one test, removed with everything in it.
pub struct TempDir(PathBuf);

#[allow(clippy::new_without_default)]
impl TempDir {
    /// A new, empty directory.
    pub fn new() -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("terrarium-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a directory for the test");
        TempDir(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("the test's directory goes away");
    }
}

/// Runs `test` against a server of `fake`.
pub fn with_service<F: Future<Output = ()>>(fake: Fake, test: impl FnOnce(Client) -> F) {
    let dir = TempDir::new();
    let socket = listen(&dir.path().join("s"), 0o660, None).expect("listen");
    let apps = Apps::new(fake);
    let serving = async {
        let err = serve(socket.listener(), &apps, Limits::default()).await;
        panic!("the listener broke: {err}");
    };
    smol::block_on(future::or(test(Client::new(socket.path())), serving));
}
