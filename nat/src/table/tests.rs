//! EDGE: what is said to the kernel directly is what `nft` would have said, on the real kernel in namespaces.
//!
//! Needs root; without it the tests fail.

use std::{fs, path::PathBuf, process::Command, thread};

use ipnet::IpNet;
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::{
    Allowed, DnsRedirect, Mode, Policy, Protocol,
    ruleset::{add, change_forwards, remove},
};

/// Runs `body` in a namespace that ends with it.
fn inside<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        body()
    };
    thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn by_nft(transaction: &Transaction<'_>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(apply::run(transaction)).unwrap();
}

/// The ruleset in words and in the expressions that the kernel runs, without what is in no order: that of elements, the
/// numbers of sets that have no name, and the handles of rules.
fn shown() -> Vec<String> {
    let output = Command::new("nft").args(["--debug=netlink", "list", "ruleset"]).output().expect("nft is needed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = unnumbered(&String::from_utf8(output.stdout).unwrap());
    let sorted = |list: &str, separator: &str| {
        let mut parts: Vec<&str> = list.split(separator).map(str::trim).collect();
        parts.sort_unstable();
        parts.join(" , ")
    };
    let mut words = String::new();
    let mut rest = text.as_str();
    while let Some((before, elements)) = rest.split_once("elements = {") {
        let (elements, after) = elements.split_once('}').unwrap();
        words += &format!("{before}elements = {}", sorted(elements, ","));
        rest = after;
    }
    words += rest;
    let is_element = |line: &&str| line.starts_with("\telement");
    let mut lines: Vec<String> = words.lines().filter(is_element).map(|line| sorted(line, "[end]")).collect();
    lines.sort_unstable();
    // `inet netd CHAIN HANDLE POSITION` stands before a rule.
    let unhandled = |line: &str| {
        if line.starts_with("inet netd ") {
            line.split(' ').take(3).collect::<Vec<_>>().join(" ")
        } else {
            line.to_owned()
        }
    };
    lines.extend(words.lines().filter(|line| !is_element(line)).map(unhandled));
    lines
}

fn unnumbered(text: &str) -> String {
    ["__set", "__map"].iter().fold(text.to_owned(), |text, name| {
        let mut parts = text.split(name);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| text + name + part.trim_start_matches(|c: char| c.is_ascii_digit()))
    })
}

#[track_caller]
fn assert_same(got: &[String], expected: &[String]) {
    let differing = got.iter().zip(expected).enumerate().find(|(_, (got, expected))| got != expected);
    assert_eq!(differing, None);
    assert_eq!(got.len(), expected.len());
}

fn golden(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder);
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let intents = paths.filter(|path| path.to_str().unwrap().ends_with(".intent.json"));
    intents.map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

/// Networks with everything in every combination that matters to how a rule is written.
fn networks() -> Vec<Network> {
    let mut networks = Vec::new();
    let subnets = |texts: &[&str]| -> Vec<IpNet> { texts.iter().map(|text| text.parse().unwrap()).collect() };
    let nat = |dev: Option<&str>, addresses: Option<(&str, &str)>, ports, ipv6| Mode::Nat {
        dev: dev.map(str::to_owned),
        addresses: addresses.map(|(first, last)| (first.parse().unwrap(), last.parse().unwrap())),
        ports,
        ipv6,
    };
    let modes = [
        nat(None, None, (1024, 65535), true),
        nat(Some("eth0.7"), Some(("192.0.2.7", "192.0.2.9")), (5000, 5000), false),
        nat(Some("wlp0s20f3u4567"), Some(("192.0.2.7", "192.0.2.7")), (1, 65535), true),
        Mode::Route { dev: None },
        Mode::Route { dev: Some("eth0".into()) },
        Mode::Open,
        Mode::Isolated,
    ];
    let policies = [
        Policy::default(),
        Policy { silent: true, host_access: Some(Vec::new()) },
        Policy {
            silent: false,
            host_access: Some(vec![
                Allowed::Tcp(22, 22),
                Allowed::Udp(0, 40),
                Allowed::Tcp(60000, 65535),
                Allowed::Icmp,
            ]),
        },
        Policy { silent: true, host_access: Some(vec![Allowed::Udp(0, 65535)]) },
    ];
    let places = [
        subnets(&["10.1.0.0/16", "fd00:1::/64"]),
        subnets(&["10.1.2.192/27", "192.0.2.0/31", "192.0.2.5/32", "2001:db8::/61", "fd00::9/128"]),
        subnets(&["128.0.0.0/1", "8000::/1"]),
        Vec::new(),
    ];
    for mode in &modes {
        for policy in &policies {
            for subnets in &places {
                let number = networks.len();
                networks.push(Network {
                    bridge: format!("br-{number}"),
                    mode: mode.clone(),
                    subnets: subnets.clone(),
                    dns_redirect: (number % 2 == 0).then(|| DnsRedirect {
                        addresses: vec!["10.1.0.1".parse().unwrap(), "fd00:1::1".parse().unwrap()],
                        port: 5353,
                    }),
                    policy: policy.clone(),
                });
            }
        }
    }
    for (path, intent) in golden("") {
        let found: Vec<Network> = serde_json::from_slice(&intent).expect(&path);
        for network in found {
            networks.push(Network { bridge: format!("golden-{}", networks.len()), ..network });
        }
    }
    networks
}

