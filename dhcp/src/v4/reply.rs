//! What a reply says and where it goes (RFC 2131 §4.1, §4.3.1, table 3).

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{
    boot::Boot,
    fqdn,
    frame::{BROADCAST_MAC, CLIENT_PORT, SERVER_PORT},
    message::{MIN_LEN, Message},
    options::code,
    policy::Reserved,
    request::{Kind, ReplyKind, Request},
    server::{NakReason, View},
    writer::Writer,
};
use crate::config::{LeaseTime, Mac};

/// Bytes of IPv4 and UDP headers, which option 57 counts.
const IP_UDP: usize = 28;

/// The IP datagram every client takes (RFC 2131 §2, option 57).
const DEFAULT_SIZE: u16 = 576;

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
        let message = self.written(request, |writer| {
            // RFC 1534 §2: a BOOTP client is not told what only DHCP knows.
            if request.kind != Kind::Bootp {
                writer.head(request, kind, self.policy.server());
                writer.lease(request, lease);
                // An ACK without a REQUEST (RFC 4039 §3.1).
                if request.kind == Kind::Discover && kind == ReplyKind::Ack {
                    writer.add(code::RAPID_COMMIT, &[]);
                }
            }
            self.configure(writer, request, own);
        });
        let ciaddr = if kind == ReplyKind::Ack { request.ciaddr } else { Ipv4Addr::UNSPECIFIED };
        let message = Message { ciaddr, yiaddr: address, ..message };
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
        let message = self.written(request, |writer| {
            writer.head(request, ReplyKind::Ack, self.policy.server());
            self.configure(writer, request, own);
        });
        let message = Message { ciaddr: request.ciaddr, ..message };
        // Some clients leave ciaddr empty and speak from the address all the same.
        let known = [request.ciaddr, request.sender.ip].into_iter().find(|address| !address.is_unspecified());
        match known {
            Some(address) => address_to(request, message, request.mac, address),
            None => address_to(request, message, BROADCAST_MAC, Ipv4Addr::BROADCAST),
        }
    }

    /// A NAK: always broadcast, for the client's address is not to be used (RFC 2131 §4.1, §4.3.2).
    pub(super) fn refused(&self, request: &Request, reason: NakReason) -> Reply {
        let mut writer = Writer::new(request, self.max_size(request), Vec::new(), false);
        writer.head(request, ReplyKind::Nak, self.policy.server());
        writer.add(code::MESSAGE, reason.to_string().as_bytes());
        let mut message = writer.finish(request);
        if !request.giaddr.is_unspecified() {
            message.flags |= Message::BROADCAST;
        }
        address_to(request, message, BROADCAST_MAC, Ipv4Addr::BROADCAST)
    }

    /// Writes the options, again with the header's fields for them where they have no room.
    fn written(&self, request: &Request, write: impl Fn(&mut Writer)) -> Message {
        let boot = Boot::of(self.policy.config(), request);
        let file = || boot.map(Boot::field).unwrap_or_default();
        let mut writer = Writer::new(request, self.max_size(request), file(), false);
        write(&mut writer);
        if writer.is_full() && request.kind != Kind::Bootp {
            writer = Writer::new(request, self.max_size(request), file(), true);
            write(&mut writer);
        }
        let siaddr = boot.map_or(Ipv4Addr::UNSPECIFIED, |boot| boot.server);
        Message { siaddr, ..writer.finish(request) }
    }

    /// Bytes a reply's message may take: what the client takes, and no more than the link carries.
    fn max_size(&self, request: &Request) -> usize {
        if request.kind == Kind::Bootp {
            return MIN_LEN;
        }
        let link = self.policy.config().mtu.unwrap_or(1500).max(DEFAULT_SIZE);
        usize::from(request.max_size.unwrap_or(DEFAULT_SIZE).clamp(DEFAULT_SIZE, link)) - IP_UDP
    }

    /// Adds what the client asked for, in its order (RFC 2132 §9.8), as far as we know it.
    fn configure(&self, writer: &mut Writer, request: &Request, own: Option<Reserved<'_>>) {
        let config = self.policy.config();
        // First of all, whether asked for or not: a router without a mask is no use (RFC 2132 §3.3).
        writer.add(code::SUBNET_MASK, &config.server.netmask().octets());
        let by_hand = |code: u8| config.options.iter().rfind(|option| option.code == code);
        let boot = Boot::of(config, request);
        let unasked = boot.map(Boot::unasked).unwrap_or_default();
        for (code, value) in unasked.iter().filter(|(code, _)| by_hand(*code).is_none()) {
            writer.add(*code, value);
        }
        // RFC 4578 §2.3: who says which machine it is looks for it in the answer.
        if let Some(id) = &request.machine_id {
            writer.add(code::MACHINE_ID, id);
        }
        if let (Some(flags), Some(name)) = (request.fqdn, self.known_name(request, own)) {
            writer.add(code::CLIENT_FQDN, &fqdn::reply(flags, &name, config.domain.as_deref()));
        }
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
                code::DOMAIN_SEARCH => config.domain.as_deref().map(fqdn::search),
                code::INTERFACE_MTU => config.mtu.map(|mtu| mtu.to_be_bytes().to_vec()),
                code::BROADCAST => Some(config.server.broadcast().octets().to_vec()),
                code::CLASSLESS_ROUTES | code::MICROSOFT_ROUTES => some(self.routes()),
                code::TFTP_SERVER | code::BOOT_FILE => boot.and_then(|boot| boot.option(code)),
                _ => None,
            };
            if let Some(value) = value {
                writer.add(code, &value);
            }
        }
    }

    /// The name that DNS has or will have for a client that sends one.
    fn known_name(&self, request: &Request, own: Option<Reserved<'_>>) -> Option<String> {
        let kept = own.and_then(|own| own.host.name.as_deref()).or_else(|| self.ports.name(request.mac));
        let claimed = || request.hostname.as_deref().filter(|name| self.is_name_free(name, request.mac, own));
        kept.or_else(claimed).map(str::to_owned)
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

/// Sends through the relay if there was one, else to the client.
fn address_to(request: &Request, message: Message, mac: Mac, ip: Ipv4Addr) -> Reply {
    if request.giaddr.is_unspecified() {
        Reply { mac, to: SocketAddrV4::new(ip, CLIENT_PORT), message }
    } else {
        Reply { mac: request.sender.mac, to: SocketAddrV4::new(request.giaddr, SERVER_PORT), message }
    }
}
