//! Diego's actions as JSON and back: one key for each, its name. Pure.
//!
//! What Diego does not know (copies on the box itself) has no JSON. Names that nobody knows are not
//! looked at, as Go's decoder does not; `null` is what is not there.

use crate::model::action::{
    Action, Checksum, ChecksumAlgorithm, DownloadAction, RunAction, UploadAction,
};
use crate::model::process::ProcessSpec;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Why a text is no action: Diego's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadAction(pub String);

type Read<T> = Result<T, BadAction>;

fn invalid<T>(field: &str) -> Read<T> {
    Err(BadAction(format!("Invalid field: {field}")))
}

/// Reads an action.
pub fn decode(value: &Value) -> Read<Action> {
    let Some(object) = value.as_object() else { return invalid("action") };
    let mut named = object.iter().filter(|(_, inner)| !inner.is_null());
    let (Some((name, inner)), None) = (named.next(), named.next()) else {
        return Err(BadAction("Invalid field: action: exactly one of its names is wanted".into()));
    };
    let Some(inner) = inner.as_object() else { return invalid(name) };
    let fields = Fields(inner);
    let action = match name.as_str() {
        "run" => return run(&fields),
        "download" => return download(&fields),
        "upload" => return upload(&fields),
        "timeout" => {
            Action::Timeout { action: fields.child()?.into(), timeout: time_limit(&fields)? }
        }
        "try" => Action::Try(fields.child()?.into()),
        "parallel" => Action::Parallel(fields.children()?),
        "serial" => Action::Serial(fields.children()?),
        "codependent" => Action::Codependent(fields.children()?),
        "emit_progress" => Action::EmitProgress {
            action: fields.child()?.into(),
            start_message: fields.text("start_message")?,
            success_message: fields.text("success_message")?,
            failure_message_prefix: fields.text("failure_message_prefix")?,
        },
        other => return Err(BadAction(format!("Unknown action: {}", other.escape_default()))),
    };
    let source = fields.text("log_source")?;
    Ok(match source.is_empty() {
        true => action,
        false => Action::LogSource { source, action: action.into() },
    })
}

/// The fields of one object.
pub struct Fields<'a>(pub &'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// A field that is there.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A text; empty when it is not there.
    pub fn text(&self, name: &str) -> Read<String> {
        match self.get(name) {
            None => Ok(String::new()),
            Some(Value::String(text)) if !text.contains('\0') => Ok(text.clone()),
            Some(_) => invalid(name),
        }
    }

    /// A text that must be there.
    pub fn needed(&self, name: &str) -> Read<String> {
        let text = self.text(name)?;
        if text.is_empty() { invalid(name) } else { Ok(text) }
    }

    /// A number; 0 when it is not there.
    pub fn number(&self, name: &str) -> Read<u64> {
        match self.get(name) {
            None => Ok(0),
            Some(value) => value.as_u64().map_or_else(|| invalid(name), Ok),
        }
    }

    /// True or false; false when it is not there.
    pub fn truth(&self, name: &str) -> Read<bool> {
        match self.get(name) {
            None => Ok(false),
            Some(value) => value.as_bool().map_or_else(|| invalid(name), Ok),
        }
    }

    /// A list; empty when it is not there.
    pub fn list(&self, name: &str) -> Read<&'a [Value]> {
        match self.get(name) {
            None => Ok(&[]),
            Some(value) => {
                value.as_array().map_or_else(|| invalid(name), |list| Ok(list.as_slice()))
            }
        }
    }

    /// An object; `None` when it is not there.
    pub fn object(&self, name: &str) -> Read<Option<Fields<'a>>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(inner)) => Ok(Some(Fields(inner))),
            Some(_) => invalid(name),
        }
    }

    /// A list of texts.
    pub fn texts(&self, name: &str) -> Read<Vec<String>> {
        let text = |item: &Value| match item.as_str() {
            Some(text) if !text.contains('\0') => Ok(text.to_owned()),
            _ => invalid(name),
        };
        self.list(name)?.iter().map(text).collect()
    }

    /// A list of `{name, value}`.
    pub fn env(&self, name: &str) -> Read<Vec<(String, String)>> {
        let pair = |item: &Value| {
            let Some(item) = item.as_object() else { return invalid(name) };
            let item = Fields(item);
            let (key, value) = (item.needed("name")?, item.text("value")?);
            if key.contains('=') { invalid(name) } else { Ok((key, value)) }
        };
        self.list(name)?.iter().map(pair).collect()
    }

    fn child(&self) -> Read<Action> {
        self.get("action").map_or_else(|| invalid("action"), decode)
    }

    fn children(&self) -> Read<Vec<Action>> {
        let children: Vec<Action> =
            self.list("actions")?.iter().map(decode).collect::<Read<_>>()?;
        if children.is_empty() { invalid("actions") } else { Ok(children) }
    }
}

/// `timeout` in nanoseconds, as of 2015, or `timeout_ms`.
fn time_limit(fields: &Fields<'_>) -> Read<Duration> {
    let both = (fields.number("timeout")?, fields.number("timeout_ms")?);
    match both {
        (0, 0) => invalid("timeout"),
        (0, ms) => Ok(Duration::from_millis(ms)),
        (ns, _) => Ok(Duration::from_nanos(ns)),
    }
}

