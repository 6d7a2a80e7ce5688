//! From what is wanted and what is there to the steps between them. Pure: it never reads the host and never changes it.
//!
//! ```text
//! Network ──► Desired ─┐
//!       HostState ─────┴─► steps ──► (apply) ──► undos, kept in the journal ──► teardown
//! ```
//!
//! Planning again after the steps were done yields no step: that is how `apply` verifies its work.

mod desired;
mod ipv6;
mod place;
mod sysctls;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;

use ipnet::IpNet;
use nat::DnsRedirect;
use serde::{Deserialize, Serialize};

pub use desired::{Bridge, Desired, Ground, StaticRoute, desired, ground};
pub(crate) use place::{
    KILOBYTE, floor, group, is_trunk, isolates, network_shape, place as place_of, shape as shape_of, wish,
};
pub use place::{Place, PortVlan, PortWish};
pub(crate) use sysctls::{FORWARDING, FORWARDING6, sysctls};

use crate::{
    change::LiveStep,
    host::{HostState, Link, LinkKind},
    model::MacAddr,
    shape::Shape,
};

/// One change of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Makes the bridge, down.
    CreateBridge(Bridge),
    /// Gives an existing bridge the settings it should have.
    SetBridge(Bridge),
    /// Keeps IPv6 off a bridge that has no IPv6 address of ours.
    DisableIpv6 {
        /// The bridge.
        bridge: String,
    },
    /// Lets a bridge have IPv6 addresses, of ours and no others: none of router advertisements, which are not for it.
    EnableIpv6 {
        /// The bridge.
        bridge: String,
    },
    /// Lets what comes from 127.0.0.1 go out by the bridge, or not; what guests send to it is for `nat` to drop.
    RouteLocalnet {
        /// The bridge.
        bridge: String,
        /// Let it.
        on: bool,
    },
    /// Gives the host an address on the bridge.
    AddAddress {
        /// The bridge.
        bridge: String,
        /// The address with its prefix length.
        address: IpNet,
    },
    /// Sets the bridge up.
    LinkUp {
        /// The bridge.
        bridge: String,
    },
    /// Adds a route through a gateway on the network.
    AddRoute {
        /// The bridge.
        bridge: String,
        /// The route.
        route: StaticRoute,
    },
    /// Starts DHCP and DNS.
    StartServices(Box<dhcp::config::NetworkConfig>),
    /// Adds the network's rules to our table.
    AddFirewall(nat::Network),
    /// Lets the host route IPv4.
    EnableForwarding,
    /// Has the host take its routes from router advertisements also when it is a router itself.
    KeepRouterAdvertisements {
        /// The interface they come by.
        interface: String,
    },
    /// Lets the host route IPv6.
    EnableForwarding6,
    /// Guards the network's ports, which are on no bridge.
    GuardPorts {
        /// The network.
        network: String,
        /// The bridge they come to.
        bridge: String,
        /// What they may use beside their own addresses.
        sources: nat::guards::Sources,
    },
    /// Limits how fast the bridge may be.
    ShapeBridge {
        /// The bridge.
        bridge: String,
        /// How fast.
        shape: Shape,
    },
    /// Gives a tap on the bridge the settings it should have there.
    SettlePort {
        /// The tap's index.
        index: u32,
        /// What it is.
        place: Place,
    },
    /// Puts a guest's tap on the bridge.
    AttachPort {
        /// The bridge.
        bridge: String,
        /// The tap's index: its name may be another's by now.
        index: u32,
        /// What it is there.
        place: Place,
    },
    /// Limits how fast a port may be.
    ShapePort {
        /// The device's index.
        index: u32,
        /// How fast.
        shape: Shape,
    },
    /// Sets a macvtap up.
    PortUp {
        /// The device's index.
        index: u32,
    },
    /// Changes something of a network that runs.
    Live(LiveStep),
}

