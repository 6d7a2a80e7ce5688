//! The disk from the driver's side, over a real file.

use std::io::Write;
use std::os::unix::fs::FileExt;

use super::request::{Disk, Refusal, Request, parse};
use super::*;
use crate::virtio::testing::{Dice, Driver, Machine, Piece, Ring};

const VERSION_1: u64 = 1 << 32;
const ALL: u64 = VERSION_1 | 1 << 1 | 1 << 2 | 1 << 6 | 1 << 9 | 1 << 28 | 1 << 29;
const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPPORTED: u8 = 2;

/// 64 sectors, each filled with its number.
fn image() -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().prefix("disk").suffix(".raw").tempfile().unwrap();
    for sector in 0..64 {
        file.write_all(&[sector; 512]).unwrap();
    }
    file
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

struct Fixture<'m> {
    driver: Driver<'m>,
    ring: Ring<'m>,
}

impl<'m> Fixture<'m> {
    fn new(machine: &'m Machine, disk: Blk, features: u64) -> Self {
        let mut driver = machine.plug(1, disk);
        driver.probe();
        assert!(driver.negotiate(features), "offered {:#x}", driver.offered());
        let ring = driver.ring(0, 128, features & 1 << 29 != 0);
        driver.start();
        Self { driver, ring }
    }

    /// One request; answers the status and the bytes used.
    fn request(&mut self, kind: u32, sector: u64, data: &[Piece]) -> (u8, u32) {
        let machine = self.driver.machine;
        let status = Piece::room(machine, 1);
        let mut pieces = vec![Piece::holding(machine, &header(kind, sector))];
        pieces.extend(data);
        pieces.push(status);
        let head = self.ring.add(&pieces);
        self.driver.kick(&mut self.ring);
        let (used, bytes) = self.ring.wait_used();
        assert_eq!(used, head);
        (status.bytes(machine)[0], bytes)
    }
}

fn open(image: &tempfile::NamedTempFile, readonly: bool) -> Blk {
    Blk::new(RawDisk::open(image.path(), readonly).unwrap())
}

#[test]
fn what_is_written_is_in_the_file_and_is_read_back() {
    let (machine, image) = (Machine::new(), image());
    let mut guest = Fixture::new(&machine, open(&image, false), ALL);
    let (a, b) = (Piece::holding(&machine, &[0xaa; 700]), Piece::holding(&machine, &[0xbb; 324]));
    assert_eq!(guest.request(WRITE, 5, &[a, b]), (OK, 1));
    assert_eq!(guest.request(FLUSH, 0, &[]), (OK, 1));
    let mut sectors = [0; 4 * 512];
    image.as_file().read_exact_at(&mut sectors, 4 * 512).unwrap();
    assert!(sectors[..512].iter().all(|b| *b == 4) && sectors[512..1212].iter().all(|b| *b == 0xaa));
    assert!(sectors[1212..1536].iter().all(|b| *b == 0xbb) && sectors[1536..].iter().all(|b| *b == 7));
    let room = [Piece::room(&machine, 100), Piece::room(&machine, 924)];
    assert_eq!(guest.request(READ, 5, &room), (OK, 1025));
    assert_eq!([room[0].bytes(&machine), room[1].bytes(&machine)].concat(), sectors[512..1536]);
}

#[test]
fn the_configuration_tells_size_and_limits() {
    let (machine, image) = (Machine::new(), image());
    let guest = Fixture::new(&machine, open(&image, false), ALL);
    let at = guest.driver.device.offset;
    assert_eq!(guest.driver.read(at, 8), 64, "sectors");
    assert_eq!(guest.driver.read(at + 12, 4), 254, "segments");
    assert_eq!(guest.driver.read(at + 20, 4), 512, "block size");
    assert_eq!(guest.driver.offered() & 1 << 5, 0, "not read-only");
}

