//! A Rust file as tokens: enough of the language to see paths, attributes and `unsafe`, and to
//! never be fooled by a comment, a string or a test module.

/// One token outside comments and literals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// An identifier, `::`, or one punctuation character.
    pub text: String,
    /// From 1.
    pub line: usize,
    /// Inside something marked `#[cfg(test)]`.
    pub test: bool,
    /// Inline modules around it.
    pub depth: usize,
}

impl Token {
    fn is_ident(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// One path as it is written, groups taken apart: `use a::{b, c::d}` gives `a::b` and `a::c::d`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Its identifiers; `*` for a glob.
    pub segments: Vec<String>,
    /// Line of the last identifier.
    pub line: usize,
    /// It stands in a `use`.
    pub imported: bool,
    /// Inside something marked `#[cfg(test)]`.
    pub test: bool,
    /// Inline modules around it.
    pub depth: usize,
}

impl Path {
    /// The path begins with these identifiers.
    pub fn starts_with(&self, segments: &[&str]) -> bool {
        self.segments.len() >= segments.len()
            && self.segments.iter().zip(segments).all(|(have, want)| have == want)
    }

    /// The path ends with these identifiers.
    pub fn ends_with(&self, segments: &[&str]) -> bool {
        self.segments.len() >= segments.len()
            && self.segments.iter().rev().zip(segments.iter().rev()).all(|(a, b)| a == b)
    }
}

/// Cuts a file into tokens; marks tests and module depth.
pub fn tokens(text: &str) -> Vec<Token> {
    let mut out = lex(text);
    mark_depth(&mut out);
    mark_tests(&mut out);
    out
}

/// Lines that are not inside `#[cfg(test)]`: what counts for a file's length.
pub fn production_lines(text: &str, tokens: &[Token]) -> usize {
    let mut tested = 0;
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].test {
            let first = tokens[at].line;
            while at + 1 < tokens.len() && tokens[at + 1].test {
                at += 1;
            }
            tested += tokens[at].line - first + 1;
        }
        at += 1;
    }
    text.lines().count().saturating_sub(tested)
}

fn lex(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let start = i;
        let c = at(i);
        if c == '/' && at(i + 1) == '/' {
            while i < chars.len() && at(i) != '\n' {
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            i = block_comment(&chars, i);
        } else if c == '"' {
            i = string(&chars, i);
        } else if c == '\'' {
            i = quote(&chars, i);
        } else if c.is_alphabetic() || c == '_' {
            while at(i).is_alphanumeric() || at(i) == '_' {
                i += 1;
            }
            let word: String = chars[start..i].iter().collect();
            let raw = matches!(word.as_str(), "r" | "br" | "cr");
            match at(i) {
                '"' if raw => i = raw_string(&chars, i),
                '#' if raw && matches!(at(i + 1), '#' | '"') => i = raw_string(&chars, i),
                // A raw identifier: its name follows as a token of its own.
                '#' if word == "r" => i += 1,
                '"' if matches!(word.as_str(), "b" | "c") => i = string(&chars, i),
                '\'' if word == "b" => i = quote(&chars, i),
                _ => out.push(Token { text: word, line, test: false, depth: 0 }),
            }
        } else if c.is_ascii_digit() {
            while at(i).is_alphanumeric() || at(i) == '_' {
                i += 1;
            }
        } else if c == ':' && at(i + 1) == ':' {
            out.push(Token { text: "::".to_owned(), line, test: false, depth: 0 });
            i += 2;
        } else {
            if !c.is_whitespace() {
                out.push(Token { text: c.to_string(), line, test: false, depth: 0 });
            }
            i += 1;
        }
        line += chars[start..i].iter().filter(|c| **c == '\n').count();
    }
    out
}

/// The index after a comment that may hold others. An open end ends the file.
fn block_comment(chars: &[char], mut i: usize) -> usize {
    let mut deep = 0usize;
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => {
                deep += 1;
                i += 2;
            }
            ('*', Some('/')) => {
                deep -= 1;
                i += 2;
                if deep == 0 {
                    break;
                }
            }
            _ => i += 1,
        }
    }
    i.min(chars.len())
}

