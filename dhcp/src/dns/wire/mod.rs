//! DNS on the wire: what is needed to read a query, pass an answer on, and write our own.
//!
//! The contract of everything below: *parse* looks at every byte it uses once, in bounds, with work that grows with the
//! length of the message and never with its contents; after a successful parse nothing panics. Names that are
//! followed go backwards only. Forwarded answers stay the bytes the upstream sent: we know where their TTLs and
//! their OPT are and touch nothing else.
//!
//! Never here: sockets, time, or the decision what to answer.

mod local;
mod name;
mod query;
mod reply;
#[cfg(test)]
mod tests;

pub(super) use local::{Record, emit_error, emit_local, emit_refusal};
pub(super) use name::{Name, decimal_octet};
pub(super) use query::{Query, Refusal, emit_upstream_query};
pub(super) use reply::{Reply, Requester, header_of};

/// The fixed header (RFC 1035 §4.1.1), in octets.
pub(super) const HEADER: usize = 12;

/// What a datagram may carry when the sender says nothing (RFC 1035 §4.2.1), in octets.
pub(super) const PLAIN_UDP: usize = 512;

/// What we say we can take (RFC 6891 §6.2.3; 1280 less the IPv6 and UDP headers: never fragmented), in octets.
pub(super) const ADVERTISED_UDP: u16 = 1232;

/// The longest datagram we send, however much the client says it takes (RFC 6891 §6.2.5), in octets.
pub(super) const LONGEST_UDP: usize = 4096;

/// The longest message there is: what a TCP length prefix can say (RFC 1035 §4.2.2), in octets.
pub(super) const LONGEST: usize = 65535;

/// Header bits (RFC 1035 §4.1.1; AD and CD: RFC 4035 §3.2).
pub(super) mod bits {
    pub(in super::super) const RESPONSE: u16 = 0x8000;
    pub(in super::super) const OPCODE: u16 = 0x7800;
    pub(in super::super) const AUTHORITATIVE: u16 = 0x0400;
    pub(in super::super) const TRUNCATED: u16 = 0x0200;
    pub(in super::super) const RECURSION_DESIRED: u16 = 0x0100;
    pub(in super::super) const RECURSION_AVAILABLE: u16 = 0x0080;
    pub(in super::super) const AUTHENTIC: u16 = 0x0020;
    pub(in super::super) const CHECKING_DISABLED: u16 = 0x0010;
    pub(in super::super) const RCODE: u16 = 0x000f;
    /// In the OPT's TTL field (RFC 3225 §3).
    pub(in super::super) const DNSSEC_OK: u16 = 0x8000;
}

/// Response codes (RFC 1035 §4.1.1; BADVERS: RFC 6891 §9).
pub(super) mod rcode {
    pub(in super::super) const NOERROR: u16 = 0;
    pub(in super::super) const FORMERR: u16 = 1;
    pub(in super::super) const SERVFAIL: u16 = 2;
    pub(in super::super) const NXDOMAIN: u16 = 3;
    pub(in super::super) const NOTIMP: u16 = 4;
    pub(in super::super) const REFUSED: u16 = 5;
    pub(in super::super) const BADVERS: u16 = 16;
}

/// Record types we look at; every other one is passed through unread.
pub(super) mod rtype {
    pub(in super::super) const A: u16 = 1;
    pub(in super::super) const NS: u16 = 2;
    pub(in super::super) const CNAME: u16 = 5;
    pub(in super::super) const SOA: u16 = 6;
    pub(in super::super) const PTR: u16 = 12;
    pub(in super::super) const TXT: u16 = 16;
    pub(in super::super) const AAAA: u16 = 28;
    pub(in super::super) const SRV: u16 = 33;
    pub(in super::super) const OPT: u16 = 41;
    pub(in super::super) const DS: u16 = 43;
    pub(in super::super) const NSEC: u16 = 47;
    pub(in super::super) const DNSKEY: u16 = 48;
    pub(in super::super) const NSEC3: u16 = 50;
    pub(in super::super) const NSEC3PARAM: u16 = 51;
    pub(in super::super) const TKEY: u16 = 249;
    pub(in super::super) const TSIG: u16 = 250;
    pub(in super::super) const IXFR: u16 = 251;
    pub(in super::super) const AXFR: u16 = 252;
    pub(in super::super) const ANY: u16 = 255;
}

/// The Internet class.
pub(super) const CLASS_IN: u16 = 1;

/// Extended DNS errors (RFC 8914 §4): the reason beside the response code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// We are the wrong server for this (isolated network, or too many questions in flight).
    Prohibited,
    /// No upstream resolver is known, or none answered.
    NoReachableAuthority,
}

