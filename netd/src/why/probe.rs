//! One packet in a guest's name: the first of the flow that is asked about. Pure.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use nat::trace::Protocol;

use crate::model::MacAddr;

/// The length of the Ethernet header before the IP packet.
pub(super) const ETHERNET: usize = 14;

/// Hops of the probe, as a guest's own packet has them (RFC 1700).
const HOPS: u8 = 64;

/// A TCP window, for a connection that is never made.
const WINDOW: u16 = 1024;

/// The frame: a TCP SYN, an empty UDP datagram or an echo request. None where the addresses are of two families.
pub(super) fn frame(
    macs: (MacAddr, MacAddr),
    source: IpAddr,
    target: IpAddr,
    from: u16,
    protocol: Protocol,
) -> Option<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2(macs.0.0, macs.1.0);
    let (ip, v4) = match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => (ethernet.ipv4(source.octets(), target.octets(), HOPS), true),
        (IpAddr::V6(source), IpAddr::V6(target)) => (ethernet.ipv6(source.octets(), target.octets(), HOPS), false),
        _ => return None,
    };
    let mut frame = Vec::new();
    match protocol {
        // The sequence number is anybody's choice: the guest resets what comes of it.
        Protocol::Tcp(port) => ip.tcp(from, port, u32::from(from), WINDOW).syn().write(&mut frame, &[]),
        Protocol::Udp(port) => ip.udp(from, port).write(&mut frame, &[]),
        Protocol::Icmp if v4 => ip.icmpv4_echo_request(from, 1).write(&mut frame, &[]),
        Protocol::Icmp => ip.icmpv6_echo_request(from, 1).write(&mut frame, &[]),
    }
    .ok()?;
    Some(frame)
}
