//! Requests about port forwards: which can be added and taken away, and where each leads at the moment.

mod whereabouts;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

#[cfg(test)]
pub(crate) use whereabouts::Leased;
pub(crate) use whereabouts::Whereabouts;

use super::{Live, Refusal, Registry};
use crate::{
    check::Conflict,
    model::{
        ForwardError, HostPort, MacAddr, Network, NetworkName, PortForward, Ports, Protocol, Target, To,
        forward_address,
    },
};

/// A network with one forward more or less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardChange {
    /// Which.
    pub name: NetworkName,
    /// Its definition, where that changes.
    pub definition: Option<Network>,
    /// As it is live, where that changes.
    pub live: Option<Network>,
    /// The forward.
    pub forward: PortForward,
}

/// The addresses of one network's guests.
#[derive(Default)]
struct Guests {
    by_port: BTreeMap<String, Ipv4Addr>,
    by_claim: BTreeMap<String, Ipv4Addr>,
    /// In IPv6 nobody is known by a name of their own choice.
    ipv6: BTreeMap<String, Ipv6Addr>,
}

impl Registry {
    /// What it takes to add a forward to the network `key`: live and to its definition, as far as it has them.
    pub fn add_forward(&self, key: &str, forward: PortForward) -> Result<ForwardChange, Refusal> {
        let (name, entry) = self.find(key)?;
        let with = |network: &Network| {
            network.check_forward(&forward).map_err(|cause| match cause {
                ForwardError::Twice(port) => Refusal::Conflict(Conflict::Forward { port, other: name.clone() }),
                cause => Refusal::Forward(cause),
            })?;
            let mut network = network.clone();
            network.forwards.push(forward.clone());
            Ok::<_, Refusal>(network)
        };
        let definition = entry.definition.as_ref().map(with).transpose()?;
        let live = entry.live.as_ref().map(|live| with(&live.network)).transpose()?;
        for network in [&definition, &live].into_iter().flatten() {
            self.refuse_conflicts(network, |conflict| matches!(conflict, Conflict::Forward { .. }))?;
        }
        Ok(ForwardChange { name: name.clone(), definition, live, forward })
    }

    /// What it takes to end the forward of these ports. Without an address only one can be meant; 0.0.0.0 is every IPv4
    /// address, as `::` is every IPv6 one.
    pub fn delete_forward(
        &self,
        key: &str,
        protocol: Protocol,
        ports: Ports,
        address: Option<IpAddr>,
    ) -> Result<ForwardChange, Refusal> {
        let (name, entry) = self.find(key)?;
        let is_it = |forward: &&PortForward| {
            let at = forward.at();
            let whole = at.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            at.protocol == protocol && at.ports == ports && address.is_none_or(|address| address == whole)
        };
        let mut found: Vec<&PortForward> = Vec::new();
        for forward in entry.forms().flat_map(|network| network.forwards.iter().filter(is_it)) {
            if !found.iter().any(|known| known.at() == forward.at()) {
                found.push(forward);
            }
        }
        let what = || HostPort { protocol, ports, address };
        let forward = match found.as_slice() {
            [] => return Err(Refusal::NoForward { port: what(), network: name.to_string() }),
            [forward] => (*forward).clone(),
            _ => return Err(Refusal::WhichForward { port: what(), network: name.to_string() }),
        };
        let without = |network: &Network| {
            let mut network = network.clone();
            let before = network.forwards.len();
            network.forwards.retain(|other| other.at() != forward.at());
            (network.forwards.len() != before).then_some(network)
        };
        Ok(ForwardChange {
            name: name.clone(),
            definition: entry.definition.as_ref().and_then(without),
            live: entry.live.as_ref().and_then(|live| without(&live.network)),
            forward,
        })
    }

