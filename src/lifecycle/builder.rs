//! `builder`: turns an app's source into a droplet with the buildpacks of the stack.
//!
//! Runs as the app's user in a container of its own. Order of work and exit codes: Diego's
//! buildpack lifecycle. What scripts print goes to our own stdout and stderr untouched.

mod buildpack;
mod droplet;
mod fetch;
mod processes;
mod report;
mod steps;

use super::flags::{Flag, Flags, usage};
use super::unpack::{Rules, unpack};
use super::vcap;
use buildpack::{Buildpack, ScriptError};
use processes::Processes;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use steps::{Contents, Staging};

const ROLE: &str = "builder";

const FLAGS: &[Flag] = &[
    Flag::text("buildDir", "/tmp/app", "directory of the app's source, changed in place"),
    Flag::text("outputDroplet", "/tmp/droplet", "file for the droplet"),
    Flag::text("outputMetadata", "/tmp/result.json", "file for the result"),
    Flag::text("outputBuildArtifactsCache", "/tmp/output-cache", "file for the packed cache"),
    Flag::text("buildpacksDir", "/tmp/buildpacks", "directory of the buildpacks"),
    Flag::text(
        "buildpacksDownloadDir",
        "/tmp/buildpackdownloads",
        "directory for buildpacks that are fetched",
    ),
    Flag::text("buildArtifactsCacheDir", "/tmp/cache", "directory that a staging may keep"),
    Flag::text("buildpackOrder", "", "comma-separated list of buildpacks to be tried in order"),
    Flag::switch("skipDetect", "the list is a chain: run all, in order"),
    Flag::switch("skipCertVerify", "fetch buildpacks without checking certificates"),
    Flag::text(CACHE_ARCHIVE, "", "packed cache of the staging before; missing is fine"),
    Flag::switch(START_GIVEN, "the app says itself how it starts"),
];

/// A flag that Diego's builder does not have, and that may be empty.
const CACHE_ARCHIVE: &str = "buildArtifactsCacheArchive";
/// What tools of reproducible builds look at.
const EPOCH: &str = "SOURCE_DATE_EPOCH";
/// Another one that it does not have: nobody need be told that a start command is missing.
const START_GIVEN: &str = "startCommandGiven";

/// Exit codes that tell the stager what failed.
const DETECT_FAILED: u8 = 222;
const COMPILE_FAILED: u8 = 223;
const RELEASE_FAILED: u8 = 224;
const SUPPLY_FAILED: u8 = 225;
const FINALIZE_FAILED: u8 = 226;
const BAD_DATABASE: u8 = 5;

/// Why staging failed: an exit code and the line that explains it.
#[derive(Debug)]
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn new(code: u8, text: impl Into<String>) -> Failure {
        Failure { code, text: text.into() }
    }

    /// For `map_err`: a script did not succeed, which `headline` sums up.
    fn script(code: u8, headline: &'static str) -> impl FnOnce(ScriptError) -> Failure {
        move |err| Failure::new(code, format!("{headline}: {err}"))
    }

    /// For `map_err`: `doing` something to `path` failed.
    fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
        move |err| Failure::new(1, format!("cannot {doing} {}: {err}", path.display()))
    }
}

/// The role.
pub(super) fn run(args: &[OsString]) -> Result<(), u8> {
    let flags = Flags::parse(ROLE, FLAGS, args)?;
    if let Some(empty) =
        FLAGS.iter().find(|flag| flag.name != CACHE_ARCHIVE && flags.text(flag.name).is_empty())
    {
        complain!("missing flag: -{}\n{}", empty.name, usage(ROLE, FLAGS));
        return Err(1);
    }
    stage(&flags).map_err(|failure| {
        complain!("{}", failure.text);
        failure.code
    })
}

