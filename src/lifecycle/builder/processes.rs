//! Which processes an app has: from launch.yml, bin/release and the Procfile. Pure.

use crate::lifecycle::yaml::Value;
use std::collections::BTreeMap;

/// Processes and sidecars by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Processes {
    /// Command by process type.
    pub commands: BTreeMap<String, String>,
    /// Sidecar by name.
    pub sidecars: BTreeMap<String, Sidecar>,
}

/// A process beside others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sidecar {
    /// What is run.
    pub command: String,
    /// Beside which process types.
    pub beside: Vec<String>,
    /// Its memory limit in MiB.
    pub memory_mib: Option<u64>,
}

impl Processes {
    /// The command of the process type `web`.
    pub(super) fn web(&self) -> Option<&str> {
        self.commands.get("web").map(String::as_str).filter(|command| !command.is_empty())
    }

    /// Takes over what a launch.yml names.
    pub(super) fn add_launch(&mut self, launch: &Value) -> Result<(), String> {
        map_or_nothing(launch)?;
        let Some(processes) = launch.get("processes") else { return Ok(()) };
        for process in processes.as_list().ok_or("`processes` is not a list")? {
            let field = |name: &str| {
                let text = process.get(name).and_then(Value::as_text);
                text.map(str::to_owned).ok_or_else(|| format!("a process has no text `{name}`"))
            };
            let (kind, command) = (field("type")?, field("command")?);
            let beside = path(process, &["platforms", "cloudfoundry", "sidecar_for"]);
            let Some(beside) = beside.and_then(Value::as_list).filter(|list| !list.is_empty())
            else {
                self.commands.insert(kind, command);
                continue;
            };
            let beside = beside.iter().filter_map(Value::as_text).map(str::to_owned).collect();
            let memory_mib = match path(process, &["limits", "memory"]).and_then(Value::as_text) {
                Some(text) => Some(text.parse().map_err(|_| {
                    format!("memory `{text}` of sidecar {kind} is not a number of MiB")
                })?),
                None => None,
            };
            self.sidecars.insert(kind, Sidecar { command, beside, memory_mib });
        }
        Ok(())
    }

    /// Takes over what bin/release printed.
    pub(super) fn add_release(&mut self, release: &Value) -> Result<(), String> {
        map_or_nothing(release)?;
        match release.get("default_process_types") {
            Some(types) => {
                self.add_map(types).map_err(|why| format!("default_process_types: {why}"))
            }
            None => Ok(()),
        }
    }

    /// Takes over what a Procfile names.
    pub(super) fn add_procfile(&mut self, procfile: &Value) -> Result<(), String> {
        if procfile.is_null() { Ok(()) } else { self.add_map(procfile) }
    }

    fn add_map(&mut self, map: &Value) -> Result<(), String> {
        let pairs = map.as_map().ok_or_else(|| format!("it is {}, not a map", map.kind()))?;
        for (kind, command) in pairs {
            let command = command.as_text().ok_or_else(|| {
                format!("the command of `{kind}` is {}, not text", command.kind())
            })?;
            self.commands.insert(kind.clone(), command.to_owned());
        }
        Ok(())
    }
}

fn map_or_nothing(value: &Value) -> Result<(), String> {
    match value {
        Value::Null | Value::Map(_) => Ok(()),
        other => Err(format!("it is {}, not a map", other.kind())),
    }
}

fn path<'a>(value: &'a Value, keys: &[&str]) -> Option<&'a Value> {
    keys.iter().try_fold(value, |value, key| value.get(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::yaml;

    fn read(text: &str) -> Value {
        yaml::parse(text).expect(text)
    }

    /// Row 72: launch.yml, bin/release, Procfile.
    #[test]
    fn later_sources_replace_earlier_ones() {
        let mut all = Processes::default();
        let launch = "processes:\n- type: web\n  command: a\n- type: x\n  command: b\n  limits: {memory: 64}\n  platforms: {cloudfoundry: {sidecar_for: [web]}}\n";
        all.add_launch(&read(launch)).expect("launch");
        all.add_release(&read("default_process_types: {web: c, worker: d}")).expect("release");
        all.add_procfile(&read("worker: e f")).expect("Procfile");
        all.add_procfile(&Value::Null).expect("empty Procfile");
        assert_eq!(all.web(), Some("c"));
        assert_eq!(all.commands["worker"], "e f");
        let sidecar =
            Sidecar { command: "b".into(), beside: vec!["web".into()], memory_mib: Some(64) };
        assert_eq!(all.sidecars["x"], sidecar);
    }

    #[test]
    fn what_names_no_processes_is_fine_and_what_is_odd_is_named() {
        for text in ["", "{}", "processes:", "default_process_types:", "addons: [x]"] {
            let mut all = Processes::default();
            assert_eq!(all.add_launch(&read(text)), Ok(()), "{text}");
            assert_eq!(all.add_release(&read(text)), Ok(()), "{text}");
            assert_eq!(all, Processes::default());
        }
        let mut all = Processes::default();
        for (result, why) in [
            (all.add_launch(&read("processes: x")), "not a list"),
            (all.add_launch(&read("processes: [{type: x}]")), "no text `command`"),
            (all.add_launch(&read("- a")), "a list, not a map"),
            (all.add_release(&read("default_process_types: [a]")), "a list, not a map"),
            (all.add_procfile(&read("web: [a]")), "`web` is a list"),
            (all.add_procfile(&read("web:")), "`web` is nothing"),
            (all.add_procfile(&read("python app.py")), "it is text"),
        ] {
            assert!(result.as_ref().is_err_and(|err| err.contains(why)), "{why}: {result:?}");
        }
    }
}
