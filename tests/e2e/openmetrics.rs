//! A strict reader of OpenMetrics text, written from the standard and not from the program.

use std::collections::{BTreeMap, BTreeSet};

/// What was read: the value of each sample, by its name and labels as they stand there.
pub struct Metrics(BTreeMap<(String, BTreeMap<String, String>), f64>);

impl Metrics {
    /// Reads a text; panics with the line that breaks a rule of the standard.
    pub fn read(text: &str) -> Metrics {
        let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF and a line break");
        assert!(!body.contains("# EOF") && !body.contains("\n\n"), "EOF or an empty line inside");
        let mut samples = BTreeMap::new();
        let (mut done, mut family) = (BTreeSet::new(), Family::default());
        for line in body.lines() {
            match line.strip_prefix("# ") {
                Some(meta) => family.describe(meta, line, &mut done),
                None => {
                    let (key, value) = sample(line);
                    family.expect(&key.0, value, line);
                    assert!(samples.insert(key, value).is_none(), "twice: {line}");
                }
            }
        }
        Metrics(samples)
    }

    /// The value of the sample with this name whose labels hold these; panics when it is not one.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |own: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| own.get(*key).is_some_and(|it| it == value))
        };
        let found: Vec<f64> = self
            .0
            .iter()
            .filter(|((own, of), _)| own == name && fits(of))
            .map(|it| *it.1)
            .collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}");
        found[0]
    }

    /// Whether any sample has this name and this label.
    pub fn has(&self, name: &str, label: (&str, &str)) -> bool {
        let mut all = self.0.keys().filter(|(own, _)| own == name);
        all.any(|(_, labels)| labels.get(label.0).is_some_and(|value| value == label.1))
    }
}

/// The family that the lines are of.
#[derive(Default)]
struct Family {
    name: String,
    kind: String,
    /// Which of HELP, TYPE and UNIT were there.
    seen: BTreeSet<String>,
    has_samples: bool,
}

impl Family {
    fn describe(&mut self, meta: &str, line: &str, done: &mut BTreeSet<String>) {
        let mut words = meta.splitn(3, ' ');
        let (what, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let rest = words.next().unwrap_or_else(|| panic!("nothing is said: {line}"));
        assert!(is_name(name), "{line}");
        if name != self.name || self.has_samples {
            assert!(done.insert(name.to_owned()), "the family comes twice: {line}");
            *self = Family { name: name.to_owned(), ..Family::default() };
        }
        assert!(self.seen.insert(what.to_owned()), "twice: {line}");
        match what {
            "TYPE" => {
                let known = ["gauge", "counter", "summary", "histogram", "info", "unknown"];
                assert!(known.contains(&rest), "{line}");
                self.kind = rest.to_owned();
            }
            "UNIT" => assert!(name.ends_with(&format!("_{rest}")), "the name lacks it: {line}"),
            "HELP" => {}
            _ => panic!("no such description: {line}"),
        }
    }

    fn expect(&mut self, name: &str, value: f64, line: &str) {
        self.has_samples = true;
        let end = name.strip_prefix(&self.name).unwrap_or_else(|| panic!("of no family: {line}"));
        let ends: &[&str] = match self.kind.as_str() {
            "counter" => &["_total", "_created"],
            "summary" => &["_count", "_sum", "_created", ""],
            _ => &[""],
        };
        assert!(ends.contains(&end), "not a sample of a {}: {line}", self.kind);
        assert!(self.kind == "gauge" || value >= 0.0, "it is negative: {line}");
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// Name, labels and value of a sample's line.
fn sample(line: &str) -> ((String, BTreeMap<String, String>), f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(key) && !key.contains(':'), "{line}");
            let (value, length) = quoted(after, line);
            assert!(labels.insert(key.to_owned(), value).is_none(), "label twice: {line}");
            rest = &after[length..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no space: {line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    ((name.to_owned(), labels), value)
}

/// A quoted text up to its end, and how long it is with its last quote.
fn quoted(text: &str, line: &str) -> (String, usize) {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (out, at + 1),
            '\\' => out.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, c @ ('\\' | '"'))) => c,
                _ => panic!("a wrong escape: {line}"),
            }),
            c => out.push(c),
        }
    }
    panic!("a label without end: {line}");
}
