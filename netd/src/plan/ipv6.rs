//! What the servers tell guests about IPv6, derived from the network's model alone.

use std::net::{IpAddr, Ipv6Addr};

use dhcp::config::{Dhcp6Config, Ipv6Config, LEASE_TIME_6, Prefix6, Range6, Reservation6};
use ipnet::{IpNet, Ipv6Net};

use super::desired::lease_time;
use crate::model::{Dhcp, DhcpHost, DhcpRange, Forward, Network};

/// Router advertisements and DHCPv6 of a network; none where it has no IPv6 address.
///
/// Guests make addresses themselves in every prefix of 64 bits (RFC 4862 §5.5.3 with RFC 2464 §4) but the one that DHCPv6
/// gives out addresses of, as with libvirt's dnsmasq: there they would have two.
pub(super) fn ipv6(network: &Network) -> Option<Ipv6Config> {
    let routed = !matches!(network.forward, Forward::Isolated);
    let dhcp = network.subnets.iter().find_map(|subnet| Some(dhcp6(subnet.ipv6()?, subnet.dhcp.as_ref()?)));
    let stateful = dhcp.as_ref().filter(|dhcp| dhcp.is_stateful()).map(|dhcp| dhcp.server);
    let prefixes: Vec<Prefix6> = network
        .ipv6_addresses()
        .map(|server| Prefix6 { server, autonomous: server.prefix_len() == 64 && stateful != Some(server) })
        .collect();
    // The one on the subnet with DHCP, as with IPv4, or else the first.
    let own = dhcp.as_ref().map(|dhcp| dhcp.server).or(prefixes.first().map(|prefix| prefix.server))?;
    Some(Ipv6Config {
        router: routed,
        routes: if routed {
            network.routes.iter().filter_map(|route| ipv6_net(route.destination)).collect()
        } else {
            Vec::new()
        },
        dns: if network.dns.enable { vec![own.addr()] } else { Vec::new() },
        domain: network.domain.as_ref().map(|domain| domain.name.clone()),
        mtu: network.mtu.filter(|mtu| *mtu >= 1280),
        prefixes,
        dhcp,
    })
}

fn ipv6_net(net: IpNet) -> Option<Ipv6Net> {
    match net {
        IpNet::V4(_) => None,
        IpNet::V6(net) => Some(net.trunc()),
    }
}

fn dhcp6(server: Ipv6Net, dhcp: &Dhcp) -> Dhcp6Config {
    Dhcp6Config {
        server,
        ranges: dhcp.ranges.iter().filter_map(range6).collect(),
        hosts: dhcp.hosts.iter().map(reservation6).collect(),
    }
}

fn range6(range: &DhcpRange) -> Option<Range6> {
    let (IpAddr::V6(start), IpAddr::V6(end)) = (range.start, range.end) else { return None };
    Some(Range6 { start, end, lease: range.lease.map_or(LEASE_TIME_6, lease_time) })
}

fn reservation6(host: &DhcpHost) -> Reservation6 {
    Reservation6 {
        duid: host.id.as_deref().map(bytes),
        name: host.name.clone(),
        address: host.ip.and_then(ipv6_address),
        lease: host.lease.map(lease_time),
    }
}

fn ipv6_address(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(address),
    }
}

/// A DUID as the model has it, checked when it was read: bytes in hex with colons between.
fn bytes(duid: &str) -> Vec<u8> {
    duid.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
}
