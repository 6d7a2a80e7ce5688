//! A device's configuration (virtio 1.2 §2.5): a few bytes that the driver reads, and that the device may change.
//!
//! Shared by the transport, which the driver reads through, and whoever changes a device while it runs. A change moves the
//! generation (§4.1.4.3.1) and interrupts a driver that is there to hear of it.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

use super::interrupts::Interrupts;
use crate::pci::lock;

/// The configuration of one device.
#[derive(Default)]
pub struct DeviceConfig {
    state: Mutex<State>,
    interrupts: OnceLock<Arc<Interrupts>>,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// What the driver may write.
    writable: Range<usize>,
    generation: u8,
}

impl DeviceConfig {
    /// A configuration the driver can only read.
    pub(crate) fn new(bytes: Vec<u8>) -> Arc<Self> {
        Self::with_writable(bytes, 0..0)
    }

    /// A configuration of which the driver may write a part.
    pub(crate) fn with_writable(bytes: Vec<u8>, writable: Range<usize>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { bytes, writable, generation: 0 }), interrupts: OnceLock::new() })
    }

    /// Changes the bytes from `offset` on and tells the driver. Bytes outside of the configuration are left out; what
    /// does not change anything is not told.
    pub(crate) fn set(&self, offset: usize, bytes: &[u8]) {
        if self.set_as_asked(offset, bytes)
            && let Some(interrupts) = self.interrupts.get()
        {
            interrupts.config_changed();
        }
    }

    /// The same where the driver asked for it, and so need not be told; whether anything changed.
    pub(crate) fn set_as_asked(&self, offset: usize, bytes: &[u8]) -> bool {
        let mut state = lock(&self.state);
        let len = state.bytes.len();
        let range = offset.min(len)..(offset + bytes.len()).min(len);
        let new = &bytes[..range.len()];
        if state.bytes[range.clone()] == *new {
            return false;
        }
        state.bytes[range].copy_from_slice(new);
        state.generation = state.generation.wrapping_add(1);
        true
    }

    /// Fills `data` from `offset` on, zeros behind the end.
    pub(crate) fn read(&self, offset: usize, data: &mut [u8]) {
        let state = lock(&self.state);
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = state.bytes.get(offset.saturating_add(i)).copied().unwrap_or(0);
        }
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.state).bytes.len()
    }

    pub(super) fn generation(&self) -> u8 {
        lock(&self.state).generation
    }

    /// A write of the driver's: only what it may write is changed, and nobody is told.
    pub(super) fn driver_writes(&self, offset: usize, data: &[u8]) {
        let mut state = lock(&self.state);
        let writable = state.writable.clone();
        for (at, byte) in (offset..).zip(data) {
            if writable.contains(&at)
                && let Some(old) = state.bytes.get_mut(at)
            {
                *old = *byte;
            }
        }
    }

    /// Whom to interrupt from now on.
    pub(super) fn connect(&self, interrupts: &Arc<Interrupts>) {
        // A device is put behind one function in its life.
        let _ = self.interrupts.set(interrupts.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_move_the_generation_and_only_the_writable_part_is_the_drivers() {
        let config = DeviceConfig::with_writable(vec![1, 2, 3, 4], 2..3);
        config.set(0, &[1, 2]);
        assert_eq!(config.generation(), 0);
        config.set(1, &[9]);
        assert_eq!(config.generation(), 1);
        config.driver_writes(0, &[7; 9]);
        let mut bytes = [0xff; 5];
        config.read(0, &mut bytes);
        assert_eq!((bytes, config.generation()), ([1, 9, 7, 4, 0], 1));
        config.set(3, &[5, 6]);
        config.set(9, &[1]);
        config.read(3, &mut bytes[..2]);
        assert_eq!(bytes[..2], [5, 0]);
    }
}
