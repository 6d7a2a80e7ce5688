//! What `nft` is told, and what the kernel's messages come to, however broken.

use super::*;

fn watch(protocol: Protocol) -> Watch {
    let (source, target) = ([10, 9, 0, 7].into(), [1, 1, 1, 1].into());
    Watch { interface: "vnet0".into(), source: Some(source), source_port: Some(61_000), target, protocol }
}

#[test]
fn the_flow_is_marked_where_it_comes_in_and_its_answers_by_conntrack() {
    let text = text(&watch(Protocol::Tcp(443)));
    for part in [
        "iifname \"vnet0\" ip saddr 10.9.0.7 ip daddr 1.1.1.1 tcp sport 61000 tcp dport 443 limit",
        "oifname \"vnet0\" ip saddr 1.1.1.1 tcp sport 443 tcp dport 61000 limit",
        "meta l4proto tcp ct direction reply ct original ip saddr 10.9.0.7 ct original ip daddr 1.1.1.1 \
         ct original proto-dst 443 ct original proto-src 61000 limit",
        "meta l4proto icmp ct direction reply ct original ip saddr 10.9.0.7",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(text.starts_with(&removal()), "an earlier trace's tables go first");
}

#[test]
fn a_guests_own_packets_are_marked_whoever_they_say_they_are_from() {
    let anyone = Watch { source: None, source_port: None, ..watch(Protocol::Udp(53)) };
    assert!(text(&anyone).contains("iifname \"vnet0\" ip daddr 1.1.1.1 udp dport 53 limit"));
    let six = Watch { source: None, target: "2001:db8::1".parse().unwrap(), ..watch(Protocol::Icmp) };
    assert!(text(&six).contains("iifname \"vnet0\" ip6 daddr 2001:db8::1 icmpv6 type echo-request limit"));
}

/// An attribute as the kernel lays it out.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(id: u32, chain: &str, kind: u32, said: i32, header: Option<&[u8]>) -> Vec<u8> {
    let mut body = [
        attribute(15, &2u32.to_be_bytes()),
        attribute(1, b"filter\0"),
        attribute(2, &[chain.as_bytes(), &[0]].concat()),
        attribute(4, &kind.to_be_bytes()),
        attribute(6, &id.to_be_bytes()),
    ]
    .concat();
    let code = said.to_be_bytes();
    match kind {
        1 => body.extend(attribute(16, &code)),
        _ => {
            body.extend(attribute(5 | 0x8000, &attribute(1, &code)));
            body.extend(attribute(3, &7u64.to_be_bytes()));
        }
    }
    if let Some(header) = header {
        body.extend(attribute(8, header));
        body.extend(attribute(9, &[0xee, 0x48, 1, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 4, 0, 0]));
        body.extend(attribute(12, &5u32.to_be_bytes()));
    }
    let mut bytes = ((20 + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend((10u16 << 8 | 17).to_ne_bytes());
    bytes.resize(20, 0);
    [bytes, body].concat()
}

const HEADER: [u8; 20] = [0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 9, 0, 7, 1, 1, 1, 1];

#[test]
fn steps_of_two_packets_in_turns_become_one_walk_each() {
    let bytes = [
        message(1, "FORWARD", 3, -3, Some(&HEADER)),
        message(2, "FORWARD", 3, 1, Some(&HEADER)),
        message(1, "DOCKER-USER", 2, -5, None),
        message(1, "FORWARD", 1, 0, None),
    ]
    .concat();
    let walks = walks(&parse(&bytes));
    let seen: Vec<_> = walks.iter().map(|walk| (walk.base.as_str(), walk.rule, walk.verdict)).collect();
    assert_eq!(seen, [("FORWARD", None, Verdict::Drop), ("FORWARD", Some(7), Verdict::Accept)]);
    let packet = &walks[0].packet;
    assert_eq!((packet.source, packet.target), (Some([10, 9, 0, 7].into()), Some([1, 1, 1, 1].into())));
    assert_eq!((packet.ports, packet.output, packet.reset), (Some((61_000, 443)), Some(5), true));
}

#[test]
fn every_message_cut_short_or_with_a_byte_changed_is_taken() {
    let whole = [message(1, "a", 3, -3, Some(&HEADER)), message(1, "a", 1, 1, None)].concat();
    for end in 0..whole.len() {
        parse(&whole[..end]);
    }
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut broken = whole.clone();
            broken[at] = value;
            walks(&parse(&broken));
        }
    }
    assert!(parse(&[0xff; 64]).is_empty());
}

#[test]
fn a_rule_is_found_by_its_handle_and_no_longer_one() {
    let listing = "table ip t { # handle 7\n\tchain c { # handle 7\n\t\tip saddr 10.0.0.1 drop # handle 17\n\
                   \t\tcounter packets 1 bytes 2 reject # handle 7\n\t}\n}\n";
    assert_eq!(rule_text(listing, 17).as_deref(), Some("ip saddr 10.0.0.1 drop"));
    assert_eq!(rule_text(listing, 7).as_deref(), Some("reject"));
    assert_eq!(rule_text(listing, 1), None);
}
