//! Metrics in OpenMetrics' text form: from facts to a page. Pure; `page` writes, `http` reads requests, `serve` has the
//! sockets, and [`crate::verbs`] gathers the facts.
//!
//! There are as many series as there are networks and ports, each times a fixed number: no label's value is chosen by
//! what a guest sends.

pub(crate) mod http;
mod page;
pub(crate) mod serve;

use std::time::Duration;

pub use page::page;

/// Everything a page tells.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The daemon's version.
    pub version: &'static str,
    /// How long the daemon has been running.
    pub uptime: Duration,
    /// Every network.
    pub networks: Vec<NetworkFacts>,
    /// Every port.
    pub ports: Vec<PortFacts>,
    /// How often an nftables table was written anew, by its family.
    pub rewrites: Vec<(&'static str, u64)>,
    /// What was put back after another program took it, by what it was.
    pub heals: Vec<(&'static str, u64)>,
}

/// A network.
#[derive(Clone, Debug, Default)]
pub struct NetworkFacts {
    /// Its name.
    pub name: String,
    /// It is active.
    pub active: bool,
    /// Its ports.
    pub ports: u64,
    /// Its leases that have not ended.
    pub leases: u64,
    /// What its bridge carried to and from the host, as far as it is there.
    pub traffic: Option<Traffic>,
    /// What its servers have done.
    pub servers: Option<dhcp::Counts>,
}

/// A port.
#[derive(Clone, Debug, Default)]
pub struct PortFacts {
    /// The interface on the host.
    pub interface: String,
    /// The network.
    pub network: String,
    /// The guest, if it has a name.
    pub guest: Option<String>,
    /// What the tap carried.
    pub traffic: Option<Traffic>,
    /// What its guards dropped, if it has any.
    pub dropped: Option<netd_api::Dropped>,
}

/// Both directions of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// What guests sent.
    pub from_guests: Flow,
    /// What they were sent.
    pub to_guests: Flow,
}

/// One direction of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Bytes, Ethernet headers included.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets the kernel dropped for want of room, or because nobody read them.
    pub drops: u64,
}
