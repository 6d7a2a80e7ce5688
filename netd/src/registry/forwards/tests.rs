//! Which forwards there can be, and whom a name means.

use std::path::Path;

use dhcp::config::Mac;

use super::*;
use crate::{apply::fake, port::Port, registry::Live, xml};

const SPACE: &str = "<n:forwards xmlns:n='urn:netd:network:1'>";

fn registry() -> Registry {
    let mut registry = Registry::new(Path::new("/etc/resolv.conf"));
    for (name, third) in [("a", 1), ("b", 2)] {
        let text = format!(
            "<network><name>{name}</name><forward/><bridge name='br-{name}'/><mac address='52:54:00:00:00:0{third}'/>\
             <ip address='10.0.{third}.1' prefix='24'/></network>"
        );
        registry.defined(xml::parse(&text).unwrap());
    }
    registry
}

fn start(registry: &mut Registry, name: &str) {
    let host = fake::Fake::new().world().host.clone();
    let start = registry.start(name, &host, MacAddr([0x52, 0x54, 0, 0, 0, 9])).unwrap();
    registry.started(Live { network: start.network, desired: start.desired, journal: Vec::new() });
}

fn forward(port: u16, address: Option<&str>, to: &str) -> PortForward {
    let ports = Ports::new(port, port).unwrap();
    let at = HostPort { protocol: Protocol::Tcp, ports, address: address.map(|text| text.parse().unwrap()) };
    let to = to.parse().map_or_else(|_| To::Guest(to.to_owned()), To::Address);
    PortForward::new(at, vec![Target { to, port }]).unwrap()
}

fn add(registry: &mut Registry, key: &str, forward: PortForward) -> Result<(), String> {
    let change = registry.add_forward(key, forward).map_err(|refusal| refusal.to_string())?;
    registry.forward_changed(change);
    Ok(())
}

fn lease(mac: u8, last: u8, hostname: &str) -> dhcp::Lease {
    dhcp::Lease {
        mac: Mac([0x52, 0x54, 0, 0, 1, mac]),
        address: Ipv4Addr::new(10, 0, 1, last),
        prefix: 24,
        hostname: Some(hostname.to_owned()),
        client_id: None,
        expiry: None,
    }
}

fn last_byte(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}

fn plug(registry: &mut Registry, mac: u8, guest: &str) {
    registry.port_added(Port {
        interface: format!("vnet{mac}"),
        index: 100 + u32::from(mac),
        network: "a".to_owned(),
        guest: Some(guest.to_owned()),
        mac: MacAddr([0x52, 0x54, 0, 0, 1, mac]),
        mtu: 1500,
        queues: 1,
        guards: true,
        group: None,
        host_bridge: None,
        macvtap: None,
        kept: false,
    });
}

#[test]
fn a_port_is_forwarded_once_on_the_whole_host() {
    let mut registry = registry();
    add(&mut registry, "a", forward(80, None, "vm1")).unwrap();
    let clash = |other: &str| format!("operation failed: port {other} of the host is already forwarded by network 'a'");
    assert_eq!(add(&mut registry, "a", forward(80, None, "vm2")), Err(clash("tcp/80")));
    assert_eq!(add(&mut registry, "b", forward(80, None, "vm2")), Err(clash("tcp/80")));
    let at = Some("198.51.100.1");
    assert_eq!(add(&mut registry, "b", forward(80, at, "vm2")), Err(clash("tcp/80 at 198.51.100.1")));
    add(&mut registry, "b", forward(81, at, "vm2")).unwrap();
    add(&mut registry, "a", forward(81, Some("198.51.100.2"), "vm2")).unwrap();

    let text = format!(
        "<network><name>c</name><forward/><ip address='10.0.3.1' prefix='24'/>{SPACE}\
         <n:forward proto='tcp' port='70-90'><n:to guest='vm1'/></n:forward></n:forwards></network>"
    );
    let host = fake::Fake::new().world().host.clone();
    let refused = registry.define(xml::parse(&text).unwrap(), &host, MacAddr([2, 0, 0, 0, 0, 1])).unwrap_err();
    assert_eq!(refused.to_string(), clash("tcp/80"));
    assert_eq!(
        refused.hint().unwrap(),
        "'netd forward-list a' shows where it leads; delete that, or choose another port"
    );
}

#[test]
fn two_definitions_that_were_on_disk_are_not_both_started_with_one_port() {
    let mut registry = registry();
    for name in ["a", "b"] {
        let mut network = registry.find(name).unwrap().1.network().unwrap().clone();
        network.forwards.push(forward(80, None, "vm1"));
        registry.defined(network);
    }
    start(&mut registry, "a");
    let host = fake::Fake::new().world().host.clone();
    let refused = registry.start("b", &host, MacAddr([2, 0, 0, 0, 0, 1])).unwrap_err();
    assert!(refused.to_string().contains("already forwarded by network 'a'"), "{refused}");
}

#[test]
fn a_target_must_be_on_the_network() {
    let mut registry = registry();
    assert_eq!(
        add(&mut registry, "a", forward(80, None, "10.0.2.9")),
        Err("invalid argument: address 10.0.2.9 is on no <ip> subnet of this network".to_owned())
    );
    assert!(add(&mut registry, "a", forward(80, None, "10.0.1.1")).unwrap_err().contains("the host's own"));
    assert!(add(&mut registry, "nope", forward(80, None, "vm1")).unwrap_err().starts_with("Network not found"));
    add(&mut registry, "a", forward(80, None, "10.0.1.9")).unwrap();
}

