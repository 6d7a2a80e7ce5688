//! Which address an association may have. Reads the table, changes nothing.

use std::net::Ipv6Addr;

use super::{
    policy::{Policy, Reserved},
    server::View,
    table::{Holder, Key},
};
use crate::v4::hash;

impl View<'_> {
    /// Chooses an address, or `None` if every address has a lease. `taken` are those given to the client's other
    /// associations by the same message.
    ///
    /// In order: its reservation, what it has or had, what it asks for, what its MAC had under another number, a place in
    /// the pool that MAC and number always lead to. If no address is free, the one that was given up longest ago; failing
    /// that, the quarantine that ends first. A lease is never taken away from another client.
    pub(super) fn choose(
        &self,
        policy: &Policy,
        (key, duid): (Key, &[u8]),
        asked: &[Ipv6Addr],
        own: Option<Reserved<'_>>,
        taken: &[Ipv6Addr],
    ) -> Option<Ipv6Addr> {
        if let Some(address) = own.and_then(|own| own.host.address)
            && !taken.contains(&address)
            && self.is_free_for_owner(policy, address, key, duid)
        {
            return Some(address);
        }
        let now = self.now.boot;
        let had = self.table.binding(key).map(|binding| binding.address);
        let before = self.table.of_mac(key.mac).filter(|binding| !binding.is_live(now)).map(|binding| binding.address);
        let known = had.into_iter().chain(asked.iter().copied()).chain(before).find(|&address| {
            is_for_anyone(policy, address, own)
                && !taken.contains(&address)
                && match self.table.holder(address, now) {
                    Holder::Nobody => true,
                    Holder::Leased(holder) => holder == key,
                    Holder::Remembered(holder, _) => holder.mac == key.mac || asked.contains(&address),
                    Holder::Quarantined(_) => false,
                }
        });
        known.or_else(|| self.search(policy, key, own, taken))
    }

    /// A reserved address is its owner's. Another system on the same machine, which says another DUID, had it until now and
    /// does not run any more.
    fn is_free_for_owner(&self, policy: &Policy, reserved: Ipv6Addr, key: Key, duid: &[u8]) -> bool {
        let is_past = |holder: Key| {
            holder.mac == key.mac && self.table.binding(holder).is_some_and(|binding| binding.duid != duid)
        };
        policy.is_host(reserved)
            && match self.table.holder(reserved, self.now.boot) {
                Holder::Leased(holder) => holder == key || is_past(holder),
                Holder::Quarantined(_) => false,
                Holder::Remembered(..) | Holder::Nobody => true,
            }
    }

    /// Walks the pool from the place the key leads to: as far as it takes to pass everything that can be in the way, and
    /// once around at most.
    fn search(&self, policy: &Policy, key: Key, own: Option<Reserved<'_>>, taken: &[Ipv6Addr]) -> Option<Ipv6Addr> {
        let len = policy.pool_len();
        let bytes = [&key.mac.0[..], &key.iaid.to_be_bytes()].concat();
        let place = u128::from(hash(&bytes)) << 64 | u128::from(hash(&[&bytes[..], b"6"].concat()));
        let start = place.checked_rem(len)?;
        // The host's own address, its resolvers' and the anycast address are in the way too.
        let obstacles = self.table.held() + policy.reservations() + policy.resolvers.len() + taken.len() + 2;
        let (mut remembered, mut quarantined) = (None, None);
        for step in 0..len.min(obstacles as u128 + 1) {
            // Without the sum, which may be more than there are numbers.
            let at = if step < len - start { start + step } else { step - (len - start) };
            let Some(address) = policy.pool_at(at) else { continue };
            if !is_for_anyone(policy, address, own) || taken.contains(&address) {
                continue;
            }
            let (oldest, since) = match self.table.holder(address, self.now.boot) {
                Holder::Nobody => return Some(address),
                Holder::Leased(_) => continue,
                Holder::Remembered(_, ended) => (&mut remembered, ended),
                Holder::Quarantined(until) => (&mut quarantined, until),
            };
            if oldest.is_none_or(|(_, oldest)| since < oldest) {
                *oldest = Some((address, since));
            }
        }
        remembered.or(quarantined).map(|(address, _)| address)
    }
}

fn is_for_anyone(policy: &Policy, address: Ipv6Addr, own: Option<Reserved<'_>>) -> bool {
    policy.in_pool(address) && !policy.is_reserved_for_another(address, own)
}
