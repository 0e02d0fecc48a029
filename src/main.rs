//! Who am I this time? Verb or argv[0] to role, an error chain once, an exit code.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use terrarium::cli::parse::{Command, Invocation, parse};
use terrarium::{cli, init, lifecycle, log};

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    // Containers see this binary under the name of the program that it stands in for.
    let name = Path::new(&name).file_name().unwrap_or_default().to_string_lossy();
    if let Some(code) = lifecycle::run(&name, &args) {
        return code;
    }
    let result = match parse(args) {
        Ok(Invocation { command: Command::Init, .. }) => return init::run(),
        Ok(Invocation { command: Command::Lifecycle { role, args }, .. }) => {
            return lifecycle::run(&role.to_string_lossy(), &args).unwrap_or_else(|| {
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
