//! EDGE: reads the host by rtnetlink and procfs into [`HostState`]; never writes.
//!
//! One netlink socket serves every question of the daemon and, through `apply`, every change. Two more listen for
//! what other programs do to links and tables.

mod around;
pub mod listeners;
pub(crate) mod rules;
mod shapes;
pub(crate) mod sysctls;
mod users;
pub mod way;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    pin::pin,
};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{
        AfSpecBridge, AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgeStpState, BridgeVlanInfoFlags, InfoBridge,
        InfoBridgePort, InfoData, InfoKind, InfoPortData, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
        LinkMessage,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType},
};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, packet_core::NetlinkPayload, sys::AsyncSocket};
use tokio::{sync::Mutex, task::JoinHandle};

use crate::{
    host::{HostState, Link, LinkAddress, LinkKind, Neighbour, Route},
    metrics::{Flow, Traffic},
    model::MacAddr,
    plan::PortVlan,
};

/// `USER_HZ`, in which the kernel tells ages (time(7)).
const TICKS_PER_SECOND: u64 = 100;

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARDING_6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// Why the host could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Socket(io::Error),
    /// The kernel refused a dump.
    #[error("cannot read the host's {what}: {cause}")]
    Dump {
        /// What was asked for.
        what: &'static str,
        /// What the kernel said.
        cause: rtnetlink::Error,
    },
    /// A sysctl cannot be read.
    #[error("cannot read {path}: {cause}")]
    Sysctl {
        /// The file.
        path: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// The netlink connection: questions here, changes in `apply`.
#[derive(Debug)]
pub struct Netlink {
    pub(crate) handle: Handle,
    /// Held while an answer of many messages is read.
    pub(crate) dumping: Mutex<()>,
    /// A second socket, on which the kernel heeds what a dump asks for.
    strict: Handle,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Netlink {
    /// Opens the socket. Must run inside a tokio runtime.
    pub fn open() -> Result<Self, ObserveError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(ObserveError::Socket)?;
        let (mut strict_connection, strict, _) = rtnetlink::new_connection().map_err(ObserveError::Socket)?;
        strict_connection.socket_mut().socket_mut().set_netlink_get_strict_chk(true).map_err(ObserveError::Socket)?;
        let tasks = [tokio::spawn(connection), tokio::spawn(strict_connection)];
        Ok(Netlink { handle, dumping: Mutex::default(), strict, tasks })
    }

    /// Everything `plan` wants to know.
    pub async fn observe(&self) -> Result<HostState, ObserveError> {
        let (forwarding, forwarding6) = forwarding()?;
        let found = self.collect("links", || self.handle.link().get().execute(), link_and_vlan).await?;
        let default_vlans = found.iter().filter_map(|(link, vlan)| Some((link.index, (*vlan)?))).collect();
        let links: Vec<Link> = found.into_iter().map(|(link, _)| link).collect();
        let addresses = self.collect("addresses", || self.handle.address().get().execute(), address).await?;
        let routes = self.routes().await?;
        let shapes = self.shapes().await?;
        let filters = |link: &Link| matches!(link.kind, LinkKind::Bridge { vlan_filtering: true, .. });
        let vlans = if links.iter().any(filters) { self.vlans().await? } else { BTreeMap::new() };
        Ok(HostState { links, addresses, routes, forwarding, forwarding6, shapes, vlans, default_vlans })
    }

    async fn routes(&self) -> Result<Vec<Route>, ObserveError> {
        let every_route = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut routes = self.collect("routes", || self.handle.route().get(every_route).execute(), route).await?;
        let every_route = RouteMessageBuilder::<Ipv6Addr>::new().build();
        routes.extend(self.collect("IPv6 routes", || self.handle.route().get(every_route).execute(), route).await?);
        Ok(routes)
    }

    /// The VLANs of every bridge's ports, and of bridges themselves.
    pub(crate) async fn vlans(&self) -> Result<BTreeMap<u32, Vec<PortVlan>>, ObserveError> {
        let dump = self.handle.link().get().set_filter_mask(AddressFamily::Bridge, vec![LinkExtentMask::Brvlan]);
        Ok(self.collect("VLANs", || dump.execute(), vlans).await?.into_iter().collect())
    }

    /// The links alone: what a port needs to know.
    pub async fn links(&self) -> Result<Vec<Link>, ObserveError> {
        self.collect("links", || self.handle.link().get().execute(), link).await
    }

    /// The link of this name.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, ObserveError> {
        let mut answer = pin!(self.handle.link().get().match_name(name).execute());
        match answer.try_next().await {
            Ok(message) => Ok(message.and_then(link)),
            Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -libc::ENODEV => Ok(None),
            Err(cause) => Err(ObserveError::Dump { what: "link", cause }),
        }
    }

    /// What every link has carried since it was made, by name: one dump for all of them.
    pub async fn traffic(&self) -> Result<HashMap<String, Traffic>, ObserveError> {
        Ok(self.collect("links", || self.handle.link().get().execute(), traffic).await?.into_iter().collect())
    }

    /// Everyone the host has a neighbour entry for.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>, ObserveError> {
        let dump = self.handle.neighbours().get();
        self.collect("neighbours", || dump.execute(), neighbour).await
    }

    /// One dump after the other: the kernel refuses a second one on a socket with `EBUSY` while the first is being read.
    async fn collect<M, T, S: Stream<Item = Result<M, rtnetlink::Error>>>(
        &self,
        what: &'static str,
        dump: impl FnOnce() -> S,
        parse: impl Fn(M) -> Option<T>,
    ) -> Result<Vec<T>, ObserveError> {
        let _alone = self.dumping.lock().await;
        let messages = dump().try_collect::<Vec<M>>().await.map_err(|cause| ObserveError::Dump { what, cause })?;
        Ok(messages.into_iter().filter_map(parse).collect())
    }
}

