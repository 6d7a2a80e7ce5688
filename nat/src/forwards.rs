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
//! 127.0.0.1 of the host, so the chain `forward_martians` drops what comes from a bridge with such an address. There is
//! no such setting for ::1: the kernel takes no answer to it from any interface but `lo` (`rt6_need_strict`), so what is
//! asked of ::1 stays with the host.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    compile::{Declaration, Type},
    ruleset::TABLE,
};

/// Called from the chain `forward` before anything else; always there, empty without forwards.
pub(crate) const FORWARDED: [&str; 2] = ["forwarded", "forwarded6"];

/// What a forward is of. One leads from a family to the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    const ALL: [Family; 2] = [Family::V4, Family::V6];

    fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// `forward_in`, `forward6_in`.
    fn name(self, rest: &str) -> String {
        format!("{}_{rest}", if self == Family::V4 { "forward" } else { "forward6" })
    }

    fn forwarded(self) -> &'static str {
        if self == Family::V4 { FORWARDED[0] } else { FORWARDED[1] }
    }

    /// What its header is called, in expressions and in `dnat`.
    fn header(self) -> &'static str {
        if self == Family::V4 { "ip" } else { "ip6" }
    }

    /// Its name to `meta nfproto`.
    fn protocol(self) -> &'static str {
        if self == Family::V4 { "ipv4" } else { "ipv6" }
    }

    /// Nobody can send to the host's ::1 from outside.
    fn hooks(self) -> impl Iterator<Item = Hook> {
        HOOKS.into_iter().filter(move |(name, ..)| self == Family::V4 || *name != "martians")
    }

    /// The type of one of [`SETS`]' parts.
    fn kind(self, kind: &str) -> &str {
        match (kind, self) {
            (ADDRESS, Family::V4) => "ipv4_addr",
            (ADDRESS, Family::V6) => "ipv6_addr",
            (kind, _) => kind,
        }
    }

    fn has_any(self, forwards: &[Forward], others: Others) -> bool {
        let other = if self == Family::V4 { others.ipv4 } else { others.ipv6 };
        other || forwards.iter().any(|forward| forward.family() == self)
    }
}

/// A port forward with everything looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Forward {
    /// What is forwarded.
    pub protocol: Protocol,
    /// The one address of the host it is for; every IPv4 one if absent, every IPv6 one if `::`.
    pub address: Option<IpAddr>,
    /// The host's ports, first and last.
    pub ports: (u16, u16),
    /// The bridge of the network the targets are on.
    pub bridge: String,
    /// The subnets of that network.
    pub subnets: Vec<IpNet>,
    /// Addresses of the same family, each with the port that stands for the first of `ports`. Connections go to one after the other; to
    /// none they are rejected.
    pub targets: Vec<(IpAddr, u16)>,
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
    address: Option<IpAddr>,
    protocol: Protocol,
    port: u16,
}

/// An element of one of our sets and maps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Element {
    Bridge(String),
    Inside(String, IpNet),
    Target(IpAddr, Protocol, u16),
    Waiting(Key),
    Address(Key, IpAddr),
    Port(Key, u16),
    Round(Key, String),
}

/// Bridges with the subnets on them: the one set with prefixes in it.
const INSIDE: &str = "inside";

/// Stands for `ipv4_addr` or `ipv6_addr` in [`SETS`].
const ADDRESS: &str = "address";

/// Sets and maps: name, key, and what a map leads to. Those whose name ends in `_at` are for one address of the host.
const SETS: [(&str, &[&str], Option<&str>); 11] = [
    ("bridges", &["ifname"], None),
    (INSIDE, &["ifname", ADDRESS], None),
    ("targets", &[ADDRESS, "inet_proto", "inet_service"], None),
    ("waiting", &["inet_proto", "inet_service"], None),
    ("waiting_at", &[ADDRESS, "inet_proto", "inet_service"], None),
    ("address", &["inet_proto", "inet_service"], Some(ADDRESS)),
    ("address_at", &[ADDRESS, "inet_proto", "inet_service"], Some(ADDRESS)),
    ("port", &["inet_proto", "inet_service"], Some("inet_service")),
    ("port_at", &[ADDRESS, "inet_proto", "inet_service"], Some("inet_service")),
    ("round", &["inet_proto", "inet_service"], Some("verdict")),
    ("round_at", &[ADDRESS, "inet_proto", "inet_service"], Some("verdict")),
];

