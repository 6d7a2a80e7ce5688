//! EDGE: asks the kernel who uses some subnets: every address and every route of the host, read as raw netlink messages.
//!
//! A host with a thousand networks has thousands of both, and all that is wanted of them is whether they overlap; to make
//! values of them first would take ten times as long.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::host::{Route, is_specific, overlap};

/// Who uses an address of some subnets.
#[derive(Debug, Default)]
pub(super) struct Users {
    /// The indices of the links with such an address or route.
    pub(super) links: BTreeSet<u32>,
    /// Such routes that lead to no link: blackholes and their like.
    pub(super) nowhere: Vec<Route>,
}

/// `RTM_GETADDR` and `RTM_GETROUTE`, with what the kernel answers: `RTM_NEWADDR`, `RTM_NEWROUTE`.
const GET_ADDRESS: u16 = 22;
const NEW_ADDRESS: u16 = 20;
const GET_ROUTE: u16 = 26;
const NEW_ROUTE: u16 = 24;

/// `NLMSG_ERROR`, `NLMSG_DONE`; `NLM_F_REQUEST | NLM_F_DUMP`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const DUMP: u16 = 0x301;

/// `AF_INET`, `AF_INET6`.
const INET: u8 = 2;
const INET6: u8 = 10;

/// `RTN_UNICAST`, `_BLACKHOLE`, `_UNREACHABLE`, `_PROHIBIT`, `_THROW`: all that is not about an address, which is asked for
/// by itself, or about groups.
const KINDS: [u8; 5] = [1, 6, 7, 8, 9];

/// `RTPROT_RA`.
const FROM_ROUTER: u8 = 9;

/// `IFA_ADDRESS`, `IFA_LOCAL`; `RTA_DST`, `RTA_OIF`, `RTA_PRIORITY`.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const DESTINATION: u16 = 1;
const OUT: u16 = 4;
const PRIORITY: u16 = 6;

/// `struct nlmsghdr`, `struct ifaddrmsg`, `struct rtmsg`.
const HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;

/// Reads all of it; only what overlaps is kept.
pub(super) fn of(subnets: &[IpNet]) -> io::Result<Users> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    // Else the kernel gives every kind of route, whatever is asked for.
    socket.set_netlink_get_strict_chk(true)?;
    let near = |net: IpNet| subnets.iter().any(|subnet| overlap(subnet.trunc(), net));
    let mut users = Users::default();
    dump(&socket, GET_ADDRESS, &[0; ADDRESS_HEADER], NEW_ADDRESS, |body| {
        let (index, nets) = address(body)?;
        nets.into_iter().flatten().any(near).then(|| users.links.insert(index));
        Some(())
    })?;
    for family in [INET, INET6] {
        for kind in KINDS {
            let mut question = [0; ROUTE_HEADER];
            (question[0], question[7]) = (family, kind);
            dump(&socket, GET_ROUTE, &question, NEW_ROUTE, |body| {
                let route = route(body)?;
                if is_specific(route.destination) && near(route.destination) {
                    match route.link {
                        Some(link) => drop(users.links.insert(link)),
                        None => users.nowhere.push(route),
                    }
                }
                Some(())
            })?;
        }
    }
    Ok(users)
}

/// Hands what stands behind the header of every message of a dump to `take`, which passes over what makes no sense.
fn dump(
    socket: &Socket,
    kind: u16,
    question: &[u8],
    answer: u16,
    mut take: impl FnMut(&[u8]) -> Option<()>,
) -> io::Result<()> {
    let mut request = Vec::with_capacity(HEADER + question.len());
    request.extend(((HEADER + question.len()) as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(question);
    socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
    let mut buffer = Vec::with_capacity(64 << 10);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        let mut rest = buffer.as_slice();
        while let Some((kind, body, behind)) = message(rest) {
            rest = behind;
            match kind {
                DONE => return Ok(()),
                ERROR => {
                    let errno = body.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
                    // A kernel without IPv6 has no such routes.
                    return if errno == -libc::EOPNOTSUPP { Ok(()) } else { Err(io::Error::from_raw_os_error(-errno)) };
                }
                kind if kind == answer => drop(take(body)),
                _ => {}
            }
        }
    }
}

/// The first message: its type, what stands behind its header, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The attributes of a list, each with its type.
fn attributes(mut list: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(list.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(list.get(2..4)?.try_into().ok()?);
        let value = list.get(4..length)?;
        list = list.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A link's index, and its own address there and that of whoever is at the other end.
fn address(body: &[u8]) -> Option<(u32, [Option<IpNet>; 2])> {
    let (header, list) = body.split_at_checked(ADDRESS_HEADER)?;
    let index = u32::from_ne_bytes(header.get(4..8)?.try_into().ok()?);
    let mut nets = [None, None];
    for (kind, value) in attributes(list) {
        match kind {
            ADDRESS => nets[0] = net(value, header[1]),
            LOCAL => nets[1] = net(value, header[1]),
            _ => {}
        }
    }
    Some((index, nets))
}

fn route(body: &[u8]) -> Option<Route> {
    let (header, list) = body.split_at_checked(ROUTE_HEADER)?;
    let everything: &[u8] = if header[0] == INET { &[0; 4] } else { &[0; 16] };
    let mut route = Route {
        destination: net(everything, header[1])?,
        gateway: None,
        link: None,
        metric: 0,
        from_router: header[5] == FROM_ROUTER,
    };
    for (kind, value) in attributes(list) {
        let number = || value.try_into().ok().map(u32::from_ne_bytes);
        match kind {
            DESTINATION => route.destination = net(value, header[1])?,
            OUT => route.link = number(),
            PRIORITY => route.metric = number()?,
            _ => {}
        }
    }
    Some(route)
}

fn net(address: &[u8], length: u8) -> Option<IpNet> {
    let address = match address.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?).into(),
    };
    IpNet::new(address, length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_from_the_kernel_ends() {
        for bytes in [&[][..], &[0; 15], &[0; 64], &[0xff; 64], &[16, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            let mut rest = bytes;
            let mut messages = 0;
            while let Some((_, body, behind)) = message(rest).filter(|_| messages < 100) {
                assert!(address(body).is_none() && route(body).is_none());
                (rest, messages) = (behind, messages + 1);
            }
            assert!(messages < 2, "{bytes:?}");
        }
        assert!(net(&[1, 2, 3], 8).is_none());
        assert!(net(&[1, 2, 3, 4], 33).is_none());
    }
}
