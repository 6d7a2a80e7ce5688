//! What goes upstream and what comes back.

use std::{collections::HashSet, net::Ipv4Addr, time::Duration, time::Instant};

use super::harness::{Network, Upstream, in_netns, receive};
use crate::dns::{
    testing::{PLAIN, query, query_with, read},
    wire::{bits, rcode, rtype},
};

const ONE: &str = "nameserver 127.0.0.2\n";
const BOTH: &str = "nameserver 127.0.0.2\nnameserver 127.0.0.3\n";

fn address(message: &[u8]) -> Option<String> {
    read(message).answers.first().map(|record| record.data.to_string())
}

fn code(message: &[u8]) -> u16 {
    read(message).metadata.response_code.into()
}

#[test]
fn dig_gets_the_same_answer_in_every_way_it_can_ask() {
    in_netns(|| async {
        let _upstream = Upstream::start("127.0.0.2").await;
        let network = Network::start(ONE).await;
        for options in ["+noedns", "+edns=0", "+bufsize=512", "+dnssec", "+tcp", "+tcp +dnssec", "+cdflag +adflag"] {
            let text = network.dig(&format!("{options} www.example.org")).await;
            assert!(text.contains("status: NOERROR"), "{options}: {text}");
            assert!(text.contains("198.51.100.7"), "{options}: {text}");
            assert_eq!(text.contains("OPT PSEUDOSECTION"), !options.contains("noedns"), "{options}: {text}");
            assert!(!text.contains("WARNING") && !text.contains("Warning"), "{options}: {text}");
        }
        let text = network.dig("+edns=0 +dnssec www.example.org").await;
        assert!(text.contains("flags: do; udp: 1232"), "{text}");
        for question in ["www.example.org ANY", "-x 8.8.8.8", "example.org MX", ". NS", "com DS"] {
            let text = network.dig(question).await;
            assert!(text.contains("status: NOERROR"), "{question}: {text}");
        }
        let text = network.dig("+edns=1 +noednsneg www.example.org").await;
        assert!(text.contains("status: BADVERS"), "{text}");
    });
}

#[test]
fn a_negative_answer_comes_through_with_its_soa() {
    in_netns(|| async {
        let upstream = Upstream::start("127.0.0.2").await;
        let network = Network::start(ONE).await;
        for _ in 0..2 {
            let text = network.dig("nx.example").await;
            assert!(text.contains("status: NXDOMAIN") && text.contains("SOA"), "{text}");
            let text = network.dig("nodata.example AAAA").await;
            assert!(text.contains("status: NOERROR") && text.contains("ANSWER: 0"), "{text}");
        }
        assert_eq!(upstream.seen().len(), 2, "the second time from the cache");
    });
}

#[test]
fn every_query_upstream_has_a_random_port_and_id() {
    in_netns(|| async {
        let upstream = Upstream::start("127.0.0.2").await;
        let network = Network::start(ONE).await;
        for n in 0..64 {
            network.ask(&query(7, &format!("n{n}.example"), rtype::A)).await;
        }
        let seen = upstream.seen();
        let ports: HashSet<u16> = seen.iter().map(|seen| seen.from.port()).collect();
        let ids: HashSet<u16> = seen.iter().map(|seen| seen.query.id).collect();
        assert_eq!(seen.len(), 64);
        // 64 of 28,000 ports and of 65,536 ids: three alike is one in 100,000 runs.
        assert!(ports.len() > 60 && ids.len() > 60, "{} ports, {} ids", ports.len(), ids.len());
        let sorted = |words: Vec<u16>| words.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!(sorted(seen.iter().map(|seen| seen.from.port()).collect()) < 55, "ports do not just go up");
    });
}

