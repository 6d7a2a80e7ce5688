//! The block device (virtio 1.2 §5.2) over a raw image: each queue has a thread and its requests are carried out in order.

mod device;
mod drive;
mod ranges;
mod request;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_ID_BYTES,
};
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use self::device::Device;
pub(crate) use self::drive::{Drive, DriveCount};
use self::ranges::{DISCARD_SECTORS, DISCARD_SEGMENTS, ZERO_SECTORS, ZERO_SEGMENTS};
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

/// Bytes of a physical block, as far as a file has any: what the host's page cache reads and writes at once.
const PHYSICAL: u64 = 4096;

/// Bytes of a serial number.
const SERIAL: usize = VIRTIO_BLK_ID_BYTES as usize;

/// A disk.
pub struct Blk {
    number: usize,
    disk: Arc<RawDisk>,
    serial: [u8; SERIAL],
    config: Arc<DeviceConfig>,
    queues: u16,
    drive: Arc<Drive>,
    workers: Vec<Worker>,
}

impl Blk {
    /// A disk backed by `disk`, read-only if that is. Its serial number, by which the guest names it under
    /// `/dev/disk/by-id`, is the image's file name, as far as 20 bytes reach.
    pub fn new(disk: RawDisk) -> Self {
        let serial = serial(disk.path().file_name().unwrap_or_default().as_encoded_bytes());
        let config = DeviceConfig::new(config_bytes(&disk, 1));
        Self { number: 0, disk: Arc::new(disk), serial, config, queues: 1, drive: Arc::default(), workers: Vec::new() }
    }

    /// The number of this disk, for its thread's name: `blk0` by default.
    pub fn numbered(self, number: usize) -> Self {
        Self { number, ..self }
    }

    /// The part that can be changed and looked at while the guest runs.
    pub(crate) fn drive(&self) -> Arc<Drive> {
        self.drive.clone()
    }

    /// With so many queues, at least one.
    pub fn with_queues(self, queues: u16) -> Self {
        let queues = queues.max(1);
        Self { config: DeviceConfig::new(config_bytes(&self.disk, queues)), queues, ..self }
    }

    /// Another serial number; what is longer than 20 bytes is cut off.
    pub fn with_serial(self, text: &str) -> Self {
        Self { serial: serial(text.as_bytes()), ..self }
    }
}

fn serial(text: &[u8]) -> [u8; SERIAL] {
    std::array::from_fn(|i| text.get(i).copied().unwrap_or(0))
}

/// `struct virtio_blk_config` (§5.2.4) as far as the features we offer reach.
fn config_bytes(disk: &RawDisk, queues: u16) -> Vec<u8> {
    let mut config = (disk.bytes() / SECTOR).to_le_bytes().to_vec();
    config.extend(SEGMENT_BYTES.to_le_bytes());
    config.extend(SEGMENTS.to_le_bytes());
    config.extend([0; 4]); // geometry: not offered
    config.extend((disk.block() as u32).to_le_bytes());
    // Topology: blocks in a physical block as a power of two, offset of the first, least and best size of a request.
    let physical = (PHYSICAL / disk.block()).max(1);
    config.extend([physical.ilog2() as u8, 0]);
    config.extend((physical as u16).to_le_bytes());
    config.extend(0_u32.to_le_bytes());
    config.extend([0, 0]); // writeback: not offered
    config.extend(queues.to_le_bytes());
    let alignment = (disk.block() / SECTOR) as u32;
    for limit in [DISCARD_SECTORS, DISCARD_SEGMENTS as u32, alignment, ZERO_SECTORS, ZERO_SEGMENTS as u32] {
        config.extend(limit.to_le_bytes());
    }
    config.extend([1, 0, 0, 0]); // writing zeros may give room back
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
        let mut more = if self.disk.readonly() {
            1 << VIRTIO_BLK_F_RO
        } else {
            1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES
        };
        if self.queues > 1 {
            more |= 1 << VIRTIO_BLK_F_MQ;
        }
        let bits = [
            VIRTIO_BLK_F_SIZE_MAX,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_FLUSH,
            VIRTIO_BLK_F_TOPOLOGY,
            VIRTIO_RING_F_INDIRECT_DESC,
            VIRTIO_RING_F_EVENT_IDX,
        ];
        bits.into_iter().fold(more, |all, bit| all | 1 << bit)
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![RING; usize::from(self.queues)]
    }

    fn config(&self) -> Arc<DeviceConfig> {
        self.config.clone()
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let write_through = activation.features & 1 << VIRTIO_BLK_F_FLUSH == 0;
        let usable = if activation.features & 1 << VIRTIO_BLK_F_MQ == 0 { 1 } else { usize::from(self.queues) };
        for (index, queue) in activation.queues.into_iter().take(usable).enumerate() {
            let Some(queue) = queue else { continue };
            let device = Device::new(queue, self.disk.clone(), self.drive.clone(), self.serial, write_through)?;
            let name = if index == 0 { self.name() } else { format!("{}.{index}", self.name()) };
            self.workers.push(Worker::serve(&name, device)?);
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.workers.clear();
    }
}
