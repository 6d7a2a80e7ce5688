//! The network device (virtio 1.2 §5.1) over tap queues.

use std::os::fd::OwnedFd;

use super::{VirtioDevice, VirtioError};

/// A NIC.
#[derive(Debug)]
pub struct Net {
    /// One per queue pair.
    pub(crate) taps: Vec<OwnedFd>,
    /// The guest's address.
    pub(crate) mac: [u8; 6],
    /// Bytes of an Ethernet payload.
    pub(crate) mtu: u16,
}

impl Net {
    /// A NIC with one queue pair per tap queue. Each tap must have been opened with `IFF_VNET_HDR | IFF_NO_PI`.
    pub fn new(taps: Vec<OwnedFd>, mac: [u8; 6], mtu: u16) -> Result<Self, VirtioError> {
        if taps.is_empty() {
            return Err(VirtioError::NoTap);
        }
        Ok(Self { taps, mac, mtu })
    }
}

impl VirtioDevice for Net {
    fn device_type(&self) -> u16 {
        1
    }
}
