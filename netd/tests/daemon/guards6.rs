//! Guards of IPv6 on the real kernel: an address is whose first uses it, what a MAC makes is its own, and neighbour
//! discovery is about nobody else.

use std::net::Ipv6Addr;

use netd_api::{Dropped, PortRequest};

use super::{
    guards::{dropped, is_heard},
    guest::{Guest, ipv6, lladdr, neighbour},
    harness::{Space, wait_for},
};

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

fn address(text: &str) -> [u8; 16] {
    text.parse::<Ipv6Addr>().unwrap().octets()
}

/// The link-local address that a MAC makes.
fn own(guest: &Guest) -> [u8; 16] {
    nat::guards::link_local(guest.mac).octets()
}

/// A UDP datagram.
fn packet(guest: &Guest, source: [u8; 16]) -> Vec<u8> {
    ipv6(guest.mac, source, 17, &[&[0, 9, 0, 9, 0, 28, 0, 0][..], &[9; 20]].concat())
}

/// Whoever looks whether an address is free is about to use it.
fn dad(guest: &Guest, target: [u8; 16]) -> Vec<u8> {
    neighbour(guest.mac, [0; 16], SOLICITATION, target, &[14, 1, 1, 2, 3, 4, 5, 6])
}

fn two(space: &Space, network: &str) -> (Guest, Guest) {
    (Guest::plug(space, network, "a"), Guest::plug(space, network, "b"))
}

#[test]
fn a_guest_that_lies_in_neighbour_discovery_reaches_nobody_and_is_counted() {
    let space = Space::new();
    // With it the kernel collects a bridged packet's fragments and passes none of them on alone.
    space.run("sysctl -e -q -w net.bridge.bridge-nf-call-ip6tables=0");
    let _daemon = space.daemon();
    space.start("default");
    let (liar, victim) = two(&space, "default");
    let (mac, own_address, other) = (liar.mac, own(&liar), own(&victim));
    let ns = |source, target, options: &[u8]| neighbour(mac, source, SOLICITATION, target, options);
    let na = |source, target, options: &[u8]| neighbour(mac, source, ADVERTISEMENT, target, options);
    let (mine, theirs) = (lladdr(1, mac), lladdr(1, victim.mac));
    let (my_target, their_target) = (lladdr(2, mac), lladdr(2, victim.mac));
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let fragment = [&[58, 0, 0, 1, 0, 0, 0, 7][..], &na(own_address, own_address, &their_target)[54..]].concat();
    let later_fragment = [&[58, 0, 0, 8, 0, 0, 0, 7][..], &[0; 24]].concat();
    let solicit_routers =
        |source, options: &[u8]| ipv6(mac, source, 58, &[&[133, 0, 0, 0, 0, 0, 0, 0], options].concat());

    type Counter = fn(&mut Dropped) -> &mut u64;
    let (ip, nd, ra): (Counter, Counter, Counter) = (|d| &mut d.ip, |d| &mut d.nd, |d| &mut d.ra);
    let lies: Vec<(&str, Vec<u8>, Counter)> = vec![
        ("another's address", packet(&liar, other), ip),
        ("an address of no network", packet(&liar, address("fd00::1")), ip),
        ("a multicast address", packet(&liar, address("ff02::1")), ip),
        ("a link-local address no host has", packet(&liar, address("fe80:1::1")), ip),
        ("no address", packet(&liar, [0; 16]), ip),
        ("NS from another's address", ns(other, own_address, &mine), ip),
        ("NS with another's MAC", ns(own_address, other, &theirs), nd),
        ("NS with a MAC behind something else", ns(own_address, other, &[&nonce[..], &theirs].concat()), nd),
        ("NS with two MACs", ns(own_address, other, &[&mine[..], &theirs].concat()), nd),
        ("NS with a target's MAC", ns(own_address, other, &my_target), nd),
        ("DAD for another's address", dad(&liar, other), nd),
        ("DAD with a MAC", ns([0; 16], own_address, &mine), nd),
        ("NA of another's address", na(own_address, other, &my_target), nd),
        ("NA of another's address without a MAC", na(own_address, other, &[]), nd),
        ("NA of another's address from it", na(other, other, &my_target), nd),
        ("NA of its own with another's MAC", na(own_address, own_address, &their_target), nd),
        ("NA of its own from another's", na(other, own_address, &my_target), ip),
        ("RS with another's MAC", solicit_routers(own_address, &theirs), nd),
        ("RS from another's", solicit_routers(other, &mine), ip),
        ("NA in a fragment", ipv6(mac, own_address, 44, &fragment), nd),
        ("a later fragment of one", ipv6(mac, own_address, 44, &later_fragment), nd),
        ("RA", ipv6(mac, own_address, 58, &[&[134, 0, 0, 0, 64, 0][..], &[7; 10]].concat()), ra),
    ];
    let mut expected = Dropped::default();
    for (what, lie, counter) in &lies {
        assert!(!is_heard(&liar, &victim, lie), "{what} is heard");
        *counter(&mut expected) += 1;
        assert_eq!(dropped(&space, &liar), expected, "{what}");
    }
    let truths = [
        ("its own address", packet(&liar, own_address)),
        ("NS", ns(own_address, other, &mine)),
        ("NS without a MAC", ns(own_address, other, &[])),
        ("DAD", dad(&liar, own_address)),
        ("DAD without a nonce", ns([0; 16], own_address, &[])),
        ("NA", na(own_address, own_address, &my_target)),
        ("RS", solicit_routers(own_address, &mine)),
        ("RS without an address", solicit_routers([0; 16], &[])),
        ("a report of what it listens to", ipv6(mac, [0; 16], 58, &[&[143, 0][..], &[0; 26]].concat())),
    ];
    for (what, truth) in truths {
        assert!(is_heard(&liar, &victim, &truth), "{what} is not heard");
    }
    assert_eq!(dropped(&space, &liar), expected);
    assert_eq!(dropped(&space, &victim), Dropped::default());

    // Off, all of this is heard: what was measured above was the guards.
    let free = Guest::plug_with(&space, "default", "free", Some(false));
    for (what, mut lie, _) in lies {
        lie[6..12].copy_from_slice(&free.mac);
        assert!(is_heard(&free, &victim, &lie), "{what}");
    }
}

