//! From [`Network`] to nft objects. Pure: the same intent gives the same bytes.
//!
//! ```text
//! forward ─┬─► forwarded, forwarded6   what port forwards let in (`forwards`)
//!          ├─ iifname vmap @forward_from ─► from_BRIDGE   may this leave its network?  return | accept | reject
//!          └─ iifname vmap… oifname vmap @forward_to ─► to_BRIDGE   may this enter?    return | reject
//! postrouting ─ iifname vmap @masquerade ─► nat_BRIDGE
//! prerouting  ─ iifname vmap @dns ─► dns_BRIDGE
//! ```
//!
//! A packet costs one hash look-up per map, whatever the number of networks. A packet between two networks is asked
//! about twice: it must be allowed out of the one *and* into the other. Interfaces are matched by name: an index dies
//! with its bridge. There are no rules for traffic to the host itself, unless a network wants it limited (`policy`): an
//! accept of ours cannot overrule another table's drop, and DHCP and DNS do not need it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nftables::{
    expr::{CT, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix, Range, Verdict},
    schema::{Chain, Element, FlushObject, NfCmd, NfListObject, Rule, Table},
    stmt::{JumpTarget, Match, NAT, NATFamily, Operator, Reject, RejectType, Statement, VerdictMap},
    types::{NfChainPolicy, NfChainType, NfFamily, NfHook, RejectCode},
};
use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::{
    compile::{Declaration, Type},
    forwards::{self, Forward, Others},
    intent::{DnsRedirect, Mode, Network},
    policy,
};

/// The name of our table; its family is `inet`.
pub const TABLE: &str = "netd";

/// Netfilter's priorities (`linux/netfilter_ipv4.h`).
const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SRCNAT: i32 = 100;

/// A base chain of the table, the map it looks packets up in, and the prefix of the chains that map leads to.
struct Hook {
    chain: &'static str,
    kind: NfChainType,
    hook: NfHook,
    priority: i32,
    maps: &'static [VerdictMapName],
}

/// A verdict map: which interface name it is keyed by, and the chains its elements jump to.
struct VerdictMapName {
    map: &'static str,
    key: MetaKey,
    prefix: &'static str,
}

const FROM: VerdictMapName = VerdictMapName { map: "forward_from", key: MetaKey::Iifname, prefix: "from_" };
const TO: VerdictMapName = VerdictMapName { map: "forward_to", key: MetaKey::Oifname, prefix: "to_" };
const NAT_FROM: VerdictMapName = VerdictMapName { map: "masquerade", key: MetaKey::Iifname, prefix: "nat_" };
const DNS_FROM: VerdictMapName = VerdictMapName { map: "dns", key: MetaKey::Iifname, prefix: "dns_" };

static HOOKS: [Hook; 3] = [
    Hook {
        chain: "forward",
        kind: NfChainType::Filter,
        hook: NfHook::Forward,
        priority: PRIORITY_FILTER,
        maps: &[FROM, TO],
    },
    Hook {
        chain: "postrouting",
        kind: NfChainType::NAT,
        hook: NfHook::Postrouting,
        priority: PRIORITY_SRCNAT,
        maps: &[NAT_FROM],
    },
    Hook {
        chain: "prerouting",
        kind: NfChainType::NAT,
        hook: NfHook::Prerouting,
        priority: PRIORITY_DSTNAT,
        maps: &[DNS_FROM],
    },
];

/// Commands that are done all together or not at all. Written as JSON it is what `nft -j -f -` reads.
#[derive(Debug, Default)]
pub(crate) struct Transaction<'a> {
    /// What all networks stand on. It is there, or nothing is.
    base: Vec<Command<'a>>,
    commands: Vec<Command<'a>>,
    /// The commands themselves make or remove some of the base.
    moves_base: bool,
}

impl Serialize for Transaction<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut document = serializer.serialize_struct("Transaction", 1)?;
        document.serialize_field("nftables", &self.all().collect::<Vec<_>>())?;
        document.end()
    }
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Command<'a> {
    Typed(NfCmd<'a>),
    AddVerdictMap { add: VerdictMapObject },
    Plain(serde_json::Value),
}

/// `add map` with verdicts for values: the one object the `nftables` crate (0.6) has no type for.
#[derive(Debug, Serialize)]
struct VerdictMapObject {
    map: VerdictMapDeclaration,
}

