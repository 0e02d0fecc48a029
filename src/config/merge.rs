//! TOML texts laid over each other, and values written as TOML. Pure.
//!
//! What is written has one line for each key of the top; everything below stands in that line. It
//! means the same as what was read; comments are lost.

use toml::{Table, Value};

/// `over` laid over `base`: tables are merged key by key; anything else, lists too, is replaced.
///
/// Errors: one of them is no TOML; which, and what the parser says.
pub fn over(base: &str, over: &str) -> Result<String, NoToml> {
    let mut whole: Table = base.parse().map_err(|err| NoToml { lower: true, why: why(&err) })?;
    let upper: Table = over.parse().map_err(|err| NoToml { lower: false, why: why(&err) })?;
    lay(&mut whole, upper);
    Ok(written(&whole))
}

/// A text that is no TOML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoToml {
    /// It is the one below.
    pub lower: bool,
    /// What the parser says, in one line and without the text itself: that may hold secrets.
    pub why: String,
}

fn why(err: &toml::de::Error) -> String {
    err.message().lines().collect::<Vec<_>>().join(" ")
}

fn lay(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay(below, above),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

/// The table as a document.
pub fn written(table: &Table) -> String {
    table.iter().map(|(name, value)| format!("{} = {}\n", key(name), inline(value))).collect()
}

/// A key, in quotes where it needs them.
pub fn key(name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    match !name.is_empty() && name.bytes().all(bare) {
        true => name.to_owned(),
        false => quoted(name),
    }
}

/// A value in one line.
pub fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) if number.is_nan() => "nan".into(),
        // With a point or an exponent, or it would be read as a whole number.
        Value::Float(number) => format!("{number:?}"),
        Value::Boolean(truth) => truth.to_string(),
        Value::Datetime(time) => time.to_string(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", "))
        }
        Value::Table(table) if table.is_empty() => "{}".into(),
        Value::Table(table) => {
            let pair =
                |(name, value): (&String, &Value)| format!("{} = {}", key(name), inline(value));
            format!("{{ {} }}", table.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Text as a basic string.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_merged_and_everything_else_is_replaced() {
        let base = "name = \"web\"\n[run]\nmemory = \"64MiB\"\ninstances = 2\n[[port]]\nname = \"a\"\n\
                    [env]\nA = \"1\"\n";
        let upper = "[run]\nmemory = \"32MiB\"\n[[port]]\nname = \"b\"\n[[port]]\nname = \"c\"\n\
                     [env]\n\"B C\" = \"x\\ny\\\"\\u0001é\"\n";
        let text = over(base, upper).expect("both are TOML");
        let want = "name = \"web\"\nrun = { memory = \"32MiB\", instances = 2 }\n\
                    port = [{ name = \"b\" }, { name = \"c\" }]\n\
                    env = { A = \"1\", \"B C\" = \"x\\ny\\\"\\u0001é\" }\n";
        let table = |text: &str| text.parse::<Table>().expect("TOML");
        assert_eq!(table(&text), table(want));
    }

    #[test]
    fn what_is_written_reads_as_what_it_was() {
        let text = "a = 1.0\nb = -7\nc = 1979-05-27T07:32:00Z\nd = [true, [], {}]\ne = inf\n\
                    f = \"x\\r\\ty\"\n";
        let table: Table = text.parse().expect("TOML");
        assert_eq!(written(&table).parse::<Table>().expect("TOML again"), table);
    }

    #[test]
    fn who_is_no_toml_is_told() {
        assert!(over("a = ", "b = 1").expect_err("refused").lower);
        let err = over("a = 1", "b = \"secret").expect_err("refused");
        assert!(!err.lower && !err.why.contains("secret"), "{err:?}");
    }
}
