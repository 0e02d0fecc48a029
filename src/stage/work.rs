//! What each instance of an app does: its launcher, its sidecars, the commands of its checks.

use crate::model::action::{Action, RunAction};
use crate::model::lrp::{Sidecar, Work};
use crate::model::manifest::{Check, Health, Manifest, Ssh};
use crate::model::process::ProcessSpec;
use crate::model::task::StagedSidecar;
use crate::model::work::{NOTIFY_NAME, SSH_AUTHORIZED, SSH_PORT, SSHD};
use std::collections::BTreeMap;

/// How the processes of one LRP begin.
pub(super) struct Launch<'a> {
    /// `launcher` or `docker-launcher`.
    pub(super) role: &'a str,
    /// Where the launcher is started.
    pub(super) dir: &'a str,
    /// Where a check that is a command is started.
    pub(super) checks_dir: &'a str,
    /// Start command; empty: the image's own.
    pub(super) command: &'a str,
    /// The launcher's third argument.
    pub(super) metadata: &'a str,
    pub(super) user: &'a str,
    pub(super) nofile: u64,
    pub(super) env: &'a [(String, String)],
    pub(super) log_source: &'a str,
    /// Name of the process type.
    pub(super) process: &'a str,
    /// Its checks.
    pub(super) health: &'a [&'a Health],
}

impl Launch<'_> {
    /// The work of each instance. A sidecar begins as the app does, with a command of its own; one that
    /// the manifest has takes the place of one that a buildpack calls the same.
    pub(super) fn work(&self, manifest: &Manifest, built: &[StagedSidecar]) -> Work {
        let built = self::built(manifest, built, self.process).into_iter();
        let built = built.map(|(name, it)| (name, it.command.clone()));
        let own = manifest.sidecars_of(self.process);
        let own = own.map(|(name, it)| (name.clone(), it.command.clone()));
        let all: BTreeMap<String, String> = built.chain(own).collect();
        let sidecars = all.into_iter().map(|(name, command)| Sidecar {
            action: self
                .run(&command, format!("{}/SIDECAR/{}", self.log_source, name.to_uppercase())),
            name,
        });
        let ssh = manifest.ssh.as_ref().map(|ssh| self.sshd(ssh));
        let checks = self.health.iter().flat_map(|health| health.probes());
        let has_command = checks.into_iter().any(|it| matches!(it.check, Check::Exec { .. }));
        Work {
            sidecars: sidecars.chain(ssh).collect(),
            probe: has_command.then(|| self.process(self.checks_dir)),
            ssh_keys: manifest.ssh.as_ref().and_then(|ssh| ssh.authorized_keys_file.clone()),
            ..Work::new(self.run(self.command, self.log_source.to_owned()))
        }
    }

    /// The server for `[ssh]`, which runs as the app's user. The cell adds the host key.
    fn sshd(&self, ssh: &Ssh) -> Sidecar {
        let closed = ssh.no_forwarding.then(|| "-refuseForwarding".to_owned());
        let idle = ssh.idle_timeout.map(|idle| format!("-idleTimeout={}s", idle.as_secs().max(1)));
        let process = ProcessSpec {
            path: "/tmp/lifecycle/diego-sshd".into(),
            args: [
                format!("-address=0.0.0.0:{SSH_PORT}"),
                format!("{SSH_AUTHORIZED}{}", ssh.authorized_keys.join("\n")),
                "-inheritDaemonEnv".into(),
                "-logLevel=fatal".into(),
            ]
            .into_iter()
            .chain(closed)
            .chain(idle)
            .collect(),
            ..self.process(self.dir)
        };
        let log_source = "CELL/SSHD".to_owned();
        let action = Action::Run(RunAction { process, log_source, suppress_log_output: false });
        Sidecar { name: SSHD.into(), action }
    }

    fn run(&self, command: &str, log_source: String) -> Action {
        let process = ProcessSpec {
            path: format!("/tmp/lifecycle/{}", self.role),
            args: vec!["app".into(), command.into(), self.metadata.into()],
            launches: true,
            ..self.process(self.dir)
        };
        Action::Run(RunAction { process, log_source, suppress_log_output: false })
    }

    fn process(&self, dir: &str) -> ProcessSpec {
        ProcessSpec {
            env: self.env.to_vec(),
            dir: Some(dir.into()),
            user: self.user.into(),
            nofile: Some(self.nofile),
            ..ProcessSpec::default()
        }
    }
}

/// Most sidecars of a process that buildpacks may have.
pub(super) const BUILT_MAX: usize = 16;

/// Longest name of one.
const NAME_MAX: usize = 16;

/// Whether a buildpack's sidecar runs beside this process type.
pub(super) fn is_beside(sidecar: &StagedSidecar, process: &str) -> bool {
    sidecar.process_types.iter().any(|it| it == process)
}

