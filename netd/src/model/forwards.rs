//! Port forwards: which ports of the host lead to which guests. Values that are valid once built; looked up nowhere.

use std::{
    collections::{HashMap, hash_map},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;

use super::{Forward, Network, Subnet, printable};

/// The longest guest name: as long as a DNS name.
pub const LONGEST_GUEST: usize = 253;

/// More targets than anyone shares a port between.
const MOST_TARGETS: usize = 64;

/// `<netd:forward>`: a port of the host, or a range, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortForward {
    at: HostPort,
    targets: Vec<Target>,
}

/// What of the host is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The ports.
    pub ports: Ports,
    /// The one address of the host they are forwarded at; every IPv4 one if absent, every IPv6 one if `::`.
    pub address: Option<IpAddr>,
}

/// What can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port or several in a row: 1 to 65535, the first not above the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    first: u16,
    last: u16,
}

/// One that connections go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whom.
    pub to: To,
    /// The port that stands for the first of the host's.
    pub port: u16,
}

/// Whom connections go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// A guest, wherever it is.
    Guest(String),
    /// An address on the network.
    Address(IpAddr),
}

impl Target {
    /// Its ports, as many as the host's: `22`, `8000-8010`.
    pub fn ports(&self, host: Ports) -> String {
        let last = u32::from(self.port) + host.count() - 1;
        if host.count() == 1 { self.port.to_string() } else { format!("{}-{last}", self.port) }
    }
}

/// Why something is no port forward.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// Not `tcp` or `udp`.
    #[error("protocol '{0}' cannot be forwarded: it is not tcp or udp")]
    Protocol(String),
    /// Not a port or a range.
    #[error("'{0}' is not a port from 1 to 65535 or a range like 8000-8010")]
    Ports(String),
    /// Nobody to forward to.
    #[error("a port forward needs a guest or an address to lead to")]
    NoTarget,
    /// Too many.
    #[error("a port forward leads to at most {MOST_TARGETS} targets")]
    ManyTargets,
    /// A name no guest can have.
    #[error("guest '{0}' is not a name of 1 to {LONGEST_GUEST} printable characters")]
    Guest(String),
    /// The target's ports end beyond the last there is.
    #[error("{count} ports from {port} on end beyond port 65535")]
    Beyond {
        /// The target's first port.
        port: u16,
        /// How many there must be.
        count: u32,
    },
    /// A range on one side that is longer than on the other.
    #[error("the ranges {host} and {target} differ in length")]
    Lengths {
        /// The host's.
        host: Ports,
        /// The target's.
        target: Ports,
    },
    /// Not an address.
    #[error("'{0}' is not an address like 192.168.122.10 or fd00::10")]
    Address(String),
    /// An address of the host that no packet can be to.
    #[error("the host cannot have the address {0}")]
    HostAddress(IpAddr),
    /// The IPv6 loopback address.
    #[error("connections to ::1 cannot be forwarded: the kernel takes no answers to it from a network")]
    Loopback6,
    /// An address that means something on one link only.
    #[error("address {0} is link-local; a port forward leads from and to addresses that routers know")]
    LinkLocal(IpAddr),
    /// From one family to the other.
    #[error("a port of {at} addresses cannot lead to {0}, which is of the other family", at = other_family(*.0))]
    OtherFamily(IpAddr),
    /// A target that is on no subnet of the network.
    #[error("address {0} is on no <ip> subnet of this network")]
    Elsewhere(IpAddr),
    /// A target that is the host itself.
    #[error("address {0} is the host's own; a port forward leads to a guest")]
    Own(IpAddr),
    /// The network's guests are to be reached by nobody.
    #[error("an isolated network has no port forwards; give it a <forward mode='nat'/> or another mode")]
    Isolated,
    /// The network's guests have addresses of somebody else's network.
    #[error("a network without a bridge of its own has no port forwards: its guests can be reached as they are")]
    NotOurs,
    /// The network has no addresses.
    #[error("port forwards need a network with an <ip> address")]
    NoSubnet,
    /// The network has only addresses of the other family.
    #[error("{0} ports are forwarded on networks with an {0} <ip> address")]
    NoSubnetOf(&'static str),
    /// Another forward has one of the ports.
    #[error("port {0} is forwarded twice")]
    Twice(HostPort),
}