#[test]
fn the_framing_of_a_request_does_not_matter() {
    let (machine, image) = (Machine::new(), image());
    let mut guest = Fixture::new(&machine, open(&image, false), ALL);
    // Header in two pieces, the second of which goes on with data; status in the piece that ends the data of a read.
    let head = header(WRITE, 9);
    let mut rest = head[10..].to_vec();
    rest.extend([0xcc; 512]);
    let status = Piece::room(&machine, 1);
    guest.ring.add_indirect(&[Piece::holding(&machine, &head[..10]), Piece::holding(&machine, &rest), status]);
    guest.driver.kick(&mut guest.ring);
    guest.ring.wait_used();
    assert_eq!(status.bytes(&machine), [OK]);
    let room = Piece::room(&machine, 513);
    guest.ring.add(&[Piece::holding(&machine, &header(READ, 9)), room]);
    guest.driver.kick(&mut guest.ring);
    assert_eq!(guest.ring.wait_used().1, 513);
    assert_eq!(room.bytes(&machine), [[0xcc; 512].as_slice(), &[OK]].concat());
}

#[test]
fn a_request_past_the_end_or_of_part_sectors_is_an_error_and_the_next_one_works() {
    let (machine, image) = (Machine::new(), image());
    let mut guest = Fixture::new(&machine, open(&image, false), ALL);
    let sector = Piece::room(&machine, 512);
    for (at, data) in [
        (64, vec![sector]),
        (63, vec![sector, sector]),
        (u64::MAX, vec![sector]),
        (u64::MAX / 512, vec![sector]),
        (0, vec![Piece { len: 511, ..sector }]),
        (0, vec![Piece { len: 1, ..sector }]),
    ] {
        assert_eq!(guest.request(READ, at, &data).0, IOERR, "sector {at}");
    }
    let data = Piece::holding(&machine, &[1; 512]);
    assert_eq!(guest.request(WRITE, 64, &[data]).0, IOERR);
    assert_eq!(guest.request(7, 0, &[sector]).0, UNSUPPORTED);
    assert_eq!(guest.request(READ, 63, &[sector]), (OK, 513));
    assert_eq!(image.as_file().metadata().unwrap().len(), 64 * 512, "the image did not grow");
}

#[test]
fn a_read_only_disk_says_so_and_refuses_writes() {
    let (machine, image) = (Machine::new(), image());
    let mut guest = Fixture::new(&machine, open(&image, true), ALL | 1 << 5);
    assert_eq!(guest.driver.offered() & 1 << 5, 1 << 5);
    let data = Piece::holding(&machine, &[1; 512]);
    assert_eq!(guest.request(WRITE, 0, &[data]).0, IOERR);
    let room = Piece::room(&machine, 512);
    assert_eq!(guest.request(READ, 3, &[room]), (OK, 513));
    assert_eq!(room.bytes(&machine), [3; 512]);
}

#[test]
fn the_serial_number_is_the_file_name_unless_another_is_given() {
    let image = image();
    for given in [None, Some("a serial that is longer than 20 bytes")] {
        let machine = Machine::new();
        let disk = open(&image, true);
        let disk = given.map_or_else(|| open_again(&disk), |text| open_again(&disk).with_serial(text));
        let mut guest = Fixture::new(&machine, disk, ALL | 1 << 5);
        let room = Piece::room(&machine, 20);
        assert_eq!(guest.request(GET_ID, 0, &[room]), (OK, 21));
        let expected = given.unwrap_or(image.path().file_name().unwrap().to_str().unwrap());
        let mut padded = expected.as_bytes().to_vec();
        padded.resize(20, 0);
        assert_eq!(room.bytes(&machine), padded);
    }
}

fn open_again(disk: &Blk) -> Blk {
    Blk::new(RawDisk::open(disk.disk.path(), true).unwrap())
}

#[test]
fn an_image_that_became_shorter_gives_errors_not_a_crash() {
    let (machine, image) = (Machine::new(), image());
    let mut guest = Fixture::new(&machine, open(&image, false), ALL);
    image.as_file().set_len(1024).unwrap();
    let room = Piece::room(&machine, 512);
    assert_eq!(guest.request(READ, 2, &[room]).0, IOERR);
    assert_eq!(guest.request(READ, 1, &[room]), (OK, 513));
}

