//! Rings as a well-behaved driver fills them, and as a hostile one does.

use vm_memory::GuestAddress;

use super::*;
use crate::virtio::testing::{Dice, Machine, Piece, Ring};

const SIZE: u16 = 16;

/// A ring and the device's side of it, without a transport.
fn queue(machine: &Machine, event_idx: bool) -> (Ring<'_>, VirtQueue) {
    let at = [
        machine.allocate(16 * u64::from(SIZE), 16),
        machine.allocate(6 + 2 * u64::from(SIZE), 2),
        machine.allocate(6 + 8 * u64::from(SIZE), 4),
    ];
    let ring = Ring::new(machine, 0, SIZE, event_idx, at, 0, 0);
    (ring, device_side(machine, at, event_idx))
}

fn device_side(machine: &Machine, [descriptors, available, used]: [u64; 3], event_idx: bool) -> VirtQueue {
    let mut queue = Queue::new(SIZE).unwrap();
    queue.try_set_desc_table_address(GuestAddress(descriptors)).unwrap();
    queue.try_set_avail_ring_address(GuestAddress(available)).unwrap();
    queue.try_set_used_ring_address(GuestAddress(used)).unwrap();
    queue.set_event_idx(event_idx);
    queue.set_ready(true);
    assert!(queue.is_valid(&machine.memory));
    let interrupts = Arc::new(Interrupts::new(1, machine.router.clone()));
    VirtQueue::new(0, queue, machine.memory.clone(), EventFd::new(libc::EFD_NONBLOCK).unwrap(), interrupts)
}

fn pop(queue: &mut VirtQueue) -> Result<Option<(u16, usize, usize)>, QueueError> {
    let (mut readable, mut writable) = (queue.buffers(), queue.buffers());
    let chain = queue.pop(&mut readable, &mut writable)?;
    Ok(chain.map(|chain| (chain.head, readable.bytes(), writable.bytes())))
}

#[test]
fn chains_come_in_order_direct_or_indirect_and_zero_lengths_do_no_harm() {
    let machine = Machine::new();
    let (mut ring, mut queue) = queue(&machine, false);
    let (a, b) = (Piece::holding(&machine, b"hello"), Piece::room(&machine, 100));
    let nothing = Piece { len: 0, ..a };
    let first = ring.add(&[a, nothing, b]);
    let second = ring.add_indirect(&[a, a, b]);
    assert_eq!(pop(&mut queue).unwrap(), None, "not published yet");
    ring.publish();
    assert_eq!(pop(&mut queue).unwrap(), Some((first, 5, 100)));
    assert_eq!(pop(&mut queue).unwrap(), Some((second, 10, 100)));
    assert_eq!(pop(&mut queue).unwrap(), None);
}

#[test]
fn a_buffer_over_the_edge_of_memory_is_refused_and_leaves_nothing_behind() {
    let machine = Machine::new();
    let (mut ring, mut queue) = queue(&machine, false);
    let good = Piece::holding(&machine, b"hello");
    for (address, len) in [(16 << 20, 1), ((16 << 20) - 1, 2), (u64::MAX, 1), (u64::MAX - 1, 100), (0, u32::MAX - 5)] {
        ring.add(&[good, Piece { address, len, writable: false }]);
        ring.publish();
        let (mut readable, mut writable) = (queue.buffers(), queue.buffers());
        assert!(matches!(queue.pop(&mut readable, &mut writable), Err(QueueError::Buffer { .. })), "{address:#x}");
        assert_eq!((readable.pieces(), readable.bytes()), (0, 0));
    }
}

