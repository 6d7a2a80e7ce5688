//! Netlink messages to nf_tables, and its answers. Pure: bytes in and out.
//!
//! The layout is linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h: a header, the family, then attributes
//! (length, type, value, padded to four bytes), some of which hold attributes again. All of a transaction lies in one
//! buffer between BATCH_BEGIN and BATCH_END, and is done whole or not at all.

/// `NFNL_SUBSYS_NFTABLES`: the upper byte of a message's type, and whose the batch is.
const NFTABLES: u16 = 10;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// `enum nf_tables_msg_types`.
pub(crate) const NEW_CHAIN: u16 = NFTABLES << 8 | 3;
pub(crate) const DELETE_CHAIN: u16 = NFTABLES << 8 | 5;
pub(crate) const NEW_RULE: u16 = NFTABLES << 8 | 6;
pub(crate) const DELETE_RULE: u16 = NFTABLES << 8 | 8;
pub(crate) const NEW_SET: u16 = NFTABLES << 8 | 9;
pub(crate) const NEW_ELEMENT: u16 = NFTABLES << 8 | 12;
pub(crate) const GET_ELEMENT: u16 = NFTABLES << 8 | 13;
pub(crate) const DELETE_ELEMENT: u16 = NFTABLES << 8 | 14;

/// `NLMSG_ERROR`: an answer that carries an errno, 0 for done.
const ERROR: u16 = 2;

/// `NLMSG_DONE`: the end of a dump.
const DONE: u16 = 3;

/// `NLM_F_REQUEST`, `NLM_F_ACK`.
const REQUEST: u16 = 1;
const ACK: u16 = 4;

/// `NLM_F_DUMP`.
pub(crate) const DUMP: u16 = 0x300;

/// `NLM_F_CREATE`. Without `NLM_F_EXCL` what is there already is no error.
pub(crate) const CREATE: u16 = 0x400;

/// `NLM_F_APPEND`: a rule goes to the end of its chain.
pub(crate) const APPEND: u16 = 0x800;

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// `NFTA_SET_ELEM_LIST_TABLE`, `_SET`, `_ELEMENTS`, `_SET_ID`; `NFTA_LIST_ELEM`.
pub(crate) const LIST_TABLE: u16 = 1;
pub(crate) const LIST_SET: u16 = 2;
pub(crate) const LIST_ELEMENTS: u16 = 3;
pub(crate) const LIST_SET_ID: u16 = 4;
pub(crate) const LIST_ELEMENT: u16 = 1;

/// `NFTA_SET_ELEM_KEY`, `_DATA`, `_FLAGS`, `_KEY_END`; `NFTA_DATA_VALUE`, `_VERDICT`; `NFTA_VERDICT_CODE`, `_CHAIN`.
pub(crate) const ELEMENT_KEY: u16 = 1;
pub(crate) const ELEMENT_DATA: u16 = 2;
pub(crate) const ELEMENT_FLAGS: u16 = 3;
pub(crate) const ELEMENT_KEY_END: u16 = 10;
pub(crate) const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// `NFTA_CHAIN_TABLE`, `_NAME`; `NFTA_RULE_TABLE`, `_CHAIN`.
pub(crate) const CHAIN_TABLE: u16 = 1;
pub(crate) const CHAIN_NAME: u16 = 3;
pub(crate) const RULE_TABLE: u16 = 1;
pub(crate) const RULE_CHAIN: u16 = 2;

/// `IFNAMSIZ`: how long an interface name is in a key.
pub(crate) const NAME: usize = 16;

/// `struct nlmsghdr`, and with `struct nfgenmsg` behind it.
const HEADER: usize = 16;
const PREAMBLE: usize = HEADER + 4;

/// What a rule or a map's element ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict<'a> {
    Accept,
    Drop,
    Return,
    Jump(&'a str),
    Goto(&'a str),
}

impl<'a> Verdict<'a> {
    /// `NF_DROP`, `NF_ACCEPT`, `NFT_JUMP`, `NFT_GOTO`, `NFT_RETURN`.
    fn code(self) -> (i32, Option<&'a str>) {
        match self {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
            Verdict::Return => (-5, None),
        }
    }
}

/// A transaction on tables of one family.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    family: u8,
    sequence: u32,
    /// Where the last message begins.
    last: usize,
}

impl Batch {
    /// Of a family by its number (`NFPROTO_…`), with nothing in it.
    pub(crate) fn new(family: u8) -> Self {
        let mut bytes = Vec::new();
        message(&mut bytes, BATCH_BEGIN, REQUEST, 0, 0, |_| {});
        Batch { bytes, family, sequence: 0, last: 0 }
    }

