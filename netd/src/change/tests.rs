//! Old XML and new XML side by side with the steps between them; and that the steps do it, there and back.

use super::*;
use crate::port::Port;
use crate::{
    apply::{Executor, fake::Fake},
    plan::{
        InPlace, show,
        tests::{desired_of, port},
    },
};

/// What a network of these tests is made of, with other parts.
fn network(forward: &str, parts: &str) -> String {
    format!("<network><name>a</name>{forward}<bridge name='br-a'/>{parts}</network>")
}

const NAT: &str = "<forward mode='nat'/>";
const IP: &str = "<ip address='172.16.5.1' prefix='24'/>";

const IP6: &str = "<ip family='ipv6' address='fd00:5::1' prefix='64'/>";

fn dhcp(more: &str) -> String {
    format!(
        "<ip address='172.16.5.1' prefix='24'><dhcp><range start='172.16.5.10' end='172.16.5.20'/>{more}</dhcp></ip>"
    )
}

/// Every attribute of a network that can change: what it is called, the network before and after, the steps.
fn cases() -> Vec<(&'static str, String, String, &'static str)> {
    let forward = |to: &str| {
        format!(
            "{IP}<n:forwards xmlns:n='urn:netd:network:1'><n:forward proto='tcp' port='80'><n:to ip='{to}'/></n:forward>\
             </n:forwards>"
        )
    };
    let route = |rest: &str| format!("{IP}<route address='172.30.0.0' prefix='16' {rest}/>");
    vec![
        (
            "mtu up",
            network(NAT, IP),
            network(NAT, &format!("<mtu size='9000'/>{IP}")),
            "set the MTU of the tap with index 3 to 9000\nset the MTU of br-a to 9000\n",
        ),
        (
            "mtu down, DHCP tells it",
            network(NAT, &format!("<mtu size='9000'/>{}", dhcp(""))),
            network(NAT, &format!("<mtu size='1400'/>{}", dhcp(""))),
            "set the MTU of br-a to 1400\nset the MTU of the tap with index 3 to 1400\n\
             reconfigure the servers on br-a: MTU for guests 1400\n",
        ),
        (
            "spanning tree",
            network(NAT, IP),
            network(NAT, IP).replace("name='br-a'", "name='br-a' stp='on' delay='4'"),
            "turn on spanning tree on br-a with a delay of 4 s\n",
        ),
        (
            "another delay",
            network(NAT, IP).replace("name='br-a'", "name='br-a' stp='on' delay='4'"),
            network(NAT, IP).replace("name='br-a'", "name='br-a' stp='on' delay='7'"),
            "turn on spanning tree on br-a with a delay of 7 s\n",
        ),
        (
            "a delay without spanning tree",
            network(NAT, IP),
            network(NAT, IP).replace("name='br-a'", "name='br-a' delay='7'"),
            "",
        ),
        (
            "a second subnet",
            network(NAT, IP),
            network(NAT, &format!("{IP}<ip address='172.16.6.1' prefix='24'/>")),
            "add address 172.16.6.1/24 to br-a\n\
             reconfigure the servers on br-a: add DNS at 172.16.6.1; add DNS for the addresses of 172.16.6.0/24\n\
             replace the firewall rules of br-a\nguard the ports of a\n",
        ),
        (
            "another subnet",
            network("", IP),
            network("", "<ip address='172.16.7.1' prefix='24'/>"),
            "add address 172.16.7.1/24 to br-a\n\
             reconfigure the servers on br-a: remove DNS at 172.16.5.1; add DNS at 172.16.7.1; remove DNS for the addresses \
             of 172.16.5.0/24; add DNS for the addresses of 172.16.7.0/24\n\
             replace the firewall rules of br-a\nguard the ports of a\nremove address 172.16.5.1/24 from br-a\n",
        ),
        (
            "no address any more",
            network("", IP),
            network("", ""),
            "reconfigure the servers on br-a: stop DNS\nreplace the firewall rules of br-a\nguard the ports of a\n\
             remove address 172.16.5.1/24 from br-a\n",
        ),
        (
            "a route",
            network(NAT, IP),
            network(NAT, &route("gateway='172.16.5.2'")),
            "add route 172.30.0.0/16 via 172.16.5.2 dev br-a\n",
        ),
        (
            "another gateway",
            network(NAT, &route("gateway='172.16.5.2'")),
            network(NAT, &route("gateway='172.16.5.3'")),
            "replace the route 172.30.0.0/16 by one via 172.16.5.3 dev br-a\n",
        ),
        (
            "another metric",
            network(NAT, &route("gateway='172.16.5.2'")),
            network(NAT, &route("gateway='172.16.5.2' metric='9'")),
            "add route 172.30.0.0/16 via 172.16.5.2 dev br-a\nremove route 172.30.0.0/16 via 172.16.5.2 dev br-a\n",
        ),
        (
            "from masquerading to isolated",
            network(NAT, IP),
            network("", IP),
            "reconfigure the servers on br-a: stop asking upstream resolvers\nreplace the firewall rules of br-a\n\
             disable IPv4 forwarding\n",
        ),
        (
            "from isolated to routed",
            network("", IP),
            network("<forward mode='route'/>", IP),
            "reconfigure the servers on br-a: start asking upstream resolvers\nreplace the firewall rules of br-a\n\
             enable IPv4 forwarding\n",
        ),
        (
            "from masquerading to routed by one interface",
            network(NAT, IP),
            network("<forward mode='route' dev='eth0'/>", IP),
            "replace the firewall rules of br-a\n",
        ),
        (
            "DHCP on",
            network(NAT, IP),
            network(NAT, &dhcp("")),
            "reconfigure the servers on br-a: start DHCP\nguard the ports of a\n",
        ),
        (
            "a reservation and a pool",
            network(NAT, &dhcp("")),
            network(
                NAT,
                &dhcp("<host mac='52:54:00:00:00:09' ip='172.16.5.9'/><range start='172.16.5.30' end='172.16.5.40'/>"),
            ),
            "reconfigure the servers on br-a: add the pool 172.16.5.30-172.16.5.40, leases of 3600 s; \
             add the reservation of 172.16.5.9 for 52:54:00:00:00:09\n",
        ),
        (
            "names",
            network(NAT, IP),
            network(
                NAT,
                &format!(
                    "<domain name='lab.example' localOnly='yes'/><dns><host ip='172.16.5.8'><hostname>printer</hostname></host></dns>{IP}"
                ),
            ),
            "reconfigure the servers on br-a: DNS domain lab.example; names in the domain are never asked of upstream \
             resolvers; add the names printer of 172.16.5.8\n",
        ),
        (
            "DNS off",
            network(NAT, IP),
            network(NAT, &format!("<dns enable='no'/>{IP}")),
            "reconfigure the servers on br-a: stop DNS\n",
        ),
        (
            "DNS on",
            network(NAT, &format!("<dns enable='no'/>{IP}")),
            network(NAT, IP),
            "reconfigure the servers on br-a: start DNS\nreplace the firewall rules of br-a\n",
        ),
        (
            "isolated ports",
            network(NAT, IP),
            network(NAT, &format!("<port isolated='yes'/>{IP}")),
            "make the tap with index 3 isolated\n",
        ),
        (
            "a port forward",
            network(NAT, IP),
            network(NAT, &forward("172.16.5.9")),
            "replace the firewall rules of br-a\nlet 127.0.0.1 out by br-a\n",
        ),
        (
            "no port forward any more",
            network(NAT, &forward("172.16.5.9")),
            network(NAT, IP),
            "keep 127.0.0.1 off br-a\nreplace the firewall rules of br-a\n",
        ),
        (
            "a port forward elsewhere",
            network(NAT, &forward("172.16.5.9")),
            network(NAT, &forward("172.16.5.10")),
            "replace the firewall rules of br-a\n",
        ),
        (
            "IPv6 too",
            network("<forward mode='route'/>", IP),
            network(
                "<forward mode='route'/>",
                &format!("{IP}{IP6}<route family='ipv6' address='fd00:7::' prefix='64' gateway='fd00:5::2'/>"),
            ),
            "enable IPv6 on br-a\nadd address fd00:5::1/64 to br-a\nadd route fd00:7::/64 via fd00:5::2 dev br-a\n\
             reconfigure the servers on br-a: start router advertisements; add DNS at fd00:5::1; add DNS for the addresses of fd00:5::/64\n\
             replace the firewall rules of br-a\nguard the ports of a\n\
             accept router advertisements on eth0 also when forwarding\nenable IPv6 forwarding\n",
        ),
        (
            "IPv6 no more",
            network("<forward mode='route'/>", &format!("{IP}{IP6}")),
            network("<forward mode='route'/>", IP),
            "reconfigure the servers on br-a: stop router advertisements; remove DNS at fd00:5::1; remove DNS for the addresses of fd00:5::/64\n\
             replace the firewall rules of br-a\nguard the ports of a\nremove address fd00:5::1/64 from br-a\n\
             disable IPv6 on br-a\ndisable IPv6 forwarding\naccept router advertisements on eth0 only when not forwarding\n",
        ),
        (
            "bandwidth",
            network(NAT, IP),
            network(NAT, &format!("<bandwidth><inbound average='1000'/><outbound average='200'/></bandwidth>{IP}")),
            "limit br-a to 1000 kB/s out and 200 kB/s in\n",
        ),
        (
            "less bandwidth",
            network(NAT, &format!("<bandwidth><inbound average='1000'/></bandwidth>{IP}")),
            network(NAT, &format!("<bandwidth><inbound average='500'/></bandwidth>{IP}")),
            "limit br-a to 500 kB/s out and any speed in\n",
        ),
        (
            "a default port group with a limit",
            network(NAT, IP),
            network(
                NAT,
                &format!(
                    "{IP}<portgroup name='g' default='yes'><bandwidth><inbound average='300'/></bandwidth></portgroup>"
                ),
            ),
            "limit the port with index 3 to 300 kB/s out and any speed in\n",
        ),
        (
            "a MAC table that is taught",
            network(NAT, IP),
            network(NAT, IP).replace("name='br-a'", "name='br-a' macTableManager='libvirt'"),
            "make the tap with index 3 not isolated, taught\n",
        ),
        (
            "guests may not talk",
            network(NAT, IP),
            network(NAT, &format!("{IP}<n:guests xmlns:n='urn:netd:network:1' talk='no'/>")),
            "replace the firewall rules of br-a\nmake the tap with index 3 isolated\n",
        ),
        ("nothing", network(NAT, &dhcp("")), network(NAT, &dhcp("")), ""),
    ]
}

