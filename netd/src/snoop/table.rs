//! Which port has which addresses, as heard, and since when last. A pure machine: words and `now` in, sightings out.
//!
//! Bounded per port and in all: a guest that claims many addresses loses its own oldest, never another's.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Origin, Seen, Sighting, frame::Word};
use crate::model::MacAddr;

/// Addresses kept of one port: more than a guest with several prefixes and temporary addresses (RFC 8981) has at once.
const MOST_PER_PORT: usize = 16;

/// Addresses kept in all.
const MOST: usize = 65_536;

/// An address unseen for so long goes, unless it is the last that was seen of its family: an idle guest may have no
/// reason to say anything for days.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(24);

/// Sightings of one port in [`NEWS_PERIOD`]: more than a guest that starts has, and no more than whoever hears of them
/// can stand of a guest that makes addresses up.
const MOST_NEWS: u32 = 32;

/// See [`MOST_NEWS`].
const NEWS_PERIOD: Duration = Duration::from_mins(1);

/// The table.
#[derive(Debug, Default)]
pub(super) struct Table {
    ports: HashMap<MacAddr, Port>,
    /// Whose an address is: it has one owner on a network.
    owners: HashMap<(Arc<str>, IpAddr), MacAddr>,
}

#[derive(Debug)]
struct Port {
    network: Arc<str>,
    entries: Vec<Entry>,
    /// Sightings since the period began.
    news: Option<(Instant, u32)>,
}

#[derive(Debug)]
struct Entry {
    address: IpAddr,
    origin: Origin,
    /// Duplicate address detection may still be under way.
    wanted: bool,
    last: Instant,
}

impl Table {
    /// A network's ports are these, by MAC. Of others nothing stays.
    pub(super) fn set_ports(&mut self, network: &str, macs: &[MacAddr]) {
        let stay: HashSet<&MacAddr> = macs.iter().collect();
        let gone: Vec<MacAddr> = self
            .ports
            .iter()
            .filter(|(mac, port)| &*port.network == network && !stay.contains(mac))
            .map(|(mac, _)| *mac)
            .collect();
        for mac in gone {
            self.remove(mac);
        }
        let name: Arc<str> = network.into();
        for &mac in macs {
            match self.ports.get(&mac) {
                Some(port) if port.network == name => continue,
                Some(_) => self.remove(mac),
                None => {}
            }
            self.ports.insert(mac, Port { network: name.clone(), entries: Vec::new(), news: None });
        }
    }

    fn remove(&mut self, mac: MacAddr) {
        let Some(port) = self.ports.remove(&mac) else { return };
        for entry in port.entries {
            self.owners.remove(&(port.network.clone(), entry.address));
        }
    }

    /// Takes note of what was said on a network. Returns the address if its port had it not before.
    pub(super) fn hear(&mut self, network: &str, word: Word, now: Instant) -> Option<Sighting> {
        match word {
            Word::Has(mac, address, origin) if self.is_on(mac, network) => self.note(mac, address, origin, false, now),
            Word::Has(mac, address, _) => {
                self.object(network, mac, address);
                None
            }
            Word::Wants(mac, address) if self.is_on(mac, network) => self.note(mac, address, Origin::Nd, true, now),
            Word::Wants(..) => None,
            // A guest is no server, whatever it says.
            Word::Gives(server, _, _) if self.ports.contains_key(&server) => None,
            Word::Gives(_, client, address) if self.is_on(client, network) => {
                self.note(client, address, Origin::Dhcp, false, now)
            }
            Word::Gives(..) => None,
            Word::Leaves(mac, address) => {
                if self.is_on(mac, network) {
                    self.forget(mac, address);
                }
                None
            }
        }
    }

    /// A port had an address then, which it may have been heard to have since.
    pub(super) fn recall(&mut self, network: &str, mac: MacAddr, address: IpAddr, then: Instant) {
        let is_known = |port: &Port| {
            let newer = |entry: &Entry| entry.address == address && entry.last >= then;
            port.entries.iter().any(newer) || &*port.network != network
        };
        // Whoever has it by now has been heard.
        let is_anothers = self.owners.get(&(network.into(), address)).is_some_and(|owner| *owner != mac);
        if !is_anothers && self.ports.get(&mac).is_some_and(|port| !is_known(port)) {
            self.note(mac, address, Origin::Nd, false, then);
        }
    }

