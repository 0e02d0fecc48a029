//! What is pushed as which apps: from what was typed, and the manifests beside it.

use super::overlay::{Flags, overlaid};
use super::ports::Ports;
use crate::cli::error::CliError;
use crate::cli::import::{self, Imported};
use crate::cli::parse::{Import, Push, UsageError, What};
use crate::cli::text::clean;
use crate::cli::ui::Ui;
use crate::config::merge::{over, quoted};
use crate::config::site::Site;
use crate::unit::{AppName, ImageRef};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Our own manifest in an app's directory.
const OWN: &str = "terrarium.toml";
/// Those of cf.
const OF_CF: [&str; 2] = ["manifest.yml", "manifest.yaml"];
/// How the names of archives end that cf pushes the contents of.
const ARCHIVES: [&str; 4] = ["zip", "jar", "war", "ear"];

/// What is pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Absolute.
    Dir(PathBuf),
    /// A zip with what a directory would hold, absolute.
    Archive(PathBuf),
    Image(ImageRef),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Dir(path) | Origin::Archive(path) => path.display().fmt(f),
            Origin::Image(image) => image.fmt(f),
        }
    }
}

/// One app that is to be pushed.
pub struct Order {
    /// The manifest with what the flags say.
    pub text: String,
    /// The manifest that says what it is.
    pub file: PathBuf,
    /// There is none; `file` is where one would be.
    pub is_bare: bool,
    /// What `text` is called in mistakes: it is not what stands in a file.
    pub shown: PathBuf,
}

impl Order {
    /// Nobody has written a manifest of ours for it.
    pub fn is_by_flags(&self) -> bool {
        self.is_bare || self.file.file_name().is_none_or(|name| name != OWN)
    }
}

/// The manifests beside what is pushed.
enum Found {
    OfCf(PathBuf),
    Own(PathBuf),
    None,
}

/// What is to be pushed, and the apps that it is, with what is to be told about them. `ports`: of the box,
/// for who names none.
pub fn orders(
    ui: &mut Ui,
    push: &Push,
    site: &Site,
    ports: &mut Ports<'_>,
) -> Result<Vec<Order>, CliError> {
    let named = as_cf_names(push)?;
    if let Some(name) = &named.name.as_ref().filter(|_| named != *push) {
        ui.note(&format!("{name}: there is no such file here; it is taken for the app's name"));
    }
    let origin = origin(&named)?;
    if let (Origin::Image(_), Some(what), What::Any) = (&origin, &named.what, named.kind)
        && !what.contains([':', '/', '@'])
    {
        ui.note(&format!("{what}: there is no such file here; it is taken for an image"));
    }
    let found = found(&named, &origin)?;
    idle(&named, &origin, &found)?;
    if named.random_route {
        ui.note("--random-route: no names are routed here; an app has a port of the box");
    }
    let mut flags = Flags::of(&named);
    match &found {
        Found::OfCf(file) => of_cf(ui, &named, &origin, file, site, ports),
        Found::Own(file) => {
            let failed = |source| CliError::File { doing: "read", path: file.clone(), source };
            let own = std::fs::read_to_string(file).map_err(failed)?;
            let text = overlaid(&own, &flags);
            let shown = match text == own {
                true => file.clone(),
                false => told(file, "with the flags"),
            };
            Ok(vec![Order { text, file: file.clone(), is_bare: false, shown }])
        }
        Found::None => {
            let name = name_of(&named, &origin)?;
            flags.publish = match named.port {
                None if !named.no_route => Some(given(ui, &name, ports)?),
                port => port,
            };
            let file = match &origin {
                Origin::Dir(path) => path.join(OWN),
                Origin::Archive(path) => path.with_file_name(OWN),
                Origin::Image(_) => Path::new("/").join(OWN),
            };
            let text = overlaid(&bare(&name, &origin), &flags);
            let shown = PathBuf::from(format!("/push of {origin}"));
            Ok(vec![Order { text, file, is_bare: true, shown }])
        }
    }
}

/// A port of the box for an app without a manifest; who gets a new one is told.
fn given(ui: &mut Ui, name: &AppName, ports: &mut Ports<'_>) -> Result<u16, UsageError> {
    let given = ports.of(name, &BTreeSet::new()).ok_or_else(|| {
        UsageError::new(format!("no port of the box is free for {name}"), "name one with --port")
    })?;
    if !given.kept {
        let port = given.port;
        ui.note(&format!(
            "{name}: gets port {port} of the box; --port names another one, --no-route none"
        ));
    }
    Ok(given.port)
}

/// `cf push NAME`: of a directory with a manifest, the word is the app's name, unless something here is
/// called so.
fn as_cf_names(push: &Push) -> Result<Push, CliError> {
    let Some(what) = push.what.as_ref().filter(|_| push.kind == What::Any) else {
        return Ok(push.clone());
    };
    let plain = !what.contains(['/', ':', '@', '.', '~']);
    let described = !push.no_manifest && [OF_CF[0], OF_CF[1], OWN].iter().any(is_file);
    let described = described || !push.cf.file.as_os_str().is_empty();
    let (true, true, false) = (plain, described, Path::new(what).exists()) else {
        return Ok(push.clone());
    };
    let Ok(name) = what.parse::<AppName>() else { return Ok(push.clone()) };
    if push.name.as_ref().is_some_and(|other| *other != name) {
        let text = format!("`{what}` is no file here, and the app has a name by -n");
        return Err(UsageError::new(text, "leave out one of both").into());
    }
    Ok(Push { what: None, name: Some(name), ..push.clone() })
}

