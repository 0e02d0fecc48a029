//! The cell tries itself: a container from the first stack, a program in it, and away with it. When
//! that fails, nothing new is begun; what runs is left alone, and so is the daemon.

use super::node::Health;
use super::owner;
use super::settings::SelfCheck;
use super::shared::{Cell, Shared};
use crate::container::{Container, ContainerSpec, Fault};
use crate::image;
use crate::log::chain;
use crate::model::limits::Limits;
use crate::model::process::ProcessSpec;
use crate::sys::fault;
use crate::unit::{Digest, Handle};
use smol::{Task, future};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often each step is tried, and how long is between.
const TRIES: u32 = 3;
const AGAIN: Duration = Duration::from_secs(1);

/// How long the end of the daemon waits for the removal of a check's container.
const END_MAX: Duration = Duration::from_secs(5);

/// Processes and threads of the container.
const PIDS_MAX: u32 = 64;

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// A container was made and removed.
    Good,
    /// There is nothing to make one of, or no room for it: neither is an illness.
    Unknown,
    /// It could not be done.
    Bad(String),
}

impl Cell {
    /// Tries the cell at once and then every now and then; never ends.
    pub async fn check_itself(&self) {
        let shared = &self.shared;
        let Some(check) = shared.settings.self_check else { return future::pending().await };
        let mut hangs = None;
        loop {
            let inner = shared.clone();
            let begin = || {
                smol::spawn(async move {
                    inner.state().node.checking = Some(Instant::now());
                    let verdict = inner.try_itself().await;
                    inner.state().node.checking = None;
                    verdict
                })
            };
            let verdict = within(&mut hangs, begin, check.timeout).await.unwrap_or_else(|| {
                let limit = check.timeout.as_secs();
                Verdict::Bad(format!("the check has not come to an end in {limit} s"))
            });
            let health = shared.judge(verdict);
            async_io::Timer::after(pause(&health, &check)).await;
        }
    }
}

impl Cell {
    /// Removes the container of a check that the end of the daemon has broken off. One that is in the
    /// making at this moment is left to the next daemon.
    pub async fn end_checks(&self) {
        let limit = async {
            async_io::Timer::after(END_MAX).await;
            Err(format!("that takes longer than {} s", END_MAX.as_secs()))
        };
        if let Err(why) = future::or(self.shared.remove_checks(), limit).await {
            crate::warn!("cell.check_left", err = why);
        }
    }
}

impl Shared {
    /// Takes note; how the cell stands then.
    fn judge(&self, verdict: Verdict) -> Health {
        let mut state = self.state();
        let before = state.node.health.clone();
        let health = stands(&before, verdict);
        state.node.health = health.clone();
        match (&health, &before) {
            (Health::Bad(why), Health::Good | Health::Unknown) => {
                const CURE: &str = "nothing new starts until that is mended; it is tried again";
                crate::error!("cell.unhealthy", err = why, cure = CURE);
            }
            (Health::Good, Health::Bad(_)) => {
                crate::info!("cell.healthy");
                state.waiting.room_returned();
            }
            _ => {}
        }
        drop(state);
        if health != before {
            self.wake();
        }
        health
    }

    /// One check.
    async fn try_itself(self: &Arc<Self>) -> Verdict {
        let bad = |doing: &str, why: String| Verdict::Bad(format!("cannot {doing}: {why}"));
        if let Err(why) = again(|| self.remove_checks()).await {
            return bad("remove what an earlier check has left", why);
        }
        let layer = match again(|| self.first_layer()).await {
            Ok(Some(layer)) => layer,
            Ok(None) => return Verdict::Unknown,
            Err(why) => return bad("read the first stack", why),
        };
        let container = match again(|| self.make_check(layer)).await {
            Ok(Some(container)) => container,
            Ok(None) => return Verdict::Unknown,
            Err(why) => return bad("make a container", why),
        };
        let ran = again(|| run(&container)).await;
        drop(container);
        let removed = again(|| self.remove_checks()).await;
        match (ran, removed) {
            (Err(why), _) => bad("run a program in a container", why),
            (_, Err(why)) => bad("remove a container", why),
            (Ok(()), Ok(())) => Verdict::Good,
        }
    }

    /// Destroys every container of a check. They are none of an app's, so nothing is booked.
    async fn remove_checks(self: &Arc<Self>) -> Result<(), String> {
        let shared = self.clone();
        smol::unblock(move || {
            let handles = shared.host.list().map_err(|err| chain(&err))?;
            for handle in handles {
                let Ok(Some(entry)) = shared.host.entry(&handle) else { continue };
                if owner::is_check(&entry.spec.owner) {
                    shared.host.destroy(&handle).map_err(|err| chain(&err))?;
                }
            }
            Ok(())
        })
        .await
    }

    /// The layer of the first stack, imported when it is not there yet; `None`: there is no stack.
    async fn first_layer(self: &Arc<Self>) -> Result<Option<Digest>, String> {
        let shared = self.clone();
        smol::unblock(move || {
            let site = shared.site();
            let Some(name) = site.first_stack() else { return Ok(None) };
            let archive = site.stack(&name).map_err(|(what, _)| what)?;
            let layer = image::import_stack(shared.host.store(), &archive, &mut |_, _| {});
            layer.map(Some).map_err(|err| chain(&err))
        })
        .await
    }