/// How one step is taken back. Each is done or found done: doing it twice, or after only a part of the step, is fine.
/// These are what the journal keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// Removes the bridge, if it still is the one with this MAC; addresses and routes go with it, ports leave it.
    DeleteBridge {
        /// The bridge.
        name: String,
        /// What makes it ours.
        #[serde(with = "mac_text")]
        mac: MacAddr,
    },
    /// Removes an address.
    RemoveAddress {
        /// The bridge.
        bridge: String,
        /// The address with its prefix length.
        address: IpNet,
    },
    /// Removes a route.
    RemoveRoute {
        /// The bridge.
        bridge: String,
        /// The route.
        route: StaticRoute,
    },
    /// Stops DHCP and DNS.
    StopServices {
        /// The network.
        network: String,
    },
    /// Takes the network's rules out of our table.
    RemoveFirewall(nat::Network),
    /// Takes our table away: the network was the last.
    RemoveTable,
    /// Takes away what limits a bridge that stays.
    FreeBridge {
        /// The bridge.
        bridge: String,
    },
    /// Stops the host from routing IPv4: we made it, and the network was the last that needs it.
    DisableForwarding,
    /// The same for IPv6.
    DisableForwarding6,
    /// Sets `accept_ra` back, from 2 to 1.
    RestoreRouterAdvertisements {
        /// The interface.
        interface: String,
    },
}

/// What of a network is not visible in [`HostState`] but known to be in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InPlace {
    /// Its rules are in our table, and its ports are guarded.
    pub firewall: bool,
    /// Its servers run.
    pub services: bool,
    /// Its port forwards are in our table, and what guards 127.0.0.1 with them.
    pub forwards: bool,
}

/// The steps that bring one network from what is there to what is wanted, in the order to do them.
pub fn plan(desired: &Desired, host: &HostState, in_place: InPlace) -> Vec<Step> {
    let mut steps = match &desired.ground {
        Ground::Own(own) => plan_bridge(desired, own, host, in_place),
        Ground::Host(_) | Ground::Interfaces(_) => Vec::new(),
    };
    let bridge = desired.bridge();
    if let Some(bridge) = bridge {
        let link = host.link(bridge);
        let is_ours = matches!(desired.ground, Ground::Own(_));
        // A bridge of the host that is not there now may come; nothing limits one of ours that is yet to be made.
        let found = link.map(|link| host.shapes.get(&link.index).cloned().unwrap_or_default());
        if found.or(is_ours.then(Shape::default)).is_some_and(|found| found != desired.shape) {
            steps.push(Step::ShapeBridge { bridge: bridge.to_owned(), shape: desired.shape.clone() });
        }
        if !in_place.firewall && !desired.ports.is_empty() {
            steps.push(Step::GuardPorts {
                network: desired.services.network.clone(),
                bridge: bridge.to_owned(),
                sources: desired.sources.clone(),
            });
        }
    }
    for wish in &desired.ports {
        // A port that is gone stays gone: its life is the guest's.
        if let Some(port) = host.links.iter().find(|port| port.index == wish.index) {
            plan_port(&mut steps, wish, port, desired, host);
        }
    }
    steps
}

fn plan_port(steps: &mut Vec<Step>, wish: &PortWish, port: &Link, desired: &Desired, host: &HostState) {
    let (index, place) = (wish.index, &wish.place);
    if host.shapes.get(&index).cloned().unwrap_or_default() != wish.shape {
        steps.push(Step::ShapePort { index, shape: wish.shape.clone() });
    }
    let Some(bridge) = desired.bridge() else {
        if !port.up {
            steps.push(Step::PortUp { index });
        }
        return;
    };
    let link = host.link(bridge);
    let can_attach = link.is_some() || matches!(desired.ground, Ground::Own(_));
    // One that someone put elsewhere stays there.
    if port.master.is_none() && can_attach {
        steps.push(Step::AttachPort { bridge: bridge.to_owned(), index, place: place.clone() });
    } else if link.is_some_and(|link| port.master == Some(link.index)) && !is_settled(port, place, host) {
        steps.push(Step::SettlePort { index, place: place.clone() });
    }
}

pub(crate) fn is_settled(port: &Link, place: &Place, host: &HostState) -> bool {
    let has_vlans = place.vlans.as_ref().is_none_or(|vlans| host.vlans.get(&port.index) == Some(vlans));
    port.isolated == place.isolated && port.taught == place.taught && has_vlans
}

