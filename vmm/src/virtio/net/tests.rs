//! The NIC from the driver's side: over a socket, which carries the same frames, and over a real tap.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt};

use super::features::{consistent, offered};
use super::nic::Nic;
use super::*;
use crate::net::HEADER;
use crate::virtio::testing::{Dice, Driver, Machine, PROMPTLY, Piece, Ring};

mod control;
mod tap;

const VERSION_1: u64 = 1 << 32;
const MRG_RXBUF: u64 = 1 << 15;
const EVENT_IDX: u64 = 1 << 29;
const MQ: u64 = 1 << 22;
const CTRL_VQ: u64 = 1 << 17;

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

/// A NIC of one pair over a socket, and the socket's other end.
pub(in crate::virtio) fn over_a_socket() -> (OwnedFd, Net) {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_NONBLOCK).unwrap();
    for end in [&ours, &theirs] {
        setsockopt(end, sockopt::SndBuf, &(1 << 20)).unwrap();
    }
    (theirs, Net::over(vec![Tap::socket(ours)], MAC, 1500).unwrap())
}

struct Guest<'m> {
    driver: Driver<'m>,
    receive: Ring<'m>,
    transmit: Ring<'m>,
}

impl<'m> Guest<'m> {
    fn new(machine: &'m Machine, nic: Net, features: u64, size: u16) -> Self {
        let mut driver = machine.plug(1, nic);
        driver.probe();
        Self::bind(driver, features, size)
    }

    fn bind(driver: Driver<'m>, features: u64, size: u16) -> Self {
        assert!(driver.negotiate(VERSION_1 | features), "offered {:#x}", driver.offered());
        let event_idx = features & EVENT_IDX != 0;
        let (receive, transmit) = (driver.ring(0, size, event_idx), driver.ring(1, size, event_idx));
        driver.start();
        Self { driver, receive, transmit }
    }

    /// Posts receive buffers and answers them by head.
    fn post(&mut self, count: usize, len: u32) -> Vec<(u16, Piece)> {
        let machine = self.driver.machine;
        let rooms: Vec<Piece> = (0..count).map(|_| Piece::room(machine, len)).collect();
        let posted = rooms.into_iter().map(|room| (self.receive.add(&[room]), room)).collect();
        self.driver.kick(&mut self.receive);
        posted
    }

    /// The next received frame, header included, out of all its buffers; asserts that they became visible at once.
    fn receive(&mut self, posted: &[(u16, Piece)]) -> Vec<u8> {
        let machine = self.driver.machine;
        let mut frame = Vec::new();
        let mut used = self.receive.wait_used();
        let mut left = 1u16;
        loop {
            let (_, piece) = posted.iter().find(|(head, _)| *head == used.0).unwrap();
            let bytes = piece.bytes(machine);
            if frame.is_empty() {
                left = u16::from_le_bytes([bytes[10], bytes[11]]);
            }
            frame.extend(&bytes[..used.1 as usize]);
            left -= 1;
            if left == 0 {
                return frame;
            }
            used = self.receive.pop_used().expect("a frame became visible in parts");
        }
    }
}

/// A frame with its header, each byte telling its place.
fn frame(bytes: usize) -> Vec<u8> {
    (0..HEADER + bytes).map(|i| if i < HEADER { 0 } else { (i % 251) as u8 }).collect()
}

/// What the guest sees of it: the same with the number of buffers filled in.
fn with_buffers(mut frame: Vec<u8>, buffers: u16) -> Vec<u8> {
    frame[10..12].copy_from_slice(&buffers.to_le_bytes());
    frame
}

fn give(socket: &OwnedFd, frame: &[u8]) {
    assert_eq!(send(socket.as_raw_fd(), frame, MsgFlags::empty()).unwrap(), frame.len());
}

fn take(socket: &OwnedFd) -> Vec<u8> {
    assert!(crate::virtio::testing::readable(socket, PROMPTLY), "no frame came out");
    let mut bytes = vec![0; 1 << 17];
    let len = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()).unwrap();
    bytes.truncate(len);
    bytes
}

#[test]
fn frames_pass_both_ways_with_and_without_event_idx_and_after_a_rebind() {
    let machine = Machine::new();
    let (socket, nic) = over_a_socket();
    let mut guest = Guest::new(&machine, nic, MRG_RXBUF, 64);
    for features in [MRG_RXBUF | EVENT_IDX, 0, EVENT_IDX, MRG_RXBUF] {
        let posted = guest.post(32, 2048);
        for size in 60..80 {
            let out = frame(size);
            let (header, body) = out.split_at(HEADER);
            let head = guest.transmit.add(&[Piece::holding(&machine, header), Piece::holding(&machine, body)]);
            guest.driver.kick(&mut guest.transmit);
            assert_eq!(take(&socket), out);
            assert_eq!(guest.transmit.wait_used(), (head, 0));
            give(&socket, &frame(size));
            assert_eq!(guest.receive(&posted), with_buffers(frame(size), 1));
        }
        guest = Guest::bind(guest.driver, features, 64);
    }
}

