//! The guards' elements as netlink messages, and what the kernel says of them. Pure: bytes in and out.

use std::{net::Ipv6Addr, time::Duration};

use super::{Change, Element, Of, With, claims::Claim};
use crate::nfnetlink::{
    Answer, Batch, CHAIN_NAME, CHAIN_TABLE, CREATE, DATA_VALUE, DELETE_CHAIN, DELETE_ELEMENT, DELETE_RULE, DUMP,
    ELEMENT_DATA, ELEMENT_KEY, GET_ELEMENT, LIST_ELEMENT, LIST_ELEMENTS, LIST_SET, LIST_TABLE, NAME, NEW_ELEMENT,
    RULE_CHAIN, RULE_TABLE, Verdict, attributes, data, find, interface, nested, question, string, verdict,
};

/// `NFPROTO_BRIDGE`.
const BRIDGE: u8 = 7;

/// `NFTA_SET_ELEM_EXPIRATION`, `_EXPR`.
const ELEMENT_EXPIRATION: u16 = 5;
const ELEMENT_EXPRESSION: u16 = 7;

/// `NFTA_EXPR_DATA`, `NFTA_COUNTER_PACKETS`.
const EXPRESSION_DATA: u16 = 2;
const COUNTER_PACKETS: u16 = 2;

/// The transaction that makes these changes.
pub(super) fn batch(changes: &[Change]) -> Batch {
    let mut batch = Batch::new(BRIDGE);
    for change in changes {
        match change {
            Change::Add(element) => batch.tell(NEW_ELEMENT, CREATE, |to| list(to, element)),
            Change::Remove(element) => {
                // Deleting what is not there would fail the whole transaction.
                batch.tell(NEW_ELEMENT, CREATE, |to| list(to, element));
                batch.tell(DELETE_ELEMENT, 0, |to| list(to, element));
            }
            Change::RemoveChain(chain) => {
                batch.tell(DELETE_RULE, 0, |to| {
                    string(to, RULE_TABLE, crate::TABLE);
                    string(to, RULE_CHAIN, chain);
                });
                batch.tell(DELETE_CHAIN, 0, |to| {
                    string(to, CHAIN_TABLE, crate::TABLE);
                    string(to, CHAIN_NAME, chain);
                });
            }
        }
    }
    batch
}

/// Asks for one element.
pub(super) fn get(element: &Element) -> Vec<u8> {
    question(GET_ELEMENT, 0, BRIDGE, |to| list(to, element))
}

/// Asks for all elements of a set.
pub(super) fn list_set(set: &str) -> Vec<u8> {
    question(GET_ELEMENT, DUMP, BRIDGE, |to| {
        string(to, LIST_TABLE, crate::TABLE);
        string(to, LIST_SET, set);
    })
}

/// The claims in an answer, if it has elements of `owned6`.
pub(super) fn claims(answer: &Answer<'_>) -> Vec<Claim> {
    let list = answer.attributes(NEW_ELEMENT).and_then(|attributes| find(attributes, LIST_ELEMENTS));
    attributes(list.unwrap_or_default()).filter_map(|(_, element)| claim(element)).collect()
}

/// The packets that the element in an answer has counted.
pub(super) fn packets(answer: &Answer<'_>) -> Option<u64> {
    let path = [LIST_ELEMENTS, LIST_ELEMENT, ELEMENT_EXPRESSION, EXPRESSION_DATA, COUNTER_PACKETS];
    let attributes = answer.attributes(NEW_ELEMENT)?;
    let value = path.into_iter().try_fold(attributes, |within, kind| find(within, kind))?;
    Some(u64::from_be_bytes(value.try_into().ok()?))
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

/// An element in its set.
fn list(to: &mut Vec<u8>, element: &Element) {
    string(to, LIST_TABLE, crate::TABLE);
    string(to, LIST_SET, element.set);
    nested(to, LIST_ELEMENTS, |to| {
        nested(to, LIST_ELEMENT, |to| {
            data(to, ELEMENT_KEY, &key(element));
            match &element.with {
                With::Jump(chain) => verdict(to, ELEMENT_DATA, Verdict::Jump(chain)),
                With::Goto(chain) => verdict(to, ELEMENT_DATA, Verdict::Goto(chain)),
                _ => {}
            }
        });
    });
}

/// The interface name or the group; and what stands beside it, filled up to four bytes.
fn key(element: &Element) -> Vec<u8> {
    let mut key = match &element.of {
        Of::Interface(name) => interface(name),
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
