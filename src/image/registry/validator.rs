//! What tells that the bytes of a blob are those of before, where no digest names them: a strong validator
//! of RFC 9110, 8.8. A request with it (`If-Range`) gets the rest of that very blob, or another one whole.

use super::repository::Piece;
use crate::unit::date;
use ureq::http::HeaderMap;

/// Longest one that is remembered, with its address.
const TEXT_MAX: usize = 1024;
/// A blob that was changed so long before it was sent would have another date if it were changed again: dates
/// have whole seconds, and a server may take them from another clock than the answer's. RFC 9110, 8.8.2.2
/// wants a second and a reason, RFC 7232 a minute.
const SETTLED: u64 = 60;

/// A validator, and whose it is: two servers may call different things the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator {
    uri: String,
    value: String,
}

impl Validator {
    /// That of an answer, if it has one. `with_date`: a date is one, too. Servers that change what a digest
    /// names are none, and some know no date in `If-Range`: there it would be of no use.
    pub fn of(piece: &Piece, with_date: bool) -> Option<Validator> {
        let date = piece.modified.as_ref().filter(|_| with_date);
        let value = piece.etag.as_ref().or(date)?.clone();
        let own = Validator { uri: piece.uri.to_string(), value };
        (own.uri.len() + own.value.len() < TEXT_MAX).then_some(own)
    }

    /// What `If-Range` wants.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// As it is kept beside the bytes, in this run of the box.
    pub fn text(&self, boot: &str) -> String {
        format!("{boot}\n{}\n{}", self.uri, self.value)
    }

    /// The same read back. That of another run of the box says nothing: a power cut leaves a file as long as
    /// it was, with zeros in the place of what never came to the disk.
    pub fn read(text: &[u8], boot: &str) -> Option<Validator> {
        let text = std::str::from_utf8(text).ok()?;
        let (written, own) = text.split_once('\n')?;
        if boot.is_empty() || written != boot {
            return None;
        }
        let (uri, value) = own.split_once('\n')?;
        let is_plain = own.len() <= TEXT_MAX && !value.contains(|c: char| c.is_ascii_control());
        (is_plain && !value.is_empty()).then(|| Validator { uri: uri.into(), value: value.into() })
    }
}

/// The `ETag` of an answer, if it is a strong one.
pub fn etag(headers: &HeaderMap) -> Option<&str> {
    let etag = headers.get("etag")?.to_str().ok()?.trim();
    (etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"')).then_some(etag)
}

/// Its `Last-Modified`, if that is strong: long before its `Date`.
pub fn modified(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let (modified, sent) = (text("last-modified")?, text("date")?);
    let settled = date::read_http(sent)?.checked_sub(date::read_http(modified)?)?;
    (settled >= SETTLED).then_some(modified)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(rows: &[(&'static str, &str)]) -> HeaderMap {
        rows.iter()
            .map(|(name, value)| (name.parse().expect("name"), value.parse().expect("value")))
            .collect()
    }

    #[test]
    fn only_strong_validators_count() {
        let tag = |text: &str| etag(&headers(&[("etag", text)])).map(str::to_owned);
        assert_eq!(tag("\"1-2\"").as_deref(), Some("\"1-2\""));
        for weak in ["W/\"1-2\"", "1-2", "\"\"", ""] {
            assert_eq!(tag(weak), None, "{weak}");
        }
        let date = |date: &str| {
            let old = "Sun, 06 Nov 1994 08:49:37 GMT";
            let both = headers(&[("last-modified", old), ("date", date)]);
            modified(&both).map(str::to_owned)
        };
        assert!(date("Sun, 06 Nov 1994 08:50:37 GMT").is_some());
        for weak in ["Sun, 06 Nov 1994 08:50:36 GMT", "Sun, 06 Nov 1994 08:48:37 GMT", "now"] {
            assert_eq!(date(weak), None, "{weak}");
        }
        assert_eq!(modified(&headers(&[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")])), None);
    }

    #[test]
    fn what_is_kept_is_read_back() {
        let own = Validator { uri: "http://a/b".into(), value: "\"x\"".into() };
        assert_eq!(Validator::read(own.text("1-2").as_bytes(), "1-2"), Some(own));
        for bad in ["", "http://a/b", "http://a/b\n", "http://a/b\nx\r\ny", "\u{0}\n\n"] {
            let text = format!("1-2\n{bad}");
            assert_eq!(Validator::read(text.as_bytes(), "1-2"), None, "{bad:?}");
        }
    }

    #[test]
    fn what_was_kept_in_another_run_of_the_box_says_nothing() {
        let own = Validator { uri: "http://a/b".into(), value: "\"x\"".into() };
        let read = |text: &str, boot| Validator::read(text.as_bytes(), boot);
        assert_eq!(read(&own.text("1-2"), "1-2").as_ref(), Some(&own));
        assert_eq!(read(&own.text("1-2"), "1-3"), None);
        // Where nobody knows which run it is, it may be any.
        assert_eq!(read(&own.text(""), ""), None);
        // As it was written when the run was not in it.
        assert_eq!(read("http://a/b\n\"x\"", "1-2"), None);
    }
}
