//! The block device (virtio 1.2 §5.2) over a raw image: one queue, one thread, requests in order.

mod device;
mod request;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX,
    VIRTIO_BLK_ID_BYTES,
};
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use self::device::Device;
use super::worker::Worker;
use super::{Activation, DeviceConfig, VirtioDevice};
use crate::disk::RawDisk;
pub(crate) use request::SECTOR;

/// Requests carried out before the guest gets an interrupt.
const BURST: usize = 16;

/// Entries of the queue.
const RING: u16 = 256;

/// Segments a request may have: header and status take one entry each.
const SEGMENTS: u32 = RING as u32 - 2;

/// Bytes one segment may have.
const SEGMENT_BYTES: u32 = 1 << 20;

/// Bytes of a serial number.
const SERIAL: usize = VIRTIO_BLK_ID_BYTES as usize;

/// A disk.
pub struct Blk {
    number: usize,
    disk: Arc<RawDisk>,
    serial: [u8; SERIAL],
    config: Arc<DeviceConfig>,
    worker: Option<Worker>,
}

impl Blk {
    /// A disk backed by `disk`, read-only if that is. Its serial number, by which the guest names it under
    /// `/dev/disk/by-id`, is the image's file name, as far as 20 bytes reach.
    pub fn new(disk: RawDisk) -> Self {
        let serial = serial(disk.path().file_name().unwrap_or_default().as_encoded_bytes());
        let config = DeviceConfig::new(config_bytes(&disk));
        Self { number: 0, disk: Arc::new(disk), serial, config, worker: None }
    }

    /// The number of this disk, for its thread's name: `blk0` by default.
    pub fn numbered(self, number: usize) -> Self {
        Self { number, ..self }
    }

    /// Another serial number; what is longer than 20 bytes is cut off.
    pub fn with_serial(self, text: &str) -> Self {
        Self { serial: serial(text.as_bytes()), ..self }
    }
}

fn serial(text: &[u8]) -> [u8; SERIAL] {
    std::array::from_fn(|i| text.get(i).copied().unwrap_or(0))
}

/// `struct virtio_blk_config` (§5.2.4) as far as `blk_size`.
fn config_bytes(disk: &RawDisk) -> Vec<u8> {
    let mut config = (disk.bytes() / SECTOR).to_le_bytes().to_vec();
    config.extend(SEGMENT_BYTES.to_le_bytes());
    config.extend(SEGMENTS.to_le_bytes());
    config.extend([0; 4]); // geometry: not offered
    config.extend((SECTOR as u32).to_le_bytes());
    config
}

impl VirtioDevice for Blk {
    fn name(&self) -> String {
        format!("blk{}", self.number)
    }

    fn device_type(&self) -> u16 {
        2
    }

    fn class(&self) -> u32 {
        0x01_80_00
    }

    fn features(&self) -> u64 {
        let read_only = if self.disk.readonly() { 1 << VIRTIO_BLK_F_RO } else { 0 };
        let bits = [
            VIRTIO_BLK_F_SIZE_MAX,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_FLUSH,
            VIRTIO_RING_F_INDIRECT_DESC,
            VIRTIO_RING_F_EVENT_IDX,
        ];
        bits.into_iter().fold(read_only, |all, bit| all | 1 << bit)
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![RING]
    }

    fn config(&self) -> Arc<DeviceConfig> {
        self.config.clone()
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let write_through = activation.features & 1 << VIRTIO_BLK_F_FLUSH == 0;
        let Some(queue) = activation.queues.into_iter().next().flatten() else { return Ok(()) };
        let device = Device::new(queue, self.disk.clone(), self.serial, write_through);
        self.worker = Some(Worker::serve(&self.name(), device)?);
        Ok(())
    }

    fn reset(&mut self) {
        self.worker = None;
    }
}
