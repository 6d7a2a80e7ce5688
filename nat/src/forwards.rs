//! Port forwards as nft objects: which of the host's ports lead to which addresses behind it. Pure, as `ruleset` is.
//!
//! ```text
//! prerouting, output ─ is it to an address of the host? ─► forward_dnat ─ protocol . port ─► address : port
//!                                                                       └─────────────────► round_…, several targets
//! input       ─ protocol . port in @forward_waiting ─► reject: nobody is there yet
//! forward     ─► forwarded ─ translated by us and to one of @forward_targets? accept, if its source may leave
//! postrouting ─ from the host itself, or back to the bridge it came from? ─► masquerade, so that answers come back
//! ```
//!
//! A new connection costs one look-up per map, whatever the number of forwards; other packets cost what conntrack
//! costs. All of it is there only while there is a forward. When a guest's address changes, only elements change (and,
//! where there are several targets, the rules of that forward).
//!
//! Connections from 127.0.0.1 need `route_localnet` on the bridge, which the caller sets; it would let guests send to
//! 127.0.0.1 of the host, so the chain `forward_martians` drops what comes from a bridge with such an address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ruleset::TABLE;

/// Called from the chain `forward` before anything else; always there, empty without forwards.
pub(crate) const FORWARDED: &str = "forwarded";

/// A port forward with everything looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Forward {
    /// What is forwarded.
    pub protocol: Protocol,
    /// The one address of the host it is for; every one if absent.
    pub address: Option<Ipv4Addr>,
    /// The host's ports, first and last.
    pub ports: (u16, u16),
    /// The bridge of the network the targets are on.
    pub bridge: String,
    /// The subnets of that network.
    pub subnets: Vec<Ipv4Net>,
    /// Addresses, each with the port that stands for the first of `ports`. Connections go to one after the other; to
    /// none they are rejected.
    pub targets: Vec<(Ipv4Addr, u16)>,
}

/// What can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// What a packet is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    address: Option<Ipv4Addr>,
    protocol: Protocol,
    port: u16,
}

/// An element of one of our sets and maps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Element {
    Bridge(String),
    Inside(String, Ipv4Net),
    Target(Ipv4Addr, Protocol, u16),
    Waiting(Key),
    Address(Key, Ipv4Addr),
    Port(Key, u16),
    Round(Key, String),
}

/// Bridges with the subnets on them: the one set with prefixes in it.
const INSIDE: &str = "forward_inside";

/// Sets and maps: name, key, and what a map leads to. Those whose name ends in `_at` are for one address of the host.
const SETS: [(&str, &[&str], Option<&str>); 11] = [
    ("forward_bridges", &["ifname"], None),
    (INSIDE, &["ifname", "ipv4_addr"], None),
    ("forward_targets", &["ipv4_addr", "inet_proto", "inet_service"], None),
    ("forward_waiting", &["inet_proto", "inet_service"], None),
    ("forward_waiting_at", &["ipv4_addr", "inet_proto", "inet_service"], None),
    ("forward_address", &["inet_proto", "inet_service"], Some("ipv4_addr")),
    ("forward_address_at", &["ipv4_addr", "inet_proto", "inet_service"], Some("ipv4_addr")),
    ("forward_port", &["inet_proto", "inet_service"], Some("inet_service")),
    ("forward_port_at", &["ipv4_addr", "inet_proto", "inet_service"], Some("inet_service")),
    ("forward_round", &["inet_proto", "inet_service"], Some("verdict")),
    ("forward_round_at", &["ipv4_addr", "inet_proto", "inet_service"], Some("verdict")),
];

/// Base chains: name, type, hook, priority. Before `ruleset`'s source translation, after its DNS redirect.
const HOOKS: [(&str, &str, &str, i32); 5] = [
    ("forward_martians", "filter", "prerouting", -300),
    ("forward_in", "nat", "prerouting", -99),
    ("forward_own", "nat", "output", -100),
    ("forward_refuse", "filter", "input", 0),
    ("forward_back", "nat", "postrouting", 99),
];

/// Chains that others jump to.
const CHAINS: [&str; 3] = ["forward_dnat", "forward_enter", "forward_reject"];

