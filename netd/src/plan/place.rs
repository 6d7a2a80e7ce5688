//! What a port is on its bridge and how fast it may be: derived from the network, the port's group and the port.

use std::fmt;

use crate::{
    model::{Bandwidth, MacAddr, MacTableManager, NativeMode, Network, PortGroup, Rate, Vlan},
    port::Port,
    shape::{Floor, Shape, Speed},
};

/// A port as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortWish {
    /// The device's index.
    pub index: u32,
    /// What it is on its bridge; of no account where there is none.
    pub place: Place,
    /// How fast it may be.
    pub shape: Shape,
}

/// What a port is on its bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// It reaches the host and what is behind it, but no other isolated port.
    pub isolated: bool,
    /// The MAC that is behind this port and no other.
    pub pinned: Option<MacAddr>,
    /// The bridge learns nothing from it and sends it nothing but what is for the pinned MAC, and broadcasts.
    pub taught: bool,
    /// The VLANs it is in, by number; as the bridge has it for new ports if absent.
    pub vlans: Option<Vec<PortVlan>>,
}

/// A VLAN that a port is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortVlan {
    /// 1 to 4094.
    pub id: u16,
    /// Frames that come without a tag are of this one.
    pub native: bool,
    /// Frames of this one go to the port without a tag.
    pub untagged: bool,
}

/// The settings that a port of this group has, or of the default group if it names none.
pub(crate) fn group<'a>(network: &'a Network, name: Option<&str>) -> Option<&'a PortGroup> {
    network.port_groups.iter().find(|group| match name {
        Some(name) => group.name == name,
        None => group.default == Some(true),
    })
}

/// How a port of this network should be.
pub(crate) fn wish(network: &Network, port: &Port) -> PortWish {
    let group = group(network, port.group.as_deref());
    PortWish {
        index: port.index,
        place: place(network, group, port.guards, port.mac),
        shape: shape(group, port.macvtap.is_some()),
    }
}

/// What a port with this MAC is on its bridge.
pub(crate) fn place(network: &Network, group: Option<&PortGroup>, guards: bool, mac: MacAddr) -> Place {
    let taught = network.bridge.mac_table == Some(MacTableManager::Static);
    Place {
        isolated: isolates(network),
        pinned: (guards || taught).then_some(mac),
        taught,
        vlans: vlan_of(network, group).map(vlans),
    }
}

/// Whether its ports are kept from talking to each other over the bridge.
pub(crate) fn isolates(network: &Network) -> bool {
    network.isolated_ports == Some(true) || network.policy.is_silent()
}

/// Whether a port of this group carries frames with tags.
pub(crate) fn is_trunk(network: &Network, group: Option<&PortGroup>) -> bool {
    vlan_of(network, group).is_some_and(|vlan| vlan.trunk)
}

fn vlan_of<'a>(network: &'a Network, group: Option<&'a PortGroup>) -> Option<&'a Vlan> {
    group.and_then(|group| group.vlan.as_ref()).or(network.vlan.as_ref())
}

/// How fast a port of this group may be.
pub(crate) fn shape(group: Option<&PortGroup>, macvtap: bool) -> Shape {
    let Some(Bandwidth { inbound, outbound }) = group.and_then(|group| group.bandwidth.as_ref()) else {
        return Shape::default();
    };
    let (to, from) = (inbound.and_then(speed), outbound.and_then(speed));
    // A tap sends what the guest receives; a macvtap is the guest's own end of the wire.
    if macvtap { Shape::port(from, to) } else { Shape::port(to, from) }
}

/// How fast the whole network may be.
pub(crate) fn network_shape(network: &Network, ports: &[&Port]) -> Shape {
    let Some(Bandwidth { inbound, outbound }) = &network.bandwidth else { return Shape::default() };
    let mut floors: Vec<Floor> = ports.iter().filter_map(|port| floor_of(network, port)).collect();
    floors.sort_by_key(|floor| floor.mac);
    Shape::bridge(inbound.and_then(speed), outbound.and_then(speed), &floors)
}

fn floor_of(network: &Network, port: &Port) -> Option<Floor> {
    floor(group(network, port.group.as_deref())).map(|rate| Floor { mac: port.mac, rate })
}

/// Bytes a second that a port of this group has for sure.
pub(crate) fn floor(group: Option<&PortGroup>) -> Option<u64> {
    let floor = group?.bandwidth.as_ref()?.inbound?.floor?;
    Some(u64::from(floor) * KILOBYTE)
}

/// `average`, `peak` and `floor` count these, `burst` counts KiB (libvirt's formatnetwork, "Quality of service").
pub(crate) const KILOBYTE: u64 = 1000;

/// None where there is only a floor.
fn speed(rate: Rate) -> Option<Speed> {
    Some(Speed {
        average: u64::from(rate.average?) * KILOBYTE,
        peak: rate.peak.map(|peak| u64::from(peak) * KILOBYTE),
        burst: rate.burst.map(|burst| u64::from(burst) << 10),
    })
}

/// Without a trunk the port is in one VLAN and knows nothing of it.
fn vlans(vlan: &Vlan) -> Vec<PortVlan> {
    let mut vlans: Vec<PortVlan> = vlan
        .tags
        .iter()
        .map(|tag| PortVlan {
            id: tag.id,
            native: !vlan.trunk || tag.native.is_some(),
            untagged: !vlan.trunk || tag.native == Some(NativeMode::Untagged),
        })
        .collect();
    vlans.sort();
    vlans
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.isolated { "isolated" } else { "not isolated" })?;
        if self.taught {
            f.write_str(", taught")?;
        }
        for vlan in self.vlans.iter().flatten() {
            write!(f, ", {} in VLAN {}", if vlan.untagged { "untagged" } else { "tagged" }, vlan.id)?;
        }
        Ok(())
    }
}
