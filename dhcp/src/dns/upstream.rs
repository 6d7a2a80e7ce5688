//! Which resolvers to ask: the text of resolv.conf to addresses.
//!
//! Reads no file and asks the kernel nothing: the text, the text of systemd-resolved's own list, and our own addresses
//! come in as values.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

/// How many resolvers of a list are used, as the host's own stub does (resolv.conf(5), MAXNS).
const MOST: usize = 3;

const PORT: u16 = 53;

/// The addresses on which systemd-resolved serves programs of its own host.
const STUBS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];

/// One `nameserver` line: an address and, for link-local IPv6, the interface it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nameserver {
    address: IpAddr,
    interface: Option<String>,
}

/// The `nameserver` lines of a resolv.conf in their order; everything else, and every line that is broken, is left out.
pub(super) fn parse(text: &str) -> Vec<Nameserver> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let ("nameserver", Some(word)) = (words.next()?, words.next()) else { return None };
        let (address, interface) = word.split_once('%').map_or((word, None), |(ip, zone)| (ip, Some(zone.to_owned())));
        Some(Nameserver { address: address.parse().ok()?, interface })
    });
    servers.collect()
}

/// The resolvers to ask, in order, never one of `own`.
///
/// A list of nothing but systemd-resolved's stub means that resolved is in charge; what it asks itself is in a list
/// of its own. With that list we ask directly; without it we ask the stub.
pub(super) fn choose(
    listed: &[Nameserver],
    behind_stub: &[Nameserver],
    own: &[IpAddr],
    index: impl Fn(&str) -> Option<u32>,
) -> Vec<SocketAddr> {
    let only_stub = !listed.is_empty() && listed.iter().all(|server| STUBS.contains(&server.address));
    let behind: Vec<Nameserver> = behind_stub.iter().filter(|s| !STUBS.contains(&s.address)).cloned().collect();
    let direct = if only_stub { usable(&behind, own, &index) } else { Vec::new() };
    if direct.is_empty() { usable(listed, own, &index) } else { direct }
}

fn usable(servers: &[Nameserver], own: &[IpAddr], index: &impl Fn(&str) -> Option<u32>) -> Vec<SocketAddr> {
    let mut usable: Vec<SocketAddr> = Vec::new();
    for server in servers {
        // 0.0.0.0 and :: mean this host's own loopback to the host's stub.
        let address = match server.address {
            IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
            address => address.to_canonical(),
        };
        if own.contains(&address) {
            continue;
        }
        let address = match (address, &server.interface) {
            (IpAddr::V6(address), Some(interface)) => {
                let Some(scope) = interface.parse().ok().or_else(|| index(interface)) else { continue };
                SocketAddr::V6(SocketAddrV6::new(address, PORT, 0, scope))
            }
            _ => SocketAddr::new(address, PORT),
        };
        if !usable.contains(&address) {
            usable.push(address);
        }
    }
    usable.truncate(MOST);
    usable
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: fn(&str) -> Option<u32> = |_| None;

    fn chosen(listed: &str, behind: &str, own: &[&str]) -> Vec<String> {
        let own: Vec<IpAddr> = own.iter().map(|ip| ip.parse().unwrap()).collect();
        choose(&parse(listed), &parse(behind), &own, NONE).iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn nameserver_lines_are_read_in_order_and_broken_ones_are_left_out() {
        let text = "# x\n;nameserver 9.9.9.9\nsearch a b\nnameserver 1.1.1.1 trailing\n nameserver\t2001:db8::1\r\n\
                    nameserver\nnameserver nonsense\noptions edns0\nnameservers 3.3.3.3\n";
        assert_eq!(chosen(text, "", &[]), ["1.1.1.1:53", "[2001:db8::1]:53"]);
    }

    #[test]
    fn at_most_three_distinct_resolvers_are_used() {
        let text =
            "nameserver 1.1.1.1\nnameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4\n";
        assert_eq!(chosen(text, "", &[]), ["1.1.1.1:53", "1.1.1.2:53", "1.1.1.3:53"]);
    }

    #[test]
    fn our_own_addresses_are_never_asked() {
        let text = "nameserver 192.168.122.1\nnameserver ::ffff:192.168.122.1\nnameserver 1.1.1.1\n";
        assert_eq!(chosen(text, "", &["192.168.122.1"]), ["1.1.1.1:53"]);
        assert!(chosen("nameserver 192.168.122.1\n", "", &["192.168.122.1"]).is_empty());
    }

    #[test]
    fn a_lone_stub_is_replaced_by_what_it_asks_itself_if_that_is_known() {
        let stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\n";
        assert_eq!(chosen(stub, "nameserver 10.0.0.1\nnameserver 10.0.0.2\n", &[]), ["10.0.0.1:53", "10.0.0.2:53"]);
        assert_eq!(chosen(stub, "", &[]), ["127.0.0.53:53"]);
        assert_eq!(chosen(stub, "nameserver 192.168.122.1\n", &["192.168.122.1"]), ["127.0.0.53:53"]);
        assert_eq!(chosen(stub, "nameserver 127.0.0.53\n", &[]), ["127.0.0.53:53"]);
    }

    #[test]
    fn a_stub_beside_others_is_asked_like_them() {
        assert_eq!(
            chosen("nameserver 127.0.0.53\nnameserver 1.1.1.1\n", "nameserver 9.9.9.9\n", &[]),
            ["127.0.0.53:53", "1.1.1.1:53"]
        );
    }

    #[test]
    fn a_link_local_resolver_needs_its_interface() {
        let servers = parse("nameserver fe80::1%eth0\nnameserver fe80::2%gone\nnameserver fe80::3%7\n");
        let chosen = choose(&servers, &[], &[], |name| (name == "eth0").then_some(4));
        let text: Vec<String> = chosen.iter().map(SocketAddr::to_string).collect();
        assert_eq!(text, ["[fe80::1%4]:53", "[fe80::3%7]:53"]);
    }

    #[test]
    fn an_unspecified_address_is_the_hosts_loopback() {
        assert_eq!(chosen("nameserver 0.0.0.0\nnameserver ::\n", "", &[]), ["127.0.0.1:53", "[::1]:53"]);
    }

    #[test]
    fn an_empty_or_missing_list_leaves_nobody_to_ask() {
        assert!(chosen("", "nameserver 9.9.9.9\n", &[]).is_empty());
    }
}
