//! Guards: what a port may say it is. Pure: ports in, the table's text or the change of its elements out.
//!
//! ```text
//! ports ──► text (base.nft, chains, elements) ──► kernel: one `nft` transaction, for the whole table
//! ports before, after ──► changes of elements ──► kernel: one netlink transaction, for a port or a lease
//! ```
//!
//! The rules are in `guards/base.nft` and never change. An element takes the kernel a fraction of a millisecond, which is
//! why a DHCP reply can wait for it (decision 4).
//!
//! IPv6 addresses are claimed by the frames that use them (decision 5): the kernel adds those elements itself, and goes
//! on to while no daemon runs. They are read back only to survive the table's being made anew, and to go with their port.

mod claims;
mod kernel;
mod message;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use claims::{Claim, made_of};
pub use claims::{link_local, network_group};
pub use kernel::{Elements, add_network, delete, replace};

/// The table's rules, sets and maps.
const BASE: &str = include_str!("guards/base.nft");

/// A port that is guarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardedPort {
    /// The tap's interface name: 1 to 15 of the letters, digits and `.`, `_`, `-`.
    pub interface: String,
    /// The only source MAC its frames may have.
    pub mac: [u8; 6],
    /// The IPv4 addresses it may use.
    pub addresses: Vec<Ipv4Addr>,
    /// The IPv6 addresses that are its own by lease, whoever has claimed them.
    #[serde(default)]
    pub addresses6: Vec<Ipv6Addr>,
    /// What else it may use, by its network.
    pub sources: Sources,
}

/// What addresses the ports of a network may use beside their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// The network's bridge. A tap on it has the group [`network_group`] says.
    pub bridge: String,
    /// IPv4.
    pub ipv4: Sources4,
    /// IPv6.
    #[serde(default)]
    pub ipv6: Sources6,
}

/// What IPv4 addresses a port may use beside its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sources4 {
    /// None: its network has DHCP.
    #[default]
    Leases,
    /// All of its network's, but for the host's own.
    Network {
        /// Its subnets; where there are none, any address.
        subnets: Vec<Ipv4Net>,
        /// The host's addresses on it.
        host: Vec<Ipv4Addr>,
    },
}

/// What IPv6 addresses a port may claim beside link-local ones: who uses one first has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources6 {
    /// What they are in.
    pub prefixes: Vec<Ipv6Net>,
    /// The host's addresses on the network, its link-local one too. They are nobody's to claim.
    pub host: Vec<Ipv6Addr>,
}

impl Sources6 {
    /// Every address that a host can have: global and unique local unicast (RFC 4291 §2.4, RFC 4193).
    pub fn any() -> Vec<Ipv6Net> {
        vec![
            Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3),
            Ipv6Net::new_assert(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
        ]
    }
}

/// What a frame was dropped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// Another source MAC than the port's.
    Mac,
    /// A VLAN tag.
    Vlan,
    /// An ARP sender that is not the port's MAC and address.
    Arp,
    /// A source address that is not the port's.
    Ip,
    /// A neighbour discovery message about another's address or MAC.
    Nd,
    /// A message of a DHCP server.
    Dhcp,
    /// A router advertisement or redirect.
    Ra,
}

impl Violation {
    /// All of them.
    pub const ALL: [Violation; 7] =
        [Violation::Mac, Violation::Vlan, Violation::Arp, Violation::Ip, Violation::Nd, Violation::Dhcp, Violation::Ra];

    /// The set whose elements count it.
    fn set(self) -> &'static str {
        match self {
            Violation::Mac => "dropped_mac",
            Violation::Vlan => "dropped_vlan",
            Violation::Arp => "dropped_arp",
            Violation::Ip => "dropped_ip",
            Violation::Nd => "dropped_nd",
            Violation::Dhcp => "dropped_dhcp",
            Violation::Ra => "dropped_ra",
        }
    }
}

