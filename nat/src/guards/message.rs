//! Netlink messages for elements of our table, and the counter in the kernel's answer. Pure: bytes in and out.
//!
//! The layout is linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h: a header, the family, then attributes
//! (length, type, value, padded to four bytes), some of which hold attributes again. All of a transaction lies in one
//! buffer between BATCH_BEGIN and BATCH_END, and is done whole or not at all.

use std::{net::Ipv6Addr, time::Duration};

use super::{Change, Element, Of, With, claims::Claim};

/// `NFPROTO_BRIDGE`.
const BRIDGE: u8 = 7;

/// `NFNL_SUBSYS_NFTABLES`: the upper byte of a message's type, and whose the batch is.
const NFTABLES: u16 = 10;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// `enum nf_tables_msg_types`.
const DELETE_CHAIN: u16 = NFTABLES << 8 | 5;
const DELETE_RULE: u16 = NFTABLES << 8 | 8;
const NEW_ELEMENT: u16 = NFTABLES << 8 | 12;
const GET_ELEMENT: u16 = NFTABLES << 8 | 13;
const DELETE_ELEMENT: u16 = NFTABLES << 8 | 14;

/// `NLMSG_ERROR`: an answer that carries an errno, 0 for done.
const ERROR: u16 = 2;

/// `NLMSG_DONE`: the end of a dump.
const DONE: u16 = 3;

/// `NLM_F_DUMP`.
const DUMP: u16 = 0x300;

/// `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_CREATE`. Without `NLM_F_EXCL` an element that is there already is no error.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// `NFTA_SET_ELEM_LIST_TABLE`, `_SET`, `_ELEMENTS`; `NFTA_LIST_ELEM`.
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;

/// `NFTA_SET_ELEM_KEY`, `_DATA`, `_EXPIRATION`, `_EXPR`; `NFTA_DATA_VALUE`, `_VERDICT`; `NFTA_VERDICT_CODE`, `_CHAIN`.
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_EXPIRATION: u16 = 5;
const ELEMENT_EXPRESSION: u16 = 7;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// `NFT_JUMP`, `NFT_GOTO`.
const JUMP: i32 = -3;
const GOTO: i32 = -4;

/// `NFTA_EXPR_DATA`, `NFTA_COUNTER_PACKETS`.
const EXPRESSION_DATA: u16 = 2;
const COUNTER_PACKETS: u16 = 2;

/// `NFTA_CHAIN_TABLE`, `_NAME`; `NFTA_RULE_TABLE`, `_CHAIN`.
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;

/// `struct nlmsghdr`, and with `struct nfgenmsg` behind it.
const HEADER: usize = 16;
const PREAMBLE: usize = HEADER + 4;

/// `IFNAMSIZ`: how long an interface name is in a key.
const NAME: usize = 16;

/// A transaction, and the sequence number of its last message that is answered.
pub(super) fn batch(changes: &[Change]) -> (Vec<u8>, u32) {
    let mut bytes = Vec::new();
    let mut sequence = 0;
    message(&mut bytes, BATCH_BEGIN, REQUEST, sequence, 0, |_| {});
    let mut tell = |kind, flags, body: &dyn Fn(&mut Vec<u8>)| {
        sequence += 1;
        message(&mut bytes, kind, REQUEST | ACK | flags, sequence, BRIDGE, body);
    };
    for change in changes {
        match change {
            Change::Add(element) => tell(NEW_ELEMENT, CREATE, &|to| list(to, element)),
            Change::Remove(element) => {
                // Deleting what is not there would fail the whole transaction.
                tell(NEW_ELEMENT, CREATE, &|to| list(to, element));
                tell(DELETE_ELEMENT, 0, &|to| list(to, element));
            }
            Change::RemoveChain(chain) => {
                tell(DELETE_RULE, 0, &|to| {
                    string(to, RULE_TABLE, crate::TABLE);
                    string(to, RULE_CHAIN, chain);
                });
                tell(DELETE_CHAIN, 0, &|to| {
                    string(to, CHAIN_TABLE, crate::TABLE);
                    string(to, CHAIN_NAME, chain);
                });
            }
        }
    }
    message(&mut bytes, BATCH_END, REQUEST, sequence + 1, 0, |_| {});
    (bytes, sequence)
}

/// Asks for one element.
pub(super) fn get(element: &Element) -> Vec<u8> {
    let mut bytes = Vec::new();
    message(&mut bytes, GET_ELEMENT, REQUEST, 1, BRIDGE, |to| list(to, element));
    bytes
}

/// Asks for all elements of a set.
pub(super) fn list_set(set: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    message(&mut bytes, GET_ELEMENT, REQUEST | DUMP, 1, BRIDGE, |to| {
        string(to, LIST_TABLE, crate::TABLE);
        string(to, LIST_SET, set);
    });
    bytes
}

/// The messages in a datagram: type, sequence number, and what stands behind the header.
pub(super) fn answers(mut bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Answer { kind, sequence, body })
    })
}

/// A message of the kernel's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    kind: u16,
    pub(super) sequence: u32,
    body: &'a [u8],
}

