//! Which app has which port of the box: no two apps may have the same one, and no app one on which a program of
//! the box listens.

use super::converge::lrps;
use super::error::{CellError, Kind};
use super::record::AppRecord;
use super::shared::State;
use crate::model::manifest::Manifest;
use crate::net::listening::{self, Listeners, Program, Use};
use crate::unit::AppName;
use std::collections::BTreeSet;

/// No two apps may claim one port of the box.
pub(super) fn check_ports(state: &State, manifest: &Manifest) -> Result<(), CellError> {
    check_ports_beside(state, manifest, |_| true)
}

/// The same beside those of the other apps that count.
pub(super) fn check_ports_beside(
    state: &State,
    manifest: &Manifest,
    counts: impl Fn(&AppRecord) -> bool,
) -> Result<(), CellError> {
    match clash(state.apps.iter().filter(|(_, app)| counts(app)), manifest) {
        Some((port, other)) => {
            let text = format!(
                "app {}: port {port} is published by app {other}; write another `publish`, or delete {other}",
                manifest.name
            );
            Err(CellError::new(Kind::Conflict, text))
        }
        None => Ok(()),
    }
}

/// A port may be published when no program of the box has it: what the kernel leads to an app never
/// reaches, say, the box's own sshd again.
pub(super) async fn check_box_ports(manifest: &Manifest) -> Result<(), CellError> {
    let wanted: BTreeSet<u16> = manifest.claims().collect();
    let taken = smol::unblock(move || {
        let listeners = Listeners::read();
        let mut used = wanted.into_iter().map(|port| (port, listeners.of(port)));
        let (port, is) = used.find(|(_, is)| *is != Use::Free)?;
        let who = if is == Use::Listener { listening::who(port) } else { None };
        Some((port, is, who))
    });
    match taken.await {
        Some((port, is, who)) => {
            let why = match is {
                Use::Listener => foreign(port, who.as_ref(), std::process::id()),
                Use::Free | Use::Bound => passing(port),
            };
            let text = format!("app {}: {why}", manifest.name);
            Err(CellError::new(Kind::Conflict, text))
        }
        None => Ok(()),
    }
}

/// Why a port that a program of the box has cannot be published, and the cure. `own`: our process.
fn foreign(port: u16, who: Option<&Program>, own: u32) -> String {
    let (who, cure) = match who {
        Some(program) if program.pid == own => (
            "the daemon itself listens on it, by `listen` of [metrics], [bridge], [bbs] or [garden], or `debug` \
             of [garden], of the box's terrarium.toml"
                .to_owned(),
            "change that",
        ),
        // A service that it starts with the first connection; to stop systemd is no cure.
        Some(program) if program.pid == 1 && program.name == "systemd" => (
            "a socket unit of systemd has it; `systemctl list-sockets` names it".to_owned(),
            "stop and disable that unit",
        ),
        Some(program) if program.pid == 1 => {
            (format!("{program}, the first program of this box, listens on it"), "configure that")
        }
        Some(program) => (format!("{program}, a program of this box, listens on it"), "stop that"),
        None => (
            format!("a program of this box listens on it, which `ss -ltnp 'sport = {port}'` names"),
            "stop that",
        ),
    };
    format!("port {port} cannot be published: {who}; {cure}, or write another `publish`")
}

/// The same of a port on which nobody listens.
fn passing(port: u16) -> String {
    format!(
        "port {port} cannot be published: it is in use by a connection, or by a program that does not listen \
         yet; try again in a minute, or write another `publish`"
    )
}

/// The first port of a manifest that another of these apps has, and which.
fn clash<'a>(
    apps: impl Iterator<Item = (&'a AppName, &'a AppRecord)>,
    manifest: &Manifest,
) -> Option<(u16, &'a AppName)> {
    let others = apps.filter(|(name, _)| **name != manifest.name);
    let others: Vec<_> = others.map(|(name, app)| (name, claims(app))).collect();
    manifest.claims().find_map(|port| {
        let (other, _) = others.iter().find(|(_, theirs)| theirs.contains(&port))?;
        Some((port, *other))
    })
}

