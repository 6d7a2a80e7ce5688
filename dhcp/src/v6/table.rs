//! The IPv6 leases of one network: who has which address until when, in memory.
//!
//! As with IPv4 ([`crate::leases`]) it knows no packets, no disk and no clock, and what is applied before it is on disk
//! is taken back by [`Table::settle`] if it does not get there. There are no offers: a client that asks for an address
//! somebody took in the meantime is given another in the same reply (RFC 8415 §18.3.2).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv6Addr,
    time::Duration,
};

use crate::{
    config::{LeaseTime, Mac},
    hostname,
    leases::Ticket,
};

/// Whose a lease is: a hardware address, and the number that the client has for its association (IAID).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) mac: Mac,
    pub(crate) iaid: u32,
}

/// An address bound to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) key: Key,
    pub(crate) address: Ipv6Addr,
    /// The client's DUID.
    pub(crate) duid: Vec<u8>,
    pub(crate) hostname: Option<String>,
    /// What was granted last.
    pub(crate) granted: LeaseTime,
    /// When it ends, on the forward clock; `None` for never.
    pub(crate) ends: Option<Duration>,
}

impl Binding {
    /// Whether it still holds. One that doesn't is remembered, so that its client may have the address again.
    pub(crate) fn is_live(&self, now: Duration) -> bool {
        self.ends.is_none_or(|ends| ends > now)
    }
}

/// One step of the table. Only bindings reach the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Makes, extends or ends (by a past `ends`) a binding. The address must not be another's.
    Bind(Binding),
    /// Drops a binding.
    Forget(Key),
    /// Keeps an address from everyone: somebody uses it who doesn't have it from us.
    Quarantine { address: Ipv6Addr, until: Duration },
}

impl Change {
    /// Whose binding it changes, if it changes one.
    pub(crate) fn binding_of(&self) -> Option<Key> {
        match self {
            Change::Bind(binding) => Some(binding.key),
            Change::Forget(key) => Some(*key),
            Change::Quarantine { .. } => None,
        }
    }
}

/// What an address is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Nobody,
    /// Had by this client before; the time its binding ended.
    Remembered(Key, Duration),
    /// Kept from everyone until then.
    Quarantined(Duration),
    Leased(Key),
}

/// A client whose last change is not known to be on disk.
#[derive(Debug)]
struct Unsettled {
    last: Ticket,
    on_disk: Option<Binding>,
    /// On their way to the disk. Their clients hear of each that gets there, whatever came after it.
    coming: Vec<(Ticket, Binding)>,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    bindings: BTreeMap<Key, Binding>,
    by_address: HashMap<Ipv6Addr, Key>,
    by_name: HashMap<String, BTreeSet<Key>>,
    ends: BTreeSet<(Duration, Key)>,
    quarantine: HashMap<Ipv6Addr, Duration>,
    unsettled: HashMap<Key, Unsettled>,
    /// The addresses of `on_disk` and `coming` of everyone unsettled, and how often each is among them.
    kept: BTreeMap<(Ipv6Addr, Key), usize>,
}

/// Below and above every key.
const FIRST: Key = Key { mac: Mac([0; 6]), iaid: 0 };
const LAST: Key = Key { mac: Mac([0xff; 6]), iaid: u32::MAX };

impl Table {
    /// Takes over what was on disk. Of two bindings of one address, the one that ends later stays.
    pub(crate) fn load(stored: impl IntoIterator<Item = Binding>) -> Self {
        let mut stored: Vec<_> = stored.into_iter().collect();
        stored.sort_by_key(|binding| binding.ends.unwrap_or(Duration::MAX));
        let mut table = Table::default();
        for binding in stored {
            table.insert(binding);
        }
        table
    }

    /// A binding, live or remembered.
    pub(crate) fn binding(&self, key: Key) -> Option<&Binding> {
        self.bindings.get(&key)
    }

