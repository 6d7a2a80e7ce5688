//! What a virtio function tells its driver, and by which vector (virtio 1.2 §4.1.4.5, §4.1.5.1.2, §2.1.2).
//!
//! Shared by the transport (which programs it) and the workers (which raise): atomics, and a short lock in the MSI-X
//! table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, Ordering};

use crate::pci::msix::{MsiRoutes, MsixVectors};

/// "No vector": no interrupt for this event (§4.1.4.3).
pub(crate) const NO_VECTOR: u16 = 0xffff;

/// ISR bit: a queue has used buffers.
const ISR_QUEUE: u8 = 1;
/// ISR bit: the configuration, or the status, changed.
const ISR_CONFIG: u8 = 2;

/// Log lines about one device's driver in the life of the machine.
const COMPLAINTS: u32 = 20;

/// A function's interrupts, its state of health, and how much of that was said already.
pub(crate) struct Interrupts {
    pub(super) msix: MsixVectors,
    isr: AtomicU8,
    config: AtomicU16,
    queues: Vec<AtomicU16>,
    needs_reset: AtomicBool,
    /// The driver said it is ready (DRIVER_OK): before that it must not be interrupted (§3.1.1).
    driver_ready: AtomicBool,
    complaints: AtomicU32,
}

impl Interrupts {
    /// One vector for each queue and one for the configuration.
    pub(super) fn new(queues: usize, routes: Arc<dyn MsiRoutes>) -> Self {
        Self {
            msix: MsixVectors::new(queues + 1, routes),
            isr: AtomicU8::new(0),
            config: AtomicU16::new(NO_VECTOR),
            queues: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            needs_reset: AtomicBool::new(false),
            driver_ready: AtomicBool::new(false),
            complaints: AtomicU32::new(0),
        }
    }

    /// Tells the driver that queue `index` has used buffers.
    pub(super) fn queue(&self, index: u16) {
        if let Some(vector) = self.queues.get(usize::from(index)) {
            self.raise(ISR_QUEUE, vector);
        }
    }

    /// The device cannot go on: tells the driver to reset it.
    pub(super) fn needs_reset(&self) {
        if !self.needs_reset.swap(true, Ordering::AcqRel) {
            self.raise(ISR_CONFIG, &self.config);
        }
    }

    /// The configuration changed: tells a driver that is ready to hear it. Others read it when they start.
    pub(super) fn config_changed(&self) {
        if self.driver_ready.load(Ordering::Acquire) {
            self.raise(ISR_CONFIG, &self.config);
        }
    }

    pub(super) fn set_driver_ready(&self, ready: bool) {
        self.driver_ready.store(ready, Ordering::Release);
    }

    pub(super) fn is_reset_needed(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    /// Whether another log line about what the guest does wrong may be written: a guest can do wrong as often as it
    /// likes.
    pub(super) fn may_complain(&self, device: &str) -> bool {
        let before =
            self.complaints.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n <= COMPLAINTS).then_some(n + 1));
        if before == Ok(COMPLAINTS) {
            tracing::warn!(device, "no more will be said about what the guest does wrong with this device");
        }
        before.is_ok_and(|n| n < COMPLAINTS)
    }

    /// Reads and clears the ISR byte.
    pub(super) fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::AcqRel)
    }

    /// What the driver may set as the configuration's vector; answers what was set.
    pub(super) fn set_config_vector(&self, vector: u16) {
        self.config.store(self.existing(vector), Ordering::Release);
    }

    pub(super) fn config_vector(&self) -> u16 {
        self.config.load(Ordering::Acquire)
    }

    pub(super) fn set_queue_vector(&self, index: u16, vector: u16) {
        if let Some(queue) = self.queues.get(usize::from(index)) {
            queue.store(self.existing(vector), Ordering::Release);
        }
    }

    pub(super) fn queue_vector(&self, index: u16) -> u16 {
        self.queues.get(usize::from(index)).map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire))
    }

    /// The driver reset the device: no vectors, nothing pending. The MSI-X table is PCI's and stays.
    pub(super) fn reset(&self) {
        self.isr.store(0, Ordering::Release);
        self.config.store(NO_VECTOR, Ordering::Release);
        self.queues.iter().for_each(|vector| vector.store(NO_VECTOR, Ordering::Release));
        self.needs_reset.store(false, Ordering::Release);
    }

    /// A vector that the table does not have reads back as none, which tells the driver it failed (§4.1.5.1.2.1).
    fn existing(&self, vector: u16) -> u16 {
        if usize::from(vector) < self.msix.len() { vector } else { NO_VECTOR }
    }

    fn raise(&self, isr: u8, vector: &AtomicU16) {
        // With MSI-X on, the ISR byte is not used (§4.1.4.5); without it the byte is all a polling driver has.
        if !self.msix.raise(vector.load(Ordering::Acquire)) {
            self.isr.fetch_or(isr, Ordering::AcqRel);
        }
    }
}
