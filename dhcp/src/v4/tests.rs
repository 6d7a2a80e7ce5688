//! The wire types against random bytes, against themselves, and against another codec (dhcproto).

use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::{Decodable, Encodable, v4 as oracle};

use super::{
    Message, Op, WireError,
    frame::{self, BROADCAST_MAC, Checksum, Datagram, FrameError},
    options::{Oddity, Options, code},
    request::{Envelope, Kind, NoRequest, Request},
};
use crate::{config::Mac, testing::Random};

const CLIENT: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x0a]);

fn discover() -> Message {
    let mut chaddr = [0; 16];
    chaddr[..6].copy_from_slice(&CLIENT.0);
    let mut options = Options::new();
    options.push(code::MESSAGE_TYPE, &[1]);
    let none = Ipv4Addr::UNSPECIFIED;
    Message {
        op: Op::Request,
        htype: 1,
        hlen: 6,
        hops: 0,
        xid: 0xdead_beef,
        secs: 3,
        flags: Message::BROADCAST,
        ciaddr: none,
        yiaddr: none,
        siaddr: none,
        giaddr: none,
        chaddr,
        sname: Vec::new(),
        file: Vec::new(),
        options,
    }
}

/// The fixed header of a DISCOVER with these bytes as options field, `file` and `sname`.
fn raw(options: &[u8], file: &[u8], sname: &[u8]) -> Vec<u8> {
    let mut bytes = discover().to_bytes();
    bytes.truncate(240);
    bytes[44..44 + sname.len()].copy_from_slice(sname);
    bytes[108..108 + file.len()].copy_from_slice(file);
    bytes.extend_from_slice(options);
    bytes
}

fn read(bytes: &[u8]) -> (Result<Request, NoRequest>, Vec<Oddity>) {
    let (message, mut oddities) = Message::parse(bytes).unwrap();
    let envelope = Envelope { mac: CLIENT, ip: Ipv4Addr::UNSPECIFIED, to: Ipv4Addr::BROADCAST };
    let request = Request::read(&message, envelope, &mut oddities);
    (request, oddities)
}

/// The fuzz body: whatever the bytes, nothing panics, and what was read survives being written and read again.
fn parse_emit_parse(bytes: &[u8]) {
    let _ = frame::parse(bytes, Checksum::Full);
    if let Ok(datagram) = frame::parse(bytes, Checksum::Partial) {
        let _ = Message::parse(datagram.payload);
    }
    let Ok((message, mut oddities)) = Message::parse(bytes) else { return };
    let mut once = message.clone();
    let overloaded = once.options.get(code::OVERLOAD).is_some();
    if overloaded {
        // Written back, the fields it speaks of are empty: nothing more to read, nothing lost.
        once = Message { options: Options::new(), ..once };
        message.options.iter().filter(|(code, _)| *code != code::OVERLOAD).for_each(|(c, v)| once.options.push(c, v));
    }
    let (twice, none) = Message::parse(&once.to_bytes()).unwrap();
    assert_eq!((twice, none), (once, vec![]));
    let envelope = Envelope { mac: CLIENT, ip: Ipv4Addr::UNSPECIFIED, to: Ipv4Addr::BROADCAST };
    let _ = Request::read(&message, envelope, &mut oddities);
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Random::new(1);
    for _ in 0..20_000 {
        let len = random.below(700);
        let bytes = random.bytes(len);
        parse_emit_parse(&bytes);
        parse_emit_parse(&raw(&bytes, &[], &[]));
    }
}

#[test]
fn a_message_with_any_byte_changed_never_panics() {
    let mut whole = discover();
    for (code, value) in [(12, &b"web"[..]), (50, &[10, 0, 0, 9]), (52, &[3]), (55, &[1, 3, 6]), (61, &[1; 7])] {
        whole.options.push(code, value);
    }
    let bytes = whole.to_bytes();
    let mut random = Random::new(2);
    for _ in 0..20_000 {
        let mut bytes = bytes.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.next() as u8;
        }
        bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
        parse_emit_parse(&bytes);
    }
}

