//! What a reply says and where it goes (RFC 8415 §18.3, §19.3).

use std::net::Ipv6Addr;

use super::{
    frame::{CLIENT_PORT, SERVER_PORT},
    message::{code, kind, push},
    name,
    request::{FqdnFlags, Kind, Of, Request},
    server::View,
};
use crate::config::{LeaseTime, Mac};

/// A client asks anew for what it was told without a lease after that many seconds: often enough that a change is
/// noticed, and no less than §7.6 lets a client take (RFC 8415 §21.23, `IRT_MINIMUM`).
const REFRESH: u32 = 3600;

/// Lifetime without end (RFC 8415 §7.7).
const INFINITY: u32 = u32::MAX;

/// Status codes (RFC 8415 §21.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Success = 0,
    NoAddrsAvail = 2,
    NoBinding = 3,
    NotOnLink = 4,
    UseMulticast = 5,
    NoPrefixAvail = 6,
}

impl Status {
    /// For whoever reads a client's log.
    fn text(self) -> &'static str {
        match self {
            Status::Success => "",
            Status::NoAddrsAvail => "no address is left",
            Status::NoBinding => "the client does not have that address",
            Status::NotOnLink => "the address is of another link",
            Status::UseMulticast => "send to ff02::1:2",
            Status::NoPrefixAvail => "no prefixes are delegated here",
        }
    }
}

/// What a client is told of one association.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) of: Of,
    pub(super) iaid: u32,
    /// An address and how long it lasts.
    pub(super) granted: Option<(Ipv6Addr, LeaseTime)>,
    /// Addresses that the client is not to use any more.
    pub(super) ended: Vec<Ipv6Addr>,
    pub(super) status: Option<Status>,
}

/// A message and its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) mac: Mac,
    pub(crate) to: Ipv6Addr,
    /// UDP destination port.
    pub(crate) port: u16,
    /// The message's type, inside of what relays take it in.
    pub(crate) kind: u8,
    pub(crate) payload: Vec<u8>,
}

/// A reply being written.
pub(super) struct Writer {
    kind: u8,
    bytes: Vec<u8>,
}

impl Writer {
    /// A message of this type for the client, from us.
    pub(super) fn new(kind: u8, view: &View<'_>, request: &Request) -> Self {
        let mut bytes = vec![kind];
        bytes.extend(request.xid);
        if let Some(duid) = &request.duid {
            push(&mut bytes, code::CLIENT_ID, duid);
        }
        push(&mut bytes, code::SERVER_ID, view.duid);
        Writer { kind, bytes }
    }

    /// We are the only server here: the client need not wait for others (RFC 8415 §18.2.1).
    pub(super) fn preference(&mut self) {
        push(&mut self.bytes, code::PREFERENCE, &[255]);
    }

    pub(super) fn rapid_commit(&mut self) {
        push(&mut self.bytes, code::RAPID_COMMIT, &[]);
    }

    pub(super) fn status(&mut self, status: Status) {
        push_status(&mut self.bytes, status);
    }

    pub(super) fn association(&mut self, told: &Told) {
        let mut body = told.iaid.to_be_bytes().to_vec();
        let code = match told.of {
            Of::Addresses => code::IA_NA,
            Of::Temporary => code::IA_TA,
            Of::Prefixes => code::IA_PD,
        };
        if told.of != Of::Temporary {
            let (t1, t2) = told.granted.map_or((0, 0), |(_, lease)| renewal(lease));
            body.extend(t1.to_be_bytes());
            body.extend(t2.to_be_bytes());
        }
        let granted = told.granted.iter().map(|(address, lease)| (address, seconds(*lease)));
        for (address, lifetime) in granted.chain(told.ended.iter().map(|address| (address, 0))) {
            let mut inner = address.octets().to_vec();
            // As with dnsmasq, an address is preferred for as long as it is valid.
            inner.extend(lifetime.to_be_bytes());
            inner.extend(lifetime.to_be_bytes());
            push(&mut body, code::IA_ADDRESS, &inner);
        }
        if let Some(status) = told.status {
            push_status(&mut body, status);
        }
        push(&mut self.bytes, code, &body);
    }

    /// Adds what the client asked for, as far as we know it; everything for one that asks for nothing.
    pub(super) fn configure(&mut self, view: &View<'_>, request: &Request) {
        let is_wanted = |code| request.wanted.is_empty() || request.wanted.contains(&code);
        if is_wanted(code::DNS_SERVERS) && !view.config.dns.is_empty() {
            let resolvers: Vec<u8> = view.config.dns.iter().flat_map(|resolver| resolver.octets()).collect();
            push(&mut self.bytes, code::DNS_SERVERS, &resolvers);
        }
        if is_wanted(code::DOMAIN_LIST)
            && let Some(domain) = view.config.domain.as_deref().and_then(name::encode)
        {
            push(&mut self.bytes, code::DOMAIN_LIST, &domain);
        }
        if request.kind == Kind::Information {
            push(&mut self.bytes, code::REFRESH_TIME, &REFRESH.to_be_bytes());
        }
    }

    /// What becomes of the name that the client says (RFC 4704 §6): we make it known, whoever was to.
    pub(super) fn fqdn(&mut self, view: &View<'_>, request: &Request, hostname: Option<&str>) {
        let Some(FqdnFlags(asked)) = request.fqdn.filter(|_| request.wanted.contains(&code::CLIENT_FQDN)) else {
            return;
        };
        let flags = if asked & FqdnFlags::NOBODY != 0 {
            FqdnFlags::NOBODY
        } else if asked & FqdnFlags::SERVER != 0 {
            FqdnFlags::SERVER
        } else {
            FqdnFlags::SERVER | FqdnFlags::OVERRIDE
        };
        let mut body = vec![flags];
        if let Some(hostname) = hostname {
            match &view.config.domain {
                Some(domain) => body.extend(name::encode(&format!("{hostname}.{domain}")).unwrap_or_default()),
                None => body.extend(name::partial(hostname).unwrap_or_default()),
            }
        }
        push(&mut self.bytes, code::CLIENT_FQDN, &body);
    }

    /// Back to whom the message came from, through the relays it passed.
    pub(super) fn finish(self, request: &Request) -> Reply {
        let mut payload = self.bytes;
        for relay in request.relays.iter().rev() {
            let mut outer = vec![kind::RELAY_REPLY, relay.hops];
            outer.extend(relay.link.octets());
            outer.extend(relay.peer.octets());
            if let Some(id) = &relay.interface_id {
                push(&mut outer, code::INTERFACE_ID, id);
            }
            push(&mut outer, code::RELAY_MESSAGE, &payload);
            payload = outer;
        }
        let port = if request.relays.is_empty() { CLIENT_PORT } else { SERVER_PORT };
        Reply { mac: request.sender.mac, to: request.sender.from, port, kind: self.kind, payload }
    }
}

fn push_status(bytes: &mut Vec<u8>, status: Status) {
    push(bytes, code::STATUS, &[&(status as u16).to_be_bytes()[..], status.text().as_bytes()].concat());
}

fn seconds(lease: LeaseTime) -> u32 {
    match lease {
        LeaseTime::Seconds(seconds) => seconds,
        LeaseTime::Infinite => INFINITY,
    }
}

/// T1 and T2: 0.5 and 0.8 of how long the addresses are preferred (RFC 8415 §21.4).
fn renewal(lease: LeaseTime) -> (u32, u32) {
    match lease {
        LeaseTime::Seconds(seconds) => (seconds / 2, (u64::from(seconds) * 4 / 5) as u32),
        LeaseTime::Infinite => (INFINITY, INFINITY),
    }
}
