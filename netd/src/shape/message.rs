//! Shapes in the kernel's words. Pure: values in, messages out, and back.
//!
//! netlink-packet-route has the frame of these messages and the filters' selectors; the options of HTB and of the
//! policer are encoded here, as `struct tc_htb_glob`, `tc_htb_opt`, `tc_police` and `tc_ratespec` of
//! `linux/pkt_sched.h` and `linux/pkt_cls.h`. Rates of 4 GB/s and more do not fit those and have an attribute of their
//! own. HTB has not looked at rate tables since Linux 3.10; the policer still refuses to be without one.

use netlink_packet_route::tc::{
    TcAttribute, TcFilterU32Option, TcHandle, TcHeader, TcMessage, TcOption, TcU32Key, TcU32Selector,
    TcU32SelectorFlags,
};
use rtnetlink::packet_core::{DefaultNla, Nla, NlaBuffer, NlasIterator};

use super::{Change, Class, Egress, Police, Shape};
use crate::model::MacAddr;

const HTB: &str = "htb";
const INGRESS: &str = "ingress";
const U32: &str = "u32";

/// `TCA_HTB_PARMS`, `_INIT`, `_RATE64`, `_CEIL64` (linux/pkt_sched.h).
const HTB_PARMS: u16 = 1;
const HTB_INIT: u16 = 2;
const HTB_RATE64: u16 = 6;
const HTB_CEIL64: u16 = 7;
/// `TCA_POLICE_TBF`, `_RATE`, `_RATE64` (linux/pkt_cls.h).
const POLICE_TBF: u16 = 1;
const POLICE_RATE: u16 = 2;
const POLICE_RATE64: u16 = 8;

/// The upper half of `TC_HTB_PROTOVER`.
const HTB_VERSION: u32 = 3;
/// What HTB would divide rates by for quanta, if we did not give them.
const RATE_TO_QUANTUM: u32 = 10;
/// `TC_LINKLAYER_ETHERNET`: frames take the room they take.
const ETHERNET: u8 = 1;
/// `TC_POLICE_SHOT`.
const DROP: u32 = 2;
/// Largest packet a policer lets pass, in bytes; of an offloaded frame each segment counts.
const LARGEST_PACKET: u32 = 64 << 10;
/// Entries of a rate table, one `u32` each (`TC_RTAB_SIZE`).
const TABLE: u32 = 256;
/// Bytes per step of the rate table, as a power of two: 256 steps reach beyond [`LARGEST_PACKET`].
const TABLE_STEP: u8 = 9;

/// `ETH_P_ALL` in network byte order, with the filter's priority above it (`TC_H_MAKE`).
const ALL_FRAMES: u32 = (1 << 16) | (0x0003_u16.to_be() as u32);
/// The hash table in which filters have fixed numbers, and where the kernel puts those without.
const FILTERS: u32 = 0x8000_0000;

const ROOT: TcHandle = TcHandle { major: 1, minor: 0 };
const INGRESS_ROOT: TcHandle = TcHandle { major: 0xffff, minor: 0 };

/// What a message does, which decides its type and flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Makes a queueing discipline, in place of another if need be.
    PutDiscipline,
    DeleteDiscipline,
    /// Makes a class or changes it.
    PutClass,
    DeleteClass,
    AddFilter,
    DeleteFilter,
}

