//! EDGE: the guards' table on the real kernel, in a network namespace of this test's own. Needs root.

#[allow(dead_code, reason = "each test binary uses its part")]
mod world;

use std::{net::Ipv4Addr, process::Command, time::Instant};

use nat::guards::{Elements, GuardedPort, Sources, Sources4, Sources6, Violation, add_network, delete, replace};
use world::{Namespace, block_on};

fn ruleset() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output().expect("the package nftables is needed");
    String::from_utf8(output.stdout).unwrap()
}

/// Without the order of elements, which is the hash's, and of chains, which is that of their making.
fn words(ruleset: &str) -> Vec<String> {
    let flat = ruleset.replace(['\n', '\t'], " ");
    let mut words: Vec<String> = flat.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    words.sort();
    words
}

fn leased(number: u8) -> GuardedPort {
    GuardedPort {
        interface: format!("vnet{number}"),
        mac: [0x52, 0x54, 0, 0, 0, number],
        addresses: vec![Ipv4Addr::new(192, 168, 122, number)],
        addresses6: vec![],
        sources: Sources { bridge: "virbr0".into(), ..Sources::default() },
    }
}

fn fixed(number: u8) -> GuardedPort {
    let ipv4 =
        Sources4::Network { subnets: vec!["10.0.0.0/24".parse().unwrap()], host: vec![Ipv4Addr::new(10, 0, 0, 1)] };
    let ipv6 = Sources6 {
        prefixes: vec!["fd00:1::/64".parse().unwrap(), "fd00:2::/60".parse().unwrap()],
        host: vec!["fd00:1::1".parse().unwrap()],
    };
    let sources = Sources { bridge: "virbr-1".into(), ipv4, ipv6 };
    GuardedPort { addresses: vec![], sources, ..leased(number) }
}

#[test]
fn elements_changed_one_by_one_are_those_of_the_table_made_anew() {
    Namespace::new().run(|| {
        let mut elements = Elements::open().unwrap();
        let (a, b, c) = (leased(1), leased(2), fixed(3));
        block_on(replace(&mut elements, &[a.clone(), b.clone(), c.clone()])).unwrap();
        let all = ruleset();
        block_on(replace(&mut elements, &[])).unwrap();
        block_on(add_network(&c.sources)).unwrap();
        // Twice is once.
        block_on(add_network(&c.sources)).unwrap();
        elements.update(&[], std::slice::from_ref(&c), &[]).unwrap();
        elements.update(&[], std::slice::from_ref(&a), &[]).unwrap();
        let without = GuardedPort { addresses: vec![], ..b.clone() };
        elements.update(&[], std::slice::from_ref(&without), &[]).unwrap();
        elements.update(&[without], std::slice::from_ref(&b), &[]).unwrap();
        assert_eq!(words(&ruleset()), words(&all));
        // Again is no change, and no error.
        elements.update(&[], &[a.clone(), b.clone(), c.clone()], &[]).unwrap();
        assert_eq!(words(&ruleset()), words(&all));

        elements.update(std::slice::from_ref(&c), &[], std::slice::from_ref(&c.sources)).unwrap();
        elements.update(&[a.clone(), b], &[], &[]).unwrap();
        // What is not there is taken away without a word.
        elements.update(&[a], &[], &[]).unwrap();
        let emptied = ruleset();
        block_on(replace(&mut elements, &[])).unwrap();
        assert_eq!(words(&emptied), words(&ruleset()));
        block_on(delete()).unwrap();
        block_on(delete()).unwrap();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn a_table_that_is_gone_is_an_error_and_so_is_a_chain_that_is_not_there() {
    Namespace::new().run(|| {
        let mut elements = Elements::open().unwrap();
        assert_eq!(elements.update(&[], &[leased(1)], &[]).unwrap_err().raw_os_error(), Some(2));
        assert_eq!(elements.counts("vnet1").unwrap_err().raw_os_error(), Some(2));
        block_on(replace(&mut elements, &[])).unwrap();
        let before = ruleset();
        assert!(elements.update(&[], &[leased(1), fixed(2)], &[]).is_err());
        assert_eq!(ruleset(), before, "all or nothing");
        block_on(replace(&mut elements, &[leased(1)])).unwrap();
        assert_eq!(elements.counts("vnet1").unwrap(), Violation::ALL.map(|violation| (violation, 0)));
    });
}

#[test]
fn names_that_mean_something_to_nft_are_refused() {
    Namespace::new().run(|| {
        let mut elements = Elements::open().unwrap();
        for name in ["", "a b", "vnet*", "\"", "an-interface-too-long"] {
            let port = GuardedPort { interface: name.into(), ..leased(1) };
            assert!(block_on(replace(&mut elements, std::slice::from_ref(&port))).is_err(), "{name}");
            assert!(elements.update(&[], &[port], &[]).is_err(), "{name}");
        }
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn a_change_of_one_lease_costs_the_same_with_one_port_and_with_five_thousand() {
    let many = |count: u16| -> Vec<GuardedPort> {
        (0..count)
            .map(|number| {
                let [high, low] = number.to_be_bytes();
                GuardedPort {
                    interface: format!("vnet{number}"),
                    mac: [0x52, 0x54, 0, 0, high, low],
                    addresses: vec![Ipv4Addr::new(10, 0, high, low)],
                    addresses6: vec![],
                    sources: Sources { bridge: "virbr0".into(), ..Sources::default() },
                }
            })
            .collect()
    };
    let median = |count| {
        Namespace::new().run(|| {
            let mut elements = Elements::open().unwrap();
            let ports = many(count);
            let begun = Instant::now();
            block_on(replace(&mut elements, &ports)).unwrap();
            let replaced = begun.elapsed();
            let first = &ports[..1];
            let moved = [GuardedPort { addresses: vec![Ipv4Addr::new(10, 9, 9, 9)], ..ports[0].clone() }];
            let mut times: Vec<_> = (0..201)
                .map(|round| {
                    let begun = Instant::now();
                    if round % 2 == 0 {
                        elements.update(first, &moved, &[])
                    } else {
                        elements.update(&moved, first, &[])
                    }
                    .unwrap();
                    begun.elapsed()
                })
                .collect();
            times.sort();
            println!(
                "{count} ports: table in {replaced:?}, lease moved in {:?}, at worst {:?}",
                times[100], times[200]
            );
            times[100]
        })
    };
    let (one, all) = (median(1), median(5000));
    assert!(
        all.as_micros() < 1000 && all < one * 5 + std::time::Duration::from_micros(200),
        "{one:?} with one port, {all:?} with 5,000"
    );
}
