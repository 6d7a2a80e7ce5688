use super::*;
use crate::config::{Dhcp6Config, LeaseTime, Mac, Prefix6, Range6};

const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

fn net(text: &str) -> Ipv6Net {
    text.parse().unwrap()
}

fn config() -> Ipv6Config {
    Ipv6Config {
        prefixes: vec![Prefix6 { server: net("2001:db8:1::1/64"), autonomous: true }],
        router: true,
        routes: vec![net("2001:db8:77::/48")],
        dns: vec!["2001:db8:1::1".parse().unwrap()],
        domain: Some("lab.test".into()),
        mtu: Some(1400),
        dhcp: None,
    }
}

fn advertiser(config: Ipv6Config) -> Advertiser {
    let mut advertiser = Advertiser::default();
    advertiser.configure(Some(config), at(0));
    advertiser
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn some_address() -> Ipv6Addr {
    "fe80::2".parse().unwrap()
}

/// When those to all nodes are sent until a time, if nobody asks.
fn sent(advertiser: &mut Advertiser, until: Duration, dice: u64) -> Vec<u64> {
    let mut times = Vec::new();
    while let Some(next) = advertiser.next().filter(|next| *next <= until) {
        assert!(!advertiser.due(next - Duration::from_nanos(1).min(next), dice) || next.is_zero());
        if next.is_zero() || advertiser.due(next, dice) {
            times.push(next.as_secs());
        }
    }
    times
}

#[test]
fn rfc4861_6_2_4_three_come_soon_and_then_one_in_200_to_600_seconds() {
    assert_eq!(sent(&mut advertiser(config()), at(1000), 0), [0, 16, 32, 232, 432, 632, 832]);
    assert_eq!(sent(&mut advertiser(config()), at(1000), 400_000), [0, 16, 32, 632]);
    let mut any = advertiser(config());
    let times: Vec<u64> = (0..5000).map_while(|n| sent(&mut any, at(1 << 20), n * 0x9e37_79b9).pop()).collect();
    assert!(!times.is_empty());
}

#[test]
fn rfc4861_6_2_6_who_asks_is_answered_at_once_and_who_has_no_address_soon() {
    let mut advertiser = advertiser(config());
    assert!(advertiser.due(at(100), 0));
    assert_eq!(advertiser.solicited(some_address(), at(101)), Answer::Now);
    assert_eq!(advertiser.next(), Some(at(116)), "an answer to one is none to all");
    assert_eq!(advertiser.solicited(Ipv6Addr::UNSPECIFIED, at(101)), Answer::Soon);
    assert_eq!(advertiser.next(), Some(at(103)), "not before 3 s after the last");
    assert!(!advertiser.due(at(102), 0) && advertiser.due(at(103), 0));
    assert_eq!(advertiser.solicited(Ipv6Addr::UNSPECIFIED, at(110)), Answer::Soon);
    assert!(advertiser.due(at(110), 0));
}

#[test]
fn a_flood_of_solicitations_costs_an_answer_to_all_every_three_seconds() {
    let mut advertiser = advertiser(config());
    assert!(advertiser.due(at(50), 0));
    let answers = (0..10_000).filter(|_| advertiser.solicited(some_address(), at(60)) == Answer::Now).count();
    assert_eq!(answers, ANSWERS as usize);
    assert!(advertiser.due(at(60), 0) && !advertiser.due(at(60), 0));
    assert_eq!(advertiser.solicited(some_address(), at(61)), Answer::Now, "a second later");
}

#[test]
fn flags_are_those_of_libvirts_dnsmasq() {
    let flags = |dhcp: Option<Dhcp6Config>, autonomous| {
        let mut config = Ipv6Config { dhcp, ..config() };
        config.prefixes[0].autonomous = autonomous;
        let said = advertiser(config).say(at(0)).unwrap();
        (said.managed, said.other, said.prefixes[0].autonomous)
    };
    let server = net("2001:db8:1::1/64");
    let stateless = Dhcp6Config { server, ranges: Vec::new(), hosts: Vec::new() };
    let (start, end) = ("2001:db8:1::10".parse().unwrap(), "2001:db8:1::20".parse().unwrap());
    let stateful = Dhcp6Config { ranges: vec![Range6 { start, end, lease: LeaseTime::Infinite }], ..stateless.clone() };
    assert_eq!(flags(None, true), (false, false, true));
    assert_eq!(flags(Some(stateless), true), (false, true, true));
    assert_eq!(flags(Some(stateful), false), (true, true, false));
}

#[test]
fn an_isolated_network_has_no_router() {
    let isolated = Ipv6Config { router: false, routes: Vec::new(), ..config() };
    assert_eq!(advertiser(isolated).say(at(0)).unwrap().lifetime, 0);
}

#[test]
fn rfc4862_5_5_3_what_is_gone_is_taken_back_and_forgotten_after_two_hours() {
    let mut advertiser = advertiser(config());
    assert!(advertiser.due(at(0), 0));
    let mut other = config();
    other.prefixes[0].server = net("2001:db8:2::1/64");
    (other.dns, other.domain, other.routes) = (vec!["2001:db8:2::1".parse().unwrap()], None, Vec::new());
    advertiser.configure(Some(other.clone()), at(100));
    assert_eq!(advertiser.next(), Some(at(100)), "guests are told at once");
    let said = advertiser.say(at(200)).unwrap();
    let lifetimes: Vec<_> = said.prefixes.iter().map(|p| (p.net.to_string(), p.valid, p.preferred)).collect();
    assert_eq!(lifetimes, [("2001:db8:2::/64".into(), VALID, VALID), ("2001:db8:1::/64".into(), 7100, 0)]);
    assert_eq!(said.resolvers.iter().map(|(_, lifetime)| *lifetime).collect::<Vec<_>>(), [LIFETIME, 0]);
    assert_eq!(
        (&said.domains[..], &said.routes[..]),
        (&[("lab.test".to_owned(), 0)][..], &[(net("2001:db8:77::/48"), 0)][..])
    );

    // Back again before it was forgotten.
    let mut back = advertiser.config.clone().unwrap();
    back.prefixes.push(config().prefixes[0]);
    advertiser.configure(Some(back), at(300));
    assert!(advertiser.say(at(300)).unwrap().prefixes.iter().all(|prefix| prefix.preferred == VALID));
    advertiser.configure(Some(other), at(400));
    assert!(advertiser.due(at(400 + 7200), 0));
    assert_eq!(advertiser.say(at(400 + 7200)).unwrap().prefixes.len(), 1);
}

#[test]
fn rfc4861_6_2_5_the_last_word_takes_everything_back() {
    let mut advertiser = advertiser(config());
    assert!(advertiser.due(at(0), 0));
    let last = advertiser.farewell(at(5)).unwrap();
    assert_eq!(last.lifetime, 0);
    assert!(last.prefixes.iter().all(|prefix| (prefix.valid, prefix.preferred) == (0, 0)));
    let lifetimes = [last.routes[0].1, last.resolvers[0].1, last.domains[0].1];
    assert_eq!(lifetimes, [0; 3]);
    assert_eq!((advertiser.next(), advertiser.say(at(6))), (None, None));
    assert_eq!(advertiser.solicited(some_address(), at(6)), Answer::Nothing);
    // And anew, the guests are told again.
    advertiser.configure(Some(config()), at(7));
    assert_eq!(advertiser.next(), Some(at(7)));
}

#[test]
fn the_bytes_are_those_of_the_rfcs() {
    let bytes = advertiser(config()).say(at(0)).unwrap().emit(MAC);
    let hex = |text: &str| -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    };
    let expected = [
        // RFC 4861 §4.2: type, code, checksum, hop limit, flags, lifetime, reachable time, retransmission timer.
        "86 00 0000 40 00 0708 00000000 00000000",
        // §4.6.1 and §4.6.4: MAC, MTU.
        "01 01 525400000001",
        "05 01 0000 00000578",
        // §4.6.2: prefix.
        "03 04 40 c0 00015180 00015180 00000000 20010db8000100000000000000000000",
        // RFC 4191 §2.3: 48 bits in one unit.
        "18 02 30 00 00000708 20010db800770000",
        // RFC 8106 §5.1, §5.2.
        "19 03 0000 00000708 20010db8000100000000000000000001",
        "1f 03 0000 00000708 036c6162 0474657374 00 000000000000",
    ];
    assert_eq!(bytes, hex(&expected.join("")));
}
