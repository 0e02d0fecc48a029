//! What the box has for apps, and whether a manifest fits it. `check`, `apply` and staging look
//! here, so that none of them finds what another one does not.

use super::diagnostic::{Diagnostics, Finding};
use super::machine::{Amount, Config};
use super::manifest::{self, Places};
use crate::model::manifest::{Image, Manifest, Process};
use crate::unit::Bytes;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

/// What there is. What is not known is not judged.
#[derive(Clone, Debug)]
pub struct Site {
    /// Directory of the `<stack>.tar.zst` files.
    pub stacks: PathBuf,
    /// Directories with a directory per buildpack; an earlier one hides names of a later one.
    pub buildpacks: Vec<PathBuf>,
    /// Memory for all containers together.
    pub memory: Option<Bytes>,
    /// Disk for all containers together.
    pub disk: Option<Bytes>,
    /// Ports of the box that instances get; none of them can be published.
    pub ports: RangeInclusive<u16>,
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
        }
    }

    /// The archive of a stack, or why there is none and what to do.
    pub fn stack(&self, name: &str) -> Result<PathBuf, (String, String)> {
        let archive = self.stacks.join(format!("{name}.tar.zst"));
        match archive.is_file() {
            true => Ok(archive),
            false => Err((
                format!("stack `{name}` is not on this box: {} is missing", archive.display()),
                format!("build it with `cargo xtask rootfs {name}` and copy it there"),
            )),
        }
    }

    /// The only stack of the box, or the first by name; `None`: there is none.
    pub fn first_stack(&self) -> Option<String> {
        let items = fs::read_dir(&self.stacks).ok()?.flatten();
        let names = items.filter_map(|item| {
            let name = item.file_name().into_string().ok()?;
            let name = name.strip_suffix(".tar.zst").filter(|name| !name.is_empty())?;
            item.path().is_file().then(|| name.to_owned())
        });
        names.min()
    }

    /// Every buildpack by name.
    pub fn buildpacks(&self) -> BTreeMap<String, PathBuf> {
        let mut all = BTreeMap::new();
        let dirs = self.buildpacks.iter().rev();
        for item in dirs.filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten() {
            if let (Ok(name), true) = (item.file_name().into_string(), item.path().is_dir()) {
                all.insert(name, item.path());
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
        let (manifest, places) = manifest::parse_with_places(text, file, dir)?;
        let mut notes = Notes::default();
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
            warnings => Ok((manifest, warnings)),
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
        if known.is_empty() {
            let dirs: Vec<String> =
                self.buildpacks.iter().map(|dir| dir.display().to_string()).collect();
            let cure = format!("put one into {}", dirs.join(" or "));
            notes.fail(&places.buildpacks.first().cloned(), "this box has no buildpack", cure);
            return;
        }
        for (name, at) in build.buildpacks.iter().zip(&places.buildpacks) {
            if !known.contains_key(name) {
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
                let text = format!("all instances together need {sum} of {what}");
                notes.warn(&at, text, format!("the box has {total}; not all of them will run"));
            }
        };
        all("memory", |process| process.memory, self.memory);
        all("disk", |process| process.disk, self.disk);
    }
}

/// Looks whether the archive of an image is there, whatever is in it.
fn judge_archive(path: &Path, places: &Places, notes: &mut Notes) {
    let shown = path.display();
    let (what, cure) = match fs::metadata(path).and_then(|_| fs::File::open(path)) {
        Ok(_) => return,
        Err(err) if err.kind() == io::ErrorKind::NotFound => (
            format!("{shown} is not there"),
            "write the archive's file or directory; a relative path starts at this file".to_owned(),
        ),
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
        let cure = match at {
            Some(_) => format!("at most {total}"),
            None => format!("that is the default; write {what} = \"{total}\" below [{section}]"),
        };
        self.fail(at, format!("{who} needs {needs} of {what}, the box has {total}"), cure);
    }
}

#[cfg(test)]
mod tests;
