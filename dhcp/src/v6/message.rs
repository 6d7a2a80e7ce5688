//! A DHCPv6 message on the wire (RFC 8415 §8, §9, §21.1): a kind, a transaction and options, maybe inside relays'.
//!
//! Parsing turns bytes into a value or says why not; no input panics or makes anything large.

use std::net::Ipv6Addr;

use crate::config::Mac;

/// Message types (RFC 8415 §7.3).
#[expect(missing_docs, reason = "the names are the documentation")]
pub mod kind {
    pub const SOLICIT: u8 = 1;
    pub const ADVERTISE: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const CONFIRM: u8 = 4;
    pub const RENEW: u8 = 5;
    pub const REBIND: u8 = 6;
    pub const REPLY: u8 = 7;
    pub const RELEASE: u8 = 8;
    pub const DECLINE: u8 = 9;
    pub const INFORMATION_REQUEST: u8 = 11;
    pub const RELAY_FORWARD: u8 = 12;
    pub const RELAY_REPLY: u8 = 13;
}

/// Option codes, by their names in RFC 8415 §21 unless another is given.
#[expect(missing_docs, reason = "the names are the documentation")]
pub mod code {
    pub const CLIENT_ID: u16 = 1;
    pub const SERVER_ID: u16 = 2;
    pub const IA_NA: u16 = 3;
    pub const IA_TA: u16 = 4;
    pub const IA_ADDRESS: u16 = 5;
    pub const OPTION_REQUEST: u16 = 6;
    pub const PREFERENCE: u16 = 7;
    pub const RELAY_MESSAGE: u16 = 9;
    pub const STATUS: u16 = 13;
    pub const RAPID_COMMIT: u16 = 14;
    pub const INTERFACE_ID: u16 = 18;
    /// RFC 3646 §3.
    pub const DNS_SERVERS: u16 = 23;
    /// RFC 3646 §4.
    pub const DOMAIN_LIST: u16 = 24;
    pub const IA_PD: u16 = 25;
    pub const REFRESH_TIME: u16 = 32;
    /// RFC 4704 §4.
    pub const CLIENT_FQDN: u16 = 39;
    /// RFC 6939 §4.
    pub const CLIENT_LINK_LAYER: u16 = 79;
}

/// Relays in a row (RFC 8415 §7.6, `HOP_COUNT_LIMIT`).
const MAX_RELAYS: usize = 8;

/// Options in one message: no client has nearly as many.
const MAX_OPTIONS: usize = 256;

/// Why bytes are no DHCPv6 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A header or option reaches past the end.
    #[error("it is cut short")]
    Short,
    /// More options than a message can reasonably have.
    #[error("it has more than {MAX_OPTIONS} options")]
    Options,
    /// Too many relays in a row, or a relay's message without one inside.
    #[error("what relays put around it makes no sense")]
    Relays,
}

/// Options in their order; a code may come more than once.
pub type Options<'a> = Vec<(u16, &'a [u8])>;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its type, one of [`kind`].
    pub kind: u8,
    /// The transaction id.
    pub xid: [u8; 3],
    /// Its options.
    pub options: Options<'a>,
}

/// What a relay put around a message (RFC 8415 §9.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay<'a> {
    /// Relays it passed before this one.
    pub hops: u8,
    /// Where the client is.
    pub link: Ipv6Addr,
    /// Whom the relay had it from.
    pub peer: Ipv6Addr,
    /// To be sent back as it came (§21.18).
    pub interface_id: Option<&'a [u8]>,
    /// The client's MAC (RFC 6939), if the relay says so.
    pub mac: Option<Mac>,
}

/// Reads a message, and what relays put around it, the outermost first.
pub fn parse(mut bytes: &[u8]) -> Result<(Vec<Relay<'_>>, Message<'_>), WireError> {
    let mut relays = Vec::new();
    while bytes.first() == Some(&kind::RELAY_FORWARD) {
        if relays.len() == MAX_RELAYS {
            return Err(WireError::Relays);
        }
        let (head, tail) = bytes.split_at_checked(34).ok_or(WireError::Short)?;
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&head[at..at + 16]);
            Ipv6Addr::from(octets)
        };
        let options = options(tail)?;
        let mac = match find(&options, code::CLIENT_LINK_LAYER) {
            // Of type 1, Ethernet.
            Some([0, 1, a, b, c, d, e, f]) => Some(Mac([*a, *b, *c, *d, *e, *f])),
            _ => None,
        };
        relays.push(Relay {
            hops: head[1],
            link: address(2),
            peer: address(18),
            interface_id: find(&options, code::INTERFACE_ID),
            mac,
        });
        bytes = find(&options, code::RELAY_MESSAGE).ok_or(WireError::Relays)?;
    }
    let [kind, a, b, c, ref rest @ ..] = *bytes else { return Err(WireError::Short) };
    Ok((relays, Message { kind, xid: [a, b, c], options: options(rest)? }))
}

/// Reads options, to the end of the bytes.
pub fn options(mut bytes: &[u8]) -> Result<Options<'_>, WireError> {
    let mut list = Vec::new();
    while !bytes.is_empty() {
        let [a, b, c, d, ref rest @ ..] = *bytes else { return Err(WireError::Short) };
        let length = usize::from(u16::from_be_bytes([c, d]));
        let (value, rest) = rest.split_at_checked(length).ok_or(WireError::Short)?;
        if list.len() == MAX_OPTIONS {
            return Err(WireError::Options);
        }
        list.push((u16::from_be_bytes([a, b]), value));
        bytes = rest;
    }
    Ok(list)
}

/// The first option with this code.
pub fn find<'a>(options: &Options<'a>, code: u16) -> Option<&'a [u8]> {
    options.iter().find(|(known, _)| *known == code).map(|(_, value)| *value)
}

/// Appends an option. A value that is longer than an option can be is left out: none of ours is.
pub fn push(bytes: &mut Vec<u8>, code: u16, value: &[u8]) {
    let Ok(length) = u16::try_from(value.len()) else { return };
    bytes.extend(code.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend(value);
}

impl Message<'_> {
    /// The message as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind];
        bytes.extend(self.xid);
        self.options.iter().for_each(|(code, value)| push(&mut bytes, *code, value));
        bytes
    }
}
