//! EDGE: a bridge's membership of the groups that IPv6 clients speak to, and its own address there.
//!
//! A bridge that snoops on multicast passes up only what somebody on the host has joined. The socket that joins holds
//! port 547 too, with a filter that drops everything unread: the packet socket hears it all, and the kernel need not
//! answer that nobody does.

use std::{
    fs, io,
    net::{Ipv6Addr, SocketAddrV6},
};

use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use crate::v6::frame::{ALL_DHCP, ALL_ROUTERS, SERVER_PORT};

/// Addresses of interfaces, of the caller's network namespace.
const IF_INET6: &str = "/proc/thread-self/net/if_inet6";

/// The membership; it ends when dropped.
#[derive(Debug)]
pub(super) struct Groups {
    _socket: Socket,
}

impl Groups {
    pub(super) fn join(bridge: &str) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(bridge)?;
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_only_v6(true)?;
        socket.bind_device(Some(bridge.as_bytes()))?;
        // One instruction: keep 0 bytes of every packet, which is to drop it before it is queued.
        socket.attach_filter(&[SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0)])?;
        socket.set_reuse_address(true)?;
        for group in [ALL_DHCP, ALL_ROUTERS] {
            socket.join_multicast_v6(&group, index)?;
        }
        match socket.bind(&SockAddr::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, SERVER_PORT, 0, 0))) {
            // Another program has the port: then nothing is unreachable either.
            Err(cause) if cause.kind() != io::ErrorKind::AddrInUse => Err(cause),
            _ => Ok(Groups { _socket: socket }),
        }
    }
}

/// The link-local address that the bridge has; none while it has none.
pub(super) fn link_local(bridge: &str) -> Option<Ipv6Addr> {
    let table = fs::read_to_string(IF_INET6).ok()?;
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let address = u128::from_str_radix(words.next()?, 16).map(Ipv6Addr::from_bits).ok()?;
        (words.next_back() == Some(bridge) && address.is_unicast_link_local()).then_some(address)
    })
}
