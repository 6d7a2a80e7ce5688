//! Plans: what they contain, in what order, and that a plan carried out leaves nothing to plan.

mod golden;

use std::path::Path;

use nat::guards::{Sources, Sources4};

use super::*;
use crate::{
    apply::{Executor, fake::Fake},
    model::Network,
    port::Port,
    xml,
};

/// Networks of every kind we make.
pub(crate) const TOPOLOGIES: [(&str, &str); 9] = [
    ("shipped", crate::registry::shipped::XML),
    ("isolated, without an address", "<network><name>a</name><bridge name='br-a'/></network>"),
    (
        "isolated, with DHCP",
        "<network><name>a</name><bridge name='br-a'/><ip address='172.16.5.1' prefix='24'><dhcp>\
         <range start='172.16.5.10' end='172.16.5.20'/></dhcp></ip></network>",
    ),
    (
        "routed, two subnets, routes",
        "<network><name>a</name><forward mode='route'/><bridge name='br-a'/>\
         <ip address='172.16.5.1' prefix='24'/><ip address='172.16.6.1' prefix='24'/>\
         <route address='172.30.0.0' prefix='16' gateway='172.16.5.2'/>\
         <route address='172.31.0.0' prefix='16' gateway='172.16.6.2' metric='7'/></network>",
    ),
    (
        "open, spanning tree",
        "<network><name>a</name><forward mode='open'/><bridge name='br-a' stp='on' delay='3'/>\
         <ip address='172.16.5.1' prefix='24'/></network>",
    ),
    (
        "masquerading, port forwards",
        "<network><name>a</name><forward mode='nat'/><bridge name='br-a'/><ip address='172.16.5.1' prefix='24'/>\
         <n:forwards xmlns:n='urn:netd:network:1'><n:forward proto='tcp' port='80'><n:to ip='172.16.5.9'/>\
         </n:forward></n:forwards></network>",
    ),
    (
        "masquerading, jumbo frames",
        "<network><name>a</name><forward mode='nat'/><bridge name='br-a'/><mtu size='9000'/>\
         <ip address='172.16.5.1' prefix='24'/></network>",
    ),
    (
        "masquerading, both families, a route",
        "<network><name>a</name><forward mode='nat'><nat ipv6='yes'/></forward><bridge name='br-a'/>\
         <ip address='172.16.5.1' prefix='24'/><ip family='ipv6' address='fd00:5::1' prefix='64'/>\
         <route family='ipv6' address='fd00:6::' prefix='48' gateway='fd00:5::2'/></network>",
    ),
    (
        "isolated, IPv6 only",
        "<network><name>a</name><bridge name='br-a'/><ip family='ipv6' address='fd00:5::1' prefix='64'/></network>",
    ),
];

const IN_PLACE: InPlace = InPlace { firewall: true, services: true, forwards: true };

/// What the network of this XML is made of.
pub(crate) fn desired_of(text: &str) -> Desired {
    let network = xml::parse(text).unwrap();
    let mac = Some("52:54:00:aa:bb:cc".parse().unwrap());
    let network = Network { mac, ..network };
    desired(&network, ground(&network).unwrap(), Path::new("/etc/resolv.conf"), &[])
}

/// A tap with this index.
pub(crate) fn port(index: u32) -> Port {
    Port {
        interface: format!("vnet{index}"),
        index,
        network: "a".into(),
        guest: None,
        mac: "52:54:00:aa:bb:dd".parse().unwrap(),
        mtu: 1500,
        queues: 1,
        guards: true,
        group: None,
        host_bridge: None,
        macvtap: None,
        kept: false,
    }
}

#[test]
fn the_shipped_network_takes_these_steps() {
    let steps = plan(&desired_of(crate::registry::shipped::XML), &HostState::default(), InPlace::default());
    assert_eq!(
        show(&steps),
        "create bridge virbr0 with MAC 52:54:00:aa:bb:cc\n\
         disable IPv6 on virbr0\n\
         add address 192.168.122.1/24 to virbr0\n\
         set virbr0 up\n\
         serve DHCP DNS on virbr0\n\
         add the firewall rules of virbr0\n\
         enable IPv4 forwarding\n"
    );
}