/// A base chain: name, type, hook, priority.
type Hook = (&'static str, &'static str, &'static str, i32);

/// Base chains. Before `ruleset`'s source translation, after its DNS redirect.
const HOOKS: [Hook; 5] = [
    ("martians", "filter", "prerouting", -300),
    ("in", "nat", "prerouting", -99),
    ("own", "nat", "output", -100),
    ("refuse", "filter", "input", 0),
    ("back", "nat", "postrouting", 99),
];

/// Chains that others jump to.
const CHAINS: [&str; 3] = ["dnat", "enter", "reject"];

/// Of which families the table has forwards of networks that are not spoken of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// IPv4.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
}

impl Others {
    /// With the families of these.
    pub fn of<'a>(forwards: impl IntoIterator<Item = &'a Forward>) -> Self {
        let mut others = Others::default();
        for forward in forwards {
            match forward.family() {
                Family::V4 => others.ipv4 = true,
                Family::V6 => others.ipv6 = true,
            }
        }
        others
    }
}

/// The commands that turn the forwards `before` of some networks into those `after`, in a table that has exactly the
/// former of them.
pub(crate) fn change(before: &[Forward], after: &[Forward], others: Others) -> Vec<Value> {
    Family::ALL.into_iter().flat_map(|family| change_of(family, before, after, others)).collect()
}

/// Whether those commands make or remove what all forwards of a family share.
pub(crate) fn moves_base(before: &[Forward], after: &[Forward], others: Others) -> bool {
    Family::ALL.into_iter().any(|family| family.has_any(before, others) != family.has_any(after, others))
}

/// How one of our sets or maps was declared.
pub(crate) fn declaration(name: &str) -> Option<Declaration> {
    let (family, set) = Family::ALL.into_iter().find_map(|family| {
        let set = SETS.iter().find(|(rest, ..)| family.name(rest) == name)?;
        Some((family, set))
    })?;
    let kind = |kind: &str| Type::named(family.kind(kind));
    let (name, key, leads_to) = set;
    let leads_to = match leads_to {
        Some(leads_to) => Some(kind(leads_to)?),
        None => None,
    };
    let key = key.iter().map(|part| kind(part)).collect::<Option<_>>()?;
    Some(Declaration { key, leads_to, interval: *name == INSIDE })
}

fn change_of(family: Family, before: &[Forward], after: &[Forward], others: Others) -> Vec<Value> {
    let (had, has) = (family.has_any(before, others), family.has_any(after, others));
    let (before, after) = of_changed_networks(family, before, after);
    let mut commands = Vec::new();
    if !had && has {
        commands.extend(base(family));
    }
    let (old, new) = (elements(&before), elements(&after));
    commands.extend(element_commands(family, "delete", old.difference(&new)));
    let (old_rounds, new_rounds) = (rounds(&before), rounds(&after));
    for name in old_rounds.keys().filter(|name| !new_rounds.contains_key(*name)) {
        commands.push(command("flush", "chain", chain(name)));
        commands.push(command("delete", "chain", chain(name)));
    }
    for (name, forward) in new_rounds.iter().filter(|(name, forward)| old_rounds.get(*name) != Some(*forward)) {
        commands.push(command("add", "chain", chain(name)));
        commands.push(command("flush", "chain", chain(name)));
        commands.extend(round_rules(forward).map(|statements| rule(name, statements)));
    }
    commands.extend(element_commands(family, "add", new.difference(&old)));
    if had && !has {
        commands.extend(without_base(family));
    }
    commands
}

