//! Flow collections: `[a, b]`, `{a: b}`, and with them JSON.

use super::{DEPTH_MAX, Node, Pair, Parser, Tree, YamlError, is_blank};

impl Parser {
    /// The collection that begins in the current line at `column`; ends behind its last line.
    pub(super) fn flow(&mut self, column: usize) -> Result<Node, YamlError> {
        let (value, end) = self.flow_value(column)?;
        self.finish_line(end)?;
        Ok(value)
    }

    /// One value at `column` of the current line, and the column behind it.
    fn flow_value(&mut self, column: usize) -> Result<(Node, usize), YamlError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fail(format!("nested deeper than {DEPTH_MAX}"));
        }
        let anchor = self.anchor(column)?;
        let column = if anchor.is_some() { self.flow_space(column)? } else { column };
        let line = self.at + 1;
        let found = match self.lines[self.at].as_bytes().get(column) {
            Some(b'[') => self.flow_list(column + 1)?,
            Some(b'{') => self.flow_map(column + 1)?,
            Some(b'"' | b'\'') => {
                let (text, end) = self.quoted(column)?;
                (Tree::quoted(text), end)
            }
            Some(b'*') => {
                let (node, end) = self.alias(column)?;
                self.depth -= 1;
                return Ok((node, end));
            }
            Some(b'!') => return self.fail("tags are not read here"),
            _ => self.flow_plain(column),
        };
        let found = (Node { line, column: column + 1, tree: found.0 }, found.1);
        self.keep(anchor, &found.0)?;
        self.depth -= 1;
        Ok(found)
    }

    fn flow_list(&mut self, column: usize) -> Result<(Tree, usize), YamlError> {
        let mut items = Vec::new();
        let mut at = self.flow_space(column)?;
        while self.byte(at) != Some(b']') {
            let (item, end) = self.flow_value(at)?;
            if item.tree == Tree::Null && end == at {
                return self.fail("a list item is missing here");
            }
            items.push(item);
            at = self.flow_next(end, b']')?;
        }
        Ok((Tree::List(items), at + 1))
    }

    fn flow_map(&mut self, column: usize) -> Result<(Tree, usize), YamlError> {
        let mut pairs: Vec<Pair> = Vec::new();
        let mut at = self.flow_space(column)?;
        while self.byte(at) != Some(b'}') {
            let (key, end) = self.flow_value(at)?;
            let (line, Tree::Text { text: key, .. }) = (key.line, key.tree) else {
                return self.fail("a key of text is missing here");
            };
            let end = self.flow_space(end)?;
            if self.byte(end) != Some(b':') {
                return self.fail(format!("a `: ` is missing after `{key}`"));
            }
            if pairs.iter().any(|pair| pair.key == key) {
                return self.fail(format!("key `{key}` is there twice"));
            }
            let start = self.flow_space(end + 1)?;
            let (value, end) = self.flow_value(start)?;
            pairs.push(Pair { key, line, value, anchored: false });
            at = self.flow_next(end, b'}')?;
        }
        Ok((self.merged(pairs)?, at + 1))
    }

    /// Plain text: up to a mark of the collection, a `: `, a comment or the line's end.
    fn flow_plain(&mut self, column: usize) -> (Tree, usize) {
        let line = &self.lines[self.at];
        let bytes = line.as_bytes();
        let ends = |at: usize| match bytes[at] {
            b',' | b'[' | b']' | b'{' | b'}' => true,
            b':' => matches!(bytes.get(at + 1), None | Some(b' ' | b'\t' | b',' | b']' | b'}')),
            b'#' => at > column && matches!(bytes[at - 1], b' ' | b'\t'),
            _ => false,
        };
        let end = (column..bytes.len()).find(|&at| ends(at)).unwrap_or(bytes.len());
        let text = line[column..end].trim_end();
        (Tree::of_plain(text.to_owned()), column + text.len())
    }

    /// Takes a comma, or stops before `close`.
    fn flow_next(&mut self, column: usize, close: u8) -> Result<usize, YamlError> {
        let at = self.flow_space(column)?;
        match self.byte(at) {
            Some(b',') => self.flow_space(at + 1),
            Some(found) if found == close => Ok(at),
            _ => self.fail(format!("a `,` or `{}` is missing here", char::from(close))),
        }
    }

    /// Skips blanks, comments and line ends.
    fn flow_space(&mut self, mut column: usize) -> Result<usize, YamlError> {
        while let Some(line) = self.lines.get(self.at) {
            let rest = &line[column..];
            if !is_blank(rest) {
                return Ok(line.len() - rest.trim_start().len());
            }
            self.at += 1;
            column = 0;
        }
        self.at = self.at.saturating_sub(1);
        self.fail("the text ends inside `[ ]` or `{ }`")
    }

    fn byte(&self, column: usize) -> Option<u8> {
        self.lines[self.at].as_bytes().get(column).copied()
    }
}
