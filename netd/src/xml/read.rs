//! From the tree to the model: the network itself and its plain elements. Each subject reads its own.

use std::str::FromStr;

use uuid::Uuid;

use super::{
    dns, dnsmasq,
    element::{Element, document, once},
    error::{Error, Problem},
    forward, forwards, ip, link, metadata, modes, policy,
};
use crate::model::{Forward, MacAddr, Network, NetworkName, Policy, Subnet, printable};

const KNOWN: [&str; 22] = [
    "name",
    "uuid",
    "title",
    "description",
    "metadata",
    "forward",
    "bridge",
    "mtu",
    "mac",
    "domain",
    "dns",
    "vlan",
    "bandwidth",
    "port",
    "ip",
    "route",
    "virtualport",
    "portgroup",
    "dnsmasq:options",
    "netd:forwards",
    "netd:guests",
    "netd:host-access",
];

pub(super) fn network(text: &str) -> Result<Network, Error> {
    let document = document(text)?;
    let root = Element::root(&document);
    if root.name() != "network" {
        return Err(root.error(Problem::Root(printable(root.name()))));
    }
    // `connections` is how many guests are plugged in: live XML has it, and it means nothing in a definition.
    root.attributes(&["ipv6", "trustGuestRxFilters", "connections"])?;

    let (mut name, mut uuid, mut title, mut description, mut metadata) = (None, None, None, None, None);
    let (mut forward, mut bridge, mut mac, mut mtu) = (None, None, None, None);
    let (mut domain, mut dns, mut vlan, mut bandwidth) = (None, None, None, None);
    let (mut port, mut dnsmasq, mut forwards, mut guests_talk, mut host_access) = (None, None, None, None, None);
    let (mut subnets, mut routes, mut groups) = (ip::Subnets::default(), Vec::new(), Vec::new());
    let children = root.children(&KNOWN)?;
    for &(known, child) in &children {
        match known {
            "name" => once(&mut name, child, self::name(child)?)?,
            "uuid" => once(&mut uuid, child, self::uuid(child)?)?,
            "title" => once(&mut title, child, self::title(child)?)?,
            "description" => once(&mut description, child, child.text()?)?,
            "metadata" => once(&mut metadata, child, metadata::metadata(child)?)?,
            "forward" => once(&mut forward, child, (child, forward::forward(child)?))?,
            "bridge" => once(&mut bridge, child, link::bridge(child)?)?,
            "mac" => once(&mut mac, child, mac_address(child)?)?,
            "mtu" => once(&mut mtu, child, (child, self::mtu(child)?))?,
            "domain" => once(&mut domain, child, dns::domain(child)?)?,
            "dns" => once(&mut dns, child, dns::dns(child)?)?,
            "vlan" => once(&mut vlan, child, link::vlan(child)?)?,
            "bandwidth" => once(&mut bandwidth, child, link::bandwidth(child, false)?)?,
            "port" => once(&mut port, child, self::port(child)?)?,
            "ip" => subnets.add(child, ip::subnet(child)?)?,
            "route" => routes.push((child, ip::route(child)?)),
            "virtualport" => return Err(link::no_virtualport(child)),
            "netd:guests" => once(&mut guests_talk, child, policy::guests(child)?)?,
            "netd:host-access" => once(&mut host_access, child, policy::host_access(child)?)?,
            "dnsmasq:options" => once(&mut dnsmasq, child, dnsmasq::options(child)?)?,
            "portgroup" => groups.push((child, link::port_group(child)?)),
            _ => once(&mut forwards, child, forwards::list(child)?)?,
        }
    }
    let name = name.ok_or_else(|| root.error(Problem::Missing("name information")))?;
    let bridge = bridge.unwrap_or_default();
    let mode = forward.as_ref().map_or(&Forward::Isolated, |(_, forward)| forward);
    modes::check(root, &children, mode, &bridge, &groups)?;
    for (element, route) in &routes {
        subnets.check_gateway(*element, route)?;
    }
    link::check_port_groups(&groups)?;
    let subnets = subnets.into_list();
    if let Some((element, size)) = mtu.filter(|(_, size)| *size < LEAST_MTU_OF_IPV6)
        && subnets.iter().any(|subnet| subnet.ipv6().is_some())
    {
        let expected = "at least 1280, which IPv6 needs (RFC 8200 §5), and the network has an IPv6 address";
        return Err(element.bad("size", &size.to_string(), expected));
    }
    let forward = match forward {
        Some((element, forward)) => {
            check_forward(element, &forward, &name, &subnets)?;
            forward
        }
        None => Forward::Isolated,
    };
    let forwards = forwards::check(forwards.unwrap_or_default(), &forward, &subnets)?;
    Ok(Network {
        name,
        uuid: uuid.unwrap_or_else(Uuid::new_v4),
        title,
        description,
        metadata: metadata.unwrap_or_default(),
        ipv6: root.yes_no("ipv6")?,
        trust_guest_rx_filters: root.yes_no("trustGuestRxFilters")?,
        forward,
        bridge,
        mac,
        mtu: mtu.map(|(_, size)| size),
        domain,
        dns: dns.unwrap_or_default(),
        vlan,
        bandwidth,
        isolated_ports: port.flatten(),
        subnets,
        routes: routes.into_iter().map(|(_, route)| route).collect(),
        port_groups: groups.into_iter().map(|(_, group)| group).collect(),
        dnsmasq: dnsmasq.unwrap_or_default(),
        forwards,
        policy: Policy { guests_talk: guests_talk.flatten(), host_access },
    })
}

fn port(element: Element<'_>) -> Result<Option<bool>, Error> {
    element.only(&["isolated"])?;
    element.yes_no("isolated")
}

fn name(element: Element<'_>) -> Result<NetworkName, Error> {
    let text = element.text()?;
    if text.is_empty() {
        return Err(element.error(Problem::Missing("name information")));
    }
    NetworkName::from_str(&text).map_err(|e| element.error(e))
}

fn uuid(element: Element<'_>) -> Result<Uuid, Error> {
    let text = element.text()?;
    Uuid::try_parse(text.trim()).map_err(|_| {
        let expected = "a UUID like c2d5a8a0-0f4b-4c53-9a3c-52f0ee2b3c11";
        element.bad("the text", &text, expected)
    })
}

fn title(element: Element<'_>) -> Result<String, Error> {
    let text = element.text()?;
    if text.contains(['\n', '\r']) {
        return Err(element.error(Problem::Together("the title can't contain newlines")));
    }
    Ok(text)
}

/// Forwarding needs addresses to forward for.
fn check_forward(element: Element<'_>, forward: &Forward, name: &NetworkName, subnets: &[Subnet]) -> Result<(), Error> {
    if subnets.is_empty() && matches!(forward, Forward::Nat(_) | Forward::Route { .. }) {
        return Err(element.error(Problem::NoAddress { mode: forward.mode(), network: name.to_string() }));
    }
    Ok(())
}

fn mac_address(element: Element<'_>) -> Result<MacAddr, Error> {
    element.only(&["address"])?;
    let address = element.need("address", "the attribute 'address'")?;
    MacAddr::from_str(address).map_err(|e| element.error(e))
}

/// With less the kernel has no IPv6 on an interface.
const LEAST_MTU_OF_IPV6: u32 = 1280;

fn mtu(element: Element<'_>) -> Result<u32, Error> {
    element.only(&["size"])?;
    let size = element.need("size", "the attribute 'size'")?;
    // 68: RFC 791 §3.2. 65521: the kernel's limit for a tap, 65535 less the Ethernet header.
    element.number("size", size, (68, 65521), "a number of bytes between 68 and 65521")
}
