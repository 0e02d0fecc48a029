//! A `terrarium.toml` in the directory that is pushed, and what it may leave to `push`: where the app is, and its
//! port of the box. Pure.

use super::ports::Wants;
use crate::cli::parse::{Push, UsageError};
use crate::config::merge::quoted;
use std::path::Path;
use toml::{Table, Value};

/// `text`, with `dir` as the app's source where it names none, as cf takes the directory of a manifest without
/// `path`. At its end, so that what is wrong with the rest is found where it stands.
pub fn with_source(text: &str, dir: &Path) -> String {
    let is_named = |all: Table| all.contains_key("source") || all.contains_key("image");
    // Of one that is no TOML its reader tells.
    match text.parse::<Table>().map_or(true, is_named) {
        true => text.to_owned(),
        false => format!("{text}\n[source]\npath = {}\n", quoted(&dir.to_string_lossy())),
    }
}

/// Whether its first `[[port]]` gets a port of the box: it has some, and says of none of them what is published,
/// be it `false`. An app that is there without one was meant to have none: it gets none unless that is typed.
///
/// Errors: `--port` would do nothing.
pub fn wants(push: &Push, text: &str) -> Result<Wants, UsageError> {
    // Of one that is no TOML its reader tells.
    let Ok(all) = text.parse::<Table>() else { return Ok(Wants::None) };
    let ports = all.get("port").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let publishes = |port: &Value| port.get("publish").is_some();
    let refuse = |why: &str, cure: &str| {
        Err(UsageError::new(format!("--port has no effect: terrarium.toml {why}"), cure))
    };
    match push.port {
        Some(_) if ports.is_empty() => refuse("has no [[port]]", "write one there"),
        Some(_) if ports.iter().any(publishes) => {
            refuse("says what is published", "change `publish` below [[port]] there")
        }
        Some(_) => Ok(Wants::None),
        None if push.no_route || ports.is_empty() || ports.iter().any(publishes) => Ok(Wants::None),
        None => Ok(Wants::IfNew),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::manifest;

    #[test]
    fn a_manifest_without_a_source_is_of_the_directory_that_it_is_in() {
        let dir = Path::new("/srv/my \"app\"");
        let of = |text: &str| manifest::parse(&with_source(text, dir), "x", Path::new("/etc"));
        let it = of("name = \"a\"\n[run]\ninstances = 2").expect("a manifest");
        assert_eq!((it.source.as_path(), it.run.instances), (dir, 2));
        let it = of("name = \"a\"\nsource.path = \"other\"\n").expect("a manifest");
        assert_eq!(it.source, Path::new("/etc/other"));
        assert!(of("name = \"a\"\nimage.ref = \"a:1\"\n").expect("a manifest").image.is_some());
        // What is wrong stands where it stood.
        let bad = of("name = \"a\"\n[run]\ninstanses = 2").expect_err("a slip");
        assert_eq!(bad.iter().map(|it| it.line).collect::<Vec<_>>(), [3]);
        assert_eq!(with_source("name = ", dir), "name = ");
    }

    #[test]
    fn ports_of_which_none_is_published_want_one_of_the_box() {
        let (one, other) = ("[[port]]\nname = \"a\"\n", "[[port]]\nname = \"b\"\npublish = 80\n");
        let plain = Push::default();
        let typed = Push { port: Some(80), ..Push::default() };
        let none = Push { no_route: true, ..Push::default() };
        let never = "[[port]]\npublish = false\n";
        for (text, it) in
            [("", Wants::None), (one, Wants::IfNew), (other, Wants::None), (never, Wants::None)]
        {
            assert_eq!(wants(&plain, text), Ok(it), "{text}");
            assert_eq!(wants(&none, text), Ok(Wants::None), "{text}");
            assert_eq!(wants(&typed, text).is_ok(), it != Wants::None, "{text}");
        }
        assert_eq!(wants(&plain, &format!("{one}{other}")), Ok(Wants::None), "it names one");
        let err = wants(&typed, other).expect_err("it would do nothing").to_string();
        assert!(err.contains("terrarium.toml says what is published"), "{err}");
        // Its own mistake is told, with its line.
        assert_eq!(wants(&typed, "name = \n[[port]]\n"), Ok(Wants::None));
    }
}
