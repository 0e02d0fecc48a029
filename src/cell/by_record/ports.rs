//! Ports of the box that LRPs by record name in their routes: several may name one, and one has it.

use super::super::claims::check_ports_beside;
use super::super::converge::stopping;
use super::super::diff;
use super::super::error::CellError;
use super::super::shared::State;
use crate::model::lrp::{DesiredLrp, ProcessGuid};
use crate::model::manifest::Manifest;
use std::collections::{BTreeMap, BTreeSet};

/// No app by manifest may have one of its ports. Among themselves they share: a controller replaces one
/// by another while both run, and the routes of both name the port.
pub(in crate::cell) fn check_ports(state: &State, described: &Manifest) -> Result<(), CellError> {
    check_ports_beside(state, described, |app| app.container.is_none())
}

/// Of those that share a port leaves it to the newest that has a healthy instance, or else to the newest.
pub(in crate::cell) fn share_ports(state: &State, desired: &mut BTreeMap<ProcessGuid, DesiredLrp>) {
    let supervised = stopping(state);
    settle(desired, |lrp, port| {
        let alone = BTreeMap::from([(lrp.guid.clone(), lrp.clone())]);
        let behind = diff::published(&alone, &[], &state.actual, &supervised);
        let serves = behind.get(&port).is_some_and(|behind| !behind.is_empty());
        // Of two, the one that was asked for later has the higher one.
        (serves, state.apps.get(&lrp.guid.app).map_or(0, |app| app.generation))
    });
}

/// Takes each shared port from all but one; `rank`: whether it serves there, and how new it is.
fn settle(
    desired: &mut BTreeMap<ProcessGuid, DesiredLrp>,
    rank: impl Fn(&DesiredLrp, u16) -> (bool, u64),
) {
    let mut shared: BTreeMap<u16, BTreeSet<ProcessGuid>> = BTreeMap::new();
    for lrp in desired.values().filter(|lrp| lrp.by_record) {
        for port in lrp.ports.iter().filter_map(|port| port.publish) {
            shared.entry(port).or_default().insert(lrp.guid.clone());
        }
    }
    for (port, sharers) in shared.into_iter().filter(|(_, sharers)| sharers.len() > 1) {
        let lrps = sharers.iter().filter_map(|guid| desired.get(guid));
        let best = lrps.max_by_key(|lrp| (rank(lrp, port), &lrp.guid));
        let best = best.map(|lrp| lrp.guid.clone());
        for guid in sharers.iter().filter(|guid| Some(*guid) != best.as_ref()) {
            let ports = desired.get_mut(guid).into_iter().flat_map(|lrp| &mut lrp.ports);
            ports.filter(|it| it.publish == Some(port)).for_each(|it| it.publish = None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::record::generation_after;
    use super::super::super::releases;
    use super::*;
    use crate::model::lrp::LrpPort;

    /// LRPs by record with these ports of the box.
    fn desired(all: &[(&str, &[u16])]) -> BTreeMap<ProcessGuid, DesiredLrp> {
        let like = releases::tests::app("memory = \"32MiB\"");
        let like = releases::desired(&like).remove(0);
        let one = |(name, ports): &(&str, &[u16])| {
            let guid = ProcessGuid { app: name.parse().expect("a name"), process: "web".into() };
            let port = |port: &u16| LrpPort { container: 8080, publish: Some(*port) };
            let ports = ports.iter().map(port).collect();
            (guid.clone(), DesiredLrp { guid, ports, by_record: true, ..like.clone() })
        };
        all.iter().map(one).collect()
    }

    fn published(desired: &BTreeMap<ProcessGuid, DesiredLrp>) -> Vec<(String, Vec<u16>)> {
        let ports = |lrp: &DesiredLrp| lrp.ports.iter().filter_map(|port| port.publish).collect();
        desired.iter().map(|(guid, lrp)| (guid.to_string(), ports(lrp))).collect()
    }

    /// Row 82: the newer version has the port as soon as it serves, and not before.
    #[test]
    fn row_82_the_newest_that_serves_has_a_shared_port() {
        let age = |lrp: &DesiredLrp| match lrp.guid.app.as_str() {
            "new" => 3,
            "next" => 2,
            _ => 1,
        };
        for (serving, best) in [
            (&["old"][..], "old"),
            (&["old", "next"], "next"),
            (&["old", "next", "new"], "new"),
            (&["old", "new"], "new"),
            (&[], "new"),
        ] {
            let mut lrps = desired(&[("old", &[80, 81]), ("next", &[80]), ("new", &[80, 82])]);
            settle(&mut lrps, |lrp, _| (serving.contains(&lrp.guid.app.as_str()), age(lrp)));
            let mine =
                |name: &str, port: u16| if name == best { vec![80, port] } else { vec![port] };
            let next = if best == "next" { vec![80] } else { Vec::new() };
            let wanted = [("new", mine("new", 82)), ("next", next), ("old", mine("old", 81))];
            assert_eq!(published(&lrps), wanted.map(|(name, ports)| (name.to_owned(), ports)));
        }
    }

    /// Row 82: also when the box has lost its time in between, or was told a wrong one before.
    #[test]
    fn row_82_who_was_asked_for_later_is_newer_whatever_the_clock_says() {
        const NOW_MS: u64 = 1_795_000_000_000;
        for clock in [[NOW_MS, NOW_MS + 5], [NOW_MS, 20_000], [NOW_MS * 2, NOW_MS], [7, 7]] {
            let old = generation_after(0, clock[0]);
            // It was changed since.
            let newest = old + 3;
            let new = generation_after(newest, clock[1]);
            let age = |lrp: &DesiredLrp| match lrp.guid.app.as_str() {
                "z-old" => newest,
                _ => new,
            };
            let mut lrps = desired(&[("a-new", &[80]), ("z-old", &[80])]);
            settle(&mut lrps, |lrp, _| (true, age(lrp)));
            let wanted = [("a-new", vec![80]), ("z-old", Vec::new())];
            let wanted = wanted.map(|(name, ports)| (name.to_owned(), ports));
            assert_eq!(published(&lrps), wanted, "{clock:?}");
        }
    }

    #[test]
    fn what_a_manifest_publishes_is_never_taken() {
        let mut lrps = desired(&[("a", &[80]), ("b", &[80])]);
        lrps.values_mut().for_each(|lrp| lrp.by_record = false);
        let before = lrps.clone();
        settle(&mut lrps, |_, _| (true, 1));
        assert_eq!(lrps, before);
    }
}
