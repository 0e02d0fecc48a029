//! What the box has for apps, and whether a manifest fits it. `check`, `apply` and staging look
//! here, so that none of them finds what another one does not.

use super::diagnostic::{Diagnostics, Finding};
use super::keys;
use super::machine::{Amount, Config};
use super::manifest::{self, Claims, Places};
use super::waits::{self, Waits};
use crate::model::manifest::{HealthTimes, Image, Manifest, Process};
use crate::unit::{AppName, Bytes};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

/// Wrong lines of a file of keys that are told.
const KEYS_TOLD: usize = 5;

/// What there is. What is not known is not judged.
#[derive(Clone, Debug)]
pub struct Site {
    /// Directory of the `<stack>.tar.zst` files.
    pub stacks: PathBuf,
    /// Directories with a directory or an archive per buildpack; an earlier one hides names of a later
    /// one.
    pub buildpacks: Vec<PathBuf>,
    /// Memory for all containers together.
    pub memory: Option<Bytes>,
    /// Disk for all containers together.
    pub disk: Option<Bytes>,
    /// Ports of the box that instances get; none of them can be published.
    pub ports: RangeInclusive<u16>,
    /// Stacks by name that are elsewhere; they win over those of the directory.
    pub preloaded: BTreeMap<String, PathBuf>,
    /// For whom the apps that are there, or come together with this one, wait.
    pub waits: Waits,
    /// Whose subdirectories apps may have as volumes.
    pub volumes: Vec<PathBuf>,
    /// Our own directories, which no app may have.
    pub own: Vec<PathBuf>,
    /// The SSH server that containers carry.
    pub ssh_server: PathBuf,
    /// Times of checks of which a manifest says nothing.
    pub health: HealthTimes,
}

impl Site {
    /// The box of this configuration, as far as it can be known without a daemon.
    pub fn of(config: &Config) -> Site {
        let fixed = |amount| match amount {
            Amount::Fixed(size) => Some(size),
            Amount::Auto => None,
        };
        Site {
            stacks: config.paths.stacks(),
            buildpacks: config.paths.buildpacks().into(),
            memory: config.memory().ok(),
            disk: fixed(config.cell.disk).or(fixed(config.store.size_max)),
            ports: config.net.ports.0..=config.net.ports.1,
            preloaded: config.stacks.preloaded.clone(),
            waits: Waits::new(),
            volumes: config.cell.volumes.clone(),
            own: config.paths.own(),
            ssh_server: config.paths.ssh_server(),
            health: config.health.times,
        }
    }

    /// The archive of a stack, or why there is none and what to do.
    pub fn stack(&self, name: &str) -> Result<PathBuf, (String, String)> {
        let named = self.preloaded.get(name).cloned();
        let archive = named.unwrap_or_else(|| self.stacks.join(format!("{name}.tar.zst")));
        match archive.is_file() {
            true => Ok(archive),
            false => Err((
                format!("stack `{name}` is not on this box: {} is missing", archive.display()),
                self.other_stacks(),
            )),
        }
    }

    /// What else an app can be of.
    fn other_stacks(&self) -> String {
        let items = fs::read_dir(&self.stacks).into_iter().flatten().flatten();
        let names = items.filter_map(|item| {
            let name = item.file_name().into_string().ok()?;
            name.strip_suffix(".tar.zst").map(str::to_owned)
        });
        let all: BTreeSet<String> = names.chain(self.preloaded.keys().cloned()).collect();
        match all.is_empty() {
            true => "this box has none; copy the archive of one there".to_owned(),
            false => {
                let all: Vec<String> = all.iter().map(|name| format!("`{name}`")).collect();
                format!("it has {}; or copy the archive there", all.join(", "))
            }
        }
    }

