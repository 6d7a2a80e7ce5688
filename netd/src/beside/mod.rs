//! netd beside the host's other programs: systemd-resolved is told of networks' domains, firewalld of their bridges, and
//! a file like /etc/hosts of guests' names, if that is asked for. Here is what each is to be told; the other files tell.
//!
//! ```text
//! active networks ──► Wish (pure) ──► bus (EDGE) ──► resolved (EDGE), firewalld (EDGE)
//! leases, ports ────► block (pure) ──► hosts (EDGE)
//! ```
//!
//! None of these programs is needed: where one is not there, or refuses, networks work as they do without it.

mod block;
pub(crate) mod bus;
mod firewalld;
pub(crate) mod hosts;
mod resolved;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    model::{Forward, Network},
    plan::{Desired, Ground},
};

/// The zone that libvirt's packages bring, for guests behind the host.
const ZONE: &str = "libvirt";

/// The one for guests that others may reach.
const ROUTED_ZONE: &str = "libvirt-routed";

/// What an active network would have other programs know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The network.
    pub network: String,
    /// Its bridge.
    pub bridge: String,
    /// Names that its DNS server is to be asked for by the host.
    pub names: Option<Names>,
    /// firewalld's zones to choose from, the best first; none where the network is not to be in one.
    pub zones: Vec<String>,
    /// The network's XML names the zone: no other will do.
    pub zone_is_named: bool,
}

/// What the host's resolver is to know (decision 9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Where the network's DNS server listens, as the host reaches it.
    pub servers: Vec<(IpAddr, u16)>,
    /// The domains to ask it for, and no others.
    pub domains: Vec<String>,
}

impl Wish {
    /// What a network has to say while it is active; nothing if its bridge is not ours.
    pub fn new(network: &Network, desired: &Desired) -> Option<Self> {
        let Ground::Own(bridge) = &desired.ground else { return None };
        Some(Wish {
            network: network.name.to_string(),
            bridge: bridge.name.clone(),
            names: names(network, desired),
            zones: zones(network),
            zone_is_named: network.bridge.zone.is_some(),
        })
    }
}

/// Only a domain that is the network's own and nobody else's: what the server does not know of another, it would ask
/// of the host's resolver, which would ask the server.
fn names(network: &Network, desired: &Desired) -> Option<Names> {
    let domain = network.domain.as_ref().filter(|domain| domain.local_only && domain.register != Some(false))?;
    desired.services.dns.as_ref()?;
    let port = desired.firewall.dns_redirect.as_ref().map_or(53, |redirect| redirect.port);
    let servers = desired.addresses.iter().map(|address| (address.addr(), port)).collect();
    let reverse = desired.addresses.iter().filter_map(|address| reverse_zone(*address));
    Some(Names { servers, domains: std::iter::once(domain.name.clone()).chain(reverse).collect() })
}

/// The reverse zone of a subnet that is one (RFC 1035 §3.5, RFC 3596 §2.5): of whole labels.
fn reverse_zone(subnet: IpNet) -> Option<String> {
    let length = usize::from(subnet.prefix_len());
    let (digits, per_digit, end): (Vec<String>, _, _) = match subnet.network() {
        IpAddr::V4(address) => (address.octets().iter().map(u8::to_string).collect(), 8, "in-addr.arpa"),
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
            (nibbles.map(|nibble| format!("{nibble:x}")).collect(), 4, "ip6.arpa")
        }
    };
    if length == 0 || length % per_digit != 0 {
        return None;
    }
    let mut labels: Vec<&str> = digits.iter().take(length / per_digit).map(String::as_str).collect();
    labels.reverse();
    Some(format!("{}.{end}", labels.join(".")))
}

/// As libvirt chooses, but that a routed network is content with the other zone.
fn zones(network: &Network) -> Vec<String> {
    if let Some(zone) = &network.bridge.zone {
        return vec![zone.clone()];
    }
    match network.forward {
        Forward::Nat(_) | Forward::Isolated => vec![ZONE.to_owned()],
        Forward::Route { .. } => vec![ROUTED_ZONE.to_owned(), ZONE.to_owned()],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_of_whole_labels_has_a_reverse_zone() {
        let zone = |text: &str| reverse_zone(text.parse().unwrap());
        assert_eq!(zone("192.168.122.1/24").as_deref(), Some("122.168.192.in-addr.arpa"));
        assert_eq!(zone("10.1.0.1/16").as_deref(), Some("1.10.in-addr.arpa"));
        assert_eq!(zone("10.1.2.1/22"), None);
        assert_eq!(zone("fd00:12::1/32").as_deref(), Some("2.1.0.0.0.0.d.f.ip6.arpa"));
    }

    #[test]
    fn a_domain_is_registered_where_it_is_local_and_nobody_says_no() {
        let wish = |inside: &str, forward: &str| {
            let text = format!(
                "<network><name>a</name>{forward}{inside}<bridge name='br-a'/><mac address='52:54:00:00:00:01'/>\
                 <ip address='10.7.0.1' prefix='24'/></network>"
            );
            let network = crate::xml::parse(&text).unwrap();
            let ground = crate::plan::ground(&network).unwrap();
            let desired = crate::plan::desired(&network, ground, std::path::Path::new("/none"), &[]);
            Wish::new(&network, &desired).unwrap()
        };
        let names = wish("<domain name='lab' localOnly='yes'/>", "").names.unwrap();
        assert_eq!(names.servers, [([10, 7, 0, 1].into(), 53)]);
        assert_eq!(names.domains, ["lab", "0.7.10.in-addr.arpa"]);
        assert!(wish("<domain name='lab' localOnly='yes' register='yes'/>", "").names.is_some());
        for silent in [
            "<domain name='lab' localOnly='yes' register='no'/>",
            "<domain name='lab'/>",
            "<domain name='lab' localOnly='yes'/><dns enable='no'/>",
            "",
        ] {
            assert_eq!(wish(silent, "").names, None, "{silent}");
        }
        assert_eq!(wish("", "<forward mode='route'/>").zones, ["libvirt-routed", "libvirt"]);
        assert!(wish("", "<forward mode='open'/>").zones.is_empty());
    }
}