fn is_file(path: impl AsRef<Path>) -> bool {
    path.as_ref().is_file()
}

/// The directory, the archive or the image that is meant.
fn origin(push: &Push) -> Result<Origin, CliError> {
    let what = push.what.as_deref().unwrap_or(".");
    let path = Path::new(what);
    let looks_like_path = what.starts_with(['.', '/', '~']);
    let may_be_image = match push.kind {
        What::Any => !path.exists() && !looks_like_path,
        What::Image => true,
        What::Path => false,
    };
    match what.parse::<ImageRef>() {
        Ok(image) if may_be_image => return Ok(Origin::Image(image)),
        Err(err) if push.kind == What::Image => {
            return Err(UsageError::new(format!("-o {what}: {err}"), "write its name").into());
        }
        _ => {}
    }
    let failed = |source| CliError::File { doing: "push", path: path.to_owned(), source };
    let whole = std::fs::canonicalize(path).map_err(failed)?;
    let ends = |end: &&str| whole.extension().is_some_and(|it| it.eq_ignore_ascii_case(end));
    match whole.is_dir() {
        true => Ok(Origin::Dir(whole)),
        false if whole.is_file() && ARCHIVES.iter().any(ends) => Ok(Origin::Archive(whole)),
        false => {
            let why = "it is neither a directory nor a zip, jar or war; unpack it, and push that";
            Err(failed(io::Error::new(io::ErrorKind::NotADirectory, why)))
        }
    }
}

/// The manifest in the directory that is pushed; of an archive in the one that this is typed in, as cf
/// looks for it.
fn found(push: &Push, origin: &Origin) -> Result<Found, CliError> {
    let absolute = |path: &Path| {
        let failed = |source| CliError::File { doing: "find", path: path.to_owned(), source };
        std::path::absolute(path).map_err(failed)
    };
    if !push.cf.file.as_os_str().is_empty() {
        return Ok(Found::OfCf(absolute(&push.cf.file)?));
    }
    let dir = match origin {
        _ if push.no_manifest => return Ok(Found::None),
        Origin::Dir(dir) => dir.clone(),
        Origin::Archive(_) => absolute(Path::new("."))?,
        Origin::Image(_) => return Ok(Found::None),
    };
    if let Some(path) = OF_CF.map(|name| dir.join(name)).into_iter().find(|it| it.is_file()) {
        return Ok(Found::OfCf(path));
    }
    let own = dir.join(OWN);
    // Its source is its own.
    let own = Some(own).filter(|own| is_file(own) && matches!(origin, Origin::Dir(_)));
    Ok(own.map_or(Found::None, Found::Own))
}

/// Refuses flags that would do nothing.
fn idle(push: &Push, origin: &Origin, found: &Found) -> Result<(), UsageError> {
    let refuse = |flag: &str, why: &str, cure: &str| {
        Err(UsageError::new(format!("{flag} has no effect: {why}"), cure))
    };
    let cf = &push.cf;
    let of_cf = [
        ("--vars-file", !cf.vars_files.is_empty()),
        ("--var", !cf.vars.is_empty()),
        ("--services", !cf.services.is_empty()),
    ];
    let given = of_cf.iter().find(|(_, given)| *given).map(|(flag, _)| *flag);
    match (found, given) {
        (Found::OfCf(_), _) | (_, None) => {}
        (Found::Own(_), Some(flag)) => {
            return refuse(flag, "terrarium.toml says what the app is", "write it there");
        }
        (Found::None, Some(flag)) => {
            let why = "there is no manifest.yml that it is for";
            return refuse(flag, why, "name one with -f, or leave it out");
        }
    }
    let of_image = matches!(origin, Origin::Image(_));
    let named = !cf.file.as_os_str().is_empty();
    if named && of_image {
        let cure = "write `docker` with its `image` there, and leave out the image here";
        return refuse("-f", "an image is pushed as it is", cure);
    }
    if named && push.no_manifest {
        return refuse("--no-manifest", "-f names a manifest", "leave out one of both");
    }
    if push.port.is_some() && matches!(found, Found::Own(_)) {
        let cure = "write `publish` below [[port]] there";
        return refuse("--port", "terrarium.toml says what is published", cure);
    }
    if push.no_route && (push.port.is_some() || push.random_route) {
        let flag = if push.port.is_some() { "--port" } else { "--random-route" };
        return refuse(flag, "--no-route publishes none", "leave out one of both");
    }
    if push.endpoint.is_some() && push.health.as_deref() != Some("http") {
        return refuse("--endpoint", "it is of checks by HTTP", "write -u http with it");
    }
    if of_image {
        return of_build(push, "an image is not built");
    }
    Ok(())
}