#[test]
fn a_frame_with_any_byte_changed_never_panics_and_never_passes_its_checksum() {
    let payload = discover().to_bytes();
    let datagram = Datagram {
        from_mac: CLIENT,
        to_mac: BROADCAST_MAC,
        from: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68),
        to: SocketAddrV4::new(Ipv4Addr::BROADCAST, 67),
        payload: &payload,
    };
    let mut bytes = vec![0; frame::len(payload.len())];
    assert_eq!(frame::emit(&datagram, &mut bytes), Some(bytes.len()));
    assert_eq!(frame::parse(&bytes, Checksum::Full), Ok(datagram));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        parse_emit_parse(&changed);
        // The payload and its ports and addresses are under the checksum.
        if at >= 26 && !(38..42).contains(&at) {
            let result = frame::parse(&changed, Checksum::Full);
            assert!(matches!(result, Err(FrameError::Checksum { .. })), "byte {at}: {result:?}");
            assert!(frame::parse(&changed, Checksum::Partial).is_ok(), "byte {at}");
        }
    }
}

#[test]
fn a_frame_padded_by_the_link_is_cut_to_its_datagram() {
    let datagram = Datagram {
        from_mac: CLIENT,
        to_mac: BROADCAST_MAC,
        from: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68),
        to: SocketAddrV4::new(Ipv4Addr::BROADCAST, 67),
        payload: b"short",
    };
    let mut bytes = vec![0; frame::len(5)];
    frame::emit(&datagram, &mut bytes);
    bytes.resize(60, 0xaa);
    assert_eq!(frame::parse(&bytes, Checksum::Full), Ok(datagram));
}

#[test]
fn a_payload_too_large_for_a_datagram_is_not_emitted() {
    let payload = vec![0; 70_000];
    let datagram = Datagram {
        from_mac: CLIENT,
        to_mac: BROADCAST_MAC,
        from: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68),
        to: SocketAddrV4::new(Ipv4Addr::BROADCAST, 67),
        payload: &payload,
    };
    assert_eq!(frame::emit(&datagram, &mut vec![0; 80_000]), None);
}

#[test]
fn what_is_no_dhcp_message_is_told_apart() {
    let bytes = discover().to_bytes();
    assert_eq!(Message::parse(&bytes[..239]), Err(WireError::Short { had: 239 }));
    let mut cookie = bytes.clone();
    cookie[236] = 0;
    assert_eq!(Message::parse(&cookie), Err(WireError::Cookie));
    let mut op = bytes;
    op[0] = 3;
    assert_eq!(Message::parse(&op), Err(WireError::Op(3)));
}

#[test]
fn options_are_found_wherever_they_stand() {
    let (request, oddities) = read(&raw(&[0, 0, 61, 2, 1, 9, 12, 3, b'w', b'e', b'b', 0, 53, 1, 3, 255, 53], &[], &[]));
    let request = request.unwrap();
    assert_eq!((request.kind, request.hostname.as_deref()), (Kind::Request, Some("web")));
    assert_eq!(request.client_id.as_deref(), Some(&[1, 9][..]));
    assert_eq!(oddities, []);
}

#[test]
fn parts_of_an_option_are_joined_even_with_others_between_and_across_fields() {
    // RFC 3396 §7: options, then file, then sname.
    let options = [53, 1, 1, 61, 2, 1, 2, 12, 1, b'a', 61, 1, 3, 52, 1, 3, 255];
    let (request, oddities) = read(&raw(&options, &[61, 1, 4, 12, 1, b'b', 255], &[61, 1, 5, 255]));
    let request = request.unwrap();
    assert_eq!(request.client_id.as_deref(), Some(&[1, 2, 3, 4, 5][..]));
    assert_eq!(request.hostname.as_deref(), Some("ab"));
    assert_eq!(oddities, []);
}

