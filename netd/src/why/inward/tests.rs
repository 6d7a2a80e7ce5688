//! Ladders of flows to guests, from values.

use std::collections::BTreeMap;

use nat::trace::{Packet, TABLE, Verdict, Walk, place};

use super::*;
use crate::{
    doctor::{Finding, Verdict as Told},
    observe::way::{PortLook, Way},
    why::{Routing, Traced, tests::vm1},
};

const GUEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 122, 45));
const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 2));
const OUTSIDE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 9));

/// A forward from outside.
fn question() -> Inward {
    Inward {
        port: vm1(),
        bridge: Some("virbr0".into()),
        source: OUTSIDE,
        target: HOST,
        protocol: Protocol::Tcp(2222),
        forwarded: true,
        ends: vec![End { interface: "vnet0".into(), address: GUEST, protocol: Protocol::Tcp(22) }],
        may_probe: true,
        patience: 10,
    }
}

/// A step of the packet there (1) or back (2).
fn walk(id: u32, family: &'static str, table: &str, base: &str) -> Walk {
    let (source, target) = if id == 1 { (OUTSIDE, GUEST) } else { (GUEST, OUTSIDE) };
    let output = match base {
        place::DELIVERED => Some(7),
        _ => None,
    };
    let packet = Packet { source: Some(source), target: Some(target), output, ..Packet::default() };
    let matched = matches!(base, place::CAME | place::PORT);
    let (table, base, chain) = (table.into(), base.into(), base.into());
    Walk { id, family, table, base, packet, matched, chain, rule: None, verdict: Verdict::Accept }
}

fn healthy() -> InwardFacts {
    let facts = Facts {
        port: Some(PortLook { up: true, carrier: true, master: Some(3), forwarding: true, isolated: false }),
        bridge: Some(3),
        routing: Some(Routing {
            way: Way::Via { link: 3, gateway: None },
            forwarding: true,
            rp_filter: 0,
            back: Some(2),
        }),
        traced: Traced::Probe,
        no_probe: None,
        walks: vec![
            walk(1, "inet", TABLE, place::CAME),
            walk(1, "inet", TABLE, place::ARRIVED),
            walk(1, "ip", "filter", "FORWARD"),
            walk(1, "inet", "netd", "forward"),
            walk(1, "inet", TABLE, place::LEFT),
            walk(1, "bridge", TABLE, place::DELIVERED),
            walk(2, "bridge", TABLE, place::PORT),
            walk(2, "bridge", "netd", "prerouting"),
            walk(2, "inet", TABLE, place::ARRIVED),
            walk(2, "inet", TABLE, place::LEFT),
        ],
        listings: BTreeMap::new(),
        rules: None,
        legacy: Vec::new(),
        legacy_drops: Vec::new(),
        links: [(2, "uplink".into()), (3, "virbr0".into()), (7, "vnet0".into())].into(),
        silent_hop: None,
    };
    InwardFacts { facts, arrival: Arrival::Link(2), source: OUTSIDE }
}

fn one(question: &Inward, facts: &InwardFacts) -> (&'static str, String, String) {
    let found: Vec<Finding> =
        explain(question, facts).into_iter().filter(|finding| finding.verdict == Told::Fail).collect();
    let [one] = found.as_slice() else { panic!("{found:#?}") };
    (one.check, one.says.clone().unwrap_or_default(), one.mend.clone().unwrap_or_default())
}

/// With the first walks only, the last of which dropped it.
fn dropped_at(number: usize) -> InwardFacts {
    let mut seen = healthy();
    seen.facts.walks.truncate(number);
    seen.facts.walks.last_mut().unwrap().verdict = Verdict::Drop;
    seen
}

#[test]
fn what_gets_through_passes_every_stage_in_order() {
    let ladder = explain(&question(), &healthy());
    let told: Vec<(&str, Told)> = ladder.iter().map(|finding| (finding.check, finding.verdict)).collect();
    let stages =
        ["forward", "port", "arrival", "packet", "forwarding", "route", "rules", "rules", "delivered", "answer"];
    assert_eq!(told, stages.map(|stage| (stage, Told::Pass)), "{ladder:#?}");
    assert_eq!(ladder[0].says.as_deref(), Some("it leads to 192.168.122.45:22"));
}

