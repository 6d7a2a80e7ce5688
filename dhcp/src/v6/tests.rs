//! Conversations with the machine, frame by frame; what it says is read by another codec (dhcproto).

use std::{collections::HashMap, net::Ipv6Addr, sync::Arc, time::Duration};

use dhcproto::{
    Decodable,
    v6::{Decoder, DhcpOption, DhcpOptions, MessageType, OptionCode, Status},
};

use super::{
    engine::{Engine, Handled, Heard, Next, Unusable},
    frame::{self, ALL_DHCP, Body},
    message::{self, code, kind, push},
    request::NoRequest,
    server::{Ignored, Note, Outcome},
};
use crate::{
    config::{Dhcp6Config, Ipv6Config, LeaseTime, Mac, PortName, Prefix6, Range6, Reservation6},
    moment::Moment,
    ra::Answer,
    testing::Random,
    v4::frame::Checksum,
    watch::{LeaseChange, LeaseKind},
};

type Reply = dhcproto::v6::Message;

const OWN: [u8; 6] = [0, 4, 9, 9, 9, 9];
const NOW: Moment = Moment { boot: Duration::from_secs(1000), wall: Duration::from_secs(1_700_000_000) };

fn later(seconds: u64) -> Moment {
    let past = Duration::from_secs(seconds);
    Moment { boot: NOW.boot + past, wall: NOW.wall + past }
}

fn place(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
}

fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, last])
}

/// A pool of 16 from ::10, leases of 600 s.
fn config() -> Ipv6Config {
    let server = "2001:db8::1/64".parse().unwrap();
    let ranges = vec![Range6 { start: place(0x10), end: place(0x1f), lease: LeaseTime::Seconds(600) }];
    Ipv6Config {
        prefixes: vec![Prefix6 { server, autonomous: false }],
        router: true,
        routes: Vec::new(),
        dns: vec![place(1)],
        domain: Some("lab.test".into()),
        mtu: None,
        dhcp: Some(Dhcp6Config { server, ranges, hosts: Vec::new() }),
    }
}

fn engine_with(config: Ipv6Config) -> Engine {
    let mut engine = Engine::new([], Arc::from(OWN), NOW);
    engine.reconfigure(Some(config), NOW);
    engine
}

fn engine() -> Engine {
    engine_with(config())
}

/// A client's message.
#[derive(Clone)]
struct Say {
    mac: Mac,
    to: Ipv6Addr,
    bytes: Vec<u8>,
}

impl Say {
    /// With the DUID that the MAC makes.
    fn new(kind: u8, last: u8) -> Say {
        let said = Say { mac: mac(last), to: ALL_DHCP, bytes: vec![kind, 1, 2, last] };
        said.with(code::CLIENT_ID, &duid(last))
    }

    fn with(mut self, code: u16, value: &[u8]) -> Say {
        push(&mut self.bytes, code, value);
        self
    }

    fn for_us(self) -> Say {
        self.with(code::SERVER_ID, &OWN)
    }

    /// An association of addresses.
    fn na(self, iaid: u32, addresses: &[Ipv6Addr]) -> Say {
        let mut body = [&iaid.to_be_bytes()[..], &[0; 8]].concat();
        for address in addresses {
            push(&mut body, code::IA_ADDRESS, &[&address.octets()[..], &[0; 8]].concat());
        }
        self.with(code::IA_NA, &body)
    }

    fn frame(&self) -> Vec<u8> {
        let from = (frame::link_local(self.mac), frame::CLIENT_PORT);
        frame::datagram(self.mac, mac(0xfe), from, (self.to, frame::SERVER_PORT), &self.bytes).unwrap()
    }
}

fn duid(last: u8) -> Vec<u8> {
    [&[0, 3, 0, 1][..], &mac(last).0].concat()
}

fn nobody(_: &str) -> Option<Mac> {
    None
}

fn hear(engine: &mut Engine, said: &Say, now: Moment) -> Handled {
    match engine.handle(&said.frame(), Checksum::Full, now, &nobody) {
        Ok(Heard::Message(handled)) => handled,
        other => panic!("{other:?}"),
    }
}

/// What comes of a message whose writes reach the disk.
fn ask(engine: &mut Engine, said: &Say, now: Moment) -> Option<Reply> {
    let reply = match hear(engine, said, now).next {
        Next::Nothing => return None,
        Next::Send(reply) => reply,
        Next::Write(submission, writes) => {
            assert!(!writes.is_empty());
            engine.settle(submission, true).reply?
        }
    };
    assert_eq!((reply.mac, reply.to, reply.port), (said.mac, frame::link_local(said.mac), frame::CLIENT_PORT));
    Some(read(&reply.payload))
}