/// The forwards of a network as they would be in our table.
fn forwards(text: &str) -> Vec<nat::Forward> {
    let network = crate::xml::parse(text).unwrap();
    let mut registry = crate::registry::Registry::new(std::path::Path::new("/etc/resolv.conf"));
    registry.started(crate::registry::Live { network, desired: desired(text), journal: Vec::new() });
    registry.forwards(&crate::registry::forwards::Leased(Vec::new()))
}

fn desired(text: &str) -> Desired {
    let network = crate::xml::parse(text).unwrap();
    let ports = vec![plan::wish(&network, &port(3))];
    Desired { ports, shape: plan::network_shape(&network, &[&port(3)]), ..desired_of(text) }
}

/// A host on which the network runs, with a tap on its bridge.
async fn running(text: &str) -> Fake {
    let fake = Fake::new();
    let tap = crate::apply::fake::link(3, "vnet0", LinkKind::Tun);
    fake.world().host.links.push(tap);
    fake.world().next_index = 4;
    let desired = desired(text);
    if let Ground::Own(bridge) = &desired.ground {
        fake.world().host.links[2].mtu = bridge.mtu.unwrap_or(1500);
    }
    for in_place in [InPlace::default(), InPlace { firewall: true, services: true, forwards: true }] {
        for step in plan::plan(&desired, &fake.observe().await.unwrap(), in_place) {
            fake.run(&step).await.unwrap();
        }
    }
    fake.world().forwards = forwards(text);
    fake
}

