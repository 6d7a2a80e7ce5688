//! The entropy device (virtio 1.2 §5.4): fills the guest's buffers from the host's getrandom.
//!
//! A request is answered with at most [`MOST`] bytes; the driver asks again if it wants more.

mod device;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use self::device::Device;
use super::worker::Worker;
use super::{Activation, DeviceConfig, VirtioDevice};

/// Bytes given for one request, so that a guest with huge buffers does not keep the thread busy.
const MOST: usize = 4096;

/// Requests answered before the guest gets an interrupt.
const BURST: usize = 16;

/// Entries of the queue.
const RING: u16 = 64;

/// A source of random bytes.
#[derive(Default)]
pub struct Rng {
    config: Arc<DeviceConfig>,
    worker: Option<Worker>,
}

impl Rng {
    /// An entropy device; its thread is `rng0`.
    pub fn new() -> Self {
        Self::default()
    }
}

impl VirtioDevice for Rng {
    fn name(&self) -> String {
        "rng0".to_owned()
    }

    fn device_type(&self) -> u16 {
        4
    }

    /// "Does not fit any class".
    fn class(&self) -> u32 {
        0xff_00_00
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![RING]
    }

    fn config(&self) -> Arc<DeviceConfig> {
        self.config.clone()
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let Some(queue) = activation.queues.into_iter().next().flatten() else { return Ok(()) };
        self.worker = Some(Worker::serve(&self.name(), Device::new(queue))?);
        Ok(())
    }

    fn reset(&mut self) {
        self.worker = None;
    }
}
