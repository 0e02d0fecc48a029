//! What a person can do about a request that failed: the end of its text, which nothing cuts off. Pure.

use std::io::ErrorKind as K;
use ureq::http::{StatusCode, Uri};

/// What is to be said of a status that is no answer to our question; empty: others say it.
pub fn of_status(status: StatusCode, uri: &Uri) -> &'static str {
    let path = uri.path();
    match status.as_u16() {
        401 | 403 | 407 => "",
        404 | 410 if path.contains("/manifests/") => {
            "; nothing of that name and tag is there: is it written as it was pushed?"
        }
        404 | 410 if path.contains("/blobs/") || path.ends_with("/layer") => {
            "; a part of the image is not there any more: push it again"
        }
        404 | 410 => "; is the name right, and does a registry answer at that address?",
        429 => "; it is asked too often: wait, log in, or name a mirror in [registry] mirrors",
        408 | 425 | 500..=599 => "; try again later, or look at what the registry logs",
        _ => "; is it a registry that answers at that address?",
    }
}

/// What is to be said of a request without an answer; `is_by_proxy`: it went by one.
pub fn of_lost(err: &ureq::Error, is_by_proxy: bool) -> &'static str {
    match (err, is_by_proxy) {
        (ureq::Error::ConnectProxyFailed(_), _) | (_, true) => {
            "; HTTPS_PROXY and HTTP_PROXY of the service name the proxy, NO_PROXY what goes without one"
        }
        (ureq::Error::HostNotFound, _) => {
            "; is the name right, and does the box's name server know it (/etc/resolv.conf)?"
        }
        (ureq::Error::Timeout(_), _) => {
            "; is the registry up, and does a firewall stand in between? Where only a proxy leads out, the \
             service needs HTTPS_PROXY"
        }
        (ureq::Error::Io(err), _) => match err.kind() {
            K::ConnectionRefused => {
                "; nobody listens there: is the port right, and the registry up?"
            }
            K::NetworkUnreachable | K::HostUnreachable => {
                "; this box has no way there: is its network up?"
            }
            K::ConnectionReset | K::ConnectionAborted | K::UnexpectedEof | K::BrokenPipe => {
                "; who listens there hung up: is the port right? Try again"
            }
            _ => "; is the registry up, and the way there?",
        },
        _ => "; is it a registry that answers at that address?",
    }
}