#[derive(Debug, Serialize)]
struct VerdictMapDeclaration {
    family: NfFamily,
    table: &'static str,
    name: &'static str,
    #[serde(rename = "type")]
    key: &'static str,
    map: &'static str,
}

/// The base table if it is absent, and this network's chains and map elements, whatever was there of it before.
pub(crate) fn add(network: &Network) -> Transaction<'_> {
    let mut transaction = Transaction::default();
    transaction.base_of(network);
    transaction.clear(network);
    transaction.network(network);
    transaction
}

/// Without this network; fine if it was not there.
pub(crate) fn remove(network: &Network) -> Transaction<'_> {
    let mut transaction = Transaction::default();
    transaction.base_of(network);
    transaction.clear(network);
    transaction
}

/// This network's chains and map elements in the place of what was there of it, and the forwards `after` in the place
/// of those `before`: nothing in between is ever in force.
pub(crate) fn change<'a>(network: &'a Network, before: &[Forward], after: &[Forward]) -> Transaction<'a> {
    let mut transaction = add(network);
    transaction.forwards(before, after, Others::default());
    transaction
}

/// This network's own part, without the base: for people to look at.
pub(crate) fn only(network: &Network) -> Transaction<'_> {
    let mut transaction = Transaction::default();
    transaction.network(network);
    transaction
}

/// The whole table anew with these networks and forwards and no others.
pub(crate) fn replace<'a>(networks: &'a [Network], forwards: &[Forward]) -> Transaction<'a> {
    let mut transaction = delete_table();
    let mut base = Transaction::default();
    base.base();
    if networks.iter().any(|network| network.policy.host_access.is_some()) {
        base.plain_base(policy::base());
    }
    transaction.commands.extend(base.base);
    for network in networks {
        transaction.network(network);
    }
    transaction.forwards(&[], forwards, Others::default());
    transaction
}

/// The forwards `after` of some networks in place of those `before`; fails where the table does not have exactly those
/// of them.
pub(crate) fn change_forwards<'a>(before: &[Forward], after: &[Forward], others: Others) -> Transaction<'a> {
    let mut transaction = Transaction::default();
    transaction.forwards(before, after, others);
    transaction
}

/// Without our table; fine if it was not there.
pub(crate) fn delete_table<'a>() -> Transaction<'a> {
    let table = || NfListObject::Table(Table { family: NfFamily::INet, name: TABLE.into(), handle: None });
    let mut transaction = Transaction { moves_base: true, ..Transaction::default() };
    // A delete alone fails where there is nothing to delete; `destroy` is too new (nft 1.0.7, Linux 6.3).
    transaction.push(NfCmd::Add(table()));
    transaction.push(NfCmd::Delete(table()));
    transaction
}

impl<'a> Transaction<'a> {
    /// The commands as JSON, without those that make the base.
    pub(crate) fn commands(&self) -> impl Iterator<Item = serde_json::Value> + '_ {
        self.commands.iter().filter_map(|command| serde_json::to_value(command).ok())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Whether the commands do what they should only together with those that make the base.
    pub(crate) fn moves_base(&self) -> bool {
        self.moves_base
    }

