//! What a frame says about who has which address: ARP (RFC 826, RFC 5227), neighbour discovery (RFC 4861, RFC 4862) and
//! DHCPv4. Pure: bytes in, values out; whatever is malformed says nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dhcp::v4::{Message, Op, options};

use super::Origin;
use crate::model::MacAddr;

/// What was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The sender has the address.
    Has(MacAddr, IpAddr, Origin),
    /// The sender will have the address unless another one objects (duplicate address detection).
    Wants(MacAddr, IpAddr),
    /// The first gives the second the address: a DHCP server's ACK.
    Gives(MacAddr, MacAddr, IpAddr),
    /// The sender has the address no longer.
    Leaves(MacAddr, IpAddr),
}

// DHCP messages by the value of option 53 (RFC 2132 §9.6).
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const RELEASE: u8 = 7;
const INFORM: u8 = 8;

const MAC_AT: usize = 6;
const ETHERNET: usize = 14;
const ARP: [u8; 2] = [0x08, 0x06];
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// What a whole Ethernet frame says.
pub(super) fn read(frame: &[u8]) -> Option<Word> {
    let from = MacAddr(take(frame, MAC_AT)?);
    let body = frame.get(ETHERNET..)?;
    match take(frame, 12)? {
        ARP => arp(from, body),
        IPV6 => neighbour(from, body),
        IPV4 => dhcp(from, body),
        _ => None,
    }
}

/// A probe, which has no sender's address, says nothing yet: an announcement follows it (RFC 5227 §2.3).
fn arp(from: MacAddr, arp: &[u8]) -> Option<Word> {
    // Ethernet, IPv4, a request or a reply.
    if take(arp, 0)? != [0, 1, 8, 0, 6, 4, 0] || !matches!(arp.get(7)?, 1 | 2) || take(arp, 8)? != from.0 {
        return None;
    }
    has(from, Ipv4Addr::from(take::<4>(arp, 14)?).into(), Origin::Arp)
}

fn neighbour(from: MacAddr, packet: &[u8]) -> Option<Word> {
    const SOLICITATION: u8 = 135;
    const SOURCE_LINK_ADDRESS: u8 = 1;
    const TARGET_LINK_ADDRESS: u8 = 2;
    // ICMPv6 from this link, with the code that both messages have.
    if packet.first()? >> 4 != 6 || packet.get(6..8)? != [58, 255] || *packet.get(41)? != 0 {
        return None;
    }
    let source = Ipv6Addr::from(take::<16>(packet, 8)?);
    let target = Ipv6Addr::from(take::<16>(packet, 48)?);
    let (address, option) = match *packet.get(40)? {
        SOLICITATION if source.is_unspecified() => {
            return is_one_hosts(target.into()).then_some(Word::Wants(from, target.into()));
        }
        SOLICITATION => (source, SOURCE_LINK_ADDRESS),
        _ => (target, TARGET_LINK_ADDRESS),
    };
    let mut options = packet.get(64..)?;
    while let [kind, units, ..] = *options {
        let length = usize::from(units) * 8;
        let option_of = options.get(..length).filter(|_| units > 0)?;
        // Whoever speaks for another has not the address itself.
        if kind == option && option_of.get(2..8) != Some(&from.0) {
            return None;
        }
        options = &options[length..];
    }
    has(from, address.into(), Origin::Nd)
}

fn dhcp(from: MacAddr, packet: &[u8]) -> Option<Word> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let (message, _) = Message::parse(packet.get(header + 8..)?).ok()?;
    let client = MacAddr(message.chaddr.get(..6)?.try_into().ok()?);
    let kind = *message.options.get(options::code::MESSAGE_TYPE)?.first()?;
    let has_now = message.ciaddr;
    match (message.op, kind) {
        (Op::Reply, ACK) if is_one_hosts(message.yiaddr.into()) => {
            Some(Word::Gives(from, client, message.yiaddr.into()))
        }
        (Op::Request, _) if client != from => None,
        (Op::Request, RELEASE) => Some(Word::Leaves(from, has_now.into())),
        (Op::Request, REQUEST | INFORM) => has(from, has_now.into(), Origin::Dhcp),
        _ => None,
    }
}

fn has(from: MacAddr, address: IpAddr, by: Origin) -> Option<Word> {
    is_one_hosts(address).then_some(Word::Has(from, address, by))
}

/// An address that a single machine may have on a link.
fn is_one_hosts(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast)
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests;
