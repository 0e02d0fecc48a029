//! Walks a parsed TOML text by hand, so that one pass finds everything that is wrong with it.
//!
//! A getter that fails notes the problem and returns `None`; the caller goes on with the default.
//! At the end the values are good if and only if nothing was noted. A [`Section`] knows its keys
//! from what was asked of it, and what is left over is unknown.

use super::diagnostic::{Diagnostics, Finding};
use super::words::{nearest, shown};
use crate::unit::{Bytes, span};
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::ops::Range;
use std::time::Duration;
use toml::de::{DeTable, DeValue};

/// Texts larger than this are refused unread: nobody writes them by hand.
pub(super) const MAX_TEXT: Bytes = Bytes::mib(1);

/// Findings that are kept while walking; a text full of mistakes must not fill the memory.
const KEPT: usize = 10 * Diagnostics::MAX;

/// Collects what is wrong with one text.
struct Sink<'a> {
    text: &'a str,
    found: RefCell<Vec<Finding>>,
    dropped: Cell<usize>,
    absent: RefCell<Vec<String>>,
}

/// Parses `text` and lets `read` walk its top level.
pub(super) fn walk<T>(
    text: &str,
    file: &str,
    read: impl FnOnce(Section<'_>) -> Option<T>,
) -> Result<T, Diagnostics> {
    let sink = Sink::new(text);
    let value = sink.walk(read);
    match (Diagnostics::new(file, text, sink.found.into_inner(), sink.dropped.get()), value) {
        (Some(problems), _) => Err(problems),
        (None, value) => Ok(value.expect("a reader that returns nothing has noted why")),
    }
}

/// The keys that `read` asks for and `text` does not have. For the test of the sample file.
#[cfg(test)]
pub(super) fn absent_keys<T>(text: &str, read: impl FnOnce(Section<'_>) -> T) -> Vec<String> {
    let sink = Sink::new(text);
    sink.walk(|top| Some(read(top)));
    sink.absent.into_inner()
}

impl<'a> Sink<'a> {
    fn new(text: &'a str) -> Sink<'a> {
        let (found, dropped, absent) = Default::default();
        Sink { text, found, dropped, absent }
    }

    fn walk<T>(&self, read: impl FnOnce(Section<'_>) -> Option<T>) -> Option<T> {
        if self.text.len() as u64 > MAX_TEXT.get() {
            self.note(0..0, format!("the text is larger than {MAX_TEXT}"), None, None);
            return None;
        }
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            self.note(error.span().unwrap_or(0..0), error.message().to_owned(), None, None);
        }
        // What a broken text seems to say is a guess; complaining about it would only confuse.
        errors.is_empty().then(|| read(Section::new(self, String::new(), 0..0, table.get_ref())))?
    }

    fn note(
        &self,
        span: Range<usize>,
        message: String,
        cure: Option<String>,
        see: Option<(Range<usize>, String)>,
    ) {
        let mut found = self.found.borrow_mut();
        match found.len() < KEPT {
            true => found.push(Finding { span, message, cure, see }),
            false => self.dropped.set(self.dropped.get() + 1),
        }
    }
}

/// A place in the text that can be complained about.
#[derive(Clone)]
pub(super) struct Place<'a> {
    sink: &'a Sink<'a>,
    span: Range<usize>,
}

impl<'a> Place<'a> {
    /// Notes a problem here.
    pub(super) fn fail(&self, message: impl Into<String>, cure: impl Into<String>) {
        self.sink.note(self.span.clone(), message.into(), Some(cure.into()), None);
    }

    /// Notes a problem here for which we know no cure.
    fn fail_plainly(&self, message: String) {
        self.sink.note(self.span.clone(), message, None, None);
    }

    /// Notes that what stands here does not go together with what stands at `earlier`.
    pub(super) fn clash(&self, message: String, earlier: &Place<'a>) {
        let see = (earlier.span.clone(), "first used here".into());
        self.sink.note(self.span.clone(), message, None, Some(see));
    }
}

/// A table whose keys are taken one by one.
#[must_use = "finish() reports the keys that nobody took"]
pub(super) struct Section<'a> {
    /// Its header, or the braces of an inline table.
    pub(super) place: Place<'a>,
    /// As a person would name it: `process.web`; empty at the top.
    path: String,
    rest: Vec<Entry<'a>>,
    known: Vec<&'static str>,
}

/// A key with its value.
pub(super) struct Entry<'a> {
    pub(super) key: &'a str,
    /// Of the key.
    pub(super) place: Place<'a>,
    pub(super) value: Value<'a>,
}

