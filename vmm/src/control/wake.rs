//! EDGE: an eventfd used as a bell: ring it as often as you like, the sleeper wakes once.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// A bell; readable while it has been rung and not cleared.
#[derive(Debug)]
pub(crate) struct Wake(EventFd);

impl Wake {
    pub(crate) fn new() -> io::Result<Self> {
        EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map(Wake)
    }

    /// Rings. The one possible failure is a full counter, and then it rings already.
    pub(crate) fn signal(&self) {
        let _ = self.0.write(1);
    }

    /// Silences it; says whether it had been rung.
    pub(crate) fn clear(&self) -> bool {
        self.0.read().is_ok()
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as `self.0` is, and the borrow keeps `self` alive.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}
