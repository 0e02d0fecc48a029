//! What becomes of a request for a file: all of it, a part, or nothing. Pure. RFC 9110, 13 and 14.

use crate::unit::date;

/// What is said of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// In quotes.
    pub etag: String,
    /// When it was changed last, in seconds since 1970.
    pub modified: u64,
    /// Bytes.
    pub length: u64,
}

/// Header fields of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `If-None-Match`.
    pub if_none_match: Option<String>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<String>,
    /// `If-Range`.
    pub if_range: Option<String>,
    /// `Range`.
    pub range: Option<String>,
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// 200.
    Whole,
    /// 206: from the first to the last byte, both included.
    Part(u64, u64),
    /// 304.
    Same,
    /// 416.
    OutOfRange,
}

/// Decides.
pub fn plan(known: &Known, asked: &Asked) -> Plan {
    let same = match (&asked.if_none_match, &asked.if_modified_since) {
        (Some(tags), _) => {
            let plain = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
            tags.split(',').any(|tag| plain(tag) == known.etag || tag.trim() == "*")
        }
        (None, Some(since)) => date::read_http(since).is_some_and(|since| known.modified <= since),
        (None, None) => false,
    };
    if same {
        return Plan::Same;
    }
    let is_this = |text: &String| {
        *text == known.etag || date::read_http(text).is_some_and(|it| it == known.modified)
    };
    match &asked.range {
        Some(range) if asked.if_range.as_ref().is_none_or(is_this) => part(range, known.length),
        _ => Plan::Whole,
    }
}

/// One range; what is not understood, or is more than one, is all of it.
fn part(range: &str, length: u64) -> Plan {
    let Some(range) = range.trim().strip_prefix("bytes=") else { return Plan::Whole };
    let Some((first, last)) = range.split_once('-') else { return Plan::Whole };
    let number = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first.trim()), number(last.trim()), last.trim().is_empty()) {
        (Some(first), _, _) if first >= length => Plan::OutOfRange,
        (Some(first), None, true) => Plan::Part(first, length - 1),
        (Some(first), Some(last), _) if first <= last => Plan::Part(first, last.min(length - 1)),
        (None, Some(count), _) if first.trim().is_empty() => match count.min(length) {
            0 => Plan::OutOfRange,
            count => Plan::Part(length - count, length - 1),
        },
        _ => Plan::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 86: tags, times and ranges.
    #[test]
    fn row_86_a_file_is_sent_whole_in_part_or_not_at_all() {
        let known = Known { etag: "\"ab\"".into(), modified: 784_111_777, length: 10 };
        let none = Asked::default;
        let text = |text: &str| Some(text.to_owned());
        let range = |range: &str| Asked { range: text(range), ..none() };
        for (asked, expected) in [
            (none(), Plan::Whole),
            (Asked { if_none_match: text("\"x\", W/\"ab\""), ..none() }, Plan::Same),
            (Asked { if_none_match: text("*"), ..none() }, Plan::Same),
            (
                Asked {
                    if_none_match: text("\"x\""),
                    if_modified_since: text("Sun, 06 Nov 1994 08:49:37 GMT"),
                    ..none()
                },
                Plan::Whole,
            ),
            (
                Asked { if_modified_since: text("Sun, 06 Nov 1994 08:49:37 GMT"), ..none() },
                Plan::Same,
            ),
            (
                Asked { if_modified_since: text("Sun, 06 Nov 1994 08:49:36 GMT"), ..none() },
                Plan::Whole,
            ),
            (range("bytes=0-3"), Plan::Part(0, 3)),
            (range("bytes=3-"), Plan::Part(3, 9)),
            (range("bytes=3-99"), Plan::Part(3, 9)),
            (range("bytes=-4"), Plan::Part(6, 9)),
            (range("bytes=-99"), Plan::Part(0, 9)),
            (range("bytes=10-"), Plan::OutOfRange),
            (range("bytes=-0"), Plan::OutOfRange),
            (range("bytes=5-3"), Plan::Whole),
            (range("bytes=0-1,3-4"), Plan::Whole),
            (range("lines=0-1"), Plan::Whole),
            (Asked { if_range: text("\"ab\""), ..range("bytes=1-1") }, Plan::Part(1, 1)),
            (Asked { if_range: text("\"x\""), ..range("bytes=1-1") }, Plan::Whole),
        ] {
            assert_eq!(plan(&known, &asked), expected, "{asked:?}");
        }
        let empty = Known { length: 0, ..known };
        assert_eq!(plan(&empty, &range("bytes=0-")), Plan::OutOfRange);
        assert_eq!(plan(&empty, &none()), Plan::Whole);
    }
}
