//! The links of one container on the host, and the kernel settings that they need.

use super::error::NetError;
use super::plan::Place;
use super::{NetConfig, plan};
use crate::netlink::route::message::{Bridge, Veth};
use crate::netlink::route::queue::Bucket;
use crate::netlink::{NetlinkError, Route};
use crate::unit::Slot;
use std::fs;
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const IPV4: &str = "/proc/sys/net/ipv4/conf";
/// One a millisecond.
const SETTLE_LOOKS_MAX: usize = 1000;
const IPV6: &str = "/proc/sys/net/ipv6/conf";

/// The host's links, as they are in the network namespace of the thread that opened this.
pub struct Host {
    /// For making and listing.
    pub(super) route: Mutex<Route>,
    /// For removing, which waits for tens of milliseconds: nobody else shall wait with it.
    pub(super) remover: Mutex<Route>,
    /// Held while a container joins or leaves a bridge that it may share.
    pub(super) joining: Mutex<()>,
    /// Directories of settings. Paths through them stay in the namespace in which they were
    /// opened; a path from `/proc/sys` would follow the calling thread.
    ipv4: File,
    ipv6: Option<File>,
}

impl Host {
    /// Opens sockets and directories for the network namespace of the calling thread.
    pub fn open() -> Result<Host, NetError> {
        let route = || Route::open().map_err(|source| NetError::Open { source });
        let ipv4 = File::open(IPV4).map_err(|source| NetError::Setting {
            file: IPV4.into(),
            value: "settings",
            source,
        })?;
        // No directory: a kernel without IPv6, so there is nothing to switch off.
        let ipv6 = File::open(IPV6).ok();
        let (route, remover) = (Mutex::new(route()?), Mutex::new(route()?));
        Ok(Host { route, remover, joining: Mutex::new(()), ipv4, ipv6 })
    }

    /// Makes a slot's bridge, unless it is a shared one and there, and the veth pair into `netns`.
    /// After a failure nothing is left.
    pub fn attach(
        &self,
        cfg: &NetConfig,
        place: &Place,
        netns: BorrowedFd<'_>,
    ) -> Result<(), NetError> {
        let joining = place.shared.then(|| lock(&self.joining));
        if place.shared {
            let link = place.slot.veth_host(&cfg.tag);
            if lock(&self.route).link(&link).map_err(failed("look up", &link))?.is_some() {
                return Err(NetError::LinkExists { link });
            }
        }
        self.add_bridge(cfg, place)?;
        let built =
            self.set_bridge(place).and_then(|index| self.add_veth(cfg, place, index, netns));
        drop(joining);
        self.or_remove(cfg, place, built)
    }

    /// The first half of it, for a bridge that is not shared.
    pub fn make_bridge(&self, cfg: &NetConfig, place: &Place) -> Result<(), NetError> {
        self.add_bridge(cfg, place)?;
        let built = self.set_bridge(place).map(drop);
        self.or_remove(cfg, place, built)
    }

    /// The second half.
    pub fn plug(
        &self,
        cfg: &NetConfig,
        place: &Place,
        netns: BorrowedFd<'_>,
    ) -> Result<(), NetError> {
        let index = index_of(&mut lock(&self.route), &place.bridge);
        let built = index.and_then(|index| self.add_veth(cfg, place, index, netns));
        self.or_remove(cfg, place, built)
    }

    /// After a failure removes what there is.
    fn or_remove(
        &self,
        cfg: &NetConfig,
        place: &Place,
        built: Result<(), NetError>,
    ) -> Result<(), NetError> {
        if built.is_err()
            && let Err(err) = self.remove(cfg, place)
        {
            crate::warn!("net.undo_failed", slot = place.slot, err = crate::log::chain(&err));
        }
        built
    }

    fn add_bridge(&self, cfg: &NetConfig, place: &Place) -> Result<(), NetError> {
        let mac = plan::bridge_mac(place.addresses.gateway);
        let group = plan::group(&cfg.tag);
        let message = Bridge { name: &place.bridge, mtu: cfg.mtu, mac, group };
        match lock(&self.route).add_bridge(&message) {
            Err(err) if place.shared && err.exists() => Ok(()),
            made => made.map_err(failed("make", &place.bridge)),
        }
    }

    /// Settings and address of a bridge, which is on then; its index.
    fn set_bridge(&self, place: &Place) -> Result<u32, NetError> {
        let Place { bridge, addresses, shared, .. } = place;
        self.harden(bridge)?;
        let mut route = lock(&self.route);
        let index = index_of(&mut route, bridge)?;
        match route.add_address(index, addresses.gateway, addresses.prefix) {
            Err(err) if *shared && err.exists() => {}
            added => added.map_err(failed("give an address to", bridge))?,
        }
        route.set_up(index).map_err(failed("switch on", bridge))?;
        Ok(index)
    }