fn ours() -> Shared {
    let keeps = Undo::RestoreRouterAdvertisements { interface: "eth0".into() };
    Shared { undos: vec![Undo::DisableForwarding6, keeps, Undo::DisableForwarding], others: Others::default() }
}

#[tokio::test]
async fn from_the_one_network_to_the_other_these_steps_lead_and_do_it() {
    for (what, from, to, expected) in cases() {
        let fake = running(&from).await;
        let (old, new) = (desired(&from), desired(&to));
        let (before, after) = (forwards(&from), forwards(&to));
        let there = Forwards { before: &before, after: &after };
        let found = fake.traces();
        let host = fake.observe().await.unwrap();
        let steps = plan(&old, &new, &host, &ours(), Some(there));
        assert_eq!(show(&steps), expected, "{what}");
        for step in &steps {
            fake.run(step).await.unwrap();
        }
        let host = fake.observe().await.unwrap();
        assert_eq!(show(&plan(&old, &new, &host, &ours(), None)), "", "{what}: done is done");
        let in_place = InPlace { firewall: true, services: true, forwards: true };
        assert_eq!(show(&plan::plan(&new, &host, in_place)), "", "{what}: it is as if started so");
        let tap = host.links.iter().find(|link| link.index == 3).unwrap();
        assert_eq!(tap.master, host.link("br-a").map(|bridge| bridge.index), "{what}: the tap stays where it is");
        if expected.is_empty() {
            continue;
        }
        for step in way_back(&old, &new, &host, &steps, Others::default(), there) {
            fake.run(&step).await.unwrap();
        }
        // Where there is no IPv6 these mean nothing.
        for link in fake.world().host.links.iter_mut().filter(|link| link.name == "br-a" && link.ipv6_disabled) {
            (link.accept_ra, link.autoconf) = (1, true);
        }
        assert_eq!(fake.traces(), found, "{what}: there and back");
    }
}

