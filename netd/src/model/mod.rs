//! The model of a network: plain values, valid once built. It never touches the host.
//!
//! `xml` reads and writes it, `check` compares networks with each other, `plan` turns it into steps. Something may be
//! in the model and not carried out yet: `check::not_yet` has the list of that.

use uuid::Uuid;

mod dns;
mod dnsmasq;
mod forward;
mod forwards;
mod ip;
mod link;
mod metadata;
mod names;
mod policy;

pub use dns::{Dns, DnsForwarder, DnsHost, DnsService, DnsText, Domain};
pub use dnsmasq::{DhcpOption, Dnsmasq, DnsmasqOption};
pub use forward::{Forward, Macvtap, MacvtapMode, Nat};
pub use forwards::{
    ForwardError, HostPort, LONGEST_GUEST, PortForward, Ports, Protocol, Taken, Target, To, forward_address,
};
pub use ip::{Bootp, Dhcp, DhcpHost, DhcpRange, LeaseTime, LeaseUnit, Mask, Route, Spelling, Subnet, family};
pub use link::{Bandwidth, Bridge, MacTableManager, NativeMode, PortGroup, Rate, Vlan, VlanTag};
pub use metadata::Metadata;
pub(crate) use names::printable;
pub use names::{BridgeName, BridgeTemplate, MacAddr, NameError, NetworkName};
pub use policy::{HostService, Policy};

/// A network as its XML describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Unique on the host; also the file name of the definition.
    pub name: NetworkName,
    /// Stable identity; made up when a definition has none.
    pub uuid: Uuid,
    /// A short text for people, on one line.
    pub title: Option<String>,
    /// A longer text for people.
    pub description: Option<String>,
    /// What other programs keep here; one element per name space.
    pub metadata: Vec<Metadata>,
    /// `ipv6=`, if written: with `true`, guests may use IPv6 among themselves where the host has no IPv6 address.
    pub ipv6: Option<bool>,
    /// `trustGuestRxFilters=`, if written: macvtap takes over the filters that guests set.
    pub trust_guest_rx_filters: Option<bool>,
    /// How packets leave the network.
    pub forward: Forward,
    /// The Linux bridge the ports are on.
    pub bridge: Bridge,
    /// The MAC of the bridge itself; made up when a definition has none and the bridge is ours.
    pub mac: Option<MacAddr>,
    /// Greatest packet size in bytes on bridge and ports; the kernel's default (1500) if absent.
    pub mtu: Option<u32>,
    /// The DNS domain of the network.
    pub domain: Option<Domain>,
    /// DNS on the bridge's addresses.
    pub dns: Dns,
    /// The VLAN that ports are in, unless their group says another.
    pub vlan: Option<Vlan>,
    /// How fast the whole network may be.
    pub bandwidth: Option<Bandwidth>,
    /// `<port isolated=…>`, if written: with `true`, ports reach the host and what is behind it but not each other.
    pub isolated_ports: Option<bool>,
    /// The host's addresses on the bridge and what is served around them.
    pub subnets: Vec<Subnet>,
    /// Routes through gateways on the network.
    pub routes: Vec<Route>,
    /// Named settings that a port may choose from; at most one is the default.
    pub port_groups: Vec<PortGroup>,
    /// Lines of dnsmasq's configuration that mean something here too.
    pub dnsmasq: Vec<DnsmasqOption>,
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

    /// The host's IPv4 addresses on the bridge.
    pub fn ipv4(&self) -> impl Iterator<Item = ipnet::Ipv4Net> {
        self.subnets.iter().filter_map(Subnet::ipv4)
    }

    /// The host's IPv6 addresses on the bridge.
    pub fn ipv6_addresses(&self) -> impl Iterator<Item = ipnet::Ipv6Net> {
        self.subnets.iter().filter_map(Subnet::ipv6)
    }
}