    /// The veth pair, from the bridge of this index; its outer end is on.
    fn add_veth(
        &self,
        cfg: &NetConfig,
        place: &Place,
        bridge: u32,
        netns: BorrowedFd<'_>,
    ) -> Result<(), NetError> {
        let mut route = lock(&self.route);
        let (outer, inner) = (place.slot.veth_host(&cfg.tag), place.slot.veth_inside(&cfg.tag));
        let veth = Veth { outer: &outer, inner: &inner, mtu: cfg.mtu, bridge, netns };
        route.add_veth(&veth).map_err(failed("make", &outer))?;
        let port = index_of(&mut route, &outer)?;
        // With bridge netfilter on, a container's way to its own published port needs this.
        route.set_hairpin(port).map_err(failed("set hairpin on", &outer))?;
        // While the link is off this costs nothing; later it has addresses to take down.
        self.no_ipv6(&outer)?;
        route.set_up(port).map_err(failed("switch on", &outer))
    }

    /// The settings of a new bridge, while it is still off.
    fn harden(&self, bridge: &str) -> Result<(), NetError> {
        // A connection from 127.0.0.1 of this box may leave here; rule `raw` keeps the way back in
        // closed for everything else.
        set(&self.ipv4, IPV4, &format!("{bridge}/route_localnet"), "1")?;
        // Whoever forges a source address is dropped before any rule sees it.
        set(&self.ipv4, IPV4, &format!("{bridge}/rp_filter"), "1")?;
        self.no_ipv6(bridge)
    }

    fn no_ipv6(&self, link: &str) -> Result<(), NetError> {
        let Some(dir) = &self.ipv6 else { return Ok(()) };
        set(dir, IPV6, &format!("{link}/accept_ra"), "0")?;
        set(dir, IPV6, &format!("{link}/disable_ipv6"), "1")
    }

