//! Works on one Task: room, container, action, result, end.

use super::state::TaskOp;
use crate::cell::fit::Misfit;
use crate::cell::mounts::{self, Asked};
use crate::cell::owner;
use crate::cell::shared::Shared;
use crate::container::{Container, ContainerSpec, Fault};
use crate::exec::cancel::Cancel;
use crate::exec::env;
use crate::exec::metrics::COUNTERS;
use crate::exec::places;
use crate::exec::room::Resources;
use crate::exec::run::Executor;
use crate::exec::state::ContainerEvent;
use crate::exec::steps::StepError;
use crate::exec::streams::Sink;
use crate::image;
use crate::image::registry::credentials::Login;
use crate::image::work::Wish;
use crate::log::chain;
use crate::model::death::Cause;
use crate::model::extras::{Extras, ImageLogin};
use crate::model::limits::{self, DISK_MIN};
use crate::model::task::{Rootfs, Task};
use crate::unit::{Bytes, Digest, Handle, ImageRef};
use crate::volume::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

/// Said of an image that could not be had.
const LOGIN_LOST: &str = "the record's own `image_username` and `image_password` went with the daemon \
                          that was given them, as they are not written down; ask for it anew";

/// Why a Task has failed whose result could not be read.
const NO_RESULT: &str = "failed to fetch result";

/// Why a Task has failed whose container is gone. Diego's.
const NO_CONTAINER: &str = "task container does not exist";

/// Why a Task has failed that had no more time on a cell that is drained.
const DRAINED: &str = "cell was drained before completion";

/// What a container is made of, kept in the store for as long as this is.
pub(in crate::cell) struct Made {
    /// Lowest first.
    pub layers: Vec<Digest>,
    /// The image, and the bytes of its layers, if it is one.
    pub image: Option<(Digest, u64)>,
    /// What it says about the environment.
    pub env: Vec<(String, String)>,
    /// Keeps them.
    pub pin: Option<Pin>,
}

impl Made {
    /// Of a stack's layer.
    pub fn of_stack(layer: Digest) -> Made {
        Made { layers: vec![layer], image: None, env: Vec::new(), pin: None }
    }
}

impl Shared {
    /// Works on a Task that nobody has begun yet.
    pub(super) async fn work_on(self: &Arc<Self>, guid: &str, cancel: &Cancel) {
        let Some(task) = self.state().tasks.get(guid).map(|record| record.task.clone()) else {
            return;
        };
        let needs = Resources::of(&task.limits);
        let room = self
            .suitable(&task)
            .and_then(|()| self.take_room(needs).map_err(|err| err.to_string()));
        if let Err(why) = room {
            self.sink_of(&task, "CELL").say(true, format!("Cell cannot begin the task yet: {why}"));
            crate::warn!("task.rejected", task = guid, err = why);
            return self.try_op(guid, TaskOp::Reject(why)).await;
        }
        self.see_through(&task, None, cancel).await;
        self.give_back_room(needs);
    }

    /// Whether this cell is one for the Task. The error begins with Diego's text.
    fn suitable(&self, task: &Task) -> Result<(), String> {
        if let Rootfs::App(..) = &task.rootfs {
            // It belongs where its app is, whatever the cell's tags.
            return Ok(());
        }
        self.suits(&task.extras).map_err(|misfit| misfit.to_string())?;
        let Rootfs::Stack(name) = &task.rootfs else { return Ok(()) };
        let known = self.site().stack(name);
        known.map(drop).map_err(|(what, cure)| format!("{}: {what}; {cure}", Misfit::Rootfs))
    }

    /// Runs a Task whose room is taken, in a container of `made` or of its own root, and records how
    /// it ended; then nothing of it is left. Does nothing to one that was begun already.
    pub(in crate::cell) async fn see_through(
        self: &Arc<Self>,
        task: &Task,
        made: Option<Made>,
        cancel: &Cancel,
    ) {
        let start = TaskOp::Start { cell: self.cell_id.clone() };
        match self.change_task(&task.guid, start).await {
            Ok(outcome) if outcome.should_start => {}
            Ok(_) => return,
            // Cancelled meanwhile, or it cannot be written down: then it must not be begun.
            Err(err) => return crate::warn!("task.not_begun", task = task.guid, err = err),
        }
        let what = if task.internal { "stage" } else { "task" };
        let handle = self.task_handle(&task.app, what);
        let op = match self.make(task, &handle, made, cancel).await {
            Ok((container, env)) => self.perform(task, Arc::new(container), env, cancel).await,
            Err(why) => {
                crate::warn!("task.rejected", task = task.guid, err = why);
                TaskOp::Reject(why)
            }
        };
        self.state().task_containers.remove(&task.guid);
        self.task_turn(&task.guid, ContainerEvent::Complete);
        self.try_op(&task.guid, op).await;
        let cell = self.sink_of(task, "CELL");
        cell.say(false, format!("Cell destroying container for {}", called(task, &handle)));
        self.destroy(&handle).await;
        let text = format!("Cell successfully destroyed container for {}", called(task, &handle));
        cell.say(false, text);
    }

