//! Addresses as seen: what guests say on the wire about the addresses they have, for guests that have no lease of ours.
//!
//! ```text
//! bridge ──► packet socket, filtered in the kernel ──► frame (what was said) ──► table (who has it, since when last)
//! ```
//!
//! Only a port's own MAC speaks for the port. A bridge hears what is for it and what is for all: an answer from one
//! guest to another passes it by, but no guest gets far without asking for its gateway. A new
//! daemon knows of IPv6 addresses what the kernel does: the host's neighbours, and the claims of guarded ports. `frame` and `table` are pure; `listen` has the sockets and the clock.

mod frame;
mod listen;
mod table;

use std::net::IpAddr;

use crate::model::MacAddr;

pub use listen::Snoop;

/// How an address was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The guest said so in ARP.
    Arp,
    /// The guest said so in IPv6 neighbour discovery.
    Nd,
    /// A DHCP server gave it, or the guest named it to one.
    Dhcp,
}

/// One address of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The address.
    pub address: IpAddr,
    /// How it was noticed last.
    pub origin: Origin,
    /// Seconds since then.
    pub age: u64,
}

/// An address that a port had not before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The port's network.
    pub network: String,
    /// The port's MAC.
    pub mac: MacAddr,
    /// The address.
    pub address: IpAddr,
    /// How it was noticed.
    pub origin: Origin,
}
