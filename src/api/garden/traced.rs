//! A parsed JSON value as one of our shapes, and where in it something is not as it should be. Pure.

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Characters of a client's own text that an error repeats.
const SHOWN_MAX: usize = 64;

/// Fields whose content is no error's business: it may be a secret, and errors are logged.
const SECRET: [&str; 3] = ["env", "password", "properties"];

/// One part of the value.
pub(super) struct Traced(pub(super) Value);

/// What is wrong, and where: "field `limits.cpu_limits.weight` is ..., not ...".
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Innermost first.
    path: Vec<Step>,
    /// What is there, with its content or without.
    found: Option<(String, &'static str)>,
    /// What should be, or why what is there will not do.
    reason: Reason,
}

#[derive(Debug, PartialEq, Eq)]
enum Reason {
    Expected(String),
    Refused(String),
}

/// One step down.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Item(usize),
}

impl Wrong {
    fn new(found: Unexpected<'_>, expected: &dyn de::Expected) -> Wrong {
        let reason = Reason::Expected(named(&expected.to_string()));
        Wrong { path: Vec::new(), found: Some(described(found)), reason }
    }

    /// The same as seen from one step further out.
    fn below(mut self, step: Step) -> Wrong {
        self.path.push(step);
        self
    }

    /// A text that was refused by itself is told with the refusal.
    fn of(mut self, text: &str) -> Wrong {
        self.found.get_or_insert_with(|| described(Unexpected::Str(text)));
        self
    }

    fn is_secret(&self) -> bool {
        let mut fields = self.path.iter().filter_map(|step| match step {
            Step::Field(name) => Some(name.as_str()),
            Step::Item(_) => None,
        });
        fields.any(|name| SECRET.contains(&name))
    }
}

/// What was found, in full and as its kind.
fn described(found: Unexpected<'_>) -> (String, &'static str) {
    match found {
        Unexpected::Unit | Unexpected::Option => ("null".into(), "null"),
        Unexpected::Bool(value) => (value.to_string(), "true or false"),
        Unexpected::Unsigned(number) => (format!("the number {number}"), "a number"),
        Unexpected::Signed(number) => (format!("the number {number}"), "a number"),
        Unexpected::Float(number) => (format!("the number {number}"), "a number"),
        Unexpected::Str(text) => {
            let end = text.char_indices().nth(SHOWN_MAX);
            let (text, more) = end.map_or((text, ""), |(end, _)| (&text[..end], "..."));
            (format!("the text {text:?}{more}"), "a text")
        }
        Unexpected::Seq => ("a list".into(), "a list"),
        _ => ("an object".into(), "an object"),
    }
}

/// What is expected, for who does not know Rust.
fn named(expected: &str) -> String {
    let most = match expected {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        "u64" => u64::MAX,
        "i32" | "i64" => return "a whole number".into(),
        "a string" => return "a text".into(),
        "a boolean" => return "true or false".into(),
        "a sequence" => return "a list".into(),
        "a map" => return "an object".into(),
        other if other.starts_with("struct ") => return "an object".into(),
        other => return other.into(),
    };
    format!("a whole number from 0 to {most}")
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.path.is_empty() { "the body" } else { "field `" })?;
        for (at, step) in self.path.iter().rev().enumerate() {
            match step {
                Step::Field(name) if at == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Item(item) => write!(f, "[{item}]")?,
            }
        }
        f.write_str(if self.path.is_empty() { "" } else { "`" })?;
        match &self.found {
            Some((_, kind)) if self.is_secret() => write!(f, " is {kind}")?,
            Some((found, _)) => write!(f, " is {found}")?,
            None => {}
        }
        match &self.reason {
            Reason::Expected(what) => write!(f, ", not {what}"),
            Reason::Refused(why) => write!(f, ": {why}"),
        }
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(text: T) -> Wrong {
        Wrong { path: Vec::new(), found: None, reason: Reason::Refused(text.to_string()) }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Wrong {
        Wrong::new(found, expected)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Wrong {
        Wrong::new(found, expected)
    }
}

impl<'de> Deserializer<'de> for Traced {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), _, _) => visitor.visit_u64(number),
                (None, Some(number), _) => visitor.visit_i64(number),
                (None, None, number) => visitor.visit_f64(number.unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_str(&text).map_err(|wrong: Wrong| wrong.of(&text)),
            Value::Array(items) => visitor.visit_seq(Items(items.into_iter().enumerate())),
            Value::Object(fields) => visitor.visit_map(Fields(fields.into_iter(), None)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    /// A list is no object, though a shape could be filled from one in order.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::Array(_) => Err(Wrong::new(Unexpected::Seq, &visitor)),
            Value::Null => visitor.visit_map(Fields(Map::new().into_iter(), None)),
            _ => self.deserialize_any(visitor),
        }
    }

    /// `null` leaves a Go value as it is: empty, in a list too.
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::Null => visitor.visit_str(""),
            _ => self.deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A list.
