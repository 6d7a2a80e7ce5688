//! EDGE: the real kernel, in network namespaces of this test's own. Needs root; without it the tests fail.

mod forwards;
mod world;

use std::{fs, net::Ipv4Addr, path::PathBuf, process::Command};

use nat::{DnsRedirect, Mode, Network};
use world::{Answer, Family, Namespace, World, block_on, table};

fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output().expect("the package nftables is needed");
    assert!(output.status.success(), "nft {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn ruleset() -> String {
    nft(&["list", "ruleset"])
}

fn network(bridge: &str, mode: Mode, subnet: &str) -> Network {
    Network {
        bridge: bridge.to_owned(),
        mode,
        subnets: vec![subnet.parse().unwrap()],
        dns_redirect: None,
        policy: nat::Policy::default(),
    }
}

fn plain_nat() -> Mode {
    Mode::Nat { dev: None, addresses: None, ports: (1024, 65535), ipv6: false }
}

fn nat_of_both() -> Mode {
    Mode::Nat { dev: None, addresses: None, ports: (1024, 65535), ipv6: true }
}

fn golden_cases() -> Vec<(String, Vec<Network>)> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(golden()).unwrap() {
        let path = entry.unwrap().path();
        if let Some(case) = path.file_name().unwrap().to_str().unwrap().strip_suffix(".intent.json") {
            cases.push((case.to_owned(), serde_json::from_slice(&fs::read(&path).unwrap()).unwrap()));
        }
    }
    cases
}

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

#[test]
fn the_kernel_has_what_the_golden_files_show() {
    for (case, networks) in golden_cases() {
        Namespace::new().run(move || {
            block_on(nat::replace(&networks, &[])).unwrap();
            let got = ruleset();
            let expected = golden().join(format!("{case}.nft"));
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::write(&expected, &got).unwrap();
            }
            assert_eq!(got, fs::read_to_string(&expected).unwrap(), "{case}: UPDATE_GOLDEN=1 writes it anew");
        });
    }
}

#[test]
fn adding_one_by_one_makes_what_replacing_all_makes() {
    for (case, networks) in golden_cases() {
        Namespace::new().run(move || {
            block_on(nat::replace(&networks, &[])).unwrap();
            let all_at_once = sorted(&ruleset());
            block_on(nat::delete_table()).unwrap();
            assert_eq!(ruleset(), "");
            block_on(nat::replace(&[], &[])).unwrap();
            for network in &networks {
                block_on(table().add(network)).unwrap();
            }
            assert_eq!(sorted(&ruleset()), all_at_once, "{case}");
        });
    }
}

/// Hash maps list their elements in an order of their own.
fn sorted(ruleset: &str) -> Vec<String> {
    let mut lines: Vec<String> = ruleset.lines().map(|l| l.trim_matches([' ', '\t', ',', '}']).to_owned()).collect();
    let mut elements = Vec::new();
    for line in &mut lines {
        if let Some(rest) = line.strip_prefix("elements = { ") {
            elements.push(rest.to_owned());
            "elements".clone_into(line);
        }
    }
    lines.extend(elements);
    lines.retain(|line| !line.is_empty());
    lines.sort();
    lines
}

#[test]
fn adding_twice_changes_nothing() {
    Namespace::new().run(|| {
        for network in [
            network("virbr0", plain_nat(), "192.168.122.0/24"),
            network("virbr1", Mode::Isolated, "10.0.0.0/24"),
            network("virbr2", Mode::Open, "10.1.0.0/24"),
        ] {
            block_on(table().add(&network)).unwrap();
            let once = ruleset();
            block_on(table().add(&network)).unwrap();
            assert_eq!(ruleset(), once);
        }
    });
}

#[test]
fn a_network_added_with_another_mode_keeps_nothing_of_the_first() {
    Namespace::new().run(|| {
        let isolated = network("virbr0", Mode::Isolated, "10.0.0.0/24");
        block_on(table().add(&isolated)).unwrap();
        let expected = ruleset();
        let mut nat = network("virbr0", plain_nat(), "10.0.0.0/24");
        nat.dns_redirect = Some(DnsRedirect { addresses: vec![Ipv4Addr::new(10, 0, 0, 1).into()], port: 4053 });
        block_on(table().add(&nat)).unwrap();
        assert_ne!(ruleset(), expected);
        block_on(table().add(&isolated)).unwrap();
        assert_eq!(ruleset(), expected);
    });
}

