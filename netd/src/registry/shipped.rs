//! The network `default` as it is shipped, and how it makes way where its subnet or bridge name is taken.
//!
//! Only a definition that nobody has changed makes way; a user's own choice is never replaced.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::{
    host::HostState,
    model::{BridgeName, Network, PortForward, Target, To},
    xml,
};

/// The text of the definition.
pub const XML: &str = include_str!("../../../topologies/default.xml");

/// The definition, with a fresh UUID.
///
/// # Errors
/// Never, as long as the file in the repository is well-formed; a test sees to that.
pub fn network() -> Result<Network, xml::Error> {
    xml::parse(XML)
}

/// Whether this is the shipped definition, but for what is filled in (UUID, MAC) and what makes way (the subnet's
/// third byte, the bridge's name).
pub fn is_unchanged(candidate: &Network) -> bool {
    let Ok(mut shipped) = network() else { return false };
    let Some([_, _, third, _]) = candidate.ipv4().next().map(|address| address.addr().octets()) else {
        return false;
    };
    renumber(&mut shipped, third);
    shipped.uuid = candidate.uuid;
    shipped.mac = candidate.mac;
    shipped.bridge.name = candidate.bridge.name.clone();
    // Guests' names mean the same on any subnet.
    let by_name = |target: &Target| matches!(target.to, To::Guest(_));
    if candidate.forwards.iter().flat_map(PortForward::targets).all(by_name) {
        shipped.forwards.clone_from(&candidate.forwards);
    }
    shipped == *candidate
}

/// The same network on 192.168.`third`.0/24.
fn renumber(network: &mut Network, third: u8) {
    let moved = |address: IpAddr| match address {
        IpAddr::V4(address) => {
            let [a, b, _, d] = address.octets();
            Ipv4Addr::new(a, b, third, d).into()
        }
        IpAddr::V6(_) => address,
    };
    for subnet in &mut network.subnets {
        if let Ok(address) = IpNet::new(moved(subnet.address.addr()), subnet.address.prefix_len()) {
            subnet.address = address;
        }
        for range in subnet.dhcp.iter_mut().flat_map(|dhcp| &mut dhcp.ranges) {
            range.start = moved(range.start);
            range.end = moved(range.end);
        }
    }
}

/// Where the unchanged network goes when what it has is taken: the next free 192.168.N.0/24, the next free bridge
/// name. Returns it with a sentence for each change; `None` if nothing free is left.
///
/// `subnet_is_free` and `free_bridge` know of other networks' definitions.
pub fn make_way(
    network: &Network,
    host: &HostState,
    subnet_is_free: impl Fn(Ipv4Net) -> bool,
    free_bridge: Option<BridgeName>,
) -> Option<(Network, Vec<String>)> {
    let mut moved = network.clone();
    let mut notices = Vec::new();
    let old = network.ipv4().next()?.trunc();
    if let Some(user) = host.in_use(old.into(), &[]) {
        let [_, _, now, _] = old.addr().octets();
        let free = (now..=254).chain(0..now).find(|&third| {
            let mut candidate = network.clone();
            renumber(&mut candidate, third);
            candidate
                .ipv4()
                .all(|address| host.in_use(address.into(), &[]).is_none() && subnet_is_free(address.trunc()))
        })?;
        renumber(&mut moved, free);
        let new = moved.ipv4().next()?.trunc();
        let by = user.interface.map_or_else(
            || format!("the route {}", user.by),
            |interface| format!("interface {interface} ({})", user.by),
        );
        notices.push(format!("network '{}' moved from {old}, which {by} uses, to {new}", network.name));
    }
    if let Some(old) = network.bridge.name.as_ref().filter(|name| host.link(name.as_str()).is_some()) {
        let new = free_bridge?;
        notices.push(format!("network '{}' uses bridge {new}: an interface {old} exists already", network.name));
        moved.bridge.name = Some(new);
    }
    Some((moved, notices))
}
