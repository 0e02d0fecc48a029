//! What Garden's containers may do beyond an app's.

use super::lab::*;
use super::probe;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Guardian's: an app's and net_raw, mknod, audit_write, setfcap.
fn capabilities() -> Vec<u8> {
    CAPABILITIES.into_iter().chain([13, 27, 29, 31]).collect()
}

#[test]
fn a_set_user_id_program_gives_rights_in_gardens_posture_alone() {
    for no_new_privs in [true, false] {
        let lab = Lab::new();
        let program = lab.lower().join("bin/as-root");
        fs::copy(std::env::current_exe().expect("own program"), &program).expect("copy");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).expect("mode");
        let mut plan = lab.plan();
        (plan.no_new_privs, plan.capabilities) = (no_new_privs, capabilities());
        let mut container = lab.launch(&plan).expect("a container");
        let inside = &mut container.connection;
        let said = inside.run(probe::identity("/bin/as-root", "vcap")).out;
        let all = "00000000a80425fb";
        let (uid, effective) = if no_new_privs { (2000, "0000000000000000") } else { (0, all) };
        for (key, value) in [
            ("Uid", format!("2000\t{uid}\t{uid}\t{uid}")),
            ("CapEff", effective.into()),
            ("CapInh", "0000000000000000".into()),
            ("CapBnd", all.into()),
            ("NoNewPrivs", u8::from(no_new_privs).to_string()),
            ("Seccomp", "2".into()),
        ] {
            assert!(said.contains(&format!("{key}:\t{value}\n")), "{key}: {said}");
        }
    }
}

#[test]
fn the_kernel_gives_a_garden_container_no_more_calls_than_an_app() {
    let lab = Lab::new();
    let app = probe::answers(&lab, "root");
    fs::remove_file(lab.dir.join("depot/sock")).expect("old socket");
    super::reset_writable(&lab);
    let mut plan = lab.plan();
    (plan.no_new_privs, plan.capabilities) = (false, capabilities());
    let garden = probe::answers_of(&lab, plan, "root");
    let differ: Vec<_> =
        app.lines().zip(garden.lines()).filter(|(a, b)| a != b && a.contains('=')).collect();
    assert_eq!(differ, [("socket raw=1", "socket raw=0")], "{garden}");
}
