//! Guards on the real kernel: a guest that lies reaches nobody and is counted, an honest one notices nothing.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use netd_api::{Dropped, PortInfo};

use super::{
    guest::{BROADCAST, Guest, arp, dhcp, echo, ethernet, ipv6, udp},
    harness::{Space, wait_for},
};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 122, 1);
const LINK_LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

/// The type of a frame that no guard looks into: what an honest guest says so that it is heard behind its lies.
pub(crate) const HONEST: u16 = 0x88b5;

fn info(space: &Space, key: &str) -> PortInfo {
    let mut found = space.call(async |client| client.get_ports(key).await).unwrap().ports;
    assert_eq!(found.len(), 1);
    found.pop().unwrap()
}

pub(crate) fn dropped(space: &Space, guest: &Guest) -> Dropped {
    info(space, &guest.port.interface).dropped.expect("a guarded port")
}

/// Says it and then the truth; whether anybody heard the first.
pub(crate) fn is_heard(liar: &Guest, victim: &Guest, lie: &[u8]) -> bool {
    victim.heard();
    liar.send(lie);
    liar.send(&ethernet(liar.mac, BROADCAST, HONEST, b"the truth"));
    let mut heard = false;
    let truth = victim.hear(Duration::from_secs(5), |frame| {
        // Some kernels hand VLAN tags over beside the frame: what is inside tells as well.
        heard |= frame == lie || frame.ends_with(&lie[lie.len() - 20..]);
        (frame.get(12..14)? == HONEST.to_be_bytes()).then_some(())
    });
    assert!(truth.is_some(), "the honest frame must be heard");
    heard
}

/// Where a lie is counted.
type Counter = fn(&mut Dropped) -> &mut u64;

/// One lie of each kind, by a guest with an address, and the counter it must be found in.
fn lies(liar: &Guest, victim: &Guest) -> Vec<(&'static str, Vec<u8>, Counter)> {
    let (mac, own, other) = (liar.mac, liar.address, victim.address);
    let tagged = [&[0, 5, 8, 6][..], &arp(mac, 1, mac, own, other)[14..]].concat();
    let advertisement = [&[134, 0, 0, 0, 64, 0][..], &[7; 10]].concat();
    let mut not_ethernet = arp(mac, 1, mac, own, other);
    not_ethernet[15] = 6;
    vec![
        ("MAC", ethernet(victim.mac, BROADCAST, HONEST - 1, &[0; 46]), |d| &mut d.mac),
        ("MAC to a protocol's address", ethernet(victim.mac, [1, 0x80, 0xc2, 0, 0, 3], 0x888e, &[0; 46]), |d| {
            &mut d.mac
        }),
        ("VLAN", ethernet(mac, BROADCAST, 0x8100, &tagged), |d| &mut d.vlan),
        ("service VLAN", ethernet(mac, BROADCAST, 0x88a8, &tagged), |d| &mut d.vlan),
        ("ARP request of another's address", arp(mac, 1, mac, other, GATEWAY), |d| &mut d.arp),
        ("ARP reply for the gateway", arp(mac, 2, mac, GATEWAY, other), |d| &mut d.arp),
        ("ARP with another's MAC", arp(mac, 2, victim.mac, own, GATEWAY), |d| &mut d.arp),
        ("ARP reply without an address", arp(mac, 2, mac, Ipv4Addr::UNSPECIFIED, other), |d| &mut d.arp),
        ("ARP of another hardware", not_ethernet, |d| &mut d.arp),
        ("IP", echo(mac, BROADCAST, other, GATEWAY), |d| &mut d.ip),
        ("IP from outside the network", udp(mac, (Ipv4Addr::new(8, 8, 8, 8), 53), (other, 53), &[0; 20]), |d| {
            &mut d.ip
        }),
        ("no IP", udp(mac, (Ipv4Addr::UNSPECIFIED, 5), (Ipv4Addr::BROADCAST, 5), &[0; 20]), |d| &mut d.ip),
        ("DHCP offer", udp(mac, (own, 67), (Ipv4Addr::BROADCAST, 68), &[2; 240]), |d| &mut d.dhcp),
        ("DHCP offer in the gateway's name", udp(mac, (GATEWAY, 67), (other, 68), &[2; 240]), |d| &mut d.dhcp),
        (
            "DHCPv6 reply",
            ipv6(
                mac,
                LINK_LOCAL,
                17,
                &[2, 35, 2, 34, 0, 28, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7],
            ),
            |d| &mut d.dhcp,
        ),
        ("RA", ipv6(mac, LINK_LOCAL, 58, &advertisement), |d| &mut d.ra),
        (
            "RA behind a header",
            ipv6(mac, LINK_LOCAL, 60, &[&[58, 0, 1, 4, 0, 0, 0, 0][..], &advertisement].concat()),
            |d| &mut d.ra,
        ),
        ("redirect", ipv6(mac, LINK_LOCAL, 58, &[&[137][..], &[0; 39]].concat()), |d| &mut d.ra),
        ("IPv6 of another network", ipv6(mac, [0x20; 16], 17, &[0; 20]), |d| &mut d.ip),
    ]
}