    /// Makes the container; `None`: the box is full.
    async fn make_check(self: &Arc<Self>, layer: Digest) -> Result<Option<Container>, String> {
        let _turn = self.pools.create.enter().await;
        let n = self.last_handle.fetch_add(1, Ordering::Relaxed);
        let handle: Handle = format!("check-{n:08x}").parse().expect("letters and hex digits");
        let spec = ContainerSpec {
            limits: Limits {
                memory: Some(SelfCheck::SIZE),
                disk: Some(SelfCheck::SIZE),
                pids: Some(PIDS_MAX),
                ..Limits::default()
            },
            owner: owner::check(),
            ..ContainerSpec::new(handle, vec![layer])
        };
        let shared = self.clone();
        match smol::unblock(move || shared.host.create(spec, Fault::None)).await {
            Ok(container) => {
                fault::point(format_args!("check:made"));
                Ok(Some(container))
            }
            Err(err) if err.is_full() => Ok(None),
            Err(err) => Err(chain(&err)),
        }
    }
}

/// How the cell stands after a check. One that tells nothing is no evidence for either.
fn stands(before: &Health, verdict: Verdict) -> Health {
    match verdict {
        Verdict::Unknown => before.clone(),
        Verdict::Good => Health::Good,
        Verdict::Bad(why) => Health::Bad(why),
    }
}

/// Until the next check. As long as the cell is taken for ill it is soon, whatever the last one told.
fn pause(health: &Health, check: &SelfCheck) -> Duration {
    match health {
        Health::Bad(_) => check.unhealthy_interval,
        Health::Good | Health::Unknown => check.interval,
    }
}

/// What comes of some work, or of the one that hung before: a thread may be stuck in the kernel with
/// that, and each further one would be stuck beside it until none is left. `None`: it hangs.
async fn within<T>(
    hangs: &mut Option<Task<T>>,
    begin: impl FnOnce() -> Task<T>,
    max: Duration,
) -> Option<T> {
    let mut work = hangs.take().unwrap_or_else(begin);
    let late = async {
        async_io::Timer::after(max).await;
        None
    };
    let outcome = future::or(async { Some((&mut work).await) }, late).await;
    if outcome.is_none() {
        *hangs = Some(work);
    }
    outcome
}

/// Diego's program: whoever can list a directory and write a file is well.
async fn run(container: &Container) -> Result<(), String> {
    let process = ProcessSpec {
        id: "check".into(),
        path: "/bin/sh".into(),
        args: vec!["-c".into(), "ls > /tmp/test".into()],
        dir: Some("/".into()),
        user: "vcap".into(),
        ..ProcessSpec::default()
    };
    let process = container.start(process).await.map_err(|err| chain(&err))?;
    let status = process.wait().await.map_err(|err| chain(&err))?;
    // The next try has the same name.
    let _ = container.forget(&process.id).await;
    match status.code() {
        0 => Ok(()),
        code => Err(format!("`ls > /tmp/test` exited with status {code}")),
    }
}

/// Tries a step, three times at most.
async fn again<T, F: Future<Output = Result<T, String>>>(
    step: impl Fn() -> F,
) -> Result<T, String> {
    let mut outcome = step().await;
    for _ in 1..TRIES {
        if outcome.is_ok() {
            break;
        }
        async_io::Timer::after(AGAIN).await;
        outcome = step().await;
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell as Count;

    #[test]
    fn row_37_a_step_is_tried_three_times() {
        for (works_at, tried, good) in [(1, 1, true), (2, 2, true), (3, 3, true), (4, 3, false)] {
            let count = Count::new(0);
            let outcome = smol::block_on(again(|| async {
                count.set(count.get() + 1);
                (count.get() >= works_at).then_some(()).ok_or_else(|| "no".to_owned())
            }));
            assert_eq!((count.get(), outcome.is_ok()), (tried, good), "{works_at}");
        }
    }

    /// Row 37: an ill cell that is full at the next look is looked at soon again, or it stays ill for long
    /// after it has been mended and has room.
    #[test]
    fn row_37_a_full_box_is_no_evidence() {
        let check = SelfCheck {
            interval: Duration::from_secs(600),
            unhealthy_interval: Duration::from_secs(30),
            timeout: Duration::from_secs(60),
        };
        let ill = Health::Bad("why".into());
        let bad = || Verdict::Bad("why".into());
        for (before, verdict, after, pause_s) in [
            (Health::Unknown, Verdict::Unknown, Health::Unknown, 600),
            (Health::Good, Verdict::Unknown, Health::Good, 600),
            (ill.clone(), Verdict::Unknown, ill.clone(), 30),
            (ill.clone(), Verdict::Good, Health::Good, 600),
            (Health::Good, bad(), ill.clone(), 30),
            (ill.clone(), bad(), ill.clone(), 30),
        ] {
            let health = stands(&before, verdict.clone());
            assert_eq!(health, after, "{before:?} {verdict:?}");
            assert_eq!(pause(&health, &check).as_secs(), pause_s, "{before:?} {verdict:?}");
        }
    }

    #[test]
    fn row_37_a_check_that_hangs_is_not_joined_by_another_one() {
        let (sender, receiver) = smol::channel::bounded::<()>(1);
        let begun = Count::new(0);
        let begin = || {
            begun.set(begun.get() + 1);
            let receiver = receiver.clone();
            smol::spawn(async move { receiver.recv().await.is_ok() })
        };
        smol::block_on(async {
            let (mut hangs, short) = (None, Duration::from_millis(5));
            assert_eq!(within(&mut hangs, begin, short).await, None);
            assert_eq!(within(&mut hangs, begin, short).await, None);
            assert_eq!(begun.get(), 1);
            sender.send(()).await.expect("it waits");
            let long = Duration::from_secs(60);
            assert_eq!(within(&mut hangs, begin, long).await, Some(true));
            sender.send(()).await.expect("room");
            assert_eq!(within(&mut hangs, begin, long).await, Some(true));
            assert_eq!(begun.get(), 2, "the next one is another");
        });
    }
}
