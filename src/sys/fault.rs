//! Ends of this process that tests ask for. In a release build there are none.

use std::fmt;

/// Ends this process as a SIGKILL does, if a test wants it at this point: in a debug build whose
/// environment names a file (`TERRARIUM_DIE_FILE`) with the point's name in it. The file goes first,
/// so that it happens once.
#[cfg(debug_assertions)]
pub fn point(name: fmt::Arguments<'_>) {
    let Some(file) = std::env::var_os("TERRARIUM_DIE_FILE") else { return };
    if std::fs::read_to_string(&file).is_ok_and(|wanted| wanted == name.to_string()) {
        let _ = std::fs::remove_file(file);
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub fn point(_name: fmt::Arguments<'_>) {}
