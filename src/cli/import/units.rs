//! Sizes, rates and values as cf's manifests write them. Pure.

use crate::lifecycle::yaml::{Node, Tree};
use serde_json::{Map, Value};

/// MiB of a size in upper case, as cf writes it.
pub fn mib(text: &str) -> Option<u64> {
    let text = text.strip_suffix('B').unwrap_or(text);
    let (number, scale) = match text.strip_suffix(['M', 'G', 'T']) {
        Some(number) if text.ends_with('M') => (number, 1),
        Some(number) if text.ends_with('G') => (number, 1 << 10),
        Some(number) => (number, 1 << 20),
        None => return None,
    };
    let number: u64 = number.trim().parse().ok()?;
    number.checked_mul(scale).filter(|mib| (1..=1 << 26).contains(mib))
}

/// Bytes of a rate in upper case, as cf writes it.
pub fn bytes(text: &str) -> Option<u64> {
    let short = text.strip_suffix('B').unwrap_or(text);
    let (number, scale) = match short.strip_suffix(['K', 'M', 'G']) {
        Some(number) if short.ends_with('K') => (number, 1 << 10),
        Some(number) if short.ends_with('M') => (number, 1 << 20),
        Some(number) => (number, 1 << 30),
        // A bare number is bytes only with its unit, but for nothing at all.
        None if short.len() < text.len() || text == "0" => (short, 1),
        None => return None,
    };
    let number: u64 = number.trim().parse().ok()?;
    number.checked_mul(scale).filter(|bytes| *bytes <= 1 << 40)
}

/// Words that mean that nothing is said.
pub fn is_default(text: &str) -> bool {
    matches!(text, "default" | "null" | "")
}

/// A map or a list as JSON: what stands without quotes keeps its type.
pub fn json(node: &Node) -> Value {
    match &node.tree {
        Tree::Null => Value::Null,
        Tree::Text { text, plain: true } => match text.as_str() {
            "true" => Value::from(true),
            "false" => Value::from(false),
            text => match (text.parse::<i64>(), text.parse::<f64>()) {
                (Ok(number), _) => Value::from(number),
                (_, Ok(number)) if number.is_finite() && text.contains('.') => Value::from(number),
                _ => Value::from(text),
            },
        },
        Tree::Text { text, .. } => Value::from(text.as_str()),
        Tree::List(items) => items.iter().map(json).collect(),
        Tree::Map(pairs) => {
            let pairs = pairs.iter().map(|pair| (pair.key.clone(), json(&pair.value)));
            Value::Object(pairs.collect::<Map<_, _>>())
        }
    }
}
