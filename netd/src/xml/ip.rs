//! `<ip>` with `<dhcp>`, and `<route>`: reading them and the rules between their addresses.

use std::{
    collections::{BTreeMap, HashSet},
    net::Ipv4Addr,
    str::FromStr,
};

use ipnet::Ipv4Net;

use super::{
    element::{Element, once},
    error::{Error, Problem},
    read::domain_name,
};
use crate::model::{Dhcp, DhcpHost, DhcpRange, LeaseTime, LeaseUnit, MacAddr, Route, Subnet};

/// Reads one `<ip>`.
pub(super) fn subnet(element: Element<'_>) -> Result<Subnet, Error> {
    element.attributes(&["family", "address", "netmask", "prefix"], &["localPtr"])?;
    let address = need_address(element)?;
    let (prefix, written_as_netmask) = prefix(element)?.unwrap_or((classful_prefix(address), false));
    let address = net(element, address, prefix)?;
    check_host_address(element, address)?;
    let mut dhcp = None;
    for child in element.children(&["dhcp"], &["tftp"])? {
        once(&mut dhcp, child, self::dhcp(child, address)?)?;
    }
    Ok(Subnet { address, written_as_netmask, dhcp })
}

/// The subnets of a network, each of which gets along with those before it.
#[derive(Default)]
pub(super) struct Subnets {
    list: Vec<Subnet>,
    taken: Disjoint,
    dhcp: bool,
}

