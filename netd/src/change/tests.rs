//! Old XML and new XML side by side with the steps between them; and that the steps do it, there and back.

use super::*;
use crate::{
    apply::{Executor, fake::Fake},
    plan::{InPlace, show, tests::desired_of},
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
            "isolate the tap with index 3\n",
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
             reconfigure the servers on br-a: add DNS at fd00:5::1; add DNS for the addresses of fd00:5::/64\n\
             replace the firewall rules of br-a\nguard the ports of a\n\
             accept router advertisements on eth0 also when forwarding\nenable IPv6 forwarding\n",
        ),
        (
            "IPv6 no more",
            network("<forward mode='route'/>", &format!("{IP}{IP6}")),
            network("<forward mode='route'/>", IP),
            "reconfigure the servers on br-a: remove DNS at fd00:5::1; remove DNS for the addresses of fd00:5::/64\n\
             replace the firewall rules of br-a\nguard the ports of a\nremove address fd00:5::1/64 from br-a\n\
             disable IPv6 on br-a\ndisable IPv6 forwarding\naccept router advertisements on eth0 only when not forwarding\n",
        ),
        ("nothing", network(NAT, &dhcp("")), network(NAT, &dhcp("")), ""),
    ]
}

/// The forwards of a network as they would be in our table.
fn forwards(text: &str) -> Vec<nat::Forward> {
    let network = crate::xml::parse(text).unwrap();
    let mut registry = crate::registry::Registry::new(std::path::Path::new("/etc/resolv.conf"));
    registry.started(crate::registry::Live { network, desired: desired(text), journal: Vec::new() });
    registry.forwards(|_| Vec::new())
}

fn desired(text: &str) -> Desired {
    Desired { ports: vec![3], ..desired_of(text) }
}

/// A host on which the network runs, with a tap on its bridge.
async fn running(text: &str) -> Fake {
    let fake = Fake::new();
    let tap = crate::apply::fake::link(3, "vnet0", LinkKind::Tun);
    fake.world().host.links.push(tap);
    fake.world().next_index = 4;
    let desired = desired(text);
    fake.world().host.links[2].mtu = desired.bridge.mtu.unwrap_or(1500);
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

#[test]
fn another_mac_is_one_step() {
    let old = desired(&network(NAT, IP));
    let mut new = old.clone();
    new.bridge.mac = "52:54:00:00:00:77".parse().unwrap();
    let mut bridge = crate::apply::fake::link(9, "br-a", LinkKind::Bridge { stp: false, forward_delay: 1500 });
    bridge.mac = Some(old.bridge.mac);
    let host = HostState { links: vec![bridge], ..HostState::default() };
    let steps = settings(&old, &new, &host, &host.links[0]);
    assert_eq!(show(&steps), "set the MAC of br-a to 52:54:00:00:00:77\n");
    let undos = [Undo::DeleteBridge { name: "br-a".into(), mac: old.bridge.mac }];
    assert_eq!(journal(&undos, &new, &steps), [Undo::DeleteBridge { name: "br-a".into(), mac: new.bridge.mac }]);
}

#[test]
fn what_others_need_stays_and_what_they_made_is_not_ours_to_take() {
    let (old, new) = (desired(&network(NAT, IP)), desired(&network("", IP)));
    let bridge = crate::apply::fake::link(9, "br-a", LinkKind::Bridge { stp: false, forward_delay: 1500 });
    let host = HostState { links: vec![bridge], forwarding: true, ..HostState::default() };
    let needed = Shared { others: Others { active: true, forwarding: true, forwarding6: false }, ..ours() };
    let found = Shared::default();
    for (shared, expected) in [(needed, false), (found, false), (ours(), true)] {
        let steps = plan(&old, &new, &host, &shared, None);
        let disables = steps.contains(&Step::Live(LiveStep::TakeBack(Undo::DisableForwarding)));
        assert_eq!(disables, expected, "{shared:?}");
    }
}