fn two_guests(space: &Space) -> (Guest, Guest) {
    let (mut liar, mut victim) = (Guest::plug(space, "default", "liar"), Guest::plug(space, "default", "victim"));
    liar.lease();
    victim.lease();
    assert!(liar.reaches(GATEWAY) && victim.reaches(GATEWAY));
    (liar, victim)
}

#[test]
fn a_guest_that_lies_reaches_nobody_and_is_counted() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.start("default");
    let (liar, victim) = two_guests(&space);
    let mut expected = Dropped::default();
    for (what, lie, counter) in lies(&liar, &victim) {
        assert!(!is_heard(&liar, &victim, &lie), "{what} is heard");
        *counter(&mut expected) += 1;
        assert_eq!(dropped(&space, &liar), expected, "{what}");
    }
    // This one no filter sees.
    liar.send(&ethernet(victim.mac, [1, 0x80, 0xc2, 0, 0, 14], 0x88cc, &[0; 46]));
    // The host has heard none of it either.
    let known = space.run("ip neigh show");
    assert!(known.contains(&format!("{} dev virbr0 lladdr {}", victim.address, victim.port.mac)), "{known}");
    let learned = space.run("bridge fdb show");
    let place = format!("{} dev {}", victim.port.mac, victim.port.interface);
    assert!(learned.contains(&place), "{learned}");
    assert_eq!(dropped(&space, &victim), Dropped::default());
    assert!(victim.reaches(GATEWAY) && liar.reaches(GATEWAY));

    // Off, all of this is heard: what was measured above was the guards.
    let mut free = Guest::plug_with(&space, "default", "free", Some(false));
    free.lease();
    for (what, lie, _) in lies(&free, &victim) {
        // Frames to a protocol's own address stay on their link, guards or not.
        assert_eq!(is_heard(&free, &victim, &lie), what != "MAC to a protocol's address", "{what}");
    }
    let info = info(&space, "free");
    assert_eq!((info.guards, info.dropped), (false, None));
}

#[test]
fn without_a_lease_only_dhcp_and_probes_pass_and_with_it_gone_too() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.start("default");
    let (mut new, victim) = (Guest::plug(&space, "default", "new"), Guest::plug(&space, "default", "victim"));
    let address = Ipv4Addr::new(192, 168, 122, 77);
    let packet = |guest: &Guest, address| udp(guest.mac, (address, 9), (GATEWAY, 9), &[9; 40]);
    assert!(!is_heard(&new, &victim, &packet(&new, address)));
    assert!(!is_heard(&new, &victim, &arp(new.mac, 1, new.mac, address, GATEWAY)));
    assert!(is_heard(&new, &victim, &arp(new.mac, 1, new.mac, Ipv4Addr::UNSPECIFIED, address)));
    assert!(is_heard(&new, &victim, &dhcp(new.mac, 1, &[])));
    new.lease();
    assert!(is_heard(&new, &victim, &packet(&new, new.address)));
    assert_eq!(info(&space, "new").addresses, [new.address.to_string()]);
    new.release(GATEWAY);
    wait_for("the lease to end", || !is_heard(&new, &victim, &packet(&new, new.address)));
}

