//! What is pushed as which apps: from what was typed, and the manifests beside it.

use super::origin::{Origin, origin};
use super::overlay::{Flags, overlaid};
use super::own;
use super::ports::Wants;
use crate::cli::error::CliError;
use crate::cli::import::{self, Imported};
use crate::cli::parse::{Import, Push, UsageError, What};
use crate::cli::text::clean;
use crate::cli::ui::Ui;
use crate::config::merge::{over, quoted};
use crate::config::site::Site;
use crate::unit::{AppName, ImageRef};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Our own manifest in an app's directory.
const OWN: &str = "terrarium.toml";
/// Those of cf.
const OF_CF: [&str; 2] = ["manifest.yml", "manifest.yaml"];

/// All that is pushed.
pub struct Plan {
    pub orders: Vec<Order>,
    /// Ports of the box that a manifest of cf names for any of its apps, pushed or not.
    pub named: BTreeSet<u16>,
    /// It is this image, if the box has one of that name.
    pub perhaps: Option<ImageRef>,
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
    /// Whether its first `[[port]]` gets a port of the box.
    pub wants: Wants,
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

/// What is to be pushed, and the apps that it is, with what is to be told about them. No port is chosen: who
/// chooses it must know what the box has.
pub fn plan(ui: &mut Ui, push: &Push, site: &Site) -> Result<Plan, CliError> {
    let named = as_cf_names(push)?;
    if let Some(name) = &named.name.as_ref().filter(|_| named != *push) {
        ui.note(&format!("{name}: there is no such file here; it is taken for the app's name"));
    }
    let origin = origin(&named)?;
    let found = found(&named, &origin)?;
    idle(&named, &origin, &found)?;
    if named.random_route {
        ui.note("--random-route: no names are routed here; an app has a port of the box");
    }
    let one = |order| Plan { orders: vec![order], named: BTreeSet::new(), perhaps: None };
    match (&found, &origin) {
        (Found::OfCf(file), _) => of_cf(ui, &named, &origin, file, site),
        (Found::Own(file), _) => of_own(&named, file).map(one),
        (Found::None, Origin::Perhaps(image)) => {
            let perhaps = Some(image.clone());
            Ok(Plan { perhaps, ..of_flags(&named, &origin).map(one)? })
        }
        (Found::None, _) => Ok(of_flags(&named, &origin).map(one)?),
    }
}

/// The app that our own manifest `file` is of, which lies in the directory that is pushed.
fn of_own(push: &Push, file: &Path) -> Result<Order, CliError> {
    let failed = |source| CliError::File { doing: "read", path: file.to_owned(), source };
    let text = std::fs::read_to_string(file).map_err(failed)?;
    let text = own::with_source(&text, file.parent().unwrap_or(Path::new("/")));
    let wants = own::wants(push, &text)?;
    let whole = overlaid(&text, &Flags::of_one(push));
    let shown = match whole == text {
        true => file.to_owned(),
        false => told(file, "with the flags"),
    };
    Ok(Order { text: whole, file: file.to_owned(), is_bare: false, shown, wants })
}

/// An app of which only the flags say something.
fn of_flags(push: &Push, origin: &Origin) -> Result<Order, UsageError> {
    let name = name_of(push, origin)?;
    let file = match origin {
        Origin::Dir(path) => path.join(OWN),
        Origin::Archive(path) => path.with_file_name(OWN),
        Origin::Image(_) | Origin::Perhaps(_) => Path::new("/").join(OWN),
    };
    let text = overlaid(&bare(&name, origin), &Flags::of_one(push));
    let shown = PathBuf::from(format!("/push of {origin}"));
    let wants = Wants::always_if(push.port.is_none() && !push.no_route);
    Ok(Order { text, file, is_bare: true, shown, wants })
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
        Origin::Image(_) | Origin::Perhaps(_) => return Ok(Found::None),
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
    let of_image = matches!(origin, Origin::Image(_) | Origin::Perhaps(_));
    let named = !cf.file.as_os_str().is_empty();
    if named && of_image {
        let cure = "write `docker` with its `image` there, and leave out the image here";
        return refuse("-f", "an image is pushed as it is", cure);
    }
    if named && push.no_manifest {
        return refuse("--no-manifest", "-f names a manifest", "leave out one of both");
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
) -> Result<Plan, CliError> {
    let mut named = BTreeSet::new();
    let mut counted = push.port.map(import::counted);
    let mut port = |name: &AppName, all: &BTreeSet<u16>| {
        named.extend(all);
        counted.as_mut().map_or(Some(import::Port::Later), |next| next(name, all))
    };
    let import = Import { file: file.to_owned(), ..push.cf.clone() };
    let all = import::load(ui, &import, site, true, push.no_route, &mut port)?;
    // What is named beside the manifest is the source of its app.
    let beside = push.what.is_some() && !push.cf.file.as_os_str().is_empty();
    let path = match origin {
        Origin::Archive(path) => Some(path),
        Origin::Dir(path) if beside => Some(path),
        Origin::Dir(_) | Origin::Image(_) | Origin::Perhaps(_) => None,
    };
    let all = chosen(push, all, path.is_some())?;
    import::clash(&all).map_err(|bad| import::refuse(ui, file, &[bad]))?;
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
        let wants = Wants::always_if(one.has_port && push.port.is_none());
        orders.push(Order { text, file: file.to_owned(), is_bare: false, shown, wants });
    }
    Ok(Plan { orders, named, perhaps: None })
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
        Origin::Image(image) | Origin::Perhaps(image) => {
            image.repository("").rsplit('/').next().map(str::to_owned)
        }
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
        Origin::Image(image) | Origin::Perhaps(image) => {
            (format!("[image]\nref = {}\n", quoted(&image.to_string())), "")
        }
    };
    format!("name = {}\n{from}[[port]]\n{port}", quoted(name.as_str()))
}

#[cfg(test)]
mod tests;
