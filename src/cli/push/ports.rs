//! Which port of the box an app gets that names none, as cf gives a route to whoever asks for none. Pure:
//! what the box knows is handed in.

use crate::cli::import::FIRST_PORT;
use crate::model::view::AppView;
use crate::unit::AppName;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Ports that are tried.
const TRIED: u16 = 1000;

/// Gives each app of one push a port.
pub struct Ports<'a> {
    /// All that are there.
    apps: &'a [AppView],
    /// Whether the box could publish a port.
    may: &'a dyn Fn(u16) -> bool,
    given: Vec<(AppName, u16)>,
}

/// Whether an app gets a port of the box that nobody names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// It names one, or is to have none.
    None,
    Always,
    /// Unless it is there already, and has none.
    IfNew,
}

impl Wants {
    pub fn always_if(yes: bool) -> Wants {
        if yes { Wants::Always } else { Wants::None }
    }
}

/// A port for an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// Of the box.
    pub port: u16,
    /// The app had it before.
    pub kept: bool,
}

impl<'a> Ports<'a> {
    /// None is given yet.
    pub fn new(apps: &'a [AppView], may: &'a dyn Fn(u16) -> bool) -> Ports<'a> {
        Ports { apps, may, given: Vec::new() }
    }

    /// The one that the app has, else the lowest that nobody has; `None`: it gets none. `named`: what apps of the
    /// same push name, which are not there yet.
    pub fn of(
        &mut self,
        name: &AppName,
        wants: Wants,
        named: &BTreeSet<u16>,
    ) -> Result<Option<Given>, Denied> {
        let own = self.apps.iter().find(|app| app.name == *name);
        // Of what it claims, some may be its SSH servers', or only what it had before.
        let has = own.map(|app| app.published.first().copied());
        match (wants, has) {
            (Wants::None, _) | (Wants::IfNew, Some(None)) => return Ok(None),
            // What the push names is for whom it names it.
            (_, Some(Some(port))) if !named.contains(&port) => {
                return Ok(Some(Given { port, kept: true }));
            }
            _ => {}
        }
        if let Some((_, port)) = self.given.iter().find(|(app, _)| app == name) {
            return Ok(Some(Given { port: *port, kept: false }));
        }
        let is_free = |port: &u16| {
            let claimed = self.apps.iter().any(|app| app.claims.contains(port));
            let given = self.given.iter().any(|(_, given)| given == port);
            !claimed && !given && !named.contains(port) && (self.may)(*port)
        };
        let port = (FIRST_PORT..FIRST_PORT + TRIED).find(is_free);
        let port = port.ok_or_else(|| Denied::NoneFree { name: name.clone() })?;
        self.given.push((name.clone(), port));
        Ok(Some(Given { port, kept: false }))
    }
}

/// What one app of a push asks for.
pub struct Asks<'a> {
    pub name: &'a AppName,
    /// Ports of the box that it names.
    pub named: Vec<u16>,
    /// Whether it gets one that it does not.
    pub wants: Wants,
}

/// When the other one of two apps is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Not,
    Before,
    After,
}

/// Why a push cannot have its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// `other` has what `name` asks for when that is its turn.
    Claimed { name: AppName, port: u16, other: AppName, when: When },
    /// Of those that are tried.
    NoneFree { name: AppName },
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denied::Claimed { name, port, other, when } => {
                write!(f, "app {name}: port {port} is published by app {other}")?;
                f.write_str(match when {
                    When::Not => "",
                    When::Before => " until that has been replaced",
                    When::After => ", which is pushed after it",
                })?;
                f.write_str("; write another `publish`, or ")?;
                match when {
                    // As the daemon would say it.
                    When::Not => write!(f, "delete {other}"),
                    When::Before => f.write_str("leave out --no-wait and --no-start"),
                    When::After => write!(f, "push {other} alone first, by -n {other}"),
                }
            }
            Denied::NoneFree { name } => write!(
                f,
                "app {name}: no port of the box is free from {FIRST_PORT} to {}; write one as `publish`",
                FIRST_PORT + TRIED - 1
            ),
        }
    }
}