    /// The directory that a volume of this name is, links followed, or why it cannot be one and what to
    /// do. Blocking.
    pub fn volume(&self, from: &Path) -> Result<PathBuf, (String, String)> {
        let shown = from.display();
        let real = match fs::canonicalize(from) {
            Ok(real) if real.is_dir() => real,
            Ok(_) => return Err((format!("{shown} is not a directory"), "name one".into())),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                return Err((format!("{shown} is not there"), "make the directory".into()));
            }
            Err(err) => return Err((format!("{shown} cannot be read"), err.to_string())),
        };
        let real_of = |path: &PathBuf| fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        if !self.volumes.iter().any(|prefix| real.starts_with(real_of(prefix))) {
            let prefixes: Vec<_> = self.volumes.iter().map(|it| it.display().to_string()).collect();
            let may = match prefixes.is_empty() {
                true => "none may be a volume".to_owned(),
                false => format!("what may is below {}", prefixes.join(", ")),
            };
            let cure =
                format!("{may}; the box's owner adds to it in [cell] volumes of terrarium.toml");
            let leads = match real == from {
                true => String::new(),
                false => format!(", which leads to {},", real.display()),
            };
            return Err((format!("{shown}{leads} may not be given to an app"), cure));
        }
        if self.own.iter().map(real_of).any(|own| own.starts_with(&real) || real.starts_with(&own))
        {
            let what = format!("{shown} holds files of Terrarium itself");
            return Err((what, "name another directory".into()));
        }
        Ok(real)
    }

    /// Where the source of a `[[file]]` lies below a directory that may be a volume, that directory and
    /// the rest. No link may be followed there: an app that writes there could have any file of the box
    /// read.
    pub fn where_apps_write(&self, path: &Path) -> Option<(PathBuf, PathBuf)> {
        let real_of =
            |prefix: &PathBuf| fs::canonicalize(prefix).unwrap_or_else(|_| prefix.clone());
        let mut prefixes = self.volumes.iter().flat_map(|prefix| [prefix.clone(), real_of(prefix)]);
        prefixes.find_map(|prefix| {
            let rest = path.strip_prefix(&prefix).ok()?.to_owned();
            Some((prefix, rest))
        })
    }

    /// Whether the source of a `[[file]]` can be read, or why not and what to do.
    fn file(&self, path: &Path) -> Result<(), (String, String)> {
        let shown = path.display();
        let unread = |err: io::Error| (format!("{shown} cannot be read"), err.to_string());
        if !fs::metadata(path).map_err(unread)?.is_file() {
            return Err((format!("{shown} is not a file"), "name one".into()));
        }
        fs::File::open(path).map_err(unread)?;
        if let Some((prefix, rest)) = self.where_apps_write(path) {
            let plain = fs::canonicalize(prefix).map_err(unread)?.join(rest);
            if fs::canonicalize(path).map_err(unread)? != plain {
                let what = format!("a link is on the way to {shown}, where apps may write");
                return Err((what, "name what it leads to".into()));
            }
        }
        Ok(())
    }

    /// The archives of all stacks.
    pub fn stack_archives(&self) -> Vec<PathBuf> {
        let items = fs::read_dir(&self.stacks).into_iter().flatten().flatten();
        items.map(|item| item.path()).chain(self.preloaded.values().cloned()).collect()
    }

    /// The only stack of the box, or the first by name; `None`: there is none.
    pub fn first_stack(&self) -> Option<String> {
        let items = fs::read_dir(&self.stacks).into_iter().flatten().flatten();
        let names = items.filter_map(|item| {
            let name = item.file_name().into_string().ok()?;
            let name = name.strip_suffix(".tar.zst").filter(|name| !name.is_empty())?;
            item.path().is_file().then(|| name.to_owned())
        });
        let named = self.preloaded.iter().filter(|(_, path)| path.is_file());
        names.chain(named.map(|(name, _)| name.clone())).min()
    }

    /// Every buildpack by name.
    pub fn buildpacks(&self) -> BTreeMap<String, PathBuf> {
        let mut all = BTreeMap::new();
        let dirs = self.buildpacks.iter().rev();
        for item in dirs.filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten() {
            let (Ok(name), path) = (item.file_name().into_string(), item.path()) else { continue };
            if path.is_dir() {
                all.insert(name, path);
            } else if let Some(name) = archived(&name).filter(|_| path.is_file()) {
                // What is unpacked beside it is newer by somebody's hand.
                let beside = path.with_file_name(name);
                all.insert(name.to_owned(), if beside.is_dir() { beside } else { path });
            }
        }
        all
    }

    /// Reads a manifest as [`manifest::parse`] does and looks whether the box has what it needs.
    /// The second value: what will go wrong later although nothing is in the way now.
    pub fn examine(
        &self,
        text: &str,
        file: &str,
        dir: &Path,
    ) -> Result<(Manifest, Option<Diagnostics>), Diagnostics> {
        self.examine_with_claims(text, file, dir)
            .map(|(manifest, warnings, _)| (manifest, warnings))
    }

    /// The same, with the places of the ports of the box.
    pub fn examine_with_claims(
        &self,
        text: &str,
        file: &str,
        dir: &Path,
    ) -> Result<(Manifest, Option<Diagnostics>, Claims), Diagnostics> {
        let (mut manifest, places) = manifest::parse_with_places(text, file, dir, self.health)?;
        let mut notes = Notes::default();
        for (at, problem) in fill_credentials(&mut manifest) {
            let at = places.credentials.iter().find(|(number, _)| *number == at);
            notes.fail(&at.map(|(_, at)| at.clone()), problem.0, problem.1);
        }
        match &manifest.image {
            Some(Image::Archive(path)) => judge_archive(path, &places, &mut notes),
            // Whether a registry has it, its staging finds out: to ask takes a network and time.
            Some(Image::Ref(_)) => {}
            None => {
                self.judge_source(&manifest, &places, &mut notes);
                self.judge_build(&manifest, &places, &mut notes);
            }
        }
        self.judge_sizes(&manifest, &places, &mut notes);
        judge_waits(&manifest, &places, &self.waits, &mut notes);
        self.judge_mounts(&manifest, &places, &mut notes);
        if manifest.ssh.is_some() && !self.ssh_server.is_file() {
            let what =
                format!("this box has no SSH server: {} is missing", self.ssh_server.display());
            let cure = "build it with `cargo xtask ssh` and put it below /usr/lib/terrarium/ssh";
            notes.fail(&places.ssh, what, cure.to_owned());
        }
        if let Some((path, at)) = &places.ssh_file {
            judge_keys(path, at, &mut notes);
        }
        for (port, at) in &places.published {
            if self.ports.contains(port) {
                let (first, last) = (self.ports.start(), self.ports.end());
                notes.fail(
                    &Some(at.clone()),
                    format!("port {port} cannot be published"),
                    format!(
                        "{first} to {last} are for the instances' own ports ([net] ports of \
                         terrarium.toml)"
                    ),
                );
            }
        }
        let bad = notes.0.iter().any(|note| !note.warning);
        match Diagnostics::new(file, text, notes.0, 0) {
            Some(problems) if bad => Err(problems),
            warnings => Ok((manifest, warnings, places.claims(text))),
        }
    }

    fn judge_mounts(&self, manifest: &Manifest, places: &Places, notes: &mut Notes) {
        for (volume, at) in manifest.volumes.iter().zip(&places.volumes) {
            if let Err((what, cure)) = self.volume(&volume.from) {
                notes.fail(&Some(at.clone()), what, cure);
            }
        }
        for (path, at) in &places.files {
            let Err((what, cure)) = self.file(path) else { continue };
            notes.fail(&Some(at.clone()), what, cure);
        }
    }

    fn judge_source(&self, manifest: &Manifest, places: &Places, notes: &mut Notes) {
        let path = manifest.source.display();
        let (what, cure) = match fs::read_dir(&manifest.source) {
            Ok(_) => return,
            Err(err) if err.kind() == io::ErrorKind::NotFound => (
                format!("{path} is not there"),
                "write the app's directory; a relative path starts at this file".to_owned(),
            ),
            Err(err) if err.kind() == io::ErrorKind::NotADirectory => {
                (format!("{path} is not a directory"), "write the app's directory".to_owned())
            }
            Err(err) => (format!("{path} cannot be read"), err.to_string()),
        };
        notes.fail(&places.source, what, cure);
    }

    fn judge_build(&self, manifest: &Manifest, places: &Places, notes: &mut Notes) {
        let build = &manifest.build;
        if let Err((what, cure)) = self.stack(&build.stack) {
            let cure = match &places.stack {
                Some(_) => cure,
                None => format!("{cure}, or write another one as stack = \"...\" below [build]"),
            };
            notes.fail(&places.stack, what, cure);
        }
        let known = self.buildpacks();
        let is_url = |name: &String| name.contains("://");
        if known.is_empty() && !build.buildpacks.iter().any(is_url) {
            let dirs: Vec<String> =
                self.buildpacks.iter().map(|dir| dir.display().to_string()).collect();
            let cure = format!("put one into {}", dirs.join(" or "));
            notes.fail(&places.buildpacks.first().cloned(), "this box has no buildpack", cure);
            return;
        }
        for (name, at) in build.buildpacks.iter().zip(&places.buildpacks) {
            // What the box fetches itself is beside this.
            if manifest.egress.is_empty() && is_url(name) && !build.checksums.contains_key(name) {
                let (what, cure) = cannot_come(name);
                notes.fail(&Some(at.clone()), what, cure);
            }
            if !known.contains_key(name) && !is_url(name) {
                let have: Vec<String> = known.keys().map(|name| format!("`{name}`")).collect();
                let what = format!("this box has no buildpack `{name}`");
                notes.fail(&Some(at.clone()), what, format!("it has {}", have.join(", ")));
            }
        }
    }

    /// One container that is larger than the box never starts; all of them together may wait.
    fn judge_sizes(&self, manifest: &Manifest, places: &Places, notes: &mut Notes) {
        let at = &places.build;
        let build = &manifest.build;
        // What is not said is taken from what there is.
        let said = |asked: Option<Bytes>| asked.unwrap_or_default();
        notes.fits("staging", "build", ("memory", said(build.memory), self.memory), &at.memory);
        notes.fits("staging", "build", ("disk", said(build.disk), self.disk), &at.disk);
        for (name, process) in &manifest.processes {
            let at = places.sizes(name);
            let who = format!("an instance of `{name}`");
            notes.fits(&who, "run", ("memory", process.memory, self.memory), &at.memory);
            notes.fits(&who, "run", ("disk", process.disk, self.disk), &at.disk);
        }
        if notes.0.iter().any(|note| !note.warning) {
            return;
        }
        let most = manifest.processes.iter().max_by_key(|(_, process)| process.instances);
        let at = most.and_then(|(name, _)| {
            let at = places.sizes(name);
            at.instances.or(at.memory).or(at.disk)
        });
        let mut all = |what: &str, of: fn(&Process) -> Bytes, box_has: Option<Bytes>| {
            let needs = |process: &Process| of(process).get() * u64::from(process.instances);
            let sum = Bytes::new(manifest.processes.values().map(needs).sum());
            if let Some(total) = box_has.filter(|total| sum > *total) {
                let (sum, total) = told(sum, total);
                let text = format!("all instances together need {sum} of {what}");
                notes.warn(&at, text, format!("the box has {total}; not all of them will run"));
            }
        };
        all("memory", |process| process.memory, self.memory);
        all("disk", |process| process.disk, self.disk);
    }
}

