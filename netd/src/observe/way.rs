//! EDGE: what the kernel would do with one packet: the port it comes from, its route, its next hop. It only asks.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    pin::pin,
};

use futures_util::TryStreamExt;
use netlink_packet_route::{
    AddressFamily,
    link::{BridgePortState, InfoBridgePort, InfoPortData, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};

use super::{Netlink, ObserveError};

/// A tap as a port of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortLook {
    /// Administratively up.
    pub up: bool,
    /// Somebody has it open.
    pub carrier: bool,
    /// The index of the bridge it is a port of.
    pub master: Option<u32>,
    /// Frames pass: it neither listens nor learns nor blocks, nor is it disabled.
    pub forwarding: bool,
    /// It talks to no other isolated port.
    pub isolated: bool,
}

/// The kernel's answer to where a packet goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the host itself.
    Local,
    /// Out by a link.
    Via {
        /// The link's index.
        link: u32,
        /// The next hop; none where the target is on the link itself.
        gateway: Option<IpAddr>,
    },
    /// Nowhere, with this errno: `ENETUNREACH` without a route, `EHOSTUNREACH` for an unreachable one or where nothing
    /// is forwarded, `EACCES` for a prohibited one, `EINVAL` or `EXDEV` where the source is not believed.
    Nowhere(i32),
}

impl Netlink {
    /// The port with this index; `None` if there is no such link.
    pub(crate) async fn port_look(&self, index: u32) -> Result<Option<PortLook>, ObserveError> {
        let mut answer = pin!(self.handle.link().get().match_index(index).execute());
        match answer.try_next().await {
            Ok(message) => Ok(message.map(|message| port(&message))),
            Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -libc::ENODEV => Ok(None),
            Err(cause) => Err(ObserveError::Dump { what: "port", cause }),
        }
    }

    /// Where a packet from `source` (anyone, if absent) that comes in by the link `input` (the host's own, if absent)
    /// goes.
    pub(crate) async fn way(
        &self,
        target: IpAddr,
        source: Option<IpAddr>,
        input: Option<u32>,
    ) -> Result<Way, ObserveError> {
        let (family, length) = match target {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        question.header.destination_prefix_length = length;
        question.attributes.push(RouteAttribute::Destination(route_address(target)));
        if let Some(source) = source {
            question.header.source_prefix_length = length;
            question.attributes.push(RouteAttribute::Source(route_address(source)));
        }
        question.attributes.extend(input.map(RouteAttribute::Iif));
        let mut answer = pin!(self.handle.route().get(question).execute());
        match answer.try_next().await {
            Ok(Some(route)) => Ok(way(&route)),
            Ok(None) => Ok(Way::Nowhere(libc::ENETUNREACH)),
            Err(rtnetlink::Error::NetlinkError(message)) => Ok(Way::Nowhere(message.raw_code().saturating_neg())),
            Err(cause) => Err(ObserveError::Dump { what: "route", cause }),
        }
    }

    /// Whether the host has asked for this neighbour in vain.
    pub(crate) async fn is_silent(&self, neighbour: IpAddr, link: u32) -> Result<bool, ObserveError> {
        let family = if neighbour.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let _alone = self.dumping.lock().await;
        let mut dump = pin!(self.handle.neighbours().get().set_address_family(family).execute());
        let failed = |cause| ObserveError::Dump { what: "neighbours", cause };
        let mut silent = false;
        while let Some(message) = dump.try_next().await.map_err(failed)? {
            let is_it = message.attributes.iter().any(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => IpAddr::V4(*address) == neighbour,
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => IpAddr::V6(*address) == neighbour,
                _ => false,
            });
            let in_vain = matches!(message.header.state, NeighbourState::Failed | NeighbourState::Incomplete);
            silent |= is_it && in_vain && message.header.ifindex == link;
        }
        Ok(silent)
    }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

fn way(route: &RouteMessage) -> Way {
    match route.header.kind {
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast => return Way::Local,
        RouteType::Unreachable => return Way::Nowhere(libc::EHOSTUNREACH),
        RouteType::Prohibit => return Way::Nowhere(libc::EACCES),
        RouteType::BlackHole => return Way::Nowhere(libc::EINVAL),
        _ => {}
    }
    let (mut link, mut gateway) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(IpAddr::V4(*address)),
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => gateway = Some(IpAddr::V6(*address)),
            _ => {}
        }
    }
    match link {
        Some(link) => Way::Via { link, gateway },
        None => Way::Nowhere(libc::ENETUNREACH),
    }
}

fn port(message: &LinkMessage) -> PortLook {
    let flags = message.header.flags;
    let mut port = PortLook {
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        master: None,
        forwarding: false,
        isolated: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Controller(index) => port.master = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    let LinkInfo::PortData(InfoPortData::BridgePort(facts)) = info else { continue };
                    port.forwarding |= facts.contains(&InfoBridgePort::State(BridgePortState::Forwarding));
                    port.isolated |= facts.contains(&InfoBridgePort::Isolated(true));
                }
            }
            _ => {}
        }
    }
    port
}

/// Whether the host forwards packets of this family from the link, and how it filters by the reverse path (RFC 3704;
/// IPv4 only): 0 not, 1 strictly, 2 loosely. The greater of a link's value and that of `all` holds.
pub(crate) fn forwarding(target: IpAddr, link: &str) -> (bool, u8) {
    let read = |path: String| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.trim().parse::<u8>().unwrap_or(0)
    };
    match target {
        IpAddr::V4(_) => {
            let of = |link: &str, what: &str| read(format!("/proc/sys/net/ipv4/conf/{link}/{what}"));
            (of(link, "forwarding") != 0, of(link, "rp_filter").max(of("all", "rp_filter")))
        }
        IpAddr::V6(_) => (read(format!("/proc/sys/net/ipv6/conf/{link}/forwarding")) != 0, 0),
    }
}

/// Whether an address is one that is never routed to one host: multicast and broadcast.
pub(crate) fn is_for_many(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address == Ipv4Addr::BROADCAST,
        IpAddr::V6(address) => address.is_multicast() || address == Ipv6Addr::UNSPECIFIED,
    }
}
