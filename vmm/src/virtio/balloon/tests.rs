//! The balloon from the driver's side.

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::virtio::testing::{Dice, Driver, Machine, PROMPTLY, Piece, Ring};

const VERSION_1: u64 = 1 << 32;

fn numbers(machine: &Machine, pages: impl Iterator<Item = u32>) -> Piece {
    Piece::holding(machine, &pages.flat_map(u32::to_le_bytes).collect::<Vec<_>>())
}

struct Guest<'m> {
    driver: Driver<'m>,
    rings: Vec<Ring<'m>>,
    pump: Arc<Pump>,
}

impl<'m> Guest<'m> {
    fn new(machine: &'m Machine, features: u64) -> Self {
        let balloon = Balloon::new().unwrap();
        let pump = balloon.pump();
        let mut driver = machine.plug(1, balloon);
        driver.probe();
        assert!(driver.negotiate(VERSION_1 | features));
        let more = u16::from(features & STATS_VQ != 0) + u16::from(features & REPORTING != 0);
        let rings = (0..2 + more).map(|index| driver.ring(index, 64, false)).collect();
        driver.start();
        Self { driver, rings, pump }
    }

    fn give(&mut self, queue: usize, pieces: &[Piece]) {
        let head = self.rings[queue].add(pieces);
        self.driver.kick(&mut self.rings[queue]);
        assert_eq!(self.rings[queue].wait_used(), (head, 0));
    }
}

/// Fills a page and says whether it is full.
fn fill(machine: &Machine, page: u64) {
    machine.memory.write_slice(&[0xaa; 4096], GuestAddress(page * PAGE)).unwrap();
}

fn is_gone(machine: &Machine, page: u64) -> bool {
    let mut bytes = [0xff; 4096];
    machine.memory.read_slice(&mut bytes, GuestAddress(page * PAGE)).unwrap();
    bytes == [0; 4096]
}

#[test]
fn pages_given_away_are_gone_and_can_be_used_again() {
    let machine = Machine::new();
    let mut guest = Guest::new(&machine, 0);
    let pages = [1000, 1001, 1002, 1100, 3000];
    pages.iter().chain(&[1003]).for_each(|page| fill(&machine, *page));
    // Among them one beyond memory and one in the hole.
    let given = [1000, 1001, 1002, u32::MAX, 1100, 5000, 3000];
    guest.give(0, &[numbers(&machine, given[..2].iter().copied()), numbers(&machine, given[2..].iter().copied())]);
    assert_eq!(pages.map(|page| is_gone(&machine, page)), [true; 5]);
    assert!(!is_gone(&machine, 1003));
    guest.give(1, &[numbers(&machine, given.into_iter())]);
    fill(&machine, 1000);
    assert!(!is_gone(&machine, 1000));
}

#[test]
fn many_pages_in_one_request_all_go() {
    let machine = Machine::new();
    let mut guest = Guest::new(&machine, 0);
    (2000..2700).for_each(|page| fill(&machine, page));
    guest.give(0, &[numbers(&machine, (2000..2700).rev())]);
    assert!((2000..2700).all(|page| is_gone(&machine, page)));
}

#[test]
fn reported_pages_are_gone_and_parts_of_pages_stay() {
    let machine = Machine::new();
    let mut guest = Guest::new(&machine, REPORTING);
    (1000..1004).for_each(|page| fill(&machine, page));
    let report = Piece { address: 1000 * PAGE + 8, len: 3 * 4096, writable: true };
    guest.give(2, &[report]);
    assert_eq!([1000, 1001, 1002, 1003].map(|page| is_gone(&machine, page)), [false, true, true, false]);
}

#[test]
fn the_driver_is_told_what_is_wanted_and_tells_what_it_has() {
    let machine = Machine::new();
    let guest = Guest::new(&machine, STATS_VQ | REPORTING);
    let at = guest.driver.device.offset;
    guest.pump.set_wanted(40 << 20);
    assert_eq!(machine.router.wait(guest.driver.config_message(), PROMPTLY), 1);
    assert_eq!(guest.driver.read(at, 4), 40 << 8);
    guest.driver.write(at, 4, 1);
    guest.driver.write(at + 4, 4, 25 << 8);
    assert_eq!(guest.pump.wanted_and_actual(), (40 << 20, 25 << 20), "what is wanted is not the driver's to write");
    guest.driver.reset();
    assert_eq!(guest.pump.wanted_and_actual(), (40 << 20, 0));
}

#[test]
fn statistics_are_asked_for_and_answered() {
    let machine = Machine::new();
    let mut guest = Guest::new(&machine, STATS_VQ | REPORTING);
    let report = |free: u64| Piece::holding(&machine, &[&[4, 0][..], &free.to_le_bytes()].concat());
    let first = guest.rings[2].add(&[report(100)]);
    guest.driver.kick(&mut guest.rings[2]);
    let (pump, ring) = (guest.pump.clone(), &mut guest.rings[2]);
    let answer = std::thread::scope(|scope| {
        // Nobody knows whether the first report was there before the question: the last one counts.
        let asking = scope.spawn(|| {
            loop {
                match pump.ask_stats(PROMPTLY) {
                    Some(Stats { free: Some(200), .. }) => return true,
                    Some(Stats { free: Some(100), .. }) => {}
                    _ => return false,
                }
            }
        });
        assert_eq!(ring.wait_used(), (first, 0));
        ring.add(&[report(200)]);
        guest.driver.kick(ring);
        asking.join().unwrap()
    });
    assert!(answer);
    // Who does not answer is waited for only so long, and what it said last is what is known.
    assert_eq!(guest.pump.ask_stats(Duration::from_millis(1)).unwrap().free, Some(200));
    guest.driver.reset();
    assert_eq!(guest.pump.ask_stats(PROMPTLY), None);
}

#[test]
fn random_rings_never_hang_or_panic() {
    let mut dice = Dice::new(31);
    for _ in 0..10 {
        let machine = Machine::new();
        let mut guest = Guest::new(&machine, STATS_VQ | REPORTING);
        for _ in 0..200 {
            let pieces: Vec<Piece> = (0..1 + dice.below(3))
                .map(|_| Piece {
                    address: [8 << 20, dice.roll(), (16 << 20) - 100][[0, 0, 0, 1, 2][dice.below(5) as usize]],
                    len: [dice.below(9000) as u32, dice.roll() as u32][usize::from(dice.below(10) == 0)],
                    writable: dice.below(4) == 0,
                })
                .collect();
            let queue = dice.below(4) as usize;
            guest.rings[queue].add(&pieces);
            guest.driver.kick(&mut guest.rings[queue]);
            guest.pump.ask_stats(Duration::ZERO);
        }
        guest.driver.reset();
        let mut ring = guest.driver.negotiate(VERSION_1).then(|| guest.driver.ring(0, 64, false)).unwrap();
        let _deflate = guest.driver.ring(1, 64, false);
        guest.driver.start();
        fill(&machine, 2500);
        let head = ring.add(&[numbers(&machine, std::iter::once(2500))]);
        guest.driver.kick(&mut ring);
        assert_eq!(ring.wait_used(), (head, 0));
        assert!(is_gone(&machine, 2500));
    }
}