#[test]
fn what_is_deleted_is_named_exactly() {
    let mut registry = registry();
    start(&mut registry, "a");
    for address in ["198.51.100.1", "198.51.100.2"] {
        add(&mut registry, "a", forward(80, Some(address), "vm1")).unwrap();
    }
    let (tcp, port) = (Protocol::Tcp, Ports::new(80, 80).unwrap());
    let refused = |result: Result<ForwardChange, Refusal>| result.unwrap_err().to_string();
    assert_eq!(
        refused(registry.delete_forward("a", tcp, port, None)),
        "operation failed: network 'a' forwards tcp/80 at several addresses of the host"
    );
    let range = Ports::new(80, 81).unwrap();
    assert_eq!(
        refused(registry.delete_forward("a", tcp, range, None)),
        "operation failed: network 'a' does not forward tcp/80-81"
    );
    let change = registry.delete_forward("a", tcp, port, Some("198.51.100.1".parse().unwrap())).unwrap();
    let back = registry.forward_changed(change);
    assert_eq!(registry.forwards(&Leased(Vec::new())).len(), 1);
    let change = registry.delete_forward("a", tcp, port, None).unwrap();
    assert_eq!(change.forward.at().address, Some("198.51.100.2".parse().unwrap()));
    registry.forward_changed(back);
    assert_eq!(registry.forwards(&Leased(Vec::new())).len(), 2);
}

#[test]
fn a_name_means_the_guest_that_has_the_port_and_nobody_who_claims_it() {
    let mut registry = registry();
    start(&mut registry, "a");
    add(&mut registry, "a", forward(80, None, "vm1")).unwrap();
    let target = |registry: &Registry, leases: &[dhcp::Lease]| {
        let forwards = registry.forwards(&Leased(leases.to_vec()));
        forwards[0].targets.first().map(|(address, _)| last_byte(*address))
    };
    let claims = [lease(7, 57, "VM1")];
    assert_eq!(target(&registry, &claims), Some(57), "without a port of ours, DHCP's name counts");
    plug(&mut registry, 7, "other");
    assert_eq!(target(&registry, &claims), None, "but not that of a guest with another name");
    plug(&mut registry, 1, "vm1");
    let both = [lease(1, 51, "x"), lease(8, 58, "vm1")];
    assert_eq!(target(&registry, &both), Some(51));
    assert_eq!(target(&registry, &both[1..]), None, "nobody stands in for a guest without an address");
    registry.port_gone(101);
    assert_eq!(target(&registry, &[lease(1, 51, "vm1")]), None, "a guest that is gone is nowhere");
    let outside = dhcp::Lease { address: Ipv4Addr::new(10, 9, 9, 9), ..lease(8, 1, "vm1") };
    assert_eq!(target(&registry, &[outside]), None, "a lease of an earlier subnet leads nowhere");
}

#[test]
fn a_port_leads_to_another_place_in_each_family() {
    let mut registry = registry();
    let text = "<network><name>six</name><forward/><bridge name='br-six'/><mac address='52:54:00:00:00:06'/>\
                <ip address='10.0.6.1' prefix='24'/><ip family='ipv6' address='fd00:6::1' prefix='64'/></network>";
    registry.defined(xml::parse(text).unwrap());
    start(&mut registry, "six");
    add(&mut registry, "six", forward(80, None, "10.0.6.5")).unwrap();
    add(&mut registry, "six", forward(80, None, "fd00:6::5")).unwrap();
    add(&mut registry, "six", forward(81, Some("2001:db8::1"), "fd00:6::6")).unwrap();
    let twice = add(&mut registry, "six", forward(81, Some("::"), "fd00:6::6")).unwrap_err();
    assert!(twice.contains("tcp/81 at ::"), "{twice}");
    for (to, expected) in
        [("fd00:7::1", "on no <ip> subnet"), ("fd00:6::1", "the host's own"), ("fd00:6::", "on no <ip>")]
    {
        let error = add(&mut registry, "six", forward(90, None, to)).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert!(add(&mut registry, "a", forward(91, None, "fd00:6::5")).unwrap_err().contains("with an IPv6 <ip>"));
    let leads: Vec<String> = registry
        .forwards(&Leased(Vec::new()))
        .iter()
        .map(|f| format!("{:?} {} {:?}", f.address, f.ports.0, f.targets))
        .collect();
    assert_eq!(
        leads,
        ["None 80 [(10.0.6.5, 80)]", "Some(::) 80 [(fd00:6::5, 80)]", "Some(2001:db8::1) 81 [(fd00:6::6, 81)]"]
    );
    // Without an address either could be meant.
    let ports = Ports::new(80, 80).unwrap();
    let delete = |address: Option<&str>| {
        let address = address.map(|text| text.parse().unwrap());
        registry.delete_forward("six", Protocol::Tcp, ports, address).map(|change| change.forward.at().address)
    };
    assert!(matches!(delete(None), Err(Refusal::WhichForward { .. })));
    assert_eq!(delete(Some("0.0.0.0")), Ok(None));
    assert_eq!(delete(Some("::")), Ok(Some("::".parse().unwrap())));
    // What comes from 127.0.0.1 is let out for the one of IPv4 only.
    let live = |registry: &Registry| registry.find_live("six").unwrap().1.desired.route_localnet;
    assert!(live(&registry));
    let change = registry.delete_forward("six", Protocol::Tcp, ports, Some("0.0.0.0".parse().unwrap())).unwrap();
    registry.forward_changed(change);
    assert!(!live(&registry));
}
