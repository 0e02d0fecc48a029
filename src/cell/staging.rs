//! Stages one app: from its source as a Task in its own container, or as an image.

mod cache;
mod docker;
mod hook;

use super::Shared;
use super::fit::Misfit;
use super::record::{AppRecord, Release};
use super::task::{self, Made};
use crate::config::site::Site;
use crate::exec::cancel::Cancel;
use crate::exec::room::Resources;
use crate::image;
use crate::lifecycle::{self, Survey, pack};
use crate::log::chain;
use crate::model::manifest::{Build, Manifest};
use crate::model::task::StagingResult;
use crate::model::view::UNCHANGED;
use crate::stage::packs::{self, PackFrom};
use crate::stage::recipe::{self, StagingInput};
use crate::stage::types;
use crate::unit::{Bytes, Digest};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Largest `result.json` that is read, in bytes.
const RESULT_MAX: u64 = 1 << 20;

/// Why an app could not be staged.
pub(super) struct Unstaged {
    /// For the user.
    pub why: String,
    /// Nobody gave what it needs: at another time somebody may.
    pub is_away: bool,
}

impl From<String> for Unstaged {
    fn from(why: String) -> Unstaged {
        Unstaged { why, is_away: false }
    }
}

/// Stages `record`'s manifest, and lets its hook judge what came out.
pub(super) async fn stage(
    shared: &Arc<Shared>,
    record: &AppRecord,
    cancel: &Cancel,
) -> Result<Release, Unstaged> {
    if let Some(why) = hook::lost(record) {
        return Err(why.into());
    }
    let release = make(shared, record, cancel).await?;
    hook::run(shared, record, &release, cancel).await?;
    Ok(release)
}

async fn make(
    shared: &Arc<Shared>,
    record: &AppRecord,
    cancel: &Cancel,
) -> Result<Release, Unstaged> {
    let manifest = record.manifest.clone();
    if let Some(container) = &record.container {
        // It is tried again whatever was wrong: see `away`.
        return Ok(super::by_record::stage(shared, record, container, cancel).await?);
    }
    if let Some(wanted) = &manifest.image {
        return docker::stage(shared, record, wanted, cancel).await;
    }
    let (inner, declared) = (shared.clone(), manifest.clone());
    let prepared = smol::unblock(move || prepare(&inner, &declared)).await?;
    if let Some(old) = &record.release
        && record.forced != Some(record.generation)
        && old.image.is_none()
        && old.fingerprint == prepared.fingerprint
        && shared.host.store().layer(&old.droplet).is_some()
        && recipe::desired_lrps(&manifest, &old.result, old.droplet, 0).is_ok()
    {
        let release = Release { manifest, ..old.clone() };
        let same = ["app bits, manifest, stack and buildpacks are", "the app bits are"];
        for line in told_of_same(record, &release, same) {
            shared.say(&release.manifest.name, "STG", false, line);
        }
        return Ok(release);
    }
    let work = shared.settings.temp.join(manifest.name.as_str());
    let result = build(shared, &manifest, &prepared, &work, cancel).await;
    let cleaned = work.clone();
    let _ = smol::unblock(move || fs::remove_dir_all(cleaned)).await;
    let (result, droplet) = result?;
    // A process without a start command is found here, while somebody looks, not at every start.
    recipe::desired_lrps(&manifest, &result, droplet, 0).map_err(|err| err.to_string())?;
    recipe::check_sidecars(&manifest, &result).map_err(|err| err.to_string())?;
    let missed = types::missed(&manifest, &result, &record.wanted_then());
    for line in types::told(&manifest, &result).into_iter().chain(missed) {
        shared.say(&manifest.name, "STG", false, line);
    }
    let Prepared { fingerprint, stack, .. } = prepared;
    Ok(Release { manifest, fingerprint, result, stack, droplet, image: None, container: None })
}

/// Lines about what is run as it was staged before; what is the same when nothing is other, and else.
fn told_of_same(record: &AppRecord, release: &Release, [all, some]: [&str; 2]) -> Vec<String> {
    let text = match record.release.as_ref() == Some(release) {
        true => format!("{UNCHANGED}: {all} as they were"),
        false => format!("Nothing to stage: {some} unchanged"),
    };
    [text].into_iter().chain(told_of_web(record, release)).collect()
}

/// Lines about processes that run what `web` does, which hold as long as they do.
fn told_of_web(record: &AppRecord, release: &Release) -> Vec<String> {
    let Release { manifest, result, .. } = release;
    let mut lines = types::borrowed(manifest, result);
    // Of an image only what the manifest names stands in.
    if release.image.is_none() {
        lines.extend(types::missed(manifest, result, &record.wanted_then()));
    }
    lines
}

