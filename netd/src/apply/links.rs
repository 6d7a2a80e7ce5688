//! EDGE: changes links, addresses and routes by rtnetlink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nat::guards::network_group;
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags},
    link::{BridgeStpState, InfoBridge, InfoData, LinkAttribute, LinkMessage},
    neighbour::{NeighbourFlags, NeighbourState},
    route::{RouteMessage, RouteProtocol},
};
use rtnetlink::{AddressMessageBuilder, LinkBridge, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use super::StepError;
use crate::{
    host::{Link, LinkKind},
    model::MacAddr,
    observe::Netlink,
    plan::{Bridge, StaticRoute, kernel_delay},
};

/// Makes the bridge, down; nothing is left on an error.
pub(super) async fn create_bridge(netlink: &Netlink, bridge: &Bridge) -> Result<(), StepError> {
    let message = LinkMessageBuilder::<LinkBridge>::new(&bridge.name)
        .address(bridge.mac.0.to_vec())
        .set_info_data(InfoData::Bridge(bridge_settings(bridge)))
        .build();
    netlink.handle.link().add(message).execute().await.map_err(refused)?;
    // An MTU given while the bridge is made does not last: the bridge goes back to its own choice when its last port
    // leaves. One given afterwards stays.
    if let Some(mtu) = bridge.mtu {
        let message = LinkUnspec::new_with_name(&bridge.name).mtu(mtu).build();
        if let Err(cause) = set(netlink, message).await {
            delete_bridge(netlink, &bridge.name, bridge.mac).await?;
            return Err(cause);
        }
    }
    Ok(())
}

fn bridge_settings(bridge: &Bridge) -> Vec<InfoBridge> {
    spanning_tree(bridge.stp, bridge.delay)
}

/// The delay first: with the protocol on, the kernel refuses one below 2 s.
pub(super) fn spanning_tree(on: bool, delay: u32) -> Vec<InfoBridge> {
    if on {
        let delay = kernel_delay(delay);
        vec![InfoBridge::ForwardDelay(delay), InfoBridge::StpState(BridgeStpState::KernelStp)]
    } else {
        vec![InfoBridge::StpState(BridgeStpState::Disabled)]
    }
}

/// Gives an existing bridge its settings.
pub(super) async fn set_bridge(netlink: &Netlink, bridge: &Bridge) -> Result<(), StepError> {
    let index = index_of(netlink, &bridge.name).await?;
    let mut message = LinkMessageBuilder::<LinkBridge>::new(&bridge.name).index(index).address(bridge.mac.0.to_vec());
    if let Some(mtu) = bridge.mtu {
        message = message.mtu(mtu);
    }
    let message = message.set_info_data(InfoData::Bridge(bridge_settings(bridge))).build();
    // RTM_SETLINK leaves a bridge's own settings alone without a word; RTM_NEWLINK changes them.
    netlink.handle.link().add(message).set_flags(NEWLINK_CHANGES).execute().await.map_err(refused)
}

/// `NLM_F_REQUEST | NLM_F_ACK` without `CREATE` and `EXCL`: RTM_NEWLINK then changes what is there.
pub(super) const NEWLINK_CHANGES: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;

/// Removes the bridge if it is the one with this MAC; fine if there is none.
pub(super) async fn delete_bridge(netlink: &Netlink, name: &str, mac: MacAddr) -> Result<(), StepError> {
    match find(netlink, name).await? {
        Some(link) if matches!(link.kind, LinkKind::Bridge { .. }) && link.mac == Some(mac) => {
            gone_is_fine(netlink.handle.link().del(link.index).execute().await)
        }
        Some(_) => {
            tracing::warn!("bridge {name} was replaced by another link, which is left alone");
            Ok(())
        }
        None => Ok(()),
    }
}

/// Removes a tap; fine if it has gone, or if its name is another's by now.
pub(crate) async fn delete_tap(netlink: &Netlink, name: &str, index: u32) -> Result<(), StepError> {
    match find(netlink, name).await? {
        Some(link) if link.kind == LinkKind::Tun && link.index == index => {
            gone_is_fine(netlink.handle.link().del(index).execute().await)
        }
        _ => Ok(()),
    }
}

/// Sets the link up.
pub(super) async fn up(netlink: &Netlink, name: &str) -> Result<(), StepError> {
    set(netlink, LinkUnspec::new_with_name(name).up().build()).await
}

/// Sets the link with this index up; fine if it is gone.
pub(super) async fn up_by_index(netlink: &Netlink, index: u32) -> Result<(), StepError> {
    change(netlink, LinkUnspec::new_with_index(index).up().build()).await
}

/// Sets the link with this index down; fine if it is gone.
pub(super) async fn down_by_index(netlink: &Netlink, index: u32) -> Result<(), StepError> {
    change(netlink, LinkUnspec::new_with_index(index).down().build()).await
}

/// A tap that has gone in the meantime took its port along.
pub(super) async fn change(netlink: &Netlink, message: LinkMessage) -> Result<(), StepError> {
    gone_is_fine(netlink.handle.link().set(message).execute().await)
}

/// The group of the taps on a bridge, by which guards know the network.
pub(super) fn group_of(bridge: &str) -> LinkAttribute {
    LinkAttribute::Group(network_group(bridge))
}

/// A new tap's settings and its place on the bridge. It is down until [`up_by_index`].
pub(super) async fn plug(
    netlink: &Netlink,
    index: u32,
    mac: MacAddr,
    mtu: u32,
    bridge: &Link,
) -> Result<(), StepError> {
    let message = LinkUnspec::new_with_index(index).address(mac.0.to_vec()).mtu(mtu).controller(bridge.index);
    set(netlink, message.append_extra_attribute(group_of(&bridge.name)).build()).await
}

/// Has the bridge find this MAC behind this port, whoever else claims it: it learns the senders of LLDP and spanning
/// tree frames before any filter sees them. Fine if the port is gone.
pub(super) async fn pin(netlink: &Netlink, index: u32, mac: MacAddr) -> Result<(), StepError> {
    let entry = netlink
        .handle
        .neighbours()
        .add_bridge(index, &mac.0)
        .state(NeighbourState::Noarp)
        .flags(NeighbourFlags::Controller | NeighbourFlags::Sticky)
        .replace();
    gone_is_fine(entry.execute().await)
}

/// The bridge learns where this MAC is again; fine if it was not pinned.
pub(super) async fn unpin(netlink: &Netlink, index: u32, mac: MacAddr) -> Result<(), StepError> {
    let neighbours = netlink.handle.neighbours();
    let entry = neighbours.add_bridge(index, &mac.0).flags(NeighbourFlags::Controller).message_mut().clone();
    match neighbours.del(entry).execute().await {
        // The kernel's yes.
        Err(rtnetlink::Error::NetlinkError(answer)) if answer.code.is_none() => Ok(()),
        Err(rtnetlink::Error::NetlinkError(answer)) if answer.raw_code() == -libc::ENOENT => Ok(()),
        result => gone_is_fine(result),
    }
}

/// Gives the host an address on the link. An IPv6 one works at once: nobody is asked whether it is theirs (RFC 4862
/// §5.4), and guards keep guests from using it.
pub(super) async fn add_address(netlink: &Netlink, name: &str, address: IpNet) -> Result<(), StepError> {
    let index = index_of(netlink, name).await?;
    let mut request = netlink.handle.address().add(index, address.addr(), address.prefix_len());
    if address.addr().is_ipv6() {
        let message = request.message_mut();
        message.header.flags |= AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    request.execute().await.map_err(refused)
}

/// Removes an address; fine if it or its link is not there.
pub(super) async fn remove_address(netlink: &Netlink, name: &str, address: IpNet) -> Result<(), StepError> {
    let Some(link) = find(netlink, name).await? else { return Ok(()) };
    let (index, length) = (link.index, address.prefix_len());
    let message = match address.addr() {
        IpAddr::V4(address) => AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, length).build(),
        IpAddr::V6(address) => AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(address, length).build(),
    };
    gone_is_fine(netlink.handle.address().del(message).execute().await)
}

/// Adds a route through a gateway on the link.
pub(super) async fn add_route(netlink: &Netlink, name: &str, route: &StaticRoute) -> Result<(), StepError> {
    let index = index_of(netlink, name).await?;
    let message = route_message(route, index)?;
    netlink.handle.route().add(message).execute().await.map_err(refused)
}

/// Adds a route through a gateway on the link, in the place of the one to the same destination if there is one.
pub(super) async fn replace_route(netlink: &Netlink, name: &str, route: &StaticRoute) -> Result<(), StepError> {
    let index = index_of(netlink, name).await?;
    let message = route_message(route, index)?;
    netlink.handle.route().add(message).replace().execute().await.map_err(refused)
}

/// Removes a route; fine if it or its link is not there.
pub(super) async fn remove_route(netlink: &Netlink, name: &str, route: &StaticRoute) -> Result<(), StepError> {
    let Some(link) = find(netlink, name).await? else { return Ok(()) };
    gone_is_fine(netlink.handle.route().del(route_message(route, link.index)?).execute().await)
}

fn route_message(route: &StaticRoute, index: u32) -> Result<RouteMessage, StepError> {
    let destination = route.destination;
    let wrong = |error| StepError::Kernel(std::io::Error::other(error));
    let message = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(destination.addr(), destination.prefix_len())
        .and_then(|message| message.gateway(route.gateway))
        .map_err(wrong)?
        .output_interface(index)
        .protocol(RouteProtocol::Static);
    Ok(match route.metric {
        Some(metric) => message.priority(metric).build(),
        None => message.build(),
    })
}

pub(super) async fn set(netlink: &Netlink, message: LinkMessage) -> Result<(), StepError> {
    netlink.handle.link().set(message).execute().await.map_err(refused)
}

pub(super) async fn find(netlink: &Netlink, name: &str) -> Result<Option<Link>, StepError> {
    Ok(netlink.link(name).await?)
}

pub(super) async fn index_of(netlink: &Netlink, name: &str) -> Result<u32, StepError> {
    match find(netlink, name).await? {
        Some(link) => Ok(link.index),
        None => Err(StepError::NoLink(name.to_owned())),
    }
}

pub(super) fn refused(error: rtnetlink::Error) -> StepError {
    match error {
        rtnetlink::Error::NetlinkError(message) => StepError::Kernel(message.to_io()),
        other => StepError::Netlink(other),
    }
}

/// `ENODEV`, `ENOENT`, `ESRCH` and `EADDRNOTAVAIL` are what the kernel calls links, rules, routes and addresses that are
/// not there.
pub(super) fn gone_is_fine(result: Result<(), rtnetlink::Error>) -> Result<(), StepError> {
    const GONE: [i32; 4] = [libc::ENODEV, libc::ENOENT, libc::ESRCH, libc::EADDRNOTAVAIL];
    match result {
        Err(rtnetlink::Error::NetlinkError(message)) if GONE.contains(&-message.raw_code()) => Ok(()),
        result => result.map_err(refused),
    }
}