/// IPv4 and IPv6.
fn forwarding() -> Result<(bool, bool), ObserveError> {
    let forwarding6 = match is_on(FORWARDING_6) {
        Err(ObserveError::Sysctl { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => true,
        result => result?,
    };
    Ok((is_on(FORWARDING)?, forwarding6))
}

/// Seconds since the machine booted, suspended or not: no program sets this clock.
pub fn uptime() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    // The kernel has had this clock since 2.6.39.
    time.map_or(0, |time| time.tv_sec().unsigned_abs())
}

fn is_on(path: &'static str) -> Result<bool, ObserveError> {
    let text = std::fs::read_to_string(path).map_err(|cause| ObserveError::Sysctl { path, cause })?;
    Ok(text.trim() != "0")
}

/// What the kernel says while we run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link is gone.
    Gone {
        /// Its index.
        index: u32,
        /// Its name.
        name: String,
    },
    /// A tap left its bridge, or a bridge or a macvtap was set down, or is not up yet.
    Touched {
        /// The link's name.
        name: String,
    },
    /// An address, a limit of bandwidth or an nftables table was removed, forwarding was turned off, or events were lost:
    /// something that any network is made of may be missing.
    Disturbed,
}

const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Tc,
];

/// A stream of [`Event`]s, from now on. It ends only if the socket breaks.
pub fn events() -> Result<impl Stream<Item = Event> + Send + Unpin, ObserveError> {
    let (connection, handle, messages) = rtnetlink::new_multicast_connection(&GROUPS).map_err(ObserveError::Socket)?;
    tokio::spawn(connection);
    let links = messages.filter_map(move |(message, _)| {
        // The connection ends when the last handle is dropped; this one keeps it for as long as the stream lives.
        let _open = &handle;
        std::future::ready(event(message.payload))
    });
    let tables = rules::removals().map_err(ObserveError::Socket)?.map(|()| Event::Disturbed);
    let settings = sysctls::losses_of_forwarding().map_err(ObserveError::Socket)?.map(|()| Event::Disturbed);
    Ok(Box::pin(stream::select(links, stream::select(tables, settings))))
}

