//! The lease table of one network: who has which address until when, in memory.
//!
//! It knows no packets, no disk and no clock: changes are decided elsewhere ([`crate::v4::server`]), applied here, and
//! written elsewhere ([`crate::store`]). Offers and quarantines live only here and die with the process.
//!
//! ```text
//!            offer              bind                    bind (renew)
//!   free ───────────► offered ─────────► leased ◄──────────────────┐
//!    ▲ ▲                 │ time           │ │ └────────────────────┘
//!    │ └─────────────────┘                │ │ decline
//!    │        another client takes it     │ └─────────► quarantined ── time ──► free
//!    └──────────────────── remembered ◄───┘ release, time
//! ```
//!
//! A binding is applied before it is on disk, so that the next packet sees it; [`Table::settle`] later says whether it
//! got there. If not, the last binding that did comes back, whatever was applied in between; until then its address is
//! nobody else's.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
    time::Duration,
};

use crate::{
    config::{LeaseTime, Mac},
    hostname,
};

/// An address bound to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) mac: Mac,
    pub(crate) address: Ipv4Addr,
    pub(crate) hostname: Option<String>,
    pub(crate) client_id: Option<Vec<u8>>,
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
    /// Keeps an address for a client that has been offered it.
    Offer { mac: Mac, address: Ipv4Addr, until: Duration },
    /// Takes an offer back.
    Withdraw(Mac),
    /// Makes, extends or ends (by a past `ends`) a client's binding. The address must not be another's.
    Bind(Binding),
    /// Drops a client's binding.
    Forget(Mac),
    /// Keeps an address from everyone: somebody uses it who doesn't have it from us.
    Quarantine { address: Ipv4Addr, until: Duration },
}

impl Change {
    /// Whose binding it changes, if it changes one.
    pub(crate) fn binding_of(&self) -> Option<Mac> {
        match self {
            Change::Bind(binding) => Some(binding.mac),
            Change::Forget(mac) => Some(*mac),
            Change::Offer { .. } | Change::Withdraw(_) | Change::Quarantine { .. } => None,
        }
    }
}

/// What an address is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Nobody,
    /// Had by this client before; the time its binding ended.
    Remembered(Mac, Duration),
    /// Kept for this client until then.
    Offered(Mac, Duration),
    /// Kept from everyone until then.
    Quarantined(Duration),
    Leased(Mac),
}

/// The order of changes: a later change has a higher ticket.
pub(crate) type Ticket = u64;

#[derive(Clone, Copy, Debug)]
struct Offer {
    address: Ipv4Addr,
    until: Duration,
}