fn read(payload: &[u8]) -> Reply {
    let reply = Reply::decode(&mut Decoder::new(payload)).unwrap();
    let OptionOf::Server(server) = option(reply.opts(), OptionCode::ServerId) else { panic!("{reply:?}") };
    assert_eq!(server, OWN);
    reply
}

/// Options as these tests look at them.
#[derive(Debug, PartialEq)]
enum OptionOf {
    None,
    Server(Vec<u8>),
    Preference(u8),
    Status(Status),
    Present,
}

fn option(options: &DhcpOptions, code: OptionCode) -> OptionOf {
    match options.get(code) {
        None => OptionOf::None,
        Some(DhcpOption::ServerId(duid)) => OptionOf::Server(duid.clone()),
        Some(DhcpOption::Preference(preference)) => OptionOf::Preference(*preference),
        Some(DhcpOption::StatusCode(status)) => OptionOf::Status(status.status),
        Some(_) => OptionOf::Present,
    }
}

/// What an association is told: its addresses with their valid lifetimes, and a status.
fn told(reply: &Reply, iaid: u32) -> (Vec<(Ipv6Addr, u32)>, Option<Status>) {
    let found = reply.opts().iter().find_map(|option| match option {
        DhcpOption::IANA(ia) if ia.id == iaid => Some(ia),
        _ => None,
    });
    let ia = found.unwrap_or_else(|| panic!("no association {iaid} in {reply:?}"));
    let addresses = ia.opts.iter().filter_map(|option| match option {
        DhcpOption::IAAddr(address) => Some((address.addr, address.valid_life)),
        _ => None,
    });
    let status = match option(&ia.opts, OptionCode::StatusCode) {
        OptionOf::Status(status) => Some(status),
        _ => None,
    };
    (addresses.collect(), status)
}

/// The one address that an association is given.
fn given(reply: &Reply, iaid: u32) -> Ipv6Addr {
    let (addresses, status) = told(reply, iaid);
    assert_eq!((addresses.len(), status), (1, None), "{reply:?}");
    assert_eq!(addresses[0].1, 600);
    addresses[0].0
}

fn lease(engine: &mut Engine, last: u8, iaid: u32) -> Ipv6Addr {
    let reply = ask(engine, &Say::new(kind::REQUEST, last).for_us().na(iaid, &[]), NOW).unwrap();
    given(&reply, iaid)
}

fn status(reply: &Reply) -> OptionOf {
    option(reply.opts(), OptionCode::StatusCode)
}

#[test]
fn rfc8415_18_3_9_a_solicit_is_answered_by_an_offer_that_binds_nothing() {
    let mut engine = engine();
    let reply = ask(&mut engine, &Say::new(kind::SOLICIT, 1).na(7, &[]), NOW).unwrap();
    assert_eq!(reply.msg_type(), MessageType::Advertise);
    assert_eq!(option(reply.opts(), OptionCode::Preference), OptionOf::Preference(255));
    let offered = given(&reply, 7);
    assert!((place(0x10)..=place(0x1f)).contains(&offered));
    assert!(engine.leases(NOW).is_empty());
    // §18.3.2: asked for, it is bound, and not before the disk has it.
    let handled = hear(&mut engine, &Say::new(kind::REQUEST, 1).for_us().na(7, &[offered]), NOW);
    let Next::Write(submission, writes) = handled.next else { panic!("{handled:?}") };
    assert_eq!((writes.len(), engine.take_changes(NOW).len()), (1, 2));
    let reply = engine.settle(submission, true).reply.unwrap();
    assert_eq!(given(&read(&reply.payload), 7), offered);
    let change = |kind| LeaseChange { mac: mac(1), hostname: None, kind };
    assert_eq!(engine.take_changes(NOW), [change(LeaseKind::Leased(offered.into()))]);
    assert_eq!(engine.leases(NOW)[0].address, offered);
    // The same from now on, for this client and this number.
    assert_eq!(lease(&mut engine, 1, 7), offered);
    assert_ne!(lease(&mut engine, 1, 8), offered);
    assert_ne!(lease(&mut engine, 2, 7), offered);
}