#[test]
fn file_and_sname_are_not_options_unless_option_52_says_so() {
    let (request, _) = read(&raw(&[53, 1, 1, 255], &[12, 1, b'x'], &[12, 1, b'y']));
    assert_eq!(request.unwrap().hostname, None);
    let (request, oddities) = read(&raw(&[53, 1, 1, 52, 1, 9, 255], &[12, 1, b'x'], &[]));
    assert_eq!(request.unwrap().hostname, None);
    assert_eq!(oddities, [Oddity::Length { code: 52, had: 1 }]);
}

#[test]
fn an_option_cut_short_loses_only_itself() {
    let (request, oddities) = read(&raw(&[53, 1, 1, 50, 4, 10, 0, 0, 9, 12, 200, b'w'], &[], &[]));
    assert_eq!(request.unwrap().requested, Some(Ipv4Addr::new(10, 0, 0, 9)));
    assert_eq!(oddities, [Oddity::Truncated { code: 12 }]);
    let (request, oddities) = read(&raw(&[53, 1, 1, 12], &[], &[]));
    assert!(request.is_ok());
    assert_eq!(oddities, [Oddity::Truncated { code: 12 }]);
}

#[test]
fn an_option_of_a_length_it_can_not_have_is_left_out_with_a_reason() {
    let options = [53, 1, 1, 50, 3, 10, 0, 0, 54, 5, 1, 2, 3, 4, 5, 51, 1, 9, 57, 0, 255];
    let (request, oddities) = read(&raw(&options, &[], &[]));
    let request = request.unwrap();
    assert_eq!((request.requested, request.server, request.lease, request.max_size), (None, None, None, None));
    let lengths = [(50, 3), (54, 5), (51, 1), (57, 0)];
    assert_eq!(oddities, lengths.map(|(code, had)| Oddity::Length { code, had }));
}

#[test]
fn a_name_that_is_not_utf8_does_not_lose_the_message() {
    let (request, oddities) = read(&raw(&[53, 1, 1, 12, 3, 0xff, 0xfe, 0x80, 255], &[], &[]));
    assert_eq!(request.unwrap().hostname, None);
    assert_eq!(oddities, [Oddity::Text { code: 12 }]);
    let (request, _) = read(&raw(&[53, 1, 1, 12, 4, b'w', 0xff, b'e', b'b', 255], &[], &[]));
    assert_eq!(request.unwrap().hostname.as_deref(), Some("web"));
}

#[test]
fn the_name_is_also_found_in_the_client_fqdn() {
    // RFC 4702 §2: as labels with the E flag, as text without.
    let labels = [&[81, 11, 0x04, 0, 0][..], b"\x03web\x03lab", &[255]].concat();
    let (request, _) = read(&raw(&[&[53, 1, 1], &labels[..]].concat(), &[], &[]));
    assert_eq!(request.unwrap().hostname.as_deref(), Some("web"));
    let text = [&[53, 1, 1, 81, 10, 0, 0, 0][..], b"web.lab", &[255]].concat();
    let (request, _) = read(&raw(&text, &[], &[]));
    assert_eq!(request.unwrap().hostname.as_deref(), Some("web"));
    let (request, oddities) = read(&raw(&[53, 1, 1, 81, 4, 4, 0, 0, 200, 255], &[], &[]));
    assert_eq!((request.unwrap().hostname, oddities), (None, vec![Oddity::Text { code: 81 }]));
}

#[test]
fn a_message_type_sent_twice_counts_once() {
    let (request, oddities) = read(&raw(&[53, 1, 3, 53, 1, 3, 255], &[], &[]));
    assert_eq!(request.unwrap().kind, Kind::Request);
    assert_eq!(oddities, [Oddity::Length { code: 53, had: 2 }]);
}

