//! The entropy device (virtio 1.2 §5.4).

use super::VirtioDevice;

/// A source of random bytes.
#[derive(Debug, Default)]
pub struct Rng;

impl Rng {
    /// An entropy device fed by the host's getrandom.
    pub fn new() -> Self {
        Self
    }
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> u16 {
        4
    }
}