#[test]
fn a_network_of_both_families_takes_these_steps() {
    let fake = Fake::new();
    let host = fake.world().host.clone();
    let (_, both) = TOPOLOGIES[7];
    let steps = plan(&desired_of(both), &host, InPlace::default());
    assert_eq!(
        show(&steps),
        "create bridge br-a with MAC 52:54:00:aa:bb:cc\n\
         enable IPv6 on br-a\n\
         add address 172.16.5.1/24 to br-a\n\
         add address fd00:5::1/64 to br-a\n\
         set br-a up\n\
         add route fd00:6::/48 via fd00:5::2 dev br-a\n\
         serve RA DNS on br-a\n\
         add the firewall rules of br-a\n\
         enable IPv4 forwarding\n\
         accept router advertisements on eth0 also when forwarding\n\
         enable IPv6 forwarding\n"
    );
    let undos: Vec<String> = unwind(&steps).iter().map(Undo::to_string).collect();
    assert_eq!(
        undos[..3],
        [
            "disable IPv6 forwarding",
            "accept router advertisements on eth0 only when not forwarding",
            "disable IPv4 forwarding"
        ]
    );
}

#[test]
fn undoing_goes_backwards_and_skips_what_goes_with_the_bridge() {
    let (_, routed) = TOPOLOGIES[3];
    let steps = plan(&desired_of(routed), &HostState::default(), InPlace::default());
    let undos: Vec<String> = unwind(&steps).iter().map(Undo::to_string).collect();
    assert_eq!(
        undos,
        [
            "disable IPv4 forwarding",
            "remove the firewall rules of br-a",
            "stop DHCP and DNS of a",
            "delete bridge br-a"
        ]
    );
}

#[test]
fn undoing_steps_on_a_bridge_that_was_there_takes_each_back() {
    let (_, routed) = TOPOLOGIES[3];
    let steps: Vec<Step> =
        plan(&desired_of(routed), &HostState::default(), InPlace { firewall: true, services: true, forwards: true })
            .into_iter()
            .filter(|step| matches!(step, Step::AddAddress { .. } | Step::AddRoute { .. }))
            .collect();
    assert_eq!(unwind(&steps).len(), 4);
}

#[test]
fn a_shared_thing_is_left_to_the_others() {
    let journal = [Undo::DisableForwarding, Undo::RemoveFirewall(desired_of(TOPOLOGIES[0].1).firewall)];
    let alone = teardown(&journal, Others::default());
    assert_eq!(alone, [Undo::DisableForwarding, Undo::RemoveTable]);
    let among_others = teardown(&journal, Others { active: true, forwarding: true, forwarding6: false });
    assert_eq!(among_others, journal[1..]);
}

#[tokio::test]
async fn a_plan_carried_out_leaves_nothing_to_plan() {
    for (name, text) in TOPOLOGIES {
        let fake = Fake::new();
        let desired = desired_of(text);
        for step in plan(&desired, &fake.observe().await.unwrap(), InPlace::default()) {
            fake.run(&step).await.unwrap();
        }
        // What 127.0.0.1 needs comes after the rules that guard it.
        for step in plan(&desired, &fake.observe().await.unwrap(), IN_PLACE) {
            assert_eq!(step, Step::RouteLocalnet { bridge: "br-a".into(), on: true }, "{name}");
            fake.run(&step).await.unwrap();
        }
        let host = fake.observe().await.unwrap();
        let left = plan(&desired, &host, IN_PLACE);
        assert_eq!(show(&left), "", "{name}");
    }
}