impl Ports<'_> {
    /// Looks whether all of a push can have what they ask for when it is their turn, before the first one has
    /// it. `named`: as of [`Ports::of`]; `waits`: one is pushed when the one before it runs.
    pub fn rehearse(
        &mut self,
        all: &[Asks<'_>],
        named: &BTreeSet<u16>,
        waits: bool,
    ) -> Result<(), Denied> {
        let theirs = |app: &AppView| (app.name.clone(), app.claims.iter().copied().collect());
        let mut claims: BTreeMap<AppName, BTreeSet<u16>> = self.apps.iter().map(theirs).collect();
        for (at, asks) in all.iter().enumerate() {
            let name = asks.name.clone();
            let mut others = claims.iter().filter(|(other, _)| **other != name);
            let claimed = others.find_map(|(other, theirs)| {
                let port = asks.named.iter().find(|port| theirs.contains(port))?;
                Some((*port, other.clone()))
            });
            if let Some((port, other)) = claimed {
                let when = match all.iter().position(|it| *it.name == other) {
                    None => When::Not,
                    Some(its) if its < at => When::Before,
                    Some(_) => When::After,
                };
                return Err(Denied::Claimed { name, port, other, when });
            }
            let given = self.of(&name, asks.wants, named)?.map(|given| given.port);
            let own = self.apps.iter().find(|app| app.name == name);
            // What runs keeps its ports until it has been replaced.
            let keeps = own.filter(|app| !waits && app.state != "stopped");
            let kept = keeps.map(|app| &*app.claims).unwrap_or_default();
            let has = asks.named.iter().chain(kept).copied().chain(given);
            claims.insert(name, has.collect());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first of its ports is that of its SSH servers, or one that it had before, unless it is `published`.
    fn app(name: &str, published: &[u16], claims: &[u16]) -> AppView {
        let (published, claims) = (published.to_vec(), claims.to_vec());
        AppView { published, claims, ..crate::api::apps::fake::view(name, "stopped") }
    }

    fn running(name: &str, published: &[u16]) -> AppView {
        AppView { state: "running".into(), ..app(name, published, published) }
    }

    #[test]
    fn an_app_keeps_its_port_and_a_new_one_gets_the_lowest_that_is_free() {
        let apps = [
            app("web", &[8080], &[8080, 2022]),
            app("jobs", &[], &[]),
            app("shop", &[9000], &[9000, 8082]),
            // Nobody has asked for its host key, so that there is no telling that this is SSH's.
            app("shell", &[], &[2022]),
        ];
        // A program of the box has one of them.
        let may = |port: u16| port != 8083;
        let mut ports = Ports::new(&apps, &may);
        let named = BTreeSet::from([8085]);
        let mut of = |name: &str| {
            ports.of(&name.parse().expect("name"), Wants::Always, &named).expect("one is free")
        };
        for (name, port, kept) in [
            ("web", 8080, true),
            ("jobs", 8081, false),
            ("new", 8084, false),
            ("shop", 9000, true),
            ("new", 8084, false),
            // The file that is pushed names 8085 for another app.
            ("more", 8086, false),
            ("shell", 8087, false),
        ] {
            assert_eq!(of(name), Some(Given { port, kept }), "{name}");
        }
        let none = |_| false;
        let mut ports = Ports::new(&apps, &none);
        let new: AppName = "new".parse().expect("name");
        let denied = Denied::NoneFree { name: new.clone() };
        assert_eq!(ports.of(&new, Wants::Always, &named), Err(denied));
        assert_eq!(ports.of(&new, Wants::None, &named), Ok(None));
    }

    #[test]
    fn an_app_that_was_to_have_no_port_gets_none() {
        let apps = [app("jobs", &[], &[2022]), app("web", &[9000], &[9000])];
        let may = |_| true;
        let named = BTreeSet::new();
        let of = |name: &str, wants| {
            let given = Ports::new(&apps, &may).of(&name.parse().expect("name"), wants, &named);
            given.expect("one is free").map(|given| given.port)
        };
        assert_eq!(of("jobs", Wants::IfNew), None);
        assert_eq!(of("new", Wants::IfNew), Some(8080));
        assert_eq!(of("web", Wants::IfNew), Some(9000));
        assert_eq!(of("jobs", Wants::Always), Some(8080));
    }

    #[test]
    fn a_port_that_moves_within_a_push_is_given_up_before_it_is_taken() {
        let apps = [app("web", &[8080], &[8080]), running("shop", &[9000])];
        let names = ["web", "shop", "new"].map(|name| name.parse::<AppName>().expect("name"));
        let [web, shop, new] = &names;
        let may = |port: u16| port != 8081;
        let asks = |name, named: &[u16], wants| Asks { name, named: named.to_vec(), wants };
        let rehearse = |all: &[Asks<'_>], waits| {
            let named = all.iter().flat_map(|it| it.named.iter().copied()).collect();
            Ports::new(&apps, &may).rehearse(all, &named, waits).map_err(|why| why.to_string())
        };
        // What the push names for another one, an app does not keep.
        let mut ports = Ports::new(&apps, &may);
        let given = ports.of(web, Wants::Always, &BTreeSet::from([8080]));
        assert_eq!(given, Ok(Some(Given { port: 8082, kept: false })));
        let moved = [asks(web, &[], Wants::Always), asks(new, &[8080], Wants::None)];
        assert_eq!(rehearse(&moved, true), Ok(()));
        assert_eq!(rehearse(&moved, false), Ok(()), "nothing of it runs");
        // The one that has it comes later.
        let err =
            rehearse(&[asks(new, &[8080], Wants::None), asks(web, &[9001], Wants::None)], true)
                .expect_err("not yet");
        assert!(err.contains("app web, which is pushed after it; write another"), "{err}");
        assert!(err.ends_with("push web alone first, by -n web"), "{err}");
        // What runs has its port until it is replaced, for which nobody waits.
        let moved = [asks(shop, &[9001], Wants::None), asks(new, &[9000], Wants::None)];
        assert_eq!(rehearse(&moved, true), Ok(()));
        let err = rehearse(&moved, false).expect_err("it still runs");
        assert!(err.ends_with("or leave out --no-wait and --no-start"), "{err}");
    }

    #[test]
    fn what_an_app_asks_for_that_another_has_is_denied_before_anything_is_pushed() {
        let apps = [app("web", &[8080], &[8080, 2022]), app("shop", &[9000], &[9000])];
        let names = ["web", "new", "more"].map(|name| name.parse::<AppName>().expect("name"));
        let [web, new, more] = &names;
        let may = |port: u16| port < 8082;
        let rehearse = |all: &[Asks<'_>]| {
            let why = Ports::new(&apps, &may).rehearse(all, &BTreeSet::new(), true);
            why.map_err(|why| why.to_string())
        };
        let asks = |name, named: &[u16], wants| Asks { name, named: named.to_vec(), wants };
        assert_eq!(
            rehearse(&[asks(new, &[9001], Wants::None), asks(more, &[], Wants::Always)]),
            Ok(())
        );
        let err = rehearse(&[asks(more, &[], Wants::Always), asks(new, &[7, 9000], Wants::None)])
            .expect_err("shop's");
        assert!(
            err.starts_with("app new: port 9000 is published by app shop; write another"),
            "{err}"
        );
        // It is given up first.
        assert_eq!(
            rehearse(&[asks(web, &[8081], Wants::None), asks(new, &[8080], Wants::None)]),
            Ok(())
        );
        // There is one for one of them.
        let err = rehearse(&[asks(new, &[], Wants::Always), asks(more, &[], Wants::Always)])
            .expect_err("too many");
        assert!(
            err.starts_with("app more: no port of the box is free from 8080 to 9079; "),
            "{err}"
        );
    }
}