#[test]
fn netds_own_rule_and_other_tables_are_told_with_what_lets_it_in() {
    let direct = Inward { target: GUEST, protocol: Protocol::Tcp(22), forwarded: false, ..question() };
    let (check, says, mend) = one(&direct, &dropped_at(4));
    assert_eq!((check, mend.as_str()), ("rules", "netd forward-add default tcp/22 vm1:22"), "{says}");
    assert!(says.starts_with("netd's own policy drop: by its forward mode network 'default' lets in no"), "{says}");
    let (_, says, mend) = one(&direct, &dropped_at(3));
    assert_eq!((says.as_str(), mend.as_str()), ("policy drop drops it", "sudo nft -a list chain ip filter FORWARD"));
}

#[test]
fn the_guards_are_told_of_where_they_drop_the_answer() {
    let mut seen = dropped_at(8);
    seen.facts.walks[7].chain = "bad_ip".into();
    let (check, says, _) = one(&question(), &seen);
    assert_eq!(check, "guards");
    assert!(says.contains("192.168.122.45 is not an address of the guest"), "{says}");
    // It is sent again, and dropped again.
    let again = Walk { id: 3, ..seen.facts.walks[7].clone() };
    seen.facts.walks.push(again);
    assert_eq!(one(&question(), &seen).0, "guards");
}

#[test]
fn what_stays_with_the_host_what_nobody_answers_and_what_is_lost_are_told_apart() {
    let mut seen = healthy();
    seen.facts.walks.truncate(2);
    let (check, says, mend) = one(&question(), &seen);
    assert!(check == "delivered" && says.contains("last seen in table inet netd_why chain arrived"), "{says} {mend}");
    seen.facts.legacy = vec!["filter".into()];
    seen.facts.legacy_drops = vec!["rule '-A FORWARD -j DROP' of iptables-legacy table filter".into()];
    let (_, says, _) = one(&question(), &seen);
    assert!(says.ends_with("rule '-A FORWARD -j DROP' of iptables-legacy table filter dropped a packet meanwhile"));
    seen.facts.walks.push(walk(1, "inet", TABLE, place::HOST));
    assert_eq!(one(&question(), &seen).2, "netd forward-list");
    seen.facts.silent_hop = Some(GUEST);
    assert_eq!(one(&question(), &seen).0, "next-hop");
    let mut elsewhere = healthy();
    elsewhere.facts.walks[5].packet.output = Some(2);
    assert!(one(&question(), &elsewhere).1.starts_with("the bridge sends it by uplink"));
}

#[test]
fn routing_and_where_it_comes_from_are_told() {
    let with = |arrival, way, forwarding| {
        let mut seen = healthy();
        seen.arrival = arrival;
        seen.facts.walks.truncate(2);
        seen.facts.routing = Some(Routing { way, forwarding, rp_filter: 0, back: Some(2) });
        one(&question(), &seen).0
    };
    let (there, nowhere) = (Way::Via { link: 3, gateway: None }, Way::Nowhere(libc::EHOSTUNREACH));
    assert_eq!(with(Arrival::Nowhere(libc::ENETUNREACH), there.clone(), true), "arrival");
    assert_eq!(with(Arrival::Link(3), there, true), "arrival");
    assert_eq!(with(Arrival::Link(2), nowhere.clone(), false), "forwarding");
    assert_eq!(with(Arrival::Link(2), nowhere, true), "route");
    assert_eq!(with(Arrival::Link(2), Way::Via { link: 2, gateway: None }, true), "route");
}

#[test]
fn a_refusal_and_silence_of_the_guest_are_no_fault_of_the_host() {
    let mut seen = healthy();
    seen.facts.walks[9].packet.reset = true;
    let answer = explain(&question(), &seen).pop().unwrap();
    assert!(answer.verdict == Told::Pass && answer.says.unwrap().contains("vm1 refuses the connection"));
    seen.facts.walks.truncate(6);
    assert_eq!(explain(&question(), &seen).pop().unwrap().verdict, Told::Warn);
    seen.facts.walks[5].packet.icmp = None;
    let own = InwardFacts { arrival: Arrival::Own, ..healthy() };
    // What left is another's: an answer to the host's own question ends at the host.
    assert_eq!(explain(&question(), &own).pop().unwrap().verdict, Told::Warn);
}