impl PortForward {
    /// A forward of `at` to `targets`, in turn if there are several. Without an address it is of the family that the
    /// targets' addresses are of.
    pub fn new(mut at: HostPort, targets: Vec<Target>) -> Result<Self, ForwardError> {
        if targets.is_empty() {
            return Err(ForwardError::NoTarget);
        }
        if targets.len() > MOST_TARGETS {
            return Err(ForwardError::ManyTargets);
        }
        if at.address.is_none() && targets.iter().all(|target| matches!(target.to, To::Address(IpAddr::V6(_)))) {
            at.address = Some(EVERY_IPV6);
        }
        match at.address {
            Some(IpAddr::V4(a)) if a.is_unspecified() || a.is_multicast() || a.is_broadcast() => {
                return Err(ForwardError::HostAddress(a.into()));
            }
            Some(IpAddr::V6(a)) if a.is_multicast() => return Err(ForwardError::HostAddress(a.into())),
            Some(IpAddr::V6(a)) if a.is_loopback() => return Err(ForwardError::Loopback6),
            Some(IpAddr::V6(a)) if a.is_unicast_link_local() => return Err(ForwardError::LinkLocal(a.into())),
            _ => {}
        }
        for target in &targets {
            if let To::Guest(name) = &target.to
                && (name.is_empty() || name.len() > LONGEST_GUEST || name.chars().any(char::is_control))
            {
                return Err(ForwardError::Guest(printable(name)));
            }
            match &target.to {
                To::Address(address) if address.is_ipv6() != at.is_ipv6() => {
                    return Err(ForwardError::OtherFamily(*address));
                }
                To::Guest(_) | To::Address(_) => {}
            }
            let count = at.ports.count();
            if target.port == 0 || u32::from(target.port) + count > 1 << 16 {
                return Err(ForwardError::Beyond { port: target.port, count });
            }
        }
        Ok(PortForward { at, targets })
    }

    /// What of the host is forwarded.
    pub fn at(&self) -> HostPort {
        self.at
    }

    /// Where it leads; at least one.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Whether it can be on a network of this mode with these subnets.
    pub fn fits(&self, mode: &Forward, subnets: &[Subnet]) -> Result<(), ForwardError> {
        match mode {
            Forward::Isolated => return Err(ForwardError::Isolated),
            Forward::Bridged | Forward::Macvtap(_) => return Err(ForwardError::NotOurs),
            Forward::Nat(_) | Forward::Route { .. } | Forward::Open => {}
        }
        if subnets.is_empty() {
            return Err(ForwardError::NoSubnet);
        }
        let subnets: Vec<IpNet> = subnets
            .iter()
            .map(|subnet| subnet.address)
            .filter(|net| net.addr().is_ipv6() == self.at.is_ipv6())
            .collect();
        if subnets.is_empty() {
            return Err(ForwardError::NoSubnetOf(if self.at.is_ipv6() { "IPv6" } else { "IPv4" }));
        }
        for target in &self.targets {
            let To::Address(address) = target.to else { continue };
            if subnets.iter().any(|subnet| subnet.addr() == address) {
                return Err(ForwardError::Own(address));
            }
            let is_host = |net: IpNet| {
                let all_are = net.prefix_len() + 1 >= net.max_prefix_len();
                // The last of IPv6's is one like any other.
                let is_broadcast = address.is_ipv4() && address == net.broadcast();
                net.contains(&address) && (all_are || (address != net.network() && !is_broadcast))
            };
            if !subnets.iter().any(|subnet| is_host(subnet.trunc())) {
                return Err(ForwardError::Elsewhere(address));
            }
        }
        Ok(())
    }
}

