//! `tests/golden/guards`: per case the ports (`.ports.json`) and the text that makes the table from nothing, without
//! its constant part (`.nft`). `UPDATE_GOLDEN=1` writes it anew. What the kernel makes of it is in `tests/guards.rs`.

use std::{fs, path::PathBuf};

use super::*;

fn port(interface: &str, addresses: &[[u8; 4]]) -> GuardedPort {
    GuardedPort {
        interface: interface.to_owned(),
        mac: [0x52, 0x54, 0, 0, 0, 1],
        addresses: addresses.iter().map(|octets| Ipv4Addr::from(*octets)).collect(),
        sources: Sources::Leases,
    }
}

fn static_port(interface: &str) -> GuardedPort {
    let sources = Sources::Network { bridge: "virbr1".into(), subnets: vec![], host: vec![] };
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
        let got = text(&ports).replace(BASE, "# base.nft\n");
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
        interface: "vnet0".into(),
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
    let as_removed: Vec<Change> = added
        .into_iter()
        .map(|change| match change {
            Change::Add(element) => Change::Remove(element),
            other => panic!("{other:?}"),
        })
        .chain([Change::RemoveChain("from_virbr1".into())])
        .collect();
    assert_eq!(removed, as_removed);
}

#[test]
fn messages_have_the_lengths_they_say() {
    let (bytes, last) = message::batch(&changes(&[static_port("vnet0")], &[port("vnet1", &[[10, 0, 0, 1]])], &[]));
    let sequences: Vec<u32> = message::answers(&bytes).map(|message| message.sequence).collect();
    // From the begin, which has 0, to the end, which nobody answers.
    assert_eq!(sequences, (0..=last + 1).collect::<Vec<_>>());
    assert_eq!(bytes.len() % 4, 0);
}

#[test]
fn nonsense_from_the_kernel_ends() {
    for bytes in
        [&[][..], &[0; 15], &[0; 64], &[0xff; 64], &[20, 0, 0, 0, 12, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
    {
        assert_eq!(message::answers(bytes).take(100).filter_map(|answer| answer.packets()).count(), 0);
    }
}
