//! The YAML that buildpacks and users of cf write: strings, lists and maps. Pure.
//!
//! Read: block maps and lists, flow ones (so JSON too), plain, quoted and block scalars with their
//! folding, anchors, aliases and merge keys (`<<`), comments, one `---` document. Every scalar is text:
//! a version `1.10` stays `1.10`. Refused, with the line: tags, directives, `? ` keys, duplicate keys,
//! tabs as indentation, a second document. Nesting is limited to [`DEPTH_MAX`], what aliases bring in to
//! a MiB.

mod flow;
mod node;
mod scalar;

pub use node::{Node, Pair, Tree};

use node::Columns;

use std::collections::BTreeMap;
use std::fmt;

/// What may stand before `<<`, the only tag that is read.
const MERGE_TAG: &str = "!!merge ";
/// How deep maps and lists may nest.
const DEPTH_MAX: usize = 32;

/// A parsed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Any scalar.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// A map, in the order of the text; keys are unique.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// The value of `key`, when this is a map that has it with something in it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let Value::Map(pairs) = self else { return None };
        pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value).filter(|v| !v.is_null())
    }

    /// The text, when this is a scalar.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items, when this is a list.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The pairs, when this is a map.
    pub fn as_map(&self) -> Option<&[(String, Value)]> {
        match self {
            Value::Map(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// Whether there is nothing.
    pub fn is_null(&self) -> bool {
        *self == Value::Null
    }

    /// What this is, for a message.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// Text that cannot be read: where and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong, with the cure when there is one.
    pub why: String,
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for YamlError {}

/// Reads one document. Empty text is [`Value::Null`].
pub fn parse(text: &str) -> Result<Value, YamlError> {
    nodes(text).map(Node::into_value)
}

/// The same with the places of everything.
pub fn nodes(text: &str) -> Result<Node, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().map(str::to_owned).collect();
    let (anchors, copied) = (BTreeMap::new(), 0);
    let mut parser = Parser { lines, at: 0, depth: 0, anchors, copied };
    parser.skip_blank();
    parser.begin_document()?;
    let mut value = match parser.peek()? {
        Some(_) => parser.block(0)?,
        None => parser.here(Tree::Null),
    };
    parser.end_document()?;
    Columns::of(text).count(&mut value);
    Ok(value)
}

/// The lines, and the one that is read next. What has been read of a line is blanked in place.
struct Parser {
    lines: Vec<String>,
    at: usize,
    depth: usize,
    /// What aliases may stand for.
    anchors: BTreeMap<String, Node>,
    /// How much has been copied for them.
    copied: usize,
}

impl Parser {
    fn fail<T>(&self, why: impl Into<String>) -> Result<T, YamlError> {
        let line = (self.at + 1).min(self.lines.len().max(1));
        Err(YamlError { line, why: why.into() })
    }

    fn skip_blank(&mut self) {
        while self.lines.get(self.at).is_some_and(|line| is_blank(line)) {
            self.at += 1;
        }
    }

    /// Takes the `---` that may begin the document; what follows it on its line stays.
    fn begin_document(&mut self) -> Result<(), YamlError> {
        let Some(line) = self.lines.get_mut(self.at) else { return Ok(()) };
        if line.starts_with('%') {
            return self.fail("directives are not read here; remove the line");
        }
        if is_marker(line, "---") {
            line.replace_range(..3, "   ");
            self.skip_blank();
        }
        Ok(())
    }

    fn end_document(&mut self) -> Result<(), YamlError> {
        self.skip_blank();
        if self.lines.get(self.at).is_some_and(|line| is_marker(line, "...")) {
            self.at += 1;
            self.skip_blank();
        }
        match self.lines.get(self.at) {
            None => Ok(()),
            Some(line) if is_marker(line, "---") => {
                self.fail("a second document begins here; only one is read")
            }
            Some(_) => self.fail("this does not belong to what is above; check the indentation"),
        }
    }

    /// The next line that says something, with its indentation; `None` at the document's end.
    fn peek(&mut self) -> Result<Option<(usize, String)>, YamlError> {
        self.skip_blank();
        let Some(line) = self.lines.get(self.at) else { return Ok(None) };
        if is_marker(line, "...") || is_marker(line, "---") {
            return Ok(None);
        }
        let rest = line.trim_start_matches(' ');
        if rest.starts_with('\t') {
            return self.fail("a tab cannot indent; use spaces");
        }
        Ok(Some((line.len() - rest.len(), rest.to_owned())))
    }

    /// A value whose lines are indented by at least `least`; the caller has seen that there is one.
    fn block(&mut self, least: usize) -> Result<Node, YamlError> {
        let Some((indent, rest)) = self.peek()? else { return Ok(self.here(Tree::Null)) };
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fail(format!("nested deeper than {DEPTH_MAX}"));
        }
        let value = if is_item(&rest) {
            self.list(indent)?
        } else if self.key(&rest)?.is_some() {
            self.map(indent)?
        } else {
            self.inline(indent, least)?
        };
        self.depth -= 1;
        Ok(value)
    }

    fn list(&mut self, indent: usize) -> Result<Node, YamlError> {
        let mut items = Vec::new();
        let line = self.at + 1;
        while let Some((found, rest)) = self.peek()? {
            if found < indent || found == indent && !is_item(&rest) {
                break;
            }
            if found > indent {
                return self.fail("this is indented more than the list above it");
            }
            self.lines[self.at].replace_range(indent..=indent, " ");
            let anchor = self.anchor(indent + 1)?;
            let item = match self.peek()? {
                Some((inner, _)) if inner > indent => self.block(indent + 1)?,
                _ => self.here(Tree::Null),
            };
            self.keep(anchor, &item)?;
            items.push(item);
        }
        Ok(Node { line, column: indent + 1, tree: Tree::List(items) })
    }

    fn map(&mut self, indent: usize) -> Result<Node, YamlError> {
        let mut pairs: Vec<Pair> = Vec::new();
        let first = self.at + 1;
        while let Some((found, rest)) = self.peek()? {
            if found < indent || found == indent && is_item(&rest) {
                break;
            }
            if found > indent {
                return self.fail("this is indented more than the map above it");
            }
            let Some((key, used)) = self.key(&rest)? else {
                return self.fail("this is no `key: value`");
            };
            if pairs.iter().any(|pair| pair.key == key) {
                return self.fail(format!("key `{key}` is there twice"));
            }
            let line = self.at + 1;
            let (value, anchored) = self.map_value(indent, indent + used)?;
            pairs.push(Pair { key, line, value, anchored });
        }
        Ok(Node { line: first, column: indent + 1, tree: self.merged(pairs)? })
    }

    /// What stands after `key:`, on its line from `column` on, or below it; and whether it has an anchor.
    fn map_value(&mut self, indent: usize, column: usize) -> Result<(Node, bool), YamlError> {
        let key_line = self.at;
        let line = &mut self.lines[self.at];
        let blanks = " ".repeat(column);
        line.replace_range(..column, &blanks);
        let anchor = self.anchor(column)?;
        let value = match self.peek()? {
            Some((start, _)) if self.at == key_line => self.inline(start, indent + 1)?,
            Some((inner, _)) if inner > indent => self.block(indent + 1)?,
            Some((inner, rest)) if inner == indent && is_item(&rest) => self.block(indent)?,
            _ => Node { line: key_line + 1, column: column + 1, tree: Tree::Null },
        };
        let anchored = anchor.is_some();
        self.keep(anchor, &value)?;
        Ok((value, anchored))
    }

    /// The key that `rest` begins with and the bytes up to behind its colon.
    fn key(&self, rest: &str) -> Result<Option<(String, usize)>, YamlError> {
        if rest.starts_with("? ") || rest == "?" {
            return self.fail("keys over several lines (`? `) are not read here");
        }
        if rest.starts_with(['"', '\'']) {
            let Some((text, used)) = scalar::quoted_in_line(rest) else { return Ok(None) };
            let after = &rest[used..];
            let colon = after.trim_start_matches(' ');
            let ends = colon.starts_with(": ") || colon.starts_with(":\t") || colon == ":";
            return Ok(ends.then(|| (text, used + (after.len() - colon.len()) + 1)));
        }
        // As yq writes merge keys.
        if let Some(after) = rest.strip_prefix(MERGE_TAG).filter(|after| after.starts_with("<<:")) {
            let used = rest.len() - after.len() + "<<:".len();
            return Ok(Some(("<<".to_owned(), used)));
        }
        if rest.starts_with(['[', '{', '|', '>', '#', '&', '*', '!', '%', '@', '`']) {
            return Ok(None);
        }
        let plain = &rest[..scalar::comment_start(rest)];
        Ok(scalar::colon(plain).map(|end| (plain[..end].trim_end().to_owned(), end + 1)))
    }

    /// A scalar or a flow collection that begins in the current line at `column`; lines that go on
    /// with it are indented by at least `least`.
    fn inline(&mut self, column: usize, least: usize) -> Result<Node, YamlError> {
        let line = self.at + 1;
        let tree = |tree| Node { line, column: column + 1, tree };
        let rest = &self.lines[self.at][column..];
        match rest.chars().next() {
            Some('|' | '>') => Ok(tree(Tree::quoted(self.block_scalar(column, least)?))),
            Some('[' | '{') => self.flow(column),
            Some('"' | '\'') => {
                let (text, end) = self.quoted(column)?;
                self.finish_line(end)?;
                Ok(tree(Tree::quoted(text)))
            }
            Some('*') => {
                let (node, end) = self.alias(column)?;
                self.finish_line(end)?;
                Ok(node)
            }
            Some('&') => self.fail("an anchor stands behind `key:` or `-`, and only one of them"),
            Some('!') => self.fail("tags are not read here; quote the text"),
            Some(c @ ('%' | '@' | '`' | ',' | ']' | '}')) => {
                self.fail(format!("text cannot begin with `{c}`; quote it"))
            }
            _ if is_item(rest) => self.fail("a list begins below its key, not beside it"),
            _ => Ok(tree(self.plain(column, least)?)),
        }
    }

    /// The line is read up to `column`: nothing but a comment may follow.
    fn finish_line(&mut self, column: usize) -> Result<(), YamlError> {
        let rest = &self.lines[self.at][column..];
        if !is_blank(rest) || rest.starts_with('#') {
            let rest = rest.trim().to_owned();
            return self.fail(format!("`{rest}` does not belong here"));
        }
        self.at += 1;
        Ok(())
    }
}

/// Only spaces, perhaps a comment.
fn is_blank(line: &str) -> bool {
    let rest = line.trim_start();
    rest.is_empty() || rest.starts_with('#')
}

/// Whether the line is the document marker `mark`, perhaps with something after it.
fn is_marker(line: &str, mark: &str) -> bool {
    line.strip_prefix(mark).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
}

/// Whether a line's text is an item of a list.
fn is_item(rest: &str) -> bool {
    rest == "-" || rest.starts_with("- ") || rest.starts_with("-\t")
}

#[cfg(test)]
mod tests;
