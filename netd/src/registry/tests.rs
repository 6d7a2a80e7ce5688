//! What each request means in each state, and libvirt's sentences.

use netd_api::ErrorKind;

use super::*;
use crate::{apply::fake, host::LinkKind, host::Route, xml};

fn mac(last: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, last])
}

fn host() -> HostState {
    fake::Fake::new().world().host.clone()
}

fn with_link(mut host: HostState, name: &str, subnet: Option<&str>) -> HostState {
    let index = 100 + u32::try_from(host.links.len()).unwrap();
    host.links.push(fake::link(index, name, LinkKind::Other));
    if let Some(subnet) = subnet {
        host.routes.push(Route {
            destination: subnet.parse().unwrap(),
            gateway: None,
            link: Some(index),
            metric: 0,
            from_router: false,
        });
    }
    host
}

/// The shipped network and one more, defined; as `netd` has them after its first start.
fn registry() -> Registry {
    let mut registry = Registry::new(Path::new("/etc/resolv.conf"));
    let shipped = registry.define(shipped::network().unwrap(), &host(), mac(1)).unwrap();
    registry.defined(shipped);
    registry
}

fn start(registry: &mut Registry, key: &str, host: &HostState) -> Start {
    let start = registry.start(key, host, mac(9)).unwrap();
    if let Some(definition) = &start.definition {
        registry.defined(definition.clone());
    }
    registry.started(Live {
        network: start.network.clone(),
        desired: start.desired.clone(),
        journal: plan::unwind(&start.steps),
    });
    start
}

fn parse(text: &str) -> Network {
    xml::parse(text).unwrap()
}

fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>) -> (ErrorKind, String) {
    let refusal = result.unwrap_err();
    (refusal.kind(), refusal.to_string())
}

#[test]
fn refusals_are_libvirts_sentences() {
    let mut registry = registry();
    let host = host();
    let uuid = registry.find("default").unwrap().1.network().unwrap().uuid;

    assert_eq!(
        refused(registry.start("nope", &host, mac(2))),
        (ErrorKind::NoNetwork, "Network not found: no network with matching name 'nope'".into())
    );
    assert_eq!(
        refused(registry.stop("default")),
        (ErrorKind::OperationInvalid, "Requested operation is not valid: network 'default' is not active".into())
    );
    assert_eq!(
        refused(registry.define(parse("<network><name>default</name></network>"), &host, mac(2))),
        (ErrorKind::OperationFailed, format!("operation failed: network 'default' already exists with uuid {uuid}"))
    );
    assert_eq!(
        refused(registry.define(
            parse(&format!("<network><name>x</name><uuid>{uuid}</uuid></network>")),
            &host,
            mac(2)
        )),
        (
            ErrorKind::OperationFailed,
            format!("operation failed: network 'default' is already defined with uuid {uuid}")
        )
    );
    start(&mut registry, "default", &host);
    assert_eq!(
        refused(registry.start("default", &host, mac(2))),
        (ErrorKind::OperationInvalid, "Requested operation is not valid: network is already active".into())
    );
    registry.undefined(&"default".parse().unwrap());
    assert_eq!(
        refused(registry.undefine("default")),
        (ErrorKind::OperationInvalid, "Requested operation is not valid: can't undefine transient network".into())
    );
    assert_eq!(
        refused(registry.autostart("default")),
        (
            ErrorKind::OperationInvalid,
            "Requested operation is not valid: cannot set autostart for transient network".into()
        )
    );
}

#[test]
fn a_network_is_found_by_uuid_and_by_a_name_that_looks_like_one() {
    let mut registry = registry();
    let uuid = registry.find("default").unwrap().1.network().unwrap().uuid.to_string();
    assert_eq!(registry.find(&uuid).unwrap().0.as_str(), "default");
    let odd = "11111111-1111-1111-1111-111111111111";
    let network = registry.define(parse(&format!("<network><name>{odd}</name></network>")), &host(), mac(2)).unwrap();
    registry.defined(network);
    assert_eq!(registry.find(odd).unwrap().0.as_str(), odd);
}

