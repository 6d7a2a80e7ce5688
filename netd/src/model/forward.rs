//! `<forward>`: how packets leave a network.

use std::net::Ipv4Addr;

/// `<forward>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forward {
    /// No `<forward>`: guests talk to each other and the host only.
    Isolated,
    /// Translated behind the host.
    Nat(Nat),
    /// Routed, filtered, not translated.
    Route {
        /// The only interface packets may leave by.
        dev: Option<String>,
    },
    /// Routed; no firewall rule of ours at all.
    Open,
    /// Ports are on a bridge that the host has already; `Network::bridge` names it. We serve nothing there.
    Bridged,
    /// Ports are macvtap devices on interfaces of the host. We serve nothing there.
    Macvtap(Macvtap),
}

impl Forward {
    /// The mode as XML and users call it.
    pub fn mode(&self) -> &'static str {
        match self {
            Forward::Isolated => "none",
            Forward::Nat(_) => "nat",
            Forward::Route { .. } => "route",
            Forward::Open => "open",
            Forward::Bridged => "bridge",
            Forward::Macvtap(macvtap) => macvtap.mode.name(),
        }
    }

    /// Whether the network has a bridge that we make, with addresses and servers of ours.
    pub fn has_own_bridge(&self) -> bool {
        match self {
            Forward::Isolated | Forward::Nat(_) | Forward::Route { .. } | Forward::Open => true,
            Forward::Bridged | Forward::Macvtap(_) => false,
        }
    }

    /// The only interface packets may leave by, where the mode has one and it is given.
    pub fn dev(&self) -> Option<&str> {
        match self {
            Forward::Nat(nat) => nat.dev.as_deref(),
            Forward::Route { dev } => dev.as_deref(),
            Forward::Isolated | Forward::Open | Forward::Bridged | Forward::Macvtap(_) => None,
        }
    }
}

/// `<forward mode='nat'>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nat {
    /// The only interface packets may leave by.
    pub dev: Option<String>,
    /// `ipv6=`, if written: with `true`, IPv6 is translated too; else it is routed.
    pub ipv6: Option<bool>,
    /// Source addresses to use in place of the outgoing interface's, first and last.
    pub addresses: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Source ports for TCP and UDP, first and last; 1024-65535 if absent.
    pub ports: Option<(u16, u16)>,
}

impl Nat {
    /// Never a port below 1024: NFS servers trust those (libvirt's rule).
    pub const DEFAULT_PORTS: (u16, u16) = (1024, 65535);
}

/// Ports that are macvtap devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Macvtap {
    /// Whom a port reaches beside the outside.
    pub mode: MacvtapMode,
    /// Interfaces of the host, at least one; a port goes on the one with the fewest.
    pub interfaces: Vec<String>,
}

/// The modes of macvtap devices (`MACVLAN_MODE_*` in `linux/if_link.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacvtapMode {
    /// Ports on one interface reach each other.
    Bridge,
    /// They do not.
    Private,
    /// They do if the switch outside sends their frames back.
    Vepa,
    /// One port per interface, which it has for itself.
    Passthrough,
}

impl MacvtapMode {
    /// As XML and users call it.
    pub fn name(self) -> &'static str {
        match self {
            MacvtapMode::Bridge => "bridge",
            MacvtapMode::Private => "private",
            MacvtapMode::Vepa => "vepa",
            MacvtapMode::Passthrough => "passthrough",
        }
    }
}
