//! Whether the box can put processes under an AppArmor profile.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Longest list of profiles, in bytes: a line each, and boxes have some hundreds.
const LIST_MAX: u64 = 16 << 20;

/// Looks for AppArmor and for `profile` among those it has loaded; `sys` is the box's /sys. The
/// error says what to do.
pub fn check(profile: &str, sys: &Path) -> Result<(), String> {
    let refuse = |why: String| Err(format!("setting `apparmor` of [garden] is `{profile}`: {why}"));
    match read(&sys.join("module/apparmor/parameters/enabled")) {
        Ok(text) if text.trim() == "Y" => {}
        Ok(_) => {
            return refuse(
                "AppArmor is switched off; boot with `apparmor=1 security=apparmor`, or set it to \
                 \"\""
                    .into(),
            );
        }
        Err(_) => {
            return refuse(
                "the kernel of this box has no AppArmor; boot one that has, or set it to \"\""
                    .into(),
            );
        }
    }
    let list = sys.join("kernel/security/apparmor/profiles");
    let loaded = match read(&list) {
        Ok(text) => is_listed(profile, &text),
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            return refuse(format!(
                "{} is missing; mount it with `mount -t securityfs securityfs \
                 /sys/kernel/security`",
                list.display()
            ));
        }
        Err(err) => return refuse(format!("cannot read {}: {err}", list.display())),
    };
    if !loaded {
        return refuse(
            "the box has not loaded that profile; load its file with `apparmor_parser -r FILE`, \
             or name one that `aa-status` lists"
                .into(),
        );
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LIST_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether the kernel's list, lines as `name (mode)`, has the profile, in whatever mode.
fn is_listed(profile: &str, list: &str) -> bool {
    list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(name, _)| name == profile))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_profile_is_found_by_its_whole_name() {
        let list = "docker-default (enforce)\ngarden-default (complain)\n/usr/bin/man (enforce)\n\
                    garden-default//child (enforce)\nodd (name) (unconfined)\n";
        for (name, listed) in [
            ("garden-default", true),
            ("/usr/bin/man", true),
            ("odd (name)", true),
            ("garden", false),
            ("child", false),
            ("garden-default (complain)", false),
            ("", false),
        ] {
            assert_eq!(is_listed(name, list), listed, "{name}");
        }
    }

    #[test]
    fn a_box_that_cannot_confine_is_told_what_to_do() {
        let sys = std::env::temp_dir().join(format!("apparmor-{}", std::process::id()));
        let put = |path: &str, text: &str| {
            let path = sys.join(path);
            fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            fs::write(path, text).expect("write");
        };
        let why = || check("garden-default", &sys).err().unwrap_or_default();
        let mut heard = vec![why()];
        put("module/apparmor/parameters/enabled", "N\n");
        heard.push(why());
        put("module/apparmor/parameters/enabled", "Y\n");
        heard.push(why());
        put("kernel/security/apparmor/profiles", "docker-default (enforce)\n");
        heard.push(why());
        put("kernel/security/apparmor/profiles", "garden-default (enforce)\n");
        heard.push(why());
        fs::remove_dir_all(&sys).expect("clean");
        let cures = ["has no AppArmor", "`apparmor=1", "mount -t securityfs", "apparmor_parser -r"];
        for (said, cure) in heard.iter().zip(cures) {
            assert!(said.starts_with("setting `apparmor` of [garden]"), "{said}");
            assert!(said.contains(cure), "{said}");
        }
        assert_eq!(heard[4], "");
    }
}
