//! The control queue and what is changed while the NIC runs, over a socket.

use super::super::filter::{MOST, Table};
use super::super::request::{Command, LONGEST, Mode, parse};
use super::*;

const CTRL_RX: u64 = 1 << 18;
const CTRL_RX_EXTRA: u64 = 1 << 20;
const GUEST_ANNOUNCE: u64 = 1 << 21;
const CTRL_MAC_ADDR: u64 = 1 << 23;

const OTHER: [u8; 6] = [0x52, 0x54, 0, 9, 9, 9];
const GROUP: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// A guest with a control queue.
struct Controlled<'m> {
    guest: Guest<'m>,
    control: Ring<'m>,
}

impl<'m> Controlled<'m> {
    fn new(machine: &'m Machine, nic: crate::virtio::net::Net, features: u64) -> Self {
        let mut driver = machine.plug(1, nic);
        driver.probe();
        assert!(driver.negotiate(VERSION_1 | MRG_RXBUF | CTRL_VQ | features));
        let (receive, transmit) = (driver.ring(0, 64, false), driver.ring(1, 64, false));
        let control = driver.ring(2, 16, false);
        driver.start();
        Self { guest: Guest { driver, receive, transmit }, control }
    }

    /// Sends a command in two pieces, as Linux does, and gives the answer.
    fn command(&mut self, bytes: &[u8]) -> u8 {
        let machine = self.guest.driver.machine;
        let answer = Piece::room(machine, 1);
        let (head, rest) = bytes.split_at(bytes.len().min(2));
        let mut pieces = vec![Piece::holding(machine, head)];
        pieces.extend((!rest.is_empty()).then(|| Piece::holding(machine, rest)));
        pieces.push(answer);
        self.control.add(&pieces);
        self.guest.driver.kick(&mut self.control);
        self.control.wait_used();
        answer.bytes(machine)[0]
    }

    fn config(&self, offset: u64, bytes: usize) -> u64 {
        self.guest.driver.read(self.guest.driver.device.offset + offset, bytes)
    }
}

/// A frame to an address, told apart by its last byte.
fn frame_to(address: [u8; 6], mark: u8) -> Vec<u8> {
    let mut frame = frame(60);
    frame[HEADER..HEADER + 6].copy_from_slice(&address);
    frame[HEADER + 59] = mark;
    frame
}

fn tables(unicast: &[[u8; 6]], multicast: &[[u8; 6]]) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    for table in [unicast, multicast] {
        bytes.extend((table.len() as u32).to_le_bytes());
        bytes.extend(table.concat());
    }
    bytes
}

/// Which of four frames come through; the NIC's own address last, so that the others had their chance.
fn come_through(guest: &mut Controlled<'_>, posted: &[(u16, Piece)], socket: &OwnedFd) -> Vec<u8> {
    for (mark, to) in [(1, OTHER), (2, GROUP), (3, [0xff; 6]), (9, MAC)] {
        give(socket, &frame_to(to, mark));
    }
    let mut marks = Vec::new();
    while marks.last() != Some(&9) {
        marks.push(guest.guest.receive(posted)[HEADER + 59]);
    }
    marks
}

#[test]
fn the_driver_gets_what_it_asks_for_and_everything_until_it_asks() {
    let machine = Machine::new();
    let (socket, nic) = over_a_socket();
    let shared = nic.nic();
    let mut guest = Controlled::new(&machine, nic, CTRL_RX | CTRL_RX_EXTRA);
    let posted = guest.guest.post(40, 2048);
    assert_eq!(come_through(&mut guest, &posted, &socket), [1, 2, 3, 9]);
    assert_eq!(guest.command(&[0, 0, 0]), 0);
    assert_eq!(come_through(&mut guest, &posted, &socket), [3, 9]);
    assert_eq!(guest.command(&tables(&[OTHER], &[GROUP])), 0);
    assert_eq!(come_through(&mut guest, &posted, &socket), [1, 2, 3, 9]);
    assert_eq!(guest.command(&tables(&[], &[GROUP; MOST + 1])), 0, "more than are kept");
    assert_eq!(come_through(&mut guest, &posted, &socket), [2, 3, 9]);
    assert_eq!(guest.command(&tables(&[], &[GROUP; 300])), 0, "more than are looked at");
    assert_eq!(come_through(&mut guest, &posted, &socket), [1, 2, 3, 9]);
    assert_eq!(guest.command(&tables(&[], &[])), 0);
    assert_eq!(guest.command(&[0, 5, 1]), 0);
    assert_eq!(come_through(&mut guest, &posted, &socket), [9]);
    let (received, _) = shared.counts();
    assert_eq!((received.frames, received.filtered, received.bytes), (18, 6, 18 * 60));
    // The next driver has not asked yet.
    let mut guest = Guest::bind(guest.guest.driver, MRG_RXBUF, 64);
    let posted = guest.post(2, 2048);
    give(&socket, &frame_to(OTHER, 7));
    assert_eq!(guest.receive(&posted)[HEADER + 59], 7);
}

