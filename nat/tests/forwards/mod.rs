//! EDGE: port forwards with real packets: from everywhere they must work from, and nothing else with them.

mod six;

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    thread,
    time::Duration,
};

use nat::{Forward, Mode, Others, Protocol};

use crate::{
    network, nft, plain_nat, ruleset, sorted,
    world::{Answer, Namespace, World, block_on, table},
};

/// An answer on one machine takes microseconds; this only bounds a failing test.
const PATIENCE: Duration = Duration::from_secs(3);

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn forward(bridge: &str, protocol: Protocol, port: u16, targets: &[(Ipv4Addr, u16)]) -> Forward {
    let subnet = if bridge == "virbrA" { "10.1.0.0/24" } else { "10.2.0.0/24" };
    Forward {
        protocol,
        address: None,
        ports: (port, port),
        bridge: bridge.to_owned(),
        subnets: vec![subnet.parse().unwrap()],
        targets: targets.iter().map(|(address, port)| ((*address).into(), *port)).collect(),
    }
}

fn tcp(bridge: &str, port: u16, targets: &[(Ipv4Addr, u16)]) -> Forward {
    forward(bridge, Protocol::Tcp, port, targets)
}

/// Puts `after` in the place of `before`, with what the caller of `nat` sets besides.
fn change(world: &World, before: &[Forward], after: &[Forward]) {
    world.host().run(|| {
        block_on(table().change_forwards(before, after, Others::default())).unwrap();
        for forward in after {
            let path = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", forward.bridge);
            fs::write(path, "1").unwrap();
        }
    });
}

/// Everyone who connects is told the server's name and the address it was seen to come from.
fn serve(namespace: &Namespace, name: &str, port: u16) {
    serve_at(namespace, name, Ipv6Addr::UNSPECIFIED, port);
}

fn serve_at(namespace: &Namespace, name: &str, address: impl Into<IpAddr>, port: u16) {
    let address: IpAddr = address.into();
    let (tcp, udp) = namespace.run(|| {
        let any = (address, port);
        (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap())
    });
    let names = [name.to_owned(), name.to_owned()];
    let [for_tcp, for_udp] = names;
    thread::spawn(move || {
        while let Ok((mut stream, client)) = tcp.accept() {
            let _ = stream.write_all(format!("{for_tcp} {}", client.ip().to_canonical()).as_bytes());
        }
    });
    thread::spawn(move || {
        while let Ok((_, client)) = udp.recv_from(&mut [0; 8]) {
            let _ = udp.send_to(format!("{for_udp} {}", client.ip().to_canonical()).as_bytes(), client);
        }
    });
}

/// Who answers at this address and port, or how nobody does.
fn ask(namespace: &Namespace, protocol: Protocol, to: impl Into<IpAddr>, port: u16) -> Result<String, Answer> {
    let lost = |error: std::io::Error| match error.kind() {
        ErrorKind::ConnectionRefused => Answer::Refused,
        _ => Answer::Lost,
    };
    let to = SocketAddr::new(to.into(), port);
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    namespace.run(|| match protocol {
        Protocol::Tcp => {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(lost)?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).map_err(lost)?;
            Ok(text)
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect(to).unwrap();
            socket.send(b"?").map_err(lost)?;
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).map_err(lost)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        }
    })
}

fn name_of(answer: Result<String, Answer>) -> String {
    match answer {
        Ok(text) => text.split(' ').next().unwrap().to_owned(),
        Err(answer) => format!("{answer:?}"),
    }
}

