//! What guests of a network may do with each other and with the host. Values only; `nat` has the rules.

use std::fmt;

use super::Ports;

/// `<netd:guests>` and `<netd:host-access>`. Without them guests may do all they ask for, as with libvirt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `<netd:guests talk=…>`, if written: with `false` guests do not talk to each other, over the bridge, through the
    /// host or by port forwards; the host and what is behind it they reach.
    pub guests_talk: Option<bool>,
    /// `<netd:host-access>`, if written: what of the host's guests may reach beside DHCP, DNS and answers.
    pub host_access: Option<Vec<HostService>>,
}

/// `<netd:allow>`: something of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostService {
    /// These TCP ports.
    Tcp(Ports),
    /// These UDP ports.
    Udp(Ports),
    /// ICMP and ICMPv6: `ping`, say.
    Icmp,
}

impl Policy {
    /// Guests may not talk to each other.
    pub fn is_silent(&self) -> bool {
        self.guests_talk == Some(false)
    }

    /// Nothing is written.
    pub fn is_empty(&self) -> bool {
        *self == Policy::default()
    }
}

impl fmt::Display for HostService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostService::Tcp(ports) => write!(f, "tcp/{ports}"),
            HostService::Udp(ports) => write!(f, "udp/{ports}"),
            HostService::Icmp => f.write_str("icmp"),
        }
    }
}