/// The forwards of a family to those networks of which any is new, gone or different: no element is of two networks.
fn of_changed_networks<'a>(
    family: Family,
    before: &'a [Forward],
    after: &'a [Forward],
) -> (Vec<&'a Forward>, Vec<&'a Forward>) {
    let by_network = |forwards: &'a [Forward]| {
        let mut by_network: BTreeMap<&str, Vec<&Forward>> = BTreeMap::new();
        for forward in forwards.iter().filter(|forward| forward.family() == family) {
            by_network.entry(&forward.bridge).or_default().push(forward);
        }
        by_network
    };
    let (before, after) = (by_network(before), by_network(after));
    let differing = |these: &BTreeMap<&str, Vec<&'a Forward>>, those: &BTreeMap<&str, Vec<&'a Forward>>| {
        let differs = |(bridge, forwards): &(&&str, &Vec<&Forward>)| those.get(**bridge) != Some(*forwards);
        these.iter().filter(differs).flat_map(|(_, forwards)| forwards.iter().copied()).collect::<Vec<_>>()
    };
    (differing(&before, &after), differing(&after, &before))
}

/// Everything that packets are compared with.
fn elements(forwards: &[&Forward]) -> BTreeSet<Element> {
    let mut elements = BTreeSet::new();
    for forward in forwards {
        elements.insert(Element::Bridge(forward.bridge.clone()));
        let subnets = forward.subnets.iter().filter(|subnet| Family::of(subnet.addr()) == forward.family());
        elements.extend(subnets.map(|subnet| Element::Inside(forward.bridge.clone(), subnet.trunc())));
        let (first, last) = forward.ports;
        for port in first..=last {
            let address = forward.address.filter(|address| !address.is_unspecified());
            let key = Key { address, protocol: forward.protocol, port };
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
fn rounds<'a>(forwards: &[&'a Forward]) -> BTreeMap<String, &'a Forward> {
    let several = forwards.iter().filter(|forward| forward.targets.len() > 1);
    several.map(|forward| (forward.round(), *forward)).collect()
}

impl Forward {
    fn family(&self) -> Family {
        self.address.map_or(Family::V4, Family::of)
    }

    fn round(&self) -> String {
        let (first, last) = self.ports;
        let address = self.address.filter(|address| *address != IpAddr::from(Ipv6Addr::UNSPECIFIED));
        let address = address.map(|address| format!("_{address}").replace(':', "_")).unwrap_or_default();
        let round = if self.family() == Family::V4 { "round" } else { "round6" };
        format!("{round}_{}_{first}-{last}{address}", self.protocol.name())
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
        statements.push(json!({ "dnat": { "family": forward.family().header(), "addr": address, "port": port } }));
        Value::Array(statements)
    })
}

/// Everything that does not depend on which forwards there are.
fn base(family: Family) -> Vec<Value> {
    let mut commands = Vec::new();
    let kind = |kind: &'static str| family.kind(kind);
    for (name, key, leads_to) in SETS {
        let key: Vec<&str> = key.iter().map(|part| kind(part)).collect();
        let key = if let [key] = key.as_slice() { json!(key) } else { json!(key) };
        let mut set = json!({ "family": "inet", "table": TABLE, "name": family.name(name), "type": key });
        if name == INSIDE {
            set["flags"] = json!(["interval"]);
        }
        if let Some(leads_to) = leads_to {
            set["map"] = json!(kind(leads_to));
        }
        commands.push(command("add", if leads_to.is_some() { "map" } else { "set" }, set));
    }
    for name in CHAINS {
        commands.push(command("add", "chain", chain(&family.name(name))));
    }
    for (name, kind, hook, priority) in family.hooks() {
        let mut chain = chain(&family.name(name));
        chain["type"] = json!(kind);
        chain["hook"] = json!(hook);
        chain["prio"] = json!(priority);
        chain["policy"] = json!("accept");
        commands.push(command("add", "chain", chain));
    }
    commands.extend(base_rules(family).into_iter().map(|(chain, statements)| {
        let chain = if chain == FORWARDED[0] { family.forwarded().to_owned() } else { family.name(chain) };
        rule(&chain, Value::Array(statements))
    }));
    commands
}

