//! Manifests from files: read, checked, and their mistakes shown.

use super::error::CliError;
use super::ui::Ui;
use crate::api::apps::APPLY_MAX;
use crate::config::manifest::{self, Claims};
use crate::config::site::{self, Site};
use crate::config::waits::{self, Waits};
use crate::config::{Diagnostic, Diagnostics};
use crate::unit::AppName;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most manifests in one command.
const FILES_MAX: usize = 1000;

/// Longest manifest, in bytes: JSON may make it twice as long on its way to the daemon.
const TEXT_MAX: usize = APPLY_MAX / 2;

/// A manifest without mistakes.
#[derive(Debug)]
pub struct Loaded {
    /// The app's name.
    pub name: AppName,
    /// The TOML text.
    pub text: String,
    /// The file, absolute.
    pub file: PathBuf,
    /// The apps that it waits for.
    pub waits: Vec<AppName>,
    /// Ports of the box that it asks for, each with its line and column.
    pub claims: Claims,
}

/// Reads and checks everything that `paths` mean, before anything is done with any of it. Shows
/// the mistakes of all files.
pub fn load(ui: &mut Ui, paths: &[PathBuf]) -> Result<Vec<Loaded>, CliError> {
    let files = files(paths)?;
    let mut good = Vec::new();
    let mut bad = 0;
    for file in &files {
        match read(file, None) {
            Ok(Ok((loaded, _))) => good.push(loaded),
            Ok(Err(mistakes)) => {
                bad += 1;
                ui.complain(&mistakes.render(ui.color_err));
            }
            // One of several does not keep the others' mistakes from being shown.
            Err(err) if files.len() > 1 => {
                bad += 1;
                ui.complain(&format!("error: {}\n\n", crate::log::chain(&err)));
            }
            Err(err) => return Err(err),
        }
    }
    if bad > 0 {
        return Err(CliError::Invalid { bad, all: files.len() });
    }
    let order = waits::in_order(&together(ui, &good)?);
    good.sort_by_key(|it| order.iter().position(|name| *name == it.name));
    Ok(good)
}

/// Refuses good manifests that cannot all be applied, before one of them is; whom each of them waits for. Some
/// mistakes are shown.
fn together(ui: &mut Ui, good: &[Loaded]) -> Result<Waits, CliError> {
    let mut names = BTreeMap::new();
    for loaded in good {
        if let Some(first) = names.insert(&loaded.name, &loaded.file) {
            return Err(CliError::Twice {
                name: loaded.name.to_string(),
                first: first.clone(),
                second: loaded.file.clone(),
            });
        }
    }
    apart(good)?;
    // Who is waited for is applied first: each app is waited for before the next is applied.
    let waits: Waits = good.iter().map(|it| (it.name.clone(), it.waits.clone())).collect();
    for it in good {
        let dir = it.file.parent().unwrap_or(Path::new("/"));
        let file = it.file.display().to_string();
        if let Err(mistakes) = site::check_waits(&it.text, &file, dir, &waits) {
            // One is enough: it names them all.
            ui.complain(&mistakes.render(ui.color_err));
            return Err(CliError::Invalid { bad: 1, all: good.len() });
        }
    }
    Ok(waits)
}

/// Refuses manifests of which two ask for one port: the second would be refused when the first has been
/// applied.
fn apart(all: &[Loaded]) -> Result<(), CliError> {
    let mut claims = BTreeMap::new();
    for loaded in all {
        for (port, (line, column)) in &loaded.claims {
            let at = format!("{}:{line}:{column}", loaded.file.display());
            if let Some(first) = claims.insert(*port, at.clone()) {
                return Err(CliError::PortTwice { port: *port, first, second: at });
            }
        }
    }
    Ok(())
}

