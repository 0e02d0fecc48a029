//! What is decided here without the backend.

use super::*;
use crate::api::http::server::serve;
use crate::garden::backend::Backend;
use smol::net::unix::UnixListener;

fn request(target: &str) -> Request {
    let head = format!("GET {target} HTTP/1.1\r\n\r\n");
    Request::parse(head.as_bytes()).expect("a head").expect("whole").0
}

#[test]
fn a_filter_is_every_pair_and_the_first_value_of_each_name() {
    let request = request("/containers?owner=me&a=1&owner=you&garden.state=all&a=&b");
    let pairs = [("owner", "me"), ("a", "1"), ("garden.state", "all"), ("b", "")];
    let expected = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(filter(&request.query), expected);
}

#[test]
fn a_bulk_call_is_about_the_handles_it_names() {
    for (query, expected) in [
        ("", [].as_slice()),
        ("?handles=", &[]),
        ("?handles=a", &["a"]),
        ("?handles=a%2Cb%20c,d&handles=e", &["a", "b c", "d"]),
    ] {
        assert_eq!(
            handles(&request(&format!("/containers/bulk_info{query}"))),
            expected,
            "{query}"
        );
    }
}

/// The daemon serves it on several threads: this must compile.
#[expect(dead_code, reason = "only its types are looked at")]
fn it_may_move_between_threads(listener: &UnixListener, backend: Backend) -> impl Send {
    let garden = Garden::new(backend, Default::default());
    async move { serve(listener, &garden, garden.limits()).await }
}