#[test]
fn removing_leaves_the_others_and_the_last_leaves_nothing() {
    Namespace::new().run(|| {
        let first = network("virbr0", plain_nat(), "192.168.122.0/24");
        let second = network("virbr1", plain_nat(), "192.168.123.0/24");
        block_on(table().add(&first)).unwrap();
        let only_first = ruleset();
        block_on(table().add(&second)).unwrap();
        block_on(table().remove(&second)).unwrap();
        assert_eq!(ruleset(), only_first);
        block_on(table().remove(&second)).expect("removing what is not there is fine");
        assert_eq!(ruleset(), only_first);
        block_on(nat::delete_table()).unwrap();
        assert_eq!(ruleset(), "");
        block_on(nat::delete_table()).expect("removing what is not there is fine");
        block_on(nat::delete_table()).unwrap();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn other_tables_are_left_alone() {
    Namespace::new().run(|| {
        nft(&["add", "table", "inet", "mine"]);
        nft(&["add", "chain", "inet", "mine", "forward", "{ type filter hook forward priority 0; }"]);
        let theirs = ruleset();
        block_on(nat::replace(&[network("virbr0", plain_nat(), "10.0.0.0/24")], &[])).unwrap();
        block_on(nat::delete_table()).unwrap();
        assert_eq!(ruleset(), theirs);
    });
}

#[test]
fn a_flushed_ruleset_is_healed_by_replace_and_by_add() {
    Namespace::new().run(|| {
        let networks =
            [network("virbr0", plain_nat(), "10.0.0.0/24"), network("virbr1", Mode::Isolated, "10.1.0.0/24")];
        block_on(nat::replace(&networks, &[])).unwrap();
        let whole = sorted(&ruleset());
        nft(&["flush", "ruleset"]);
        block_on(nat::replace(&networks, &[])).unwrap();
        assert_eq!(sorted(&ruleset()), whole);
        nft(&["flush", "ruleset"]);
        for network in &networks {
            block_on(table().add(network)).unwrap();
        }
        assert_eq!(sorted(&ruleset()), whole);
    });
}

/// Who can open a TCP connection to whom, with one network of each mode on one host, in both families.
#[test]
fn who_reaches_whom() {
    let mut world = World::new();
    let a = world.network("virbrA", "10.1.0", plain_nat());
    let b = world.network("virbrB", "10.2.0", plain_nat());
    let r = world.network("virbrR", "10.3.0", Mode::Route { dev: None });
    let o = world.network("virbrO", "10.4.0", Mode::Open);
    let i = world.network("virbrI", "10.5.0", Mode::Isolated);
    let s = world.network("virbrS", "10.6.0", nat_of_both());
    let out = world.outside();

    // Whether it is reached by IPv4 and by IPv6.
    let expectations = [
        // nat: out to anybody who lets it in, in from nobody; where only IPv4 is translated, IPv6 is routed
        (a, out, [true, true]),
        (out, a, [false, true]),
        (a, b, [false, true]),
        (b, a, [false, true]),
        (a, r, [true, true]),
        (a, o, [true, true]),
        (o, a, [false, true]),
        (r, a, [false, true]),
        // nat of both
        (s, out, [true, true]),
        (out, s, [false, false]),
        (s, a, [false, true]),
        (a, s, [false, false]),
        (r, s, [false, false]),
        // route: both ways
        (r, out, [true, true]),
        (out, r, [true, true]),
        (r, o, [true, true]),
        (o, r, [true, true]),
        // open: no rule of ours
        (o, out, [true, true]),
        (out, o, [true, true]),
        // isolated: neither way, not even with networks that let everything in
        (i, out, [false, false]),
        (out, i, [false, false]),
        (i, a, [false, false]),
        (i, r, [false, false]),
        (i, o, [false, false]),
        (o, i, [false, false]),
        (r, i, [false, false]),
    ];
    // All at once: a refusal takes a second here, because on a veth it comes back while the client still holds its
    // socket, and only the one to the second SYN counts.
    let world = &world;
    std::thread::scope(|scope| {
        for (from, to, reaches) in expectations {
            for (family, reaches) in [Family::V4, Family::V6].into_iter().zip(reaches) {
                scope.spawn(move || {
                    let expected = if reaches { Answer::Connected } else { Answer::Refused };
                    let (answer, _) = world.connect_by(family, from, to, None);
                    assert_eq!(answer, expected, "{} to {} by {family:?}", world.name(from), world.name(to));
                });
            }
        }
    });
    // the host itself is reached from all of them
    for guest in [a, b, r, o, i, s] {
        for family in [Family::V4, Family::V6] {
            let answer = world.connect_host(family, guest);
            assert_eq!(answer, Answer::Connected, "{} to its host by {family:?}", world.name(guest));
        }
    }
}

#[test]
fn sources_are_translated_only_by_nat_and_never_below_port_1024() {
    let mut world = World::new();
    let a = world.network("virbrA", "10.1.0", plain_nat());
    let r = world.network("virbrR", "10.3.0", Mode::Route { dev: None });
    let out = world.outside();

    let (answer, source) = world.connect(a, out, Some(700));
    assert_eq!(answer, Answer::Connected);
    let source = source.unwrap();
    assert_eq!(source.ip(), world.uplink());
    assert!(source.port() >= 1024, "{source}");

    let (_, source) = world.connect(r, out, Some(700));
    assert_eq!(source.unwrap().to_string(), "10.3.0.2:700");
    let (_, source) = world.connect(a, r, Some(4000));
    assert_eq!(source.unwrap().to_string(), "10.3.0.1:4000", "towards another network it is that bridge's address");
}

#[test]
fn ipv6_is_translated_where_asked_and_never_below_port_1024() {
    let mut world = World::new();
    let a = world.network("virbrA", "10.1.0", nat_of_both());
    let b = world.network("virbrB", "10.2.0", plain_nat());
    let r = world.network("virbrR", "10.3.0", Mode::Route { dev: None });
    let neighbour = world.another_guest(a, 3);
    let out = world.outside();
    let source_of = |from, to| world.connect_by(Family::V6, from, to, Some(700)).1.expect("a connection");

    let source = source_of(a, out);
    // Which of the uplink's addresses is for the kernel to choose (RFC 6724).
    let uplink = [world.uplink6(), world.second_uplink6()].map(std::net::IpAddr::from);
    assert!(uplink.contains(&source.ip()), "{source}");
    assert!(source.port() >= 1024, "{source}");
    assert_eq!(source_of(b, out).to_string(), "[fd00:10:2::2]:700", "routed only");
    assert_eq!(source_of(r, out).to_string(), "[fd00:10:3::2]:700");
    let source = source_of(a, r);
    assert_eq!(source.ip().to_string(), "fd00:10:3::1", "towards another network it is that bridge's address");

    // A neighbour is told the guest's own address.
    assert_eq!(source_of(a, neighbour).to_string(), "[fd00:10:1::2]:700");
}

#[test]
fn addresses_and_ports_of_the_definition_are_used() {
    let mut world = World::new();
    let address = world.second_uplink();
    let mode = Mode::Nat {
        dev: Some("uplink".to_owned()),
        addresses: Some((address, address)),
        ports: (2000, 2009),
        ipv6: true,
    };
    let a = world.network("virbrA", "10.1.0", mode);
    let r = world.network("virbrR", "10.3.0", Mode::Route { dev: None });
    let (answer, source) = world.connect(a, world.outside(), None);
    assert_eq!(answer, Answer::Connected);
    let source = source.unwrap();
    assert_eq!(source.ip(), address);
    assert!((2000..=2009).contains(&source.port()), "{source}");
    // The addresses are IPv4's, the ports and the interface are for both.
    let source = world.connect_by(Family::V6, a, world.outside(), None).1.unwrap();
    assert!([world.uplink6(), world.second_uplink6()].map(std::net::IpAddr::from).contains(&source.ip()), "{source}");
    assert!((2000..=2009).contains(&source.port()), "{source}");
    assert_eq!(world.connect_by(Family::V6, a, r, None).0, Answer::Refused, "dev is the only way out");
    assert_eq!(world.connect(a, r, None).0, Answer::Refused, "dev is the only way out");
}

#[test]
fn dns_goes_to_the_high_port_though_another_program_has_port_53() {
    let mut world = World::new();
    let a = world.network("virbrA", "10.1.0", plain_nat());
    for family in [Family::V4, Family::V6] {
        let asked = world.ask_dns(family, a, None);
        assert_eq!(asked, ["other", "other"], "udp, tcp: without the redirect the other program answers");
        let asked = world.ask_dns(family, a, Some(40053));
        assert_eq!(asked, ["ours", "ours"], "{family:?}");
    }
}

#[test]
fn a_rehearsal_changes_nothing() {
    Namespace::new().run(|| {
        let network = network("virbr0", plain_nat(), "10.1.0.0/24");
        block_on(nat::rehearse(&network)).unwrap();
        assert_eq!(ruleset(), "");
        block_on(table().add(&network)).unwrap();
        let before = ruleset();
        block_on(nat::rehearse(&Network { mode: Mode::Isolated, ..network })).unwrap();
        assert_eq!(ruleset(), before);
        let odd = Network {
            bridge: "a*".into(),
            mode: Mode::Open,
            subnets: vec![],
            dns_redirect: None,
            policy: nat::Policy::default(),
        };
        assert!(matches!(block_on(nat::rehearse(&odd)), Err(nat::Error::Interface(_))));
    });
}
