//! Rules as the expressions that the kernel runs, one after the other, on registers. Each statement of a rule becomes
//! some of them; the words are those of libnftables-json(5), the expressions those of linux/netfilter/nf_tables.h.

use serde_json::Value;

use super::{element::Type, only};
use crate::nfnetlink::{
    Batch, CREATE, ELEMENT_DATA, ELEMENT_FLAGS, ELEMENT_KEY, LIST_ELEMENT, LIST_ELEMENTS, LIST_SET, LIST_SET_ID,
    LIST_TABLE, NEW_ELEMENT, NEW_SET, Verdict, attribute, data, nested, number, string, verdict,
};

/// `NFTA_RULE_EXPRESSIONS`.
pub(super) const RULE_EXPRESSIONS: u16 = 4;

/// `NFTA_LIST_ELEM`; `NFTA_EXPR_NAME`, `_DATA`.
const LIST_ITEM: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;

/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// `NFT_META_IIFNAME`, `_OIFNAME`, `_NFPROTO`, `_L4PROTO`.
const IIFNAME: u32 = 6;
const OIFNAME: u32 = 7;
const NFPROTO: u32 = 15;
const L4PROTO: u32 = 16;

/// `NFT_PAYLOAD_NETWORK_HEADER`, `_TRANSPORT_HEADER`.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// `NFT_CMP_EQ`, `_NEQ`, `_LTE`, `_GTE`.
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;

/// `NFT_REG_VERDICT`, and the first of those for values.
const VERDICT: u32 = 0;
const FIRST: u32 = 1;

/// `NF_NAT_RANGE_PROTO_SPECIFIED`.
const PORTS_GIVEN: u32 = 2;

/// `NFT_SET_ANONYMOUS`, `_CONSTANT`, `_INTERVAL`, `_MAP`.
const ANONYMOUS: u32 = 1;
const CONSTANT: u32 = 2;
const INTERVAL: u32 = 4;
const MAP: u32 = 8;

/// What a rule is to the kernel.
#[derive(Default)]
pub(super) struct Rule {
    /// The sets that only it has.
    pub(super) sets: Vec<Set>,
    pub(super) expressions: Vec<u8>,
    /// What the packet is known to be by what stands before.
    network: Option<u8>,
    transport: Option<u8>,
}

/// A set without a name.
pub(super) struct Set {
    id: u32,
    key: Type,
    leads_to: Option<Type>,
    interval: bool,
    elements: Vec<Member>,
}

struct Member {
    key: Vec<u8>,
    leads_to: Option<Vec<u8>>,
    place: Place,
}

/// What of a range a member stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    First,
    /// Nothing comes after the range that begins here.
    FirstOfLast,
    /// The first value that is not of the range before it.
    Behind,
}

/// `NFTA_SET_ELEM_USERDATA`, and how `nft` remembers in it that a range has no end, for when it shows the set:
/// `NFTNL_UDATA_SET_ELEM_FLAGS`, four bytes, `NFTNL_SET_ELEM_F_INTERVAL_OPEN`.
const ELEMENT_USERDATA: u16 = 6;
const ENDLESS: [u8; 6] = [1, 4, 1, 0, 0, 0];

/// The rule that these statements make. `sets` counts those without a name in the transaction.
pub(super) fn compile(statements: &[Value], sets: &mut u32) -> Option<Rule> {
    let mut rule = Rule::default();
    for statement in statements {
        rule.statement(statement, sets)?;
    }
    Some(rule)
}

impl Rule {
    fn statement(&mut self, statement: &Value, sets: &mut u32) -> Option<()> {
        let (word, body) = only(statement)?;
        match word {
            "match" => self.matching(body, sets),
            "accept" => self.verdict(Verdict::Accept),
            "drop" => self.verdict(Verdict::Drop),
            "return" => self.verdict(Verdict::Return),
            "counter" if body.is_null() => self.expression("counter", |_| {}),
            "reject" => self.reject(body),
            "masquerade" => self.masquerade(body, sets),
            "snat" => self.translation(0, body, sets),
            "dnat" => self.translation(1, body, sets),
            _ => None,
        }
    }

    fn expression(&mut self, name: &str, body: impl FnOnce(&mut Vec<u8>)) -> Option<()> {
        nested(&mut self.expressions, LIST_ITEM, |to| {
            string(to, EXPRESSION_NAME, name);
            nested(to, EXPRESSION_DATA, body);
        });
        Some(())
    }