/// A NAT network with two guests, another with one, and the outside; forwards on tcp and udp 2222 to the first guest.
fn forwarded(mode: Mode) -> (World, usize, usize, usize, Vec<Forward>) {
    let mut world = World::new();
    let vm1 = world.network("virbrA", "10.1.0", mode);
    let vm2 = world.another_guest(vm1, 3);
    let other = world.network("virbrB", "10.2.0", plain_nat());
    serve(world.namespace(vm1), "vm1", 22);
    serve(world.namespace(vm2), "vm2", 22);
    let target = [(world.address(vm1), 22)];
    let forwards = vec![tcp("virbrA", 2222, &target), forward("virbrA", Protocol::Udp, 2222, &target)];
    change(&world, &[], &forwards);
    (world, vm1, vm2, other, forwards)
}

#[test]
fn a_forward_works_from_everywhere() {
    let dev = Mode::Nat { dev: Some("uplink".to_owned()), addresses: None, ports: (1024, 65535), ipv6: false };
    let modes = [plain_nat(), dev, Mode::Route { dev: None }, Mode::Open];
    for (mode, by_br_netfilter) in modes.into_iter().flat_map(|mode| [(mode.clone(), true), (mode, false)]) {
        let case = format!("{mode:?}, br_netfilter {by_br_netfilter}");
        let (world, vm1, vm2, other, _) = forwarded(mode);
        let has_br_netfilter = world.host().run(|| {
            let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
            fs::write(switch, if by_br_netfilter { "1" } else { "0" }).is_ok()
        });
        if by_br_netfilter && !has_br_netfilter {
            continue;
        }
        let (uplink, second, bridge) = (world.uplink(), world.second_uplink(), Ipv4Addr::new(10, 1, 0, 1));
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let seen = |from: &Namespace, to| ask(from, protocol, to, 2222);
            let outside = world.namespace(world.outside());
            assert_eq!(seen(outside, uplink).unwrap(), "vm1 198.51.100.2", "{case} {protocol:?}: outside");
            assert_eq!(seen(outside, second).unwrap(), "vm1 198.51.100.2", "{case} {protocol:?}: second address");
            assert_eq!(seen(outside, bridge).unwrap(), "vm1 198.51.100.2", "{case} {protocol:?}: bridge's address");
            for own in [LOCALHOST, uplink, second, bridge] {
                assert_eq!(seen(world.host(), own).unwrap(), "vm1 10.1.0.1", "{case} {protocol:?}: host at {own}");
            }
            for own in [uplink, second, bridge] {
                // br_netfilter sends what is for another guest there itself, and never back out of the port it came by.
                let itself = (!by_br_netfilter).then_some((vm1, "itself"));
                for (guest, whose) in itself.into_iter().chain([(vm2, "same network")]) {
                    let answer = seen(world.namespace(guest), own);
                    assert_eq!(answer.unwrap(), "vm1 10.1.0.1", "{case} {protocol:?}: {whose} at {own}");
                }
                let answer = name_of(seen(world.namespace(other), own));
                assert_eq!(answer, "vm1", "{case} {protocol:?}: another network at {own}");
            }
        }
    }
}

#[test]
fn a_forward_opens_nothing_but_itself() {
    let (mut world, vm1, vm2, other, _) = forwarded(plain_nat());
    let isolated = world.network("virbrI", "10.5.0", Mode::Isolated);
    serve(world.namespace(vm1), "vm1", 2222);
    let outside = world.namespace(world.outside());
    let guest = world.address(vm1);
    for (from, to, port, why) in [
        (world.outside(), guest, 22, "the guest's own address is still closed to the outside"),
        (world.outside(), guest, 2222, "and so is the forwarded port of it"),
        (other, guest, 22, "and to other networks"),
        (isolated, world.uplink(), 2222, "isolated guests do not get out by a forward"),
    ] {
        assert_eq!(name_of(ask(world.namespace(from), Protocol::Tcp, to, port)), "Refused", "{why}");
    }
    // Addresses that are not the host's pass by.
    serve(outside, "outside", 2222);
    let answer = ask(world.namespace(vm2), Protocol::Tcp, Ipv4Addr::new(198, 51, 100, 2), 2222);
    assert_eq!(name_of(answer), "outside");
}

