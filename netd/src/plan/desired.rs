//! What an active network is made of, derived from its model alone.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use dhcp::config::{
    Boot4, Dhcp4Config, DnsConfig, DnsForwarder as ServedForwarder, DnsService as ServedService,
    LeaseTime as ServedLeaseTime, Mac, NetworkConfig, Option4, Range4, Reservation4, TftpConfig,
};
use ipnet::{IpNet, Ipv4Net};
use nat::guards::{Sources, Sources4, Sources6, link_local};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

use super::{
    ipv6::ipv6,
    place::{PortWish, network_shape, wish},
};
use crate::{
    host::{Focus, HostState, LinkKind},
    model::{
        BridgeName, Dhcp, DhcpHost, DhcpRange, DnsForwarder, DnsService, Dnsmasq, Forward, HostService, LeaseTime,
        MacAddr, Macvtap, Nat, Network, Ports, Route, Subnet,
    },
    port::Port,
    shape::Shape,
};

/// The shortest lease the server gives, in seconds.
const SHORTEST_LEASE: u32 = 120;

/// Everything one active network is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// What its ports are on.
    pub ground: Ground,
    /// How fast the bridge may be.
    pub shape: Shape,
    /// The host's addresses on it.
    pub addresses: Vec<IpNet>,
    /// It has IPv6 at all: one of the addresses is.
    pub ipv6: bool,
    /// Routes through gateways on it.
    pub routes: Vec<StaticRoute>,
    /// The host has to route IPv4.
    pub forwarding: bool,
    /// The host has to route IPv6.
    pub forwarding6: bool,
    /// What comes from 127.0.0.1 may go out by the bridge, and answers may come in: there are port forwards.
    pub route_localnet: bool,
    /// Its rules.
    pub firewall: nat::Network,
    /// Its servers.
    pub services: NetworkConfig,
    /// Its ports.
    pub ports: Vec<PortWish>,
    /// What addresses its guarded ports may use beside their own.
    pub sources: Sources,
}

/// What the ports of a network are on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ground {
    /// A bridge that we make. All else is about this one: where the ground is the host's, we put ports on it and leave
    /// it alone otherwise.
    Own(Bridge),
    /// A bridge of the host, by name.
    Host(String),
    /// Interfaces of the host, with a macvtap for each port.
    Interfaces(Macvtap),
}

impl Ground {
    /// The bridge's name, where there is a bridge.
    pub fn bridge(&self) -> Option<&str> {
        match self {
            Ground::Own(bridge) => Some(&bridge.name),
            Ground::Host(name) => Some(name),
            Ground::Interfaces(_) => None,
        }
    }

    /// What of the host's is not there (yet).
    pub fn missing(&self, host: &HostState) -> Option<String> {
        match self {
            Ground::Own(_) => None,
            Ground::Host(name) => match host.link(name).map(|link| link.kind) {
                Some(LinkKind::Bridge { .. }) => None,
                Some(_) => Some(format!("interface {name} is not a bridge: no port can be added")),
                None => Some(format!("there is no bridge {name}: no port can be added before it is there")),
            },
            Ground::Interfaces(macvtap) => {
                let missing: Vec<&str> =
                    macvtap.interfaces.iter().map(String::as_str).filter(|name| host.link(name).is_none()).collect();
                (!missing.is_empty()).then(|| format!("there is no interface {}", missing.join(", ")))
            }
        }
    }
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ground::Own(bridge) => write!(f, "on a bridge of its own, {}", bridge.name),
            Ground::Host(bridge) => write!(f, "on the host's bridge {bridge}"),
            Ground::Interfaces(macvtap) => {
                write!(f, "on {} by macvtap, in mode {}", macvtap.interfaces.join(", "), macvtap.mode.name())
            }
        }
    }
}

/// What the ports of this network are on; none if it has no bridge and MAC yet.
pub fn ground(network: &Network) -> Option<Ground> {
    let bridge = || network.bridge.name.as_ref().map(BridgeName::to_string);
    Some(match &network.forward {
        Forward::Bridged => Ground::Host(bridge()?),
        Forward::Macvtap(macvtap) => Ground::Interfaces(macvtap.clone()),
        Forward::Isolated | Forward::Nat(_) | Forward::Route { .. } | Forward::Open => Ground::Own(Bridge {
            name: bridge()?,
            mac: network.mac?,
            mtu: network.mtu,
            stp: network.bridge.stp,
            delay: network.bridge.delay,
        }),
    })
}

impl Desired {
    /// What of the host says whether all of it is there.
    pub fn focus(&self) -> Focus {
        let names = match &self.ground {
            Ground::Own(Bridge { name, .. }) | Ground::Host(name) => BTreeSet::from([name.clone()]),
            Ground::Interfaces(macvtap) => macvtap.interfaces.iter().cloned().collect(),
        };
        Focus { names, indices: self.ports.iter().map(|wish| wish.index).collect(), subnets: Vec::new() }
    }

