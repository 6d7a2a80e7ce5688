//! Ports: a guest's plug in a network, one tap device on a bridge or one macvtap device on an interface of the host.
//! Values only; `tap` makes the one, `macvtap` opens the other.
//!
//! A port lives as long as someone holds its file descriptors. The daemon closes its own copies once they are handed
//! over, and learns from the kernel when a tap goes. A macvtap stays until it is deleted: `closings` hears of its last
//! descriptor, and then the daemon deletes it. Only a kept port outlives its descriptors: it is for programs that open a
//! tap by its name, and goes when it is deleted.

pub mod closings;
pub mod macvtap;
pub mod tap;
pub(crate) mod xml;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    host::{HostState, Link, LinkKind},
    model::MacAddr,
    registry::{Plug, PortSpec},
};

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
    /// The port group, if the caller named one.
    #[serde(default)]
    pub group: Option<String>,
    /// The bridge it was put on, if that is the host's and not ours.
    #[serde(default)]
    pub host_bridge: Option<String>,
    /// It is a macvtap device, and no tap on a bridge.
    #[serde(default)]
    pub macvtap: Option<OnInterface>,
    /// It stays though nobody holds its descriptors, until it is deleted.
    #[serde(default)]
    pub kept: bool,
}

/// What a macvtap port is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnInterface {
    /// The interface of the host.
    pub interface: String,
    /// The node its queues were opened by.
    pub node: PathBuf,
}

impl Port {
    /// What is kept about a port while it is made, if the kernel would not remove it with the daemon.
    pub(crate) fn unfinished(spec: &PortSpec) -> Option<Self> {
        let Plug::Macvtap { interface, .. } = &spec.plug else { return None };
        Some(Port {
            // No interface can be called so.
            interface: format!("new {}", spec.mac),
            index: 0,
            network: spec.network.to_string(),
            guest: spec.guest.clone(),
            mac: spec.mac,
            mtu: DEFAULT_MTU,
            queues: spec.queues,
            guards: spec.guards,
            group: spec.group.clone(),
            host_bridge: None,
            macvtap: Some(OnInterface { interface: interface.clone(), node: PathBuf::new() }),
            kept: false,
        })
    }

    /// The device that an unfinished port has become, if it has got that far.
    pub(crate) fn made(&self, host: &HostState) -> Option<Self> {
        let lower = host.link(&self.macvtap.as_ref()?.interface)?.index;
        let is_it =
            |link: &&Link| link.kind == LinkKind::Macvtap && link.lower == Some(lower) && link.mac == Some(self.mac);
        let link = host.links.iter().find(is_it).filter(|_| self.index == 0)?;
        Some(Port { interface: link.name.clone(), index: link.index, ..self.clone() })
    }
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
