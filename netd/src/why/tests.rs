//! Ladders from values: what each stage says, and that the first fault is the one told.

use nat::trace::{Packet, TABLE, Verdict, Walk, place};

use super::*;
use crate::doctor::{Finding, Verdict as Told};

pub(super) fn vm1() -> Port {
    Port {
        interface: "vnet0".into(),
        index: 7,
        network: "default".into(),
        guest: Some("vm1".into()),
        mac: "52:54:00:12:34:56".parse().unwrap(),
        mtu: 1500,
        queues: 1,
        guards: true,
        group: None,
        host_bridge: None,
        macvtap: None,
        kept: false,
    }
}

fn question() -> Question {
    Question {
        port: vm1(),
        bridge: Some("virbr0".into()),
        isolated: false,
        source: Some([192, 168, 122, 45].into()),
        known: Some([192, 168, 122, 45].into()),
        target: [1, 1, 1, 1].into(),
        protocol: Protocol::Tcp(443),
        peer: None,
        may_probe: true,
        patience: 10,
    }
}

fn walk(family: &'static str, table: &str, base: &str, verdict: Verdict) -> Walk {
    let packet = Packet { input: Some(7), source: Some([192, 168, 122, 45].into()), ..Packet::default() };
    let matched = base == place::ANSWER;
    let (table, base, chain) = (table.into(), base.into(), base.into());
    Walk { id: 1, family, table, base, packet, matched, chain, rule: None, verdict }
}

fn at(place: &str) -> Walk {
    let family = if matches!(place, place::PORT | place::CHECKED | place::BRIDGED) { "bridge" } else { "inet" };
    walk(family, TABLE, place, Verdict::Accept)
}

fn out(walk: Walk, output: u32) -> Walk {
    Walk { id: 2, packet: Packet { input: None, output: Some(output), ..walk.packet }, ..walk }
}

/// A host that lets everything through, and the way of a question and its answer through it.
fn healthy() -> Facts {
    let port = PortLook { up: true, carrier: true, master: Some(3), forwarding: true, isolated: false };
    let guards = walk("bridge", "netd", "prerouting", Verdict::Accept);
    let forward = walk("ip", "filter", "FORWARD", Verdict::Accept);
    Facts {
        port: Some(port),
        bridge: Some(3),
        routing: Some(Routing {
            way: Way::Via { link: 2, gateway: Some([203, 0, 113, 1].into()) },
            forwarding: true,
            rp_filter: 0,
            back: Some(3),
        }),
        traced: Traced::Probe,
        no_probe: None,
        walks: vec![
            at(place::PORT),
            guards,
            at(place::CHECKED),
            at(place::ARRIVED),
            forward,
            at(place::FORWARDED),
            Walk { packet: Packet { output: Some(2), input: None, ..Packet::default() }, ..at(place::LEFT) },
            out(at(place::ANSWER), 0),
            out(walk("bridge", TABLE, place::DELIVERED, Verdict::Accept), 7),
        ],
        listings: BTreeMap::new(),
        rules: None,
        legacy: Vec::new(),
        legacy_drops: Vec::new(),
        links: [(2, "uplink".into()), (3, "virbr0".into()), (7, "vnet0".into())].into(),
        silent_hop: None,
    }
}

fn failures(question: &Question, facts: &Facts) -> Vec<(&'static str, String, String)> {
    explain(question, facts)
        .into_iter()
        .filter(|finding| finding.verdict == Told::Fail)
        .map(|finding| (finding.check, finding.says.unwrap_or_default(), finding.mend.unwrap_or_default()))
        .collect()
}

fn one(question: &Question, facts: &Facts) -> (&'static str, String, String) {
    let found = failures(question, facts);
    let [one] = found.as_slice() else { panic!("{found:#?}") };
    one.clone()
}

#[test]
fn what_gets_through_passes_every_stage_in_order() {
    let ladder = explain(&question(), &healthy());
    let told: Vec<(&str, Told)> = ladder.iter().map(|finding: &Finding| (finding.check, finding.verdict)).collect();
    let stages = ["port", "address", "packet", "guards", "forwarding", "route", "rules", "left", "answer"];
    assert_eq!(told, stages.map(|stage| (stage, Told::Pass)));
}

#[test]
fn a_drop_is_told_with_the_rule_and_nothing_is_said_of_what_comes_behind() {
    let mut facts = healthy();
    facts.walks.truncate(5);
    facts.walks[4].verdict = Verdict::Drop;
    facts.walks[4].chain = "ufw-user".into();
    facts.walks[4].rule = Some(9);
    facts.listings.insert(("ip".into(), "filter".into()), "\t\tip daddr 1.1.1.1 drop # handle 9\n".into());
    let (check, says, mend) = one(&question(), &facts);
    assert_eq!((check, says.as_str()), ("rules", "rule 'ip daddr 1.1.1.1 drop' in chain ufw-user drops it"));
    assert_eq!(mend, "sudo nft -a list chain ip filter ufw-user");
    assert!(!explain(&question(), &facts).iter().any(|finding| matches!(finding.check, "left" | "answer")));
}

