//! Users and passwords of registries, from the file that docker and podman users have:
//! `{"auths": {"<host>": {"auth": "<base64 of user:password>", "identitytoken": "..."}}}`.

use super::failure::{Failure, Kind};
use crate::unit::registry_name;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Longest file.
const FILE_MAX: u64 = 1 << 20;

/// A user of a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Empty with an identity token.
    pub user: String,
    /// Never told to anybody but the registry.
    pub secret: Secret,
}

/// How a login is proved.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// For Basic, and for asking for a token.
    Password(String),
    /// Exchanged for a token.
    Identity(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.user)
    }
}

impl Login {
    /// A user with a password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Login {
        Login { user: user.into(), secret: Secret::Password(password.into()) }
    }

    /// The value of `Authorization` for Basic; `None` with an identity token.
    pub fn basic(&self) -> Option<String> {
        match &self.secret {
            Secret::Password(password) => {
                let pair = format!("{}:{password}", self.user);
                Some(format!("Basic {}", base64(pair.as_bytes())))
            }
            Secret::Identity(_) => None,
        }
    }
}

/// All logins of a file.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    logins: BTreeMap<String, Login>,
    /// Programs that have the logins of some registries, and of all others. They are not run.
    helpers: BTreeMap<String, String>,
    helper: Option<String>,
}

/// Who may read a file with logins: group and others, of its mode.
const TOO_OPEN: u32 = 0o044;
/// Whether that was told since the file was last as it should be.
static TOLD: AtomicBool = AtomicBool::new(false);

#[derive(Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    helper: Option<String>,
}

#[derive(Default, Deserialize)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl Credentials {
    /// Reads the file; none there is no logins.
    pub fn read(path: &Path) -> Result<Credentials, Failure> {
        let broken = |why: String| {
            let text = format!("the registry logins in {}: {why}", path.display());
            Failure::new(Kind::Here, text)
        };
        let mut text = Vec::new();
        match File::open(path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Credentials::default()),
            opened => opened
                .and_then(|file| {
                    warn_of(path, file.metadata()?.mode());
                    file.take(FILE_MAX + 1).read_to_end(&mut text)
                })
                .map_err(|err| broken(err.to_string()))?,
        };
        if text.len() as u64 > FILE_MAX {
            return Err(broken(format!("the file is longer than {FILE_MAX} bytes")));
        }
        Credentials::parse(&text).map_err(broken)
    }

    /// Reads the file's text. Errors never hold any of it but names of hosts.
    pub fn parse(text: &[u8]) -> Result<Credentials, String> {
        let file: AuthFile = serde_json::from_slice(text).map_err(|err| {
            format!(
                "line {}, column {}: not the form that `docker login` writes",
                err.line(),
                err.column()
            )
        })?;
        let mut logins = BTreeMap::new();
        for (host, auth) in file.auths {
            let Some(login) = login(auth).map_err(|why| format!("{host}: {why}"))? else {
                continue;
            };
            logins.insert(key(&host), login);
        }
        let named = |name: &String| !name.is_empty();
        let helpers = file.helpers.into_iter().filter(|(_, name)| named(name));
        let helpers = helpers.map(|(host, name)| (key(&host), name)).collect();
        Ok(Credentials { logins, helpers, helper: file.helper.filter(named) })
    }

    /// The helper program that the file leaves the login of a registry to.
    pub fn helper(&self, host: &str) -> Option<&str> {
        self.helpers.get(host).or(self.helper.as_ref()).map(String::as_str)
    }

    /// The login for a repository: the longest entry that begins with the host, as podman has it.
    pub fn find(&self, host: &str, repository: &str) -> Option<&Login> {
        let mut name = format!("{host}/{repository}");
        loop {
            if let Some(login) = self.logins.get(&name) {
                return Some(login);
            }
            name.truncate(name.rfind('/')?);
        }
    }
}

/// Says once that a file's logins are not for its owner alone, and again after it was mended.
fn warn_of(path: &Path, mode: u32) {
    let is_open = mode & TOO_OPEN != 0;
    if !TOLD.swap(is_open, Ordering::Relaxed) && is_open {
        let path = path.display();
        let mode = format!("{:04o}", mode & 0o7777);
        crate::warn!(
            "registry.logins_open",
            path = path,
            mode = mode,
            cure = format!("chmod 600 {path}")
        );
    }
}

/// What an entry says; `None`: nothing, as when a helper program has it.
fn login(auth: Auth) -> Result<Option<Login>, &'static str> {
    let pair = match auth.auth.as_deref().filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => {
            let bytes = from_base64(text).ok_or("its `auth` is not base64")?;
            let text = String::from_utf8(bytes).map_err(|_| "its `auth` is not UTF-8")?;
            let (user, password) = text.split_once(':').ok_or("its `auth` has no `:`")?;
            // docker of old padded with NULs.
            Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
        }
    };
    let pair = pair.or(auth.username.zip(auth.password));
    if let Some(token) = auth.identitytoken.filter(|token| !token.is_empty()) {
        let user = pair.map(|(user, _)| user).unwrap_or_default();
        return Ok(Some(Login { user, secret: Secret::Identity(token) }));
    }
    Ok(pair.map(|(user, password)| Login::new(user, password)))
}