#[test]
fn lies_are_not_believed() {
    in_netns(|| async {
        let upstream = Upstream::start("127.0.0.2").await;
        let network = Network::start(ONE).await;
        for label in ["wrongid", "otherquestion", "liar", "twice"] {
            let message = network.ask(&query(7, &format!("{label}.example"), rtype::A)).await;
            assert_eq!(address(&message).as_deref(), Some("198.51.100.7"), "{label}");
        }
        let over_tcp: Vec<String> =
            upstream.seen().iter().filter(|seen| seen.over_tcp).map(|seen| seen.query.name.to_string()).collect();
        assert_eq!(over_tcp, ["liar.example."], "too many lies: the question moves to TCP");
    });
}

#[test]
fn an_answer_from_another_port_never_arrives() {
    in_netns(|| async {
        let upstream = Upstream::start("127.0.0.2").await;
        let network = Network::start(ONE).await;
        let start = Instant::now();
        let message = network.ask(&query(7, "otherport.example", rtype::A)).await;
        assert_eq!(code(&message), rcode::SERVFAIL);
        assert!(start.elapsed() < Duration::from_secs(5), "before a stub resolver gives up: {:?}", start.elapsed());
        assert_eq!(upstream.seen().len(), 3, "asked three times");
    });
}

#[test]
fn a_long_answer_is_fetched_and_handed_out_over_tcp() {
    in_netns(|| async {
        let upstream = Upstream::start("127.0.0.2").await;
        let network = Network::start(ONE).await;
        let text = network.dig("big.example").await;
        assert!(text.contains("Truncated, retrying in TCP mode") && text.contains("ANSWER: 200"), "{text}");
        let seen: Vec<bool> = upstream.seen().iter().map(|seen| seen.over_tcp).collect();
        assert_eq!(seen, [false, true]);
        let text = network.dig("+bufsize=4096 +ignore big.example").await;
        assert!(text.contains("ANSWER: 200") && text.contains("(UDP)"), "{text}");
        let text = network.dig("+noedns +ignore big.example").await;
        assert!(text.contains(" tc ") && text.contains("ANSWER: 0"), "{text}");
    });
}

#[test]
fn the_octets_of_records_we_do_not_know_come_through() {
    in_netns(|| async {
        let _upstream = Upstream::start("127.0.0.2").await;
        let network = Network::start(ONE).await;
        let asked = query_with(7, PLAIN, "UnKnown.example", 65280, Some((1232, true)));
        for round in 0..2 {
            let message = network.ask(&asked).await;
            let records = &message[asked.len() - 11..message.len() - 11];
            let mut expected = crate::dns::testing::of_question(65280, 77, b"\xc0\x0c of a type nobody knows");
            expected.extend(crate::dns::testing::of_question(46, 77, b"not really a signature"));
            assert_eq!(records, expected, "round {round}");
            assert_eq!(message[12..12 + 17], asked[12..12 + 17], "the client's case");
            assert!(read(&message).metadata.authentic_data, "DO was set");
        }
    });
}

#[test]
fn an_upstream_without_edns_is_understood() {
    in_netns(|| async {
        let upstream = Upstream::start("127.0.0.2").await;
        let network = Network::start(ONE).await;
        let message = network.ask(&query_with(7, PLAIN, "noedns.example", rtype::A, Some((1232, false)))).await;
        assert_eq!(address(&message).as_deref(), Some("198.51.100.8"));
        assert!(read(&message).edns.is_some(), "the client speaks EDNS with us all the same");
        assert_eq!(upstream.seen().len(), 2);
    });
}

#[test]
fn clients_that_ask_the_same_at_once_cause_one_question() {
    in_netns(|| async {
        let upstream = Upstream::start("127.0.0.2").await;
        let network = Network::start(ONE).await;
        let mut sockets = Vec::new();
        for text in ["slow.example", "SLOW.example", "slow.EXAMPLE"] {
            let socket = network.socket().await;
            socket.send(&query(sockets.len() as u16, text, rtype::A)).await.unwrap();
            sockets.push((socket, text));
        }
        for (id, (socket, text)) in sockets.iter().enumerate() {
            let message = read(&receive(socket).await);
            assert_eq!(usize::from(message.metadata.id), id);
            assert_eq!(message.queries[0].name().to_string(), format!("{text}."));
        }
        assert_eq!(upstream.seen().len(), 1);
    });
}