#[test]
fn a_chain_without_header_or_status_breaks_the_queue_only_until_the_reset() {
    let (machine, image) = (Machine::new(), image());
    let mut guest = Fixture::new(&machine, open(&image, false), ALL);
    for pieces in [vec![Piece::room(&machine, 1)], vec![Piece::holding(&machine, &header(FLUSH, 0))]] {
        guest.ring.add(&pieces);
        guest.driver.kick(&mut guest.ring);
        assert_eq!(machine.router.wait(guest.driver.config_message(), crate::virtio::testing::PROMPTLY), 1);
        assert_eq!(guest.driver.status() & 0x40, 0x40);
        assert!(guest.driver.negotiate(ALL));
        guest.ring = guest.driver.ring(0, 128, true);
        guest.driver.start();
        assert_eq!(guest.request(FLUSH, 0, &[]), (OK, 1));
    }
}

#[test]
fn random_requests_are_answered_as_a_model_of_the_disk_says() {
    let (machine, image) = (Machine::new(), image());
    let mut guest = Fixture::new(&machine, open(&image, false), ALL);
    let mut model: Vec<u8> = (0..64 * 512).map(|i| (i / 512) as u8).collect();
    let mut dice = Dice::new(11);
    for _ in 0..400 {
        let (sector, count) = (dice.below(70), 1 + dice.below(4));
        let (at, len) = (sector as usize * 512, count as usize * 512);
        let expected = if at + len <= model.len() { OK } else { IOERR };
        if dice.below(2) == 0 {
            let bytes: Vec<u8> = (0..len).map(|_| dice.roll() as u8).collect();
            let data = Piece::holding(&machine, &bytes);
            assert_eq!(guest.request(WRITE, sector, &[data]).0, expected);
            if expected == OK {
                model[at..at + len].copy_from_slice(&bytes);
            }
        } else {
            let room = Piece::room(&machine, len as u32);
            assert_eq!(guest.request(READ, sector, &[room]).0, expected);
            if expected == OK {
                assert_eq!(room.bytes(&machine), model[at..at + len]);
            }
        }
    }
    let mut file = vec![0; model.len()];
    image.as_file().read_exact_at(&mut file, 0).unwrap();
    assert!(file == model);
}

#[test]
fn random_chains_are_answered_or_break_the_queue_and_never_grow_the_image() {
    let (machine, image) = (Machine::new(), image());
    let mut guest = Fixture::new(&machine, open(&image, false), ALL);
    let mut dice = Dice::new(29);
    for _ in 0..300 {
        for _ in 0..dice.below(8) {
            let pieces: Vec<Piece> = (0..1 + dice.below(5))
                .map(|i| match dice.below(6) {
                    0 if i == 0 => {
                        Piece { address: dice.roll(), len: dice.roll() as u32, writable: dice.below(2) == 0 }
                    }
                    0..=3 if i == 0 => Piece::holding(&machine, &header(dice.below(15) as u32, dice.below(70))),
                    1..=3 => Piece { writable: i > 1, ..Piece::room(&machine, dice.below(1500) as u32) },
                    _ => Piece { writable: true, ..Piece::room(&machine, [1, 512, 1024][dice.below(3) as usize]) },
                })
                .collect();
            guest.ring.add(&pieces);
        }
        guest.driver.kick(&mut guest.ring);
        if dice.below(10) == 0 {
            assert!(guest.driver.negotiate(ALL));
            guest.ring = guest.driver.ring(0, 128, true);
            guest.driver.start();
            assert_eq!(guest.request(FLUSH, 0, &[]), (OK, 1));
        }
    }
    assert_eq!(image.as_file().metadata().unwrap().len(), 64 * 512);
}

