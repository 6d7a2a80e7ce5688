//! The socket device from the driver's side, with real unix sockets at the other end.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use super::credit::ROOM;
use super::packet::{HEADER, NO_RECEIVE, NO_SEND};
use super::*;
use crate::virtio::testing::{Dice, Driver, Machine, PROMPTLY, Piece, Ring};

const VERSION_1: u64 = 1 << 32;
const CID: u32 = 3;

const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RST: u16 = 3;
const SHUTDOWN: u16 = 4;
const RW: u16 = 5;
const CREDIT_UPDATE: u16 = 6;
const CREDIT_REQUEST: u16 = 7;

/// A packet as the guest sees it: operation, the host's port, the guest's port, flags, payload, what was passed on.
#[derive(Debug, PartialEq, Eq)]
struct Packet {
    op: u16,
    host: u32,
    guest: u32,
    flags: u32,
    fwd_cnt: u32,
    data: Vec<u8>,
}

struct Guest<'m> {
    driver: Driver<'m>,
    receive: Ring<'m>,
    transmit: Ring<'m>,
    posted: Vec<(u16, Piece)>,
    directory: tempfile::TempDir,
}

impl<'m> Guest<'m> {
    fn new(machine: &'m Machine) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("v");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut driver = machine.plug(1, Vsock::new(CID, listener, path));
        driver.probe();
        let mut guest = Self::bind(driver, directory);
        guest.post(100);
        guest
    }

    fn bind(driver: Driver<'m>, directory: tempfile::TempDir) -> Self {
        assert!(driver.negotiate(VERSION_1));
        let (receive, transmit) = (driver.ring(0, 128, false), driver.ring(1, 128, false));
        let _events = driver.ring(2, 16, false);
        driver.start();
        Self { driver, receive, transmit, posted: Vec::new(), directory }
    }

    fn post(&mut self, count: usize) {
        for _ in 0..count {
            let room = Piece::room(self.driver.machine, 1024);
            self.posted.push((self.receive.add(&[room]), room));
        }
        self.driver.kick(&mut self.receive);
    }

    /// The next packet; its buffer is posted again.
    fn receive(&mut self) -> Packet {
        let (head, len) = self.receive.wait_used();
        let at = self.posted.iter().position(|(posted, _)| *posted == head).unwrap();
        let (_, room) = self.posted.remove(at);
        let bytes = room.bytes(self.driver.machine);
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((u32_at(0), u32_at(8), bytes[28]), (2, CID, 1));
        assert_eq!((u32_at(24) as usize + HEADER, u32_at(36)), (len as usize, if bytes[30] == 3 { 0 } else { ROOM }));
        let op = u16::from(bytes[30]);
        let data = bytes[HEADER..len as usize].to_vec();
        self.posted.push((self.receive.add(&[room]), room));
        self.driver.kick(&mut self.receive);
        Packet { op, host: u32_at(16), guest: u32_at(20), flags: u32_at(32), fwd_cnt: u32_at(40), data }
    }

    fn send_with(&mut self, op: u16, (host, guest): (u32, u32), data: &[u8], [flags, room, passed]: [u32; 3]) {
        let mut bytes = u64::from(CID).to_le_bytes().to_vec();
        bytes.extend(2_u64.to_le_bytes());
        bytes.extend([guest, host, data.len() as u32].map(u32::to_le_bytes).concat());
        bytes.extend([1_u16, op].map(u16::to_le_bytes).concat());
        bytes.extend([flags, room, passed].map(u32::to_le_bytes).concat());
        let mut pieces = vec![Piece::holding(self.driver.machine, &bytes)];
        pieces.extend((!data.is_empty()).then(|| Piece::holding(self.driver.machine, data)));
        let head = self.transmit.add(&pieces);
        self.driver.kick(&mut self.transmit);
        assert_eq!(self.transmit.wait_used(), (head, 0));
    }

    fn send(&mut self, op: u16, ports: (u32, u32), data: &[u8]) {
        self.send_with(op, ports, data, [0, 1 << 20, 0]);
    }

    fn socket(&self, suffix: &str) -> PathBuf {
        self.directory.path().join(format!("v{suffix}"))
    }

    /// A program of the host is connected to the guest's port 22; its stream and the ports.
    fn called(&mut self) -> (UnixStream, (u32, u32)) {
        let mut stream = UnixStream::connect(self.socket("")).unwrap();
        stream.set_read_timeout(Some(PROMPTLY)).unwrap();
        stream.write_all(b"CONNECT 22\nearly").unwrap();
        let request = self.receive();
        assert_eq!((request.op, request.guest), (REQUEST, 22));
        let ports = (request.host, 22);
        self.send(RESPONSE, ports, &[]);
        let mut line = vec![0; format!("OK {}\n", ports.0).len()];
        stream.read_exact(&mut line).unwrap();
        assert_eq!(line, format!("OK {}\n", ports.0).as_bytes());
        assert_eq!(self.receive().data, b"early");
        (stream, ports)
    }

