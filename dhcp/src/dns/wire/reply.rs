//! An upstream's answer: checked once, then carried as the bytes that came.
//!
//! What is taken out is the OPT record (it belongs to one hop) and anything after the last record. What is known about
//! the rest is where its TTLs stand and how long it may be kept.

use super::{
    EXTENDED_ERROR, Frame, HEADER, LONGEST, Name, Query, Why, WireError, bits, emit_error, extended_error, push_opt,
    put_u16, rcode, rtype, take, truncate, u16_at,
};

/// A TTL with the top bit set is 0 (RFC 2181 §8).
const TTL_SIGN: u32 = 1 << 31;

/// SOA data is two names and five numbers; the shortest has two root names.
const SHORTEST_SOA: usize = 22;

/// An answer from upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Reply {
    /// The message without OPT; a section count never names more than is there.
    bytes: Box<[u8]>,
    /// Where the TTL fields stand. Two octets are enough for any place in a message.
    ttls: Box<[u16]>,
    /// All twelve bits (RFC 6891 §6.1.3).
    rcode: u16,
    /// Whether it had an OPT record.
    edns: bool,
    /// The extended error options it came with, whole (RFC 8914 §3 lets a forwarder pass them on).
    errors: Box<[u8]>,
    /// How long it may be kept, in seconds; `None` if it may not be at all.
    lifetime: Option<u32>,
    /// A negative answer's SOA: where its TTL stands, and what that counts down from once kept (RFC 2308 §5).
    negative: Option<(usize, u32)>,
    /// The question as the upstream repeats it, case kept.
    name: Name,
    qtype: u16,
    qclass: u16,
}

/// To whom a reply goes, and how.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Requester<'a> {
    /// What it asked.
    pub(in super::super) query: &'a Query,
    /// How long the message may be, in octets.
    pub(in super::super) limit: usize,
    /// Whole seconds since the reply came.
    pub(in super::super) age: u32,
    /// It comes from the cache: not authoritative, whatever it was then.
    pub(in super::super) cached: bool,
}

/// The id and the header's four bits of response code, if this is a response at all.
pub(in super::super) fn header_of(message: &[u8]) -> Option<(u16, u16)> {
    let (id, flags) = (u16_at(message, 0, "id").ok()?, u16_at(message, 2, "flags").ok()?);
    (message.len() >= HEADER && flags & bits::RESPONSE != 0).then_some((id, flags & bits::RCODE))
}

/// What the walk over the records collects.
#[derive(Default)]
struct Walk {
    ttls: Vec<u16>,
    /// The least TTL of answer and authority.
    least: Option<u32>,
    /// Answer records of the type asked for.
    matching: usize,
    /// Authority's SOA: where its TTL stands, and the time a negative answer may be kept (RFC 2308 §5).
    soa: Option<(usize, u32)>,
    opt: Option<Opt>,
}

struct Opt {
    start: usize,
    /// The records of the additional section before it.
    before: u16,
    rcode_high: u8,
    errors: Vec<u8>,
}