#[test]
fn a_frame_larger_than_a_buffer_comes_in_several_that_are_visible_at_once() {
    let machine = Machine::new();
    let (socket, nic) = over_a_socket();
    let mut guest = Guest::new(&machine, nic, MRG_RXBUF | EVENT_IDX, 128);
    let posted = guest.post(100, 1500);
    give(&socket, &frame(65_000));
    assert_eq!(guest.receive(&posted), with_buffers(frame(65_000), 44));
    assert_eq!(guest.receive.used_idx(), 44);
    // Sizes at the border of a buffer.
    for (size, buffers) in [(1500 - HEADER, 1), (1501 - HEADER, 2), (3000 - HEADER, 2)] {
        give(&socket, &frame(size));
        assert_eq!(guest.receive(&posted), with_buffers(frame(size), buffers));
    }
}

#[test]
fn used_idx_moves_once_for_a_frame_of_many_buffers() {
    const BUFFERS: u16 = 94;
    let machine = Machine::new();
    let (socket, nic) = over_a_socket();
    let mut guest = Guest::new(&machine, nic, MRG_RXBUF, 128);
    let rooms: Vec<Piece> = (0..BUFFERS).map(|_| Piece::room(&machine, 700)).collect();
    // Watched as closely as can be, and often: a single watcher may look away at the wrong moment.
    for round in 0..50 {
        let before = BUFFERS * round;
        rooms.iter().for_each(|room| {
            guest.receive.add(&[*room]);
        });
        guest.driver.kick(&mut guest.receive);
        let ring = &guest.receive;
        let seen = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let deadline = std::time::Instant::now() + PROMPTLY;
                loop {
                    let index = (0..1000).map(|_| ring.used_idx()).find(|index| *index != before);
                    if index.is_some() || std::time::Instant::now() > deadline {
                        return index;
                    }
                }
            });
            give(&socket, &frame(65_536));
            watcher.join().unwrap()
        });
        assert_eq!(seen, Some(before + BUFFERS));
        while guest.receive.pop_used().is_some() {}
    }
}

#[test]
fn a_burst_of_frames_gives_one_interrupt() {
    let machine = Machine::new();
    let (socket, nic) = over_a_socket();
    let mut driver = machine.plug(1, nic);
    driver.probe();
    // The frames wait in the tap before the device starts, so that they are one burst.
    for _ in 0..8 {
        give(&socket, &frame(60));
    }
    assert!(driver.negotiate(VERSION_1 | MRG_RXBUF));
    let mut receive = driver.ring(0, 128, false);
    for _ in 0..100 {
        receive.add(&[Piece::room(&machine, 1500)]);
    }
    receive.publish();
    driver.start();
    let deadline = std::time::Instant::now() + PROMPTLY;
    while receive.used_idx() < 8 && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(machine.router.wait(receive.message, PROMPTLY), 1);
}

#[test]
fn a_frame_too_large_for_what_is_posted_is_dropped_and_the_next_one_comes() {
    for features in [0, MRG_RXBUF] {
        let machine = Machine::new();
        let (socket, nic) = over_a_socket();
        let mut guest = Guest::new(&machine, nic, features, 16);
        let posted = guest.post(1, 1526);
        give(&socket, &frame(9000));
        give(&socket, &frame(100));
        assert_eq!(guest.receive(&posted), with_buffers(frame(100), 1));
    }
}

#[test]
fn frames_wait_while_the_guest_has_no_buffers() {
    let machine = Machine::new();
    let (socket, nic) = over_a_socket();
    let mut guest = Guest::new(&machine, nic, MRG_RXBUF | EVENT_IDX, 16);
    for size in 60..64 {
        give(&socket, &frame(size));
    }
    for size in 60..64 {
        let posted = guest.post(1, 1526);
        assert_eq!(guest.receive(&posted), with_buffers(frame(size), 1));
    }
}

#[test]
fn a_frame_the_tap_refuses_is_finished_like_any_other() {
    let machine = Machine::new();
    let (socket, nic) = over_a_socket();
    let mut guest = Guest::new(&machine, nic, EVENT_IDX, 16);
    drop(socket);
    for bytes in [frame(60), vec![0; HEADER], vec![0; 3]] {
        let head = guest.transmit.add(&[Piece::holding(&machine, &bytes)]);
        guest.driver.kick(&mut guest.transmit);
        assert_eq!(guest.transmit.wait_used(), (head, 0));
    }
    assert_eq!(guest.driver.status() & 0x40, 0);
}

