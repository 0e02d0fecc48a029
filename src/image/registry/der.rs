//! The two things that we read of a certificate ourselves: when it is good, and who made it. Pure.
//!
//! ```text
//! Certificate ::= SEQUENCE { tbs SEQUENCE { [0] version, serial INTEGER, algorithm SEQUENCE,
//!     issuer SEQUENCE, validity SEQUENCE { notBefore, notAfter }, ... }, ... }      RFC 5280, 4.1
//! ```

use std::time::Duration;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// From when until when a certificate is good, both inclusive, since 1970.
pub fn validity(certificate: &[u8]) -> Option<(Duration, Duration)> {
    let mut tbs = at_issuer(certificate)?;
    tbs.take(SEQUENCE)?;
    let mut both = Cursor(tbs.take(SEQUENCE)?.1);
    Some((both.time()?, both.time()?))
}

/// The name of who made a certificate, as it stands there.
pub fn issuer(certificate: &[u8]) -> Option<&[u8]> {
    at_issuer(certificate)?.take(SEQUENCE).map(|(whole, _)| whole)
}

fn at_issuer(certificate: &[u8]) -> Option<Cursor<'_>> {
    let whole = Cursor(certificate).take(SEQUENCE)?.1;
    let mut tbs = Cursor(Cursor(whole).take(SEQUENCE)?.1);
    if tbs.0.first() == Some(&VERSION) {
        tbs.take(VERSION)?;
    }
    tbs.take(INTEGER)?;
    tbs.take(SEQUENCE)?;
    Some(tbs)
}

/// What is left to read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// The next item, which has to be of this kind: with its head, and without.
    fn take(&mut self, kind: u8) -> Option<(&'a [u8], &'a [u8])> {
        let own = *self.0.first()?;
        let first = usize::from(*self.0.get(1)?);
        let (head, length) = match first {
            0..=0x7f => (2, first),
            0x81..=0x83 => {
                let digits = self.0.get(2..2 + (first & 0x7f))?;
                let length = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
                (2 + digits.len(), length)
            }
            _ => return None,
        };
        let whole = self.0.get(..head + length).filter(|_| own == kind)?;
        self.0 = &self.0[whole.len()..];
        Some((whole, &whole[head..]))
    }

    /// `YYMMDDHHMMSSZ` of 1950 to 2049, or `YYYYMMDDHHMMSSZ`; what was before 1970 was in 1970.
    fn time(&mut self) -> Option<Duration> {
        let (year, rest) = match *self.0.first()? {
            UTC_TIME => {
                let text = self.take(UTC_TIME)?.1;
                let year = number(text.get(..2)?)?;
                (year + if year < 50 { 2000 } else { 1900 }, &text[2..])
            }
            _ => {
                let text = self.take(GENERALIZED_TIME)?.1;
                (number(text.get(..4)?)?, &text[4..])
            }
        };
        if rest.len() != 11 || rest[10] != b'Z' {
            return None;
        }
        let part = |at: usize, least: i64, most: i64| {
            number(&rest[at..at + 2]).filter(|it| (least..=most).contains(it))
        };
        let days = days_since_1970(year, part(0, 1, 12)?, part(2, 1, 31)?);
        let seconds = part(4, 0, 23)? * 3600 + part(6, 0, 59)? * 60 + part(8, 0, 59)?;
        Some(Duration::from_secs(u64::try_from(days * 86_400 + seconds).unwrap_or(0)))
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(digits).ok().filter(|it| it.bytes().all(|b| b.is_ascii_digit()));
    text?.parse().ok()
}

/// In the calendar of today. The year begins in March here: so a leap day is its last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before_month = (153 * month + 2) / 5;
    365 * year + year / 4 - year / 100 + year / 400 + before_month + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).expect("short").to_be_bytes();
        match content.len() {
            0..0x80 => [&[kind, length[1]], content].concat(),
            _ => [&[kind, 0x82, length[0], length[1]], content].concat(),
        }
    }

    /// As much of a certificate as is read here.
    fn certificate(from: (u8, &str), until: (u8, &str)) -> Vec<u8> {
        let times = [from, until].map(|(kind, text)| item(kind, text.as_bytes())).concat();
        let tbs = [
            item(VERSION, &item(INTEGER, &[2])),
            item(INTEGER, &[7; 20]),
            item(SEQUENCE, &[5, 0]),
            item(SEQUENCE, b"\x0c\x02me"),
            item(SEQUENCE, &times),
            vec![0; 200],
        ];
        item(SEQUENCE, &item(SEQUENCE, &tbs.concat()))
    }

    #[test]
    fn a_certificates_time_and_maker_are_read() {
        let of = |from, until| {
            let der = certificate(from, until);
            validity(&der).map(|(from, until)| (from.as_secs(), until.as_secs()))
        };
        let utc = |text| (UTC_TIME, text);
        // By date(1).
        let read = of(utc("241231235959Z"), (GENERALIZED_TIME, "20520229120000Z"));
        assert_eq!(read, Some((1_735_689_599, 2_592_820_800)));
        assert_eq!(of(utc("700101000000Z"), utc("490301000001Z")), Some((0, 2_498_169_601)));
        assert_eq!(of(utc("500101000000Z"), utc("000229000000Z")), Some((0, 951_782_400)));
        for bad in ["241331235959Z", "2412312359Z", "24123123595 Z", "241231235959+0100", "", "+1"]
        {
            assert_eq!(of(utc(bad), utc("490301000001Z")), None, "{bad}");
        }
        let der = certificate(utc("241231235959Z"), utc("490301000001Z"));
        assert_eq!(issuer(&der), Some(&b"\x30\x04\x0c\x02me"[..]));
        for length in 0..60 {
            assert_eq!(validity(&der[..length]), None, "{length}");
        }
    }
}
