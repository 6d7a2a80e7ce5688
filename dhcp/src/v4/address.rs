//! Which address a client may have: chosen for a DISCOVER, judged for a REQUEST. Reads the table, changes nothing.
//!
//! A client is its hardware address. Cloned guests share a client identifier, so that says nothing about who asks; every
//! port has a MAC of its own.

use std::net::Ipv4Addr;

use super::{
    policy::Reserved,
    request::Request,
    server::{NakReason, View},
};
use crate::{config::Mac, leases::Holder};

/// The address chosen for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) address: Ipv4Addr,
    /// The client's reserved address, which somebody else has now.
    pub(super) reservation_taken: Option<Ipv4Addr>,
}

impl View<'_> {
    /// The name a client has a right to speak under: the one it sends, else the one it is known by.
    pub(super) fn claimed_name(&self, request: &Request) -> Option<String> {
        let claimed = request.hostname.clone();
        claimed.or_else(|| self.table.binding(request.mac).and_then(|binding| binding.hostname.clone()))
    }

    /// What the configuration keeps for a client: by MAC, by its guest's name, or by a name it claims and no guest has.
    pub(super) fn reservation(&self, mac: Mac, claimed: Option<&str>) -> Option<Reserved<'_>> {
        let claimed = claimed.filter(|name| !self.ports.name_is_taken(name, mac));
        self.policy.reservation(mac, self.ports.name(mac)).or_else(|| self.policy.reservation(mac, claimed))
    }

    /// Chooses an address (RFC 2131 §4.3.1), or `None` if every address has a lease.
    ///
    /// In order: its reservation, what it has or had, what it was offered, what it asks for, a place in the pool that
    /// its MAC always leads to. If no address is free, the one that was given up longest ago; failing that, another
    /// client's oldest offer; failing that, the quarantine that ends first. A lease is never taken away.
    pub(super) fn choose(&self, request: &Request, own: Option<Reserved<'_>>) -> Option<Choice> {
        let reserved = own.and_then(|own| own.host.address);
        if let Some(address) = reserved
            && self.is_free_for_owner(address, request.mac)
        {
            return Some(Choice { address, reservation_taken: None });
        }
        let had = self.table.binding(request.mac).map(|binding| binding.address);
        let offered = self.table.offer(request.mac, self.now.boot);
        let known = [had, offered, request.requested].into_iter().flatten().find(|&address| {
            self.is_for_anyone(address, own)
                && match self.table.holder(address, self.now.boot) {
                    Holder::Nobody => true,
                    Holder::Leased(mac) | Holder::Offered(mac, _) => mac == request.mac,
                    Holder::Remembered(mac, _) => mac == request.mac || request.requested == Some(address),
                    Holder::Quarantined(_) => false,
                }
        });
        let address = known.or_else(|| self.search(request.mac, own))?;
        Some(Choice { address, reservation_taken: reserved })
    }

    /// Judges the address a client says it has or wants (RFC 2131 §4.3.2).
    pub(super) fn judge(&self, address: Ipv4Addr, mac: Mac, own: Option<Reserved<'_>>) -> Result<(), NakReason> {
        if !self.policy.subnet().contains(&address) {
            return Err(NakReason::WrongNetwork);
        }
        if !self.policy.is_host(address) {
            return Err(NakReason::NotForClients);
        }
        let holder = self.table.holder(address, self.now.boot);
        if matches!(holder, Holder::Leased(other) if other != mac) {
            return Err(NakReason::InUse);
        }
        if self.table.offer(mac, self.now.boot) == Some(address) {
            return Ok(());
        }
        match holder {
            Holder::Offered(..) => return Err(NakReason::InUse),
            Holder::Quarantined(_) => return Err(NakReason::Quarantined),
            Holder::Leased(_) | Holder::Remembered(..) | Holder::Nobody => {}
        }
        match own.and_then(|own| own.host.address) {
            Some(reserved) if reserved == address => return Ok(()),
            // Only if the client can have its own: else it would be refused for ever.
            Some(reserved) if self.is_free_for_owner(reserved, mac) => return Err(NakReason::HasReservation),
            _ => {}
        }
        if self.policy.is_reserved_for_another(address, own) {
            return Err(NakReason::Reserved);
        }
        let live = self.table.binding(mac).filter(|binding| binding.is_live(self.now.boot));
        if live.is_some_and(|binding| binding.address != address) {
            return Err(NakReason::HasAnother);
        }
        if self.policy.in_pool(address) { Ok(()) } else { Err(NakReason::NotForClients) }
    }

    pub(super) fn is_free_for_owner(&self, reserved: Ipv4Addr, mac: Mac) -> bool {
        self.policy.is_host(reserved)
            && match self.table.holder(reserved, self.now.boot) {
                Holder::Leased(other) => other == mac,
                Holder::Quarantined(_) => false,
                Holder::Offered(..) | Holder::Remembered(..) | Holder::Nobody => true,
            }
    }

    fn is_for_anyone(&self, address: Ipv4Addr, own: Option<Reserved<'_>>) -> bool {
        self.policy.in_pool(address) && !self.policy.is_reserved_for_another(address, own)
    }

    /// Walks the pool once, from the place the MAC leads to.
    fn search(&self, mac: Mac, own: Option<Reserved<'_>>) -> Option<Ipv4Addr> {
        let len = self.policy.pool_len();
        let start = hash(&mac.0).checked_rem(len)?;
        let (mut remembered, mut offered, mut quarantined) = (None, None, None);
        for step in 0..len {
            let Some(address) = self.policy.pool_at((start + step) % len) else { continue };
            if !self.is_for_anyone(address, own) {
                continue;
            }
            let (oldest, since) = match self.table.holder(address, self.now.boot) {
                Holder::Nobody => return Some(address),
                Holder::Leased(_) => continue,
                Holder::Remembered(_, ended) => (&mut remembered, ended),
                Holder::Offered(_, until) => (&mut offered, until),
                Holder::Quarantined(until) => (&mut quarantined, until),
            };
            if oldest.is_none_or(|(_, oldest)| since < oldest) {
                *oldest = Some((address, since));
            }
        }
        remembered.or(offered).or(quarantined).map(|(address, _)| address)
    }
}

/// Where in the pool a client's search begins, and other choices that should differ between clients but not between
/// runs: FNV-1a, then a mix so that neighbouring MACs spread. Never change it: addresses would move.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let folded = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (folded ^ (folded >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}
