//! Lengths of time, written with a unit: `500ms`, `30s`, `10m`, `2h`.

use std::time::Duration;

/// Name and length in milliseconds of each unit, largest first.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads `30s`, `1m30s`, `500ms`. The error names the cure.
pub fn parse(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a time such as \"30s\", \"500ms\" or \"1m30s\"");
    let (mut rest, mut total_ms) = (text, 0u64);
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        if rest.is_empty() {
            return Err(format!("time `{text}` has no unit; write \"{text}s\""));
        }
        let (_, factor) =
            UNITS.into_iter().find(|(name, _)| *name == &rest[..letters]).ok_or_else(bad)?;
        total_ms = number
            .checked_mul(factor)
            .and_then(|ms| total_ms.checked_add(ms))
            .ok_or_else(|| format!("time `{text}` is too long"))?;
        rest = &rest[letters..];
    }
    Ok(Duration::from_millis(total_ms))
}

/// The shortest text that [`parse`] reads back to the same whole milliseconds: `1m30s`.
pub fn show(span: Duration) -> String {
    let mut rest_ms = span.as_millis() as u64;
    if rest_ms == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (name, factor) in UNITS {
        if rest_ms >= factor {
            text.push_str(&format!("{}{name}", rest_ms / factor));
            rest_ms %= factor;
        }
    }
    text
}

/// Go's own text of a duration, which Diego's log lines carry: `1m0s`, `2h3m4s`, `1.5s`, `500ms`.
pub fn show_go(span: Duration) -> String {
    let ms = span.as_millis() as u64;
    if ms == 0 {
        return "0s".into();
    }
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    let seconds = match ms % 1_000 {
        0 => format!("{}s", ms / 1_000 % 60),
        part => format!("{}.{}s", ms / 1_000 % 60, format!("{part:03}").trim_end_matches('0')),
    };
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, m) => format!("{m}m{seconds}"),
        (h, m) => format!("{h}h{m}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_time_are_inverse() {
        for text in ["0s", "1ms", "500ms", "30s", "1m30s", "10m", "2h", "1d1h1m1s1ms"] {
            assert_eq!(show(parse(text).expect(text)), text);
        }
    }

    #[test]
    fn bad_times_name_the_cure() {
        for (text, cure) in [
            ("30", "\"30s\""),
            ("2 days", "such as"),
            ("", "such as"),
            ("1y", "such as"),
            ("s", "such as"),
        ] {
            let err = parse(text).expect_err(text);
            assert!(err.contains(cure), "{text}: {err}");
        }
    }

    #[test]
    fn diego_texts_are_in_go_form() {
        for (ms, text) in [
            (60_000, "1m0s"),
            (900_000, "15m0s"),
            (1_500, "1.5s"),
            (500, "500ms"),
            (7_384_000, "2h3m4s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(show_go(Duration::from_millis(ms)), text);
        }
    }
}
