//! `docker-builder`, in the docker lifecycle's archive called `builder`: how an image is staged. Only
//! its manifest and its configuration are looked at; who can ask a registry is the caller's to say.

use super::archive;
use super::flags::{Flag, Flags};
use crate::unit::{ImageRef, registry_name};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// The name of the program beside all others.
const ROLE: &str = "docker-builder";
/// The name in the archive of images.
const BUILDER: &str = "builder";
/// What cannot be found out.
const NO_METADATA: u8 = 2;
/// Docker Hub, which a result does not name.
const HUB: &str = "docker.io";

const REF: &str = "dockerRef";
const RESULT: &str = "outputMetadataJSONFilename";
const USER: &str = "dockerUser";
const PASSWORD: &str = "dockerPassword";
const INSECURE: &str = "insecureDockerRegistries";

/// What has no meaning here, and why.
const CACHED: &str = "no meaning here: the box keeps each image that it runs, by its digest";
const DAEMON: &str = "no meaning here: registries are asked without a docker daemon";
const LOGIN: &str = "no meaning here: a login is for the image's registry";
const MEANINGLESS: [(&str, &str); 9] = [
    ("cacheDockerImage", CACHED),
    ("dockerRegistryHost", CACHED),
    ("dockerRegistryPort", CACHED),
    ("dockerRegistryRequireTLS", CACHED),
    ("dockerRegistryIPs", CACHED),
    ("dockerDaemonExecutablePath", DAEMON),
    ("dockerDaemonUnixSocket", DAEMON),
    ("dockerEmail", LOGIN),
    ("dockerLoginServer", LOGIN),
];

/// The reference's own, those of 2015 for a private registry among them.
const FLAGS: [Flag; 14] = [
    Flag::text(REF, "", "docker image reference in standard docker string format"),
    Flag::text(RESULT, "/tmp/result/result.json", "filename in which to write the app metadata"),
    Flag::text(USER, "", "user of the image's registry"),
    Flag::text(PASSWORD, "", "password of the image's registry"),
    Flag::text("dockerEmail", "", LOGIN),
    Flag::text("dockerLoginServer", "https://index.docker.io/v1/", LOGIN),
    Flag::text(INSECURE, "", "comma-separated list of insecure docker registries, host:port"),
    Flag::switch("cacheDockerImage", CACHED),
    Flag::text("dockerRegistryHost", "", CACHED),
    Flag::text("dockerRegistryPort", "8080", CACHED),
    Flag::switch("dockerRegistryRequireTLS", CACHED),
    Flag::text("dockerRegistryIPs", "", CACHED),
    Flag::text("dockerDaemonExecutablePath", "/tmp/docker_app_lifecycle/docker", DAEMON),
    Flag::text("dockerDaemonUnixSocket", "/var/run/docker.sock", DAEMON),
];

/// What is asked of a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The image.
    pub image: ImageRef,
    /// User and password.
    pub login: Option<(String, String)>,
    /// Registries, as `host:port`, that may be without TLS.
    pub insecure: Vec<String>,
}

impl Wanted {
    /// What a result calls the image: its registry, unless that is Docker Hub, repository and tag or
    /// digest.
    pub fn name(&self) -> String {
        match self.image.digest() {
            Some(digest) => format!("{}@{digest}", self.repository()),
            None => format!("{}:{}", self.repository(), self.image.tag()),
        }
    }

    fn repository(&self) -> String {
        match self.image.host().map(registry_name) {
            None | Some(HUB) => self.image.repository(HUB),
            Some(host) => format!("{host}/{}", self.image.repository(host)),
        }
    }
}

/// Runs the builder of images, if `role` is it; `look` gives the result.json of what is wanted.
pub fn stage_image(
    role: &str,
    args: &[OsString],
    look: &dyn Fn(&Wanted) -> Result<String, String>,
) -> Option<ExitCode> {
    let beside = || env::current_exe().unwrap_or_default().with_file_name(archive::DOCKER);
    let is_it = role == ROLE || (role == BUILDER && beside().exists());
    is_it.then(|| run(args, look).map_or_else(ExitCode::from, |()| ExitCode::SUCCESS))
}

fn run(args: &[OsString], look: &dyn Fn(&Wanted) -> Result<String, String>) -> Result<(), u8> {
    let flags = Flags::parse(BUILDER, &FLAGS, args)?;
    let wanted = wanted(&flags).map_err(|why| {
        complain!("{why}");
        1
    })?;
    for (name, why) in meaningless(&flags) {
        complain!("-{name} has {why}");
    }
    say!("Staging process started ...");
    let result = look(&wanted).map_err(|why| {
        complain!("{}", failed(&wanted, &why));
        NO_METADATA
    })?;
    write(&flags.path(RESULT), &result).map_err(|why| {
        complain!("Staging process failed: {why}");
        NO_METADATA
    })?;
    say!("Staging process finished");
    Ok(())
}

