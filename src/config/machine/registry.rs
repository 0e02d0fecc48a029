//! `[registry]`: where images come from, and who is trusted with what.

use super::super::address::{self, Registry};
use super::super::cursor::{Section, Value};
use super::super::words::shown;
use super::Paths;
use super::net::all;
use super::read::set;
use std::path::PathBuf;

/// Most entries of one list.
const LIST_MAX: usize = 256;
/// Longest path, in bytes.
const TEXT_MAX: usize = 4096;

/// Where images come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registries {
    /// The registry of images that name none.
    pub default: Registry,
    /// Registries, or networks of them, that may be without TLS or have a certificate that nobody
    /// vouches for; as written.
    pub insecure: Vec<String>,
    /// Registries that may be asked by the first version of the protocol.
    pub v1: Vec<Registry>,
    /// Registries, each with one that is asked before it; in order.
    pub mirrors: Vec<(Registry, Registry)>,
    /// Whether mirrors may say what a tag means.
    pub mirrors_tell_tags: bool,
    /// Servers of tokens that logins may go to, wherever they are.
    pub token_servers: Vec<Registry>,
    /// Users and passwords, as `docker login` writes them.
    pub logins: PathBuf,
    /// Directory of certificates, as docker has it.
    pub certs: PathBuf,
    /// Directory of archives and layouts whose images are loaded at the start.
    pub preload: PathBuf,
}

impl Registries {
    pub(super) fn defaults(paths: &Paths) -> Registries {
        Registries {
            default: Registry { host: "docker.io".into(), port: None },
            insecure: Vec::new(),
            v1: Vec::new(),
            mirrors: Vec::new(),
            mirrors_tell_tags: false,
            token_servers: Vec::new(),
            logins: paths.etc.join("auth.json"),
            certs: paths.etc.join("certs.d"),
            preload: paths.images(),
        }
    }

    pub(super) fn read(&mut self, mut section: Section<'_>, paths: &Paths) {
        let default = section.take("default");
        set(&mut self.default, default.and_then(|it| it.parsed(address::registry)));
        let insecure = section.take("insecure");
        set(&mut self.insecure, insecure.and_then(|it| all(&it, LIST_MAX, read_insecure)));
        let registries = |it: Value<'_>| all(&it, LIST_MAX, address::registry);
        set(&mut self.v1, section.take("v1").and_then(registries));
        let mirrors = section.take("mirrors");
        set(&mut self.mirrors, mirrors.and_then(|it| all(&it, LIST_MAX, read_mirror)));
        let tell = section.take("mirrors_tell_tags");
        set(&mut self.mirrors_tell_tags, tell.and_then(|it| it.truth()));
        set(&mut self.token_servers, section.take("token_servers").and_then(registries));
        let logins = section.take("logins");
        let own = Registries::defaults(paths);
        set(&mut self.logins, logins.and_then(|it| it.parsed(|text| read_path(text, &own.logins))));
        let certs = section.take("certs");
        set(&mut self.certs, certs.and_then(|it| it.parsed(|text| read_path(text, &own.certs))));
        let preload = section.take("preload");
        let preload = preload.and_then(|it| it.parsed(|text| read_path(text, &own.preload)));
        set(&mut self.preload, preload);
        section.finish();
    }
}

/// A registry, or a network: `10.0.0.0/8`, `fd00::/8`.
fn read_insecure(text: &str) -> Result<String, String> {
    let Some((net, length)) = text.split_once('/') else {
        return address::registry(text).map(|registry| registry.to_string());
    };
    let most = net.parse().ok().map(|net: std::net::IpAddr| if net.is_ipv4() { 32 } else { 128 });
    match (most, length.parse::<u8>()) {
        (Some(most), Ok(length)) if length <= most => Ok(text.to_owned()),
        _ => Err(format!("`{}` is no network; such as \"10.0.0.0/8\"", shown(text))),
    }
}

/// `registry=mirror`.
fn read_mirror(text: &str) -> Result<(Registry, Registry), String> {
    let (of, mirror) = text.split_once('=').ok_or_else(|| {
        let text = shown(text);
        format!("`{text}` names no mirror; such as \"docker.io=mirror.lan:5000\"")
    })?;
    Ok((address::registry(of)?, address::registry(mirror)?))
}

/// `"auto"` or an absolute path.
pub(super) fn read_path(text: &str, auto: &std::path::Path) -> Result<PathBuf, String> {
    match text {
        "auto" => Ok(auto.to_owned()),
        text if text.starts_with('/') && text.len() <= TEXT_MAX => Ok(text.into()),
        text => Err(format!("`{}` is no absolute path; write \"/...\"", shown(text))),
    }
}