/// The commands that turn the forwards `before` into those `after`, in a table that has the former exactly.
pub(crate) fn change(before: &[Forward], after: &[Forward]) -> Vec<Value> {
    let mut commands = Vec::new();
    if before.is_empty() && !after.is_empty() {
        commands.extend(base());
    }
    let (old, new) = (elements(before), elements(after));
    commands.extend(element_commands("delete", old.difference(&new)));
    let (old_rounds, new_rounds) = (rounds(before), rounds(after));
    for name in old_rounds.keys().filter(|name| !new_rounds.contains_key(*name)) {
        commands.push(command("flush", "chain", chain(name)));
        commands.push(command("delete", "chain", chain(name)));
    }
    for (name, forward) in new_rounds.iter().filter(|(name, forward)| old_rounds.get(*name) != Some(*forward)) {
        commands.push(command("add", "chain", chain(name)));
        commands.push(command("flush", "chain", chain(name)));
        commands.extend(round_rules(forward).map(|statements| rule(name, statements)));
    }
    commands.extend(element_commands("add", new.difference(&old)));
    if after.is_empty() && !before.is_empty() {
        commands.extend(without_base());
    }
    commands
}

/// Everything that packets are compared with.
fn elements(forwards: &[Forward]) -> BTreeSet<Element> {
    let mut elements = BTreeSet::new();
    for forward in forwards {
        elements.insert(Element::Bridge(forward.bridge.clone()));
        elements.extend(forward.subnets.iter().map(|subnet| Element::Inside(forward.bridge.clone(), subnet.trunc())));
        let (first, last) = forward.ports;
        for port in first..=last {
            let key = Key { address: forward.address, protocol: forward.protocol, port };
            let target = |first_target: u16| first_target.saturating_add(port - first);
            for (address, first_target) in &forward.targets {
                elements.insert(Element::Target(*address, forward.protocol, target(*first_target)));
            }
            match forward.targets.as_slice() {
                [] => drop(elements.insert(Element::Waiting(key))),
                [(address, first_target)] => {
                    elements.insert(Element::Address(key, *address));
                    elements.insert(Element::Port(key, target(*first_target)));
                }
                _ => drop(elements.insert(Element::Round(key, forward.round()))),
            }
        }
    }
    elements
}

/// The forwards with several targets, by their chain.
fn rounds(forwards: &[Forward]) -> BTreeMap<String, &Forward> {
    forwards.iter().filter(|forward| forward.targets.len() > 1).map(|forward| (forward.round(), forward)).collect()
}

impl Forward {
    fn round(&self) -> String {
        let (first, last) = self.ports;
        let address = self.address.map(|address| format!("_{address}")).unwrap_or_default();
        format!("round_{}_{first}-{last}{address}", self.protocol.name())
    }
}

/// One target after the other: of what reaches the i-th rule of n, every (n-i)-th.
fn round_rules(forward: &Forward) -> impl Iterator<Item = Value> + '_ {
    let (first, last) = forward.ports;
    let count = forward.targets.len();
    forward.targets.iter().enumerate().map(move |(index, (address, first_target))| {
        let mut statements = vec![is(meta("l4proto"), json!(forward.protocol.name()))];
        if index + 1 < count {
            let turn = json!({ "numgen": { "mode": "inc", "mod": count - index, "offset": 0 } });
            statements.push(is(turn, json!(0)));
        }
        let port = if first == last {
            json!(first_target)
        } else {
            let pairs: Vec<Value> =
                (first..=last).map(|port| json!([port, first_target.saturating_add(port - first)])).collect();
            json!({ "map": { "key": th("dport"), "data": { "set": pairs } } })
        };
        statements.push(json!({ "dnat": { "family": "ip", "addr": address, "port": port } }));
        Value::Array(statements)
    })
}

/// Everything that does not depend on which forwards there are.
fn base() -> Vec<Value> {
    let mut commands = Vec::new();
    for (name, key, leads_to) in SETS {
        let key = if let [key] = key { json!(key) } else { json!(key) };
        let mut set = json!({ "family": "inet", "table": TABLE, "name": name, "type": key });
        if name == INSIDE {
            set["flags"] = json!(["interval"]);
        }
        if let Some(leads_to) = leads_to {
            set["map"] = json!(leads_to);
        }
        commands.push(command("add", if leads_to.is_some() { "map" } else { "set" }, set));
    }
    for name in CHAINS {
        commands.push(command("add", "chain", chain(name)));
    }
    for (name, kind, hook, priority) in HOOKS {
        let mut chain = chain(name);
        chain["type"] = json!(kind);
        chain["hook"] = json!(hook);
        chain["prio"] = json!(priority);
        chain["policy"] = json!("accept");
        commands.push(command("add", "chain", chain));
    }
    commands.extend(base_rules().into_iter().map(|(chain, statements)| rule(chain, Value::Array(statements))));
    commands
}

