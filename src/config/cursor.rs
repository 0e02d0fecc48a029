//! Walks a parsed TOML text by hand, so that one pass finds everything that is wrong with it.
//!
//! A getter that fails notes the problem and returns `None`; the caller goes on with the default.
//! At the end the values are good if and only if nothing was noted. A [`Section`] knows its keys
//! from what was asked of it, and what is left over is unknown.

use super::sink::Place;
use super::words::{nearest, shown};
use crate::unit::{Bytes, span};
use std::fmt::Display;
use std::time::Duration;
use toml::de::{DeTable, DeValue};

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
    pub(super) fn new(place: Place<'a>, path: String, table: &'a DeTable<'a>) -> Section<'a> {
        let entry = |(key, value): (&'a toml::Spanned<_>, &'a toml::Spanned<DeValue<'a>>)| {
            let name: &'a std::borrow::Cow<'a, str> = key.get_ref();
            let path =
                if path.is_empty() { shown(name) } else { format!("{path}.{}", shown(name)) };
            let value = Value { place: place.at(value.span()), path, inner: value.get_ref() };
            Entry { key: name, place: place.at(key.span()), value }
        };
        let rest = table.iter().map(entry).collect();
        Section { place, path, rest, known: Vec::new() }
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
                self.place.lacks(path);
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
                None if self.known.is_empty() => entry.place.fail_plainly(text),
                None => entry.place.fail(text, format!("known here: {}", self.known.join(", "))),
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
            let cure = match number.to_string().starts_with('-') {
                true => "write a time from 0 on, such as \"30s\"".to_owned(),
                false => format!("write \"{number}s\""),
            };
            self.place.fail(text, cure);
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
            place: self.place.at(item.span()),
            path: self.path.clone(),
            inner: item.get_ref(),
        };
        Some(items.iter().map(item).collect())
    }

    /// A table.
    pub(super) fn section(&self) -> Option<Section<'a>> {
        match self.inner {
            DeValue::Table(table) => {
                Some(Section::new(self.place.clone(), self.path.clone(), table))
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
