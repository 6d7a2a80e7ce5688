//! Following one flow through every table of the host, with nftables' own trace. Pure, but for `kernel`.
//!
//! ```text
//! Watch ──► text (two short-lived tables) ──► kernel ──► trace messages ──► Event ──► Walk, one per base chain
//! ```
//!
//! The tables have one rule per place where the flow comes in, which marks its packets for the trace, and empty chains
//! behind everybody else's: a packet that is seen there has got through. They are called [`TABLE`], and nothing but a
//! trace that is under way, or was broken off, has tables of that name.

mod arriving;
mod kernel;
mod message;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt::Write, net::IpAddr};

pub use arriving::{Arriving, End};
pub use kernel::{Listener, install, install_arriving, listing, remove};
pub use message::{Packet, parse};

/// The name of both tables, of the families `bridge` and `inet`.
pub const TABLE: &str = "netd_why";

/// The chains, by what it means that a packet is seen in one.
pub mod place {
    /// It came from the port.
    pub const PORT: &str = "port";
    /// It got through everything a frame meets that comes from a port.
    pub const CHECKED: &str = "checked";
    /// It got through what a frame meets between two ports.
    pub const BRIDGED: &str = "bridged";
    /// It goes out by a port.
    pub const DELIVERED: &str = "delivered";
    /// The host is about to route it.
    pub const ARRIVED: &str = "arrived";
    /// It got through what is asked of packets from one interface to another.
    pub const FORWARDED: &str = "forwarded";
    /// It got through what is asked of packets to the host itself.
    pub const HOST: &str = "host";
    /// It leaves the host.
    pub const LEFT: &str = "left";
    /// An answer came in.
    pub const ANSWER: &str = "answer";
    /// The host itself answers.
    pub const ANSWERED: &str = "answered";
    /// It came in from somewhere that is no port.
    pub const CAME: &str = "came";
    /// The host itself sends it.
    pub const SENT: &str = "sent";
}

/// What a flow is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP to this port.
    Tcp(u16),
    /// UDP to this port.
    Udp(u16),
    /// Echo requests.
    Icmp,
}

/// The flow to follow: from a port, and its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The tap it comes from.
    pub interface: String,
    /// Who sends it; whoever if absent.
    pub source: Option<IpAddr>,
    /// The port it is sent from; any if absent.
    pub source_port: Option<u16>,
    /// Where it goes.
    pub target: IpAddr,
    /// What it is.
    pub protocol: Protocol,
}

/// Enough packets to see a flow's fate; more would only cost, for every step of each is a message.
const LIMIT: &str = "limit rate 5/second burst 5 packets meta nftrace set 1";

impl Watch {
    /// The packets of the flow, as they come from the port.
    fn there(&self) -> String {
        there(self.source, self.source_port, self.target, self.protocol)
    }

    /// Their answers, as they go out by the port.
    fn back(&self) -> String {
        let (ip, icmp) = self.family();
        let ports = |protocol: &str, port: u16| {
            let to = self.source_port.map(|to| format!(" {protocol} dport {to}")).unwrap_or_default();
            format!("{ip} saddr {} {protocol} sport {port}{to}", self.target)
        };
        match self.protocol {
            Protocol::Tcp(port) => ports("tcp", port),
            Protocol::Udp(port) => ports("udp", port),
            Protocol::Icmp => format!("{ip} saddr {} {icmp} type echo-reply", self.target),
        }
    }

    /// Answers and errors about the flow on their way back, whatever their addresses were translated to.
    fn tracked(&self) -> Vec<String> {
        tracked(self.source, self.source_port, self.target, self.protocol)
    }

    fn family(&self) -> (&'static str, &'static str) {
        family(self.target)
    }
}

/// What the family of an address and its ICMP are called.
fn family(address: IpAddr) -> (&'static str, &'static str) {
    match address {
        IpAddr::V4(_) => ("ip", "icmp"),
        IpAddr::V6(_) => ("ip6", "icmpv6"),
    }
}

/// The packets of a flow, before anything is translated.
fn there(source: Option<IpAddr>, source_port: Option<u16>, target: IpAddr, protocol: Protocol) -> String {
    let (ip, icmp) = family(target);
    let mut text = String::new();
    if let Some(source) = source {
        push(&mut text, format_args!("{ip} saddr {source} "));
    }
    push(&mut text, format_args!("{ip} daddr {target} "));
    let ports = |protocol: &str, port: u16| {
        let from = source_port.map(|from| format!("{protocol} sport {from} ")).unwrap_or_default();
        format!("{from}{protocol} dport {port}")
    };
    text + &match protocol {
        Protocol::Tcp(port) => ports("tcp", port),
        Protocol::Udp(port) => ports("udp", port),
        Protocol::Icmp => format!("{icmp} type echo-request"),
    }
}

/// Answers and errors about a flow, as conntrack knows them.
fn tracked(source: Option<IpAddr>, source_port: Option<u16>, target: IpAddr, protocol: Protocol) -> Vec<String> {
    let (ip, icmp) = family(target);
    let mut both = "ct direction reply ".to_owned();
    if let Some(source) = source {
        push(&mut both, format_args!("ct original {ip} saddr {source} "));
    }
    push(&mut both, format_args!("ct original {ip} daddr {target}"));
    // Only behind its protocol does every `nft` take a number for a port.
    let ports = |protocol: &str, port: u16| {
        let from = source_port.map(|from| format!(" ct original proto-src {from}")).unwrap_or_default();
        format!("meta l4proto {protocol} {both} ct original proto-dst {port}{from}")
    };
    let errors = format!("meta l4proto {} {both}", if icmp == "icmp" { "icmp" } else { "ipv6-icmp" });
    match protocol {
        Protocol::Tcp(port) => vec![ports("tcp", port), errors],
        Protocol::Udp(port) => vec![ports("udp", port), errors],
        Protocol::Icmp => vec![errors],
    }
}