    /// A program of the guest is connected to the host's port 80.
    fn calls(&mut self) -> (UnixStream, (u32, u32)) {
        let listener = UnixListener::bind(self.socket("_80")).unwrap();
        self.send(REQUEST, (80, 5000), &[]);
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PROMPTLY)).unwrap();
        assert_eq!(self.receive().op, RESPONSE);
        (stream, (80, 5000))
    }
}

fn read(stream: &mut UnixStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_program_of_the_host_reaches_one_in_the_guest() {
    let machine = Machine::new();
    let mut guest = Guest::new(&machine);
    assert_eq!(guest.driver.read(guest.driver.device.offset, 8), u64::from(CID));
    let (mut stream, ports) = guest.called();
    guest.send(RW, ports, b"from the guest");
    assert_eq!(read(&mut stream, 14), b"from the guest");
    stream.write_all(&[7; 3000]).unwrap();
    let parts: Vec<Packet> = (0..4).map(|_| guest.receive()).collect();
    assert_eq!(parts.iter().map(|part| part.data.len()).collect::<Vec<_>>(), [980, 980, 980, 60]);
    assert!(parts.iter().all(|part| part.op == RW && part.fwd_cnt == 14));
    // The guest is done: what it sent is out, then it hears that all is over.
    guest.send(RW, ports, b"bye");
    guest.send_with(SHUTDOWN, ports, &[], [NO_RECEIVE | NO_SEND, 1 << 20, 0]);
    assert_eq!(guest.receive().op, RST);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"bye");
}

#[test]
fn a_program_of_the_guest_reaches_one_on_the_host_and_nobody_is_a_reset() {
    let machine = Machine::new();
    let mut guest = Guest::new(&machine);
    let (mut stream, ports) = guest.calls();
    guest.send(RW, ports, b"GET /");
    assert_eq!(read(&mut stream, 5), b"GET /");
    // Each side ends its direction by itself.
    guest.send_with(SHUTDOWN, ports, &[], [NO_SEND, 1 << 20, 0]);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    stream.write_all(b"page").unwrap();
    assert_eq!(guest.receive().data, b"page");
    stream.shutdown(Shutdown::Write).unwrap();
    drop(stream);
    let last = guest.receive();
    assert_eq!((last.op, last.flags & NO_SEND), (SHUTDOWN, NO_SEND));
    guest.send(RST, ports, &[]);

    guest.send(REQUEST, (81, 5001), &[]);
    let refused = guest.receive();
    assert_eq!((refused.op, refused.host, refused.guest), (RST, 81, 5001));
}

#[test]
fn who_hangs_up_is_told_of_and_who_refuses_is_hung_up_on() {
    let machine = Machine::new();
    let mut guest = Guest::new(&machine);
    let (stream, ports) = guest.called();
    drop(stream);
    let last = guest.receive();
    assert_eq!((last.op, last.flags), (SHUTDOWN, NO_SEND | NO_RECEIVE));
    guest.send(RST, ports, &[]);

    let mut stream = UnixStream::connect(guest.socket("")).unwrap();
    stream.set_read_timeout(Some(PROMPTLY)).unwrap();
    stream.write_all(b"CONNECT 23\n").unwrap();
    let request = guest.receive();
    guest.send(RST, (request.host, 23), &[]);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    for nonsense in [&b"HELLO\n"[..], b"CONNECT x\n", b"CONNECT 4294967296\n", &[b'C'; 100]] {
        let mut stream = UnixStream::connect(guest.socket("")).unwrap();
        stream.set_read_timeout(Some(PROMPTLY)).unwrap();
        stream.write_all(nonsense).unwrap();
        // What was not read makes the end a reset.
        assert!(!matches!(stream.read(&mut [0]), Ok(1..)), "{nonsense:?}");
    }
}

