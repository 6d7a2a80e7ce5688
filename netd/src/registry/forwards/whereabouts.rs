//! Where guests are: what leases say, and in IPv6 which of the addresses that a port was seen to use a forward leads to.

use std::net::{IpAddr, Ipv6Addr};

use crate::{
    model::{MacAddr, Network},
    snoop::Seen,
};

/// What is known of where guests are.
pub trait Whereabouts {
    /// The leases of a network.
    fn leases(&self, network: &str) -> Vec<dhcp::Lease>;
    /// Its IPv6 leases.
    fn leases6(&self, network: &str) -> Vec<dhcp::Lease6>;
    /// The addresses that the port with this MAC was seen to use, the last first.
    fn heard(&self, mac: MacAddr) -> Vec<Seen>;
}

/// Leases, the same on every network, and nobody heard.
#[cfg(test)]
pub(crate) struct Leased(pub(crate) Vec<dhcp::Lease>);

#[cfg(test)]
impl Whereabouts for Leased {
    fn leases(&self, _network: &str) -> Vec<dhcp::Lease> {
        self.0.clone()
    }

    fn leases6(&self, _network: &str) -> Vec<dhcp::Lease6> {
        Vec::new()
    }

    fn heard(&self, _mac: MacAddr) -> Vec<Seen> {
        Vec::new()
    }
}

/// How much longer ago than another the address made of the MAC may have been seen, in seconds, and still be preferred:
/// a guest that has it uses a temporary one for what it asks of others (RFC 8981), but looks for neighbours with it.
const PREFERRED: u64 = 3600;

/// The one address of those a port has on its network: one it has a lease of, else that made of its MAC (RFC 4291, appendix A), which lasts, else
/// the one it was seen to use last, which is sure to be there.
pub(super) fn ipv6(mac: MacAddr, network: &Network, known: &impl Whereabouts) -> Option<Ipv6Addr> {
    let is_there = |address: IpAddr| network.subnets.iter().any(|subnet| subnet.address.contains(&address));
    let leases = known.leases6(network.name.as_str()).into_iter().filter(|lease| lease.mac.0 == mac.0);
    if let Some(address) = leases.map(|lease| lease.address).find(|address| is_there((*address).into())) {
        return Some(address);
    }
    let seen: Vec<(Ipv6Addr, u64)> = known
        .heard(mac)
        .into_iter()
        .filter_map(|seen| match seen.address {
            IpAddr::V6(address) if is_there(seen.address) => Some((address, seen.age)),
            _ => None,
        })
        .collect();
    let own = nat::guards::link_local(mac.0).to_bits() as u64;
    let (last, age) = seen.iter().min_by_key(|(_, age)| *age)?;
    let lasting =
        |(address, when): &&(Ipv6Addr, u64)| address.to_bits() as u64 == own && *when <= age.saturating_add(PREFERRED);
    Some(seen.iter().find(lasting).map_or(*last, |(address, _)| *address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{snoop::Origin, xml};

    struct Port(Vec<(&'static str, u64)>, Vec<dhcp::Lease6>);

    impl Whereabouts for Port {
        fn leases(&self, _network: &str) -> Vec<dhcp::Lease> {
            Vec::new()
        }

        fn leases6(&self, _network: &str) -> Vec<dhcp::Lease6> {
            self.1.clone()
        }

        fn heard(&self, _mac: MacAddr) -> Vec<Seen> {
            let seen =
                |(text, age): &(&str, u64)| Seen { address: text.parse().unwrap(), origin: Origin::Nd, age: *age };
            self.0.iter().map(seen).collect()
        }
    }

    #[test]
    fn the_address_that_lasts_is_preferred_and_else_the_one_that_was_seen_last() {
        let text = "<network><name>six</name><forward/><ip address='10.0.6.1' prefix='24'/>\
                    <ip family='ipv6' address='fd00:6::1' prefix='64'/></network>";
        let network = xml::parse(text).unwrap();
        let mac = "52:54:00:12:34:56".parse().unwrap();
        let own = "fd00:6::5054:ff:fe12:3456";
        for (seen, expected) in [
            (vec![], None),
            (vec![("10.0.6.5", 0), ("fe80::5054:ff:fe12:3456", 0), ("fd00:7::5", 0)], None),
            (vec![("fd00:6::a", 5), ("fd00:6::b", 70)], Some("fd00:6::a")),
            (vec![("fd00:6::b", 70), ("fd00:6::a", 5)], Some("fd00:6::a")),
            (vec![("fd00:6::a", 5), (own, 3605)], Some(own)),
            (vec![("fd00:6::a", 5), (own, 3606)], Some("fd00:6::a")),
        ] {
            assert_eq!(
                ipv6(mac, &network, &Port(seen.clone(), Vec::new())),
                expected.map(|text| text.parse().unwrap()),
                "{seen:?}"
            );
        }
        // A lease counts more than both, if it is this guest's and of this network.
        let lease = |text: &str, last: u8| dhcp::Lease6 {
            mac: dhcp::config::Mac([0x52, 0x54, 0, 0x12, 0x34, last]),
            iaid: 1,
            address: text.parse().unwrap(),
            prefix: 64,
            hostname: None,
            duid: vec![0, 3, 1],
            expiry: None,
        };
        let leases = vec![lease("fd00:6::8", 0x57), lease("fd00:9::9", 0x56), lease("fd00:6::10", 0x56)];
        let known = Port(vec![("fd00:6::a", 5), (own, 5)], leases);
        assert_eq!(ipv6(mac, &network, &known), Some("fd00:6::10".parse().unwrap()));
    }
}