/// The sidecars that buildpacks have made for a process, by a name of its own each. The manifest's take
/// the place of those that are called the same; none takes that of the SSH server, which has the host key.
pub(super) fn built<'a>(
    manifest: &Manifest,
    built: &'a [StagedSidecar],
    process: &str,
) -> BTreeMap<String, &'a StagedSidecar> {
    let server = manifest.ssh.as_ref().map(|_| SSHD);
    let mut all: BTreeMap<String, &StagedSidecar> = BTreeMap::new();
    for sidecar in built.iter().filter(|it| is_beside(it, process)).take(BUILT_MAX) {
        // What a later buildpack calls the same is in its place.
        let is_taken = |name: &str| {
            Some(name) == server || all.get(name).is_some_and(|other| other.name != sidecar.name)
        };
        all.insert(free(plain(&sidecar.name), is_taken), sidecar);
    }
    let own: Vec<&String> = manifest.sidecars_of(process).map(|(name, _)| name).collect();
    all.retain(|name, _| !own.contains(&name));
    all
}

/// `name`, or with a number behind it: as it is short, another may be called the same.
fn free(name: String, is_taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|number| {
        let end = format!("-{number}");
        let head: String = name.chars().take(NAME_MAX - end.len()).collect();
        format!("{}{end}", head.trim_end_matches('-'))
    });
    let mut names = [name.clone()].into_iter().chain(numbered);
    names.find(|name| !is_taken(name)).expect("there are more numbers than sidecars")
}

/// A name that a sidecar can have, for one that a buildpack has made up.
fn plain(name: &str) -> String {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let text = name.to_ascii_lowercase().replace(|c| !good(c), "-");
    let text: String = text.trim_matches('-').chars().take(NAME_MAX).collect();
    match text.trim_end_matches('-') {
        "" => "sidecar".into(),
        text => text.into(),
    }
}

/// What a process with a watchdog finds in its environment, as under systemd.
pub(super) fn watchdog_env(health: &Health) -> Vec<(String, String)> {
    let watchdog = health.probes().into_iter().find(|probe| probe.check == Check::Watchdog);
    let Some(watchdog) = watchdog else { return Vec::new() };
    let us = watchdog.interval.as_micros();
    vec![
        ("NOTIFY_SOCKET".to_owned(), format!("@{NOTIFY_NAME}")),
        ("WATCHDOG_USEC".to_owned(), us.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sidecar_of_a_buildpack_hides_another_or_the_ssh_server() {
        let text = "name = \"web\"\n[build]\nstack = \"tiny\"\n[source]\npath = \"/src\"\n\
                    [process.web]\n[sidecar.relay]\ncommand = \"relay\"\n";
        let named = |more: &str, names: &[&str]| {
            let text = format!("{text}{more}");
            let manifest = crate::config::manifest::parse(&text, "web.toml", "/".as_ref());
            let manifest = manifest.unwrap_or_else(|it| panic!("{}", it.render(false)));
            let staged = names.iter().map(|name| StagedSidecar {
                name: (*name).into(),
                process_types: vec!["web".into()],
                command: format!("run {name}"),
                memory: None,
            });
            let staged: Vec<StagedSidecar> = staged.collect();
            let all = built(&manifest, &staged, "web").into_iter();
            all.map(|(name, it)| format!("{name}: {}", it.name)).collect::<Vec<_>>().join(", ")
        };
        let long = ["a-very-long-name-one", "a-very-long-name-two", "a-very-long-name"];
        assert_eq!(
            named("", &long),
            "a-very-long-na-2: a-very-long-name-two, a-very-long-na-3: a-very-long-name, \
             a-very-long-name: a-very-long-name-one"
        );
        assert_eq!(named("", &["x", "x"]), "x: x", "the later buildpack's");
        assert_eq!(named("", &["relay", "Relay"]), "relay-2: Relay", "the manifest's is there");
        assert_eq!(named("", &["sshd"]), "sshd: sshd");
        let ssh = "[ssh]\nauthorized_keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYH\
                   CAkKCwwNDg8QERITFBUWFxgZGhscHR4f a\"]\n";
        assert_eq!(named(ssh, &["sshd", "SSHd"]), "sshd-2: sshd, sshd-3: SSHd");
        assert_eq!(named("", &["x"; 40]), "x: x");
    }

    #[test]
    fn a_buildpack_s_sidecar_gets_a_name_that_can_be_part_of_others() {
        for (name, text) in [
            ("agent", "agent"),
            ("APM_Agent 2", "apm-agent-2"),
            ("a-very-long-name-indeed", "a-very-long-name"),
            ("a-very-long-nam_e", "a-very-long-nam"),
            ("\u{e9}", "sidecar"),
        ] {
            assert_eq!(plain(name), text);
        }
    }
}
