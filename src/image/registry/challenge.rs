//! What a registry says about who may come in: `WWW-Authenticate`, RFC 9110 11.6.1. Pure.
//!
//! Servers write several challenges into one header or into several, with and without quotes, and
//! put commas and blanks into quoted scopes.

/// Most challenges, and most parameters of one, that are looked at.
const MOST: usize = 16;

/// One way to come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// In lower case: `bearer`, `basic`, `token`.
    pub scheme: String,
    /// Names in lower case.
    params: Vec<(String, String)>,
}

impl Challenge {
    /// A parameter; the first of its name counts.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// All challenges of a header's value; what cannot be read ends the list.
pub fn parse(value: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut text = Cursor { rest: value };
    while found.len() < MOST {
        text.skip(|c| c == ',' || c.is_ascii_whitespace());
        let scheme = text.token();
        if scheme.is_empty() {
            break;
        }
        let params = params(&mut text);
        found.push(Challenge { scheme: scheme.to_ascii_lowercase(), params });
    }
    found
}

/// `name=value`, comma separated, up to the next scheme, which is a word without `=`.
fn params(text: &mut Cursor<'_>) -> Vec<(String, String)> {
    let mut all = Vec::new();
    while all.len() < MOST {
        let begin = text.rest;
        text.skip(|c| c == ',' || c.is_ascii_whitespace());
        let name = text.token();
        text.skip(|c| c.is_ascii_whitespace());
        if name.is_empty() || !text.take('=') {
            text.rest = begin;
            break;
        }
        text.skip(|c| c.is_ascii_whitespace());
        let value = match text.take('"') {
            true => text.quoted(),
            false => text.bare().to_owned(),
        };
        all.push((name.to_ascii_lowercase(), value));
    }
    all
}

struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn skip(&mut self, is: impl Fn(char) -> bool) {
        self.rest = self.rest.trim_start_matches(is);
    }

    fn take(&mut self, c: char) -> bool {
        let after = self.rest.strip_prefix(c);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn until(&mut self, end: impl Fn(char) -> bool) -> &'a str {
        let (word, rest) = self.rest.split_at(self.rest.find(end).unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    fn token(&mut self) -> &'a str {
        self.until(|c| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
    }

    /// A value without quotes: some servers put all of a URL there.
    fn bare(&mut self) -> &'a str {
        self.until(|c| c == ',' || c.is_ascii_whitespace())
    }

    /// What follows an opening quote, and the closing one.
    fn quoted(&mut self) -> String {
        let mut value = String::new();
        let mut escaped = false;
        for (at, c) in self.rest.char_indices() {
            match c {
                _ if escaped => {
                    value.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return value;
                }
                c => value.push(c),
            }
        }
        self.rest = "";
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scheme name=value name=value; scheme ...`
    fn shown(value: &str) -> String {
        let one = |challenge: &Challenge| {
            let params = challenge.params.iter().map(|(name, value)| format!(" {name}={value}"));
            format!("{}{}", challenge.scheme, params.collect::<String>())
        };
        parse(value).iter().map(one).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn challenges_are_read_as_servers_write_them() {
        let rows = [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull,push""#,
                "bearer realm=https://auth.docker.io/token service=registry.docker.io scope=repository:library/x:pull,push",
            ),
            (r#"Basic realm="Registry \"A\", \\B""#, r#"basic realm=Registry "A", \B"#),
            (
                r#"Basic realm="a", Bearer realm=https://x/t , Service = "s", error="invalid_token""#,
                "basic realm=a; bearer realm=https://x/t service=s error=invalid_token",
            ),
            ("Token", "token"),
            ("Negotiate, Basic realm=x", "negotiate; basic realm=x"),
            (r#"BEARER REALM="a""#, "bearer realm=a"),
            (r#"Bearer realm="never closed"#, "bearer realm=never closed"),
            ("", ""),
            ("=,=", ""),
        ];
        for (value, expected) in rows {
            assert_eq!(shown(value), expected, "{value}");
        }
        assert_eq!(parse(r#"Bearer realm="a",realm="b""#)[0].get("realm"), Some("a"));
    }

    #[test]
    fn endless_headers_end() {
        assert_eq!(parse(&"Basic,".repeat(1000)).len(), MOST);
        assert!(parse(&format!("Basic {}", "a=b,".repeat(1000)))[0].params.len() <= MOST);
    }
}