#[test]
fn rfc8415_18_3_1_rapid_commit_saves_two_messages() {
    let mut engine = engine();
    let solicit = Say::new(kind::SOLICIT, 1).na(7, &[]).with(code::RAPID_COMMIT, &[]);
    let reply = ask(&mut engine, &solicit, NOW).unwrap();
    assert_eq!(reply.msg_type(), MessageType::Reply);
    assert_eq!(option(reply.opts(), OptionCode::RapidCommit), OptionOf::Present);
    assert_eq!(engine.leases(NOW)[0].address, given(&reply, 7));
}

#[test]
fn rfc8415_18_3_2_an_address_of_another_link_is_not_asked_for_here() {
    let mut engine = engine();
    let elsewhere = "2001:db8:f::5".parse().unwrap();
    let reply = ask(&mut engine, &Say::new(kind::REQUEST, 1).for_us().na(7, &[elsewhere]), NOW).unwrap();
    assert_eq!(told(&reply, 7), (vec![], Some(Status::NotOnLink)));
    // One that somebody took in the meantime: another in its place.
    let taken = lease(&mut engine, 2, 1);
    let reply = ask(&mut engine, &Say::new(kind::REQUEST, 1).for_us().na(7, &[taken]), NOW).unwrap();
    assert_ne!(given(&reply, 7), taken);
}

#[test]
fn rfc8415_18_3_3_confirm_says_whether_this_is_the_link() {
    let mut engine = engine();
    let confirm = |addresses: &[Ipv6Addr]| Say::new(kind::CONFIRM, 1).na(7, addresses);
    let reply = ask(&mut engine, &confirm(&[place(0x12)]), NOW).unwrap();
    assert_eq!(status(&reply), OptionOf::Status(Status::Success));
    let elsewhere = "2001:db8:f::5".parse().unwrap();
    let reply = ask(&mut engine, &confirm(&[place(0x12), elsewhere]), NOW).unwrap();
    assert_eq!(status(&reply), OptionOf::Status(Status::NotOnLink));
    assert_eq!(hear(&mut engine, &confirm(&[]), NOW).ignored, Some(Ignored::NoAddress));
}

#[test]
fn rfc8415_18_3_4_a_renewal_goes_on_and_one_of_a_lost_lease_too() {
    let mut engine = engine();
    let address = lease(&mut engine, 1, 7);
    let renew = Say::new(kind::RENEW, 1).for_us().na(7, &[address]);
    let reply = ask(&mut engine, &renew, later(300)).unwrap();
    assert_eq!(given(&reply, 7), address);
    assert_eq!(engine.leases(later(300))[0].ends, Some(later(900).wall.as_secs()));
    let mut fresh = self::engine();
    assert_eq!(given(&ask(&mut fresh, &renew, NOW).unwrap(), 7), address);
}

#[test]
fn rfc8415_18_3_5_a_client_that_moved_here_is_told_which_addresses_are_over() {
    let mut engine = engine();
    let elsewhere: Ipv6Addr = "2001:db8:f::5".parse().unwrap();
    let reply = ask(&mut engine, &Say::new(kind::REBIND, 1).na(7, &[elsewhere]), NOW).unwrap();
    let (addresses, status) = told(&reply, 7);
    assert_eq!((addresses.len(), addresses[1], status), (2, (elsewhere, 0), None));
    assert!((place(0x10)..=place(0x1f)).contains(&addresses[0].0));
}

#[test]
fn rfc8415_18_3_6_resolvers_and_domain_are_told_without_a_lease() {
    let mut engine = engine_with(Ipv6Config { dhcp: None, ..config() });
    let mut ask_for = Say { mac: mac(1), to: ALL_DHCP, bytes: vec![kind::INFORMATION_REQUEST, 1, 2, 3] };
    ask_for = ask_for.with(code::OPTION_REQUEST, &[0, 23, 0, 24, 0, 32]);
    let reply = ask(&mut engine, &ask_for, NOW).unwrap();
    assert_eq!(reply.msg_type(), MessageType::Reply);
    let resolvers = reply.opts().get(OptionCode::DomainNameServers);
    assert_eq!(resolvers, Some(&DhcpOption::DomainNameServers(vec![place(1)])));
    assert_eq!(option(reply.opts(), OptionCode::DomainSearchList), OptionOf::Present);
    assert_eq!(option(reply.opts(), OptionCode::InformationRefreshTime), OptionOf::Present);
    // A network without `<dhcp>` says nothing to one who wants an address.
    assert_eq!(hear(&mut engine, &Say::new(kind::SOLICIT, 1).na(7, &[]), NOW).ignored, Some(Ignored::NoDhcp));
}

