//! EDGE: word from the kernel when forwarding is turned off, and sysctls read from procfs.
//!
//! The kernel tells of few sysctls (RTM_NEWNETCONF): of forwarding, but not of `disable_ipv6`, `accept_ra` or
//! `route_localnet`. Those are read again and again.

use std::{fs, io};

use futures_util::{Stream, stream};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};

/// `RTNLGRP_IPV4_NETCONF` and `RTNLGRP_IPV6_NETCONF` (linux/rtnetlink.h) as bits of the bind address.
const GROUPS: u32 = 1 << (24 - 1) | 1 << (25 - 1);

/// `RTM_NEWNETCONF`.
const NEW_NETCONF: u16 = 80;

/// `NETCONFA_IFINDEX` and `NETCONFA_FORWARDING` (linux/netconf.h).
const INTERFACE: u16 = 1;
const FORWARDING: u16 = 2;

/// `NETCONFA_IFINDEX_ALL`: the host's setting, not one interface's, which every new one is told of too.
const ALL: u32 = -1_i32 as u32;

/// `struct nlmsghdr`, and with `struct netconfmsg` behind it, padded.
const HEADER: usize = 16;
const PREAMBLE: usize = HEADER + 4;

/// One item whenever forwarding was turned off for the host, or the kernel could not tell us all that happened.
pub(super) fn losses_of_forwarding() -> io::Result<impl Stream<Item = ()> + Send> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
    Ok(stream::unfold(socket, |socket| async {
        loop {
            match socket.recv_from_full().await {
                Ok((bytes, _)) if !turns_off(&bytes) => {}
                Ok(_) => return Some(((), socket)),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Some(((), socket)),
                Err(error) => {
                    tracing::error!("cannot follow the host's settings: {error}");
                    return None;
                }
            }
        }
    }))
}

/// Whether one of these messages, one behind the other, says that the host does not forward from now on.
fn turns_off(mut bytes: &[u8]) -> bool {
    while let Some(header) = bytes.get(..HEADER) {
        let length = number(header, 0).map_or(HEADER, |length| (length as usize).max(HEADER));
        let kind = header.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
        let body = bytes.get(PREAMBLE..length).unwrap_or_default();
        let says = |attribute, value| find(body, attribute) == Some(value);
        if kind == Some(NEW_NETCONF) && says(INTERFACE, ALL) && says(FORWARDING, 0) {
            return true;
        }
        bytes = bytes.get(length.saturating_add(3) & !3..).unwrap_or_default();
    }
    false
}

/// The value of the attribute, among others.
fn find(mut attributes: &[u8], wanted: u16) -> Option<u32> {
    loop {
        let head = number(attributes, 0)?.to_ne_bytes();
        let [a, b, c, d] = head;
        let (length, kind) = (u16::from_ne_bytes([a, b]) as usize, u16::from_ne_bytes([c, d]));
        if kind == wanted {
            return number(attributes, 4);
        }
        attributes = attributes.get(length.max(4).saturating_add(3) & !3..)?;
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Those of these sysctls that have another value. One that does not exist has none.
pub(crate) fn differing(wanted: &[(String, &'static str)]) -> Vec<String> {
    let differs =
        |(path, value): &&(String, &'static str)| fs::read_to_string(path).is_ok_and(|found| found.trim() != *value);
    wanted.iter().filter(differs).map(|(path, _)| path.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, attributes: &[(u16, u32)]) -> Vec<u8> {
        let length = PREAMBLE + attributes.len() * 8;
        let mut bytes = (length as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(PREAMBLE, 0);
        for (kind, value) in attributes {
            bytes.extend(8u16.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn forwarding_turned_off_is_told_from_on_and_from_other_settings() {
        let off = message(NEW_NETCONF, &[(INTERFACE, ALL), (FORWARDING, 0)]);
        let on = message(NEW_NETCONF, &[(INTERFACE, ALL), (FORWARDING, 1)]);
        let off_for_one = message(NEW_NETCONF, &[(INTERFACE, 7), (FORWARDING, 0)]);
        assert!(turns_off(&[on.clone(), off].concat()));
        assert!(!turns_off(&on));
        assert!(!turns_off(&off_for_one));
        assert!(!turns_off(&message(NEW_NETCONF, &[(INTERFACE, ALL), (3, 0)])));
        assert!(!turns_off(&message(16, &[(FORWARDING, 0)])));
    }

    #[test]
    fn nonsense_ends() {
        let whole = message(NEW_NETCONF, &[(INTERFACE, ALL), (FORWARDING, 0)]);
        for end in 0..whole.len() {
            turns_off(&whole[..end]);
        }
        for bytes in [&[][..], &[0; 15], &[0; 64], &[0xff; 64]] {
            assert!(!turns_off(bytes));
        }
    }
}