    /// `NFTA_IMMEDIATE_DREG`, `_DATA`.
    fn verdict(&mut self, kind: Verdict<'_>) -> Option<()> {
        self.expression("immediate", |to| {
            number(to, 1, VERDICT);
            verdict(to, 2, kind);
        })
    }

    fn matching(&mut self, body: &Value, sets: &mut u32) -> Option<()> {
        let (left, right) = (body.get("left")?, body.get("right")?);
        let (word, what) = only(left)?;
        match (word, body.get("op")?.as_str()?) {
            ("meta", "==") => {
                let (key, kind) = match what.get("key")?.as_str()? {
                    "iifname" => (IIFNAME, Type::Interface),
                    "oifname" => (OIFNAME, Type::Interface),
                    "l4proto" => (L4PROTO, Type::Protocol),
                    _ => return None,
                };
                self.meta(key)?;
                let value = kind.bytes(right)?;
                if key == L4PROTO {
                    self.transport = value.first().copied();
                }
                self.compare(EQUAL, &value)
            }
            ("payload", "==") => self.field(what, right, sets),
            ("ct", "in") if what.get("key")?.as_str()? == "state" => self.state(right),
            // Numbers of the kernel's own are in the host's order.
            ("numgen", "==") => {
                (what.get("mode")?.as_str()? == "inc" && what.get("offset")?.as_u64()? == 0).then_some(())?;
                let modulus = u32::try_from(what.get("mod")?.as_u64()?).ok()?;
                // `NFTA_NG_DREG`, `_MODULUS`, `_TYPE`, `_OFFSET`.
                self.expression("numgen", |to| {
                    number(to, 1, FIRST);
                    number(to, 2, modulus);
                    number(to, 3, 0);
                    number(to, 4, 0);
                })?;
                self.compare(EQUAL, &u32::try_from(right.as_u64()?).ok()?.to_ne_bytes())
            }
            _ => None,
        }
    }

    /// A field of a header, of which it is made sure first that it is there.
    fn field(&mut self, field: &Value, right: &Value, sets: &mut u32) -> Option<()> {
        let (header, name) = (field.get("protocol")?.as_str()?, field.get("field")?.as_str()?);
        let (base, offset, kind) = match (header, name) {
            ("ip", "saddr") => (NETWORK, 12, Type::Ipv4),
            ("ip", "daddr") => (NETWORK, 16, Type::Ipv4),
            ("ip6", "saddr") => (NETWORK, 8, Type::Ipv6),
            ("ip6", "daddr") => (NETWORK, 24, Type::Ipv6),
            ("tcp" | "udp", "dport") => (TRANSPORT, 2, Type::Service),
            ("icmpv6", "type") => (TRANSPORT, 0, Type::Icmpv6),
            _ => return None,
        };
        match header {
            "ip" => self.needs_network(IPV4)?,
            "ip6" => self.needs_network(IPV6)?,
            "tcp" => self.needs_transport(6)?,
            "udp" => self.needs_transport(17)?,
            _ => {
                self.needs_network(IPV6)?;
                self.needs_transport(58)?;
            }
        }
        let whole = kind.length();
        match right.as_object().and_then(|_| only(right)) {
            None => {
                self.load(base, offset, whole, FIRST)?;
                self.compare(EQUAL, &kind.bytes(right)?)
            }
            Some(("prefix", prefix)) => {
                let bits = usize::try_from(prefix.get("len")?.as_u64()?).ok()?;
                let mut address = kind.bytes(prefix.get("addr")?)?;
                (1..=whole * 8).contains(&bits).then_some(())?;
                if bits.is_multiple_of(8) {
                    address.truncate(bits / 8);
                    self.load(base, offset, bits / 8, FIRST)?;
                } else {
                    let mask: Vec<u8> = (0..whole).map(|byte| mask_of(bits.saturating_sub(byte * 8))).collect();
                    self.load(base, offset, whole, FIRST)?;
                    self.mask(&mask)?;
                    address.iter_mut().zip(mask).for_each(|(byte, mask)| *byte &= mask);
                }
                self.compare(EQUAL, &address)
            }
            Some(("set", values)) => {
                let ranges: Vec<_> = values.as_array()?.iter().map(|value| ends(kind, value)).collect::<Option<_>>()?;
                self.load(base, offset, whole, FIRST)?;
                match ranges.as_slice() {
                    [(first, last)] if first == last => self.compare(EQUAL, first),
                    [(first, last)] => {
                        self.compare(AT_LEAST, first)?;
                        self.compare(AT_MOST, last)
                    }
                    _ => self.look_up(Set::new(kind, ranges, sets), FIRST),
                }
            }
            _ => None,
        }
    }

