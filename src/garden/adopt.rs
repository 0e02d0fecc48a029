//! After a restart of the daemon: containers and their processes are there again, and what was
//! half-made is swept.

use super::backend::{Backend, Place};
use super::member::Member;
use super::process::Running;
use super::{plan, record};
use crate::container::Posture;
use crate::log::chain;
use crate::unit::Handle;
use std::sync::Arc;

impl Backend {
    /// Looks at every container of the depot that is no app's: what lives and has a record is taken
    /// over where it stands, with its processes; everything else is destroyed.
    pub async fn adopt(&self) {
        let shared = self.shared.clone();
        let handles = match smol::unblock(move || shared.host.list()).await {
            Ok(handles) => handles,
            Err(err) => return crate::error!("depot.unreadable", err = chain(&err)),
        };
        for name in handles {
            let shared = self.shared.clone();
            let looked = name.clone();
            let ours = smol::unblock(move || {
                let entry = shared.host.entry(&looked).ok().flatten();
                entry.filter(|entry| entry.spec.posture != Posture::App)
            });
            let Some(entry) = ours.await else { continue };
            if !self.take_over(&name).await {
                let record = record::from_text(&entry.spec.owner);
                let garden = record.map_or("?".into(), |record| record.handle);
                crate::warn!("container.swept", handle = name, garden = garden);
                let (shared, gone) = (self.shared.clone(), name.clone());
                if let Err(err) = smol::unblock(move || shared.host.destroy(&gone)).await {
                    let err = chain(&err);
                    crate::error!("container.left", handle = name, garden = garden, err = err);
                }
            }
        }
    }

    /// Goes on with a container; `false`: it cannot be kept.
    async fn take_over(&self, name: &Handle) -> bool {
        let (shared, again) = (self.shared.clone(), name.clone());
        let opened = smol::unblock(move || shared.host.reopen(&again)).await;
        let container = match opened {
            Ok(Some(container)) => container,
            Ok(None) => return false,
            Err(err) => {
                crate::warn!("container.lost", handle = name, err = chain(&err));
                return false;
            }
        };
        let Some(record) = record::from_text(&container.entry().spec.owner) else { return false };
        let handle = record.handle.clone();
        if self.shared.places().contains_key(&handle) {
            return false;
        }
        let member = Member::new(container, record);
        if let Err(err) = self.take_over_processes(&member).await {
            let err = chain(&err);
            crate::warn!("container.lost", handle = name, garden = handle, err = err);
            return false;
        }
        crate::info!("container.adopted", handle = name, garden = handle);
        member.rest(&self.shared);
        self.shared.places().insert(handle, Place::Stands(member));
        self.shared.tell_change();
        true
    }

    /// Reads on what its processes say, and waits for their ends.
    async fn take_over_processes(
        &self,
        member: &Arc<Member>,
    ) -> Result<(), crate::container::ProcessError> {
        let names = member.record().names;
        let (shared, name) = (self.shared.clone(), member.name.clone());
        // Unreadable: their disks go with the container.
        let mut peas = smol::unblock(move || shared.host.peas(&name)).await.unwrap_or_default();
        for known in member.container.processes().await? {
            let Some(id) = plan::client_name(&known.id, &names) else { continue };
            let (process, spool) = member.container.attach_unread(&known).await?;
            let is_pea = peas.contains(&known.id);
            peas.retain(|pea| *pea != known.id);
            let running = Running::begin(member, &id, (process, Some(spool)), is_pea, &self.shared);
            member.processes().insert(id, running);
        }
        // They ended without a daemon, or never began.
        for pea in peas {
            self.shared.clone().remove_pea(member, &pea).await;
        }
        Ok(())
    }
}
