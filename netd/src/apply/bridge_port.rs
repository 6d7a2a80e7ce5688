//! EDGE: what a device is on its bridge: isolation, who teaches the bridge its MAC, VLANs. By rtnetlink.

use netlink_packet_route::link::BridgeVlanInfoFlags;
use rtnetlink::{LinkBridgePort, LinkBridgeVlan, LinkUnspec};

use super::{
    StepError,
    links::{change, down_by_index, gone_is_fine, group_of, index_of, pin, up_by_index},
};
use crate::{
    host::LinkKind,
    observe::Netlink,
    plan::{Place, PortVlan},
};

/// Puts the device with this index on the bridge; fine if the device is gone. One with VLANs of its own is down
/// meanwhile, so that nothing of it is ever in another.
pub(super) async fn attach(netlink: &Netlink, bridge: &str, index: u32, place: &Place) -> Result<(), StepError> {
    let master = index_of(netlink, bridge).await?;
    check_vlans(netlink, bridge, place).await?;
    let pause = place.vlans.is_some();
    if pause {
        down_by_index(netlink, index).await?;
    }
    change(
        netlink,
        LinkUnspec::new_with_index(index).controller(master).append_extra_attribute(group_of(bridge)).build(),
    )
    .await?;
    settle(netlink, index, place).await?;
    if pause { up_by_index(netlink, index).await } else { Ok(()) }
}

/// Takes the device with this index off its bridge; fine if it is gone or on none.
pub(super) async fn detach(netlink: &Netlink, index: u32) -> Result<(), StepError> {
    change(netlink, LinkUnspec::new_with_index(index).nocontroller().build()).await
}

/// A bridge of the host is left as it is: if it looks at no tags, there are no VLANs to be had on it.
pub(super) async fn check_vlans(netlink: &Netlink, bridge: &str, place: &Place) -> Result<(), StepError> {
    if place.vlans.is_none() {
        return Ok(());
    }
    match super::links::find(netlink, bridge).await? {
        Some(link) if matches!(link.kind, LinkKind::Bridge { vlan_filtering: true, .. }) => Ok(()),
        Some(_) => Err(StepError::NoVlanFiltering { bridge: bridge.to_owned() }),
        None => Err(StepError::NoLink(bridge.to_owned())),
    }
}

/// Gives a bridge's port its settings; fine if it is gone.
pub(super) async fn settle(netlink: &Netlink, index: u32, place: &Place) -> Result<(), StepError> {
    let message = LinkBridgePort::new(index).isolated(place.isolated).learning(!place.taught).flood(!place.taught);
    gone_is_fine(netlink.handle.link().set_port(message.build()).execute().await)?;
    if let Some(vlans) = &place.vlans {
        set_vlans(netlink, index, vlans).await?;
    }
    // After the VLANs: the bridge enters it for each of them.
    match place.pinned {
        Some(mac) => pin(netlink, index, mac).await,
        None => Ok(()),
    }
}

/// Has the port in these VLANs and no others.
async fn set_vlans(netlink: &Netlink, index: u32, vlans: &[PortVlan]) -> Result<(), StepError> {
    let all = netlink.vlans().await?;
    let found = all.get(&index).map(Vec::as_slice).unwrap_or_default();
    for gone in found.iter().filter(|vlan| !vlans.iter().any(|other| other.id == vlan.id)) {
        let message = LinkBridgeVlan::new(index).vlan(gone.id, BridgeVlanInfoFlags::empty()).build();
        gone_is_fine(netlink.handle.link().del_with_message(message).execute().await)?;
    }
    for vlan in vlans.iter().filter(|vlan| !found.contains(vlan)) {
        let mut flags = BridgeVlanInfoFlags::empty();
        flags.set(BridgeVlanInfoFlags::Pvid, vlan.native);
        flags.set(BridgeVlanInfoFlags::Untagged, vlan.untagged);
        let message = LinkBridgeVlan::new(index).vlan(vlan.id, flags).build();
        gone_is_fine(netlink.handle.link().set(message).execute().await)?;
    }
    Ok(())
}
