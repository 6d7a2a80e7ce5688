//! Guards: what a port may say it is. Pure: ports in, the table's text or the change of its elements out.
//!
//! ```text
//! ports ──► text (base.nft, chains, elements) ──► kernel: one `nft` transaction, for the whole table
//! ports before, after ──► changes of elements ──► kernel: one netlink transaction, for a port or a lease
//! ```
//!
//! The rules are in `guards/base.nft` and never change. An element takes the kernel a fraction of a millisecond, which is
//! why a DHCP reply can wait for it (decision 4).

mod kernel;
mod message;

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

pub use kernel::{Elements, delete, replace};

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
    /// What else it may use.
    pub sources: Sources,
}

/// What IPv4 addresses a port may use beside its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sources {
    /// None: its network has DHCP.
    #[default]
    Leases,
    /// All of its network's, but for the host's own.
    Network {
        /// The network's bridge.
        bridge: String,
        /// Its subnets; where there are none, any address.
        subnets: Vec<Ipv4Net>,
        /// The host's addresses on it.
        host: Vec<Ipv4Addr>,
    },
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
    /// A message of a DHCP server.
    Dhcp,
    /// A router advertisement or redirect.
    Ra,
}

impl Violation {
    /// All of them.
    pub const ALL: [Violation; 6] =
        [Violation::Mac, Violation::Vlan, Violation::Arp, Violation::Ip, Violation::Dhcp, Violation::Ra];

    /// The set whose elements count it.
    fn set(self) -> &'static str {
        match self {
            Violation::Mac => "dropped_mac",
            Violation::Vlan => "dropped_vlan",
            Violation::Arp => "dropped_arp",
            Violation::Ip => "dropped_ip",
            Violation::Dhcp => "dropped_dhcp",
            Violation::Ra => "dropped_ra",
        }
    }
}

/// One element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Element {
    set: &'static str,
    interface: String,
    with: With,
}

/// What stands beside the interface name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum With {
    Nothing,
    Mac([u8; 6]),
    Address(Ipv4Addr),
    /// The chain the map's element jumps to.
    Jump(String),
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
    let element = |set, with| Element { set, interface: port.interface.clone(), with };
    let mut elements = vec![element("macs", With::Mac(port.mac))];
    elements.extend(port.addresses.iter().map(|address| element("addresses", With::Address(*address))));
    if let Some(chain) = chain(&port.sources) {
        elements.push(element("networks", With::Jump(chain)));
    }
    elements.extend(Violation::ALL.map(|violation| element(violation.set(), With::Nothing)));
    elements.push(element("guarded", With::Nothing));
    elements
}

/// The chain of a network without DHCP.
fn chain(sources: &Sources) -> Option<String> {
    match sources {
        Sources::Leases => None,
        Sources::Network { bridge, .. } => Some(format!("from_{bridge}")),
    }
}

/// What turns the elements of `before` into those of `after`, and what of `gone` nothing needs any more.
fn changes(before: &[GuardedPort], after: &[GuardedPort], gone: &[Sources]) -> Vec<Change> {
    let old: Vec<Element> = before.iter().flat_map(elements).collect();
    let new: Vec<Element> = after.iter().flat_map(elements).collect();
    let removed = old.iter().filter(|element| !new.contains(element)).cloned().map(Change::Remove);
    let added = new.iter().filter(|element| !old.contains(element)).cloned().map(Change::Add);
    removed.chain(added).chain(gone.iter().filter_map(chain).map(Change::RemoveChain)).collect()
}

/// The whole table anew, as `nft` reads it.
fn text(ports: &[GuardedPort]) -> String {
    // A delete alone fails where there is nothing to delete.
    let mut text = format!("table bridge {0}\ndelete table bridge {0}\n{BASE}", crate::TABLE);
    let networks: BTreeMap<String, &Sources> =
        ports.iter().filter_map(|port| Some((chain(&port.sources)?, &port.sources))).collect();
    for (chain, sources) in networks {
        push(&mut text, format_args!("table bridge {} {{\n\tchain {chain} {{\n", crate::TABLE));
        for rule in rules(sources) {
            push(&mut text, format_args!("\t\t{rule}\n"));
        }
        text.push_str("\t}\n}\n");
    }
    let mut sets: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for element in ports.iter().flat_map(elements) {
        sets.entry(element.set).or_default().push(element.to_string());
    }
    for (set, elements) in sets {
        let elements = elements.join(", ");
        push(&mut text, format_args!("add element bridge {} {set} {{ {elements} }}\n", crate::TABLE));
    }
    text
}

fn push(text: &mut String, more: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(more);
}

/// The chain of a network without DHCP: returns to where the port is told off.
fn rules(sources: &Sources) -> Vec<String> {
    let Sources::Network { subnets, host, .. } = sources else { return Vec::new() };
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
        write!(f, "\"{}\"", self.interface)?;
        match &self.with {
            With::Nothing => Ok(()),
            With::Mac([a, b, c, d, e, g]) => write!(f, " . {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"),
            With::Address(address) => write!(f, " . {address}"),
            With::Jump(chain) => write!(f, " : jump {chain}"),
        }
    }
}

#[cfg(test)]
mod tests;
