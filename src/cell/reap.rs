//! Looks every now and then for containers of the cell's that nobody knows, and removes them. The
//! ends of those that somebody works on are told by their first processes, at once.

pub mod plan;

use super::owner;
use super::shared::{Cell, Shared};
use crate::container::Posture;
use crate::log::chain;
use plan::Known;
use smol::future;
use std::sync::Arc;

impl Cell {
    /// Looks at the intervals that the owner has set; never ends. Lets the loop look, too.
    pub async fn keep_watch(&self) {
        let Some(polling) = self.shared.settings.polling else { return future::pending().await };
        loop {
            async_io::Timer::after(polling).await;
            self.shared.reap().await;
            self.shared.wake();
        }
    }
}

impl Shared {
    /// Removes what nobody knows.
    async fn reap(self: &Arc<Self>) {
        let shared = self.clone();
        // First: whoever makes a container now is not on the list, or is known below.
        let listed = smol::unblock(move || {
            let handles = match shared.host.list() {
                Ok(handles) => handles,
                Err(err) => {
                    crate::error!("depot.unreadable", err = chain(&err));
                    Vec::new()
                }
            };
            let apps = handles.into_iter().filter_map(|handle| {
                let entry = shared.host.entry(&handle).ok().flatten()?;
                let is_apps = entry.spec.posture == Posture::App;
                is_apps.then(|| (handle, owner::read(&entry.spec.owner)))
            });
            apps.collect::<Vec<_>>()
        });
        let listed = listed.await;
        let strays = {
            let state = self.state();
            if state.closing {
                return;
            }
            let handle =
                |container: &Arc<_>| crate::container::Container::handle(container).clone();
            let mut known = Known {
                tasks: state.task_work.keys().cloned().collect(),
                staging: state.staging.keys().cloned().collect(),
                stuck: state.node.stuck.keys().cloned().collect(),
                ..Known::default()
            };
            for (key, work) in &state.supervised {
                let works = known.instances.entry((key.0.clone(), key.1)).or_default();
                works.push(work.container.as_ref().map(handle));
            }
            plan::strays(&listed, &known)
        };
        for handle in strays {
            self.sweep(&handle).await;
        }
    }
}
