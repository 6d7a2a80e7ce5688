//! The rules of the local zone, one test each.

use super::*;
use crate::dns::{
    testing::{PLAIN, name, query_with},
    wire::bits,
};

fn config() -> DnsConfig {
    DnsConfig {
        listen: vec!["192.168.122.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        subnets: vec!["192.168.122.0/24".parse().unwrap()],
        domain: Some("Lab.Example".to_owned()),
        local_only: false,
        hosts: vec![
            ("192.168.122.9".parse().unwrap(), vec!["printer".to_owned(), "Scanner".to_owned()]),
            ("203.0.114.5".parse().unwrap(), vec!["www.shop.example".to_owned()]),
        ],
        forward: true,
        resolv_conf: "/etc/resolv.conf".into(),
        ..DnsConfig::default()
    }
}

fn names(records: &[(&str, &str)]) -> Names {
    Names { records: records.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap())).collect() }
}

fn zone() -> Zone {
    zone_with(|_| {})
}

fn zone_with(change: impl FnOnce(&mut DnsConfig)) -> Zone {
    let mut config = config();
    change(&mut config);
    let learnt = [("vm1", "192.168.122.101"), ("VM2", "192.168.122.102"), ("vm2", "fd00::102")];
    Zone::new(&config, &names(&learnt))
}

/// The verdict in a word or two: addresses and names answered, or `nodata ZONE`, `nxdomain ZONE`, `refused`, `forward`.
fn ask(zone: &Zone, text: &str, qtype: u16) -> String {
    let query = Query::parse(&query_with(1, PLAIN, text, qtype, None)).unwrap();
    say(zone.lookup(&query))
}

fn say(verdict: Verdict) -> String {
    match verdict {
        Verdict::Answer { records, .. } => {
            let words = records.iter().map(|record| match record {
                Record::Address(address) => address.to_string(),
                Record::Alias(name) => format!("={name}"),
                Record::Beyond(name, address) => format!("{name}:{address}"),
                Record::Pointer(name) => name.to_string(),
                Record::Text(text) => String::from_utf8_lossy(text).into_owned(),
                Record::Service { priority, weight, port, target } => format!("{priority} {weight} {port} {target}"),
                Record::NameServer => "ns".to_owned(),
                Record::Authority => "soa".to_owned(),
            });
            words.collect::<Vec<_>>().join(" ")
        }
        Verdict::NoData { zone } => format!("nodata {zone}"),
        Verdict::NoName { zone } => format!("nxdomain {zone}"),
        Verdict::Refused => "refused".to_owned(),
        Verdict::NotImplemented => "notimp".to_owned(),
        Verdict::Forward => "forward".to_owned(),
    }
}

const MX: u16 = 15;
const TXT: u16 = 16;
const HTTPS: u16 = 65;

#[test]
fn a_guest_is_known_by_its_label_and_in_the_domain_in_any_case() {
    let zone = zone();
    for text in ["vm2", "VM2", "vm2.lab.example", "vM2.LAB.eXample"] {
        assert_eq!(ask(&zone, text, rtype::A), "192.168.122.102", "{text}");
        assert_eq!(ask(&zone, text, rtype::AAAA), "fd00::102", "{text}");
        assert_eq!(ask(&zone, text, rtype::ANY), "192.168.122.102 fd00::102", "{text}");
    }
}

#[test]
fn a_guest_given_with_its_domain_is_known_by_its_label_too() {
    let zone =
        Zone::new(&config(), &names(&[("vm9.lab.example", "192.168.122.109"), ("a.b.lab.example", "192.168.122.110")]));
    assert_eq!(ask(&zone, "vm9", rtype::A), "192.168.122.109");
    assert_eq!(ask(&zone, "a.b.lab.example", rtype::A), "192.168.122.110");
    assert_eq!(ask(&zone, "a", rtype::A), "nxdomain .");
}