/// The name of a registry, and perhaps of repositories in it, however it was written.
fn key(text: &str) -> String {
    let is_scheme = |it: &&str| it.eq_ignore_ascii_case("https") || it.eq_ignore_ascii_case("http");
    let bare = text.trim().split_once("://").filter(|(scheme, _)| is_scheme(scheme));
    let bare = bare.map_or(text.trim(), |(_, bare)| bare).trim_end_matches('/');
    let (host, path) = bare.split_once('/').map_or((bare, None), |(host, path)| (host, Some(path)));
    let host = host.to_ascii_lowercase();
    let name = registry_name(&host);
    match path {
        // The way to the registry's own interface, not one of its repositories.
        None | Some("v1" | "v2") => name.to_owned(),
        Some(path) => format!("{name}/{path}"),
    }
}

/// Reads either alphabet, with or without padding.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);

/// RFC 4648, section 4.
pub fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// The inverse, for either alphabet, with or without padding; `None`: it is something else.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim().replace('-', "+").replace('_', "/");
    GeneralPurpose::new(&STANDARD, LENIENT).decode(text).ok()
}

/// What is said of a login that is left to a program.
pub fn helper_text(file: &Path, name: &str) -> String {
    let (file, name) = (file.display(), super::failure::clean(name));
    format!(
        "; {file} leaves the login to `docker-credential-{name}`, and helpers are not run here: write \
         it as `auth` below `auths`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standards() {
        let rows =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, coded) in rows {
            assert_eq!(base64(plain.as_bytes()), coded);
            assert_eq!(from_base64(coded).as_deref(), Some(plain.as_bytes()));
            assert_eq!(from_base64(coded.trim_end_matches('=')).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(from_base64("_-8"), Some(vec![0xff, 0xef]));
        assert_eq!((from_base64("a"), from_base64("a b="), from_base64("ä")), (None, None, None));
    }

    #[test]
    fn logins_are_found_as_docker_and_podman_write_them() {
        let auth = base64(b"ann:pa:ss");
        let text = format!(
            r#"{{"auths":{{
                "https://index.docker.io/v1/": {{"auth":"{auth}"}},
                "reg.lan:5000": {{"username":"bob","password":"x"}},
                "reg.lan:5000/ops": {{"auth":"{auth}"}},
                "http://old.lan/v1/": {{"identitytoken":"t","auth":"{auth}"}},
                "helper.lan": {{}}
            }},"credsStore":"desktop","credHelpers":{{"helper.lan":"gcr","":""}}}}"#
        );
        let known = Credentials::parse(text.as_bytes()).expect("a file");
        let user = |host, repository| known.find(host, repository).map(|login| login.user.as_str());
        assert_eq!(user("docker.io", "library/x"), Some("ann"));
        assert_eq!(user("reg.lan:5000", "other/app"), Some("bob"));
        assert_eq!(user("reg.lan:5000", "ops/app"), Some("ann"));
        assert_eq!(user("reg.lan", "ops/app"), None);
        assert_eq!(user("helper.lan", "x"), None);
        assert_eq!(
            (known.helper("helper.lan"), known.helper("new.lan")),
            (Some("gcr"), Some("desktop"))
        );
        assert_eq!(
            known.find("docker.io", "x").and_then(Login::basic),
            Some(format!("Basic {auth}"))
        );
        let old = known.find("old.lan", "x").expect("a login");
        assert!(old.secret == Secret::Identity("t".into()) && old.basic().is_none());
        assert_eq!(format!("{old:?}"), "Login(ann)");
    }

    #[test]
    fn a_registry_is_known_however_it_is_written() {
        for hub in [
            "https://index.docker.io/v1/",
            "https://index.docker.io/v1",
            "index.docker.io/v1/",
            "http://index.docker.io",
            "https://docker.io",
            "docker.io/",
            "Docker.IO",
            "HTTPS://Registry-1.docker.io/v2/",
        ] {
            assert_eq!(key(hub), "docker.io", "{hub}");
        }
        assert_eq!(key("https://index.docker.io/ops"), "docker.io/ops");
        assert_eq!(key("Reg.LAN:5000/ops/v1"), "reg.lan:5000/ops/v1");
        assert_eq!(key("https://reg.lan/v2/"), "reg.lan");
        let text = r#"{"auths":{"Reg.LAN:5000":{"username":"bob","password":"x"}},
            "credHelpers":{"https://INDEX.docker.io/v1/":"pass"}}"#;
        let known = Credentials::parse(text.as_bytes()).expect("a file");
        assert_eq!(known.find("reg.lan:5000", "a/b").map(|it| &*it.user), Some("bob"));
        assert_eq!(known.helper("docker.io"), Some("pass"));
    }

    #[test]
    fn a_broken_file_is_told_without_its_secrets() {
        let told = |text: &str| Credentials::parse(text.as_bytes()).expect_err("refused");
        assert_eq!(
            told(r#"{"auths":{"a.lan":{"auth":"c2VjcmV0"}}}"#),
            "a.lan: its `auth` has no `:`"
        );
        let text = told(r#"{"auths":{"a.lan":{"password":"secret""#);
        assert!(text.starts_with("line 1, column ") && !text.contains("secret"), "{text}");
        assert!(Credentials::read(Path::new("/nonexistent/auth.json")).is_ok());
    }
}
