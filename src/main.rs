//! Who am I this time? Verb or argv[0] to role, an error chain once, an exit code.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use terrarium::cli::parse::{Command, Invocation, parse};
use terrarium::image::registry::credentials::{Credentials, Login};
use terrarium::image::registry::settings::Settings;
use terrarium::lifecycle::Wanted;
use terrarium::{cli, image, init, lifecycle, log, stage};

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    // Containers see this binary under the name of the program that it stands in for.
    let name = Path::new(&name).file_name().unwrap_or_default().to_string_lossy();
    // The SSH server calls the program of a session as a login shell, with a hyphen in front.
    let name = name.strip_prefix('-').unwrap_or(&name);
    if let Some(code) = inside(name, &args) {
        return code;
    }
    let result = match parse(args) {
        Ok(Invocation { command: Command::Init, .. }) => return init::run(),
        Ok(Invocation { command: Command::Lifecycle { role, args }, .. }) => {
            return inside(&role.to_string_lossy(), &args).unwrap_or_else(|| {
                eprintln!("terrarium: no lifecycle program `{}`", role.display());
                ExitCode::from(2)
            });
        }
        Ok(invocation) => cli::main(invocation),
        Err(err) => Err(err.into()),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(err) => {
            if !err.is_silent() {
                eprintln!("terrarium: {}", log::chain(&err));
            }
            ExitCode::from(err.code())
        }
    }
}

/// Runs a program of containers by its name; `None`: it is none.
fn inside(name: &str, args: &[OsString]) -> Option<ExitCode> {
    lifecycle::stage_image(name, args, &look).or_else(|| lifecycle::run(name, args))
}

/// What the lifecycle's own room cannot do: asks a registry how an image wants to be run. The
/// result.json of it.
fn look(wanted: &Wanted) -> Result<String, String> {
    // The usual port is not in the name of an image, and so not in that of its registry.
    let usual = wanted.insecure.iter().filter_map(|text| text.strip_suffix(":443"));
    let insecure = wanted.insecure.iter().map(String::as_str).chain(usual).map(str::parse);
    let insecure = insecure.collect::<Result<Vec<_>, String>>()?;
    // What the box has said of insecure registries is all; certificates and logins lie in its places.
    let settings = Settings { insecure, ..Settings::default() };
    let login = match &wanted.login {
        Some((user, password)) => Some(Login::new(user, password)),
        // In a container: those that the box has given it.
        None => {
            let all = Credentials::read(&settings.credentials).map_err(|failure| failure.text)?;
            let image = wanted.image.at(&settings.default);
            let host = image.host().unwrap_or_default();
            all.find(host, &image.repository(host)).cloned()
        }
    };
    let config = image::look(&wanted.image, settings, login).map_err(|failure| failure.text)?;
    let result = stage::docker::result(&wanted.name(), &config).map_err(|err| err.to_string())?;
    serde_json::to_string(&result).map_err(|err| err.to_string())
}
