//! `<ip>` and `<route>`: reading and writing them, and the rules between their addresses.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::{
    dhcp,
    element::{Element, once},
    error::{Error, Problem},
    write::{Attribute, Out, text, yes_no},
};
use crate::model::{Mask, Route, Spelling, Subnet, family};

/// Reads one `<ip>`.
pub(super) fn subnet(element: Element<'_>) -> Result<Subnet, Error> {
    element.attributes(&["family", "address", "netmask", "prefix", "localPtr"])?;
    let (address, family) = need_address(element)?;
    let (prefix, mask) = prefix(element, address)?.unwrap_or((default_prefix(address), Mask::Omitted));
    let address = net(element, address, prefix)?;
    check_host_address(element, address)?;
    let (mut tftp_root, mut dhcp) = (None, None);
    for (name, child) in element.children(&["tftp", "dhcp"])? {
        if name == "tftp" {
            once(&mut tftp_root, child, tftp(child, address)?)?;
        } else {
            once(&mut dhcp, child, dhcp::dhcp(child, address)?)?;
        }
    }
    let local_ptr = element.yes_no("localPtr")?;
    Ok(Subnet { address, spelling: Spelling { family, mask }, local_ptr, tftp_root, dhcp })
}

fn tftp(element: Element<'_>, subnet: IpNet) -> Result<String, Error> {
    element.only(&["root"])?;
    if subnet.addr().is_ipv6() {
        return Err(element.error(Problem::Together("only an IPv4 address can have it")));
    }
    let root = element.need("root", "the attribute 'root'")?;
    if !root.starts_with('/') {
        return Err(element.bad("root", root, "an absolute path"));
    }
    Ok(root.to_owned())
}

/// The subnets of a network, each of which gets along with those before it.
#[derive(Default)]
pub(super) struct Subnets {
    list: Vec<Subnet>,
    taken: Disjoint,
    dhcp4: bool,
    dhcp6: bool,
}

impl Subnets {
    pub(super) fn add(&mut self, element: Element<'_>, subnet: Subnet) -> Result<(), Error> {
        let net = subnet.address.trunc();
        if let Err((start, end)) = self.taken.insert(net.network(), net.broadcast()) {
            let other =
                self.list.iter().map(|s| s.address.trunc()).find(|s| (s.network(), s.broadcast()) == (start, end));
            return Err(element.error(Problem::SubnetsOverlap(net, other.unwrap_or(net))));
        }
        let (dhcp, family) = if net.addr().is_ipv4() { (&mut self.dhcp4, "IPv4") } else { (&mut self.dhcp6, "IPv6") };
        if subnet.dhcp.is_some() && std::mem::replace(dhcp, true) {
            return Err(element.error(Problem::SecondDhcp(family)));
        }
        self.list.push(subnet);
        Ok(())
    }

    /// A route leads through a neighbour.
    pub(super) fn check_gateway(&self, element: Element<'_>, route: &Route) -> Result<(), Error> {
        if self.taken.contains(route.gateway) {
            return Ok(());
        }
        Err(element.error(Problem::UnreachableGateway(route.gateway)))
    }

    pub(super) fn into_list(self) -> Vec<Subnet> {
        self.list
    }
}

/// Ranges of addresses, first and last, that have none in common. IPv4 sorts before IPv6.
#[derive(Default)]
pub(super) struct Disjoint(BTreeMap<IpAddr, IpAddr>);

