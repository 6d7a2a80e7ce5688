//! Requests about ports: who may have one, whose it is, where its guest can be reached.

use std::net::IpAddr;

use nat::guards::Sources;
use netd_api::AddressOrigin;

use super::{Live, Refusal, Registry};
use crate::{
    host::Neighbour,
    model::{LONGEST_GUEST, MacAddr, Macvtap, MacvtapMode, Network, NetworkName, PortGroup, Rate},
    plan::{self, Bridge, Desired, Ground, Place},
    port::{DEFAULT_MTU, MOST_QUEUES, Port},
    shape::{MOST_FLOORS, Shape},
    snoop::{Origin, Seen},
};

/// More MACs of ports that are gone than are worth remembering.
const MOST_UNPLUGGED: usize = 10_000;

/// What a caller wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortRequest {
    /// The network's name or UUID.
    pub network: String,
    /// The guest's name.
    pub guest: Option<String>,
    /// The guest's MAC.
    pub mac: Option<String>,
    /// Queue pairs.
    pub queues: u32,
    /// Whether what the guest sends is checked; yes if absent, where it can be.
    pub guards: Option<bool>,
    /// The port group; the network's default one if absent.
    pub portgroup: Option<String>,
}

/// A port to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// The network.
    pub network: NetworkName,
    /// The guest's name.
    pub guest: Option<String>,
    /// The MAC of the guest's side.
    pub mac: MacAddr,
    /// Greatest packet size in bytes; that of what it is on if absent.
    pub mtu: Option<u32>,
    /// Queue pairs.
    pub queues: u32,
    /// What it is and what it goes on.
    pub plug: Plug,
    /// The bridge to put it on, if that is the host's and not ours.
    pub host_bridge: Option<String>,
    /// How fast it may be.
    pub shape: Shape,
    /// The port group, if the caller named one.
    pub group: Option<String>,
    /// What the guest sends is checked.
    pub guards: bool,
    /// What IPv4 addresses it may use beside its own, if it is guarded.
    pub sources: Sources,
    /// It stays until it is deleted.
    pub kept: bool,
}

/// What a port is and what it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plug {
    /// A tap on a bridge.
    Tap {
        /// The bridge.
        bridge: String,
        /// What it is there.
        place: Place,
    },
    /// A macvtap on an interface of the host.
    Macvtap {
        /// The interface.
        interface: String,
        /// Whom it reaches beside the outside.
        mode: MacvtapMode,
    },
}

impl Plug {
    /// The name of the bridge or interface.
    pub fn on(&self) -> &str {
        match self {
            Plug::Tap { bridge, .. } => bridge,
            Plug::Macvtap { interface, .. } => interface,
        }
    }
}

impl Registry {
    /// Whether the request can be granted, and what to make. `fresh` gives MACs to choose from.
    pub fn add_port(&self, request: &PortRequest, mut fresh: impl FnMut() -> MacAddr) -> Result<PortSpec, Refusal> {
        let (network, live) = self.find_live(&request.network)?;
        if !(1..=MOST_QUEUES).contains(&request.queues) {
            return Err(argument("queues", &request.queues.to_string(), format!("a number from 1 to {MOST_QUEUES}")));
        }
        if let Some(guest) = &request.guest
            && (guest.is_empty() || guest.len() > LONGEST_GUEST || guest.chars().any(char::is_control))
        {
            return Err(argument("guest", guest, format!("a name of 1 to {LONGEST_GUEST} printable characters")));
        }
        let mac = match &request.mac {
            Some(text) => {
                let mac = text
                    .parse()
                    .map_err(|_| argument("mac", text, "a unicast MAC address like 52:54:00:12:34:56".into()))?;
                self.refuse_mac(mac, live)?;
                mac
            }
            None => loop {
                let mac = fresh();
                if self.refuse_mac(mac, live).is_ok() {
                    break mac;
                }
            },
        };
        let group = plan::group(&live.network, request.portgroup.as_deref());
        if let (Some(name), None) = (&request.portgroup, group) {
            return Err(Refusal::NoPortGroup { network: network.to_string(), group: name.clone() });
        }
        self.refuse_floor(network, live, group, mac)?;
        let trunk = plan::is_trunk(&live.network, group);
        if trunk && request.guards == Some(true) {
            return Err(Refusal::NoGuardsOnTrunk(network.to_string()));
        }
        let guards = request.guards.unwrap_or(!trunk);
        let plug = match &live.desired.ground {
            Ground::Own(Bridge { name, .. }) | Ground::Host(name) => {
                Plug::Tap { bridge: name.clone(), place: plan::place_of(&live.network, group, guards, mac) }
            }
            Ground::Interfaces(macvtap) => {
                if request.guards == Some(true) {
                    return Err(Refusal::NoGuards(network.to_string()));
                }
                let interface = self.interface_for_port(network, macvtap)?;
                Plug::Macvtap { interface, mode: macvtap.mode }
            }
        };
        let macvtap = matches!(plug, Plug::Macvtap { .. });
        let own = matches!(live.desired.ground, Ground::Own(_));
        let host_bridge = match &live.desired.ground {
            Ground::Host(name) => Some(name.clone()),
            Ground::Own(_) | Ground::Interfaces(_) => None,
        };
        Ok(PortSpec {
            network: network.clone(),
            guest: request.guest.clone(),
            mac,
            mtu: live.network.mtu.or(own.then_some(DEFAULT_MTU)),
            queues: request.queues,
            plug,
            host_bridge,
            shape: plan::shape_of(group, macvtap),
            group: request.portgroup.clone(),
            guards: guards && !macvtap,
            sources: live.desired.sources.clone(),
            kept: false,
        })
    }

