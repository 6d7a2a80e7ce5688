//! Answers of our own: records of the local zone, and errors.

use std::net::IpAddr;

use super::{CLASS_IN, LONGEST, Name, Query, Refusal, Why, bits, extended_error, push_opt, rcode, rtype, truncate};

/// A record of the local zone. Its TTL is 0: what we say of guests is true now, and asking again costs a microsecond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Record {
    /// A or AAAA.
    Address(IpAddr),
    /// What the name is another name of (RFC 1035 §3.3.1).
    Alias(Name),
    /// A or AAAA of what an alias stands for, under its own name.
    Beyond(Name, IpAddr),
    /// A reverse record.
    Pointer(Name),
    /// A text (RFC 1035 §3.3.14).
    Text(Box<[u8]>),
    /// A service (RFC 2782); the root as target says that there is none.
    Service { priority: u16, weight: u16, port: u16, target: Name },
    /// The name server of a zone of ours: the zone's own name.
    NameServer,
    /// The zone's SOA as RFC 6303 §3 has it, but never cached.
    Authority,
}

impl Record {
    /// Its type.
    pub(in super::super) fn rtype(&self) -> u16 {
        match self {
            Record::Address(IpAddr::V4(_)) | Record::Beyond(_, IpAddr::V4(_)) => rtype::A,
            Record::Address(IpAddr::V6(_)) | Record::Beyond(_, IpAddr::V6(_)) => rtype::AAAA,
            Record::Alias(_) => rtype::CNAME,
            Record::Pointer(_) => rtype::PTR,
            Record::Text(_) => rtype::TXT,
            Record::Service { .. } => rtype::SRV,
            Record::NameServer => rtype::NS,
            Record::Authority => rtype::SOA,
        }
    }

    /// Appends the record with its owner, which is a name in full or a pointer.
    fn emit(&self, message: &mut Vec<u8>, owner: &[u8], zone: &[u8]) {
        message.extend(if let Record::Beyond(name, _) = self { name.bytes() } else { owner });
        message.extend(self.rtype().to_be_bytes());
        message.extend(CLASS_IN.to_be_bytes());
        message.extend([0; 4]);
        let length_at = message.len();
        message.extend([0; 2]);
        match self {
            Record::Address(IpAddr::V4(address)) | Record::Beyond(_, IpAddr::V4(address)) => {
                message.extend(address.octets());
            }
            Record::Address(IpAddr::V6(address)) | Record::Beyond(_, IpAddr::V6(address)) => {
                message.extend(address.octets());
            }
            Record::Pointer(name) | Record::Alias(name) => message.extend(name.bytes()),
            Record::Text(text) => {
                // One string holds 255 octets; a text without any is one empty string.
                for piece in text.chunks(255).chain(text.is_empty().then_some(&[][..])) {
                    message.push(piece.len() as u8);
                    message.extend(piece);
                }
            }
            Record::Service { priority, weight, port, target } => {
                for number in [priority, weight, port] {
                    message.extend(number.to_be_bytes());
                }
                // never compressed (RFC 2782, "Target")
                message.extend(target.bytes());
            }
            Record::NameServer => message.extend(zone),
            Record::Authority => {
                message.extend(zone);
                message.extend(b"\x06nobody\x07invalid\0");
                for number in [1u32, 3600, 1200, 604_800, 0] {
                    message.extend(number.to_be_bytes());
                }
            }
        }
        let length = message.len() - length_at - 2;
        super::put_u16(message, length_at, length as u16);
    }
}

/// An authoritative answer, at most `limit` octets: `answers` to the question, or a negative one with the SOA of `zone`
/// (RFC 2308 §3).
pub(in super::super) fn emit_local(
    query: &Query,
    recursion: bool,
    rcode: u16,
    answers: &[Record],
    zone: &Name,
    limit: usize,
) -> Vec<u8> {
    let mut message = head(query, recursion, bits::AUTHORITATIVE | rcode);
    let question_end = message.len();
    let opt = if query.edns.is_some() { 11 } else { 0 };
    let owner = 0xc000u16 | super::HEADER as u16;
    let mut count = 0u16;
    for record in answers {
        record.emit(&mut message, &owner.to_be_bytes(), zone.bytes());
        count = count.saturating_add(1);
        if message.len() > LONGEST {
            break;
        }
    }
    super::put_u16(&mut message, 6, count);
    if answers.is_empty() {
        Record::Authority.emit(&mut message, zone.bytes(), zone.bytes());
        super::put_u16(&mut message, 8, 1);
    }
    if message.len() + opt > limit.min(LONGEST) {
        truncate(&mut message, question_end);
    }
    if query.edns.is_some() {
        push_opt(&mut message, rcode, query.dnssec_ok(), &[]);
    }
    message
}

/// A reply that carries only a response code and, for clients that understand it, the reason.
pub(in super::super) fn emit_error(query: &Query, recursion: bool, rcode: u16, why: Option<Why>) -> Vec<u8> {
    let mut message = head(query, recursion, rcode & bits::RCODE);
    if query.edns.is_some() {
        let option = why.map(extended_error);
        push_opt(&mut message, rcode, query.dnssec_ok(), option.as_ref().map_or(&[], |option| option));
    }
    message
}

/// The reply to what is not a query, if any.
pub(in super::super) fn emit_refusal(refusal: &Refusal) -> Option<Vec<u8>> {
    match refusal {
        Refusal::Silent => None,
        Refusal::BadVersion(query) => Some(emit_error(query, false, rcode::BADVERS, None)),
        Refusal::Header { id, flags, rcode } => {
            let mut message = vec![0; super::HEADER];
            super::put_u16(&mut message, 0, *id);
            let kept = flags & (bits::OPCODE | bits::RECURSION_DESIRED);
            super::put_u16(&mut message, 2, bits::RESPONSE | kept | rcode);
            Some(message)
        }
    }
}

/// Header and question of a reply of ours, all counts but the question's zero.
fn head(query: &Query, recursion: bool, flags: u16) -> Vec<u8> {
    let available = if recursion { bits::RECURSION_AVAILABLE } else { 0 };
    let kept = query.flags & (bits::RECURSION_DESIRED | bits::CHECKING_DISABLED);
    let mut message = Vec::with_capacity(512);
    message.extend(query.id.to_be_bytes());
    message.extend((bits::RESPONSE | kept | available | flags).to_be_bytes());
    message.extend([0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(query.name.bytes());
    message.extend(query.qtype.to_be_bytes());
    message.extend(query.qclass.to_be_bytes());
    message
}