#[test]
fn a_failing_upstream_gives_the_turn_to_the_next() {
    in_netns(|| async {
        let first = Upstream::start("127.0.0.2").await;
        let network = Network::start(BOTH).await;
        let start = Instant::now();
        // Nobody listens on the second: it is refused by the kernel, and then there is nobody left.
        for label in ["servfail", "refused", "garbage"] {
            let message = network.ask(&query(7, &format!("{label}.example"), rtype::A)).await;
            assert!(matches!(code(&message), rcode::SERVFAIL | rcode::REFUSED), "{label}");
        }
        assert!(start.elapsed() < Duration::from_secs(1), "not a matter of waiting: {:?}", start.elapsed());
        drop(first);
        let message = network.ask(&query(7, "gone.example", rtype::A)).await;
        assert_eq!(code(&message), rcode::SERVFAIL);
        let text = network.dig("gone2.example").await;
        assert!(text.contains("EDE: 22 (No Reachable Authority)"), "{text}");
        assert!(start.elapsed() < Duration::from_secs(1), "both dead: {:?}", start.elapsed());
        let _second = Upstream::start("127.0.0.3").await;
        let message = network.ask(&query(7, "back.example", rtype::A)).await;
        assert_eq!(address(&message).as_deref(), Some("198.51.100.7"));
    });
}

#[test]
fn a_silent_upstream_costs_a_second_and_a_half() {
    in_netns(|| async {
        let _silent = tokio::net::UdpSocket::bind("127.0.0.2:53").await.unwrap();
        let _good = Upstream::start("127.0.0.3").await;
        let network = Network::start(BOTH).await;
        let start = Instant::now();
        let message = network.ask(&query(7, "a.example", rtype::A)).await;
        assert_eq!(address(&message).as_deref(), Some("198.51.100.7"));
        let waited = start.elapsed();
        assert!(waited > Duration::from_millis(1400) && waited < Duration::from_millis(3000), "{waited:?}");
    });
}

#[test]
fn a_late_answer_of_the_only_upstream_is_still_taken() {
    in_netns(|| async {
        let upstream = Upstream::start("127.0.0.2").await;
        let network = Network::start(ONE).await;
        let message = network.ask(&query(7, "late.example", rtype::A)).await;
        assert_eq!(address(&message).as_deref(), Some("198.51.100.7"));
        assert_eq!(upstream.seen().len(), 2, "asked again after a second and a half, answered after two");
    });
}

#[test]
fn what_is_cached_outlives_the_upstream() {
    in_netns(|| async {
        let upstream = Upstream::start("127.0.0.2").await;
        let network = Network::start(ONE).await;
        let first = network.ask(&query(7, "turn.example", rtype::A)).await;
        drop(upstream);
        let second = network.ask(&query(7, "turn.example", rtype::A)).await;
        assert_eq!(address(&first), address(&second));
        assert!(read(&second).metadata.recursion_available);
    });
}

#[test]
fn a_burst_beyond_the_limit_is_refused_and_local_names_still_work() {
    in_netns(|| async {
        let _silent = tokio::net::UdpSocket::bind("127.0.0.2:53").await.unwrap();
        let network = Network::start(ONE).await;
        let socket = network.socket().await;
        for n in 0..140u16 {
            socket.send(&query(n, &format!("n{n}.example"), rtype::A)).await.unwrap();
        }
        socket.send(&query(999, "vm1", rtype::A)).await.unwrap();
        let (mut refused, mut local) = (0, None);
        while local.is_none() {
            let message = read(&receive(&socket).await);
            match u16::from(message.metadata.response_code) {
                rcode::REFUSED => refused += 1,
                _ => local = Some(message.answers[0].data.to_string()),
            }
        }
        assert_eq!((refused, local.as_deref()), (12, Some("192.168.150.101")), "128 of one client may wait");
    });
}