#[test]
fn neither_side_gets_more_than_it_has_room_for() {
    let machine = Machine::new();
    let mut guest = Guest::new(&machine);
    let (mut stream, ports) = guest.calls();
    // The guest has room for 10 bytes.
    guest.send_with(CREDIT_UPDATE, ports, &[], [0, 10, 0]);
    stream.write_all(b"0123456789abcdef").unwrap();
    assert_eq!(guest.receive().data, b"0123456789");
    guest.send_with(CREDIT_UPDATE, ports, &[], [0, 10, 10]);
    assert_eq!(guest.receive().data, b"abcdef");
    // The host's program does not read: what the guest sends is kept, up to our room. Once it reads, the guest hears.
    let chunk = vec![9; 32 << 10];
    for _ in 0..ROOM / (32 << 10) {
        guest.send(RW, ports, &chunk);
    }
    guest.send(CREDIT_REQUEST, ports, &[]);
    let before = guest.receive();
    assert_eq!(before.op, CREDIT_UPDATE);
    assert_eq!(read(&mut stream, ROOM as usize), vec![9; ROOM as usize]);
    let mut known = before.fwd_cnt;
    while known != ROOM {
        guest.send(CREDIT_REQUEST, ports, &[]);
        let update = guest.receive();
        assert!(update.op == CREDIT_UPDATE && update.fwd_cnt >= known);
        known = update.fwd_cnt;
    }
}

#[test]
fn a_guest_that_sends_more_than_it_may_loses_the_connection() {
    let machine = Machine::new();
    let mut guest = Guest::new(&machine);
    let (_stream, ports) = guest.calls();
    let chunk = vec![9; 64 << 10];
    // The kernel's own buffer takes some; far more than both does not fit.
    let mut heard = guest.receive.used_idx();
    for _ in 0..100 {
        guest.send(RW, ports, &chunk);
        while guest.receive.used_idx() != heard {
            heard += 1;
            match guest.receive().op {
                RST => return,
                op => assert_eq!(op, CREDIT_UPDATE),
            }
        }
    }
    panic!("no end to what is kept");
}

#[test]
fn packets_that_make_no_sense_are_answered_by_a_reset_or_not_at_all() {
    let machine = Machine::new();
    let mut guest = Guest::new(&machine);
    for op in [RESPONSE, RW, SHUTDOWN, CREDIT_REQUEST, CREDIT_UPDATE, 0, 9] {
        guest.send(op, (1, 2), &[]);
        let answer = guest.receive();
        assert_eq!((answer.op, answer.host, answer.guest), (RST, 1, 2), "{op}");
    }
    guest.send(RST, (1, 2), &[]);
    // A second request on the same ports, and data shorter than it says.
    let (stream, ports) = guest.called();
    guest.send(REQUEST, ports, &[]);
    assert_eq!(guest.receive().op, RST);
    drop(stream);
    let (_stream, ports) = guest.called();
    let header = [
        &u64::from(CID).to_le_bytes()[..],
        &2_u64.to_le_bytes(),
        &[ports.1, ports.0, 100].map(u32::to_le_bytes).concat(),
        &[1, 0, 5, 0],
        &[0; 12],
    ]
    .concat();
    guest.transmit.add(&[Piece::holding(&machine, &header)]);
    guest.driver.kick(&mut guest.transmit);
    assert_eq!(guest.receive().op, RST);
    // A packet without a whole header breaks the queue, and a reset mends it.
    guest.transmit.add(&[Piece::holding(&machine, &[0; 43])]);
    guest.driver.kick(&mut guest.transmit);
    assert_eq!(machine.router.wait(guest.driver.config_message(), PROMPTLY), 1);
    let Guest { driver, directory, .. } = guest;
    let mut guest = Guest::bind(driver, directory);
    guest.post(10);
    guest.called();
}

#[test]
fn random_packets_never_hang_or_panic() {
    let mut dice = Dice::new(17);
    for _ in 0..10 {
        let machine = Machine::new();
        let mut guest = Guest::new(&machine);
        let mut streams = vec![UnixStream::connect(guest.socket("")).unwrap()];
        let listener = UnixListener::bind(guest.socket("_1")).unwrap();
        for _ in 0..150 {
            match dice.below(8) {
                0 => streams.push(UnixStream::connect(guest.socket("")).unwrap()),
                1 => drop(streams.pop()),
                2 => drop(streams.iter_mut().last().map(|s| s.write(b"CONNECT 1\n"))),
                _ => {
                    let ports = (dice.below(3) as u32 + [0, 1 << 30][dice.below(2) as usize], dice.below(3) as u32);
                    let data = vec![0; dice.below(2000) as usize];
                    let words = [dice.below(4) as u32, dice.roll() as u32, dice.roll() as u32];
                    guest.send_with(dice.below(9) as u16, ports, &data, words);
                }
            }
        }
        drop((streams, listener));
        let Guest { driver, directory, .. } = guest;
        let mut guest = Guest::bind(driver, directory);
        guest.post(10);
        guest.called();
    }
}
