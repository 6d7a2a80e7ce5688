//! The driver's side of virtio-pci as a test tool: a machine of plain memory, and a driver that probes, negotiates and
//! fills rings in the order Linux does, through registers and guest memory only.

mod driver;
mod machine;
mod rings;

pub(crate) use driver::Driver;
pub(crate) use machine::{Machine, PROMPTLY, readable};
pub(crate) use rings::{Piece, Ring};

/// Random numbers that are the same in every run (xorshift64*).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }
}