#[test]
fn rfc8415_18_3_7_what_is_given_back_is_free_and_its_client_may_have_it_again() {
    let mut engine = engine();
    let address = lease(&mut engine, 1, 7);
    let release = Say::new(kind::RELEASE, 1).for_us().na(7, &[address]).na(8, &[place(0x11)]);
    engine.take_changes(NOW);
    let reply = ask(&mut engine, &release, later(5)).unwrap();
    assert_eq!(status(&reply), OptionOf::Status(Status::Success));
    assert_eq!(told(&reply, 8), (vec![], Some(Status::NoBinding)));
    assert!(engine.leases(later(5)).is_empty());
    let change = LeaseChange { mac: mac(1), hostname: None, kind: LeaseKind::Released(address.into()) };
    assert_eq!(engine.take_changes(later(5)), [change]);
    // Another system on the same machine, which counts its interfaces otherwise.
    let again = ask(&mut engine, &Say::new(kind::REQUEST, 1).for_us().na(99, &[]), later(6)).unwrap();
    assert_eq!(given(&again, 99), address);
}

#[test]
fn rfc8415_18_3_8_a_declined_address_is_nobodys_for_a_while() {
    let mut engine = engine();
    let address = lease(&mut engine, 1, 7);
    let reply = ask(&mut engine, &Say::new(kind::DECLINE, 1).for_us().na(7, &[address]), NOW).unwrap();
    assert_eq!(status(&reply), OptionOf::Status(Status::Success));
    for last in 1..16 {
        assert_ne!(lease(&mut engine, last, 7), address);
    }
    engine.tick(later(601), NOW);
    let mut last = Vec::new();
    for client in 20..36 {
        let reply = ask(&mut engine, &Say::new(kind::REQUEST, client).for_us().na(7, &[]), later(602)).unwrap();
        last.push(given(&reply, 7));
    }
    assert!(last.contains(&address), "after the quarantine it is like any other");
}

#[test]
fn rfc8415_18_4_clients_speak_to_all_servers() {
    let mut engine = engine();
    let to_one = |said: Say, to: Ipv6Addr| Say { to, ..said };
    let renew = Say::new(kind::RENEW, 1).for_us().na(7, &[place(0x11)]);
    let reply = ask(&mut engine, &to_one(renew.clone(), place(1)), NOW).unwrap();
    assert_eq!(status(&reply), OptionOf::Status(Status::UseMulticast));
    assert!(engine.leases(NOW).is_empty());
    let solicit = to_one(Say::new(kind::SOLICIT, 1).na(7, &[]), place(1));
    for said in [solicit, to_one(renew, place(0x99))] {
        assert_eq!(hear(&mut engine, &said, NOW).ignored, Some(Ignored::Unicast));
    }
}

#[test]
fn rfc8415_16_messages_that_are_not_as_they_must_be_are_not_answered() {
    let mut engine = engine();
    let other = |kind: u8| Say::new(kind, 1).with(code::SERVER_ID, &[0, 4, 1]).na(7, &[]);
    for kind in [kind::REQUEST, kind::RENEW, kind::RELEASE, kind::DECLINE] {
        assert_eq!(hear(&mut engine, &other(kind), NOW).ignored, Some(Ignored::AnotherServer));
    }
    let mut refused = |said: Say| match engine.handle(&said.frame(), Checksum::Full, NOW, &nobody) {
        Err(Unusable::Request(cause)) => cause,
        other => panic!("{other:?}"),
    };
    for kind in [kind::SOLICIT, kind::CONFIRM, kind::REBIND, kind::INFORMATION_REQUEST] {
        assert_eq!(refused(other(kind)), NoRequest::Invalid, "{kind}");
    }
    for kind in [kind::REQUEST, kind::RENEW, kind::RELEASE, kind::DECLINE] {
        assert_eq!(refused(Say::new(kind, 1).na(7, &[])), NoRequest::Invalid, "{kind}");
    }
    let nameless = Say { mac: mac(1), to: ALL_DHCP, bytes: vec![kind::SOLICIT, 1, 2, 3] }.na(7, &[]);
    assert_eq!(refused(nameless), NoRequest::NoClient);
    assert_eq!(refused(Say::new(kind::REPLY, 1)), NoRequest::Kind(kind::REPLY));
}

