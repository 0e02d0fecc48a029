//! Times, sizes, tables and untrusted text as a person reads them. Pure.

use crate::unit::Bytes;
use std::fmt::Write as _;

/// `ms` since 1970 as `2026-11-21T02:00:00.123Z`, as RFC 3339 has it.
pub fn utc(ms: u64) -> String {
    let (seconds, ms) = (ms / 1000, ms % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Milliseconds since 1970 of a time in UTC, as [`utc`] shows it: `2026-11-21T02:00:00.123Z`. What is
/// left out at its end is zero, and the `Z` may be left out, too. `None`: it is no such time.
pub fn parse_utc(text: &str) -> Option<u64> {
    let number = |text: &str, width: usize| -> Option<u64> {
        let digits = text.len() == width && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (day, clock) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let parts: Vec<&str> = day.split('-').collect();
    let [year, month, day] = parts[..] else { return None };
    let wanted = (number(year, 4)?, number(month, 2)?, number(day, 2)?);
    let days = day_number(wanted).filter(|days| date(*days) == wanted)?;

    let (clock, ms) = clock.split_once('.').unwrap_or((clock, "000"));
    let ms = number(ms, 3)?;
    let parts: Vec<&str> = clock.split(':').collect();
    let (hour, minute, second) = match parts[..] {
        [hour, minute] => (hour, minute, "00"),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    let (hour, minute, second) = (number(hour, 2)?, number(minute, 2)?, number(second, 2)?);
    let real = hour < 24 && minute < 60 && second < 60;
    real.then_some((days * 86_400 + hour * 3600 + minute * 60 + second) * 1000 + ms)
}

/// What [`date`] makes into this year, month and day; of a date that is none, any number.
fn day_number((year, month, day): (u64, u64, u64)) -> Option<u64> {
    let year = year.checked_sub(u64::from(month <= 2))?;
    let month = (month + 9) % 12;
    let day = ((153 * month + 2) / 5 + day).checked_sub(1)?;
    (365 * year + year / 4 - year / 100 + year / 400 + day).checked_sub(SHIFT)
}

/// From 0000-03-01 to 1970-01-01, in days.
const SHIFT: u64 = 719_468;

/// Year, month and day of a day number since 1970. Counts in eras of 400 years that begin on a
/// first of March, so that the leap day is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    /// Days in 400 years.
    const ERA: u64 = 146_097;
    let days = days + SHIFT;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months from March have 31, 30, 31, 30, 31 days, over and over: 153 days in five months.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

/// `bytes` in three digits or so: `0`, `640B`, `12.3M`, `256M`, `1.5G`.
pub fn size(bytes: u64) -> String {
    const UNITS: [char; 5] = ['B', 'K', 'M', 'G', 'T'];
    if bytes == 0 {
        return "0".into();
    }
    let mut unit = 0;
    let mut tenths = bytes.saturating_mul(10);
    // 1023.95 would be shown as 1024.0: go on to the next unit before that.
    while tenths >= 10_235 && unit + 1 < UNITS.len() {
        tenths = tenths / 1024 + (tenths % 1024) / 512;
        unit += 1;
    }
    match tenths {
        _ if tenths.is_multiple_of(10) || tenths >= 1000 => {
            format!("{}{}", (tenths + 5) / 10, UNITS[unit])
        }
        _ => format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

/// How long ago `then` was, in one unit: `12s`, `5m`, `3h`, `40d`.
pub fn ago(now_ms: u64, then_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Processor time: `0.25s`, `12.5s`, `5m`.
pub fn cpu(ns: u64) -> String {
    let hundredths = ns / 10_000_000;
    match hundredths {
        0..1000 => format!("{}.{:02}s", hundredths / 100, hundredths % 100),
        1000..6000 => format!("{}.{}s", hundredths / 100, hundredths / 10 % 10),
        _ => ago(hundredths * 10, 0),
    }
}

/// `text` without anything that could move the cursor, change colours or turn the reading
/// direction: such characters are shown as escapes. Tabs stay.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push(c),
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.extend(c.escape_unicode());
            }
            c if c.is_control() && c.is_ascii() => {
                let _ = match c {
                    '\r' => write!(out, "\\r"),
                    '\n' => write!(out, "\\n"),
                    c => write!(out, "\\x{:02x}", c as u32),
                };
            }
            c if c.is_control() => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// JSON without what a terminal would take for more than text. Such characters stand within strings
/// only, where their escapes mean the same.
pub fn clean_json(text: String) -> String {
    let is_harmful = |c: char| match c {
        '\n' => false,
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        c => c.is_control(),
    };
    if !text.contains(is_harmful) {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        match is_harmful(c) {
            true => drop(write!(out, "\\u{:04x}", c as u32)),
            false => out.push(c),
        }
    }
    out
}

/// The candidate that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = word.chars().count().div_ceil(3).min(3);
    let scored = candidates.into_iter().map(|candidate| (distance(word, candidate), candidate));
    let near = scored.filter(|(distance, candidate)| {
        *distance <= allowed || (word.len() >= 3 && candidate.starts_with(word))
    });
    near.min().map(|(_, candidate)| candidate)
}

/// Largest size that can be typed, as in manifests.
const SIZE_MAX: Bytes = Bytes::mib(64 << 20);

/// A size in our words or in cf's (`256M`, `1G`, `1TB`, any case), or why it is none and what would do.
pub fn parse_size(text: &str) -> Result<Bytes, String> {
    let upper = text.to_uppercase();
    let short = upper.strip_suffix('B').unwrap_or(&upper);
    let of_cf = |(unit, ours)| Some(format!("{}{ours}", short.strip_suffix(unit)?));
    let ours = [('M', "MiB"), ('G', "GiB"), ('T', "TiB")].into_iter().find_map(of_cf);
    match ours.as_deref().unwrap_or(text).parse::<Bytes>() {
        Ok(size) if size <= SIZE_MAX => Ok(size),
        Ok(_) => Err(format!("`{text}` is too large; write {SIZE_MAX} at most")),
        Err(_) => Err(format!(
            "`{text}` is no size; write a whole number and M, G or T, such as 256M, or KiB, MiB, GiB, TiB"
        )),
    }
}

/// Single-character edits, and swaps of neighbours, from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.chars().take(32).collect(), b.chars().take(32).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let swap = if swapped { rows[i - 2][j - 2] + 1 } else { usize::MAX };
                replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(swap)
            };
        }
    }
    rows[a.len()][b.len()]
}

/// Colours by meaning, as the numbers of ANSI's "select graphic rendition".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ink {
    /// As it is.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// On its way.
    Busy,
    /// Not as it should be.
    Bad,
    /// Less important.
    Dim,
}

