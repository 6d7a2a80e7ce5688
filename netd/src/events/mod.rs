//! What happens on networks, told to whoever listens: front doors, port forwards, files.
//!
//! ```text
//! DHCP ──► front ──► guards (the reply waits) ─┐
//! verbs, healing ──────────────────────────────┴──► bus ──► a bounded queue per listener ──► Monitor, forwards, files
//! ```
//!
//! Whatever happens is told once, after it is so. Nobody who listens can make anything wait: who is too slow loses
//! events and learns how many. So a listener that must not miss anything looks at the state itself when it hears, and
//! takes an event only as word that it may have changed.

mod bus;
mod front;

#[cfg(test)]
mod tests;

use std::{fmt::Display, net::IpAddr};

pub use bus::{Bus, Heard, Listener};
pub use front::LeaseFront;

use dhcp::{LeaseChange, LeaseKind};
use netd_api::{Event, EventKind};

use crate::{model::MacAddr, port::Port};

/// An event on a network, with nothing said but its kind. The bus gives it its time.
fn event(kind: EventKind, network: Option<&str>) -> Event {
    Event {
        time: 0,
        kind,
        network: network.map(str::to_owned),
        uuid: None,
        interface: None,
        guest: None,
        mac: None,
        address: None,
        hostname: None,
        detail: None,
        uri: None,
    }
}

/// A network was defined, started and so on.
pub fn lifecycle(network: &str, uuid: impl Display, kind: EventKind) -> Event {
    Event { uuid: Some(uuid.to_string()), ..event(kind, Some(network)) }
}

/// A port came or went.
pub fn port(port: &Port, kind: EventKind) -> Event {
    Event {
        interface: Some(port.interface.clone()),
        guest: port.guest.clone(),
        mac: Some(port.mac.to_string()),
        ..event(kind, Some(&port.network))
    }
}

/// Something became of a client of DHCP.
pub fn lease(network: &str, change: &LeaseChange) -> Event {
    let LeaseChange { mac, hostname, kind } = change;
    let (kind, address) = match *kind {
        LeaseKind::Discovering => (EventKind::DiscoverSeen, None),
        LeaseKind::Offered(address) => (EventKind::Offered, Some(address)),
        LeaseKind::Leased(address) => (EventKind::Leased, Some(address)),
        LeaseKind::Renewed(address) => (EventKind::Renewed, Some(address)),
        LeaseKind::Released(address) => (EventKind::Released, Some(address)),
        LeaseKind::Expired(address) => (EventKind::Expired, Some(address)),
        LeaseKind::Declined(address) => (EventKind::Declined, Some(address)),
        LeaseKind::Dropped(address) => (EventKind::Dropped, Some(address)),
    };
    Event {
        mac: Some(mac.to_string()),
        address: address.map(|address| address.to_string()),
        hostname: hostname.clone(),
        ..event(kind, Some(network))
    }
}

/// A guest was seen using an address, by its packets or the host's neighbour table.
pub fn address_seen(network: &str, mac: MacAddr, address: IpAddr) -> Event {
    Event {
        mac: Some(mac.to_string()),
        address: Some(address.to_string()),
        ..event(EventKind::AddressSeen, Some(network))
    }
}

/// A port forward of a network is another now.
pub fn forward_changed(network: Option<&str>, detail: String) -> Event {
    Event { detail: Some(detail), ..event(EventKind::ForwardChanged, network) }
}

/// What another program undid is in place again.
pub fn healed(network: Option<&str>, detail: String) -> Event {
    Event { detail: Some(detail), ..event(EventKind::Healed, network) }
}

/// A part of a network's metadata changed: `title`, `description`, or the `element` of a namespace.
pub fn metadata_changed(network: &str, uuid: impl Display, part: &str, uri: Option<&str>) -> Event {
    Event {
        detail: Some(part.to_owned()),
        uri: uri.map(str::to_owned),
        ..lifecycle(network, uuid, EventKind::MetadataChanged)
    }
}

/// Whether guests may be found elsewhere after it: at another address, or nowhere.
pub fn moves_guests(kind: EventKind) -> bool {
    match kind {
        EventKind::PortUp
        | EventKind::PortDown
        | EventKind::Leased
        | EventKind::Renewed
        | EventKind::Released
        | EventKind::Expired
        | EventKind::Declined
        | EventKind::Dropped
        // In IPv6 that is how guests are found.
        | EventKind::AddressSeen => true,
        EventKind::Defined
        | EventKind::Undefined
        | EventKind::Started
        | EventKind::Stopped
        | EventKind::Updated
        | EventKind::MetadataChanged
        | EventKind::DiscoverSeen
        | EventKind::Offered
        | EventKind::ForwardChanged
        | EventKind::Healed => false,
    }
}