    /// The interface with the fewest ports, of whichever network; for a port that must have it alone, one with none.
    fn interface_for_port(&self, network: &NetworkName, macvtap: &Macvtap) -> Result<String, Refusal> {
        let on = |interface: &str| {
            let is_on = |port: &&Port| port.macvtap.as_ref().is_some_and(|on| on.interface == interface);
            self.ports.values().filter(is_on).count()
        };
        let alone = macvtap.mode == MacvtapMode::Passthrough;
        let fewest = macvtap.interfaces.iter().min_by_key(|interface| on(interface));
        fewest
            .filter(|interface| !alone || on(interface) == 0)
            .cloned()
            .ok_or_else(|| Refusal::NoFreeInterface(network.to_string()))
    }

    /// What a port has for sure, the network must have to give.
    fn refuse_floor(
        &self,
        network: &NetworkName,
        live: &Live,
        group: Option<&PortGroup>,
        mac: MacAddr,
    ) -> Result<(), Refusal> {
        let Some(floor) = plan::floor(group) else { return Ok(()) };
        let inbound = live.network.bandwidth.as_ref().and_then(|bandwidth| bandwidth.inbound);
        let (Some(inbound), Some(_)) = (inbound, live.desired.bridge()) else {
            return Err(Refusal::NoInbound { mac, network: network.to_string() });
        };
        let groups = self.ports_of(network).map(|port| plan::group(&live.network, port.group.as_deref()));
        let floors: Vec<u64> = groups.filter_map(plan::floor).collect();
        let promised = floors.iter().sum::<u64>() + floor;
        refuse_overcommitment(inbound, promised, floors.len() + 1).map_err(|what| Refusal::Overcommitted {
            mac,
            bridge: live.desired.bridge().unwrap_or_default().to_owned(),
            what,
            network: network.to_string(),
        })
    }

    /// The port that may be deleted: one that is kept. Others go when their guests' programs end.
    pub fn delete_port(&self, interface: &str) -> Result<&Port, Refusal> {
        let port = self.ports.values().find(|port| port.interface == interface);
        let port = port.ok_or_else(|| Refusal::NoPort(interface.to_owned()))?;
        if port.kept { Ok(port) } else { Err(Refusal::PortInUse(interface.to_owned())) }
    }

    /// The floors of ports that are there must fit what the network will have to give.
    pub(super) fn refuse_floors(&self, network: &Network, to: &Desired) -> Result<(), Refusal> {
        let floor = |port: &Port| plan::floor(plan::group(network, port.group.as_deref()));
        let floors: Vec<(MacAddr, u64)> =
            self.ports_of(&network.name).filter_map(|port| Some((port.mac, floor(port)?))).collect();
        let Some(&(mac, _)) = floors.last() else { return Ok(()) };
        let inbound = network.bandwidth.as_ref().and_then(|bandwidth| bandwidth.inbound);
        let (Some(inbound), Some(bridge)) = (inbound, to.bridge()) else {
            return Err(Refusal::NoInbound { mac, network: network.name.to_string() });
        };
        let promised = floors.iter().map(|(_, rate)| rate).sum();
        refuse_overcommitment(inbound, promised, floors.len()).map_err(|what| Refusal::Overcommitted {
            mac,
            bridge: bridge.to_owned(),
            what,
            network: network.name.to_string(),
        })
    }

