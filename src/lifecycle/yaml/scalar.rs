//! Scalars: plain, quoted and block ones, with YAML's folding of lines.

use super::{Parser, Tree, YamlError, is_blank, is_marker};

impl Parser {
    /// Plain text from `column` on, with the lines that go on with it.
    pub(super) fn plain(&mut self, column: usize, least: usize) -> Result<Tree, YamlError> {
        let mut text = String::new();
        let mut from = column;
        loop {
            let line = &self.lines[self.at][from..];
            let end = comment_start(line);
            let part = line[..end].trim();
            if colon(part).is_some() {
                return self.fail("a `: ` inside plain text; quote the whole text");
            }
            text.push_str(part);
            let commented = end < line.len();
            self.at += 1;
            let first_below = self.at;
            while self.lines.get(self.at).is_some_and(|line| line.trim().is_empty()) {
                self.at += 1;
            }
            let goes_on = !commented
                && self.lines.get(self.at).is_some_and(|line| {
                    indent_of(line) >= least
                        && !is_blank(line)
                        && !is_marker(line, "---")
                        && !is_marker(line, "...")
                });
            if !goes_on {
                break;
            }
            fold(&mut text, self.at - first_below);
            from = indent_of(&self.lines[self.at]);
        }
        Ok(Tree::of_plain(text))
    }

    /// Quoted text that begins at `column`, perhaps over several lines; stays in the line of its
    /// closing quote and returns the column behind it.
    pub(super) fn quoted(&mut self, column: usize) -> Result<(String, usize), YamlError> {
        let first = self.at;
        let quote = self.lines[self.at].as_bytes()[column];
        let mut text = String::new();
        let mut from = column + 1;
        loop {
            let line = &self.lines[self.at][from..];
            let part = match quote {
                b'"' => double(line, &mut text),
                _ => single(line, &mut text),
            };
            match part {
                Part::Closed(used) => return Ok((text, from + used)),
                Part::Bad(why) => return self.fail(why),
                Part::Open { joined } => {
                    self.at += 1;
                    let first_below = self.at;
                    while self.lines.get(self.at).is_some_and(|line| line.trim().is_empty()) {
                        self.at += 1;
                    }
                    let Some(line) = self.lines.get(self.at) else {
                        self.at = first;
                        return self.fail("this quote is never closed");
                    };
                    from = line.len() - line.trim_start().len();
                    if !joined {
                        fold(&mut text, self.at - first_below);
                    }
                }
            }
        }
    }

    /// A block scalar whose header (`|`, `>`, with `+`, `-` or a digit) begins at `column`.
    pub(super) fn block_scalar(
        &mut self,
        column: usize,
        least: usize,
    ) -> Result<String, YamlError> {
        let header = self.lines[self.at][column..].to_owned();
        let (folded, mut keep, mut strip, mut digit) =
            (header.starts_with('>'), false, false, None);
        for c in header[1..comment_start(&header)].trim_end().chars() {
            match c {
                '+' => keep = true,
                '-' => strip = true,
                '1'..='9' => digit = c.to_digit(10),
                _ => return self.fail(format!("`{}` is no block header", header.trim())),
            }
        }
        self.at += 1;
        let first = self.lines[self.at..].iter().find(|line| !line.trim().is_empty());
        let indent = match digit {
            Some(digit) => least.saturating_sub(1) + digit as usize,
            None => first.map_or(least, |line| indent_of(line)).max(least),
        };
        let mut rows = Vec::new();
        while let Some(line) = self.lines.get(self.at) {
            if line.trim_matches(' ').is_empty() {
                rows.push(String::new());
            } else if indent_of(line) >= indent && !(indent == 0 && is_marker(line, "...")) {
                rows.push(line[indent..].to_owned());
            } else {
                break;
            }
            self.at += 1;
        }
        Ok(join_rows(&rows, folded, keep, strip))
    }
}

/// The rows of a block scalar as one text.
fn join_rows(rows: &[String], folded: bool, keep: bool, strip: bool) -> String {
    let mut text = String::new();
    let (mut empty, mut deeper, mut any) = (0, false, false);
    for row in rows {
        if row.is_empty() {
            empty += 1;
            continue;
        }
        let this_deeper = row.starts_with([' ', '\t']);
        match (any, folded && !deeper && !this_deeper) {
            (false, _) => text.push_str(&"\n".repeat(empty)),
            (true, true) => fold(&mut text, empty),
            (true, false) => text.push_str(&"\n".repeat(empty + 1)),
        }
        text.push_str(row);
        (empty, deeper, any) = (0, this_deeper, true);
    }
    match (keep, strip) {
        (true, _) => text.push_str(&"\n".repeat(empty + usize::from(any))),
        (false, false) if any => text.push('\n'),
        _ => {}
    }
    text
}