    /// Whether the connection is in one of these states.
    fn state(&mut self, states: &Value) -> Option<()> {
        let bit = |state: &Value| match state.as_str()? {
            // `NF_CT_STATE_BIT` of `enum ip_conntrack_info`.
            "established" => Some(2_u32),
            "related" => Some(4),
            "new" => Some(8),
            _ => None,
        };
        let bits = match states {
            Value::Array(states) => states.iter().try_fold(0, |bits, state| Some(bits | bit(state)?))?,
            state => bit(state)?,
        };
        // `NFTA_CT_DREG`, `_KEY`; `NFT_CT_STATE`.
        self.expression("ct", |to| {
            number(to, 2, 0);
            number(to, 1, FIRST);
        })?;
        self.mask(&bits.to_ne_bytes())?;
        self.compare(NOT_EQUAL, &[0; 4])
    }

    fn needs_network(&mut self, protocol: u8) -> Option<()> {
        if self.network == Some(protocol) {
            return Some(());
        }
        self.network = Some(protocol);
        self.meta(NFPROTO)?;
        self.compare(EQUAL, &[protocol])
    }

    fn needs_transport(&mut self, protocol: u8) -> Option<()> {
        if self.transport == Some(protocol) {
            return Some(());
        }
        self.transport = Some(protocol);
        self.meta(L4PROTO)?;
        self.compare(EQUAL, &[protocol])
    }

    /// `NFTA_META_DREG`, `_KEY`.
    fn meta(&mut self, key: u32) -> Option<()> {
        self.expression("meta", |to| {
            number(to, 2, key);
            number(to, 1, FIRST);
        })
    }

    /// `NFTA_PAYLOAD_DREG`, `_BASE`, `_OFFSET`, `_LEN`.
    fn load(&mut self, base: u32, offset: u32, length: usize, register: u32) -> Option<()> {
        let length = u32::try_from(length).ok()?;
        self.expression("payload", |to| {
            number(to, 1, register);
            number(to, 2, base);
            number(to, 3, offset);
            number(to, 4, length);
        })
    }

    /// `NFTA_CMP_SREG`, `_OP`, `_DATA`.
    fn compare(&mut self, how: u32, with: &[u8]) -> Option<()> {
        self.expression("cmp", |to| {
            number(to, 1, FIRST);
            number(to, 2, how);
            data(to, 3, with);
        })
    }

    /// `NFTA_BITWISE_SREG`, `_DREG`, `_LEN`, `_MASK`, `_XOR`.
    fn mask(&mut self, mask: &[u8]) -> Option<()> {
        let length = u32::try_from(mask.len()).ok()?;
        self.expression("bitwise", |to| {
            number(to, 1, FIRST);
            number(to, 2, FIRST);
            number(to, 3, length);
            data(to, 4, mask);
            data(to, 5, &vec![0; mask.len()]);
        })
    }

    /// `NFTA_LOOKUP_SET`, `_SREG`, `_DREG`, `_SET_ID`. What a map leads to comes into the register of the key.
    fn look_up(&mut self, set: Set, register: u32) -> Option<()> {
        self.expression("lookup", |to| {
            number(to, 2, register);
            if set.leads_to.is_some() {
                number(to, 3, register);
            }
            string(to, 1, set.name());
            number(to, 4, set.id);
        })?;
        self.sets.push(set);
        Some(())
    }

    /// `NFTA_REJECT_TYPE`, `_ICMP_CODE`; `NFT_REJECT_ICMPX_UNREACH` and its codes.
    fn reject(&mut self, body: &Value) -> Option<()> {
        (body.get("type")?.as_str()? == "icmpx").then_some(())?;
        let code = match body.get("expr")?.as_str()? {
            "port-unreachable" => 1,
            "admin-prohibited" => 3,
            _ => return None,
        };
        self.expression("reject", |to| {
            number(to, 1, 2);
            attribute(to, 2, |to| to.push(code));
        })
    }

