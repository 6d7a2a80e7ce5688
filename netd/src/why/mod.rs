//! `netd why`: what becomes of one flow of a guest, or to one (`inward`), stage by stage, and what stops it.
//!
//! ```text
//! Question ──► follow (EDGE: look at links, routes, sysctls; trace a packet) ──► Facts ──► explain (pure) ──► findings
//! ```
//!
//! What is traced is a real packet that the kernel takes for the guest's: a probe, written into the guest's own tap from
//! the host's side of the guest's descriptor, or the guest's next packet of the flow. The answer says which. Nothing of
//! it stays on the host: the two tables of a trace that was broken off go when the daemon starts or stops, and with the
//! next trace.

pub(crate) mod follow;
pub(crate) mod inward;
mod ladder;
mod legacy;
mod probe;
mod tap;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, io, net::IpAddr};

use nat::trace::{Protocol, Walk};

pub(crate) use ladder::explain;

use crate::{
    doctor::facts::Rules,
    model::MacAddr,
    observe::way::{PortLook, Way},
    port::Port,
};

/// A flow of a guest, and what is known of it before anyone looks.
#[derive(Clone, Debug)]
pub struct Question {
    /// The port it comes from.
    pub port: Port,
    /// The bridge the port belongs on; none while its network is not active.
    pub bridge: Option<String>,
    /// The port talks to no other isolated port.
    pub isolated: bool,
    /// The guest's address, known or given; none if nobody knows one.
    pub source: Option<IpAddr>,
    /// The address the host knows it by.
    pub known: Option<IpAddr>,
    /// Where it goes.
    pub target: IpAddr,
    /// What it is.
    pub protocol: Protocol,
    /// The port of the same network that has the target address.
    pub peer: Option<Peer>,
    /// A packet may be sent in the guest's name.
    pub may_probe: bool,
    /// How many seconds to wait for a packet of the guest's own.
    pub patience: u64,
}

/// Another guest of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its tap.
    pub interface: String,
    /// Its MAC.
    pub mac: MacAddr,
    /// It talks to no other isolated port.
    pub isolated: bool,
}

impl Question {
    /// How the guest is called in what is said: by its name, else by its tap's.
    pub fn guest(&self) -> &str {
        self.port.guest.as_deref().unwrap_or(&self.port.interface)
    }
}

/// Whose packet was traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Traced {
    /// One that was sent in the guest's name.
    Probe,
    /// The guest's own.
    Guest,
    /// One on its way to the guest that somebody else had sent.
    Passing,
    /// None came.
    Nothing,
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The tap; none if it is not there.
    pub port: Option<PortLook>,
    /// The index of the bridge; none if it is not there.
    pub bridge: Option<u32>,
    /// The routing of it, where the host would route it.
    pub routing: Option<Routing>,
    /// Whose packet was traced.
    pub traced: Traced,
    /// Why no probe was sent although one might have been.
    pub no_probe: Option<String>,
    /// What became of it, in order.
    pub walks: Vec<Walk>,
    /// Tables that dropped something, as `nft` lists them, by family and name.
    pub listings: BTreeMap<(String, String), String>,
    /// All rules of the host, read if another table than ours dropped something.
    pub rules: Option<Rules>,
    /// The kernel has rules that the trace does not show: these tables of legacy iptables.
    pub legacy: Vec<String>,
    /// What of them, rules and policies, has dropped packets during the trace.
    pub legacy_drops: Vec<String>,
    /// Names of interfaces by index.
    pub links: BTreeMap<u32, String>,
    /// The next hop does not answer.
    pub silent_hop: Option<IpAddr>,
}

/// What the host does with packets from the bridge to the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routing {
    /// The kernel's own answer for such a packet.
    pub way: Way,
    /// Forwarding is on, for all and for the bridge.
    pub forwarding: bool,
    /// `rp_filter` as it holds for the bridge: 0, 1 (strict) or 2 (loose).
    pub rp_filter: u8,
    /// The index of the link by which the host would answer the guest.
    pub back: Option<u32>,
}

/// Why nothing could be seen.
#[derive(Debug, thiserror::Error)]
pub enum WhyError {
    /// The host could not be read.
    #[error(transparent)]
    Observe(#[from] crate::observe::ObserveError),
    /// The trace's tables could not be made or taken away.
    #[error("cannot trace packets: {0}")]
    Nft(#[from] nat::Error),
    /// The kernel could not be listened to.
    #[error("cannot hear of traced packets: {0}")]
    Listen(io::Error),
}