/// Rules by chain, whose names are without the family's prefix.
fn base_rules(family: Family) -> Vec<(&'static str, Vec<Value>)> {
    let set = |name: &str| json!(format!("@{}", family.name(name)));
    let ip = |field: &str| ip(family, field);
    let key = |at: bool| key(family, at);
    let from_guests = is(meta("iifname"), set("bridges"));
    let to_guests = is(meta("oifname"), set("bridges"));
    let loopback = json!({ "prefix": { "addr": "127.0.0.0", "len": 8 } });
    let translated = json!({ "match": { "op": "in", "left": { "ct": { "key": "status" } }, "right": "dnat" } });
    let direction = |way: &str| is(json!({ "ct": { "key": "direction" } }), json!(way));
    let local = |end: &str| is(json!({ "fib": { "result": "type", "flags": [end] } }), json!("local"));
    let to_the_host = || [is(meta("nfproto"), json!(family.protocol())), local("daddr")];
    let jump = |way: &str, target: &str| json!({ way: { "target": family.name(target) } });
    let target = |end: &str, port: &str| {
        let key = json!({ "concat": [ip(end), meta("l4proto"), th(port)] });
        is(key, set("targets"))
    };
    // What guests ask of their gateway's DNS server stays with it, whatever is forwarded.
    let guests_dns = || {
        let on_the_bridge = json!({ "fib": { "result": "type", "flags": ["daddr", "iif"] } });
        let is_ours =
            vec![from_guests.clone(), transport(), is(th("dport"), json!(53)), is(on_the_bridge, json!("local"))];
        with(is_ours, [json!({ "return": null })])
    };
    // So does what the host asks of a server on another loopback address, such as a resolver's 127.0.0.53.
    // Nobody is forwarded from ::1; and a neighbour on a link, which knows the host by an address of that link only, is
    // not one of a guest's on another.
    let not_forwarded = || match family {
        Family::V4 => {
            let not_the_usual = json!({ "match": { "op": "!=", "left": ip("daddr"), "right": "127.0.0.1" } });
            vec![is(ip("daddr"), loopback.clone()), not_the_usual, json!({ "return": null })]
        }
        Family::V6 => {
            let on_the_link = json!({ "prefix": { "addr": "fe80::", "len": 10 } });
            vec![is(ip("daddr"), json!({ "set": ["::1", on_the_link] })), json!({ "return": null })]
        }
    };
    let new = json!({ "match": { "op": "in", "left": { "ct": { "key": "state" } }, "right": "new" } });
    let waiting = |at: bool| vec![is(key(at), set(if at { "waiting_at" } else { "waiting" })), jump("goto", "reject")];
    let round = |at: bool| {
        let map = set(if at { "round_at" } else { "round" });
        vec![json!({ "vmap": { "key": key(at), "data": map } })]
    };
    // Not by the interface it came in by: br_netfilter hides that.
    let inside = json!({ "concat": [meta("oifname"), ip("saddr")] });
    let martian = |end: &str| vec![from_guests.clone(), is(ip(end), loopback.clone()), json!({ "drop": null })];
    let mut rules = match family {
        Family::V4 => vec![("martians", martian("daddr")), ("martians", martian("saddr"))],
        // The kernel takes no ::1 from outside anyway; what is to an address of one link stays there.
        Family::V6 => vec![("in", not_forwarded())],
    };
    rules.extend([
        ("in", guests_dns()),
        ("in", with(to_the_host().into(), [jump("jump", "dnat")])),
        ("own", not_forwarded()),
        ("own", with(to_the_host().into(), [jump("jump", "dnat")])),
        ("dnat", dnat(family, true)),
        ("dnat", round(true)),
        ("dnat", dnat(family, false)),
        ("dnat", round(false)),
        ("refuse", guests_dns()),
        ("refuse", not_forwarded()),
        ("refuse", with(with(vec![new.clone()], to_the_host()), waiting(true))),
        ("refuse", with(with(vec![new], to_the_host()), waiting(false))),
        ("reject", vec![is(meta("l4proto"), json!("tcp")), json!({ "reject": { "type": "tcp reset" } })]),
        ("reject", vec![json!({ "reject": { "type": "icmpx", "expr": "port-unreachable" } })]),
        ("back", vec![translated.clone(), to_guests, local("saddr"), json!({ "masquerade": null })]),
        ("back", vec![translated.clone(), is(inside, set(INSIDE)), json!({ "masquerade": null })]),
        (
            FORWARDED[0],
            vec![translated.clone(), direction("reply"), target("saddr", "sport"), json!({ "accept": null })],
        ),
        (FORWARDED[0], vec![translated, direction("original"), target("daddr", "dport"), jump("goto", "enter")]),
        // A client that is a guest itself may come if it may leave its own network.
        ("enter", vec![json!({ "vmap": { "key": meta("iifname"), "data": "@forward_from" } })]),
        ("enter", vec![json!({ "accept": null })]),
    ]);
    rules
}