/// Ports of the box that nobody but this app may have: by what is asked for, what runs, and what comes after
/// that. In the order of its manifest, each once.
pub(super) fn claims(app: &AppRecord) -> Vec<u16> {
    let released = app.releases().flat_map(|release| lrps(release, 0));
    let running = released.flat_map(|lrp| lrp.ports).filter_map(|port| port.publish);
    let next = app.successor.iter().flat_map(|next| next.published());
    let mut all = Vec::new();
    for port in app.manifest.claims().chain(running).chain(next) {
        if !all.contains(&port) {
            all.push(port);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    fn manifest(name: &str, port: u16, ssh: &str) -> Manifest {
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea me";
        let text = format!(
            "name = \"{name}\"\nsource.path = \"/x\"\n[[port]]\ncontainer = 8080\npublish = {port}\n\
             [ssh]\nauthorized_keys = [\"{key}\"]\n{ssh}"
        );
        crate::config::manifest::parse(&text, "x", Path::new("/"))
            .unwrap_or_else(|bad| panic!("{}", bad.render(false)))
    }

    #[test]
    fn no_two_apps_have_one_port_be_it_that_of_their_ssh_servers() {
        let one = AppRecord::new(manifest("one", 8080, "publish = 2022"), "/one.toml".into(), 1);
        assert_eq!(claims(&one), [8080, 2022]);
        let name = one.manifest.name.clone();
        let apps = BTreeMap::from([(name.clone(), one)]);
        let clash = |it: &Manifest| clash(apps.iter(), it).map(|(port, name)| (port, name.clone()));
        for (port, ssh, taken) in [
            (8080, "", Some(8080)),
            (2022, "", Some(2022)),
            (8081, "publish = 2022", Some(2022)),
            (8081, "publish = 8080", Some(8080)),
            (8081, "publish = 2023", None),
            (8081, "", None),
        ] {
            let found = clash(&manifest("two", port, ssh));
            assert_eq!(found, taken.map(|port| (port, name.clone())), "{port} {ssh}");
        }
        assert_eq!(clash(&manifest("one", 8080, "publish = 2022")), None, "its own");
    }

    #[test]
    fn the_program_that_has_a_port_is_named_with_the_cure() {
        let nginx = Program { name: "nginx".into(), pid: 71 };
        let foreign = |port, who: Option<&Program>| foreign(port, who, 4711);
        assert_eq!(
            foreign(80, Some(&nginx)),
            "port 80 cannot be published: nginx (pid 71), a program of this box, listens on it; stop that, \
             or write another `publish`"
        );
        assert!(foreign(80, None).contains("which `ss -ltnp 'sport = 80'` names; stop that, or"));
        let systemd = Program { name: "systemd".into(), pid: 1 };
        let said = foreign(22, Some(&systemd));
        assert!(
            said.contains("a socket unit of systemd") && !said.contains("stop that,"),
            "{said}"
        );
        assert!(said.contains("`systemctl list-sockets` names it; stop and disable that unit"));
        let said = foreign(22, Some(&Program { name: "tini".into(), pid: 1 }));
        assert!(
            said.contains("tini (pid 1), the first program") && !said.contains("stop"),
            "{said}"
        );
        let said = foreign(9100, Some(&Program { name: "terrarium".into(), pid: 4711 }));
        assert!(
            said.contains("`listen` of [metrics], [bridge]") && !said.contains("stop"),
            "{said}"
        );
        assert!(passing(80).contains("by a connection, or by"), "{}", passing(80));
    }

    #[test]
    fn what_an_app_publishes_is_not_the_port_of_its_ssh_servers() {
        let both = manifest("one", 8080, "publish = 2022");
        assert_eq!(both.published().collect::<Vec<_>>(), [8080]);
        let ssh = Manifest { ports: Vec::new(), ..both };
        assert_eq!(ssh.published().count(), 0);
        assert_eq!(claims(&AppRecord::new(ssh, "/one.toml".into(), 1)), [2022]);
    }
}
