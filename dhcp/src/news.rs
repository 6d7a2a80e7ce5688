//! What whoever watches the leases does not know yet. Pure.
//!
//! What a lease became is not told from message to message but from what the table says now and what was told last, so
//! that nothing is told twice or left out however messages and the disk's answers overtake each other. The messages
//! only say why.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use crate::{
    config::Mac,
    leases::{Binding, Table},
    v4::{
        request::{Kind, Request},
        server::{Ignored, Outcome},
    },
    watch::{LeaseChange, LeaseKind},
};

/// Told and not yet told.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// The leases that whoever watches knows of.
    told: BTreeMap<Mac, (Ipv4Addr, Option<String>)>,
    /// Clients about whom there may be news.
    about: BTreeSet<Mac>,
    /// There may be news about everyone.
    all: bool,
    /// What the last message about a lease did.
    why: BTreeMap<Mac, Outcome>,
    /// What changes no lease, to be told as it is.
    passing: Vec<LeaseChange>,
}

impl News {
    /// These leases are known.
    pub(crate) fn new<'a>(live: impl Iterator<Item = &'a Binding>) -> Self {
        let told = live.map(|binding| (binding.mac, (binding.address, binding.hostname.clone())));
        News { told: told.collect(), ..News::default() }
    }

    /// A message was decided on.
    pub(crate) fn heard(&mut self, request: &Request, outcome: Outcome) {
        // It came from somebody else than it says.
        if matches!(outcome, Outcome::Ignored(Ignored::NotTheOwner | Ignored::ForAnotherHost)) {
            return;
        }
        if request.kind == Kind::Discover {
            let mut tell = |kind| {
                self.passing.push(LeaseChange { mac: request.mac, hostname: request.hostname.clone(), kind });
            };
            tell(LeaseKind::Discovering);
            if let Outcome::Offered(address) = outcome {
                tell(LeaseKind::Offered(address.into()));
            }
        }
    }

    /// A client's lease is about to be changed, for this reason.
    pub(crate) fn because(&mut self, mac: Mac, outcome: Outcome) {
        self.why.insert(mac, outcome);
    }

    /// A client's lease changed on disk, or did not after all.
    pub(crate) fn settled(&mut self, mac: Mac, written: bool) {
        self.about.insert(mac);
        if !written {
            self.why.remove(&mac);
        }
    }

    /// A client's binding counts as a lease now, or not any more.
    pub(crate) fn of(&mut self, mac: Mac) {
        self.about.insert(mac);
    }

    /// Any lease may have ended.
    pub(crate) fn of_everyone(&mut self) {
        self.all = true;
    }

    /// What happened since the last call, as far as the disk has it; `is_lease` says which bindings count.
    pub(crate) fn take(&mut self, table: &Table, is_lease: impl Fn(&Binding) -> bool) -> Vec<LeaseChange> {
        let mut changes = std::mem::take(&mut self.passing);
        let settled = std::mem::take(&mut self.about);
        let mut about = settled.clone();
        if std::mem::take(&mut self.all) {
            about.extend(self.told.keys());
        }
        for mac in about {
            let binding = table.binding(mac);
            let live = binding.filter(|binding| is_lease(binding));
            // Kept for when the disk has answered.
            let why = if settled.contains(&mac) { self.why.remove(&mac) } else { self.why.get(&mac).copied() };
            let after = live.map(|binding| (binding.address, binding.hostname.clone()));
            let before = match &after {
                Some(after) => self.told.insert(mac, after.clone()),
                None => self.told.remove(&mac),
            };
            let same = matches!((&before, &after), (Some((before, _)), Some((after, _))) if before == after);
            if let Some((address, hostname)) = before.filter(|_| !same) {
                let kind = match why {
                    Some(Outcome::Released(released)) if released == address => LeaseKind::Released(address.into()),
                    Some(Outcome::Declined(declined)) if declined == address => LeaseKind::Declined(address.into()),
                    _ if after.is_none() && binding.is_some_and(|binding| binding.address == address) => {
                        LeaseKind::Expired(address.into())
                    }
                    _ => LeaseKind::Dropped(address.into()),
                };
                changes.push(LeaseChange { mac, hostname, kind });
            }
            match after {
                Some((address, hostname)) if !same => {
                    changes.push(LeaseChange { mac, hostname, kind: LeaseKind::Leased(address.into()) });
                }
                Some((address, hostname)) if settled.contains(&mac) && matches!(why, Some(Outcome::Acked { .. })) => {
                    changes.push(LeaseChange { mac, hostname, kind: LeaseKind::Renewed(address.into()) });
                }
                _ => {}
            }
        }
        changes
    }
}