#[test]
fn a_definition_gets_a_mac_and_the_first_free_bridge_name_and_keeps_both() {
    let mut registry = registry();
    let host = with_link(host(), "virbr1", None);
    let first = registry.define(parse("<network><name>a</name></network>"), &host, mac(2)).unwrap();
    assert_eq!(first.bridge.name.as_ref().unwrap().as_str(), "virbr2");
    assert_eq!(first.mac, Some(mac(2)));
    registry.defined(first.clone());
    let mut again = parse("<network><name>a</name></network>");
    again.uuid = first.uuid;
    let again = registry.define(again, &host, mac(3)).unwrap();
    assert_eq!((again.mac, again.bridge.name), (first.mac, first.bridge.name));
}

#[test]
fn a_subnet_in_use_anywhere_in_the_fib_is_refused_and_named() {
    let mut registry = registry();
    let text = "<network><name>a</name><ip address='10.9.8.1' prefix='24'/></network>";
    let network = registry.define(parse(text), &host(), mac(2)).unwrap();
    registry.defined(network);
    for subnet in ["10.9.8.0/24", "10.8.0.0/13", "10.9.8.128/25", "10.9.8.77/32"] {
        let host = with_link(host(), "tun7", Some(subnet));
        let refusal = registry.start("a", &host, mac(3)).unwrap_err();
        assert_eq!(refusal.to_string(), "internal error: Network is already in use by interface tun7");
        assert!(refusal.hint().unwrap().contains(subnet), "{subnet}");
    }
}

#[test]
fn the_shipped_network_makes_way_and_says_so() {
    let mut registry = registry();
    let taken = with_link(host(), "eth1", Some("192.168.122.0/23"));
    let taken = with_link(taken, "virbr0", None);
    let taken = with_link(taken, "eth2", Some("192.168.124.0/24"));
    let start = start(&mut registry, "default", &taken);
    assert_eq!(start.network.subnets[0].address.to_string(), "192.168.125.1/24");
    let range = &start.network.subnets[0].dhcp.as_ref().unwrap().ranges[0];
    assert_eq!((range.start.to_string(), range.end.to_string()), ("192.168.125.2".into(), "192.168.125.254".into()));
    assert_eq!(start.network.bridge.name.as_ref().unwrap().as_str(), "virbr1");
    assert_eq!(
        start.notices,
        [
            "network 'default' moved from 192.168.122.0/24, which interface eth1 (192.168.122.0/23) uses, to \
             192.168.125.0/24",
            "network 'default' uses bridge virbr1: an interface virbr0 exists already"
        ]
    );
    let definition = start.definition.unwrap();
    assert_eq!(definition.subnets, start.network.subnets);
    assert!(shipped::is_unchanged(&definition), "it can make way again");
}

#[test]
fn a_changed_default_does_not_make_way() {
    let mut registry = registry();
    let mut changed = registry.find("default").unwrap().1.definition.clone().unwrap();
    changed.mtu = Some(1400);
    registry.defined(changed);
    let taken = with_link(host(), "eth1", Some("192.168.122.0/24"));
    let refusal = registry.start("default", &taken, mac(2)).unwrap_err();
    assert_eq!(refusal.to_string(), "internal error: Network is already in use by interface eth1");
}

#[test]
fn when_every_192_168_subnet_is_taken_the_shipped_network_says_so() {
    let registry = registry();
    let taken = with_link(host(), "eth1", Some("192.168.0.0/16"));
    assert!(matches!(registry.start("default", &taken, mac(2)), Err(Refusal::NoSubnet(_))));
}

#[test]
fn a_bridge_name_another_program_has_is_refused() {
    let mut registry = registry();
    let text = "<network><name>a</name><bridge name='docker0'/></network>";
    let network = registry.define(parse(text), &host(), mac(2)).unwrap();
    registry.defined(network);
    let refusal = registry.start("a", &with_link(host(), "docker0", None), mac(3)).unwrap_err();
    assert_eq!(refusal.to_string(), "internal error: bridge name 'docker0' already in use.");
}

