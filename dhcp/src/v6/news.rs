//! What whoever watches the leases does not know yet of IPv6 ones. Pure; how it works is said in [`crate::news`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
};

use super::{
    request::{Kind, Request},
    server::{Decision, Outcome},
    table::{Binding, Key, Table},
};
use crate::watch::{LeaseChange, LeaseKind};

/// Told and not yet told.
#[derive(Debug, Default)]
pub(super) struct News {
    /// The leases that whoever watches knows of.
    told: BTreeMap<Key, (Ipv6Addr, Option<String>)>,
    /// Leases about which there may be news.
    about: BTreeSet<Key>,
    /// There may be news about everyone.
    all: bool,
    /// What the last message about a lease did.
    why: BTreeMap<Key, Outcome>,
    /// What changes no lease, to be told as it is.
    passing: Vec<LeaseChange>,
}

impl News {
    /// These leases are known.
    pub(super) fn new<'a>(live: impl Iterator<Item = &'a Binding>) -> Self {
        let told = live.map(|binding| (binding.key, (binding.address, binding.hostname.clone())));
        News { told: told.collect(), ..News::default() }
    }

    /// A message was decided on.
    pub(super) fn heard(&mut self, request: &Request, decision: &Decision) {
        if request.kind != Kind::Solicit || decision.ignored.is_some() {
            return;
        }
        let mut tell = |kind| {
            self.passing.push(LeaseChange { mac: request.mac, hostname: request.hostname.clone(), kind });
        };
        tell(LeaseKind::Discovering);
        for (_, outcome) in &decision.outcomes {
            if let Outcome::Offered(address) = outcome {
                tell(LeaseKind::Offered((*address).into()));
            }
        }
    }

    /// A lease is about to be changed, for this reason.
    pub(super) fn because(&mut self, key: Key, outcome: Outcome) {
        self.why.insert(key, outcome);
    }

    /// A lease changed on disk, or did not after all.
    pub(super) fn settled(&mut self, key: Key, written: bool) {
        self.about.insert(key);
        if !written {
            self.why.remove(&key);
        }
    }

    /// A binding counts as a lease now, or not any more.
    pub(super) fn of(&mut self, key: Key) {
        self.about.insert(key);
    }

    /// Any lease may have ended.
    pub(super) fn of_everyone(&mut self) {
        self.all = true;
    }

    /// What happened since the last call, as far as the disk has it; `is_lease` says which bindings count.
    pub(super) fn take(&mut self, table: &Table, is_lease: impl Fn(&Binding) -> bool) -> Vec<LeaseChange> {
        let mut changes = std::mem::take(&mut self.passing);
        let settled = std::mem::take(&mut self.about);
        let mut about = settled.clone();
        if std::mem::take(&mut self.all) {
            about.extend(self.told.keys());
        }
        for key in about {
            let binding = table.binding(key);
            let live = binding.filter(|binding| is_lease(binding));
            // Kept for when the disk has answered.
            let why = if settled.contains(&key) { self.why.remove(&key) } else { self.why.get(&key).copied() };
            let after = live.map(|binding| (binding.address, binding.hostname.clone()));
            let before = match &after {
                Some(after) => self.told.insert(key, after.clone()),
                None => self.told.remove(&key),
            };
            let same = matches!((&before, &after), (Some((before, _)), Some((after, _))) if before == after);
            let mac = key.mac;
            if let Some((address, hostname)) = before.filter(|_| !same) {
                let end = address.into();
                let kind = match why {
                    Some(Outcome::Released(released)) if released == address => LeaseKind::Released(end),
                    Some(Outcome::Declined(declined)) if declined == address => LeaseKind::Declined(end),
                    _ if after.is_none() && binding.is_some_and(|binding| binding.address == address) => {
                        LeaseKind::Expired(end)
                    }
                    _ => LeaseKind::Dropped(end),
                };
                changes.push(LeaseChange { mac, hostname, kind });
            }
            match after {
                Some((address, hostname)) if !same => {
                    changes.push(LeaseChange { mac, hostname, kind: LeaseKind::Leased(address.into()) });
                }
                Some((address, hostname)) if settled.contains(&key) && matches!(why, Some(Outcome::Leased { .. })) => {
                    changes.push(LeaseChange { mac, hostname, kind: LeaseKind::Renewed(address.into()) });
                }
                _ => {}
            }
        }
        changes
    }
}