impl Subnets {
    pub(super) fn add(&mut self, element: Element<'_>, subnet: Subnet) -> Result<(), Error> {
        let net = subnet.address.trunc();
        if let Err((start, end)) = self.taken.insert(net.network(), net.broadcast()) {
            let other =
                self.list.iter().map(|s| s.address.trunc()).find(|s| (s.network(), s.broadcast()) == (start, end));
            return Err(element.error(Problem::SubnetsOverlap(net, other.unwrap_or(net))));
        }
        if subnet.dhcp.is_some() && std::mem::replace(&mut self.dhcp, true) {
            return Err(element.error(Problem::SecondDhcp));
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

/// Ranges of addresses, first and last, that have none in common.
#[derive(Default)]
struct Disjoint(BTreeMap<Ipv4Addr, Ipv4Addr>);

impl Disjoint {
    /// Adds a range, or says which one it overlaps.
    fn insert(&mut self, start: Ipv4Addr, end: Ipv4Addr) -> Result<(), (Ipv4Addr, Ipv4Addr)> {
        match self.0.range(..=end).next_back() {
            Some((old_start, old_end)) if *old_end >= start => Err((*old_start, *old_end)),
            _ => {
                self.0.insert(start, end);
                Ok(())
            }
        }
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        self.0.range(..=address).next_back().is_some_and(|(_, end)| *end >= address)
    }
}

/// Reads one `<route>`.
pub(super) fn route(element: Element<'_>) -> Result<Route, Error> {
    element.attributes(&["family", "address", "netmask", "prefix", "gateway", "metric"], &[])?;
    element.children(&[], &[])?;
    let address = need_address(element)?;
    let prefix = match prefix(element)? {
        Some(prefix) => prefix,
        // libvirt: 0.0.0.0 alone is the default route
        None if address.is_unspecified() => (0, false),
        None => return Err(element.error(Problem::Missing("a 'netmask' or a 'prefix'"))),
    };
    let destination = net(element, address, prefix.0)?;
    if destination.trunc() != destination {
        return Err(element.error(Problem::RouteHostBits(destination, destination.network())));
    }
    let gateway = element.ipv4("gateway", element.need("gateway", "the attribute 'gateway'")?)?;
    let metric = element.get("metric").map(|m| element.number("metric", m, (1, u32::MAX), "a metric of 1 or more"));
    Ok(Route { destination, gateway, metric: metric.transpose()?, written_as_netmask: prefix.1 })
}

fn need_address(element: Element<'_>) -> Result<Ipv4Addr, Error> {
    match element.get("family") {
        None | Some("ipv4") => {}
        Some("ipv6") => return Err(element.error(Problem::NotSupportedYet("family 'ipv6'".to_owned()))),
        Some(other) => return Err(element.bad("family", other, "ipv4")),
    }
    element.ipv4("address", element.need("address", "the attribute 'address'")?)
}

/// The prefix length, and whether it was written as a netmask.
fn prefix(element: Element<'_>) -> Result<Option<(u8, bool)>, Error> {
    match (element.get("netmask"), element.get("prefix")) {
        (Some(_), Some(_)) => Err(element.error(Problem::Together("it can have a 'netmask' or a 'prefix', not both"))),
        (Some(netmask), None) => {
            let mask = element.ipv4("netmask", netmask)?;
            let bad = |_| element.bad("netmask", netmask, "a netmask like 255.255.255.0");
            Ok(Some((ipnet::ipv4_mask_to_prefix(mask).map_err(bad)?, true)))
        }
        (None, Some(prefix)) => {
            Ok(Some((element.number("prefix", prefix, (0, 32), "a prefix length between 0 and 32")?, false)))
        }
        (None, None) => Ok(None),
    }
}

/// What libvirt assumes where neither is written: the address classes of RFC 791 §2.3.
fn classful_prefix(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        _ => 24,
    }
}

fn net(element: Element<'_>, address: Ipv4Addr, prefix: u8) -> Result<Ipv4Net, Error> {
    Ipv4Net::new(address, prefix)
        .map_err(|_| element.bad("prefix", &prefix.to_string(), "a prefix length between 0 and 32"))
}

fn check_host_address(element: Element<'_>, address: Ipv4Net) -> Result<(), Error> {
    let host = address.addr();
    let role = if address.prefix_len() == 0 {
        "the whole Internet with prefix 0"
    } else if host.is_unspecified() || host.octets()[0] == 0 {
        "an address of \"this network\" (RFC 1122 §3.2.1.3)"
    } else if host.is_loopback() {
        "a loopback address"
    } else if host.is_multicast() {
        "a multicast address"
    } else if host.octets()[0] >= 240 {
        "reserved (RFC 1112 §4)"
    } else if address.prefix_len() < 31 && host == address.network() {
        "the network address"
    } else if address.prefix_len() < 31 && host == address.broadcast() {
        "the broadcast address"
    } else {
        return Ok(());
    };
    Err(element.error(Problem::HostAddress { address, role }))
}

fn dhcp(element: Element<'_>, subnet: Ipv4Net) -> Result<Dhcp, Error> {
    element.attributes(&[], &[])?;
    let (mut dhcp, mut taken, mut seen) = (Dhcp::default(), Disjoint::default(), HashSet::new());
    for child in element.children(&["range", "host"], &["bootp"])? {
        if child.name() == "range" {
            let range = self::range(child, subnet)?;
            if let Err((start, end)) = taken.insert(range.start, range.end) {
                return Err(child.error(Problem::RangesOverlap(range.start, range.end, start, end)));
            }
            dhcp.ranges.push(range);
        } else {
            let host = self::host(child, subnet)?;
            check_repeated(child, &host, &mut seen)?;
            dhcp.hosts.push(host);
        }
    }
    Ok(dhcp)
}

fn range(element: Element<'_>, subnet: Ipv4Net) -> Result<DhcpRange, Error> {
    element.attributes(&["start", "end"], &[])?;
    let start = element.ipv4("start", element.need("start", "the attribute 'start'")?)?;
    let end = element.ipv4("end", element.need("end", "the attribute 'end'")?)?;
    if start > end {
        return Err(element.error(Problem::ReversedRange(start, end)));
    }
    if !subnet.contains(&start) || !subnet.contains(&end) {
        return Err(element.error(Problem::RangeOutside(start, end, subnet.trunc())));
    }
    // The host's own address may be inside, as in many of libvirt's files: the server never gives it out.
    for (address, role, hint) in [
        (subnet.network(), "the network address", "start the range one higher"),
        (subnet.broadcast(), "the broadcast address", "end the range one lower"),
    ] {
        if (start..=end).contains(&address) {
            let hint = hint.to_owned();
            return Err(element.error(Problem::RangeContains { start, end, address, role, hint }));
        }
    }
    Ok(DhcpRange { start, end, lease: lease_child(element)? })
}

fn host(element: Element<'_>, subnet: Ipv4Net) -> Result<DhcpHost, Error> {
    element.attributes(&["mac", "name", "ip"], &["id"])?;
    let mac = element.get("mac").map(|mac| MacAddr::from_str(mac).map_err(|e| element.error(e))).transpose()?;
    let name = element.get("name").map(|name| domain_name(element, "name", name)).transpose()?;
    let ip = element.get("ip").map(|ip| element.ipv4("ip", ip)).transpose()?;
    match (mac, &name, ip) {
        (None, None, _) => return Err(element.error(Problem::Missing("a 'mac' or a 'name' to know the guest by"))),
        (Some(_), None, None) | (None, Some(_), None) => return Err(element.error(Problem::Missing("an 'ip'"))),
        _ => {}
    }
    if let Some(address) = ip {
        let why = if !subnet.contains(&address) {
            "is not in"
        } else if address == subnet.network() {
            "is the network address of"
        } else if address == subnet.broadcast() {
            "is the broadcast address of"
        } else if address == subnet.addr() {
            "is the host's own in"
        } else {
            ""
        };
        if !why.is_empty() {
            return Err(element.error(Problem::Reservation { address, why, subnet: subnet.trunc() }));
        }
    }
    Ok(DhcpHost { mac, name, ip, lease: lease_child(element)? })
}

/// One guest, one reservation; one address, one guest.
fn check_repeated(
    element: Element<'_>,
    host: &DhcpHost,
    seen: &mut HashSet<(&'static str, String)>,
) -> Result<(), Error> {
    let keys = [
        host.mac.map(|mac| ("the MAC address", mac.to_string())),
        host.ip.map(|ip| ("the address", ip.to_string())),
        host.name.as_ref().map(|name| ("the host name", name.to_ascii_lowercase())),
    ];
    for (what, value) in keys.into_iter().flatten() {
        if !seen.insert((what, value.clone())) {
            return Err(element.error(Problem::Repeated { what, value }));
        }
    }
    Ok(())
}

fn lease_child(element: Element<'_>) -> Result<Option<LeaseTime>, Error> {
    let mut lease = None;
    for child in element.children(&["lease"], &[])? {
        once(&mut lease, child, self::lease(child)?)?;
    }
    Ok(lease)
}

fn lease(element: Element<'_>) -> Result<LeaseTime, Error> {
    element.attributes(&["expiry", "unit"], &[])?;
    element.children(&[], &[])?;
    let expiry = element.need("expiry", "the attribute 'expiry'")?;
    let expiry = element.number("expiry", expiry, (0, u32::MAX), "a number")?;
    let (unit, seconds) = match element.get("unit") {
        None | Some("minutes") => (LeaseUnit::Minutes, 60),
        Some("seconds") => (LeaseUnit::Seconds, 1),
        Some("hours") => (LeaseUnit::Hours, 3600),
        Some(other) => return Err(element.bad("unit", other, "seconds, minutes or hours")),
    };
    match u64::from(expiry) * seconds {
        0 => {}
        short @ 1..120 => return Err(element.error(Problem::ShortLease(short))),
        long if long >= u64::from(u32::MAX) => return Err(element.error(Problem::LongLease(long))),
        _ => {}
    }
    Ok(LeaseTime { expiry, unit })
}