/// One element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Element {
    set: &'static str,
    of: Of,
    with: With,
}

/// What stands first in an element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Interface(String),
    /// A network, by the group of its taps.
    Network(u32),
}

/// What stands beside it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum With {
    Nothing,
    Mac([u8; 6]),
    /// A MAC as a bare number.
    Lladdr([u8; 6]),
    Address(Ipv4Addr),
    /// An address as a bare number.
    Address6(Ipv6Addr),
    /// The chain the map's element leads to.
    Jump(String),
    Goto(String),
}

/// A change of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Add(Element),
    /// Fine if it is not there.
    Remove(Element),
    /// With its rules; nothing jumps to it any more.
    RemoveChain(String),
}

/// The elements of a port.
fn elements(port: &GuardedPort) -> Vec<Element> {
    let element = |set, with| Element { set, of: Of::Interface(port.interface.clone()), with };
    let mut elements = vec![element("macs", With::Mac(port.mac)), element("lladdrs", With::Lladdr(port.mac))];
    elements.extend(port.addresses.iter().map(|address| element("addresses", With::Address(*address))));
    for address in own6(port) {
        elements.push(claims::owned(&port.interface, address));
        elements.push(taken(&port.sources, address));
    }
    elements.extend(chains(&port.sources).into_iter().map(|chain| chain.element(&port.interface)));
    elements.extend(Violation::ALL.map(|violation| element(violation.set(), With::Nothing)));
    elements.push(element("guarded", With::Nothing));
    elements
}

/// The IPv6 addresses that are a port's own without a claim: by its MAC, and by lease.
fn own6(port: &GuardedPort) -> BTreeSet<Ipv6Addr> {
    made_of(port.mac, &port.sources.ipv6.prefixes).into_iter().chain(port.addresses6.iter().copied()).collect()
}

/// The elements of a network, there while it has a guarded port.
fn network_elements(sources: &Sources) -> impl Iterator<Item = Element> + '_ {
    sources.ipv6.host.iter().map(|address| taken(sources, *address))
}

/// The address is given out in its network.
fn taken(sources: &Sources, address: Ipv6Addr) -> Element {
    let network = Of::Network(network_group(&sources.bridge));
    Element { set: "taken6", of: network, with: With::Address6(address) }
}

/// A chain of a network, and the map that leads its ports there.
struct NetworkChain {
    map: &'static str,
    name: String,
    rules: Vec<String>,
}

impl NetworkChain {
    fn element(self, interface: &str) -> Element {
        let with = if self.map == "networks" { With::Jump(self.name) } else { With::Goto(self.name) };
        Element { set: self.map, of: Of::Interface(interface.to_owned()), with }
    }
}

/// The chains of a network: for IPv4 where it has no DHCP, for IPv6 where it has more than link-local addresses.
fn chains(sources: &Sources) -> Vec<NetworkChain> {
    let bridge = &sources.bridge;
    let mut chains = Vec::new();
    if let Sources4::Network { subnets, host } = &sources.ipv4 {
        chains.push(NetworkChain { map: "networks", name: format!("from_{bridge}"), rules: rules(subnets, host) });
    }
    let prefixes = &sources.ipv6.prefixes;
    if !prefixes.is_empty() {
        let mut from: Vec<_> = prefixes.iter().map(|prefix| format!("ip6 saddr {prefix} goto claim_source")).collect();
        from.push("goto bad_ip".to_owned());
        let mut target: Vec<_> = prefixes.iter().map(claims::target_rule).collect();
        target.push("goto bad_nd".to_owned());
        chains.push(NetworkChain { map: "networks6", name: format!("from6_{bridge}"), rules: from });
        chains.push(NetworkChain { map: "targets6", name: format!("target6_{bridge}"), rules: target });
    }
    chains
}

