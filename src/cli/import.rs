//! `import`: manifests of cf become manifests of ours, one for each app, with a list of what has no
//! counterpart here.

mod base;
mod clash;
mod fit;
mod manifest;
#[cfg(test)]
mod tests;
mod units;
mod vars;
mod write;

pub use clash::clash;

use super::error::CliError;
use super::parse::Import;
use super::text::clean;
use super::ui::Ui;
use crate::config::site::Site;
use crate::lifecycle::yaml::{self, Node, Tree};
use crate::model::service::{Service, USER_PROVIDED};
use crate::unit::AppName;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Longest file that is read, in bytes.
const TEXT_MAX: u64 = 1 << 20;
/// Manifests that inherit from each other.
const INHERIT_MAX: usize = 10;
/// Where the ports of the box begin that imported apps answer on.
pub const FIRST_PORT: u16 = 8080;

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// From 1; `None`: the line as a whole.
    pub column: Option<usize>,
    pub what: String,
    pub cure: String,
    /// Line and column of another place that has to do with it.
    pub see: Option<(usize, usize)>,
}

impl Mistake {
    fn new(line: usize, what: impl Into<String>, cure: impl Into<String>) -> Mistake {
        Mistake { line, column: None, what: what.into(), cure: cure.into(), see: None }
    }
}

/// What could not be carried over, or not as it was, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// From 1.
    pub line: usize,
    pub what: String,
}

/// A manifest of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    pub name: AppName,
    /// TOML.
    pub text: String,
    pub notes: Vec<Note>,
    /// It has got a port of the box that its manifest does not name, or gets one later.
    pub has_port: bool,
    /// The port of the box that its manifest names.
    pub named: Option<Named>,
    /// Where the app begins in cf's manifest, from 1.
    pub line: usize,
}

/// A port of the box, and where it stands in cf's manifest, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    pub port: u16,
    pub line: usize,
    pub column: usize,
}

/// The port of the box for an app with a route that names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    This(u16),
    /// Whoever makes an app of the manifest writes it there.
    Later,
}

/// What a manifest is seen in the light of.
pub struct Surroundings<'a> {
    /// Where relative paths start, absolute.
    pub dir: &'a Path,
    /// Whether the box has a stack of this name.
    pub stacks: &'a dyn Fn(&str) -> bool,
    /// The buildpacks of the box.
    pub buildpacks: BTreeSet<String>,
    /// The services that something is known of.
    pub services: Vec<Service>,
    /// An archive that an app's `path` names is unpacked by whoever reads this.
    pub unpacks: bool,
    /// No app gets a route, whatever the manifest says.
    pub no_route: bool,
}

/// The port of the box for an app with a route that names none, which is none of those that the manifest names
/// for any app; `None`: none is left.
pub type Ports<'a> = dyn FnMut(&AppName, &BTreeSet<u16>) -> Option<Port> + 'a;

/// The first app gets `first`, each further one the next.
pub fn counted(first: u16) -> impl FnMut(&AppName, &BTreeSet<u16>) -> Option<Port> {
    let mut next = first;
    move |_, named| {
        let mut one = || {
            let port = next;
            next = port.checked_add(1).unwrap_or(FIRST_PORT);
            port
        };
        // One more than are named: one of so many is not.
        (0..=named.len()).map(|_| one()).find(|port| !named.contains(port)).map(Port::This)
    }
}

