use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn call(procedure: i32, serial: u32) -> Header {
    let (kind, status) = (Kind::Call, Status::Ok);
    Header { program: REMOTE, version: VERSION, procedure, kind, serial, status }
}

/// As virsh 9.0 was heard to ask for ways to authenticate, and libvirtd to answer.
const AUTH_LIST: &str = "0000001c 20008086 00000001 00000042 00000000 00000000 00000000";
const AUTH_NONE: &str = "00000024 20008086 00000001 00000042 00000001 00000000 00000000 00000001 00000000";

#[test]
fn frames_that_virsh_and_libvirtd_sent_are_read_and_written() {
    let mut frames = Frames::<u32>::new(100);
    frames.push(&hex(AUTH_LIST), Vec::new()).unwrap();
    let frame = frames.next().unwrap();
    assert_eq!(frame, Frame { header: call(66, 0), payload: Payload::Whole(Vec::new()), fds: Vec::new() });
    assert_eq!(frame.header.with(&[]), hex(AUTH_LIST));
    assert_eq!(frame.header.reply(Status::Ok).with(&[0, 0, 0, 1, 0, 0, 0, 0]), hex(AUTH_NONE));
    assert_eq!(frames.next(), None);
    assert!(!frames.in_frame());
}

#[test]
fn a_ping_is_28_bytes() {
    let bytes = hex("0000001c 6b656570 00000001 00000001 00000002 00000000 00000000");
    let header = Header { program: KEEPALIVE, ..Header::event(1) };
    assert_eq!(header.with(&[]), bytes);
}

#[test]
fn frames_come_out_whole_however_they_come_in() {
    let stream: Vec<u8> = (0..5).flat_map(|n| call(n, 7).with(&vec![n as u8; n as usize * 4])).collect();
    for size in [1, 2, 3, 7, 28, 29, 64, 1000] {
        let mut frames = Frames::<u32>::new(100);
        for bytes in stream.chunks(size) {
            frames.push(bytes, Vec::new()).unwrap();
        }
        for n in 0..5 {
            let frame = frames.next().unwrap();
            assert_eq!(frame.header, call(n, 7), "{size}");
            assert_eq!(frame.payload, Payload::Whole(vec![n as u8; n as usize * 4]), "{size}");
        }
        assert_eq!(frames.next(), None);
    }
}

#[test]
fn descriptors_belong_to_the_frame_that_announces_them_and_others_to_nobody() {
    let with_fds = Header { kind: Kind::CallWithFds, ..call(9, 1) };
    let mut frames = Frames::<u32>::new(100);
    // One that nobody announced comes with a frame.
    frames.push(&call(1, 0).with(&[]), vec![11]).unwrap();
    assert_eq!(frames.next().unwrap().fds, [0; 0]);
    frames.push(&with_fds.with(&[0, 0, 0, 2, 0, 0, 0, 5]), Vec::new()).unwrap();
    assert_eq!(frames.next(), None, "its descriptors are missing");
    assert!(frames.in_frame());
    frames.push(&[0], vec![12]).unwrap();
    frames.push(&[0], vec![13]).unwrap();
    let frame = frames.next().unwrap();
    assert_eq!((frame.payload, frame.fds), (Payload::Whole(vec![0, 0, 0, 5]), vec![12, 13]));
    // None are announced, and the next frame follows at once.
    frames.push(&[with_fds.with(&[0; 4]), call(2, 0).with(&[])].concat(), Vec::new()).unwrap();
    assert_eq!(frames.next().unwrap().payload, Payload::Whole(Vec::new()));
    assert_eq!(frames.next().unwrap().header, call(2, 0));

    for (payload, after) in [(&[0, 0, 0, 33][..], &[][..]), (&[0, 0, 0], &[]), (&[0, 0, 0, 1], &[0])] {
        let mut frames = Frames::<u32>::new(100);
        let bytes = [with_fds.with(payload), after.to_vec()].concat();
        assert_eq!(frames.push(&bytes, Vec::new()), Err(FrameError::Fds), "{payload:?}");
    }
}

#[test]
fn what_is_too_long_is_thrown_away_as_it_comes() {
    let mut frames = Frames::<u32>::new(100);
    let long = call(3, 1).with(&vec![0; (32 << 20) + 4 - HEAD]);
    for bytes in [&long[..], &call(4, 2).with(&[1, 2, 3, 4])].concat().chunks(1 << 16) {
        frames.push(bytes, Vec::new()).unwrap();
    }
    assert_eq!(frames.next().unwrap().payload, Payload::TooLong);
    assert_eq!(frames.next().unwrap().payload, Payload::Whole(vec![1, 2, 3, 4]));
}

#[test]
fn a_frame_that_cannot_be_is_an_error_before_anything_is_kept() {
    let with = |length: u32, kind: u32, status: u32| {
        [length, REMOTE, 1, 1, kind, 0, status].into_iter().flat_map(u32::to_be_bytes).collect::<Vec<u8>>()
    };
    for (length, expected) in [0, 27, (32 << 20) + 5, u32::MAX].map(|length| (length, FrameError::Length(length))) {
        assert_eq!(Frames::<u32>::new(100).push(&with(length, 0, 0), Vec::new()), Err(expected));
    }
    for (kind, status) in [(7, 0), (u32::MAX, 0), (0, 3)] {
        assert_eq!(Frames::<u32>::new(100).push(&with(28, kind, status), Vec::new()), Err(FrameError::Kind));
    }
    // Who announces descriptors in a frame that nobody keeps.
    let long = with(1000, 4, 0);
    assert_eq!(Frames::<u32>::new(100).push(&long, Vec::new()), Err(FrameError::Length(1000)));
}

#[test]
fn memory_grows_with_what_has_come_and_not_with_a_claim() {
    let mut frames = Frames::<u32>::new(8 << 20);
    let head = [(8u32 << 20), REMOTE, 1, 1, 0, 0, 0].into_iter().flat_map(u32::to_be_bytes).collect::<Vec<u8>>();
    frames.push(&head, Vec::new()).unwrap();
    frames.push(&[0; 100], Vec::new()).unwrap();
    let Part::Body { payload, .. } = &frames.part else { panic!("{frames:?}") };
    assert!(payload.capacity() < 1000, "{}", payload.capacity());
}