    /// `NFTA_MASQ_FLAGS`, `_REG_PROTO_MIN`, `_REG_PROTO_MAX`.
    fn masquerade(&mut self, body: &Value, sets: &mut u32) -> Option<()> {
        let mut registers = FIRST;
        let ports = match body.get("port") {
            Some(ports) => Some(self.values(Type::Service, ports, &mut registers, sets)?),
            None if body.is_null() => None,
            None => return None,
        };
        self.expression("masq", |to| {
            if let Some((first, last)) = ports {
                number(to, 1, PORTS_GIVEN);
                number(to, 2, first);
                last.into_iter().for_each(|last| number(to, 3, last));
            }
        })
    }

    /// `NFTA_NAT_TYPE`, `_FAMILY`, `_REG_ADDR_MIN`, `_REG_ADDR_MAX`, `_REG_PROTO_MIN`, `_REG_PROTO_MAX`, `_FLAGS`.
    fn translation(&mut self, of: u32, body: &Value, sets: &mut u32) -> Option<()> {
        let (family, kind) = match body.get("family")?.as_str()? {
            "ip" => (IPV4, Type::Ipv4),
            "ip6" => (IPV6, Type::Ipv6),
            _ => return None,
        };
        let mut registers = FIRST;
        let addresses = self.values(kind, body.get("addr")?, &mut registers, sets)?;
        let ports = match body.get("port") {
            Some(ports) => Some(self.values(Type::Service, ports, &mut registers, sets)?),
            None => None,
        };
        self.expression("nat", |to| {
            number(to, 1, of);
            number(to, 2, u32::from(family));
            number(to, 3, addresses.0);
            addresses.1.into_iter().for_each(|last| number(to, 4, last));
            if let Some((first, last)) = ports {
                number(to, 5, first);
                last.into_iter().for_each(|last| number(to, 6, last));
                number(to, 7, PORTS_GIVEN);
            }
        })
    }

    /// Puts a value, or both ends of a range, into the next registers. Returns which.
    fn values(&mut self, kind: Type, value: &Value, registers: &mut u32, sets: &mut u32) -> Option<(u32, Option<u32>)> {
        let first = *registers;
        *registers += 1;
        match value.as_object().and_then(|_| only(value)) {
            None => self.immediate(first, &kind.bytes(value)?)?,
            Some(("range", _)) => {
                let (from, to) = ends(kind, value)?;
                self.immediate(first, &from)?;
                self.immediate(*registers, &to)?;
                *registers += 1;
                return Some((first, Some(first + 1)));
            }
            Some(("map", map)) => {
                let (word, field) = only(map.get("key")?)?;
                let is_port = field.get("protocol")?.as_str()? == "th" && field.get("field")?.as_str()? == "dport";
                (word == "payload" && is_port && kind == Type::Service).then_some(())?;
                let set = Set::map(kind, kind, map.get("data")?.get("set")?.as_array()?, sets)?;
                self.load(TRANSPORT, 2, kind.length(), first)?;
                self.look_up(set, first)?;
            }
            _ => return None,
        }
        Some((first, None))
    }

    /// `NFTA_IMMEDIATE_DREG`, `_DATA`.
    fn immediate(&mut self, register: u32, value: &[u8]) -> Option<()> {
        self.expression("immediate", |to| {
            number(to, 1, register);
            data(to, 2, value);
        })
    }
}

/// The first and the last of a range; a value is a range of one.
fn ends(kind: Type, value: &Value) -> Option<(Vec<u8>, Vec<u8>)> {
    match value.as_object().and_then(|_| only(value)) {
        None => Some((kind.bytes(value)?, kind.bytes(value)?)),
        Some(("range", ends)) => match ends.as_array()?.as_slice() {
            [first, last] => Some((kind.bytes(first)?, kind.bytes(last)?)),
            _ => None,
        },
        _ => None,
    }
}

/// A byte of a mask with the first `bits` bits of it and what follows.
fn mask_of(bits: usize) -> u8 {
    u8::MAX.checked_shl(8_u32.saturating_sub(bits.min(8) as u32)).unwrap_or(0)
}

