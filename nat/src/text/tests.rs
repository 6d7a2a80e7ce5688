//! What is shown is what `nft list` says of the same rules: the golden files have both.

use std::{fs, path::PathBuf};

use super::*;

fn golden(below: &str) -> Vec<(String, String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(below);
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let Some(case) = path.to_str().unwrap().strip_suffix(".intent.json") else { continue };
        let listed = fs::read_to_string(format!("{case}.nft")).unwrap();
        cases.push((case.to_owned(), fs::read_to_string(&path).unwrap(), listed));
    }
    assert!(cases.len() > 2);
    cases
}

/// The rules in what `nft list` prints, with their chains.
fn listed_rules(text: &str) -> Vec<String> {
    let mut chain = String::new();
    let mut rules = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("chain ") {
            chain = name.trim_end_matches(" {").to_owned();
        } else if line.starts_with("table ") || line.starts_with("map ") || line.starts_with("set ") || line == "}" {
            if line != "}" {
                chain.clear();
            }
        } else if !chain.is_empty() && !line.is_empty() && !line.starts_with("type ") {
            // What was counted is no part of the rule.
            rules.push(format!("chain {chain}: {line}").replace(" packets 0 bytes 0", ""));
        }
    }
    rules
}

fn rules(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().filter(|line| line.starts_with("chain ") && line.contains(": ")).collect()
}

#[test]
fn a_networks_rules_are_shown_as_nft_lists_them() {
    for (case, intent, listed) in golden("") {
        let networks: Vec<Network> = serde_json::from_str(&intent).unwrap();
        let listed = listed_rules(&listed);
        let shown: Vec<String> = networks.iter().flat_map(|network| rules(lines(network, &[]))).collect();
        for line in &shown {
            // nft writes some ranges as prefixes.
            assert!(listed.contains(line) || line.contains("203.0.113."), "{case}: {line}\n{listed:#?}");
        }
        // What the table has for all of them is there once, whoever brought it.
        let own = |line: &&String| !line.contains("vmap @") && !line.contains(": jump forwarded");
        assert_eq!(shown.iter().filter(own).count(), listed.iter().filter(own).count(), "{case}");
    }
}

#[test]
fn forwards_are_shown_as_nft_lists_them() {
    for (case, intent, listed) in golden("forwards") {
        let forwards: Vec<Forward> = serde_json::from_str(&intent).unwrap();
        let listed = listed_rules(&listed);
        let shown =
            crate::forwards::change(&[], &forwards, Others::default()).iter().filter_map(line).collect::<Vec<_>>();
        for line in rules(shown) {
            let known = listed.contains(&line);
            // nft leaves out what a rule says twice, and orders sets and flags in its own way.
            let loose = ["meta nfproto", "fib ", "numgen", " dnat ", "meta l4proto tcp reject"];
            assert!(known || loose.iter().any(|word| line.contains(word)), "{case}: {line}\n{listed:#?}");
            assert!(!line.contains("{\""), "{case}: not put into words: {line}");
        }
    }
}

#[test]
fn a_difference_has_only_what_changes() {
    let (_, intent, _) = golden("").into_iter().find(|(case, ..)| case.ends_with("/nat")).unwrap();
    let networks: Vec<Network> = serde_json::from_str(&intent).unwrap();
    let before = &networks[0];
    assert_eq!(difference((before, &[]), (before, &[])), Vec::<String>::new());
    let mut after = before.clone();
    after.mode = crate::Mode::Isolated;
    assert_eq!(
        difference((before, &[]), (&after, &[])),
        [
            "- chain from_virbr0: ip saddr 192.168.122.0/24 return",
            "- chain to_virbr0: ip daddr 192.168.122.0/24 ct state established,related accept",
            "- chain nat_virbr0",
            "- chain nat_virbr0: oifname \"virbr0\" return",
            "- chain nat_virbr0: ip daddr 224.0.0.0/24 return",
            "- chain nat_virbr0: ip daddr 255.255.255.255 return",
            "- chain nat_virbr0: ip saddr 192.168.122.0/24 meta l4proto tcp masquerade to :1024-65535",
            "- chain nat_virbr0: ip saddr 192.168.122.0/24 meta l4proto udp masquerade to :1024-65535",
            "- chain nat_virbr0: ip saddr 192.168.122.0/24 masquerade",
            "- element of masquerade: \"virbr0\" : jump nat_virbr0",
        ]
    );
}