#[tokio::test]
async fn whatever_one_thing_is_disturbed_the_plan_puts_it_back() {
    let in_place = IN_PLACE;
    for (name, text) in TOPOLOGIES {
        let desired = desired_of(text);
        let fake = Fake::new();
        for now in [InPlace::default(), in_place] {
            for step in plan(&desired, &fake.observe().await.unwrap(), now) {
                fake.run(&step).await.unwrap();
            }
        }
        let whole = fake.observe().await.unwrap();
        let bridge = whole.link(desired.bridge().unwrap()).unwrap().index;
        let disturbances: [fn(&mut HostState, u32); 10] = [
            |host, bridge| host.links.iter_mut().filter(|l| l.index == bridge).for_each(|l| l.up = false),
            |host, bridge| host.links.iter_mut().filter(|l| l.index == bridge).for_each(|l| l.mac = None),
            |host, bridge| host.links.iter_mut().filter(|l| l.index == bridge).for_each(|l| l.ipv6_disabled = false),
            |host, bridge| host.addresses.retain(|address| address.link != bridge),
            |host, bridge| host.routes.retain(|route| route.link != Some(bridge) || route.gateway.is_none()),
            |host, _| host.forwarding = false,
            |host, _| host.forwarding6 = false,
            |host, bridge| host.links.iter_mut().filter(|l| l.index == bridge).for_each(|l| l.ipv6_disabled = true),
            |host, bridge| host.links.iter_mut().filter(|l| l.index == bridge).for_each(|l| l.route_localnet = false),
            |host, bridge| host.links.iter_mut().filter(|l| l.index == bridge).for_each(|l| l.route_localnet = true),
        ];
        for disturb in disturbances {
            let mut host = whole.clone();
            disturb(&mut host, bridge);
            let expected = host != whole;
            let steps = plan(&desired, &host, in_place);
            assert_eq!(!steps.is_empty(), expected, "{name}: {}", show(&steps));
            fake.world().host = host;
            for step in steps {
                fake.run(&step).await.unwrap();
            }
            let left = plan(&desired, &fake.observe().await.unwrap(), in_place);
            assert_eq!(show(&left), "", "{name}");
        }
    }
}

#[tokio::test]
async fn waiting_ports_are_guarded_before_they_are_plugged_and_isolated_where_the_network_says_so() {
    let text = "<network><name>a</name><bridge name='br-a'/><port isolated='yes'/><ip address='172.16.5.1' \
                prefix='24'/></network>";
    let fake = Fake::new();
    let mut desired = desired_of(text);
    let tap = |index, name: &str| crate::apply::fake::link(index, name, crate::host::LinkKind::Tun);
    fake.world().host.links.extend([tap(40, "vnet0"), tap(41, "vnet1")]);
    let network = crate::xml::parse(text).unwrap();
    desired.ports = [40, 41, 42].map(|index| wish(&network, &port(index))).into();
    let steps = plan(&desired, &fake.observe().await.unwrap(), InPlace::default());
    let ports = "guard the ports of a\nput the tap with index 40 on br-a\nput the tap with index 41 on br-a\n";
    assert!(show(&steps).ends_with(ports), "{}", show(&steps));
    for step in steps {
        fake.run(&step).await.unwrap();
    }
    let in_place = IN_PLACE;
    let mut host = fake.observe().await.unwrap();
    assert_eq!(show(&plan(&desired, &host, in_place)), "");
    for link in host.links.iter_mut().filter(|link| link.index == 41) {
        link.isolated = false;
    }
    assert_eq!(show(&plan(&desired, &host, in_place)), "make the tap with index 41 isolated\n");
    desired.ports[0].place.isolated = false;
    let both = "make the tap with index 40 not isolated\nmake the tap with index 41 isolated\n";
    assert_eq!(show(&plan(&desired, &host, in_place)), both);
}

#[test]
fn ports_may_use_their_leases_or_where_there_is_no_dhcp_the_subnets_without_the_host() {
    let sources: Vec<Sources> = TOPOLOGIES.iter().map(|(_, text)| desired_of(text).sources).collect();
    assert_eq!(sources[0].ipv4, Sources4::Leases);
    assert_eq!(sources[1].ipv4, Sources4::Network { subnets: vec![], host: vec![] });
    assert_eq!(sources[1].bridge, "br-a");
    assert_eq!(
        sources[3].ipv4,
        Sources4::Network {
            subnets: vec!["172.16.5.0/24".parse().unwrap(), "172.16.6.0/24".parse().unwrap()],
            host: vec!["172.16.5.1".parse().unwrap(), "172.16.6.1".parse().unwrap()],
        }
    );
}

#[test]
fn ports_may_claim_addresses_of_the_ipv6_subnets_or_any_where_the_xml_says_so_and_never_the_hosts() {
    let sources6 = |text: &str| desired_of(text).sources.ipv6;
    let texts = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<std::net::Ipv6Addr>>();
    let both = sources6(TOPOLOGIES[7].1);
    assert_eq!(both.prefixes, ["fd00:5::/64".parse().unwrap()]);
    assert_eq!(both.host, texts(&["fd00:5::1", "fe80::5054:ff:feaa:bbcc"]));
    assert_eq!(sources6(TOPOLOGIES[1].1), nat::guards::Sources6::default());
    let any = sources6("<network ipv6='yes'><name>a</name><bridge name='br-a'/></network>");
    assert_eq!(any.prefixes, nat::guards::Sources6::any());
}