#[test]
fn without_a_domain_the_label_is_all_there_is() {
    let zone = zone_with(|config| config.domain = None);
    assert_eq!(ask(&zone, "vm1", rtype::A), "192.168.122.101");
    assert_eq!(ask(&zone, "vm1.lab.example", rtype::A), "forward");
    assert_eq!(ask(&zone, "101.122.168.192.in-addr.arpa", rtype::PTR), "vm1.");
}

#[test]
fn a_known_name_has_no_data_of_other_types_and_none_is_asked_for_upstream() {
    let zone = zone();
    for qtype in [rtype::AAAA, MX, TXT, HTTPS, 33, rtype::NS, rtype::SOA, rtype::DS, 65280] {
        assert_eq!(ask(&zone, "vm1.lab.example", qtype), "nodata lab.example.", "type {qtype}");
    }
    for qtype in [rtype::AAAA, MX, rtype::DS] {
        assert_eq!(ask(&zone, "vm1", qtype), "nodata vm1.", "type {qtype}");
        assert_eq!(ask(&zone, "www.shop.example", qtype), "nodata www.shop.example.", "type {qtype}");
    }
}

#[test]
fn a_single_label_that_is_unknown_is_no_name() {
    assert_eq!(ask(&zone(), "vm7", rtype::A), "nxdomain .");
    assert_eq!(ask(&zone(), "vm7", MX), "nxdomain .");
    assert_eq!(ask(&zone(), "com", rtype::A), "nxdomain .");
}

#[test]
fn a_validating_guest_may_ask_about_top_level_domains() {
    for qtype in [rtype::DS, rtype::DNSKEY, rtype::NS, rtype::SOA] {
        assert_eq!(ask(&zone(), "com", qtype), "forward", "type {qtype}");
        assert_eq!(ask(&zone(), ".", qtype), "forward", "type {qtype}");
    }
}

#[test]
fn other_names_are_forwarded() {
    for text in [
        "www.example.org",
        "shop.example",
        "mail.shop.example",
        "vm7.lab.example",
        "lab.example",
        "8.8.8.8.in-addr.arpa",
    ] {
        assert_eq!(ask(&zone(), text, rtype::A), "forward", "{text}");
    }
}

#[test]
fn local_only_names_never_leave() {
    let zone = zone_with(|config| config.local_only = true);
    assert_eq!(ask(&zone, "vm1.lab.example", rtype::A), "192.168.122.101");
    assert_eq!(ask(&zone, "vm7.lab.example", rtype::A), "nxdomain lab.example.");
    assert_eq!(ask(&zone, "a.b.vm7.lab.example", MX), "nxdomain lab.example.");
    assert_eq!(ask(&zone, "lab.example", rtype::A), "nodata lab.example.");
    assert_eq!(ask(&zone, "lab.example", rtype::SOA), "soa");
    assert_eq!(ask(&zone, "lab.example", rtype::NS), "ns");
    assert_eq!(ask(&zone, "other.example", rtype::A), "forward");
    assert_eq!(ask(&zone, "notlab.example", rtype::A), "forward", "a suffix ends at a label");
}

#[test]
fn rfc8020_a_name_above_a_known_one_exists() {
    let mut config = config();
    config.local_only = true;
    let zone = Zone::new(&config, &names(&[("a.b.c.lab.example", "192.168.122.110")]));
    assert_eq!(ask(&zone, "b.c.lab.example", rtype::A), "nodata lab.example.");
    assert_eq!(ask(&zone, "c.lab.example", MX), "nodata lab.example.");
    assert_eq!(ask(&zone, "d.lab.example", rtype::A), "nxdomain lab.example.");
}

#[test]
fn an_isolated_network_forwards_nothing() {
    let zone = zone_with(|config| config.forward = false);
    assert_eq!(ask(&zone, "vm1", rtype::A), "192.168.122.101");
    assert_eq!(ask(&zone, "www.example.org", rtype::A), "refused");
    assert_eq!(ask(&zone, ".", rtype::NS), "refused");
    assert_eq!(ask(&zone, "com", rtype::DS), "refused");
    assert_eq!(ask(&zone, "8.8.8.8.in-addr.arpa", rtype::PTR), "refused");
    assert_eq!(ask(&zone, "vm7", rtype::A), "nxdomain .");
    assert_eq!(ask(&zone, "vm7.lab.example", rtype::A), "nxdomain lab.example.", "nobody else can know");
}