/// A network on a bridge of the host that filters VLANs, with one of our taps on it.
fn bridged(parts: &str) -> Desired {
    desired(&network("<forward mode='bridge'/>", parts))
}

#[tokio::test]
async fn ports_on_a_bridge_of_the_host_change_their_vlans_and_limits_and_come_back() {
    let limited = "<bandwidth><inbound average='1000'/></bandwidth><vlan><tag id='7'/></vlan>";
    let (plain, vlan) = (bridged(""), bridged(limited));
    let other = bridged("<vlan><tag id='8'/></vlan>");
    let fake = Fake::new();
    let kind = LinkKind::Bridge { stp: false, forward_delay: 1500, vlan_filtering: true };
    let mut tap = crate::apply::fake::link(3, "vnet0", LinkKind::Tun);
    tap.master = Some(4);
    let bridge_vlan = |id| PortVlan { id, native: true, untagged: true };
    {
        let mut world = fake.world();
        world.host.links.extend([tap, crate::apply::fake::link(4, "br-a", kind)]);
        world.host.default_vlans.insert(4, 1);
        world.host.vlans.insert(3, vec![bridge_vlan(1)]);
    }
    let found = fake.traces();
    let there = Forwards { before: &[], after: &[] };
    let settled = "make the tap with index 3 not isolated, untagged in VLAN";
    for (old, new, expected) in [
        (&plain, &vlan, format!("limit br-a to 1000 kB/s out and any speed in\n{settled} 7\n")),
        (&vlan, &other, format!("limit br-a to any speed out and any speed in\n{settled} 8\n")),
        (&other, &plain, format!("{settled} 1\n")),
    ] {
        let host = fake.observe().await.unwrap();
        let steps = plan(old, new, &host, &Shared::default(), Some(there));
        assert_eq!(show(&steps), expected);
        for step in &steps {
            fake.run(step).await.unwrap();
        }
        let done = fake.observe().await.unwrap();
        assert_eq!(show(&plan(old, new, &done, &Shared::default(), None)), "");
        for step in way_back(old, new, &done, &steps, Others::default(), there) {
            fake.run(&step).await.unwrap();
        }
        assert_eq!(fake.observe().await.unwrap(), host, "there and back");
        for step in &steps {
            fake.run(step).await.unwrap();
        }
    }
    assert_eq!(fake.traces(), found);
    let limits = [Step::ShapeBridge { bridge: "br-a".into(), shape: vlan.shape.clone() }];
    assert_eq!(journal(&[], &vlan, &limits), [Undo::FreeBridge { bridge: "br-a".into() }]);
}