#[test]
fn an_honest_guest_is_never_cut_from_its_first_packet_on() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.start("default");
    let mut guests = Vec::new();
    for number in 0..50 {
        let mut guest = Guest::plug(&space, "default", &format!("g{number}"));
        guest.lease();
        // Sent within microseconds of the ACK, once.
        assert!(guest.reaches(GATEWAY), "guest {number}");
        guests.push(guest);
    }
    for guest in &guests {
        assert_eq!(dropped(&space, guest), Dropped::default());
    }
    // A guest that ends takes its elements with it; the next of that name begins anew.
    let interface = guests[0].port.interface.clone();
    drop(guests);
    wait_for("the elements to go", || !space.run("nft list table bridge netd").contains("vnet"));
    let next = Guest::plug(&space, "default", "next");
    assert_eq!(next.port.interface, interface);
    assert!(!is_heard(&next, &Guest::plug(&space, "default", "other"), &arp(next.mac, 1, next.mac, GATEWAY, GATEWAY)));
}

#[test]
fn a_network_without_dhcp_takes_any_of_its_addresses_but_the_hosts() {
    let space = Space::new();
    let _daemon = space.daemon();
    let xml = "<network><name>fixed</name><bridge name='br-fix.1'/><ip address='10.9.0.1' prefix='24'/></network>";
    let xml_none = "<network><name>none</name><bridge name='br-none'/></network>";
    for text in [xml, xml_none] {
        space.call(async |client| client.create_network(text.into()).await).unwrap();
    }
    let (mut guest, other) = (Guest::plug(&space, "fixed", "a"), Guest::plug(&space, "fixed", "b"));
    guest.address = Ipv4Addr::new(10, 9, 0, 55);
    assert!(guest.reaches(Ipv4Addr::new(10, 9, 0, 1)));
    let heard = |last| is_heard(&guest, &other, &udp(guest.mac, (last, 9), (Ipv4Addr::BROADCAST, 9), &[9; 40]));
    assert!(heard(Ipv4Addr::new(10, 9, 0, 56)));
    assert!(!heard(Ipv4Addr::new(10, 9, 0, 1)));
    assert!(!heard(Ipv4Addr::new(10, 9, 1, 5)));
    assert!(!is_heard(&guest, &other, &arp(guest.mac, 2, guest.mac, Ipv4Addr::new(10, 9, 0, 1), guest.address)));
    let (any, hears) = (Guest::plug(&space, "none", "c"), Guest::plug(&space, "none", "d"));
    assert!(is_heard(&any, &hears, &udp(any.mac, (Ipv4Addr::new(1, 2, 3, 4), 9), (Ipv4Addr::BROADCAST, 9), &[9; 40])));
    assert!(!is_heard(&any, &hears, &ethernet(hears.mac, BROADCAST, HONEST - 1, &[0; 46])));
    // The chain goes with the last port that needs it.
    assert!(space.run("nft list table bridge netd").contains("from_br-none"));
    drop((any, hears));
    wait_for("the chain to go", || !space.run("nft list table bridge netd").contains("from_br-none"));
}

