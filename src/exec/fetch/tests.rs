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
