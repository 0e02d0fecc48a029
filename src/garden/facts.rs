//! What the box has, and facts and figures of containers.

use super::backend::{Backend, Place, Shared, now_ms};
use super::lost::Lost;
use super::member::Member;
use super::record::Record;
use super::{Done, GardenError, plan, properties};
use crate::cgroup::Metrics as Figures;
use crate::image;
use crate::model::garden::{
    Capacity, CpuStat, DiskStat, ErrorBody, Info, InfoEntry, Metrics, MetricsEntry, NetworkStat,
    PidStat,
};
use crate::model::view::{ContainerView, GardenView};
use crate::unit::Slot;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Garden's text for a process that was killed for want of memory.
const OUT_OF_MEMORY: &str = "Out of memory";

/// More of them are not told.
const EVENTS_MAX: u64 = 100;

impl Backend {
    /// What the box has.
    pub async fn capacity(&self) -> Done<Capacity> {
        let settings = &self.shared.settings;
        let disk = crate::sys::file::total_bytes(&settings.depot);
        let told =
            |err| GardenError::Failed(format!("measure {}: {err}", settings.depot.display()));
        Ok(Capacity {
            memory_in_bytes: settings.memory_bytes,
            disk_in_bytes: disk.map_err(told)?,
            schedulable_disk_in_bytes: settings.store_max_bytes,
            max_containers: u64::from(settings.containers_max).min(Slot::COUNT.into()),
        })
    }

    /// All containers for the box's own user, the first `most` of them with figures.
    pub async fn view(&self, most: usize) -> GardenView {
        let (count, first) = {
            let places = self.shared.places();
            let known = |place: &Place| match place {
                Place::Stands(member) => Some(Ok(member.clone())),
                Place::Lost(lost) => Some(Err(lost.clone())),
                Place::Busy | Place::Leaves => None,
            };
            let all = places.values().filter_map(known);
            (all.clone().count(), all.take(most).collect::<Vec<_>>())
        };
        let shared = self.shared.clone();
        let view = move |one: &Result<Arc<Member>, Arc<Lost>>| match one {
            Ok(member) => shared.view(member),
            Err(lost) => lost.view(),
        };
        smol::unblock(move || GardenView { count, containers: first.iter().map(view).collect() })
            .await
    }

    /// Facts.
    pub async fn info(&self, handle: &str) -> Done<Info> {
        let member = self.shared.member(handle)?;
        let shared = self.shared.clone();
        Ok(smol::unblock(move || shared.info(&member)).await)
    }

    /// Facts about many; what is not there has an error in its entry.
    pub async fn bulk_info(&self, handles: &[String]) -> BTreeMap<String, InfoEntry> {
        let mut all = BTreeMap::new();
        for handle in handles {
            let entry = match self.info(handle).await {
                Ok(info) => InfoEntry { info, err: None },
                Err(err) => InfoEntry { err: Some(ordinary(&err)), ..InfoEntry::default() },
            };
            all.insert(handle.clone(), entry);
        }
        all
    }

    /// Figures.
    pub async fn metrics(&self, handle: &str) -> Done<Metrics> {
        let member = self.shared.member(handle)?;
        let shared = self.shared.clone();
        smol::unblock(move || shared.metrics(&member)).await
    }

    /// Figures of a process with a root of its own, by its name.
    async fn pea_metrics(&self, id: &str) -> Done<Metrics> {
        let found = self.shared.member_of_process(id);
        let member = found.ok_or_else(|| GardenError::UnknownHandle(id.to_owned()))?;
        let (shared, inner) = (self.shared.clone(), plan::process_name(id));
        smol::unblock(move || match shared.pea_figures(&member, &inner) {
            Some(figures) => Ok(shared.told(&member, figures)),
            None => shared.metrics(&member),
        })
        .await
    }

    /// Figures of many; processes with roots of their own are asked for in the same way.
    pub async fn bulk_metrics(&self, handles: &[String]) -> BTreeMap<String, MetricsEntry> {
        let mut all = BTreeMap::new();
        for handle in handles {
            let figures = match self.metrics(handle).await {
                Err(GardenError::UnknownHandle(_)) => self.pea_metrics(handle).await,
                figures => figures,
            };
            let entry = match figures {
                Ok(metrics) => MetricsEntry { metrics, err: None },
                Err(err) => MetricsEntry { err: Some(ordinary(&err)), ..MetricsEntry::default() },
            };
            all.insert(handle.clone(), entry);
        }
        all
    }
}