fn base_rules() -> Vec<(&'static str, Vec<Value>)> {
    let from_guests = is(meta("iifname"), json!("@forward_bridges"));
    let to_guests = is(meta("oifname"), json!("@forward_bridges"));
    let loopback = json!({ "prefix": { "addr": "127.0.0.0", "len": 8 } });
    let translated = json!({ "match": { "op": "in", "left": { "ct": { "key": "status" } }, "right": "dnat" } });
    let direction = |way: &str| is(json!({ "ct": { "key": "direction" } }), json!(way));
    let local = |end: &str| is(json!({ "fib": { "result": "type", "flags": [end] } }), json!("local"));
    let to_the_host = || [is(meta("nfproto"), json!("ipv4")), local("daddr")];
    let jump = |way: &str, target: &str| json!({ way: { "target": target } });
    let target = |end: &str, port: &str| {
        let key = json!({ "concat": [ip(end), meta("l4proto"), th(port)] });
        is(key, json!("@forward_targets"))
    };
    // What guests ask of their gateway's DNS server stays with it, whatever is forwarded.
    let guests_dns = || {
        let on_the_bridge = json!({ "fib": { "result": "type", "flags": ["daddr", "iif"] } });
        let is_ours =
            vec![from_guests.clone(), transport(), is(th("dport"), json!(53)), is(on_the_bridge, json!("local"))];
        with(is_ours, [json!({ "return": null })])
    };
    // So does what the host asks of a server on another loopback address, such as a resolver's 127.0.0.53.
    let other_loopback = || {
        let not_the_usual = json!({ "match": { "op": "!=", "left": ip("daddr"), "right": "127.0.0.1" } });
        vec![is(ip("daddr"), loopback.clone()), not_the_usual, json!({ "return": null })]
    };
    let new = json!({ "match": { "op": "in", "left": { "ct": { "key": "state" } }, "right": "new" } });
    let waiting = |at: bool| {
        let set = if at { "@forward_waiting_at" } else { "@forward_waiting" };
        vec![is(key(at), json!(set)), jump("goto", "forward_reject")]
    };
    let round = |at: bool| {
        let map = if at { "@forward_round_at" } else { "@forward_round" };
        vec![json!({ "vmap": { "key": key(at), "data": map } })]
    };
    // Not by the interface it came in by: br_netfilter hides that.
    let inside = json!({ "concat": [meta("oifname"), ip("saddr")] });
    vec![
        ("forward_martians", vec![from_guests.clone(), is(ip("daddr"), loopback.clone()), json!({ "drop": null })]),
        ("forward_martians", vec![from_guests.clone(), is(ip("saddr"), loopback.clone()), json!({ "drop": null })]),
        ("forward_in", guests_dns()),
        ("forward_in", with(to_the_host().into(), [jump("jump", "forward_dnat")])),
        ("forward_own", other_loopback()),
        ("forward_own", with(to_the_host().into(), [jump("jump", "forward_dnat")])),
        ("forward_dnat", dnat(true)),
        ("forward_dnat", round(true)),
        ("forward_dnat", dnat(false)),
        ("forward_dnat", round(false)),
        ("forward_refuse", guests_dns()),
        ("forward_refuse", other_loopback()),
        ("forward_refuse", with(with(vec![new.clone()], to_the_host()), waiting(true))),
        ("forward_refuse", with(with(vec![new], to_the_host()), waiting(false))),
        ("forward_reject", vec![is(meta("l4proto"), json!("tcp")), json!({ "reject": { "type": "tcp reset" } })]),
        ("forward_reject", vec![json!({ "reject": { "type": "icmpx", "expr": "port-unreachable" } })]),
        ("forward_back", vec![translated.clone(), to_guests, local("saddr"), json!({ "masquerade": null })]),
        ("forward_back", vec![translated.clone(), is(inside, json!("@forward_inside")), json!({ "masquerade": null })]),
        (FORWARDED, vec![translated.clone(), direction("reply"), target("saddr", "sport"), json!({ "accept": null })]),
        (FORWARDED, vec![translated, direction("original"), target("daddr", "dport"), jump("goto", "forward_enter")]),
        // A client that is a guest itself may come if it may leave its own network.
        ("forward_enter", vec![json!({ "vmap": { "key": meta("iifname"), "data": "@forward_from" } })]),
        ("forward_enter", vec![json!({ "accept": null })]),
    ]
}