    fn all(&self) -> impl Iterator<Item = &Command<'a>> {
        self.base.iter().chain(&self.commands)
    }

    fn push(&mut self, command: NfCmd<'a>) {
        self.commands.push(Command::Typed(command));
    }

    /// The table, its maps and its base chains. Adding them again is no change; their rules are written anew.
    fn base(&mut self) {
        self.push_base(NfCmd::Add(NfListObject::Table(Table {
            family: NfFamily::INet,
            name: TABLE.into(),
            handle: None,
        })));
        for name in forwards::FORWARDED {
            self.push_base(NfCmd::Add(NfListObject::Chain(chain(name.to_owned()))));
        }
        for hook in &HOOKS {
            for map in hook.maps {
                let declaration = VerdictMapDeclaration {
                    family: NfFamily::INet,
                    table: TABLE,
                    name: map.map,
                    key: "ifname",
                    map: "verdict",
                };
                self.base.push(Command::AddVerdictMap { add: VerdictMapObject { map: declaration } });
            }
            self.push_base(NfCmd::Add(NfListObject::Chain(Chain {
                _type: Some(hook.kind),
                hook: Some(hook.hook),
                prio: Some(hook.priority),
                policy: Some(NfChainPolicy::Accept),
                ..chain(hook.chain.to_owned())
            })));
            self.push_base(NfCmd::Flush(FlushObject::Chain(chain(hook.chain.to_owned()))));
            if hook.hook == NfHook::Forward {
                for name in forwards::FORWARDED {
                    let forwarded = JumpTarget { target: name.into() };
                    self.base_rule(hook.chain, vec![Statement::Jump(forwarded)]);
                }
            }
            for map in hook.maps {
                let look_up =
                    VerdictMap { key: meta(map.key), data: Expression::String(format!("@{}", map.map).into()) };
                self.base_rule(hook.chain, vec![Statement::VerdictMap(look_up)]);
            }
        }
    }

    /// The base as this network needs it.
    fn base_of(&mut self, network: &Network) {
        self.base();
        if network.policy.host_access.is_some() {
            self.plain_base(policy::base());
        }
    }

    fn push_base(&mut self, command: NfCmd<'a>) {
        self.base.push(Command::Typed(command));
    }

    fn base_rule(&mut self, chain: &'static str, statements: Vec<Statement<'a>>) {
        self.push_base(add_rule(chain.to_owned(), statements));
    }

    fn plain_base(&mut self, commands: impl IntoIterator<Item = serde_json::Value>) {
        self.base.extend(commands.into_iter().map(Command::Plain));
    }

    fn forwards(&mut self, before: &[Forward], after: &[Forward], others: Others) {
        self.moves_base |= forwards::moves_base(before, after, others);
        self.plain(forwards::change(before, after, others));
    }

    fn plain(&mut self, commands: impl IntoIterator<Item = serde_json::Value>) {
        self.commands.extend(commands.into_iter().map(Command::Plain));
    }

    /// Deletes all there can be of a network. What is deleted is added first, because deleting what is not there
    /// would fail the whole transaction.
    fn clear(&mut self, network: &Network) {
        let bridge = &network.bridge;
        for map in HOOKS.iter().flat_map(|hook| hook.maps) {
            self.push(NfCmd::Add(NfListObject::Chain(chain(map.chain(bridge)))));
            self.push(NfCmd::Add(map.element(bridge)));
            self.push(NfCmd::Delete(map.element(bridge)));
            self.push(NfCmd::Delete(NfListObject::Chain(chain(map.chain(bridge)))));
        }
        self.plain(policy::clear(network));
    }

    /// The chains this network wants, with their rules, and then the map elements that lead to them.
    fn network(&mut self, network: &'a Network) {
        for (map, rules) in [
            (FROM, rules_from(network)),
            (TO, rules_to(network)),
            (NAT_FROM, rules_nat(network)),
            (DNS_FROM, rules_dns(network)),
        ] {
            if rules.is_empty() {
                continue;
            }
            let name = map.chain(&network.bridge);
            self.push(NfCmd::Add(NfListObject::Chain(chain(name.clone()))));
            for rule in rules {
                self.rule(name.clone(), rule);
            }
            self.push(NfCmd::Add(map.element(&network.bridge)));
        }
        self.plain(policy::add(network));
    }

    fn rule(&mut self, chain: String, statements: Vec<Statement<'a>>) {
        self.push(add_rule(chain, statements));
    }
}

fn add_rule<'a>(chain: String, statements: Vec<Statement<'a>>) -> NfCmd<'a> {
    NfCmd::Add(NfListObject::Rule(Rule {
        family: NfFamily::INet,
        table: TABLE.into(),
        chain: chain.into(),
        expr: statements.into(),
        ..Rule::default()
    }))
}

/// How a set or map of the base was declared.
pub(crate) fn declaration(set: &str) -> Option<Declaration> {
    let leads_on = HOOKS.iter().flat_map(|hook| hook.maps).any(|map| map.map == set) || set == policy::HOST_ACCESS;
    let by_interface = || Declaration { key: vec![Type::Interface], leads_to: Some(Type::Verdict), interval: false };
    if leads_on { Some(by_interface()) } else { forwards::declaration(set) }
}

impl VerdictMapName {
    fn chain(&self, bridge: &str) -> String {
        format!("{}{bridge}", self.prefix)
    }