#[test]
fn rfc8415_21_prefixes_and_temporary_addresses_are_refused_by_name() {
    let mut engine = engine();
    let iaid = 7_u32.to_be_bytes();
    let solicit = Say::new(kind::SOLICIT, 1)
        .with(code::IA_TA, &iaid)
        .with(code::IA_PD, &[&iaid[..], &[0; 8]].concat())
        .na(7, &[]);
    let reply = ask(&mut engine, &solicit, NOW).unwrap();
    let mut seen = Vec::new();
    for inside in reply.opts().iter() {
        match inside {
            DhcpOption::IATA(ia) => seen.push(option(&ia.opts, OptionCode::StatusCode)),
            DhcpOption::IAPD(ia) => seen.push(option(&ia.opts, OptionCode::StatusCode)),
            _ => {}
        }
    }
    let expected = [OptionOf::Status(Status::NoAddrsAvail), OptionOf::Status(Status::NoPrefixAvail)];
    assert!(seen.len() == 2 && expected.iter().all(|status| seen.contains(status)), "{seen:?}");
    given(&reply, 7);
}

#[test]
fn every_address_of_the_pool_is_one_clients_and_then_there_is_none() {
    let mut engine = engine();
    let mut all: Vec<Ipv6Addr> = (1..=16).map(|last| lease(&mut engine, last, 7)).collect();
    all.sort();
    assert_eq!(all, (0x10..0x20).map(place).collect::<Vec<_>>());
    let reply = ask(&mut engine, &Say::new(kind::SOLICIT, 77).na(7, &[]), NOW).unwrap();
    assert_eq!(told(&reply, 7), (vec![], Some(Status::NoAddrsAvail)));
    // What ended longest ago is given away first.
    let of_five = engine.leases(NOW).into_iter().find(|row| row.key.mac == mac(5)).unwrap().address;
    ask(&mut engine, &Say::new(kind::RELEASE, 5).for_us().na(7, &[of_five]), NOW).unwrap();
    assert_eq!(lease(&mut engine, 77, 7), of_five);
}

#[test]
fn one_machine_cannot_fill_the_pool() {
    let mut wide = config();
    wide.dhcp.as_mut().unwrap().ranges[0].end = place(0xffff);
    let mut engine = engine_with(wide);
    for iaid in 0..16 {
        lease(&mut engine, 1, iaid);
    }
    let reply = ask(&mut engine, &Say::new(kind::REQUEST, 1).for_us().na(16, &[]), NOW).unwrap();
    assert_eq!(told(&reply, 16), (vec![], Some(Status::NoAddrsAvail)));
    lease(&mut engine, 2, 0);
}

#[test]
fn reservations_are_by_duid_and_by_name_and_nobody_elses() {
    let mut config = config();
    let host = |duid: Option<Vec<u8>>, name: Option<&str>, last| Reservation6 {
        duid,
        name: name.map(str::to_owned),
        address: Some(place(last)),
        lease: None,
    };
    let hosts = vec![host(Some(duid(1)), Some("mail"), 0x77), host(None, Some("web"), 0x11)];
    config.dhcp.as_mut().unwrap().hosts = hosts;
    let mut engine = engine_with(config);
    assert_eq!(lease(&mut engine, 1, 7), place(0x77));
    assert_eq!(engine.leases(NOW)[0].hostname.as_deref(), Some("mail"));
    // By the name it says (RFC 4704), with the server to make that known, which it says back.
    let fqdn = b"\x00\x03web\x09elsewhere\x00";
    let request = Say::new(kind::REQUEST, 2).for_us().na(7, &[]).with(code::CLIENT_FQDN, fqdn);
    let handled = hear(&mut engine, &request.with(code::OPTION_REQUEST, &[0, 39]), NOW);
    let Next::Write(submission, _) = handled.next else { panic!("{handled:?}") };
    let reply = engine.settle(submission, true).reply.unwrap();
    assert_eq!(given(&read(&reply.payload), 7), place(0x11));
    // S and O: we make it known though the client would have done it itself.
    let options = message::options(&reply.payload[4..]).unwrap();
    assert_eq!(message::find(&options, code::CLIENT_FQDN), Some(&b"\x03\x03web\x03lab\x04test\0"[..]));
    // A port whose guest has the name counts more than who claims it.
    let ports = vec![PortName { mac: mac(3), guest: Some("web".into()) }];
    engine.set_ports(ports);
    let release = Say::new(kind::RELEASE, 2).for_us().na(7, &[place(0x11)]);
    ask(&mut engine, &release, NOW).unwrap();
    assert_eq!(lease(&mut engine, 3, 7), place(0x11));
    // Nobody else gets one out of the pool.
    for client in 20..35 {
        assert_ne!(lease(&mut engine, client, 7), place(0x11));
    }
}