/// What turns the elements of `before` into those of `after`, and what of `gone` nothing needs any more.
fn changes(before: &[GuardedPort], after: &[GuardedPort], gone: &[Sources]) -> Vec<Change> {
    let of_networks = |ports: &[GuardedPort]| -> BTreeSet<Element> {
        ports.iter().flat_map(|port| network_elements(&port.sources)).collect()
    };
    let old: Vec<Element> = before.iter().flat_map(elements).collect();
    let new: Vec<Element> = after.iter().flat_map(elements).collect();
    let removed = old.iter().filter(|element| !new.contains(element)).cloned();
    let mut changes: Vec<Change> = removed.chain(gone.iter().flat_map(network_elements)).map(Change::Remove).collect();
    let added = new.iter().filter(|element| !old.contains(element)).cloned();
    changes.extend(added.chain(of_networks(after).difference(&of_networks(before)).cloned()).map(Change::Add));
    changes.extend(gone.iter().flat_map(chains).map(|chain| Change::RemoveChain(chain.name)));
    changes
}

/// The whole table anew, as `nft` reads it, with the claims that its ports have.
fn text(ports: &[GuardedPort], claims: &[Claim]) -> String {
    // A delete alone fails where there is nothing to delete.
    let mut text = format!("table bridge {0}\ndelete table bridge {0}\n{BASE}", crate::TABLE);
    let networks: BTreeMap<&str, &Sources> =
        ports.iter().map(|port| (port.sources.bridge.as_str(), &port.sources)).collect();
    for sources in networks.values() {
        text.push_str(&network_text(sources));
    }
    let mut sets: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let of_networks = networks.values().flat_map(|sources| network_elements(sources));
    for element in ports.iter().flat_map(elements).chain(of_networks) {
        sets.entry(element.set).or_default().push(element.to_string());
    }
    for (element, time) in claims::kept(ports, claims) {
        sets.entry(element.set).or_default().push(format!("{element} {time}"));
    }
    for (set, elements) in sets {
        let elements = elements.join(", ");
        push(&mut text, format_args!("add element bridge {} {set} {{ {elements} }}\n", crate::TABLE));
    }
    text
}

/// The chains of a network, whatever was in them before.
fn network_text(sources: &Sources) -> String {
    let mut text = String::new();
    for NetworkChain { name, rules, .. } in chains(sources) {
        let chain = format!("chain bridge {} {name}", crate::TABLE);
        push(&mut text, format_args!("add {chain}\nflush {chain}\n"));
        for rule in rules {
            push(&mut text, format_args!("add rule bridge {} {name} {rule}\n", crate::TABLE));
        }
    }
    text
}

fn push(text: &mut String, more: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(more);
}

/// The chain of a network without DHCP: returns to where the port is told off.
fn rules(subnets: &[Ipv4Net], host: &[Ipv4Addr]) -> Vec<String> {
    let mut rules = Vec::new();
    for address in host {
        rules.push(format!("ip saddr {address} return"));
        rules.push(format!("arp saddr ip {address} return"));
    }
    for subnet in subnets {
        rules.push(format!("ip saddr {subnet} accept"));
        rules.push(format!("arp saddr ip {subnet} accept"));
    }
    if subnets.is_empty() {
        rules.push("accept".to_owned());
    }
    rules
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.of {
            Of::Interface(name) => write!(f, "\"{name}\"")?,
            Of::Network(group) => write!(f, "{group}")?,
        }
        match &self.with {
            With::Nothing => Ok(()),
            With::Mac([a, b, c, d, e, g]) => write!(f, " . {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"),
            With::Lladdr([a, b, c, d, e, g]) => write!(f, " . 0x{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{g:02x}"),
            With::Address(address) => write!(f, " . {address}"),
            With::Address6(address) => write!(f, " . 0x{:032x}", address.to_bits()),
            With::Jump(chain) => write!(f, " : jump {chain}"),
            With::Goto(chain) => write!(f, " : goto {chain}"),
        }
    }
}

#[cfg(test)]
mod tests;