struct Items(std::iter::Enumerate<std::vec::IntoIter<Value>>);

impl<'de> SeqAccess<'de> for Items {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Wrong> {
        let Some((at, item)) = self.0.next() else { return Ok(None) };
        let item = seed.deserialize(Traced(item));
        item.map(Some).map_err(|wrong| wrong.below(Step::Item(at)))
    }
}

/// An object, and the field whose value comes next.
struct Fields(<Map<String, Value> as IntoIterator>::IntoIter, Option<(String, Value)>);

impl<'de> MapAccess<'de> for Fields {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Wrong> {
        self.1 = self.0.next();
        let Some((name, _)) = &self.1 else { return Ok(None) };
        seed.deserialize(Traced(Value::String(name.clone()))).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let (name, value) = self.1.take().expect("a key comes before its value");
        seed.deserialize(Traced(value)).map_err(|wrong| wrong.below(Step::Field(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::garden::{ContainerSpec, NetOutRule, Stop};
    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    fn wrong<T: DeserializeOwned>(text: &str) -> String {
        let value = serde_json::from_str(text).expect("JSON");
        T::deserialize(Traced(value)).err().expect("it is wrong").to_string()
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let most = u64::MAX;
        for (text, expected) in [
            (
                r#"{"limits":{"memory_limits":{"limit_in_bytes":"64M"}}}"#,
                format!(
                    "field `limits.memory_limits.limit_in_bytes` is the text \"64M\", not a whole \
                     number from 0 to {most}"
                ),
            ),
            (
                r#"{"netin":[{"host_port":1},{"host_port":-1}]}"#,
                "field `netin[1].host_port` is the number -1, not a whole number from 0 to \
                 4294967295"
                    .into(),
            ),
            (r#"{"handle":["x"]}"#, "field `handle` is a list, not a text".into()),
            (r#"{"limits":7}"#, "field `limits` is the number 7, not an object".into()),
            (r#"{"env":"PASSWORD=x"}"#, "field `env` is a text, not a list".into()),
            (r#"{"env":[5]}"#, "field `env[0]` is a number, not a text".into()),
            (r#"{"properties":{"a":{}}}"#, "field `properties.a` is an object, not a text".into()),
            (r#""x""#, "the body is the text \"x\", not an object".into()),
            ("[]", "the body is a list, not an object".into()),
            (r#"{"limits":[]}"#, "field `limits` is a list, not an object".into()),
            (r#"{"netin":[[80,80]]}"#, "field `netin[0]` is a list, not an object".into()),
        ] {
            assert_eq!(wrong::<ContainerSpec>(text), expected);
        }
        let nulls = serde_json::from_str(r#"{"env":[null,"A=b"],"netin":[null]}"#).expect("JSON");
        let spec = ContainerSpec::deserialize(Traced(nulls)).expect("as Go takes it");
        assert_eq!((spec.env, spec.netin.len()), (vec!["".into(), "A=b".into()], 1));
        assert_eq!(
            wrong::<Stop>(r#"{"kill":1.5}"#),
            "field `kill` is the number 1.5, not true or false"
        );
        let address = wrong::<NetOutRule>(r#"{"networks":[{"start":"10.0.0.300"}]}"#);
        let expected =
            "field `networks[0].start` is the text \"10.0.0.300\": invalid IP address syntax";
        assert_eq!(address, expected);
        let long = wrong::<Stop>(&format!("{{\"kill\":\"{}\"}}", "é".repeat(10_000)));
        assert!(long.len() < 300 && long.contains("\"..., not "), "{long}");
    }
}