/// To the address and the port that two maps give for one key: `nft` up to 1.0.6 reads no map that gives both.
fn dnat(family: Family, at: bool) -> Vec<Value> {
    let look_up = |map: &str| {
        let data = format!("@{}{}", family.name(map), if at { "_at" } else { "" });
        json!({ "map": { "key": key(family, at), "data": data } })
    };
    let to = json!({ "family": family.header(), "addr": look_up("address"), "port": look_up("port") });
    vec![transport(), json!({ "dnat": to })]
}

/// Takes away all that [`base`] makes.
fn without_base(family: Family) -> Vec<Value> {
    let mut commands = vec![command("flush", "chain", chain(family.forwarded()))];
    let chains = || family.hooks().map(|(name, ..)| name).chain(CHAINS).map(|name| family.name(name));
    commands.extend(chains().map(|name| command("flush", "chain", chain(&name))));
    commands.extend(chains().map(|name| command("delete", "chain", chain(&name))));
    for (name, _, leads_to) in SETS {
        let set = json!({ "family": "inet", "table": TABLE, "name": family.name(name) });
        commands.push(command("delete", if leads_to.is_some() { "map" } else { "set" }, set));
    }
    commands
}

/// One command per set or map, with all its elements.
fn element_commands<'a>(family: Family, verb: &str, elements: impl Iterator<Item = &'a Element>) -> Vec<Value> {
    let mut by_name: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for element in elements {
        let (name, element) = element.in_set();
        by_name.entry(family.name(name)).or_default().push(element);
    }
    let element = |(name, elem): (String, Vec<Value>)| {
        command(verb, "element", json!({ "family": "inet", "table": TABLE, "name": name, "elem": elem }))
    };
    by_name.into_iter().map(element).collect()
}

impl Element {
    /// The set or map it is in, without the family's prefix, and how it is written there.
    fn in_set(&self) -> (&'static str, Value) {
        let by_key = |key: &Key, at, any| if key.address.is_some() { at } else { any };
        match self {
            Element::Bridge(bridge) => ("bridges", json!(bridge)),
            Element::Inside(bridge, subnet) => {
                let prefix = json!({ "prefix": { "addr": subnet.network(), "len": subnet.prefix_len() } });
                (INSIDE, json!({ "concat": [bridge, prefix] }))
            }
            Element::Target(address, protocol, port) => {
                ("targets", json!({ "concat": [address, protocol.name(), port] }))
            }
            Element::Waiting(key) => (by_key(key, "waiting_at", "waiting"), key.value()),
            Element::Address(key, address) => (by_key(key, "address_at", "address"), json!([key.value(), address])),
            Element::Port(key, port) => (by_key(key, "port_at", "port"), json!([key.value(), port])),
            Element::Round(key, chain) => {
                let verdict = json!({ "goto": { "target": chain } });
                (by_key(key, "round_at", "round"), json!([key.value(), verdict]))
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
fn key(family: Family, at: bool) -> Value {
    let mut parts = vec![meta("l4proto"), th("dport")];
    if at {
        parts.insert(0, ip(family, "daddr"));
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

fn ip(family: Family, field: &str) -> Value {
    json!({ "payload": { "protocol": family.header(), "field": field } })
}

fn th(field: &str) -> Value {
    json!({ "payload": { "protocol": "th", "field": field } })
}

#[cfg(test)]
mod tests;
