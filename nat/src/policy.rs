//! Who may talk to whom: guests of a network to each other, and to the host. Pure, as `ruleset` is.
//!
//! ```text
//! input   ─ iifname vmap @host_access ─► host_BRIDGE   answers, DHCP, DNS, what is allowed; reject
//! forward ─► from_BRIDGE ─ back to the bridge it came from? reject instead of accept   (`ruleset`)
//! ```
//!
//! A network without a policy has none of this. With one, a packet to the host costs one look-up for its network and one
//! per protocol, whatever is allowed. What guests say to each other over the bridge passes no rule: there the bridge's own
//! port isolation keeps them apart, which costs nothing; `meta ibrname`, by which a rule could, is not in every kernel.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{intent::Network, ruleset::TABLE};

/// Leads from a bridge to what its guests may ask of the host.
pub(crate) const HOST_ACCESS: &str = "host_access";

/// What a network's guests may do beside reaching what is behind the host. By default all they ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its guests do not talk to each other through the host; over the bridge its ports are isolated.
    pub silent: bool,
    /// What of the host's its guests may reach, beside DHCP, DNS and the answers to what the host asks them;
    /// everything if absent.
    pub host_access: Option<Vec<Allowed>>,
}

/// Something of the host's that guests may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allowed {
    /// TCP ports, first and last.
    Tcp(u16, u16),
    /// UDP ports, first and last.
    Udp(u16, u16),
    /// ICMP and ICMPv6.
    Icmp,
}

/// The base chain for what comes to the host, with its map; there once a network has wanted it.
pub(crate) fn base() -> Vec<Value> {
    let chain = json!({ "family": "inet", "table": TABLE, "name": "input", "type": "filter", "hook": "input", "prio": 0,
        "policy": "accept" });
    let map = json!({ "family": "inet", "table": TABLE, "name": HOST_ACCESS, "type": "ifname", "map": "verdict" });
    vec![
        json!({ "add": { "map": map } }),
        json!({ "add": { "chain": chain } }),
        json!({ "flush": { "chain": named("input") } }),
        rule(
            "input",
            json!([{ "vmap": { "key": { "meta": { "key": "iifname" } }, "data": format!("@{HOST_ACCESS}") } }]),
        ),
    ]
}

/// What a network with a policy has beside its other chains, on the [`base`]; nothing of it may be there.
pub(crate) fn add(network: &Network) -> Vec<Value> {
    let mut commands = Vec::new();
    if let Some(allowed) = &network.policy.host_access {
        let name = chain_of(network);
        commands.push(json!({ "add": { "chain": named(&name) } }));
        commands.extend(host_rules(network, allowed).into_iter().map(|statements| rule(&name, statements)));
        commands.push(json!({ "add": { "element": host_element(network) } }));
    }
    commands
}

/// Without what [`add`] made, whether it is there or not.
pub(crate) fn clear(network: &Network) -> Vec<Value> {
    let mut commands = Vec::new();
    if network.policy.host_access.is_some() {
        let name = chain_of(network);
        // What is deleted is added first: deleting what is not there would fail the whole transaction.
        commands.push(json!({ "add": { "chain": named(&name) } }));
        commands.push(json!({ "add": { "element": host_element(network) } }));
        commands.push(json!({ "delete": { "element": host_element(network) } }));
        commands.push(json!({ "flush": { "chain": named(&name) } }));
        commands.push(json!({ "delete": { "chain": named(&name) } }));
    }
    commands
}

fn host_rules(network: &Network, allowed: &[Allowed]) -> Vec<Value> {
    let mut tcp = vec![(53, 53)];
    // DHCP is asked for at 67, over IPv6 at 547.
    let mut udp = vec![(53, 53), (67, 67), (547, 547)];
    if let Some(redirect) = &network.dns_redirect {
        tcp.push((redirect.port, redirect.port));
        udp.push((redirect.port, redirect.port));
    }
    let mut icmp = false;
    for allowed in allowed {
        match *allowed {
            Allowed::Tcp(first, last) => tcp.push((first, last)),
            Allowed::Udp(first, last) => udp.push((first, last)),
            Allowed::Icmp => icmp = true,
        }
    }
    let state =
        json!({ "match": { "op": "in", "left": { "ct": { "key": "state" } }, "right": ["established", "related"] } });
    let to = |protocol: &str, ranges: Vec<(u16, u16)>| {
        let ports: Vec<Value> = merged(ranges).into_iter().map(|(first, last)| ports(first, last)).collect();
        let left = json!({ "payload": { "protocol": protocol, "field": "dport" } });
        json!([{ "match": { "op": "==", "left": left, "right": { "set": ports } } }, { "return": null }])
    };
    let protocol =
        |name: &str| json!({ "match": { "op": "==", "left": { "meta": { "key": "l4proto" } }, "right": name } });
    let mut rules = vec![json!([state, { "return": null }]), to("tcp", tcp), to("udp", udp)];
    if icmp {
        rules.push(json!([protocol("icmp"), { "return": null }]));
        rules.push(json!([protocol("ipv6-icmp"), { "return": null }]));
    } else {
        // Without these there is no neighbour and no router on a link (RFC 4861), and no multicast (RFC 3810).
        let left = json!({ "payload": { "protocol": "icmpv6", "field": "type" } });
        let kinds = json!({ "set": ["nd-router-solicit", "nd-neighbor-solicit", "nd-neighbor-advert", "mld2-listener-report"] });
        rules.push(json!([{ "match": { "op": "==", "left": left, "right": kinds } }, { "return": null }]));
    }
    rules.push(json!([{ "counter": null }, { "reject": { "type": "icmpx", "expr": "admin-prohibited" } }]));
    rules
}

/// The same ports in ranges that do not touch: `nft` refuses a set whose ranges overlap.
fn merged(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn ports(first: u16, last: u16) -> Value {
    if first == last { json!(first) } else { json!({ "range": [first, last] }) }
}

fn chain_of(network: &Network) -> String {
    format!("host_{}", network.bridge)
}

fn named(chain: &str) -> Value {
    json!({ "family": "inet", "table": TABLE, "name": chain })
}

fn rule(chain: &str, statements: Value) -> Value {
    json!({ "add": { "rule": { "family": "inet", "table": TABLE, "chain": chain, "expr": statements } } })
}

fn host_element(network: &Network) -> Value {
    let jump = json!({ "jump": { "target": chain_of(network) } });
    json!({ "family": "inet", "table": TABLE, "name": HOST_ACCESS, "elem": [[network.bridge, jump]] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        let merged = |ranges: &[(u16, u16)]| merged(ranges.to_vec());
        assert_eq!(merged(&[(53, 53), (22, 22), (50, 60), (61, 70), (80, 80)]), [(22, 22), (50, 70), (80, 80)]);
        assert_eq!(merged(&[(1, 65535), (7, 7)]), [(1, 65535)]);
        assert_eq!(merged(&[(65535, 65535), (65535, 65535)]), [(65535, 65535)]);
    }
}
