//! Which counts a text says itself, apart from those that are only usual. Pure.

use std::collections::BTreeSet;
use toml::{Table, Value};

/// The processes of which a manifest's text says how many instances are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that do so below their own header.
    own: BTreeSet<String>,
    /// `[run]` does, for all others.
    run: bool,
}

impl Counts {
    /// Those of `text`; one that is no TOML says none.
    pub fn of(text: &str) -> Counts {
        let all = text.parse::<Table>().unwrap_or_default();
        let says = |value: &Value| value.get("instances").is_some();
        let processes = all.get("process").and_then(Value::as_table).into_iter().flatten();
        let own = processes.filter(|(_, it)| says(it)).map(|(name, _)| name.clone()).collect();
        Counts { own, run: all.get("run").is_some_and(says) }
    }

    /// Whether this process is one of them.
    pub fn say(&self, process: &str) -> bool {
        self.run || self.own.contains(process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_said_below_the_process_or_for_all_of_them() {
        let says = |text: &str| ["web", "worker"].map(|name| Counts::of(text).say(name));
        assert_eq!(says("name = \"a\"\n[run]\nmemory = \"1MiB\"\n[process.web]\n"), [false; 2]);
        assert_eq!(says("run.instances = 1\n[process.worker]\n"), [true; 2]);
        assert_eq!(says("[process.worker]\ninstances = 0\n[process.web]\n"), [false, true]);
        assert_eq!(says("process = { web = { instances = 2 } }"), [true, false]);
        assert_eq!(says("run.instances = ["), [false; 2], "it is no TOML");
    }
}