/// What staging needs from the box.
struct Prepared {
    stack: Digest,
    buildpacks: Vec<(String, PackFrom)>,
    fingerprint: Digest,
    /// What the source holds.
    survey: Survey,
}

/// Imports the stack, finds the buildpacks and looks at the app bits. Blocking.
fn prepare(shared: &Shared, manifest: &Manifest) -> Result<Prepared, String> {
    let site = shared.site();
    let stack = import_stack(shared, &site, &manifest.build.stack)?;
    let buildpacks =
        packs::choose_buildpacks(manifest, &site.buildpacks()).map_err(|err| err.to_string())?;
    let exclude = recipe::NOT_SOURCE.map(str::to_owned);
    // Before anything is read: what cannot be staged is refused early.
    let survey = lifecycle::survey(&manifest.source, &exclude)
        .map_err(|err| err.within("the source", &manifest.source))?;
    fits(manifest, &survey, recipe::most_disk(&manifest.build))?;
    let source = pack::tree_digest(&manifest.source, &exclude)
        .map_err(|err| err.within("the source", &manifest.source))?;
    let mut inputs = BTreeMap::from([("source".to_owned(), source), ("stack".to_owned(), stack)]);
    for (name, from) in &buildpacks {
        // What comes from elsewhere is what the manifest says of it.
        let PackFrom::Box(path) = from else { continue };
        let digest = match path.is_file() {
            true => pack::file_digest(path),
            false => pack::tree_digest(path, &[]),
        };
        let digest = digest.map_err(|err| err.within(&format!("buildpack {name} in"), path))?;
        inputs.insert(format!("buildpack {name}"), digest);
    }
    let fingerprint = recipe::fingerprint(manifest, &inputs);
    Ok(Prepared { stack, buildpacks, fingerprint, survey })
}

/// Refuses a source that fills the disk of its staging before a buildpack has begun.
fn fits(manifest: &Manifest, survey: &Survey, disk: Bytes) -> Result<(), String> {
    if survey.bytes <= disk.get() {
        return Ok(());
    }
    Err(format!(
        "the source {} is {}, staging has {disk}: set `disk` in [build], or move what the app does \
         not need out of the source (a file with holes counts in full)",
        manifest.source.display(),
        Bytes::mib(survey.bytes.div_ceil(1 << 20)),
    ))
}

/// A line about what is not copied, if there is anything.
fn left_out(survey: &Survey) -> Option<String> {
    let Survey { left_out, names, .. } = survey;
    let mut text: Vec<_> = names.iter().map(|name| format!("`{}`", name.display())).collect();
    text.extend((*left_out > names.len()).then(|| format!("{} more", left_out - names.len())));
    let text = text.join(", ");
    (*left_out > 0).then(|| format!("Left out, being sockets, fifos or devices: {text}"))
}

/// The stack's layer, imported when it is not there yet. Blocking.
pub(super) fn import_stack(shared: &Shared, site: &Site, name: &str) -> Result<Digest, String> {
    let archive =
        site.stack(name).map_err(|(what, cure)| format!("{}: {what}; {cure}", Misfit::Rootfs))?;
    image::import_stack(shared.host.store(), &archive, &mut |_, _| {})
        .map_err(|err| format!("cannot import stack `{name}`: {}", chain(&err)))
}

/// Runs the staging Task and imports its droplet.
async fn build(
    shared: &Arc<Shared>,
    manifest: &Manifest,
    prepared: &Prepared,
    work: &Path,
    cancel: &Cancel,
) -> Result<(StagingResult, Digest), String> {
    let app = &manifest.name;
    let dir = work.to_owned();
    smol::unblock(move || fs::create_dir_all(dir))
        .await
        .map_err(|err| format!("cannot make the staging directory {}: {err}", work.display()))?;
    let (memory, disk) = share(shared, &manifest.build).await?;
    fits(manifest, &prepared.survey, disk)?;
    let caches = shared.paths.cache.join("staging").join(app.as_str());
    let key = recipe::cache_key(manifest, &prepared.buildpacks);
    let cache = smol::unblock(move || cache::prepare(&caches, &key, disk)).await;
    if let Some(note) = cache.note {
        shared.say(app, "STG", true, note);
    }
    if let Some(line) = left_out(&prepared.survey) {
        shared.say(app, "STG", true, line);
    }
    let input = StagingInput {
        guid: shared.staging_guid(app),
        buildpacks: prepared.buildpacks.clone(),
        cache_from: cache.from,
        droplet_to: work.join("droplet.tgz"),
        result_to: work.join("result.json"),
        cache_to: cache.to,
        version: prepared.fingerprint,
        memory,
        disk,
        env: Vec::new(),
    };
    let task = recipe::staging_task(manifest, &input);
    let needs = Resources::of(&task.limits);
    shared.take_room(needs).map_err(|err| {
        format!("{err}; stop or delete an app, or set `memory` and `disk` in [build]")
    })?;
    let outcome = task::run_staging(shared, task, Made::of_stack(prepared.stack), cancel).await;
    shared.give_back_room(needs);
    // Whoever waits for room need not wait for the import as well.
    shared.wake();
    outcome.map_err(|text| explain(text, &manifest.build))?;
    let (inner, stack, from) = (shared.clone(), prepared.stack, work.to_owned());
    let _turn = shared.pools.read.enter().await;
    smol::unblock(move || finish(&inner, &from, &stack)).await
}

