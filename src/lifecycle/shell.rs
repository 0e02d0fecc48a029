//! `shell [APP_DIR [COMMAND]]`: a shell, or a command, in the environment that the launcher gives the
//! app, for a person who looks into a buildpack app's container.

use super::launcher;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// The app directory of buildpack apps.
const APP: &str = "/home/vcap/app";

/// What the shell does. $1 app directory, $2 command or nothing, $3 the shell. As the launcher's, without
/// the app's own .profile, which may start what is to run once.
const SCRIPT: &str = r#"
cd "$1" || exit 1
terrarium_source() { . "$terrarium_script"; }
for terrarium_script in "$1"/../profile.d/* "$1"/.profile.d/*; do
  if [ -f "$terrarium_script" ]; then terrarium_source; fi
done
unset terrarium_script
unset -f terrarium_source
if [ -n "$2" ]; then exec "$3" -c "$2"; fi
exec "$3"
"#;

/// The role: returns only when it fails.
pub(super) fn run(args: &[OsString]) -> Result<(), u8> {
    let app = args.first().map_or(Path::new(APP), Path::new);
    let app = launcher::absolute(app).map_err(|err| {
        complain!("shell: cannot find the working directory: {err}");
        1
    })?;
    let command = args.get(1).cloned().unwrap_or_default();
    let shell = launcher::shell();
    let mut child = Command::new(shell);
    child.args(["-c", SCRIPT, shell]).arg(&app).arg(command).arg(shell);
    launcher::environment(&app, &mut child)?;
    let err = std::os::unix::process::CommandExt::exec(&mut child);
    complain!("shell: cannot execute {shell}: {err}");
    Err(1)
}