#[test]
fn reverse_names_of_the_network_are_answered_here() {
    let zone = zone();
    assert_eq!(ask(&zone, "101.122.168.192.in-addr.arpa", rtype::PTR), "vm1.lab.example.");
    assert_eq!(ask(&zone, "102.122.168.192.IN-ADDR.ARPA", rtype::PTR), "VM2.lab.example.");
    assert_eq!(ask(&zone, "9.122.168.192.in-addr.arpa", rtype::PTR), "printer.lab.example.");
    assert_eq!(ask(&zone, "1.122.168.192.in-addr.arpa", rtype::PTR), "_gateway.lab.example.");
    assert_eq!(ask(&zone, "55.122.168.192.in-addr.arpa", rtype::PTR), "nxdomain 122.168.192.in-addr.arpa.");
    assert_eq!(ask(&zone, "101.122.168.192.in-addr.arpa", rtype::A), "nodata 122.168.192.in-addr.arpa.");
    assert_eq!(ask(&zone, "122.168.192.in-addr.arpa", rtype::SOA), "soa");
    assert_eq!(ask(&zone, "122.168.192.in-addr.arpa", rtype::PTR), "nodata 122.168.192.in-addr.arpa.");
    assert_eq!(ask(&zone, "x.122.168.192.in-addr.arpa", rtype::PTR), "nxdomain 122.168.192.in-addr.arpa.");
    assert_eq!(ask(&zone, "1.2.122.168.192.in-addr.arpa", rtype::PTR), "nxdomain 122.168.192.in-addr.arpa.");
    let v6 = Name::reverse("fd00::102".parse().unwrap()).to_string();
    assert_eq!(ask(&zone, &v6, rtype::PTR), "vm2.lab.example.");
}

#[test]
fn reverse_names_of_a_public_subnet_of_any_length_stay_here() {
    let zone =
        zone_with(|config| config.subnets = vec!["198.18.16.0/20".parse().unwrap(), "9.9.9.128/25".parse().unwrap()]);
    assert_eq!(ask(&zone, "7.31.18.198.in-addr.arpa", rtype::PTR), "nxdomain 31.18.198.in-addr.arpa.");
    assert_eq!(ask(&zone, "31.18.198.in-addr.arpa", rtype::NS), "ns");
    assert_eq!(ask(&zone, "7.32.18.198.in-addr.arpa", rtype::PTR), "forward");
    assert_eq!(ask(&zone, "18.198.in-addr.arpa", rtype::NS), "forward");
    assert_eq!(ask(&zone, "200.9.9.9.in-addr.arpa", rtype::PTR), "nodata 200.9.9.9.in-addr.arpa.");
    assert_eq!(ask(&zone, "100.9.9.9.in-addr.arpa", rtype::PTR), "forward");
}

#[test]
fn reverse_names_of_a_public_ipv6_subnet_of_any_length_stay_here() {
    let zone = zone_with(|config| {
        config.subnets =
            ["2600:1:2:3::/64", "2600:9::/30", "2600:1:2:4:8000::/65"].map(|net| net.parse().unwrap()).into();
    });
    let ask_about = |address: &str| ask(&zone, &Name::reverse(address.parse().unwrap()).to_string(), rtype::PTR);
    assert_eq!(ask_about("2600:1:2:3::7"), "nxdomain 3.0.0.0.2.0.0.0.1.0.0.0.0.0.6.2.ip6.arpa.");
    assert_eq!(ask_about("2600:1:2:5::7"), "forward");
    assert_eq!(ask_about("2600:a::7"), "nxdomain a.0.0.0.0.0.6.2.ip6.arpa.");
    assert_eq!(ask_about("2600:c::7"), "forward");
    assert_eq!(ask_about("2600:1:2:4:9::7"), "forward");
    assert_eq!(ask_about("2600:1:2:4:9000::7"), "nxdomain 9.4.0.0.0.2.0.0.0.1.0.0.0.0.0.6.2.ip6.arpa.");
    assert_eq!(ask(&zone, "3.0.0.0.2.0.0.0.1.0.0.0.0.0.6.2.ip6.arpa", rtype::NS), "ns");
    assert_eq!(ask(&zone, "0.0.0.2.0.0.0.1.0.0.0.0.0.6.2.ip6.arpa", rtype::NS), "forward");
}

