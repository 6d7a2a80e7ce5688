//! EDGE: keeps the kernel from answering for port 67 of a bridge.
//!
//! The packet socket hears every request, but the kernel's UDP sees unicast ones too (RENEWING, RELEASE) and would
//! answer "port unreachable" if nobody were bound. So somebody is, with a filter that drops everything unread.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use crate::v4::frame::SERVER_PORT;

/// Holds port 67 of a bridge until dropped.
#[derive(Debug)]
pub(super) struct ReservedPort {
    /// `None` if another program has the port: then nothing is unreachable either.
    _socket: Option<Socket>,
}

impl ReservedPort {
    pub(super) fn open(bridge: &str) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.bind_device(Some(bridge.as_bytes()))?;
        // One instruction: keep 0 bytes of every packet, which is to drop it before it is queued.
        socket.attach_filter(&[SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0)])?;
        // So that servers of other interfaces may hold the port too.
        socket.set_reuse_address(true)?;
        match socket.bind(&SockAddr::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SERVER_PORT))) {
            Ok(()) => Ok(ReservedPort { _socket: Some(socket) }),
            Err(cause) if cause.kind() == io::ErrorKind::AddrInUse => Ok(ReservedPort { _socket: None }),
            Err(cause) => Err(cause),
        }
    }
}
