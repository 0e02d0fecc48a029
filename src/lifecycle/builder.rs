//! `builder`: turns an app's source into a droplet with the buildpacks of the stack.
//!
//! Runs as the app's user in a container of its own. Order of work and exit codes: Diego's
//! buildpack lifecycle. What scripts print goes to our own stdout and stderr untouched.

mod buildpack;
mod droplet;
mod processes;
mod report;

use super::flags::{Flag, Flags, usage};
use super::untar;
use super::vcap;
use super::yaml;
use buildpack::{Buildpack, ScriptError};
use processes::Processes;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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
];

/// The one flag that Diego's builder does not have, and that may be empty.
const CACHE_ARCHIVE: &str = "buildArtifactsCacheArchive";

/// Exit codes that tell the stager what failed.
const DETECT_FAILED: u8 = 222;
const COMPILE_FAILED: u8 = 223;
const RELEASE_FAILED: u8 = 224;
const SUPPLY_FAILED: u8 = 225;
const FINALIZE_FAILED: u8 = 226;
const BAD_PLATFORM_OPTIONS: u8 = 3;
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
    let buildpacks = flags.path("buildpacksDir");
    let chained = flags.is_on("skipDetect");
    let length = if chained { keys.len() } else { 1 };
    let metadata = flags.path("outputMetadata");
    for file in [&metadata, &flags.path("outputDroplet"), &flags.path("outputBuildArtifactsCache")]
    {
        let dir = file.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(dir).map_err(Failure::file("make", dir))?;
    }
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
        let open = |key: &String| Buildpack::open(&buildpacks, key);
        staging.chain =
            keys.iter().map(open).collect::<Result<_, _>>().map_err(|why| Failure::new(1, why))?;
        staging.supply()?;
    } else {
        let (found, output) = staging.detect(&buildpacks, &keys)?;
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
    if processes.web().is_none() {
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

/// What scripts get beside what they inherit: names with a value, or `None` to be removed.
type ScriptEnv = Vec<(&'static str, Option<String>)>;

fn script_environment() -> Result<ScriptEnv, Failure> {
    let get = |name: &str| env::var(name).unwrap_or_default();
    let options = get("VCAP_PLATFORM_OPTIONS");
    if !options.is_empty() && serde_json::from_str::<serde_json::Value>(&options).is_err() {
        let text = "Invalid platform options: VCAP_PLATFORM_OPTIONS is not JSON";
        return Err(Failure::new(BAD_PLATFORM_OPTIONS, text));
    }
    let mut env = vec![("VCAP_PLATFORM_OPTIONS", None)];
    let url = vcap::database_url(&get("VCAP_SERVICES"))
        .map_err(|why| Failure::new(BAD_DATABASE, format!("VCAP_SERVICES is not valid: {why}")))?;
    if let Some(url) = url {
        env.push(("DATABASE_URL", Some(url)));
    }
    Ok(env)
}

/// The keys of `list`, without empty ones.
fn order(list: &str) -> Result<Vec<String>, Failure> {
    let keys: Vec<String> =
        list.split(',').map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned).collect();
    if let Some(url) = keys.iter().find(|key| is_url(key)) {
        return Err(Failure::new(
            1,
            format!(
                "{url}: buildpack URLs are not supported by this version; copy the buildpack to the box"
            ),
        ));
    }
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
    if !archive.as_os_str().is_empty() {
        if let Err(why) = unpack_cache(archive, dir) {
            say!("Warning: the build cache is not used: {why}");
            clear(dir, &[]).map_err(Failure::file("clear", dir))?;
        }
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
    untar::unpack(flate2::bufread::GzDecoder::new(file), dir).map_err(|err| crate::log::chain(&err))
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

/// A directory of our own for what becomes the droplet beside the app; gone when dropped.
struct Contents {
    dir: PathBuf,
    /// Digits of an index, so that names sort as numbers do.
    width: usize,
}

impl Contents {
    fn new(length: usize) -> Result<Contents, Failure> {
        let dir = env::temp_dir().join(format!("contents-{}", std::process::id()));
        let contents = Contents { width: length.to_string().len(), dir };
        let make = |dir: PathBuf| fs::create_dir_all(&dir).map_err(Failure::file("make", &dir));
        fs::create_dir(&contents.dir).map_err(Failure::file("make", &contents.dir))?;
        make(contents.profile())?;
        (0..length).try_for_each(|index| make(contents.deps_of(index)))?;
        Ok(contents)
    }

    fn profile(&self) -> PathBuf {
        self.dir.join("profile.d")
    }

    fn deps(&self) -> PathBuf {
        self.dir.join("deps")
    }

    fn index(&self, index: usize) -> String {
        format!("{index:0width$}", width = self.width)
    }

    fn deps_of(&self, index: usize) -> PathBuf {
        self.deps().join(self.index(index))
    }
}

impl Drop for Contents {
    fn drop(&mut self) {
        // The container goes away as a whole; here it only keeps tests clean.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// One staging under way.
struct Staging {
    app: PathBuf,
    cache: PathBuf,
    contents: Contents,
    env: ScriptEnv,
    chain: Vec<Buildpack>,
}

impl Staging {
    fn last(&self) -> (usize, &Buildpack) {
        (self.chain.len() - 1, self.chain.last().expect("a chain has at least one buildpack"))
    }

    fn final_cache(&self) -> PathBuf {
        self.cache.join("final")
    }

    /// The first buildpack whose detect script says yes, and what it printed.
    fn detect(&self, base: &Path, keys: &[String]) -> Result<(Buildpack, String), Failure> {
        for key in keys {
            let found = Buildpack::open(base, key).and_then(|pack| {
                let missing = format!("buildpack {key} has no bin/detect");
                if pack.has("detect") { Ok(pack) } else { Err(missing) }
            });
            let pack = match found {
                Ok(pack) => pack,
                Err(why) => {
                    say!("Skipped: {why}");
                    continue;
                }
            };
            match pack.capture("detect", &[self.app.as_os_str()], &self.env) {
                Ok(output) => return Ok((pack, output.trim_end_matches(['\r', '\n']).to_owned())),
                Err(ScriptError::Exit(_)) => {}
                Err(err) => say!("Skipped: buildpack {key}: {err}"),
            }
        }
        let text = format!(
            "None of the buildpacks detected a compatible application (tried: {})",
            keys.join(", ")
        );
        Err(Failure::new(DETECT_FAILED, text))
    }

    /// Lets all but the last buildpack supply what they have.
    fn supply(&self) -> Result<(), Failure> {
        let (last, _) = self.last();
        let others = &self.chain[..last];
        if let Some(pack) = others.iter().find(|pack| !pack.has("supply")) {
            let text = format!(
                "Error: one of the buildpacks chosen to supply dependencies does not support multi-buildpack apps: {} has no bin/supply",
                pack.key
            );
            return Err(Failure::new(SUPPLY_FAILED, text));
        }
        others.iter().enumerate().try_for_each(|(index, pack)| {
            let cache = self.cache.join(crate::unit::xxh64_hex(&pack.key));
            self.supply_one(index, pack, &cache)
        })
    }

    fn supply_one(&self, index: usize, pack: &Buildpack, cache: &Path) -> Result<(), Failure> {
        let (deps, index) = (self.contents.deps(), self.contents.index(index));
        let args = [self.app.as_os_str(), cache.as_os_str(), deps.as_os_str(), OsStr::new(&index)];
        pack.run("supply", &args, &self.env)
            .map_err(Failure::script(SUPPLY_FAILED, "Failed to run all supply scripts"))
    }

    /// Lets the last buildpack build the app.
    fn build(&self) -> Result<(), Failure> {
        let (index, pack) = self.last();
        let (app, cache) = (self.app.as_os_str(), self.final_cache());
        if pack.has("finalize") {
            if pack.has("supply") {
                self.supply_one(index, pack, &cache)?;
            }
            let (deps, profile) = (self.contents.deps(), self.contents.profile());
            let number = self.contents.index(index);
            let args = [
                app,
                cache.as_os_str(),
                deps.as_os_str(),
                OsStr::new(&number),
                profile.as_os_str(),
            ];
            return pack
                .run("finalize", &args, &self.env)
                .map_err(Failure::script(FINALIZE_FAILED, "Failed to run finalize script"));
        }
        if index > 0 {
            say!(
                "Warning: buildpack {} has no bin/finalize; it cannot use what the buildpacks before it supplied.",
                pack.key
            );
        }
        let deps = self.contents.deps_of(index);
        fs::remove_dir_all(&deps).map_err(Failure::file("remove", &deps))?;
        pack.run("compile", &[app, cache.as_os_str()], &self.env)
            .map_err(Failure::script(COMPILE_FAILED, "Failed to compile droplet"))
    }

    /// The processes that buildpacks and app name; later ones replace earlier ones.
    fn processes(&self) -> Result<Processes, Failure> {
        let (last, pack) = self.last();
        let mut all = Processes::default();
        for index in 0..=last {
            let file = self.contents.deps_of(index).join("launch.yml");
            match read_text(&file).map_err(Failure::file("read", &file))? {
                Some(text) => {
                    let read = yaml::parse(&text).map_err(|err| err.to_string());
                    read.and_then(|value| all.add_launch(&value)).map_err(|why| {
                        let key = &self.chain[index].key;
                        Failure::new(1, format!("Invalid launch.yml of buildpack {key}: {why}"))
                    })?;
                }
                None if index == last => self.release(pack, &mut all)?,
                None => {}
            }
        }
        let file = self.app.join("Procfile");
        if let Some(text) = read_text(&file).map_err(Failure::file("read", &file))? {
            let read = yaml::parse(&text).map_err(|err| err.to_string());
            read.and_then(|value| all.add_procfile(&value)).map_err(|why| {
                let text = "Failed to read command from Procfile: invalid YAML";
                Failure::new(1, format!("{text}: {why}"))
            })?;
        }
        Ok(all)
    }

    fn release(&self, pack: &Buildpack, all: &mut Processes) -> Result<(), Failure> {
        const HEADLINE: &str = "Failed to build droplet release";
        let output = pack
            .capture("release", &[self.app.as_os_str()], &self.env)
            .map_err(Failure::script(RELEASE_FAILED, HEADLINE))?;
        let read = yaml::parse(&output).map_err(|err| err.to_string());
        read.and_then(|value| all.add_release(&value)).map_err(|why| {
            let text = format!("{HEADLINE}: the output of bin/release is invalid: {why}");
            Failure::new(RELEASE_FAILED, text)
        })
    }

    /// Each buildpack with what it says of itself in its config.yml; a broken one says nothing.
    fn described(&self, detected: &str) -> Vec<report::Pack> {
        let describe = |(index, pack): (usize, &Buildpack)| {
            let file = self.contents.deps_of(index).join("config.yml");
            let text = read_text(&file).ok().flatten().unwrap_or_default();
            let config = yaml::parse(&text).unwrap_or_else(|err| {
                say!("Warning: config.yml of buildpack {} is not used: {err}", pack.key);
                yaml::Value::Null
            });
            report::Pack::new(&pack.key, &config, detected)
        };
        self.chain.iter().enumerate().map(describe).collect()
    }
}

/// The text of a file that may be missing, up to a bound that no honest one reaches.
fn read_text(file: &Path) -> io::Result<Option<String>> {
    use io::Read;
    match fs::File::open(file) {
        Err(err)
            if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        opened => {
            let mut text = String::new();
            opened?.take(buildpack::OUTPUT_MAX).read_to_string(&mut text)?;
            Ok(Some(text))
        }
    }
}