impl Answer<'_> {
    /// The errno, 0 for done, if it is one.
    pub(super) fn errno(&self) -> Option<i32> {
        let errno = i32::from_ne_bytes(self.body.get(..4)?.try_into().ok()?);
        (self.kind == ERROR).then_some(errno.wrapping_neg())
    }

    /// Whether a dump ends with it.
    pub(super) fn is_last(&self) -> bool {
        self.kind == DONE
    }

    /// The claims in it, if it has elements of `owned6`.
    pub(super) fn claims(&self) -> Vec<Claim> {
        let list = || {
            let attributes = self.body.get(PREAMBLE - HEADER..)?;
            (self.kind == NEW_ELEMENT).then(|| find(attributes, LIST_ELEMENTS)).flatten()
        };
        attributes(list().unwrap_or_default()).filter_map(|(_, element)| claim(element)).collect()
    }

    /// The packets that the element in it has counted.
    pub(super) fn packets(&self) -> Option<u64> {
        if self.kind != NEW_ELEMENT {
            return None;
        }
        let path = [LIST_ELEMENTS, LIST_ELEMENT, ELEMENT_EXPRESSION, EXPRESSION_DATA, COUNTER_PACKETS];
        let attributes = self.body.get(PREAMBLE - HEADER..)?;
        let value = path.into_iter().try_fold(attributes, |within, kind| find(within, kind))?;
        Some(u64::from_be_bytes(value.try_into().ok()?))
    }
}

/// One element of `owned6`.
fn claim(element: &[u8]) -> Option<Claim> {
    let key = find(find(element, ELEMENT_KEY)?, DATA_VALUE)?;
    let (name, address) = key.split_at_checked(NAME)?;
    let name = name.split(|byte| *byte == 0).next()?;
    let left = find(element, ELEMENT_EXPIRATION).and_then(|value| value.try_into().ok());
    Some(Claim {
        interface: String::from_utf8(name.to_vec()).ok()?,
        address: Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?),
        left: left.map(|bytes| Duration::from_millis(u64::from_be_bytes(bytes))),
    })
}

/// The value of the first attribute of a type.
fn find(list: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(list).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// The attributes of a list, each with its type.
fn attributes(mut list: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(list.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(list.get(2..4)?.try_into().ok()?);
        let value = list.get(4..length)?;
        list = list.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !NESTED, value))
    })
}

fn message(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, family: u8, body: impl Fn(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend([0; 4]);
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    // The last two bytes say whose a batch is; elsewhere they mean nothing.
    let [high, low] = if family == 0 { NFTABLES.to_be_bytes() } else { [0; 2] };
    bytes.extend([family, 0, high, low]);
    body(bytes);
    let length = (bytes.len() - start) as u32;
    bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

/// An element in its set.
fn list(to: &mut Vec<u8>, element: &Element) {
    string(to, LIST_TABLE, crate::TABLE);
    string(to, LIST_SET, element.set);
    attribute(to, LIST_ELEMENTS | NESTED, |to| {
        attribute(to, LIST_ELEMENT | NESTED, |to| {
            attribute(to, ELEMENT_KEY | NESTED, |to| attribute(to, DATA_VALUE, |to| to.extend(key(element))));
            let verdict = match &element.with {
                With::Jump(chain) => Some((JUMP, chain)),
                With::Goto(chain) => Some((GOTO, chain)),
                _ => None,
            };
            if let Some((code, chain)) = verdict {
                attribute(to, ELEMENT_DATA | NESTED, |to| {
                    attribute(to, DATA_VERDICT | NESTED, |to| {
                        attribute(to, VERDICT_CODE, |to| to.extend(code.to_be_bytes()));
                        string(to, VERDICT_CHAIN, chain);
                    });
                });
            }
        });
    });
}

/// The interface name, filled up with zeroes, or the group; and what stands beside it, filled up to four bytes.
fn key(element: &Element) -> Vec<u8> {
    let mut key = match &element.of {
        Of::Interface(name) => {
            let mut name = name.clone().into_bytes();
            name.resize(NAME, 0);
            name
        }
        // The one number in the host's order: it is compared with one of the kernel's, not with a packet's bytes.
        Of::Network(group) => group.to_ne_bytes().to_vec(),
    };
    match &element.with {
        With::Mac(mac) | With::Lladdr(mac) => key.extend(mac),
        With::Address(address) => key.extend(address.octets()),
        With::Address6(address) => key.extend(address.octets()),
        With::Nothing | With::Jump(_) | With::Goto(_) => {}
    }
    key.resize(key.len().next_multiple_of(4), 0);
    key
}

fn string(to: &mut Vec<u8>, kind: u16, text: &str) {
    attribute(to, kind, |to| {
        to.extend(text.as_bytes());
        to.push(0);
    });
}

fn attribute(to: &mut Vec<u8>, kind: u16, value: impl Fn(&mut Vec<u8>)) {
    let start = to.len();
    to.extend([0; 2]);
    to.extend(kind.to_ne_bytes());
    value(to);
    // Names are short: no attribute of ours comes near 64 KiB.
    let length = (to.len() - start) as u16;
    to[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    to.resize(to.len().next_multiple_of(4), 0);
}
