//! Values as the kernel compares them, and the elements of sets and maps that are made of them.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::Value;

use super::only;
use crate::{
    nfnetlink::{
        Batch, CREATE, DELETE_ELEMENT, ELEMENT_DATA, ELEMENT_KEY, ELEMENT_KEY_END, LIST_ELEMENT, LIST_ELEMENTS,
        LIST_SET, LIST_TABLE, NAME, NEW_ELEMENT, Verdict, data, interface, nested, string, verdict,
    },
    ruleset,
};

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Interface,
    Ipv4,
    Ipv6,
    /// A transport protocol's number.
    Protocol,
    /// A port.
    Service,
    Icmpv6,
    Verdict,
}

impl Type {
    /// By the name that `nft` has for it in the declaration of a set.
    pub(crate) fn named(name: &str) -> Option<Type> {
        Some(match name {
            "ifname" => Type::Interface,
            "ipv4_addr" => Type::Ipv4,
            "ipv6_addr" => Type::Ipv6,
            "inet_proto" => Type::Protocol,
            "inet_service" => Type::Service,
            "verdict" => Type::Verdict,
            _ => return None,
        })
    }

    /// Its number in `nft`, which shows sets by it; the kernel keeps it and asks nothing of it.
    pub(super) fn number(self) -> Option<u32> {
        match self {
            Type::Protocol => Some(12),
            Type::Service => Some(13),
            Type::Icmpv6 => Some(29),
            _ => None,
        }
    }

    /// In bytes.
    pub(super) fn length(self) -> usize {
        match self {
            Type::Interface | Type::Ipv6 => 16,
            Type::Ipv4 | Type::Verdict => 4,
            Type::Service => 2,
            Type::Protocol | Type::Icmpv6 => 1,
        }
    }

    /// A value as it stands in a packet, or in the kernel's memory.
    pub(super) fn bytes(self, value: &Value) -> Option<Vec<u8>> {
        Some(match self {
            Type::Interface => interface(value.as_str().filter(|name| name.len() < NAME)?),
            Type::Ipv4 => value.as_str()?.parse::<Ipv4Addr>().ok()?.octets().to_vec(),
            Type::Ipv6 => value.as_str()?.parse::<Ipv6Addr>().ok()?.octets().to_vec(),
            Type::Service => u16::try_from(value.as_u64()?).ok()?.to_be_bytes().to_vec(),
            Type::Protocol => match value.as_str()? {
                "icmp" => vec![1],
                "tcp" => vec![6],
                "udp" => vec![17],
                "ipv6-icmp" => vec![58],
                _ => return None,
            },
            // RFC 4861 §4, RFC 3810 §5.
            Type::Icmpv6 => match value.as_str()? {
                "nd-router-solicit" => vec![133],
                "nd-neighbor-solicit" => vec![135],
                "nd-neighbor-advert" => vec![136],
                "mld2-listener-report" => vec![143],
                _ => return None,
            },
            Type::Verdict => return None,
        })
    }

    /// The first and the last of a prefix.
    fn ends(self, value: &Value) -> Option<(Vec<u8>, Vec<u8>)> {
        let ("prefix", prefix) = only(value)? else { return None };
        let (address, length) = (prefix.get("addr")?.as_str()?, u8::try_from(prefix.get("len")?.as_u64()?).ok()?);
        Some(match self {
            Type::Ipv4 => {
                let net = Ipv4Net::new(address.parse().ok()?, length).ok()?;
                (net.network().octets().to_vec(), net.broadcast().octets().to_vec())
            }
            Type::Ipv6 => {
                let net = Ipv6Net::new(address.parse().ok()?, length).ok()?;
                (net.network().octets().to_vec(), net.broadcast().octets().to_vec())
            }
            _ => return None,
        })
    }
}

/// A set or map as it was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declaration {
    /// What its keys are put together of.
    pub(crate) key: Vec<Type>,
    /// What a map leads to.
    pub(crate) leads_to: Option<Type>,
    /// It has prefixes in it.
    pub(crate) interval: bool,
}

/// A list of elements is one attribute: it ends long before 64 KiB.
const AT_ONCE: usize = 256;

/// Adds elements to a set or map, or deletes them.
pub(super) fn change(batch: &mut Batch, add: bool, set: &str, elements: &[Value]) -> Option<()> {
    let declaration = ruleset::declaration(set)?;
    let elements: Vec<Element<'_>> =
        elements.iter().map(|value| element(&declaration, value)).collect::<Option<_>>()?;
    let (kind, flags) = if add { (NEW_ELEMENT, CREATE) } else { (DELETE_ELEMENT, 0) };
    for elements in elements.chunks(AT_ONCE) {
        batch.tell(kind, flags, |to| {
            string(to, LIST_TABLE, crate::TABLE);
            string(to, LIST_SET, set);
            nested(to, LIST_ELEMENTS, |to| elements.iter().for_each(|element| element.write(to)));
        });
    }
    Some(())
}

struct Element<'a> {
    key: Vec<u8>,
    /// Where the set has prefixes.
    end: Option<Vec<u8>>,
    leads_to: Option<Data<'a>>,
}

enum Data<'a> {
    Value(Vec<u8>),
    Verdict(Verdict<'a>),
}

fn element<'a>(declaration: &Declaration, value: &'a Value) -> Option<Element<'a>> {
    let (keyed, leads_to) = match (declaration.leads_to, value) {
        (None, value) => (value, None),
        (Some(kind), Value::Array(pair)) => match (pair.as_slice(), kind) {
            ([key, to], Type::Verdict) => (key, Some(Data::Verdict(jump(to)?))),
            ([key, to], kind) => (key, Some(Data::Value(kind.bytes(to)?))),
            _ => return None,
        },
        _ => return None,
    };
    let single = std::slice::from_ref(keyed);
    let parts = match keyed.as_object() {
        Some(_) => only(keyed).filter(|(word, _)| *word == "concat")?.1.as_array()?,
        None => single,
    };
    (parts.len() == declaration.key.len()).then_some(())?;
    let (mut key, mut end) = (Vec::new(), Vec::new());
    for (kind, part) in declaration.key.iter().zip(parts) {
        let (first, last) = match part {
            Value::Object(_) if declaration.interval => kind.ends(part)?,
            part => (kind.bytes(part)?, kind.bytes(part)?),
        };
        key.extend(first);
        end.extend(last);
        if parts.len() > 1 {
            key.resize(key.len().next_multiple_of(4), 0);
            end.resize(end.len().next_multiple_of(4), 0);
        }
    }
    Some(Element { key, end: declaration.interval.then_some(end), leads_to })
}

/// A verdict that leads to a chain.
fn jump(value: &Value) -> Option<Verdict<'_>> {
    let (word, body) = only(value)?;
    let target = body.get("target")?.as_str()?;
    match word {
        "jump" => Some(Verdict::Jump(target)),
        "goto" => Some(Verdict::Goto(target)),
        _ => None,
    }
}

impl Element<'_> {
    fn write(&self, to: &mut Vec<u8>) {
        nested(to, LIST_ELEMENT, |to| {
            data(to, ELEMENT_KEY, &self.key);
            if let Some(end) = &self.end {
                data(to, ELEMENT_KEY_END, end);
            }
            match &self.leads_to {
                Some(Data::Value(value)) => data(to, ELEMENT_DATA, value),
                Some(Data::Verdict(kind)) => verdict(to, ELEMENT_DATA, *kind),
                None => {}
            }
        });
    }
}