    /// Every binding, live or remembered, by MAC.
    pub(crate) fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.values()
    }

    /// The bindings of one MAC.
    pub(crate) fn of_mac(&self, mac: Mac) -> impl Iterator<Item = &Binding> {
        self.bindings.range(Key { mac, iaid: 0 }..=Key { mac, iaid: u32::MAX }).map(|(_, binding)| binding)
    }

    /// How many bindings there are, live or remembered.
    pub(crate) fn len(&self) -> usize {
        self.bindings.len()
    }

    /// Addresses that may be kept from a client: of bindings, on the disk too, and quarantined ones.
    pub(crate) fn held(&self) -> usize {
        self.bindings.len() + self.kept.len() + self.quarantine.len()
    }

    /// The binding that ended longest ago.
    pub(crate) fn oldest_ended(&self, now: Duration) -> Option<Key> {
        self.ends.first().filter(|(ends, _)| *ends <= now).map(|(_, key)| *key)
    }

    /// What an address is doing.
    pub(crate) fn holder(&self, address: Ipv6Addr, now: Duration) -> Holder {
        let bound = self.by_address.get(&address).and_then(|key| self.bindings.get(key));
        if let Some(binding) = bound
            && binding.is_live(now)
        {
            return Holder::Leased(binding.key);
        }
        if let Some(key) = self.kept_for(address, now) {
            return Holder::Leased(key);
        }
        if let Some(&until) = self.quarantine.get(&address)
            && until > now
        {
            return Holder::Quarantined(until);
        }
        match bound {
            Some(Binding { key, ends: Some(ended), .. }) => Holder::Remembered(*key, *ended),
            _ => Holder::Nobody,
        }
    }

    /// The client whose live lease has this name.
    pub(crate) fn name_holder(&self, name: &str, now: Duration) -> Option<Mac> {
        let keys = self.by_name.get(&hostname::key(name))?;
        keys.iter().find(|key| self.bindings.get(key).is_some_and(|binding| binding.is_live(now))).map(|key| key.mac)
    }

    /// When the next live lease ends.
    pub(crate) fn next_end(&self, now: Duration) -> Option<Duration> {
        self.ends.range((now + Duration::from_nanos(1), FIRST)..).next().map(|(ends, _)| *ends)
    }

    /// Makes a change. `ticket` is for [`Table::settle`], which every change of a binding must be followed by.
    pub(crate) fn apply(&mut self, change: Change, ticket: Ticket) {
        if let Some(key) = change.binding_of() {
            let on_disk = self.bindings.get(&key);
            let unsettled = self.unsettled.entry(key).or_insert_with(|| {
                on_disk.into_iter().for_each(|binding| keep(&mut self.kept, binding));
                Unsettled { last: ticket, on_disk: on_disk.cloned(), coming: Vec::new() }
            });
            unsettled.last = ticket;
            if let Change::Bind(binding) = &change {
                keep(&mut self.kept, binding);
                unsettled.coming.push((ticket, binding.clone()));
            }
        }
        match change {
            Change::Bind(binding) => {
                self.quarantine.remove(&binding.address);
                self.insert(binding);
            }
            Change::Forget(key) => self.remove(key),
            Change::Quarantine { address, until } => {
                self.quarantine.insert(address, until);
            }
        }
    }

    /// Says what became of a change of a binding: `written` is true if it is on disk. Calls come in ticket order.
    pub(crate) fn settle(&mut self, change: &Change, ticket: Ticket, written: bool) {
        let Some(key) = change.binding_of() else { return };
        let Some(unsettled) = self.unsettled.get_mut(&key) else { return };
        let came = match change {
            Change::Bind(_) => unsettled.coming.iter().position(|(coming, _)| *coming == ticket),
            _ => None,
        };
        let came = came.map(|at| unsettled.coming.remove(at).1);
        if written {
            // What came is kept for being on disk now.
            if let Some(before) = std::mem::replace(&mut unsettled.on_disk, came) {
                unkeep(&mut self.kept, &before);
            }
        } else if let Some(failed) = came {
            unkeep(&mut self.kept, &failed);
        }
        if unsettled.last > ticket {
            return;
        }
        let on_disk = self.unsettled.remove(&key).and_then(|unsettled| unsettled.on_disk);
        if let Some(binding) = &on_disk {
            unkeep(&mut self.kept, binding);
        }
        if written {
            return;
        }
        self.remove(key);
        // A remembered binding's address may have been given away.
        if let Some(binding) = on_disk
            && !self.by_address.contains_key(&binding.address)
        {
            self.insert(binding);
        }
    }

    /// Drops quarantines that are over.
    pub(crate) fn sweep(&mut self, now: Duration) {
        self.quarantine.retain(|_, until| *until > now);
    }

    /// The client whose live lease of the address is on disk or on its way there, while later changes of it are.
    fn kept_for(&self, address: Ipv6Addr, now: Duration) -> Option<Key> {
        self.kept.range((address, FIRST)..=(address, LAST)).map(|((_, key), _)| *key).find(|key| {
            let Some(unsettled) = self.unsettled.get(key) else { return false };
            let coming = unsettled.coming.iter().map(|(_, binding)| binding);
            let mut kept = unsettled.on_disk.iter().chain(coming);
            kept.any(|binding| binding.address == address && binding.is_live(now))
        })
    }

    fn insert(&mut self, binding: Binding) {
        self.remove(binding.key);
        if let Some(&other) = self.by_address.get(&binding.address) {
            self.remove(other);
        }
        self.by_address.insert(binding.address, binding.key);
        if let Some(name) = &binding.hostname {
            self.by_name.entry(hostname::key(name)).or_default().insert(binding.key);
        }
        if let Some(ends) = binding.ends {
            self.ends.insert((ends, binding.key));
        }
        self.bindings.insert(binding.key, binding);
    }

    fn remove(&mut self, key: Key) {
        let Some(binding) = self.bindings.remove(&key) else { return };
        self.by_address.remove(&binding.address);
        if let Some(name) = &binding.hostname {
            let name = hostname::key(name);
            if let Some(keys) = self.by_name.get_mut(&name) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.by_name.remove(&name);
                }
            }
        }
        if let Some(ends) = binding.ends {
            self.ends.remove(&(ends, key));
        }
    }
}

fn keep(kept: &mut BTreeMap<(Ipv6Addr, Key), usize>, binding: &Binding) {
    *kept.entry((binding.address, binding.key)).or_default() += 1;
}

fn unkeep(kept: &mut BTreeMap<(Ipv6Addr, Key), usize>, binding: &Binding) {
    let place = (binding.address, binding.key);
    match kept.get_mut(&place) {
        Some(count) if *count > 1 => *count -= 1,
        _ => drop(kept.remove(&place)),
    }
}
