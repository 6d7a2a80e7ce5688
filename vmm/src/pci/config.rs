//! A type 0 configuration space as plain state: bytes, a mask of those the guest may change, one memory BAR per pair.
//!
//! Reads and writes of any width and offset are safe and never fail: what does not exist reads as zero and ignores
//! writes. It decides nothing: whoever owns it looks at [`ConfigSpace::bar`] and [`ConfigSpace::command`] after a
//! write. Source: PCI Local Bus 3.0 §6.1, §6.2.5.1 (BAR sizing), §6.7 (capability list).

/// Bytes of configuration space that hold registers. The extended space up to 4096 reads as zero: no extended
/// capability.
const SIZE: usize = 256;

mod reg {
    pub(super) const VENDOR: usize = 0x00;
    pub(super) const DEVICE: usize = 0x02;
    pub(super) const COMMAND: usize = 0x04;
    pub(super) const STATUS: usize = 0x06;
    pub(super) const REVISION: usize = 0x08;
    pub(super) const PROG_IF: usize = 0x09;
    pub(super) const CACHE_LINE: usize = 0x0c;
    pub(super) const BAR0: usize = 0x10;
    pub(super) const SUBSYSTEM_VENDOR: usize = 0x2c;
    pub(super) const SUBSYSTEM: usize = 0x2e;
    pub(super) const CAPABILITIES: usize = 0x34;
    pub(super) const INTERRUPT_LINE: usize = 0x3c;
    /// The first byte a capability may take.
    pub(super) const FIRST_FREE: usize = 0x40;
}

/// Command bit: the function answers in its memory BARs.
pub(crate) const COMMAND_MEMORY: u16 = 1 << 1;
/// Command bit: the function may read and write memory (queues, MSI).
pub(crate) const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Command bit: no INTx. We have no INTx line; the bit only remembers.
const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// Status bit: there is a capability list.
const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Who the function says it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    pub(crate) revision: u8,
    /// Base class, subclass, programming interface: `0xBBSSPP`.
    pub(crate) class: u32,
    pub(crate) subsystem_vendor: u16,
    pub(crate) subsystem: u16,
}

/// Width of a memory BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BarKind {
    /// 64 bits, not prefetchable (registers): takes two BAR slots.
    Memory64,
}

/// The registers of one function.
#[derive(Clone)]
pub(crate) struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    /// Offset of the last capability's `next` byte; the list starts at register 0x34.
    last_next: usize,
    free: usize,
    bar_sizes: [u64; 6],
}

impl ConfigSpace {
    pub(crate) fn new(id: Identity) -> Self {
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            last_next: reg::CAPABILITIES,
            free: reg::FIRST_FREE,
            bar_sizes: [0; 6],
        };
        space.put(reg::VENDOR, &id.vendor.to_le_bytes());
        space.put(reg::DEVICE, &id.device.to_le_bytes());
        space.put(reg::REVISION, &[id.revision]);
        space.put(reg::PROG_IF, &id.class.to_le_bytes()[..3]);
        space.put(reg::SUBSYSTEM_VENDOR, &id.subsystem_vendor.to_le_bytes());
        space.put(reg::SUBSYSTEM, &id.subsystem.to_le_bytes());
        let command = COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE;
        space.allow(reg::COMMAND, &command.to_le_bytes());
        space.allow(reg::CACHE_LINE, &[0xff]);
        space.allow(reg::INTERRUPT_LINE, &[0xff]);
        space
    }

    /// Adds a memory BAR of `size` bytes (a power of two, 16 at least) at `address`.
    pub(crate) fn add_bar(&mut self, index: usize, kind: BarKind, size: u64, address: u64) {
        debug_assert!(size.is_power_of_two() && size >= 16 && address.is_multiple_of(size));
        let at = reg::BAR0 + 4 * index;
        match kind {
            BarKind::Memory64 => {
                self.put(at, &(address | 0b100).to_le_bytes());
                self.allow(at, &(!(size - 1)).to_le_bytes());
            }
        }
        self.bar_sizes[index] = size;
    }

    /// Where BAR `index` stands now.
    pub(crate) fn bar(&self, index: usize) -> u64 {
        let at = reg::BAR0 + 4 * index;
        let mut raw = [0; 8];
        raw.copy_from_slice(&self.bytes[at..at + 8]);
        u64::from_le_bytes(raw) & !0xf
    }

    /// The command register.
    pub(crate) fn command(&self) -> u16 {
        u16::from_le_bytes([self.bytes[reg::COMMAND], self.bytes[reg::COMMAND + 1]])
    }

    /// Appends a capability: `body` follows the two bytes of id and next pointer; `writable` has a bit set for each bit
    /// of `body` the guest may change (shorter than `body`: the rest is read-only). Answers its offset.
    pub(crate) fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> u8 {
        let at = self.free;
        debug_assert!(at + 2 + body.len() <= SIZE, "capabilities fill configuration space");
        self.put(at, &[id, 0]);
        self.put(at + 2, body);
        self.allow(at + 2, writable);
        self.bytes[self.last_next] = at as u8;
        self.last_next = at + 1;
        self.free = (at + 2 + body.len()).next_multiple_of(4);
        self.put(reg::STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        at as u8
    }

    /// Reads; bytes past the last register are zero.
    pub(crate) fn read(&self, offset: u16, data: &mut [u8]) {
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = self.bytes.get(usize::from(offset) + i).copied().unwrap_or(0);
        }
    }

    /// Writes the bits that may be written.
    pub(crate) fn write(&mut self, offset: u16, data: &[u8]) {
        for (i, new) in data.iter().enumerate() {
            let at = usize::from(offset) + i;
            if let (Some(byte), Some(mask)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *byte = (*byte & !mask) | (new & mask);
            }
        }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn allow(&mut self, at: usize, bits: &[u8]) {
        self.writable[at..at + bits.len()].copy_from_slice(bits);
    }
}
