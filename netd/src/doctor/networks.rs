//! Checks of networks against each other and against the host. Pure; the rules are `check`'s and `host`'s.

use ipnet::{IpNet, Ipv4Net};

use crate::{
    check::{Conflict, conflicts},
    host::{HostState, overlap},
    model::Network,
    registry::shipped,
};

use super::{
    Finding,
    facts::{Known, Seen},
};

/// One finding, or one for each subnet that somebody else uses.
pub(super) fn subnets(networks: &Seen<Vec<Known>>, host: &Seen<HostState>) -> Vec<Finding> {
    let (check, title) = ("subnets", "for subnets that something else uses");
    let networks = match networks {
        Ok(networks) => networks,
        Err(unseen) => return vec![Finding::unseen(check, title, unseen, "netd net-list --all")],
    };
    let host = match host {
        Ok(host) => host,
        Err(unseen) => return vec![Finding::unseen(check, title, unseen, "ip route show table all")],
    };
    let mut findings = Vec::new();
    for known in networks {
        // What a started network has of its own is on its bridge; before that nothing of it is anywhere.
        let own: Vec<&str> = known.bridge().filter(|_| known.active != Some(false)).into_iter().collect();
        let taken = known.network.subnets.iter().map(|subnet| subnet.address.trunc());
        for (subnet, user) in taken.filter_map(|subnet| Some((subnet, host.in_use(subnet, &own)?))) {
            let by = match user.interface {
                Some(interface) => format!("{} on interface {interface}", user.by),
                None => format!("the route {}", user.by),
            };
            let instead = subnet.addr().is_ipv4().then(|| free(host, networks)).flatten();
            findings.push(collision(known, subnet, &by, instead));
        }
    }
    for (one, other, conflict) in pairs(networks) {
        if let Conflict::Subnet { subnet, others, .. } = conflict {
            findings.push(Finding::warn(
                check,
                format!("for the subnet of network '{}'", one.name),
                format!("{subnet} overlaps {others} of network '{}': only one of them can be started", other.name),
                edit(other, free(host, networks)),
            ));
        }
    }
    if findings.is_empty() { vec![Finding::pass(check, title)] } else { findings }
}

fn collision(known: &Known, subnet: IpNet, by: &str, free: Option<Ipv4Net>) -> Finding {
    let network = &known.network;
    let (check, title) = ("subnets", format!("for the subnet of network '{}'", network.name));
    match known.active {
        Some(true) => Finding::fail(
            check,
            title,
            format!(
                "{subnet} collides with {by}, which came while the network ran: guests, or what is behind it, get \
                 no answers"
            ),
            edit(network, free),
        ),
        _ if shipped::is_unchanged(network) => Finding::pass(check, title)
            .noting(format!("{subnet} collides with {by}; the network makes way when it is started")),
        _ => Finding::warn(
            check,
            title,
            format!("{subnet} collides with {by}: the network will not start"),
            edit(network, free),
        ),
    }
}

fn edit(network: &Network, free: Option<Ipv4Net>) -> String {
    match free {
        Some(free) => format!("netd net-edit {}  # {free} is free", network.name),
        None => format!("netd net-edit {}", network.name),
    }
}

/// The first 192.168.N.0/24 that neither the host nor a network has.
fn free(host: &HostState, networks: &[Known]) -> Option<Ipv4Net> {
    (122..=254)
        .chain(1..122)
        .filter_map(|third| Ipv4Net::new(std::net::Ipv4Addr::new(192, 168, third, 0), 24).ok())
        .find(|&candidate| {
            let defined = networks
                .iter()
                .flat_map(|known| known.network.ipv4())
                .any(|address| overlap(address.into(), candidate.into()));
            !defined && host.in_use(candidate.into(), &[]).is_none()
        })
}

/// Every conflict between two networks, once.
fn pairs(networks: &[Known]) -> impl Iterator<Item = (&Network, &Network, Conflict)> {
    networks.iter().enumerate().flat_map(|(index, other)| {
        let earlier = &networks[..index];
        earlier.iter().flat_map(move |one| {
            conflicts(&one.network, std::slice::from_ref(&other.network))
                .into_iter()
                .map(move |conflict| (&one.network, &other.network, conflict))
        })
    })
}

/// Names, UUIDs and bridges that two definitions share, and bridges whose name an interface of somebody else has.
pub(super) fn bridges(networks: &Seen<Vec<Known>>, host: &Seen<HostState>) -> Finding {
    let (check, title) = ("bridges", "for names that networks share");
    let networks = match networks {
        Ok(networks) => networks,
        Err(unseen) => return Finding::unseen(check, title, unseen, "netd net-list --all"),
    };
    if let Some((_, other, conflict)) = pairs(networks).find(|(.., conflict)| conflict.forbids_definition()) {
        let says = conflict.to_string();
        let says = says.split_once(": ").map_or(says.as_str(), |(_, sentence)| sentence);
        return Finding::fail(check, title, says, edit(other, None));
    }
    let taken = networks.iter().filter(|known| known.active == Some(false)).find_map(|known| {
        let bridge = known.bridge()?;
        host.as_ref().ok()?.link(bridge).map(|_| (known, bridge))
    });
    match taken {
        None => Finding::pass(check, title),
        Some((known, bridge)) if shipped::is_unchanged(&known.network) => Finding::pass(check, title).noting(format!(
            "an interface {bridge} exists; network '{}' takes another name when it is started",
            known.network.name
        )),
        Some((known, bridge)) => Finding::warn(
            check,
            title,
            format!(
                "an interface {bridge} exists, which network '{}' wants to make: it will not start",
                known.network.name
            ),
            format!("netd net-edit {}  # or: sudo ip link delete {bridge}", known.network.name),
        ),
    }
}
