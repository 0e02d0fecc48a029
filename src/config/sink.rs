//! Where a walk over a text notes what is wrong, and the walk's first and last step.

use super::cursor::Section;
use super::diagnostic::{Diagnostics, Finding};
use crate::unit::Bytes;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use toml::de::DeTable;

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
        let top = Place { sink: self, span: 0..0 };
        errors.is_empty().then(|| read(Section::new(top, String::new(), table.get_ref())))?
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
            true => found.push(Finding { span, message, cure, see, warning: false }),
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

    /// The bytes that are meant.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Another place of the same text.
    pub(super) fn at(&self, span: Range<usize>) -> Place<'a> {
        Place { sink: self.sink, span }
    }

    /// Remembers a key that was asked for and is not there.
    pub(super) fn lacks(&self, key: String) {
        self.sink.absent.borrow_mut().push(key);
    }

    /// Notes a problem here for which we know no cure.
    pub(super) fn fail_plainly(&self, message: String) {
        self.sink.note(self.span.clone(), message, None, None);
    }

    /// Notes that what stands here does not go together with what stands at `earlier`.
    pub(super) fn clash(&self, message: String, earlier: &Place<'a>) {
        let see = (earlier.span.clone(), "first used here".into());
        self.sink.note(self.span.clone(), message, None, Some(see));
    }
}