fn plan_bridge(desired: &Desired, own: &Bridge, host: &HostState, in_place: InPlace) -> Vec<Step> {
    let bridge = &own.name;
    let mut steps = Vec::new();
    let link = host.link(bridge);
    match link {
        None => steps.push(Step::CreateBridge(own.clone())),
        Some(link) if !has_settings(link, own) => steps.push(Step::SetBridge(own.clone())),
        Some(_) => {}
    }
    let has_ipv6 = link.is_some_and(|link| !link.ipv6_disabled && link.accept_ra == 0 && !link.autoconf);
    if desired.ipv6 && !has_ipv6 {
        steps.push(Step::EnableIpv6 { bridge: bridge.clone() });
    } else if !desired.ipv6 && !link.is_some_and(|link| link.ipv6_disabled) {
        steps.push(Step::DisableIpv6 { bridge: bridge.clone() });
    }
    let route_localnet = link.is_some_and(|link| link.route_localnet);
    if route_localnet != desired.route_localnet && (route_localnet || in_place.forwards) {
        steps.push(Step::RouteLocalnet { bridge: bridge.clone(), on: desired.route_localnet });
    }
    let present: Vec<IpNet> = link.map(|link| host.addresses_of(link.index).collect()).unwrap_or_default();
    for &address in desired.addresses.iter().filter(|address| !present.contains(address)) {
        steps.push(Step::AddAddress { bridge: bridge.clone(), address });
    }
    if !link.is_some_and(|link| link.up) {
        steps.push(Step::LinkUp { bridge: bridge.clone() });
    }
    for route in desired.routes.iter().filter(|route| !has_route(host, link, route)) {
        steps.push(Step::AddRoute { bridge: bridge.clone(), route: route.clone() });
    }
    if !in_place.services {
        steps.push(Step::StartServices(Box::new(desired.services.clone())));
    }
    if !in_place.firewall {
        steps.push(Step::AddFirewall(desired.firewall.clone()));
    }
    if desired.forwarding && !host.forwarding {
        steps.push(Step::EnableForwarding);
    }
    if desired.forwarding6 && !host.forwarding6 {
        steps.extend(enable_forwarding6(host));
    }
    steps
}

/// The moment it forwards, the kernel drops the default routes of interfaces that are not told to keep them.
pub(crate) fn enable_forwarding6(host: &HostState) -> Vec<Step> {
    let keeps = |link: &&Link| {
        link.accept_ra == 1 && host.routes.iter().any(|route| route.from_router && route.link == Some(link.index))
    };
    let interfaces = host.links.iter().filter(keeps).map(|link| link.name.clone());
    let keep = interfaces.map(|interface| Step::KeepRouterAdvertisements { interface });
    keep.chain([Step::EnableForwarding6]).collect()
}

fn has_settings(link: &Link, bridge: &Bridge) -> bool {
    let LinkKind::Bridge { stp, forward_delay, .. } = link.kind else { return false };
    stp == bridge.stp
        && (!stp || forward_delay == kernel_delay(bridge.delay))
        && link.mac == Some(bridge.mac)
        && bridge.mtu.is_none_or(|mtu| link.mtu == mtu)
}

/// A forward delay of this many seconds as the kernel has it, in hundredths of a second. With STP on it takes 2 s for
/// anything less and 30 s for anything more (802.1D).
pub(crate) fn kernel_delay(delay: u32) -> u32 {
    delay.saturating_mul(100).clamp(200, 3000)
}

pub(crate) fn has_route(host: &HostState, link: Option<&Link>, wanted: &StaticRoute) -> bool {
    link.is_some_and(|link| {
        host.routes.iter().any(|route| {
            route.destination == wanted.destination
                && route.gateway == Some(wanted.gateway)
                && route.link == Some(link.index)
                && route.metric == wanted.metric.unwrap_or(wanted.usual_metric())
        })
    })
}

