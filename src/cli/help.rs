//! The help texts, made from the table of verbs.

use super::verbs::{Flag, GLOBAL, Group, VERBS, Verb};

/// All verbs.
pub fn overview() -> String {
    let mut out = "Terrarium turns this box into a Cloud Foundry cell.\n\n\
        Usage: terrarium [VERB] [FLAGS] [ARGS]\n"
        .to_owned();
    let groups = [
        (Group::Change, "Change what runs"),
        (Group::Look, "Look at what runs"),
        (Group::Box, "The box"),
    ];
    for (group, heading) in groups {
        out.push_str(&format!("\n{heading}:\n"));
        let verbs = VERBS.iter().filter(|verb| verb.group == group);
        out.push_str(&columns(verbs.map(|verb| {
            let names = [verb.name].into_iter().chain(verb.aliases.iter().copied());
            (names.collect::<Vec<_>>().join(", "), verb.summary)
        })));
    }
    out.push_str("\nFlags of every verb:\n");
    out.push_str(&flags(GLOBAL));
    out.push_str(
        "\nExit codes: 0 done, 1 failed, 2 usage, 3 not running, 4 no such app or\n\
        image, 5 manifest invalid, 6 no daemon, 7 waited long enough, 9 conflict; `exec`: 125\n\
        for all of these.\n\
        `terrarium VERB --help` shows the flags of a verb and an example.\n",
    );
    out
}

/// One verb.
pub fn verb(verb: &Verb) -> String {
    let args = if verb.args.is_empty() { String::new() } else { format!(" {}", verb.args) };
    let own = if verb.flags.iter().any(|flag| !flag.help.is_empty()) { " [FLAGS]" } else { "" };
    let mut out = format!("{}\n\nUsage: terrarium {}{own}{args}\n", sentence(verb), verb.name);
    if !verb.aliases.is_empty() {
        out.push_str(&format!("Also: {}\n", verb.aliases.join(", ")));
    }
    if !verb.details.is_empty() {
        out.push_str(&format!("\n{}\n", verb.details));
    }
    if !own.is_empty() {
        out.push_str(&format!("\nFlags:\n{}", flags(verb.flags)));
    }
    out.push_str(&format!("\nFlags of every verb:\n{}", flags(GLOBAL)));
    out.push_str(&format!("\nExample:\n  {}\n", verb.example));
    out
}

/// The summary as a sentence.
fn sentence(verb: &Verb) -> String {
    let mut letters = verb.summary.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), letters.as_str())
}

fn flags(flags: &[Flag]) -> String {
    let shown = flags.iter().filter(|flag| !flag.help.is_empty());
    columns(shown.map(|flag| {
        let short = flag.short.map_or("    ".into(), |short| format!("-{short}, "));
        let value = flag.value.map_or(String::new(), |value| format!(" {value}"));
        (format!("{short}--{}{value}", flag.long), flag.help)
    }))
}

fn columns<'a>(rows: impl Iterator<Item = (String, &'a str)>) -> String {
    let rows: Vec<_> = rows.collect();
    let width = rows.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(left, right)| format!("  {left:width$}  {right}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::parse;
    use crate::cli::verbs::{self, Id};

    #[test]
    fn every_example_can_be_typed() {
        for verb in VERBS {
            let words = verb.example.split_whitespace().skip(1);
            parse(words.map(Into::into)).unwrap_or_else(|err| panic!("{}: {err}", verb.example));
            assert!(verb.example.starts_with(&format!("terrarium {}", verb.name)));
        }
    }

    #[test]
    fn help_fits_a_terminal_and_hides_what_is_hidden() {
        let all = overview();
        for verb in VERBS {
            let shown = all.contains(&format!("\n  {}", verb.name));
            assert_eq!(shown, verb.group != Group::Hidden, "{}", verb.name);
        }
        for line in VERBS
            .iter()
            .map(super::verb)
            .chain([all])
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        {
            assert!(line.chars().count() <= 92, "{line}");
        }
    }

    #[test]
    fn one_verb_explains_itself() {
        let expected = "\
Show what an app has written.

Usage: terrarium logs [FLAGS] NAME[:PROCESS][/INDEX]

Of the past, the newest 100 lines; with --since all since then, at most 10000.

Flags:
  -f, --follow         go on until the app is gone or stopped
  -n, --lines LINES    so many of the newest, default 100
      --since TIME     those since 10m ago, or since 2026-11-21T15:04 (UTC)
      --source SOURCE  those of STG, APP, CELL, HEALTH, ...

Flags of every verb:
  -h, --help          what the verb does, with an example
  -H, --host ADDRESS  the daemon's socket, unix:///PATH (TERRARIUM_HOST)
      --json          one JSON document; streams are a line of JSON for each item
      --no-color      never use colours (NO_COLOR)
  -q, --quiet         say only what was asked for, and errors
      --root DIR      the tree that everything of the box lives in, default /
  -V, --version       the version of this program

Example:
  terrarium logs orders -f
";
        assert_eq!(super::verb(verbs::verb(Id::Logs)), expected);
    }
}
