//! What a container tells about the end of its process before it is destroyed: the kernel's victim,
//! the memory limit, the disk. And who stopped an instance that was told to end.

use super::diff::Key;
use super::record::AppRecord;
use super::shared::Shared;
use crate::container::Container;
use crate::exec::steps::StepResult;
use crate::exec::streams::Sink;
use crate::model::death::{Cause, Stopper};
use crate::model::lrp::DesiredLrp;
use crate::sys::{event, kmsg};
use crate::unit::Bytes;
use async_io::{Async, Timer};
use smol::future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Lines of the kernel's log that are looked through: more than its buffer usually holds.
const LINES_MAX: usize = 50_000;

/// A disk with less left than this counts as full: a write that does not fit fails as a whole.
const LEFT_MIN: u64 = 2 << 20;

/// From the kernel's announcement to the look at what it did.
const SETTLE: Duration = Duration::from_millis(100);

/// Containers whose kills are told while they live. On v2 each takes one of the 128 inotify instances
/// that a user usually has; of the others, kills are counted and told at their end.
const WATCHES_MAX: usize = 64;

/// How many are watched now.
static WATCHES: AtomicUsize = AtomicUsize::new(0);

/// What is known of a container beside how its process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Scene {
    /// Its memory limit, in bytes.
    memory_limit: Option<u64>,
    /// Whom the kernel ended last in it for lack of memory.
    victim: Option<Victim>,
    /// What it had written and what it may write, in bytes.
    disk: Option<(u64, u64)>,
}

/// Whom the kernel ended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Victim {
    /// The program's name, its first 15 bytes.
    name: String,
    /// The container had not reached its own limit.
    whole_box: bool,
}

impl Shared {
    /// Adds to an end what its container tells. On the pool: a few files of the kernel, and its log
    /// when it has ended something.
    pub(super) async fn autopsy(
        self: &Arc<Self>,
        container: &Arc<Container>,
        end: StepResult,
    ) -> StepResult {
        let Err(err) = end else { return end };
        let (shared, container) = (self.clone(), container.clone());
        let refined =
            move || err.map_cause(&mut |cause| refine(cause, |of| shared.scene(&container, of)));
        Err(smol::unblock(refined).await)
    }

    /// Looks at the container. Blocking.
    fn scene(&self, container: &Container, cause: &Cause) -> Scene {
        let spec = &container.entry().spec;
        let memory_limit = spec.limits.memory.map(|bytes| bytes.get());
        let mut scene = Scene { memory_limit, ..Scene::default() };
        match cause {
            Cause::OutOfMemory { .. } => scene.victim = victim_in(container.handle().as_str()),
            Cause::Exited { .. } => {
                let used = self.host.store().claimed(container.handle()).ok();
                let limit = spec.limits.disk.map(|bytes| bytes.get());
                scene.disk = used.map(|bytes| bytes.get()).zip(limit);
            }
            _ => {}
        }
        scene
    }
}

/// Says in the app's log each time that the kernel has ended a process of a container for lack of
/// memory, be it the main one or not; never ends. Woken only by the kernel.
pub(super) async fn tell_of_kills(container: &Arc<Container>, cell: &Sink) {
    let Some(_mine) = Watching::begin() else { return future::pending().await };
    let group = container.clone();
    let watch = smol::unblock(move || (group.group().oom_watch(), group.oom_kills())).await;
    let (Ok(watch), mut told) = watch else { return future::pending().await };
    let Ok(watch) = Async::new(watch) else { return future::pending().await };
    while watch.readable().await.is_ok() {
        // It is announced before it has happened.
        Timer::after(SETTLE).await;
        let _ = event::drain(watch.get_ref());
        let looked = container.clone();
        let seen = smol::unblock(move || {
            let Ok(stats) = looked.group().stats() else { return None };
            Some((stats.oom_kills, victim_in(looked.handle().as_str())))
        });
        // The group is gone, and this with it in a moment.
        let Some((kills, victim)) = seen.await else { break };
        if kills > told {
            let limit = container.entry().spec.limits.memory;
            cell.say(true, kill_text(kills - told, victim.as_ref(), limit));
            told = kills;
        }
    }
    future::pending().await
}

/// One of those that watch; dropped when it does no more.
struct Watching;