/// What the staging container gets of what the box has left now.
async fn share(shared: &Arc<Shared>, build: &Build) -> Result<(Bytes, Bytes), String> {
    let inner = shared.clone();
    let in_store = smol::unblock(move || inner.host.store().left()).await;
    let in_store = in_store.map_err(|err| format!("cannot measure the store: {}", chain(&err)))?;
    let left = shared.state().room.left();
    Ok(recipe::share(build, left.memory, left.disk.min(in_store)))
}

/// Reads the result and makes the droplet a layer. Blocking.
fn finish(shared: &Shared, work: &Path, stack: &Digest) -> Result<(StagingResult, Digest), String> {
    let path = work.join("result.json");
    let mut text = Vec::new();
    fs::File::open(&path)
        .and_then(|file| file.take(RESULT_MAX).read_to_end(&mut text))
        .map_err(|err| format!("cannot read {}: {err}", path.display()))?;
    let result = serde_json::from_slice(&text)
        .map_err(|err| format!("the builder left no valid result.json: {err}"))?;
    let droplet = image::import_droplet(shared.host.store(), &work.join("droplet.tgz"), stack)
        .map_err(|err| format!("cannot import the droplet: {}", chain(&err)))?;
    Ok((result, droplet))
}

/// The builder has a buildpack to fetch.
fn is_fetched(build: &Build) -> bool {
    let mut names = build.buildpacks.iter();
    names.any(|name| name.contains("://") && !build.checksums.contains_key(name))
}

/// Says what the builder's exit status means, as Diego's stager does.
fn explain(text: String, build: &Build) -> String {
    let meaning = [
        ("222", "none of the buildpacks detected a compatible application"),
        ("223", "the buildpack failed to compile the droplet"),
        ("224", "the buildpack failed to tell how to start the app"),
        ("225", "a buildpack failed to supply its dependencies"),
        ("226", "the buildpack failed to finalize the droplet"),
    ]
    .into_iter()
    .find(|(code, _)| text.ends_with(&format!("Exited with status {code}")));
    match meaning {
        Some((_, meaning)) => format!("{meaning}; its own output is above ({text})"),
        // The builder's own failure, which it has told.
        None if text.ends_with("Exited with status 1") && is_fetched(build) => format!(
            "a buildpack could not be fetched, or not be used; the builder's words are above, with what to \
             do ({text})"
        ),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::super::releases::tests::app as declared;
    use super::*;
    use crate::model::image::StagedImage;

    #[test]
    fn what_is_not_staged_again_still_tells_what_runs_in_place_of_what() {
        let mut app = declared("memory = \"32MiB\"\n[process.web]\n[process.worker]\n");
        app.scale.insert("clock".into(), 2);
        let old = app.release.clone().expect("a release");
        let same = ["all of it is", "the source is"];
        let told = |app: &AppRecord, release: &Release| {
            let lines = told_of_same(app, release, same);
            lines.iter().map(|line| line[..20].to_owned()).collect::<Vec<_>>()
        };
        let (web, none) = ("Nothing says how pro", "The droplet has no p");
        assert_eq!(told(&app, &old), ["Nothing changed: all", web, none]);
        // Another manifest for the same droplet, and an image, of which no wish stands in.
        let mut other = old.clone();
        other.manifest.run.nofile += 1;
        assert_eq!(told(&app, &other), ["Nothing to stage: th", web, none]);
        let image = StagedImage {
            digest: old.droplet,
            layers: Vec::new(),
            bytes: 0,
            env: Vec::new(),
            volumes: Vec::new(),
            stop_signal: None,
        };
        let of_image = Release { image: Some(image), ..old.clone() };
        assert_eq!(told(&app, &of_image), ["Nothing to stage: th", web]);
        // What lapses when this takes over is not wanted any more.
        app.lapses.insert("clock".into());
        assert_eq!(told(&app, &old), ["Nothing changed: all", web]);
    }
}
