//! `tests/golden`: per case the networks (`.intent.json`) and the transaction that makes the table from nothing
//! (`.nft.json`), side by side with what `nft list` shows then (`.nft`, compared in `tests/namespaces.rs`).
//! `UPDATE_GOLDEN=1` writes both outputs anew.

use std::{fs, path::PathBuf};

use super::*;

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// One command per line.
fn lines(transaction: &Transaction<'_>) -> String {
    let commands: Vec<String> = transaction.all().map(|c| serde_json::to_string(c).unwrap()).collect();
    format!("{{\"nftables\":[\n{}\n]}}\n", commands.join(",\n"))
}

#[test]
fn transactions_are_as_the_golden_files_have_them() {
    let mut cases = 0;
    for entry in fs::read_dir(golden()).unwrap() {
        let path = entry.unwrap().path();
        let Some(case) = path.file_name().unwrap().to_str().unwrap().strip_suffix(".intent.json") else { continue };
        cases += 1;
        let networks: Vec<Network> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let got = lines(&replace(&networks, &[]));
        let expected = golden().join(format!("{case}.nft.json"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &got).unwrap();
        }
        assert_eq!(got, fs::read_to_string(&expected).unwrap(), "{case}: UPDATE_GOLDEN=1 writes it anew");
    }
    assert!(cases >= 6, "{cases} cases");
}

#[test]
fn one_more_network_costs_the_same_whatever_is_there() {
    let network = |n: usize| Network {
        bridge: format!("virbr{n}"),
        mode: Mode::Nat { dev: None, addresses: None, ports: (1024, 65535), ipv6: true },
        subnets: vec!["192.168.122.0/24".parse().unwrap(), "fd00:122::/64".parse().unwrap()],
        dns_redirect: None,
        policy: crate::Policy::default(),
    };
    let size = |t: &Transaction<'_>| t.all().count();
    let per_network = size(&replace(&[network(1), network(2)], &[])) - size(&replace(&[network(1)], &[]));
    assert_eq!(
        size(&replace(&(0..100).map(network).collect::<Vec<_>>(), &[])),
        size(&replace(&[], &[])) + 100 * per_network
    );
}