#[test]
fn a_forward_of_one_address_leaves_the_others_alone() {
    let (world, vm1, _, _, before) = forwarded(plain_nat());
    serve(world.host(), "host", 80);
    let one = Forward { address: Some(world.second_uplink().into()), ..tcp("virbrA", 80, &[(world.address(vm1), 22)]) };
    let after = [before.clone(), vec![one]].concat();
    change(&world, &before, &after);
    let outside = world.namespace(world.outside());
    assert_eq!(name_of(ask(outside, Protocol::Tcp, world.second_uplink(), 80)), "vm1");
    assert_eq!(name_of(ask(outside, Protocol::Tcp, world.uplink(), 80)), "host");
    assert_eq!(name_of(ask(world.host(), Protocol::Tcp, world.second_uplink(), 80)), "vm1");
    assert_eq!(name_of(ask(world.host(), Protocol::Tcp, LOCALHOST, 80)), "host");
}

#[test]
fn without_a_guest_a_forward_rejects_at_once_though_the_host_listens() {
    let (world, vm1, vm2, _, before) = forwarded(plain_nat());
    serve(world.host(), "host", 2222);
    let outside = world.namespace(world.outside());
    assert_eq!(name_of(ask(outside, Protocol::Tcp, world.uplink(), 2222)), "vm1", "the forward wins");
    let waiting = [tcp("virbrA", 2222, &[]), forward("virbrA", Protocol::Udp, 2222, &[])];
    change(&world, &before, &waiting);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for (from, to) in [
            (outside, world.uplink()),
            (world.host(), LOCALHOST),
            (world.host(), world.uplink()),
            (world.namespace(vm2), world.uplink()),
        ] {
            assert_eq!(name_of(ask(from, protocol, to, 2222)), "Refused", "{protocol:?} to {to}");
        }
    }
    // The guest comes back with another address.
    let target = [(world.address(vm2), 22)];
    let elsewhere = [tcp("virbrA", 2222, &target), forward("virbrA", Protocol::Udp, 2222, &target)];
    change(&world, &waiting, &elsewhere);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        assert_eq!(name_of(ask(outside, protocol, world.uplink(), 2222)), "vm2", "{protocol:?}");
    }
    let _ = vm1;
}

#[test]
fn a_range_keeps_its_order() {
    let (world, vm1, vm2, _, before) = forwarded(plain_nat());
    for port in [6000, 6001, 6002] {
        serve(world.namespace(vm1), &format!("vm1:{port}"), port);
        serve(world.namespace(vm2), &format!("vm2:{port}"), port);
    }
    let one = Forward { ports: (5000, 5002), ..tcp("virbrA", 5000, &[(world.address(vm1), 6000)]) };
    let targets = [(world.address(vm1), 6000), (world.address(vm2), 6000)];
    let two = Forward { ports: (7000, 7002), ..forward("virbrA", Protocol::Udp, 7000, &targets) };
    let after = [before.clone(), vec![one, two]].concat();
    change(&world, &before, &after);
    let outside = world.namespace(world.outside());
    for offset in 0..3 {
        let answer = ask(outside, Protocol::Tcp, world.uplink(), 5000 + offset);
        assert_eq!(name_of(answer), format!("vm1:{}", 6000 + offset));
        let mut answers = [0, 1].map(|_| name_of(ask(outside, Protocol::Udp, world.uplink(), 7000 + offset)));
        answers.sort();
        assert_eq!(answers, [format!("vm1:{}", 6000 + offset), format!("vm2:{}", 6000 + offset)]);
    }
    assert_eq!(name_of(ask(outside, Protocol::Tcp, world.uplink(), 5003)), "Refused");
}