#[test]
fn redefining_an_active_network_changes_the_definition_only() {
    let mut registry = registry();
    start(&mut registry, "default", &host());
    let mut changed = registry.find("default").unwrap().1.definition.clone().unwrap();
    changed.mtu = Some(1400);
    let changed = registry.define(changed, &host(), mac(2)).unwrap();
    registry.defined(changed);
    let (_, entry) = registry.find("default").unwrap();
    assert_eq!(entry.definition.as_ref().unwrap().mtu, Some(1400));
    assert_eq!(entry.live.as_ref().unwrap().network.mtu, None);
}

#[test]
fn an_undefined_active_network_is_transient_and_gone_when_stopped() {
    let mut registry = registry();
    start(&mut registry, "default", &host());
    let name: NetworkName = "default".parse().unwrap();
    registry.undefined(&name);
    let view = registry.view(&name).unwrap();
    assert!(view.active && !view.persistent);
    assert!(registry.stop("default").unwrap().forget);
    registry.stopped(&name);
    assert!(registry.find("default").is_err());
}

#[test]
fn forwarding_is_handed_over_to_the_network_that_remains() {
    let mut registry = registry();
    let mut host = host();
    start(&mut registry, "default", &host);
    host.forwarding = true;
    let text = "<network><name>b</name><forward mode='route'/><ip address='10.9.8.1' prefix='24'/></network>";
    let network = registry.define(parse(text), &host, mac(2)).unwrap();
    registry.defined(network);
    start(&mut registry, "b", &host);

    let stop = registry.stop("default").unwrap();
    assert!(!stop.undos.contains(&Undo::DisableForwarding));
    let (heir, undo) = stop.hand_over.into_iter().next().unwrap();
    assert_eq!(heir.as_str(), "b");
    registry.inherit(&heir, undo.clone());
    registry.inherit(&heir, undo);
    registry.stopped(&stop.name);
    let last = registry.stop("b").unwrap();
    assert_eq!(last.undos.iter().filter(|undo| **undo == Undo::DisableForwarding).count(), 1);
    assert!(last.undos.contains(&Undo::RemoveTable));
}

#[test]
fn ipv6_forwarding_is_handed_over_with_what_it_took_and_the_user_is_told() {
    let mut registry = registry();
    let mut host = host();
    let network = |name: &str, n: u8| {
        parse(&format!(
            "<network><name>{name}</name><forward mode='route'/><ip family='ipv6' address='fd00:{n}::1' prefix='64'/></network>"
        ))
    };
    for (name, n) in [("a", 1), ("b", 2)] {
        let network = registry.define(network(name, n), &host, mac(n)).unwrap();
        registry.defined(network);
    }
    let begin = registry.start("a", &host, mac(9)).unwrap();
    let interface = "eth0".to_owned();
    assert!(begin.notices[0].contains(&format!("net.ipv6.conf.{interface}.accept_ra is 2")), "{:?}", begin.notices);
    start(&mut registry, "a", &host);
    host.forwarding6 = true;
    assert_eq!(registry.start("b", &host, mac(9)).unwrap().notices, Vec::<String>::new(), "said once");
    start(&mut registry, "b", &host);

    let shared = [Undo::DisableForwarding6, Undo::RestoreRouterAdvertisements { interface }];
    let stop = registry.stop("a").unwrap();
    assert!(shared.iter().all(|undo| !stop.undos.contains(undo)));
    assert_eq!(stop.hand_over.iter().map(|(_, undo)| undo.clone()).collect::<Vec<_>>(), shared);
    for (heir, undo) in stop.hand_over {
        registry.inherit(&heir, undo);
    }
    registry.stopped(&stop.name);
    let last = registry.stop("b").unwrap().undos;
    // The host stops routing before it would lose its routes.
    let places: Vec<usize> = shared.iter().map(|undo| last.iter().position(|other| other == undo).unwrap()).collect();
    assert!(places[0] < places[1], "{last:?}");
}

