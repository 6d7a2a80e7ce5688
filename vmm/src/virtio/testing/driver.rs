//! Finds a function's registers through configuration space, as a PCI core and virtio_pci do, and drives them.

use vm_memory::Bytes;

use super::{Machine, Ring};
use crate::virtio::BAR_SIZE;
use crate::virtio::transport::reg;

/// Status bits (virtio 1.2 §2.1).
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;

/// A region as its capability describes it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Region {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

pub(crate) struct Driver<'m> {
    pub(crate) machine: &'m Machine,
    slot: u8,
    pub(crate) common: Region,
    pub(crate) isr: Region,
    pub(crate) device: Region,
    pub(crate) notify: Region,
    multiplier: u64,
    pub(crate) pci_cfg: u16,
    pub(crate) msix: u16,
    table: u64,
}

impl<'m> Driver<'m> {
    pub(super) fn new(machine: &'m Machine, slot: u8) -> Self {
        let none = Region::default();
        Self {
            machine,
            slot,
            common: none,
            isr: none,
            device: none,
            notify: none,
            multiplier: 0,
            pci_cfg: 0,
            msix: 0,
            table: 0,
        }
    }

    pub(crate) fn config_read(&self, offset: u16, bytes: usize) -> u32 {
        let mut data = [0; 4];
        self.machine.bus.ecam_read(u64::from(self.slot) << 15 | u64::from(offset), &mut data[..bytes]);
        u32::from_le_bytes(data)
    }

    pub(crate) fn config_write(&self, offset: u16, bytes: usize, value: u32) {
        let at = u64::from(self.slot) << 15 | u64::from(offset);
        self.machine.bus.ecam_write(at, &value.to_le_bytes()[..bytes]);
    }

    /// Where the BAR is now.
    pub(crate) fn bar(&self) -> u64 {
        u64::from(self.config_read(0x10, 4) & !0xf) | u64::from(self.config_read(0x14, 4)) << 32
    }

    pub(crate) fn move_bar(&self, address: u64) {
        self.config_write(0x10, 4, address as u32);
        self.config_write(0x14, 4, (address >> 32) as u32);
    }

    pub(crate) fn read(&self, offset: u64, bytes: usize) -> u64 {
        let mut data = [0; 8];
        assert!(self.machine.bus.mmio_read(self.bar() + offset, &mut data[..bytes]), "nobody claims {offset:#x}");
        u64::from_le_bytes(data)
    }

    pub(crate) fn write(&self, offset: u64, bytes: usize, value: u64) {
        let claimed = self.machine.bus.mmio_write(self.bar() + offset, &value.to_le_bytes()[..bytes]);
        assert!(claimed, "nobody claims {offset:#x}");
    }

    /// Sizes the BAR, walks the capabilities, turns on memory decoding, bus mastering and MSI-X with all vectors open.
    pub(crate) fn probe(&mut self) {
        let bar = self.bar();
        self.move_bar(u64::MAX);
        let size = (!self.bar()).wrapping_add(1);
        assert_eq!(size, BAR_SIZE);
        self.move_bar(bar);
        let mut cap = self.config_read(0x34, 1) as u16;
        while cap != 0 {
            let region = Region {
                offset: u64::from(self.config_read(cap + 8, 4)),
                len: u64::from(self.config_read(cap + 12, 4)),
            };
            match (self.config_read(cap, 1), self.config_read(cap + 3, 1)) {
                (0x09, 1) => self.common = region,
                (0x09, 2) => {
                    self.notify = region;
                    self.multiplier = u64::from(self.config_read(cap + 16, 4));
                }
                (0x09, 3) => self.isr = region,
                (0x09, 4) => self.device = region,
                (0x09, 5) => self.pci_cfg = cap,
                (0x11, _) => {
                    self.msix = cap;
                    self.table = u64::from(self.config_read(cap + 4, 4));
                }
                other => panic!("capability {other:?} at {cap:#x}"),
            }
            cap = self.config_read(cap + 1, 1) as u16;
        }
        self.config_write(4, 2, 0x6);
        self.config_write(self.msix + 2, 2, 0x8000);
        let vectors = (self.config_read(self.msix + 2, 2) & 0x7ff) + 1;
        for vector in 0..u64::from(vectors) {
            let entry = self.table + 16 * vector;
            self.write(entry, 4, 0xfee0_0000);
            self.write(entry + 4, 4, 0);
            self.write(entry + 8, 4, u64::from(self.message(vector as u16)));
            self.write(entry + 12, 4, 0);
        }
    }

