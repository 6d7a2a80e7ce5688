//! `<domain>` and `<dns>`: names on the network.

use std::net::IpAddr;

/// `<domain>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// The domain's name, without a final dot.
    pub name: String,
    /// Names in the domain are never asked of an upstream resolver.
    pub local_only: bool,
    /// `register=`, if written: with `true`, the host's own resolver is told of the domain; needs `local_only`.
    pub register: Option<bool>,
}

/// `<dns>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Serve DNS at all.
    pub enable: bool,
    /// `forwardPlainNames=`, if written: with `false`, names without a dot are never asked of an upstream resolver.
    pub forward_plain_names: Option<bool>,
    /// Upstream resolvers, in place of the host's or for a domain.
    pub forwarders: Vec<DnsForwarder>,
    /// `<txt>` records.
    pub texts: Vec<DnsText>,
    /// `<srv>` records.
    pub services: Vec<DnsService>,
    /// `<host>` records: an address and the names that stand for it.
    pub hosts: Vec<DnsHost>,
}

impl Default for Dns {
    fn default() -> Self {
        Dns {
            enable: true,
            forward_plain_names: None,
            forwarders: Vec::new(),
            texts: Vec::new(),
            services: Vec::new(),
            hosts: Vec::new(),
        }
    }
}

impl Dns {
    /// Whether there is any record or forwarder.
    pub fn is_empty(&self) -> bool {
        self.forwarders.is_empty() && self.texts.is_empty() && self.services.is_empty() && self.hosts.is_empty()
    }
}

/// `<dns><forwarder>`: at least one of address and domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsForwarder {
    /// The resolver to ask; the host's own if absent.
    pub address: Option<IpAddr>,
    /// Its port, with an address; 53 if absent.
    pub port: Option<u16>,
    /// Only names in this domain, without a final dot; every name if absent.
    pub domain: Option<String>,
}

/// `<dns><host>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsHost {
    /// The address.
    pub ip: IpAddr,
    /// At least one name.
    pub names: Vec<String>,
}

/// `<dns><txt>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsText {
    /// The record's name, without a final dot.
    pub name: String,
    /// Its text.
    pub value: String,
}

/// `<dns><srv>` (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsService {
    /// The service, without its underscore: `ldap`.
    pub service: String,
    /// The protocol, without its underscore: `tcp`.
    pub protocol: String,
    /// Where it is; the network's domain if absent.
    pub domain: Option<String>,
    /// Who serves it; nobody if absent, which says "not available here".
    pub target: Option<String>,
    /// The target's port; 1 if absent, as dnsmasq has it.
    pub port: Option<u16>,
    /// Lower is tried first; 0 if absent.
    pub priority: Option<u16>,
    /// Share among targets of equal priority; 0 if absent.
    pub weight: Option<u16>,
}