impl Step {
    /// How to take this step back; `None` where taking back another step does it.
    pub fn undo(&self) -> Option<Undo> {
        match self {
            Step::CreateBridge(bridge) => Some(Undo::DeleteBridge { name: bridge.name.clone(), mac: bridge.mac }),
            Step::AddAddress { bridge, address } => {
                Some(Undo::RemoveAddress { bridge: bridge.clone(), address: *address })
            }
            Step::AddRoute { bridge, route } => {
                Some(Undo::RemoveRoute { bridge: bridge.clone(), route: route.clone() })
            }
            Step::StartServices(config) => Some(Undo::StopServices { network: config.network.clone() }),
            Step::AddFirewall(network) => Some(Undo::RemoveFirewall(network.clone())),
            Step::EnableForwarding => Some(Undo::DisableForwarding),
            // Moot with a bridge of ours; what limits one of the host must go.
            Step::ShapeBridge { bridge, .. } => Some(Undo::FreeBridge { bridge: bridge.clone() }),
            Step::EnableForwarding6 => Some(Undo::DisableForwarding6),
            Step::KeepRouterAdvertisements { interface } => {
                Some(Undo::RestoreRouterAdvertisements { interface: interface.clone() })
            }
            // Settings of a bridge that goes; a tap whose bridge goes leaves it.
            // Guards go with the bridge too.
            Step::SetBridge(_)
            | Step::DisableIpv6 { .. }
            | Step::EnableIpv6 { .. }
            | Step::RouteLocalnet { .. }
            | Step::LinkUp { .. }
            | Step::GuardPorts { .. }
            | Step::SettlePort { .. }
            | Step::AttachPort { .. }
            | Step::ShapePort { .. }
            | Step::PortUp { .. } => None,
            // The way back is a plan of its own.
            Step::Live(_) => None,
        }
    }

    /// The same step, with DNS asked on port 53 sent to `port` where our server listens instead.
    #[must_use]
    pub fn with_dns_port(self, port: Option<u16>, addresses: &[IpNet]) -> Step {
        match (self, port) {
            (Step::AddFirewall(network), Some(port)) => {
                Step::AddFirewall(nat::Network { dns_redirect: redirect(port, addresses), ..network })
            }
            (Step::Live(LiveStep::SetFirewall { network, before, after }), Some(port)) => {
                let network = nat::Network { dns_redirect: redirect(port, addresses), ..network };
                Step::Live(LiveStep::SetFirewall { network, before, after })
            }
            (step, _) => step,
        }
    }
}

fn redirect(port: u16, addresses: &[IpNet]) -> Option<DnsRedirect> {
    let addresses = addresses.iter().map(|address| address.addr()).collect();
    (port != 53).then_some(DnsRedirect { addresses, port })
}

impl Desired {
    /// Sends DNS asked on port 53 to where our server listens instead, if it does.
    pub fn redirect_dns(&mut self, port: Option<u16>) {
        self.firewall.dns_redirect = port.and_then(|port| redirect(port, &self.addresses));
    }
}

/// The undos of steps, in the order in which to do them, without those that a removed bridge makes moot.
pub fn unwind<'a>(steps: impl IntoIterator<Item = &'a Step>) -> Vec<Undo> {
    let mut undos: Vec<Undo> = steps.into_iter().filter_map(Step::undo).collect();
    let removed = undos.iter().find_map(|undo| match undo {
        Undo::DeleteBridge { name, .. } => Some(name.clone()),
        _ => None,
    });
    undos.retain(|undo| match undo {
        Undo::RemoveAddress { bridge, .. } | Undo::RemoveRoute { bridge, .. } | Undo::FreeBridge { bridge } => {
            Some(bridge) != removed.as_ref()
        }
        _ => true,
    });
    undos.reverse();
    undos
}

/// What the other networks still need of what networks share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Another network is active that has rules in our table.
    pub active: bool,
    /// Another active network needs the host to route IPv4.
    pub forwarding: bool,
    /// Another active network needs the host to route IPv6.
    pub forwarding6: bool,
}

impl Others {
    /// Whether they need what this would undo.
    pub(crate) fn need(self, undo: &Undo) -> bool {
        match undo {
            Undo::DisableForwarding => self.forwarding,
            Undo::DisableForwarding6 | Undo::RestoreRouterAdvertisements { .. } => self.forwarding6,
            _ => false,
        }
    }
}