/// A client whose last change is not known to be on disk.
#[derive(Debug)]
struct Unsettled {
    last: Ticket,
    on_disk: Option<Binding>,
    /// What is on its way there, in ticket order.
    coming: Vec<(Ticket, Binding)>,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    bindings: BTreeMap<Mac, Binding>,
    by_address: HashMap<Ipv4Addr, Mac>,
    by_name: HashMap<String, Mac>,
    ends: BTreeSet<(Duration, Mac)>,
    offers: HashMap<Mac, Offer>,
    offered: HashMap<Ipv4Addr, Mac>,
    quarantine: HashMap<Ipv4Addr, Duration>,
    unsettled: HashMap<Mac, Unsettled>,
    /// The addresses of `on_disk` and `coming` of everyone unsettled, with how often each is among them.
    kept: BTreeMap<(Ipv4Addr, Mac), usize>,
}

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

    /// A client's binding, live or remembered.
    pub(crate) fn binding(&self, mac: Mac) -> Option<&Binding> {
        self.bindings.get(&mac)
    }

    /// Every binding, live or remembered, by MAC.
    pub(crate) fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.values()
    }

    /// What an address is doing.
    pub(crate) fn holder(&self, address: Ipv4Addr, now: Duration) -> Holder {
        let bound = self.by_address.get(&address).and_then(|mac| self.bindings.get(mac));
        if let Some(binding) = bound
            && binding.is_live(now)
        {
            return Holder::Leased(binding.mac);
        }
        if let Some(mac) = self.kept_for(address, now) {
            return Holder::Leased(mac);
        }
        if let Some(&until) = self.quarantine.get(&address)
            && until > now
        {
            return Holder::Quarantined(until);
        }
        if let Some(&mac) = self.offered.get(&address)
            && let Some(offer) = self.offers.get(&mac)
            && offer.until > now
        {
            return Holder::Offered(mac, offer.until);
        }
        match bound {
            Some(Binding { mac, ends: Some(ended), .. }) => Holder::Remembered(*mac, *ended),
            _ => Holder::Nobody,
        }
    }

    /// What a client has been offered and not yet asked for.
    pub(crate) fn offer(&self, mac: Mac, now: Duration) -> Option<Ipv4Addr> {
        self.offers.get(&mac).filter(|offer| offer.until > now).map(|offer| offer.address)
    }

    /// The client whose live lease has this name.
    pub(crate) fn name_holder(&self, name: &str, now: Duration) -> Option<Mac> {
        let mac = *self.by_name.get(&hostname::key(name))?;
        self.bindings.get(&mac).filter(|binding| binding.is_live(now)).map(|binding| binding.mac)
    }

    /// When the next live lease ends.
    pub(crate) fn next_end(&self, now: Duration) -> Option<Duration> {
        self.ends.range((now + Duration::from_nanos(1), Mac([0; 6]))..).next().map(|(ends, _)| *ends)
    }

    /// Makes a change. `ticket` is for [`Table::settle`], which every change of a binding must be followed by.
    pub(crate) fn apply(&mut self, change: Change, ticket: Ticket) {
        if let Some(mac) = change.binding_of() {
            let on_disk = self.bindings.get(&mac);
            let unsettled = self.unsettled.entry(mac).or_insert_with(|| {
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
            Change::Offer { mac, address, until } => {
                self.withdraw(mac);
                if let Some(other) = self.offered.insert(address, mac) {
                    self.offers.remove(&other);
                }
                self.offers.insert(mac, Offer { address, until });
            }
            Change::Withdraw(mac) => self.withdraw(mac),
            Change::Bind(binding) => {
                self.withdraw(binding.mac);
                self.quarantine.remove(&binding.address);
                self.insert(binding);
            }
            Change::Forget(mac) => self.remove(mac),
            Change::Quarantine { address, until } => {
                self.quarantine.insert(address, until);
            }
        }
    }

    /// Says what became of a change of a binding: `written` is true if it is on disk. Calls come in ticket order.
    pub(crate) fn settle(&mut self, change: &Change, ticket: Ticket, written: bool) {
        let Some(mac) = change.binding_of() else { return };
        let Some(unsettled) = self.unsettled.get_mut(&mac) else { return };
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
        let on_disk = self.unsettled.remove(&mac).and_then(|unsettled| unsettled.on_disk);
        if let Some(binding) = &on_disk {
            unkeep(&mut self.kept, binding);
        }
        if written {
            return;
        }
        self.remove(mac);
        // A remembered binding's address may have been given away.
        if let Some(binding) = on_disk
            && !self.by_address.contains_key(&binding.address)
        {
            self.insert(binding);
        }
    }

    /// Drops offers and quarantines that are over.
    pub(crate) fn sweep(&mut self, now: Duration) {
        self.offers.retain(|_, offer| offer.until > now);
        self.offered.retain(|_, mac| self.offers.contains_key(mac));
        self.quarantine.retain(|_, until| *until > now);
    }

    /// The client whose live lease of the address is on disk or on its way there, while later changes of it are: it has
    /// been told of it, or will be.
    fn kept_for(&self, address: Ipv4Addr, now: Duration) -> Option<Mac> {
        let candidates = self.kept.range((address, Mac([0; 6]))..=(address, Mac([0xff; 6])));
        candidates.map(|((_, mac), _)| *mac).find(|mac| {
            let Some(unsettled) = self.unsettled.get(mac) else { return false };
            let coming = unsettled.coming.iter().map(|(_, binding)| binding);
            let mut kept = unsettled.on_disk.iter().chain(coming);
            kept.any(|binding| binding.address == address && binding.is_live(now))
        })
    }

    fn withdraw(&mut self, mac: Mac) {
        if let Some(offer) = self.offers.remove(&mac) {
            self.offered.remove(&offer.address);
        }
    }

    fn insert(&mut self, binding: Binding) {
        self.remove(binding.mac);
        if let Some(&other) = self.by_address.get(&binding.address) {
            self.remove(other);
        }
        self.by_address.insert(binding.address, binding.mac);
        if let Some(name) = &binding.hostname {
            self.by_name.insert(hostname::key(name), binding.mac);
        }
        if let Some(ends) = binding.ends {
            self.ends.insert((ends, binding.mac));
        }
        self.bindings.insert(binding.mac, binding);
    }

    fn remove(&mut self, mac: Mac) {
        let Some(binding) = self.bindings.remove(&mac) else { return };
        self.by_address.remove(&binding.address);
        if let Some(name) = &binding.hostname {
            let key = hostname::key(name);
            if self.by_name.get(&key) == Some(&mac) {
                self.by_name.remove(&key);
            }
        }
        if let Some(ends) = binding.ends {
            self.ends.remove(&(ends, mac));
        }
    }
}

fn keep(kept: &mut BTreeMap<(Ipv4Addr, Mac), usize>, binding: &Binding) {
    *kept.entry((binding.address, binding.mac)).or_default() += 1;
}

fn unkeep(kept: &mut BTreeMap<(Ipv4Addr, Mac), usize>, binding: &Binding) {
    let place = (binding.address, binding.mac);
    match kept.get_mut(&place) {
        Some(count) if *count > 1 => *count -= 1,
        _ => drop(kept.remove(&place)),
    }
}

#[cfg(test)]
mod tests;
