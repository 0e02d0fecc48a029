//! Apps that wait for each other: `after` and `needs` of several manifests together. Pure.

use crate::unit::AppName;
use std::collections::{BTreeMap, BTreeSet};

/// For whom each app waits.
pub type Waits = BTreeMap<AppName, Vec<AppName>>;

/// The way from `name` over what it waits for back to itself, if there is one: `a`, `b`, `a`.
pub fn cycle(waits: &Waits, name: &AppName) -> Option<Vec<AppName>> {
    let mut ways = vec![vec![name.clone()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        let last = way.last().expect("a way begins somewhere");
        for next in waits.get(last).into_iter().flatten() {
            let further: Vec<AppName> = way.iter().chain([next]).cloned().collect();
            if next == name {
                return Some(further);
            }
            if seen.insert(next.clone()) {
                ways.push(further);
            }
        }
    }
    None
}

/// The apps of `waits`, those first that others wait for; else by name.
pub fn in_order(waits: &Waits) -> Vec<AppName> {
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for name in waits.keys() {
        // The second time it comes up, all that it waits for stands in the order.
        let mut stack = vec![(name, false)];
        while let Some((name, last)) = stack.pop() {
            if last {
                order.push(name.clone());
            } else if let Some((name, others)) = waits.get_key_value(name)
                && seen.insert(name)
            {
                stack.push((name, true));
                stack.extend(others.iter().rev().map(|other| (other, false)));
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> AppName {
        text.parse().expect("name")
    }

    fn waits(pairs: &[(&str, &str)]) -> Waits {
        let mut waits = Waits::new();
        for (from, to) in pairs {
            waits.entry(name(from)).or_default().extend((!to.is_empty()).then(|| name(to)));
        }
        waits
    }

    fn words(names: &[AppName]) -> String {
        names.iter().map(AppName::as_str).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_cycle_is_shown_as_the_way_round() {
        let round = waits(&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]);
        let way = |from: &str| cycle(&round, &name(from)).map(|way| words(&way));
        assert_eq!(way("a").as_deref(), Some("a b c a"));
        assert_eq!(way("d"), None, "it leads into one and is not in it");
        assert_eq!(
            cycle(&waits(&[("a", "b"), ("a", "c"), ("b", "c"), ("c", "")]), &name("a")),
            None
        );
    }

    #[test]
    fn who_is_waited_for_comes_first() {
        let order = |pairs: &[(&str, &str)]| words(&in_order(&waits(pairs)));
        assert_eq!(order(&[("a", ""), ("b", "")]), "a b");
        assert_eq!(order(&[("a", "b"), ("b", "c"), ("c", "")]), "c b a");
        assert_eq!(
            order(&[("web", "db"), ("web", "cache"), ("db", ""), ("cache", "db")]),
            "db cache web"
        );
        assert_eq!(order(&[("a", "gone")]), "a");
        assert_eq!(order(&[("a", "b"), ("b", "a")]), "b a", "it ends");
    }
}
