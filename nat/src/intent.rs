//! What a network wants of the packet filter: plain values, no defaults filled in later, no host state.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::policy::Policy;

/// One network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The interface name of its bridge: 1 to 15 of the letters, digits and `.`, `_`, `-`.
    pub bridge: String,
    /// How packets leave it.
    pub mode: Mode,
    /// The subnets its guests have addresses of. Packets from any other source are not let out.
    pub subnets: Vec<IpNet>,
    /// Where DNS asked of the host's own addresses is answered, when that is not port 53.
    pub dns_redirect: Option<DnsRedirect>,
    /// What its guests may do with each other and with the host.
    #[serde(default)]
    pub policy: Policy,
}

/// How packets leave a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Behind the host's address; from outside only answers come in. IPv6 is routed both ways unless it is asked for.
    Nat {
        /// The only interface packets may leave by; any if absent.
        dev: Option<String>,
        /// IPv4 source addresses to use, first and last; those of the outgoing interface if absent.
        addresses: Option<(Ipv4Addr, Ipv4Addr)>,
        /// Source ports to use for TCP and UDP, first and last.
        ports: (u16, u16),
        /// IPv6 too goes behind the host's address.
        #[serde(default)]
        ipv6: bool,
    },
    /// Routed both ways, not translated.
    Route {
        /// The only interface packets may leave and come by; any if absent.
        dev: Option<String>,
    },
    /// No forwarding rule of ours.
    Open,
    /// Guests talk to each other and the host only.
    Isolated,
}

/// DNS on a high port: something else on the host holds port 53.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsRedirect {
    /// The host's own addresses on the bridge.
    pub addresses: Vec<IpAddr>,
    /// The UDP and TCP port our server listens on, at each of them.
    pub port: u16,
}
