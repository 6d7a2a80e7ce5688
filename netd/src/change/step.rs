//! What can be done to a running network that starting one never does.

use std::fmt;

use ipnet::IpNet;

use crate::{
    model::MacAddr,
    plan::{StaticRoute, Undo},
};

/// The bridge's link-local address, which is made of its MAC (RFC 4291 §2.5.1) and which the kernel does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkLocal {
    /// As it is.
    pub old: IpNet,
    /// As it should be.
    pub new: IpNet,
}

/// One change of a running network. Each takes hold at once, and doing it twice is fine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveStep {
    /// Gives the bridge another MAC and tells the guests.
    SetMac {
        /// The bridge.
        bridge: String,
        /// The address.
        mac: MacAddr,
        /// Where the bridge has IPv6, the address that goes with its MAC.
        ipv6: Option<LinkLocal>,
    },
    /// Gives the bridge another MTU.
    SetMtu {
        /// The bridge.
        bridge: String,
        /// In bytes.
        mtu: u32,
    },
    /// Gives a guest's tap another MTU.
    SetPortMtu {
        /// The tap's index.
        index: u32,
        /// In bytes.
        mtu: u32,
    },
    /// Turns the spanning tree protocol on or off. Ports that forward go on forwarding.
    SetSpanningTree {
        /// The bridge.
        bridge: String,
        /// On.
        on: bool,
        /// The forward delay in seconds.
        delay: u32,
    },
    /// Puts a route in the place of one to the same destination.
    ReplaceRoute {
        /// The bridge.
        bridge: String,
        /// The new one.
        route: StaticRoute,
    },
    /// Has the servers go on with another configuration.
    Reconfigure {
        /// It.
        config: Box<dhcp::config::NetworkConfig>,
        /// What is other about it, for people.
        differences: Vec<String>,
    },
    /// Puts the network's rules and all port forwards in the place of those there are, in one transaction.
    SetFirewall {
        /// The network's.
        network: nat::Network,
        /// Every network's forwards as the table has them.
        before: Vec<nat::Forward>,
        /// As it should.
        after: Vec<nat::Forward>,
    },
    /// Lets a port's MAC be behind another port again.
    UnpinPort {
        /// The port's index.
        index: u32,
        /// The MAC.
        mac: MacAddr,
    },
    /// Takes back what starting a network once did.
    TakeBack(Undo),
}

impl fmt::Display for LiveStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LiveStep::SetMac { bridge, mac, .. } => write!(f, "set the MAC of {bridge} to {mac}"),
            LiveStep::SetMtu { bridge, mtu } => write!(f, "set the MTU of {bridge} to {mtu}"),
            LiveStep::SetPortMtu { index, mtu } => write!(f, "set the MTU of the tap with index {index} to {mtu}"),
            LiveStep::SetSpanningTree { bridge, on: true, delay } => {
                write!(f, "turn on spanning tree on {bridge} with a delay of {delay} s")
            }
            LiveStep::SetSpanningTree { bridge, on: false, .. } => write!(f, "turn off spanning tree on {bridge}"),
            LiveStep::ReplaceRoute { bridge, route } => {
                write!(f, "replace the route {} by one via {} dev {bridge}", route.destination, route.gateway)
            }
            LiveStep::Reconfigure { config, differences } => {
                write!(f, "reconfigure the servers on {}: {}", config.bridge, differences.join("; "))
            }
            LiveStep::SetFirewall { network, .. } => write!(f, "replace the firewall rules of {}", network.bridge),
            LiveStep::UnpinPort { index, mac } => {
                write!(f, "let {mac} be elsewhere than at the tap with index {index}")
            }
            LiveStep::TakeBack(undo) => write!(f, "{undo}"),
        }
    }
}
