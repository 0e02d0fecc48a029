//! What a message of the BBS looks like, as a table, and by it from bytes to JSON and back. Pure.
//!
//! The JSON is that of the receptor's dialect, whose names are the BBS's own in Go: what reads and
//! shows Tasks and LRPs there does so here. A member that is not there is zero, as in protobuf.

mod fields;

pub use fields::{
    flat, json_map, many, map, numbers, one, refused, signed, text, text_map, texts, truth,
    unsigned, word,
};

use super::wire::{Malformed, Raw, Reader, put_bytes, put_numbered};
use serde_json::{Map, Value, json};

/// Messages within messages. JSON of such a depth is still read again from a record: an action in an
/// action is two messages, and three levels of JSON.
const DEPTH_MAX: usize = 64;
/// Fields of one message with all that is in it.
const FIELDS_MAX: usize = 1 << 16;

/// A kind of message: its fields, by number.
pub struct Message(pub &'static [Field]);

/// One field.
pub struct Field {
    number: u32,
    /// Its member in JSON.
    name: &'static str,
    kind: Kind,
    card: Card,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Truth,
    /// `int32`, `int64`.
    Signed,
    /// `uint32`, `uint64`.
    Unsigned,
    /// By their numbers, from 0.
    Words(&'static [&'static str]),
    Message(&'static Message),
    /// Bytes that are JSON.
    Json,
    /// What this box cannot do: nobody may say it.
    Refused,
}

/// How often.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Card {
    /// Once; zero is not written.
    One,
    /// Once or not at all, and zero is something else than nothing.
    Set,
    Many,
    /// From texts to values.
    Map,
    /// The same, and the object has nothing else.
    Whole,
    /// A message whose members are those of the object around it, as Go embeds it.
    Flat,
}