#[test]
fn a_mac_the_driver_sets_is_its_own_until_the_reset() {
    let machine = Machine::new();
    let (socket, nic) = over_a_socket();
    let mut guest = Controlled::new(&machine, nic, CTRL_RX | CTRL_MAC_ADDR);
    let generation = guest.guest.driver.common_read(21, 1);
    assert_eq!(guest.command(&[&[1, 1][..], &OTHER].concat()), 0);
    assert_ne!(guest.guest.driver.common_read(21, 1), generation);
    assert_eq!(guest.config(0, 4) as u32, u32::from_le_bytes([0x52, 0x54, 0, 9]));
    assert_eq!(guest.command(&[&[1, 1][..], &GROUP].concat()), 1, "no group is a NIC");
    assert_eq!(guest.command(&[0, 0, 0]), 0);
    let posted = guest.guest.post(3, 2048);
    give(&socket, &frame_to(MAC, 1));
    give(&socket, &frame_to(OTHER, 2));
    assert_eq!(guest.guest.receive(&posted)[HEADER + 59], 2);
    guest.guest.driver.reset();
    assert_eq!(guest.config(0, 4) as u32, u32::from_le_bytes([0x52, 0x54, 0, 1]));
}

/// Waits for the counters to say so.
fn until(nic: &Nic, is_so: impl Fn(&Nic) -> bool) {
    let deadline = std::time::Instant::now() + PROMPTLY;
    while !is_so(nic) {
        assert!(std::time::Instant::now() < deadline, "{:?}", nic.counts());
        std::thread::yield_now();
    }
}

#[test]
fn a_link_that_is_down_loses_frames_and_one_that_is_back_is_announced() {
    let machine = Machine::new();
    let (socket, nic) = over_a_socket();
    let shared = nic.nic();
    let mut guest = Controlled::new(&machine, nic, GUEST_ANNOUNCE | 1 << 16);
    let posted = guest.guest.post(8, 2048);
    let changed = guest.guest.driver.config_message();
    assert_eq!(guest.config(6, 2), 1);
    shared.set_link(false);
    assert_eq!((machine.router.wait(changed, PROMPTLY), guest.config(6, 2)), (1, 0));
    give(&socket, &frame_to(MAC, 1));
    let head = guest.guest.transmit.add(&[Piece::holding(&machine, &frame(60))]);
    guest.guest.driver.kick(&mut guest.guest.transmit);
    assert_eq!(guest.guest.transmit.wait_used(), (head, 0), "lost, and finished");
    until(&shared, |nic| nic.counts().0.dropped == 1);
    assert_eq!(shared.counts().1.dropped, 1);
    assert!(recv(socket.as_raw_fd(), &mut [0; 100], MsgFlags::empty()).is_err(), "nothing came out");

    shared.set_link(true);
    shared.set_link(true);
    assert_eq!((machine.router.wait(changed, PROMPTLY), guest.config(6, 2)), (1, 3), "up, and: announce yourself");
    assert_eq!(guest.command(&[3, 0]), 0);
    assert_eq!(guest.config(6, 2), 1);
    give(&socket, &frame_to(MAC, 2));
    assert_eq!(guest.guest.receive(&posted)[HEADER + 59], 2);
}

#[test]
fn a_driver_that_is_not_ready_is_not_interrupted() {
    let machine = Machine::new();
    let (_socket, nic) = over_a_socket();
    let shared = nic.nic();
    let mut driver = machine.plug(1, nic);
    driver.probe();
    assert!(driver.negotiate(VERSION_1 | MRG_RXBUF | CTRL_VQ));
    shared.set_link(false);
    let (_receive, _transmit) = (driver.ring(0, 64, false), driver.ring(1, 64, false));
    driver.start();
    assert_eq!(machine.router.wait(driver.config_message(), std::time::Duration::ZERO), 0);
    assert_eq!(driver.read(driver.device.offset + 6, 2), 0, "it reads it when it starts");
}

