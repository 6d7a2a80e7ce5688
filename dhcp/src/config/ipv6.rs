//! What a network says to its guests about IPv6: router advertisements, and DHCPv6 where a subnet has it.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use super::LeaseTime;

/// IPv6 on one network. There are router advertisements wherever there is this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv6Config {
    /// The prefixes of the link, one for each of the server's addresses.
    pub prefixes: Vec<Prefix6>,
    /// Whether guests are to take us for their default router; false on isolated networks.
    pub router: bool,
    /// Networks that lie behind us, for guests with other routers too (RFC 4191 §2.3).
    pub routes: Vec<Ipv6Net>,
    /// Resolvers (RFC 8106 §5.1).
    pub dns: Vec<Ipv6Addr>,
    /// The domain to complete short names with (RFC 8106 §5.2).
    pub domain: Option<String>,
    /// The link's MTU in bytes, 1280 or more.
    pub mtu: Option<u32>,
    /// DHCPv6, where a subnet has it.
    pub dhcp: Option<Dhcp6Config>,
}

/// A prefix of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix6 {
    /// The server's own address with the prefix length.
    pub server: Ipv6Net,
    /// Whether guests are to make addresses of it themselves (RFC 4862); where DHCPv6 gives them out they are not.
    pub autonomous: bool,
}

/// DHCPv6 on one subnet. Without ranges and reservations it tells resolvers and the domain only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dhcp6Config {
    /// The server's own address with the subnet's prefix length.
    pub server: Ipv6Net,
    /// Pools, each inside the subnet.
    pub ranges: Vec<Range6>,
    /// Reservations.
    pub hosts: Vec<Reservation6>,
}

impl Dhcp6Config {
    /// Whether it gives out addresses.
    pub fn is_stateful(&self) -> bool {
        !self.ranges.is_empty() || !self.hosts.is_empty()
    }
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range6 {
    /// First address.
    pub start: Ipv6Addr,
    /// Last address.
    pub end: Ipv6Addr,
    /// Lease time, which is both the preferred and the valid lifetime.
    pub lease: LeaseTime,
}

/// What is kept for one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation6 {
    /// Whom it is for, by DUID (RFC 8415 §11).
    pub duid: Option<Vec<u8>>,
    /// The host name to hand out; whom it is for, where there is no DUID.
    pub name: Option<String>,
    /// The address; anywhere in the subnet, inside or outside the pools.
    pub address: Option<Ipv6Addr>,
    /// Its own lease time.
    pub lease: Option<LeaseTime>,
}

/// How long an IPv6 lease lasts where nothing is said: a day, as dnsmasq has it.
pub const LEASE_TIME_6: LeaseTime = LeaseTime::Seconds(86_400);