impl Reply {
    /// Checks and takes over a response: one question, every record whole.
    pub(in super::super) fn parse(message: &[u8]) -> Result<Reply, WireError> {
        let flags = u16_at(message, 2, "flags")?;
        if flags & (bits::RESPONSE | bits::OPCODE) != bits::RESPONSE {
            return Err(WireError::NotAResponse);
        }
        let questions = u16_at(message, 4, "question count")?;
        if questions != 1 {
            return Err(WireError::Questions(questions));
        }
        let name = Name::parse(message, HEADER)?;
        let at = HEADER + name.bytes().len();
        let (qtype, qclass) = (u16_at(message, at, "question type")?, u16_at(message, at + 2, "question class")?);
        let (walk, end) = walk(message, at + 4, qtype)?;

        let mut bytes = message[..end].to_vec();
        let mut ttls = walk.ttls;
        let (mut errors, mut high) = (Vec::new(), 0);
        let edns = walk.opt.is_some();
        if let Some(opt) = walk.opt {
            (errors, high) = (opt.errors, opt.rcode_high);
            // Records after an OPT (never seen, but legal) may point at each other: they are additional, they go too.
            bytes.truncate(opt.start);
            ttls.retain(|&ttl| usize::from(ttl) < opt.start);
            put_u16(&mut bytes, 10, opt.before);
        }
        let rcode = u16::from(high) << 4 | flags & bits::RCODE;
        let lifetime = match rcode {
            rcode::NOERROR if walk.matching > 0 => walk.least,
            rcode::NOERROR | rcode::NXDOMAIN => walk.soa.and_then(|(_, negative)| Some(walk.least?.min(negative))),
            _ => None,
        };
        let negative = walk.soa.filter(|_| walk.matching == 0);
        let lifetime = lifetime.filter(|_| flags & bits::TRUNCATED == 0);
        let (bytes, ttls, errors) = (bytes.into(), ttls.into(), errors.into());
        Ok(Reply { bytes, ttls, rcode, edns, errors, lifetime, negative, name, qtype, qclass })
    }

    /// The answer to `query` when no upstream gave one.
    pub(in super::super) fn failure(query: &Query, why: Why) -> Reply {
        let plain = Query { edns: None, ..query.clone() };
        Reply {
            bytes: emit_error(&plain, true, rcode::SERVFAIL, None).into(),
            ttls: Box::default(),
            rcode: rcode::SERVFAIL,
            edns: false,
            errors: extended_error(why).into(),
            lifetime: None,
            negative: None,
            name: query.name.clone(),
            qtype: query.qtype,
            qclass: query.qclass,
        }
    }

    /// Whether it repeats this question, case aside.
    pub(in super::super) fn answers(&self, query: &Query) -> bool {
        self.qtype == query.qtype
            && self.qclass == query.qclass
            && self.name.bytes().eq_ignore_ascii_case(query.name.bytes())
    }

    /// All twelve bits of the response code.
    pub(in super::super) fn rcode(&self) -> u16 {
        self.rcode
    }

    /// Whether the upstream understood our OPT.
    pub(in super::super) fn edns(&self) -> bool {
        self.edns
    }

    /// Whether the upstream had more to say than fits a datagram.
    pub(in super::super) fn truncated(&self) -> bool {
        self.flags() & bits::TRUNCATED != 0
    }

    /// How long it may be kept, in seconds: the least TTL, or RFC 2308's for negative answers; `None` if not at all.
    pub(in super::super) fn lifetime(&self) -> Option<u32> {
        self.lifetime.filter(|&seconds| seconds > 0)
    }

    /// Whether it says that something is not there.
    pub(in super::super) fn is_negative(&self) -> bool {
        self.negative.is_some()
    }

    /// Whether it says that nobody could tell.
    pub(in super::super) fn is_failure(&self) -> bool {
        self.rcode == rcode::SERVFAIL
    }

    /// What keeping it costs, in octets.
    pub(in super::super) fn footprint(&self) -> usize {
        size_of::<Reply>() + self.bytes.len() + 2 * self.ttls.len() + self.errors.len() + self.name.bytes().len()
    }

