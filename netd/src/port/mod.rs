//! Ports: a guest's plug in a network, one tap device on the bridge. Values only; `tap` makes the device.
//!
//! A port lives as long as someone holds its file descriptors. The daemon closes its own copies once they are handed
//! over, and learns from the kernel when the device goes. Only a kept port outlives them: it is for programs that open a
//! tap by its name, and goes when it is deleted.

pub mod tap;
pub(crate) mod xml;

use serde::{Deserialize, Serialize};

use crate::model::MacAddr;

/// Most queues of one port: what one message can carry as file descriptors (`SCM_MAX_FD`).
pub const MOST_QUEUES: u32 = 253;

/// Packet size in bytes where the network names none.
pub const DEFAULT_MTU: u32 = 1500;

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The tap's interface name.
    pub interface: String,
    /// The tap's index: tells it from a later one of the same name.
    pub index: u32,
    /// The network it is on.
    pub network: String,
    /// The guest that owns it, if the caller said.
    pub guest: Option<String>,
    /// The MAC of the guest's side.
    #[serde(with = "crate::plan::mac_text")]
    pub mac: MacAddr,
    /// Greatest packet size in bytes.
    pub mtu: u32,
    /// Queue pairs.
    pub queues: u32,
    /// What the guest sends is checked.
    #[serde(default = "on")]
    pub guards: bool,
    /// It stays though nobody holds its descriptors, until it is deleted.
    #[serde(default)]
    pub kept: bool,
}

fn on() -> bool {
    true
}

/// The MAC of the host's side of a port: the guest's with a first byte above all others, so that the kernel never takes
/// it for the bridge's own, and the guest never sees its own address as a sender.
pub fn host_side(guest: MacAddr) -> MacAddr {
    let MacAddr([_, rest @ ..]) = guest;
    let [b, c, d, e, f] = rest;
    MacAddr([0xfe, b, c, d, e, f])
}

/// A MAC for a guest that brought none, from three random bytes: in the range of QEMU and libvirt.
pub fn guest_mac(random: [u8; 3]) -> MacAddr {
    let [a, b, c] = random;
    MacAddr([0x52, 0x54, 0x00, a, b, c])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_side_differs_from_the_guest_side_in_the_first_byte_only() {
        assert_eq!(host_side("52:54:00:12:34:56".parse().unwrap()).to_string(), "fe:54:00:12:34:56");
    }
}
