//! The kernel's trace messages. Pure: bytes in, values out, and nothing of what does not make sense.
//!
//! The layout is linux/netfilter/nf_tables.h, `enum nft_trace_attributes`; numbers in attributes are big endian.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Event, Verdict};

/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_TRACE`: the type of a trace message.
const TRACE: u16 = 10 << 8 | 17;

/// `struct nlmsghdr`, and with `struct nfgenmsg` behind it.
const HEADER: usize = 16;
const PREAMBLE: usize = HEADER + 4;

/// `NFTA_TRACE_…`.
const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const KIND: u16 = 4;
const VERDICT: u16 = 5;
const ID: u16 = 6;
const NETWORK_HEADER: u16 = 8;
const TRANSPORT_HEADER: u16 = 9;
const IIF: u16 = 10;
const OIF: u16 = 12;
const PROTOCOL_FAMILY: u16 = 15;
const POLICY: u16 = 16;

/// `NFTA_VERDICT_CODE`.
const VERDICT_CODE: u16 = 1;

/// `NFT_TRACETYPE_POLICY`, `_RETURN`, `_RULE`.
const KIND_POLICY: u32 = 1;
const KIND_RETURN: u32 = 2;
const KIND_RULE: u32 = 3;

/// Numbers of protocols (IANA).
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// What is seen of a traced packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// The index of the interface it came in by.
    pub input: Option<u32>,
    /// The index of the interface it goes out by.
    pub output: Option<u32>,
    /// Who sent it.
    pub source: Option<IpAddr>,
    /// Whom it is for.
    pub target: Option<IpAddr>,
    /// The protocol's number (IANA).
    pub protocol: Option<u8>,
    /// Source and destination port of TCP and UDP.
    pub ports: Option<(u16, u16)>,
    /// TCP: the connection is refused or broken off (RST).
    pub reset: bool,
    /// Type and code of an ICMP message, of either version.
    pub icmp: Option<(u8, u8)>,
}

/// The trace messages in what one read gave, one behind the other.
pub fn parse(mut bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(length) = bytes.get(..4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes) {
        let length = (length as usize).max(HEADER);
        let message = bytes.get(..length).unwrap_or_default();
        let kind = message.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
        if kind == Some(TRACE) {
            events.extend(event(message.get(PREAMBLE..).unwrap_or_default()));
        }
        bytes = bytes.get(length.saturating_add(3) & !3..).unwrap_or_default();
    }
    events
}

fn event(body: &[u8]) -> Option<Event> {
    let find = |wanted: u16| attributes(body).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let family = match word(find(PROTOCOL_FAMILY)?)? {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => return None,
    };
    let kind = word(find(KIND)?)?;
    let said = match kind {
        KIND_POLICY => word(find(POLICY)?)?,
        KIND_RETURN | KIND_RULE => {
            attributes(find(VERDICT)?).find(|(kind, _)| *kind == VERDICT_CODE).and_then(|(_, value)| word(value))?
        }
        _ => return None,
    };
    // NF_DROP, NF_ACCEPT; NF_STOLEN and NF_QUEUE, whose upper half is the queue's number; jumps are negative.
    let verdict = match said.cast_signed() {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        code if code > 0 => Verdict::Taken,
        _ => Verdict::Onward,
    };
    Some(Event {
        id: word(find(ID)?)?,
        family,
        table: text(find(TABLE)?),
        chain: text(find(CHAIN)?),
        rule: find(RULE_HANDLE).and_then(|value| Some(u64::from_be_bytes(value.try_into().ok()?))),
        verdict,
        packet: find(NETWORK_HEADER).map(|network| {
            let transport = find(TRANSPORT_HEADER).unwrap_or_default();
            Packet { input: find(IIF).and_then(word), output: find(OIF).and_then(word), ..packet(network, transport) }
        }),
    })
}

/// Type and value of one attribute behind the other, each at a multiple of four.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) as usize;
        // The upper two bits say that there are attributes inside, or that it is big endian.
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.saturating_add(3) & !3..).unwrap_or_default();
        Some((kind, value))
    })
}

fn word(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// Addresses (RFC 791 §3.1, RFC 8200 §3) and what stands first behind them.
fn packet(network: &[u8], transport: &[u8]) -> Packet {
    let four = |at: usize| Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(network.get(at..at + 4)?).ok()?)));
    let sixteen = |at: usize| Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(network.get(at..at + 16)?).ok()?)));
    let (source, target, protocol) = match network.first().map(|first| first >> 4) {
        Some(4) => (four(12), four(16), network.get(9).copied()),
        Some(6) => (sixteen(8), sixteen(24), network.get(6).copied()),
        _ => return Packet::default(),
    };
    let port = |at: usize| Some(u16::from_be_bytes(transport.get(at..at + 2)?.try_into().ok()?));
    let has_ports = matches!(protocol, Some(TCP | UDP));
    let is_icmp = matches!(protocol, Some(ICMP | ICMP6));
    Packet {
        input: None,
        output: None,
        source,
        target,
        protocol,
        ports: port(0).zip(port(2)).filter(|_| has_ports),
        // RFC 9293 §3.1: the third of the control bits.
        reset: protocol == Some(TCP) && transport.get(13).is_some_and(|flags| flags & 4 != 0),
        icmp: transport.first().copied().zip(transport.get(1).copied()).filter(|_| is_icmp),
    }
}
