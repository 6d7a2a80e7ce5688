//! A router advertisement on the wire (RFC 4861 §4.2) with its options. We only send them: nothing here reads one.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use crate::{config::Mac, v6::name};

const ROUTER_ADVERTISEMENT: u8 = 134;
/// What guests are to set in packets they send: the usual number (RFC 1700).
const HOP_LIMIT: u8 = 64;

/// Bits of the header.
const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;
/// Bits of a prefix.
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;

/// What guests are told. Lifetimes are in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Advertisement {
    /// M: addresses are given by DHCPv6.
    pub(crate) managed: bool,
    /// O: other things are told by DHCPv6.
    pub(crate) other: bool,
    /// How long we are a default router; 0 for not at all.
    pub(crate) lifetime: u16,
    pub(crate) mtu: Option<u32>,
    pub(crate) prefixes: Vec<Prefix>,
    /// Networks behind us (RFC 4191 §2.3).
    pub(crate) routes: Vec<(Ipv6Net, u32)>,
    /// Resolvers (RFC 8106 §5.1).
    pub(crate) resolvers: Vec<(Ipv6Addr, u32)>,
    /// Domains to complete names with (RFC 8106 §5.2).
    pub(crate) domains: Vec<(String, u32)>,
}

/// A prefix of the link (RFC 4861 §4.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) net: Ipv6Net,
    pub(crate) autonomous: bool,
    pub(crate) valid: u32,
    pub(crate) preferred: u32,
}

impl Advertisement {
    /// The ICMPv6 message from an interface with this MAC, but for its checksum.
    pub(crate) fn emit(&self, mac: Mac) -> Vec<u8> {
        let flags = if self.managed { MANAGED } else { 0 } | if self.other { OTHER } else { 0 };
        let mut bytes = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, HOP_LIMIT, flags];
        bytes.extend(self.lifetime.to_be_bytes());
        // Reachable time and retransmission timer: ours to leave to the guests.
        bytes.extend([0; 8]);
        option(&mut bytes, 1, &mac.0);
        if let Some(mtu) = self.mtu {
            option(&mut bytes, 5, &[&[0, 0][..], &mtu.to_be_bytes()].concat());
        }
        for Prefix { net, autonomous, valid, preferred } in &self.prefixes {
            let flags = ON_LINK | if *autonomous { AUTONOMOUS } else { 0 };
            let mut body = vec![net.prefix_len(), flags];
            body.extend(valid.to_be_bytes());
            body.extend(preferred.to_be_bytes());
            body.extend([0; 4]);
            body.extend(net.network().octets());
            option(&mut bytes, 3, &body);
        }
        for (net, lifetime) in &self.routes {
            // No more of the prefix than its length needs, in whole units (RFC 4191 §2.3).
            let octets = usize::from(net.prefix_len().div_ceil(64)) * 8;
            let mut body = vec![net.prefix_len(), 0];
            body.extend(lifetime.to_be_bytes());
            body.extend(&net.network().octets()[..octets]);
            option(&mut bytes, 24, &body);
        }
        for (lifetime, resolvers) in by_lifetime(&self.resolvers) {
            let mut body = vec![0, 0];
            body.extend(lifetime.to_be_bytes());
            body.extend(resolvers.iter().flat_map(|resolver| resolver.octets()));
            option(&mut bytes, 25, &body);
        }
        for (lifetime, domains) in by_lifetime(&self.domains) {
            let mut body = vec![0, 0];
            body.extend(lifetime.to_be_bytes());
            body.extend(domains.iter().filter_map(|domain| name::encode(domain)).flatten());
            option(&mut bytes, 31, &body);
        }
        bytes
    }
}

/// Appends an option, filled up with zeros to whole units of 8 bytes.
fn option(bytes: &mut Vec<u8>, kind: u8, body: &[u8]) {
    let units = (2 + body.len()).div_ceil(8);
    // What is longer than an option can be is left out: no list of ours is.
    let Ok(length) = u8::try_from(units) else { return };
    let end = bytes.len() + units * 8;
    bytes.extend([kind, length]);
    bytes.extend(body);
    bytes.resize(end, 0);
}

/// One lifetime stands for all that is in an option.
fn by_lifetime<T: Clone>(list: &[(T, u32)]) -> Vec<(u32, Vec<T>)> {
    let mut groups: Vec<(u32, Vec<T>)> = Vec::new();
    for (item, lifetime) in list {
        match groups.iter_mut().find(|(known, _)| known == lifetime) {
            Some((_, items)) => items.push(item.clone()),
            None => groups.push((*lifetime, vec![item.clone()])),
        }
    }
    groups
}