#[test]
fn a_known_address_elsewhere_has_its_reverse_name() {
    assert_eq!(ask(&zone(), "5.114.0.203.in-addr.arpa", rtype::PTR), "www.shop.example.");
    assert_eq!(ask(&zone(), "5.114.0.203.in-addr.arpa", MX), "nodata 5.114.0.203.in-addr.arpa.");
    assert_eq!(ask(&zone(), "6.114.0.203.in-addr.arpa", rtype::PTR), "forward");
}

#[test]
fn rfc6303_private_reverse_zones_are_not_forwarded() {
    let zone = zone();
    for (text, apex) in [
        ("1.2.3.10.in-addr.arpa", "10.in-addr.arpa."),
        ("1.2.31.172.in-addr.arpa", "31.172.in-addr.arpa."),
        ("1.1.168.192.in-addr.arpa", "168.192.in-addr.arpa."),
        ("1.1.127.100.in-addr.arpa", "127.100.in-addr.arpa."),
        ("1.1.254.169.in-addr.arpa", "254.169.in-addr.arpa."),
        ("1.2.0.192.in-addr.arpa", "2.0.192.in-addr.arpa."),
        ("1.100.51.198.in-addr.arpa", "100.51.198.in-addr.arpa."),
        ("1.113.0.203.in-addr.arpa", "113.0.203.in-addr.arpa."),
        ("9.9.9.127.in-addr.arpa", "127.in-addr.arpa."),
        ("1.1.1.0.in-addr.arpa", "0.in-addr.arpa."),
    ] {
        assert_eq!(ask(&zone, text, rtype::PTR), format!("nxdomain {apex}"), "{text}");
    }
    assert_eq!(ask(&zone, "255.255.255.255.in-addr.arpa", rtype::PTR), "nodata 255.255.255.255.in-addr.arpa.");
    for text in [
        "1.2.32.172.in-addr.arpa",
        "1.1.128.100.in-addr.arpa",
        "172.in-addr.arpa",
        "in-addr.arpa",
        "1.1.1.1.in-addr.arpa",
    ] {
        assert_eq!(ask(&zone, text, rtype::NS), "forward", "{text}");
    }
    for (address, apex) in [
        ("::", "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa."),
        ("fd12::5", "d.f.ip6.arpa."),
        ("fe80::5", "8.e.f.ip6.arpa."),
        ("febf::5", "b.e.f.ip6.arpa."),
        ("2001:db8::5", "8.b.d.0.1.0.0.2.ip6.arpa."),
    ] {
        let text = Name::reverse(address.parse().unwrap()).to_string();
        let said = ask(&zone, &text, rtype::PTR);
        assert!(said == format!("nxdomain {apex}") || said == format!("nodata {apex}"), "{address}: {said}");
    }
    assert_eq!(ask(&zone, "0.d.f.ip6.arpa", rtype::PTR), "nodata d.f.ip6.arpa.");
    assert_eq!(ask(&zone, "f.ip6.arpa", rtype::NS), "forward");
    assert_eq!(ask(&zone, &Name::reverse("2606::1".parse().unwrap()).to_string(), rtype::PTR), "forward");
}

