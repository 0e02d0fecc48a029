//! What stands in the manifest directories: the file that counts for each name, and what is laid
//! over it.

use crate::config::manifest;
use crate::config::merge;
use crate::config::site;
use crate::config::{Diagnostic, Diagnostics};
use crate::model::manifest::{HealthTimes, Manifest};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Longest manifest or drop-in that is read, in bytes.
const TEXT_MAX: u64 = 1 << 20;

/// Most drop-ins of one app.
const DROP_INS_MAX: usize = 64;

/// What is known of one file.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    pub path: PathBuf,
    /// Why not: it is there but cannot be read.
    pub text: Result<String, String>,
    /// Its drop-ins in the order in which they are laid over it.
    pub drop_ins: Vec<(PathBuf, String)>,
}

impl Seen {
    /// The manifest's text with its drop-ins, read as the cell reads it (`usual`: the box's own times
    /// of checks), or where the mistake is and what it is. Without the lines themselves: they may hold
    /// secrets.
    pub fn whole(&self, usual: HealthTimes) -> Result<(String, Manifest), String> {
        let mut whole = self.text.clone()?;
        let mut manifest = parse(&whole, &self.path, usual).map_err(|mistakes| brief(&mistakes))?;
        for (path, text) in &self.drop_ins {
            let name = path.display();
            whole = merge::over(&whole, text).map_err(|err| format!("{name}: {}", err.why))?;
            // All of it, each time: so the one that brings a mistake is known.
            manifest = match parse(&whole, &self.path, usual) {
                Ok(manifest) => manifest,
                Err(mistakes) => {
                    let texts: Vec<&str> = mistakes.iter().map(|it| &*it.message).collect();
                    return Err(format!("{name}: {}", texts.join("; ")));
                }
            };
        }
        // As it is recorded: or it would seem to be another one each time.
        match site::fill_credentials(&mut manifest).pop() {
            Some((_, (what, cure))) => Err(format!("{what}; {cure}")),
            None => Ok((whole, manifest)),
        }
    }
}

fn parse(text: &str, path: &Path, usual: HealthTimes) -> Result<Manifest, Diagnostics> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    manifest::parse_on(text, &path.display().to_string(), dir, usual)
}

/// Where the mistakes are and what they are, without the lines themselves: they may hold secrets.
fn brief(mistakes: &Diagnostics) -> String {
    let one = |it: &Diagnostic| format!("{}:{}: {}", it.line, it.column, it.message);
    mistakes.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// The files that count, by name; `dirs`, lowest precedence first. A directory that is there and
/// cannot be read is an error: who takes it for an empty one deletes all its apps. `hollow`: the
/// files that had nothing in them at the last look, told anew; one that had something before may be
/// about to be written, and means nothing before it has been seen twice.
pub fn read(
    dirs: &[PathBuf],
    known: &BTreeMap<String, Seen>,
    hollow: &mut BTreeSet<PathBuf>,
) -> Result<BTreeMap<String, Seen>, String> {
    let mut found: BTreeMap<String, Seen> = BTreeMap::new();
    let mut empty = BTreeSet::new();
    for dir in dirs {
        for (name, path) in entries(dir)? {
            let had = known.get(&name).is_some_and(|seen| seen.path == path);
            match text_of(&path) {
                Ok(Text::Masked) => drop(found.remove(&name)),
                Ok(Text::Some(text)) if text.trim().is_empty() => {
                    if had && !hollow.contains(&path) {
                        let text = Err("it is empty, and is looked at again".to_owned());
                        found.insert(name, Seen { path: path.clone(), text, drop_ins: Vec::new() });
                    } else {
                        found.remove(&name);
                    }
                    empty.insert(path);
                }
                Ok(Text::Some(text)) => {
                    drop(found.insert(name, Seen { path, text: Ok(text), drop_ins: Vec::new() }));
                }
                // It went away just now, or is a link to nothing.
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => {
                    let seen = Seen { path, text: Err(err.to_string()), drop_ins: Vec::new() };
                    if known.get(&name).is_none_or(|old| old.text != seen.text) {
                        let path = seen.path.display();
                        crate::error!("manifest.unread", path = path, err = err);
                    }
                    found.insert(name, seen);
                }
            }
        }
    }
    for (name, seen) in &mut found {
        match drop_ins(dirs, name) {
            Ok(drop_ins) => seen.drop_ins = drop_ins,
            Err(why) => {
                if known.get(name).is_none_or(|old| old.text.as_ref() != Err(&why)) {
                    let path = seen.path.display();
                    crate::error!("manifest.unread", path = path, err = why);
                }
                seen.text = Err(why);
            }
        }
    }
    *hollow = empty;
    Ok(found)
}

/// Whether a file was empty at the last look and has to be looked at again soon.
pub fn is_in_doubt(found: &BTreeMap<String, Seen>, hollow: &BTreeSet<PathBuf>) -> bool {
    found.values().any(|seen| seen.text.is_err() && hollow.contains(&seen.path))
}

/// The directories of drop-ins that are there, to be watched.
pub fn drop_in_dirs(dirs: &[PathBuf]) -> Vec<PathBuf> {
    let items = dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    let paths = items.map(|item| item.path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "d") && path.is_dir()).collect()
}

