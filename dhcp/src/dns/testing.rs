//! A test tool: messages made octet by octet, so that tests can also make what no codec would.

use hickory_proto::op::Message;

use super::wire::{Name, bits, rtype};

/// RD, as stub resolvers ask.
pub(super) const PLAIN: u16 = bits::RECURSION_DESIRED;

pub(super) fn name(text: &str) -> Name {
    if text == "." { Name::root() } else { Name::from_text(text).expect("a name") }
}

/// A query without EDNS.
pub(super) fn query(id: u16, text: &str, qtype: u16) -> Vec<u8> {
    query_with(id, PLAIN, text, qtype, None)
}

/// A query with the given header flags and, if asked for, an OPT of this size and DO bit.
pub(super) fn query_with(id: u16, flags: u16, text: &str, qtype: u16, edns: Option<(u16, bool)>) -> Vec<u8> {
    let mut message = Vec::new();
    for word in [id, flags, 1, 0, 0, u16::from(edns.is_some())] {
        message.extend(word.to_be_bytes());
    }
    message.extend(name(text).bytes());
    message.extend(qtype.to_be_bytes());
    message.extend(1u16.to_be_bytes());
    if let Some((size, dnssec_ok)) = edns {
        message.extend(opt(size, 0, dnssec_ok, &[]));
    }
    message
}

/// An OPT record.
pub(super) fn opt(size: u16, rcode_high: u8, dnssec_ok: bool, options: &[u8]) -> Vec<u8> {
    let mut record = vec![0, 0, 41];
    record.extend(size.to_be_bytes());
    record.extend([rcode_high, 0, if dnssec_ok { 0x80 } else { 0 }, 0]);
    record.extend((options.len() as u16).to_be_bytes());
    record.extend(options);
    record
}

/// A record with its owner written out.
pub(super) fn record(owner: &str, rtype: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    record_at(name(owner).bytes(), rtype, ttl, data)
}

/// A record whose owner is the question's name, compressed.
pub(super) fn of_question(rtype: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    record_at(&[0xc0, 12], rtype, ttl, data)
}

fn record_at(owner: &[u8], rtype: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = owner.to_vec();
    record.extend(rtype.to_be_bytes());
    record.extend([0, 1]);
    record.extend(ttl.to_be_bytes());
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(data);
    record
}

/// A SOA whose names are `zone`.
pub(super) fn soa(zone: &str, ttl: u32, minimum: u32) -> Vec<u8> {
    let mut data = name(zone).bytes().repeat(2);
    for number in [1, 2, 3, 4, minimum] {
        data.extend(number.to_be_bytes());
    }
    record(zone, rtype::SOA, ttl, &data)
}

/// What an upstream answers to `query`: these flags and code, these three sections.
pub(super) fn response(query: &[u8], flags: u16, sections: [&[Vec<u8>]; 3]) -> Vec<u8> {
    let mut message = query[..2].to_vec();
    message.extend((bits::RESPONSE | bits::RECURSION_DESIRED | bits::RECURSION_AVAILABLE | flags).to_be_bytes());
    message.extend([0, 1]);
    for section in sections {
        message.extend((section.len() as u16).to_be_bytes());
    }
    let end = 12 + query[12..].iter().position(|octet| *octet == 0).expect("a question") + 5;
    message.extend(&query[12..end]);
    message.extend(sections.concat().concat());
    message
}

/// Read by a codec that is not ours.
pub(super) fn read(message: &[u8]) -> Message {
    Message::from_vec(message).unwrap_or_else(|error| panic!("{error}: {message:02x?}"))
}
