//! What frames pass: the bridge, VLANs, bandwidth, and groups of ports that share them.

use super::{BridgeName, BridgeTemplate};

/// `<bridge>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// The interface name; chosen if absent, by `template` if there is one, else as `virbrN` with the first free N.
    pub name: Option<BridgeName>,
    /// A pattern for the name; only until one is chosen.
    pub template: Option<BridgeTemplate>,
    /// Spanning tree protocol. Off unless asked for: with it a new port forwards only after 4 s.
    pub stp: bool,
    /// Forward delay in seconds; only matters with `stp`.
    pub delay: u32,
    /// The firewalld zone of the bridge, in place of the one its mode has.
    pub zone: Option<String>,
    /// Who keeps the table of MAC addresses, if written; the kernel if not.
    pub mac_table: Option<MacTableManager>,
}

/// `macTableManager=`: who keeps the bridge's table of MAC addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacTableManager {
    /// The kernel learns them from frames.
    Kernel,
    /// We enter each port's own (libvirt's word for it is `libvirt`): no learning, no flooding.
    Static,
}

/// `<vlan>`: at least one tag, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// Frames keep their tags; always with several tags or a native one.
    pub trunk: bool,
    /// The VLANs.
    pub tags: Vec<VlanTag>,
}

/// `<tag>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag {
    /// VLAN ID, 1 to 4094.
    pub id: u16,
    /// Frames without a tag belong to this VLAN; at most one tag of a `<vlan>` has it.
    pub native: Option<NativeMode>,
}

/// `nativeMode=`: how frames of the native VLAN go to the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeMode {
    /// With their tag.
    Tagged,
    /// Without it.
    Untagged,
}

/// `<bandwidth>`. Directions are as the guests see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// To the guests.
    pub inbound: Option<Rate>,
    /// From the guests.
    pub outbound: Option<Rate>,
}

/// `<inbound>` or `<outbound>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// kB/s (1000 bytes); always there unless `floor` is.
    pub average: Option<u32>,
    /// kB/s (1000 bytes) while a burst lasts.
    pub peak: Option<u32>,
    /// KiB that may be sent at once.
    pub burst: Option<u32>,
    /// kB/s (1000 bytes) that the port has for sure; in a port group's `inbound` only.
    pub floor: Option<u32>,
}

/// `<portgroup>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortGroup {
    /// Unique in the network.
    pub name: String,
    /// `default=`, if written: with `true`, for ports that name no group.
    pub default: Option<bool>,
    /// As in [`super::Network::trust_guest_rx_filters`], for the group's ports.
    pub trust_guest_rx_filters: Option<bool>,
    /// In place of the network's.
    pub vlan: Option<Vlan>,
    /// How fast each port may be.
    pub bandwidth: Option<Bandwidth>,
}