    /// The network's forms are those of the change now. Returns the change that takes this back.
    pub fn forward_changed(&mut self, change: ForwardChange) -> ForwardChange {
        let ForwardChange { name, mut definition, mut live, forward } = change;
        self.change(&name, |entry| {
            if let (Some(new), Some(old)) = (&mut definition, &mut entry.definition) {
                std::mem::swap(new, old);
            }
            if let (Some(new), Some(old)) = (&mut live, &mut entry.live) {
                old.desired.route_localnet = new.forwards.iter().any(|forward| !forward.at().is_ipv6());
                std::mem::swap(new, &mut old.network);
            }
        });
        ForwardChange { name, definition, live, forward }
    }

    /// Every forward of every active network with its targets as they are; sorted.
    pub fn forwards(&self, known: &impl Whereabouts) -> Vec<nat::Forward> {
        let live = self.networks.iter().filter_map(|(name, entry)| Some((name, entry.live.as_ref()?)));
        let mut resolved: Vec<_> = live.flat_map(|(name, live)| self.forwards_of(name, live, known)).collect();
        resolved.sort();
        resolved
    }

    /// Those of the active network on this bridge; sorted.
    pub fn forwards_on(&self, bridge: &str, known: &impl Whereabouts) -> Vec<nat::Forward> {
        let live = self.on_bridge(bridge).and_then(|name| Some((name, self.networks.get(name)?.live.as_ref()?)));
        let mut resolved = live.map(|(name, live)| self.forwards_of(name, live, known)).unwrap_or_default();
        resolved.sort();
        resolved
    }

    fn forwards_of(&self, name: &NetworkName, live: &Live, known: &impl Whereabouts) -> Vec<nat::Forward> {
        let mut resolved = Vec::new();
        if live.network.forwards.is_empty() {
            return resolved;
        }
        let guests = self.guests(name, &live.network, known);
        for forward in &live.network.forwards {
            let (at, Some(bridge)) = (forward.at(), live.desired.bridge()) else { continue };
            resolved.push(nat::Forward {
                protocol: match at.protocol {
                    Protocol::Tcp => nat::Protocol::Tcp,
                    Protocol::Udp => nat::Protocol::Udp,
                },
                address: at.address,
                ports: (at.ports.first(), at.ports.last()),
                bridge: bridge.to_owned(),
                subnets: live.network.subnets.iter().map(|subnet| subnet.address.trunc()).collect(),
                targets: forward
                    .targets()
                    .iter()
                    .filter_map(|target| Some((guests.address(&target.to, at)?, target.port)))
                    .filter(|(address, _)| live.network.subnets.iter().any(|s| s.address.contains(address)))
                    .collect(),
            });
        }
        resolved
    }

    /// The forwards of the network `key`, or of all, as clients see them.
    pub fn view_forwards(
        &self,
        key: Option<&str>,
        known: &impl Whereabouts,
    ) -> Result<Vec<netd_api::Forward>, Refusal> {
        let only = key.map(|key| self.find(key)).transpose()?.map(|(name, _)| name);
        let mut views = Vec::new();
        for (name, entry) in self.networks.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
            let Some(network) = entry.network().filter(|network| !network.forwards.is_empty()) else { continue };
            let guests = entry.live.as_ref().map(|live| self.guests(name, &live.network, known)).unwrap_or_default();
            views.extend(network.forwards.iter().map(|forward| view(name, forward, &guests)));
        }
        Ok(views)
    }

    /// One forward of a network, as clients see it.
    pub fn view_forward(
        &self,
        name: &NetworkName,
        forward: &PortForward,
        known: &impl Whereabouts,
    ) -> netd_api::Forward {
        let live = self.find_live(name.as_str()).ok();
        let guests = live.map(|(_, live)| self.guests(name, &live.network, known)).unwrap_or_default();
        view(name, forward, &guests)
    }

    /// Where each guest is: by the leases of its ports, in the order of their interfaces; who has no port of ours is
    /// known by the name it gave for its lease, as DNS knows it.
    ///
    /// A guest whose port has a name is never known by another one, and who has just been unplugged not at all. In IPv6
    /// a port that has no lease is at the address it was seen to use.
    fn guests(&self, name: &NetworkName, network: &Network, known: &impl Whereabouts) -> Guests {
        let leases = known.leases(name.as_str());
        let of_mac: BTreeMap<MacAddr, &dhcp::Lease> =
            leases.iter().map(|lease| (MacAddr(lease.mac.0), lease)).collect();
        let (mut by_port, mut by_claim, mut ipv6) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut named = BTreeSet::new();
        for port in self.ports(Some(name)) {
            let Some(guest) = &port.guest else { continue };
            if let Some(address) = whereabouts::ipv6(port.mac, network, known) {
                ipv6.entry(guest.clone()).or_insert(address);
            }
            named.insert(port.mac);
            if let Some(lease) = of_mac.get(&port.mac) {
                by_port.entry(guest.clone()).or_insert(lease.address);
            }
        }
        for (mac, lease) in &of_mac {
            let Some(claimed) = &lease.hostname else { continue };
            if !named.contains(mac) && !self.unplugged.contains(mac) {
                by_claim.entry(claimed.to_ascii_lowercase()).or_insert(lease.address);
            }
        }
        // The name of a guest with a port is nobody else's, whether it has an address or not.
        for guest in self.ports(Some(name)).iter().filter_map(|port| port.guest.as_ref()) {
            by_claim.remove(&guest.to_ascii_lowercase());
        }
        Guests { by_port, by_claim, ipv6 }
    }
}