#[test]
fn isolated_ports_hear_the_host_and_not_each_other() {
    let space = Space::new();
    let daemon = space.daemon();
    let xml = "<network><name>apart</name><bridge name='br-apart'/><port isolated='yes'/>\
               <ip address='10.9.0.1' prefix='24'><dhcp><range start='10.9.0.10' end='10.9.0.20'/></dhcp></ip></network>";
    space.call(async |client| client.define_network(xml.into()).await).unwrap();
    space.start("apart");
    let (mut a, mut b) = (Guest::plug(&space, "apart", "a"), Guest::plug(&space, "apart", "b"));
    let gateway = Ipv4Addr::new(10, 9, 0, 1);
    let apart = |a: &Guest, b: &Guest| {
        assert!(a.reaches(gateway) && b.reaches(gateway));
        b.heard();
        a.send(&ethernet(a.mac, BROADCAST, HONEST, b"are you there?"));
        b.hear(Duration::from_millis(50), |frame| (frame.get(12..14)? == HONEST.to_be_bytes()).then_some(())).is_none()
    };
    a.lease();
    b.lease();
    assert!(apart(&a, &b));
    assert!(info(&space, "a").isolated);
    // Adopted, and put right: someone has changed a port meanwhile.
    daemon.kill();
    space.run(&format!("bridge link set dev {} isolated off", a.port.interface));
    assert!(!apart(&a, &b));
    let _daemon = space.daemon();
    assert!(apart(&a, &b));
    // Also after the network was down.
    space.destroy("apart");
    space.start("apart");
    assert!(apart(&a, &b));
}

#[test]
fn guards_come_back_after_a_flush_and_stay_through_a_restart() {
    let space = Space::new();
    let found = space.run("nft list ruleset");
    let daemon = space.daemon();
    space.start("default");
    let (liar, victim) = two_guests(&space);
    let lie = arp(liar.mac, 2, liar.mac, GATEWAY, victim.address);
    for command in ["nft flush ruleset", "nft delete table bridge netd"] {
        space.run(command);
        wait_for("the guards to be back", || !is_heard(&liar, &victim, &lie));
        assert!(liar.reaches(GATEWAY));
        assert_eq!(dropped(&space, &victim), Dropped::default());
    }
    let mut daemon = Some(daemon);
    for _ in 0..3 {
        daemon.take().unwrap().kill();
        let (stop, rounds) = (AtomicBool::new(false), AtomicU32::new(0));
        let round_after = |begun: u32| wait_for("another round", || rounds.load(Ordering::Relaxed) > begun);
        std::thread::scope(|scope| {
            let talk = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let round = rounds.load(Ordering::Relaxed);
                    assert!(liar.reaches(GATEWAY), "cut in round {round}");
                    assert!(!is_heard(&liar, &victim, &lie), "unguarded in round {round}");
                    rounds.store(round + 1, Ordering::Relaxed);
                }
            });
            // One round at least before, while and after the next daemon starts.
            round_after(0);
            daemon = Some(space.daemon());
            round_after(rounds.load(Ordering::Relaxed) + 1);
            stop.store(true, Ordering::Relaxed);
            talk.join().unwrap();
        });
    }
    assert!(dropped(&space, &liar).arp > 0);

    space.destroy("default");
    assert_eq!(space.run("nft list ruleset"), found);
    assert_eq!(info(&space, "liar").dropped, None);
    space.start("default");
    assert!(!is_heard(&liar, &victim, &lie) && liar.reaches(GATEWAY));
    drop((liar, victim));
    space.destroy("default");
    assert_eq!(space.run("nft list ruleset"), found);
}

#[test]
fn a_veth_end_put_on_the_bridge_by_hand_is_not_guarded() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.start("default");
    let victim = Guest::plug(&space, "default", "victim");
    space.run("ip link add hand type veth peer name other");
    space.run("ip link set hand master virbr0 up");
    space.run("ip link set other up");
    victim.heard();
    // Announces an address that nobody gave it.
    space.run("ip address add 192.168.122.99/24 dev other");
    let _unanswered = space.command("ping -q -c 1 -W 1 -I other 192.168.122.98").output().unwrap();
    let announced =
        |frame: &[u8]| (frame.get(12..14)? == [8, 6] && frame.get(28..32)? == [192, 168, 122, 99]).then_some(());
    assert!(victim.hear(Duration::from_secs(2), announced).is_some());
}
