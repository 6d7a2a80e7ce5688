//! Whom to ask for which names: the host's resolvers, those of the configuration, those of a domain.
//!
//! Values only: what resolv.conf lists comes in chosen by `upstream`.

use std::net::SocketAddr;

use super::wire::Name;
use crate::config::{DnsConfig, DnsForwarder};

const PORT: u16 = 53;

/// The upstreams of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Routes {
    /// For names in no domain below.
    others: Vec<SocketAddr>,
    /// For names in a domain (folded); the longest that fits counts.
    domains: Vec<(Name, Vec<SocketAddr>)>,
}

impl Routes {
    /// The routes of a configuration, where the host's resolvers are `listed`; never one of our own addresses.
    pub(super) fn new(config: &DnsConfig, listed: &[SocketAddr]) -> Routes {
        let mut routes = Routes::default();
        let usable = |forwarder: &DnsForwarder| -> Vec<SocketAddr> {
            match forwarder.address {
                Some(address) if config.listen.contains(&address) => Vec::new(),
                Some(address) => vec![SocketAddr::new(address, forwarder.port.unwrap_or(PORT))],
                None => listed.to_vec(),
            }
        };
        for forwarder in &config.forwarders {
            let list = match forwarder.domain.as_deref().and_then(Name::from_text).map(|name| name.folded()) {
                None => &mut routes.others,
                Some(domain) => match routes.domains.iter().position(|(known, _)| *known == domain) {
                    Some(at) => &mut routes.domains[at].1,
                    None => {
                        routes.domains.push((domain, Vec::new()));
                        let last = routes.domains.len() - 1;
                        &mut routes.domains[last].1
                    }
                },
            };
            for address in usable(forwarder) {
                if !list.contains(&address) {
                    list.push(address);
                }
            }
        }
        if config.forward && !has_others(config) {
            routes.others = listed.to_vec();
        }
        routes
    }

    /// The same upstreams for every name.
    #[cfg(test)]
    pub(super) fn everything_to(addresses: Vec<SocketAddr>) -> Routes {
        Routes { others: addresses, domains: Vec::new() }
    }

    /// Whom to ask for a name, in order.
    pub(super) fn of(&self, name: &Name) -> &[SocketAddr] {
        let name = name.folded();
        let fits = |(domain, _): &&(Name, Vec<SocketAddr>)| name.suffixes().any(|suffix| suffix == domain.bytes());
        let longest = self.domains.iter().filter(fits).max_by_key(|(domain, _)| domain.labels().count());
        longest.map_or(&self.others, |(_, addresses)| addresses)
    }

    /// Every upstream, once.
    pub(super) fn all(&self) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        for address in self.others.iter().chain(self.domains.iter().flat_map(|(_, addresses)| addresses)) {
            if !all.contains(address) {
                all.push(*address);
            }
        }
        all
    }
}

/// Whether the configuration names resolvers in place of the host's.
fn has_others(config: &DnsConfig) -> bool {
    config.forwarders.iter().any(|forwarder| forwarder.domain.is_none())
}

/// Whether the host's resolvers are asked for anything.
pub(super) fn asks_the_host(config: &DnsConfig) -> bool {
    (config.forward && !has_others(config)) || config.forwarders.iter().any(|forwarder| forwarder.address.is_none())
}

/// Whether names that are in no domain of a forwarder are asked of anybody.
pub(super) fn forwards_others(config: &DnsConfig) -> bool {
    config.forward || has_others(config)
}

/// Whether anything is asked of anybody.
pub(super) fn forwards(config: &DnsConfig) -> bool {
    config.forward || !config.forwarders.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::testing::name;

    fn forwarder(domain: Option<&str>, address: Option<&str>, port: Option<u16>) -> DnsForwarder {
        DnsForwarder { domain: domain.map(str::to_owned), address: address.map(|a| a.parse().unwrap()), port }
    }

    fn routes(forward: bool, forwarders: Vec<DnsForwarder>) -> impl Fn(&str) -> String {
        let listen = vec!["10.0.0.1".parse().unwrap()];
        let config = DnsConfig { listen, forward, forwarders, ..DnsConfig::default() };
        let routes = Routes::new(&config, &["9.9.9.9:53".parse().unwrap()]);
        move |text| routes.of(&name(text)).iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn without_forwarders_the_hosts_resolvers_are_asked_unless_the_network_is_isolated() {
        assert_eq!(routes(true, vec![])("www.example"), "9.9.9.9:53");
        assert_eq!(routes(false, vec![])("www.example"), "");
    }

    #[test]
    fn forwarders_without_a_domain_take_the_place_of_the_hosts() {
        let of = routes(
            true,
            vec![
                forwarder(None, Some("1.1.1.1"), None),
                forwarder(None, Some("fd00::53"), Some(5353)),
                forwarder(None, Some("1.1.1.1"), None),
                forwarder(None, Some("10.0.0.1"), None),
            ],
        );
        assert_eq!(of("www.example"), "1.1.1.1:53 [fd00::53]:5353");
    }

    #[test]
    fn the_longest_domain_counts_and_one_without_an_address_is_the_hosts_again() {
        let of = routes(
            true,
            vec![
                forwarder(None, Some("1.1.1.1"), None),
                forwarder(Some("Corp.Example"), Some("10.1.0.1"), None),
                forwarder(Some("corp.example"), Some("10.1.0.2"), None),
                forwarder(Some("open.corp.example"), None, None),
            ],
        );
        assert_eq!(of("a.CORP.example"), "10.1.0.1:53 10.1.0.2:53");
        assert_eq!(of("corp.example"), "10.1.0.1:53 10.1.0.2:53");
        assert_eq!(of("mycorp.example"), "1.1.1.1:53");
        assert_eq!(of("a.open.corp.example"), "9.9.9.9:53");
    }

    #[test]
    fn an_isolated_network_asks_only_those_named() {
        let of = routes(false, vec![forwarder(Some("corp.example"), Some("10.1.0.1"), None)]);
        assert_eq!((of("a.corp.example"), of("www.example")), ("10.1.0.1:53".to_owned(), String::new()));
    }
}
