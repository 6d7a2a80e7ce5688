//! What an active network is made of, derived from its model alone.

use std::{net::IpAddr, path::Path};

use dhcp::config::{Dhcp4Config, DnsConfig, LeaseTime as ServedLeaseTime, Mac, NetworkConfig, Range4, Reservation4};
use ipnet::Ipv4Net;
use nat::guards::Sources;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

use crate::model::{Dhcp, Forward, HostService, LeaseTime, MacAddr, Nat, Network, Ports, Subnet};

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
    let addresses: Vec<Ipv4Net> = network.subnets.iter().map(|subnet| subnet.address).collect();
    let routes = network
        .routes
        .iter()
        .map(|route| StaticRoute {
            destination: route.destination.trunc(),
            gateway: route.gateway,
            metric: route.metric,
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
        isolated: network.isolated_ports == Some(true) || network.policy.is_silent(),
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
        subnets: network.subnets.iter().map(|subnet| subnet.address.trunc()).collect(),
        host: network.subnets.iter().map(|subnet| subnet.address.addr()).collect(),
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
        Forward::Open => nat::Mode::Open,
    };
    let subnets = network.subnets.iter().map(|subnet| subnet.address.trunc()).collect();
    nat::Network { bridge: bridge.to_owned(), mode, subnets, dns_redirect: None, policy: policy(network) }
}

fn policy(network: &Network) -> nat::Policy {
    let ports = |ports: Ports| (ports.first(), ports.last());
    let allowed = |service: &HostService| match *service {
        HostService::Tcp(tcp) => {
            let (first, last) = ports(tcp);
            nat::Allowed::Tcp(first, last)
        }
        HostService::Udp(udp) => {
            let (first, last) = ports(udp);
            nat::Allowed::Udp(first, last)
        }
        HostService::Icmp => nat::Allowed::Icmp,
    };
    nat::Policy {
        silent: network.policy.is_silent(),
        host_access: network.policy.host_access.as_ref().map(|services| services.iter().map(allowed).collect()),
    }
}

fn services(network: &Network, bridge: &str, resolv_conf: &Path) -> NetworkConfig {
    let dhcp4 = network.subnets.iter().find_map(|subnet| subnet.dhcp.as_ref().map(|dhcp| dhcp4(network, subnet, dhcp)));
    let dns = (network.dns.enable && !network.subnets.is_empty()).then(|| DnsConfig {
        listen: network.subnets.iter().map(|subnet| IpAddr::V4(subnet.address.addr())).collect(),
        subnets: network.subnets.iter().map(|subnet| subnet.address.trunc()).collect(),
        domain: network.domain.as_ref().map(|domain| domain.name.clone()),
        local_only: network.domain.as_ref().is_some_and(|domain| domain.local_only),
        hosts: network.dns.hosts.iter().map(|host| (IpAddr::V4(host.ip), host.names.clone())).collect(),
        forward: !matches!(network.forward, Forward::Isolated),
        resolv_conf: resolv_conf.to_owned(),
    });
    NetworkConfig { network: network.name.as_str().to_owned(), bridge: bridge.to_owned(), dhcp4, dns }
}

fn dhcp4(network: &Network, subnet: &Subnet, dhcp: &Dhcp) -> Dhcp4Config {
    let server = subnet.address;
    Dhcp4Config {
        server,
        ranges: dhcp
            .ranges
            .iter()
            .map(|range| Range4 {
                start: range.start,
                end: range.end,
                lease: range.lease.map(lease_time).unwrap_or_default(),
            })
            .collect(),
        hosts: dhcp
            .hosts
            .iter()
            .map(|host| Reservation4 {
                mac: host.mac.map(|mac| Mac(mac.0)),
                name: host.name.clone(),
                address: host.ip,
                lease: host.lease.map(lease_time),
            })
            .collect(),
        router: (!matches!(network.forward, Forward::Isolated)).then(|| server.addr()),
        dns: if network.dns.enable { vec![server.addr()] } else { Vec::new() },
        domain: network.domain.as_ref().map(|domain| domain.name.clone()),
        mtu: network.mtu.and_then(|mtu| u16::try_from(mtu).ok()),
        routes: network.routes.iter().map(|route| (route.destination.trunc(), route.gateway)).collect(),
    }
}

fn lease_time(time: LeaseTime) -> ServedLeaseTime {
    match time.seconds() {
        Some(seconds) => ServedLeaseTime::Seconds(seconds.max(SHORTEST_LEASE)),
        None => ServedLeaseTime::Infinite,
    }
}