#[test]
fn rfc6761_localhost_is_the_asker_itself() {
    let zone = zone();
    for text in ["localhost", "LOCALHOST", "a.b.localhost", "localhost.lab.example"] {
        assert_eq!(ask(&zone, text, rtype::A), "127.0.0.1", "{text}");
        assert_eq!(ask(&zone, text, rtype::AAAA), "::1", "{text}");
        assert!(ask(&zone, text, MX).starts_with("nodata"), "{text}");
    }
    assert_eq!(ask(&zone, "1.0.0.127.in-addr.arpa", rtype::PTR), "localhost.");
    assert_eq!(ask(&zone, &Name::reverse("::1".parse().unwrap()).to_string(), rtype::PTR), "localhost.");
}

#[test]
fn special_names_are_not_forwarded() {
    for (text, top) in [
        ("printer.local", "local"),
        ("local", "local"),
        ("abc.onion", "onion"),
        ("x.invalid", "invalid"),
        ("x.test", "test"),
        ("nas.home.arpa", "home.arpa"),
    ] {
        assert_eq!(ask(&zone(), text, rtype::A), format!("nxdomain {top}."), "{text}");
    }
    assert_eq!(ask(&zone(), "x.local.example", rtype::A), "forward");
    assert_eq!(ask(&zone(), "arpa.example.org", rtype::A), "forward");
}

#[test]
fn rfc8375_the_insecure_delegation_of_home_arpa_can_be_seen() {
    assert_eq!(ask(&zone(), "home.arpa", rtype::DS), "forward");
    assert_eq!(ask(&zone(), "x.home.arpa", rtype::DS), "nxdomain home.arpa.");
}

#[test]
fn rfc9462_nobody_is_sent_to_our_upstreams_encrypted_resolver() {
    assert_eq!(ask(&zone(), "_dns.resolver.arpa", 64), "nodata resolver.arpa.");
}

#[test]
fn a_domain_under_a_special_name_is_the_networks_own() {
    let zone = zone_with(|config| config.domain = Some("home.arpa".to_owned()));
    assert_eq!(ask(&zone, "vm1.home.arpa", rtype::A), "192.168.122.101");
    assert_eq!(ask(&zone, "vm7.home.arpa", rtype::A), "nxdomain home.arpa.");
    let zone = zone_with(|config| config.domain = Some("lab".to_owned()));
    assert_eq!(ask(&zone, "vm7.lab", rtype::A), "nxdomain lab.", "a domain of one label is nobody else's");
}

#[test]
fn the_gateway_is_the_host() {
    for text in ["_gateway", "_gateway.lab.example"] {
        assert_eq!(ask(&zone(), text, rtype::A), "192.168.122.1", "{text}");
        assert_eq!(ask(&zone(), text, rtype::AAAA), "fd00::1", "{text}");
    }
}

#[test]
fn a_guest_cannot_take_a_name_that_is_set() {
    let stolen = [("localhost", "192.168.122.66"), ("_gateway", "192.168.122.66"), ("PRINTER", "192.168.122.66")];
    let zone = Zone::new(&config(), &names(&stolen));
    assert_eq!(ask(&zone, "localhost", rtype::A), "127.0.0.1");
    assert_eq!(ask(&zone, "_gateway", rtype::A), "192.168.122.1");
    assert_eq!(ask(&zone, "printer", rtype::A), "192.168.122.9");
    assert_eq!(ask(&zone, "printer.lab.example", rtype::A), "192.168.122.9");
    assert_eq!(ask(&zone, "66.122.168.192.in-addr.arpa", rtype::PTR), "nxdomain 122.168.192.in-addr.arpa.");
}

#[test]
fn a_name_may_have_several_addresses_and_an_address_answers_to_its_first_name() {
    let learnt =
        [("web", "192.168.122.30"), ("web", "192.168.122.31"), ("web", "192.168.122.30"), ("www", "192.168.122.30")];
    let zone = Zone::new(&config(), &names(&learnt));
    assert_eq!(ask(&zone, "web", rtype::A), "192.168.122.30 192.168.122.31");
    assert_eq!(ask(&zone, "30.122.168.192.in-addr.arpa", rtype::PTR), "web.lab.example.");
    assert_eq!(ask(&zone, "scanner", rtype::A), "192.168.122.9");
}

