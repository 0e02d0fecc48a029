//! Ports of the box that lead into a container, and what it may reach.

use super::backend::Backend;
use super::{Done, GardenError, plan};
use crate::model::garden::{NetIn, NetOutRule};

impl Backend {
    /// Leads a port of the box to one inside. Returns which.
    pub async fn net_in(&self, handle: &str, ports: NetIn) -> Done<NetIn> {
        let member = self.shared.member(handle)?;
        let wanted = plan::ports(&ports).map_err(GardenError::Failed)?;
        let (shared, name) = (self.shared.clone(), member.name.clone());
        let added = smol::unblock(move || shared.host.add_port(&name, wanted)).await;
        let (host, inside) = added.map_err(|err| member.refused(&err))?;
        Ok(NetIn { host_port: host.into(), container_port: inside.into() })
    }

    /// Opens more to a container, all or none.
    pub async fn net_out(&self, handle: &str, rules: &[NetOutRule]) -> Done<()> {
        let member = self.shared.member(handle)?;
        let rules: Result<Vec<_>, _> = rules.iter().map(plan::egress).collect();
        let rules = rules.map_err(GardenError::Failed)?;
        if rules.is_empty() {
            return Ok(());
        }
        let (shared, name) = (self.shared.clone(), member.name.clone());
        let opened = smol::unblock(move || shared.host.add_egress(&name, &rules)).await;
        opened.map_err(|err| member.refused(&err))
    }
}
