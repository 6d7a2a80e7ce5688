//! What a network's servers have done, counted: messages by kind, answers by result, and how long they took. Counters only
//! grow, and begin at zero with the process.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the classes of time to an answer, in seconds; what took longer is in one more class.
pub const BOUNDS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0];

/// DHCP messages of clients, by kind; the last is for what holds no message that could be answered.
const RECEIVED: [&str; 7] = ["discover", "request", "decline", "release", "inform", "bootp", "unusable"];

/// DHCP messages of ours, by kind.
const SENT: [&str; 3] = ["offer", "ack", "nak"];

/// DHCPv6 messages of clients, by kind, and their neighbour discovery's; the last is for what holds no message that could
/// be answered.
const RECEIVED_6: [&str; 10] = [
    "solicit",
    "request",
    "confirm",
    "renew",
    "rebind",
    "release",
    "decline",
    "information-request",
    "router-solicitation",
    "unusable",
];

/// DHCPv6 messages of ours, by kind, and router advertisements.
const SENT_6: [&str; 3] = ["advertise", "reply", "router-advertisement"];

/// DNS answers by what they say (RFC 1035 §4.1.1); the last is for every other code.
const RESULTS: [&str; 7] = ["noerror", "formerr", "servfail", "nxdomain", "notimp", "refused", "other"];

/// The counters of one network.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    received: [AtomicU64; RECEIVED.len()],
    sent: [AtomicU64; SENT.len()],
    dhcp: Times,
    received6: [AtomicU64; RECEIVED_6.len()],
    sent6: [AtomicU64; SENT_6.len()],
    results: [AtomicU64; RESULTS.len()],
    dns: Times,
}

/// What a DHCP client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Discover,
    Request,
    Decline,
    Release,
    Inform,
    Bootp,
    Unusable,
}

/// What an IPv6 client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received6 {
    Solicit,
    Request,
    Confirm,
    Renew,
    Rebind,
    Release,
    Decline,
    Information,
    RouterSolicitation,
    Unusable,
}

#[derive(Debug, Default)]
struct Times {
    classes: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// The counters of one network, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// DHCP messages of clients, by kind.
    pub dhcp_received: Vec<(&'static str, u64)>,
    /// DHCP replies, by kind.
    pub dhcp_sent: Vec<(&'static str, u64)>,
    /// Messages of IPv6 clients, by kind.
    pub dhcp6_received: Vec<(&'static str, u64)>,
    /// DHCPv6 replies and router advertisements, by kind.
    pub dhcp6_sent: Vec<(&'static str, u64)>,
    /// From a client's message (of either version) to our reply, which is sent only once its lease is on disk.
    pub dhcp_latency: Latency,
    /// DNS answers, by result.
    pub dns_answers: Vec<(&'static str, u64)>,
    /// From a query to its answer, other servers' time included.
    pub dns_latency: Latency,
}

/// How long answers took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency {
    /// Answers in each class of [`BOUNDS`] and beyond them all; none of them counts twice.
    pub classes: [u64; BOUNDS.len() + 1],
    /// The time of all of them together.
    pub sum: Duration,
}

impl Stats {
    /// A frame came.
    pub(crate) fn received(&self, what: Received) {
        self.received[what as usize].fetch_add(1, Relaxed);
    }

    /// A DHCP reply of this kind (option 53) is on the wire, so long after the message it answers.
    pub(crate) fn replied(&self, kind: Option<u8>, took: Duration) {
        let index = match kind {
            Some(2) => 0,
            Some(5) => 1,
            Some(6) => 2,
            _ => return,
        };
        self.sent[index].fetch_add(1, Relaxed);
        self.dhcp.add(took);
    }

    /// A frame of an IPv6 client came.
    pub(crate) fn received6(&self, what: Received6) {
        self.received6[what as usize].fetch_add(1, Relaxed);
    }

    /// A DHCPv6 reply of this type is on the wire, so long after the message it answers.
    pub(crate) fn replied6(&self, kind: u8, took: Duration) {
        self.sent6[usize::from(kind != crate::v6::message::kind::ADVERTISE)].fetch_add(1, Relaxed);
        self.dhcp.add(took);
    }

    /// A router advertisement is on the wire.
    pub(crate) fn advertised(&self) {
        self.sent6[2].fetch_add(1, Relaxed);
    }

    /// This DNS message answers a query, so long after it came.
    pub(crate) fn answered(&self, message: &[u8], took: Duration) {
        let code = message.get(3).map_or(usize::MAX, |flags| usize::from(flags & 0x0f));
        self.results[code.min(RESULTS.len() - 1)].fetch_add(1, Relaxed);
        self.dns.add(took);
    }

    /// The counters as they are.
    pub(crate) fn read(&self) -> Counts {
        Counts {
            dhcp_received: named(&RECEIVED, &self.received),
            dhcp_sent: named(&SENT, &self.sent),
            dhcp6_received: named(&RECEIVED_6, &self.received6),
            dhcp6_sent: named(&SENT_6, &self.sent6),
            dhcp_latency: self.dhcp.read(),
            dns_answers: named(&RESULTS, &self.results),
            dns_latency: self.dns.read(),
        }
    }
}

impl Times {
    fn add(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let class = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.classes[class].fetch_add(1, Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn read(&self) -> Latency {
        let classes = array::from_fn(|at| self.classes[at].load(Relaxed));
        Latency { classes, sum: Duration::from_nanos(self.nanos.load(Relaxed)) }
    }
}

fn named(names: &[&'static str], counters: &[AtomicU64]) -> Vec<(&'static str, u64)> {
    names.iter().zip(counters).map(|(name, counter)| (*name, counter.load(Relaxed))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_counted_under_its_name_and_class() {
        let stats = Stats::default();
        stats.received(Received::Discover);
        stats.received(Received::Unusable);
        stats.replied(Some(2), Duration::from_micros(100));
        stats.replied(Some(6), Duration::from_secs(60));
        stats.replied(None, Duration::ZERO);
        stats.answered(&[0, 0, 0x81, 0x83], Duration::from_millis(2));
        stats.answered(&[0, 0, 0x81, 0x0f], Duration::from_millis(2));
        stats.answered(&[], Duration::ZERO);
        let counts = stats.read();
        let of = |list: &[(&str, u64)], name| list.iter().find(|(known, _)| *known == name).unwrap().1;
        assert_eq!((of(&counts.dhcp_received, "discover"), of(&counts.dhcp_received, "unusable")), (1, 1));
        assert_eq!((of(&counts.dhcp_sent, "offer"), of(&counts.dhcp_sent, "nak")), (1, 1));
        assert_eq!((of(&counts.dns_answers, "nxdomain"), of(&counts.dns_answers, "other")), (1, 2));
        assert_eq!((counts.dhcp_latency.classes[0], counts.dhcp_latency.classes[BOUNDS.len()]), (1, 1));
        assert_eq!(counts.dhcp_latency.sum, Duration::from_micros(60_000_100));
        assert_eq!(counts.dns_latency.classes[4], 2);
    }
}
