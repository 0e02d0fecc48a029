//! Networks that containers ask for by address, and who has which address of them. Pure.
//!
//! Several containers may name one network; they share a bridge and reach each other. The gateway is
//! the first address. What is held is rebuilt from the records of containers when the daemon starts.

use super::plan::{self, Addresses, Subnet, network};
use crate::unit::Slot;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::{error, fmt};

/// Leading bits when none are given.
const PREFIX: u8 = 30;
/// The fewest: a wider network would take away more than half of the private ones.
const PREFIX_MIN: u8 = 8;
/// The most: gateway and one container.
const PREFIX_MAX: u8 = 30;

/// A network that a container asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its address has no host bits.
    pub network: Subnet,
    /// Exactly this address of it; none: any.
    pub address: Option<Ipv4Addr>,
}

/// Why a container cannot have the network or address that it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubnetError {
    /// Not an address with a prefix.
    Text(String),
    /// Too wide or too narrow.
    Prefix(u8),
    /// Of no use for containers: loopback, link-local, multicast and the like.
    Special(Ipv4Addr),
    /// The gateway's or the broadcast address.
    Reserved(Ipv4Addr),
    /// Another container has this address.
    Taken(Ipv4Addr),
    /// Every address is taken.
    Full(Subnet),
    /// It meets addresses that are in other use.
    Overlap {
        /// What was asked for.
        wanted: Subnet,
        /// What it meets.
        other: Subnet,
        /// What that is for.
        user: &'static str,
    },
}

impl fmt::Display for SubnetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubnetError::Text(text) => {
                write!(f, "network {text:?} is no address; write 10.9.1.0/24 or 10.9.1.7/24")
            }
            SubnetError::Prefix(n) => write!(
                f,
                "a network of prefix /{n} cannot be had; choose one from /{PREFIX_MIN} to /{PREFIX_MAX}"
            ),
            SubnetError::Special(address) => {
                write!(
                    f,
                    "{address} is not for containers; choose a private network, as 10.9.1.0/24"
                )
            }
            SubnetError::Reserved(address) => {
                write!(f, "{address} is the gateway or broadcast address; choose another")
            }
            SubnetError::Taken(address) => {
                write!(f, "address {address} is in use by another container; choose another")
            }
            SubnetError::Full((address, prefix)) => {
                write!(f, "every address of {address}/{prefix} is in use; choose another network")
            }
            SubnetError::Overlap { wanted, other, user } => write!(
                f,
                "network {}/{} meets {}/{}, {user}; choose another",
                wanted.0, wanted.1, other.0, other.1
            ),
        }
    }
}

impl error::Error for SubnetError {}

impl Wanted {
    /// Reads `a.b.c.d/n`. No host bits: any address of that network; else exactly that address.
    /// Without `/n` it is a /30.
    pub fn parse(text: &str) -> Result<Wanted, SubnetError> {
        let bad = || SubnetError::Text(text.chars().take(64).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) if prefix.bytes().all(|b| b.is_ascii_digit()) => {
                (address, prefix.parse().map_err(|_| bad())?)
            }
            Some(_) => return Err(bad()),
            None => (text, PREFIX),
        };
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        if !(PREFIX_MIN..=PREFIX_MAX).contains(&prefix) {
            return Err(SubnetError::Prefix(prefix));
        }
        let special = [(0, 8), (0x7f00_0000, 8), (0xa9fe_0000, 16), (0xe000_0000, 3)];
        let special = special.map(|(bits, prefix)| (Ipv4Addr::from_bits(bits), prefix));
        if special.iter().any(|block| meets((address, prefix), *block)) {
            return Err(SubnetError::Special(address));
        }
        let wanted = network((address, prefix));
        let wanted =
            Wanted { network: (wanted, prefix), address: Some(address).filter(|a| *a != wanted) };
        match wanted.address {
            Some(address) if !wanted.usable().contains(&address.to_bits()) => {
                Err(SubnetError::Reserved(address))
            }
            _ => Ok(wanted),
        }
    }

    /// What containers may have: all but network, gateway and broadcast address.
    fn usable(&self) -> std::ops::Range<u32> {
        let (first, prefix) = (self.network.0.to_bits(), self.network.1);
        first + 2..first + (u32::MAX >> prefix)
    }
}

