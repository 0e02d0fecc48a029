//! What the README tells of the bridge is so.

use super::{PORT, lab};
use crate::docker::text;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Row 79, row 82, row 84, row 86: the README's lines, one after the other, in a box of the test's own:
/// of the small stack, which has busybox in the place of Python.
#[test]
fn row_82_the_lines_of_the_readme_run_an_app() {
    let mut lab = lab("cc-readme", "");
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).expect("README");
    let (_, rest) = readme.split_once("## Under a cloud controller").expect("the section");
    let (_, rest) = rest.split_once("```sh\n").expect("its lines");
    let (lines, _) = rest.split_once("```").expect("their end");
    assert!(lines.contains(PORT) && lines.contains("\"edgefs\""), "{lines}");
    let files = lab.root.join("usr/lib/terrarium/files");
    // The archive that the box makes has the SSH server in it; that of the other tests has none.
    fs::remove_dir_all(&files).expect("no other archive");
    let lines = lines
        .replace("/usr/lib/terrarium/files", text(&files))
        .replace("\"edgefs\"", "\"tiny\"")
        .replace("python3 -m http.server $PORT", "exec busybox httpd -f -p $PORT")
        .replace("\"disk_mb\": 128", "\"disk_mb\": 512");
    let dir = lab.root.join("readme");
    fs::create_dir_all(&dir).expect("directory");
    lab.serve();
    let ran = Command::new("sh").args(["-exc", &lines]).current_dir(&dir).output().expect("sh");
    let out = String::from_utf8_lossy(&ran.stdout).into_owned();
    let told = format!("{out}\n{}\n{}", String::from_utf8_lossy(&ran.stderr), lab.daemon_log());
    assert!(ran.status.success(), "{told}");
    for said in ["hello from the bridge", "\"state\":\"", "\"diego-ssh\":{", "\"tcp-router\":["] {
        assert!(out.contains(said), "{said}: {told}");
    }
    lab.until("it is gone", |lab| (lab.run(&["apps", "--json"]).out.trim() == "[]").then_some(()));
    lab.finish();
}