fn event(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<Event> {
    use RouteNetlinkMessage::{
        DelAddress, DelLink, DelQueueDiscipline, DelRoute, DelTrafficClass, DelTrafficFilter, NewLink,
    };
    match payload {
        // A bridge tells of ports that leave it by RTM_DELLINK of its own family: those still exist.
        NetlinkPayload::InnerMessage(DelLink(gone)) if gone.header.interface_family == AddressFamily::Unspec => {
            link(gone).map(|link| Event::Gone { index: link.index, name: link.name })
        }
        NetlinkPayload::InnerMessage(NewLink(now)) => {
            let link = link(now)?;
            let touched = match link.kind {
                LinkKind::Tun => link.up && link.master.is_none(),
                LinkKind::Bridge { .. } => !link.up,
                LinkKind::Macvtap => !link.up,
                LinkKind::Other => false,
            };
            touched.then_some(Event::Touched { name: link.name })
        }
        // Ours are static. A host that learns routes gains and loses them all the time.
        NetlinkPayload::InnerMessage(DelRoute(gone)) => {
            (gone.header.protocol == RouteProtocol::Static).then_some(Event::Disturbed)
        }
        NetlinkPayload::InnerMessage(
            DelAddress(_) | DelQueueDiscipline(_) | DelTrafficClass(_) | DelTrafficFilter(_),
        )
        | NetlinkPayload::Overrun(_) => Some(Event::Disturbed),
        _ => None,
    }
}

/// An Ethernet address out of netlink's bytes; `None` for other link layers.
fn mac(bytes: &[u8]) -> Option<MacAddr> {
    bytes.try_into().ok().map(MacAddr)
}

/// With the VLAN of a bridge's new ports.
fn link_and_vlan(message: LinkMessage) -> Option<(Link, Option<u16>)> {
    let vlan = default_vlan(&message);
    link(message).map(|link| (link, vlan))
}

fn link(message: LinkMessage) -> Option<Link> {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        kind: LinkKind::Other,
        master: None,
        lower: None,
        isolated: false,
        taught: false,
        // Without IPv6 in the kernel the attribute that says otherwise is absent.
        ipv6_disabled: true,
        accept_ra: 0,
        autoconf: false,
        route_localnet: false,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => link.mac = mac(&bytes),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::Link(index) => link.lower = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = kind(&infos);
                link.isolated = port_has(&infos, &[InfoBridgePort::Isolated(true)]);
                link.taught = port_has(&infos, &[InfoBridgePort::Learning(false), InfoBridgePort::UnicastFlood(false)]);
            }
            LinkAttribute::AfSpecUnspec(families) => {
                let inet6 = families.iter().filter_map(|family| match family {
                    AfSpecUnspec::Inet6(facts) => Some(facts),
                    _ => None,
                });
                for fact in inet6.flatten() {
                    let AfSpecInet6::DevConf(conf) = fact else { continue };
                    link.ipv6_disabled = conf.disable_ipv6 != 0;
                    link.accept_ra = conf.accept_ra;
                    link.autoconf = conf.autoconf != 0;
                }
                link.route_localnet = families.iter().any(|family| match family {
                    AfSpecUnspec::Inet(facts) => {
                        facts.iter().any(|fact| matches!(fact, AfSpecInet::DevConf(conf) if conf.route_localnet != 0))
                    }
                    _ => false,
                });
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

/// The kernel counts what a link receives, which is what guests send.
fn traffic(message: LinkMessage) -> Option<(String, Traffic)> {
    let (mut link, mut traffic) = (None, None);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link = Some(name),
            LinkAttribute::Stats64(stats) => {
                let (from, to) = (stats.rx_dropped, stats.tx_dropped);
                traffic = Some(Traffic {
                    from_guests: Flow { bytes: stats.rx_bytes, packets: stats.rx_packets, drops: from },
                    to_guests: Flow { bytes: stats.tx_bytes, packets: stats.tx_packets, drops: to },
                });
            }
            _ => {}
        }
    }
    Some((link?, traffic?))
}

fn port_has(infos: &[LinkInfo], settings: &[InfoBridgePort]) -> bool {
    infos.iter().any(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(facts)) => settings.iter().all(|one| facts.contains(one)),
        _ => false,
    })
}

fn vlans(message: LinkMessage) -> Option<(u32, Vec<PortVlan>)> {
    let infos = message.attributes.iter().flat_map(|attribute| match attribute {
        LinkAttribute::AfSpecBridge(infos) => infos.as_slice(),
        _ => &[],
    });
    let mut vlans: Vec<PortVlan> = infos
        .filter_map(|info| match info {
            AfSpecBridge::VlanInfo(info) => Some(PortVlan {
                id: info.vid,
                native: info.flags.contains(BridgeVlanInfoFlags::Pvid),
                untagged: info.flags.contains(BridgeVlanInfoFlags::Untagged),
            }),
            _ => None,
        })
        .collect();
    vlans.sort();
    Some((message.header.index, vlans))
}

