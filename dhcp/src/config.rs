//! What the servers of one network are told: values only. Whoever builds them has checked them against the network.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net};

mod ipv6;

pub use ipv6::{Dhcp6Config, Ipv6Config, LEASE_TIME_6, Prefix6, Range6, Reservation6};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    /// `52:54:00:…`, lower case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is no Ethernet address: six pairs of hex digits with colons between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Ethernet address")]
pub struct BadMac;

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(BadMac)?;
            if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(BadMac);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| BadMac)?;
        }
        if parts.next().is_some() { Err(BadMac) } else { Ok(Mac(bytes)) }
    }
}

/// Everything one network serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The network's name: the key of its leases.
    pub network: String,
    /// The bridge's interface name.
    pub bridge: String,
    /// DHCPv4, where a subnet has it.
    pub dhcp4: Option<Dhcp4Config>,
    /// Router advertisements and DHCPv6, where the network has an IPv6 address.
    pub ipv6: Option<Ipv6Config>,
    /// DNS, unless disabled.
    pub dns: Option<DnsConfig>,
    /// TFTP, for each address that has it.
    pub tftp: Vec<TftpConfig>,
}

/// TFTP at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TftpConfig {
    /// The host's address on the bridge; port 69 of it is served.
    pub address: Ipv4Addr,
    /// The directory whose files are to be had.
    pub root: PathBuf,
    /// The bridge's MTU in bytes, if it is not 1500.
    pub mtu: Option<u16>,
}

/// DHCPv4 on one subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dhcp4Config {
    /// The server's own address with the subnet's prefix length.
    pub server: Ipv4Net,
    /// Pools, each inside the subnet.
    pub ranges: Vec<Range4>,
    /// Reservations.
    pub hosts: Vec<Reservation4>,
    /// Default gateway (option 3); none on isolated networks.
    pub router: Option<Ipv4Addr>,
    /// Resolvers (option 6).
    pub dns: Vec<Ipv4Addr>,
    /// Domain name (option 15).
    pub domain: Option<String>,
    /// Interface MTU in bytes (option 26).
    pub mtu: Option<u16>,
    /// Static routes (option 121), without the default route: the server adds it (RFC 3442).
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// What clients that boot from the network are to load.
    pub boot: Option<Boot4>,
    /// Options set by hand, in place of what would be said; the last with a code counts.
    pub options: Vec<Option4>,
}

/// What to boot from the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot4 {
    /// A path on a TFTP server, or a URL for UEFI's HTTP boot.
    pub file: String,
    /// The TFTP server; the DHCP server itself if absent.
    pub server: Option<Ipv4Addr>,
}

/// An option set by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Option4 {
    /// Its code.
    pub code: u8,
    /// Its bytes; without any it is never sent.
    pub value: Vec<u8>,
    /// Sent to clients that did not ask for it too.
    pub force: bool,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range4 {
    /// First address.
    pub start: Ipv4Addr,
    /// Last address.
    pub end: Ipv4Addr,
    /// Lease time.
    pub lease: LeaseTime,
}

/// How long a lease lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseTime {
    /// Seconds, 120 or more.
    Seconds(u32),
    /// Without end (RFC 2131 §3.3: 0xffffffff).
    Infinite,
}

impl Default for LeaseTime {
    /// One hour, what dnsmasq gives when libvirt says nothing.
    fn default() -> Self {
        LeaseTime::Seconds(3600)
    }
}

/// What is kept for one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation4 {
    /// Whom it is for, by hardware address.
    pub mac: Option<Mac>,
    /// The host name to hand out; whom it is for (option 12), where there is no MAC.
    pub name: Option<String>,
    /// The address; anywhere in the subnet, inside or outside the pools.
    pub address: Option<Ipv4Addr>,
    /// Its own lease time.
    pub lease: Option<LeaseTime>,
}

/// A port of the network: a guest NIC whose MAC we gave and whose name we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortName {
    /// The guest side's MAC.
    pub mac: Mac,
    /// The guest's name.
    pub guest: Option<String>,
}

/// An SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsService {
    /// Its whole name: `_ldap._tcp.lab.example`.
    pub name: String,
    /// Who serves it; nobody if absent.
    pub target: Option<String>,
    /// The target's port.
    pub port: u16,
    /// Lower is tried first.
    pub priority: u16,
    /// Share among targets of equal priority.
    pub weight: u16,
}

/// A resolver to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsForwarder {
    /// For names in this domain only; for every name if absent.
    pub domain: Option<String>,
    /// The resolver; the host's own if absent.
    pub address: Option<IpAddr>,
    /// Its port; 53 if absent.
    pub port: Option<u16>,
}

/// DNS on one network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// The host's addresses on the bridge; port 53 of each is served.
    pub listen: Vec<IpAddr>,
    /// The subnets whose reverse zones we answer for.
    pub subnets: Vec<IpNet>,
    /// Networks whose reverse names are asked of an upstream where we know nothing, even if they are private ones.
    pub reverse_upstream: Vec<IpNet>,
    /// The domain guests' names are in, besides being known by their first label.
    pub domain: Option<String>,
    /// Never ask an upstream for names in `domain`.
    pub local_only: bool,
    /// Fixed records.
    pub hosts: Vec<(IpAddr, Vec<String>)>,
    /// Fixed TXT records: a name and its text, of any length.
    pub texts: Vec<(String, String)>,
    /// Fixed SRV records.
    pub services: Vec<DnsService>,
    /// Domains of which every name, and the domain's own, stands for one address, and for no other record; without an
    /// address no such name exists. `.` is every name that is not known otherwise. The longest that fits counts.
    pub whole_domains: Vec<(String, Option<IpAddr>)>,
    /// Other names of names that are known here, as CNAME records: the alias and what it stands for. One that stands for
    /// nothing known here is none.
    pub aliases: Vec<(String, String)>,
    /// Write each question to the log, with who asks.
    pub log_queries: bool,
    /// Ask upstream resolvers for names without a dot too.
    pub forward_plain_names: bool,
    /// Ask upstream resolvers for the rest; false on isolated networks (no tunnel out by DNS).
    pub forward: bool,
    /// Resolvers in place of the host's, or for a domain; asked on isolated networks too.
    pub forwarders: Vec<DnsForwarder>,
    /// Where upstream resolvers are listed, usually `/etc/resolv.conf`; watched.
    pub resolv_conf: PathBuf,
}