impl Network {
    /// Whether the forward can be added to the network.
    pub fn check_forward(&self, forward: &PortForward) -> Result<(), ForwardError> {
        forward.fits(&self.forward, &self.subnets)?;
        let mut taken = Taken::default();
        for other in &self.forwards {
            taken.insert(other.at());
        }
        taken.insert(forward.at()).map_or(Ok(()), |port| Err(ForwardError::Twice(port)))
    }
}

/// Host ports that are forwarded.
#[derive(Debug, Default)]
pub struct Taken(HashMap<(Protocol, u16), Vec<Option<IpAddr>>>);

impl Taken {
    /// Takes the ports and returns the first of them that was taken already.
    pub fn insert(&mut self, at: HostPort) -> Option<HostPort> {
        let mut clash = None;
        for port in at.ports.iter() {
            match self.0.entry((at.protocol, port)) {
                hash_map::Entry::Vacant(free) => drop(free.insert(vec![at.address])),
                hash_map::Entry::Occupied(mut others) => {
                    let same = |other: &Option<IpAddr>| {
                        let (one, other) = (at.address.unwrap_or(EVERY_IPV4), other.unwrap_or(EVERY_IPV4));
                        let either_is_every = one.is_unspecified() || other.is_unspecified();
                        one == other || (either_is_every && one.is_ipv4() == other.is_ipv4())
                    };
                    if clash.is_none() && others.get().iter().any(same) {
                        clash = Some(HostPort { ports: Ports { first: port, last: port }, ..at });
                    }
                    others.get_mut().push(at.address);
                }
            }
        }
        clash
    }
}

impl Ports {
    /// The ports from `first` to `last`.
    pub fn new(first: u16, last: u16) -> Result<Self, ForwardError> {
        if first == 0 || first > last {
            return Err(ForwardError::Ports(format!("{first}-{last}")));
        }
        Ok(Ports { first, last })
    }

    /// The first.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last.
    pub fn last(self) -> u16 {
        self.last
    }

    /// How many.
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }

    fn iter(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }

    /// The first of these ports of a target, which must be as many as the host's.
    pub fn first_for(self, host: Ports) -> Result<u16, ForwardError> {
        if self.count() == host.count() {
            return Ok(self.first);
        }
        Err(ForwardError::Lengths { host, target: self })
    }
}

impl FromStr for Ports {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        let bad = || ForwardError::Ports(printable(text));
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u16>().ok()).flatten().ok_or_else(bad)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Ports::new(number(first)?, number(last)?).map_err(|_| bad())
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl FromStr for Protocol {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        match text {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            _ => Err(ForwardError::Protocol(printable(text))),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.ports)?;
        self.address.map_or(Ok(()), |address| write!(f, " at {address}"))
    }
}

/// How "every address of the host" is written.
const EVERY_IPV4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const EVERY_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

impl HostPort {
    /// It is forwarded at IPv6 addresses.
    pub fn is_ipv6(&self) -> bool {
        self.address.is_some_and(|address| address.is_ipv6())
    }
}

fn other_family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv6" } else { "IPv4" }
}

