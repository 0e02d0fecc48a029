//! Notices to other machines: a few bytes that are posted, again when that may help.

use super::http::{self, Lost};
use super::{FetchError, Fetcher};

/// Attempts at a notice. Diego's.
const TRIES: u32 = 3;

impl Fetcher {
    /// Posts a JSON text. Whatever the server says to it, it has heard it, but for 503 and 504.
    /// Blocking work on the pool.
    pub async fn notify(&self, url: &str, body: Vec<u8>) -> Result<(), FetchError> {
        let _slot = self.0.uploads.acquire().await;
        let (inner, url) = (self.0.clone(), url.to_owned());
        smol::unblock(move || {
            for failed in 1.. {
                let why = match http::post((&url, &inner.certs), &body) {
                    Ok(status @ (503 | 504)) => format!("it answered with status {status}"),
                    Ok(_) => return Ok(()),
                    Err(Lost::Final(why)) => return Err(FetchError(why)),
                    Err(Lost::Passing(why)) => why,
                };
                match http::pause(failed, TRIES, 0) {
                    // No event: a server does not say when it is back.
                    Some(pause) => std::thread::sleep(pause),
                    None => return Err(FetchError(why)),
                }
            }
            unreachable!("the pauses end")
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::Bytes;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::path::Path;

    /// A server that gives each connection the next of these statuses, and nothing for 0; how many
    /// notices came.
    fn serve(statuses: &'static [u16]) -> (String, std::thread::JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let at = format!("http://{}/done", listener.local_addr().expect("address"));
        let server = std::thread::spawn(move || {
            for (n, status) in statuses.iter().enumerate() {
                let (mut stream, _) = listener.accept().expect("a notice");
                let mut text = Vec::new();
                let mut piece = [0; 1024];
                while !text.ends_with(b"{}") {
                    let read = stream.read(&mut piece).expect("read");
                    assert!(read > 0, "notice {n} broke off");
                    text.extend_from_slice(&piece[..read]);
                }
                let head = String::from_utf8_lossy(&text).to_ascii_lowercase();
                assert!(head.starts_with("post /done ") && head.contains("application/json"));
                if *status > 0 {
                    let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
                    stream.write_all(answer.as_bytes()).expect("answer");
                }
            }
            statuses.len()
        });
        (at, server)
    }

    /// Row 6: two answers of 503 and a third of 200 take three posts; any other status has heard it;
    /// a connection that is closed is tried again; nobody there is given up on at once.
    #[test]
    fn row_6_a_notice_is_tried_again_when_that_may_help() {
        let dir = std::env::temp_dir().join(format!("terrarium-notice-{}", std::process::id()));
        let fetcher = Fetcher::open(&dir, Path::new("/nonexistent"), Bytes::mib(1)).expect("open");
        let notify = |url: &str| smol::block_on(fetcher.notify(url, b"{}".to_vec()));
        for (statuses, heard) in [
            (&[503, 503, 200][..], true),
            (&[504, 400], true),
            (&[500], true),
            (&[0, 200], true),
            (&[503, 504, 503], false),
        ] {
            let (url, server) = serve(statuses);
            assert_eq!(notify(&url).is_ok(), heard, "{statuses:?}");
            assert_eq!(server.join().expect("every notice came"), statuses.len());
        }
        let nobody = TcpListener::bind("127.0.0.1:0").expect("listen").local_addr();
        let url = format!("http://{}/done", nobody.expect("address"));
        assert!(notify(&url).is_err());
        std::fs::remove_dir_all(&dir).expect("clean up");
    }
}
