//! EDGE: datagrams in and out, with the interface each came in by.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::SocketAddr,
    os::fd::AsRawFd,
};

use nix::{
    cmsg_space, libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
    },
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use super::LOOPBACK;

/// Where a datagram came from: what a reply to it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The client.
    pub(super) peer: SocketAddr,
    /// The index of the interface it came in by.
    pub(super) interface: u32,
}

/// One address served over UDP. Bound to that address, so that is where replies come from.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UdpSocket,
}

impl Listener {
    /// Binds `address`, which may be an address that is still on its way to the bridge.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Listener> {
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
        Ok(Listener { socket: UdpSocket::from_std(socket.into())? })
    }

    /// The port bound.
    pub(super) fn port(&self) -> io::Result<u16> {
        self.socket.local_addr().map(|address| address.port())
    }

    /// The next datagram that says where it came from; longer ones than `buffer` are cut.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Origin)> {
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

    /// Sends a reply the way the query came, whatever source address that claimed: nothing a guest forges sends our
    /// answers out by the uplink. A full socket buffer loses the reply, as the network may.
    pub(super) fn send(&self, reply: &[u8], to: Origin) -> io::Result<()> {
        let interface = if to.interface == LOOPBACK { 0 } else { to.interface };
        let v4 = libc::in_pktinfo {
            ipi_ifindex: interface as libc::c_int,
            ipi_spec_dst: libc::in_addr { s_addr: 0 },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let v6 = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: [0; 16] }, ipi6_ifindex: interface };
        let control = match to.peer {
            SocketAddr::V4(_) => ControlMessage::Ipv4PacketInfo(&v4),
            SocketAddr::V6(_) => ControlMessage::Ipv6PacketInfo(&v6),
        };
        let (iov, flags) = ([IoSlice::new(reply)], MsgFlags::MSG_DONTWAIT);
        let peer = SockaddrStorage::from(to.peer);
        sendmsg(self.socket.as_raw_fd(), &iov, &[control], flags, Some(&peer))?;
        Ok(())
    }
}
