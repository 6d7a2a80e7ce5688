//! One subnet's configuration, ready for questions: which addresses may be handed out, and what is kept for whom.

use std::{collections::HashMap, net::Ipv6Addr};

use ipnet::Ipv6Net;

use crate::{
    config::{Dhcp6Config, Ipv6Config, LEASE_TIME_6, LeaseTime, Range6, Reservation6},
    hostname,
};

/// The configuration and its indexes.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    dhcp: Dhcp6Config,
    pub(super) resolvers: Vec<Ipv6Addr>,
    by_duid: HashMap<Vec<u8>, usize>,
    by_name: HashMap<String, usize>,
    by_address: HashMap<Ipv6Addr, usize>,
}

/// A reservation; two are the same only if they are the same entry of the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserved<'a> {
    index: usize,
    pub(super) host: &'a Reservation6,
}

impl Policy {
    /// The policy of a network; none if it has no DHCPv6.
    pub(crate) fn new(config: &Ipv6Config) -> Option<Self> {
        let dhcp = config.dhcp.clone()?;
        let (mut by_duid, mut by_name, mut by_address) = (HashMap::new(), HashMap::new(), HashMap::new());
        for (index, host) in dhcp.hosts.iter().enumerate() {
            if let Some(duid) = &host.duid {
                by_duid.entry(duid.clone()).or_insert(index);
            }
            if let Some(name) = &host.name {
                by_name.entry(hostname::key(name)).or_insert(index);
            }
            if let Some(address) = host.address {
                by_address.entry(address).or_insert(index);
            }
        }
        Some(Policy { dhcp, resolvers: config.dns.clone(), by_duid, by_name, by_address })
    }

    pub(crate) fn subnet(&self) -> Ipv6Net {
        self.dhcp.server
    }

    /// Whether the client could have this address at all: in the subnet, and neither ours nor the routers' anycast
    /// (RFC 4291 §2.6.1).
    pub(super) fn is_host(&self, address: Ipv6Addr) -> bool {
        let subnet = self.subnet();
        let anycast = subnet.prefix_len() < 127 && address == subnet.network();
        subnet.contains(&address) && !anycast && address != subnet.addr() && !self.resolvers.contains(&address)
    }

    /// Whether the address may be given to a client it isn't reserved for.
    pub(super) fn in_pool(&self, address: Ipv6Addr) -> bool {
        self.range(address).is_some() && self.is_host(address)
    }

    /// Addresses in all ranges, usable or not.
    pub(super) fn pool_len(&self) -> u128 {
        self.dhcp.ranges.iter().fold(0, |sum: u128, range| sum.saturating_add(range_len(range)))
    }

    /// The address at a place in the ranges, laid end to end.
    pub(super) fn pool_at(&self, mut place: u128) -> Option<Ipv6Addr> {
        for range in &self.dhcp.ranges {
            let len = range_len(range);
            if place < len {
                return Some(Ipv6Addr::from_bits(range.start.to_bits() + place));
            }
            place -= len;
        }
        None
    }

    /// How many reservations there are.
    pub(super) fn reservations(&self) -> usize {
        self.dhcp.hosts.len()
    }

    /// The reservation of a client, by its DUID, or else by a name it has the right to.
    pub(super) fn reservation(&self, duid: &[u8], name: Option<&str>) -> Option<Reserved<'_>> {
        let by_name = || {
            let index = *self.by_name.get(&hostname::key(name?))?;
            self.dhcp.hosts[index].duid.is_none().then_some(index)
        };
        let index = self.by_duid.get(duid).copied().or_else(by_name)?;
        Some(Reserved { index, host: &self.dhcp.hosts[index] })
    }

    /// Whether the address is kept for a client other than the one with this reservation, if it has any.
    pub(super) fn is_reserved_for_another(&self, address: Ipv6Addr, own: Option<Reserved<'_>>) -> bool {
        let own = own.map(|reserved| reserved.index);
        self.by_address.get(&address).is_some_and(|host| Some(*host) != own)
    }

    /// Whether the name is kept for a client other than the one with this reservation, if it has any.
    pub(super) fn is_name_of_another(&self, name: &str, own: Option<Reserved<'_>>) -> bool {
        let own = own.map(|reserved| reserved.index);
        self.by_name.get(&hostname::key(name)).is_some_and(|host| Some(*host) != own)
    }

    /// How long a lease lasts: the reservation's time, else the range's.
    pub(super) fn lease_time(&self, address: Ipv6Addr, own: Option<Reserved<'_>>) -> LeaseTime {
        let reserved = own.filter(|own| own.host.address == Some(address)).and_then(|own| own.host.lease);
        let range = || self.range(address).or(self.dhcp.ranges.first()).map(|range| range.lease);
        reserved.or_else(range).unwrap_or(LEASE_TIME_6)
    }

    fn range(&self, address: Ipv6Addr) -> Option<&Range6> {
        self.dhcp.ranges.iter().find(|range| (range.start..=range.end).contains(&address))
    }
}

/// A range that is all there is has one address less: there is no number for it, and no such subnet.
fn range_len(range: &Range6) -> u128 {
    range.end.to_bits().saturating_sub(range.start.to_bits()).saturating_add(1)
}