impl Guests {
    /// Where it is in the family of the host's port.
    fn address(&self, to: &To, at: HostPort) -> Option<IpAddr> {
        match to {
            To::Address(address) => Some(*address),
            To::Guest(name) if at.is_ipv6() => self.ipv6.get(name).copied().map(IpAddr::from),
            To::Guest(name) => {
                let known = self.by_port.get(name).or_else(|| self.by_claim.get(&name.to_ascii_lowercase()));
                known.copied().map(IpAddr::from)
            }
        }
    }
}

fn view(name: &NetworkName, forward: &PortForward, guests: &Guests) -> netd_api::Forward {
    let at = forward.at();
    let target = |target: &Target| netd_api::ForwardTarget {
        guest: match &target.to {
            To::Guest(name) => Some(name.clone()),
            To::Address(_) => None,
        },
        address: guests.address(&target.to, at).map(|address| address.to_string()),
        port: target.port.into(),
    };
    netd_api::Forward {
        network: name.to_string(),
        protocol: match at.protocol {
            Protocol::Tcp => netd_api::Protocol::Tcp,
            Protocol::Udp => netd_api::Protocol::Udp,
        },
        first_port: at.ports.first().into(),
        last_port: at.ports.last().into(),
        address: at.address.map(|address| address.to_string()),
        targets: forward.targets().iter().map(target).collect(),
    }
}

/// The protocol as the model has it.
pub(crate) fn protocol(protocol: netd_api::Protocol) -> Protocol {
    match protocol {
        netd_api::Protocol::Tcp => Protocol::Tcp,
        netd_api::Protocol::Udp => Protocol::Udp,
    }
}

/// The ports as the model has them.
pub(crate) fn ports(first: u32, last: u32) -> Result<Ports, ForwardError> {
    let port = |number: u32| u16::try_from(number).map_err(|_| ForwardError::Ports(number.to_string()));
    Ports::new(port(first)?, port(last)?)
}

/// The forward that a request asks for.
pub(crate) fn requested(request: &netd_api::Forward) -> Result<PortForward, ForwardError> {
    let at = HostPort {
        protocol: protocol(request.protocol),
        ports: ports(request.first_port, request.last_port)?,
        address: request.address.as_deref().map(forward_address).transpose()?,
    };
    let mut targets = Vec::new();
    for target in &request.targets {
        let to = match (&target.guest, &target.address) {
            (Some(guest), _) => To::Guest(guest.clone()),
            (None, Some(address)) => To::Address(forward_address(address)?),
            (None, None) => return Err(ForwardError::NoTarget),
        };
        let port = u16::try_from(target.port).map_err(|_| ForwardError::Ports(target.port.to_string()))?;
        targets.push(Target { to, port });
    }
    PortForward::new(at, targets)
}

#[cfg(test)]
mod tests;
