//! IPv6 addresses of ports: those made of their MACs, and those they have claimed. Pure.

use std::{collections::BTreeMap, net::Ipv6Addr, time::Duration};

use ipnet::Ipv6Net;

use super::{Element, GuardedPort, Of, With, taken};

/// An address that a port has claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The port's interface.
    pub(super) interface: String,
    /// The address.
    pub(super) address: Ipv6Addr,
    /// How long it still lasts; without end for an address made of the port's MAC.
    pub(super) left: Option<Duration>,
}

/// How long a claim lasts, as `guards/base.nft` has it.
pub(super) const LASTS: Duration = Duration::from_secs(3600);

/// The link-local address that the kernel makes of a MAC (RFC 4291, appendix A).
pub fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let id = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(id))
}

/// The addresses that a MAC makes: in each prefix of 64 bits, which is where they are made (RFC 4862 §5.5.3).
pub(super) fn made_of(mac: [u8; 6], prefixes: &[Ipv6Net]) -> Vec<Ipv6Addr> {
    let own = link_local(mac);
    let in_prefix = |prefix: &Ipv6Net| {
        let id = u128::from(own.to_bits() as u64);
        (prefix.prefix_len() == 64).then(|| Ipv6Addr::from_bits(prefix.network().to_bits() | id))
    };
    std::iter::once(own).chain(prefixes.iter().filter_map(in_prefix)).collect()
}

/// The group of a network's taps, by which the kernel knows the network: its bridge's name, hashed (FNV-1a). Never 0,
/// which is everything else's.
pub fn network_group(bridge: &str) -> u32 {
    let hash = bridge.bytes().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // The kernel keeps it as a signed number, and `ip` takes no negative one.
    (hash & 0x7fff_ffff).max(1)
}

/// Where the target of an NDP message is in the prefix, it may be claimed.
pub(super) fn target_rule(prefix: &Ipv6Net) -> String {
    let length = u32::from(prefix.prefix_len());
    if length == 0 {
        return "goto claim_target".to_owned();
    }
    let value = prefix.network().to_bits() >> (128 - length);
    format!("@th,64,{length} {value:#x} goto claim_target")
}

/// The elements of the claims that these ports still have, each with the time it has left.
pub(super) fn kept(ports: &[GuardedPort], claims: &[Claim]) -> Vec<(Element, String)> {
    let ports: BTreeMap<&str, &GuardedPort> = ports.iter().map(|port| (port.interface.as_str(), port)).collect();
    let mut kept = Vec::new();
    for claim in claims {
        let Some(port) = ports.get(claim.interface.as_str()) else { continue };
        let sources = &port.sources;
        let is_local = |address: &Ipv6Addr| address.to_bits() >> 64 == 0xfe80 << 48;
        let may =
            is_local(&claim.address) || sources.ipv6.prefixes.iter().any(|prefix| prefix.contains(&claim.address));
        let Some(left) = claim.left.filter(|_| may && !sources.ipv6.host.contains(&claim.address)) else { continue };
        let time = format!("timeout {}s expires {}s", LASTS.as_secs(), left.as_secs().clamp(1, LASTS.as_secs()));
        kept.push((owned(&claim.interface, claim.address), time.clone()));
        kept.push((taken(sources, claim.address), time));
    }
    kept
}

/// The address is the port's.
pub(super) fn owned(interface: &str, address: Ipv6Addr) -> Element {
    Element { set: "owned6", of: Of::Interface(interface.to_owned()), with: With::Address6(address) }
}