/// The message that makes a change on the link with this index.
pub(crate) fn message(index: u32, change: &Change) -> (Verb, TcMessage) {
    let build = |verb, handle, parent, kind: &str, options: Vec<TcOption>| {
        let mut attributes = vec![TcAttribute::Kind(kind.to_owned())];
        if !options.is_empty() {
            attributes.push(TcAttribute::Options(options));
        }
        let mut header = TcHeader { handle, parent, ..TcHeader::default() };
        header.index = index.cast_signed();
        if matches!(verb, Verb::AddFilter | Verb::DeleteFilter) {
            header.info = ALL_FRAMES;
        }
        let mut message = TcMessage::default();
        (message.header, message.attributes) = (header, attributes);
        (verb, message)
    };
    match change {
        Change::DeleteRoot => build(Verb::DeleteDiscipline, ROOT, TcHandle::ROOT, HTB, Vec::new()),
        Change::AddRoot { default } => build(Verb::PutDiscipline, ROOT, TcHandle::ROOT, HTB, vec![htb_init(*default)]),
        Change::SetClass(class) => {
            build(Verb::PutClass, minor(class.minor), minor(class.parent), HTB, htb_class(class))
        }
        Change::AddQueue { minor: class } => {
            build(Verb::PutDiscipline, TcHandle::UNSPEC, minor(*class), "fq_codel", Vec::new())
        }
        Change::DeleteClass { minor: class } => {
            build(Verb::DeleteClass, minor(*class), TcHandle::UNSPEC, HTB, Vec::new())
        }
        Change::AddFilter { minor: class, mac } => {
            let options = vec![
                TcOption::U32(TcFilterU32Option::ClassId(minor(*class))),
                TcOption::U32(TcFilterU32Option::Selector(to_mac(*mac))),
            ];
            build(Verb::AddFilter, filter(*class), ROOT, U32, options)
        }
        Change::DeleteFilter { minor: class } => build(Verb::DeleteFilter, filter(*class), ROOT, U32, Vec::new()),
        Change::AddIngress => build(Verb::PutDiscipline, INGRESS_ROOT, TcHandle::INGRESS, INGRESS, Vec::new()),
        Change::DeleteIngress => build(Verb::DeleteDiscipline, INGRESS_ROOT, TcHandle::INGRESS, INGRESS, Vec::new()),
        Change::AddPolice(police) => {
            let options = vec![
                TcOption::U32(TcFilterU32Option::ClassId(TcHandle { major: 0, minor: 1 })),
                TcOption::U32(TcFilterU32Option::Police(policer(police))),
                TcOption::U32(TcFilterU32Option::Selector(everything())),
            ];
            build(Verb::AddFilter, TcHandle::UNSPEC, INGRESS_ROOT, U32, options)
        }
    }
}

fn minor(minor: u16) -> TcHandle {
    TcHandle { major: ROOT.major, minor }
}

/// The number of the filter that leads to a class: 12 bits, the class's own.
fn filter(class: u16) -> TcHandle {
    TcHandle::from(FILTERS | u32::from(class))
}

fn selector(keys: Vec<TcU32Key>) -> TcU32Selector {
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.nkeys = u8::try_from(keys.len()).unwrap_or(u8::MAX);
    selector.keys = keys;
    selector
}

fn key(val: u32, mask: u32, off: i32) -> TcU32Key {
    let mut key = TcU32Key::default();
    (key.val, key.mask, key.off) = (val, mask, off);
    key
}

/// The destination, 14 bytes before the network header, in words of four bytes.
fn to_mac(MacAddr([a, b, c, d, e, f]): MacAddr) -> TcU32Selector {
    selector(vec![
        key(u32::from_be_bytes([0, 0, a, b]), 0xffff, -16),
        key(u32::from_be_bytes([c, d, e, f]), 0xffff_ffff, -12),
    ])
}

fn from_selector(selector: &TcU32Selector) -> Option<MacAddr> {
    let [high, low] = selector.keys.as_slice() else { return None };
    let [_, _, a, b] = high.val.to_be_bytes();
    let [c, d, e, f] = low.val.to_be_bytes();
    let mac = MacAddr([a, b, c, d, e, f]);
    (*selector == to_mac(mac)).then_some(mac)
}

fn everything() -> TcU32Selector {
    selector(vec![key(0, 0, 0)])
}

fn htb_init(default: u16) -> TcOption {
    let glob = [HTB_VERSION, RATE_TO_QUANTUM, u32::from(default), 0, 0];
    TcOption::Other(attribute(HTB_INIT, words(&glob)))
}

