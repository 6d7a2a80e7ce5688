//! Checks of what the kernel does with a packet between interfaces, but for the rules. Pure.

use crate::{
    host::HostState,
    model::{Forward, Network},
};

use super::{
    Finding,
    facts::{Known, Seen},
};

/// `rp_filter` 1: drop what comes in by another way than the answer would leave by (RFC 3704 §2.2).
const STRICT: u8 = 1;

/// A route this short covers so much that it is a default route.
const SHORTEST_SPECIFIC_PREFIX: u8 = 4;

pub(super) fn ip_forward(on: &Seen<bool>, networks: &Seen<Vec<Known>>) -> Finding {
    let (check, title) = ("ip-forward", "for IPv4 forwarding");
    let needs = |known: &&Known| known.active == Some(true) && routes(&known.network);
    let needing = networks.iter().flatten().find(needs);
    match (on, needing) {
        (Err(unseen), _) => Finding::unseen(check, title, unseen, "sysctl net.ipv4.ip_forward"),
        (Ok(true), _) => Finding::pass(check, title),
        (Ok(false), None) => {
            Finding::pass(check, title).noting("off; netd turns it on for the first network that needs it")
        }
        (Ok(false), Some(known)) => Finding::fail(
            check,
            title,
            format!("off, and network '{}' is active: its guests reach nobody outside", known.network.name),
            "sudo sysctl -w net.ipv4.ip_forward=1",
        ),
    }
}

fn routes(network: &Network) -> bool {
    !matches!(network.forward, Forward::Isolated) && network.ipv4().next().is_some()
}

/// One finding, or one for each uplink where strict filtering loses packets. With a single uplink answers can only come
/// back the way questions left, and strict filtering is right.
pub(super) fn reverse_path(
    filters: &Seen<Vec<(String, u8)>>,
    host: &Seen<HostState>,
    networks: &Seen<Vec<Known>>,
) -> Vec<Finding> {
    let (check, title) = ("rp-filter", "for reverse path filters on the uplinks");
    let filters = match filters {
        Ok(filters) => filters,
        Err(unseen) => return vec![Finding::unseen(check, title, unseen, "sysctl -a -r 'rp_filter'")],
    };
    let host = match host {
        Ok(host) => host,
        Err(unseen) => return vec![Finding::unseen(check, title, unseen, "ip route show table all")],
    };
    let uplinks = uplinks(host, networks);
    if uplinks.len() < 2 {
        return vec![Finding::pass(check, title)];
    }
    let value = |name: &str| filters.iter().find(|(interface, _)| interface == name).map_or(0, |(_, value)| *value);
    let strict: Vec<&str> =
        // ip-sysctl: the larger of "all" and the interface's own counts
        uplinks.iter().copied().filter(|uplink| value(uplink).max(value("all")) == STRICT).collect();
    if strict.is_empty() {
        return vec![Finding::pass(check, title)];
    }
    let others = uplinks.join(", ");
    strict
        .into_iter()
        .map(|uplink| {
            Finding::warn(
                check,
                format!("for the reverse path filter on {uplink}"),
                format!(
                    "strict, and the host has several uplinks ({others}): what comes in by {uplink} is dropped when its \
                     answer would leave by another"
                ),
                // A '/' keeps a VLAN interface's dot from being read as a separator.
                format!("sudo sysctl -w net/ipv4/conf/{uplink}/rp_filter=2"),
            )
        })
        .collect()
}

/// The links of default routes and those that networks name as their only way out.
fn uplinks<'a>(host: &'a HostState, networks: &'a Seen<Vec<Known>>) -> Vec<&'a str> {
    let by_default = host
        .routes
        .iter()
        .filter(|route| route.destination.prefix_len() < SHORTEST_SPECIFIC_PREFIX)
        .filter_map(|route| host.link_name(route.link?));
    let by_name = networks.iter().flatten().filter_map(|known| known.network.forward.dev());
    let mut uplinks: Vec<&str> = by_default.chain(by_name).collect();
    uplinks.sort_unstable();
    uplinks.dedup();
    uplinks
}

pub(super) fn bridge_netfilter(on: &Seen<Vec<String>>) -> Finding {
    let (check, title) = ("br-netfilter", "for bridges that ask iptables about every frame");
    match on {
        Err(unseen) => Finding::unseen(check, title, unseen, "sysctl -a -r 'bridge-nf-call'"),
        Ok(on) if on.is_empty() => Finding::pass(check, title),
        Ok(on) => Finding::warn(
            check,
            title,
            format!(
                "br_netfilter has {} on: frames between guests of one network pass the host's forward rules, slower, \
                 and are lost where those drop; Docker turns it on",
                on.join(", ")
            ),
            format!(
                "sudo sysctl -w {}",
                on.iter().map(|name| format!("net.bridge.{name}=0")).collect::<Vec<_>>().join(" ")
            ),
        ),
    }
}
