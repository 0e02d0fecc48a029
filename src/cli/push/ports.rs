//! Which port of the box an app gets that names none, as cf gives a route to whoever asks for none. Pure:
//! what the box knows is handed in.

use crate::cli::import::FIRST_PORT;
use crate::model::view::AppView;
use crate::unit::AppName;
use std::collections::BTreeSet;

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
}