/// Whether two blocks have an address in common.
fn meets(one: Subnet, other: Subnet) -> bool {
    let prefix = one.1.min(other.1);
    network((one.0, prefix)) == network((other.0, prefix))
}

/// Who has which address of which network.
#[derive(Clone, Debug)]
pub struct Subnets {
    pool: Subnet,
    held: BTreeMap<Slot, Addresses>,
}

impl Subnets {
    /// Nobody has any. `pool`: where all other containers are.
    pub fn new(pool: Subnet) -> Subnets {
        Subnets { pool, held: BTreeMap::new() }
    }

    /// Gives a slot an address, the lowest free one if any will do, in the place of what it has.
    /// `routes`: where the box's own routes lead; those wider than /7 are ways out.
    pub fn reserve(
        &mut self,
        slot: Slot,
        wanted: Wanted,
        routes: &[Subnet],
    ) -> Result<Addresses, SubnetError> {
        let overlap =
            |other, user| Err(SubnetError::Overlap { wanted: wanted.network, other, user });
        if meets(wanted.network, self.pool) {
            return overlap(self.pool, "the pool of this daemon");
        }
        let is_met = |route: &&Subnet| route.1 >= PREFIX_MIN && meets(wanted.network, **route);
        if let Some(route) = routes.iter().find(is_met) {
            return overlap(*route, "to which this box has a route");
        }
        let others = self.held.iter().filter(|(holder, _)| **holder != slot);
        let mut taken = Vec::new();
        for (_, theirs) in others {
            let other = theirs.subnet();
            if other == wanted.network {
                taken.push(theirs.container.to_bits());
            } else if meets(wanted.network, other) {
                return overlap(other, "the network of another container");
            }
        }
        taken.sort_unstable();
        let free = |address: &u32| taken.binary_search(address).is_err();
        let container = match wanted.address.map(Ipv4Addr::to_bits) {
            Some(address) if free(&address) => address,
            Some(address) => return Err(SubnetError::Taken(Ipv4Addr::from_bits(address))),
            // Ends after one step more than there are containers.
            None => wanted.usable().find(free).ok_or(SubnetError::Full(wanted.network))?,
        };
        let addresses = Addresses {
            gateway: Ipv4Addr::from_bits(wanted.network.0.to_bits() + 1),
            container: Ipv4Addr::from_bits(container),
            prefix: wanted.network.1,
        };
        self.held.insert(slot, addresses);
        Ok(addresses)
    }

    /// Gives a slot the very address that it had before a restart; routes lead there already.
    pub fn restore(&mut self, slot: Slot, had: Addresses) -> Result<(), SubnetError> {
        let wanted = Wanted { network: had.subnet(), address: Some(had.container) };
        self.reserve(slot, wanted, &[]).map(drop)
    }

    /// Takes a slot's address back; a slot without one stays so.
    pub fn release(&mut self, slot: Slot) {
        self.held.remove(&slot);
    }

    /// What a slot has.
    pub fn get(&self, slot: Slot) -> Option<Addresses> {
        self.held.get(&slot).copied()
    }
}

impl Addresses {
    /// The network that both are in.
    pub fn subnet(&self) -> Subnet {
        (plan::network((self.gateway, self.prefix)), self.prefix)
    }