/// The journal of a network as it has to be undone now, in view of what the others need.
pub fn teardown(journal: &[Undo], others: Others) -> Vec<Undo> {
    journal
        .iter()
        .filter(|undo| !others.need(undo))
        .map(|undo| match undo {
            Undo::RemoveFirewall(_) if !others.active => Undo::RemoveTable,
            undo => undo.clone(),
        })
        .collect()
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::CreateBridge(bridge) => {
                write!(f, "create bridge {} with MAC {}", bridge.name, bridge.mac)?;
                if let Some(mtu) = bridge.mtu {
                    write!(f, ", MTU {mtu}")?;
                }
                if bridge.stp {
                    write!(f, ", spanning tree with a delay of {} s", bridge.delay)?;
                }
                Ok(())
            }
            Step::SetBridge(bridge) => write!(f, "correct the settings of bridge {}", bridge.name),
            Step::DisableIpv6 { bridge } => write!(f, "disable IPv6 on {bridge}"),
            Step::EnableIpv6 { bridge } => write!(f, "enable IPv6 on {bridge}"),
            Step::RouteLocalnet { bridge, on: true } => write!(f, "let 127.0.0.1 out by {bridge}"),
            Step::RouteLocalnet { bridge, on: false } => write!(f, "keep 127.0.0.1 off {bridge}"),
            Step::AddAddress { bridge, address } => write!(f, "add address {address} to {bridge}"),
            Step::LinkUp { bridge } => write!(f, "set {bridge} up"),
            Step::AddRoute { bridge, route } => {
                write!(f, "add route {} via {} dev {bridge}", route.destination, route.gateway)
            }
            Step::StartServices(config) => {
                let name = |on, name| if on { name } else { "" };
                let dhcp = name(config.dhcp4.is_some(), " DHCP");
                let dhcp6 = config.ipv6.as_ref().is_some_and(|ipv6| ipv6.dhcp.is_some());
                let ipv6 = [name(config.ipv6.is_some(), " RA"), name(dhcp6, " DHCPv6")].concat();
                write!(f, "serve{dhcp}{ipv6}{} on {}", name(config.dns.is_some(), " DNS"), config.bridge)
            }
            Step::AddFirewall(network) => write!(f, "add the firewall rules of {}", network.bridge),
            Step::EnableForwarding => f.write_str("enable IPv4 forwarding"),
            Step::KeepRouterAdvertisements { interface } => {
                write!(f, "accept router advertisements on {interface} also when forwarding")
            }
            Step::EnableForwarding6 => f.write_str("enable IPv6 forwarding"),
            Step::GuardPorts { network, .. } => write!(f, "guard the ports of {network}"),
            Step::ShapeBridge { bridge, shape } => write!(f, "limit {bridge} to {shape}"),
            Step::SettlePort { index, place } => write!(f, "make the tap with index {index} {place}"),
            Step::AttachPort { bridge, index, .. } => write!(f, "put the tap with index {index} on {bridge}"),
            Step::ShapePort { index, shape } => write!(f, "limit the port with index {index} to {shape}"),
            Step::PortUp { index } => write!(f, "set the port with index {index} up"),
            Step::Live(step) => write!(f, "{step}"),
        }
    }
}

impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Undo::DeleteBridge { name, .. } => write!(f, "delete bridge {name}"),
            Undo::RemoveAddress { bridge, address } => write!(f, "remove address {address} from {bridge}"),
            Undo::RemoveRoute { bridge, route } => {
                write!(f, "remove route {} via {} dev {bridge}", route.destination, route.gateway)
            }
            Undo::StopServices { network } => write!(f, "stop DHCP and DNS of {network}"),
            Undo::RemoveFirewall(network) => write!(f, "remove the firewall rules of {}", network.bridge),
            Undo::RemoveTable => f.write_str("remove the nftables table"),
            Undo::FreeBridge { bridge } => write!(f, "stop limiting {bridge}"),
            Undo::DisableForwarding => f.write_str("disable IPv4 forwarding"),
            Undo::DisableForwarding6 => f.write_str("disable IPv6 forwarding"),
            Undo::RestoreRouterAdvertisements { interface } => {
                write!(f, "accept router advertisements on {interface} only when not forwarding")
            }
        }
    }
}

/// A plan for a person to read: one step per line.
pub fn show(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{step}\n")).collect()
}

/// MAC addresses in the journal are text.
pub(crate) mod mac_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::model::MacAddr;

    pub(crate) fn serialize<S: Serializer>(mac: &MacAddr, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MacAddr, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