    /// The message for one client: its id, its spelling of the name, its OPT or none, TTLs less the age.
    pub(in super::super) fn emit(&self, to: Requester<'_>) -> Vec<u8> {
        let Requester { query, limit, age, cached } = to;
        if self.rcode > bits::RCODE && query.edns.is_none() {
            return emit_error(query, true, rcode::SERVFAIL, None);
        }
        let mut message = Vec::with_capacity(self.bytes.len() + 11 + self.errors.len());
        message.extend(&*self.bytes);
        put_u16(&mut message, 0, query.id);
        put_u16(&mut message, 2, self.flags_for(query, cached));
        if let Some(name) = message.get_mut(HEADER..HEADER + self.name.bytes().len())
            && name.len() == query.name.bytes().len()
        {
            name.copy_from_slice(query.name.bytes());
        }
        for &at in &self.ttls {
            let at = usize::from(at);
            if let Ok(ttl) = take::<4>(&message, at, "TTL").map(u32::from_be_bytes) {
                let ttl = if ttl & TTL_SIGN == 0 { ttl } else { 0 };
                let from = self.negative.filter(|&(soa, _)| cached && soa == at).map_or(ttl, |(_, limit)| limit);
                let left = from.saturating_sub(age);
                message[at..at + 4].copy_from_slice(&left.to_be_bytes());
            }
        }
        let opt = if query.edns.is_some() { 11 + self.errors.len() } else { 0 };
        let mut errors = &*self.errors;
        if message.len() + opt > limit.min(LONGEST) {
            truncate(&mut message, query.question_end());
            if message.len() + opt > limit {
                errors = &[];
            }
        }
        if query.edns.is_some() {
            push_opt(&mut message, self.rcode, query.dnssec_ok(), errors);
        }
        message
    }

    fn flags(&self) -> u16 {
        u16_at(&self.bytes, 2, "flags").unwrap_or(0)
    }

    /// AD only for who asked for it, by AD or by DO (RFC 6840 §5.7, §5.8); RD and CD as the client had them.
    fn flags_for(&self, query: &Query, cached: bool) -> u16 {
        let mine = bits::RECURSION_DESIRED | bits::CHECKING_DISABLED;
        let mut flags = self.flags() & !mine | query.flags & mine | bits::RECURSION_AVAILABLE;
        if query.flags & bits::AUTHENTIC == 0 && !query.dnssec_ok() {
            flags &= !bits::AUTHENTIC;
        }
        if cached {
            flags &= !bits::AUTHORITATIVE;
        }
        flags
    }
}

/// Goes over every record once; says also where the last one ends.
fn walk(message: &[u8], mut at: usize, qtype: u16) -> Result<(Walk, usize), WireError> {
    let mut walk = Walk::default();
    for (section, count_at) in [6, 8, 10].into_iter().enumerate() {
        let count = u16_at(message, count_at, "record count")?;
        for index in 0..count {
            let frame = Frame::parse(message, at)?;
            at = frame.end;
            if frame.rtype == rtype::OPT {
                if section != 2 || walk.opt.is_some() || !frame.root_owner {
                    return Err(WireError::StrayOpt);
                }
                let [rcode_high, ..] = frame.ttl.to_be_bytes();
                let errors = extended_errors(&message[frame.data..frame.end]);
                walk.opt = Some(Opt { start: frame.start, before: index, rcode_high, errors });
                continue;
            }
            let ttl = if frame.ttl & TTL_SIGN == 0 { frame.ttl } else { 0 };
            // Offsets past 65535 can't be: a message is no longer.
            if let Ok(place) = u16::try_from(frame.ttl_at) {
                walk.ttls.push(place);
            }
            if section < 2 {
                walk.least = Some(walk.least.map_or(ttl, |least| least.min(ttl)));
            }
            if section == 0 && (frame.rtype == qtype || qtype == rtype::ANY) {
                walk.matching += 1;
            }
            if section == 1 && frame.rtype == rtype::SOA && frame.end - frame.data >= SHORTEST_SOA {
                let minimum = u32::from_be_bytes(take(message, frame.end - 4, "SOA minimum")?);
                walk.soa.get_or_insert((frame.ttl_at, ttl.min(minimum)));
            }
        }
    }
    Ok((walk, at))
}

/// The extended error options among an OPT's, whole. A broken option list is cut where it breaks.
fn extended_errors(mut options: &[u8]) -> Vec<u8> {
    let mut errors = Vec::new();
    while let (Ok(code), Ok(length)) = (u16_at(options, 0, "option"), u16_at(options, 2, "option length")) {
        let Some((option, rest)) = options.split_at_checked(4 + usize::from(length)) else { break };
        if code == EXTENDED_ERROR {
            errors.extend(option);
        }
        options = rest;
    }
    errors
}
