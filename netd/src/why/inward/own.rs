//! EDGE: one packet of the host's own, without a socket that would wait for the answer.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto, socket,
};

/// Any port: nothing is sent to it.
const SOME_PORT: u16 = 9;

/// The address the host would choose for itself to talk to this one.
pub(super) fn source(target: IpAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = match target {
        IpAddr::V4(_) => ([0; 4], 0).into(),
        IpAddr::V6(_) => ([0; 16], 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    // A datagram socket sends nothing to connect.
    socket.connect((target, SOME_PORT))?;
    Ok(socket.local_addr()?.ip())
}

/// Sends an IP packet (raw(7), `IPPROTO_RAW`), through all that the host's own packets go through.
pub(super) fn send(target: IpAddr, packet: &[u8]) -> io::Result<()> {
    let (family, flags) = match target {
        IpAddr::V4(_) => (AddressFamily::Inet, SockFlag::SOCK_CLOEXEC),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockFlag::SOCK_CLOEXEC),
    };
    let socket = socket(family, SockType::Raw, flags, SockProtocol::Raw)?;
    // The port is none of a raw packet's.
    let sent = match SocketAddr::new(target, 0) {
        SocketAddr::V4(to) => sendto(socket.as_raw_fd(), packet, &SockaddrIn::from(to), MsgFlags::empty())?,
        SocketAddr::V6(to) => sendto(socket.as_raw_fd(), packet, &SockaddrIn6::from(to), MsgFlags::empty())?,
    };
    if sent == packet.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
