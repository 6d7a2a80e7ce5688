//! A flow to a guest: from somewhere behind the host's links, or from the host itself; at the guest's own address or by a
//! port forward. What is asked and seen, and the ladder; `follow` looks.

pub(crate) mod follow;
mod inject;
mod ladder;
mod own;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use nat::trace::{End, Protocol};

pub(crate) use ladder::explain;

use super::Facts;
use crate::port::Port;

/// A flow to a guest, and what is known of it before anyone looks.
#[derive(Clone, Debug)]
pub struct Inward {
    /// The port it should come out by; of several the first.
    pub port: Port,
    /// The bridge the port belongs on; none while its network is not active.
    pub bridge: Option<String>,
    /// Who sends it. An address of the host is the host itself.
    pub source: IpAddr,
    /// Where it goes: the guest's address, or the host's of a port forward.
    pub target: IpAddr,
    /// What it is.
    pub protocol: Protocol,
    /// A port forward leads it on.
    pub forwarded: bool,
    /// Where it may come out, with what the guest there gets; at least one.
    pub ends: Vec<End>,
    /// A packet may be sent in the source's name.
    pub may_probe: bool,
    /// How many seconds to wait for a packet that somebody else sends.
    pub patience: u64,
}

/// How packets from the source come to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is the host.
    Own,
    /// By the link with this index, by which the host would answer.
    Link(u32),
    /// The host would not know where to send an answer, with this errno.
    Nowhere(i32),
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct InwardFacts {
    /// As of a flow the other way; the routing is that to the guest.
    pub facts: Facts,
    /// How it comes to the host.
    pub arrival: Arrival,
    /// Who sends it: the host chooses one of its addresses where its loopback address cannot be it.
    pub source: IpAddr,
}
