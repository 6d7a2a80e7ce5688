//! EDGE: whether our nftables table is there, asked of the kernel, and word from it when someone removes a table.
//!
//! Nothing inside a table is read: `nat` writes it whole.

use std::io;

use futures_util::{Stream, stream};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER};

/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h) as a bit of the bind address.
const GROUP: u32 = 1 << (7 - 1);

/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type.
const NFTABLES: u16 = 10 << 8;

/// `NFT_MSG_GETTABLE` and `NFT_MSG_DELTABLE` (linux/netfilter/nf_tables.h).
const GET_TABLE: u16 = NFTABLES | 1;
const DELETE_TABLE: u16 = NFTABLES | 2;

/// `NFTA_TABLE_NAME`.
const TABLE_NAME: u16 = 1;

/// Families of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// `NFPROTO_INET`.
    Inet = 1,
    /// `NFPROTO_IPV4`.
    Ip = 2,
    /// `NFPROTO_BRIDGE`.
    Bridge = 7,
    /// `NFPROTO_IPV6`.
    Ip6 = 10,
}

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEADER: usize = 16;

/// One item whenever a table was removed by anyone, or the kernel could not tell us all that happened.
pub(super) fn removals() -> io::Result<impl Stream<Item = ()> + Send> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    socket.socket_mut().bind(&SocketAddr::new(0, GROUP))?;
    Ok(stream::unfold(socket, |socket| async {
        loop {
            match socket.recv_from_full().await {
                Ok((bytes, _)) if !removes_a_table(&bytes) => {}
                Ok(_) => return Some(((), socket)),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Some(((), socket)),
                Err(error) => {
                    tracing::error!("cannot follow the nftables ruleset: {error}");
                    return None;
                }
            }
        }
    }))
}

/// Whether one of these messages, one behind the other, tells of a table's end.
fn removes_a_table(mut bytes: &[u8]) -> bool {
    while let Some((header, _)) = bytes.split_at_checked(HEADER) {
        if kind(header) == Some(DELETE_TABLE) {
            return true;
        }
        // Messages start at multiples of four; one shorter than its header would have us go round for ever.
        let length = word(header, 0).map_or(HEADER, |length| (length as usize).max(HEADER));
        bytes = bytes.get(length.saturating_add(3) & !3..).unwrap_or_default();
    }
    false
}

/// The type of the message that starts here.
fn kind(message: &[u8]) -> Option<u16> {
    let bytes = message.get(4..6)?.try_into().ok()?;
    Some(u16::from_ne_bytes(bytes))
}

/// The four bytes at an offset.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

/// Whether the kernel has a table of this family and name.
pub(crate) fn has_table(family: Family, name: &str) -> io::Result<bool> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.send_to(&get_table(family, name), &SocketAddr::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    if kind(&answer) != Some(libc::NLMSG_ERROR as u16) {
        return Ok(true);
    }
    // A negative errno stands behind the header.
    let errno = word(&answer, HEADER).map_or(libc::EPROTO, |word| word.cast_signed().wrapping_neg());
    if errno == libc::ENOENT { Ok(false) } else { Err(io::Error::from_raw_os_error(errno)) }
}

/// `struct nlmsghdr`, `struct nfgenmsg` and one attribute, each padded to four bytes.
fn get_table(family: Family, name: &str) -> Vec<u8> {
    let attribute = 4 + name.len() + 1;
    let length = HEADER + 4 + attribute;
    let mut message = Vec::with_capacity(length + 3);
    message.extend((length as u32).to_ne_bytes());
    message.extend(GET_TABLE.to_ne_bytes());
    message.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family as u8, 0, 0, 0]);
    message.extend((attribute as u16).to_ne_bytes());
    message.extend(TABLE_NAME.to_ne_bytes());
    message.extend(name.as_bytes());
    message.push(0);
    message.resize(message.len().next_multiple_of(4), 0);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: usize) -> Vec<u8> {
        let mut message = ((HEADER + body) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.resize((HEADER + body).next_multiple_of(4), 0);
        message
    }

    #[test]
    fn the_end_of_a_table_is_found_behind_other_messages() {
        let other = message(NFTABLES | 6, 21);
        assert!(removes_a_table(&[other.clone(), message(DELETE_TABLE, 9)].concat()));
        assert!(!removes_a_table(&[other.clone(), other].concat()));
    }

    #[test]
    fn nonsense_ends() {
        for bytes in [&[][..], &[0; 15], &[0; 64], &[0xff; 64]] {
            assert!(!removes_a_table(bytes));
        }
    }

    #[test]
    fn a_request_has_the_length_it_says_and_is_padded() {
        let request = get_table(Family::Bridge, "netd");
        assert_eq!(word(&request, 0), Some(16 + 4 + 4 + 5));
        assert_eq!(request.len() % 4, 0);
    }
}