    fn refuse_mac(&self, mac: MacAddr, live: &Live) -> Result<(), Refusal> {
        if let Ground::Own(bridge) = &live.desired.ground
            && bridge.mac == mac
        {
            return Err(Refusal::MacOfBridge { mac, bridge: bridge.name.clone() });
        }
        match self.ports.values().find(|port| port.mac == mac) {
            Some(port) => {
                Err(Refusal::MacInUse { mac, interface: port.interface.clone(), network: port.network.clone() })
            }
            None => Ok(()),
        }
    }

    /// How fast the network may be with the ports it has now, and its bridge; none if nothing has changed.
    pub fn reshaped(&mut self, name: &NetworkName) -> Option<(String, Shape)> {
        let (_, live) = self.find_live(name.as_str()).ok()?;
        let ports: Vec<&Port> = self.ports_of(name).collect();
        let shape = plan::network_shape(&live.network, &ports);
        if shape == live.desired.shape {
            return None;
        }
        let bridge = live.desired.bridge()?.to_owned();
        self.change(name, |entry| {
            if let Some(live) = &mut entry.live {
                live.desired.shape = shape.clone();
            }
        });
        Some((bridge, shape))
    }

    /// The port exists now.
    pub fn port_added(&mut self, port: Port) {
        self.unplugged.remove(&port.mac);
        self.ports.insert(port.index, port);
    }

    /// The network's taps have this MTU now. Returns those that had another.
    pub fn set_port_mtu(&mut self, network: &NetworkName, mtu: u32) -> Vec<Port> {
        let of_network = |port: &&mut Port| port.network == network.as_str() && port.mtu != mtu;
        self.ports
            .values_mut()
            .filter(of_network)
            .map(|port| {
                port.mtu = mtu;
                port.clone()
            })
            .collect()
    }

    /// The tap with this index is gone. Returns the port it was, if it was one.
    pub fn port_gone(&mut self, index: u32) -> Option<Port> {
        let port = self.ports.remove(&index)?;
        self.unplugged(port.mac);
        Some(port)
    }

    /// The port with this MAC is gone: its lease, which may have long to go, says nothing any more of where a guest is.
    pub fn unplugged(&mut self, mac: MacAddr) {
        if self.unplugged.len() >= MOST_UNPLUGGED {
            self.unplugged.clear();
        }
        self.unplugged.insert(mac);
    }

    /// The ports of one network, or all, by interface name.
    pub fn ports(&self, network: Option<&NetworkName>) -> Vec<&Port> {
        let mut ports: Vec<&Port> =
            self.ports.values().filter(|port| network.is_none_or(|name| port.network == name.as_str())).collect();
        ports.sort_by(|a, b| natural(&a.interface).cmp(&natural(&b.interface)));
        ports
    }

    /// The ports of one network.
    pub fn ports_of(&self, network: &NetworkName) -> impl Iterator<Item = &Port> {
        self.ports.values().filter(move |port| port.network == network.as_str())
    }

    /// The port of this interface name, or the ports of the guest of this name.
    pub fn ports_named(&self, key: &str) -> Result<Vec<&Port>, Refusal> {
        if let Some(port) = self.ports.values().find(|port| port.interface == key) {
            return Ok(vec![port]);
        }
        self.ports_of_guest(key).map_err(|_| Refusal::NoPort(key.to_owned()))
    }

    /// The port with this interface, or the active network with this bridge.
    pub(crate) fn interface(&self, interface: &str) -> Result<netd_api::Capture, Refusal> {
        let of = |network: &str, guest| netd_api::Capture {
            interface: interface.to_owned(),
            network: network.to_owned(),
            guest,
        };
        if let Some(port) = self.ports.values().find(|port| port.interface == interface) {
            return Ok(of(&port.network, port.guest.clone()));
        }
        let network = self.on_bridge(interface).ok_or_else(|| Refusal::NoPort(interface.to_owned()))?;
        Ok(of(network.as_str(), None))
    }

    /// The guarded ports, each with its network's bridge and sources if that is active.
    pub(crate) fn guarded(&self) -> Vec<(Port, Option<(String, Sources)>)> {
        let on = |port: &Port| {
            let (_, live) = self.find_live(&port.network).ok()?;
            Some((live.desired.bridge()?.to_owned(), live.desired.sources.clone()))
        };
        self.ports.values().filter(|port| port.guards).map(|port| (port.clone(), on(port))).collect()
    }

    /// The ports of one guest, by interface name.
    pub fn ports_of_guest(&self, guest: &str) -> Result<Vec<&Port>, Refusal> {
        let ports: Vec<&Port> =
            self.ports(None).into_iter().filter(|port| port.guest.as_deref() == Some(guest)).collect();
        if ports.is_empty() { Err(Refusal::NoGuest(guest.to_owned())) } else { Ok(ports) }
    }
}

