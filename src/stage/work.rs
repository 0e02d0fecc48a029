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
        let beside = |types: &[String]| types.iter().any(|it| it == self.process);
        let built = built.iter().filter(|it| beside(&it.process_types));
        let built = built.map(|it| (plain(&it.name), it.command.clone())).take(BUILT_MAX);
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
const BUILT_MAX: usize = 16;

/// A name that a sidecar can have, for one that a buildpack has made up.
fn plain(name: &str) -> String {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let text = name.to_ascii_lowercase().replace(|c| !good(c), "-");
    let text: String = text.trim_matches('-').chars().take(16).collect();
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
    use super::plain;

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
