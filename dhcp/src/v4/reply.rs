//! What a reply says and where it goes (RFC 2131 §4.1, §4.3.1, table 3).

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{
    frame::{BROADCAST_MAC, CLIENT_PORT, SERVER_PORT},
    message::{Message, Op},
    options::{Options, code, wire_len},
    policy::Reserved,
    request::{ReplyKind, Request},
    server::{NakReason, View},
};
use crate::config::{LeaseTime, Mac};

/// Bytes of IPv4 and UDP headers, which option 57 counts.
const IP_UDP: usize = 28;

/// The IP datagram every client takes (RFC 2131 §2, option 57).
const DEFAULT_SIZE: u16 = 576;

/// Bytes of the message in front of the options.
const FIXED: usize = 240;

/// Sent to a client that doesn't say what it wants; one that does gets these only if they are on its list.
const USUAL: [u8; 7] = [
    code::CLASSLESS_ROUTES,
    code::ROUTER,
    code::DNS_SERVERS,
    code::HOST_NAME,
    code::DOMAIN_NAME,
    code::BROADCAST,
    code::INTERFACE_MTU,
];

/// A message and its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) mac: Mac,
    pub(crate) to: SocketAddrV4,
    pub(crate) message: Message,
}

impl View<'_> {
    /// An OFFER or ACK of an address.
    pub(super) fn granted(
        &self,
        request: &Request,
        own: Option<Reserved<'_>>,
        kind: ReplyKind,
        address: Ipv4Addr,
        lease: LeaseTime,
    ) -> Reply {
        let mut writer = Writer::new(request, self.max_size(request));
        writer.head(request, kind, self.policy.server());
        writer.lease(request, lease);
        self.configure(&mut writer, request, own);
        let ciaddr = if kind == ReplyKind::Ack { request.ciaddr } else { Ipv4Addr::UNSPECIFIED };
        let message = Message { ciaddr, yiaddr: address, ..writer.finish(request) };
        let (mac, ip) = if !ciaddr.is_unspecified() {
            (request.mac, ciaddr)
        } else if request.flags & Message::BROADCAST != 0 {
            (BROADCAST_MAC, Ipv4Addr::BROADCAST)
        } else {
            (request.mac, address)
        };
        address_to(request, message, mac, ip)
    }

    /// The ACK of an INFORM: no lease, no address of ours (RFC 2131 §4.3.5).
    pub(super) fn informed(&self, request: &Request, own: Option<Reserved<'_>>) -> Reply {
        let mut writer = Writer::new(request, self.max_size(request));
        writer.head(request, ReplyKind::Ack, self.policy.server());
        self.configure(&mut writer, request, own);
        let message = Message { ciaddr: request.ciaddr, ..writer.finish(request) };
        // Some clients leave ciaddr empty and speak from the address all the same.
        let known = [request.ciaddr, request.sender.ip].into_iter().find(|address| !address.is_unspecified());
        match known {
            Some(address) => address_to(request, message, request.mac, address),
            None => address_to(request, message, BROADCAST_MAC, Ipv4Addr::BROADCAST),
        }
    }

    /// A NAK: always broadcast, for the client's address is not to be used (RFC 2131 §4.1, §4.3.2).
    pub(super) fn refused(&self, request: &Request, reason: NakReason) -> Reply {
        let mut writer = Writer::new(request, self.max_size(request));
        writer.head(request, ReplyKind::Nak, self.policy.server());
        writer.add(code::MESSAGE, reason.to_string().as_bytes());
        let mut message = writer.finish(request);
        if !request.giaddr.is_unspecified() {
            message.flags |= Message::BROADCAST;
        }
        address_to(request, message, BROADCAST_MAC, Ipv4Addr::BROADCAST)
    }

    /// Bytes a reply's message may take: what the client takes, and no more than the link carries.
    fn max_size(&self, request: &Request) -> usize {
        let link = self.policy.config().mtu.unwrap_or(1500).max(DEFAULT_SIZE);
        usize::from(request.max_size.unwrap_or(DEFAULT_SIZE).clamp(DEFAULT_SIZE, link)) - IP_UDP
    }

    /// Adds what the client asked for, in its order (RFC 2132 §9.8), as far as we know it.
    fn configure(&self, writer: &mut Writer, request: &Request, own: Option<Reserved<'_>>) {
        let config = self.policy.config();
        // First of all, whether asked for or not: a router without a mask is no use (RFC 2132 §3.3).
        writer.add(code::SUBNET_MASK, &config.server.netmask().octets());
        let by_hand = |code: u8| config.options.iter().rfind(|option| option.code == code);
        let wanted = request.wanted.as_deref().unwrap_or(&USUAL);
        // What is set by hand is wanted by a client that does not say what it wants, too.
        let set = config.options.iter().filter(|option| option.force || request.wanted.is_none());
        let mut codes = wanted.to_vec();
        for option in set.filter(|option| !wanted.contains(&option.code)) {
            codes.push(option.code);
        }
        for code in codes {
            if let Some(option) = by_hand(code) {
                if !option.value.is_empty() {
                    writer.add(code, &option.value);
                }
                continue;
            }
            let value = match code {
                code::ROUTER => config.router.map(|router| router.octets().to_vec()),
                code::DNS_SERVERS => some(config.dns.iter().flat_map(Ipv4Addr::octets).collect()),
                code::HOST_NAME => {
                    let name = own.and_then(|own| own.host.name.as_deref()).or_else(|| self.ports.name(request.mac));
                    name.map(|name| name.as_bytes().to_vec())
                }
                code::DOMAIN_NAME => config.domain.as_ref().map(|domain| domain.as_bytes().to_vec()),
                code::INTERFACE_MTU => config.mtu.map(|mtu| mtu.to_be_bytes().to_vec()),
                code::BROADCAST => Some(config.server.broadcast().octets().to_vec()),
                code::CLASSLESS_ROUTES => some(self.routes()),
                _ => None,
            };
            if let Some(value) = value {
                writer.add(code, &value);
            }
        }
    }

    /// Option 121. A client that gets it ignores option 3, so the default route is among them (RFC 3442).
    fn routes(&self) -> Vec<u8> {
        let config = self.policy.config();
        if config.routes.is_empty() {
            return Vec::new();
        }
        let mut bytes = Vec::new();
        let mut add = |destination: Ipv4Addr, prefix: u8, gateway: Ipv4Addr| {
            bytes.push(prefix);
            bytes.extend_from_slice(&destination.octets()[..usize::from(prefix.div_ceil(8))]);
            bytes.extend_from_slice(&gateway.octets());
        };
        for (destination, gateway) in &config.routes {
            add(destination.network(), destination.prefix_len(), *gateway);
        }
        if let Some(router) = config.router {
            add(Ipv4Addr::UNSPECIFIED, 0, router);
        }
        bytes
    }
}