/// Every line of a file of keys has to be one: who wrote it means somebody to come in.
fn judge_keys(path: &Path, at: &Range<usize>, notes: &mut Notes) {
    let at = Some(at.clone());
    match keys::read(path) {
        Ok(read) => {
            let cure = "correct it, or begin it with `#`";
            let wrong = read.wrong.iter().take(KEYS_TOLD);
            wrong
                .for_each(|why| notes.fail(&at, format!("{}, {why}", path.display()), cure.into()));
        }
        Err((what, cure)) => notes.fail(&at, what, cure),
    }
}

/// Why the builder cannot fetch the buildpack at `url`, and what to do.
fn cannot_come(url: &str) -> (String, String) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // What stands before the host may be a password.
    let shown = format!("{scheme}://{}{path}", host.rsplit('@').next().unwrap_or(host));
    let what = format!(
        "buildpack {shown} cannot be fetched: an app without [[egress]] reaches nothing, its staging \
         neither"
    );
    let cure = "unpack it into /etc/terrarium/buildpacks/NAME and write NAME, or write { url, sha256 } for \
                the box to fetch it, or allow it by [[egress]]";
    (what, cure.to_owned())
}

/// The name of the buildpack in the archive `file`.
fn archived(file: &str) -> Option<&str> {
    let name = [".zip", ".tgz", ".tar.gz"].iter().find_map(|end| file.strip_suffix(end))?;
    (!name.is_empty()).then_some(name)
}

