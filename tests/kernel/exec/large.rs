//! Files that are larger than what they go into: the one that reads them in the container must end,
//! though pid 1 keeps its pipe open.

use super::{Stage, assert_idle, run};
use crate::lab::alone;
use crate::tool::tool;
use std::fs;
use std::io::Write;
use std::time::Duration;
use terrarium::exec::cancel;
use terrarium::exec::streams::drain;
use terrarium::model::action::{Action, CopyOutAction, UploadAction};

/// 2 MiB: more than a pipe and both of the sockets' buffers.
const MAKE: &str = "dd if=/dev/zero of=/tmp/large bs=65536 count=32 2>/dev/null";

fn within_a_minute(action: Action) -> Action {
    Action::Timeout { action: Box::new(action), timeout: Duration::from_secs(60) }
}

#[test]
fn a_result_that_is_too_large_is_told() {
    if !alone(module_path!(), "a_result_that_is_too_large_is_told") {
        return;
    }
    let stage = Stage::new("result");
    stage.perform(&run("", MAKE)).expect("made");
    stage.perform(&run("", "printf good > /tmp/small")).expect("made");
    // None of it needs the cache's directory.
    fs::remove_dir_all(stage.lab.state.join("downloads")).expect("remove");
    let read = |path: &'static str| {
        let (_canceller, cancel) = cancel::pair();
        let late = async {
            smol::Timer::after(Duration::from_secs(60)).await;
            Err("it hangs".to_owned())
        };
        let read = stage.exec.read_result(path, &cancel);
        smol::block_on(smol::future::or(read, late))
    };
    let too_large = "result file is too large (over 51200 bytes)";
    assert_eq!(read("/tmp/large"), Err(too_large.into()));
    assert_eq!(read("/tmp/small"), Ok("good".into()));
    assert_eq!(read("/tmp/none"), Err("/tmp/none cannot be read inside".into()));
    assert_idle(&stage);
    stage.close();
}

#[test]
fn row_41_an_upload_that_is_too_large_names_the_limit() {
    if !alone(module_path!(), "row_41_an_upload_that_is_too_large_names_the_limit") {
        return;
    }
    let stage = Stage::new("toolarge");
    stage.perform(&run("", MAKE)).expect("made");
    stage.said();
    let upload = |to: &str| {
        within_a_minute(Action::Upload(UploadAction {
            from: "/tmp/large".into(),
            to: to.into(),
            user: "root".into(),
            artifact: "droplet".into(),
            log_source: "STG".into(),
        }))
    };
    let text = "Failed to copy stream contents into temp file for droplet";
    assert_eq!(stage.refused(&upload("http://127.0.0.1:1/x")), text);
    let said = stage.said();
    let why = "STG ERR /tmp/large has more bytes than this box sends, 1MiB ([downloads] size); make it \
               smaller, or that larger";
    assert_eq!(said, ["STG OUT Uploading droplet...", why, &format!("STG ERR {text}")]);
    assert_idle(&stage);

    // Looked at before the file is.
    assert_eq!(stage.refused(&upload("nowhere")), "Failed to parse URL for droplet");
    let said = stage.said();
    assert_eq!(said, ["STG OUT Uploading droplet...", "STG ERR Failed to parse URL for droplet"]);
    stage.close();
}

#[test]
fn a_copy_to_a_full_disk_is_told_and_leaves_nothing() {
    if !alone(module_path!(), "a_copy_to_a_full_disk_is_told_and_leaves_nothing") {
        return;
    }
    let stage = Stage::new("full");
    stage.perform(&run("", MAKE)).expect("made");
    let full = stage.lab.state.join("full");
    fs::create_dir(&full).expect("mkdir");
    let at = full.to_str().expect("text");
    tool("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs", at]);
    let copy = within_a_minute(Action::CopyOut(CopyOutAction {
        from: "/tmp/large".into(),
        to: full.join("droplet.tgz"),
        user: "root".into(),
        artifact: "droplet".into(),
        optional: false,
    }));
    let why = stage.refused(&copy);
    assert!(why.starts_with("Copying droplet out of the container failed: "), "{why}");
    assert!(why.contains("No space left on device"), "{why}");
    assert_eq!(fs::read_dir(&full).expect("list").count(), 0, "a part is left");
    assert_idle(&stage);
    tool("umount", &[at]);
    stage.close();
}

/// A process may have made its pipe as large as it can be and have filled it before it ended.
#[test]
fn a_pipe_that_is_full_at_the_end_of_its_process_is_read_to_its_last_byte() {
    const PIPE_MAX: usize = 1 << 20;
    let (from, into) = nix::unistd::pipe().expect("pipe");
    let size = nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIPE_MAX as i32);
    nix::fcntl::fcntl(&into, size).expect("as large as a pipe can be");
    let mut into = fs::File::from(into);
    into.write_all(&vec![b'x'; PIPE_MAX]).expect("it holds all of it");
    let (over, ended) = cancel::pair();
    over.cancel();
    let mut length = 0;
    // The other end stays open, as pid 1 has it.
    let read = drain(from, ended, |bytes| {
        length += bytes.len();
        Ok(())
    });
    smol::block_on(read).expect("read");
    assert_eq!(length, PIPE_MAX);
}