    /// Waits until packets pass between host and container, whose end must be up. The kernel
    /// notices that end a moment later, on a thread that waits for everybody's link changes; a
    /// packet sent meanwhile is lost, and the next comes a second later. `false`: after a second
    /// packets still do not pass.
    pub fn settle(&self, cfg: &NetConfig, place: &Place) -> Result<bool, NetError> {
        let (outer, bridge) = (place.slot.veth_host(&cfg.tag), place.bridge.clone());
        // Linux 6.8 and later need one look: the question itself brings the links up to date, the
        // port first, then the bridge.
        for _ in 0..SETTLE_LOOKS_MAX {
            let mut running = true;
            for name in [&outer, &bridge] {
                let link = lock(&self.route).link(name).map_err(failed("look up", name))?;
                running &= link.is_some_and(|link| link.running);
            }
            if running {
                return Ok(true);
            }
            // No event: before 6.8 the bridge port's state changes without a message.
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(false)
    }

    /// Removes a slot's links. Already gone is success.
    pub fn remove(&self, cfg: &NetConfig, place: &Place) -> Result<(), NetError> {
        let slot = place.slot;
        if let Some(bridge) = self.shared_bridge(cfg, place)? {
            return self.leave(cfg, slot, &bridge);
        }
        // In this order they take 50 ms, in the other 75.
        self.delete(&slot.bridge(&cfg.tag))?;
        self.delete(&slot.veth_host(&cfg.tag))
    }

    pub(super) fn delete(&self, link: &str) -> Result<(), NetError> {
        match lock(&self.remover).delete_link(link) {
            Err(err) if !err.missing() => Err(failed("remove", link)(err)),
            _ => Ok(()),
        }
    }

    /// The slots of which a link is there.
    pub fn slots(&self, tag: &str) -> Result<Vec<Slot>, NetError> {
        let links = lock(&self.route).links().map_err(failed("list", "of this box"))?;
        Ok(links.iter().filter_map(|link| plan::slot_of_link(&link.name, tag)).collect())
    }

    /// The slots of which a link has no queue, so no token bucket either.
    pub fn unshaped(&self, tag: &str) -> Result<Vec<Slot>, NetError> {
        let links = lock(&self.route).links().map_err(failed("list", "of this box"))?;
        let without = links.iter().filter(|link| link.queue.as_deref() == Some("noqueue"));
        let slots = without.filter_map(|link| {
            let slot = plan::slot_of_link(&link.name, tag)?;
            // Its bridge has none in any case.
            (link.name == slot.veth_host(tag)).then_some(slot)
        });
        Ok(slots.collect())
    }

    /// Whether the other end of a slot's veth is there and up.
    pub fn is_connected(&self, cfg: &NetConfig, slot: Slot) -> Result<bool, NetError> {
        let outer = slot.veth_host(&cfg.tag);
        let link = lock(&self.route).link(&outer).map_err(failed("look up", &outer))?;
        Ok(link.is_some_and(|link| link.running))
    }

    /// Gives a slot's veth a token bucket for what goes to the container, or takes it away; without
    /// link it is away.
    pub fn shape(
        &self,
        cfg: &NetConfig,
        slot: Slot,
        bucket: Option<Bucket>,
    ) -> Result<(), NetError> {
        let outer = slot.veth_host(&cfg.tag);
        let mut route = lock(&self.route);
        let link = route.link(&outer).map_err(failed("look up", &outer))?;
        let done = match (link, bucket) {
            (Some(link), Some(bucket)) => route.set_bucket(link.index, bucket),
            (Some(link), None) => match route.delete_queue(link.index) {
                Err(err) if err.missing() => Ok(()),
                deleted => deleted,
            },
            (None, Some(_)) => return Err(gone("limit bandwidth of", &outer)),
            (None, None) => Ok(()),
        };
        done.map_err(failed("limit bandwidth of", &outer))
    }

    /// Rate and limit of that token bucket; `None`: there is none.
    pub fn shaped(&self, cfg: &NetConfig, slot: Slot) -> Result<Option<(u64, u32)>, NetError> {
        let outer = slot.veth_host(&cfg.tag);
        let mut route = lock(&self.route);
        match route.link(&outer).map_err(failed("look up", &outer))? {
            Some(link) => route.bucket(link.index).map_err(failed("look up", &outer)),
            None => Ok(None),
        }
    }

    /// What went through a slot's veth since it was made, as the container sees it: bytes
    /// received, bytes sent. `None`: it has no link.
    pub fn traffic(&self, cfg: &NetConfig, slot: Slot) -> Result<Option<(u64, u64)>, NetError> {
        let outer = slot.veth_host(&cfg.tag);
        let link = lock(&self.route).link(&outer).map_err(failed("look up", &outer))?;
        // What the host end receives, the container has sent.
        Ok(link.map(|link| (link.counters[3], link.counters[2])))
    }
}

/// Subnets that routes of this box lead to: those over a tag's own bridges, and all others.
pub fn subnets(tag: &str) -> Result<(Vec<plan::Subnet>, Vec<plan::Subnet>), NetError> {
    let listed = || -> Result<_, NetlinkError> {
        let mut route = Route::open()?;
        Ok((route.links()?, route.routes()?))
    };
    let (links, routes) = listed().map_err(failed("list", "routes of this box"))?;
    let is_own = |index: u32| {
        let link = links.iter().find(|link| link.index == index);
        link.is_some_and(|link| plan::slot_of_link(&link.name, tag).is_some())
    };
    let (own, others): (Vec<_>, Vec<_>) =
        routes.iter().partition(|route| route.link.is_some_and(is_own));
    let subnet = |list: Vec<&crate::netlink::route::RouteEntry>| {
        list.into_iter().map(|route| (route.to, route.prefix)).collect()
    };
    Ok((subnet(own), subnet(others)))
}

/// Lets packets pass from one link to another, box-wide.
pub fn forward_packets() -> Result<(), NetError> {
    let file = Path::new("/proc/sys/net/ipv4/ip_forward");
    // Where the setting is read-only but right, nothing is to be done.
    if fs::read(file).is_ok_and(|on| on.starts_with(b"1")) {
        return Ok(());
    }
    fs::write(file, "1").map_err(|source| NetError::Setting {
        file: file.to_owned(),
        value: "1",
        source,
    })
}

fn index_of(route: &mut Route, link: &str) -> Result<u32, NetError> {
    match route.link(link) {
        Ok(Some(found)) => Ok(found.index),
        Ok(None) => Err(gone("find the new", link)),
        Err(source) => Err(failed("look up", link)(source)),
    }
}

fn gone(doing: &'static str, link: &str) -> NetError {
    NetError::Link { doing, link: link.to_owned(), source: NetlinkError::Lost }
}

pub(super) fn failed(doing: &'static str, link: &str) -> impl FnOnce(NetlinkError) -> NetError {
    move |source| match doing == "make" && source.exists() {
        true => NetError::LinkExists { link: link.to_owned() },
        false => NetError::Link { doing, link: link.to_owned(), source },
    }
}

/// Writes a setting below an open directory; `shown` is that directory's name in an error.
fn set(dir: &File, shown: &str, name: &str, value: &'static str) -> Result<(), NetError> {
    let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    // Links are new, so that what they have is hardly ever right already.
    let written = fs::write(&path, value).or_else(|err| {
        // But where it is, a setting may be read-only.
        let is_right = fs::read(&path).is_ok_and(|now| now.trim_ascii() == value.as_bytes());
        if is_right { Ok(()) } else { Err(err) }
    });
    written.map_err(|source| NetError::Setting {
        file: PathBuf::from(shown).join(name),
        value,
        source,
    })
}

/// A lock whose holder panicked guards a socket, which has no half-done state of its own.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
