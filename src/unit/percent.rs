//! A share in percent, of which there may be more than a hundred.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Hundredths of a percent. JSON: a number with at most two decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u64);

impl Percent {
    /// `part` of `whole`; `None`: of nothing. Saturates far above what any box has.
    pub fn of(part: u64, whole: u64) -> Option<Percent> {
        let hundredths = (u128::from(part) * 10_000).checked_div(u128::from(whole))?;
        Some(Percent(u64::try_from(hundredths).unwrap_or(u64::MAX).min(1 << 40)))
    }

    /// Hundredths of a percent.
    pub fn hundredths(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Percent {
    /// `12.3%`, rounded down.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}%", self.0 / 100, self.0 / 10 % 10)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / 100.0)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Percent, D::Error> {
        let number = f64::deserialize(deserializer)?;
        match (0.0..1e11).contains(&number) {
            true => Ok(Percent((number * 100.0).round() as u64)),
            false => Err(serde::de::Error::custom("it is no share in percent")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_shown_and_read_back() {
        for (part, whole, text, json) in [
            (0, 7, "0.0%", "0.0"),
            (1, 3, "33.3%", "33.33"),
            (2, 1, "200.0%", "200.0"),
            (u64::MAX, 1, "10995116277.7%", "10995116277.76"),
        ] {
            let percent = Percent::of(part, whole).expect("a share");
            assert_eq!(percent.to_string(), text);
            let said = serde_json::to_string(&percent).expect("JSON");
            assert_eq!(said, json);
            if part < 1000 {
                assert_eq!(serde_json::from_str::<Percent>(&said).expect("read"), percent);
            }
        }
        assert_eq!(Percent::of(1, 0), None);
        assert!(serde_json::from_str::<Percent>("-1").is_err());
    }
}
