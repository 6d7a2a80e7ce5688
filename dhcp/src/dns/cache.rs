//! Upstream answers kept for as long as they say, bounded in entries and octets; the least recently used goes first.
//!
//! `now` is an argument. What may be kept and for how long is read by `wire::reply` (RFC 2308 for negative answers);
//! here are only the ceilings.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use super::wire::{Name, Query, Reply, bits};

/// The longest an answer is kept, in seconds, whatever its TTL.
const LONGEST_POSITIVE: u32 = 86_400;

/// The longest a negative answer is kept, in seconds (RFC 2308 §5 proposes one to three hours).
const LONGEST_NEGATIVE: u32 = 3_600;

/// How long a failure is remembered, in seconds (RFC 9520 §3.2: at least one).
const FAILURE: u32 = 1;

/// What makes two questions the same: an answer to one is an answer to the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    name: Name,
    qtype: u16,
    qclass: u16,
    dnssec_ok: bool,
    /// RD and CD: they change what the upstream says.
    flags: u16,
}

impl Key {
    /// The key of a query; case doesn't matter.
    pub(super) fn of(query: &Query) -> Key {
        Key {
            name: query.name.folded(),
            qtype: query.qtype,
            qclass: query.qclass,
            dnssec_ok: query.dnssec_ok(),
            flags: query.flags & (bits::RECURSION_DESIRED | bits::CHECKING_DISABLED),
        }
    }
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Answers.
    pub(super) entries: usize,
    /// Octets, about.
    pub(super) octets: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { entries: 10_000, octets: 4 << 20 }
    }
}

/// The cache.
#[derive(Debug)]
pub(super) struct Cache {
    bounds: Bounds,
    entries: HashMap<Arc<Key>, Entry>,
    /// From the least to the most recently used.
    order: BTreeMap<u64, Arc<Key>>,
    uses: u64,
    octets: usize,
}

#[derive(Debug)]
struct Entry {
    reply: Reply,
    stored: Instant,
    expires: Instant,
    used: u64,
    cost: usize,
}

impl Cache {
    /// An empty cache.
    pub(super) fn new(bounds: Bounds) -> Cache {
        Cache { bounds, entries: HashMap::new(), order: BTreeMap::new(), uses: 0, octets: 0 }
    }

    /// The answer to a question, if one is kept and still good, and its age in whole seconds.
    pub(super) fn get(&mut self, key: &Key, now: Instant) -> Option<(&Reply, u32)> {
        if self.entries.get(key)?.expires <= now {
            self.remove(key);
            return None;
        }
        let entry = self.entries.get_mut(key)?;
        if let Some(shared) = self.order.remove(&entry.used) {
            self.uses += 1;
            entry.used = self.uses;
            self.order.insert(self.uses, shared);
        }
        let age = now.saturating_duration_since(entry.stored).as_secs();
        Some((&entry.reply, u32::try_from(age).unwrap_or(u32::MAX)))
    }

    /// Keeps an answer that may be kept; forgets others until the bounds hold.
    pub(super) fn insert(&mut self, key: Key, reply: Reply, now: Instant) {
        let seconds = match reply.lifetime() {
            _ if reply.is_failure() => FAILURE,
            Some(seconds) if reply.is_negative() => seconds.min(LONGEST_NEGATIVE),
            Some(seconds) => seconds.min(LONGEST_POSITIVE),
            None => return,
        };
        self.remove(&key);
        let cost = reply.footprint() + size_of::<Key>() + key.name.bytes().len() + 2 * size_of::<Entry>();
        // One answer may not push out most of the others.
        if cost > self.bounds.octets / 8 {
            return;
        }
        while self.entries.len() >= self.bounds.entries || self.octets + cost > self.bounds.octets {
            let Some((_, oldest)) = self.order.first_key_value() else { return };
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
        self.uses += 1;
        let key = Arc::new(key);
        let expires = now + Duration::from_secs(seconds.into());
        self.order.insert(self.uses, key.clone());
        self.entries.insert(key, Entry { reply, stored: now, expires, used: self.uses, cost });
        self.octets += cost;
    }

    /// Forgets everything: the answers of one set of upstreams are not those of another.
    pub(super) fn clear(&mut self) {
        *self = Cache { uses: self.uses, ..Cache::new(self.bounds) };
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            self.octets -= entry.cost;
        }
    }
}

#[cfg(test)]
mod tests;