#[test]
fn a_machines_next_system_takes_over_its_reservation() {
    let mut config = config();
    let host = Reservation6 { duid: None, name: Some("vm".into()), address: Some(place(0x77)), lease: None };
    config.dhcp.as_mut().unwrap().hosts = vec![host];
    let mut engine = engine_with(config);
    engine.set_ports(vec![PortName { mac: mac(1), guest: Some("vm".into()) }]);
    assert_eq!(lease(&mut engine, 1, 7), place(0x77));
    // One system with two associations has one address of the two from the pool.
    assert_ne!(lease(&mut engine, 1, 8), place(0x77));
    let next = Say { mac: mac(1), to: ALL_DHCP, bytes: vec![kind::REQUEST, 1, 2, 3] };
    let next = next.with(code::CLIENT_ID, &[0, 4, 7, 7, 7]).for_us().na(9, &[]);
    assert_eq!(given(&ask(&mut engine, &next, NOW).unwrap(), 9), place(0x77));
    let owners: Vec<_> = engine.leases(NOW).into_iter().map(|row| (row.key.iaid, row.address)).collect();
    assert!(owners.contains(&(9, place(0x77))) && !owners.iter().any(|(iaid, _)| *iaid == 7), "{owners:?}");
}

#[test]
fn a_name_is_one_machines_and_stands_for_its_addresses() {
    let mut engine = engine();
    let named = |last: u8| Say::new(kind::REQUEST, last).for_us().na(7, &[]).with(code::CLIENT_FQDN, b"\x01\x03web");
    ask(&mut engine, &named(1), NOW).unwrap();
    assert_eq!(hear(&mut engine, &named(2), NOW).notes, [Note::NameTaken("web".into())]);
    let names = engine.take_names(NOW, false, &nobody).unwrap();
    let address = engine.leases(NOW)[0].address;
    assert_eq!(names.records, [("web".to_owned(), address.into())]);
    // Another's by an IPv4 lease: then it stands for nothing here.
    let elsewhere = |_: &str| Some(mac(9));
    assert_eq!(engine.take_names(NOW, true, &elsewhere).unwrap().records, []);
    // One that wants nobody to make its name known has none (RFC 4704 §4.1).
    let unnamed = Say::new(kind::REQUEST, 3).for_us().na(7, &[]).with(code::CLIENT_FQDN, b"\x04\x02db");
    ask(&mut engine, &unnamed, NOW).unwrap();
    assert!(engine.leases(NOW).iter().all(|row| row.hostname.as_deref() != Some("db")));
}

#[test]
fn rfc6939_a_relay_says_whose_mac_it_is_and_the_reply_goes_back_through_it() {
    let mut engine = engine();
    let inner = Say::new(kind::REQUEST, 5).for_us().na(7, &[]).bytes;
    let relay = |link: Ipv6Addr| {
        let mut bytes = vec![kind::RELAY_FORWARD, 0];
        bytes.extend(link.octets());
        bytes.extend(place(0x500).octets());
        push(&mut bytes, code::INTERFACE_ID, b"eth7");
        push(&mut bytes, code::CLIENT_LINK_LAYER, &[&[0, 1][..], &mac(0x42).0].concat());
        push(&mut bytes, code::RELAY_MESSAGE, &inner);
        Say { mac: mac(0x99), to: place(1), bytes }
    };
    let handled = hear(&mut engine, &relay(place(0x400)), NOW);
    assert_eq!(handled.mac, mac(0x42));
    let Next::Write(submission, _) = handled.next else { panic!("{handled:?}") };
    let reply = engine.settle(submission, true).reply.unwrap();
    assert_eq!((reply.mac, reply.port, reply.payload[0]), (mac(0x99), frame::SERVER_PORT, kind::RELAY_REPLY));
    assert_eq!(reply.payload[2..34], [place(0x400).octets(), place(0x500).octets()].concat());
    let options = message::options(&reply.payload[34..]).unwrap();
    assert_eq!(message::find(&options, code::INTERFACE_ID), Some(&b"eth7"[..]));
    given(&read(message::find(&options, code::RELAY_MESSAGE).unwrap()), 7);
    // Of another link; and for a port's MAC, which is on this very bridge.
    let other = relay("2001:db8:f::1".parse().unwrap());
    assert_eq!(hear(&mut engine, &other, NOW).ignored, Some(Ignored::UnknownRelay));
    engine.set_ports(vec![PortName { mac: mac(0x42), guest: None }]);
    assert_eq!(hear(&mut engine, &relay(place(0x400)), NOW).ignored, Some(Ignored::NotTheOwner));
}