#[test]
fn messages_without_a_client_we_can_serve_are_refused_by_name() {
    let (request, _) = read(&raw(&[12, 1, b'a', 255], &[], &[]));
    assert_eq!(request.unwrap().kind, Kind::Bootp);
    let (request, _) = read(&raw(&[53, 1, 5, 255], &[], &[]));
    assert_eq!(request.unwrap_err(), NoRequest::Kind(5));
    let change = |at: usize, value: u8| {
        let mut bytes = discover().to_bytes();
        bytes[at] = value;
        read(&bytes).0.unwrap_err()
    };
    assert_eq!(change(0, 2), NoRequest::FromServer);
    assert_eq!(change(1, 6), NoRequest::NotEthernet { htype: 6, hlen: 6 });
    assert_eq!(change(2, 16), NoRequest::NotEthernet { htype: 1, hlen: 16 });
    assert_eq!(change(28, 0x53), NoRequest::NoHost);
}

#[test]
fn a_long_option_is_written_in_parts() {
    let mut message = discover();
    let long: Vec<u8> = (0..600).map(|n| n as u8).collect();
    message.options.push(code::CLASSLESS_ROUTES, &long);
    message.options.push(code::DOMAIN_NAME, &[]);
    let bytes = message.to_bytes();
    assert_eq!(bytes.len(), message.len());
    assert_eq!(bytes.len(), 240 + 3 + (600 + 6) + 2 + 1);
    assert_eq!(Message::parse(&bytes), Ok((message, vec![])));
}

#[test]
fn what_another_codec_writes_we_read() {
    let mut theirs = oracle::Message::default();
    theirs.set_xid(77).set_chaddr(&CLIENT.0).set_flags(oracle::Flags::default().set_broadcast());
    let options = theirs.opts_mut();
    options.insert(oracle::DhcpOption::MessageType(oracle::MessageType::Request));
    options.insert(oracle::DhcpOption::RequestedIpAddress(Ipv4Addr::new(10, 0, 0, 9)));
    options.insert(oracle::DhcpOption::Hostname("web".into()));
    options.insert(oracle::DhcpOption::MaxMessageSize(1400));
    options.insert(oracle::DhcpOption::ParameterRequestList(vec![
        oracle::OptionCode::Router,
        oracle::OptionCode::DomainNameServer,
    ]));
    let (request, oddities) = read(&theirs.to_vec().unwrap());
    let request = request.unwrap();
    assert_eq!((request.kind, request.mac, request.xid), (Kind::Request, CLIENT, 77));
    assert_eq!(request.flags, Message::BROADCAST);
    assert_eq!(request.requested, Some(Ipv4Addr::new(10, 0, 0, 9)));
    assert_eq!(request.hostname.as_deref(), Some("web"));
    assert_eq!(request.max_size, Some(1400));
    assert_eq!(request.wanted.as_deref(), Some(&[3, 6][..]));
    assert_eq!(oddities, []);
}

#[test]
fn what_we_write_another_codec_reads() {
    let mut ours = Message { op: Op::Reply, yiaddr: Ipv4Addr::new(10, 0, 0, 9), ..discover() };
    ours.options.push(code::LEASE_TIME, &3600_u32.to_be_bytes());
    ours.options.push(code::ROUTER, &[10, 0, 0, 1]);
    let theirs = oracle::Message::from_bytes(&ours.to_bytes()).unwrap();
    assert_eq!((theirs.opcode(), theirs.xid(), theirs.yiaddr()), (oracle::Opcode::BootReply, 0xdead_beef, ours.yiaddr));
    assert_eq!(theirs.chaddr(), CLIENT.0);
    assert_eq!(
        theirs.opts().get(oracle::OptionCode::AddressLeaseTime),
        Some(&oracle::DhcpOption::AddressLeaseTime(3600))
    );
    assert_eq!(
        theirs.opts().get(oracle::OptionCode::Router),
        Some(&oracle::DhcpOption::Router(vec![Ipv4Addr::new(10, 0, 0, 1)]))
    );
}
