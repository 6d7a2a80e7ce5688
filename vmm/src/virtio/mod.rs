//! Virtio devices over PCI (virtio 1.2): the transport the guest programs, the queues, and one folder per device.
//!
//! A device knows its features, its configuration and what to do with a queue; it knows nothing of PCI or KVM. The
//! transport ([`VirtioPci`]) knows registers, interrupts and doorbells; it knows nothing of frames or sectors. The guest is
//! hostile: what it writes into rings and registers is checked on a copy, and a broken ring stops its queue, never us.
#![allow(dead_code, reason = "the virtio transport, its only user, follows")]

pub mod blk;
pub mod net;
pub mod rng;

use std::io;
use std::sync::Arc;

use vm_memory::GuestMemoryMmap;

use crate::pci::PciFunction;
use crate::pci::msix::{Doorbells, MsiRoutes};

/// Bytes of the one BAR a virtio function has; its address must be a multiple of this.
pub const BAR_SIZE: u64 = 512 * 1024;

/// Why a device cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum VirtioError {
    /// The BAR does not stand where a BAR may.
    #[error("a virtio BAR must stand at a multiple of {BAR_SIZE:#x}, not at {0:#x}")]
    BarAddress(u64),
    /// No event descriptor to be had.
    #[error("cannot make an event descriptor for a virtio queue: {0}; are file descriptors used up?")]
    EventFd(#[source] io::Error),
    /// A NIC without a tap.
    #[error("a virtio NIC needs at least one tap queue")]
    NoTap,
    /// The transport is not there yet.
    #[error("virtio over PCI is not built into this version")]
    NoTransport,
}

/// What a device is to the transport.
pub trait VirtioDevice: Send {
    /// Virtio device type (virtio 1.2 §5): 1 net, 2 block, 4 entropy.
    fn device_type(&self) -> u16;
}

/// A virtio device behind PCI registers.
pub struct VirtioPci;

impl VirtioPci {
    /// Puts `device` behind a PCI function whose BAR stands at `bar` (a multiple of [`BAR_SIZE`]) after power-on.
    #[allow(clippy::new_ret_no_self, reason = "the bus takes functions behind a pointer; nobody needs the type")]
    pub fn new(
        _device: Box<dyn VirtioDevice>,
        _memory: GuestMemoryMmap<()>,
        _routes: Arc<dyn MsiRoutes>,
        _doorbells: Arc<dyn Doorbells>,
        bar: u64,
    ) -> Result<Arc<dyn PciFunction>, VirtioError> {
        if !bar.is_multiple_of(BAR_SIZE) {
            return Err(VirtioError::BarAddress(bar));
        }
        Err(VirtioError::NoTransport)
    }
}