#[test]
fn a_port_without_guards_is_let_go_when_its_bridge_learns_again() {
    let text = network("", "");
    let taught = text.replace("name='br-a'", "name='br-a' macTableManager='libvirt'");
    let free = Port { guards: false, ..port(3) };
    let with = |text: &str| {
        let network = crate::xml::parse(text).unwrap();
        Desired { ports: vec![plan::wish(&network, &free)], ..desired_of(text) }
    };
    let kind = LinkKind::Bridge { stp: false, forward_delay: 1500, vlan_filtering: false };
    let mut tap = crate::apply::fake::link(3, "vnet0", LinkKind::Tun);
    (tap.master, tap.taught) = (Some(4), true);
    let host = HostState { links: vec![tap, crate::apply::fake::link(4, "br-a", kind)], ..HostState::default() };
    let steps = plan(&with(&taught), &with(&text), &host, &Shared::default(), None);
    let released = format!("let {} be elsewhere than at the tap with index 3\n", free.mac);
    assert_eq!(show(&steps), format!("make the tap with index 3 not isolated\n{released}"));
}

#[test]
fn another_mac_is_one_step() {
    let old = desired(&network(NAT, IP));
    let mut new = old.clone();
    let mac = "52:54:00:00:00:77".parse().unwrap();
    let (Ground::Own(was), Ground::Own(own)) = (&old.ground, &mut new.ground) else { panic!("{old:?}") };
    own.mac = mac;
    let own = own.clone();
    let mut bridge = crate::apply::fake::link(
        9,
        "br-a",
        LinkKind::Bridge { stp: false, forward_delay: 1500, vlan_filtering: false },
    );
    bridge.mac = Some(was.mac);
    let host = HostState { links: vec![bridge], ..HostState::default() };
    let steps = settings((&old, was), (&new, &own), &host, &host.links[0]);
    assert_eq!(show(&steps), "set the MAC of br-a to 52:54:00:00:00:77\n");
    let undos = [Undo::DeleteBridge { name: "br-a".into(), mac: was.mac }];
    assert_eq!(journal(&undos, &new, &steps), [Undo::DeleteBridge { name: "br-a".into(), mac }]);
}

#[test]
fn what_others_need_stays_and_what_they_made_is_not_ours_to_take() {
    let (old, new) = (desired(&network(NAT, IP)), desired(&network("", IP)));
    let bridge = crate::apply::fake::link(
        9,
        "br-a",
        LinkKind::Bridge { stp: false, forward_delay: 1500, vlan_filtering: false },
    );
    let host = HostState { links: vec![bridge], forwarding: true, ..HostState::default() };
    let needed = Shared { others: Others { active: true, forwarding: true, forwarding6: false }, ..ours() };
    let found = Shared::default();
    for (shared, expected) in [(needed, false), (found, false), (ours(), true)] {
        let steps = plan(&old, &new, &host, &shared, None);
        let disables = steps.contains(&Step::Live(LiveStep::TakeBack(Undo::DisableForwarding)));
        assert_eq!(disables, expected, "{shared:?}");
    }
}
