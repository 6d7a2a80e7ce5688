//! The host as plain values: links, addresses, routes, a few sysctls. It never touches the host itself.
//!
//! `observe` fills it in, `plan` compares it with what is wanted, tests build it by hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{model::MacAddr, plan::PortVlan, shape::Shape};

/// What the kernel said, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostState {
    /// Every network interface.
    pub links: Vec<Link>,
    /// Every address, of both families.
    pub addresses: Vec<LinkAddress>,
    /// The whole FIB of both families, all tables, without broadcast, multicast and IPv6 link-local routes.
    pub routes: Vec<Route>,
    /// `net.ipv4.ip_forward`.
    pub forwarding: bool,
    /// `net.ipv6.conf.all.forwarding`; true where the kernel has no IPv6, as there is nothing to turn on.
    pub forwarding6: bool,
    /// What limits links, by their index; none of our kind where a link is absent.
    pub shapes: BTreeMap<u32, Shape>,
    /// The VLANs of ports, by their index, sorted; only where some bridge filters VLANs.
    pub vlans: BTreeMap<u32, Vec<PortVlan>>,
    /// The VLAN that new ports of a bridge are in, by the bridge's index; only of bridges that filter VLANs and have one.
    pub default_vlans: BTreeMap<u32, u16>,
}

/// What of a host one network is about, so that nobody reads all of a large host for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Focus {
    /// Interfaces by name.
    pub names: BTreeSet<String>,
    /// Interfaces by index.
    pub indices: BTreeSet<u32>,
    /// Whatever uses an address of these is of interest, with its interface.
    pub subnets: Vec<IpNet>,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it, never used twice while the kernel runs.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address, where it has one.
    pub mac: Option<MacAddr>,
    /// Greatest packet size in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// What drives it.
    pub kind: LinkKind,
    /// The index of the bridge it is a port of.
    pub master: Option<u32>,
    /// The index of the link it is on top of.
    pub lower: Option<u32>,
    /// As a bridge's port it talks to no other isolated port.
    pub isolated: bool,
    /// As a bridge's port it neither teaches the bridge addresses nor gets frames to addresses the bridge does not know.
    pub taught: bool,
    /// `disable_ipv6` is set, or the kernel has no IPv6.
    pub ipv6_disabled: bool,
    /// `accept_ra`: 0 no router advertisements, 1 unless the host forwards, 2 always.
    pub accept_ra: i32,
    /// `autoconf`: addresses are made of router advertisements.
    pub autoconf: bool,
    /// `route_localnet` is set for it: 127.0.0.0/8 may be on the wire.
    pub route_localnet: bool,
}

/// What drives a link, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A Linux bridge.
    Bridge {
        /// The spanning tree protocol runs.
        stp: bool,
        /// Forward delay in hundredths of a second (`USER_HZ`).
        forward_delay: u32,
        /// It looks at VLAN tags.
        vlan_filtering: bool,
    },
    /// A tun or tap device.
    Tun,
    /// A macvtap device.
    Macvtap,
    /// Anything else.
    Other,
}

/// An address on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    /// The link's index.
    pub link: u32,
    /// The address with its prefix length.
    pub address: IpNet,
}

/// An entry of the FIB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub destination: IpNet,
    /// The next hop, if it is not on the link itself.
    pub gateway: Option<IpAddr>,
    /// The index of the link packets leave by; none for blackholes and the like.
    pub link: Option<u32>,
    /// Lower wins; 0 where none was given.
    pub metric: u32,
    /// A router advertisement brought it (`RTPROT_RA`).
    pub from_router: bool,
}

/// An entry of the neighbour table that has a hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The index of the link it was seen on.
    pub link: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Seconds since it was last known to be there.
    pub age: u64,
}

/// What already uses a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    /// The subnet, address or route that overlaps.
    pub by: IpNet,
    /// The interface it is on; none for a blackhole and its like.
    pub interface: Option<String>,
}

/// Routes with a shorter prefix cover so much that they are default routes by another name (a VPN's 0.0.0.0/1 and
/// 128.0.0.0/1, say): a network inside one takes nothing away from it that its owner counts on.
const SHORTEST_SPECIFIC_PREFIX: u8 = 4;

/// The same for IPv6, where all that is given out so far is 2000::/3, and hosts have unreachable routes to fc00::/7 so
/// that private addresses don't leave them.
const SHORTEST_SPECIFIC_PREFIX_6: u8 = 16;

impl HostState {
    /// The link of this name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The name of the link with this index.
    pub fn link_name(&self, index: u32) -> Option<&str> {
        self.links.iter().find(|link| link.index == index).map(|link| link.name.as_str())
    }

    /// The addresses of one link.
    pub fn addresses_of(&self, link: u32) -> impl Iterator<Item = IpNet> {
        self.addresses.iter().filter(move |address| address.link == link).map(|address| address.address)
    }

