//! Lists and maps of other people's JSON that are counted while they are read: a document of a few
//! megabytes has room for hundreds of thousands of entries, and each of them costs many times its text.
//! Pure.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// Most entries of a list or map that is kept.
pub const ENTRIES_MAX: usize = 10_000;

/// Whether a document has more than `most` values, or commas in its texts: for those whose lists hold lists,
/// so that a bound of each bounds nothing.
pub fn has_more(json: &[u8], most: usize) -> bool {
    json.iter().filter(|byte| **byte == b',').nth(most).is_some()
}

/// A list of at most `most` entries; null is an empty one. `name` is what errors call it.
pub fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
    name: &'static str,
    most: usize,
) -> Result<Vec<T>, D::Error> {
    from.deserialize_any(List { name, most, is_of: PhantomData })
}

/// The same of a map. Each time that a key stands there counts.
pub fn map<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
    name: &'static str,
    most: usize,
) -> Result<BTreeMap<String, T>, D::Error> {
    from.deserialize_any(Map { name, most, is_of: PhantomData })
}

/// A list of words, or as very old images have it, one word.
pub fn words<'de, D: Deserializer<'de>>(
    from: D,
    name: &'static str,
    most: usize,
) -> Result<Vec<String>, D::Error> {
    from.deserialize_any(Words(List { name, most, is_of: PhantomData }))
}

fn many<E: Error>(name: &str, most: usize) -> E {
    E::custom(format_args!("`{name}` has more than {most} entries"))
}

struct List<T> {
    name: &'static str,
    most: usize,
    is_of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list for `{}`", self.name)
    }

    fn visit_unit<E: Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            if all.len() >= self.most {
                return Err(many(self.name, self.most));
            }
            all.push(item);
        }
        Ok(all)
    }
}

struct Map<T> {
    name: &'static str,
    most: usize,
    is_of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Map<T> {
    type Value = BTreeMap<String, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map for `{}`", self.name)
    }

    fn visit_unit<E: Error>(self) -> Result<BTreeMap<String, T>, E> {
        Ok(BTreeMap::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<BTreeMap<String, T>, A::Error> {
        let (mut all, mut seen) = (BTreeMap::new(), 0);
        while let Some((key, value)) = items.next_entry()? {
            seen += 1;
            if seen > self.most {
                return Err(many(self.name, self.most));
            }
            all.insert(key, value);
        }
        Ok(all)
    }
}

struct Words(List<String>);

impl<'de> Visitor<'de> for Words {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a word or a list of words for `{}`", self.0.name)
    }

    fn visit_unit<E: Error>(self) -> Result<Vec<String>, E> {
        Ok(Vec::new())
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Vec<String>, E> {
        Ok(vec![word.to_owned()])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Vec<String>, A::Error> {
        self.0.visit_seq(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IgnoredAny;

    fn said<T>(
        text: &str,
        read: impl FnOnce(
            &mut serde_json::Deserializer<serde_json::de::StrRead<'_>>,
        ) -> Result<T, serde_json::Error>,
    ) -> Result<T, String> {
        read(&mut serde_json::Deserializer::from_str(text)).map_err(|err| err.to_string())
    }

    #[test]
    fn values_are_counted_by_what_is_between_them() {
        assert!(!has_more(b"[1,[2,3]]", 2) && has_more(b"[1,[2,3]]", 1) && !has_more(b"", 0));
    }

    #[test]
    fn what_is_too_many_is_an_error_that_names_it() {
        let list = |text: &str| said(text, |from| list::<u8, _>(from, "layers", 3));
        assert_eq!(list("[1,2,3]"), Ok(vec![1, 2, 3]));
        assert_eq!((list("null"), list("[]")), (Ok(vec![]), Ok(vec![])));
        let many = list("[1,2,3,4]").expect_err("too many");
        assert!(many.starts_with("`layers` has more than 3 entries"), "{many}");
        assert!(list("{}").expect_err("no list").contains("a list for `layers`"));

        let map = |text: &str| said(text, |from| map::<IgnoredAny, _>(from, "Labels", 2));
        assert_eq!(
            map(r#"{"b":1,"a":[{}]}"#).map(|all| all.into_keys().collect::<String>()),
            Ok("ab".into())
        );
        assert_eq!(map("null").map(|all| all.len()), Ok(0));
        // The same one again and again is read again and again.
        let many = map(r#"{"a":1,"a":1,"a":1}"#).expect_err("too many");
        assert!(many.starts_with("`Labels` has more than 2 entries"), "{many}");

        let words = |text: &str| said(text, |from| words(from, "Cmd", 1));
        assert_eq!(words(r#""one""#), Ok(vec!["one".to_owned()]));
        assert_eq!(words(r#"["one"]"#), Ok(vec!["one".to_owned()]));
        assert_eq!(words("null"), Ok(vec![]));
        assert!(words(r#"["a","b"]"#).expect_err("too many").contains("`Cmd`"));
        assert!(words("7").is_err());
    }
}
