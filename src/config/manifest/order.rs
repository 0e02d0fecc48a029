//! `after`, `needs` and `[rollout]`: when an app starts, and how a new version takes over.

use super::super::cursor::Section;
use super::super::words::shown;
use super::places::Places;
use super::{INSTANCES_MAX, set};
use crate::model::manifest::{Rollout, Strategy};
use crate::unit::AppName;

/// Most apps that one waits for, by either key.
const WAITS_MAX: usize = 32;

/// Reads `after` and `needs`: lists of apps, each named once and none of them this one.
pub(super) fn read(
    top: &mut Section<'_>,
    name: Option<&AppName>,
    places: &mut Places,
) -> [Vec<AppName>; 2] {
    let mut all: Vec<AppName> = Vec::new();
    ["after", "needs"].map(|key| {
        let items = top.take(key).and_then(|list| list.list(WAITS_MAX)).unwrap_or_default();
        let mut names = Vec::new();
        for item in items {
            let bad = |text: &str| {
                format!("`{}` is no app; 1 to 40 of a-z, 0-9 and inner `-`", shown(text))
            };
            match item.parsed(|text| text.parse::<AppName>().map_err(|_| bad(text))) {
                Some(other) if Some(&other) == name => {
                    item.place.fail("an app cannot wait for itself", "remove it");
                }
                Some(other) if all.contains(&other) => {
                    let cure = "remove one; `needs` is the stronger one";
                    item.place.fail(format!("app `{other}` is named twice"), cure);
                }
                Some(other) => {
                    places.waits.push((other.clone(), item.place.span()));
                    all.push(other.clone());
                    names.push(other);
                }
                None => {}
            }
        }
        names
    })
}

/// Reads `[rollout]`.
pub(super) fn read_rollout(section: Option<Section<'_>>) -> Rollout {
    let mut rollout = Rollout::default();
    let Some(mut section) = section else { return rollout };
    if let Some(strategy) = section.take("strategy") {
        if let Some("blue-green") = strategy.text(64) {
            strategy.fail(
                "cannot be \"blue-green\" in this version yet",
                "write \"rolling\" with max_in_flight = the number of instances",
            );
        } else {
            let words = [("rolling", Strategy::Rolling), ("recreate", Strategy::Recreate)];
            set(&mut rollout.strategy, strategy.one_of(&words));
        }
    }
    if let Some(most) = section.take("max_in_flight") {
        set(&mut rollout.max_in_flight, most.number(1, INSTANCES_MAX).map(|it| it as u32));
    }
    if let Some(rollback) = section.take("rollback") {
        set(&mut rollout.rollback, rollback.truth());
    }
    section.misplaced("auto_rollback", "write rollback = true or false");
    section.later(&["healthy_for", "deadline"]);
    section.finish();
    rollout
}
