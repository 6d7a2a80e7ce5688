//! `<dnsmasq:options>`: lines of dnsmasq's configuration that mean something here too.

use std::net::IpAddr;

use super::{DnsForwarder, DnsHost, DnsText};

/// `<dnsmasq:option>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsmasqOption {
    /// As it was written, for writing it again.
    pub text: String,
    /// What it says; `address` of several domains says several things.
    pub meaning: Vec<Dnsmasq>,
}

/// What an option of dnsmasq says, in our own terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dnsmasq {
    /// What netd does anyway.
    Always,
    /// `dhcp-option`, `dhcp-option-force`: an option of DHCPv4.
    DhcpOption(DhcpOption),
    /// `host-record`: addresses and the names that stand for each.
    Hosts(Vec<DnsHost>),
    /// `txt-record`.
    Text(DnsText),
    /// `srv-host`.
    Service {
        /// The record's whole name: `_ldap._tcp.lab.example`.
        name: String,
        /// Who serves it; nobody if absent.
        target: Option<String>,
        /// Its port.
        port: u16,
        /// Lower is tried first.
        priority: u16,
        /// Share among targets of equal priority.
        weight: u16,
    },
    /// `address`: a domain of which every name stands for the address, or for nothing without one; `.` is every name.
    Domain {
        /// The domain.
        name: String,
        /// The address.
        address: Option<IpAddr>,
    },
    /// `cname`: other names of a name that is known here.
    Aliases {
        /// The other names.
        aliases: Vec<String>,
        /// What they stand for.
        target: String,
    },
    /// `log-queries`.
    LogQueries,
    /// `server`: whom to ask for a domain, or for everything.
    Forwarder(DnsForwarder),
}

/// An option of DHCPv4 (RFC 2132) that is set by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpOption {
    /// Its code.
    pub code: u8,
    /// Its bytes; without any it is never sent.
    pub value: Vec<u8>,
    /// Sent to clients that did not ask for it too.
    pub force: bool,
}