/// Refuses a good manifest that waits for an app that waits for it. `waits`: those that come together
/// with it.
pub fn check_waits(text: &str, file: &str, dir: &Path, waits: &Waits) -> Result<(), Diagnostics> {
    let (manifest, places) = manifest::parse_with_places(text, file, dir, HealthTimes::default())?;
    let mut notes = Notes::default();
    judge_waits(&manifest, &places, waits, &mut notes);
    Diagnostics::new(file, text, notes.0, 0).map_or(Ok(()), Err)
}

/// Apps that wait for each other would wait for ever.
fn judge_waits(manifest: &Manifest, places: &Places, waits: &Waits, notes: &mut Notes) {
    let mut waits = waits.clone();
    waits.insert(manifest.name.clone(), manifest.waits());
    let Some(way) = waits::cycle(&waits, &manifest.name) else { return };
    let at = places.waits.iter().find(|(other, _)| way.get(1) == Some(other));
    let way: Vec<&str> = way.iter().map(AppName::as_str).collect();
    notes.fail(
        &at.map(|(_, at)| at.clone()),
        format!("these apps wait for each other: {}", way.join(" -> ")),
        "remove one of the names, here or in another of these manifests".to_owned(),
    );
}

/// Reads the credentials of each `[[service]]` whose manifest names a file for them. What is wrong, by
/// the number of the service, with the cure. Blocking.
pub fn fill_credentials(manifest: &mut Manifest) -> Vec<(usize, (String, String))> {
    let mut wrong = Vec::new();
    for (number, service) in manifest.services.iter_mut().enumerate() {
        let Some(path) = &service.credentials_file else { continue };
        match read_credentials(path) {
            Ok(credentials) => service.credentials = credentials,
            Err(problem) => wrong.push((number, problem)),
        }
    }
    wrong
}

