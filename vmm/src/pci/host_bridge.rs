//! The host bridge in slot 0: an identity and nothing else, so that the guest finds a root of the bus.
//!
//! 8086:0d57 is the id firmware (OVMF) and other monitors' guests know as "a virtual host bridge without chipset
//! registers".

use std::sync::Mutex;

use super::{ConfigSpace, Identity, PciFunction, lock};

pub(super) struct HostBridge {
    config: Mutex<ConfigSpace>,
}

fn power_on() -> ConfigSpace {
    ConfigSpace::new(Identity {
        vendor: 0x8086,
        device: 0x0d57,
        revision: 0,
        class: 0x06_00_00,
        subsystem_vendor: 0,
        subsystem: 0,
    })
}

impl HostBridge {
    pub(super) fn new() -> Self {
        Self { config: Mutex::new(power_on()) }
    }
}

impl PciFunction for HostBridge {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        lock(&self.config).read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        lock(&self.config).write(offset, data);
    }

    fn mmio_read(&self, _address: u64, _data: &mut [u8]) -> bool {
        false
    }

    fn mmio_write(&self, _address: u64, _data: &[u8]) -> bool {
        false
    }

    fn reset(&self) {
        *lock(&self.config) = power_on();
    }

    fn shutdown(&self) {}
}
