//! Everything that is wrong with one text, each with its place, for a person and for a log.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::fmt;
use std::ops::Range;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Bytes of the text that are meant; within one line.
    pub span: Range<usize>,
    /// Line of the first of them, from 1.
    pub line: usize,
    /// Column of the first of them in characters, from 1.
    pub column: usize,
    /// What is wrong. Never holds the value of an environment variable.
    pub message: String,
    /// What to write instead, when we know.
    pub cure: Option<String>,
    /// An earlier place that has to do with it, and what it is.
    pub see: Option<(Range<usize>, String)>,
    /// It is in nobody's way now.
    pub warning: bool,
}

/// All problems of one text, in the order of the text; never empty.
///
/// `Display` is one line for a log: the first problem and how many more there are, without any
/// excerpt (an excerpt may show secrets of `[env]`). [`Diagnostics::render`] is for the person who
/// wrote the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    file: String,
    text: String,
    list: Vec<Diagnostic>,
    dropped: usize,
}

impl Diagnostics {
    /// Problems beyond this many are only counted.
    pub const MAX: usize = 100;

    /// Puts what was found in order; `dropped` more were not kept. `None`: nothing was found.
    pub(super) fn new(
        file: &str,
        text: &str,
        mut found: Vec<Finding>,
        dropped: usize,
    ) -> Option<Diagnostics> {
        found.sort_by(|a, b| (a.span.start, &a.message).cmp(&(b.span.start, &b.message)));
        found.dedup();
        let dropped = dropped + found.len().saturating_sub(Diagnostics::MAX);
        found.truncate(Diagnostics::MAX);
        let list: Vec<_> = found.into_iter().map(|finding| finding.locate(text)).collect();
        let (file, text) = (file.to_owned(), text.to_owned());
        (!list.is_empty()).then_some(Diagnostics { file, text, list, dropped })
    }

    /// Every problem, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// The name of the text: the file's path as the caller gave it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Every problem as the Rust compiler would show it, ending with a newline; `color` with
    /// terminal colours.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for problem in &self.list {
            out.push_str(&self.render_one(problem, &renderer));
            out.push_str("\n\n");
        }
        if self.dropped > 0 {
            out.push_str(&format!("and {} more\n\n", self.dropped));
        }
        out.pop();
        out
    }

    /// Shows the renderer only the lines from the earlier place to the problem: it looks at all
    /// that it gets, for each problem again.
    fn render_one(&self, problem: &Diagnostic, renderer: &Renderer) -> String {
        let start =
            problem.see.iter().map(|(span, _)| span.start).fold(problem.span.start, usize::min);
        let end = problem.see.iter().map(|(span, _)| span.end).fold(problem.span.end, usize::max);
        let start = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let end = self.text[end..].find('\n').map_or(self.text.len(), |newline| end + newline);
        let inside = |span: &Range<usize>| span.start - start..span.end - start;

        let mark = AnnotationKind::Primary.span(inside(&problem.span));
        let mut snippet = Snippet::source(&self.text[start..end])
            .line_start(place(&self.text, start).0)
            .path(self.file.as_str())
            .annotation(mark.label(problem.cure.as_deref()));
        if let Some((span, what)) = &problem.see {
            let mark = AnnotationKind::Context.span(inside(span));
            snippet = snippet.annotation(mark.label(what.as_str()));
        }
        let level = if problem.warning { Level::WARNING } else { Level::ERROR };
        let title = level.primary_title(problem.message.as_str());
        renderer.render(&[title.element(snippet)])
    }
}

/// A problem as it is noted, before anybody has counted lines.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) cure: Option<String>,
    pub(super) see: Option<(Range<usize>, String)>,
    pub(super) warning: bool,
}

impl Finding {
    fn locate(self, text: &str) -> Diagnostic {
        let Finding { span, message, cure, see, warning } = self;
        let span = one_line(text, span);
        let (line, column) = place(text, span.start);
        let see = see.map(|(span, what)| (one_line(text, span), what));
        Diagnostic { span, line, column, message, cure, see, warning }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.list.first() else { return f.write_str(&self.file) };
        write!(f, "{}:{}:{}: {}", self.file, first.line, first.column, first.message)?;
        match self.list.len() - 1 + self.dropped {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}

impl std::error::Error for Diagnostics {}

/// Line and column of a byte, both from 1; the column counts characters.
pub(super) fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// `span` cut to whole characters within the text and to its first line.
fn one_line(text: &str, span: Range<usize>) -> Range<usize> {
    let floor = |byte: usize| {
        (0..=byte.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
    };
    let start = floor(span.start);
    let end = floor(span.end).max(start);
    let end = text[start..end].find(['\r', '\n']).map_or(end, |newline| start + newline);
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Diagnostics {
        let text = "name = \"é\"\nxyz = 1\n";
        let problem = |span: Range<usize>, message: &str, cure: Option<&str>| {
            let (message, cure) = (message.to_owned(), cure.map(str::to_owned));
            Finding { span, message, cure, see: None, warning: false }
        };
        let found = vec![
            problem(12..15, "unknown key `xyz`", Some("remove it")),
            problem(7..11, "no", None),
        ];
        Diagnostics::new("apps/web.toml", text, found, 0).expect("two problems")
    }

    #[test]
    fn a_person_sees_the_line_and_the_caret() {
        let expected = "\
error: no
 --> apps/web.toml:1:8
  |
1 | name = \"é\"
  |        ^^^

error: unknown key `xyz`
 --> apps/web.toml:2:1
  |
2 | xyz = 1
  | ^^^ remove it
";
        assert_eq!(sample().render(false), expected);
        assert!(sample().render(true).contains("\u{1b}["));
    }

    #[test]
    fn a_log_gets_one_line_without_excerpt() {
        assert_eq!(sample().to_string(), "apps/web.toml:1:8: no (and 1 more)");
    }

    #[test]
    fn spans_are_cut_to_one_line_and_whole_characters() {
        assert_eq!(one_line("ab\r\ncd", 1..6), 1..2);
        assert_eq!(one_line("é", 1..9), 0..2);
        assert_eq!(one_line("", 0..0), 0..0);
    }
}
