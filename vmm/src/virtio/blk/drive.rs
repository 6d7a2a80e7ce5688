//! What the queues of one disk share, with each other and with whoever looks at it while it is used: counters and limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::virtio::throttle::Limiter;

/// A disk as its threads see it.
#[derive(Debug, Default)]
pub(crate) struct Drive {
    limit: Arc<Limiter>,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    errors: AtomicU64,
}

/// Its counters at one moment, since the machine was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DriveCount {
    pub(crate) reads: u64,
    pub(crate) read_bytes: u64,
    pub(crate) writes: u64,
    pub(crate) written_bytes: u64,
    /// Requests that the image failed.
    pub(crate) errors: u64,
}

impl Drive {
    /// How much of it may be used.
    pub(crate) fn limit(&self) -> &Arc<Limiter> {
        &self.limit
    }

    pub(crate) fn count(&self) -> DriveCount {
        let of = |total: &AtomicU64| total.load(Ordering::Relaxed);
        DriveCount {
            reads: of(&self.reads),
            read_bytes: of(&self.read_bytes),
            writes: of(&self.writes),
            written_bytes: of(&self.written_bytes),
            errors: of(&self.errors),
        }
    }

    pub(super) fn read(&self, bytes: usize) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }
}