impl Set {
    /// Of ranges that do not touch each other.
    fn new(key: Type, mut ranges: Vec<(Vec<u8>, Vec<u8>)>, sets: &mut u32) -> Set {
        ranges.sort_unstable();
        let interval = ranges.iter().any(|(first, last)| first != last);
        let member = |key, place| Member { key, leads_to: None, place };
        let mut elements = Vec::new();
        if interval {
            // Everything is in one range or another: those that are not in the set begin with an end.
            let zero = vec![0; key.length()];
            if ranges.first().is_some_and(|(first, _)| *first != zero) {
                elements.push(member(zero, Place::Behind));
            }
            for (first, last) in ranges {
                match successor(last) {
                    Some(behind) => {
                        elements.extend([member(first, Place::First), member(behind, Place::Behind)]);
                    }
                    None => elements.push(member(first, Place::FirstOfLast)),
                }
            }
        } else {
            elements.extend(ranges.into_iter().map(|(value, _)| member(value, Place::First)));
        }
        *sets += 1;
        Set { id: *sets, key, leads_to: None, interval, elements }
    }

    /// From values to values.
    fn map(key: Type, leads_to: Type, pairs: &[Value], sets: &mut u32) -> Option<Set> {
        let member = |pair: &Value| match pair.as_array()?.as_slice() {
            [from, to] => {
                Some(Member { key: key.bytes(from)?, leads_to: Some(leads_to.bytes(to)?), place: Place::First })
            }
            _ => None,
        };
        let elements = pairs.iter().map(member).collect::<Option<_>>()?;
        *sets += 1;
        Some(Set { id: *sets, key, leads_to: Some(leads_to), interval: false, elements })
    }

    /// The kernel puts a number for the `%d`.
    fn name(&self) -> &'static str {
        if self.leads_to.is_some() { "__map%d" } else { "__set%d" }
    }

    /// The set and what is in it.
    pub(super) fn add(&self, batch: &mut Batch) {
        let kind = if self.leads_to.is_some() { MAP } else { 0 };
        let flags = ANONYMOUS | CONSTANT | kind | if self.interval { INTERVAL } else { 0 };
        let length = |kind: Type| kind.length() as u32;
        batch.tell(NEW_SET, CREATE, |to| {
            // `NFTA_SET_TABLE`, `_NAME`, `_FLAGS`, `_KEY_TYPE`, `_KEY_LEN`, `_DATA_TYPE`, `_DATA_LEN`, `_ID`, `_DESC`.
            string(to, 1, crate::TABLE);
            string(to, 2, self.name());
            number(to, 3, flags);
            self.key.number().into_iter().for_each(|kind| number(to, 4, kind));
            number(to, 5, length(self.key));
            if let Some(leads_to) = self.leads_to {
                leads_to.number().into_iter().for_each(|kind| number(to, 6, kind));
                number(to, 7, length(leads_to));
            }
            number(to, 10, self.id);
            // `NFTA_SET_DESC_SIZE`.
            nested(to, 9, |to| number(to, 1, self.elements.len() as u32));
        });
        for elements in self.elements.chunks(1024) {
            batch.tell(NEW_ELEMENT, CREATE, |to| {
                string(to, LIST_SET, self.name());
                number(to, LIST_SET_ID, self.id);
                string(to, LIST_TABLE, crate::TABLE);
                nested(to, LIST_ELEMENTS, |to| elements.iter().for_each(|element| element.write(to)));
            });
        }
    }
}

impl Member {
    fn write(&self, to: &mut Vec<u8>) {
        nested(to, LIST_ELEMENT, |to| {
            match self.place {
                // `NFT_SET_ELEM_INTERVAL_END`.
                Place::Behind => number(to, ELEMENT_FLAGS, 1),
                Place::FirstOfLast => attribute(to, ELEMENT_USERDATA, |to| to.extend(ENDLESS)),
                Place::First => {}
            }
            data(to, ELEMENT_KEY, &self.key);
            if let Some(leads_to) = &self.leads_to {
                data(to, ELEMENT_DATA, leads_to);
            }
        });
    }
}

/// The number that follows, where there is one.
fn successor(mut number: Vec<u8>) -> Option<Vec<u8>> {
    for byte in number.iter_mut().rev() {
        let (next, carried) = byte.overflowing_add(1);
        *byte = next;
        if !carried {
            return Some(number);
        }
    }
    None
}