#[test]
fn what_cannot_be_a_name_is_left_out() {
    let long = "x".repeat(64);
    let zone =
        Zone::new(&config(), &names(&[("", "192.168.122.30"), ("a..b", "192.168.122.31"), (&long, "192.168.122.32")]));
    assert_eq!(ask(&zone, "30.122.168.192.in-addr.arpa", rtype::PTR), "nxdomain 122.168.192.in-addr.arpa.");
}

#[test]
fn other_classes_and_transfers_are_refused() {
    let zone = zone();
    let mut chaos = query_with(1, PLAIN, "version.bind", TXT, None);
    let class = chaos.len() - 1;
    chaos[class] = 3;
    assert_eq!(say(zone.lookup(&Query::parse(&chaos).unwrap())), "refused");
    assert_eq!(ask(&zone, "lab.example", rtype::AXFR), "refused");
    assert_eq!(ask(&zone, "www.example.org", rtype::IXFR), "refused");
    assert_eq!(ask(&zone, "www.example.org", rtype::TKEY), "notimp");
    assert_eq!(ask(&zone, "www.example.org", rtype::TSIG), "notimp");
    assert_eq!(bits::RECURSION_DESIRED, PLAIN);
}

#[test]
fn every_name_a_query_can_carry_gets_a_verdict() {
    use rand::{RngExt, SeedableRng};
    let zone = zone_with(|config| config.local_only = true);
    let mut random = rand::rngs::StdRng::seed_from_u64(6303);
    let pieces = [
        "vm1", "lab", "example", "in-addr", "arpa", "ip6", "10", "168", "192", "122", "1", "f", "d", "0", "local", "x",
    ];
    for _ in 0..50_000 {
        let count = random.random_range(0..36);
        let labels: Vec<&str> = (0..count).map(|_| pieces[random.random_range(0..pieces.len())]).collect();
        let text = if labels.is_empty() { ".".to_owned() } else { labels.join(".") };
        let asked = name(&text);
        let query = Query::parse(&query_with(1, PLAIN, &text, rtype::PTR, None)).unwrap();
        match zone.lookup(&query) {
            Verdict::NoData { zone } | Verdict::NoName { zone } => {
                assert!(is_under(asked.bytes(), zone.bytes()), "{asked} in {zone}");
            }
            Verdict::Answer { records, .. } => assert!(!records.is_empty()),
            _ => {}
        }
    }
}

fn service(name: &str, target: Option<&str>) -> crate::config::DnsService {
    let target = target.map(str::to_owned);
    crate::config::DnsService { name: name.to_owned(), target, port: 389, priority: 1, weight: 2 }
}

fn forwarder(domain: Option<&str>, address: Option<&str>) -> crate::config::DnsForwarder {
    let address = address.map(|address| address.parse().unwrap());
    crate::config::DnsForwarder { domain: domain.map(str::to_owned), address, port: None }
}

const SRV: u16 = 33;