fn request(mac: Option<&str>, queues: u32) -> PortRequest {
    PortRequest {
        network: "default".into(),
        guest: None,
        mac: mac.map(str::to_owned),
        queues,
        guards: None,
        portgroup: None,
    }
}

#[test]
fn a_port_needs_an_active_network_a_free_mac_and_a_sane_number_of_queues() {
    let mut registry = registry();
    assert_eq!(
        refused(registry.add_port(&request(None, 1), || mac(7))),
        (ErrorKind::OperationInvalid, "Requested operation is not valid: network 'default' is not active".into())
    );
    start(&mut registry, "default", &host());
    for queues in [0, 254, u32::MAX] {
        assert_eq!(refused(registry.add_port(&request(None, queues), || mac(7))).0, ErrorKind::InvalidArg);
    }
    for bad in ["", "52:54", "01:00:5e:00:00:01", "zz:54:00:00:00:01"] {
        assert_eq!(refused(registry.add_port(&request(Some(bad), 1), || mac(7))).0, ErrorKind::InvalidArg);
    }
    let spec = registry.add_port(&request(Some("52:54:00:00:00:42"), 2), || mac(7)).unwrap();
    let Plug::Tap { bridge, .. } = &spec.plug else { panic!("{spec:?}") };
    assert_eq!((bridge.as_str(), spec.mtu, spec.queues), ("virbr0", Some(1500), 2));
    registry.port_added(Port {
        interface: "vnet0".into(),
        index: 9,
        network: "default".into(),
        guest: None,
        mac: spec.mac,
        mtu: 1500,
        queues: 2,
        guards: true,
        group: None,
        host_bridge: None,
        macvtap: None,
        kept: false,
    });
    assert_eq!(
        refused(registry.add_port(&request(Some("52:54:00:00:00:42"), 1), || mac(7))),
        (
            ErrorKind::OperationFailed,
            "operation failed: MAC address 52:54:00:00:00:42 is already in use by port vnet0 of network 'default'"
                .into()
        )
    );
    let Ground::Own(bridge) = registry.find_live("default").unwrap().1.desired.ground.clone() else { panic!() };
    let bridge = bridge.mac.to_string();
    assert!(matches!(registry.add_port(&request(Some(&bridge), 1), || mac(7)), Err(Refusal::MacOfBridge { .. })));
    let mut tries = [spec.mac, mac(8)].into_iter();
    assert_eq!(registry.add_port(&request(None, 1), || tries.next().unwrap()).unwrap().mac, mac(8));
}

#[test]
fn the_shipped_definition_is_well_formed_and_knows_itself() {
    assert!(shipped::is_unchanged(&shipped::network().unwrap()));
}

#[test]
fn a_template_becomes_the_first_free_name_and_is_none_afterwards() {
    let mut registry = Registry::new(Path::new("/etc/resolv.conf"));
    let text = |name: &str| format!("<network><name>{name}</name><bridge name='lab%d-x'/></network>");
    let host = with_link(host(), "lab0-x", None);
    for (name, bridge) in [("one", "lab1-x"), ("two", "lab2-x")] {
        let network = registry.define(parse(&text(name)), &host, mac(2)).unwrap();
        assert_eq!(network.bridge.name.as_ref().unwrap().as_str(), bridge);
        assert_eq!(network.bridge.template, None);
        registry.defined(network);
    }
}

#[test]
fn what_is_not_carried_out_is_neither_defined_nor_created() {
    let registry = Registry::new(Path::new("/etc/resolv.conf"));
    let text = "<network trustGuestRxFilters='yes'><name>a</name></network>";
    let sentence = "netd does not hear of the receive filters that guests set, so it cannot follow them";
    let refused = registry.define(parse(text), &host(), mac(2)).unwrap_err();
    let expected = format!("unsupported configuration: line 1: <network>: {sentence}");
    assert_eq!(refused.in_text(text).to_string(), expected);
    let refused = registry.create(parse(text), &host(), mac(2)).unwrap_err();
    assert_eq!(refused.to_string(), format!("unsupported configuration: {sentence}"));
}