#[test]
fn an_address_is_whose_first_uses_it_until_its_port_goes() {
    let space = Space::new();
    let mut daemon = Some(space.daemon());
    space.start("default");
    let (a, b) = two(&space, "default");
    let (used, looked_for, announced) = (address("fe80::a:1"), address("fe80::a:2"), address("fe80::a:3"));
    let claims =
        [packet(&a, used), dad(&a, looked_for), neighbour(a.mac, own(&a), ADVERTISEMENT, announced, &lladdr(2, a.mac))];
    for claim in &claims {
        assert!(is_heard(&a, &b, claim));
    }
    let is_a_s = || {
        for address in [used, looked_for, announced] {
            let take = neighbour(b.mac, own(&b), ADVERTISEMENT, address, &lladdr(2, b.mac));
            for theft in [packet(&b, address), dad(&b, address), take] {
                assert!(!is_heard(&b, &a, &theft));
            }
            assert!(is_heard(&a, &b, &packet(&a, address)));
        }
    };
    is_a_s();
    // The daemon's death frees nothing, nor does the next one.
    daemon.take().unwrap().kill();
    is_a_s();
    // Also without a daemon there are new claims.
    assert!(is_heard(&b, &a, &packet(&b, address("fe80::b:1"))));
    assert!(!is_heard(&a, &b, &packet(&a, address("fe80::b:1"))));
    daemon = Some(space.daemon());
    is_a_s();
    assert!(!is_heard(&a, &b, &packet(&a, address("fe80::b:1"))));
    // Nor another network's port, whose table comes anew with the first.
    let xml = "<network><name>fixed</name><bridge name='br-fix'/><ip address='10.9.0.1' prefix='24'/></network>";
    space.call(async |client| client.create_network(xml.into()).await).unwrap();
    let (elsewhere, hears) = two(&space, "fixed");
    assert!(is_heard(&elsewhere, &hears, &packet(&elsewhere, used)), "each network has its own");
    is_a_s();

    drop(a);
    wait_for("the address to be free", || is_heard(&b, &Guest::plug(&space, "default", "c"), &packet(&b, used)));
    drop(daemon);
}