/// Refuses flags about how it is built.
fn of_build(push: &Push, why: &str) -> Result<(), UsageError> {
    for (flag, given) in [("-b", !push.buildpacks.is_empty()), ("-s", push.stack.is_some())] {
        if given {
            return Err(UsageError::new(format!("{flag} has no effect: {why}"), "leave it out"));
        }
    }
    Ok(())
}

/// The apps of a manifest of cf.
fn of_cf(
    ui: &mut Ui,
    push: &Push,
    origin: &Origin,
    file: &Path,
    site: &Site,
    ports: &mut Ports<'_>,
) -> Result<Vec<Order>, CliError> {
    // By the name that the one that is pushed has in the end; see `chosen`.
    let mut free = |name: &AppName, named: &BTreeSet<u16>| {
        ports.of(push.name.as_ref().unwrap_or(name), named).map(|it| it.port)
    };
    let mut counted = push.port.map(import::counted);
    let mut port = |name: &AppName, named: &BTreeSet<u16>| match &mut counted {
        Some(next) => next(name, named),
        None => free(name, named),
    };
    let import = Import { file: file.to_owned(), ..push.cf.clone() };
    let all = import::load(ui, &import, site, true, push.no_route, &mut port)?;
    // What is named beside the manifest is the source of its app.
    let beside = push.what.is_some() && !push.cf.file.as_os_str().is_empty();
    let path = match origin {
        Origin::Archive(path) => Some(path),
        Origin::Dir(path) if beside => Some(path),
        Origin::Dir(_) | Origin::Image(_) => None,
    };
    let all = chosen(push, all, path.is_some())?;
    if push.port.is_some() && !all.iter().any(|one| one.has_port) {
        let why = "--port has no effect: no app of the manifest gets a port that it does not name";
        return Err(UsageError::new(why, "leave it out").into());
    }
    let flags = Flags::of(push);
    let mut orders = Vec::new();
    for one in all {
        for note in &one.notes {
            ui.note(&format!("{}: line {}: {}", one.name, note.line, clean(&note.what)));
        }
        let is_image = one.text.parse::<toml::Table>().is_ok_and(|it| it.contains_key("image"));
        if is_image {
            of_build(push, &format!("{} comes as an image, which is not built", one.name))?;
        }
        let mut text = overlaid(&one.text, &flags);
        if let Some(path) = path {
            if is_image {
                let what = format!("{} comes as an image, and has no source", one.name);
                return Err(UsageError::new(what, "leave out the path").into());
            }
            let path = format!("source.path = {}\n", quoted(&path.to_string_lossy()));
            text = over(&text, &path).unwrap_or(text);
        }
        let shown = told(file, "as it is read");
        orders.push(Order { text, file: file.to_owned(), is_bare: false, shown });
    }
    Ok(orders)
}

/// A name for a text that is made of a file.
fn told(file: &Path, how: &str) -> PathBuf {
    PathBuf::from(format!("{} {how}", file.display()))
}

/// The app of the manifest that `-n` names; of one that has only one app, that, by the new name.
fn chosen(push: &Push, mut all: Vec<Imported>, path: bool) -> Result<Vec<Imported>, CliError> {
    let Some(name) = &push.name else {
        if (path || Flags::of(push).is_of_one_app()) && all.len() > 1 {
            let what = format!("the manifest has {} apps, and this is for one", all.len());
            return Err(UsageError::new(what, "name it with -n").into());
        }
        return Ok(all);
    };
    if let Some(at) = all.iter().position(|one| one.name == *name) {
        return Ok(vec![all.swap_remove(at)]);
    }
    match all.len() {
        1 => Ok(all),
        _ => {
            let have: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
            let cure = format!("it has {}", have.join(", "));
            Err(UsageError::new(format!("the manifest has no app `{name}`"), cure).into())
        }
    }
}

/// What an app without a manifest is called.
fn name_of(push: &Push, origin: &Origin) -> Result<AppName, UsageError> {
    if let Some(name) = &push.name {
        return Ok(name.clone());
    }
    let guess = match origin {
        Origin::Dir(dir) => dir.file_name().map(|name| name.to_string_lossy().to_lowercase()),
        Origin::Archive(file) => file.file_stem().map(|name| name.to_string_lossy().to_lowercase()),
        Origin::Image(image) => image.repository("").rsplit('/').next().map(str::to_owned),
    };
    let guess = guess.unwrap_or_default().replace(['_', '.', ' '], "-");
    guess.parse().map_err(|_| {
        UsageError::new(format!("`{guess}` cannot be the name of an app"), "write -n NAME")
    })
}

/// A manifest that says where the app comes from, and nothing else.
fn bare(name: &AppName, origin: &Origin) -> String {
    let (from, port) = match origin {
        Origin::Dir(path) | Origin::Archive(path) => {
            let path = quoted(&path.to_string_lossy());
            (format!("[source]\npath = {path}\n"), "container = 8080\n")
        }
        Origin::Image(image) => (format!("[image]\nref = {}\n", quoted(&image.to_string())), ""),
    };
    format!("name = {}\n{from}[[port]]\n{port}", quoted(name.as_str()))
}

#[cfg(test)]
mod tests;
