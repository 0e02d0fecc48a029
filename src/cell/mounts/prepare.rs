//! Puts together what a container gets, of an instance or of a Task.

use super::{Mounts, read_only};
use crate::cell::shared::Shared;
use crate::exec::cancel::Cancel;
use crate::exec::fetch::Wanted;
use crate::exec::places;
use crate::exec::streams::Sink;
use crate::image;
use crate::init::proto::Bind;
use crate::log::chain;
use crate::model::lrp::{CachedDependency, DesiredLrp, FileMount, Volume};
use crate::model::task::Task;
use crate::unit::{Digest, Handle};
use crate::volume::Pin;
use smol::future;
use std::sync::Arc;
use std::task::Poll;

/// What somebody asks for.
#[derive(Clone, Debug, Default)]
pub(in crate::cell) struct Asked {
    pub(super) dependencies: Vec<CachedDependency>,
    pub(super) volumes: Vec<Volume>,
    pub(super) files: Vec<FileMount>,
    /// Whose the files are.
    pub(super) user: String,
}

impl Asked {
    /// An instance's.
    pub(in crate::cell) fn by_lrp(lrp: &DesiredLrp) -> Asked {
        Asked {
            dependencies: lrp.dependencies.clone(),
            volumes: lrp.volumes.clone(),
            files: lrp.files.clone(),
            user: lrp.user.clone(),
        }
    }

    /// A Task's; the files are those of the user of its first process.
    pub(in crate::cell) fn by_task(task: &Task) -> Asked {
        let extras = &task.extras;
        let first = places::first_process(&task.action);
        Asked {
            dependencies: extras.dependencies.clone(),
            volumes: extras.volumes.clone(),
            files: extras.files.clone(),
            user: first.map(|process| process.user.clone()).unwrap_or_default(),
        }
    }
}

/// Everything for a container that is about to be made. What it leaves is removed with the
/// container of this name. The error begins with Diego's text.
pub(in crate::cell) async fn prepare(
    shared: &Arc<Shared>,
    asked: &Asked,
    handle: &Handle,
    (cell, cancel): (&Sink, &Cancel),
) -> Result<Mounts, String> {
    let mut mounts = Mounts::default();
    let wanted = asked.dependencies.iter();
    // All at once; how many really are is the fetcher's to say. The first error gives up the others.
    let fetching = wanted.map(|dependency| fetch(shared, dependency, cell)).collect();
    let got = cancel.or(all_or_error(fetching)).await.unwrap_or_else(|| Err("cancelled".into()));
    let got = got.map_err(|why| format!("failed to download cached artifacts: {why}"))?;
    for (dependency, (layer, pin)) in asked.dependencies.iter().zip(got) {
        let from = shared.host.store().layer(&layer);
        let from = from.ok_or_else(|| format!("layer {layer} has gone again"))?;
        mounts.binds.push(Bind { mapped: true, ..read_only(from, dependency.to.clone()) });
        mounts.layers.push(layer);
        mounts._pins.push(pin);
    }
    let (inner, asked, name) = (shared.clone(), asked.clone(), handle.clone());
    let more = smol::unblock(move || {
        let mut binds = inner.volume_binds(&asked.volumes)?;
        let files = inner.write_files(&asked.files, &name);
        binds.extend(files.map_err(|why| format!("failed to create volume mounted files: {why}"))?);
        Ok(binds)
    });
    let more: Result<Vec<Bind>, String> = more.await;
    mounts.binds.extend(more?);
    Ok(mounts)
}

/// All results in their order, or the first error, with which the others are given up.
async fn all_or_error<T>(
    futures: Vec<impl Future<Output = Result<T, String>>>,
) -> Result<Vec<T>, String> {
    let mut waiting: Vec<_> = futures.into_iter().map(|one| Some(Box::pin(one))).collect();
    let mut done: Vec<Option<T>> = waiting.iter().map(|_| None).collect();
    future::poll_fn(move |context| {
        for (place, slot) in waiting.iter_mut().zip(&mut done) {
            let Some(one) = place else { continue };
            match one.as_mut().poll(context) {
                Poll::Pending => {}
                Poll::Ready(Err(why)) => return Poll::Ready(Err(why)),
                Poll::Ready(Ok(value)) => {
                    (*place, *slot) = (None, Some(value));
                }
            }
        }
        match waiting.iter().all(Option::is_none) {
            true => Poll::Ready(Ok(done.iter_mut().filter_map(Option::take).collect())),
            false => Poll::Pending,
        }
    })
    .await
}

/// Fetches one archive, unless it is here, and makes it a layer of the store: unpacked once for all
/// containers, and kept for as long as one of them has it.
async fn fetch(
    shared: &Arc<Shared>,
    dependency: &CachedDependency,
    cell: &Sink,
) -> Result<(Digest, Pin), String> {
    if dependency.cache_key.is_empty() {
        return Err("Not cacheable directory: cache key is missing".into());
    }
    let sink = cell.or(&dependency.log_source);
    let named = !dependency.name.is_empty();
    if named {
        sink.say(false, format!("Downloading {}...", dependency.name));
    }
    let wanted = Wanted {
        url: dependency.from.clone(),
        cache_key: dependency.cache_key.clone(),
        checksum: dependency.checksum.clone(),
    };
    let fetched = shared.fetcher.fetch(&wanted).await.map_err(|err| {
        if named {
            sink.say(true, format!("Downloading {} failed", dependency.name));
        }
        err.to_string()
    })?;
    if named {
        sink.say(false, format!("Downloaded {}", dependency.name));
    }
    let inner = shared.clone();
    smol::unblock(move || {
        let file = fetched.file.try_clone().map_err(|err| err.to_string())?;
        let done = image::import_tree(inner.host.store(), file);
        drop(fetched);
        done.map_err(|err| chain(&err))
    })
    .await
}
