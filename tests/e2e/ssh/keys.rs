//! Keys that a file of the box names.

use super::client::Client;
use crate::docker::text;
use crate::lab::Lab;
use std::fs;

/// Row 77: who stands in the file comes in from the next start on, and who is taken out of it does not; a line
/// that is no key is told with its number, and keeps nobody else out.
#[test]
fn row_77_a_file_of_the_box_says_who_comes_in() {
    let lab = Lab::start("ssh-file");
    let (me, other) = (Client::key(&lab, "me"), Client::key(&lab, "other"));
    let file = lab.root.join("ops.keys");
    fs::write(&file, format!("# ops\n{me}\n")).expect("keys");
    let shown = text(&file).to_owned();
    let manifest = |keys: &str| {
        format!(
            "[run]\nmemory = \"48MiB\"\ndisk = \"32MiB\"\n\n{}\n[ssh]\npublish = 2022\n{keys}\n",
            crate::PORT
        )
    };
    let only = format!("authorized_keys_file = \"{shown}\"");
    let web = lab.app("web", crate::WEB, &manifest(&only));
    lab.ok(&["apply", &web]);
    let view = lab.until_state("web", "running");
    let ssh = Client::new(&lab, &view["ssh"]);
    let comes_in = |who: &str| {
        let ran = ssh.as_key(who).run("echo in");
        assert!(ran.out == "in\n" || ran.err.contains("Permission denied"), "{}", ran.err);
        ran.out == "in\n"
    };
    assert!(comes_in("me") && !comes_in("other"));
    let restart = || {
        lab.ok(&["restart", "web"]);
        lab.until_state("web", "running");
        lab.until("its server answers", |_| (!ssh.scanned().is_empty()).then_some(()));
    };
    fs::write(&file, format!("{me}\nno-pty {me}\n{other}\n")).expect("keys");
    // What is wrong with it is told where, before anything happens.
    for verb in ["check", "apply"] {
        let told = lab.run(&[verb, &web]);
        let why = format!("{shown}, line 2: the key begins with none of its types");
        assert!(told.code != 0 && told.err.contains(&why), "{verb}: {}", told.err);
        assert!(told.err.contains("web.toml:"), "{verb}: {}", told.err);
    }
    assert!(comes_in("me") && !comes_in("other"), "it is read when an instance starts");
    restart();
    assert!(comes_in("me") && comes_in("other"));
    let lines = lab.logged("web", "line 2: the key begins with none of its types");
    assert_eq!(lines.len(), 1, "{lines:?}");
    fs::write(&file, format!("{other}\n")).expect("keys");
    restart();
    assert!(!comes_in("me") && comes_in("other"));
    // Nobody comes in by a file that is not there; the app runs.
    fs::remove_file(&file).expect("removed");
    restart();
    assert!(!comes_in("me") && !comes_in("other"));
    assert_eq!(lab.logged("web", "it lets nobody in by SSH").len(), 1);
    let told = lab.run(&["check", &web]);
    assert!(
        told.code != 0 && told.err.contains(&format!("{shown} cannot be read")),
        "{}",
        told.err
    );
    lab.finish();
}