/// What one line of quoted text came to.
enum Part {
    /// The closing quote is there; bytes used with it.
    Closed(usize),
    /// It goes on in the next line; `joined`: without even a space (`\` at the end).
    Open { joined: bool },
    /// An escape that does not exist.
    Bad(String),
}

fn single(line: &str, text: &mut String) -> Part {
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' if chars.next_if(|(_, next)| *next == '\'').is_some() => text.push('\''),
            '\'' => return Part::Closed(at + 1),
            _ => text.push(c),
        }
    }
    trim_end_blank(text);
    Part::Open { joined: false }
}

fn double(line: &str, text: &mut String) -> Part {
    let mut chars = line.char_indices();
    // White space that was escaped stays, also at the line's end.
    let mut firm = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Part::Closed(at + 1),
            '\\' => match chars.next() {
                None => return Part::Open { joined: true },
                Some((_, code)) => match escape(code, &mut chars) {
                    Some(out) => {
                        text.push(out);
                        firm = text.len();
                    }
                    None => return Part::Bad(format!("`\\{code}` is no escape that YAML knows")),
                },
            },
            _ => text.push(c),
        }
    }
    let end = text[firm..].trim_end_matches([' ', '\t']).len() + firm;
    text.truncate(end);
    Part::Open { joined: false }
}

fn escape(code: char, chars: &mut std::str::CharIndices) -> Option<char> {
    Some(match code {
        '0' => '\0',
        'a' => '\x07',
        'b' => '\x08',
        't' | '\t' => '\t',
        'n' => '\n',
        'v' => '\x0b',
        'f' => '\x0c',
        'r' => '\r',
        'e' => '\x1b',
        ' ' | '"' | '/' | '\\' => code,
        'N' => '\u{85}',
        '_' => '\u{a0}',
        'L' => '\u{2028}',
        'P' => '\u{2029}',
        'x' => char::from_u32(hex(chars, 2)?)?,
        'U' => char::from_u32(hex(chars, 8)?)?,
        'u' => match hex(chars, 4)? {
            // JSON writes what is beyond 16 bits as two halves.
            high @ 0xd800..=0xdbff => {
                let follows = (chars.next()?.1, chars.next()?.1) == ('\\', 'u');
                let low = hex(chars, 4).filter(|low| follows && (0xdc00..=0xdfff).contains(low))?;
                char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))?
            }
            one => char::from_u32(one)?,
        },
        _ => return None,
    })
}

fn hex(chars: &mut std::str::CharIndices, digits: usize) -> Option<u32> {
    (0..digits).try_fold(0u32, |number, _| Some(number << 4 | chars.next()?.1.to_digit(16)?))
}

/// The quoted text that `rest` begins with, when it is closed in this line, and the bytes used.
pub(super) fn quoted_in_line(rest: &str) -> Option<(String, usize)> {
    let mut text = String::new();
    let part = match rest.as_bytes()[0] {
        b'"' => double(&rest[1..], &mut text),
        _ => single(&rest[1..], &mut text),
    };
    match part {
        Part::Closed(used) => Some((text, used + 1)),
        _ => None,
    }
}

/// Where the comment of a line begins; its length when there is none.
pub(super) fn comment_start(line: &str) -> usize {
    if line.starts_with('#') {
        return 0;
    }
    line.find(" #").or_else(|| line.find("\t#")).unwrap_or(line.len())
}

/// Where the colon is that ends a plain key.
pub(super) fn colon(plain: &str) -> Option<usize> {
    let inside = [plain.find(": "), plain.find(":\t")].into_iter().flatten().min();
    inside.or_else(|| plain.trim_end().strip_suffix(':').map(str::len))
}

/// A line break inside folded text, with `empty` blank lines behind it.
fn fold(text: &mut String, empty: usize) {
    match empty {
        0 => text.push(' '),
        n => text.push_str(&"\n".repeat(n)),
    }
}

fn trim_end_blank(text: &mut String) {
    let end = text.trim_end_matches([' ', '\t']).len();
    text.truncate(end);
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}