#[test]
fn any_header_parses_to_a_request_inside_the_disk_or_a_refusal() {
    let mut dice = Dice::new(5);
    for _ in 0..100_000 {
        let mut bytes: [u8; 16] = std::array::from_fn(|_| dice.roll() as u8);
        bytes[..4].copy_from_slice(&(dice.below(15) as u32).to_le_bytes());
        if dice.below(2) == 0 {
            bytes[8..].copy_from_slice(&dice.below(130).to_le_bytes());
        }
        let data = [dice.below(4) * 512, dice.roll(), dice.below(2000)][dice.below(3) as usize] as usize;
        let disk = Disk { bytes: 128 * 512, readonly: dice.below(2) == 0, block: 512 };
        match parse(&bytes, data, data, disk) {
            Ok(Request::Read { offset } | Request::Write { offset }) => {
                assert!(offset + data as u64 <= disk.bytes && data.is_multiple_of(512));
            }
            Ok(Request::Ranges(_)) => assert!(!disk.readonly),
            Ok(Request::Flush | Request::GetId) => {}
            Err(Refusal::ReadOnly) => assert!(disk.readonly),
            Err(_) => {}
        }
    }
}

/// A segment of a discard or a write of zeros.
fn segment(machine: &Machine, sector: u64, count: u32, flags: u32) -> Piece {
    Piece::holding(machine, &[&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat())
}

#[test]
fn discarded_and_zeroed_sectors_read_as_zeros_and_the_others_stay() {
    const DISCARD: u32 = 11;
    const ZEROES: u32 = 13;
    let (machine, image) = (Machine::new(), image());
    let mut guest = Fixture::new(&machine, open(&image, false), ALL | 1 << 13 | 1 << 14);
    let two = [segment(&machine, 8, 8, 0), segment(&machine, 32, 16, 0)];
    assert_eq!(guest.request(DISCARD, 0, &two), (OK, 1));
    assert_eq!(guest.request(ZEROES, 0, &[segment(&machine, 3, 1, 0)]), (OK, 1));
    assert_eq!(guest.request(ZEROES, 0, &[segment(&machine, 50, 2, 1)]), (OK, 1));
    let mut file = [0; 64 * 512];
    image.as_file().read_exact_at(&mut file, 0).unwrap();
    for (sector, bytes) in file.chunks(512).enumerate() {
        let gone = matches!(sector, 3 | 8..16 | 32..48 | 50..52);
        assert!(bytes.iter().all(|byte| *byte == if gone { 0 } else { sector as u8 }), "sector {sector}");
    }
    assert_eq!(guest.request(DISCARD, 0, &[segment(&machine, 0, 1, 0), segment(&machine, 60, 5, 0)]).0, IOERR);
    assert_eq!(guest.request(DISCARD, 0, &[segment(&machine, 0, 1, 1)]).0, UNSUPPORTED);
    let room = Piece::room(&machine, 512);
    assert_eq!(guest.request(READ, 1, &[room]), (OK, 513));
    assert_eq!(room.bytes(&machine), [1; 512], "a refused request touches nothing");
    assert_eq!(image.as_file().metadata().unwrap().len(), 64 * 512);

    let machine = Machine::new();
    let mut guest = Fixture::new(&machine, open_again(&open(&tempfile_with(&file), true)), ALL | 1 << 5);
    assert_eq!(guest.driver.offered() & (1 << 13 | 1 << 14), 0);
    assert_eq!(guest.request(DISCARD, 0, &[segment(&machine, 0, 1, 0)]).0, IOERR);
}

/// An image with these bytes; it stays until the test ends.
fn tempfile_with(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn several_queues_serve_one_disk_at_once() {
    let (machine, image) = (Machine::new(), image());
    let mut driver = machine.plug(1, open(&image, false).with_queues(3));
    driver.probe();
    assert_eq!(driver.offered() & 1 << 12, 1 << 12);
    assert!(driver.negotiate(VERSION_1 | 1 << 12 | 1 << 9));
    assert_eq!(driver.read(driver.device.offset + 34, 2), 3);
    let mut rings: Vec<Ring<'_>> = (0..3).map(|index| driver.ring(index, 16, false)).collect();
    driver.start();
    for (queue, ring) in rings.iter_mut().enumerate() {
        let data = Piece::holding(&machine, &[0x40 + queue as u8; 512]);
        ring.add(&[Piece::holding(&machine, &header(WRITE, queue as u64)), data, Piece::room(&machine, 1)]);
        driver.kick(ring);
    }
    rings.iter_mut().for_each(|ring| assert_eq!(ring.wait_used().1, 1));
    let mut file = [0; 3 * 512];
    image.as_file().read_exact_at(&mut file, 0).unwrap();
    assert!(file.chunks(512).zip(0x40..).all(|(sector, byte)| sector.iter().all(|b| *b == byte)));
}

#[test]
fn past_the_page_cache_unaligned_buffers_work_too() {
    // Not every file system has direct access; the one with the build directory does where these tests run.
    let mut image = tempfile::Builder::new()
        .prefix("disk")
        .tempfile_in(std::env::current_exe().unwrap().parent().unwrap())
        .unwrap();
    (0..64_u8).for_each(|sector| image.write_all(&[sector; 512]).unwrap());
    let machine = Machine::new();
    let disk = RawDisk::open_with(image.path(), false, true).unwrap();
    let block = disk.block();
    let mut guest = Fixture::new(&machine, Blk::new(disk), ALL);
    assert_eq!(guest.driver.read(guest.driver.device.offset + 20, 4), block);
    let sectors = block / 512;
    let half = block as u32 / 2;
    let aligned = Piece { address: machine.allocate(block, 4096), len: block as u32, writable: true };
    let odd = Piece { address: machine.allocate(block, 4096) + 1, len: half - 1, writable: true };
    let rest = Piece { address: machine.allocate(block, 4096), len: half + 1, writable: true };
    for pieces in [vec![aligned], vec![odd, rest]] {
        assert_eq!(guest.request(READ, sectors, &pieces), (OK, block as u32 + 1));
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes(&machine)).collect();
        assert!(bytes.chunks(512).zip(sectors..).all(|(part, sector)| part.iter().all(|b| u64::from(*b) == sector)));
    }
    let data = vec![0xee; block as usize];
    let (front, back) = data.split_at(7);
    let pieces = [Piece::holding(&machine, front), Piece::holding(&machine, back)];
    assert_eq!(guest.request(WRITE, 2 * sectors, &pieces), (OK, 1));
    let mut file = vec![0; block as usize];
    image.as_file().read_exact_at(&mut file, 2 * block).unwrap();
    assert_eq!(file, data);
}

#[test]
fn a_limit_holds_requests_back_and_the_counters_tell_what_passed() {
    use crate::virtio::limit::Rates;
    let (machine, image) = (Machine::new(), image());
    let disk = open(&image, false);
    let drive = disk.drive();
    let mut guest = Fixture::new(&machine, disk, ALL);
    drive.limit().set(Rates { bytes: Some(20 * 529), operations: None });
    let begun = std::time::Instant::now();
    let room = Piece::room(&machine, 512);
    for sector in 0..8 {
        assert_eq!(guest.request(READ, sector, &[room]), (OK, 513));
    }
    assert!(begun.elapsed() > std::time::Duration::from_millis(300), "{:?}", begun.elapsed());
    drive.limit().set(Rates::default());
    assert_eq!(guest.request(WRITE, 0, &[Piece::holding(&machine, &[0; 1024])]), (OK, 1));
    image.as_file().set_len(512).unwrap();
    assert_eq!(guest.request(READ, 9, &[room]).0, IOERR);
    let count = drive.count();
    assert_eq!((count.reads, count.read_bytes, count.writes, count.written_bytes), (8, 8 * 512, 1, 1024));
    assert_eq!(count.errors, 1);
}