#[test]
fn texts_and_services_are_answered_and_their_names_exist() {
    let zone = zone_with(|config| {
        config.local_only = true;
        config.texts = vec![
            ("Lab.Example".to_owned(), "apex".to_owned()),
            ("printer".to_owned(), "second floor".to_owned()),
            ("a.b.elsewhere.example".to_owned(), "x".repeat(300)),
        ];
        config.services = vec![
            service("_ldap._tcp.lab.example", Some("printer.lab.example")),
            service("_ldap._tcp.lab.example", Some("vm1.lab.example")),
            service("_none._udp", None),
        ];
    });
    assert_eq!(ask(&zone, "lab.example", TXT), "apex");
    assert_eq!(ask(&zone, "printer", TXT), "second floor");
    assert_eq!(ask(&zone, "printer", rtype::A), "192.168.122.9");
    assert_eq!(ask(&zone, "printer", rtype::ANY), "192.168.122.9 second floor");
    assert_eq!(ask(&zone, "A.B.elsewhere.example", TXT).len(), 300);
    // What is not ours but a record of it: the rest is for others to say.
    assert_eq!(ask(&zone, "a.b.elsewhere.example", rtype::A), "forward");
    let two = "1 2 389 printer.lab.example. 1 2 389 vm1.lab.example.";
    assert_eq!(ask(&zone, "_LDAP._tcp.lab.example", SRV), two);
    assert_eq!(ask(&zone, "_ldap._tcp.lab.example", rtype::A), "nodata lab.example.");
    assert_eq!(ask(&zone, "_tcp.lab.example", rtype::A), "nodata lab.example.");
    assert_eq!(ask(&zone, "_udp.lab.example", rtype::A), "nxdomain lab.example.");
    assert_eq!(ask(&zone, "_none._udp", SRV), "1 2 389 .");
}

#[test]
fn a_domain_with_a_forwarder_goes_there_even_where_names_are_withheld() {
    let withheld = ["a.corp.test", "5.1.10.10.in-addr.arpa", "corp"];
    assert!(withheld.iter().all(|name| ask(&zone(), name, rtype::A).starts_with("nxdomain")));
    let zone = zone_with(|config| {
        config.local_only = true;
        config.forward = false;
        config.forwarders = vec![
            forwarder(Some("corp.test"), Some("10.1.0.1")),
            forwarder(Some("10.10.in-addr.arpa"), Some("10.1.0.1")),
            forwarder(Some("corp"), None),
            forwarder(Some("example"), Some("10.1.0.1")),
            forwarder(Some("out.lab.example"), Some("10.1.0.1")),
        ];
    });
    assert!(withheld.iter().all(|name| ask(&zone, name, rtype::A) == "forward"));
    assert_eq!(ask(&zone, "www.other.net", rtype::A), "refused", "nobody is named for the rest");
    // Ours alone, but for a part of it that is longer.
    assert_eq!(ask(&zone, "nobody.lab.example", rtype::A), "nxdomain lab.example.");
    assert_eq!(ask(&zone, "x.out.lab.example", rtype::A), "forward");
    assert_eq!(ask(&zone, "vm1", rtype::A), "192.168.122.101");
    let zone = zone_with(|config| {
        config.forward = false;
        config.forwarders = vec![forwarder(None, Some("10.1.0.1"))];
    });
    assert_eq!(ask(&zone, "www.other.net", rtype::A), "forward");
}

#[test]
fn plain_names_are_forwarded_only_if_asked_for() {
    assert_eq!(ask(&zone(), "intranet", rtype::A), "nxdomain .");
    let zone = zone_with(|config| config.forward_plain_names = true);
    assert_eq!(ask(&zone, "intranet", rtype::A), "forward");
    assert_eq!(ask(&zone, "vm1", rtype::A), "192.168.122.101");
}

#[test]
fn reverse_names_of_both_families_are_ours_unless_said_otherwise() {
    let six = "2.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.a.2.ip6.arpa";
    let subnet = |text: &str| text.parse::<IpNet>().unwrap();
    let zone = zone_with(|config| config.subnets.push(subnet("2a01:db8::/62")));
    assert_eq!(ask(&zone, six, rtype::PTR), "nxdomain 0.0.0.0.0.0.0.0.8.b.d.0.1.0.a.2.ip6.arpa.");
    assert_eq!(ask(&zone, "8.b.d.0.1.0.a.2.ip6.arpa", rtype::PTR), "forward");
    assert_eq!(ask(&zone_with(|_| {}), six, rtype::PTR), "forward");
    let zone = zone_with(|config| {
        config.reverse_upstream = std::mem::take(&mut config.subnets);
        config.reverse_upstream.push(subnet("fd00::/64"));
    });
    assert_eq!(ask(&zone, "250.122.168.192.in-addr.arpa", rtype::PTR), "forward");
    assert_eq!(ask(&zone, "101.122.168.192.in-addr.arpa", rtype::PTR), "vm1.lab.example.");
    assert_eq!(ask(&zone, "250.123.168.192.in-addr.arpa", rtype::PTR), "nxdomain 168.192.in-addr.arpa.");
    let mine = "3.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
    assert_eq!(ask(&zone, mine, rtype::PTR), "forward");
    assert_eq!(ask(&zone, &mine.replace("0.0.0.d.f", "0.0.1.d.f"), rtype::PTR), "nxdomain d.f.ip6.arpa.");
}