impl Disjoint {
    /// Adds a range, or says which one it overlaps.
    pub(super) fn insert(&mut self, start: IpAddr, end: IpAddr) -> Result<(), (IpAddr, IpAddr)> {
        match self.0.range(..=end).next_back() {
            Some((old_start, old_end)) if *old_end >= start => Err((*old_start, *old_end)),
            _ => {
                self.0.insert(start, end);
                Ok(())
            }
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.0.range(..=address).next_back().is_some_and(|(_, end)| *end >= address)
    }
}

/// Reads one `<route>`.
pub(super) fn route(element: Element<'_>) -> Result<Route, Error> {
    element.only(&["family", "address", "netmask", "prefix", "gateway", "metric"])?;
    let (address, family) = need_address(element)?;
    let (prefix, mask) = match prefix(element, address)? {
        Some(prefix) => prefix,
        // libvirt: 0.0.0.0 or :: alone is the default route
        None if address.is_unspecified() => (0, Mask::Omitted),
        None if address.is_ipv6() => return Err(element.error(Problem::Missing("a 'prefix'"))),
        None => return Err(element.error(Problem::Missing("a 'netmask' or a 'prefix'"))),
    };
    let destination = net(element, address, prefix)?;
    if destination.trunc() != destination {
        return Err(element.error(Problem::RouteHostBits(destination, destination.network())));
    }
    let gateway = element.ip_like("gateway", element.need("gateway", "the attribute 'gateway'")?, address)?;
    let metric = element.get("metric").map(|m| element.number("metric", m, (1, u32::MAX), "a metric of 1 or more"));
    Ok(Route { destination, gateway, metric: metric.transpose()?, spelling: Spelling { family, mask } })
}

/// The address, and whether its family was written; that of an IPv6 address has to be.
fn need_address(element: Element<'_>) -> Result<(IpAddr, bool), Error> {
    let address = element.need("address", "the attribute 'address'")?;
    match element.get("family") {
        Some("ipv6") => match address.parse() {
            Ok(address) => Ok((IpAddr::V6(address), true)),
            Err(_) => Err(element.bad("address", address, "an IPv6 address like fd00::1")),
        },
        Some("ipv4") => Ok((element.ipv4("address", address)?.into(), true)),
        Some(other) => Err(element.bad("family", other, "ipv4 or ipv6")),
        None if address.parse::<std::net::Ipv6Addr>().is_ok() => {
            Err(element.error(Problem::Together("an IPv6 address needs family='ipv6'")))
        }
        None => Ok((element.ipv4("address", address)?.into(), false)),
    }
}

/// The prefix length, and what it was written as.
fn prefix(element: Element<'_>, address: IpAddr) -> Result<Option<(u8, Mask)>, Error> {
    match (element.get("netmask"), element.get("prefix")) {
        (Some(_), Some(_)) => Err(element.error(Problem::Together("it can have a 'netmask' or a 'prefix', not both"))),
        (Some(_), None) if address.is_ipv6() => {
            Err(element.error(Problem::Together("an IPv6 address has a 'prefix' and no 'netmask'")))
        }
        (Some(netmask), None) => {
            let mask = element.ipv4("netmask", netmask)?;
            let bad = |_| element.bad("netmask", netmask, "a netmask like 255.255.255.0");
            Ok(Some((ipnet::ipv4_mask_to_prefix(mask).map_err(bad)?, Mask::Netmask)))
        }
        (None, Some(prefix)) => {
            let (longest, expected) = longest_prefix(address);
            Ok(Some((element.number("prefix", prefix, (0, longest), expected)?, Mask::Prefix)))
        }
        (None, None) => Ok(None),
    }
}

fn longest_prefix(address: IpAddr) -> (u8, &'static str) {
    match address {
        IpAddr::V4(_) => (32, "a prefix length between 0 and 32"),
        IpAddr::V6(_) => (128, "a prefix length between 0 and 128"),
    }
}

/// What libvirt assumes where neither is written: the address classes of RFC 791 §2.3; 64 for IPv6.
fn default_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V6(_) => 64,
        IpAddr::V4(address) => match address.octets()[0] {
            0..=127 => 8,
            128..=191 => 16,
            _ => 24,
        },
    }
}

fn net(element: Element<'_>, address: IpAddr, prefix: u8) -> Result<IpNet, Error> {
    IpNet::new(address, prefix).map_err(|_| element.bad("prefix", &prefix.to_string(), longest_prefix(address).1))
}

fn check_host_address(element: Element<'_>, address: IpNet) -> Result<(), Error> {
    let role = match address {
        _ if address.prefix_len() == 0 => Some("the whole Internet with prefix 0"),
        IpNet::V4(address) => {
            let host = address.addr();
            let whole = address.prefix_len() < 31;
            [
                (host.octets()[0] == 0, "an address of \"this network\" (RFC 1122 §3.2.1.3)"),
                (host.is_loopback(), "a loopback address"),
                (host.is_multicast(), "a multicast address"),
                (host.octets()[0] >= 240, "reserved (RFC 1112 §4)"),
                (whole && host == address.network(), "the network address"),
                (whole && host == address.broadcast(), "the broadcast address"),
            ]
            .into_iter()
            .find_map(|(is_it, role)| is_it.then_some(role))
        }
        IpNet::V6(address) => {
            let host = address.addr();
            let anycast = address.prefix_len() < 127 && host == address.network();
            [
                (host.is_unspecified(), "the unspecified address"),
                (host.is_loopback(), "a loopback address"),
                (host.is_multicast(), "a multicast address"),
                (host.to_ipv4_mapped().is_some(), "an IPv4 address in IPv6 notation"),
                (host.is_unicast_link_local(), "link-local: the kernel gives every bridge one of its own"),
                (anycast, "the subnet-router anycast address (RFC 4291 §2.6.1)"),
            ]
            .into_iter()
            .find_map(|(is_it, role)| is_it.then_some(role))
        }
    };
    role.map_or(Ok(()), |role| Err(element.error(Problem::HostAddress { address, role })))
}

/// Writes `<ip>`.
pub(super) fn write(out: &mut Out, subnet: &Subnet) {
    let [family, address, netmask, prefix] = address(subnet.address, subnet.spelling);
    let attributes = [family, address, netmask, prefix, ("localPtr", yes_no(subnet.local_ptr))];
    // Of an element with nothing in it libvirt writes both tags too.
    out.open("ip", &attributes);
    if let Some(root) = &subnet.tftp_root {
        out.empty("tftp", &[("root", Some(root.clone()))]);
    }
    if let Some(dhcp) = &subnet.dhcp {
        dhcp::write(out, dhcp);
    }
    out.close("ip");
}

/// Writes `<route>`.
pub(super) fn write_route(out: &mut Out, route: &Route) {
    let [family, address, netmask, prefix] = address(route.destination, route.spelling);
    let (gateway, metric) = (("gateway", text(Some(route.gateway))), ("metric", text(route.metric)));
    out.empty("route", &[family, address, netmask, prefix, gateway, metric]);
}

fn address(net: IpNet, spelling: Spelling) -> [Attribute<'static>; 4] {
    // An IPv6 address is not read without its family.
    let with_family = spelling.family || net.addr().is_ipv6();
    [
        ("family", text(with_family.then(|| family(net.addr())))),
        ("address", text(Some(net.addr()))),
        ("netmask", text((spelling.mask == Mask::Netmask).then(|| net.netmask()))),
        ("prefix", text((spelling.mask == Mask::Prefix).then(|| net.prefix_len()))),
    ]
}