/// `check`: says of each file whether it is right and fits the box, and whether all of them could be applied
/// together.
pub fn check(ui: &mut Ui, paths: &[PathBuf], site: &Site) -> Result<u8, CliError> {
    let files = files(paths)?;
    let (mut report, mut good) = (Vec::new(), Vec::new());
    let mut bad = 0;
    for file in &files {
        let name = file.display().to_string();
        let read = match read(file, Some(site)) {
            Err(err) if files.len() > 1 && !ui.json => {
                bad += 1;
                ui.complain(&format!("error: {}\n\n", crate::log::chain(&err)));
                continue;
            }
            read => read?,
        };
        match read {
            Ok((loaded, warnings)) if ui.json => {
                let warnings = warnings.as_ref().map(list).unwrap_or_default();
                let app = &loaded.name;
                report.push(json!({ "file": name, "ok": true, "app": app, "warnings": warnings }));
                good.push(loaded);
            }
            Ok((loaded, warnings)) => {
                if let Some(warnings) = warnings {
                    ui.complain(&warnings.render(ui.color_err));
                }
                ui.print(&format!("{name}: ok\n"))?;
                good.push(loaded);
            }
            Err(mistakes) => {
                bad += 1;
                match ui.json {
                    true => report
                        .push(json!({ "file": name, "ok": false, "mistakes": list(&mistakes) })),
                    false => ui.complain(&mistakes.render(ui.color_err)),
                }
            }
        }
    }
    if ui.json {
        ui.document(&report)?;
    }
    together(ui, &good)?;
    Ok(if bad > 0 { super::error::code::INVALID } else { 0 })
}

/// The mistakes of one file for a program.
fn list(mistakes: &Diagnostics) -> Vec<serde_json::Value> {
    let one = |mistake: &Diagnostic| {
        json!({
            "line": mistake.line,
            "column": mistake.column,
            "message": mistake.message,
            "cure": mistake.cure,
        })
    };
    mistakes.iter().map(one).collect()
}

/// The files that `paths` mean: a directory stands for its `*.toml`, by name.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut files = Vec::new();
    for path in paths {
        let failed = |doing| move |source| CliError::File { doing, path: path.clone(), source };
        if !std::fs::metadata(path).map_err(failed("read"))?.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed("list"))? {
            let entry = entry.map_err(failed("list"))?.path();
            if entry.extension().is_some_and(|end| end == "toml") && entry.is_file() {
                inside.push(entry);
            }
        }
        if inside.is_empty() {
            let source = std::io::Error::other("there is no *.toml in it");
            return Err(failed("find manifests in")(source));
        }
        inside.sort();
        files.append(&mut inside);
    }
    if files.len() > FILES_MAX {
        let source = std::io::Error::other("more than 1000 manifests at once");
        return Err(CliError::File { doing: "take", path: files.swap_remove(FILES_MAX), source });
    }
    Ok(files)
}

/// A manifest, and what it warns of; or what is wrong with it.
type Verdict = Result<(Loaded, Option<Diagnostics>), Diagnostics>;

/// One file. `site`: it must fit this box, too.
fn read(path: &Path, site: Option<&Site>) -> Result<Verdict, CliError> {
    let failed = |source| CliError::File { doing: "read", path: path.to_owned(), source };
    let file = std::path::absolute(path).map_err(failed)?;
    let mut bytes = Vec::new();
    // One byte more than may be sent, so that a longer file is seen.
    let kind = std::fs::metadata(path).map_err(failed)?;
    if !kind.is_file() {
        // A fifo would keep us waiting for its writer.
        return Err(failed(std::io::Error::other("it is not a file")));
    }
    let mut limited = std::fs::File::open(path).map_err(failed)?.take(TEXT_MAX as u64 + 1);
    limited.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > TEXT_MAX {
        return Err(failed(std::io::Error::other("it is longer than 512 KiB")));
    }
    let dir = file.parent().unwrap_or(Path::new("/"));
    let shown = path.to_string_lossy();
    let text = match manifest::text_of(bytes, &shown) {
        Ok(text) => text,
        Err(mistakes) => return Ok(Err(mistakes)),
    };
    let read = match site {
        Some(site) => site.examine_with_claims(&text, &shown, dir),
        None => manifest::parse_with_claims(&text, &shown, dir)
            .map(|(manifest, claims)| (manifest, None, claims)),
    };
    Ok(read.map(|(manifest, warnings, claims)| {
        (Loaded { waits: manifest.waits(), name: manifest.name, claims, text, file }, warnings)
    }))
}