    /// The first and the last address of that network.
    pub fn range(&self) -> (Ipv4Addr, Ipv4Addr) {
        let first = self.subnet().0;
        let hosts = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        (first, Ipv4Addr::from_bits(first.to_bits() | hosts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().expect("address")
    }

    fn slot(n: u32) -> Slot {
        Slot::new(n).expect("slot")
    }

    fn subnets() -> Subnets {
        Subnets::new((ip("10.254.0.0"), 16))
    }

    fn get(subnets: &mut Subnets, n: u32, text: &str) -> Result<String, SubnetError> {
        let got = subnets.reserve(slot(n), Wanted::parse(text)?, &[])?;
        Ok(format!("{} {}/{}", got.gateway, got.container, got.prefix))
    }

    #[test]
    fn a_network_is_read_as_garden_reads_it() {
        for (text, network, address) in [
            ("10.9.1.0/24", "10.9.1.0", None),
            ("10.9.1.7/24", "10.9.1.0", Some("10.9.1.7")),
            ("10.9.1.4", "10.9.1.4", None),
            ("10.9.1.6", "10.9.1.4", Some("10.9.1.6")),
            ("10.0.0.0/8", "10.0.0.0", None),
        ] {
            let wanted = Wanted::parse(text).expect(text);
            assert_eq!(
                (wanted.network.0, wanted.address),
                (ip(network), address.map(ip)),
                "{text}"
            );
        }
        for text in ["", "/", "10.9.1", "10.9.1.0/", "10.9.1.0/+8", "10.9.1.0/999", "a/8", "::/8"] {
            assert!(matches!(Wanted::parse(text), Err(SubnetError::Text(_))), "{text}");
        }
        for (text, prefix) in [("10.9.1.0/31", 31), ("10.9.1.0/32", 32), ("0.0.0.0/0", 0)] {
            assert_eq!(Wanted::parse(text), Err(SubnetError::Prefix(prefix)));
        }
        for text in ["10.9.1.1/24", "10.9.1.255/24", "10.9.1.5", "10.9.1.7"] {
            let address = ip(text.split('/').next().expect("first"));
            assert_eq!(Wanted::parse(text), Err(SubnetError::Reserved(address)));
        }
        for text in ["127.0.0.0/24", "169.254.1.0/24", "169.0.0.0/8", "224.0.0.0/24", "0.1.0.0/24"]
        {
            assert!(matches!(Wanted::parse(text), Err(SubnetError::Special(_))), "{text}");
        }
    }

    #[test]
    fn containers_share_an_equal_network_and_each_has_an_address_of_its_own() {
        let mut all = subnets();
        let yes = |text: &str| Ok(text.to_owned());
        assert_eq!(get(&mut all, 0, "10.9.1.0/29"), yes("10.9.1.1 10.9.1.2/29"));
        assert_eq!(get(&mut all, 1, "10.9.1.4/29"), yes("10.9.1.1 10.9.1.4/29"));
        assert_eq!(get(&mut all, 2, "10.9.1.0/29"), yes("10.9.1.1 10.9.1.3/29"));
        assert_eq!(get(&mut all, 3, "10.9.1.4/29"), Err(SubnetError::Taken(ip("10.9.1.4"))));
        assert_eq!(get(&mut all, 1, "10.9.1.4/29"), yes("10.9.1.1 10.9.1.4/29"), "its own");
        assert_eq!(get(&mut all, 3, "10.9.1.0/29"), yes("10.9.1.1 10.9.1.5/29"));
        assert_eq!(get(&mut all, 4, "10.9.1.0/29"), yes("10.9.1.1 10.9.1.6/29"));
        assert_eq!(get(&mut all, 5, "10.9.1.0/29"), Err(SubnetError::Full((ip("10.9.1.0"), 29))));
        all.release(slot(2));
        all.release(slot(2));
        assert_eq!(get(&mut all, 5, "10.9.1.0/29"), yes("10.9.1.1 10.9.1.3/29"));
    }

    #[test]
    fn what_meets_the_pool_a_route_or_an_unequal_network_is_refused() {
        let mut all = subnets();
        get(&mut all, 0, "10.9.1.0/24").expect("first");
        for text in ["10.9.1.0/25", "10.9.0.0/16", "10.9.1.128/30", "10.254.7.0/24", "10.0.0.0/8"] {
            let err = get(&mut all, 1, text).expect_err(text);
            assert!(matches!(err, SubnetError::Overlap { .. }), "{err}");
        }
        let wanted = Wanted::parse("192.168.1.0/24").expect("text");
        let routes = [(ip("0.0.0.0"), 0), (ip("192.168.0.0"), 16)];
        assert!(all.reserve(slot(1), wanted, &routes).is_err());
        all.reserve(slot(1), wanted, &routes[..1]).expect("the default route meets nothing");
        assert_eq!(all.get(slot(2)), None, "a refusal holds nothing");
        all.release(slot(0));
        get(&mut all, 2, "10.9.0.0/16").expect("free again");
    }

    #[test]
    fn what_was_held_before_a_restart_is_held_again() {
        let mut before = subnets();
        get(&mut before, 7, "10.9.1.0/24").expect("first");
        let had = before.get(slot(7)).expect("held");
        let mut after = subnets();
        after.restore(slot(7), had).expect("restore");
        assert_eq!(after.get(slot(7)), Some(had));
        assert_eq!(get(&mut after, 8, "10.9.1.2/24"), Err(SubnetError::Taken(had.container)));
        assert!(after.restore(slot(9), had).is_err());
    }
}