impl Why {
    fn code(self) -> u16 {
        match self {
            Why::Prohibited => 18,
            Why::NoReachableAuthority => 22,
        }
    }
}

/// Why bytes are not a message: layer, place, need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error("{what} at octet {offset} needs {needed} octets, the message has {had} left")]
    Short { what: &'static str, offset: usize, needed: usize, had: usize },
    #[error("the label at octet {offset} has the unknown kind {kind:#04x}")]
    LabelKind { offset: usize, kind: u8 },
    #[error("the name at octet {offset} is compressed, which a question can't be")]
    CompressedQuestion { offset: usize },
    #[error("the pointer at octet {offset} does not go backwards")]
    PointerForward { offset: usize },
    #[error("the name at octet {offset} is longer than 255 octets or made of too many pieces")]
    NameTooLong { offset: usize },
    #[error("{0} questions where there must be one")]
    Questions(u16),
    #[error("the message is a query where a response must be")]
    NotAResponse,
    #[error("more than one OPT record, or one out of place")]
    StrayOpt,
}

/// `N` octets at `at`, or what is missing.
fn take<const N: usize>(message: &[u8], at: usize, what: &'static str) -> Result<[u8; N], WireError> {
    let rest = message.get(at..).unwrap_or_default();
    rest.first_chunk::<N>().copied().ok_or(WireError::Short { what, offset: at, needed: N, had: rest.len() })
}

fn u16_at(message: &[u8], at: usize, what: &'static str) -> Result<u16, WireError> {
    take::<2>(message, at, what).map(u16::from_be_bytes)
}

/// Writes `value` at `at`; the caller has parsed a field there before.
fn put_u16(message: &mut [u8], at: usize, value: u16) {
    if let Some(field) = message.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// One resource record's frame (RFC 1035 §4.1.3); the data itself is not read.
struct Frame {
    start: usize,
    rtype: u16,
    class: u16,
    /// Where the TTL field stands.
    ttl_at: usize,
    ttl: u32,
    /// Where the data starts.
    data: usize,
    /// Where the next record starts.
    end: usize,
    /// The owner is the root: a lone zero octet.
    root_owner: bool,
}

impl Frame {
    fn parse(message: &[u8], start: usize) -> Result<Frame, WireError> {
        let fixed = name::skip(message, start)?;
        let rtype = u16_at(message, fixed, "record type")?;
        let class = u16_at(message, fixed + 2, "record class")?;
        let ttl = u32::from_be_bytes(take(message, fixed + 4, "record TTL")?);
        let length = usize::from(u16_at(message, fixed + 8, "record length")?);
        let data = fixed + 10;
        let had = message.len().saturating_sub(data);
        if length > had {
            return Err(WireError::Short { what: "record data", offset: data, needed: length, had });
        }
        let root_owner = fixed == start + 1;
        Ok(Frame { start, rtype, class, ttl_at: fixed + 4, ttl, data, end: data + length, root_owner })
    }
}

/// Cuts a response down to header and question (and OPT, added later by the caller) with TC set (RFC 2181 §9).
fn truncate(response: &mut Vec<u8>, question_end: usize) {
    response.truncate(question_end);
    if let Ok(flags) = u16_at(response, 2, "flags") {
        put_u16(response, 2, flags | bits::TRUNCATED);
    }
    for count in [6, 8, 10] {
        put_u16(response, count, 0);
    }
}

/// Appends our OPT (RFC 6891 §6.1.2) and counts it. `rcode` is the whole 12 bits; `option` is whole options or empty.
fn push_opt(response: &mut Vec<u8>, rcode: u16, dnssec_ok: bool, option: &[u8]) {
    response.push(0);
    response.extend(rtype::OPT.to_be_bytes());
    response.extend(ADVERTISED_UDP.to_be_bytes());
    response.extend([(rcode >> 4) as u8, 0]);
    response.extend(if dnssec_ok { bits::DNSSEC_OK } else { 0 }.to_be_bytes());
    response.extend((option.len() as u16).to_be_bytes());
    response.extend(option);
    let additional = u16_at(response, 10, "additional count").unwrap_or(0);
    put_u16(response, 10, additional.saturating_add(1));
}

/// The EDNS option that carries an extended error (RFC 8914 §2).
fn extended_error(why: Why) -> [u8; 6] {
    let [high, low] = why.code().to_be_bytes();
    [0, EXTENDED_ERROR as u8, 0, 2, high, low]
}

/// The option code of an extended error.
const EXTENDED_ERROR: u16 = 15;
