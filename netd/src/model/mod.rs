//! The model of a network: plain values, valid once built. It never touches the host.
//!
//! `xml` reads and writes it, `check` compares networks with each other, `plan` turns it into steps.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use uuid::Uuid;

mod forwards;
mod names;
mod policy;

pub use forwards::{
    ForwardError, HostPort, LONGEST_GUEST, PortForward, Ports, Protocol, Taken, Target, To, forward_address,
};
pub(crate) use names::printable;
pub use names::{BridgeName, MacAddr, NameError, NetworkName};
pub use policy::{HostService, Policy};

/// A network as its XML describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Unique on the host; also the file name of the definition.
    pub name: NetworkName,
    /// Stable identity; made up when a definition has none.
    pub uuid: Uuid,
    /// How packets leave the network.
    pub forward: Forward,
    /// The Linux bridge the ports are on.
    pub bridge: Bridge,
    /// The MAC of the bridge itself; made up when a definition has none.
    pub mac: Option<MacAddr>,
    /// Greatest packet size in bytes on bridge and ports; the kernel's default (1500) if absent.
    pub mtu: Option<u32>,
    /// The DNS domain of the network.
    pub domain: Option<Domain>,
    /// DNS on the bridge's addresses.
    pub dns: Dns,
    /// `<port isolated=…>`, if written: with `true`, ports reach the host and what is behind it but not each other.
    pub isolated_ports: Option<bool>,
    /// The host's addresses on the bridge and what is served around them.
    pub subnets: Vec<Subnet>,
    /// Routes through gateways on the network.
    pub routes: Vec<Route>,
    /// Ports of the host that lead to guests.
    pub forwards: Vec<PortForward>,
    /// What guests may do with each other and with the host.
    pub policy: Policy,
}

impl Network {
    /// As the XML of a started network shows it: the ports that NAT uses are written out, as libvirt does.
    #[must_use]
    pub fn live(mut self) -> Self {
        if let Forward::Nat(nat) = &mut self.forward {
            nat.ports.get_or_insert(Nat::DEFAULT_PORTS);
        }
        self
    }
}

/// `<forward>`: how packets leave the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forward {
    /// No `<forward>`: guests talk to each other and the host only.
    Isolated,
    /// Masquerade behind the host.
    Nat(Nat),
    /// Routed, filtered, not translated.
    Route {
        /// The only interface packets may leave by.
        dev: Option<String>,
    },
    /// Routed; no firewall rule of ours at all.
    Open,
}

/// `<forward mode='nat'>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nat {
    /// The only interface packets may leave by.
    pub dev: Option<String>,
    /// Source addresses to use in place of the outgoing interface's, first and last.
    pub addresses: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Source ports for TCP and UDP, first and last; 1024-65535 if absent.
    pub ports: Option<(u16, u16)>,
}

impl Nat {
    /// Never a port below 1024: NFS servers trust those (libvirt's rule).
    pub const DEFAULT_PORTS: (u16, u16) = (1024, 65535);
}

/// `<bridge>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// The interface name; `virbrN` with the first free N is chosen if absent.
    pub name: Option<BridgeName>,
    /// Spanning tree protocol. Off unless asked for: with it a new port forwards only after 4 s.
    pub stp: bool,
    /// Forward delay in seconds; only matters with `stp`.
    pub delay: u32,
}

/// `<domain>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// The domain's name, without a final dot.
    pub name: String,
    /// Names in the domain are never asked of an upstream resolver.
    pub local_only: bool,
}

/// `<dns>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Serve DNS at all.
    pub enable: bool,
    /// `<host>` records: an address and the names that stand for it.
    pub hosts: Vec<DnsHost>,
}

impl Default for Dns {
    fn default() -> Self {
        Dns { enable: true, hosts: Vec::new() }
    }
}

/// `<dns><host>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsHost {
    /// The address.
    pub ip: Ipv4Addr,
    /// At least one name.
    pub names: Vec<String>,
}

/// `<ip>`: an address of the host on the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The host's own address with the prefix length.
    pub address: Ipv4Net,
    /// The definition gave `netmask` (as libvirt's files do), not `prefix`; kept so that output equals input.
    pub written_as_netmask: bool,
    /// DHCP on this subnet; at most one subnet of a network has it.
    pub dhcp: Option<Dhcp>,
}

/// `<dhcp>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dhcp {
    /// Pools of addresses.
    pub ranges: Vec<DhcpRange>,
    /// Reservations.
    pub hosts: Vec<DhcpHost>,
}

/// `<range>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpRange {
    /// First address of the pool.
    pub start: Ipv4Addr,
    /// Last address of the pool.
    pub end: Ipv4Addr,
    /// `<lease>`, if given.
    pub lease: Option<LeaseTime>,
}

/// `<host>` in `<dhcp>`: at least one of MAC and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpHost {
    /// Whom it is for, by hardware address.
    pub mac: Option<MacAddr>,
    /// The host name to hand out; whom it is for, where there is no MAC.
    pub name: Option<String>,
    /// The reserved address; without one only the name is set.
    pub ip: Option<Ipv4Addr>,
    /// `<lease>`, if given.
    pub lease: Option<LeaseTime>,
}

/// `<lease expiry= unit=>`, kept as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTime {
    /// In `unit`s; 0 is a lease without end.
    pub expiry: u32,
    /// What `expiry` counts.
    pub unit: LeaseUnit,
}

/// The unit of a lease time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeaseUnit {
    /// Seconds.
    Seconds,
    /// Minutes: what libvirt assumes where no unit is written.
    #[default]
    Minutes,
    /// Hours.
    Hours,
}

impl LeaseTime {
    /// In seconds; `None` for a lease without end.
    pub fn seconds(self) -> Option<u32> {
        let factor = match self.unit {
            LeaseUnit::Seconds => 1,
            LeaseUnit::Minutes => 60,
            LeaseUnit::Hours => 3600,
        };
        (self.expiry != 0).then(|| self.expiry.saturating_mul(factor))
    }
}

/// `<route>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub destination: Ipv4Net,
    /// A gateway on one of the network's subnets.
    pub gateway: Ipv4Addr,
    /// Kernel metric; lower wins.
    pub metric: Option<u32>,
    /// As in [`Subnet::written_as_netmask`].
    pub written_as_netmask: bool,
}
