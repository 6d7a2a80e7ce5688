//! How fast a link may be, as values: queueing disciplines, classes and policers, built as libvirt builds them
//! (`virnetdevbandwidth.c`), and the changes from what a link has to what it should have. It never talks to the kernel;
//! `message` puts changes into words, `observe` and `apply` exchange them.
//!
//! ```text
//! bridge, sends: 1: htb ── 1:1 the network ─┬─ 1:2 who has no floor
//!                                           └─ 1:3 … one per port with a floor, by its MAC
//! port, sends:   1: htb ── 1:1 the port
//! both, receive: ingress ── police: what is too much is dropped
//! ```

pub(crate) mod message;

#[cfg(test)]
mod tests;

use std::fmt;

use crate::model::MacAddr;

/// The class of what goes out of a bridge to ports without a floor.
const EVERYONE: u16 = 2;

/// The class of the first port with a floor.
const FIRST_PORT: u16 = 3;

/// Ports with a floor that one network can have: the kernel numbers filters with 12 bits.
pub(crate) const MOST_FLOORS: usize = 0xfff - FIRST_PORT as usize;

/// Bytes that may go at once where nobody said how many: one frame and a bit, as `tc` has it.
const SMALLEST_BURST: u64 = 1600;

/// Bytes a policer lets pass at once at least, where nobody said how many: a frame as guests with offloads send it
/// (64 KiB and its headers), or none of those would ever pass.
const OFFLOADED_FRAME: u64 = 68 << 10;

/// The longest time the kernel can write a burst as: 2³² of its ticks of 64 ns.
const TICK_NANOSECONDS: u128 = 64;

/// One direction's speed, as people say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speed {
    /// Bytes a second.
    pub average: u64,
    /// Bytes a second while a burst lasts.
    pub peak: Option<u64>,
    /// Bytes that may go at once.
    pub burst: Option<u64>,
}

/// What limits a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// What it sends; nothing of ours if absent.
    pub egress: Option<Egress>,
    /// What it receives; nothing of ours if absent.
    pub ingress: Option<Police>,
}

/// An HTB queueing discipline with the handle `1:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// The class, `1:N`, of what no class claims.
    pub default: u16,
    /// The classes, parents first, by number.
    pub classes: Vec<Class>,
}

/// A class of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// It is `1:N`.
    pub minor: u16,
    /// Its parent, `1:N`; 0 for the discipline itself.
    pub parent: u16,
    /// Bytes a second it has for sure.
    pub rate: u64,
    /// Bytes a second it may have if others leave some.
    pub ceil: u64,
    /// How long it may send without a pause at `rate`, in ticks of 64 ns (`PSCHED_SHIFT` in `net/pkt_sched.h`).
    pub burst: u32,
    /// Frames to this MAC are of this class.
    pub mac: Option<MacAddr>,
}

/// What is received faster is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Police {
    /// Bytes a second.
    pub rate: u64,
    /// As in [`Class::burst`].
    pub burst: u32,
}

/// One change of a link's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Takes away the HTB with all its classes; the kernel puts its own discipline there.
    DeleteRoot,
    /// Puts an HTB in the place of whatever is there.
    AddRoot { default: u16 },
    /// Makes a class or changes the one with this number.
    SetClass(Class),
    /// Gives a new class without children a fair queue. Kernels without `fq_codel` have a plain one there already.
    AddQueue { minor: u16 },
    /// Frames to a MAC are of this class from now on.
    AddFilter { minor: u16, mac: MacAddr },
    /// They are not any more.
    DeleteFilter { minor: u16 },
    /// Takes a class away.
    DeleteClass { minor: u16 },
    /// Prepares for policing what comes in.
    AddIngress,
    /// Drops what comes in faster.
    AddPolice(Police),
    /// Lets everything in.
    DeleteIngress,
}

/// A port that has a speed for sure, among those of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// The guest's MAC.
    pub mac: MacAddr,
    /// Bytes a second.
    pub rate: u64,
}

impl Shape {
    /// A tap's: it sends what goes `to` the guest and receives what comes `from` it.
    pub fn port(to: Option<Speed>, from: Option<Speed>) -> Self {
        let class = |speed: Speed| Class::new(1, 0, speed, speed.average);
        Shape {
            egress: to.map(|speed| Egress { default: 1, classes: vec![class(speed)] }),
            ingress: from.map(Police::new),
        }
    }

