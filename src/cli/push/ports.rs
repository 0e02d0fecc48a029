//! Which port of the box an app gets that names none, as cf gives a route to whoever asks for none. Pure:
//! what the box knows is handed in.

use crate::cli::import::FIRST_PORT;
use crate::model::view::AppView;
use crate::unit::AppName;
use std::collections::BTreeSet;
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

    /// The one that the app has, else the lowest that nobody has; `None`: none of those that are tried is free.
    /// `named`: what apps of the same push name, which are not there yet.
    pub fn of(&mut self, name: &AppName, named: &BTreeSet<u16>) -> Option<Given> {
        let own = self.apps.iter().find(|app| app.name == *name);
        // Of what it claims, some may be its SSH servers', or only what it had before.
        if let Some(port) = own.and_then(|app| app.published.first().copied()) {
            return Some(Given { port, kept: true });
        }
        if let Some((_, port)) = self.given.iter().find(|(app, _)| app == name) {
            return Some(Given { port: *port, kept: false });
        }
        let is_free = |port: &u16| {
            let claimed = self.apps.iter().any(|app| app.claims.contains(port));
            let given = self.given.iter().any(|(_, given)| given == port);
            !claimed && !given && !named.contains(port) && (self.may)(*port)
        };
        let port = (FIRST_PORT..FIRST_PORT + TRIED).find(is_free)?;
        self.given.push((name.clone(), port));
        Some(Given { port, kept: false })
    }
}

/// What one app of a push asks for.
pub struct Asks<'a> {
    pub name: &'a AppName,
    /// Ports of the box that it names.
    pub named: Vec<u16>,
    /// It gets one.
    pub wants: bool,
}

/// Why a push cannot have its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// `other`, which is not pushed with it, has what `name` asks for.
    Claimed { name: AppName, port: u16, other: AppName },
    /// Of those that are tried.
    NoneFree { name: AppName },
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // As the daemon would say it.
            Denied::Claimed { name, port, other } => write!(
                f,
                "app {name}: port {port} is published by app {other}; write another `publish`, or delete \
                 {other}"
            ),
            Denied::NoneFree { name } => write!(
                f,
                "app {name}: no port of the box is free from {FIRST_PORT} to {}; write one as `publish`",
                FIRST_PORT + TRIED - 1
            ),
        }
    }
}

impl Ports<'_> {
    /// Looks whether all of a push can have what they ask for, before the first one has it. `named`: as of
    /// [`Ports::of`].
    pub fn rehearse(&mut self, all: &[Asks<'_>], named: &BTreeSet<u16>) -> Result<(), Denied> {
        for asks in all {
            let name = asks.name.clone();
            // What has it now may lose it in this very push.
            let mut others =
                self.apps.iter().filter(|app| all.iter().all(|it| *it.name != app.name));
            let claimed = others.find_map(|app| {
                let port = asks.named.iter().find(|port| app.claims.contains(port))?;
                Some((*port, app.name.clone()))
            });
            if let Some((port, other)) = claimed {
                return Err(Denied::Claimed { name, port, other });
            }
            if asks.wants && self.of(&name, named).is_none() {
                return Err(Denied::NoneFree { name });
            }
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
        let mut of = |name: &str| ports.of(&name.parse().expect("name"), &named);
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
        assert_eq!(ports.of(&"new".parse().expect("name"), &named), None);
    }

    #[test]
    fn what_an_app_asks_for_that_another_has_is_denied_before_anything_is_pushed() {
        let apps = [app("web", &[8080], &[8080, 2022]), app("shop", &[9000], &[9000])];
        let names = ["web", "new", "more"].map(|name| name.parse::<AppName>().expect("name"));
        let [web, new, more] = &names;
        let may = |port: u16| port < 8082;
        let rehearse = |all: &[Asks<'_>]| {
            Ports::new(&apps, &may).rehearse(all, &BTreeSet::new()).map_err(|why| why.to_string())
        };
        let asks = |name, named: &[u16], wants| Asks { name, named: named.to_vec(), wants };
        assert_eq!(rehearse(&[asks(new, &[9001], false), asks(more, &[], true)]), Ok(()));
        let err =
            rehearse(&[asks(more, &[], true), asks(new, &[7, 9000], false)]).expect_err("shop's");
        assert!(
            err.starts_with("app new: port 9000 is published by app shop; write another"),
            "{err}"
        );
        // With one that is pushed, too, the daemon tells: it may get another one.
        assert_eq!(rehearse(&[asks(web, &[8081], false), asks(new, &[8080], false)]), Ok(()));
        // There is one for one of them.
        let err = rehearse(&[asks(new, &[], true), asks(more, &[], true)]).expect_err("too many");
        assert!(
            err.starts_with("app more: no port of the box is free from 8080 to 9079; "),
            "{err}"
        );
    }
}
