//! The block device (virtio 1.2 §5.2) over a raw image.

use super::VirtioDevice;
use crate::disk::RawDisk;

/// A disk.
#[derive(Debug)]
pub struct Blk {
    /// Where the sectors are.
    pub(crate) disk: RawDisk,
}

impl Blk {
    /// A disk backed by `disk`, read-only if that is.
    pub fn new(disk: RawDisk) -> Self {
        Self { disk }
    }
}

impl VirtioDevice for Blk {
    fn device_type(&self) -> u16 {
        2
    }
}