    /// The bridge its ports are on, where there is one.
    pub fn bridge(&self) -> Option<&str> {
        self.ground.bridge()
    }
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
    pub destination: IpNet,
    /// The next hop, of the same family.
    pub gateway: IpAddr,
    /// Kernel metric; lower wins.
    pub metric: Option<u32>,
}

impl StaticRoute {
    /// The metric that the kernel takes where none is given (`IP6_RT_PRIO_USER`).
    pub(crate) fn usual_metric(&self) -> u32 {
        if self.gateway.is_ipv6() { 1024 } else { 0 }
    }
}

/// What `network` is made of when active, on `ground`, asking the resolvers in `resolv_conf`.
pub fn desired(network: &Network, ground: Ground, resolv_conf: &Path, ports: &[&Port]) -> Desired {
    let name = ground.bridge().unwrap_or_default();
    let addresses: Vec<IpNet> = network.subnets.iter().map(|subnet| subnet.address).collect();
    let routes = network
        .routes
        .iter()
        .map(|route| StaticRoute {
            destination: route.destination.trunc(),
            gateway: route.gateway,
            metric: route.metric,
        })
        .collect();
    Desired {
        shape: network_shape(network, ports),
        routes,
        ipv6: network.ipv6_addresses().next().is_some(),
        forwarding: !matches!(network.forward, Forward::Isolated) && network.ipv4().next().is_some(),
        forwarding6: !matches!(network.forward, Forward::Isolated) && network.ipv6_addresses().next().is_some(),
        route_localnet: network.forwards.iter().any(|forward| !forward.at().is_ipv6()),
        firewall: firewall(network, name),
        services: services(network, name, resolv_conf),
        sources: sources(network, name),
        addresses,
        ports: ports.iter().map(|port| wish(network, port)).collect(),
        ground,
    }
}

fn sources(network: &Network, bridge: &str) -> Sources {
    let ipv4 = if network.subnets.iter().any(|subnet| subnet.ipv4().is_some() && subnet.dhcp.is_some()) {
        Sources4::Leases
    } else {
        Sources4::Network {
            subnets: network.ipv4().map(|address| address.trunc()).collect(),
            host: network.ipv4().map(|address| address.addr()).collect(),
        }
    };
    Sources { bridge: bridge.to_owned(), ipv4, ipv6: sources6(network) }
}

fn sources6(network: &Network) -> Sources6 {
    let mut host: Vec<_> = network.ipv6_addresses().map(|address| address.addr()).collect();
    if !host.is_empty() {
        // What the kernel gives the bridge.
        host.extend(network.mac.map(|mac| link_local(mac.0)));
        return Sources6 { prefixes: network.ipv6_addresses().map(|address| address.trunc()).collect(), host };
    }
    // Among themselves; or as the network beyond the host's own bridge has it, of which we know nothing.
    let any = network.ipv6 == Some(true) || !network.forward.has_own_bridge();
    Sources6 { prefixes: if any { Sources6::any() } else { Vec::new() }, host }
}

fn firewall(network: &Network, bridge: &str) -> nat::Network {
    let mode = match &network.forward {
        Forward::Isolated => nat::Mode::Isolated,
        Forward::Nat(nat) => nat::Mode::Nat {
            dev: nat.dev.clone(),
            addresses: nat.addresses,
            ports: nat.ports.unwrap_or(Nat::DEFAULT_PORTS),
            ipv6: nat.ipv6 == Some(true),
        },
        Forward::Route { dev } => nat::Mode::Route { dev: dev.clone() },
        // where the bridge is not ours, nothing is
        Forward::Open | Forward::Bridged | Forward::Macvtap(_) => nat::Mode::Open,
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
        host_access: network.policy.host_access.as_ref().map(|services| {
            // What the network itself serves is for its guests; DHCP and DNS always are.
            let tftp = network.subnets.iter().any(|subnet| subnet.tftp_root.is_some());
            services.iter().map(allowed).chain(tftp.then_some(nat::Allowed::Udp(69, 69))).collect()
        }),
    }
}