fn htb_class(class: &Class) -> Vec<TcOption> {
    // Enough for one frame; not so much that one class keeps the others waiting.
    let quantum = u32::try_from(class.rate / u64::from(RATE_TO_QUANTUM)).unwrap_or(u32::MAX).clamp(2000, 200_000);
    let ceil_burst = super::ticks(super::SMALLEST_BURST, class.ceil);
    let mut options = Vec::new();
    for (kind, rate) in [(HTB_RATE64, class.rate), (HTB_CEIL64, class.ceil)] {
        if u32::try_from(rate).is_err() {
            options.push(attribute(kind, rate.to_ne_bytes().to_vec()));
        }
    }
    let mut parms = rate_spec(class.rate, 0);
    parms.extend(rate_spec(class.ceil, 0));
    parms.extend(words(&[class.burst, ceil_burst, quantum, 0, 0]));
    options.push(attribute(HTB_PARMS, parms));
    options.into_iter().map(TcOption::Other).collect()
}

/// What stands in the filter's `TCA_U32_POLICE`.
fn policer(police: &Police) -> Vec<u8> {
    let mut parms = words(&[0, DROP, 0, police.burst, LARGEST_PACKET]);
    parms.extend(rate_spec(police.rate, TABLE_STEP));
    parms.extend([0; 12 + 12]);
    let table: Vec<u32> = (1..=TABLE).map(|step| super::ticks(u64::from(step << TABLE_STEP), police.rate)).collect();
    let mut bytes = emit(&attribute(POLICE_TBF, parms));
    bytes.extend(emit(&attribute(POLICE_RATE, words(&table))));
    if u32::try_from(police.rate).is_err() {
        bytes.extend(emit(&attribute(POLICE_RATE64, police.rate.to_ne_bytes().to_vec())));
    }
    bytes
}

/// `struct tc_ratespec`: table step, link layer, overhead, alignment, least size, and the rate.
fn rate_spec(rate: u64, step: u8) -> Vec<u8> {
    let rate = u32::try_from(rate).unwrap_or(u32::MAX);
    let mut bytes = vec![step, ETHERNET, 0, 0, 0xff, 0xff, 0, 0];
    bytes.extend(rate.to_ne_bytes());
    bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn attribute(kind: u16, value: Vec<u8>) -> DefaultNla {
    DefaultNla::new(kind, value)
}

fn emit(attribute: &DefaultNla) -> Vec<u8> {
    use rtnetlink::packet_core::Emitable;
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

/// The link that a queueing discipline of our kinds is on, and whether it is for what the link receives.
pub(crate) fn of_our_kind(message: &TcMessage) -> Option<(u32, bool)> {
    let header = &message.header;
    let ours = match kind(message)? {
        HTB => (header.handle == ROOT && header.parent == TcHandle::ROOT).then_some(false),
        INGRESS => (header.handle == INGRESS_ROOT).then_some(true),
        _ => None,
    };
    Some((u32::try_from(header.index).ok()?, ours?))
}

fn kind(message: &TcMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    })
}

/// Options that the crate does not know, which it keeps whole: the attributes in them.
fn unknown_options(message: &TcMessage) -> Vec<(u16, Vec<u8>)> {
    message
        .attributes
        .iter()
        .flat_map(|attribute| match attribute {
            TcAttribute::Options(options) => options.as_slice(),
            _ => &[],
        })
        .flat_map(|option| match option {
            TcOption::Other(option) => {
                let mut bytes = vec![0; option.value_len()];
                option.emit_value(&mut bytes);
                attributes(&bytes)
            }
            _ => Vec::new(),
        })
        .collect()
}

fn attributes(bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    NlasIterator::new(bytes)
        .map_while(Result::ok)
        .map(|attribute: NlaBuffer<&[u8]>| (attribute.kind(), attribute.value().to_vec()))
        .collect()
}