fn some(value: Vec<u8>) -> Option<Vec<u8>> {
    (!value.is_empty()).then_some(value)
}

/// Collects options as long as the reply stays in its size.
struct Writer {
    options: Options,
    room: usize,
}

impl Writer {
    fn new(request: &Request, size: usize) -> Self {
        // The relay's option goes last and must go (RFC 3046 §2.1): its place is kept, and the end option's.
        let last = request.relay_agent.as_ref().map_or(0, |value| wire_len(value.len()));
        Writer { options: Options::new(), room: size.saturating_sub(FIXED + 1 + last) }
    }

    /// Adds an option if there is room and it isn't there.
    fn add(&mut self, code: u8, value: &[u8]) {
        let len = wire_len(value.len());
        if len <= self.room && self.options.get(code).is_none() {
            self.options.push(code, value);
            self.room -= len;
        }
    }

    /// What every reply has.
    fn head(&mut self, request: &Request, kind: ReplyKind, server: Ipv4Addr) {
        self.add(code::MESSAGE_TYPE, &[kind as u8]);
        self.add(code::SERVER_ID, &server.octets());
        // RFC 6842: a client with an identifier gets it back, with a NAK too.
        if let Some(id) = &request.client_id {
            self.add(code::CLIENT_ID, id);
        }
    }

    /// Lease time, T1 and T2 (RFC 2131 §4.4.5): a half and seven eighths, less up to a sixteenth that differs from
    /// client to client, so that guests started together don't renew together.
    fn lease(&mut self, request: &Request, lease: LeaseTime) {
        match lease {
            LeaseTime::Infinite => self.add(code::LEASE_TIME, &u32::MAX.to_be_bytes()),
            LeaseTime::Seconds(seconds) => {
                let early = (super::address::hash(&request.mac.0) % (u64::from(seconds) / 16 + 1)) as u32;
                self.add(code::LEASE_TIME, &seconds.to_be_bytes());
                self.add(code::RENEWAL_TIME, &(seconds / 2 - early).to_be_bytes());
                self.add(code::REBINDING_TIME, &(seconds - seconds.div_ceil(8) - early).to_be_bytes());
            }
        }
    }

    fn finish(mut self, request: &Request) -> Message {
        if let Some(value) = &request.relay_agent {
            self.options.push(code::RELAY_AGENT, value);
        }
        let mut chaddr = [0; 16];
        chaddr[..6].copy_from_slice(&request.mac.0);
        Message {
            op: Op::Reply,
            htype: 1,
            hlen: 6,
            hops: 0,
            xid: request.xid,
            secs: 0,
            flags: request.flags,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: request.giaddr,
            chaddr,
            options: self.options,
        }
    }
}

/// Sends through the relay if there was one, else to the client.
fn address_to(request: &Request, message: Message, mac: Mac, ip: Ipv4Addr) -> Reply {
    if request.giaddr.is_unspecified() {
        Reply { mac, to: SocketAddrV4::new(ip, CLIENT_PORT), message }
    } else {
        Reply { mac: request.sender.mac, to: SocketAddrV4::new(request.giaddr, SERVER_PORT), message }
    }
}
