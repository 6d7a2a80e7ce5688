//! From the tree to the model: everything but `<ip>` and `<route>`, which are in `ip`.

use std::{collections::HashSet, str::FromStr};

use uuid::Uuid;

use super::{
    element::{Element, document, once},
    error::{Error, Problem},
    forwards, ip, policy,
};
use crate::model::{
    Bridge, BridgeName, Dns, DnsHost, Domain, Forward, MacAddr, Nat, Network, NetworkName, Policy, Subnet, printable,
};

const KNOWN: [&str; 14] = [
    "name",
    "uuid",
    "forward",
    "bridge",
    "mac",
    "mtu",
    "domain",
    "dns",
    "port",
    "ip",
    "route",
    "netd:forwards",
    "netd:guests",
    "netd:host-access",
];
const LATER: [&str; 7] = ["title", "description", "metadata", "virtualport", "portgroup", "bandwidth", "vlan"];

pub(super) fn network(text: &str) -> Result<Network, Error> {
    let document = document(text)?;
    let root = Element::root(&document);
    if root.name() != "network" {
        return Err(root.error(Problem::Root(printable(root.name()))));
    }
    // `connections` is how many guests are plugged in: live XML has it, and it means nothing in a definition.
    root.attributes(&["connections"], &["ipv6", "trustGuestRxFilters"])?;

    let (mut name, mut uuid, mut forward, mut bridge, mut mac) = (None, None, None, None, None);
    let (mut mtu, mut domain, mut dns, mut port, mut forwards) = (None, None, None, None, None);
    let (mut guests_talk, mut host_access) = (None, None);
    let (mut subnets, mut routes) = (ip::Subnets::default(), Vec::new());
    for child in root.children(&KNOWN, &LATER)? {
        match child.name() {
            _ if child.is_ours() => match child.local_name() {
                "guests" => once(&mut guests_talk, child, policy::guests(child)?)?,
                "host-access" => once(&mut host_access, child, policy::host_access(child)?)?,
                _ => once(&mut forwards, child, forwards::list(child)?)?,
            },
            "name" => once(&mut name, child, self::name(child)?)?,
            "uuid" => once(&mut uuid, child, self::uuid(child)?)?,
            "forward" => once(&mut forward, child, (child, self::forward(child)?))?,
            "bridge" => once(&mut bridge, child, self::bridge(child)?)?,
            "mac" => once(&mut mac, child, mac_address(child)?)?,
            "mtu" => once(&mut mtu, child, self::mtu(child)?)?,
            "domain" => once(&mut domain, child, self::domain(child)?)?,
            "dns" => once(&mut dns, child, self::dns(child)?)?,
            "port" => once(&mut port, child, self::port(child)?)?,
            "ip" => subnets.add(child, ip::subnet(child)?)?,
            _ => routes.push((child, ip::route(child)?)),
        }
    }
    let name = name.ok_or_else(|| root.error(Problem::Missing("name information")))?;
    for (element, route) in &routes {
        subnets.check_gateway(*element, route)?;
    }
    let subnets = subnets.into_list();
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
        forward,
        bridge: bridge.unwrap_or_default(),
        mac,
        mtu,
        domain,
        dns: dns.unwrap_or_default(),
        isolated_ports: port.flatten(),
        subnets,
        routes: routes.into_iter().map(|(_, route)| route).collect(),
        forwards,
        policy: Policy { guests_talk: guests_talk.flatten(), host_access },
    })
}

