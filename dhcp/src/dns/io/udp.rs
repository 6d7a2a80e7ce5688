//! EDGE: datagrams in and out, with the interface each came in by.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use ipnet::IpNet;
use nix::{
    cmsg_space, libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
    },
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use super::{
    Door,
    core::{Core, ReplyTo},
};
use crate::dns::resolver::Transport;

/// The longest query read; the rest of a longer one is cut off, and it is malformed then.
const LONGEST_QUERY: usize = 4096;

/// How long a socket that reports an error is left alone.
const PAUSE: Duration = Duration::from_millis(20);

/// Where a datagram came from: what a reply to it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The client.
    pub(super) peer: SocketAddr,
    /// The index of the interface it came in by.
    pub(super) interface: u32,
}

/// The subnets the guests are on; another list may take its place at any time.
pub(super) type Subnets = Arc<RwLock<Vec<IpNet>>>;

/// One address served over UDP. Bound to that address, so that is where replies come from.
#[derive(Debug)]
pub(super) struct UdpPort {
    socket: UdpSocket,
    address: IpAddr,
    /// Where the guests are.
    subnets: Subnets,
}

impl UdpPort {
    /// Binds `address`, which may be one that is still on its way to the bridge; also says the port it got.
    pub(super) fn bind(address: SocketAddr, subnets: Subnets) -> io::Result<(UdpPort, u16)> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        match address {
            SocketAddr::V4(_) => {
                socket.set_freebind_v4(true)?;
                setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            }
            SocketAddr::V6(_) => {
                socket.set_only_v6(true)?;
                socket.set_freebind_v6(true)?;
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            }
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let port = socket.local_addr()?.port();
        Ok((UdpPort { socket, address: address.ip(), subnets }, port))
    }

    /// The next datagram that says where it came from; longer ones than `buffer` are cut.
    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Origin)> {
        self.socket.async_io(Interest::READABLE, || self.receive_now(buffer)).await
    }

    fn receive_now(&self, buffer: &mut [u8]) -> io::Result<(usize, Origin)> {
        let mut control = cmsg_space!(libc::in6_pktinfo);
        let mut iov = [IoSliceMut::new(buffer)];
        let message =
            recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
        let interface = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => u32::try_from(info.ipi_ifindex).ok(),
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(info.ipi6_ifindex),
            _ => None,
        });
        let peer = message.address.as_ref().and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|peer| SocketAddr::V4((*peer).into()));
            v4.or_else(|| address.as_sockaddr_in6().map(|peer| SocketAddr::V6((*peer).into())))
        });
        let (Some(interface), Some(peer)) = (interface, peer) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a datagram without sender or interface"));
        };
        Ok((message.bytes, Origin { peer, interface }))
    }

    /// Sends a reply from the address asked, by the interface the query came in by, whatever source it claimed: nothing
    /// a guest forges sends our answers out by the uplink. A full socket buffer loses the reply, as the network may.
    pub(super) fn send(&self, reply: &[u8], to: Origin) -> io::Result<()> {
        // What the host asks itself comes in by loopback, but the kernel names the interface that has the address.
        let interface = if self.is_host(to.peer.ip()) { 0 } else { to.interface };
        let (iov, flags) = ([IoSlice::new(reply)], MsgFlags::MSG_DONTWAIT);
        let peer = SockaddrStorage::from(to.peer);
        match self.address {
            IpAddr::V4(address) => {
                let asked = libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) };
                let nothing = libc::in_addr { s_addr: 0 };
                let ipi_ifindex = interface as libc::c_int;
                let info = libc::in_pktinfo { ipi_ifindex, ipi_spec_dst: asked, ipi_addr: nothing };
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmsg(self.socket.as_raw_fd(), &iov, &control, flags, Some(&peer))?;
            }
            IpAddr::V6(address) => {
                let asked = libc::in6_addr { s6_addr: address.octets() };
                let info = libc::in6_pktinfo { ipi6_addr: asked, ipi6_ifindex: interface };
                let control = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(self.socket.as_raw_fd(), &iov, &control, flags, Some(&peer))?;
            }
        }
        Ok(())
    }

    /// Whether an address is the host's own. Guests' are known by their subnet; others are tried: the kernel lets a
    /// socket have only an address of the host.
    fn is_host(&self, peer: IpAddr) -> bool {
        match peer {
            peer if self.is_guest(peer) => false,
            IpAddr::V6(peer) if peer.is_unicast_link_local() => false,
            peer => std::net::UdpSocket::bind((peer, 0)).is_ok(),
        }
    }

    fn is_guest(&self, peer: IpAddr) -> bool {
        // Replaced whole, so never half changed.
        let subnets = self.subnets.read().unwrap_or_else(PoisonError::into_inner);
        subnets.iter().any(|subnet| subnet.contains(&peer))
    }
}

/// Answers datagrams from where they may come; says nothing to others.
pub(super) async fn serve(port: UdpPort, core: Arc<Core>, door: Arc<Door>) {
    let port = Arc::new(port);
    let mut buffer = vec![0; LONGEST_QUERY];
    loop {
        match port.receive(&mut buffer).await {
            Ok((length, origin)) if door.admits(origin.interface) => {
                let to = ReplyTo::Udp { port: Arc::downgrade(&port), origin };
                core.query(origin.peer.ip(), Transport::Udp, to, &buffer[..length]);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "can't receive DNS queries");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