/// Why bytes are not the message that was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// They are none.
    Malformed(&'static str),
    /// They say something in this field that cannot be had.
    Field(&'static str),
}

impl From<Malformed> for Unread {
    fn from(err: Malformed) -> Unread {
        Unread::Malformed(err.0)
    }
}

/// Reads a message.
pub fn decode(message: &Message, bytes: &[u8]) -> Result<Map<String, Value>, Unread> {
    let mut out = Map::new();
    Reading { left: FIELDS_MAX }.message(message, bytes, &mut out, DEPTH_MAX)?;
    Ok(out)
}

/// How many fields may still come.
struct Reading {
    left: usize,
}

impl Reading {
    fn message(
        &mut self,
        message: &Message,
        bytes: &[u8],
        out: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), Unread> {
        let depth = depth.checked_sub(1).ok_or(Malformed("messages lie too deep in messages"))?;
        let mut reader = Reader(bytes);
        while let Some((number, raw)) = reader.field()? {
            self.left = self.left.checked_sub(1).ok_or(Malformed("there are too many fields"))?;
            // What nobody knows is from a newer client.
            if let Some(field) = message.0.iter().find(|field| field.number == number) {
                self.field(field, raw, out, depth)?;
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: &Field,
        raw: Raw<'_>,
        out: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), Unread> {
        let name = || field.name.to_owned();
        match (field.card, &field.kind, raw) {
            (Card::Flat, Kind::Message(inner), Raw::Bytes(bytes)) => {
                return self.message(inner, bytes, out, depth);
            }
            // The parts of one that comes in parts belong together.
            (Card::One | Card::Set, Kind::Message(inner), Raw::Bytes(bytes)) => {
                let slot = out.entry(name()).or_insert_with(|| json!({}));
                let Value::Object(members) = slot else { return Ok(()) };
                return self.message(inner, bytes, members, depth);
            }
            (Card::One | Card::Set, ..) => {
                out.insert(name(), self.value(field, raw, depth)?);
            }
            (Card::Map, _, Raw::Bytes(bytes)) => {
                let (key, value) = self.entry(field, bytes, depth)?;
                let slot = out.entry(name()).or_insert_with(|| json!({}));
                slot.as_object_mut().map(|members| members.insert(key, value));
            }
            (Card::Whole, _, Raw::Bytes(bytes)) => {
                let (key, value) = self.entry(field, bytes, depth)?;
                out.insert(key, value);
            }
            (Card::Many, Kind::Unsigned, Raw::Bytes(mut bytes)) => {
                let slot = out.entry(name()).or_insert_with(|| json!([]));
                while !bytes.is_empty() {
                    let mut reader = Reader(bytes);
                    let number = reader.number()?;
                    bytes = reader.0;
                    self.left =
                        self.left.checked_sub(1).ok_or(Malformed("there are too many fields"))?;
                    push(slot, number.into());
                }
            }
            (Card::Many, ..) => {
                let value = self.value(field, raw, depth)?;
                let slot = out.entry(name()).or_insert_with(|| json!([]));
                push(slot, value);
            }
            (Card::Map | Card::Whole | Card::Flat, ..) => return Err(OTHER_KIND.into()),
        }
        Ok(())
    }

    /// Key and value of a map: fields 1 and 2 of a message.
    fn entry(
        &mut self,
        field: &Field,
        bytes: &[u8],
        depth: usize,
    ) -> Result<(String, Value), Unread> {
        let depth = depth.checked_sub(1).ok_or(Malformed("messages lie too deep in messages"))?;
        let (mut key, mut value) = (String::new(), self.nothing(field, depth)?);
        let mut reader = Reader(bytes);
        while let Some((number, raw)) = reader.field()? {
            match (number, raw) {
                (1, Raw::Bytes(bytes)) => key = utf8(bytes)?,
                (2, raw) => value = self.value(field, raw, depth)?,
                _ => {}
            }
        }
        Ok((key, value))
    }

    /// The value of a map's entry that has none.
    fn nothing(&mut self, field: &Field, depth: usize) -> Result<Value, Unread> {
        match field.kind {
            Kind::Json => Ok(Value::Null),
            _ => self.value(field, Raw::Bytes(&[]), depth),
        }
    }

    fn value(&mut self, field: &Field, raw: Raw<'_>, depth: usize) -> Result<Value, Unread> {
        Ok(match (&field.kind, raw) {
            (Kind::Text, Raw::Bytes(bytes)) => utf8(bytes)?.into(),
            (Kind::Truth, Raw::Number(number)) => (number != 0).into(),
            (Kind::Signed, Raw::Number(number)) => (number as i64).into(),
            (Kind::Unsigned, Raw::Number(number)) => number.into(),
            (Kind::Words(words), Raw::Number(number)) => {
                let word = usize::try_from(number).ok().and_then(|number| words.get(number));
                word.map_or_else(|| number.into(), |word| (*word).into())
            }
            (Kind::Message(inner), Raw::Bytes(bytes)) => {
                let mut members = Map::new();
                self.message(inner, bytes, &mut members, depth)?;
                members.into()
            }
            (Kind::Json, Raw::Bytes(&[])) => Value::Null,
            (Kind::Json, Raw::Bytes(bytes)) => {
                serde_json::from_slice(bytes).map_err(|_| Unread::Field("routes"))?
            }
            (Kind::Refused, Raw::Number(0) | Raw::Bytes(&[])) => Value::Null,
            (Kind::Refused, _) => return Err(Unread::Field(field.name)),
            _ => return Err(OTHER_KIND.into()),
        })
    }
}

fn push(list: &mut Value, item: Value) {
    if let Value::Array(items) = list {
        items.push(item);
    }
}

const OTHER_KIND: Malformed = Malformed("a field is of another kind than it should be");

fn utf8(bytes: &[u8]) -> Result<String, Malformed> {
    let text = str::from_utf8(bytes).map_err(|_| Malformed("a text is not UTF-8"))?;
    Ok(text.to_owned())
}

/// Writes a message, its fields in the order of the table.
pub fn encode(message: &Message, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for field in message.0 {
        match field.card {
            Card::Flat => put(&mut out, field, value),
            Card::Whole => put_entries(&mut out, field, value),
            Card::Map => put_entries(&mut out, field, &value[field.name]),
            Card::Many => {
                let items = value[field.name].as_array().map(Vec::as_slice).unwrap_or_default();
                items.iter().for_each(|item| put(&mut out, field, item));
            }
            Card::One if is_zero(field, &value[field.name]) => {}
            Card::One => put(&mut out, field, &value[field.name]),
            Card::Set if value[field.name].is_null() => {}
            Card::Set => put(&mut out, field, &value[field.name]),
        }
    }
    out
}

/// What a field that occurs once is not written for.
fn is_zero(field: &Field, value: &Value) -> bool {
    match &field.kind {
        Kind::Text => value.as_str().is_none_or(str::is_empty),
        Kind::Message(_) => !value.is_object(),
        Kind::Json => false,
        Kind::Refused => true,
        Kind::Truth | Kind::Signed | Kind::Unsigned | Kind::Words(_) => number(field, value) == 0,
    }
}

fn put_entries(out: &mut Vec<u8>, field: &Field, value: &Value) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, key.as_bytes());
        let value_field = Field { number: 2, name: "", kind: field.kind, card: Card::Set };
        put(&mut entry, &value_field, value);
        put_bytes(out, field.number, &entry);
    }
}

fn put(out: &mut Vec<u8>, field: &Field, value: &Value) {
    match &field.kind {
        Kind::Text => {
            put_bytes(out, field.number, value.as_str().unwrap_or_default().as_bytes());
        }
        Kind::Message(inner) => put_bytes(out, field.number, &encode(inner, value)),
        Kind::Json => put_bytes(out, field.number, value.to_string().as_bytes()),
        Kind::Refused => {}
        Kind::Truth | Kind::Signed | Kind::Unsigned | Kind::Words(_) => {
            put_numbered(out, field.number, number(field, value));
        }
    }
}

fn number(field: &Field, value: &Value) -> u64 {
    match (&field.kind, value) {
        (Kind::Truth, value) => u64::from(value.as_bool().unwrap_or_default()),
        (Kind::Words(words), Value::String(text)) => {
            words.iter().position(|word| word == text).unwrap_or_default() as u64
        }
        (_, value) => match value.as_u64() {
            Some(number) => number,
            // In two's complement.
            None => value.as_i64().unwrap_or_default() as u64,
        },
    }
}

#[cfg(test)]
mod tests;
