//! What the builder of images gets of the box's own settings: whose certificates it trusts, who it is to
//! servers that ask, and the box's login where the controller names none.
//!
//! They are files of the staging's container, in memory, its user's alone, read when it is made; at the
//! very paths at which the client of registries looks. Nothing of them is in the Task's record.

use super::Settings;
use super::request::{DockerData, Staging, Variable};
use crate::image::registry::credentials::Credentials;
use crate::image::registry::settings::Settings as Inside;
use crate::model::lrp::{FileMount, Holds};
use crate::unit::{ImageRef, registry_name};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Files of certificates that one container gets.
const FILES_MAX: usize = 64;

/// Of one such file, in bytes: as much as a file of a container may have.
const FILE_MAX: u64 = 1 << 20;
/// Who may read them inside.
const MODE: u32 = 0o400;
/// Where images are that name no registry, and who answers for it.
const HUB: &str = "docker.io";
const HUB_AT: &str = "registry-1.docker.io";
/// Variables that say whom to trust or whom to go through. A staging that sets one does not get the
/// box's login: it could be led to somebody else.
const LEADING: [&str; 6] =
    ["SSL_CERT_FILE", "CF_SYSTEM_CERT_PATH", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];

/// The files for the staging of an image. Blocking.
pub(super) fn files(settings: &Settings, request: &Staging, data: &DockerData) -> Vec<FileMount> {
    let (inside, registry) = (Inside::default(), registry_of(&data.docker_image));
    let mut all = certificates(&settings.certs, &inside.certs, &who(settings, &registry));
    let is_plain = settings.insecure_registries.iter().filter_map(|text| text.parse().ok());
    let is_plain =
        Inside { insecure: is_plain.collect(), ..Inside::default() }.is_insecure(&registry);
    let is_free = data.docker_user.is_empty() && !is_plain && !is_led(&request.environment);
    if is_free && has_login(&settings.logins, &registry, &data.docker_image) {
        all.push(file(&inside.credentials, &settings.logins));
    }
    all
}

/// The image's registry, as its name has it.
fn registry_of(image: &str) -> String {
    let image = image.parse::<ImageRef>().ok();
    let host = image.as_ref().and_then(ImageRef::host).map(registry_name);
    host.unwrap_or(HUB).to_owned()
}

/// The servers for which the box's own certificate and key go along.
fn who(settings: &Settings, registry: &str) -> BTreeSet<String> {
    let at = if registry == HUB { HUB_AT } else { registry };
    settings.token_servers.iter().cloned().chain([at.to_owned()]).collect()
}

/// Issuers of all servers, which are no secret, and what tells `who` that it is us.
fn certificates(from: &Path, to: &Path, who: &BTreeSet<String>) -> Vec<FileMount> {
    let names = |dir: &Path| {
        let items = fs::read_dir(dir).into_iter().flatten().flatten();
        items.filter_map(|item| item.file_name().into_string().ok()).collect::<BTreeSet<_>>()
    };
    let mut all = Vec::new();
    for host in names(from) {
        let dir = from.join(&host);
        for name in names(&dir) {
            let ours = matches!(name.as_str(), "client.cert" | "client.key");
            if (name.ends_with(".crt") || (ours && who.contains(&host)))
                && is_small_file(&dir.join(&name))
            {
                all.push(file(&to.join(&host).join(&name), &dir.join(&name)));
            }
        }
    }
    if all.len() > FILES_MAX {
        let dir = from.display();
        crate::warn!(
            "bridge.certificates_left_out",
            dir = dir,
            files = all.len(),
            most = FILES_MAX
        );
        // The image's own first.
        let is_own = |it: &FileMount| who.iter().any(|host| it.path.contains(&format!("/{host}/")));
        all.sort_by_key(|it| !is_own(it));
        all.truncate(FILES_MAX);
    }
    all
}

/// A larger one is no certificate, and would keep the container from being made.
fn is_small_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|it| it.is_file() && it.len() <= FILE_MAX)
}

fn file(to: &Path, from: &Path) -> FileMount {
    let holds = Holds::Source(PathBuf::from(from));
    FileMount { path: to.to_string_lossy().into_owned(), holds, mode: MODE }
}

/// Whether its environment says whom to trust or whom to go through.
fn is_led(env: &[Variable]) -> bool {
    env.iter().any(|it| LEADING.iter().any(|name| it.name.eq_ignore_ascii_case(name)))
}