    /// The part that is in focus: its interfaces with all that is on them, and the addresses and routes that overlap its
    /// subnets.
    pub fn around(self, focus: &Focus) -> HostState {
        let near = |address: IpNet| focus.subnets.iter().any(|subnet| overlap(subnet.trunc(), address));
        let near_route = |route: &Route| is_specific(route.destination) && near(route.destination);
        let users = self.addresses.iter().filter(|address| near(address.address)).map(|address| address.link);
        let users = users.chain(self.routes.iter().filter(|route| near_route(route)).filter_map(|route| route.link));
        let users: BTreeSet<u32> = users.collect();
        let is_in = |link: &Link| {
            focus.names.contains(&link.name) || focus.indices.contains(&link.index) || users.contains(&link.index)
        };
        let links: Vec<Link> = self.links.into_iter().filter(is_in).collect();
        let has = |index: u32| links.iter().any(|link| link.index == index);
        let on_it = |route: &Route| route.link.map_or_else(|| near_route(route), has);
        HostState {
            addresses: self.addresses.into_iter().filter(|address| has(address.link)).collect(),
            routes: self.routes.into_iter().filter(on_it).collect(),
            shapes: self.shapes.into_iter().filter(|(index, _)| has(*index)).collect(),
            vlans: self.vlans.into_iter().filter(|(index, _)| has(*index)).collect(),
            default_vlans: self.default_vlans.into_iter().filter(|(index, _)| has(*index)).collect(),
            links,
            forwarding: self.forwarding,
            forwarding6: self.forwarding6,
        }
    }

    /// What overlaps `subnet`, whatever its prefix length, on any link but those named in `except`.
    pub fn in_use(&self, subnet: IpNet, except: &[&str]) -> Option<InUse> {
        let subnet = subnet.trunc();
        let addresses = self.addresses.iter().map(|address| (address.address, Some(address.link)));
        let routes = self
            .routes
            .iter()
            .filter(|route| is_specific(route.destination))
            .map(|route| (route.destination, route.link));
        addresses
            .chain(routes)
            .filter(|(other, _)| overlap(subnet, *other))
            .map(|(by, link)| InUse { by, interface: link.and_then(|link| self.link_name(link)).map(str::to_owned) })
            .find(|user| !user.interface.as_deref().is_some_and(|name| except.contains(&name)))
    }
}

/// Whether it is more than a default route by another name.
pub(crate) fn is_specific(destination: IpNet) -> bool {
    let shortest = match destination {
        IpNet::V4(_) => SHORTEST_SPECIFIC_PREFIX,
        IpNet::V6(_) => SHORTEST_SPECIFIC_PREFIX_6,
    };
    destination.prefix_len() >= shortest
}

/// Whether two subnets share an address.
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostState {
        let link = |index, name: &str| Link {
            index,
            name: name.into(),
            mac: None,
            mtu: 1500,
            up: true,
            kind: LinkKind::Other,
            master: None,
            lower: None,
            isolated: false,
            taught: false,
            ipv6_disabled: false,
            accept_ra: 1,
            autoconf: true,
            route_localnet: false,
        };
        let route = |destination: &str, link| Route {
            destination: destination.parse().unwrap(),
            gateway: None,
            link,
            metric: 0,
            from_router: false,
        };
        HostState {
            links: vec![link(1, "lo"), link(2, "eth0"), link(3, "tun0")],
            addresses: vec![LinkAddress { link: 2, address: "192.168.7.9/24".parse().unwrap() }],
            routes: vec![
                route("0.0.0.0/0", Some(2)),
                route("0.0.0.0/1", Some(3)),
                route("10.0.0.0/8", Some(3)),
                route("172.20.3.0/24", None),
                route("::/0", Some(2)),
                route("2000::/3", Some(3)),
                route("fc00::/7", None),
                route("fd00:7::/48", Some(3)),
                route("fd00:8:0:1::/64", None),
            ],
            ..HostState::default()
        }
    }

    fn user(subnet: &str, except: &[&str]) -> Option<String> {
        host()
            .in_use(subnet.parse().unwrap(), except)
            .map(|user| format!("{} {}", user.by, user.interface.unwrap_or_default()))
    }

    #[test]
    fn a_subnet_collides_with_shorter_longer_and_equal_prefixes() {
        assert_eq!(user("10.5.0.0/24", &[]).as_deref(), Some("10.0.0.0/8 tun0"));
        assert_eq!(user("172.16.0.0/12", &[]).as_deref(), Some("172.20.3.0/24 "));
        assert_eq!(user("192.168.7.1/24", &[]).as_deref(), Some("192.168.7.9/24 eth0"));
        assert_eq!(user("192.168.122.1/24", &[]), None);
        assert_eq!(user("fd00:7:0:5::1/64", &[]).as_deref(), Some("fd00:7::/48 tun0"));
        assert_eq!(user("fd00:8::1/48", &[]).as_deref(), Some("fd00:8:0:1::/64 "));
        assert_eq!(user("fd00:9::1/64", &[]), None);
    }

    #[test]
    fn default_routes_and_their_halves_do_not_collide() {
        assert_eq!(user("20.1.0.0/16", &[]), None);
        assert_eq!(user("2001:db8::/64", &[]), None);
    }

    #[test]
    fn a_network_does_not_collide_with_its_own_bridge() {
        assert_eq!(user("192.168.7.1/24", &["eth0"]), None);
    }
}