#[test]
fn several_targets_take_turns_evenly() {
    let (mut world, vm1, vm2, _, before) = forwarded(plain_nat());
    let vm3 = world.another_guest(vm1, 4);
    serve(world.namespace(vm3), "vm3", 22);
    let targets: Vec<_> = [vm1, vm2, vm3].iter().map(|guest| (world.address(*guest), 22)).collect();
    let after = [before.clone(), vec![tcp("virbrA", 80, &targets)]].concat();
    change(&world, &before, &after);
    let outside = world.namespace(world.outside());
    let rounds: Vec<String> = (0..9).map(|_| name_of(ask(outside, Protocol::Tcp, world.uplink(), 80))).collect();
    for round in rounds.chunks(3) {
        let mut round = round.to_vec();
        round.sort();
        assert_eq!(round, ["vm1", "vm2", "vm3"], "{rounds:?}");
    }
    // One goes: the others share.
    let fewer = [before.clone(), vec![tcp("virbrA", 80, &targets[..2])]].concat();
    change(&world, &after, &fewer);
    let mut answers = [0, 1].map(|_| name_of(ask(outside, Protocol::Tcp, world.uplink(), 80)));
    answers.sort();
    assert_eq!(answers, ["vm1", "vm2"]);
}

#[test]
fn guests_cannot_use_what_lets_the_host_forward_from_127_0_0_1() {
    let (world, _, vm2, _, _) = forwarded(plain_nat());
    let secret = world.host().run(|| UdpSocket::bind((LOCALHOST, 9999)).unwrap());
    secret.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    // A guest that has no 127.0.0.1 of its own can address the host's.
    world.namespace(vm2).run(|| {
        for words in [
            "route del table local local 127.0.0.0/8 dev lo",
            "route del table local local 127.0.0.1 dev lo",
            "route add 127.0.0.1/32 via 10.1.0.1",
        ] {
            std::process::Command::new("ip").args(words.split(' ')).status().unwrap();
        }
        fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::new(10, 1, 0, 3), 0)).unwrap();
        socket.send_to(b"?", (LOCALHOST, 9999)).unwrap();
    });
    let heard = secret.recv_from(&mut [0; 8]);
    assert!(heard.is_err(), "the host's 127.0.0.1 heard {heard:?}");
}

#[test]
fn guests_keep_their_dns_whatever_is_forwarded() {
    let (world, vm1, vm2, _, before) = forwarded(plain_nat());
    for address in [Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(127, 0, 0, 53)] {
        serve_at(world.host(), "host", address, 53);
    }
    let dns = forward("virbrA", Protocol::Udp, 53, &[(world.address(vm1), 22)]);
    let after = [before.clone(), vec![dns]].concat();
    change(&world, &before, &after);
    let gateway = Ipv4Addr::new(10, 1, 0, 1);
    assert_eq!(name_of(ask(world.namespace(vm2), Protocol::Udp, gateway, 53)), "host");
    assert_eq!(name_of(ask(world.host(), Protocol::Udp, Ipv4Addr::new(127, 0, 0, 53), 53)), "host");
    assert_eq!(name_of(ask(world.namespace(world.outside()), Protocol::Udp, world.uplink(), 53)), "vm1");
    // Nor is a waiting forward an answer to it.
    let waiting = [before.clone(), vec![forward("virbrA", Protocol::Udp, 53, &[])]].concat();
    change(&world, &after, &waiting);
    assert_eq!(name_of(ask(world.namespace(vm2), Protocol::Udp, gateway, 53)), "host");
}

#[test]
fn the_last_forward_takes_everything_with_it() {
    Namespace::new().run(|| {
        block_on(table().add(&network("virbrA", plain_nat(), "10.1.0.0/24"))).unwrap();
        let found = ruleset();
        let targets = [("10.1.0.2".parse().unwrap(), 22), ("10.1.0.3".parse().unwrap(), 22)];
        let steps = [
            vec![tcp("virbrA", 1, &targets[..1])],
            vec![tcp("virbrA", 1, &targets), tcp("virbrA", 2, &[])],
            vec![Forward { address: Some(LOCALHOST.into()), ..tcp("virbrA", 1, &targets) }],
            vec![],
        ];
        let mut before = Vec::new();
        for after in steps {
            block_on(table().change_forwards(&before, &after, Others::default())).unwrap();
            let changed = sorted(&ruleset());
            block_on(nat::replace(&[network("virbrA", plain_nat(), "10.1.0.0/24")], &after)).unwrap();
            assert_eq!(sorted(&ruleset()), changed, "{after:?}");
            before = after;
        }
        assert_eq!(ruleset(), found);
    });
}

