//! EDGE: port forwards of IPv6, beside those of IPv4.

use super::*;

const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

fn forward6(protocol: Protocol, port: u16, targets: &[(Ipv6Addr, u16)]) -> Forward {
    Forward {
        protocol,
        address: Some(ANY),
        ports: (port, port),
        bridge: "virbrA".to_owned(),
        subnets: vec!["10.1.0.0/24".parse().unwrap(), "fd00:10:1::/64".parse().unwrap()],
        targets: targets.iter().map(|(address, port)| ((*address).into(), *port)).collect(),
    }
}

/// As `forwarded`, and the same ports of IPv6 to the second guest.
fn forwarded_both(mode: Mode) -> (World, usize, usize, usize, Vec<Forward>) {
    let (world, vm1, vm2, other, before) = forwarded(mode);
    let target = [(world.address6(vm2), 22)];
    let more = [forward6(Protocol::Tcp, 2222, &target), forward6(Protocol::Udp, 2222, &target)];
    let after = [before.clone(), more.to_vec()].concat();
    change(&world, &before, &after);
    (world, vm1, vm2, other, after)
}

#[test]
fn a_forward_of_ipv6_works_from_everywhere_but_the_loopback_address() {
    let both = Mode::Nat { dev: None, addresses: None, ports: (1024, 65535), ipv6: true };
    let modes = [plain_nat(), both, Mode::Route { dev: None }, Mode::Open];
    for (mode, by_br_netfilter) in modes.into_iter().flat_map(|mode| [(mode.clone(), true), (mode, false)]) {
        let case = format!("{mode:?}, br_netfilter {by_br_netfilter}");
        let (world, vm1, vm2, other, _) = forwarded_both(mode);
        let has_br_netfilter = world.host().run(|| {
            let switch = "/proc/sys/net/bridge/bridge-nf-call-ip6tables";
            fs::write(switch, if by_br_netfilter { "1" } else { "0" }).is_ok()
        });
        if by_br_netfilter && !has_br_netfilter {
            continue;
        }
        let bridge: Ipv6Addr = "fd00:10:1::1".parse().unwrap();
        let (uplink, second) = (world.uplink6(), world.second_uplink6());
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let seen = |from: &Namespace, to| ask(from, protocol, to, 2222);
            let outside = world.namespace(world.outside());
            for at in [uplink, second, bridge] {
                let case = format!("{case} {protocol:?} at {at}");
                assert_eq!(seen(outside, at).unwrap(), "vm2 2001:db8::2", "{case}: outside");
                assert_eq!(seen(world.host(), at).unwrap(), "vm2 fd00:10:1::1", "{case}: host");
                let itself = (!by_br_netfilter).then_some((vm2, "itself"));
                for (guest, whose) in itself.into_iter().chain([(vm1, "same network")]) {
                    assert_eq!(seen(world.namespace(guest), at).unwrap(), "vm2 fd00:10:1::1", "{case}: {whose}");
                }
                assert_eq!(name_of(seen(world.namespace(other), at)), "vm2", "{case}: another network");
            }
            // What is asked of ::1 stays with the host.
            assert_eq!(name_of(seen(world.host(), Ipv6Addr::LOCALHOST)), "Refused", "{case}");
            // The families do not meet.
            assert_eq!(name_of(ask(outside, protocol, world.uplink(), 2222)), "vm1", "{case}");
        }
    }
}

#[test]
fn a_forward_of_ipv6_opens_nothing_but_itself() {
    let both = Mode::Nat { dev: None, addresses: None, ports: (1024, 65535), ipv6: true };
    let (mut world, _, vm2, other, before) = forwarded_both(both);
    let isolated = world.network("virbrI", "10.5.0", Mode::Isolated);
    serve(world.namespace(vm2), "vm2", 2222);
    let (guest, uplink) = (world.address6(vm2), world.uplink6());
    for (from, to, port, why) in [
        (world.outside(), guest, 22, "the guest's own address is still closed to the outside"),
        (world.outside(), guest, 2222, "and so is the forwarded port of it"),
        (other, guest, 22, "and to other networks"),
        (isolated, uplink, 2222, "isolated guests do not get out by a forward"),
    ] {
        assert_eq!(name_of(ask(world.namespace(from), Protocol::Tcp, to, port)), "Refused", "{why}");
    }
    // One of one address leaves the others alone; a range keeps its order; without a target it rejects.
    serve(world.host(), "host", 80);
    serve(world.host(), "host", 90);
    let target = [(guest, 22)];
    let one = Forward { address: Some(world.second_uplink6().into()), ..forward6(Protocol::Tcp, 80, &target) };
    let range = Forward { ports: (5000, 5001), ..forward6(Protocol::Udp, 5000, &[(guest, 21)]) };
    let waiting = forward6(Protocol::Tcp, 90, &[]);
    let after = [before.clone(), vec![one, range, waiting]].concat();
    change(&world, &before, &after);
    let outside = world.namespace(world.outside());
    assert_eq!(name_of(ask(outside, Protocol::Tcp, world.second_uplink6(), 80)), "vm2");
    assert_eq!(name_of(ask(outside, Protocol::Tcp, uplink, 80)), "host");
    assert_eq!(name_of(ask(outside, Protocol::Udp, uplink, 5001)), "vm2");
    assert_eq!(name_of(ask(outside, Protocol::Tcp, uplink, 90)), "Refused");
    assert_eq!(name_of(ask(outside, Protocol::Tcp, world.uplink(), 90)), "host", "the other family is not forwarded");
}

#[test]
fn several_targets_of_ipv6_take_turns_and_the_last_forward_takes_everything_with_it() {
    let (world, vm1, vm2, _, before) = forwarded_both(plain_nat());
    let targets = [(world.address6(vm1), 22), (world.address6(vm2), 22)];
    let one = Forward { address: Some(world.second_uplink6().into()), ..forward6(Protocol::Tcp, 81, &targets) };
    let round = [before.clone(), vec![forward6(Protocol::Tcp, 80, &targets), one]].concat();
    change(&world, &before, &round);
    let outside = world.namespace(world.outside());
    for (at, port) in [(world.uplink6(), 80), (world.second_uplink6(), 81)] {
        let mut answers = [0, 1].map(|_| name_of(ask(outside, Protocol::Tcp, at, port)));
        answers.sort();
        assert_eq!(answers, ["vm1", "vm2"]);
    }
    let four: Vec<Forward> = before.iter().filter(|forward| forward.address.is_none()).cloned().collect();
    change(&world, &round, &four);
    assert_eq!(name_of(ask(outside, Protocol::Tcp, world.uplink6(), 2222)), "Refused");
    assert_eq!(name_of(ask(outside, Protocol::Tcp, world.uplink(), 2222)), "vm1");
    let ruleset = world.host().run(ruleset);
    assert!(!ruleset.contains("forward6_") && !ruleset.contains("round6_"), "{ruleset}");
}
