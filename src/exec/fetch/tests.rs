use super::*;
use smol::future::{block_on, poll_once};

/// A cache of so many bytes in a directory of its own, removed at the end.
struct Cache {
    dir: PathBuf,
    fetcher: Fetcher,
}

impl Cache {
    fn new(most: u64) -> Cache {
        let dir = std::env::temp_dir().join(format!(
            "terrarium-fetch-{}-{}",
            std::process::id(),
            unique()
        ));
        fs::create_dir_all(&dir).expect("directory");
        let fetcher = Fetcher::open(&dir, &dir, Bytes::new(most)).expect("cache");
        Cache { dir, fetcher }
    }

    /// Keeps something of so many bytes; `None`: there is no room for it.
    fn keep(&self, id: &str, bytes: u64) -> Option<Held> {
        let path = self.dir.join("temp").join(id);
        fs::write(&path, vec![b'x'; bytes as usize]).expect("file");
        let entry = Entry::new(id.to_owned(), bytes, Version::default(), None);
        self.fetcher.0.keep(id, entry, &path).expect("written")
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn what_the_server_is_asked_about_does_not_go_meanwhile() {
    let cache = Cache::new(10);
    drop(cache.keep("a", 8).expect("room"));
    let (asked, _) = cache.fetcher.0.kept("a").expect("it is there");
    assert!(cache.keep("b", 8).is_none(), "the other one would have to go");
    drop(asked);
    assert!(cache.keep("b", 8).is_some());
    assert!(cache.fetcher.0.kept("a").is_none());
}

#[test]
fn who_gives_up_leaves_nothing_behind() {
    let cache = Cache::new(10);
    let (url, cache_key) = ("http://127.0.0.1:1/".to_owned(), "key".to_owned());
    let wanted = Wanted { url, cache_key, checksum: None };
    let first = cache.fetcher.0.flight(&id_of("key"));
    let turn = first.turn.clone().expect("it would be kept");
    block_on(async {
        let held = turn.lock_arc().await;
        let mut second = std::pin::pin!(cache.fetcher.fetch(&wanted));
        assert!(poll_once(&mut second).await.is_none(), "it waits for the first one");
        drop(held);
        drop((first, turn));
    });
    let flights = cache.fetcher.0.flights.lock().expect("nobody has panicked");
    assert!(flights.is_empty(), "{:?}", flights.keys());
}

/// All of the cache may vanish, and what is not of it may be there: neither is anybody's failure.
#[test]
fn a_directory_that_vanished_is_made_again_and_a_foreign_one_is_let_be() {
    let cache = Cache::new(10);
    fs::remove_dir_all(&cache.dir).expect("remove");
    cache.fetcher.scratch().expect("made again");
    fs::remove_dir_all(&cache.dir).expect("remove");
    cache.fetcher.0.write(&Index::default()).expect("made again");

    fs::create_dir(cache.dir.join("lost+found")).expect("directory");
    fs::write(cache.dir.join("old"), "x").expect("file");
    let again = Fetcher::open(&cache.dir, &cache.dir, Bytes::new(10));
    assert!(again.is_ok(), "{:?}", again.err());
    assert!(cache.dir.join("lost+found").exists() && !cache.dir.join("old").exists());
}

/// Reads a request of three bytes from the next connection.
fn hear(listener: &std::net::TcpListener) -> std::net::TcpStream {
    let (mut stream, _) = listener.accept().expect("a connection");
    let (mut came, mut byte) = (Vec::new(), [0]);
    while !came.ends_with(b"\r\n\r\nabc") {
        stream.read_exact(&mut byte).expect("a request");
        came.push(byte[0]);
    }
    stream
}

/// An upload that nobody wants any more keeps its place for as long as its thread waits for the
/// server, and is not tried again.
#[test]
fn an_upload_that_is_given_up_keeps_its_place_until_its_thread_has_ended() {
    let cache = Cache::new(10);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let url = format!("http://{}/", listener.local_addr().expect("address"));
    let mut file = cache.fetcher.scratch().expect("file");
    file.write_all(b"abc").expect("write");
    let places = cache.fetcher.0.uploads.clone();
    let (heard, listener) = block_on(async {
        let mut sending = std::pin::pin!(cache.fetcher.send(file, 3, &url));
        let hear = smol::unblock(move || (hear(&listener), listener));
        let ended = async { Err(sending.as_mut().await) };
        let heard = smol::future::or(ended, async { Ok(hear.await) }).await;
        heard.expect("it waits for an answer")
        // Here it is given up.
    });
    let free: Vec<_> = std::iter::from_fn(|| places.try_acquire()).collect();
    assert_eq!(free.len(), AT_ONCE - 1);
    drop(heard);
    // The last place comes when the thread has ended.
    let last = block_on(places.acquire());
    drop((free, last));
    listener.set_nonblocking(true).expect("listener");
    let again = listener.accept().map(drop).expect_err("nobody comes again");
    assert_eq!(again.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn what_is_given_up_is_not_sent_to_its_end() {
    let cache = Cache::new(10);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let url = format!("http://{}/", listener.local_addr().expect("address"));
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut came = Vec::new();
        let _ = stream.read_to_end(&mut came);
        String::from_utf8_lossy(&came).into_owned()
    });
    let mut file = cache.fetcher.scratch().expect("file");
    file.write_all(b"droplet").expect("write");
    let given_up = GiveUp::default().heard();
    let why = cache.fetcher.0.send(file, 7, &url, &given_up).expect_err("nobody wants it");
    assert!(why.0.contains("nobody wants it any more"), "{why}");
    let came = server.join().expect("served");
    assert!(came.starts_with("POST / ") && !came.contains("droplet"), "{came}");
}