fn port(element: Element<'_>) -> Result<Option<bool>, Error> {
    element.attributes(&["isolated"], &[])?;
    element.children(&[], &[])?;
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

fn forward(element: Element<'_>) -> Result<Forward, Error> {
    element.attributes(&["mode", "dev"], &["managed"])?;
    let mode = element.get("mode").unwrap_or("nat");
    let mut dev = element.get("dev").map(|dev| interface_name(element, dev)).transpose()?;
    let mut nat = None;
    let mut interface = None;
    for child in element.children(&["nat", "interface"], &["address", "pf", "driver"])? {
        if child.name() == "nat" {
            once(&mut nat, child, (child, self::nat(child)?))?;
        } else {
            // live XML repeats `dev` as an element
            child.attributes(&["dev", "connections"], &[])?;
            child.children(&[], &[])?;
            let name = interface_name(child, child.need("dev", "the attribute 'dev'")?)?;
            once(&mut interface, child, (child, name))?;
        }
    }
    if let Some((child, name)) = interface {
        if dev.as_ref().is_some_and(|dev| *dev != name) {
            return Err(child.error(Problem::Together("the interface differs from the 'dev' of <forward>")));
        }
        dev = Some(name);
    }
    if mode != "nat"
        && let Some((child, _)) = nat
    {
        return Err(child.error(Problem::Together("only <forward mode='nat'> can have it")));
    }
    let no_dev = |forward| match dev {
        Some(_) => Err(element.error(Problem::Together("only the modes nat and route can have a 'dev'"))),
        None => Ok(forward),
    };
    match mode {
        "nat" => Ok(Forward::Nat(Nat { dev, ..nat.map(|(_, nat)| nat).unwrap_or_default() })),
        "route" => Ok(Forward::Route { dev }),
        "open" => no_dev(Forward::Open),
        "none" => no_dev(Forward::Isolated),
        "bridge" | "private" | "vepa" | "passthrough" | "hostdev" => {
            Err(element.error(Problem::NotSupportedYet(format!("mode '{mode}'"))))
        }
        _ => Err(element.error(Problem::ForwardMode(printable(mode)))),
    }
}

fn nat(element: Element<'_>) -> Result<Nat, Error> {
    element.attributes(&[], &["ipv6"])?;
    let (mut addresses, mut ports) = (None, None);
    for child in element.children(&["address", "port"], &[])? {
        child.attributes(&["start", "end"], &[])?;
        child.children(&[], &[])?;
        let start = child.need("start", "the attribute 'start'")?;
        let end = child.need("end", "the attribute 'end'")?;
        if child.name() == "address" {
            let (start, end) = (child.ipv4("start", start)?, child.ipv4("end", end)?);
            if start > end {
                return Err(child.error(Problem::ReversedRange(start, end)));
            }
            once(&mut addresses, child, (start, end))?;
        } else {
            let port = |attribute, value| child.number(attribute, value, (1, u16::MAX), "a port between 1 and 65535");
            let (start, end) = (port("start", start)?, port("end", end)?);
            if start > end {
                return Err(child.error(Problem::Together("the first port is greater than the last")));
            }
            once(&mut ports, child, (start, end))?;
        }
    }
    Ok(Nat { dev: None, addresses, ports })
}

/// Forwarding needs addresses to forward for.
fn check_forward(element: Element<'_>, forward: &Forward, name: &NetworkName, subnets: &[Subnet]) -> Result<(), Error> {
    let mode = match forward {
        Forward::Nat(_) => "nat",
        Forward::Route { .. } => "route",
        Forward::Open | Forward::Isolated => return Ok(()),
    };
    if subnets.is_empty() {
        return Err(element.error(Problem::NoAddress { mode, network: name.to_string() }));
    }
    Ok(())
}

fn bridge(element: Element<'_>) -> Result<Bridge, Error> {
    element.attributes(&["name", "stp", "delay"], &["zone", "macTableManager"])?;
    element.children(&[], &[])?;
    let name = match element.get("name") {
        // libvirt's template for "choose one", as an empty name is
        None | Some("" | "virbr%d") => None,
        Some(name) => Some(BridgeName::from_str(name).map_err(|e| element.error(e))?),
    };
    let delay = element.get("delay").map(|delay| element.number("delay", delay, (0, 30), "0 to 30 seconds"));
    Ok(Bridge {
        name,
        stp: element.switch("stp", ("on", "off"), "on or off")?.unwrap_or(false),
        delay: delay.transpose()?.unwrap_or(0),
    })
}

fn mac_address(element: Element<'_>) -> Result<MacAddr, Error> {
    element.attributes(&["address"], &[])?;
    element.children(&[], &[])?;
    let address = element.need("address", "the attribute 'address'")?;
    MacAddr::from_str(address).map_err(|e| element.error(e))
}

fn mtu(element: Element<'_>) -> Result<u32, Error> {
    element.attributes(&["size"], &[])?;
    element.children(&[], &[])?;
    let size = element.need("size", "the attribute 'size'")?;
    // 68: RFC 791 §3.2. 65521: the kernel's limit for a tap, 65535 less the Ethernet header.
    element.number("size", size, (68, 65521), "a number of bytes between 68 and 65521")
}

fn domain(element: Element<'_>) -> Result<Domain, Error> {
    element.attributes(&["name", "localOnly"], &["register"])?;
    element.children(&[], &[])?;
    let name = element.need("name", "the attribute 'name'")?;
    let name = domain_name(element, "name", name)?;
    Ok(Domain { name, local_only: element.yes_no("localOnly")?.unwrap_or(false) })
}

fn dns(element: Element<'_>) -> Result<Dns, Error> {
    element.attributes(&["enable"], &["forwardPlainNames"])?;
    let enable = element.yes_no("enable")?.unwrap_or(true);
    let mut hosts = Vec::new();
    for child in element.children(&["host"], &["forwarder", "txt", "srv"])? {
        if !enable {
            return Err(child.error(Problem::Together("records need <dns enable='yes'>")));
        }
        hosts.push(dns_host(child)?);
    }
    Ok(Dns { enable, hosts })
}

fn dns_host(element: Element<'_>) -> Result<DnsHost, Error> {
    element.attributes(&["ip"], &[])?;
    let ip = element.ipv4("ip", element.need("ip", "the attribute 'ip'")?)?;
    let (mut names, mut seen) = (Vec::new(), HashSet::new());
    for child in element.children(&["hostname"], &[])? {
        let name = domain_name(child, "the text", &child.text()?)?;
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(child.error(Problem::Repeated { what: "the name", value: name }));
        }
        names.push(name);
    }
    if names.is_empty() {
        return Err(element.error(Problem::Missing("a <hostname>")));
    }
    Ok(DnsHost { ip, names })
}

/// What can be a network interface of the host, and can stand in a firewall rule.
fn interface_name(element: Element<'_>, name: &str) -> Result<String, Error> {
    Ok(BridgeName::from_str(name).map_err(|e| element.error(e))?.to_string())
}

/// A domain name (RFC 1035 §2.3.1 and §2.3.4, with digits first and `_` allowed as everybody does); no final dot.
pub(super) fn domain_name(element: Element<'_>, what: &str, name: &str) -> Result<String, Error> {
    let plain = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if plain.len() > 253 || !plain.split('.').all(label) {
        let expected = "a domain name of letters, digits and '-', such as lab.example";
        return Err(element.bad(what, name, expected));
    }
    Ok(plain.to_owned())
}