impl<'a> Section<'a> {
    fn new(sink: &'a Sink<'a>, path: String, span: Range<usize>, table: &'a DeTable<'a>) -> Self {
        let entry = |(key, value): (&'a toml::Spanned<_>, &'a toml::Spanned<DeValue<'a>>)| {
            let name: &'a std::borrow::Cow<'a, str> = key.get_ref();
            let path =
                if path.is_empty() { shown(name) } else { format!("{path}.{}", shown(name)) };
            let at = |span| Place { sink, span };
            let value = Value { place: at(value.span()), path, inner: value.get_ref() };
            Entry { key: name, place: at(key.span()), value }
        };
        let rest = table.iter().map(entry).collect();
        Section { place: Place { sink, span }, path, rest, known: Vec::new() }
    }

    /// The value of `key`, if it is there.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.known.push(key);
        match self.rest.iter().position(|entry| entry.key == key) {
            Some(index) => Some(self.rest.swap_remove(index).value),
            None => {
                let path = match self.path.is_empty() {
                    true => key.to_owned(),
                    false => format!("{}.{key}", self.path),
                };
                self.place.sink.absent.borrow_mut().push(path);
                None
            }
        }
    }

    /// The table `key`, if it is there.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        self.take(key)?.section()
    }

    /// The array of tables `[[key]]`, empty when it is not there. `None`: something was noted.
    pub(super) fn sections(&mut self, key: &'static str, max: usize) -> Option<Vec<Section<'a>>> {
        let Some(value) = self.take(key) else { return Some(Vec::new()) };
        if let DeValue::Table(_) = value.inner {
            value.place.fail(format!("`{key}` is a list"), format!("write [[{key}]]"));
            return None;
        }
        let all: Vec<_> = value.list(max)?.into_iter().map(|item| item.section()).collect();
        all.into_iter().collect()
    }

    /// Takes all that is left, for tables whose keys are names that the user chose.
    pub(super) fn take_all(&mut self) -> Vec<Entry<'a>> {
        std::mem::take(&mut self.rest)
    }

    /// Refuses keys that the format has but this version does not.
    pub(super) fn later(&mut self, keys: &[&str]) {
        for entry in self.rest.extract_if(.., |entry| keys.contains(&entry.key)) {
            let name = match (entry.value.inner, self.path.is_empty()) {
                (DeValue::Array(items), true) if items.iter().any(|it| it.get_ref().is_table()) => {
                    format!("[[{}]]", entry.key)
                }
                (DeValue::Table(_), true) => format!("[{}]", entry.key),
                _ => entry.value.path.clone(),
            };
            let text = format!("`{name}` is not supported by this version yet");
            entry.place.fail_plainly(text);
        }
    }

    /// Refuses `key` with a hint of where it belongs.
    pub(super) fn misplaced(&mut self, key: &str, cure: &str) {
        for entry in self.rest.extract_if(.., |entry| entry.key == key) {
            entry.place.fail(unknown(entry.key, &self.path), cure);
        }
    }

    /// Notes that `key` is not there but must be.
    pub(super) fn missing(&self, key: &str, cure: String) {
        let text = match self.path.is_empty() {
            true => format!("`{key}` is missing"),
            false => format!("`{key}` is missing in [{}]", self.path),
        };
        self.place.fail(text, cure);
    }

    /// Whether `key` is still to be taken.
    pub(super) fn has(&self, key: &str) -> bool {
        self.rest.iter().any(|entry| entry.key == key)
    }

    /// Notes what nobody asked for.
    pub(super) fn finish(self) {
        for entry in self.rest {
            let text = unknown(entry.key, &self.path);
            match nearest(entry.key, &self.known) {
                Some(near) => entry.place.fail(text, format!("did you mean `{near}`?")),
                None => entry.place.fail_plainly(text),
            }
        }
    }
}

/// One value and where it stands.
#[derive(Clone)]
pub(super) struct Value<'a> {
    pub(super) place: Place<'a>,
    /// As a person would name it: `run.memory`.
    path: String,
    pub(super) inner: &'a DeValue<'a>,
}

impl<'a> Value<'a> {
    /// Notes a problem with the value, whose name is put in front.
    pub(super) fn fail(&self, what: impl Display, cure: impl Into<String>) {
        self.place.fail(format!("`{}` {what}", self.path), cure);
    }

    /// Notes that the value has the wrong type.
    pub(super) fn mistyped<T>(&self, want: &str, cure: Option<String>) -> Option<T> {
        let text = format!("`{}` must be {want}, not {}", self.path, kind(self.inner));
        match cure {
            Some(cure) => self.place.fail(text, cure),
            None => self.place.fail_plainly(text),
        }
        None
    }

