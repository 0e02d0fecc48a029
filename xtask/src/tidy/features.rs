//! Every row of `tests/rows.txt` that is not dropped has a test that says so: `row N` in its name or
//! in the comment above it.

use super::Finding;
use std::collections::{BTreeMap, BTreeSet};

/// What is held to.
pub const LIST: &str = "tests/rows.txt";

/// Rows without a test, lines that say nothing, and tests of rows that were dropped.
pub fn untested(list: &str, files: &[(String, String)]) -> Vec<Finding> {
    let fail = |line: usize, what: String, cure: &str| Finding {
        file: LIST.to_owned(),
        line,
        rule: "rows",
        what,
        cure: cure.to_owned(),
        fatal: true,
    };
    let tested: BTreeSet<u32> = files.iter().flat_map(|(name, text)| named(name, text)).collect();
    let (mut found, mut seen) = (Vec::new(), BTreeMap::new());
    for (n, line) in list.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let row = words.next().and_then(|word| word.parse::<u32>().ok());
        let (Some(row), Some(kind)) = (row, words.next()) else {
            found.push(fail(n + 1, "this is no row".into(), "write number, kind and name"));
            continue;
        };
        if seen.insert(row, n).is_some() {
            found.push(fail(n + 1, format!("row {row} is there twice"), "remove one"));
        }
        match kind {
            "keep" | "simpler" if tested.contains(&row) => {}
            "keep" | "simpler" => {
                let what = format!("no test names row {row}");
                found.push(fail(n + 1, what, "write a test with `row N` in its name or comment"));
            }
            "drop" if line.contains(": ") => {}
            "drop" => {
                found.push(fail(
                    n + 1,
                    format!("row {row} is dropped without a reason"),
                    "say why",
                ));
            }
            other => {
                let what = format!("row {row} is `{other}`");
                found.push(fail(n + 1, what, "it is keep, simpler or drop"));
            }
        }
    }
    found
}

/// The rows that the tests of a file name.
fn named(name: &str, text: &str) -> BTreeSet<u32> {
    let stem = name.rsplit('/').next().unwrap_or(name);
    let all = name.starts_with("tests/") || stem == "tests.rs";
    let tests = match all {
        true => text,
        false => text.find("#[cfg(test)]").map_or("", |at| &text[at..]),
    };
    let lines = tests.lines().map(str::trim);
    let meant = lines.filter(|line| line.starts_with("///") || line.contains("fn "));
    meant.flat_map(rows_in).collect()
}

/// `Row 1`, `rows 11, 12 and 13`, `row_1_row_5_...`, `row_15_and_47_...`.
fn rows_in(line: &str) -> Vec<u32> {
    let line = line.to_lowercase().replace('_', " ");
    let words: Vec<&str> = line.split_whitespace().collect();
    let (mut rows, mut is_list) = (Vec::new(), false);
    for word in words {
        let word = word.trim_start_matches('(');
        let number = word.trim_end_matches(|it: char| !it.is_ascii_digit()).parse::<u32>();
        match number {
            _ if word == "row" || word == "rows" => is_list = true,
            Ok(number) if is_list => {
                rows.push(number);
                is_list = !word.ends_with([':', '.', ';']);
            }
            _ if word == "and" => {}
            _ => is_list = false,
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_people_write_them() {
        for (line, rows) in [
            ("/// Row 1: x 2", &[1][..]),
            ("/// Row 3, row 34, row 43: y", &[3, 34, 43]),
            ("/// when it starts: rows 11, 12 and 13.", &[11, 12, 13]),
            ("fn row_15_and_47_which_end_is_the_end() {", &[15, 47]),
            ("fn row_1_row_5_a_task_of_7_parts() {", &[1, 5]),
            ("/// a row of houses, 7 of them", &[]),
            ("/// borrow 5", &[]),
        ] {
            assert_eq!(rows_in(line), rows, "{line}");
        }
    }

    #[test]
    fn a_row_without_a_test_and_a_drop_without_a_reason_fail() {
        let files = [
            ("tests/e2e/a.rs".to_owned(), "/// Row 1: x\nfn f() {}\n".to_owned()),
            // What is no test does not count.
            ("src/net/a.rs".to_owned(), "/// Row 2: x\nfn f() {}\n".to_owned()),
        ];
        let of = |list: &str| {
            let found = untested(list, &files);
            found.iter().map(|it| format!("{}: {}", it.line, it.what)).collect::<Vec<_>>()
        };
        assert_eq!(of("# rows\n\n1 keep A\n3 drop C: not here\n"), [""; 0]);
        assert_eq!(of("2 keep B\n"), ["1: no test names row 2"]);
        assert_eq!(
            of("3 drop C\n1 odd A\nx\n"),
            ["1: row 3 is dropped without a reason", "2: row 1 is `odd`", "3: this is no row",]
        );
        assert_eq!(of("1 keep A\n1 keep A\n"), ["2: row 1 is there twice"]);
    }
}
