//! The host's own apt sources, in both of their notations: a stack is built from the mirror that
//! the machine trusts already.

use anyhow::Result;
use std::path::Path;

/// One source of binary packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Of the mirror.
    pub uri: String,
    /// Releases it is asked for.
    pub suites: Vec<String>,
    /// The keyring file that signs it, when the source names one.
    pub signed_by: Option<String>,
}

/// All sources of the host.
pub fn of_host() -> Result<Vec<Source>> {
    let mut files = vec![Path::new("/etc/apt/sources.list").to_owned()];
    if let Ok(entries) = std::fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|end| end.to_str()) {
            Some("list") => all.extend(text.lines().filter_map(one_line)),
            Some("sources") => all.extend(stanzas(&text)),
            _ => {}
        }
    }
    Ok(all)
}

/// The mirror to build `suite` from: a source of that very suite, else any mirror of Debian.
pub fn mirror<'a>(all: &'a [Source], suite: &str) -> Option<&'a Source> {
    let exact = all.iter().find(|source| source.suites.iter().any(|name| name == suite));
    let debian = |source: &&Source| source.uri.trim_end_matches('/').ends_with("/debian");
    exact.or_else(|| all.iter().find(debian))
}

/// `sources.list` of the new system while it is built: the suite with its updates, as far as the
/// host knows them.
pub fn list(all: &[Source], main: &Source, suite: &str) -> String {
    let mut out = format!("deb {} {suite} main\n", main.uri);
    for extra in [format!("{suite}-updates"), format!("{suite}-security")] {
        if let Some(source) = all.iter().find(|source| source.suites.contains(&extra)) {
            out.push_str(&format!("deb {} {extra} main\n", source.uri));
        }
    }
    out
}

/// `deb [signed-by=KEYRING] URI SUITE COMPONENT...`
fn one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb ")?.trim_start();
    let mut signed_by = None;
    if let Some(after) = rest.strip_prefix('[') {
        let (options, tail) = after.split_once(']')?;
        let mut options = options.split_whitespace();
        signed_by = options.find_map(|option| option.strip_prefix("signed-by=")).map(str::to_owned);
        rest = tail;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source { uri: words.next()?, suites: vec![words.next()?], signed_by })
}

/// Stanzas of `Types:`, `URIs:`, `Suites:`, `Signed-By:`.
fn stanzas(text: &str) -> Vec<Source> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    let mut all = Vec::new();
    for stanza in text.split("\n\n") {
        let words = |key: &str| -> Vec<String> {
            let mut lines = stanza.lines();
            let line = lines.find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case(key).then_some(value)
            });
            line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
        };
        let off = words("Enabled").iter().any(|word| word.eq_ignore_ascii_case("no"));
        if off || !words("Types").iter().any(|kind| kind == "deb") {
            continue;
        }
        let signed_by = words("Signed-By").into_iter().next();
        let sources = words("URIs").into_iter().map(|uri| Source {
            uri,
            suites: words("Suites"),
            signed_by: signed_by.clone(),
        });
        all.extend(sources);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_notations_are_read() {
        let old =
            one_line("deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian bookworm main # x");
        let new = stanzas(
            "Types: deb deb-src\n# a comment\nURIs: http://m.example/debian\nSuites: bookworm bookworm-updates\n\
             Components: main\nSigned-By: /k.gpg\n\nTypes: deb-src\nURIs: http://s.example\nSuites: x\n\n\
             Enabled: no\nTypes: deb\nURIs: http://off.example\nSuites: x\n",
        );
        let old = old.expect("a source");
        assert_eq!(
            (old.uri.as_str(), old.signed_by.as_deref()),
            ("http://m.example/debian", Some("/k.gpg"))
        );
        assert_eq!(new.len(), 1);
        assert_eq!(new[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(one_line("# deb http://m.example/debian bookworm main"), None);
        assert_eq!(one_line("deb-src http://m.example/debian bookworm main"), None);
    }

    #[test]
    fn the_suite_is_taken_with_its_updates() {
        let source = |uri: &str, suites: &[&str]| Source {
            uri: uri.to_owned(),
            suites: suites.iter().map(|suite| (*suite).to_owned()).collect(),
            signed_by: None,
        };
        let all = [
            source("http://other.example", &["nodistro"]),
            source("http://m.example/debian", &["bookworm", "bookworm-updates"]),
            source("http://m.example/debian-security", &["bookworm-security"]),
        ];
        let main = mirror(&all, "bookworm").expect("exact");
        assert_eq!(
            list(&all, main, "bookworm"),
            "deb http://m.example/debian bookworm main\n\
             deb http://m.example/debian bookworm-updates main\n\
             deb http://m.example/debian-security bookworm-security main\n"
        );
        assert_eq!(mirror(&all, "trixie").map(|source| &source.uri), Some(&all[1].uri));
        assert_eq!(mirror(&all[..1], "trixie"), None);
    }
}
