//! One subnet's configuration, ready for questions: which addresses may be handed out, and what is kept for whom.

use std::{collections::HashMap, net::Ipv4Addr};

use ipnet::Ipv4Net;

use crate::{
    config::{Dhcp4Config, LeaseTime, Mac, Range4, Reservation4},
    hostname,
};

/// Shortest lease a client may ask for, in seconds: libvirt's own minimum for a range.
const MIN_LEASE: u32 = 120;

/// The configuration and its indexes.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    config: Dhcp4Config,
    by_mac: HashMap<Mac, usize>,
    by_name: HashMap<String, usize>,
    by_address: HashMap<Ipv4Addr, Vec<usize>>,
}

/// A reservation; two are the same only if they are the same entry of the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reserved<'a> {
    index: usize,
    pub(crate) host: &'a Reservation4,
}

impl Policy {
    pub(crate) fn new(config: Dhcp4Config) -> Self {
        let (mut by_mac, mut by_name, mut by_address) = (HashMap::new(), HashMap::new(), HashMap::new());
        for (index, host) in config.hosts.iter().enumerate() {
            if let Some(mac) = host.mac {
                by_mac.entry(mac).or_insert(index);
            }
            if let Some(name) = &host.name {
                by_name.entry(hostname::key(name)).or_insert(index);
            }
            if let Some(address) = host.address {
                by_address.entry(address).or_insert_with(Vec::new).push(index);
            }
        }
        Policy { config, by_mac, by_name, by_address }
    }

    pub(crate) fn config(&self) -> &Dhcp4Config {
        &self.config
    }

    /// Our own address.
    pub(crate) fn server(&self) -> Ipv4Addr {
        self.config.server.addr()
    }

    pub(crate) fn subnet(&self) -> Ipv4Net {
        self.config.server
    }

    /// Whether a client could have this address at all: in the subnet, and not the subnet's, ours or the gateway's.
    pub(crate) fn is_host(&self, address: Ipv4Addr) -> bool {
        let subnet = self.subnet();
        // A /31 or /32 has no network and broadcast address (RFC 3021).
        let edge = subnet.prefix_len() < 31 && (address == subnet.network() || address == subnet.broadcast());
        let taken =
            address == self.server() || self.config.router == Some(address) || self.config.dns.contains(&address);
        subnet.contains(&address) && !edge && !taken
    }

    /// Whether the address may be given to a client it isn't reserved for.
    ///
    /// Addresses ending in 0 or 255 are legal hosts in a large subnet, yet old Windows refuses them: left out.
    pub(crate) fn in_pool(&self, address: Ipv4Addr) -> bool {
        let classful_edge = self.subnet().prefix_len() < 24 && matches!(address.octets()[3], 0 | 255);
        self.range(address).is_some() && self.is_host(address) && !classful_edge
    }

    /// Addresses in all ranges, usable or not.
    pub(crate) fn pool_len(&self) -> u64 {
        self.config.ranges.iter().map(range_len).sum()
    }

    /// The address at a place in the ranges, laid end to end.
    pub(crate) fn pool_at(&self, mut place: u64) -> Option<Ipv4Addr> {
        for range in &self.config.ranges {
            let len = range_len(range);
            if place < len {
                return u32::try_from(u64::from(range.start.to_bits()) + place).ok().map(Ipv4Addr::from_bits);
            }
            place -= len;
        }
        None
    }

    /// The reservation of a client, by its MAC, or else by a name it has the right to.
    pub(crate) fn reservation(&self, mac: Mac, name: Option<&str>) -> Option<Reserved<'_>> {
        let by_name = || {
            let index = *self.by_name.get(&hostname::key(name?))?;
            self.config.hosts[index].mac.is_none().then_some(index)
        };
        let index = self.by_mac.get(&mac).copied().or_else(by_name)?;
        Some(Reserved { index, host: &self.config.hosts[index] })
    }

    /// Whether the address is kept for a client other than the one with this reservation, if it has any.
    pub(crate) fn is_reserved_for_another(&self, address: Ipv4Addr, own: Option<Reserved<'_>>) -> bool {
        let own = own.map(|reserved| reserved.index);
        self.by_address.get(&address).is_some_and(|hosts| !hosts.iter().any(|host| Some(*host) == own))
    }

    /// Whether the name is kept for a client other than the one with this reservation, if it has any.
    pub(crate) fn is_name_of_another(&self, name: &str, own: Option<Reserved<'_>>) -> bool {
        let own = own.map(|reserved| reserved.index);
        self.by_name.get(&hostname::key(name)).is_some_and(|host| Some(*host) != own)
    }

    /// How long a lease lasts: the reservation's time, else the range's; less if the client asked for less (option 51).
    pub(crate) fn lease_time(&self, address: Ipv4Addr, own: Option<Reserved<'_>>, asked: Option<u32>) -> LeaseTime {
        let reserved = own.and_then(|reserved| reserved.host.lease);
        let range = || self.range(address).or(self.config.ranges.first()).map(|range| range.lease);
        let most = reserved.or_else(range).unwrap_or_default();
        match (most, asked) {
            (most, None | Some(u32::MAX)) => most,
            (LeaseTime::Infinite, Some(asked)) => LeaseTime::Seconds(asked.max(MIN_LEASE)),
            (LeaseTime::Seconds(most), Some(asked)) => LeaseTime::Seconds(asked.max(MIN_LEASE).min(most)),
        }
    }

    fn range(&self, address: Ipv4Addr) -> Option<&Range4> {
        self.config.ranges.iter().find(|range| (range.start..=range.end).contains(&address))
    }
}

fn range_len(range: &Range4) -> u64 {
    (u64::from(range.end.to_bits()) + 1).saturating_sub(range.start.to_bits().into())
}
