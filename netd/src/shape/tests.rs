use netlink_packet_route::tc::{TcAttribute, TcFilterU32Option, TcMessage, TcOption};
use rtnetlink::packet_core::{Emitable, Parseable};

use super::{
    message::{message, shape},
    *,
};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 1, 2, 3]);
const OTHER: MacAddr = MacAddr([0x52, 0x54, 0, 1, 2, 4]);

fn speed(average: u64) -> Option<Speed> {
    Some(Speed { average, peak: None, burst: None })
}

fn floors(macs: &[MacAddr]) -> Vec<Floor> {
    macs.iter().map(|&mac| Floor { mac, rate: 100_000 }).collect()
}

/// Through bytes, as the kernel would have it.
fn sent(change: &Change) -> TcMessage {
    let message = message(7, change).1;
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    TcMessage::parse(&bytes).unwrap()
}

/// What a kernel that keeps what it was sent would answer.
fn read_back(wanted: &Shape) -> Shape {
    let (mut root, mut classes, mut filters, mut incoming) = (None, Vec::new(), Vec::new(), None);
    for change in changes(wanted, &Shape::default()) {
        let message = sent(&change);
        match change {
            Change::AddRoot { .. } => root = Some(message),
            Change::SetClass(_) => classes.push(message),
            Change::AddFilter { .. } => filters.push(message),
            Change::AddIngress => incoming = Some(Vec::new()),
            Change::AddPolice(_) => incoming.as_mut().unwrap().push(message),
            Change::AddQueue { .. } => {}
            other => panic!("{other:?} where nothing was"),
        }
    }
    shape(root.as_ref(), &classes, &filters, incoming.as_deref())
}

#[test]
fn what_is_sent_is_what_is_read_back() {
    let fast = Some(Speed { average: 8_000_000_000, peak: Some(9_000_000_000), burst: Some(5 << 20) });
    for wanted in [
        Shape::default(),
        Shape::port(speed(1_000_000), None),
        Shape::port(None, speed(1_000_000)),
        Shape::port(fast, fast),
        Shape::bridge(speed(1_000_000), speed(2_000_000), &[]),
        Shape::bridge(fast, None, &floors(&[MAC, OTHER])),
    ] {
        assert_eq!(read_back(&wanted), wanted);
        assert_eq!(changes(&wanted, &wanted), []);
    }
}

#[test]
fn a_policer_is_the_one_that_tc_makes() {
    // tc filter add … police rate 1000kbps burst 100kb mtu 64kb drop
    let police = Police { rate: 1_000_000, burst: ticks(100 << 10, 1_000_000) };
    let message = message(7, &Change::AddPolice(police)).1;
    let TcAttribute::Options(options) = &message.attributes[1] else { panic!("{message:?}") };
    let Some(bytes) = options.iter().find_map(|option| match option {
        TcOption::U32(TcFilterU32Option::Police(bytes)) => Some(bytes),
        _ => None,
    }) else {
        panic!("{message:?}")
    };
    let first = [
        0x3c, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x6a, 0x18, 0, 0, 0, 1, 0, 9, 1, 0, 0, 0xff, 0xff, 0, 0,
        0x40, 0x42, 0x0f, 0,
    ];
    assert_eq!(bytes[..first.len()], first);
    // The rate table, from the end of the struct on: 512 bytes take 512 us, 8000 ticks.
    assert_eq!(bytes[60..72], [4, 4, 2, 0, 0x40, 0x1f, 0, 0, 0x80, 0x3e, 0, 0]);
    assert_eq!(bytes.len(), 60 + 4 + 1024);
}

#[test]
fn a_class_has_its_rate_and_its_burst_as_tc_writes_them() {
    // tc class add … htb rate 1000kbps ceil 2000kbps burst 100kb
    let shape = Shape::port(Some(Speed { average: 1_000_000, peak: Some(2_000_000), burst: Some(100 << 10) }), None);
    let class = shape.egress.unwrap().classes[0];
    assert_eq!((class.rate, class.ceil, class.burst), (1_000_000, 2_000_000, 0x0018_6a00));
    let sent = sent(&Change::SetClass(class));
    let bytes = {
        let mut bytes = vec![0; sent.buffer_len()];
        sent.emit(&mut bytes);
        bytes
    };
    let ceil = [0xff, 0xff, 0, 0, 0x80, 0x84, 0x1e, 0, 0, 0x6a, 0x18, 0, 0xd4, 0x30, 0, 0];
    assert!(bytes.windows(ceil.len()).any(|window| window == ceil), "{bytes:x?}");
}

#[test]
fn a_port_that_comes_or_goes_disturbs_no_other() {
    let one = Shape::bridge(speed(1_000_000), None, &floors(&[MAC]));
    let two = Shape::bridge(speed(1_000_000), None, &floors(&[MAC, OTHER]));
    let rest = |rate| Class { rate, ..Class::new(EVERYONE, 1, speed(1_000_000).unwrap(), rate) };
    let second = two.egress.as_ref().unwrap().classes[3];
    assert_eq!(
        changes(&two, &one),
        [
            Change::SetClass(rest(800_000)),
            Change::SetClass(second),
            Change::AddQueue { minor: 4 },
            Change::AddFilter { minor: 4, mac: OTHER },
        ]
    );
    assert_eq!(
        changes(&one, &two),
        [Change::DeleteFilter { minor: 4 }, Change::DeleteClass { minor: 4 }, Change::SetClass(rest(900_000))]
    );
    let other = Shape::bridge(speed(1_000_000), None, &floors(&[OTHER]));
    assert_eq!(changes(&other, &one), [Change::DeleteFilter { minor: 3 }, Change::AddFilter { minor: 3, mac: OTHER }]);
}

#[test]
fn a_tree_of_another_form_is_made_anew() {
    let port = Shape::port(speed(5), None);
    let bridge = Shape::bridge(speed(1_000_000), None, &[]);
    assert_eq!(changes(&bridge, &port)[..2], [Change::DeleteRoot, Change::AddRoot { default: EVERYONE }]);
    assert_eq!(changes(&Shape::default(), &port), [Change::DeleteRoot]);
    let police = Shape::port(None, speed(5));
    assert_eq!(changes(&Shape::default(), &police), [Change::DeleteIngress]);
    assert_eq!(changes(&police, &Shape::port(None, speed(6))).len(), 3);
}

#[test]
fn more_promised_than_there_is_leaves_the_rest_a_little() {
    let shape = Shape::bridge(speed(150_000), None, &floors(&[MAC, OTHER]));
    let classes = shape.egress.unwrap().classes;
    assert_eq!(classes[1].rate, 1000);
    assert!(classes.iter().all(|class| class.ceil == 150_000));
}

#[test]
fn a_policer_lets_a_guests_largest_frame_pass_unless_told_otherwise() {
    let slow = Shape::port(None, speed(1000)).ingress.unwrap();
    assert_eq!(slow.burst, ticks(68 << 10, 1000));
    let told = Shape::port(None, Some(Speed { average: 1000, peak: None, burst: Some(2048) })).ingress.unwrap();
    assert_eq!(told.burst, ticks(2048, 1000));
    assert_eq!(ticks(u64::MAX, 1), u32::MAX);
}

#[test]
fn other_programs_messages_are_not_taken_for_ours() {
    let foreign = shape(None, &[], &[], Some(&[TcMessage::default()]));
    assert_eq!(foreign.ingress, Some(Police { rate: 0, burst: 0 }));
    assert_eq!(changes(&Shape::default(), &foreign), [Change::DeleteIngress]);
    assert_eq!(message::of_our_kind(&TcMessage::default()), None);
}
