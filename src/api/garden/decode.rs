//! JSON as Go's decoder takes it: names in any case, `null` for what is not there, whatever comes
//! after the value is not looked at. Pure but for [`json`], which reads the body.

use super::BODY_MAX;
use super::refusal::Refusal;
use super::traced::Traced;
use crate::api::http::Body;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The one field whose object is no shape of ours: its names are the client's own.
const OPEN: &str = "properties";

/// The body, read to its end. What is wrong with it is an ordinary error with the decoder's text.
pub(super) async fn json<T: DeserializeOwned + Default>(body: &mut Body<'_>) -> Result<T, Refusal> {
    let bytes = body.bytes(BODY_MAX).await?;
    decode(&bytes).map_err(Refusal::ordinary)
}

/// The first value in `bytes`; nothing at all is `EOF`.
pub(super) fn decode<T: DeserializeOwned + Default>(bytes: &[u8]) -> Result<T, String> {
    if bytes.trim_ascii().is_empty() {
        return Err("EOF".into());
    }
    // Go puts U+FFFD for what is not UTF-8.
    let text = String::from_utf8_lossy(bytes);
    let value = Value::deserialize(&mut serde_json::Deserializer::from_str(&text));
    shape(value.map_err(|err| format!("the body is no JSON: {err}"))?)
}

/// A value as one of our shapes, whose names are all in small letters.
fn shape<T: DeserializeOwned + Default>(value: Value) -> Result<T, String> {
    match plain(value) {
        Value::Null => Ok(T::default()),
        value => T::deserialize(Traced(value)).map_err(|wrong| wrong.to_string()),
    }
}

/// With all names in small letters and without what is `null`. The recursion is as deep as the
/// parser allows, 128.
fn plain(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        Value::Object(fields) => Value::Object(plain_fields(fields)),
        value => value,
    }
}

fn plain_fields(fields: Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    for (name, value) in fields {
        let known = name.to_ascii_lowercase();
        // A name that is spelled right wins over one that is not.
        if value.is_null() || (known != name && out.contains_key(&known)) {
            continue;
        }
        let value = match value {
            Value::Object(own) if known == OPEN => Value::Object(own_names(own)),
            value => plain(value),
        };
        out.insert(known, value);
    }
    out
}

/// The client's own names as they are; `null` is the empty text.
fn own_names(own: Map<String, Value>) -> Map<String, Value> {
    let text = |value: Value| if value.is_null() { Value::String(String::new()) } else { value };
    own.into_iter().map(|(name, value)| (name, text(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::garden::{ContainerSpec, NetOutRule, Property, Stop};

    fn spec(text: &str) -> ContainerSpec {
        decode(text.as_bytes()).expect("a spec")
    }

    #[test]
    fn names_are_known_in_any_case_but_for_the_clients_own() {
        let spec = spec(
            r#"{"Handle":"h","LIMITS":{"Memory_Limits":{"limit_in_BYTES":7}},
                "Properties":{"Owner":"x","owner":"y","none":null},"Netin":[{"Host_Port":1}]}"#,
        );
        assert_eq!((spec.handle.as_str(), spec.limits.memory.limit_in_bytes), ("h", 7));
        assert_eq!((spec.properties["Owner"].as_str(), &*spec.properties["owner"]), ("x", "y"));
        assert_eq!((spec.properties["none"].as_str(), spec.netin[0].host_port), ("", 1));
    }

    #[test]
    fn a_name_that_is_spelled_right_wins_and_the_last_of_equals_does() {
        for text in [r#"{"handle":"a","HANDLE":"b"}"#, r#"{"HANDLE":"b","handle":"a"}"#] {
            assert_eq!(spec(text).handle, "a");
        }
        assert_eq!(spec(r#"{"handle":"a","handle":"b"}"#).handle, "b");
    }

    #[test]
    fn null_is_what_is_not_there_at_any_depth() {
        assert_eq!(spec("null"), ContainerSpec::default());
        let nulls = r#"{"limits":{"disk_limits":{"byte_hard":null}},"image":null}"#;
        assert_eq!(spec(nulls), ContainerSpec::default());
        assert_eq!(decode::<i64>(b"null"), Ok(0));
        assert_eq!(decode::<Vec<NetOutRule>>(b" null "), Ok(Vec::new()));
        assert_eq!(decode(br#"{"kill":null}"#), Ok(Stop { kill: false }));
    }

    #[test]
    fn bare_values_and_what_follows_them() {
        assert_eq!(decode::<i64>(b"5000000000\n"), Ok(5_000_000_000));
        assert_eq!(decode(br#"{"kill":true} and more"#), Ok(Stop { kill: true }));
        let lossy = decode::<Property>(b"{\"value\":\"a\xffb\"}").expect("taken");
        assert_eq!(lossy.value, "a\u{fffd}b");
    }

    #[test]
    fn what_is_wrong_is_said_by_the_decoder_and_nothing_is_eof() {
        assert_eq!(decode::<Stop>(b""), Err("EOF".into()));
        assert_eq!(decode::<Stop>(b" \n"), Err("EOF".into()));
        for (text, why) in [
            ("{", "the body is no JSON: EOF while parsing an object at line 1 column 1"),
            ("nonsense", "the body is no JSON: expected ident at line 1 column 2"),
            (r#"{"KILL":"yes"}"#, "field `kill` is the text \"yes\", not true or false"),
        ] {
            assert_eq!(decode::<Stop>(text.as_bytes()), Err(why.into()));
        }
        let deep = "[".repeat(100_000);
        assert!(decode::<Stop>(deep.as_bytes()).is_err(), "no stack is lost");
    }
}
