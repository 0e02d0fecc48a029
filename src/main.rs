//! Thin: picks the role by verb.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("init") => terrarium::init::run(),
        _ => ExitCode::FAILURE,
    }
}
