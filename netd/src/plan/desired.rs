//! What an active network is made of, derived from its model alone.

use std::{net::IpAddr, path::Path};

use dhcp::config::{Dhcp4Config, DnsConfig, LeaseTime as ServedLeaseTime, Mac, NetworkConfig, Range4, Reservation4};
use ipnet::{IpNet, Ipv4Net};
use nat::guards::Sources;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

use crate::model::{Dhcp, DhcpHost, DhcpRange, Forward, LeaseTime, MacAddr, Nat, Network, Route};

/// The shortest lease the server gives, in seconds.
const SHORTEST_LEASE: u32 = 120;

/// Everything one active network is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The bridge.
    pub bridge: Bridge,
    /// The host's addresses on it.
    pub addresses: Vec<Ipv4Net>,
    /// Routes through gateways on it.
    pub routes: Vec<StaticRoute>,
    /// The host has to route.
    pub forwarding: bool,
    /// What comes from 127.0.0.1 may go out by the bridge, and answers may come in: there are port forwards.
    pub route_localnet: bool,
    /// Its rules.
    pub firewall: nat::Network,
    /// Its servers.
    pub services: NetworkConfig,
    /// The taps on it, by index.
    pub ports: Vec<u32>,
    /// The taps reach the host and what is behind it, but not each other.
    pub isolated: bool,
    /// What IPv4 addresses its guarded ports may use beside their own.
    pub sources: Sources,
}

/// A bridge and its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The interface name.
    pub name: String,
    /// Its MAC.
    pub mac: MacAddr,
    /// Greatest packet size in bytes; the kernel's choice if absent.
    pub mtu: Option<u32>,
    /// Spanning tree protocol.
    pub stp: bool,
    /// Forward delay in seconds, with `stp`.
    pub delay: u32,
}

/// A route through a gateway on the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticRoute {
    /// Where it leads.
    pub destination: Ipv4Net,
    /// The next hop.
    pub gateway: Ipv4Addr,
    /// Kernel metric; lower wins.
    pub metric: Option<u32>,
}

/// What `network` is made of when active, on the bridge `name` with `mac`, asking the resolvers in `resolv_conf`.
pub fn desired(network: &Network, name: &str, mac: MacAddr, resolv_conf: &Path, ports: Vec<u32>) -> Desired {
    let addresses: Vec<Ipv4Net> = network.ipv4().collect();
    let routes = network
        .routes
        .iter()
        .filter_map(|route| {
            let (destination, gateway) = ipv4_route(route)?;
            Some(StaticRoute { destination, gateway, metric: route.metric })
        })
        .collect();
    let bridge =
        Bridge { name: name.to_owned(), mac, mtu: network.mtu, stp: network.bridge.stp, delay: network.bridge.delay };
    Desired {
        bridge,
        routes,
        forwarding: !matches!(network.forward, Forward::Isolated) && !addresses.is_empty(),
        route_localnet: !network.forwards.is_empty(),
        firewall: firewall(network, name),
        services: services(network, name, resolv_conf),
        sources: sources(network, name),
        isolated: network.isolated_ports == Some(true),
        addresses,
        ports,
    }
}

fn sources(network: &Network, bridge: &str) -> Sources {
    if network.subnets.iter().any(|subnet| subnet.dhcp.is_some()) {
        return Sources::Leases;
    }
    Sources::Network {
        bridge: bridge.to_owned(),
        subnets: network.ipv4().map(|address| address.trunc()).collect(),
        host: network.ipv4().map(|address| address.addr()).collect(),
    }
}

fn firewall(network: &Network, bridge: &str) -> nat::Network {
    let mode = match &network.forward {
        Forward::Isolated => nat::Mode::Isolated,
        Forward::Nat(nat) => nat::Mode::Nat {
            dev: nat.dev.clone(),
            addresses: nat.addresses,
            ports: nat.ports.unwrap_or(Nat::DEFAULT_PORTS),
        },
        Forward::Route { dev } => nat::Mode::Route { dev: dev.clone() },
        // where the bridge is not ours, nothing is
        Forward::Open | Forward::Bridged | Forward::Macvtap(_) => nat::Mode::Open,
    };
    let subnets = network.ipv4().map(|address| address.trunc()).collect();
    nat::Network { bridge: bridge.to_owned(), mode, subnets, dns_redirect: None }
}

fn services(network: &Network, bridge: &str, resolv_conf: &Path) -> NetworkConfig {
    let dhcp4 = network.subnets.iter().find_map(|subnet| Some(dhcp4(network, subnet.ipv4()?, subnet.dhcp.as_ref()?)));
    let dns = (network.dns.enable && !network.subnets.is_empty()).then(|| DnsConfig {
        listen: network.ipv4().map(|address| IpAddr::V4(address.addr())).collect(),
        subnets: network.ipv4().map(|address| address.trunc()).collect(),
        domain: network.domain.as_ref().map(|domain| domain.name.clone()),
        local_only: network.domain.as_ref().is_some_and(|domain| domain.local_only),
        hosts: network.dns.hosts.iter().map(|host| (host.ip, host.names.clone())).collect(),
        forward: !matches!(network.forward, Forward::Isolated),
        resolv_conf: resolv_conf.to_owned(),
    });
    NetworkConfig { network: network.name.as_str().to_owned(), bridge: bridge.to_owned(), dhcp4, dns }
}

fn ipv4_route(route: &Route) -> Option<(Ipv4Net, Ipv4Addr)> {
    match (route.destination, route.gateway) {
        (IpNet::V4(destination), IpAddr::V4(gateway)) => Some((destination.trunc(), gateway)),
        _ => None,
    }
}

fn dhcp4(network: &Network, server: Ipv4Net, dhcp: &Dhcp) -> Dhcp4Config {
    Dhcp4Config {
        server,
        ranges: dhcp.ranges.iter().filter_map(range4).collect(),
        hosts: dhcp.hosts.iter().map(reservation4).collect(),
        router: (!matches!(network.forward, Forward::Isolated)).then(|| server.addr()),
        dns: if network.dns.enable { vec![server.addr()] } else { Vec::new() },
        domain: network.domain.as_ref().map(|domain| domain.name.clone()),
        mtu: network.mtu.and_then(|mtu| u16::try_from(mtu).ok()),
        routes: network.routes.iter().filter_map(ipv4_route).collect(),
    }
}

fn range4(range: &DhcpRange) -> Option<Range4> {
    let (IpAddr::V4(start), IpAddr::V4(end)) = (range.start, range.end) else { return None };
    Some(Range4 { start, end, lease: range.lease.map(lease_time).unwrap_or_default() })
}

fn reservation4(host: &DhcpHost) -> Reservation4 {
    Reservation4 {
        mac: host.mac.map(|mac| Mac(mac.0)),
        name: host.name.clone(),
        address: host.ip.and_then(ipv4),
        lease: host.lease.map(lease_time),
    }
}

fn ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn lease_time(time: LeaseTime) -> ServedLeaseTime {
    match time.seconds() {
        Some(seconds) => ServedLeaseTime::Seconds(seconds.max(SHORTEST_LEASE)),
        None => ServedLeaseTime::Infinite,
    }
}