    /// Makes the container. The error is what the Task is rejected with. With it comes what the
    /// image says about the environment.
    async fn make(
        self: &Arc<Self>,
        task: &Task,
        handle: &Handle,
        made: Option<Made>,
        cancel: &Cancel,
    ) -> Result<(Container, Vec<(String, String)>), String> {
        let cell = self.sink_of(task, "CELL");
        cell.say(false, format!("Cell creating container for {}", called(task, handle)));
        let failed = |why: String| {
            let text =
                format!("Cell failed to create container for {}: {why}", called(task, handle));
            cell.say(true, text);
            format!("failed to create container: {why}")
        };
        notes(&task.extras).into_iter().for_each(|note| cell.say(true, note));
        let asked = Asked::by_task(task);
        let mounts = mounts::prepare(self, &asked, handle, (&cell, cancel)).await;
        let mounts = mounts.inspect_err(|why| drop(failed(why.clone())))?;
        let login = task.extras.login.as_ref();
        let made = match made {
            Some(made) => made,
            None => match cancel.or(self.root_of(&task.rootfs, login)).await {
                Some(made) => made.map_err(failed)?,
                None => return Err(failed("it was stopped".into())),
            },
        };
        let mut limits = self.limits(&task.limits);
        if let (Some((_, bytes)), Some(disk)) = (made.image, limits.disk) {
            limits.disk = Some(beside_image(disk, bytes).map_err(failed)?);
        }
        let mut binds = match task.internal || matches!(task.rootfs, Rootfs::App(..)) {
            true => self.lifecycle_binds(),
            false => mounts::trusted(&task.extras),
        };
        binds.extend(mounts.binds.iter().cloned());
        let spec = ContainerSpec {
            image: made.image.map(|(digest, _)| digest),
            limits,
            egress: task.egress.clone(),
            binds,
            trees: mounts.layers.clone(),
            owner: match task.internal {
                true => owner::staging(&task.app),
                false => owner::task(&task.guid),
            },
            ..ContainerSpec::new(handle.clone(), made.layers.clone())
        };
        let inner = self.clone();
        let turn = cancel.or(self.pools.create.enter()).await;
        let turn = turn.ok_or_else(|| failed("it was stopped".into()))?;
        self.task_turn(&task.guid, ContainerEvent::Initialize);
        let begun = Instant::now();
        let created = smol::unblock(move || inner.host.create(spec, Fault::None)).await;
        drop((turn, mounts));
        COUNTERS.creations.add(begun, created.is_ok());
        let container = created.map_err(|err| failed(chain(&err)))?;
        let inner = self.clone();
        let given = smol::unblock(move || inner.give_files(&asked, &container).map(|()| container));
        let container = given.await.map_err(failed)?;
        self.task_turn(&task.guid, ContainerEvent::Create);
        let text = format!("Cell successfully created container for {}", called(task, handle));
        cell.say(false, text);
        Ok((container, made.env))
    }

    /// Does the action, and reads the result.
    async fn perform(
        self: &Arc<Self>,
        task: &Task,
        container: Arc<Container>,
        mut own: Vec<(String, String)>,
        cancel: &Cancel,
    ) -> TaskOp {
        let exec = Executor {
            fetcher: self.fetcher.clone(),
            env: env::beside(self.network_env(&container, None), &task.env),
            container: container.clone(),
            sink: self.sink_of(task, &task.log_source),
            limit: self.logs.limit(task.extras.log_rate),
            last_id: AtomicU32::new(0),
            stop: Default::default(),
            found: Default::default(),
            begun: Default::default(),
        };
        let measured = (container, exec.limit.clone());
        self.state().task_containers.insert(task.guid.clone(), measured);
        own.extend(task.env.iter().cloned());
        let action = task.action.clone().with_env(&own);
        let first = places::first_process(&action).cloned().unwrap_or_default();
        let like = (&first, &*task.log_source);
        self.task_turn(&task.guid, ContainerEvent::Run);
        let done = match mounts::make_dirs(&exec, &task.extras.directories, like, cancel).await {
            Ok(()) => exec.perform(&action, cancel).await,
            err => err,
        };
        let drained = self.state().node.drain.as_ref().is_some_and(|it| it.cut);
        let mut failure = done.err().map(|err| failure_of(&err, cancel.is_cancelled() && drained));
        let mut result = String::new();
        if !task.result_file.is_empty() && !cancel.is_cancelled() {
            match exec.read_result(&task.result_file, cancel).await {
                Ok(text) => result = text,
                Err(why) if failure.is_none() => {
                    let text = format!("{NO_RESULT}: {why}");
                    self.sink_of(task, "CELL").say(true, text);
                    failure = Some(NO_RESULT.to_owned());
                }
                Err(_) => {}
            }
        }
        crate::info!("task.ended", task = task.guid, err = failure.as_deref().unwrap_or("none"));
        TaskOp::Complete { cell: self.cell_id.clone(), failure, result }
    }

