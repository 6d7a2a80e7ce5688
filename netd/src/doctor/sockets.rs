//! Who listens on the ports of DNS and DHCP, and what to think of it. Pure.

use std::net::IpAddr;

use super::{
    Finding,
    facts::{Known, Listener, Seen},
};

/// DNS (RFC 1035 §4.2).
pub(super) const DNS: u16 = 53;

/// DHCP servers (RFC 2131 §4.1).
pub(super) const DHCP: u16 = 67;

/// Our own daemon, as the kernel names its process.
const OURSELVES: &str = "netd";

/// The holders of a port that networks meet: on all addresses (`::` takes IPv4 too) or on a network's own, other
/// than netd.
fn holders(listeners: &[Listener], port: u16, networks: &Seen<Vec<Known>>) -> Vec<String> {
    let ours: Vec<IpAddr> = networks
        .iter()
        .flatten()
        .flat_map(|known| &known.network.subnets)
        .map(|subnet| subnet.address.addr())
        .collect();
    let mut holders: Vec<String> = listeners
        .iter()
        .filter(|listener| listener.port == port)
        .filter(|listener| listener.address.is_unspecified() || ours.contains(&listener.address))
        .filter(|listener| listener.program.as_ref().is_none_or(|(name, _)| name != OURSELVES))
        .map(|listener| {
            let by = match &listener.program {
                Some((name, pid)) => format!("{name} (pid {pid})"),
                None => "a program that only root may see".to_owned(),
            };
            let address = match listener.address {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("[{address}]"),
            };
            format!("{by} has {} {address}:{port}", if listener.tcp { "TCP" } else { "UDP" })
        })
        .collect();
    holders.sort();
    holders.dedup();
    holders
}

/// Whether guests' questions go to another port than 53, since that is taken.
pub(super) fn dns_is_redirected(listeners: &Seen<Vec<Listener>>, networks: &Seen<Vec<Known>>) -> bool {
    listeners.as_ref().is_ok_and(|listeners| !holders(listeners, DNS, networks).is_empty())
}

/// A port 53 that is taken is no trouble: the DNS server takes another and the rules redirect to it.
pub(super) fn dns_port(listeners: &Seen<Vec<Listener>>, networks: &Seen<Vec<Known>>) -> Finding {
    let (check, title) = ("port-53", "for other holders of port 53 (DNS)");
    match listeners {
        Err(unseen) => Finding::unseen(check, title, unseen, "sudo ss -lunpt 'sport = :53'"),
        Ok(listeners) => match holders(listeners, DNS, networks) {
            holders if holders.is_empty() => Finding::pass(check, title),
            holders => Finding::pass(check, title).noting(format!(
                "{}; netd then answers on another port, and its rules redirect guests there",
                holders.join(", ")
            )),
        },
    }
}

/// A port 67 that is taken keeps netd from nothing, since it listens on a packet socket; but two servers would answer.
pub(super) fn dhcp_port(listeners: &Seen<Vec<Listener>>, networks: &Seen<Vec<Known>>) -> Finding {
    let (check, title) = ("port-67", "for other holders of port 67 (DHCP)");
    match listeners {
        Err(unseen) => Finding::unseen(check, title, unseen, "sudo ss -lunp 'sport = :67'"),
        Ok(listeners) => match holders(listeners, DHCP, networks) {
            holders if holders.is_empty() => Finding::pass(check, title),
            holders => Finding::warn(
                check,
                title,
                format!(
                    "{}; netd hears guests all the same, by a packet socket per bridge, but unless that server is kept \
                     to other interfaces (ss shows 0.0.0.0%INTERFACE) it answers them too: have it leave netd's bridges \
                     out (dnsmasq: except-interface=)",
                    holders.join(", ")
                ),
                "sudo ss -lunp 'sport = :67'",
            ),
        },
    }
}
