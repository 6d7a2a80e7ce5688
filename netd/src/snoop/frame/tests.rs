//! Frames as guests and servers send them, and as they never should.

use super::*;

const GUEST: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
const OTHER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe00, 1);

fn v4(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ethernet(from: MacAddr, kind: [u8; 2], body: &[u8]) -> Vec<u8> {
    [&[0xff; 6][..], &from.0, &kind, body].concat()
}

fn arp_frame(from: MacAddr, operation: u8, sender: MacAddr, address: [u8; 4]) -> Vec<u8> {
    let body = [&[0, 1, 8, 0, 6, 4, 0, operation][..], &sender.0, &address, &[0; 6], &[10, 0, 0, 1]].concat();
    ethernet(from, ARP, &body)
}

fn nd(from: MacAddr, kind: u8, source: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    let icmp = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), options].concat();
    let head = [0x60, 0, 0, 0, 0, icmp.len() as u8, 58, 255];
    ethernet(from, IPV6, &[&head[..], &source.octets(), &[0xff; 16], &icmp].concat())
}

fn dhcp_frame(from: MacAddr, op: Op, kind: u8, client: MacAddr, has_now: [u8; 4], yours: [u8; 4]) -> Vec<u8> {
    let mut bootp = vec![0; 240];
    bootp[..3].copy_from_slice(&[if op == Op::Request { 1 } else { 2 }, 1, 6]);
    bootp[12..16].copy_from_slice(&has_now);
    bootp[16..20].copy_from_slice(&yours);
    bootp[28..34].copy_from_slice(&client.0);
    bootp[236..240].copy_from_slice(&[99, 130, 83, 99]);
    bootp.extend_from_slice(&[12, 1, b'a', 53, 1, kind, 255]);
    // An IP option in front, as some do.
    let ip = [&[0x46, 0, 0, 0, 0, 0, 0, 0, 64, 17][..], &[0; 14]].concat();
    ethernet(from, IPV4, &[&ip[..], &[0; 8], &bootp].concat())
}

#[test]
fn arp_says_where_its_sender_is() {
    for operation in [1, 2] {
        let frame = arp_frame(GUEST, operation, GUEST, [10, 0, 0, 7]);
        assert_eq!(read(&frame), Some(Word::Has(GUEST, v4("10.0.0.7"), Origin::Arp)));
    }
    assert_eq!(read(&arp_frame(GUEST, 1, OTHER, [10, 0, 0, 7])), None, "another's MAC inside");
    assert_eq!(read(&arp_frame(GUEST, 1, GUEST, [0; 4])), None, "a probe");
    assert_eq!(read(&arp_frame(GUEST, 3, GUEST, [10, 0, 0, 7])), None, "RARP");
    for nobody in [[224, 0, 0, 1], [127, 0, 0, 1], [255; 4]] {
        assert_eq!(read(&arp_frame(GUEST, 1, GUEST, nobody)), None, "{nobody:?}");
    }
}

#[test]
fn neighbour_discovery_says_who_has_and_who_wants_an_address() {
    let none = Ipv6Addr::UNSPECIFIED;
    assert_eq!(read(&nd(GUEST, 135, none, LINK_LOCAL, &[])), Some(Word::Wants(GUEST, LINK_LOCAL.into())));
    let link = |kind: u8, mac: MacAddr| [&[kind, 1][..], &mac.0].concat();
    let has = Some(Word::Has(GUEST, LINK_LOCAL.into(), Origin::Nd));
    let other = "fe80::9".parse().unwrap();
    assert_eq!(read(&nd(GUEST, 135, LINK_LOCAL, other, &link(1, GUEST))), has);
    assert_eq!(read(&nd(GUEST, 136, other, LINK_LOCAL, &link(2, GUEST))), has);
    assert_eq!(read(&nd(GUEST, 136, other, LINK_LOCAL, &[])), has);
    assert_eq!(read(&nd(GUEST, 136, other, LINK_LOCAL, &link(2, OTHER))), None, "on behalf of another");
    assert_eq!(read(&nd(GUEST, 136, other, LINK_LOCAL, &[2, 0, 0, 0])), None, "an option without length");
    assert_eq!(read(&nd(GUEST, 136, other, "ff02::1".parse().unwrap(), &[])), None);
    let mut routed = nd(GUEST, 136, other, LINK_LOCAL, &[]);
    routed[ETHERNET + 7] = 64;
    assert_eq!(read(&routed), None, "not from this link");
}

#[test]
fn dhcp_passing_by_says_what_was_given_and_what_is_renewed() {
    let given = dhcp_frame(OTHER, Op::Reply, ACK, GUEST, [0; 4], [10, 0, 0, 8]);
    assert_eq!(read(&given), Some(Word::Gives(OTHER, GUEST, v4("10.0.0.8"))));
    let renewing = dhcp_frame(GUEST, Op::Request, REQUEST, GUEST, [10, 0, 0, 8], [0; 4]);
    assert_eq!(read(&renewing), Some(Word::Has(GUEST, v4("10.0.0.8"), Origin::Dhcp)));
    let released = dhcp_frame(GUEST, Op::Request, RELEASE, GUEST, [10, 0, 0, 8], [0; 4]);
    assert_eq!(read(&released), Some(Word::Leaves(GUEST, v4("10.0.0.8"))));
    let offered = dhcp_frame(OTHER, Op::Reply, 2, GUEST, [0; 4], [10, 0, 0, 8]);
    assert_eq!(read(&offered), None, "an offer is no lease");
    let forged = dhcp_frame(OTHER, Op::Request, RELEASE, GUEST, [10, 0, 0, 8], [0; 4]);
    assert_eq!(read(&forged), None, "one releases only one's own");
}

#[test]
fn whatever_is_cut_short_or_random_says_nothing_and_harms_nobody() {
    let frames = [
        arp_frame(GUEST, 1, GUEST, [10, 0, 0, 7]),
        nd(GUEST, 136, LINK_LOCAL, LINK_LOCAL, &[2, 1, 0x52, 0x54, 0, 0, 0, 1]),
        dhcp_frame(GUEST, Op::Request, REQUEST, GUEST, [10, 0, 0, 8], [0; 4]),
    ];
    for frame in frames {
        assert!(read(&frame).is_some());
        // Padding and options may be missing, nothing else.
        for length in 0..ETHERNET + 18 {
            assert_eq!(read(&frame[..length]), None);
        }
        for length in 0..frame.len() {
            read(&frame[..length]);
        }
        for at in 0..frame.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut other = frame.clone();
                other[at] = value;
                read(&other);
            }
        }
    }
    for _ in 0..20_000 {
        let mut noise: Vec<u8> = (0..rand::random_range(0..400)).map(|_| rand::random()).collect();
        if noise.len() > 14 {
            noise[12..14].copy_from_slice(&[ARP, IPV4, IPV6][rand::random_range(0..3)]);
        }
        read(&noise);
    }
}