#[test]
fn a_resolver_that_is_one_of_our_own_addresses_is_not_asked() {
    in_netns(|| async {
        let network = Network::start("nameserver 192.168.150.1\n").await;
        let start = Instant::now();
        let message = network.ask(&query(7, "www.example.org", rtype::A)).await;
        assert_eq!(code(&message), rcode::SERVFAIL);
        assert!(start.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn two_networks_that_are_each_others_resolver_do_not_loop() {
    in_netns(|| async {
        super::harness::ip("addr add 192.168.151.1/24 dev br0");
        let here: Ipv4Addr = "192.168.151.1".parse().unwrap();
        let one = Network::start("nameserver 192.168.151.1\n").await;
        let _two =
            Network::start_with("nameserver 192.168.150.1\n", |config, _| config.listen = vec![here.into()]).await;
        let start = Instant::now();
        let message = one.ask(&query(7, "www.example.org", rtype::A)).await;
        assert_eq!(code(&message), rcode::SERVFAIL);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert_eq!(read(&message).metadata.id, 7);
        assert_eq!(bits::RECURSION_DESIRED, PLAIN);
    });
}

#[test]
fn a_domain_goes_to_its_own_resolver_and_the_rest_to_those_named_in_place_of_the_hosts() {
    use crate::config::DnsForwarder;
    in_netns(|| async {
        let (host, named, corp) = (
            Upstream::start("127.0.0.2").await,
            Upstream::start("127.0.0.3").await,
            Upstream::start("127.0.0.4").await,
        );
        let forwarder = |domain: Option<&str>, address: Option<&str>| DnsForwarder {
            domain: domain.map(str::to_owned),
            address: address.map(|address| address.parse().expect("an address")),
            port: None,
        };
        let network = Network::start_with(ONE, |config, _| {
            config.forwarders = vec![
                forwarder(None, Some("127.0.0.3")),
                forwarder(Some("corp.test"), Some("127.0.0.4")),
                forwarder(Some("open.corp.test"), None),
            ];
        })
        .await;
        for name in ["www.example.org", "a.corp.test", "a.open.corp.test"] {
            let text = network.dig(name).await;
            assert!(text.contains("198.51.100.7"), "{name}: {text}");
        }
        let asked = |upstream: &Upstream| -> Vec<String> {
            upstream.seen().iter().map(|seen| seen.query.name.to_string()).collect()
        };
        assert_eq!(asked(&host), ["a.open.corp.test."]);
        assert_eq!(asked(&named), ["www.example.org."]);
        assert_eq!(asked(&corp), ["a.corp.test."]);
    });
}

#[test]
fn texts_and_services_are_what_dig_and_another_codec_read() {
    use crate::config::DnsService;
    in_netns(|| async {
        let network = Network::start_with("", |config, _| {
            config.texts = vec![("lab.example".to_owned(), format!("{} end", "x".repeat(254)))];
            config.services = vec![DnsService {
                name: "_ldap._tcp.lab.example".to_owned(),
                target: Some("printer.lab.example".to_owned()),
                port: 389,
                priority: 1,
                weight: 10,
            }];
        })
        .await;
        let text = network.dig("+short lab.example TXT").await;
        assert_eq!(text, format!("\"{} \" \"end\"\n", "x".repeat(254)));
        let srv = network.dig("+short _ldap._tcp.lab.example SRV").await;
        assert_eq!(srv, "1 10 389 printer.lab.example.\n");
        let reply = network.ask(&query(7, "_ldap._tcp.lab.example", rtype::SRV)).await;
        assert_eq!(read(&reply).answers[0].data.to_string(), "1 10 389 printer.lab.example.");
    });
}
