//! `[bridge]`, `[bbs]` and `[cloud_controller]`: who speaks Cloud Foundry's own dialects to the box, and who is
//! asked what shall run.

use super::super::address::endpoint;
use super::super::cursor::Section;
use super::super::words::{shown, word};
use super::Paths;
use super::read::{read_listen, set};
use super::registry::read_path;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Longest URL, in bytes.
const URL_MAX: usize = 2048;

/// `[bridge]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Where the dialects are served besides the socket, on this box only; `None`: nowhere, and then
    /// nothing can be staged or desired.
    pub listen: Option<SocketAddr>,
    /// Containers have programs and buildpacks mounted; `false`: they download them.
    pub mounts: bool,
    /// The stack in which images are looked at; empty: the first one of the box.
    pub docker_stack: String,
    /// What the file server serves.
    pub files: PathBuf,
}

/// `[bbs]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bbs {
    /// Where today's record store is served besides the socket; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// File of our certificate, as PEM; empty: there is no TLS.
    pub cert_file: PathBuf,
    /// File of its key.
    pub key_file: PathBuf,
    /// File of the certificates whose holders may come; empty: whoever is on the box.
    pub ca_file: PathBuf,
}

/// `[cloud_controller]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudController {
    /// Without a slash at its end; empty: there is none.
    pub url: String,
    /// Who we are to it; empty: nobody.
    pub user: String,
    /// File that holds the password.
    pub password_file: PathBuf,
    /// Any certificate of it will do.
    pub skip_cert_verify: bool,
    /// It hears of crashes as today; `false`: as in 2015.
    pub is_v4: bool,
}

impl Bridge {
    pub(super) fn defaults(paths: &Paths) -> Bridge {
        Bridge {
            listen: None,
            mounts: false,
            docker_stack: String::new(),
            files: paths.lib.join("files"),
        }
    }

    pub(super) fn read(&mut self, mut section: Section<'_>, paths: &Paths) {
        let listen = section.take("listen");
        set(&mut self.listen, listen.and_then(|it| it.parsed(read_listen)));
        let ways = [("download", false), ("mount", true)];
        set(&mut self.mounts, section.take("lifecycle").and_then(|it| it.one_of(&ways)));
        let stack = section.take("docker_stack");
        set(&mut self.docker_stack, stack.and_then(|it| it.parsed(read_stack)));
        let (files, auto) = (section.take("files"), Bridge::defaults(paths).files);
        set(&mut self.files, files.and_then(|it| it.parsed(|text| read_path(text, &auto))));
        section.finish();
    }
}

impl Bbs {
    pub(super) fn read(&mut self, mut section: Section<'_>) {
        for (name, file) in [
            ("cert_file", &mut self.cert_file),
            ("key_file", &mut self.key_file),
            ("ca_file", &mut self.ca_file),
        ] {
            set(file, section.take(name).and_then(|it| it.parsed(read_file)));
        }
        let listen = section.take("listen");
        set(&mut self.listen, listen.as_ref().and_then(|it| it.parsed(endpoint)));
        let place = listen.as_ref().map(|it| &it.place);
        let is_none = |file: &PathBuf| file.as_os_str().is_empty();
        let has_client_tls =
            [&self.cert_file, &self.key_file, &self.ca_file].map(is_none) == [false; 3];
        if let (Some(address), Some(place)) = (self.listen, place) {
            if is_none(&self.cert_file) != is_none(&self.key_file)
                || (is_none(&self.cert_file) && !is_none(&self.ca_file))
            {
                place.fail(
                    "of `cert_file`, `key_file` and `ca_file` some are there without the others",
                    "name certificate and key, and with them whom to admit; or none of the three",
                );
            } else if !address.ip().is_loopback() && !has_client_tls {
                place.fail(
                    format!("`{address}` can be reached from other machines, without a password"),
                    "write 127.0.0.1, or add cert_file, key_file and ca_file before it",
                );
            }
        }
        section.finish();
    }
}

impl CloudController {
    pub(super) fn read(&mut self, mut section: Section<'_>) {
        set(&mut self.url, section.take("url").and_then(|it| it.parsed(read_url)));
        let user = section.take("user").and_then(|it| it.text(255).map(str::to_owned));
        set(&mut self.user, user);
        let file = section.take("password_file");
        set(&mut self.password_file, file.and_then(|it| it.parsed(read_file)));
        let skip = section.take("skip_cert_verify").and_then(|it| it.truth());
        set(&mut self.skip_cert_verify, skip);
        let ways = [("2015", false), ("v4", true)];
        set(&mut self.is_v4, section.take("crashes").and_then(|it| it.one_of(&ways)));
        section.finish();
    }
}

fn read_stack(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { word("stack", text, 63) }
}

/// An absolute path; empty: none.
fn read_file(text: &str) -> Result<PathBuf, String> {
    match text.is_empty() || text.starts_with('/') {
        true => Ok(text.into()),
        false => Err(format!("`{}` is no absolute path; write \"/...\"", shown(text))),
    }
}

/// Without a login: that has keys of its own, and URLs are shown.
fn read_url(text: &str) -> Result<String, String> {
    let rest = ["http://", "https://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let plain = |rest: &&str| {
        let host = rest.split('/').next().unwrap_or_default();
        !host.is_empty() && text.len() <= URL_MAX && !rest.contains(['@', '?', '#', ' '])
    };
    match rest.filter(plain) {
        Some(_) => Ok(text.trim_end_matches('/').to_owned()),
        None if text.is_empty() => Ok(String::new()),
        None => Err(format!(
            "`{}` is no URL of a cloud controller; such as \"https://cc.example.com:9023\", and \
             write its login as `user` and `password_file`",
            shown(text)
        )),
    }
}
