//! Queries: reading a client's, writing the one we ask upstream.

use super::{Frame, HEADER, LONGEST_UDP, Name, PLAIN_UDP, WireError, bits, push_opt, rcode, rtype, u16_at};

/// What a client asked, and what it can take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Query {
    /// The client's id.
    pub(in super::super) id: u16,
    /// The header's second word as it came.
    pub(in super::super) flags: u16,
    /// The name, case kept.
    pub(in super::super) name: Name,
    /// The type asked for.
    pub(in super::super) qtype: u16,
    /// The class asked for.
    pub(in super::super) qclass: u16,
    /// Its OPT record, if it sent one.
    pub(in super::super) edns: Option<Edns>,
}

/// What we take from a client's OPT record (RFC 6891 §6.1). Its options are for one hop and end here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Edns {
    /// The largest datagram it takes, in octets.
    pub(in super::super) size: u16,
    /// It wants DNSSEC records.
    pub(in super::super) dnssec_ok: bool,
}

/// What is done with bytes that are not a query we can work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Refusal {
    /// Nothing: too short for an id, or a response (answering one would let two servers talk for ever).
    Silent,
    /// A bare header with this response code.
    Header { id: u16, flags: u16, rcode: u16 },
    /// EDNS of a version we don't know (RFC 6891 §6.1.3).
    BadVersion(Query),
}

impl Query {
    /// Reads a query. One question, no compression, at most one OPT, nothing in answer and authority.
    pub(in super::super) fn parse(message: &[u8]) -> Result<Query, Refusal> {
        let word = |at| u16_at(message, at, "header").map_err(|_| Refusal::Silent);
        let (id, flags) = (word(0)?, word(2)?);
        if message.len() < HEADER || flags & bits::RESPONSE != 0 {
            return Err(Refusal::Silent);
        }
        let refuse = |rcode| Refusal::Header { id, flags, rcode };
        if flags & bits::OPCODE != 0 {
            return Err(refuse(rcode::NOTIMP));
        }
        if word(4)? != 1 || word(6)? != 0 || word(8)? != 0 {
            return Err(refuse(rcode::FORMERR));
        }
        let parsed = Name::parse(message, HEADER).and_then(|name| {
            let at = HEADER + name.bytes().len();
            let (qtype, qclass) = (u16_at(message, at, "question type")?, u16_at(message, at + 2, "question class")?);
            let (edns, version) = parse_opt(message, at + 4, u16_at(message, 10, "additional count")?)?;
            Ok((Query { id, flags, name, qtype, qclass, edns }, version))
        });
        match parsed {
            Err(_) => Err(refuse(rcode::FORMERR)),
            Ok((query, 0)) => Ok(query),
            Ok((query, _)) => Err(Refusal::BadVersion(query)),
        }
    }

    /// Whether the client asked for DNSSEC records.
    pub(in super::super) fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// How long a datagram to this client may be (RFC 6891 §6.2.3 to §6.2.5), in octets.
    pub(in super::super) fn udp_limit(&self) -> usize {
        self.edns.map_or(PLAIN_UDP, |edns| usize::from(edns.size).clamp(PLAIN_UDP, LONGEST_UDP))
    }

    /// Where the question ends in a message that repeats it.
    pub(in super::super) fn question_end(&self) -> usize {
        HEADER + self.name.bytes().len() + 4
    }
}

/// Looks through the additional section for the one OPT; also says its version.
fn parse_opt(message: &[u8], mut at: usize, count: u16) -> Result<(Option<Edns>, u8), WireError> {
    let mut found = None;
    for _ in 0..count {
        let frame = Frame::parse(message, at)?;
        if frame.rtype == rtype::OPT {
            if found.is_some() || !frame.root_owner {
                return Err(WireError::StrayOpt);
            }
            let [_, version, high, _] = frame.ttl.to_be_bytes();
            let dnssec_ok = u16::from(high) << 8 & bits::DNSSEC_OK != 0;
            found = Some((Edns { size: frame.class, dnssec_ok }, version));
        }
        at = frame.end;
    }
    Ok(found.map_or((None, 0), |(edns, version)| (Some(edns), version)))
}

/// The query we ask an upstream for `query`'s sake: our id, the name folded, our own OPT unless the upstream is too old
/// for one. AD says that we understand AD in the reply (RFC 6840 §5.7).
pub(in super::super) fn emit_upstream_query(query: &Query, id: u16, edns: bool) -> Vec<u8> {
    let flags = query.flags & (bits::RECURSION_DESIRED | bits::CHECKING_DISABLED) | bits::AUTHENTIC;
    let mut message = Vec::with_capacity(query.question_end() + 11);
    message.extend(id.to_be_bytes());
    message.extend(flags.to_be_bytes());
    message.extend([0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(query.name.folded().bytes());
    message.extend(query.qtype.to_be_bytes());
    message.extend(query.qclass.to_be_bytes());
    if edns {
        push_opt(&mut message, rcode::NOERROR, query.dnssec_ok(), &[]);
    }
    message
}