#[test]
fn a_network_is_what_nft_makes_of_it_and_goes_again() {
    let networks = networks();
    let base = || by_nft(&ruleset::replace(&networks[1..8], &[]));
    let (expected, cleared) = inside(|| {
        base();
        networks.iter().for_each(|network| by_nft(&add(network)));
        let all = shown();
        networks.iter().for_each(|network| by_nft(&remove(network)));
        (all, shown())
    });
    inside(|| {
        base();
        let table = Table::open().unwrap();
        for network in &networks {
            table.natively(&add(network)).expect("no word of it is unknown").unwrap();
            // Twice is once.
            table.natively(&add(network)).unwrap().unwrap();
        }
        assert_same(&shown(), &expected);
        for network in &networks {
            table.natively(&remove(network)).unwrap().unwrap();
            table.natively(&remove(network)).unwrap().unwrap();
        }
        assert_same(&shown(), &cleared);
    });
}

#[test]
fn forwards_are_what_nft_makes_of_them_and_go_again() {
    let one = |address: Option<&str>, ports, bridge: &str, subnet: &str, targets: &[(&str, u16)]| Forward {
        protocol: Protocol::Udp,
        address: address.map(|address| address.parse().unwrap()),
        ports,
        bridge: bridge.to_owned(),
        subnets: vec![subnet.parse().unwrap()],
        targets: targets.iter().map(|(address, port)| (address.parse().unwrap(), *port)).collect(),
    };
    let first = vec![
        one(None, (1, 1), "zero", "10.9.0.0/24", &[("10.9.0.2", 1)]),
        one(Some("::"), (1, 1), "zero", "fd00:9::/64", &[("fd00:9::2", 1)]),
    ];
    let mut all = first.clone();
    all.extend([
        one(Some("192.0.2.1"), (7, 9), "a", "10.8.0.0/22", &[("10.8.0.2", 70)]),
        one(None, (10, 12), "a", "10.8.0.0/22", &[("10.8.0.2", 10), ("10.8.0.3", 20), ("10.8.0.4", 30)]),
        one(Some("192.0.2.1"), (13, 13), "a", "10.8.0.0/22", &[("10.8.0.2", 10), ("10.8.0.3", 20)]),
        one(None, (14, 14), "a", "10.8.0.0/22", &[]),
        one(Some("2001:db8::1"), (15, 16), "b", "fd00:8::/62", &[("fd00:8::2", 10), ("fd00:8::3", 20)]),
        one(Some("::"), (17, 17), "b", "fd00:8::/62", &[]),
        one(None, (20000, 21000), "c", "10.7.0.0/24", &[("10.7.0.2", 20000)]),
    ]);
    for (number, (path, intent)) in golden("forwards").into_iter().enumerate() {
        let found: Vec<Forward> = serde_json::from_slice(&intent).expect(&path);
        all.extend(found.into_iter().map(|mut forward| {
            let shift = 100 * (number as u16 + 1);
            forward.ports = (forward.ports.0 % 90 + shift, forward.ports.0 % 90 + shift);
            forward.bridge = format!("g{number}");
            // What a network has is only its own.
            forward.subnets.clear();
            forward
        }));
    }
    let base = || by_nft(&ruleset::replace(&[], &first));
    let (expected, cleared) = inside(|| {
        base();
        by_nft(&change_forwards(&first, &all, Others::default()));
        let shown_all = shown();
        by_nft(&change_forwards(&all, &first, Others::default()));
        (shown_all, shown())
    });
    inside(|| {
        base();
        let table = Table::open().unwrap();
        table.natively(&change_forwards(&first, &all, Others::default())).expect("no word of it is unknown").unwrap();
        assert_same(&shown(), &expected);
        table.natively(&change_forwards(&all, &first, Others::default())).unwrap().unwrap();
        assert_same(&shown(), &cleared);
        // One after the other, as guests come and go.
        for end in first.len()..=all.len() {
            let before = all.get(..end - 1).filter(|before| before.len() >= first.len()).unwrap_or(&first);
            let transaction = change_forwards(before, &all[..end], Others::default());
            if !transaction.is_empty() {
                table.natively(&transaction).unwrap().unwrap();
            }
        }
        assert_eq!(shown().len(), expected.len());
    });
}

#[test]
fn the_first_forward_and_the_last_are_for_nft() {
    inside(|| {
        let table = Table::open().unwrap();
        let forward = Forward {
            protocol: Protocol::Tcp,
            address: None,
            ports: (80, 80),
            bridge: "virbr0".into(),
            subnets: vec!["10.0.0.0/24".parse().unwrap()],
            targets: vec![("10.0.0.2".parse().unwrap(), 80)],
        };
        let one = std::slice::from_ref(&forward);
        assert!(table.natively(&change_forwards(&[], one, Others::default())).is_none());
        assert!(table.natively(&change_forwards(one, &[], Others::default())).is_none());
        let others = |ipv4, ipv6| Others { ipv4, ipv6 };
        assert!(table.natively(&change_forwards(&[], one, others(false, true))).is_none());
        assert!(table.natively(&change_forwards(&[], one, others(true, false))).is_some());
        assert!(table.natively(&change_forwards(one, &[], Others::of(one))).is_some());
    });
}

#[test]
fn what_the_kernel_refuses_leaves_nothing() {
    inside(|| {
        let table = Table::open().unwrap();
        let network = networks().remove(0);
        let refused = table.natively(&add(&network)).unwrap().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound, "there is no table yet");
        by_nft(&ruleset::replace(&[], &[]));
        let empty = shown();
        // The last command is the one that fails: no such map.
        let added = add(&network);
        let commands = added.commands().chain(std::iter::once(serde_json::json!({ "add": { "element": {
            "family": "inet", "table": crate::TABLE, "name": "host_access", "elem": [["br", { "jump": { "target": "nowhere" } }]]
        } } })));
        let batch = compile::batch(commands).unwrap();
        table.0.lock().unwrap().change(batch).unwrap_err();
        assert_eq!(shown(), empty);
    });
}