#[test]
fn a_port_claims_a_few_addresses_and_then_no_more() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.start("default");
    let (a, b) = two(&space, "default");
    let heard = (1..=100u32)
        .filter(|number| is_heard(&a, &b, &packet(&a, Ipv6Addr::from(0xfe80 << 112 | u128::from(*number)).octets())))
        .count();
    // 64 at once, and one a minute.
    assert!((64..=70).contains(&heard), "{heard}");
    assert_eq!(dropped(&space, &a).ip, 100 - heard as u64);
    // The others' own are not used up by that, nor is its own.
    assert!(is_heard(&a, &b, &packet(&a, own(&a))) && is_heard(&a, &b, &packet(&a, address("fe80::1"))));
    assert!(is_heard(&b, &a, &packet(&b, address("fe80::b:1"))));
}

#[test]
fn what_a_mac_makes_is_taken_from_whoever_has_claimed_it() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.start("default");
    let (squatter, hears) = two(&space, "default");
    let mac = [0x52, 0x54, 0, 0x77, 0x77, 0x77];
    let wanted = nat::guards::link_local(mac).octets();
    assert!(is_heard(&squatter, &hears, &packet(&squatter, wanted)));
    let request = PortRequest {
        network: "default".into(),
        guest: Some("late".into()),
        mac: Some("52:54:00:77:77:77".into()),
        queues: 1,
        guards: None,
        portgroup: None,
    };
    let late = Guest::plug_request(&space, request);
    assert!(!is_heard(&squatter, &hears, &packet(&squatter, wanted)));
    assert!(is_heard(&late, &hears, &packet(&late, wanted)));
    // It stays so after the claim would have ended by itself: it is no claim any more.
    let table = space.run("nft list set bridge netd taken6");
    let number = format!("0x{:032x}", u128::from_be_bytes(wanted));
    assert!(table.contains(&number) && !table.contains(&format!("{number} timeout")), "{table}");
}

#[test]
fn a_network_with_ipv6_lets_its_prefixes_pass_of_any_length_and_not_the_hosts_addresses() {
    let space = Space::new();
    let _daemon = space.daemon();
    let xml = "<network><name>six</name><bridge name='br-six'/><mac address='52:54:00:66:66:66'/>\
               <ip family='ipv6' address='fd00:1::1' prefix='64'/><ip family='ipv6' address='fd00:2::1' prefix='80'/>\
               <ip family='ipv6' address='fd00:3::1' prefix='61'/></network>";
    space.call(async |client| client.create_network(xml.into()).await).unwrap();
    let (a, b) = two(&space, "six");
    for (text, passes) in [
        ("fd00:1::a", true),
        ("fd00:1:0:0:ffff::a", true),
        ("fd00:1:0:1::a", false),
        ("fd00:2::a", true),
        ("fd00:2::1:0:0:a", false),
        ("fd00:3:0:7::a", true),
        ("fd00:3:0:8::a", false),
        ("fd00:1::1", false),
        ("fd00:3::1", false),
        // The bridge's own on the link.
        ("fe80::5054:ff:fe66:6666", false),
        ("2001:db8::a", false),
    ] {
        let mut other = address(text);
        other[15] ^= 0x80;
        assert_eq!(is_heard(&a, &b, &packet(&a, address(text))), passes, "from {text}");
        // By its neighbour discovery, too.
        if passes {
            assert!(is_heard(&a, &b, &dad(&a, other)), "DAD beside {text}");
        } else {
            assert!(!is_heard(&a, &b, &dad(&a, address(text))), "DAD for {text}");
        }
    }
    // In a prefix of 64 bits, what b's MAC makes is b's before it has said a word.
    let id = &own(&b)[8..];
    let made: [u8; 16] = [&address("fd00:1::")[..8], id].concat().try_into().unwrap();
    assert!(!is_heard(&a, &b, &packet(&a, made)));
    assert!(is_heard(&b, &a, &packet(&b, made)));
    // The second network of this kind gets its chains beside the first's, whose counters stay.
    let before = dropped(&space, &a);
    let other = xml.replace("six", "sept").replace("66:66:66", "77:77:77").replace("fd00:", "fd07:");
    space.call(async |client| client.create_network(other).await).unwrap();
    let (c, d) = two(&space, "sept");
    assert!(
        is_heard(&c, &d, &packet(&c, address("fd07:1::a"))) && !is_heard(&c, &d, &packet(&c, address("fd00:1::a")))
    );
    assert_eq!(dropped(&space, &a), before);
    drop((c, d));
    wait_for("the chains to go", || !space.run("nft list table bridge netd").contains("br-sept"));
}
