//! The driver's side of a split virtqueue: fills descriptors and the available ring, reads the used ring.

use std::num::Wrapping;
use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, GuestAddress};

use super::{Machine, PROMPTLY};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// One descriptor's worth of memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) address: u64,
    pub(crate) len: u32,
    /// For the device to write.
    pub(crate) writable: bool,
}

impl Piece {
    /// Fresh memory for the device to write.
    pub(crate) fn room(machine: &Machine, len: u32) -> Self {
        Self { address: machine.allocate(u64::from(len), 16), len, writable: true }
    }

    /// Fresh memory with `bytes` for the device to read.
    pub(crate) fn holding(machine: &Machine, bytes: &[u8]) -> Self {
        let address = machine.allocate(bytes.len() as u64, 16);
        machine.memory.write_slice(bytes, GuestAddress(address)).unwrap();
        Self { address, len: bytes.len() as u32, writable: false }
    }

    pub(crate) fn bytes(&self, machine: &Machine) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        machine.memory.read_slice(&mut bytes, GuestAddress(self.address)).unwrap();
        bytes
    }
}

pub(crate) struct Ring<'m> {
    machine: &'m Machine,
    pub(crate) index: u16,
    pub(crate) size: u16,
    event_idx: bool,
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    pub(crate) doorbell: u64,
    pub(crate) message: u32,
    next_descriptor: u16,
    next_available: Wrapping<u16>,
    published: Wrapping<u16>,
    seen: Wrapping<u16>,
}

impl<'m> Ring<'m> {
    pub(crate) fn new(
        machine: &'m Machine,
        index: u16,
        size: u16,
        event_idx: bool,
        [descriptors, available, used]: [u64; 3],
        doorbell: u64,
        message: u32,
    ) -> Self {
        let zero = Wrapping(0);
        Self {
            machine,
            index,
            size,
            event_idx,
            descriptors,
            available,
            used,
            doorbell,
            message,
            next_descriptor: 0,
            next_available: zero,
            published: zero,
            seen: zero,
        }
    }

    fn store16(&self, at: u64, value: u16) {
        self.machine.memory.store(value, GuestAddress(at), Ordering::Release).unwrap();
    }

    fn load16(&self, at: u64) -> u16 {
        self.machine.memory.load(GuestAddress(at), Ordering::Acquire).unwrap()
    }

    /// Writes a descriptor at `table`.
    pub(crate) fn write_descriptor(&self, table: u64, slot: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = table + 16 * u64::from(slot);
        self.machine.memory.write_obj(address, GuestAddress(at)).unwrap();
        self.machine.memory.write_obj(len, GuestAddress(at + 8)).unwrap();
        self.machine.memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
        self.machine.memory.write_obj(next, GuestAddress(at + 14)).unwrap();
    }

    fn write_chain(&self, table: u64, slots: &[u16], pieces: &[Piece]) {
        for (i, piece) in pieces.iter().enumerate() {
            let last = i + 1 == pieces.len();
            let flags = if last { 0 } else { NEXT } | if piece.writable { WRITE } else { 0 };
            let next = if last { 0 } else { slots[i + 1] };
            self.write_descriptor(table, slots[i], piece.address, piece.len, flags, next);
        }
    }

    /// Adds a chain; the device sees it after `publish`. Descriptors are taken round robin: a test keeps fewer in
    /// flight.
    pub(crate) fn add(&mut self, pieces: &[Piece]) -> u16 {
        let slots: Vec<u16> = pieces.iter().map(|_| self.take_slot()).collect();
        self.write_chain(self.descriptors, &slots, pieces);
        self.add_head(slots[0]);
        slots[0]
    }

    /// Adds a chain through an indirect table.
    pub(crate) fn add_indirect(&mut self, pieces: &[Piece]) -> u16 {
        let table = self.machine.allocate(16 * pieces.len() as u64, 16);
        let slots: Vec<u16> = (0..pieces.len() as u16).collect();
        self.write_chain(table, &slots, pieces);
        let head = self.take_slot();
        self.write_descriptor(self.descriptors, head, table, 16 * pieces.len() as u32, INDIRECT, 0);
        self.add_head(head);
        head
    }

    /// Puts any number into the available ring.
    pub(crate) fn add_head(&mut self, head: u16) {
        self.store16(self.available + 4 + 2 * u64::from(self.next_available.0 % self.size), head);
        self.next_available += 1;
    }

    fn take_slot(&mut self) -> u16 {
        let slot = self.next_descriptor;
        self.next_descriptor = (slot + 1) % self.size;
        slot
    }

    /// Shows the device what was added; true if the device wants a kick for it (§2.7.10).
    pub(crate) fn publish(&mut self) -> bool {
        self.store16(self.available + 2, self.next_available.0);
        fence(Ordering::SeqCst);
        let old = std::mem::replace(&mut self.published, self.next_available);
        if self.event_idx {
            let event = Wrapping(self.load16(self.used + 4 + 8 * u64::from(self.size)));
            self.published - event - Wrapping(1) < self.published - old
        } else {
            self.load16(self.used) & 1 == 0
        }
    }

    /// `idx` of the used ring.
    pub(crate) fn used_idx(&self) -> u16 {
        self.load16(self.used + 2)
    }

    /// The next finished chain: its head and the bytes written.
    pub(crate) fn pop_used(&mut self) -> Option<(u16, u32)> {
        if self.used_idx() == self.seen.0 {
            return None;
        }
        let at = GuestAddress(self.used + 4 + 8 * u64::from(self.seen.0 % self.size));
        let [id, len]: [u32; 2] = self.machine.memory.read_obj(at).unwrap();
        self.seen += 1;
        Some((id as u16, len))
    }

    /// Asks for an interrupt at the next finished chain, and waits for one to finish.
    pub(crate) fn wait_used(&mut self) -> (u16, u32) {
        loop {
            self.ask_interrupt();
            if let Some(used) = self.pop_used() {
                return used;
            }
            assert_ne!(self.machine.router.wait(self.message, PROMPTLY), 0, "queue {} gave no interrupt", self.index);
        }
    }

    /// Wants an interrupt as soon as one more chain is finished.
    pub(crate) fn ask_interrupt(&self) {
        self.ask_interrupt_after(0);
    }

    /// Wants an interrupt after `more` chains beyond the next one.
    pub(crate) fn ask_interrupt_after(&self, more: u16) {
        self.store16(self.available, 0);
        self.store16(self.available + 4 + 2 * u64::from(self.size), (self.seen + Wrapping(more)).0);
        fence(Ordering::SeqCst);
    }

    /// Wants no interrupts; only a hint without EVENT_IDX.
    pub(crate) fn no_interrupts(&self) {
        self.store16(self.available, 1);
    }
}
