//! What a container is limited to, and the changes to it that clients of 2015 ask for.
//!
//! A change is made first and written down then, in one turn: what two clients change at a time ends
//! with the same limit in both places.

use super::backend::Backend;
use super::member::Member;
use super::{Done, GardenError, plan};
use crate::cgroup::{CgroupError, Group};
use crate::model::garden::{BandwidthLimits, CpuLimits, DiskLimits, Limits, MemoryLimits};
use crate::unit::Bytes;
use std::sync::Arc;

impl Backend {
    /// Ends the processes of a container: asks them to and kills after 10 s what is left, or kills
    /// at once. The container itself stands until it is destroyed.
    pub async fn stop(&self, handle: &str, kill: bool) -> Done<()> {
        let member = self.shared.member(handle)?;
        if !member.container.has_ended() {
            let stopped = member.container.stop(kill).await;
            stopped.map_err(|err| member.refused(&err))?;
        }
        if member.record().stopped {
            return Ok(());
        }
        member.change(&self.shared, |record| record.stopped = true).await
    }

    /// What it is limited to; the processor's share is told as it is effective.
    pub async fn limits(&self, handle: &str) -> Done<Limits> {
        let member = self.shared.member(handle)?;
        let asked = member.record().limits;
        if plan::shares(&asked.cpu).is_none() {
            return Ok(asked);
        }
        let asking = member.clone();
        let shares = smol::unblock(move || asking.container.group().current_shares()).await;
        let shares = shares.map_err(|err| member.refused(&err))?;
        let cpu = CpuLimits { weight: 0, limit_in_shares: shares };
        Ok(Limits { cpu, ..asked })
    }

    /// Limits what it sends and receives.
    pub async fn set_bandwidth(
        &self,
        handle: &str,
        limits: BandwidthLimits,
    ) -> Done<BandwidthLimits> {
        let member = self.shared.member(handle)?;
        let turn = member.turn().await;
        let (shared, name) = (self.shared.clone(), member.name.clone());
        let limit = plan::bandwidth(&limits);
        let set = smol::unblock(move || shared.host.set_bandwidth(&name, limit)).await;
        set.map_err(|err| member.refused(&err))?;
        turn.change(&self.shared, |record| record.limits.bandwidth = limits).await?;
        Ok(limits)
    }

    /// Changes its share of the processor; 0 changes nothing.
    pub async fn set_cpu(&self, handle: &str, limits: CpuLimits) -> Done<CpuLimits> {
        let shares = plan::shares(&limits);
        if shares.is_some() {
            let member = self.shared.member(handle)?;
            let turn = member.turn().await;
            regroup(&member, move |group| group.set_cpu_shares(shares)).await?;
            turn.change(&self.shared, |record| record.limits.cpu = limits).await?;
            return Ok(CpuLimits { weight: 0, limit_in_shares: shares.unwrap_or_default() });
        }
        Ok(self.limits(handle).await?.cpu)
    }

    /// Changes what it may write; four zeros change nothing.
    pub async fn set_disk(&self, handle: &str, limits: DiskLimits) -> Done<DiskLimits> {
        let member = self.shared.member(handle)?;
        if limits != (DiskLimits { scope: limits.scope, ..DiskLimits::default() }) {
            let asked = Limits { disk: limits, ..Limits::default() };
            let own = plan::disk(&asked, member.record().image_bytes);
            let own =
                own.map_err(|why| GardenError::Failed(format!("container {handle}: {why}")))?;
            let turn = member.turn().await;
            let (shared, name) = (self.shared.clone(), member.name.clone());
            let set = smol::unblock(move || shared.host.store().set_limit(&name, own)).await;
            set.map_err(|err| member.refused(&err))?;
            turn.change(&self.shared, |record| record.limits.disk = limits).await?;
            self.shared.tell_change();
        }
        Ok(member.record().limits.disk)
    }

    /// Changes its memory; 0 changes nothing.
    pub async fn set_memory(&self, handle: &str, limits: MemoryLimits) -> Done<MemoryLimits> {
        let member = self.shared.member(handle)?;
        if limits.limit_in_bytes > 0 {
            let bytes = Bytes::new(limits.limit_in_bytes);
            let turn = member.turn().await;
            regroup(&member, move |group| group.set_memory(Some(bytes))).await?;
            turn.change(&self.shared, |record| record.limits.memory = limits).await?;
        }
        Ok(member.record().limits.memory)
    }
}

/// Changes the control group of a container.
async fn regroup(
    member: &Arc<Member>,
    change: impl FnOnce(&Group) -> Result<(), CgroupError> + Send + 'static,
) -> Done<()> {
    let changing = member.clone();
    let changed = smol::unblock(move || change(changing.container.group())).await;
    changed.map_err(|err| member.refused(&err))
}