/// What is laid over the manifest `NAME.toml`: of `NAME.toml.d` in every directory, by file name; one
/// of the same name in a higher directory hides that of a lower one.
fn drop_ins(dirs: &[PathBuf], name: &str) -> Result<Vec<(PathBuf, String)>, String> {
    let mut all: BTreeMap<String, (PathBuf, String)> = BTreeMap::new();
    for dir in dirs {
        for (file, path) in entries(&dir.join(format!("{name}.d")))? {
            match text_of(&path) {
                Ok(Text::Some(text)) if !text.trim().is_empty() => {
                    drop(all.insert(file, (path, text)));
                }
                Ok(_) => drop(all.remove(&file)),
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => return Err(format!("cannot read {}: {err}", path.display())),
            }
        }
    }
    match all.len() > DROP_INS_MAX {
        true => Err(format!("{} drop-ins are more than {DROP_INS_MAX}; merge them", all.len())),
        false => Ok(all.into_values().collect()),
    }
}

/// What a file holds.
enum Text {
    /// /dev/null.
    Masked,
    Some(String),
}

/// A manifest's text. Anything that is neither a file nor /dev/null, such as a pipe, would be waited for.
fn text_of(path: &Path) -> io::Result<Text> {
    let kind = fs::metadata(path)?.file_type();
    match kind.is_file() {
        true => {
            let mut text = String::new();
            fs::File::open(path)?.take(TEXT_MAX + 1).read_to_string(&mut text)?;
            match text.len() as u64 > TEXT_MAX {
                true => Err(io::Error::other("it is longer than 1 MiB")),
                false => Ok(Text::Some(text)),
            }
        }
        false if kind.is_char_device() => Ok(Text::Masked),
        false => Err(io::Error::other("it is not a file")),
    }
}

