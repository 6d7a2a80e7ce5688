//! Ethernet and IPv6 around a router solicitation or a DHCPv6 message: bytes of a packet socket in and out.

use std::net::Ipv6Addr;

use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv6Header, LinkSlice, NetSlice, SlicedPacket};

use crate::{
    config::Mac,
    v4::frame::{Checksum, FrameError},
};

/// The server's UDP port (RFC 8415 §7.2).
pub const SERVER_PORT: u16 = 547;
/// The client's UDP port (RFC 8415 §7.2).
pub const CLIENT_PORT: u16 = 546;

/// All nodes of the link.
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All routers of the link.
pub(crate) const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// All DHCPv6 servers and relays of the link (RFC 8415 §7.1).
pub const ALL_DHCP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Neighbour discovery's hop limit: what came through a router has another (RFC 4861 §6.1.1).
const ND_HOPS: u8 = 255;
/// Hops a reply may take: relays are few (RFC 8415 §19 lets 8 be in a row).
const HOPS: u8 = 64;

const ROUTER_SOLICITATION: u8 = 133;
/// The option with the sender's MAC (RFC 4861 §4.6.1).
const SOURCE_LLADDR: u8 = 1;

/// Bytes in front of the ICMPv6 or UDP header of a frame we send.
const HEADERS: usize = Ethernet2Header::LEN + Ipv6Header::LEN;
/// Bytes of a UDP header.
const UDP: usize = 8;

/// One of the two messages we listen for, and who it is from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Ethernet source.
    pub from_mac: Mac,
    /// IP source.
    pub from: Ipv6Addr,
    /// IP destination.
    pub to: Ipv6Addr,
    /// What it carries.
    pub body: Body<'a>,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// A router solicitation that is valid (RFC 4861 §6.1.1).
    Solicitation,
    /// A UDP datagram.
    Datagram {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
        /// What it carries.
        payload: &'a [u8],
    },
}

/// Takes a frame apart.
pub fn parse(frame: &[u8], checksum: Checksum) -> Result<Packet<'_>, FrameError> {
    let packet = SlicedPacket::from_ethernet(frame).map_err(|_| FrameError::Malformed)?;
    let (Some(LinkSlice::Ethernet2(link)), Some(NetSlice::Ipv6(ip)), true) =
        (&packet.link, &packet.net, packet.link_exts.is_empty())
    else {
        return Err(FrameError::NotIpv6);
    };
    let header = ip.header();
    let carried = ip.payload();
    if carried.fragmented {
        return Err(FrameError::NotIpv6);
    }
    let (from, to, bytes) = (header.source_addr(), header.destination_addr(), carried.payload);
    let verify = || {
        let sum = checksum_of(from, to, carried.ip_number.0, bytes);
        // With its own checksum in it, a message sums up to nothing.
        if checksum == Checksum::Partial || sum == 0 {
            return Ok(());
        }
        let at = if carried.ip_number == IpNumber::UDP { 6 } else { 2 };
        let had = bytes.get(at..at + 2).map_or(0, |had| u16::from_be_bytes([had[0], had[1]]));
        Err(FrameError::Checksum { had, computed: had.wrapping_add(sum) })
    };
    let body = match carried.ip_number {
        IpNumber::UDP => {
            let [a, b, c, d, high, low, ..] = *bytes else { return Err(FrameError::Malformed) };
            let length = usize::from(u16::from_be_bytes([high, low]));
            let payload = bytes.get(UDP..length).ok_or(FrameError::Malformed)?;
            if length != bytes.len() {
                return Err(FrameError::Malformed);
            }
            verify()?;
            Body::Datagram { from: u16::from_be_bytes([a, b]), to: u16::from_be_bytes([c, d]), payload }
        }
        IpNumber::IPV6_ICMP if bytes.first() == Some(&ROUTER_SOLICITATION) => {
            if header.hop_limit() != ND_HOPS || bytes.get(1) != Some(&0) {
                return Err(FrameError::Malformed);
            }
            verify()?;
            let options = bytes.get(8..).ok_or(FrameError::Malformed)?;
            if !are_options_sound(options, from.is_unspecified()) {
                return Err(FrameError::Malformed);
            }
            Body::Solicitation
        }
        _ => return Err(FrameError::NotIpv6),
    };
    Ok(Packet { from_mac: Mac(link.source()), from, to, body })
}

/// Whether a solicitation's options are whole, and say no MAC where there is no address to go with it.
fn are_options_sound(mut options: &[u8], no_source: bool) -> bool {
    while let [kind, units, ..] = *options {
        let length = usize::from(units) * 8;
        if length == 0 || (no_source && kind == SOURCE_LLADDR) {
            return false;
        }
        let Some(rest) = options.get(length..) else { return false };
        options = rest;
    }
    options.is_empty()
}

/// The frame of a UDP datagram. `None` if the payload does not fit one.
pub fn datagram(
    from_mac: Mac,
    to_mac: Mac,
    from: (Ipv6Addr, u16),
    to: (Ipv6Addr, u16),
    payload: &[u8],
) -> Option<Vec<u8>> {
    let length = u16::try_from(UDP + payload.len()).ok()?;
    let mut udp = Vec::with_capacity(UDP + payload.len());
    for field in [from.1, to.1, length, 0] {
        udp.extend(field.to_be_bytes());
    }
    udp.extend(payload);
    let sum = match checksum_of(from.0, to.0, IpNumber::UDP.0, &udp) {
        // Zero would say that there is none (RFC 8200 §8.1).
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    frame((from_mac, to_mac), (from.0, to.0), (IpNumber::UDP, HOPS), &udp)
}

/// The frame of an ICMPv6 message of neighbour discovery, whose checksum field is filled in. `None` if it fits none.
pub(crate) fn discovery(from_mac: Mac, to_mac: Mac, from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> Option<Vec<u8>> {
    let mut message = message.to_vec();
    message.get_mut(2..4)?.fill(0);
    let sum = checksum_of(from, to, IpNumber::IPV6_ICMP.0, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    frame((from_mac, to_mac), (from, to), (IpNumber::IPV6_ICMP, ND_HOPS), &message)
}

fn frame(macs: (Mac, Mac), addresses: (Ipv6Addr, Ipv6Addr), of: (IpNumber, u8), body: &[u8]) -> Option<Vec<u8>> {
    let link = Ethernet2Header { source: macs.0.0, destination: macs.1.0, ether_type: EtherType::IPV6 };
    let ip = Ipv6Header {
        payload_length: u16::try_from(body.len()).ok()?,
        next_header: of.0,
        hop_limit: of.1,
        source: addresses.0.octets(),
        destination: addresses.1.octets(),
        ..Ipv6Header::default()
    };
    let mut frame = Vec::with_capacity(HEADERS + body.len());
    frame.extend(link.to_bytes());
    frame.extend(ip.to_bytes());
    frame.extend(body);
    Some(frame)
}

/// The checksum over the pseudo-header and an upper-layer packet (RFC 8200 §8.1).
fn checksum_of(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, bytes: &[u8]) -> u16 {
    let pairs = |bytes: &[u8]| -> u64 {
        bytes.chunks(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum()
    };
    let mut sum = pairs(&from.octets()) + pairs(&to.octets()) + bytes.len() as u64 + u64::from(protocol) + pairs(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The MAC that a multicast address is sent to (RFC 2464 §7).
pub(crate) fn multicast_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// The link-local address that a MAC makes (RFC 4291 appendix A).
pub(crate) fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let host = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    let mut octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    octets[8..].copy_from_slice(&host);
    octets.into()
}
