//! `launcher APP_DIR START_COMMAND METADATA`: sets the stage for an app and becomes it. `shell APP_DIR
//! [COMMAND]` does the same for a person who looks around in it.
//!
//! Run from the home directory of the unpacked droplet. The last step is an exec of the stack's
//! shell, which sources the buildpacks' and the app's profile scripts and execs the command.

use super::handover::Handover;
use super::yaml::{self, Value};
use super::{archive, docker};
use super::{missing, vcap};
use std::env;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// What the shell does. $1 app directory, $2 command, $3 how to run it instead of with the shell
/// ($4). The scripts run in a function, so that `set --` in one of them cannot take our arguments.
const SCRIPT: &str = r#"
cd "$1" || exit 1
terrarium_source() { . "$terrarium_script"; }
echo 'Invoking pre-start scripts.'
for terrarium_script in "$1"/../profile.d/* "$1"/.profile.d/* "$1"/.profile; do
  if [ -f "$terrarium_script" ]; then terrarium_source; fi
done
unset terrarium_script
unset -f terrarium_source
echo 'Invoking start command.'
if [ -n "$3" ]; then exec $3 "$2"; fi
exec "$4" -c "$2"
"#;

/// Exit code for a program that is not there, as a shell has it.
pub(super) const NO_PROGRAM: u8 = 127;

/// Exit code for an environment that cannot be set up.
const BAD_ENVIRONMENT: u8 = 3;

/// The largest staging_info.yml that is read.
const INFO_MAX: u64 = 1 << 20;

/// The role: returns only when it fails.
pub(super) fn run(args: &[OsString]) -> Result<(), u8> {
    // The archive for images calls theirs by this name, too.
    let own = env::current_exe().unwrap_or_default();
    if own.with_file_name(archive::DOCKER).exists() {
        return docker::run_as_launcher(args);
    }
    let handover = Handover::take();
    let [app, command, _metadata, ..] = args else {
        complain!("usage: launcher APP_DIR START_COMMAND METADATA");
        return Err(1);
    };
    let app = absolute(Path::new(app)).map_err(|err| {
        complain!("cannot find the working directory: {err}");
        1
    })?;
    let info = staging_info(Path::new("staging_info.yml")).map_err(|why| {
        complain!("Invalid staging info - {why}");
        1
    })?;
    let command = match command.is_empty() {
        true => info.start_command.into(),
        false => command.clone(),
    };
    if command.is_empty() {
        complain!("launcher: no start command specified or detected in droplet");
        return Err(1);
    }
    // What its scripts do to PATH, only the shell will know.
    let is_simple = info.prefix.is_empty() && !has_scripts(&app);
    if is_simple && let Some(err) = missing::tell(&command, &app, &handover) {
        complain!("launcher: cannot execute {}: {err}", command.display());
        return Err(NO_PROGRAM);
    }
    let shell = shell();
    let mut child = Command::new(shell);
    child.args(["-c", SCRIPT, shell]).arg(&app).arg(command).arg(info.prefix).arg(shell);
    environment(&app, &mut child)?;
    let err = handover.become_it(&mut child);
    complain!("launcher: cannot execute {shell}: {err}");
    Err(1)
}

/// Whether anything is sourced before the app begins.
fn has_scripts(app: &Path) -> bool {
    let filled = |dir: PathBuf| std::fs::read_dir(dir).is_ok_and(|mut it| it.next().is_some());
    filled(app.join("../profile.d"))
        || filled(app.join(".profile.d"))
        || app.join(".profile").exists()
}

/// The stack's bash, or what a stack without one has.
pub(super) fn shell() -> &'static str {
    if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" }
}

/// What the app finds in its environment beside what it inherits.
pub(super) fn environment(app: &Path, child: &mut Command) -> Result<(), u8> {
    let home = app.parent().unwrap_or(app);
    child.env("HOME", app).env("TMPDIR", home.join("tmp")).env("DEPS_DIR", home.join("deps"));
    platform(child)
}

/// What the platform tells every app, however it comes.
pub(super) fn platform(child: &mut Command) -> Result<(), u8> {
    let get = |name: &str| env::var(name).unwrap_or_default();
    let index = Some(get("INSTANCE_INDEX")).filter(|index| !index.is_empty());
    let index = index.unwrap_or_else(|| get("CF_INSTANCE_INDEX"));
    let application =
        vcap::application(&get("VCAP_APPLICATION"), &get("INSTANCE_GUID"), &get("PORT"), &index);
    if let Some(application) = application {
        child.env("VCAP_APPLICATION", application);
    }
    vcap::platform_options(&get("VCAP_PLATFORM_OPTIONS"), &get("VCAP_SERVICES")).map_err(
        |err| {
            complain!("{err}");
            err.code()
        },
    )?;
    child.env_remove("VCAP_PLATFORM_OPTIONS");
    let url = vcap::database_url(&get("VCAP_SERVICES")).map_err(|why| {
        complain!("launcher: VCAP_SERVICES is not valid: {why}");
        BAD_ENVIRONMENT
    })?;
    if let Some(url) = url {
        child.env("DATABASE_URL", url);
    }
    Ok(())
}

/// What staging left beside the app.
#[derive(Debug, Default, PartialEq, Eq)]
struct StagingInfo {
    start_command: String,
    prefix: String,
}

fn staging_info(file: &Path) -> Result<StagingInfo, String> {
    let mut text = String::new();
    match std::fs::File::open(file) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(StagingInfo::default()),
        opened => opened.and_then(|file| file.take(INFO_MAX).read_to_string(&mut text)),
    }
    .map_err(|err| format!("cannot read {}: {err}", file.display()))?;
    let info = yaml::parse(&text).map_err(|err| err.to_string())?;
    if !matches!(info, Value::Null | Value::Map(_)) {
        return Err(format!("it holds {}, not a map", info.kind()));
    }
    let text = |value: Option<&Value>| value.and_then(Value::as_text).unwrap_or("").to_owned();
    Ok(StagingInfo {
        start_command: text(info.get("start_command")),
        prefix: text(info.get("config").and_then(|config| config.get("entrypoint_prefix"))),
    })
}

/// The path from the root, without `.` and `..`.
pub(super) fn absolute(path: &Path) -> io::Result<PathBuf> {
    let mut out = PathBuf::new();
    for part in env::current_dir()?.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    Ok(out)
}