#[test]
fn a_client_whose_reservation_came_later_is_moved_when_it_renews() {
    let mut engine = engine();
    let before = lease(&mut engine, 1, 7);
    let mut changed = config();
    let host = Reservation6 { duid: Some(duid(1)), name: None, address: Some(place(0x77)), lease: None };
    changed.dhcp.as_mut().unwrap().hosts.push(host);
    engine.reconfigure(Some(changed), NOW);
    let reply = ask(&mut engine, &Say::new(kind::RENEW, 1).for_us().na(7, &[before]), NOW).unwrap();
    assert_eq!(told(&reply, 7), (vec![(place(0x77), 600), (before, 0)], None));
}

#[test]
fn rfc4861_6_1_1_only_valid_solicitations_are_answered() {
    let mut engine = engine();
    let solicit = |from: Ipv6Addr, message: &[u8]| frame::discovery(mac(1), mac(2), from, frame::ALL_ROUTERS, message);
    let from = frame::link_local(mac(1));
    let good = [&[133, 0, 0, 0, 0, 0, 0, 0][..], &[1, 1], &mac(1).0].concat();
    let mut hear = |frame: &[u8]| engine.handle(frame, Checksum::Full, NOW, &nobody);
    let heard = hear(&solicit(from, &good).unwrap());
    assert!(matches!(heard, Ok(Heard::Solicitation { answer: Answer::Now, .. })), "{heard:?}");
    let mut far = solicit(from, &good).unwrap();
    far[14 + 7] = 254;
    let mut wrong_sum = solicit(from, &good).unwrap();
    wrong_sum[14 + 42] ^= 1;
    let no_length = [&good[..8], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
    let bad = [
        far,
        wrong_sum,
        solicit(from, &no_length).unwrap(),
        solicit(from, &good[..12]).unwrap(),
        solicit(from, &good[..6]).unwrap(),
        // It says a MAC where there is no address to go with it.
        solicit(Ipv6Addr::UNSPECIFIED, &good).unwrap(),
    ];
    for frame in bad {
        assert!(matches!(hear(&frame), Err(Unusable::Frame(_))));
    }
    assert!(hear(&solicit(Ipv6Addr::UNSPECIFIED, &good[..8]).unwrap()).is_ok());
}

/// The fuzz body: whatever the bytes, nothing panics, and what was read survives being written and read again.
fn parse_emit_parse(bytes: &[u8]) {
    let _ = frame::parse(bytes, Checksum::Partial);
    let Ok((relays, once)) = message::parse(bytes) else { return };
    if relays.is_empty() {
        assert_eq!(message::parse(&once.to_bytes()).unwrap().1, once);
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Random::new(6);
    let mut engine = engine();
    let seeds = [
        Say::new(kind::SOLICIT, 1).na(7, &[place(0x11)]).with(code::RAPID_COMMIT, &[]),
        Say::new(kind::REQUEST, 2).for_us().na(7, &[place(0x11)]).with(code::CLIENT_FQDN, b"\x01\x03web"),
        Say::new(kind::RELEASE, 2).for_us().na(7, &[place(0x11)]),
    ];
    for _ in 0..20_000 {
        let len = random.below(200);
        parse_emit_parse(&random.bytes(len));
        // A real one with some bytes changed, and cut somewhere.
        let mut said = seeds[random.below(3) as usize].clone();
        for _ in 0..random.below(4) {
            let at = random.below(said.bytes.len() as u64) as usize;
            said.bytes[at] = random.next() as u8;
        }
        if random.once_in(3) {
            said.bytes.truncate(random.below(said.bytes.len() as u64 + 1) as usize);
        }
        if random.once_in(5) {
            let inner = said.bytes.clone();
            said.bytes = [&[kind::RELAY_FORWARD, 0][..], &[0; 32]].concat();
            push(&mut said.bytes, code::RELAY_MESSAGE, &inner);
        }
        parse_emit_parse(&said.bytes);
        if let Ok(Heard::Message(Handled { next: Next::Write(submission, _), .. })) =
            engine.handle(&said.frame(), Checksum::Full, NOW, &nobody)
        {
            let written = random.once_in(2);
            engine.settle(submission, written);
        }
    }
}

#[test]
fn no_address_is_ever_two_clients_however_the_disk_fails() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let mut engine = engine();
        let mut now = NOW;
        let mut waiting: Vec<(_, (Mac, u32), Moment, bool)> = Vec::new();
        // What clients believe: by address, who has it and until when.
        let mut believed: HashMap<Ipv6Addr, ((Mac, u32), u64)> = HashMap::new();
        for _ in 0..1500 {
            if random.once_in(40) {
                // Reservations come and go: leases move.
                let mut other = config();
                other.dhcp.as_mut().unwrap().hosts = (0..3)
                    .map(|n| Reservation6 {
                        duid: Some(duid(1 + 4 * n + random.below(4) as u8)),
                        name: None,
                        address: Some(place(0x10 + 5 * u16::from(n) + random.below(5) as u16)),
                        lease: None,
                    })
                    .collect();
                engine.reconfigure(Some(other), now);
            }
            let (last, iaid) = (random.below(12) as u8 + 1, random.below(2) as u32);
            let own = believed.iter().filter(|(_, (owner, _))| *owner == (mac(last), iaid));
            let own: Vec<Ipv6Addr> = own.map(|(address, _)| *address).collect();
            let hints = if random.once_in(3) { vec![place(0x10 + random.below(16) as u16)] } else { own.clone() };
            let said = match random.below(8) {
                0 => Say::new(kind::SOLICIT, last).na(iaid, &hints).with(code::RAPID_COMMIT, &[]),
                1 | 2 => Say::new(kind::REQUEST, last).for_us().na(iaid, &hints),
                3 | 4 => Say::new(kind::RENEW, last).for_us().na(iaid, &own),
                5 => Say::new(kind::REBIND, last).na(iaid, &hints),
                6 => Say::new(kind::RELEASE, last).for_us().na(iaid, &own),
                _ => Say::new(kind::DECLINE, last).for_us().na(iaid, &own),
            };
            if matches!(said.bytes[0], kind::RELEASE | kind::DECLINE) {
                // It uses them no more from when it says so.
                believed.retain(|address, _| !own.contains(address));
                for (_, client, _, is_heard) in &mut waiting {
                    *is_heard &= *client != (said.mac, iaid);
                }
            }
            match hear(&mut engine, &said, now).next {
                Next::Write(submission, _) => waiting.push((submission, (said.mac, iaid), now, true)),
                Next::Send(_) | Next::Nothing => {}
            }
            while !waiting.is_empty() && random.once_in(2) {
                let (submission, client, asked, is_heard) = waiting.remove(0);
                let written = !random.once_in(4);
                let settled = engine.settle(submission, written);
                for (key, outcome) in settled.outcomes {
                    assert_eq!((key.mac, key.iaid), client);
                    let Outcome::Leased { address, .. } = outcome else { continue };
                    if !is_heard {
                        continue;
                    }
                    let wall = now.wall.as_secs();
                    if let Some((owner, until)) = believed.get(&address) {
                        assert!(
                            owner.0 == client.0 || *until <= wall,
                            "seed {seed}: {address} is {owner:?}'s and {client:?}'s"
                        );
                    }
                    // A client that has another now has given up what it had.
                    believed.retain(|_, (owner, _)| *owner != client);
                    believed.insert(address, (client, asked.wall.as_secs() + 600));
                }
            }
            if random.once_in(10) {
                let before = now;
                let past = Duration::from_secs(random.below(400));
                now = Moment { boot: now.boot + past, wall: now.wall + past };
                engine.tick(now, before);
            }
            let mut leased: Vec<Ipv6Addr> = engine.leases(now).into_iter().map(|row| row.address).collect();
            let count = leased.len();
            leased.sort();
            leased.dedup();
            assert_eq!(leased.len(), count);
        }
    }
}

#[test]
fn frames_are_read_as_they_are_written() {
    let said = Say::new(kind::SOLICIT, 1).na(7, &[]);
    let written = said.frame();
    let packet = frame::parse(&written, Checksum::Full).unwrap();
    assert_eq!((packet.from_mac, packet.from, packet.to), (mac(1), frame::link_local(mac(1)), ALL_DHCP));
    assert_eq!(packet.body, Body::Datagram { from: 546, to: 547, payload: &said.bytes });
    let mut broken = written;
    *broken.last_mut().unwrap() ^= 1;
    assert!(frame::parse(&broken, Checksum::Full).is_err());
    assert!(frame::parse(&broken, Checksum::Partial).is_ok());
}
