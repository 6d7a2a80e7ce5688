//! The used ring (virtio 1.2 §2.7.8): entries are written as buffers are finished and made visible by one store.
//!
//! A frame that takes several buffers must become visible as a whole: the Linux driver drops it if `used.idx` covers
//! only a part. That, and interrupting once per burst, is why `virtio_queue`'s own publisher is not used.

use std::num::Wrapping;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

/// Where `idx` is in both rings, and where the entries start.
const IDX: u64 = 2;
const ENTRIES: u64 = 4;
/// Bytes of an entry of the used ring (id, length) and of the available ring (id).
const USED_ENTRY: u64 = 8;
const AVAIL_ENTRY: u64 = 2;

/// Writer of one used ring.
#[derive(Debug)]
pub(super) struct UsedRing {
    used: GuestAddress,
    avail: GuestAddress,
    size: u16,
    event_idx: bool,
    /// Where the next entry goes.
    next: Wrapping<u16>,
    /// What the driver can see.
    published: Wrapping<u16>,
    /// What the driver could see when we last asked whether to interrupt it.
    considered: Wrapping<u16>,
}

impl UsedRing {
    /// For a queue whose rings were found to lie in memory, nothing in use yet.
    pub(super) fn new(queue: &Queue) -> Self {
        Self {
            used: GuestAddress(queue.used_ring()),
            avail: GuestAddress(queue.avail_ring()),
            size: queue.size(),
            event_idx: queue.event_idx_enabled(),
            next: Wrapping(0),
            published: Wrapping(0),
            considered: Wrapping(0),
        }
    }

    /// Writes an entry: the chain that starts at `head` is finished, `bytes` were written into it. Not yet visible.
    pub(super) fn put(&mut self, memory: &GuestMemoryMmap<()>, head: u16, bytes: u32) -> Result<(), GuestMemoryError> {
        let at = GuestAddress(self.used.0 + ENTRIES + USED_ENTRY * u64::from(self.next.0 % self.size));
        let entry = u64::from(head) | u64::from(bytes) << 32;
        memory.write_obj(entry.to_le(), at)?;
        self.next += 1;
        Ok(())
    }

    /// Makes everything put so far visible at once.
    pub(super) fn publish(&mut self, memory: &GuestMemoryMmap<()>) -> Result<(), GuestMemoryError> {
        if self.published != self.next {
            // Release: the entries written by `put`, and the data in the buffers, are visible before the index is.
            memory.store(self.next.0.to_le(), GuestAddress(self.used.0 + IDX), Ordering::Release)?;
            self.published = self.next;
        }
        Ok(())
    }

    /// Whether the driver wants an interrupt for what was published since the last time this was asked (§2.7.7.2).
    pub(super) fn wants_interrupt(&mut self, memory: &GuestMemoryMmap<()>) -> Result<bool, GuestMemoryError> {
        if self.considered == self.published {
            return Ok(false);
        }
        // Full fence between our store of used.idx and our load of used_event (or flags); the driver has the mirror
        // image between its store of those and its last look at used.idx. Without it both could miss the other's store.
        fence(Ordering::SeqCst);
        let old = std::mem::replace(&mut self.considered, self.published);
        if self.event_idx {
            let at = GuestAddress(self.avail.0 + ENTRIES + AVAIL_ENTRY * u64::from(self.size));
            let event = Wrapping(u16::from_le(memory.load(at, Ordering::Relaxed)?));
            Ok(self.published - event - Wrapping(1) < self.published - old)
        } else {
            let flags = u16::from_le(memory.load(self.avail, Ordering::Relaxed)?);
            Ok(flags & VRING_AVAIL_F_NO_INTERRUPT as u16 == 0)
        }
    }
}