/// A table of TOML, or a JSON object in a file whose name ends in `.json`.
fn read_credentials(path: &Path) -> Result<Map<String, Value>, (String, String)> {
    let shown = path.display();
    let most = manifest::CREDENTIALS_MAX as u64;
    let unread = |err: io::Error| (format!("{shown} cannot be read"), err.to_string());
    // First: to open a pipe may take for ever.
    if !fs::metadata(path).map_err(unread)?.is_file() {
        return Err((format!("{shown} is not a file"), "name one".into()));
    }
    let file = fs::File::open(path).map_err(unread)?;
    let mut text = String::new();
    file.take(most + 1).read_to_string(&mut text).map_err(unread)?;
    if text.len() as u64 > most {
        return Err((format!("{shown} is too long"), format!("at most {most} bytes")));
    }
    // What the parsers say may hold the secret.
    let read = match path.extension().is_some_and(|end| end == "json") {
        true => serde_json::from_str(&text).ok(),
        false => toml::from_str(&text).ok(),
    };
    let cure = "write KEY = \"VALUE\" lines, or a JSON object into a file NAME.json";
    read.ok_or_else(|| (format!("{shown} holds no credentials"), cure.into()))
}

/// Looks whether the archive of an image is there, whatever is in it. An app that has it already needs it
/// no more: who has not finds out when it is staged.
fn judge_archive(path: &Path, places: &Places, notes: &mut Notes) {
    let shown = path.display();
    let (what, cure) = match fs::metadata(path).and_then(|_| fs::File::open(path)) {
        Ok(_) => return,
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            let cure = "only an app that has this image already can be applied; a relative path starts at \
                        this file";
            return notes.warn(&places.source, format!("{shown} is not there"), cure.to_owned());
        }
        Err(err) => (format!("{shown} cannot be read"), err.to_string()),
    };
    notes.fail(&places.source, what, cure);
}

/// What was found.
#[derive(Default)]
struct Notes(Vec<Finding>);

impl Notes {
    /// Something that is in the way. A default stands nowhere: then it is the text as a whole.
    fn fail(&mut self, at: &Option<Range<usize>>, what: impl Into<String>, cure: String) {
        let (span, message) = (at.clone().unwrap_or_default(), what.into());
        self.0.push(Finding { span, message, cure: Some(cure), see: None, warning: false });
    }

    /// Something that will be in the way.
    fn warn(&mut self, at: &Option<Range<usize>>, what: String, cure: String) {
        self.fail(at, what, cure);
        self.0.iter_mut().last().into_iter().for_each(|note| note.warning = true);
    }

    /// `who` needs no more than there is. A default is made smaller in `section`.
    fn fits(
        &mut self,
        who: &str,
        section: &str,
        (what, needs, box_has): (&str, Bytes, Option<Bytes>),
        at: &Option<Range<usize>>,
    ) {
        let Some(total) = box_has.filter(|total| needs > *total) else { return };
        // What can be written: a size is a whole number.
        let most = Bytes::mib(total.as_mib());
        let cure = match at {
            Some(_) => format!("at most {most}"),
            None => format!("that is the default; write {what} = \"{most}\" below [{section}]"),
        };
        let (needs, total) = told(needs, total);
        self.fail(at, format!("{who} needs {needs} of {what}, the box has {total}"), cure);
    }
}

/// Two sizes that are compared, for people: to a tenth of a unit, unless they look the same then.
fn told(one: Bytes, other: Bytes) -> (String, String) {
    match (one.rough(), other.rough()) {
        (one_told, other_told) if one_told == other_told => (one.to_string(), other.to_string()),
        told => told,
    }
}

#[cfg(test)]
mod tests;
