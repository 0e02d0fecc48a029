//! Words of a configuration: which are safe as names, how they are shown, which one was meant.

/// A name that is safe in paths, ids and log sources: a-z, 0-9 and inner hyphens.
pub(super) fn plain_name(what: &str, text: &str, max: usize) -> Result<String, String> {
    let safe = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let edge = text.starts_with('-') || text.ends_with('-');
    match (1..=max).contains(&text.len()) && text.bytes().all(safe) && !edge {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{what} `{}` is not good; 1 to {max} of a-z, 0-9 and inner `-`",
            shown(text)
        )),
    }
}

/// A name without surprises in a path: no separator, no leading dot or hyphen.
pub(super) fn word(what: &str, text: &str, max: usize) -> Result<String, String> {
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let start = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    match text.len() <= max && start && text.bytes().all(safe) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{what} `{}` is not good; 1 to {max} letters, digits, `.`, `_` and `-`, the first a \
             letter or digit",
            shown(text)
        )),
    }
}

/// `text` as it may stand in a message: no control characters, not endless.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() { short + "…" } else { short }
}

/// The known word that `text` was most likely meant to be.
pub(super) fn nearest(text: &str, known: &[&'static str]) -> Option<&'static str> {
    if text.len() > 64 {
        return None;
    }
    let text = text.to_lowercase().replace('-', "_");
    let far = |word: &str| distance(&text, &word.replace('-', "_"));
    let best = known.iter().copied().min_by_key(|word| far(word))?;
    let prefix = text.len() >= 3 && known.iter().any(|word| word.starts_with(&text));
    match far(best) <= (text.chars().count().max(best.len()) / 3).max(1) {
        true => Some(best),
        false if prefix => known.iter().copied().find(|word| word.starts_with(&text)),
        false => None,
    }
}

/// Insertions, deletions, replacements and swaps of neighbours between two short words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_its_word_and_a_stranger_does_not() {
        let known = ["instances", "memory", "disk", "start_timeout"];
        for (text, word) in [
            ("instnaces", Some("instances")),
            ("Memory", Some("memory")),
            ("mem", Some("memory")),
            ("start-timeout", Some("start_timeout")),
            ("dsik", Some("disk")),
            ("replicas", None),
            ("", None),
        ] {
            assert_eq!(nearest(text, &known), word, "{text}");
        }
    }

    #[test]
    fn shown_text_stays_on_one_line() {
        assert_eq!(shown("a\nb\u{1b}"), "a\\nb\\u{1b}");
        assert_eq!(shown(&"x".repeat(100)).chars().count(), 61);
    }
}