/// In bulk answers every error is an ordinary one.
fn ordinary(err: &GardenError) -> ErrorBody {
    ErrorBody { message: err.to_string(), ..ErrorBody::default() }
}

impl Shared {
    /// One container for the box's own user. Blocking file reads.
    fn view(&self, member: &Member) -> ContainerView {
        let record = member.record();
        let limit = record.limits.memory.limit_in_bytes;
        let slot = member.container.entry().slot;
        let used = member.container.stats().ok();
        let running = member.processes().values().filter(|process| !process.is_over()).count();
        ContainerView {
            handle: member.handle.clone(),
            name: member.name.to_string(),
            state: member.state().into(),
            since_ms: record.made_ms,
            address: self.host.net().addresses(slot).container.to_string(),
            processes: running,
            memory_bytes: used.map(|stats| stats.memory_bytes.get()),
            memory_limit_bytes: (limit > 0).then_some(limit),
        }
    }

    /// Facts. Blocking file reads.
    fn info(self: &Arc<Self>, member: &Member) -> Info {
        let entry = member.container.entry();
        let addresses = self.host.net().addresses(entry.slot);
        let kills = member.container.oom_kills().min(EVENTS_MAX);
        let running = member.processes();
        let running = running.values().filter(|process| process.has_name());
        Info {
            state: member.state().into(),
            events: (0..kills).map(|_| OUT_OF_MEMORY.into()).collect(),
            host_ip: addresses.gateway.to_string(),
            container_ip: addresses.container.to_string(),
            container_ipv6: String::new(),
            external_ip: self.settings.external.to_string(),
            container_path: self.settings.depot.join(member.name.as_str()).display().to_string(),
            process_ids: running.map(|process| process.id.clone()).collect(),
            properties: properties::all(member, &self.host, &self.settings),
            mapped_ports: properties::mapped(&entry.ports),
        }
    }

    /// Nanoseconds of processor time that were its due in `age`, as guardian has it: a share is worth
    /// the box's processors for each MiB of its memory.
    fn entitlement(&self, record: &Record, age: u64) -> u64 {
        let shares = plan::shares(&record.limits.cpu).unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u128);
        let memory_mib = u128::from(self.settings.memory_bytes >> 20).max(1);
        let due = u128::from(age) * u128::from(shares) * cpus / memory_mib;
        u64::try_from(due).unwrap_or(u64::MAX)
    }

    /// What it holds on disk; zeros while that cannot be told.
    fn disk(&self, member: &Member, record: &Record) -> DiskStat {
        let store = self.host.store();
        let own = store.usage(&member.name).unwrap_or_default();
        let names = image::layers_size(store, &member.container.entry().spec.layers);
        DiskStat {
            total_bytes_used: own.bytes.get() + record.image_bytes,
            total_inodes_used: own.inodes + names.map_or(0, |image| image.names),
            exclusive_bytes_used: own.bytes.get(),
            exclusive_inodes_used: own.inodes,
        }
    }

    /// Figures. Blocking file reads.
    fn metrics(self: &Arc<Self>, member: &Member) -> Done<Metrics> {
        let figures = member.container.group().metrics();
        let figures = figures.map_err(|err| member.refused(&err))?;
        Ok(self.told(member, figures))
    }

    /// The container that has this process.
    fn member_of_process(&self, id: &str) -> Option<Arc<Member>> {
        let places = self.places();
        let mut members = places.values().filter_map(|place| match place {
            Place::Stands(member) => Some(member),
            Place::Busy | Place::Lost(_) | Place::Leaves => None,
        });
        members.find(|member| member.processes().contains_key(id)).cloned()
    }

    /// Figures of a group as Garden tells them, with those of its container.
    fn told(&self, member: &Member, figures: Figures) -> Metrics {
        let record = member.record();
        let traffic = self.host.net().traffic(member.container.entry().slot).ok().flatten();
        let age = now_ms().saturating_sub(record.made_ms).saturating_mul(1_000_000);
        let mut memory = figures.memory;
        memory.insert("TotalUsageTowardLimit".into(), figures.usage_toward_limit);
        let (usage, user, system) = (figures.cpu_ns, figures.user_ns, figures.system_ns);
        Metrics {
            memory,
            cpu: CpuStat { usage, user, system },
            disk: self.disk(member, &record),
            network: traffic.map(|(rx_bytes, tx_bytes)| NetworkStat { rx_bytes, tx_bytes }),
            pid: PidStat { current: figures.pids, max: figures.pids_max },
            age,
            cpu_entitlement: self.entitlement(&record, age),
        }
    }
}