fn services(network: &Network, bridge: &str, resolv_conf: &Path) -> NetworkConfig {
    let dhcp4 = network.subnets.iter().find_map(|subnet| Some(dhcp4(network, subnet.ipv4()?, subnet.dhcp.as_ref()?)));
    let by_hand = || network.dnsmasq.iter().flat_map(|option| &option.meaning);
    let hosts = by_hand().flat_map(|it| if let Dnsmasq::Hosts(hosts) = it { hosts.as_slice() } else { &[] });
    let texts = by_hand().filter_map(|it| if let Dnsmasq::Text(text) = it { Some(text) } else { None });
    let forwarders = by_hand().filter_map(|it| if let Dnsmasq::Forwarder(to) = it { Some(to) } else { None });
    let services = by_hand().filter_map(|it| match it {
        Dnsmasq::Service { name, target, port, priority, weight } => Some(ServedService {
            name: name.clone(),
            target: target.clone(),
            port: *port,
            priority: *priority,
            weight: *weight,
        }),
        _ => None,
    });
    let subnets = |is_one: fn(&Subnet) -> bool| {
        network.subnets.iter().filter(|subnet| is_one(subnet)).map(|subnet| subnet.address.trunc()).collect()
    };
    let dns = (network.dns.enable && !network.subnets.is_empty()).then(|| DnsConfig {
        listen: network.subnets.iter().map(|subnet| subnet.address.addr()).collect(),
        subnets: subnets(|subnet| subnet.local_ptr != Some(false)),
        reverse_upstream: subnets(|subnet| subnet.local_ptr == Some(false)),
        domain: network.domain.as_ref().map(|domain| domain.name.clone()),
        local_only: network.domain.as_ref().is_some_and(|domain| domain.local_only),
        hosts: network.dns.hosts.iter().chain(hosts).map(|host| (host.ip, host.names.clone())).collect(),
        texts: network.dns.texts.iter().chain(texts).map(|text| (text.name.clone(), text.value.clone())).collect(),
        services: network.dns.services.iter().map(|service| dns_service(network, service)).chain(services).collect(),
        whole_domains: by_hand()
            .filter_map(
                |it| if let Dnsmasq::Domain { name, address } = it { Some((name.clone(), *address)) } else { None },
            )
            .collect(),
        aliases: by_hand()
            .filter_map(|it| if let Dnsmasq::Aliases { aliases, target } = it { Some((aliases, target)) } else { None })
            .flat_map(|(aliases, target)| aliases.iter().map(|alias| (alias.clone(), target.clone())))
            .collect(),
        log_queries: by_hand().any(|it| matches!(it, Dnsmasq::LogQueries)),
        forward_plain_names: network.dns.forward_plain_names == Some(true),
        forward: !matches!(network.forward, Forward::Isolated),
        forwarders: network.dns.forwarders.iter().chain(forwarders).map(dns_forwarder).collect(),
        resolv_conf: resolv_conf.to_owned(),
    });
    let tftp = network.subnets.iter().filter_map(|subnet| tftp(network, subnet)).collect();
    let (name, bridge) = (network.name.as_str().to_owned(), bridge.to_owned());
    NetworkConfig { network: name, bridge, dhcp4, ipv6: ipv6(network), dns, tftp }
}

fn tftp(network: &Network, subnet: &Subnet) -> Option<TftpConfig> {
    let root = PathBuf::from(subnet.tftp_root.as_ref()?);
    Some(TftpConfig { address: subnet.ipv4()?.addr(), root, mtu: network.mtu.and_then(|mtu| u16::try_from(mtu).ok()) })
}

/// A record of a service that names no domain is in the network's.
fn dns_service(network: &Network, service: &DnsService) -> ServedService {
    let domain = service.domain.as_ref().or(network.domain.as_ref().map(|domain| &domain.name));
    let under = domain.map(|domain| format!(".{domain}")).unwrap_or_default();
    ServedService {
        name: format!("_{}._{}{under}", service.service, service.protocol),
        target: service.target.clone(),
        // what dnsmasq says where nothing is said; 0 where there is no target
        port: service.port.unwrap_or(u16::from(service.target.is_some())),
        priority: service.priority.unwrap_or(0),
        weight: service.weight.unwrap_or(0),
    }
}

fn dns_forwarder(forwarder: &DnsForwarder) -> ServedForwarder {
    ServedForwarder { domain: forwarder.domain.clone(), address: forwarder.address, port: forwarder.port }
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
        boot: dhcp.bootp.as_ref().map(|bootp| Boot4 { file: bootp.file.clone(), server: bootp.server.and_then(ipv4) }),
        options: network.dnsmasq.iter().flat_map(|option| &option.meaning).filter_map(dhcp_option).collect(),
    }
}

fn dhcp_option(meaning: &Dnsmasq) -> Option<Option4> {
    let Dnsmasq::DhcpOption(option) = meaning else { return None };
    Some(Option4 { code: option.code, value: option.value.clone(), force: option.force })
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

pub(super) fn lease_time(time: LeaseTime) -> ServedLeaseTime {
    match time.seconds() {
        Some(seconds) => ServedLeaseTime::Seconds(seconds.max(SHORTEST_LEASE)),
        None => ServedLeaseTime::Infinite,
    }
}