    fn element<'a>(&self, bridge: &str) -> NfListObject<'a> {
        let jump = Expression::Verdict(Verdict::Jump(JumpTarget { target: self.chain(bridge).into() }));
        NfListObject::Element(Element {
            family: NfFamily::INet,
            table: TABLE.into(),
            name: self.map.into(),
            elem: vec![Expression::List(vec![text(bridge.to_owned()), jump])].into(),
        })
    }
}

/// May a packet that came in by the bridge leave by another interface?
fn rules_from(network: &Network) -> Vec<Vec<Statement<'_>>> {
    let back = if network.policy.silent { reject() } else { Statement::Accept(None) };
    let back = vec![is(meta(MetaKey::Oifname), text(&network.bridge)), back];
    let dev = match &network.mode {
        Mode::Open if network.policy.silent => return vec![back],
        Mode::Open => return Vec::new(),
        Mode::Isolated => None,
        Mode::Nat { dev, .. } | Mode::Route { dev } => dev.as_deref(),
    };
    let mut rules = vec![back];
    if network.mode != Mode::Isolated {
        for subnet in &network.subnets {
            let mut rule: Vec<_> = dev.map(|dev| is(meta(MetaKey::Oifname), text(dev))).into_iter().collect();
            rule.push(is_in("saddr", *subnet));
            // Not accept: the network it goes to has its say too.
            rule.push(Statement::Return(None));
            rules.push(rule);
        }
    }
    rules.push(vec![reject()]);
    rules
}

/// May a packet that came in by another interface leave by the bridge?
fn rules_to(network: &Network) -> Vec<Vec<Statement<'_>>> {
    let dev = match &network.mode {
        Mode::Open => return Vec::new(),
        Mode::Isolated => return vec![vec![reject()]],
        Mode::Nat { dev, .. } | Mode::Route { dev } => dev.as_deref(),
    };
    let mut rules = Vec::new();
    for subnet in &network.subnets {
        let mut rule: Vec<_> = dev.map(|dev| is(meta(MetaKey::Iifname), text(dev))).into_iter().collect();
        rule.push(is_in("daddr", *subnet));
        if network.mode.translates(subnet) {
            rule.push(established());
        }
        rule.push(Statement::Accept(None));
        rules.push(rule);
    }
    rules.push(vec![reject()]);
    rules
}

/// Source translation for packets that came in by the bridge.
fn rules_nat(network: &Network) -> Vec<Vec<Statement<'_>>> {
    let Mode::Nat { dev, addresses, ports, .. } = &network.mode else { return Vec::new() };
    let address = addresses.map(|(first, last)| range(first.to_string(), last.to_string()));
    let ports = range_of_ports(*ports);
    let translate = |subnet: &IpNet, ports: Option<Expression<'static>>| match (&address, subnet) {
        (Some(address), IpNet::V4(_)) => Statement::SNAT(Some(NAT {
            addr: Some(address.clone()),
            family: Some(NATFamily::IP),
            port: ports,
            flags: None,
        })),
        _ => Statement::Masquerade(ports.map(|port| NAT { port: Some(port), addr: None, family: None, flags: None })),
    };
    let translated = || network.subnets.iter().filter(|subnet| network.mode.translates(subnet));
    if translated().next().is_none() {
        return Vec::new();
    }
    let stays = |net: IpNet| vec![is_in("daddr", net), Statement::Return(None)];
    let mut rules = vec![vec![is(meta(MetaKey::Oifname), text(&network.bridge)), Statement::Return(None)]];
    if translated().any(|subnet| matches!(subnet, IpNet::V4(_))) {
        rules.push(stays(LOCAL_MULTICAST.into()));
        rules.push(vec![is(ip("daddr"), text(Ipv4Addr::BROADCAST.to_string())), Statement::Return(None)]);
    }
    if translated().any(|subnet| matches!(subnet, IpNet::V6(_))) {
        rules.push(stays(LOCAL_MULTICAST_6.into()));
    }
    for subnet in translated() {
        let mut source: Vec<_> = dev.iter().map(|dev| is(meta(MetaKey::Oifname), text(dev))).collect();
        source.push(is_in("saddr", *subnet));
        for protocol in ["tcp", "udp"] {
            let mut rule = source.clone();
            rule.push(is(meta(MetaKey::L4proto), text(protocol)));
            rule.push(translate(subnet, Some(ports.clone())));
            rules.push(rule);
        }
        source.push(translate(subnet, None));
        rules.push(source);
    }
    rules
}

