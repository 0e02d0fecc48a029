//! Sizes in bytes, written with a binary unit: `256MiB`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A size in bytes. Text form: a whole number and `B`, `KiB`, `MiB`, `GiB` or `TiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(u64);

/// Name and factor of each unit, largest first, as `Display` tries them.
const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Bytes {
    /// Exactly `n` bytes.
    pub const fn new(n: u64) -> Bytes {
        Bytes(n)
    }

    /// `n` MiB. Panics at compile time or start when the product does not fit 64 bits.
    pub const fn mib(n: u64) -> Bytes {
        Bytes(n.checked_mul(1 << 20).expect("size fits 64 bits"))
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whole MiB, rounded down.
    pub const fn as_mib(self) -> u64 {
        self.0 >> 20
    }

    /// Sum that stops at the largest size instead of wrapping.
    pub const fn saturating_add(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_add(other.0))
    }

    /// Difference that stops at zero.
    pub const fn saturating_sub(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_sub(other.0))
    }
}

impl Bytes {
    /// For people: in the largest unit that it has one of, to a tenth; `23.4GiB`.
    pub fn rough(self) -> String {
        let unit = UNITS.into_iter().find(|(_, factor)| self.0 >= *factor).unwrap_or(("B", 1));
        let (whole, rest) = (self.0 / unit.1, self.0 % unit.1);
        match u128::from(rest) * 10 / u128::from(unit.1) {
            tenths @ 1..=9 => format!("{whole}.{tenths}{}", unit.0),
            _ => format!("{whole}{}", unit.0),
        }
    }

    /// As Diego's logs have it: `1.2M`, `36.5K`, `512B`; to a tenth, which is left out when it is none.
    pub fn brief(self) -> String {
        let units = [("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];
        let Some((unit, factor)) = units.into_iter().find(|(_, factor)| self.0 >= *factor) else {
            return format!("{}B", self.0);
        };
        let text = format!("{:.1}", self.0 as f64 / factor as f64);
        format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text))
    }
}

impl fmt::Display for Bytes {
    /// The largest unit that divides the size exactly, so that the text parses back to it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, factor) = UNITS
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Bytes, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 =
            number.parse().map_err(|_| format!("`{text}` is not a size such as \"256MiB\""))?;
        let unit = unit.trim_start();
        if unit.is_empty() {
            return Err(format!("size `{text}` has no unit; write \"{text}MiB\" or \"{text}B\""));
        }
        let known = UNITS.into_iter().find(|(name, _)| *name == unit);
        let Some((_, factor)) = known else {
            let cure = match unit.chars().next() {
                Some('k' | 'K') => "KiB",
                Some('g' | 'G') => "GiB",
                Some('t' | 'T') => "TiB",
                _ => "MiB",
            };
            return Err(format!(
                "unit `{unit}` is not known here (B, KiB, MiB, GiB, TiB); write \"{number}{cure}\""
            ));
        };
        number
            .checked_mul(factor)
            .map(Bytes)
            .ok_or_else(|| format!("size `{text}` is over 64 bits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_as_diego_tells_them() {
        for (bytes, text) in [
            (0, "0B"),
            (512, "512B"),
            (1024, "1K"),
            (37_376, "36.5K"),
            (1_258_291, "1.2M"),
            (1 << 30, "1G"),
        ] {
            assert_eq!(Bytes::new(bytes).brief(), text);
        }
    }

    #[test]
    fn text_and_size_are_inverse() {
        for text in ["0B", "1B", "1023B", "1KiB", "256MiB", "1GiB", "3TiB"] {
            assert_eq!(text.parse::<Bytes>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn people_get_a_tenth_at_most() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1536, "1.5KiB"),
            (24_553_012 << 10, "23.4GiB"),
            (4 << 30, "4GiB"),
            ((1 << 30) - 1, "1023.9MiB"),
            (u64::MAX, "16777215.9TiB"),
        ] {
            assert_eq!(Bytes::new(bytes).rough(), text, "{bytes}");
        }
    }

    #[test]
    fn bad_sizes_name_the_cure() {
        for (text, cure) in [
            ("256", "\"256MiB\""),
            ("256M", "\"256MiB\""),
            ("1g", "\"1GiB\""),
            ("MiB", "\"256MiB\""),
            ("-1MiB", "such as"),
            ("99999999999TiB", "over 64 bits"),
        ] {
            let err = text.parse::<Bytes>().expect_err(text);
            assert!(err.contains(cure), "{text}: {err}");
        }
    }
}