#[test]
fn a_broken_transmit_ring_leaves_the_receive_ring_working() {
    let machine = Machine::new();
    let (socket, nic) = over_a_socket();
    let mut guest = Guest::new(&machine, nic, MRG_RXBUF, 16);
    let posted = guest.post(8, 1526);
    guest.transmit.add(&[Piece::room(&machine, 60)]);
    guest.driver.kick(&mut guest.transmit);
    assert_eq!(machine.router.wait(guest.driver.config_message(), PROMPTLY), 1);
    assert_eq!(guest.driver.status() & 0x40, 0x40);
    give(&socket, &frame(60));
    assert_eq!(guest.receive(&posted), with_buffers(frame(60), 1));
}

#[test]
fn the_configuration_holds_mac_link_pairs_and_mtu() {
    let machine = Machine::new();
    let (_socket, nic) = over_a_socket();
    let guest = Guest::new(&machine, nic, 0, 16);
    let bytes: Vec<u8> = (0..14).map(|i| guest.driver.read(guest.driver.device.offset + i, 1) as u8).collect();
    assert_eq!(bytes, [&MAC[..], &[1, 0, 1, 0, 0xdc, 0x05, 0, 0]].concat());
}

#[test]
fn features_that_need_others_are_refused_alone() {
    assert!(consistent(offered(1, false)) && consistent(offered(4, true)) && consistent(0));
    let pairs = [(7, 1), (8, 1), (54, 1), (55, 1), (11, 0), (12, 0), (56, 0), (9, 7), (13, 12)];
    let controlled = [22, 18, 20, 23, 21].map(|alone| (alone, 17));
    for (alone, with) in pairs.into_iter().chain(controlled) {
        assert!(!consistent(1 << alone), "feature {alone} alone");
        assert!(consistent(1 << alone | 1 << with | 0b11), "feature {alone} with {with}");
    }
    assert_eq!(offered(1, false) & (MQ | CTRL_VQ), CTRL_VQ);
    assert_eq!(offered(2, false) & (MQ | CTRL_VQ), MQ | CTRL_VQ);
    assert_eq!(offered(1, true) & !offered(1, false), 7 << 54);
    let machine = Machine::new();
    let (_socket, nic) = over_a_socket();
    let mut driver = machine.plug(1, nic);
    driver.probe();
    assert!(!driver.negotiate(VERSION_1 | 1 << 11), "the transport asks the device");
}

#[test]
fn a_nic_without_tap_with_a_tiny_mtu_or_over_something_else_is_refused() {
    assert!(matches!(Net::new(vec![], MAC, 1500), Err(VirtioError::NoTap)));
    let (ours, _theirs) = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::empty()).unwrap();
    assert!(matches!(Net::over(vec![Tap::socket(ours)], MAC, 67), Err(VirtioError::Mtu(67))));
    let (ours, _theirs) = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::empty()).unwrap();
    let error = Net::new(vec![ours], MAC, 1500).map(drop).unwrap_err().to_string();
    assert!(error.contains("not a tap queue"), "{error}");
}

#[test]
fn random_traffic_under_random_registers_and_rings_never_hangs_or_panics() {
    let mut dice = Dice::new(23);
    for round in 0..20u64 {
        let machine = Machine::new();
        let (socket, nic) = over_a_socket();
        let features = [0, MRG_RXBUF, EVENT_IDX, MRG_RXBUF | EVENT_IDX][dice.below(4) as usize];
        let mut guest = Guest::new(&machine, nic, features, 16);
        for _ in 0..200 {
            let room = |dice: &mut Dice| Piece {
                address: [dice.below(16 << 20), dice.roll(), (16 << 20) - 10]
                    [[0, 0, 0, 0, 1, 2][dice.below(6) as usize]],
                len: [dice.below(3000) as u32, dice.roll() as u32][usize::from(dice.below(12) == 0)],
                writable: dice.below(8) != 0,
            };
            let pieces: Vec<Piece> = (0..1 + dice.below(4)).map(|_| room(&mut dice)).collect();
            match dice.below(5) {
                0 => drop(guest.receive.add(&pieces)),
                1 => drop(guest.transmit.add(&pieces)),
                2 => guest.transmit.add_head(dice.below(20) as u16),
                3 => drop(send(socket.as_raw_fd(), &frame(dice.below(9000) as usize), MsgFlags::MSG_DONTWAIT)),
                _ => drop(recv(socket.as_raw_fd(), &mut [0; 70_000], MsgFlags::MSG_DONTWAIT)),
            }
            guest.driver.kick(&mut guest.receive);
            guest.driver.kick(&mut guest.transmit);
        }
        // Whatever it was, a driver that behaves gets its frames afterwards.
        while recv(socket.as_raw_fd(), &mut [0; 70_000], MsgFlags::MSG_DONTWAIT).is_ok() {}
        let mut guest = Guest::bind(guest.driver, MRG_RXBUF, 16);
        while recv(socket.as_raw_fd(), &mut [0; 70_000], MsgFlags::MSG_DONTWAIT).is_ok() {}
        let out = frame(60 + round as usize);
        guest.transmit.add(&[Piece::holding(&machine, &out)]);
        guest.driver.kick(&mut guest.transmit);
        assert_eq!(take(&socket), out);
    }
}