/// The index after a string whose opening quote is at `i`.
fn string(chars: &[char], mut i: usize) -> usize {
    i += 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// The index after a raw string whose first `#` or quote is at `i`.
fn raw_string(chars: &[char], mut i: usize) -> usize {
    let mut hashes = 0;
    while chars.get(i) == Some(&'#') {
        hashes += 1;
        i += 1;
    }
    i += 1;
    while i < chars.len() {
        let closes = chars[i] == '"'
            && chars.len() - i > hashes
            && chars[i + 1..=i + hashes].iter().all(|c| *c == '#');
        if closes {
            return i + hashes + 1;
        }
        i += 1;
    }
    chars.len()
}

/// The index after a character literal or a lifetime whose quote is at `i`.
fn quote(chars: &[char], i: usize) -> usize {
    let end = match (chars.get(i + 1), chars.get(i + 2)) {
        (Some('\\'), _) => {
            let mut end = i + 3;
            while end < chars.len() && chars[end] != '\'' {
                end += 1;
            }
            end + 1
        }
        (Some(_), Some('\'')) => i + 3,
        _ => {
            let mut end = i + 1;
            while chars.get(end).is_some_and(|c| c.is_alphanumeric() || *c == '_') {
                end += 1;
            }
            end
        }
    };
    end.min(chars.len())
}

fn mark_depth(tokens: &mut [Token]) {
    let mut braces = 0usize;
    let mut modules: Vec<usize> = Vec::new();
    for i in 0..tokens.len() {
        let opens_module = tokens[i].text == "{"
            && i >= 2
            && tokens[i - 2].text == "mod"
            && tokens[i - 1].is_ident();
        tokens[i].depth = modules.len();
        match tokens[i].text.as_str() {
            "{" => {
                braces += 1;
                if opens_module {
                    modules.push(braces);
                }
            }
            "}" => {
                if modules.last() == Some(&braces) {
                    modules.pop();
                }
                braces = braces.saturating_sub(1);
            }
            _ => {}
        }
    }
}

/// `#[cfg(test)]` covers what follows it: up to a `;`, or to the end of the first braces.
fn mark_tests(tokens: &mut [Token]) {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut i = 0;
    while i + MARK.len() <= tokens.len() {
        if !tokens[i..i + MARK.len()].iter().zip(MARK).all(|(token, want)| token.text == want) {
            i += 1;
            continue;
        }
        let mut braces = 0usize;
        let mut end = i + MARK.len();
        while end < tokens.len() {
            match tokens[end].text.as_str() {
                "{" => braces += 1,
                "}" if braces == 1 => break,
                "}" => braces = braces.saturating_sub(1),
                ";" if braces == 0 => break,
                _ => {}
            }
            end += 1;
        }
        let end = end.min(tokens.len() - 1);
        tokens[i..=end].iter_mut().for_each(|token| token.test = true);
        i = end + 1;
    }
}

/// Every path in the file, in order.
pub fn paths(tokens: &[Token]) -> Vec<Path> {
    let mut out = Vec::new();
    let mut i = 0;
    let mut in_use = false;
    while i < tokens.len() {
        match tokens[i].text.as_str() {
            "use" => in_use = true,
            ";" => in_use = false,
            _ if tokens[i].is_ident() || (tokens[i].text == "{" && in_use) => {
                i = path(tokens, i, &[], in_use, &mut out);
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    out
}

/// Reads one path (or the group at the head of a `use`) at `i`; returns the index after it.
fn path(
    tokens: &[Token],
    mut i: usize,
    before: &[String],
    imported: bool,
    out: &mut Vec<Path>,
) -> usize {
    let mut segments = before.to_vec();
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text.as_str());
    loop {
        if text(i) == "{" {
            i += 1;
            while i < tokens.len() && text(i) != "}" {
                match text(i) {
                    "," => i += 1,
                    // `b as c` inside a group: the new name is no path of its own.
                    "as" => i += 2,
                    _ => i = path(tokens, i, &segments, imported, out),
                }
            }
            return i + 1;
        }
        let Some(token) = tokens.get(i) else { return i };
        if !token.is_ident() && token.text != "*" {
            return i + 1;
        }
        segments.push(token.text.clone());
        i += 1;
        let goes_on = text(i) == "::"
            && (text(i + 1) == "{" || text(i + 1) == "*" && imported || is_name(tokens, i + 1));
        if !goes_on {
            let (line, test, depth) = (token.line, token.test, token.depth);
            out.push(Path { segments, line, imported, test, depth });
            return i;
        }
        i += 1;
    }
}

fn is_name(tokens: &[Token], i: usize) -> bool {
    tokens.get(i).is_some_and(Token::is_ident)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        tokens(text).into_iter().map(|token| token.text).collect()
    }

    fn written(text: &str) -> Vec<String> {
        paths(&tokens(text)).iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = "a /* unsafe /* x */ unsafe */ b // unsafe\n\"unsafe \\\" unsafe\" c";
        assert_eq!(words(text), ["a", "b", "c"]);
        assert_eq!(words(r####"r#"unsafe " "# b"unsafe" br##"x"# "## d"####), ["d"]);
        assert_eq!(words(r"'\'' 'u' b'\\' &'static str"), ["&", "str"]);
        assert_eq!(words("r#type 0x10_u8 1.5"), ["type", "."]);
        assert_eq!(words("/* never closed"), [""; 0]);
        assert_eq!(words("\"never closed"), [""; 0]);
    }

    #[test]
    fn lines_are_counted_through_literals() {
        let lines: Vec<usize> = tokens("\"a\nb\" x\n/* \n */ y").iter().map(|t| t.line).collect();
        assert_eq!(lines, [2, 4]);
    }

    #[test]
    fn groups_are_taken_apart() {
        assert_eq!(
            written(
                "use crate::{unit::{self, Bytes as B}, log, net::*}; fn f() { std::fs::read() }"
            ),
            [
                "crate::unit::self",
                "crate::unit::Bytes",
                "crate::log",
                "crate::net::*",
                "fn",
                "f",
                "std::fs::read"
            ]
        );
        assert_eq!(written("use {a::b, c};"), ["a::b", "c"]);
        assert_eq!(written("let x = Vec::<u8>::new();"), ["let", "x", "Vec", "u8", "new"]);
    }

    #[test]
    fn a_test_module_is_marked_and_not_counted() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
        let tokens = tokens(text);
        let test = |name: &str| tokens.iter().find(|t| t.text == name).map(|t| t.test);
        assert_eq!((test("a"), test("b"), test("c")), (Some(false), Some(true), Some(false)));
        assert_eq!(production_lines(text, &tokens), 2);
        assert_eq!(tokens.iter().find(|t| t.text == "b").map(|t| t.depth), Some(1));
    }
}
