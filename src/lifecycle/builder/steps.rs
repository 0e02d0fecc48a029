//! The steps of one staging: which buildpack, and what its scripts make.

use super::buildpack::{Buildpack, OUTPUT_MAX, ScriptError};
use super::processes::Processes;
use super::report;
use super::{
    Bases, COMPILE_FAILED, DETECT_FAILED, FINALIZE_FAILED, Failure, RELEASE_FAILED, SUPPLY_FAILED,
    ScriptEnv,
};
use crate::lifecycle::yaml;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A directory of our own for what becomes the droplet beside the app; gone when dropped. Its name is
/// always the same, as buildpacks write it into what they make.
pub(super) struct Contents {
    pub dir: PathBuf,
    /// Digits of an index, so that names sort as numbers do.
    width: usize,
}

impl Contents {
    pub(super) fn new(length: usize) -> Result<Contents, Failure> {
        let dir = env::temp_dir().join("contents");
        let contents = Contents { width: length.to_string().len(), dir };
        let make = |dir: PathBuf| fs::create_dir_all(&dir).map_err(Failure::file("make", &dir));
        fs::create_dir(&contents.dir).map_err(Failure::file("make", &contents.dir))?;
        make(contents.profile())?;
        make(contents.empty())?;
        (0..length).try_for_each(|index| make(contents.deps_of(index)))?;
        Ok(contents)
    }

    fn profile(&self) -> PathBuf {
        self.dir.join("profile.d")
    }

    /// A directory that buildpacks find empty, and that is no part of the droplet.
    fn empty(&self) -> PathBuf {
        self.dir.join("env")
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
pub(super) struct Staging {
    pub app: PathBuf,
    pub cache: PathBuf,
    pub contents: Contents,
    pub env: ScriptEnv,
    /// The buildpacks that are used, in order.
    pub chain: Vec<Buildpack>,
}

impl Staging {
    fn last(&self) -> (usize, &Buildpack) {
        (self.chain.len() - 1, self.chain.last().expect("a chain has at least one buildpack"))
    }

    fn final_cache(&self) -> PathBuf {
        self.cache.join("final")
    }

    /// The first buildpack whose detect script says yes, and what it printed.
    pub(super) fn detect(
        &self,
        bases: &Bases,
        keys: &[String],
    ) -> Result<(Buildpack, String), Failure> {
        for key in keys {
            let found = Buildpack::open(bases.of(key), key).and_then(|pack| {
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
    pub(super) fn supply(&self) -> Result<(), Failure> {
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
    pub(super) fn build(&self) -> Result<(), Failure> {
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
        // Heroku's scripts want a directory with a file for each variable; here it is empty, as they
        // have all of them in their environment, and Cloud Foundry's look at the first two only.
        let empty = self.contents.empty();
        pack.run("compile", &[app, cache.as_os_str(), empty.as_os_str()], &self.env)
            .map_err(Failure::script(COMPILE_FAILED, "Failed to compile droplet"))
    }

    /// The processes that buildpacks and app name; later ones replace earlier ones.
    pub(super) fn processes(&self) -> Result<Processes, Failure> {
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
                None if index == last && pack.has("release") => self.release(pack, &mut all)?,
                // Heroku's protocol lets bin/release be missing, and buildpacks in the wild do: the
                // Procfile says it all then. Diego's own builder would fail here.
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
    pub(super) fn described(&self, detected: &str) -> Vec<report::Pack> {
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
    match fs::File::open(file) {
        Err(err)
            if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        opened => {
            let mut text = String::new();
            opened?.take(OUTPUT_MAX).read_to_string(&mut text)?;
            Ok(Some(text))
        }
    }
}