#[test]
fn broken_chains_are_told_from_whole_ones() {
    let machine = Machine::new();
    let (mut ring, mut queue) = queue(&machine, false);
    let piece = Piece::holding(&machine, b"x");
    let table = machine.allocate(64, 16);
    let descriptors = ring.descriptors;
    type SetUp<'a> = &'a dyn Fn(&Ring<'_>);
    let cases: [(&str, SetUp<'_>); 8] = [
        ("loop", &|r| r.write_descriptor(descriptors, 0, piece.address, 1, 1, 0)),
        ("next out of range", &|r| r.write_descriptor(descriptors, 0, piece.address, 1, 1, SIZE)),
        ("indirect of length 0", &|r| r.write_descriptor(descriptors, 0, table, 0, 4, 0)),
        ("indirect of odd length", &|r| r.write_descriptor(descriptors, 0, table, 17, 4, 0)),
        ("indirect outside memory", &|r| r.write_descriptor(descriptors, 0, u64::MAX - 8, 16, 4, 0)),
        ("indirect in indirect", &|r| {
            r.write_descriptor(descriptors, 0, table, 32, 4, 0);
            r.write_descriptor(table, 0, table, 32, 4, 0);
        }),
        ("indirect that loops", &|r| {
            r.write_descriptor(descriptors, 0, table, 32, 4, 0);
            r.write_descriptor(table, 0, piece.address, 1, 1, 0);
        }),
        ("direct, then a bad indirect", &|r| {
            r.write_descriptor(descriptors, 0, piece.address, 1, 1, 1);
            r.write_descriptor(descriptors, 1, table, 1, 4, 0);
        }),
    ];
    for (what, set_up) in cases {
        set_up(&ring);
        ring.add_head(0);
        ring.publish();
        assert!(matches!(pop(&mut queue), Err(QueueError::Chain { head: 0 })), "{what}");
    }
    ring.add_head(SIZE);
    ring.publish();
    assert!(matches!(pop(&mut queue), Err(QueueError::Chain { head: SIZE })), "head out of range");
}

#[test]
fn a_readable_buffer_after_a_writable_one_is_refused() {
    let machine = Machine::new();
    let (mut ring, mut queue) = queue(&machine, false);
    ring.add(&[Piece::room(&machine, 1), Piece::holding(&machine, b"x")]);
    ring.publish();
    assert!(matches!(pop(&mut queue), Err(QueueError::Order { .. })));
}

#[test]
fn a_chain_of_the_wrong_direction_is_refused() {
    let machine = Machine::new();
    let (mut ring, mut queue) = queue(&machine, false);
    ring.add(&[Piece::room(&machine, 1)]);
    ring.add(&[Piece::holding(&machine, b"x")]);
    ring.publish();
    let mut buffers = queue.buffers();
    assert!(matches!(queue.pop_readable(&mut buffers), Err(QueueError::Shape { .. })));
    assert!(matches!(queue.pop_writable(&mut buffers), Err(QueueError::Shape { .. })));
    assert_eq!(buffers.pieces(), 0);
}

#[test]
fn an_indirect_table_as_long_as_a_descriptor_can_say_is_cut_short() {
    let machine = Machine::new();
    let (mut ring, mut queue) = queue(&machine, false);
    let count = u16::MAX;
    let table = machine.allocate(16 * u64::from(count), 16);
    for slot in 0..count {
        ring.write_descriptor(table, slot, 0x1000, 1, 1, slot.wrapping_add(1));
    }
    ring.write_descriptor(ring.descriptors, 0, table, 16 * u32::from(count), 4, 0);
    ring.add_head(0);
    ring.publish();
    assert!(matches!(pop(&mut queue), Err(QueueError::TooLong { head: 0 })));
}

#[test]
fn an_available_index_too_far_ahead_is_refused() {
    let machine = Machine::new();
    let (mut ring, mut queue) = queue(&machine, false);
    for _ in 0..=SIZE {
        ring.add_head(0);
    }
    ring.publish();
    assert!(matches!(pop(&mut queue), Err(QueueError::Available(_))));
}

#[test]
fn several_entries_become_visible_at_once() {
    let machine = Machine::new();
    let (mut ring, mut queue) = queue(&machine, true);
    for head in 0..5 {
        queue.put(head, 100 + u32::from(head)).unwrap();
        assert_eq!(ring.used_idx(), 0);
    }
    queue.publish().unwrap();
    assert_eq!(ring.used_idx(), 5);
    let used: Vec<_> = std::iter::from_fn(|| ring.pop_used()).collect();
    assert_eq!(used, [(0, 100), (1, 101), (2, 102), (3, 103), (4, 104)]);
}

/// Whether the device would interrupt now.
fn wants(queue: &mut VirtQueue) -> bool {
    queue.used.wants_interrupt(&queue.memory).unwrap()
}

#[test]
fn without_event_idx_the_drivers_flag_decides() {
    let machine = Machine::new();
    let (ring, mut queue) = queue(&machine, false);
    queue.put(0, 0).unwrap();
    queue.publish().unwrap();
    assert!(wants(&mut queue));
    assert!(!wants(&mut queue), "nothing new");
    ring.no_interrupts();
    queue.put(0, 0).unwrap();
    queue.publish().unwrap();
    assert!(!wants(&mut queue));
}

#[test]
fn with_event_idx_the_interrupt_comes_when_the_asked_for_entry_is_passed_also_when_the_index_wraps() {
    let machine = Machine::new();
    let (mut ring, mut queue) = queue(&machine, true);
    // In bursts of three, the driver asking each time for an interrupt at the fourth entry from where it stands.
    let (mut interrupts, mut entries) = (0u32, 0u32);
    ring.ask_interrupt_after(3);
    while entries < 3 * 65536 {
        for _ in 0..3 {
            queue.put(0, 0).unwrap();
        }
        queue.publish().unwrap();
        entries += 3;
        if wants(&mut queue) {
            interrupts += 1;
            while ring.pop_used().is_some() {}
            ring.ask_interrupt_after(3);
        }
    }
    // Bursts of three reach a fourth entry every second time.
    assert_eq!(interrupts, entries / 6);
}

#[test]
fn random_descriptor_tables_never_panic_or_run_for_long() {
    let machine = Machine::new();
    let (mut ring, mut queue) = queue(&machine, true);
    let at = [ring.descriptors, ring.available, ring.used];
    let mut dice = Dice::new(1);
    let tables = [ring.descriptors, machine.allocate(16 * u64::from(SIZE), 16)];
    let mut outcomes = [0; 3];
    for _ in 0..20_000 {
        for table in tables {
            for slot in 0..SIZE {
                let address = match dice.below(8) {
                    0 => dice.roll(),
                    1 => tables[1],
                    2 => (16 << 20) - dice.below(64),
                    _ => dice.below(16 << 20),
                };
                let len = match dice.below(8) {
                    0 => dice.roll() as u32,
                    1 => 16 * dice.below(20) as u32,
                    _ => dice.below(4096) as u32,
                };
                let flags = [0, 0, 1, 1, 2, 2, 3, 4, 5, 0xffff][dice.below(10) as usize];
                ring.write_descriptor(table, slot, address, len, flags, dice.below(u64::from(SIZE) + 1) as u16);
            }
        }
        ring.add_head(dice.below(u64::from(SIZE) + 1) as u16);
        ring.publish();
        let (mut readable, mut writable) = (queue.buffers(), queue.buffers());
        match queue.pop(&mut readable, &mut writable) {
            Ok(Some(chain)) => {
                assert!(readable.pieces() + writable.pieces() <= MAX_PIECES);
                let mut byte = [0];
                assert_eq!(readable.read_at(0, &mut byte), readable.bytes() > 0);
                assert_eq!(writable.write_at(writable.bytes().saturating_sub(1), &byte), writable.bytes() > 0);
                queue.put(chain.head, 0).unwrap();
                queue.publish().unwrap();
                outcomes[0] += 1;
            }
            Ok(None) => outcomes[1] += 1,
            Err(_) => outcomes[2] += 1,
        }
        // The write above may have hit the rings themselves; a driver that does so to itself starts again.
        if dice.below(50) == 0 || queue.queue.avail_idx(&machine.memory, std::sync::atomic::Ordering::Relaxed).is_err()
        {
            ring = Ring::new(&machine, 0, SIZE, true, at, 0, 0);
            ring.publish();
            queue = device_side(&machine, at, true);
        }
    }
    assert!(outcomes[0] > 1000 && outcomes[2] > 1000, "{outcomes:?}");
}
