//! A split virtqueue as a device uses it: take chains, finish chains, tell the driver.
//!
//! The available side is `virtio_queue`'s; chains are walked to their end before anything in them is used, so that a
//! device sees whole, checked chains or an error. An error means the driver broke the rules of the ring (or is
//! hostile): the device then gives the queue to [`VirtQueue::broken`] and touches it no more.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{GuestMemoryError, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::buffers::{Buffers, NotMemory};
use super::interrupts::Interrupts;
use super::used::UsedRing;

/// Pieces a chain may have. Drivers may use as many as the queue has entries (§2.7.5.3.1); Linux stays below 260. Two
/// such chains fit one system call's limit of 1024 (IOV_MAX).
pub(crate) const MAX_PIECES: usize = 511;

/// How a driver broke a ring.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueueError {
    #[error("available index is more than the queue's size ahead, or the ring cannot be read: {0}")]
    Available(virtio_queue::Error),
    #[error("chain {head} ends in a descriptor that does not exist, loops, or nests indirect tables")]
    Chain { head: u16 },
    #[error("chain {head} has more than {MAX_PIECES} pieces")]
    TooLong { head: u16 },
    #[error("chain {head} has a buffer outside of memory: {len} bytes at {address:#x}")]
    Buffer { head: u16, address: u64, len: u32 },
    #[error("chain {head} has a readable buffer after a writable one")]
    Order { head: u16 },
    #[error("chain {head} is of the wrong shape for this queue")]
    Shape { head: u16 },
    #[error("a ring cannot be accessed: {0}")]
    Memory(#[from] GuestMemoryError),
}

/// A chain taken from a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Names the chain when it is given back.
    pub(crate) head: u16,
    /// Pieces appended to the list of buffers the device reads.
    pub(crate) readable: usize,
    /// Pieces appended to the list of buffers the device writes.
    pub(crate) writable: usize,
}

/// One queue of an active device.
pub struct VirtQueue {
    index: u16,
    queue: Queue,
    used: UsedRing,
    memory: GuestMemoryMmap<()>,
    kick: EventFd,
    interrupts: Arc<Interrupts>,
}

impl VirtQueue {
    /// `queue` must be ready and valid in `memory`. `kick` is written when the driver rings the doorbell.
    pub(super) fn new(
        index: u16,
        queue: Queue,
        memory: GuestMemoryMmap<()>,
        kick: EventFd,
        interrupts: Arc<Interrupts>,
    ) -> Self {
        let used = UsedRing::new(&queue);
        Self { index, queue, used, memory, kick, interrupts }
    }

    /// Readable when the driver rang the doorbell.
    pub(crate) fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// An empty list of buffers for this queue's chains.
    pub(crate) fn buffers(&self) -> Buffers {
        Buffers::new(self.memory.clone())
    }

    /// Takes the next chain, if there is one, and appends its buffers to the two lists. On error nothing is appended.
    pub(crate) fn pop(&mut self, readable: &mut Buffers, writable: &mut Buffers) -> Result<Option<Chain>, QueueError> {
        self.pop_into(Some(readable), Some(writable))
    }

    /// The same for a queue whose chains the device only reads.
    pub(crate) fn pop_readable(&mut self, readable: &mut Buffers) -> Result<Option<Chain>, QueueError> {
        self.pop_into(Some(readable), None)
    }

    /// The same for a queue whose chains the device only writes.
    pub(crate) fn pop_writable(&mut self, writable: &mut Buffers) -> Result<Option<Chain>, QueueError> {
        self.pop_into(None, Some(writable))
    }

    fn pop_into(
        &mut self,
        mut readable: Option<&mut Buffers>,
        mut writable: Option<&mut Buffers>,
    ) -> Result<Option<Chain>, QueueError> {
        let Some(chain) = self.queue.iter(&self.memory).map_err(QueueError::Available)?.next() else {
            return Ok(None);
        };
        let head = chain.head_index();
        let pieces = |list: &Option<&mut Buffers>| list.as_ref().map_or(0, |list| list.pieces());
        let before = (pieces(&readable), pieces(&writable));
        match walk(chain, &mut readable, &mut writable) {
            Ok(()) => {
                Ok(Some(Chain { head, readable: pieces(&readable) - before.0, writable: pieces(&writable) - before.1 }))
            }
            Err(error) => {
                readable.into_iter().for_each(|list| list.truncate(before.0));
                writable.into_iter().for_each(|list| list.truncate(before.1));
                Err(error)
            }
        }
    }

    /// Gives a chain back with `bytes` written into it; the driver sees it after [`Self::publish`].
    pub(crate) fn put(&mut self, head: u16, bytes: u32) -> Result<(), QueueError> {
        Ok(self.used.put(&self.memory, head, bytes)?)
    }

    /// Shows the driver everything put so far, at once.
    pub(crate) fn publish(&mut self) -> Result<(), QueueError> {
        Ok(self.used.publish(&self.memory)?)
    }

    /// Interrupts the driver if it wants to hear of what was published since the last call. Once per burst.
    pub(crate) fn interrupt(&mut self) -> Result<(), QueueError> {
        if self.used.wants_interrupt(&self.memory)? {
            self.interrupts.queue(self.index);
        }
        Ok(())
    }

    /// Asks the driver not to kick; a hint.
    pub(crate) fn disable_kicks(&mut self) -> Result<(), QueueError> {
        self.queue.disable_notification(&self.memory).map_err(QueueError::Available)
    }

    /// Asks the driver to kick at its next chain; true if one came meanwhile, which it may not kick for.
    pub(crate) fn enable_kicks(&mut self) -> Result<bool, QueueError> {
        self.queue.enable_notification(&self.memory).map_err(QueueError::Available)
    }

    /// The driver broke this queue: says so, and tells the driver that the device needs a reset (§2.1.2). The queue
    /// must not be used any more.
    pub(crate) fn broken(&self, device: &str, error: &QueueError) {
        if self.interrupts.may_complain(device) {
            let queue = self.index;
            tracing::warn!(device, queue, %error, "the guest broke a virtqueue; it stops until a reset");
        }
        self.interrupts.needs_reset();
    }
}

/// Appends a chain's buffers to the lists. The iterator copies each descriptor once and ends, without saying why, at
/// the first one it can't follow; it takes at most as many steps as the table has entries. A chain is whole if the last
/// descriptor seen has no successor.
fn walk(
    chain: DescriptorChain<&GuestMemoryMmap<()>>,
    readable: &mut Option<&mut Buffers>,
    writable: &mut Option<&mut Buffers>,
) -> Result<(), QueueError> {
    let head = chain.head_index();
    let (mut whole, mut written, mut count) = (false, false, 0);
    for descriptor in chain {
        let (address, len) = (descriptor.addr().0, descriptor.len());
        if !descriptor.is_write_only() && written {
            return Err(QueueError::Order { head });
        }
        written = descriptor.is_write_only();
        let list = if written { writable.as_deref_mut() } else { readable.as_deref_mut() };
        let list = list.ok_or(QueueError::Shape { head })?;
        let before = list.pieces();
        list.push(address, len).map_err(|NotMemory| QueueError::Buffer { head, address, len })?;
        count += list.pieces() - before;
        if count > MAX_PIECES {
            return Err(QueueError::TooLong { head });
        }
        whole = !descriptor.has_next();
    }
    if whole { Ok(()) } else { Err(QueueError::Chain { head }) }
}