#[test]
fn an_alias_is_answered_with_what_it_stands_for_and_is_none_of_what_is_not_known() {
    let zone = zone_with(|config| {
        let alias = |alias: &str, target: &str| (alias.to_owned(), target.to_owned());
        config.aliases = vec![
            alias("www", "vm2.lab.example"),
            alias("web.other.example", "www.lab.example"),
            alias("gone", "nobody.lab.example"),
            alias("a.circle.example", "b.circle.example"),
            alias("b.circle.example", "a.circle.example"),
        ];
    });
    for text in ["www", "WWW.lab.example"] {
        assert_eq!(ask(&zone, text, rtype::A), "=vm2.lab.example. vm2.lab.example.:192.168.122.102", "{text}");
        assert_eq!(ask(&zone, text, rtype::AAAA), "=vm2.lab.example. vm2.lab.example.:fd00::102", "{text}");
        assert_eq!(ask(&zone, text, rtype::CNAME), "=vm2.lab.example.", "{text}");
        assert_eq!(ask(&zone, text, TXT), "=vm2.lab.example.", "{text}");
    }
    let beyond = ask(&zone, "web.other.example", rtype::A);
    assert_eq!(beyond, "=www.lab.example. www.lab.example.:192.168.122.102");
    assert_eq!(ask(&zone, "gone.lab.example", rtype::A), "forward");
    assert_eq!(ask(&zone, "a.circle.example", rtype::A), "forward");
    assert_eq!(ask(&zone, "printer", rtype::A), "192.168.122.9", "a name with addresses is no alias");
}

#[test]
fn a_domain_that_is_one_address_has_every_name_but_those_known_otherwise() {
    let zone = zone_with(|config| {
        let whole = |domain: &str, address: Option<&str>| (domain.to_owned(), address.map(|a| a.parse().unwrap()));
        config.whole_domains = vec![
            whole("shop.example", Some("10.0.0.5")),
            whole("shop.example", Some("fd00::5")),
            whole("not.shop.example", None),
            whole("example", Some("10.0.0.6")),
        ];
    });
    for text in ["shop.example", "Any.thing.SHOP.example"] {
        assert_eq!(ask(&zone, text, rtype::A), "10.0.0.5", "{text}");
        assert_eq!(ask(&zone, text, rtype::AAAA), "fd00::5", "{text}");
        assert_eq!(ask(&zone, text, MX), format!("nodata {}.", text.to_lowercase()), "{text}");
    }
    assert_eq!(ask(&zone, "www.shop.example", rtype::A), "203.0.114.5", "a record of its own");
    assert_eq!(ask(&zone, "a.not.shop.example", rtype::A), "nxdomain not.shop.example.");
    assert_eq!(ask(&zone, "else.example", rtype::A), "10.0.0.6");
    assert_eq!(ask(&zone, "vm1.lab.example", rtype::A), "192.168.122.101");
    assert_eq!(ask(&zone, "nobody.lab.example", rtype::A), "forward", "the network's own domain is longer");
    assert_eq!(ask(&zone, "example.org", rtype::A), "forward");
    let all = zone_with(|config| config.whole_domains = vec![(".".to_owned(), Some("10.0.0.7".parse().unwrap()))]);
    assert_eq!(ask(&all, "any.where", rtype::A), "10.0.0.7");
}
