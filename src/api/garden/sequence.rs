//! JSON values one after another on a stream that cuts them anywhere. Pure.

use super::decode::decode;
use crate::model::garden::Message;
use serde_json::{Map, Value};

/// Longest message, in bytes. The Go client cuts input into pieces of 32 KiB, which escaping can
/// make six times as long.
pub(super) const MESSAGE_MAX: usize = 4 * 1024 * 1024;

/// What a long message leaves behind for the next one, in bytes.
pub(super) const KEEP: usize = 64 * 1024;

/// Finds the messages. Each byte is looked at once, however small the pieces are.
#[derive(Default)]
pub(super) struct Sequence {
    bytes: Vec<u8>,
    /// Before it everything has been taken.
    start: usize,
    /// Before it everything has been looked at.
    seen: usize,
    /// Open objects and lists at `seen`.
    depth: usize,
    place: Place,
}

/// Where in the value `seen` is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Outside,
    InText,
    AfterBackslash,
}

/// What came is no message, and where the next one begins cannot be known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken(pub(super) &'static str);

const NO_OBJECT: Broken = Broken("it is no JSON object");
const TOO_LONG: Broken = Broken("it is longer than 4 MiB");

impl Sequence {
    /// More of the stream. Take the messages out before the next piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.bytes.drain(..self.start);
        self.seen -= self.start;
        self.start = 0;
        if self.bytes.is_empty() {
            self.bytes.shrink_to(KEEP);
        }
        self.bytes.extend_from_slice(piece);
    }

    /// Bytes of what is not a message yet.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The next message; `None`: it is not all there.
    pub(super) fn next(&mut self) -> Result<Option<Message>, Broken> {
        if self.depth == 0 {
            let space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
            self.start += self.bytes[self.start..].iter().take_while(space).count();
            self.seen = self.start;
            match self.bytes.get(self.start) {
                None => return Ok(None),
                Some(b'{') => {}
                Some(_) => return Err(NO_OBJECT),
            }
        }
        match self.end() {
            Some(end) if end - self.start <= MESSAGE_MAX => {
                let message = message(&self.bytes[self.start..end])?;
                (self.start, self.seen) = (end, end);
                // It may take long to carry out, and a long one is not to be kept twice.
                if end == self.bytes.len() {
                    (self.bytes, self.start, self.seen) = (Vec::new(), 0, 0);
                }
                Ok(Some(message))
            }
            None if self.bytes.len() - self.start <= MESSAGE_MAX => Ok(None),
            _ => Err(TOO_LONG),
        }
    }

    /// Looks on for the end of the object that began at `start`.
    fn end(&mut self) -> Option<usize> {
        while let Some(&byte) = self.bytes.get(self.seen) {
            self.seen += 1;
            self.place = match (self.place, byte) {
                (Place::InText, b'\\') => Place::AfterBackslash,
                (Place::InText, b'"') => Place::Outside,
                (Place::InText | Place::AfterBackslash, _) => Place::InText,
                (Place::Outside, b'"') => Place::InText,
                (Place::Outside, b'{' | b'[') => {
                    self.depth += 1;
                    Place::Outside
                }
                (Place::Outside, b'}' | b']') => {
                    // The first byte is a brace, so there is one to close.
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(self.seen);
                    }
                    Place::Outside
                }
                (Place::Outside, _) => Place::Outside,
            };
        }
        None
    }
}

/// One object as a message, without the process's name: clients of 2015 say a number there, and
/// nobody looks at it.
fn message(bytes: &[u8]) -> Result<Message, Broken> {
    let mut fields: Map<String, Value> = decode(bytes).map_err(|_| NO_OBJECT)?;
    fields.remove("process_id");
    let wrong = |_| Broken("a field of it has a wrong type");
    serde_json::from_value(Value::Object(fields)).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::garden::Order;

    /// Everything that comes of `text` in pieces of `size` bytes.
    fn orders(text: &[u8], size: usize) -> Result<Vec<Order>, Broken> {
        let (mut sequence, mut out) = (Sequence::default(), Vec::new());
        for piece in text.chunks(size) {
            sequence.push(piece);
            while let Some(message) = sequence.next()? {
                out.push(message.order());
            }
        }
        Ok(out)
    }

    #[test]
    fn messages_are_found_however_they_are_cut_or_joined() {
        let text = br#"{"process_id":"p","source":0,"data":"a}\"{\\"}{"process_id":7,"SIGNAL":1}

            {"tty":{"window_size":{"columns":3,"rows":4}}}  {"source":0,"junk":[{},["]"]]}"#;
        let size = crate::model::garden::WindowSize { columns: 3, rows: 4 };
        let expected = [
            Order::Input(b"a}\"{\\".to_vec()),
            Order::Kill,
            Order::Resize(size),
            Order::EndOfInput,
        ];
        for size in [1, 2, 3, 5, 7, 50, 1000] {
            assert_eq!(orders(text, size).expect("messages"), expected, "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_message_ends_the_sequence() {
        for text in ["5", "nothing", "[]", "}", r#"{"source":"x"}"#, "{]", "{\"a\" 1}"] {
            assert!(orders(text.as_bytes(), 100).is_err(), "{text}");
        }
    }

    #[test]
    fn a_message_has_a_longest_length_and_its_memory_comes_back() {
        let of = |data: usize| {
            let frame = r#"{"source":0,"data":""}"#.len();
            format!(r#"{{"source":0,"data":"{}"}}"#, "x".repeat(data - frame)).into_bytes()
        };
        assert_eq!(orders(&of(MESSAGE_MAX), 8192).expect("it fits").len(), 1);
        assert_eq!(orders(&of(MESSAGE_MAX + 1), 8192), Err(TOO_LONG));
        let endless = vec![b' '; MESSAGE_MAX + 1];
        assert_eq!(orders(&endless, 8192), Ok(Vec::new()), "space is dropped, not kept");

        let mut sequence = Sequence::default();
        sequence.push(&of(MESSAGE_MAX));
        assert!(matches!(sequence.next(), Ok(Some(_))));
        sequence.push(b"{");
        assert!(sequence.bytes.capacity() <= KEEP);
    }
}
