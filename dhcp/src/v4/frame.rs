//! Ethernet, IPv4 and UDP around a DHCP message: bytes of a packet socket in and out.
//!
//! Replies are whole frames because the client has no address yet and so answers no ARP; and because a checksum we
//! wrote ourselves is right for every client, whatever the host's offloads do.

use std::net::SocketAddrV4;

use etherparse::{Ethernet2Header, IpNumber, Ipv4Header, LinkSlice, NetSlice, SlicedPacket, TransportSlice, UdpHeader};

use crate::config::Mac;

/// The server's UDP port (RFC 2131 §4.1).
pub const SERVER_PORT: u16 = 67;
/// The client's UDP port (RFC 2131 §4.1).
pub const CLIENT_PORT: u16 = 68;

/// Hops a reply may take; relays are few, and this is what hosts send with (RFC 1700).
const TTL: u8 = 64;

/// Bytes in front of the UDP payload of a frame we send.
const HEADERS: usize = Ethernet2Header::LEN + Ipv4Header::MIN_LEN + UdpHeader::LEN;

/// Whether the UDP checksum of a received frame says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It is complete: verify it.
    Full,
    /// The sender left it to hardware that isn't there (`TP_STATUS_CSUMNOTREADY`): take the frame on trust, it never
    /// left this host.
    Partial,
}

/// A UDP datagram and who it is from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Ethernet source.
    pub from_mac: Mac,
    /// Ethernet destination.
    pub to_mac: Mac,
    /// IP source and UDP source port.
    pub from: SocketAddrV4,
    /// IP destination and UDP destination port.
    pub to: SocketAddrV4,
    /// What the datagram carries.
    pub payload: &'a [u8],
}

/// Why a frame carries no datagram for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length in one of its headers doesn't fit the frame, or a header makes no sense.
    #[error("the frame's headers don't add up")]
    Malformed,
    /// Not an IPv4 UDP datagram in one piece, untagged.
    #[error("not a whole IPv4 UDP datagram")]
    NotUdp,
    /// Neither a router solicitation nor an IPv6 UDP datagram in one piece, untagged.
    #[error("neither a router solicitation nor a whole IPv6 UDP datagram")]
    NotIpv6,
    /// The UDP checksum is wrong.
    #[error("the checksum is {had:#06x}, not {computed:#06x}")]
    Checksum {
        /// What the frame says.
        had: u16,
        /// What it should say.
        computed: u16,
    },
}

/// Takes a frame apart.
pub fn parse(frame: &[u8], checksum: Checksum) -> Result<Datagram<'_>, FrameError> {
    let packet = SlicedPacket::from_ethernet(frame).map_err(|_| FrameError::Malformed)?;
    let (Some(LinkSlice::Ethernet2(link)), Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp)), true) =
        (packet.link, packet.net, packet.transport, packet.link_exts.is_empty())
    else {
        return Err(FrameError::NotUdp);
    };
    let header = ip.header();
    // A checksum of zero says the sender made none (RFC 768).
    if checksum == Checksum::Full && udp.checksum() != 0 {
        let computed = udp
            .to_header()
            .calc_checksum_ipv4_raw(header.source(), header.destination(), udp.payload())
            .map_err(|_| FrameError::Malformed)?;
        if computed != udp.checksum() {
            return Err(FrameError::Checksum { had: udp.checksum(), computed });
        }
    }
    Ok(Datagram {
        from_mac: Mac(link.source()),
        to_mac: Mac(link.destination()),
        from: SocketAddrV4::new(header.source_addr(), udp.source_port()),
        to: SocketAddrV4::new(header.destination_addr(), udp.destination_port()),
        payload: udp.payload(),
    })
}

/// Bytes of a frame around a payload of so many bytes.
pub fn len(payload: usize) -> usize {
    HEADERS + payload
}

/// Writes the frame of a datagram, checksums included, into the first [`len`] bytes of `buffer`.
///
/// Returns how many bytes that is, or `None` if the payload doesn't fit a datagram or the frame doesn't fit the buffer.
pub fn emit(datagram: &Datagram<'_>, buffer: &mut [u8]) -> Option<usize> {
    let Datagram { from_mac, to_mac, from, to, payload } = datagram;
    let udp_len = u16::try_from(UdpHeader::LEN + payload.len()).ok()?;
    let mut ip = Ipv4Header::new(udp_len, TTL, IpNumber::UDP, from.ip().octets(), to.ip().octets()).ok()?;
    ip.header_checksum = ip.calc_header_checksum();
    let udp = UdpHeader::with_ipv4_checksum(from.port(), to.port(), &ip, payload).ok()?;
    let link = Ethernet2Header { destination: to_mac.0, source: from_mac.0, ether_type: etherparse::EtherType::IPV4 };

    let frame = buffer.get_mut(..len(payload.len()))?;
    let (head, body) = frame.split_at_mut(HEADERS);
    let (link_part, rest) = head.split_at_mut(Ethernet2Header::LEN);
    let (ip_part, udp_part) = rest.split_at_mut(Ipv4Header::MIN_LEN);
    link_part.copy_from_slice(&link.to_bytes());
    ip_part.copy_from_slice(&ip.to_bytes());
    udp_part.copy_from_slice(&udp.to_bytes());
    body.copy_from_slice(payload);
    Some(len(payload.len()))
}

/// The Ethernet broadcast address.
pub const BROADCAST_MAC: Mac = Mac([0xff; 6]);
