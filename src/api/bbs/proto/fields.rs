//! The words that tables are written in. Pure.

use super::{Card, Field, Kind, Message};

const fn field(number: u32, name: &'static str, kind: Kind, card: Card) -> Field {
    Field { number, name, kind, card }
}

/// A text.
pub const fn text(number: u32, name: &'static str) -> Field {
    field(number, name, Kind::Text, Card::One)
}

/// Texts.
pub const fn texts(number: u32, name: &'static str) -> Field {
    field(number, name, Kind::Text, Card::Many)
}

/// True or false.
pub const fn truth(number: u32, name: &'static str) -> Field {
    field(number, name, Kind::Truth, Card::One)
}

/// A number that may be negative.
pub const fn signed(number: u32, name: &'static str) -> Field {
    field(number, name, Kind::Signed, Card::One)
}

/// A number that may not.
pub const fn unsigned(number: u32, name: &'static str) -> Field {
    field(number, name, Kind::Unsigned, Card::One)
}

/// Several of them.
pub const fn numbers(number: u32, name: &'static str) -> Field {
    field(number, name, Kind::Unsigned, Card::Many)
}

/// One of these words; the first is what nobody says.
pub const fn word(number: u32, name: &'static str, words: &'static [&'static str]) -> Field {
    field(number, name, Kind::Words(words), Card::One)
}

/// A message.
pub const fn one(number: u32, name: &'static str, message: &'static Message) -> Field {
    field(number, name, Kind::Message(message), Card::One)
}

/// Messages.
pub const fn many(number: u32, name: &'static str, message: &'static Message) -> Field {
    field(number, name, Kind::Message(message), Card::Many)
}

/// A message whose members are those of the object around it.
pub const fn flat(number: u32, message: &'static Message) -> Field {
    field(number, "", Kind::Message(message), Card::Flat)
}

/// From texts to texts.
pub const fn text_map(number: u32, name: &'static str) -> Field {
    field(number, name, Kind::Text, Card::Map)
}

/// From texts to messages.
pub const fn map(number: u32, name: &'static str, message: &'static Message) -> Field {
    field(number, name, Kind::Message(message), Card::Map)
}

/// From texts to JSON, and that is the whole object.
pub const fn json_map(number: u32) -> Field {
    field(number, "", Kind::Json, Card::Whole)
}

/// What this box cannot do.
pub const fn refused(number: u32, name: &'static str) -> Field {
    field(number, name, Kind::Refused, Card::One)
}

impl Field {
    /// It may be there and be zero.
    pub const fn or_none(self) -> Field {
        Field { card: Card::Set, ..self }
    }
}
