//! Virtio devices over PCI (virtio 1.2): the transport the guest programs, the queues, and one folder per device.
//!
//! A device knows its features, its configuration and what to do with a queue; it knows nothing of PCI or KVM. The
//! transport ([`VirtioPci`]) knows registers, interrupts and doorbells; it knows nothing of frames or sectors. The
//! guest is hostile: what it writes into rings and registers is checked on a copy, and a broken ring stops its queue,
//! never us.

pub mod balloon;
pub mod blk;
mod buffers;
mod config;
mod interrupts;
pub(crate) mod limit;
pub mod net;
mod queue;
pub mod rng;
#[cfg(test)]
mod testing;
pub(crate) mod throttle;
mod transport;
mod used;
pub mod vsock;
mod worker;

use std::io;
use std::sync::Arc;

pub(crate) use buffers::Buffers;
pub use config::DeviceConfig;
pub use queue::VirtQueue;
pub use transport::VirtioPci;

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
    /// A device with too many queues for its BAR.
    #[error("a virtio device cannot have {0} queues; use fewer queue pairs")]
    Queues(usize),
    /// A NIC without a tap.
    #[error("a virtio NIC needs at least one tap queue")]
    NoTap,
    /// A NIC that cannot carry IP.
    #[error("a virtio NIC cannot have an MTU of {0} bytes; it takes 68 (RFC 791) to 65535")]
    Mtu(u16),
    /// A descriptor that is not a fitting tap queue.
    #[error(transparent)]
    Tap(#[from] crate::net::TapError),
}

/// What a device is to the transport.
pub trait VirtioDevice: Send {
    /// For log lines: `net0`, `blk1`.
    fn name(&self) -> String;
    /// Virtio device type (virtio 1.2 §5): 1 net, 2 block, 4 entropy.
    fn device_type(&self) -> u16;
    /// PCI class: base, sub, programming interface as `0xBBSSPP`.
    fn class(&self) -> u32;
    /// Feature bits offered beside VIRTIO_F_VERSION_1, which always is and always must be accepted.
    fn features(&self) -> u64;
    /// Whether a subset of the offered features makes sense (§5: some need others).
    fn accepts(&self, _features: u64) -> bool {
        true
    }
    /// The most entries of each queue, powers of two; as many queues as there are numbers.
    fn queue_sizes(&self) -> Vec<u16>;
    /// The device configuration: the same one each time.
    fn config(&self) -> Arc<DeviceConfig>;
    /// The driver is ready: starts the workers. Called again only after `reset`.
    fn activate(&mut self, activation: Activation) -> io::Result<()>;
    /// Ends and joins the workers, forgets the queues; afterwards the device can be activated again. Does nothing if
    /// idle.
    fn reset(&mut self);
}

/// What an activated device gets.
pub struct Activation {
    /// Features both sides agreed on.
    pub features: u64,
    /// The queues by number; `None` for one the driver did not enable.
    pub queues: Vec<Option<VirtQueue>>,
}