    /// The layers of a root, imported or fetched when they are not here. `login`: who fetches; else
    /// whom the box knows.
    pub(in crate::cell) async fn root_of(
        self: &Arc<Self>,
        root: &Rootfs,
        login: Option<&ImageLogin>,
    ) -> Result<Made, String> {
        let (shared, login) = (self.clone(), login.cloned());
        match root.clone() {
            Rootfs::Stack(name) => {
                smol::unblock(move || {
                    let site = shared.site();
                    let layer = crate::cell::staging::import_stack(&shared, &site, &name)?;
                    Ok(Made::of_stack(layer))
                })
                .await
            }
            // They stay for as long as the app has them, and then as long as the container does.
            Rootfs::App(_, layers) => Ok(Made { layers, image: None, env: Vec::new(), pin: None }),
            Rootfs::Image(name) => {
                // Who gives up on it ends it; what has come is there for the next one.
                let (wish, _wisher) = Wish::held(self.host.store());
                let turn = self.fetches.acquire_arc().await;
                smol::unblock(move || {
                    let _turn = turn;
                    shared.fetch_root(&name, login, &wish)
                })
                .await
            }
        }
    }

    /// Fetches an image. Blocking.
    fn fetch_root(
        &self,
        name: &ImageRef,
        login: Option<ImageLogin>,
        wish: &Wish,
    ) -> Result<Made, String> {
        let store = self.host.store();
        let lost = login.as_ref().is_some_and(ImageLogin::is_lost);
        let known = login.filter(|login| !login.is_lost());
        let login = known.map(|login| Login::new(login.user, login.password));
        let pulled = image::pull(store, &self.registries, name, login, wish, &|_, _| {});
        let pulled = pulled.map_err(|err| match lost {
            true => format!("{}; {LOGIN_LOST}", chain(&err)),
            false => chain(&err),
        })?;
        let known = pulled.image;
        let bytes = image::layers_bytes(store, &known.layers).map_err(|err| chain(&err))?;
        let env = known.config.env.iter().filter_map(|entry| entry.split_once('='));
        let env = env.filter(|(name, _)| !name.is_empty());
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let image = Some((known.digest, bytes));
        Ok(Made { layers: known.layers, image, env, pin: Some(pulled.pin) })
    }

    /// Where a Task's lines go.
    fn sink_of(&self, task: &Task, source: &str) -> Sink {
        let source = if source.is_empty() { "LOG" } else { source };
        let log = (!task.silent).then(|| self.logs.app(&task.app));
        Sink { log, source: source.into(), index: 0, heard: None }
    }
}

/// Why a Task has failed. `drained`: it was told to end, as its cell is drained.
fn failure_of(err: &StepError, drained: bool) -> String {
    // Destroyed behind our back.
    if err.cause() == Cause::ContainerLost {
        return NO_CONTAINER.to_owned();
    }
    match err.to_string() {
        // Ends that were asked for have no text of their own among several.
        text if text.is_empty() || *err == StepError::Cancelled => {
            if drained {
                DRAINED.to_owned()
            } else {
                StepError::Cancelled.to_string()
            }
        }
        text => text,
    }
}

/// What the log says of a record that asks for more than is done.
pub(in crate::cell) fn notes(extras: &Extras) -> Vec<String> {
    let ignored = extras.ignored.join(", ");
    let ignored = (!ignored.is_empty())
        .then(|| format!("Cell does not heed these fields of the record: {ignored}"));
    let privileged = extras.privileged.then(|| {
        "Cell runs it unprivileged, though the record asks for `privileged`: root inside is not the \
         box's root"
            .to_owned()
    });
    ignored.into_iter().chain(privileged).collect()
}

/// What lines of the log call a Task's container.
fn called(task: &Task, handle: &Handle) -> String {
    match task.internal {
        true => handle.to_string(),
        false => format!("instance {}", task.guid),
    }
}

/// What a container of an image may write itself: the image is part of the limit, as Diego has it.
pub(in crate::cell) fn beside_image(disk: Bytes, image: u64) -> Result<Bytes, String> {
    match disk.get().checked_sub(image) {
        Some(rest) if rest >= DISK_MIN.get() => Ok(Bytes::new(rest)),
        _ => Err(format!(
            "the image has {}, which counts as part of `disk_mb`, and that is {disk}; ask for {} or more",
            Bytes::mib(image.div_ceil(1 << 20)),
            limits::with_image(image),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_a_reason_whatever_ended_it() {
        let of = |err: StepError, drained| failure_of(&err, drained);
        let asked = || StepError::Several(vec![StepError::Cancelled, StepError::GraceExceeded]);
        assert_eq!(of(asked(), true), "cell was drained before completion");
        assert_eq!(of(asked(), false), "cancelled");
        assert_eq!(of(StepError::Cancelled, true), "cell was drained before completion");
        let exited = StepError::Failed("APP: Exited with status 1".into());
        let both = StepError::Several(vec![StepError::Cancelled, exited]);
        assert_eq!(of(both, true), "APP: Exited with status 1");
        let gone = StepError::Several(vec![StepError::died(Cause::ContainerLost)]);
        assert_eq!(of(gone, false), NO_CONTAINER);
    }
}