/// What becomes of a manifest. `vars`: names and values, of which a later one wins. Pure.
pub fn convert(
    mut top: Node,
    vars: &[(String, Node)],
    around: &Surroundings<'_>,
    ports: &mut Ports<'_>,
) -> Result<Vec<Imported>, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    base::spread(&mut top);
    vars::fill(&mut top, vars, &mut mistakes);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let mut done: Vec<Imported> = Vec::new();
    let mut apps = manifest::read(&top)?;
    apps.iter_mut().for_each(|app| app.no_route |= around.no_route);
    // All of them, before the first one is chosen: the app that names a port may come later.
    let routed = apps.iter().filter(|app| !app.no_route);
    let named = routed.flat_map(|app| &app.routes).filter_map(|route| route.port).collect();
    for app in apps {
        let line = app.line;
        match write::write(app, ports, &named, around) {
            Ok(one) if done.iter().any(|other| other.name == one.name) => {
                let what = format!("two apps are called `{}` here", one.name);
                mistakes.push(Mistake::new(line, what, "rename one of them"));
            }
            Ok(one) => done.push(one),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if mistakes.is_empty() { Ok(done) } else { Err(mistakes) }
}

fn of_yaml(err: &yaml::YamlError) -> Mistake {
    Mistake::new(err.line, err.why.clone(), "cf would not read it either")
}

/// The manifest that `path` is, or that is in it.
fn meant(path: &Path) -> PathBuf {
    if !path.is_dir() {
        return path.to_owned();
    }
    let mut both = ["manifest.yml", "manifest.yaml"].map(|name| path.join(name)).into_iter();
    both.find(|path| path.is_file()).unwrap_or_else(|| path.join("manifest.yml"))
}

/// Reads `file` and what belongs to it, and converts it; mistakes are shown. `unpacks` and `no_route`: as of
/// [`Surroundings`].
pub fn load(
    ui: &mut Ui,
    import: &Import,
    site: &Site,
    unpacks: bool,
    no_route: bool,
    ports: &mut Ports<'_>,
) -> Result<Vec<Imported>, CliError> {
    let file = meant(&import.file);
    let top = whole(ui, &file)?;
    let mut vars = Vec::new();
    for path in &import.vars_files {
        vars.extend(read_vars(ui, path)?);
    }
    let given = import.vars.iter().map(|(name, value)| {
        let tree = Tree::Text { text: value.clone(), plain: false };
        (name.clone(), Node { line: 0, column: 0, tree })
    });
    vars.extend(given);
    let mut services = Vec::new();
    for path in &import.services {
        services.extend(read_services(path)?);
    }
    let absolute = std::path::absolute(&file).map_err(failed("find", &file))?;
    let around = Surroundings {
        dir: absolute.parent().unwrap_or(Path::new("/")),
        stacks: &|name| site.stack(name).is_ok(),
        buildpacks: site.buildpacks().into_keys().collect(),
        services,
        unpacks,
        no_route,
    };
    convert(top, &vars, &around, ports).map_err(|mistakes| refuse(ui, &file, &mistakes))
}

/// The manifest in `file` over those that it inherits from.
fn whole(ui: &mut Ui, file: &Path) -> Result<Node, CliError> {
    let mut path = file.to_owned();
    // From the first to the last, each with the line where it names the next.
    let mut chain: Vec<(Node, usize)> = Vec::new();
    loop {
        let top = yaml::nodes(&read(&path)?);
        let top = top.map_err(|err| refuse(ui, &path, &[of_yaml(&err)]))?;
        let Some((next, line)) = base::parent(&top) else {
            let inherited = |base, (child, line)| base::inherit(base, child, line);
            return Ok(chain.into_iter().rev().fold(top, inherited));
        };
        chain.push((top, line));
        if chain.len() > INHERIT_MAX {
            let what = format!("it inherits from more than {INHERIT_MAX} others");
            let cure = "make one of them, or see whether they go in a circle";
            return Err(refuse(ui, &path, &[Mistake::new(line, what, cure)]));
        }
        path = path.parent().unwrap_or(Path::new("")).join(next);
    }
}

/// `import`: writes what `load` has read.
pub fn import(ui: &mut Ui, import: &Import, site: &Site) -> Result<u8, CliError> {
    let mut ports = counted(import.port.unwrap_or(FIRST_PORT));
    let all = load(ui, import, site, false, false, &mut ports)?;
    let file = meant(&import.file);
    clash(&all).map_err(|bad| refuse(ui, &file, &[bad]))?;
    let all = all.into_iter().map(fit::fit);
    let mut all: Vec<Imported> =
        all.collect::<Result<_, _>>().map_err(|bad| refuse(ui, &file, &[bad]))?;
    let dir = import.out.clone().unwrap_or_else(|| ".".into());
    fs::create_dir_all(&dir).map_err(failed("make", &dir))?;
    all.iter_mut().for_each(|one| judge(one, site));
    let paths: Vec<PathBuf> =
        all.iter().map(|one| dir.join(format!("{}.toml", one.name))).collect();
    // Before anything is written: all of it or nothing.
    if let Some(path) = paths.iter().find(|path| !import.force && path.symlink_metadata().is_ok()) {
        let source =
            io::Error::new(io::ErrorKind::AlreadyExists, "it is there already; see --force");
        return Err(failed("write", path)(source));
    }
    let mut report = Vec::new();
    for (one, path) in all.iter().zip(&paths) {
        save(path, &one.text, import.force).map_err(failed("write", path))?;
        if ui.json {
            let notes = one.notes.iter().map(|it| json!({ "line": it.line, "what": it.what }));
            let notes: Vec<Value> = notes.collect();
            report.push(json!({ "app": one.name, "file": path, "not_carried_over": notes }));
            continue;
        }
        ui.print(&format!("{}: written\n", path.display()))?;
        for note in &one.notes {
            ui.print(&format!("  line {}: {}\n", note.line, clean(&note.what)))?;
        }
    }
    if ui.json {
        ui.document(&report)?;
    }
    Ok(0)
}

/// Puts onto the list what is wrong with a manifest on this very box: it may be meant for another one.
fn judge(one: &mut Imported, site: &Site) {
    let Err(bad) = site.examine(&one.text, "x.toml", Path::new("/")) else { return };
    let told = bad.iter().filter(|it| !it.warning);
    let told = told.map(|it| format!("`check` refuses it on this box: {}", fit::said(it)));
    one.notes.extend(told.map(|what| Note { line: one.line, what }));
    one.notes.sort_by_key(|note| note.line);
}

/// Beside it first, then under its name: whoever follows the directory never sees half of it.
fn save(path: &Path, text: &str, force: bool) -> io::Result<()> {
    let mut options = fs::File::options();
    if !force {
        // May hold credentials, as manifests do.
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
        return file.write_all(text.as_bytes());
    }
    let beside = path.with_extension("toml.new");
    use std::os::unix::fs::OpenOptionsExt;
    let _ = fs::remove_file(&beside);
    let mut file = options.write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes()).and_then(|()| fs::rename(&beside, path))
}

fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::File { doing, path: path.clone(), source }
}

/// Shows what is wrong with `file`.
pub fn refuse(ui: &mut Ui, file: &Path, mistakes: &[Mistake]) -> CliError {
    for mistake in mistakes {
        ui.complain(&shown(file, mistake));
    }
    CliError::Invalid { bad: 1, all: 1 }
}

/// A line about a mistake.
fn shown(file: &Path, mistake: &Mistake) -> String {
    let (file, Mistake { line, column, what, cure, see }) = (file.display(), mistake);
    let column = column.map(|column| format!("{column}:")).unwrap_or_default();
    let see = see.map(|(line, column)| format!(", see {file}:{line}:{column}"));
    let text = clean(&format!("{what}{}; {cure}", see.unwrap_or_default()));
    format!("{file}:{line}:{column} {text}\n")
}

fn read(path: &Path) -> Result<String, CliError> {
    let failed = failed("read", path);
    if !fs::metadata(path).map_err(&failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a file")));
    }
    let mut text = String::new();
    let file = fs::File::open(path).map_err(&failed)?;
    file.take(TEXT_MAX + 1).read_to_string(&mut text).map_err(&failed)?;
    match text.len() as u64 > TEXT_MAX {
        true => Err(failed(io::Error::other("it is longer than 1 MiB"))),
        false => Ok(text),
    }
}

fn read_vars(ui: &mut Ui, path: &Path) -> Result<Vec<(String, Node)>, CliError> {
    let top = yaml::nodes(&read(path)?).map_err(|err| refuse(ui, path, &[of_yaml(&err)]))?;
    match top.tree {
        Tree::Null => Ok(Vec::new()),
        Tree::Map(pairs) => Ok(pairs.into_iter().map(|pair| (pair.key, pair.value)).collect()),
        _ => Err(refuse(ui, path, &[Mistake::new(1, "this is no map", "write NAME: VALUE lines")])),
    }
}

/// One service of a file of services.
#[derive(Deserialize)]
struct Known {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    instance_name: Option<String>,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    plan: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    binding_name: Option<String>,
    #[serde(default)]
    syslog_drain_url: Option<String>,
    #[serde(default)]
    volume_mounts: Vec<Value>,
    #[serde(default)]
    credentials: Map<String, Value>,
}

impl Known {
    fn named(self, name: Option<String>) -> Option<Service> {
        Some(Service {
            name: name.or(self.instance_name).or(self.name)?,
            label: self.label.unwrap_or_else(|| USER_PROVIDED.into()),
            plan: self.plan,
            tags: self.tags,
            binding_name: self.binding_name,
            syslog_drain_url: self.syslog_drain_url,
            volume_mounts: self.volume_mounts,
            credentials: self.credentials,
            credentials_file: None,
        })
    }
}

/// What a file says of services: TOML with a table for each (`[NAME] credentials = {...}`), or what an
/// app of cf has in VCAP_SERVICES, JSON, also inside of what `cf env` prints as `system_env_json`.
fn read_services(path: &Path) -> Result<Vec<Service>, CliError> {
    let text = read(path)?;
    services_of(&text, path.extension().is_some_and(|end| end == "json")).ok_or_else(|| {
        let why = "it holds no services: write [NAME] tables with `credentials`, or VCAP_SERVICES as JSON \
                   into a file NAME.json";
        failed("read", path)(io::Error::new(io::ErrorKind::InvalidData, why))
    })
}

/// Pure.
fn services_of(text: &str, is_json: bool) -> Option<Vec<Service>> {
    if !is_json {
        let tables: BTreeMap<String, Known> = toml::from_str(text).ok()?;
        return tables.into_iter().map(|(name, known)| known.named(Some(name))).collect();
    }
    let mut value: Value = serde_json::from_str(text).ok()?;
    for key in ["system_env_json", "VCAP_SERVICES"] {
        if let Some(inner) = value.get_mut(key) {
            value = inner.take();
        }
    }
    let labels: BTreeMap<String, Vec<Known>> = serde_json::from_value(value).ok()?;
    let label = |(label, all): (String, Vec<Known>)| {
        let one = move |known: Known| Known { label: Some(label.clone()), ..known }.named(None);
        all.into_iter().map(one).collect::<Vec<_>>()
    };
    labels.into_iter().flat_map(label).collect()
}