/// An address, or what is wrong with the text.
pub fn forward_address(text: &str) -> Result<IpAddr, ForwardError> {
    match text.parse() {
        // An IPv4 address in disguise is none that packets have.
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => Err(ForwardError::HostAddress(address.into())),
        Ok(address) => Ok(address),
        Err(_) => Err(ForwardError::Address(printable(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(protocol: Protocol, ports: &str, address: Option<&str>) -> HostPort {
        HostPort { protocol, ports: ports.parse().unwrap(), address: address.map(|text| text.parse().unwrap()) }
    }

    #[test]
    fn ports_are_a_number_or_a_range() {
        assert_eq!("80".parse(), Ports::new(80, 80));
        assert_eq!("8000-8010".parse::<Ports>().unwrap().count(), 11);
        for text in ["", "0", "65536", "9-8", "1-", "-1", "+1", "1-2-3", "http", "0-5"] {
            assert!(text.parse::<Ports>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_is_taken_once_per_address() {
        let mut taken = Taken::default();
        assert_eq!(taken.insert(at(Protocol::Tcp, "80-90", None)), None);
        assert_eq!(taken.insert(at(Protocol::Udp, "80-90", Some("10.0.0.1"))), None);
        assert_eq!(taken.insert(at(Protocol::Udp, "80", Some("10.0.0.2"))), None);
        for (clashing, with) in [
            (at(Protocol::Tcp, "85-99", None), "tcp/85"),
            (at(Protocol::Tcp, "85", Some("10.0.0.1")), "tcp/85 at 10.0.0.1"),
            (at(Protocol::Udp, "70-80", Some("10.0.0.1")), "udp/80 at 10.0.0.1"),
            (at(Protocol::Udp, "90", None), "udp/90"),
        ] {
            assert_eq!(taken.insert(clashing).map(|port| port.to_string()).as_deref(), Some(with));
        }
    }

    #[test]
    fn every_address_of_one_family_is_none_of_the_others() {
        let mut taken = Taken::default();
        assert_eq!(taken.insert(at(Protocol::Tcp, "80", None)), None);
        assert_eq!(taken.insert(at(Protocol::Tcp, "80", Some("::"))), None);
        assert_eq!(taken.insert(at(Protocol::Tcp, "81", Some("2001:db8::1"))), None);
        assert_eq!(taken.insert(at(Protocol::Tcp, "81", None)), None);
        for clashing in ["2001:db8::2", "::"] {
            let clash = taken.insert(at(Protocol::Tcp, "80", Some(clashing)));
            assert_eq!(clash.map(|port| port.to_string()), Some(format!("tcp/80 at {clashing}")));
        }
        assert!(taken.insert(at(Protocol::Tcp, "81", Some("::"))).is_some());
    }

    #[test]
    fn a_forward_stays_in_its_family() {
        let to =
            |text: &str| Target { to: text.parse().map_or_else(|_| To::Guest(text.into()), To::Address), port: 80 };
        let new = |address, targets: &[&str]| {
            PortForward::new(at(Protocol::Tcp, "80", address), targets.iter().map(|text| to(text)).collect())
        };
        assert_eq!(new(None, &["fd00::5", "fd00::6"]).unwrap().at().address, Some(EVERY_IPV6));
        assert_eq!(new(None, &["vm1", "10.0.0.5"]).unwrap().at().address, None);
        assert!(new(Some("2001:db8::1"), &["fd00::5"]).is_ok());
        assert!(new(Some("::"), &["vm1", "fd00::5"]).is_ok());
        let refused = [
            (new(None, &["10.0.0.5", "fd00::5"]), "a port of IPv4 addresses cannot lead to fd00::5"),
            (new(Some("::"), &["10.0.0.5"]), "a port of IPv6 addresses cannot lead to 10.0.0.5"),
            (new(Some("10.0.0.1"), &["fd00::5"]), "a port of IPv4 addresses cannot lead to fd00::5"),
            (new(Some("::1"), &["fd00::5"]), "connections to ::1 cannot be forwarded"),
            (new(Some("fe80::1"), &["fd00::5"]), "address fe80::1 is link-local"),
            (new(Some("ff02::1"), &["fd00::5"]), "the host cannot have the address ff02::1"),
        ];
        for (result, expected) in refused {
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_target_has_room_for_the_whole_range() {
        let range = at(Protocol::Tcp, "1000-1009", None);
        let to = |port| vec![Target { to: To::Guest("vm1".into()), port }];
        assert!(PortForward::new(range, to(65526)).is_ok());
        assert_eq!(PortForward::new(range, to(65527)), Err(ForwardError::Beyond { port: 65527, count: 10 }));
        assert_eq!(PortForward::new(range, to(0)), Err(ForwardError::Beyond { port: 0, count: 10 }));
        assert_eq!(PortForward::new(range, Vec::new()), Err(ForwardError::NoTarget));
    }
}