#[test]
fn commands_that_were_not_negotiated_are_refused() {
    let machine = Machine::new();
    let (_socket, nic) = over_a_socket();
    let mut guest = Controlled::new(&machine, nic, 0);
    let mac = [&[1, 1][..], &OTHER].concat();
    let offloads = [&[5, 0][..], &[0; 8]].concat();
    let commands = [&[0, 0, 1][..], &[0, 3, 1], &tables(&[], &[]), &mac, &[3, 0], &[4, 0, 1, 0], &offloads];
    for command in commands {
        assert_eq!(guest.command(command), 1, "{command:?}");
    }
    let (_socket, nic) = over_a_socket();
    let machine = Machine::new();
    let mut guest = Controlled::new(&machine, nic, 1 << 2 | 1 << 1 | 1 << 7);
    assert_eq!(guest.command(&offloads), 0);
    assert_eq!(guest.command(&[5, 0, 0x82, 0, 0, 0, 0, 0, 0, 0]), 0);
    assert_eq!(guest.command(&[5, 0, 0x82, 1, 0, 0, 0, 0, 0, 0]), 1, "TSO6 was not negotiated");
}

#[test]
fn control_commands_parse_or_are_refused() {
    let parsed = |bytes: &[u8]| parse(bytes, bytes.len(), 2);
    assert_eq!(parsed(&[4, 0, 2, 0]), Some(Command::Pairs(2)));
    assert_eq!(parsed(&[0, 1, 1]), Some(Command::Receive(Mode::AllMulticast, true)));
    let both = Command::Tables(Table::new([OTHER].into_iter()), Table::new([GROUP].into_iter()));
    assert_eq!(parsed(&tables(&[OTHER], &[GROUP])), Some(both));
    let full = tables(&[OTHER; MOST], &[GROUP; MOST]);
    assert_eq!(full.len(), LONGEST);
    let mut lying = tables(&[OTHER], &[GROUP]);
    lying[2..6].copy_from_slice(&u32::MAX.to_le_bytes());
    let bad: [&[u8]; 14] = [
        &[4, 0, 0, 0],
        &[4, 0, 3, 0],
        &[4, 0, 2, 1],
        &[4, 1, 1, 0],
        &[0, 0, 1, 0],
        &[0, 6, 1],
        &[4, 0, 1],
        &[3, 0, 0],
        &[1, 1, 0, 0, 0, 0, 0, 0],
        &[5, 0, 0],
        &[4],
        &[],
        &lying,
        &full[..full.len() - 1],
    ];
    for bad in bad {
        assert_eq!(parsed(bad), None, "{bad:?}");
    }
}

#[test]
fn a_limit_holds_frames_back_without_losing_any_and_can_be_lifted_while_they_wait() {
    use crate::virtio::limit::Rates;
    let machine = Machine::new();
    let (socket, nic) = over_a_socket();
    let shared = nic.nic();
    let mut guest = Guest::new(&machine, nic, MRG_RXBUF, 64);
    let posted = guest.post(40, 2048);
    let twenty = Rates { bytes: None, operations: Some(20) };
    shared.limits().into_iter().for_each(|limiter| limiter.set(twenty));
    let begun = std::time::Instant::now();
    for mark in 0..8 {
        give(&socket, &frame_to(MAC, mark));
        guest.transmit.add(&[Piece::holding(&machine, &frame(60))]);
    }
    guest.driver.kick(&mut guest.transmit);
    for mark in 0..8 {
        assert_eq!(guest.receive(&posted)[HEADER + 59], mark);
        take(&socket);
    }
    // Eight frames are seven pauses of 50 ms, less what was saved up before.
    assert!(begun.elapsed() > std::time::Duration::from_millis(300), "{:?}", begun.elapsed());
    // One frame in 17 minutes, and then without a limit.
    shared.limits()[0].set(Rates { bytes: Some(1), operations: None });
    (0..3).for_each(|mark| give(&socket, &frame_to(MAC, mark)));
    assert_eq!(guest.receive(&posted)[HEADER + 59], 0);
    shared.limits()[0].set(Rates::default());
    assert_eq!([(); 2].map(|()| guest.receive(&posted)[HEADER + 59]), [1, 2]);
    assert_eq!(shared.counts().0.dropped, 0);
}
