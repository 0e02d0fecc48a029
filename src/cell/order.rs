//! Which apps wait for which others before they start: `after` and `needs` of the manifests.
//!
//! It holds for the start of an app, when nothing of it runs: at the box's start, at the daemon's,
//! when it is declared, when all of it has crashed. What happens to the others later does not stop it. `after` waits for an app
//! that is coming and goes on when it is not there or cannot come; `needs` waits for it in any case.

use crate::model::view::{needs, waits_for};
use crate::unit::AppName;
use std::collections::BTreeMap;

/// Where an app stands, as far as it says so itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Each of its processes has a healthy instance.
    Up,
    /// It is staged, or starts.
    Coming,
    /// It does not run, and does not start by itself soon: `is stopped`, `crashes`.
    Down(&'static str),
    /// It shall start and nothing of it has begun: it may be held itself.
    Idle,
    /// The same, and the box had no room for it when it was tried last.
    NoRoom,
    /// What has begun of it has crashed, and nothing of it runs: it begins again when it is due.
    Crashed,
}

/// One app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact<'a> {
    /// `after` of its manifest.
    pub after: &'a [AppName],
    /// `needs` of its manifest.
    pub needs: &'a [AppName],
    /// Where it stands.
    pub stand: Stand,
}

/// Apps that must not start yet, and why.
pub fn held(facts: &BTreeMap<AppName, Fact<'_>>) -> BTreeMap<AppName, String> {
    let mut looks = Looks { facts, known: BTreeMap::new(), under_way: Vec::new() };
    let is_idle = |stand: &Stand| matches!(stand, Stand::Idle | Stand::NoRoom | Stand::Crashed);
    let idle = facts.iter().filter(|(_, fact)| is_idle(&fact.stand));
    idle.filter_map(|(name, _)| Some((name.clone(), looks.hold(name)?.why))).collect()
}

/// Why an app waits.
#[derive(Clone, Debug)]
struct Hold {
    why: String,
    /// What it waits for does not come by itself.
    for_good: bool,
}

/// What was found out so far: each app is looked at once.
struct Looks<'a> {
    facts: &'a BTreeMap<AppName, Fact<'a>>,
    known: BTreeMap<AppName, Option<Hold>>,
    under_way: Vec<AppName>,
}

