//! What of an app's directory stays at home: `.cfignore`, with gitignore's patterns. Pure.

/// What nobody wants in an app, as cf leaves it out.
const USUAL: [&str; 8] =
    [".cfignore", ".DS_Store", ".git", ".gitignore", ".hg", ".svn", "_darcs", "/manifest.yml"];
/// Most patterns of one file.
const RULES_MAX: usize = 1000;

/// Patterns, of which the last one that fits a path decides.
pub struct Ignore(Vec<Rule>);

struct Rule {
    /// Parts between slashes.
    parts: Vec<String>,
    /// It is about the whole path, not about any name in it.
    anchored: bool,
    /// Directories only.
    dirs: bool,
    /// What fits is taken all the same.
    keep: bool,
}

impl Ignore {
    /// The usual patterns and those of a `.cfignore`; a line is a pattern, `#` begins a comment.
    pub fn new(text: &str) -> Ignore {
        let lines = USUAL.into_iter().chain(text.lines());
        Ignore(lines.filter_map(Rule::read).take(RULES_MAX).collect())
    }

    /// Whether `path`, relative to the app's directory, stays at home.
    pub fn leaves_out(&self, path: &str, is_dir: bool) -> bool {
        let last = self.0.iter().rev().find(|rule| rule.fits(path, is_dir));
        last.is_some_and(|rule| !rule.keep)
    }
}

impl Rule {
    fn read(line: &str) -> Option<Rule> {
        let line = line.trim_end();
        let (keep, line) = match line.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let line = match line.strip_prefix('\\') {
            Some(rest) if rest.starts_with(['#', '!']) => rest,
            _ if line.starts_with('#') => return None,
            _ => line,
        };
        let (line, dirs) = line.strip_suffix('/').map_or((line, false), |line| (line, true));
        let (line, rooted) = line.strip_prefix('/').map_or((line, false), |line| (line, true));
        if line.is_empty() {
            return None;
        }
        let parts: Vec<String> = line.split('/').map(str::to_owned).collect();
        Some(Rule { anchored: rooted || parts.len() > 1, parts, dirs, keep })
    }

    fn fits(&self, path: &str, is_dir: bool) -> bool {
        if self.dirs && !is_dir {
            return false;
        }
        let names: Vec<&str> = path.split('/').collect();
        let parts: Vec<&str> = self.parts.iter().map(String::as_str).collect();
        match self.anchored {
            true => walk(&parts, &names),
            false => names.last().is_some_and(|name| fits(parts[0].as_bytes(), name.as_bytes())),
        }
    }
}

/// Whether the parts of a pattern fit the names of a path; `**` is any number of them.
fn walk(parts: &[&str], names: &[&str]) -> bool {
    match (parts, names) {
        ([], []) => true,
        // Something is below it, and `dir/**` is all of that.
        (["**"], names) => !names.is_empty(),
        (["**", rest @ ..], _) => (0..=names.len()).any(|skip| walk(rest, &names[skip..])),
        ([part, rest @ ..], [name, names @ ..]) => {
            fits(part.as_bytes(), name.as_bytes()) && walk(rest, names)
        }
        _ => false,
    }
}

/// Whether a name fits: `*` any text, `?` any byte, `\x` x itself. In time of both lengths multiplied.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut from, mut star) = (0, 0, None);
    while from < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(b'\\') if pattern.get(at + 1) == Some(&name[from]) => {
                at += 2;
                from += 1;
            }
            Some(byte) if *byte != b'\\' && (*byte == b'?' || *byte == name[from]) => {
                at += 1;
                from += 1;
            }
            _ => match star {
                Some((back, taken)) => {
                    star = Some((back, taken + 1));
                    at = back + 1;
                    from = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_git() {
        let text =
            "# no comment\n*.log\n!keep.log\n/top\nbuild/\nsrc/*.o\n**/cache\ndocs/**\na?c\n\\#x\n";
        let ignore = Ignore::new(text);
        for (path, is_dir, out) in [
            (".git", true, true),
            ("sub/.git", true, true),
            ("manifest.yml", false, true),
            ("sub/manifest.yml", false, false),
            ("x.log", false, true),
            ("sub/x.log", false, true),
            ("keep.log", false, false),
            ("top", false, true),
            ("sub/top", false, false),
            ("build", true, true),
            ("build", false, false),
            ("src/a.o", false, true),
            ("src/sub/a.o", false, false),
            ("a/b/cache", true, true),
            ("cache", true, true),
            ("docs", true, false),
            ("docs/a/b", false, true),
            ("abc", false, true),
            ("abbc", false, false),
            ("#x", false, true),
            ("no comment", false, false),
            ("Procfile", false, false),
        ] {
            assert_eq!(ignore.leaves_out(path, is_dir), out, "{path}");
        }
        let stars = "*".repeat(50) + "x";
        assert!(!fits(stars.as_bytes(), "a".repeat(200).as_bytes()), "it ends");
    }
}