impl Watching {
    /// `None`: as many watch as may.
    fn begin() -> Option<Watching> {
        let one_more = |count| (count < WATCHES_MAX).then_some(count + 1);
        let begun = WATCHES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        begun.ok().map(|_| Watching)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        WATCHES.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the log says of so many kills.
fn kill_text(kills: u64, victim: Option<&Victim>, limit: Option<Bytes>) -> String {
    let whom = match (victim, kills) {
        (Some(victim), 1) => format!("`{}`", victim.name),
        (Some(victim), _) => format!("{kills} processes, `{}` last,", victim.name),
        (None, 1) => "a process".into(),
        (None, _) => format!("{kills} processes"),
    };
    let why = match (victim.is_some_and(|victim| victim.whole_box), limit) {
        (true, _) => "the box has none left".to_owned(),
        (false, Some(limit)) => format!("the limit is {}", limit.rough()),
        (false, None) => "there is no limit, and the box has none left".into(),
    };
    format!("The kernel ended {whom} for lack of memory: {why}")
}

/// A cause with what its scene adds. Pure but for `look`, which is asked only where it matters.
fn refine(cause: Cause, look: impl FnOnce(&Cause) -> Scene) -> Cause {
    match cause {
        Cause::OutOfMemory { .. } => {
            let Scene { memory_limit: limit_bytes, victim, .. } = look(&cause);
            let Cause::OutOfMemory { source, code, .. } = cause else { return cause };
            let whole_box = victim.as_ref().is_some_and(|victim| victim.whole_box);
            let victim = victim.map(|victim| victim.name);
            Cause::OutOfMemory { source, code, victim, limit_bytes, whole_box }
        }
        Cause::Exited { ref source, code } if code != 0 => match look(&cause).disk {
            Some((used_bytes, limit_bytes)) if is_full(used_bytes, limit_bytes) => {
                Cause::DiskFull { source: source.clone(), code, used_bytes, limit_bytes }
            }
            _ => cause,
        },
        other => other,
    }
}

/// Whether hardly anything more could be written.
fn is_full(used: u64, limit: u64) -> bool {
    limit.saturating_sub(used) < LEFT_MIN.max(limit / 50).min(limit / 4)
}

/// Who told an instance to end, from what is recorded of its app and wanted of it; `told`: who says
/// that he has. Pure.
pub(super) fn stopper(
    app: Option<&AppRecord>,
    wanted: Option<&DesiredLrp>,
    (key, version): (&Key, &str),
    told: Option<Stopper>,
) -> Stopper {
    let Some(app) = app.filter(|app| !app.deleting) else { return Stopper::Delete };
    let asked = |what: &str| app.wish.as_ref().is_some_and(|wish| wish.what == what);
    match wanted {
        _ if app.stopped => Stopper::Stop,
        None => Stopper::Scale,
        Some(lrp) if key.1 >= lrp.instances => Stopper::Scale,
        Some(lrp) if lrp.version != version && (asked("restart") || asked("start")) => {
            Stopper::Restart
        }
        Some(lrp) if lrp.version != version => Stopper::Update,
        Some(_) => told.unwrap_or(Stopper::Cell),
    }
}

/// Whom the kernel has ended last in the group `group`; `None`: its log does not tell. Blocking.
fn victim_in(group: &str) -> Option<Victim> {
    let mut found = None;
    // Who may not read it knows no victim, and no more is wrong.
    let _ = kmsg::each(LINES_MAX, |line| found = victim(line, group).or_else(|| found.take()));
    found
}

/// The victim that a line of the kernel's log names, if that was in `group` or below it. Pure.
///
/// `oom-kill:constraint=CONSTRAINT_MEMCG,...,oom_memcg=/a/g,task_memcg=/a/g,task=sh,pid=7,uid=0`,
/// since Linux 5.0. `oom_memcg` is missing when the box itself has no memory left.
fn victim(line: &str, group: &str) -> Option<Victim> {
    let (_, rest) = line.split_once("oom-kill:")?;
    let field = |name: &str, end: &str| -> Option<&str> {
        let (_, value) = rest.split_once(name)?;
        Some(value.split_once(end).map_or(value, |(value, _)| value))
    };
    let is_in = |path: &str| path.split('/').any(|part| part == group);
    let of = field(",task_memcg=", ",task=")?;
    if !is_in(of) {
        return None;
    }
    let whole_box = !field(",oom_memcg=", ",task_memcg=").is_some_and(is_in);
    let (_, task) = rest.split_once(",task=")?;
    let name = task.rsplit_once(",pid=").map_or(task, |(name, _)| name);
    Some(Victim { name: name.trim().to_owned(), whole_box })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::steps::StepError;

    fn exited(code: i32) -> Cause {
        Cause::Exited { source: "APP".into(), code }
    }

    #[test]
    fn the_kernels_victim_is_read_from_its_log() {
        let line = |oom: &str, of: &str, task: &str| {
            format!(
                "4,1,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,\
                 mems_allowed=0{oom},task_memcg={of},task={task},pid=6297,uid=268435456\n"
            )
        };
        let own = ",oom_memcg=/x/terrarium/web-0-1";
        let name = |line: &str| victim(line, "web-0-1").map(|it| (it.name, it.whole_box));
        let of = "/x/terrarium/web-0-1";
        assert_eq!(name(&line(own, of, "java")), Some(("java".into(), false)));
        assert_eq!(name(&line(own, of, "a,b=c")), Some(("a,b=c".into(), false)));
        assert_eq!(name(&line("", of, "java")), Some(("java".into(), true)));
        let parent = ",oom_memcg=/x/terrarium";
        assert_eq!(name(&line(parent, of, "java")), Some(("java".into(), true)));
        assert_eq!(
            name(&line(own, "/x/terrarium/web-0-1/inner", "sh")),
            Some(("sh".into(), false))
        );
        assert_eq!(name(&line(own, "/x/terrarium/web-0-12", "sh")), None);
        assert_eq!(name("6,1,2,-;BTRFS info (device loop0): resize"), None);
        assert_eq!(name("oom-kill:"), None);
    }

    #[test]
    fn a_container_tells_what_the_exit_status_does_not() {
        let scene = |disk| Scene { memory_limit: Some(9), victim: None, disk };
        const MIB: u64 = 1 << 20;
        let full = refine(exited(1), |_| scene(Some((63 * MIB, 64 * MIB))));
        assert!(
            matches!(full, Cause::DiskFull { code: 1, limit_bytes, .. } if limit_bytes == 64 * MIB)
        );
        assert_eq!(refine(exited(1), |_| scene(Some((60 * MIB, 64 * MIB)))), exited(1));
        assert_eq!(refine(exited(1), |_| scene(None)), exited(1));
        assert_eq!(refine(exited(0), |_| panic!("nobody asks")), exited(0));
        let starved = |victim, limit_bytes, whole_box| Cause::OutOfMemory {
            source: "APP".into(),
            code: 137,
            victim,
            limit_bytes,
            whole_box,
        };
        let victim = Some(Victim { name: "java".into(), whole_box: true });
        let found = refine(starved(None, None, false), |_| Scene { victim, ..scene(None) });
        assert_eq!(found, starved(Some("java".into()), Some(9), true));
        // A small disk is full when little is left of it, and not when it is empty.
        assert!(is_full(MIB, MIB) && !is_full(0, MIB) && !is_full(MIB / 2, MIB));
    }

    #[test]
    fn kills_are_told_with_whom_and_why() {
        let victim = |whole_box| Victim { name: "worker".into(), whole_box };
        let limit = Some(Bytes::mib(32));
        for (kills, victim, text) in [
            (1, Some(victim(false)), "`worker` for lack of memory: the limit is 32"),
            (3, Some(victim(false)), "3 processes, `worker` last, for lack of memory: the limit"),
            (1, Some(victim(true)), "`worker` for lack of memory: the box has none left"),
            (1, None, "a process for lack of memory: the limit is 32"),
        ] {
            let told = kill_text(kills, victim.as_ref(), limit);
            assert!(told.starts_with(&format!("The kernel ended {text}")), "{told}");
        }
    }

    fn app(stopped: bool, deleting: bool, wish: &str) -> AppRecord {
        let text = "name = \"web\"\n\n[source]\npath = \"x\"\n";
        let dir = std::path::Path::new("/");
        let manifest = crate::config::manifest::parse(text, "web.toml", dir).expect("a manifest");
        AppRecord {
            staged: Some(1),
            stopped,
            deleting,
            wish: crate::cell::record::Wish::new(wish, 5),
            ..AppRecord::new(manifest, "/web.toml".into(), 1)
        }
    }

    #[test]
    fn who_stopped_an_instance_is_told_by_what_is_wanted() {
        let guid = crate::model::lrp::ProcessGuid {
            app: "web".parse().expect("name"),
            process: "web".into(),
        };
        let wanted = |instances, version: &str| {
            let golden = include_str!("../../tests/golden/desired-lrps.json");
            let all: Vec<DesiredLrp> = serde_json::from_str(golden).expect("LRPs");
            let first = all.into_iter().next().expect("one");
            DesiredLrp { guid: guid.clone(), version: version.into(), instances, ..first }
        };
        let key = (guid.clone(), 1, crate::model::lrp::Side::Left);
        let one = wanted(1, "a");
        let (two, newer) = (wanted(2, "a"), wanted(2, "b"));
        for (app, wanted, by) in [
            (None, None, Stopper::Delete),
            (Some(app(true, true, "delete")), None, Stopper::Delete),
            (Some(app(true, false, "stop")), None, Stopper::Stop),
            (Some(app(false, false, "scale")), Some(&one), Stopper::Scale),
            (Some(app(false, false, "apply")), None, Stopper::Scale),
            (Some(app(false, false, "restart")), Some(&newer), Stopper::Restart),
            (Some(app(false, false, "apply")), Some(&newer), Stopper::Update),
            (Some(app(false, false, "apply")), Some(&two), Stopper::Drain),
        ] {
            assert_eq!(stopper(app.as_ref(), wanted, (&key, "a"), Some(Stopper::Drain)), by);
        }
        let nobody = stopper(Some(&app(false, false, "apply")), Some(&two), (&key, "a"), None);
        assert_eq!(nobody, Stopper::Cell);
    }

    #[test]
    fn of_several_ends_each_is_looked_at() {
        let both = StepError::Several(vec![StepError::died(exited(1)), StepError::Cancelled]);
        let mut asked = 0;
        let changed = both.clone().map_cause(&mut |cause| {
            asked += 1;
            cause
        });
        assert_eq!((changed, asked), (both, 1));
    }
}
