//! Speeds, VLANs and who teaches the bridge, changed under guests that go on talking.

use netd_api::{ChangeReply, ErrorKind, PortRequest};

use super::{
    guest::Guest,
    harness::Space,
    links::{PATIENCE, hears, request},
    refusal,
};

fn apply(space: &Space, xml: &str) -> ChangeReply {
    space.call(async |client| client.apply_network(xml.to_owned(), false, None).await).unwrap()
}

fn plug(space: &Space, name: &str, group: Option<&str>) -> Guest {
    let request = PortRequest { guest: Some(name.into()), guards: Some(false), ..request("n", group) };
    Guest::plug_request(space, request)
}

/// A network on a bridge of its own.
fn own(bridge: &str, parts: &str) -> String {
    format!(
        "<network><name>n</name><bridge name='br-n' {bridge}/>{parts}<ip address='10.9.0.1' prefix='24'/></network>"
    )
}

#[test]
fn a_network_becomes_slow_and_fast_again_and_its_bridge_is_taught_and_learns_again() {
    let space = Space::new();
    let _daemon = space.daemon();
    let plain = own("", "<portgroup name='g'/>");
    let slow = own(
        "macTableManager='libvirt'",
        "<bandwidth><inbound average='1000'/></bandwidth>\
         <portgroup name='g'><bandwidth><inbound average='500'/></bandwidth></portgroup>",
    );
    apply(&space, &plain);
    let (a, b) = (plug(&space, "vm1", Some("g")), plug(&space, "vm2", None));
    let look = || {
        let (tap, index) = (&a.port.interface, space.index("br-n"));
        let port = space.run(&format!("bridge -d link show dev {tap}"));
        let fdb = space.run(&format!("bridge fdb show dev {tap}"));
        (
            space.run("tc class show dev br-n").contains("rate 8Mbit"),
            space.run(&format!("tc class show dev {tap}")).contains("rate 4Mbit"),
            port.contains("learning off") && port.contains(" flood off"),
            fdb.lines().any(|line| line.starts_with(&a.port.mac) && line.contains("static")),
            index,
        )
    };
    let found = look();
    assert_eq!((found.0, found.1, found.2, found.3), (false, false, false, false));
    for _ in 0..2 {
        let said = apply(&space, &slow);
        assert!(said.changed, "{said:?}");
        assert_eq!(look(), (true, true, true, true, found.4), "{said:?}");
        assert!(hears(&a, &b, PATIENCE));
        assert!(!apply(&space, &slow).changed);
        apply(&space, &plain);
        assert_eq!(look(), found);
        assert!(hears(&b, &a, PATIENCE));
    }
    let overcommitted = own("", "<portgroup name='g'><bandwidth><inbound floor='1'/></bandwidth></portgroup>");
    let error = refusal(space.call(async |client| client.apply_network(overcommitted, false, None).await));
    assert!(error.to_string().contains("has no inbound QoS set"), "{error}");
    let without = refusal(space.call(async |client| client.apply_network(own("", ""), false, None).await));
    assert!(without.to_string().contains("network 'n' has no port group 'g'"), "{without}");
    for other in [
        "<network><name>n</name><forward mode='bridge'/><bridge name='br-n'/></network>",
        "<network><name>n</name><forward mode='private' dev='lo'/></network>",
    ] {
        let error = refusal(space.call(async |client| client.apply_network(other.into(), false, None).await));
        assert_eq!(error.kind(), ErrorKind::OperationInvalid, "{error}");
        assert!(error.to_string().contains("are on a bridge of its own, br-n and cannot be on "), "{error}");
    }
    assert_eq!(look(), found);
}

#[test]
fn a_network_gets_no_vlans_on_a_bridge_that_filters_none() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.run("ip link add br0 type bridge forward_delay 0");
    space.run("ip link set br0 up");
    let bridged =
        |vlan: &str| format!("<network><name>n</name><forward mode='bridge'/><bridge name='br0'/>{vlan}</network>");
    apply(&space, &bridged(""));
    let (a, b) = (plug(&space, "vm1", None), plug(&space, "vm2", None));
    let tagged = bridged("<vlan><tag id='7'/></vlan>");
    let error = refusal(space.call(async |client| client.apply_network(tagged, false, None).await));
    assert!(error.to_string().contains("bridge br0 does not filter VLANs"), "{error}");
    assert!(hears(&a, &b, PATIENCE));
}
