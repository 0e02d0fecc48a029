//! Refusals name keys of a manifest; whoever has typed flags is told which of them are meant. Pure.

/// Keys, and the flags of `push` that set them.
const FLAGS: [(&str, &str); 10] = [
    ("memory", "-m"),
    ("disk", "-k"),
    ("instances", "-i"),
    ("command", "-c"),
    ("buildpacks", "-b"),
    ("stack", "-s"),
    ("publish", "--port (or --no-route)"),
    ("start_timeout", "-t"),
    ("health", "-u and --endpoint"),
    ("name", "-n"),
];

/// A line about the flags for the keys that `text` names, if it names any.
pub fn flags(text: &str) -> Option<String> {
    let named = FLAGS.iter().filter(|(key, _)| names(text, key));
    let told: Vec<String> = named.map(|(key, flag)| format!("{flag} for `{key}`")).collect();
    (!told.is_empty()).then(|| format!("with `push` that is {}", told.join(", ")))
}

/// Whether `text` speaks of the key: as `key`, `run.key`, key = ..., or [key].
fn names(text: &str, key: &str) -> bool {
    text.match_indices(key).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + key.len()..]);
        let quoted = before.ends_with(['`', '.']) && after.starts_with('`');
        let written = before.ends_with([' ', ';']) && after.starts_with(" = ");
        let head = before.ends_with('[') && after.starts_with(']');
        quoted || written || head
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_the_keys_that_are_named_are_told() {
        for (text, told) in [
            (
                "app b: port 8080 is published by app a; write another `publish`, or delete a",
                Some("with `push` that is --port (or --no-route) for `publish`"),
            ),
            (
                "no start command for process `web`; write command = \"...\" below [process.web]",
                Some("with `push` that is -c for `command`"),
            ),
            (
                "error: `run.memory` is 1MiB, out of range | raise `disk` below [run]",
                Some("with `push` that is -m for `memory`, -k for `disk`"),
            ),
            (
                "did not pass; raise `start_timeout` in [health]",
                Some("with `push` that is -t for `start_timeout`, -u and --endpoint for `health`"),
            ),
            ("insufficient resources: memory", None),
            ("the name of its host is not found", None),
        ] {
            assert_eq!(flags(text).as_deref(), told, "{text}");
        }
    }
}