impl Ink {
    /// `text` in this colour, when `color` says so.
    pub fn paint(self, text: &str, color: bool) -> String {
        let number = match self {
            Ink::Plain => return text.to_owned(),
            _ if !color => return text.to_owned(),
            Ink::Good => 32,
            Ink::Busy => 33,
            Ink::Bad => 31,
            Ink::Dim => 2,
        };
        format!("\u{1b}[{number}m{text}\u{1b}[0m")
    }
}

/// Rows under a heading, columns aligned to the left with two spaces between them.
pub struct Table {
    indent: &'static str,
    rows: Vec<Vec<(String, Ink)>>,
}

impl Table {
    /// With this heading, every line after `indent`.
    pub fn new(indent: &'static str, heading: &[&str]) -> Table {
        let heading = heading.iter().map(|text| (text.to_string(), Ink::Dim)).collect();
        Table { indent, rows: vec![heading] }
    }

    /// Adds a row; its text is cleaned here, so that no cell can leave its place.
    pub fn row(&mut self, cells: impl IntoIterator<Item = (String, Ink)>) {
        let clean = |(text, ink): (String, Ink)| (clean(&text).replace('\t', " "), ink);
        self.rows.push(cells.into_iter().map(clean).collect());
    }

    /// The lines, with a newline after each.
    pub fn render(&self, color: bool) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|(text, _)| text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            out.push_str(self.indent);
            for (column, (text, ink)) in row.iter().enumerate() {
                out.push_str(&ink.paint(text, color));
                if column + 1 < row.len() {
                    let gap = widths[column] - text.chars().count() + 2;
                    out.push_str(&" ".repeat(gap));
                }
            }
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (1_709_251_199_000, "2024-02-29T23:59:59.000Z"),
            (1_795_226_400_123, "2026-11-21T02:00:00.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(utc(ms), text);
            assert_eq!(parse_utc(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn a_time_may_be_shortened_and_must_exist() {
        for (text, ms) in [
            ("2026-11-21", 1_795_219_200_000),
            ("2026-11-21T02:00", 1_795_226_400_000),
            ("2026-11-21 02:00:01", 1_795_226_401_000),
            ("2026-11-21T02:00:01.002", 1_795_226_401_002),
        ] {
            assert_eq!(parse_utc(text), Some(ms), "{text}");
        }
        for text in [
            "",
            "Z",
            "2026",
            "2026-11",
            "2026-02-29",
            "2026-00-01",
            "2026-13-01",
            "2026-11-00",
            "2026-11-31",
            "1969-12-31",
            "0000-01-01",
            "2026-11-21T",
            "2026-11-21T24:00",
            "2026-11-21T02:60",
            "2026-11-21T02:00:60",
            "2026-11-21T02:00:00.1",
            "2026-11-21T02:00:00+01:00",
            "+026-11-21",
        ] {
            assert_eq!(parse_utc(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_and_times_are_short() {
        for (bytes, text) in [
            (0, "0"),
            (640, "640B"),
            (1024, "1K"),
            (12_900_000, "12.3M"),
            (256 << 20, "256M"),
            (1023 << 10, "1023K"),
            ((1 << 20) - 1, "1M"),
            (1_610_612_736, "1.5G"),
            (u64::MAX, "1677722T"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (300, "5m"), (7_200, "2h"), (864_000, "10d")]
        {
            assert_eq!(ago(seconds * 1000 + 1, 1), text);
        }
        assert_eq!(ago(0, 5_000), "0s", "a clock that was set back");
        for (ms, text) in [(0, "0.00s"), (1_250, "1.25s"), (12_340, "12.3s"), (300_000, "5m")] {
            assert_eq!(cpu(ms * 1_000_000), text);
        }
    }

    #[test]
    fn an_app_cannot_write_to_the_terminal() {
        let text = "a\tb\u{1b}[31mred\r\u{9b}2J\u{7f}\0\u{202e}é\n";
        assert_eq!(clean(text), "a\tb\\x1b[31mred\\r\\u{9b}2J\\x7f\\x00\\u{202e}é\\n");
    }

    #[test]
    fn json_says_the_same_and_is_harmless() {
        let value = "a\u{9b}2J\u{7f}\u{202e}\u{1b}é\n";
        let text = clean_json(serde_json::to_string(value).expect("JSON"));
        assert_eq!(text, r#""a\u009b2J\u007f\u202e\u001bé\n""#);
        assert_eq!(serde_json::from_str::<String>(&text).expect("JSON"), value);
        assert_eq!(clean_json("{\n  \"é\": 1\n}".into()), "{\n  \"é\": 1\n}");
    }

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        let verbs = ["apply", "apps", "logs", "restart", "start", "stop", "status"];
        for (word, meant) in [
            ("aply", Some("apply")),
            ("log", Some("logs")),
            ("rsetart", Some("restart")),
            ("stat", Some("start")),
            ("res", Some("restart")),
            ("frobnicate", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, verbs), meant, "{word}");
        }
    }

    #[test]
    fn columns_are_aligned_with_and_without_colour() {
        let mut table = Table::new("  ", &["NAME", "STATE"]);
        table.row([("é\n".into(), Ink::Plain), ("running".into(), Ink::Good)]);
        assert_eq!(table.render(false), "  NAME  STATE\n  é\\n   running\n");
        let colored = table.render(true).replace("\u{1b}[2m", "").replace("\u{1b}[0m", "");
        assert_eq!(colored, "  NAME  STATE\n  é\\n   \u{1b}[32mrunning\n");
    }
}