fn stage(flags: &Flags) -> Result<(), Failure> {
    let env = script_environment()?;
    let keys = order(&flags.text("buildpackOrder"))?;
    let bases =
        Bases { known: flags.path("buildpacksDir"), fetched: flags.path("buildpacksDownloadDir") };
    let chained = flags.is_on("skipDetect");
    let length = if chained { keys.len() } else { 1 };
    let metadata = flags.path("outputMetadata");
    for file in [&metadata, &flags.path("outputDroplet"), &flags.path("outputBuildArtifactsCache")]
    {
        let dir = file.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(dir).map_err(Failure::file("make", dir))?;
    }
    fetch::fetch_all(&keys, &bases.fetched, flags.is_on("skipCertVerify"))?;
    let mut staging = Staging {
        app: flags.path("buildDir"),
        cache: flags.path("buildArtifactsCacheDir"),
        contents: Contents::new(length)?,
        env,
        chain: Vec::new(),
    };
    prepare_cache(&staging.cache, &flags.path(CACHE_ARCHIVE), &keys, chained)?;

    let mut detected = String::new();
    if chained {
        let open = |key: &String| Buildpack::open(bases.of(key), key);
        staging.chain =
            keys.iter().map(open).collect::<Result<_, _>>().map_err(|why| Failure::new(1, why))?;
        staging.supply()?;
    } else {
        let (found, output) = staging.detect(&bases, &keys)?;
        staging.chain.push(found);
        detected = output;
    }

    let built = staging.build().and_then(|()| staging.processes());
    let none = Processes::default();
    let processes = built.as_ref().unwrap_or(&none);
    let packs = staging.described(&detected);
    let result = report::result(&packs, &detected, processes);
    fs::write(&metadata, result).map_err(Failure::file("write", &metadata))?;
    let processes = built?;
    if processes.web().is_none() && !flags.is_on(START_GIVEN) {
        say!("No start command specified by buildpack or via Procfile.");
        say!("App will not start unless a command is provided at runtime.");
    }

    let info = report::staging_info(&packs, &detected, processes.web().unwrap_or_default());
    let file = flags.path("outputDroplet");
    droplet::write(&file, &staging.app, &staging.contents.dir, &info)
        .and_then(|()| {
            droplet::write_cache(&flags.path("outputBuildArtifactsCache"), &staging.cache)
        })
        .map_err(|err| Failure::new(1, crate::log::chain(&err)))
}

/// Where buildpacks are.
struct Bases {
    /// Those that have a name.
    known: PathBuf,
    /// Those that are named by a URL.
    fetched: PathBuf,
}

impl Bases {
    fn of(&self, key: &str) -> &Path {
        if is_url(key) { &self.fetched } else { &self.known }
    }
}

/// What scripts get beside what they inherit: names with a value, or `None` to be removed.
type ScriptEnv = Vec<(&'static str, Option<String>)>;

fn script_environment() -> Result<ScriptEnv, Failure> {
    let get = |name: &str| env::var(name).unwrap_or_default();
    vcap::platform_options(&get("VCAP_PLATFORM_OPTIONS"), &get("VCAP_SERVICES"))
        .map_err(|err| Failure::new(err.code(), err.to_string()))?;
    let mut env = vec![("VCAP_PLATFORM_OPTIONS", None)];
    let url = vcap::database_url(&get("VCAP_SERVICES"))
        .map_err(|why| Failure::new(BAD_DATABASE, format!("VCAP_SERVICES is not valid: {why}")))?;
    if let Some(url) = url {
        env.push(("DATABASE_URL", Some(url)));
    }
    // Tools that write times into what they make write this one: then the same source gives the same
    // droplet, and compiled Python is judged by its source, whose time the droplet does not have.
    if get(EPOCH).is_empty() {
        env.push((EPOCH, Some(droplet::TIME_S.to_string())));
    }
    Ok(env)
}

/// The keys of `list`, without empty ones.
fn order(list: &str) -> Result<Vec<String>, Failure> {
    let keys: Vec<String> =
        list.split(',').map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned).collect();
    match keys.is_empty() {
        true => {
            Err(Failure::new(1, format!("missing flag: -buildpackOrder\n{}", usage(ROLE, FLAGS))))
        }
        false => Ok(keys),
    }
}

/// Whether a key begins with a scheme, as RFC 3986 writes one.
fn is_url(key: &str) -> bool {
    key.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    })
}

/// The cache directory with what the staging before left in it for this chain.
fn prepare_cache(
    dir: &Path,
    archive: &Path,
    keys: &[String],
    chained: bool,
) -> Result<(), Failure> {
    fs::create_dir_all(dir).map_err(Failure::file("make", dir))?;
    if !archive.as_os_str().is_empty()
        && let Err(why) = unpack_cache(archive, dir)
    {
        say!("Warning: the build cache is not used: {why}");
        // What it takes of the disk may be what the build is short of.
        let _ = fs::remove_file(archive);
        clear(dir, &[]).map_err(Failure::file("clear", dir))?;
    }
    let others = if chained { &keys[..keys.len() - 1] } else { &[] };
    let mut keep: Vec<OsString> =
        others.iter().map(|key| crate::unit::xxh64_hex(key).into()).collect();
    keep.push("final".into());
    clear(dir, &keep).map_err(Failure::file("clear", dir))?;
    for name in keep {
        let sub = dir.join(name);
        fs::create_dir_all(&sub).map_err(Failure::file("make", &sub))?;
    }
    Ok(())
}

fn unpack_cache(archive: &Path, dir: &Path) -> Result<(), String> {
    let file = match fs::File::open(archive) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(|err| err.to_string())?,
    };
    let file = io::BufReader::with_capacity(64 * 1024, file);
    let input = flate2::bufread::GzDecoder::new(file);
    unpack(input, dir, Rules::App).map_err(|err| crate::log::chain(&err))
}

/// Removes everything from `dir` but the names to `keep`.
fn clear(dir: &Path, keep: &[OsString]) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if keep.contains(&entry.file_name()) {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}