#[test]
fn a_guard_says_what_it_takes_offence_at() {
    let mut facts = healthy();
    facts.walks.truncate(2);
    facts.walks[1].verdict = Verdict::Drop;
    facts.walks[1].chain = "bad_ip".into();
    facts.walks[1].packet.source = Some([10, 0, 0, 9].into());
    let (check, says, _) = one(&question(), &facts);
    assert_eq!(check, "guards");
    assert_eq!(says, "they drop it: 10.0.0.9 is not an address of the guest; its own is 192.168.122.45");
}

#[test]
fn routing_faults_are_told_by_their_own_names() {
    let with = |way, forwarding, rp_filter, back| {
        let mut facts = healthy();
        facts.walks.truncate(4);
        facts.routing = Some(Routing { way, forwarding, rp_filter, back });
        one(&question(), &facts)
    };
    let (check, says, mend) = with(Way::Nowhere(libc::EHOSTUNREACH), false, 0, Some(3));
    assert_eq!((check, mend.as_str()), ("forwarding", "sudo sysctl -w net.ipv4.ip_forward=1"), "{says}");
    let (check, says, _) = with(Way::Nowhere(libc::ENETUNREACH), true, 0, Some(3));
    assert_eq!((check, says.as_str()), ("route", "there is none: the host itself cannot get there"));
    let (check, says, _) = with(Way::Nowhere(libc::EXDEV), true, 1, Some(2));
    assert_eq!(check, "reverse-path");
    assert!(says.ends_with("the host's way there is uplink"), "{says}");
}

#[test]
fn a_packet_that_no_rule_drops_and_that_never_leaves_is_lost() {
    let mut facts = healthy();
    facts.walks.truncate(5);
    facts.legacy = vec!["filter".into()];
    let (check, says, mend) = one(&question(), &facts);
    assert_eq!((check, mend.as_str()), ("left", "sudo netd doctor"));
    assert!(says.contains("table ip filter chain FORWARD") && says.contains("legacy iptables"), "{says}");
}

#[test]
fn an_answer_that_is_dropped_is_told_from_one_that_never_came() {
    let mut facts = healthy();
    facts.walks.truncate(8);
    let silent = explain(&question(), &facts).pop().unwrap();
    assert_eq!((silent.check, silent.verdict), ("answer", Told::Warn));
    facts.walks.push(Walk { id: 2, ..walk("inet", "fw", "forward", Verdict::Drop) });
    facts.walks[8].packet.input = Some(2);
    let (check, says, _) = one(&question(), &facts);
    assert_eq!((check, says.as_str()), ("rules", "policy drop drops the answer"));
}

#[test]
fn a_silent_next_hop_a_refusal_and_an_error_are_told() {
    let mut facts = healthy();
    facts.walks[8].packet.reset = true;
    let answer = explain(&question(), &facts).pop().unwrap();
    assert!(answer.verdict == Told::Pass && answer.says.unwrap().contains("refuses the connection"));
    facts.walks[8].packet =
        Packet { output: Some(7), icmp: Some((3, 1)), source: Some([9, 9, 9, 9].into()), ..Packet::default() };
    assert!(one(&question(), &facts).1.starts_with("9.9.9.9 says that it cannot be delivered"));
    facts.walks.truncate(7);
    facts.silent_hop = Some([203, 0, 113, 1].into());
    assert_eq!(one(&question(), &facts).1, "nobody at 203.0.113.1 answers on uplink");
}

#[test]
fn a_port_out_of_place_an_inactive_network_and_two_isolated_ports_are_told() {
    let mut facts = healthy();
    facts.port.as_mut().unwrap().master = Some(2);
    assert_eq!(one(&question(), &facts).1, "it is on uplink");
    let inactive = Question { bridge: None, ..question() };
    assert_eq!(failures(&inactive, &Facts { bridge: None, routing: None, ..healthy() })[0].2, "netd net-start default");
    let peer = Peer { interface: "vnet1".into(), mac: "52:54:00:00:00:01".parse().unwrap(), isolated: true };
    let isolated = Question { peer: Some(peer), isolated: true, ..question() };
    assert_eq!(failures(&isolated, &healthy())[0].0, "isolated");
}

#[test]
fn where_nothing_was_traced_that_is_said_with_the_reason() {
    let facts = Facts {
        traced: Traced::Nothing,
        no_probe: Some("Operation not permitted".into()),
        walks: Vec::new(),
        ..healthy()
    };
    let ladder = explain(&question(), &facts);
    let packet = ladder.iter().find(|finding| finding.check == "packet").unwrap();
    assert_eq!(packet.verdict, Told::Warn);
    assert_eq!(
        packet.says.as_deref(),
        Some("no probe was sent: Operation not permitted; the guest sent none within 10 s")
    );
    assert_eq!(packet.mend.as_deref(), Some("netd why vm1 1.1.1.1:443 --wait 60"));
}