/// The addresses that leases say these ports have.
pub(crate) fn leased(
    ports: &[Port],
    leases: impl Fn(&str) -> Vec<dhcp::Lease>,
    leases6: impl Fn(&str) -> Vec<dhcp::Lease6>,
) -> Vec<netd_api::Address> {
    let of = |port: &Port| {
        let leases = leases(&port.network).into_iter().map(|lease| (lease.mac, lease.address.into(), lease.prefix));
        let leases6 = leases6(&port.network).into_iter().map(|lease| (lease.mac, lease.address.into(), lease.prefix));
        let of_port = leases.chain(leases6).filter(|(mac, ..)| mac.0 == port.mac.0);
        of_port.map(|(_, ip, prefix)| address(port, ip, prefix, AddressOrigin::Lease, None)).collect::<Vec<_>>()
    };
    ports.iter().flat_map(of).collect()
}

/// The addresses that these ports were seen to use, by the kernel or by us; of each port the last seen first. Neither
/// knows prefix lengths.
pub(crate) fn seen(
    ports: &[Port],
    neighbours: &[Neighbour],
    heard: impl Fn(MacAddr) -> Vec<Seen>,
) -> Vec<netd_api::Address> {
    let of = |port: &Port| {
        let mut found: Vec<(IpAddr, AddressOrigin, u64)> =
            heard(port.mac).into_iter().map(|seen| (seen.address, origin(seen.origin), seen.age)).collect();
        for neighbour in neighbours.iter().filter(|neighbour| neighbour.mac == port.mac) {
            let known = (neighbour.address, AddressOrigin::Neighbour, neighbour.age);
            match found.iter_mut().find(|(address, ..)| *address == neighbour.address) {
                Some(older) if older.2 > neighbour.age => *older = known,
                Some(_) => {}
                None => found.push(known),
            }
        }
        found.sort_by_key(|&(_, _, age)| age);
        let of_port = |(ip, origin, age)| address(port, ip, 0, origin, Some(age));
        found.into_iter().map(of_port).collect::<Vec<_>>()
    };
    ports.iter().flat_map(of).collect()
}

/// Both: an address that is leased and seen is a lease with an age.
pub(crate) fn any(ports: &[Port], leased: &[netd_api::Address], seen: &[netd_api::Address]) -> Vec<netd_api::Address> {
    let mut all = Vec::new();
    for port in ports {
        let of_port = |all: &[netd_api::Address]| {
            all.iter().filter(|address| address.interface == port.interface).cloned().collect::<Vec<_>>()
        };
        let (mut leased, mut seen) = (of_port(leased), of_port(seen));
        for lease in &mut leased {
            let same = |other: &netd_api::Address| other.address == lease.address;
            lease.age_seconds = seen.iter().find(|other| same(other)).and_then(|other| other.age_seconds);
            seen.retain(|other| other.address != lease.address);
        }
        all.extend(leased);
        all.extend(seen);
    }
    all
}

fn origin(origin: Origin) -> AddressOrigin {
    match origin {
        Origin::Arp => AddressOrigin::Arp,
        Origin::Nd => AddressOrigin::Nd,
        Origin::Dhcp => AddressOrigin::Dhcp,
    }
}

fn address(port: &Port, ip: IpAddr, prefix: u8, source: AddressOrigin, age: Option<u64>) -> netd_api::Address {
    netd_api::Address {
        interface: port.interface.clone(),
        mac: port.mac.to_string(),
        protocol: if ip.is_ipv4() { "ipv4" } else { "ipv6" }.into(),
        address: ip.to_string(),
        prefix,
        source,
        age_seconds: age,
    }
}

/// Which of the network's numbers is too small for so many floors that promise so many bytes a second.
fn refuse_overcommitment(inbound: Rate, promised: u64, floors: usize) -> Result<(), &'static str> {
    let (what, limit) = match (inbound.peak, inbound.average) {
        (Some(peak), _) => ("peak", peak),
        (None, average) => ("average", average.unwrap_or(0)),
    };
    let fits = promised <= u64::from(limit) * plan::KILOBYTE && floors <= MOST_FLOORS;
    if fits { Ok(()) } else { Err(what) }
}

fn argument(what: &'static str, value: &str, expected: String) -> Refusal {
    Refusal::Argument { what, value: value.to_owned(), expected }
}

/// `vnet2` before `vnet10`.
fn natural(interface: &str) -> (&str, u64, &str) {
    let stem = interface.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = interface.get(stem.len()..).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    (stem, number, interface)
}