/// The flags that were given and do nothing, each with the reason.
fn meaningless(flags: &Flags) -> Vec<(&'static str, &'static str)> {
    let said = |name: &str| {
        let default = FLAGS.iter().find(|flag| flag.name == name).map(|flag| flag.default);
        default != Some(flags.text(name).as_str())
    };
    MEANINGLESS.into_iter().filter(|(name, _)| said(name)).collect()
}

/// What the flags ask for. `Err`: why nothing can be asked.
fn wanted(flags: &Flags) -> Result<Wanted, String> {
    let named = flags.text(REF);
    if named.is_empty() {
        return Err("missing flag: dockerRef required".into());
    }
    let list = flags.text(INSECURE);
    let insecure = list.split(',').map(str::trim).filter(|text| !text.is_empty());
    let insecure = insecure.map(registry).collect::<Result<_, _>>()?;
    let image = named.parse::<ImageRef>().map_err(|err| err.to_string())?;
    let (user, password) = (flags.text(USER), flags.text(PASSWORD));
    let login = (!user.is_empty()).then_some((user, password));
    Ok(Wanted { image, login, insecure })
}

/// An entry of the list: what has a scheme or no port is none.
fn registry(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    match text.contains("://") || port.is_none() {
        true => Err(format!(
            "Invalid value \"{text}\" for -{INSECURE}: write host:port, without a scheme"
        )),
        false => Ok(text.to_owned()),
    }
}

/// The reference's words.
fn failed(wanted: &Wanted, why: &str) -> String {
    let tag = wanted.image.digest().map_or_else(|| wanted.image.tag().into(), ToString::to_string);
    format!(
        "Staging process failed: failed to fetch metadata from [{}] with tag [{tag}] and insecure \
         registries [{}] due to {why}",
        wanted.repository(),
        wanted.insecure.join(" ")
    )
}

fn write(to: &Path, result: &str) -> Result<(), String> {
    let told = |err: std::io::Error| format!("cannot write {}: {err}", to.display());
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).map_err(told)?;
    }
    fs::write(to, result).map_err(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Wanted, String> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        wanted(&Flags::parse(BUILDER, &FLAGS, &args).expect("flags"))
    }

    /// Row 73: names and flags of the reference's builder.
    #[test]
    fn row_73_an_image_is_named_with_its_registry_unless_it_is_the_hubs() {
        for (text, name) in [
            ("busybox", "library/busybox:latest"),
            ("docker.io/ops/app:2", "ops/app:2"),
            ("10.0.0.7:5000/ops/app", "10.0.0.7:5000/ops/app:latest"),
            ("localhost/app:1", "localhost/app:1"),
        ] {
            assert_eq!(read(&["-dockerRef", text]).expect("an image").name(), name);
        }
        let login = read(&["-dockerRef=a", "-dockerUser=ann", "-dockerPassword=x:y"]);
        assert_eq!(login.expect("an image").login, Some(("ann".into(), "x:y".into())));
        let many = read(&["-dockerRef=a", "-insecureDockerRegistries=a.lan:1, b.lan:2"]);
        assert_eq!(many.expect("an image").insecure, ["a.lan:1", "b.lan:2"]);
    }

    /// Row 73: the recipe of 2015 as it stands; what of it does nothing is said.
    #[test]
    fn row_73_flags_of_2015_are_taken_and_those_without_a_meaning_named() {
        let given = |args: &[&str]| {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            let flags = Flags::parse(BUILDER, &FLAGS, &args).expect("flags");
            meaningless(&flags).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        let args = [
            "-dockerRef=a",
            "-outputMetadataJSONFilename=/tmp/x",
            "-cacheDockerImage",
            "-dockerRegistryHost=docker-registry.service.cf.internal",
            "-dockerRegistryPort",
            "8081",
            "-dockerRegistryRequireTLS",
            "-dockerRegistryIPs=10.0.0.1,10.0.0.2",
            "-insecureDockerRegistries=docker-registry.service.cf.internal:8080",
            "-dockerDaemonExecutablePath=/x/docker",
            "-dockerDaemonUnixSocket=/x.sock",
            "-dockerLoginServer=https://reg.lan/",
            "-dockerEmail=a@b",
        ];
        assert_eq!(given(&args), MEANINGLESS.map(|(name, _)| name));
        assert!(given(&args[..2]).is_empty());
    }

    #[test]
    fn what_cannot_be_asked_is_told() {
        assert_eq!(read(&[]).err().as_deref(), Some("missing flag: dockerRef required"));
        for list in ["http://a.lan:1", "a.lan"] {
            let told = read(&["-dockerRef=a", "-insecureDockerRegistries", list]).err();
            assert!(told.is_some_and(|text| text.contains(list)), "{list}");
        }
        assert!(read(&["-dockerRef", "A b"]).is_err());
        let wanted = read(&["-dockerRef=a.lan:5/x", "-insecureDockerRegistries=a.lan:5,b.lan:6"]);
        assert_eq!(
            failed(&wanted.expect("an image"), "a reason"),
            "Staging process failed: failed to fetch metadata from [a.lan:5/x] with tag [latest] \
             and insecure registries [a.lan:5 b.lan:6] due to a reason"
        );
    }
}