/// `*.toml` of a directory, by name; none when it is not there.
fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let failed =
        |err: io::Error| format!("cannot read {}, which must be a directory: {err}", dir.display());
    let items = match fs::read_dir(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        items => items.map_err(failed)?,
    };
    let mut found = Vec::new();
    for item in items {
        let Ok(name) = item.map_err(failed)?.file_name().into_string() else { continue };
        if !name.starts_with('.') && name.ends_with(".toml") {
            found.push((name.clone(), dir.join(name)));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::machine::Config;
    use std::time::Duration;

    /// Directories of a test, the lowest first, that go with it.
    struct Dirs([PathBuf; 2]);

    impl Dirs {
        fn new(name: &str) -> Dirs {
            let root = format!("terrarium-appsd-{name}-{}", std::process::id());
            let root = std::env::temp_dir().join(root);
            let _ = fs::remove_dir_all(&root);
            let dirs = ["lib", "etc"].map(|name| root.join(name));
            dirs.iter().for_each(|dir| fs::create_dir_all(dir).expect("directory"));
            Dirs(dirs)
        }

        fn write(&self, which: usize, name: &str, text: &str) {
            let path = self.0[which].join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("directory");
            fs::write(path, text).expect("file");
        }

        fn read(&self) -> BTreeMap<String, Seen> {
            read(&self.0, &BTreeMap::new(), &mut BTreeSet::new()).expect("read")
        }
    }

    impl Drop for Dirs {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(self.0[0].parent().expect("the root"));
        }
    }

    const WEB: &str = "name = \"web\"\n[image]\nref = \"registry.lan/web:1\"\n";

    #[test]
    fn a_directory_that_cannot_be_read_is_not_an_empty_one() {
        let dirs = Dirs::new("unread");
        dirs.write(0, "web.toml", "x");
        fs::remove_dir(&dirs.0[1]).expect("remove");
        assert_eq!(dirs.read().len(), 1, "one that is missing is empty");
        fs::write(&dirs.0[1], "a file in its place").expect("file");
        let err = read(&dirs.0, &BTreeMap::new(), &mut BTreeSet::new()).err().expect("refused");
        assert!(err.contains("/etc, which must be a directory"), "{err}");
    }

    #[test]
    fn drop_ins_of_all_directories_are_laid_over_the_file_that_counts() {
        let dirs = Dirs::new("drop-ins");
        dirs.write(0, "web.toml", WEB);
        dirs.write(0, "web.toml.d/10-size.toml", "[run]\nmemory = \"32MiB\"\ninstances = 3\n");
        dirs.write(0, "web.toml.d/20-env.toml", "[env]\nA = \"vendor\"\n");
        dirs.write(1, "web.toml.d/20-env.toml", "[env]\nA = \"owner\"\n");
        dirs.write(1, "web.toml.d/30.toml", "[run]\ninstances = 2\n");
        dirs.write(1, "web.toml.d/notes.txt", "no TOML at all");
        let (_, manifest) = dirs.read()["web.toml"].whole(HealthTimes::default()).expect("good");
        let shape = (manifest.run.instances, manifest.run.memory.as_mib());
        assert_eq!((shape, &*manifest.env["A"]), ((2, 32), "owner"));
        // Masked, as a vendor's file is.
        fs::remove_file(dirs.0[1].join("web.toml.d/20-env.toml")).expect("remove");
        let mask = dirs.0[1].join("web.toml.d/10-size.toml");
        std::os::unix::fs::symlink("/dev/null", mask).expect("mask");
        let (_, manifest) = dirs.read()["web.toml"].whole(HealthTimes::default()).expect("good");
        let shape = (manifest.run.instances, manifest.run.memory.as_mib());
        assert_eq!((shape, &*manifest.env["A"]), ((2, 256), "vendor"));
        // The one that brings the mistake is named.
        for (text, why) in [("[run\n", "30.toml: "), ("[run]\ninstanses = 1\n", "instanses")] {
            dirs.write(1, "web.toml.d/30.toml", text);
            let err = dirs.read()["web.toml"].whole(HealthTimes::default()).expect_err("refused");
            assert!(err.contains("web.toml.d/30.toml: ") && err.contains(why), "{err}");
        }
        let mask = dirs.0[1].join("web.toml");
        std::os::unix::fs::symlink("/dev/null", mask).expect("mask");
        assert!(dirs.read().is_empty());
    }

    /// Or a file would seem to be another one at each start, and what `scale` said would be lost.
    #[test]
    fn a_file_is_read_as_the_cell_reads_it() {
        let dirs = Dirs::new("usual");
        dirs.write(1, "web.toml", WEB);
        dirs.write(1, "web.toml.d/env.toml", "[env]\nA = \"b\"\n");
        let usual = HealthTimes {
            start_timeout: Duration::from_secs(7),
            interval_healthy: Duration::from_secs(8),
            ..HealthTimes::default()
        };
        let mut config = Config::defaults(&dirs.0[0], "box");
        config.health.times = usual;
        let site = site::Site::of(&config);
        let (text, manifest) = dirs.read()["web.toml"].whole(usual).expect("good");
        let cell_s = site.examine(&text, "web.toml", &dirs.0[1]).expect("good").0;
        assert_eq!(manifest, cell_s);
        let health = &manifest.processes["web"].health;
        assert_eq!(health.start_timeout, Duration::from_secs(7));
    }

    #[test]
    fn a_file_that_is_being_written_is_no_mask_yet() {
        let dirs = Dirs::new("hollow");
        dirs.write(1, "web.toml", WEB);
        let mut hollow = BTreeSet::new();
        let known = read(&dirs.0, &BTreeMap::new(), &mut hollow).expect("read");
        dirs.write(1, "web.toml", "");
        let found = read(&dirs.0, &known, &mut hollow).expect("read");
        assert!(found["web.toml"].text.is_err() && is_in_doubt(&found, &hollow));
        let found = read(&dirs.0, &found, &mut hollow).expect("read");
        assert!(found.is_empty() && !is_in_doubt(&found, &hollow), "it stays empty");
    }
}