    fn is_on(&self, mac: MacAddr, network: &str) -> bool {
        self.ports.get(&mac).is_some_and(|port| &*port.network == network)
    }

    /// Someone who is no port has an address that a port of ours asks whether it may have: it may not.
    fn object(&mut self, network: &str, mac: MacAddr, address: IpAddr) {
        let Some(&owner) = self.owners.get(&(network.into(), address)) else { return };
        let wanted = |port: &Port| port.entries.iter().any(|entry| entry.address == address && entry.wanted);
        if owner != mac && self.ports.get(&owner).is_some_and(wanted) {
            self.forget(owner, address);
        }
    }

    fn forget(&mut self, mac: MacAddr, address: IpAddr) {
        let Some(port) = self.ports.get_mut(&mac) else { return };
        let before = port.entries.len();
        port.entries.retain(|entry| entry.address != address);
        if port.entries.len() != before {
            self.owners.remove(&(port.network.clone(), address));
        }
    }

    fn note(&mut self, mac: MacAddr, address: IpAddr, origin: Origin, wanted: bool, now: Instant) -> Option<Sighting> {
        let port = self.ports.get_mut(&mac)?;
        if let Some(entry) = port.entries.iter_mut().find(|entry| entry.address == address) {
            // Asked for again by its owner, it is still its own.
            *entry = Entry { origin, wanted: wanted && entry.wanted, last: now, ..*entry };
            return None;
        }
        let network = port.network.clone();
        let key = (network.clone(), address);
        match self.owners.get(&key).copied() {
            // Whoever asks first whether it may is no owner yet.
            Some(_) if wanted => return None,
            Some(other) => self.forget(other, address),
            None => {}
        }
        self.expire(mac, now);
        let full = self.owners.len() >= MOST;
        let port = self.ports.get_mut(&mac)?;
        if full || port.entries.len() >= MOST_PER_PORT {
            let oldest = port.entries.iter().min_by_key(|entry| entry.last).map(|entry| entry.address)?;
            self.forget(mac, oldest);
        }
        self.owners.insert(key, mac);
        let port = self.ports.get_mut(&mac)?;
        port.entries.push(Entry { address, origin, wanted, last: now });
        port.is_news(now).then(|| Sighting { network: network.to_string(), mac, address, origin })
    }

    fn expire(&mut self, mac: MacAddr, now: Instant) {
        let Some(port) = self.ports.get(&mac) else { return };
        for address in
            port.entries.iter().filter(|entry| port.is_over(entry, now)).map(|entry| entry.address).collect::<Vec<_>>()
        {
            self.forget(mac, address);
        }
    }

    /// The addresses of the port with this MAC, the last seen first.
    pub(super) fn of(&self, mac: MacAddr, now: Instant) -> Vec<Seen> {
        let Some(port) = self.ports.get(&mac) else { return Vec::new() };
        let mut entries: Vec<&Entry> = port.entries.iter().filter(|entry| !port.is_over(entry, now)).collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.last));
        let age = |entry: &Entry| now.saturating_duration_since(entry.last).as_secs();
        entries
            .into_iter()
            .map(|entry| Seen { address: entry.address, origin: entry.origin, age: age(entry) })
            .collect()
    }
}

impl Port {
    /// Whether one more sighting may be told of.
    fn is_news(&mut self, now: Instant) -> bool {
        let (since, told) = match self.news {
            Some((since, told)) if now.saturating_duration_since(since) < NEWS_PERIOD => (since, told),
            _ => (now, 0),
        };
        self.news = Some((since, told + 1));
        told < MOST_NEWS
    }

    fn is_over(&self, entry: &Entry, now: Instant) -> bool {
        let family = |other: &&Entry| other.address.is_ipv4() == entry.address.is_ipv4();
        let latest = self.entries.iter().filter(family).map(|other| other.last).max();
        now.saturating_duration_since(entry.last) >= FORGOTTEN_AFTER && latest != Some(entry.last)
    }
}

#[cfg(test)]
mod tests;
