//! EDGE: the real kernel, in network namespaces of this test's own. Needs root; without it the tests fail.

mod forwards;
mod world;

use std::{fs, net::Ipv4Addr, path::PathBuf, process::Command};

use nat::{DnsRedirect, Mode, Network};
use world::{Answer, Namespace, World, block_on};

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
    Mode::Nat { dev: None, addresses: None, ports: (1024, 65535) }
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
                block_on(nat::add(network)).unwrap();
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
            block_on(nat::add(&network)).unwrap();
            let once = ruleset();
            block_on(nat::add(&network)).unwrap();
            assert_eq!(ruleset(), once);
        }
    });
}

#[test]
fn a_network_added_with_another_mode_keeps_nothing_of_the_first() {
    Namespace::new().run(|| {
        let isolated = network("virbr0", Mode::Isolated, "10.0.0.0/24");
        block_on(nat::add(&isolated)).unwrap();
        let expected = ruleset();
        let mut nat = network("virbr0", plain_nat(), "10.0.0.0/24");
        nat.dns_redirect = Some(DnsRedirect { addresses: vec![Ipv4Addr::new(10, 0, 0, 1)], port: 4053 });
        block_on(nat::add(&nat)).unwrap();
        assert_ne!(ruleset(), expected);
        block_on(nat::add(&isolated)).unwrap();
        assert_eq!(ruleset(), expected);
    });
}

#[test]
fn removing_leaves_the_others_and_the_last_leaves_nothing() {
    Namespace::new().run(|| {
        let first = network("virbr0", plain_nat(), "192.168.122.0/24");
        let second = network("virbr1", plain_nat(), "192.168.123.0/24");
        block_on(nat::add(&first)).unwrap();
        let only_first = ruleset();
        block_on(nat::add(&second)).unwrap();
        block_on(nat::remove(&second, false)).unwrap();
        assert_eq!(ruleset(), only_first);
        block_on(nat::remove(&second, false)).expect("removing what is not there is fine");
        assert_eq!(ruleset(), only_first);
        block_on(nat::remove(&first, true)).unwrap();
        assert_eq!(ruleset(), "");
        block_on(nat::remove(&first, true)).expect("removing what is not there is fine");
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
            block_on(nat::add(network)).unwrap();
        }
        assert_eq!(sorted(&ruleset()), whole);
    });
}

/// Who can open a TCP connection to whom, with one network of each mode on one host.
#[test]
fn who_reaches_whom() {
    let mut world = World::new();
    let a = world.network("virbrA", "10.1.0", plain_nat());
    let b = world.network("virbrB", "10.2.0", plain_nat());
    let r = world.network("virbrR", "10.3.0", Mode::Route { dev: None });
    let o = world.network("virbrO", "10.4.0", Mode::Open);
    let i = world.network("virbrI", "10.5.0", Mode::Isolated);
    let out = world.outside();

    let expectations = [
        // nat: out to anybody who lets it in, in from nobody
        (a, out, true),
        (out, a, false),
        (a, b, false),
        (b, a, false),
        (a, r, true),
        (a, o, true),
        (o, a, false),
        (r, a, false),
        // route: both ways
        (r, out, true),
        (out, r, true),
        (r, o, true),
        (o, r, true),
        // open: no rule of ours
        (o, out, true),
        (out, o, true),
        // isolated: neither way, not even with networks that let everything in
        (i, out, false),
        (out, i, false),
        (i, a, false),
        (i, r, false),
        (i, o, false),
        (o, i, false),
        (r, i, false),
    ];
    // All at once: a refusal takes a second here, because on a veth it comes back while the client still holds its
    // socket, and only the one to the second SYN counts.
    let world = &world;
    std::thread::scope(|scope| {
        for (from, to, reaches) in expectations {
            scope.spawn(move || {
                let expected = if reaches { Answer::Connected } else { Answer::Refused };
                assert_eq!(world.connect(from, to, None).0, expected, "{} to {}", world.name(from), world.name(to));
            });
        }
    });
    // the host itself is reached from all of them
    for guest in [a, b, r, o, i] {
        assert_eq!(world.connect_host(guest), Answer::Connected, "{} to its host", world.name(guest));
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
    assert_eq!(*source.ip(), world.uplink());
    assert!(source.port() >= 1024, "{source}");

    let (_, source) = world.connect(r, out, Some(700));
    assert_eq!(source.unwrap().to_string(), "10.3.0.2:700");
    let (_, source) = world.connect(a, r, Some(4000));
    assert_eq!(source.unwrap().to_string(), "10.3.0.1:4000", "towards another network it is that bridge's address");
}

#[test]
fn addresses_and_ports_of_the_definition_are_used() {
    let mut world = World::new();
    let address = world.second_uplink();
    let mode = Mode::Nat { dev: Some("uplink".to_owned()), addresses: Some((address, address)), ports: (2000, 2009) };
    let a = world.network("virbrA", "10.1.0", mode);
    let r = world.network("virbrR", "10.3.0", Mode::Route { dev: None });
    let (answer, source) = world.connect(a, world.outside(), None);
    assert_eq!(answer, Answer::Connected);
    let source = source.unwrap();
    assert_eq!(*source.ip(), address);
    assert!((2000..=2009).contains(&source.port()), "{source}");
    assert_eq!(world.connect(a, r, None).0, Answer::Refused, "dev is the only way out");
}

#[test]
fn dns_goes_to_the_high_port_though_another_program_has_port_53() {
    let mut world = World::new();
    let a = world.network("virbrA", "10.1.0", plain_nat());
    let asked = world.ask_dns(a, None);
    assert_eq!(asked, ["other", "other"], "udp, tcp: without the redirect the other program answers");
    let asked = world.ask_dns(a, Some(40053));
    assert_eq!(asked, ["ours", "ours"]);
}

#[test]
fn a_rehearsal_changes_nothing() {
    Namespace::new().run(|| {
        let network = network("virbr0", plain_nat(), "10.1.0.0/24");
        block_on(nat::rehearse(&network)).unwrap();
        assert_eq!(ruleset(), "");
        block_on(nat::add(&network)).unwrap();
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
