//! `docker-launcher IGNORED START_COMMAND METADATA` and `make-dirs DIR...`: how an app begins that
//! comes as an image. The image need not have a single tool in it.

use super::handover::Handover;
use super::{launcher, missing};
use crate::model::image::Execution;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What runs a start command.
const SHELL: &str = "/bin/sh";

/// The launcher: becomes the start command, or the image's entrypoint; returns only when it fails.
/// It begins in the image's working directory.
pub(super) fn run(args: &[OsString]) -> Result<(), u8> {
    let handover = Handover::take();
    let [_, command, metadata, ..] = args else {
        complain!("usage: docker-launcher IGNORED START_COMMAND METADATA");
        return Err(1);
    };
    let mut child = match command.is_empty() {
        false => {
            let here = std::env::current_dir().unwrap_or_default();
            if let Some(err) = missing::tell(command, &here, &handover) {
                complain!("docker-launcher: cannot execute {}: {err}", command.display());
                return Err(launcher::NO_PROGRAM);
            }
            let mut shell = Command::new(SHELL);
            shell.arg("-c").arg(command);
            shell
        }
        true => own(metadata)?,
    };
    launcher::platform(&mut child)?;
    let err = handover.become_it(&mut child);
    let program = child.get_program().to_string_lossy().into_owned();
    complain!("docker-launcher: cannot execute {program}: {err}");
    Err(1)
}

/// The same as Diego's: it goes to the image's working directory by itself.
pub(super) fn run_as_launcher(args: &[OsString]) -> Result<(), u8> {
    if let [_, _, metadata, ..] = args {
        let workdir = execution(metadata)?.workdir;
        let dir = if workdir.is_empty() { "/" } else { &workdir };
        std::env::set_current_dir(dir).map_err(|err| {
            complain!("launcher: cannot go to {dir}: {err}");
            1
        })?;
    }
    run(args)
}

/// What the image runs by itself.
fn own(metadata: &OsString) -> Result<Command, u8> {
    let read = execution(metadata)?;
    let mut words = read.entrypoint.into_iter().chain(read.cmd);
    let Some(program) = words.next() else {
        complain!("No start command found or specified");
        return Err(1);
    };
    let mut child = Command::new(program);
    child.args(words);
    Ok(child)
}

/// What the image says of itself.
fn execution(metadata: &OsString) -> Result<Execution, u8> {
    let text = metadata.to_string_lossy();
    let text = if text.trim().is_empty() { "{}" } else { &text };
    serde_json::from_str(text).map_err(|err| {
        complain!("Invalid metadata - {err}");
        1
    })
}

/// Makes directories, those above them too, where they are missing.
pub(super) fn make_dirs(args: &[OsString]) -> Result<(), u8> {
    for dir in args.iter().map(Path::new) {
        let dir = Path::new("/").join(dir);
        if let Err(err) = fs::create_dir_all(&dir) {
            complain!("make-dirs: cannot make {}: {err}", dir.display());
            return Err(1);
        }
    }
    Ok(())
}