fn kind(infos: &[LinkInfo]) -> LinkKind {
    let mut kind = LinkKind::Other;
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Tun) => kind = LinkKind::Tun,
            LinkInfo::Kind(InfoKind::MacVtap) => kind = LinkKind::Macvtap,
            LinkInfo::Kind(InfoKind::Bridge) => {
                kind = LinkKind::Bridge { stp: false, forward_delay: 0, vlan_filtering: false };
            }
            LinkInfo::Data(InfoData::Bridge(facts)) => {
                let (mut stp, mut forward_delay, mut vlan_filtering) = (false, 0, false);
                for fact in facts {
                    match fact {
                        InfoBridge::StpState(state) => stp = *state != BridgeStpState::Disabled,
                        InfoBridge::ForwardDelay(delay) => forward_delay = *delay,
                        InfoBridge::VlanFiltering(on) => vlan_filtering = *on,
                        _ => {}
                    }
                }
                kind = LinkKind::Bridge { stp, forward_delay, vlan_filtering };
            }
            _ => {}
        }
    }
    kind
}

/// The VLAN that new ports of a bridge are in: none if it is no bridge, filters no VLANs, or puts them in none.
fn default_vlan(message: &LinkMessage) -> Option<u16> {
    let infos = message.attributes.iter().flat_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.as_slice(),
        _ => &[],
    });
    let facts = infos.flat_map(|info| match info {
        LinkInfo::Data(InfoData::Bridge(facts)) => facts.as_slice(),
        _ => &[],
    });
    let (mut filters, mut vlan) = (false, None);
    for fact in facts {
        match fact {
            InfoBridge::VlanFiltering(on) => filters = *on,
            InfoBridge::VlanDefaultPvid(id) => vlan = Some(*id).filter(|id| *id != 0),
            _ => {}
        }
    }
    vlan.filter(|_| filters)
}

fn address(message: AddressMessage) -> Option<LinkAddress> {
    let mut own = None;
    let mut peer = None;
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(address) => own = Some(address),
            AddressAttribute::Address(address) => peer = Some(address),
            _ => {}
        }
    }
    let address = IpNet::new(own.or(peer)?, message.header.prefix_len).ok()?;
    Some(LinkAddress { link: message.header.index, address })
}

fn route(message: RouteMessage) -> Option<Route> {
    if matches!(message.header.kind, RouteType::Broadcast | RouteType::Multicast | RouteType::Anycast) {
        return None;
    }
    let mut destination: IpAddr = match message.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut gateway, mut link, mut metric) = (None, None, 0);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = address.into(),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => destination = address.into(),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(address.into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => gateway = Some(address.into()),
            RouteAttribute::Oif(index) => link = Some(index),
            RouteAttribute::Priority(priority) => metric = priority,
            // Several ways to one place: the first names the user of the subnet well enough.
            RouteAttribute::MultiPath(hops) => link = hops.first().map(|hop| hop.interface_index),
            _ => {}
        }
    }
    let destination = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
    // Every link has the same, and nothing of ours is in it.
    if matches!(destination, IpNet::V6(net) if net.network().is_unicast_link_local() || net.network().is_multicast()) {
        return None;
    }
    let from_router = message.header.protocol == RouteProtocol::Ra;
    Some(Route { destination, gateway, link, metric, from_router })
}

fn neighbour(message: NeighbourMessage) -> Option<Neighbour> {
    let (mut address, mut hardware, mut confirmed) = (None, None, 0);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(destination)) => address = Some(destination.into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(destination)) => address = Some(destination.into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => hardware = mac(&bytes),
            NeighbourAttribute::CacheInfo(info) => confirmed = info.confirmed,
            _ => {}
        }
    }
    let age = u64::from(confirmed) / TICKS_PER_SECOND;
    Some(Neighbour { link: message.header.ifindex, address: address?, mac: hardware?, age })
}