/// To the address and the port that two maps give for one key: `nft` up to 1.0.6 reads no map that gives both.
fn dnat(at: bool) -> Vec<Value> {
    let look_up = |map: &str| {
        let data = format!("@forward_{map}{}", if at { "_at" } else { "" });
        json!({ "map": { "key": key(at), "data": data } })
    };
    let to = json!({ "family": "ip", "addr": look_up("address"), "port": look_up("port") });
    vec![transport(), json!({ "dnat": to })]
}

/// Takes away all that [`base`] makes.
fn without_base() -> Vec<Value> {
    let mut commands = vec![command("flush", "chain", chain(FORWARDED))];
    let chains = || HOOKS.iter().map(|(name, ..)| *name).chain(CHAINS);
    commands.extend(chains().map(|name| command("flush", "chain", chain(name))));
    commands.extend(chains().map(|name| command("delete", "chain", chain(name))));
    for (name, _, leads_to) in SETS {
        let set = json!({ "family": "inet", "table": TABLE, "name": name });
        commands.push(command("delete", if leads_to.is_some() { "map" } else { "set" }, set));
    }
    commands
}

/// One command per set or map, with all its elements.
fn element_commands<'a>(verb: &str, elements: impl Iterator<Item = &'a Element>) -> Vec<Value> {
    let mut by_name: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for element in elements {
        let (name, element) = element.in_set();
        by_name.entry(name).or_default().push(element);
    }
    let element = |(name, elem): (&str, Vec<Value>)| {
        command(verb, "element", json!({ "family": "inet", "table": TABLE, "name": name, "elem": elem }))
    };
    by_name.into_iter().map(element).collect()
}

impl Element {
    /// The set or map it is in, and how it is written there.
    fn in_set(&self) -> (&'static str, Value) {
        let by_key = |key: &Key, at, any| if key.address.is_some() { at } else { any };
        match self {
            Element::Bridge(bridge) => ("forward_bridges", json!(bridge)),
            Element::Inside(bridge, subnet) => {
                let prefix = json!({ "prefix": { "addr": subnet.network(), "len": subnet.prefix_len() } });
                (INSIDE, json!({ "concat": [bridge, prefix] }))
            }
            Element::Target(address, protocol, port) => {
                ("forward_targets", json!({ "concat": [address, protocol.name(), port] }))
            }
            Element::Waiting(key) => (by_key(key, "forward_waiting_at", "forward_waiting"), key.value()),
            Element::Address(key, address) => {
                (by_key(key, "forward_address_at", "forward_address"), json!([key.value(), address]))
            }
            Element::Port(key, port) => (by_key(key, "forward_port_at", "forward_port"), json!([key.value(), port])),
            Element::Round(key, chain) => {
                let verdict = json!({ "goto": { "target": chain } });
                (by_key(key, "forward_round_at", "forward_round"), json!([key.value(), verdict]))
            }
        }
    }
}

impl Key {
    fn value(self) -> Value {
        let Key { address, protocol, port } = self;
        match address {
            Some(address) => json!({ "concat": [address, protocol.name(), port] }),
            None => json!({ "concat": [protocol.name(), port] }),
        }
    }
}

/// A packet's [`Key`], with the address it is to or without.
fn key(at: bool) -> Value {
    let mut parts = vec![meta("l4proto"), th("dport")];
    if at {
        parts.insert(0, ip("daddr"));
    }
    json!({ "concat": parts })
}

fn with(mut statements: Vec<Value>, more: impl IntoIterator<Item = Value>) -> Vec<Value> {
    statements.extend(more);
    statements
}

fn command(verb: &str, kind: &str, object: Value) -> Value {
    json!({ verb: { kind: object } })
}

fn chain(name: &str) -> Value {
    json!({ "family": "inet", "table": TABLE, "name": name })
}

fn rule(chain: &str, statements: Value) -> Value {
    command("add", "rule", json!({ "family": "inet", "table": TABLE, "chain": chain, "expr": statements }))
}

fn is(left: Value, right: Value) -> Value {
    json!({ "match": { "op": "==", "left": left, "right": right } })
}

fn transport() -> Value {
    is(meta("l4proto"), json!({ "set": ["tcp", "udp"] }))
}

fn meta(key: &str) -> Value {
    json!({ "meta": { "key": key } })
}

fn ip(field: &str) -> Value {
    json!({ "payload": { "protocol": "ip", "field": field } })
}

fn th(field: &str) -> Value {
    json!({ "payload": { "protocol": "th", "field": field } })
}

#[cfg(test)]
mod tests;