fn find(attributes: &[(u16, Vec<u8>)], kind: u16) -> Option<&[u8]> {
    attributes.iter().find(|(found, _)| *found == kind).map(|(_, value)| value.as_slice())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

/// The shape that these messages describe: a root that is ours, its classes and filters; and the filters of what comes
/// in, if there is something of ours to have them.
pub(crate) fn shape(
    root: Option<&TcMessage>,
    classes: &[TcMessage],
    filters: &[TcMessage],
    ingress: Option<&[TcMessage]>,
) -> Shape {
    let egress = root.map(|root| {
        let options = unknown_options(root);
        let default = find(&options, HTB_INIT).and_then(|glob| word(glob, 8)).and_then(|n| u16::try_from(n).ok());
        let leads: Vec<(TcHandle, MacAddr)> = filters.iter().filter_map(lead).collect();
        let mut classes: Vec<Class> = classes.iter().filter_map(|message| class(message, &leads)).collect();
        classes.sort_by_key(|class| class.minor);
        Egress { default: default.unwrap_or(0), classes }
    });
    // Something is there, if not what we know: it has to go first.
    let unknown = Police { rate: 0, burst: 0 };
    let ingress = ingress.map(|filters| filters.iter().find_map(police).unwrap_or(unknown));
    Shape { egress, ingress }
}

fn class(message: &TcMessage, leads: &[(TcHandle, MacAddr)]) -> Option<Class> {
    let header = &message.header;
    if kind(message)? != HTB || header.handle.major != ROOT.major {
        return None;
    }
    let options = unknown_options(message);
    let parms = find(&options, HTB_PARMS)?;
    let rate = |at, kind| {
        let small = word(parms, at).map(u64::from);
        find(&options, kind).and_then(long).or(small)
    };
    let parent = if header.parent == TcHandle::ROOT { 0 } else { header.parent.minor };
    Some(Class {
        minor: header.handle.minor,
        parent,
        rate: rate(8, HTB_RATE64)?,
        ceil: rate(20, HTB_CEIL64)?,
        burst: word(parms, 24)?,
        mac: leads.iter().find(|(class, _)| *class == header.handle).map(|(_, mac)| *mac),
    })
}

fn u32_options(message: &TcMessage) -> impl Iterator<Item = &TcFilterU32Option> {
    let options = message.attributes.iter().flat_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.as_slice(),
        _ => &[],
    });
    options.filter_map(|option| match option {
        TcOption::U32(option) => Some(option),
        _ => None,
    })
}

/// Which class a filter leads to, and for which MAC.
fn lead(message: &TcMessage) -> Option<(TcHandle, MacAddr)> {
    let class = u32_options(message).find_map(|option| match option {
        TcFilterU32Option::ClassId(class) => Some(*class),
        _ => None,
    })?;
    let mac = u32_options(message).find_map(|option| match option {
        TcFilterU32Option::Selector(selector) => from_selector(selector),
        _ => None,
    })?;
    // One that is not where ours are could not be removed as ours.
    (message.header.handle == filter(class.minor)).then_some((class, mac))
}

fn police(message: &TcMessage) -> Option<Police> {
    let everything = everything();
    let all = u32_options(message).any(|option| match option {
        TcFilterU32Option::Selector(selector) => *selector == everything,
        _ => false,
    });
    let bytes = u32_options(message).filter(|_| all).find_map(|option| match option {
        TcFilterU32Option::Police(bytes) => Some(bytes),
        _ => None,
    })?;
    let attributes = attributes(bytes);
    let parms = find(&attributes, POLICE_TBF)?;
    if word(parms, 4)? != DROP {
        return None;
    }
    let rate = find(&attributes, POLICE_RATE64).and_then(long).or(word(parms, 28).map(u64::from))?;
    Some(Police { rate, burst: word(parms, 12)? })
}
