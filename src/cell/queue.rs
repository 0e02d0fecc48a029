//! In which order what wants a place is given one. Pure.

use super::diff::{Key, Op};
use crate::model::lrp::{ActualLrp, DesiredLrp, ProcessGuid};
use crate::unit::Bytes;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What wants a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// An instance.
    Lrp {
        /// Which one.
        key: Key,
        /// What it asks for.
        memory: Bytes,
        /// It had a place before, and only starts again.
        had_place: bool,
    },
    /// A Task.
    Task {
        /// Its guid.
        guid: String,
        /// What it asks for.
        memory: Bytes,
    },
}

impl Wish {
    fn memory(&self) -> Bytes {
        match self {
            Wish::Lrp { memory, .. } | Wish::Task { memory, .. } => *memory,
        }
    }

    /// 0 comes first.
    fn class(&self) -> (u8, u32) {
        match self {
            Wish::Lrp { had_place: true, key, .. } => (0, key.1),
            Wish::Lrp { key, .. } if key.1 == 0 => (1, 0),
            Wish::Task { .. } => (2, 0),
            Wish::Lrp { key, .. } => (3, key.1),
        }
    }
}

/// Diego's order: the first instance of everything, then Tasks, then the others by index; the
/// larger before the smaller. Before them all whoever had a place and only starts again: on one
/// box nobody else can give it back to them. What is alike stays in order.
pub fn order(wishes: &mut [Wish]) {
    wishes.sort_by_key(|wish| (wish.class(), Reverse(wish.memory())));
}

/// What a plan asks for, with what is to begin at its end, in that order.
pub fn in_turn(
    ops: Vec<Op>,
    desired: &BTreeMap<ProcessGuid, DesiredLrp>,
    actual: &BTreeMap<Key, ActualLrp>,
) -> Vec<Op> {
    let (mut ordered, mut wishes) = (Vec::with_capacity(ops.len()), Vec::new());
    for op in ops {
        match op {
            Op::Start(key) => {
                let record = actual.get(&key);
                let had_place = record.is_some_and(|it| it.placement_error.is_none());
                let limits = desired.get(&key.0).and_then(|lrp| lrp.limits.memory);
                wishes.push(Wish::Lrp { key, memory: limits.unwrap_or_default(), had_place });
            }
            other => ordered.push(other),
        }
    }
    order(&mut wishes);
    let starts = wishes.into_iter().filter_map(|wish| match wish {
        Wish::Lrp { key, .. } => Some(Op::Start(key)),
        Wish::Task { .. } => None,
    });
    ordered.extend(starts);
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lrp::Side;

    fn lrp(app: &str, index: u32, mib: u64, had_place: bool) -> Wish {
        let guid = ProcessGuid { app: app.parse().expect("name"), process: "web".into() };
        Wish::Lrp { key: (guid, index, Side::default()), memory: Bytes::mib(mib), had_place }
    }

    fn task(guid: &str, mib: u64) -> Wish {
        Wish::Task { guid: guid.into(), memory: Bytes::mib(mib) }
    }

    #[test]
    fn row_23_low_index_first_big_memory_first_and_tasks_between() {
        let expected = [
            lrp("back", 1, 8, true),
            lrp("large", 0, 900, false),
            lrp("small", 0, 64, false),
            lrp("tiny", 0, 64, false),
            task("big", 500),
            task("little", 5),
            lrp("large", 1, 900, false),
            lrp("small", 1, 64, false),
            lrp("large", 2, 900, false),
        ];
        for turn in 0..expected.len() {
            let mut wishes = expected.to_vec();
            wishes.rotate_left(turn);
            // Those two are alike.
            let at = |name: &str| wishes.iter().position(|it| *it == lrp(name, 0, 64, false));
            if at("small") > at("tiny") {
                let (small, tiny) = (at("small").expect("there"), at("tiny").expect("there"));
                wishes.swap(small, tiny);
            }
            order(&mut wishes);
            assert_eq!(wishes, expected, "{turn}");
        }
    }
}
