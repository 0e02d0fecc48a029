//! What an image says of its end.

use super::super::lab::Lab;
use super::{fill, image, manifest, mode, text};
use std::fs;

/// Says which signal it got, and goes on after TERM.
const SAYS: &str = "#!/bin/sh\n\
    trap 'echo got USR1; exit 0' USR1\ntrap 'echo got TERM' TERM\ntrap 'echo got QUIT; exit 0' QUIT\n\
    echo ready\nwhile :; do /bin/busybox sleep 0.1; done\n";

/// Row 39: the signal that the image names asks it to end, unless its manifest names another.
#[test]
fn row_39_an_image_ends_by_its_own_signal() {
    let lab = Lab::start("imagestop");
    let with = |root: &std::path::Path| {
        fill(root);
        fs::write(root.join("bin/says"), SAYS).expect("write");
        fs::set_permissions(root.join("bin/says"), mode(0o755)).expect("mode");
    };
    let how = ["--config.entrypoint", "/bin/says", "--config.stopsignal", "SIGUSR1"];
    let made = image(&lab.root, with, &how);
    let archive =
        format!("image.archive = \"{}\"\nhealth = {{ type = \"process\" }}\n", text(&made));
    for (name, more, said) in
        [("own", "", "got USR1"), ("other", "stop = { signal = \"QUIT\" }\n", "got QUIT")]
    {
        lab.ok(&["apply", &manifest(&lab, name, &format!("{archive}{more}"))]);
        lab.until_state(name, "running");
        lab.until("it is ready", |lab| (!lab.logged(name, "OUT ready").is_empty()).then_some(()));
        lab.ok(&["stop", name]);
        lab.until("it has ended", |lab| {
            (!lab.logged(name, "successfully destroyed container").is_empty()).then_some(())
        });
        let lines = lab.ok(&["logs", name, "-n", "1000"]).out;
        assert!(lines.contains(said), "{lines}");
        assert_eq!(lines.matches("OUT got ").count(), 1, "{lines}");
        assert!(lines.contains("Exit status 0"), "by itself, not by KILL: {lines}");
    }
    lab.finish();
}