    /// One message more.
    pub(crate) fn tell(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Vec<u8>)) {
        self.sequence += 1;
        self.last = self.bytes.len();
        message(&mut self.bytes, kind, REQUEST | flags, self.sequence, self.family, body);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sequence == 0
    }

    /// What to send, and the sequence number of the one message that is answered if all goes well: the last.
    pub(crate) fn finish(mut self) -> (Vec<u8>, u32) {
        if let Some(flags) = self.bytes.get_mut(self.last + 6).filter(|_| self.sequence > 0) {
            *flags |= ACK.to_ne_bytes()[0];
        }
        message(&mut self.bytes, BATCH_END, REQUEST, self.sequence + 1, 0, |_| {});
        (self.bytes, self.sequence)
    }
}

/// A question: one message outside of any transaction.
pub(crate) fn question(kind: u16, flags: u16, family: u8, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    message(&mut bytes, kind, REQUEST | flags, 1, family, body);
    bytes
}

fn message(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, family: u8, body: impl FnOnce(&mut Vec<u8>)) {
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

/// An attribute; `value` writes what is in it.
pub(crate) fn attribute(to: &mut Vec<u8>, kind: u16, value: impl FnOnce(&mut Vec<u8>)) {
    let start = to.len();
    to.extend([0; 2]);
    to.extend(kind.to_ne_bytes());
    value(to);
    // Whoever writes lists of elements ends one before it comes near 64 KiB.
    let length = (to.len() - start) as u16;
    to[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    to.resize(to.len().next_multiple_of(4), 0);
}

/// An attribute that holds attributes.
pub(crate) fn nested(to: &mut Vec<u8>, kind: u16, attributes: impl FnOnce(&mut Vec<u8>)) {
    attribute(to, kind | NESTED, attributes);
}

/// A text with the zero that ends it.
pub(crate) fn string(to: &mut Vec<u8>, kind: u16, text: &str) {
    attribute(to, kind, |to| {
        to.extend(text.as_bytes());
        to.push(0);
    });
}

/// A number, big endian as nf_tables has all of them.
pub(crate) fn number(to: &mut Vec<u8>, kind: u16, number: u32) {
    attribute(to, kind, |to| to.extend(number.to_be_bytes()));
}

/// An attribute with bytes as `struct nft_data` has them.
pub(crate) fn data(to: &mut Vec<u8>, kind: u16, bytes: &[u8]) {
    nested(to, kind, |to| attribute(to, DATA_VALUE, |to| to.extend(bytes)));
}

/// An attribute with a verdict as `struct nft_data` has it.
pub(crate) fn verdict(to: &mut Vec<u8>, kind: u16, verdict: Verdict<'_>) {
    let (code, chain) = verdict.code();
    nested(to, kind, |to| {
        nested(to, DATA_VERDICT, |to| {
            attribute(to, VERDICT_CODE, |to| to.extend(code.to_be_bytes()));
            if let Some(chain) = chain {
                string(to, VERDICT_CHAIN, chain);
            }
        });
    });
}

/// An interface name as it is in a key: filled up with zeroes.
pub(crate) fn interface(name: &str) -> Vec<u8> {
    let mut name = name.as_bytes().to_vec();
    name.resize(NAME, 0);
    name
}

/// A message of the kernel's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    kind: u16,
    pub(crate) sequence: u32,
    body: &'a [u8],
}

/// The messages in a datagram.
pub(crate) fn answers(mut bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Answer { kind, sequence, body })
    })
}

impl<'a> Answer<'a> {
    /// The errno, 0 for done, if it is one.
    pub(crate) fn errno(&self) -> Option<i32> {
        let errno = i32::from_ne_bytes(self.body.get(..4)?.try_into().ok()?);
        (self.kind == ERROR).then_some(errno.wrapping_neg())
    }

    /// Whether a dump ends with it.
    pub(crate) fn is_last(&self) -> bool {
        self.kind == DONE
    }

    /// The attributes of a message of this kind.
    pub(crate) fn attributes(&self, kind: u16) -> Option<&'a [u8]> {
        (self.kind == kind).then(|| self.body.get(PREAMBLE - HEADER..)).flatten()
    }
}

/// The value of the first attribute of a type.
pub(crate) fn find(list: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(list).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// The attributes of a list, each with its type.
pub(crate) fn attributes(mut list: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(list.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(list.get(2..4)?.try_into().ok()?);
        let value = list.get(4..length)?;
        list = list.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !NESTED, value))
    })
}