#[test]
fn a_table_that_is_not_as_thought_refuses_the_change_and_replace_mends_it() {
    Namespace::new().run(|| {
        let networks = [network("virbrA", plain_nat(), "10.1.0.0/24")];
        let forwards = [tcp("virbrA", 1, &[("10.1.0.2".parse().unwrap(), 22)])];
        block_on(table().change_forwards(&[], &forwards, Others::default())).expect_err("without a table");
        assert_eq!(ruleset(), "");
        block_on(nat::replace(&networks, &forwards)).unwrap();
        let whole = sorted(&ruleset());
        nft(&["delete", "element", "inet", "netd", "forward_address", "{ tcp . 1 }"]);
        block_on(table().change_forwards(&forwards, &[], Others::default())).expect_err("an element is missing");
        block_on(nat::replace(&networks, &forwards)).unwrap();
        assert_eq!(sorted(&ruleset()), whole);
    });
}

#[test]
fn a_network_comes_and_goes_beside_forwards() {
    Namespace::new().run(|| {
        let (a, b) = (network("virbrA", plain_nat(), "10.1.0.0/24"), network("virbrB", plain_nat(), "10.2.0.0/24"));
        let forwards = [tcp("virbrA", 1, &[("10.1.0.2".parse().unwrap(), 22)])];
        block_on(nat::replace(std::slice::from_ref(&a), &forwards)).unwrap();
        let before = sorted(&ruleset());
        block_on(table().add(&b)).unwrap();
        block_on(table().remove(&b)).unwrap();
        assert_eq!(sorted(&ruleset()), before);
    });
}

#[test]
fn ten_thousand_forwards_are_made_and_one_of_them_changed() {
    Namespace::new().run(|| {
        let networks = [network("virbrA", plain_nat(), "10.1.0.0/16")];
        let forwards: Vec<Forward> = (0..10_000u16)
            .map(|n| tcp("virbrA", 10_000 + n, &[(Ipv4Addr::from(0x0a01_0002 + u32::from(n)), 22)]))
            .collect();
        let begin = std::time::Instant::now();
        block_on(nat::replace(&networks, &forwards)).unwrap();
        println!("10,000 forwards in {:?}", begin.elapsed());
        let mut after = forwards.clone();
        after[77].targets[0].0 = Ipv4Addr::new(10, 1, 200, 1).into();
        let begin = std::time::Instant::now();
        block_on(table().change_forwards(&forwards, &after, Others::default())).unwrap();
        println!("one changed in {:?}", begin.elapsed());
        assert!(nft(&["get", "element", "inet", "netd", "forward_address", "{ tcp . 10077 }"]).contains("10.1.200.1"));
    });
}

#[test]
fn the_kernel_has_the_forwards_that_the_golden_files_show() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/forwards");
    for entry in fs::read_dir(&golden).unwrap() {
        let path = entry.unwrap().path();
        let Some(case) = path.file_name().unwrap().to_str().unwrap().strip_suffix(".intent.json") else { continue };
        let forwards: Vec<Forward> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let got = Namespace::new().run(move || {
            block_on(nat::replace(&[], &forwards)).unwrap();
            ruleset()
        });
        let expected = golden.join(format!("{case}.nft"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &got).unwrap();
        }
        assert_eq!(got, fs::read_to_string(&expected).unwrap(), "{case}: UPDATE_GOLDEN=1 writes it anew");
    }
}