impl Looks<'_> {
    fn hold(&mut self, name: &AppName) -> Option<Hold> {
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        self.under_way.push(name.clone());
        let found = self.find(name);
        self.under_way.pop();
        self.known.insert(name.clone(), found.clone());
        found
    }

    fn find(&mut self, name: &AppName) -> Option<Hold> {
        let fact = self.facts.get(name)?;
        let mut waits = None;
        for need in fact.needs {
            match self.stand(need) {
                Stand::Up => {}
                Stand::Down(why) => {
                    let cure = match why {
                        "is not there" => format!("apply {need}"),
                        "is stopped" => format!("`terrarium start {need}`"),
                        _ => format!("`terrarium app {need}` tells more"),
                    };
                    let why = needs(need, &format!("{why}; {cure}"));
                    return Some(Hold { why, for_good: true });
                }
                Stand::Coming | Stand::Idle | Stand::NoRoom | Stand::Crashed => {
                    waits.get_or_insert(Hold { why: waits_for(need, true), for_good: false });
                }
            }
        }
        for first in fact.after {
            if let Stand::Coming | Stand::Idle = self.stand(first) {
                waits.get_or_insert(Hold { why: waits_for(first, false), for_good: false });
            }
        }
        waits
    }

    /// Where an app stands that another one waits for.
    fn stand(&mut self, name: &AppName) -> Stand {
        match self.facts.get(name).map(|fact| &fact.stand) {
            None => Stand::Down("is not there"),
            Some(Stand::NoRoom) => Stand::Down("has no room on the box"),
            Some(Stand::Crashed) => Stand::Down("crashes"),
            Some(Stand::Idle) if self.under_way.contains(name) => {
                Stand::Down("waits for it in turn")
            }
            Some(Stand::Idle) => match self.hold(name) {
                Some(Hold { for_good: true, .. }) => Stand::Down("waits itself"),
                _ => Stand::Coming,
            },
            Some(stand) => stand.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> AppName {
        text.parse().expect("name")
    }

    /// `app stand after=x,y needs=z` each.
    fn played(lines: &[&str]) -> String {
        let list = |line: &str, key: &str| -> Vec<AppName> {
            let words = line.split(' ').find_map(|word| word.strip_prefix(key));
            words.into_iter().flat_map(|names| names.split(',')).map(name).collect()
        };
        let apps: Vec<_> = lines
            .iter()
            .map(|line| {
                let mut words = line.split(' ');
                let app = name(words.next().expect("an app"));
                let stand = match words.next() {
                    Some("up") => Stand::Up,
                    Some("coming") => Stand::Coming,
                    Some("stopped") => Stand::Down("is stopped"),
                    Some("crowded") => Stand::NoRoom,
                    Some("crashed") => Stand::Crashed,
                    _ => Stand::Idle,
                };
                (app, stand, list(line, "after="), list(line, "needs="))
            })
            .collect();
        let facts = apps.iter().map(|(app, stand, after, needs)| {
            (app.clone(), Fact { after, needs, stand: stand.clone() })
        });
        let facts = facts.collect();
        held(&facts).iter().map(|(app, why)| format!("{app} {why}\n")).collect()
    }

    #[test]
    fn each_stand_of_the_other_app_has_its_outcome() {
        for (db, after, needs) in [
            ("db up", "", ""),
            (
                "db coming",
                "web starts after app db, which does not run yet\n",
                "web needs app db, which does not run yet\n",
            ),
            (
                "db idle",
                "web starts after app db, which does not run yet\n",
                "web needs app db, which does not run yet\n",
            ),
            ("db stopped", "", "web needs app db, which is stopped; `terrarium start db`\n"),
            ("other up", "", "web needs app db, which is not there; apply db\n"),
        ] {
            assert_eq!(played(&[db, "web idle after=db"]), after, "{db}");
            assert_eq!(played(&[db, "web idle needs=db"]), needs, "{db}");
            // What has begun goes on, whatever becomes of the other one.
            assert_eq!(played(&[db, "web up needs=db"]), "", "{db}");
            assert_eq!(played(&[db, "web coming needs=db"]), "", "{db}");
        }
    }

    #[test]
    fn who_finds_no_room_waits_for_what_it_needs_and_holds_up_nobody() {
        let held = "web needs app db, which is stopped; `terrarium start db`\n";
        assert_eq!(played(&["db stopped", "web crowded needs=db"]), held);
        assert_eq!(played(&["db crowded", "web idle after=db"]), "");
        let held =
            "web needs app db, which has no room on the box; `terrarium app db` tells more\n";
        assert_eq!(played(&["db crowded", "web idle needs=db"]), held);
    }

    /// After a reboot nothing of an app runs: that it had crashed before is no way past what it needs.
    #[test]
    fn who_has_crashed_and_does_not_run_waits_for_what_it_needs() {
        let held = "web needs app db, which does not run yet\n";
        assert_eq!(played(&["db coming", "web crashed needs=db"]), held);
        assert_eq!(played(&["db up", "web crashed needs=db"]), "");
        let held = "web needs app db, which crashes; `terrarium app db` tells more\n";
        assert_eq!(played(&["db crashed", "web idle needs=db"]), held);
        assert_eq!(played(&["db crashed", "web idle after=db"]), "");
    }

    #[test]
    fn a_chain_starts_from_its_end_and_one_that_cannot_come_holds_up_nobody_for_good() {
        let chain = ["a idle after=b", "b idle after=c", "c idle"];
        let held = "a starts after app b, which does not run yet\n\
                    b starts after app c, which does not run yet\n";
        assert_eq!(played(&chain), held);
        let stuck = played(&["a idle after=b", "b idle needs=gone"]);
        assert_eq!(stuck, "b needs app gone, which is not there; apply gone\n");
    }

    #[test]
    fn apps_that_wait_for_each_other_do_not_hang_when_they_only_start_after_each_other() {
        assert!(played(&["a idle after=b", "b idle after=a"]).lines().count() < 2);
        let stuck = played(&["a idle needs=b", "b idle needs=a"]);
        assert!(stuck.contains("in turn") && stuck.lines().count() == 2, "{stuck}");
    }
}
