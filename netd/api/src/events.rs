//! What happens, as `Monitor` tells it.

use serde::{Deserialize, Serialize};
use zlink::introspect;

/// Something that happened. What is not said of its kind is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
pub struct Event {
    /// When, in milliseconds since the Unix epoch.
    pub time: i64,
    /// What.
    pub kind: EventKind,
    /// The network it happened on, by name; absent where it is about all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The network's UUID, where it happened to the network itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The port's interface name on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The guest's name, where it has a port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    /// The MAC address of the guest's side, lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The IP address it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The name that the guest gave for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// What was healed, which forward leads where, which part of the metadata (`title`, `description`, `element`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The XML namespace of a metadata element.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, introspect::Type)]
#[serde(rename_all = "snake_case")]
#[zlink(rename_all = "snake_case")]
pub enum EventKind {
    /// A network was defined, or its definition replaced.
    Defined,
    /// A definition was removed.
    Undefined,
    /// A network was started.
    Started,
    /// A network was stopped.
    Stopped,
    /// A network was changed while it is active, or its definition in part.
    Updated,
    /// A network's title, description or metadata changed.
    MetadataChanged,
    /// A guest was plugged in.
    PortUp,
    /// A guest is gone.
    PortDown,
    /// A guest asks for an address by DHCP.
    DiscoverSeen,
    /// It was offered one.
    Offered,
    /// A lease began.
    Leased,
    /// A lease goes on longer.
    Renewed,
    /// A lease was given back.
    Released,
    /// The time of a lease is over.
    Expired,
    /// A guest found another machine using the address of its lease.
    Declined,
    /// A lease ended for another reason: the client got another address, or the network lost this one.
    Dropped,
    /// A guest was seen using an address.
    AddressSeen,
    /// A port forward was added, ended, or leads elsewhere now.
    ForwardChanged,
    /// What another program had undone was put right.
    Healed,
}

impl EventKind {
    /// The name it has in messages.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Defined => "defined",
            EventKind::Undefined => "undefined",
            EventKind::Started => "started",
            EventKind::Stopped => "stopped",
            EventKind::Updated => "updated",
            EventKind::MetadataChanged => "metadata_changed",
            EventKind::PortUp => "port_up",
            EventKind::PortDown => "port_down",
            EventKind::DiscoverSeen => "discover_seen",
            EventKind::Offered => "offered",
            EventKind::Leased => "leased",
            EventKind::Renewed => "renewed",
            EventKind::Released => "released",
            EventKind::Expired => "expired",
            EventKind::Declined => "declined",
            EventKind::Dropped => "dropped",
            EventKind::AddressSeen => "address_seen",
            EventKind::ForwardChanged => "forward_changed",
            EventKind::Healed => "healed",
        }
    }
}

/// Reply of `Monitor`, one after the other until the client hangs up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
pub struct Told {
    /// What happened; absent in the first reply, which says that from now on everything is told, and where only
    /// something was missed.
    pub event: Option<Event>,
    /// How many events before this one were not told because the client took its replies too slowly.
    pub missed: u64,
}
