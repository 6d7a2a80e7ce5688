//! Who listens on the ports of DNS and DHCP: procfs' tables of sockets, read, and what to think of it. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Finding,
    facts::{Known, Listener, Seen},
};

/// DNS (RFC 1035 §4.2).
pub(super) const DNS: u16 = 53;

/// DHCP servers (RFC 2131 §4.1).
pub(super) const DHCP: u16 = 67;

/// `TCP_LISTEN` (net/tcp_states.h).
const LISTEN: u8 = 0x0a;

/// Our own daemon, as the kernel names its process.
const OURSELVES: &str = "netd";

/// A line of `/proc/net/{udp,tcp}{,6}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    /// By which the socket is found among a process's descriptors.
    pub(super) inode: u64,
}

/// The sockets that receive from anybody: every UDP socket, and TCP sockets that listen. Lines that are no sockets are
/// passed over.
pub(super) fn rows(text: &str, tcp: bool) -> Vec<Row> {
    text.lines().filter_map(|line| row(line, tcp)).collect()
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …` (proc_net_tcp.txt).
fn row(line: &str, tcp: bool) -> Option<Row> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = words.get(1)?.split_once(':')?;
    let state = u8::from_str_radix(words.get(3)?, 16).ok()?;
    if tcp && state != LISTEN {
        return None;
    }
    Some(Row {
        address: hex_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        inode: words.get(9)?.parse().ok()?,
    })
}

/// An address is words of 32 bits, each printed in the machine's own byte order.
fn hex_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut octets = [0; 16];
            for (index, four) in octets.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(index * 8)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => None,
    }
}

/// The holders of a port that networks meet: on all addresses (`::` takes IPv4 too) or on a network's own, other
/// than netd.
fn holders(listeners: &[Listener], port: u16, networks: &Seen<Vec<Known>>) -> Vec<String> {
    let ours: Vec<IpAddr> = networks
        .iter()
        .flatten()
        .flat_map(|known| &known.network.subnets)
        .map(|subnet| IpAddr::V4(subnet.address.addr()))
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