    /// A string without NUL, at most `max` bytes long.
    pub(super) fn text(&self, max: usize) -> Option<&'a str> {
        let DeValue::String(text) = self.inner else {
            let cure = literal(self.inner).map(|text| format!("write \"{text}\""));
            return self.mistyped("a string", cure);
        };
        if text.len() > max {
            self.fail(format!("is {} bytes long", text.len()), format!("at most {max} bytes"));
            return None;
        }
        if text.contains('\0') {
            self.fail("holds a NUL character", "remove it");
            return None;
        }
        Some(text)
    }

    /// A string with at least one character other than white space.
    pub(super) fn filled(&self, max: usize) -> Option<&'a str> {
        let text = self.text(max)?;
        if text.trim().is_empty() {
            self.fail("is empty", "give it a value or remove it");
            return None;
        }
        Some(text)
    }

    /// A string that `read` accepts. An error text `what; cure` is split at the semicolon.
    pub(super) fn parsed<T, E: Display>(
        &self,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let error = match read(self.text(4096)?) {
            Ok(value) => return Some(value),
            Err(error) => error.to_string(),
        };
        match error.split_once("; ") {
            Some((what, cure)) => self.place.fail(what, cure),
            None => self.place.fail_plainly(error),
        }
        None
    }

    /// One of the given words.
    pub(super) fn one_of<T: Clone>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(4096)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(value.clone());
        }
        let names: Vec<&'static str> = words.iter().map(|(word, _)| *word).collect();
        let cure = match nearest(text, &names) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("write one of \"{}\"", names.join("\", \"")),
        };
        self.fail(format!("cannot be \"{}\"", shown(text)), cure);
        None
    }

    /// A whole number from `min` to `max`.
    pub(super) fn number(&self, min: u64, max: u64) -> Option<u64> {
        let number = match self.inner {
            DeValue::Integer(number) => number,
            DeValue::String(text) if text.parse::<u64>().is_ok() => {
                return self.mistyped("a number", Some(format!("write {text} without quotes")));
            }
            _ => return self.mistyped("a whole number", None),
        };
        let value = u64::from_str_radix(number.as_str(), number.radix()).ok();
        match value {
            Some(value) if (min..=max).contains(&value) => Some(value),
            _ => {
                self.fail(format!("is {number}, out of range"), format!("{min} to {max}"));
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn truth(&self) -> Option<bool> {
        match self.inner {
            DeValue::Boolean(truth) => Some(*truth),
            _ => self.mistyped("true or false", None),
        }
    }

    /// A size with its unit, from `min` to `max`.
    pub(super) fn bytes(&self, min: Bytes, max: Bytes) -> Option<Bytes> {
        if let DeValue::Integer(number) = self.inner {
            let text = format!("size `{number}` has no unit");
            self.place.fail(text, format!("write \"{number}MiB\""));
            return None;
        }
        let size = self.parsed(str::parse::<Bytes>)?;
        if size < min || size > max {
            self.fail(format!("is {size}, out of range"), format!("{min} to {max}"));
            return None;
        }
        Some(size)
    }

    /// A time with its unit, from `min` to `max`.
    pub(super) fn time(&self, min: Duration, max: Duration) -> Option<Duration> {
        if let DeValue::Integer(number) = self.inner {
            let text = format!("time `{number}` has no unit");
            self.place.fail(text, format!("write \"{number}s\""));
            return None;
        }
        let time = self.parsed(span::parse)?;
        if time < min || time > max {
            let range = format!("{} to {}", span::show(min), span::show(max));
            self.fail(format!("is {}, out of range", span::show(time)), range);
            return None;
        }
        Some(time)
    }

    /// The items of an array of at most `max`.
    pub(super) fn list(&self, max: usize) -> Option<Vec<Value<'a>>> {
        let DeValue::Array(items) = self.inner else {
            let cure = match self.inner {
                DeValue::String(text) => Some(format!("write [\"{}\"]", shown(text))),
                other => literal(other).map(|text| format!("write [{text}]")),
            };
            return self.mistyped("a list", cure);
        };
        if items.len() > max {
            self.fail(format!("has {} items", items.len()), format!("at most {max}"));
            return None;
        }
        let item = |item: &'a toml::Spanned<DeValue<'a>>| Value {
            place: Place { sink: self.place.sink, span: item.span() },
            path: self.path.clone(),
            inner: item.get_ref(),
        };
        Some(items.iter().map(item).collect())
    }

    /// A table.
    pub(super) fn section(&self) -> Option<Section<'a>> {
        match self.inner {
            DeValue::Table(table) => {
                let Place { sink, span } = self.place.clone();
                Some(Section::new(sink, self.path.clone(), span, table))
            }
            DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                self.mistyped("one table", Some(format!("write [{}] once", self.path)))
            }
            _ => self.mistyped("a table", None),
        }
    }
}

fn unknown(key: &str, path: &str) -> String {
    match path.is_empty() {
        true => format!("unknown key `{}`", shown(key)),
        false => format!("unknown key `{}` in [{path}]", shown(key)),
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The text of a value that has one short text.
fn literal(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Datetime(date) => Some(date.to_string()),
        DeValue::String(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
