//! The container's own end of its network, configured from within its network namespace.

use super::proto::InsideNet;
use super::{Doing, InitError};
use crate::netlink::Route;

/// Switches loopback on, gives the link its address, switches it on, and routes everything
/// through the gateway. The caller is in the container's network namespace, where the daemon has
/// put the link already.
pub fn configure(net: &InsideNet) -> Result<(), InitError> {
    let mut route =
        Route::open().doing(|| "open a route socket in the container's network".into())?;
    let lo = index(&mut route, "lo")?;
    route.set_up(lo).doing(|| "switch on lo".into())?;
    let link = index(&mut route, &net.link)?;
    route
        .add_address(link, net.address, net.prefix)
        .doing(|| format!("give {} the address {}/{}", net.link, net.address, net.prefix))?;
    route.set_up(link).doing(|| format!("switch on {}", net.link))?;
    route
        .add_default_route(link, net.gateway)
        .doing(|| format!("route through {} on {}", net.gateway, net.link))
}

/// The number of the link of this name.
fn index(route: &mut Route, name: &str) -> Result<u32, InitError> {
    let found = route.link(name).doing(|| format!("look for link {name}"))?;
    found.map(|link| link.index).ok_or_else(|| {
        InitError::refuse(format!("find link {name}"), "it is not in the container's network")
    })
}