/// 224.0.0.0/24 never leaves its link (RFC 5771 §4).
const LOCAL_MULTICAST: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 24);

/// Neither does ff02::/16 (RFC 4291 §2.7).
const LOCAL_MULTICAST_6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0), 16);

/// DNS asked of the host's addresses, answered on another port.
fn rules_dns(network: &Network) -> Vec<Vec<Statement<'_>>> {
    let Some(DnsRedirect { addresses, port }) = &network.dns_redirect else { return Vec::new() };
    let mut rules = Vec::new();
    for address in addresses {
        let (header, family) = match address {
            IpAddr::V4(_) => ("ip", NATFamily::IP),
            IpAddr::V6(_) => ("ip6", NATFamily::IP6),
        };
        for protocol in ["udp", "tcp"] {
            let to = NAT {
                addr: Some(text(address.to_string())),
                family: Some(family),
                port: Some(Expression::Number(u32::from(*port))),
                flags: None,
            };
            rules.push(vec![
                is(field(header, "daddr"), text(address.to_string())),
                is(field(protocol, "dport"), Expression::Number(53)),
                Statement::DNAT(Some(to)),
            ]);
        }
    }
    rules
}

impl Mode {
    /// Whether packets from this subnet leave behind the host's address, so that only answers come in to it.
    fn translates(&self, subnet: &IpNet) -> bool {
        match (self, subnet) {
            (Mode::Nat { .. }, IpNet::V4(_)) => true,
            (Mode::Nat { ipv6, .. }, IpNet::V6(_)) => *ipv6,
            _ => false,
        }
    }
}

fn chain<'a>(name: String) -> Chain<'a> {
    Chain { family: NfFamily::INet, table: TABLE.into(), name: name.into(), ..Chain::default() }
}

fn text<'a>(text: impl Into<std::borrow::Cow<'a, str>>) -> Expression<'a> {
    Expression::String(text.into())
}

fn meta<'a>(key: MetaKey) -> Expression<'a> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn field<'a>(protocol: &'static str, field: &'static str) -> Expression<'a> {
    let field = PayloadField { protocol: protocol.into(), field: field.into() };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

fn ip<'a>(name: &'static str) -> Expression<'a> {
    field("ip", name)
}

/// Whether an address of the packet is in a subnet, which says the family too.
fn is_in<'a>(name: &'static str, net: IpNet) -> Statement<'a> {
    let header = match net {
        IpNet::V4(_) => "ip",
        IpNet::V6(_) => "ip6",
    };
    let addr = Box::new(text(net.network().to_string()));
    let prefix = Expression::Named(NamedExpression::Prefix(Prefix { addr, len: u32::from(net.prefix_len()) }));
    is(field(header, name), prefix)
}

/// A range of addresses; one address where both ends are the same, which `nft` would refuse as a range.
fn range(first: String, last: String) -> Expression<'static> {
    if first == last {
        return text(first);
    }
    Expression::Range(Box::new(Range { range: [text(first), text(last)] }))
}

fn range_of_ports((first, last): (u16, u16)) -> Expression<'static> {
    if first == last {
        return Expression::Number(u32::from(first));
    }
    Expression::Range(Box::new(Range {
        range: [Expression::Number(u32::from(first)), Expression::Number(u32::from(last))],
    }))
}

fn is<'a>(left: Expression<'a>, right: Expression<'a>) -> Statement<'a> {
    Statement::Match(Match { left, right, op: Operator::EQ })
}

fn established<'a>() -> Statement<'a> {
    let state = Expression::Named(NamedExpression::CT(CT { key: "state".into(), family: None, dir: None }));
    Statement::Match(Match {
        left: state,
        right: Expression::List(vec![text("established"), text("related")]),
        op: Operator::IN,
    })
}

/// What libvirt's `reject` answers with: port unreachable, in ICMP or ICMPv6 as the packet is.
fn reject<'a>() -> Statement<'a> {
    Statement::Reject(Some(Reject::new(Some(RejectType::ICMPX), Some(RejectCode::PortUnreach))))
}

#[cfg(test)]
mod tests;
