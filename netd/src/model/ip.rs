//! `<ip>`, `<dhcp>` and `<route>`: addresses of both families.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::MacAddr;

/// `<ip>`: an address of the host on the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The host's own address with the prefix length.
    pub address: IpNet,
    /// How the address was written.
    pub spelling: Spelling,
    /// `localPtr=`, if written: with `true`, PTR questions about the subnet are never asked of an upstream resolver.
    pub local_ptr: Option<bool>,
    /// `<tftp root=…>`: the directory of a TFTP server on this address.
    pub tftp_root: Option<String>,
    /// DHCP on this subnet; at most one subnet of each family has it.
    pub dhcp: Option<Dhcp>,
}

impl Subnet {
    /// The address, if it is an IPv4 one.
    pub fn ipv4(&self) -> Option<Ipv4Net> {
        match self.address {
            IpNet::V4(address) => Some(address),
            IpNet::V6(_) => None,
        }
    }

    /// The address, if it is an IPv6 one.
    pub fn ipv6(&self) -> Option<Ipv6Net> {
        match self.address {
            IpNet::V4(_) => None,
            IpNet::V6(address) => Some(address),
        }
    }
}

/// How an address and its prefix length were written; kept so that output equals input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spelling {
    /// With `family=`.
    pub family: bool,
    /// What the prefix length was written as.
    pub mask: Mask,
}

/// What stands for a prefix length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mask {
    /// `netmask=`, IPv4 only.
    Netmask,
    /// `prefix=`.
    #[default]
    Prefix,
    /// Nothing: it follows from the address.
    Omitted,
}

/// `ipv4` or `ipv6`, as `family=` says it.
pub fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ipv4" } else { "ipv6" }
}

/// `<dhcp>`. Every address is of the subnet's family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dhcp {
    /// Pools of addresses.
    pub ranges: Vec<DhcpRange>,
    /// Reservations.
    pub hosts: Vec<DhcpHost>,
    /// What clients that boot from the network are told; IPv4 only.
    pub bootp: Option<Bootp>,
}

/// `<range>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpRange {
    /// First address of the pool.
    pub start: IpAddr,
    /// Last address of the pool.
    pub end: IpAddr,
    /// `<lease>`, if given.
    pub lease: Option<LeaseTime>,
}

/// `<host>` in `<dhcp>`. On IPv4 at least one of MAC and name, on IPv6 at least one of DUID and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpHost {
    /// Whom it is for, by hardware address; IPv4 only.
    pub mac: Option<MacAddr>,
    /// Whom it is for, by DUID (RFC 8415 §11) as `00:03:00:01:…`; IPv6 only.
    pub id: Option<String>,
    /// The host name to hand out; whom it is for, where there is no MAC or DUID.
    pub name: Option<String>,
    /// The reserved address; without one only the name is set.
    pub ip: Option<IpAddr>,
    /// `<lease>`, if given.
    pub lease: Option<LeaseTime>,
}

/// `<bootp>`: what a client that boots from the network is to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootp {
    /// The file.
    pub file: String,
    /// The server that has it; the host itself if absent.
    pub server: Option<IpAddr>,
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
    pub destination: IpNet,
    /// A gateway on one of the network's subnets, of the same family.
    pub gateway: IpAddr,
    /// Kernel metric; lower wins.
    pub metric: Option<u32>,
    /// How the destination was written.
    pub spelling: Spelling,
}