    /// A bridge's: it sends what goes `to` its ports and receives what they send to the host and beyond. The ports with
    /// a floor share in `to`; the rest has what they leave.
    pub fn bridge(to: Option<Speed>, from: Option<Speed>, floors: &[Floor]) -> Self {
        let egress = to.map(|speed| {
            let promised: u64 = floors.iter().map(|floor| floor.rate).sum();
            // HTB has no class without a rate.
            let rest = speed.average.saturating_sub(promised).max(1000);
            let mut classes = vec![Class::new(1, 0, speed, speed.average), Class::new(EVERYONE, 1, speed, rest)];
            for (minor, floor) in (FIRST_PORT..).zip(floors.iter().take(MOST_FLOORS)) {
                classes.push(Class { mac: Some(floor.mac), ..Class::new(minor, 1, speed, floor.rate) });
            }
            Egress { default: EVERYONE, classes }
        });
        Shape { egress, ingress: from.map(Police::new) }
    }

    /// Nothing is limited.
    pub fn is_free(&self) -> bool {
        *self == Shape::default()
    }
}

impl Class {
    fn new(minor: u16, parent: u16, speed: Speed, rate: u64) -> Self {
        let rate = rate.max(1);
        let ceil = speed.peak.unwrap_or(speed.average).max(rate);
        let burst = ticks(speed.burst.unwrap_or(0).max(SMALLEST_BURST), rate);
        Class { minor, parent, rate, ceil, burst, mac: None }
    }
}

impl Police {
    fn new(speed: Speed) -> Self {
        let rate = speed.average.max(1);
        // As libvirt does where no burst is given: what a second brings.
        let burst = speed.burst.unwrap_or(rate.max(OFFLOADED_FRAME));
        Police { rate, burst: ticks(burst, rate) }
    }
}

/// How long `bytes` take at `rate` bytes a second, in the kernel's ticks.
pub(crate) fn ticks(bytes: u64, rate: u64) -> u32 {
    let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    u32::try_from(nanoseconds.div_ceil(TICK_NANOSECONDS)).unwrap_or(u32::MAX)
}

/// What leads from the shape `found` to the one `wanted`, in the order to do it. Doing it disturbs no class that is as
/// it should be.
pub(crate) fn changes(wanted: &Shape, found: &Shape) -> Vec<Change> {
    let mut changes = Vec::new();
    match (&wanted.egress, &found.egress) {
        (None, None) => {}
        (None, Some(_)) => changes.push(Change::DeleteRoot),
        (Some(wanted), Some(found)) if fits(wanted, found) => change_classes(&mut changes, wanted, &found.classes),
        (Some(wanted), found) => {
            if found.is_some() {
                changes.push(Change::DeleteRoot);
            }
            changes.push(Change::AddRoot { default: wanted.default });
            change_classes(&mut changes, wanted, &[]);
        }
    }
    if wanted.ingress != found.ingress {
        if found.ingress.is_some() {
            changes.push(Change::DeleteIngress);
        }
        if let Some(police) = wanted.ingress {
            changes.extend([Change::AddIngress, Change::AddPolice(police)]);
        }
    }
    changes
}

/// Whether one can become the other class by class: HTB's default and a class's place in the tree never change.
fn fits(wanted: &Egress, found: &Egress) -> bool {
    wanted.default == found.default
        && wanted.classes.iter().all(|class| {
            found.classes.iter().find(|other| other.minor == class.minor).is_none_or(|o| o.parent == class.parent)
        })
}

fn change_classes(changes: &mut Vec<Change>, wanted: &Egress, found: &[Class]) {
    let is_leaf = |minor: u16| !wanted.classes.iter().any(|class| class.parent == minor);
    for gone in found.iter().rev().filter(|class| !wanted.classes.iter().any(|other| other.minor == class.minor)) {
        if gone.mac.is_some() {
            changes.push(Change::DeleteFilter { minor: gone.minor });
        }
        changes.push(Change::DeleteClass { minor: gone.minor });
    }
    for &class in &wanted.classes {
        let before = found.iter().find(|other| other.minor == class.minor);
        if before.is_none_or(|before| Class { mac: class.mac, ..*before } != class) {
            changes.push(Change::SetClass(class));
        }
        if before.is_none() && is_leaf(class.minor) {
            changes.push(Change::AddQueue { minor: class.minor });
        }
        let mac = before.and_then(|before| before.mac);
        if mac == class.mac {
            continue;
        }
        if mac.is_some() {
            changes.push(Change::DeleteFilter { minor: class.minor });
        }
        if let Some(mac) = class.mac {
            changes.push(Change::AddFilter { minor: class.minor, mac });
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kilobytes = |rate: u64| rate / 1000;
        match self.egress.as_ref().and_then(|egress| egress.classes.first()) {
            Some(class) => write!(f, "{} kB/s out", kilobytes(class.rate))?,
            None => f.write_str("any speed out")?,
        }
        match self.ingress {
            Some(police) => write!(f, " and {} kB/s in", kilobytes(police.rate)),
            None => f.write_str(" and any speed in"),
        }
    }
}