/// Whether the box has a login for it. A file that cannot be read has none, and is told.
fn has_login(file: &Path, registry: &str, image: &str) -> bool {
    let Ok(image) = image.parse::<ImageRef>() else { return false };
    match Credentials::read(file) {
        Ok(all) => all.find(registry, &image.repository(registry)).is_some(),
        Err(err) => {
            crate::warn!("bridge.no_logins", err = err.text);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(dir: &Path) -> Settings {
        Settings {
            base: None,
            form: crate::bridge::recipe::Form::Mounted,
            docker_stack: String::new(),
            insecure_registries: vec!["plain.lan:5000".into()],
            uploads: PathBuf::new(),
            certs: dir.join("certs.d"),
            logins: dir.join("auth.json"),
            token_servers: vec!["tokens.lan".into()],
            upload_max: 0,
            ssh_server: PathBuf::new(),
        }
    }

    fn paths(settings: &Settings, image: &str, user: &str, env: &[&str]) -> Vec<String> {
        let variable = |name: &&str| Variable { name: (*name).into(), value: "x".into() };
        let environment = env.iter().map(variable).collect();
        let request = Staging { environment, ..Staging::default() };
        let data = DockerData {
            docker_image: image.into(),
            docker_user: user.into(),
            ..DockerData::default()
        };
        files(settings, &request, &data).into_iter().map(|it| it.path).collect()
    }

    /// Row 75: the box's own trust and logins reach the builder of images, and nobody else's.
    #[test]
    fn row_75_certificates_and_a_login_go_where_they_belong() {
        let dir = std::env::temp_dir().join(format!("terrarium-trust-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("directory");
            fs::write(path, text).expect("file");
        };
        for host in ["reg.lan:5000", "other.lan", "tokens.lan"] {
            for name in ["ca.crt", "client.cert", "client.key", "README"] {
                write(&format!("certs.d/{host}/{name}"), "x");
            }
        }
        // YTpi is a:b.
        let auths =
            r#"{"auths":{"reg.lan:5000":{"auth":"YTpi"},"plain.lan:5000":{"auth":"YTpi"}}}"#;
        write("auth.json", auths);
        let settings = settings(&dir);
        let at = |names: &[&str]| {
            let path = |name: &&str| format!("/etc/terrarium/{name}");
            names.iter().map(path).collect::<Vec<_>>()
        };
        let own = [
            "certs.d/other.lan/ca.crt",
            "certs.d/reg.lan:5000/ca.crt",
            "certs.d/reg.lan:5000/client.cert",
            "certs.d/reg.lan:5000/client.key",
            "certs.d/tokens.lan/ca.crt",
            "certs.d/tokens.lan/client.cert",
            "certs.d/tokens.lan/client.key",
        ];
        let with_login: Vec<&str> = own.into_iter().chain(["auth.json"]).collect();
        let image = "reg.lan:5000/ops/app:1";
        assert_eq!(paths(&settings, image, "", &["FOO"]), at(&with_login));
        // Who brings his own, or says whom to trust, does not get the box's.
        assert_eq!(paths(&settings, image, "ann", &[]), at(&own));
        assert_eq!(paths(&settings, image, "", &["https_proxy"]), at(&own));
        assert_eq!(paths(&settings, image, "", &["SSL_CERT_FILE"]), at(&own));
        // Nor does a registry that the box has none for, or that anybody could stand in for.
        let others: Vec<&str> =
            own.into_iter().filter(|it| !it.contains("reg.lan:5000/cl")).collect();
        assert_eq!(paths(&settings, "other.lan/a", "", &[]).len(), others.len() + 2);
        assert_eq!(paths(&settings, "plain.lan:5000/a", "", &[]), at(&others));
        assert_eq!(paths(&settings, "busybox", "", &[]), at(&others));
        for number in 0..FILES_MAX {
            write(&format!("certs.d/a{number}.lan/ca.crt"), "x");
        }
        let many = paths(&settings, "reg.lan:5000/a", "ann", &[]);
        assert_eq!(many.len(), FILES_MAX);
        assert!(many.contains(&at(&["certs.d/reg.lan:5000/client.key"])[0]), "{many:?}");
        fs::remove_dir_all(dir).expect("clean up");
    }
}