/// Both tables, as `nft` reads them.
///
/// Priorities: before everybody and behind everybody, but for the answers, which are known by conntrack (at -200) and
/// therefore are followed from behind it.
fn text(watch: &Watch) -> String {
    let port = &watch.interface;
    let nothing = String::new;
    let tracked: String = watch.tracked().into_iter().map(mark).collect();
    tables(
        &[
            (place::PORT, "prerouting", -1000, mark(format!("iifname \"{port}\" {}", watch.there()))),
            (place::CHECKED, "prerouting", 1000, nothing()),
            (place::BRIDGED, "forward", 1000, nothing()),
            (place::DELIVERED, "postrouting", 1000, mark(format!("oifname \"{port}\" {}", watch.back()))),
        ],
        &[
            (place::ARRIVED, "prerouting", 1000, nothing()),
            (place::FORWARDED, "forward", 1000, nothing()),
            (place::HOST, "input", 1000, nothing()),
            (place::LEFT, "postrouting", 1000, nothing()),
            (place::ANSWER, "prerouting", -150, tracked.clone()),
            (place::ANSWERED, "output", -150, tracked.clone()),
        ],
    )
}

/// A chain: its name, hook, priority and rules.
type Chain = (&'static str, &'static str, i32, String);

/// Both tables with these chains, in place of any earlier ones.
fn tables(bridge: &[Chain], inet: &[Chain]) -> String {
    let mut text = removal();
    for (family, chains) in [("bridge", bridge), ("inet", inet)] {
        push(&mut text, format_args!("table {family} {TABLE} {{\n"));
        for (name, hook, priority, rule) in chains {
            push(
                &mut text,
                format_args!(
                    "\tchain {name} {{\n\t\ttype filter hook {hook} priority {priority}; policy accept;\n{rule}\t}}\n"
                ),
            );
        }
        text.push_str("}\n");
    }
    text
}

/// A rule that marks what matches.
fn mark(matches: String) -> String {
    format!("\t\t{matches} {LIMIT}\n")
}

/// Takes both tables away, whether they are there or not.
fn removal() -> String {
    ["bridge", "inet"].map(|family| format!("table {family} {TABLE}\ndelete table {family} {TABLE}\n")).concat()
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(more);
}

/// One step of a packet through the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The kernel's name for the packet; another one once it is handed from the bridge to the host.
    pub id: u32,
    /// `ip`, `ip6`, `bridge`, `arp` or `netdev`: the packet's. A step in a table of the family `inet` has `ip` or `ip6`.
    pub family: &'static str,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule's handle; none at the end of a chain.
    pub rule: Option<u64>,
    /// What became of the packet by it.
    pub verdict: Verdict,
    /// The packet, with the first step in every base chain.
    pub packet: Option<Packet>,
}

/// What a rule, or a chain's policy, said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on to the next base chain.
    Accept,
    /// It ends here; so it does with `reject`.
    Drop,
    /// Handed to a program (`queue`), or taken (`dup`, `fwd`): what comes of it is not seen here.
    Taken,
    /// On to another rule or chain.
    Onward,
}

/// A packet's way through one base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The kernel's name for the packet.
    pub id: u32,
    /// The family of the table; `ip` or `ip6` also where it is `inet`, for the kernel does not tell.
    pub family: &'static str,
    /// The table.
    pub table: String,
    /// The base chain.
    pub base: String,
    /// The packet as it came in.
    pub packet: Packet,
    /// The first step was a rule that holds for it: in our own tables, that it is one of those looked for there.
    pub matched: bool,
    /// The chain of the last step.
    pub chain: String,
    /// The rule of the last step; none for the policy.
    pub rule: Option<u64>,
    /// What the last step said.
    pub verdict: Verdict,
}

impl Walk {
    /// In our own tables: where it was.
    pub fn place(&self) -> Option<&str> {
        (self.table == TABLE).then_some(self.base.as_str())
    }
}

/// Steps, in the order in which the kernel told of them, as walks in the order in which they began.
pub fn walks(events: &[Event]) -> Vec<Walk> {
    let mut walks: Vec<Walk> = Vec::new();
    // Packets on several CPUs are told of in turns.
    let mut under_way: BTreeMap<u32, usize> = BTreeMap::new();
    for event in events {
        if let Some(packet) = &event.packet {
            under_way.insert(event.id, walks.len());
            walks.push(Walk {
                id: event.id,
                family: event.family,
                table: event.table.clone(),
                base: event.chain.clone(),
                packet: packet.clone(),
                matched: event.rule.is_some(),
                chain: event.chain.clone(),
                rule: event.rule,
                verdict: event.verdict,
            });
        } else if let Some(walk) = under_way.get(&event.id).and_then(|at| walks.get_mut(*at)) {
            walk.chain = event.chain.clone();
            walk.rule = event.rule;
            walk.verdict = event.verdict;
        }
    }
    walks
}

/// A rule by its handle in the listing of its table, as [`listing`] gives it, without what its counter says.
pub fn rule_text(listing: &str, handle: u64) -> Option<String> {
    let mark = format!("# handle {handle}");
    let line = listing.lines().map(str::trim).find(|line| line.ends_with(&mark) && !line.contains("{ #"))?;
    let mut words: Vec<&str> = line.strip_suffix(&mark)?.split_whitespace().collect();
    if let Some(at) = words.windows(2).position(|pair| pair == ["counter", "packets"]) {
        words.drain(at..words.len().min(at + 5));
    }
    Some(words.join(" "))
}
