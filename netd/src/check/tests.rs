//! Which pairs of networks are kept apart, and in which words.

use super::*;
use crate::xml;

fn network(name: &str, uuid: u8, rest: &str) -> Network {
    xml::parse(&format!(
        "<network><name>{name}</name><uuid>00000000-0000-4000-8000-0000000000{uuid:02x}</uuid>{rest}</network>"
    ))
    .unwrap()
}

fn sentences(new: &Network, others: &[Network]) -> Vec<String> {
    conflicts(new, others).iter().map(ToString::to_string).collect()
}

const DEFAULT: &str = "<bridge name='virbr0'/><mac address='52:54:00:00:00:01'/><forward/>\
                       <ip address='192.168.122.1' prefix='24'/>";

#[test]
fn a_network_does_not_conflict_with_what_it_was() {
    assert!(conflicts(&network("default", 1, ""), &[network("default", 1, DEFAULT)]).is_empty());
}

#[test]
fn strangers_get_along() {
    let other = "<bridge name='virbr1'/><mac address='52:54:00:00:00:02'/><ip address='192.168.123.1' prefix='24'/>";
    assert!(conflicts(&network("other", 2, other), &[network("default", 1, DEFAULT)]).is_empty());
    let unnamed = network("other", 2, "<bridge/>");
    assert!(conflicts(&unnamed, &[network("default", 1, "<bridge/>")]).is_empty());
}

#[test]
fn all_problems_are_told_in_libvirts_sentences() {
    let others = [network("default", 1, DEFAULT), network("wide", 3, "<ip address='192.168.0.1' prefix='16'/>")];
    assert_eq!(
        sentences(&network("default", 2, DEFAULT), &others),
        [
            "operation failed: network 'default' already exists with uuid 00000000-0000-4000-8000-000000000001",
            "internal error: bridge name 'virbr0' already in use: network 'default' has it",
            "internal error: Network is already in use: subnet 192.168.122.0/24 overlaps 192.168.122.0/24 of network \
             'default'",
            "operation failed: MAC address 52:54:00:00:00:01 is already in use by network 'default'",
            "internal error: Network is already in use: subnet 192.168.122.0/24 overlaps 192.168.0.0/16 of network \
             'wide'",
        ]
    );
    assert_eq!(
        sentences(&network("new", 1, ""), &others),
        ["operation failed: network 'default' is already defined with uuid 00000000-0000-4000-8000-000000000001"]
    );
}

#[test]
fn addresses_only_matter_once_both_are_started() {
    let others = [network("default", 1, DEFAULT)];
    let same_addresses =
        network("new", 2, "<mac address='52:54:00:00:00:01'/><ip address='192.168.122.1' prefix='24'/>");
    let found = conflicts(&same_addresses, &others);
    assert_eq!(found.len(), 2);
    assert!(!found.iter().any(Conflict::forbids_definition));
    assert!(conflicts(&network("new", 2, "<bridge name='virbr0'/>"), &others).iter().all(Conflict::forbids_definition));
}

#[test]
fn a_port_of_the_host_is_forwarded_by_one_network() {
    let forwards = |port: &str| {
        format!(
            "<forward/><ip address='10.{}.0.1' prefix='24'/><n:forwards xmlns:n='urn:netd:network:1'>\
             <n:forward proto='tcp' port='{port}'><n:to guest='vm1'/></n:forward></n:forwards>",
            port.len()
        )
    };
    let others = [network("a", 1, &forwards("80"))];
    assert!(sentences(&network("b", 2, &forwards("81")), &others)[0].contains("Network is already in use"));
    assert_eq!(
        sentences(&network("b", 2, &forwards("79-89")), &others),
        ["operation failed: port tcp/80 of the host is already forwarded by network 'a'"]
    );
    assert!(sentences(&network("b", 2, &forwards("8080-8089")), &others).is_empty());
}