    /// The data of the message that vector sends: unique in the machine.
    pub(crate) fn message(&self, vector: u16) -> u32 {
        u32::from(self.slot) << 16 | u32::from(vector)
    }

    /// The configuration's vector is the one behind the queues'.
    pub(crate) fn config_message(&self) -> u32 {
        self.message(self.common_read(reg::NUM_QUEUES, 2) as u16)
    }

    pub(crate) fn common_read(&self, register: u64, bytes: usize) -> u64 {
        self.read(self.common.offset + register, bytes)
    }

    pub(crate) fn common_write(&self, register: u64, bytes: usize, value: u64) {
        self.write(self.common.offset + register, bytes, value);
    }

    pub(crate) fn status(&self) -> u8 {
        self.common_read(reg::STATUS, 1) as u8
    }

    pub(crate) fn set_status(&self, status: u8) {
        self.common_write(reg::STATUS, 1, u64::from(status));
    }

    pub(crate) fn offered(&self) -> u64 {
        self.common_write(reg::DEVICE_FEATURE_SELECT, 4, 1);
        let high = self.common_read(reg::DEVICE_FEATURE, 4);
        self.common_write(reg::DEVICE_FEATURE_SELECT, 4, 0);
        high << 32 | self.common_read(reg::DEVICE_FEATURE, 4)
    }

    /// Resets the device and proposes features; says whether they were accepted.
    pub(crate) fn negotiate(&self, features: u64) -> bool {
        self.reset();
        self.set_status(ACKNOWLEDGE);
        self.set_status(ACKNOWLEDGE | DRIVER);
        for half in 0..2 {
            self.common_write(reg::DRIVER_FEATURE_SELECT, 4, half);
            self.common_write(reg::DRIVER_FEATURE, 4, features >> (32 * half) & 0xffff_ffff);
        }
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        let queues = self.common_read(reg::NUM_QUEUES, 2);
        self.common_write(reg::CONFIG_VECTOR, 2, queues);
        self.status() & FEATURES_OK != 0
    }

    /// Sets a queue up in fresh memory, with the vector of its number.
    pub(crate) fn ring(&self, index: u16, size: u16, event_idx: bool) -> Ring<'m> {
        let machine = self.machine;
        let descriptors = machine.allocate(16 * u64::from(size), 16);
        let available = machine.allocate(6 + 2 * u64::from(size), 2);
        let used = machine.allocate(6 + 8 * u64::from(size), 4);
        let zeros = vec![0; 6 + 8 * usize::from(size)];
        machine.memory.write_slice(&zeros[..6 + 2 * usize::from(size)], vm_memory::GuestAddress(available)).unwrap();
        machine.memory.write_slice(&zeros, vm_memory::GuestAddress(used)).unwrap();
        self.common_write(reg::QUEUE_SELECT, 2, u64::from(index));
        assert!(self.common_read(reg::QUEUE_SIZE, 2) >= u64::from(size), "queue {index} does not exist or is smaller");
        self.common_write(reg::QUEUE_SIZE, 2, u64::from(size));
        self.common_write(reg::QUEUE_VECTOR, 2, u64::from(index));
        for (register, address) in
            [(reg::QUEUE_DESC, descriptors), (reg::QUEUE_DRIVER, available), (reg::QUEUE_DEVICE, used)]
        {
            self.common_write(register, 4, address & 0xffff_ffff);
            self.common_write(register + 4, 4, address >> 32);
        }
        let doorbell = self.notify.offset + self.multiplier * self.common_read(reg::QUEUE_NOTIFY_OFF, 2);
        self.common_write(reg::QUEUE_ENABLE, 2, 1);
        Ring::new(machine, index, size, event_idx, [descriptors, available, used], doorbell, self.message(index))
    }

    pub(crate) fn start(&self) {
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// Writes status 0 and, like Linux, reads it back until it is.
    pub(crate) fn reset(&self) {
        self.set_status(0);
        assert_eq!(self.status(), 0);
    }

    /// Rings a queue's doorbell if the device wants to hear it.
    pub(crate) fn kick(&self, ring: &mut Ring<'_>) {
        if ring.publish() {
            self.machine.ring(self.bar() + ring.doorbell, ring.index);
        }
    }
}