fn run(fields: &Fields<'_>) -> Read<Action> {
    let nofile = match fields.object("resource_limits")? {
        Some(limits) => limits.get("nofile").map(|_| limits.number("nofile")).transpose()?,
        None => None,
    };
    let dir = fields.text("dir")?;
    let process = ProcessSpec {
        path: fields.needed("path")?,
        args: fields.texts("args")?,
        env: fields.env("env")?,
        dir: (!dir.is_empty()).then_some(dir),
        user: fields.needed("user")?,
        nofile,
        ..process()
    };
    Ok(Action::Run(RunAction {
        process,
        log_source: fields.text("log_source")?,
        suppress_log_output: fields.truth("suppress_log_output")?,
    }))
}

/// A process of which nothing is said; its name in the container is the executor's to choose.
fn process() -> ProcessSpec {
    ProcessSpec::default()
}

/// What a download must come to: both fields or none.
pub(super) fn checksum(fields: &Fields<'_>) -> Read<Option<Checksum>> {
    let (algorithm, value) = (fields.text("checksum_algorithm")?, fields.text("checksum_value")?);
    match (algorithm.to_ascii_lowercase().as_str(), value.as_str()) {
        ("", "") => Ok(None),
        ("", _) => invalid("checksum algorithm"),
        (_, "") => invalid("checksum value"),
        (name, _) => match ALGORITHMS.into_iter().find(|(known, _)| *known == name) {
            Some((_, algorithm)) => Ok(Some(Checksum { algorithm, value })),
            None => invalid("checksum algorithm"),
        },
    }
}

fn download(fields: &Fields<'_>) -> Read<Action> {
    Ok(Action::Download(DownloadAction {
        from: fields.needed("from")?,
        to: fields.needed("to")?,
        cache_key: fields.text("cache_key")?,
        user: fields.needed("user")?,
        artifact: fields.text("artifact")?,
        log_source: fields.text("log_source")?,
        checksum: checksum(fields)?,
    }))
}

const ALGORITHMS: [(&str, ChecksumAlgorithm); 3] = [
    ("md5", ChecksumAlgorithm::Md5),
    ("sha1", ChecksumAlgorithm::Sha1),
    ("sha256", ChecksumAlgorithm::Sha256),
];

fn upload(fields: &Fields<'_>) -> Read<Action> {
    Ok(Action::Upload(UploadAction {
        from: fields.needed("from")?,
        to: fields.needed("to")?,
        user: fields.needed("user")?,
        artifact: fields.text("artifact")?,
        log_source: fields.text("log_source")?,
    }))
}

/// An action as JSON; `None`: it is one that Diego does not know.
pub fn encode(action: &Action) -> Option<Value> {
    encode_under(action, "")
}

/// The same; `source` is what the nearest wrapper says about logs.
fn encode_under(action: &Action, source: &str) -> Option<Value> {
    let all = |actions: &[Action]| actions.iter().map(encode).collect::<Option<Vec<_>>>();
    let (name, mut value) = match action {
        Action::LogSource { source, action } => return encode_under(action, source),
        Action::CopyIn(_) | Action::CopyOut(_) => return None,
        Action::Run(run) => ("run", encode_run(run)),
        Action::Download(download) => ("download", encode_download(download)),
        Action::Upload(it) => (
            "upload",
            json!({ "from": it.from, "to": it.to, "user": it.user, "artifact": it.artifact,
                "log_source": it.log_source }),
        ),
        Action::Timeout { action, timeout } => {
            ("timeout", json!({ "action": encode(action)?, "timeout": timeout.as_nanos() as u64 }))
        }
        Action::Try(action) => ("try", json!({ "action": encode(action)? })),
        Action::Parallel(actions) => ("parallel", json!({ "actions": all(actions)? })),
        Action::Serial(actions) => ("serial", json!({ "actions": all(actions)? })),
        Action::Codependent(actions) => ("codependent", json!({ "actions": all(actions)? })),
        Action::EmitProgress { action, start_message, success_message, failure_message_prefix } => {
            (
                "emit_progress",
                json!({ "action": encode(action)?, "start_message": start_message,
                "success_message": success_message,
                "failure_message_prefix": failure_message_prefix }),
            )
        }
    };
    if !source.is_empty() && value.get("log_source").is_none_or(|own| own == "") {
        value["log_source"] = source.into();
    }
    Some(json!({ name: value }))
}

fn encode_run(run: &RunAction) -> Value {
    let process = &run.process;
    let env = process.env.iter().map(|(name, value)| json!({ "name": name, "value": value }));
    let mut value = json!({
        "path": process.path,
        "args": process.args,
        "dir": process.dir.as_deref().unwrap_or_default(),
        "env": env.collect::<Vec<_>>(),
        "user": process.user,
        "resource_limits": {},
        "log_source": run.log_source,
        "suppress_log_output": run.suppress_log_output,
    });
    if let Some(nofile) = process.nofile {
        value["resource_limits"]["nofile"] = nofile.into();
    }
    value
}

fn encode_download(it: &DownloadAction) -> Value {
    let mut value = json!({ "from": it.from, "to": it.to, "cache_key": it.cache_key,
        "user": it.user, "artifact": it.artifact, "log_source": it.log_source });
    if let Some(checksum) = &it.checksum {
        let name = ALGORITHMS.into_iter().find(|(_, known)| *known == checksum.algorithm);
        value["checksum_algorithm"] = name.map_or("", |(name, _)| name).into();
        value["checksum_value"] = checksum.value.clone().into();
    }
    value
}

#[cfg(test)]
mod tests;
