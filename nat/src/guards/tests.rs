//! `tests/golden/guards`: per case the ports (`.ports.json`) and the text that makes the table from nothing, without
//! its constant part (`.nft`). `UPDATE_GOLDEN=1` writes it anew. What the kernel makes of it is in `tests/guards.rs`.

use std::{fs, path::PathBuf};

use super::*;
use crate::nfnetlink::answers;

fn port(interface: &str, addresses: &[[u8; 4]]) -> GuardedPort {
    GuardedPort {
        interface: interface.to_owned(),
        mac: [0x52, 0x54, 0, 0, 0, 1],
        addresses: addresses.iter().map(|octets| Ipv4Addr::from(*octets)).collect(),
        addresses6: Vec::new(),
        sources: Sources { bridge: "virbr0".into(), ..Sources::default() },
    }
}

fn static_port(interface: &str) -> GuardedPort {
    let ipv6 = Sources6 { prefixes: vec!["fd00:1::/64".parse().unwrap()], host: vec!["fd00:1::1".parse().unwrap()] };
    let sources = Sources { bridge: "virbr1".into(), ipv4: Sources4::Network { subnets: vec![], host: vec![] }, ipv6 };
    GuardedPort { sources, ..port(interface, &[]) }
}

#[test]
fn the_text_is_as_the_golden_files_have_it() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/guards");
    let mut cases = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let Some(case) = path.file_name().unwrap().to_str().unwrap().strip_suffix(".ports.json") else { continue };
        cases += 1;
        let ports: Vec<GuardedPort> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let got = text(&ports, &[]).replace(BASE, "# base.nft\n");
        let expected = folder.join(format!("{case}.nft"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &got).unwrap();
        }
        assert_eq!(got, fs::read_to_string(&expected).unwrap(), "{case}: UPDATE_GOLDEN=1 writes it anew");
    }
    assert!(cases >= 2, "{cases} cases");
}

#[test]
fn a_lease_that_moves_changes_two_elements_and_one_that_stays_none() {
    let (before, after) = (port("vnet0", &[[10, 0, 0, 5]]), port("vnet0", &[[10, 0, 0, 6]]));
    let element = |last| Element {
        set: "addresses",
        of: Of::Interface("vnet0".into()),
        with: With::Address(Ipv4Addr::new(10, 0, 0, last)),
    };
    let expected = [Change::Remove(element(5)), Change::Add(element(6))];
    assert_eq!(changes(std::slice::from_ref(&before), &[after], &[]), expected);
    assert_eq!(changes(std::slice::from_ref(&before), std::slice::from_ref(&before), &[]), []);
}

#[test]
fn what_a_port_adds_goes_with_it() {
    let port = static_port("vnet7");
    let added = changes(&[], std::slice::from_ref(&port), &[]);
    let removed = changes(std::slice::from_ref(&port), &[], std::slice::from_ref(&port.sources));
    let chains = ["from_virbr1", "from6_virbr1", "target6_virbr1"].map(|name| Change::RemoveChain(name.into()));
    let as_removed: Vec<Change> = added
        .into_iter()
        .map(|change| match change {
            Change::Add(element) => Change::Remove(element),
            other => panic!("{other:?}"),
        })
        .chain(chains)
        .collect();
    assert_eq!(removed, as_removed);
}

#[test]
fn a_mac_makes_the_addresses_that_the_kernel_makes_of_it() {
    let prefixes = ["2001:db8:1::/64", "fd00::/48", "fd00:2::/80"].map(|prefix| prefix.parse().unwrap());
    let made: Vec<String> =
        claims::made_of([0x52, 0x54, 0, 0xab, 0xcd, 1], &prefixes).iter().map(Ipv6Addr::to_string).collect();
    // Only a prefix of 64 bits leaves room for what a MAC makes.
    assert_eq!(made, ["fe80::5054:ff:feab:cd01", "2001:db8:1:0:5054:ff:feab:cd01"]);
}

#[test]
fn only_claims_that_are_still_allowed_are_kept() {
    let claim = |interface: &str, address: &str, left: Option<u64>| claims::Claim {
        interface: interface.into(),
        address: address.parse().unwrap(),
        left: left.map(std::time::Duration::from_secs),
    };
    let claims = [
        claim("vnet0", "fe80::7", Some(60)),
        claim("vnet0", "fd00:1::7", Some(3000)),
        // The MAC's own, which is written anyway; the host's; another network's; another port's.
        claim("vnet0", "fe80::5054:ff:fe00:1", None),
        claim("vnet0", "fd00:1::1", Some(60)),
        claim("vnet0", "fd00:2::7", Some(60)),
        claim("vnet9", "fe80::9", Some(60)),
    ];
    let kept: Vec<String> = claims::kept(&[static_port("vnet0")], &claims)
        .into_iter()
        .map(|(element, time)| format!("{} {element} {time}", element.set))
        .collect();
    let group = network_group("virbr1");
    assert_eq!(
        kept,
        [
            "owned6 \"vnet0\" . 0xfe800000000000000000000000000007 timeout 3600s expires 60s".to_owned(),
            format!("taken6 {group} . 0xfe800000000000000000000000000007 timeout 3600s expires 60s"),
            "owned6 \"vnet0\" . 0xfd000001000000000000000000000007 timeout 3600s expires 3000s".to_owned(),
            format!("taken6 {group} . 0xfd000001000000000000000000000007 timeout 3600s expires 3000s"),
        ]
    );
}

#[test]
fn messages_have_the_lengths_they_say() {
    let changes = changes(&[static_port("vnet0")], &[port("vnet1", &[[10, 0, 0, 1]])], &[]);
    let (bytes, last) = message::batch(&changes).finish();
    let sequences: Vec<u32> = answers(&bytes).map(|message| message.sequence).collect();
    // From the begin, which has 0, to the end, which nobody answers.
    assert_eq!(sequences, (0..=last + 1).collect::<Vec<_>>());
    assert_eq!(bytes.len() % 4, 0);
}

#[test]
fn nonsense_from_the_kernel_ends() {
    for bytes in
        [&[][..], &[0; 15], &[0; 64], &[0xff; 64], &[20, 0, 0, 0, 12, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
    {
        assert_eq!(answers(bytes).take(100).filter_map(|answer| message::packets(&answer)).count(), 0);
    }
}
